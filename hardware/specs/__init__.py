"""What must be known of each robot to command it."""
