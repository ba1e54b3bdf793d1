"""What a policy sees, and how its output becomes a command."""
