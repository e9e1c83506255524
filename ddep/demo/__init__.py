"""The demonstration: the whole method on a small generated data set."""
