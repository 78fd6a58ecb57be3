"""Image + text classification with the fusion depth as one knob, for edge devices.

The order in which files may import one another:
data -> backbones -> fusion -> training -> the entry modules (train, sweep).
"""

import os

# Keras reads its backend once, at import. Training runs on JAX; the exporter sets
# KERAS_BACKEND=tensorflow before it imports this package.
os.environ.setdefault("KERAS_BACKEND", "jax")

__version__ = "0.1.0"
