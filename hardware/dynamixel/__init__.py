"""Chains of Dynamixel servos, and emulated ones on the same wire."""
