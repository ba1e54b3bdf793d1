"""Many trainings, on many cores and machines."""
