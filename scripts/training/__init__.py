"""What the commands train, export and evaluate with."""
