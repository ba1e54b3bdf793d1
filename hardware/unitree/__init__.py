"""Unitree robots over SDK2, and simulated ones on the same wire."""
