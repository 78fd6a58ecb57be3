"""A trained run -> an artifact that a device can run."""
