"""A robot on another machine."""
