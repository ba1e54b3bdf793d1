"""The physics engines."""
