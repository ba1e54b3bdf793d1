"""One module per learning algorithm, with its hyperparameters as `Config`: see `../policy.py`."""
