"""Experiments, one file each: what to train, on what, how."""
