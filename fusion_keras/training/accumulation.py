"""Gradient accumulation: a batch is learned from in parts, one after the other, for one update.

Of the outputs of layers, which backpropagation needs, only those of one part are held at a time.
The mean of the parts' gradients is the batch's, for all parts have as many rows and every loss is a
mean over rows; schedule, clipping and decay see one step, and a checkpoint holds nothing more.

Keras has `gradient_accumulation_steps`, which is not taken: its steps are parts, so a checkpoint
has a gradient more for each weight and every part works out an update to throw it away; and a
batch, which is augmented as a whole, would have to be cut between Grain and `fit`.
"""

from __future__ import annotations

import jax
import keras
from jax import numpy as jnp


class InParts(keras.Model):
    """A functional model whose training step learns from a batch in `parts` parts."""

    parts = 1

    def train_step(self, state, data):
        """As `keras.Model.train_step` on JAX, for inputs and targets without weights of rows.

        What layers change as they learn goes from part to part: BatchNorm's statistics, and the
        state of random numbers, of which each part draws its own.
        """
        trainable, others, optimizer_variables, metrics = state
        inputs, targets, _ = keras.utils.unpack_x_y_sample_weight(data)
        gradients_of = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)

        def learn(carried, part):
            total, others, metrics = carried
            (_, (loss, _, others, metrics)), gradients = gradients_of(
                trainable,
                others,
                metrics,
                *part,
                None,
                training=True,
                optimizer_variables=optimizer_variables,
            )
            total = [a + b for a, b in zip(total, gradients, strict=True)]
            return (total, others, metrics), loss

        start = [jnp.zeros_like(value) for value in trainable], others, metrics
        parts = jax.tree.map(self._divided, (inputs, targets))
        (total, others, metrics), losses = jax.lax.scan(learn, start, parts)
        gradients = [value / self.parts for value in total]
        trainable, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, gradients, trainable
        )
        logs, metrics = self._with_loss(metrics, losses.mean())
        return logs, (trainable, others, optimizer_variables, metrics)

    def _divided(self, values):
        """[B, ...] -> [parts, B / parts, ...]; row r is in part r % parts.

        Each device has some of a batch's rows, one behind the other, and so as many of each part.
        """
        apart = values.reshape(-1, self.parts, *values.shape[1:])
        return jnp.moveaxis(apart, 1, 0)

    def _with_loss(self, metrics, loss):
        """What `fit` shows, and the metrics' variables once the batch's loss is among them."""
        logs, after = {}, []
        for metric in self.metrics:
            values = metrics[len(after) : len(after) + len(metric.variables)]
            if metric.name == "loss":
                values = metric.stateless_update_state(values, loss)
            logs[metric.name] = metric.stateless_result(values)
            after += values
        return logs, after


def in_parts(model: keras.Model, parts: int) -> keras.Model:
    """What to compile and fit for a model to learn from each batch in parts.

    Args:
        model: a functional model.
        parts: how many; each batch must be a multiple.

    Returns:
        For one part the model itself, else another one over the same layers.
    """
    if parts == 1:
        return model
    made = InParts({x.name: x for x in model.inputs}, model.output, name=model.name)
    made.parts = parts
    return made
