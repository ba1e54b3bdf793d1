"""Browser, window and video."""
