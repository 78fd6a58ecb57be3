"""Random initial weights that need no compiler."""

import math
import random

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="fusion_keras")
class HeNormal(keras.initializers.Initializer):
    """Normal weights of variance 2 / fan_in (He et al. 2015), drawn by numpy.

    JAX compiles its random generators anew for every shape, which is 10 s for MobileNetV2
    on two cores. The draw follows `keras.utils.set_random_seed`, as Keras's own do.
    """

    def __init__(self, fan_in: int | None = None):
        """Take the number of inputs to one output; None: all axes but the kernel's last."""
        self.fan_in = fan_in

    def __call__(self, shape, dtype=None):
        """Return a tensor of the given shape."""
        rng = np.random.default_rng(random.getrandbits(64))
        deviation = math.sqrt(2 / (self.fan_in or math.prod(shape[:-1])))
        weights = rng.normal(0, deviation, shape)
        return keras.ops.convert_to_tensor(weights, dtype or keras.config.floatx())

    def get_config(self):
        """Return the arguments of the constructor."""
        return {"fan_in": self.fan_in}
