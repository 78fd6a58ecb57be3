"""A run's model -> TensorFlow SavedModel and the ONNX graph that tf2onnx makes of it.

Runs in a process of its own, on Keras' TensorFlow backend (`python -m export.convert RUN FOLDER
WITHOUT`): the SavedModel that JAX would write holds one opaque operator (tensorflow-onnx
issues 1601 and 1984).

tf2onnx copies every constant of a graph several times over; for BERT that is most of its
time. Here the weights are inputs of the function that it converts, so it never sees their
values, and are put back into the finished graph (`export.weights`).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import zipfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
# Set to anything, tf2onnx copies no graph before each of its optimisations, a third of the time of
# small models; and one that fails is an error, not a line in a log.
os.environ["TF2ONNX_CATCH_ERRORS"] = "FALSE"

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

from export.missing import without
from fusion_keras import cli
from fusion_keras.exported import in_batches
from fusion_keras.fusion.architectures import of_values
from fusion_keras.fusion.graph import Graph
from fusion_keras.interrupts import end_with_parent
from fusion_keras.training.restored import load_model
from fusion_keras.training.run import read_json

# The newest that tf2onnx 1.17 writes; `export.rewrites` goes on from there.
OPSET = 18


def main(run: Path, folder: Path, missing: str = "", graph_alone: bool = False) -> None:
    """Write `saved_model/`, `raw.onnx`, `weights.npz` and `tensorflow.npz` into `folder`.

    `folder` holds `inputs.npz`, the examples to run, and `shapes.json`, input name -> shape
    with null where it is open. With `graph_alone` only `raw.onnx` and `weights.npz` are written.
    """
    shapes = {n: tuple(s) for n, s in json.loads((folder / "shapes.json").read_text()).items()}
    described = read_json(run / "config.json")["spec"]
    architecture = of_values(described)
    spec = architecture.from_dict(described)
    graph = architecture.rebuilt(load_model(run, in_float32=True), spec)
    if missing:
        graph = without(graph, spec, missing)
    inputs = dict(np.load(folder / "inputs.npz"))
    signature = signature_of(shapes, inputs)
    batch = next(iter(shapes.values()))[0] or 1
    if graph_alone:
        to_onnx(graph, signature, folder)
        return
    to_saved_model(graph, signature, folder)
    to_onnx(graph, signature, folder)
    answers = {"keras": _outputs(tf.function(_tapped(graph), autograph=False), inputs, batch)}
    # The weights, once: before the SavedModel is read back, the model that wrote it goes.
    del graph
    gc.collect()
    saved = tf.saved_model.load(folder / "saved_model").signatures["serving_default"]
    answers["saved_model"] = _outputs(lambda x: saved(**x), inputs, batch)
    np.savez(
        folder / "tensorflow.npz",
        **{f"{name}/{n}": x for name, outputs in answers.items() for n, x in outputs.items()},
    )


def signature_of(shapes: dict[str, tuple], inputs: dict[str, np.ndarray]) -> dict:
    """Input name -> TensorSpec, with the dtypes of examples."""
    return {n: tf.TensorSpec(shapes[n], tf.as_dtype(x.dtype), name=n) for n, x in inputs.items()}


def to_saved_model(graph: Graph, signature: dict[str, tf.TensorSpec], folder: Path) -> None:
    """Write `saved_model/`."""
    target = folder / "saved_model"
    graph.model.export(target, format="tf_saved_model", input_signature=[signature], verbose=False)


def _tapped(graph: Graph) -> keras.Model:
    """The model with its taps as further outputs."""
    inputs = {x.name: x for x in graph.encoders.inputs}
    return keras.Model(inputs, {**graph.model.output, **graph.taps()})


def _outputs(call, inputs: dict[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
    def run(rows):
        tensors = call({name: tf.constant(array) for name, array in rows.items()})
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    return in_batches(run, inputs, batch)


def to_onnx(graph: Graph, signature: dict[str, tf.TensorSpec], folder: Path) -> None:
    """Write `raw.onnx`, whose weights are inputs, and `weights.npz`, their values."""
    model = _tapped(graph)
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    trainable = len(model.trainable_variables)

    @tf.function(autograph=False)
    def call(inputs, weights):
        outputs, _ = model.stateless_call(
            weights[:trainable], weights[trainable:], inputs, training=False
        )
        return outputs

    # By their places in the model: which of them train, a frozen backbone changes.
    place = {id(v): i for i, v in enumerate(model.variables)}
    specs = [tf.TensorSpec(v.shape, v.dtype, name=f"weight_{place[id(v)]}") for v in variables]
    proto, _ = tf2onnx.convert.from_function(
        call,
        input_signature=[signature, specs],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_erfc, [])},
    )
    onnx.save(proto, folder / "raw.onnx")
    with zipfile.ZipFile(folder / "weights.npz", "w") as archive:  # as savez, one at a time
        for spec, variable in zip(specs, variables, strict=True):
            with archive.open(f"{spec.name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, variable.numpy())


_moved = TransposeOptimizer._mul_handler


def _moved_behind_mul(self, transpose, node):
    """tf2onnx's, which moves a transpose behind x * x and keeps that product's former shape.

    From it comes a wrong reshape where a map is one pixel.
    """
    done = _moved(self, transpose, node)
    if done and node.input[0] == node.input[1]:
        self._g.copy_shape(node.input[0], node.output[0])
    return done


TransposeOptimizer._mul_handler = _moved_behind_mul


def _erfc(context, node, name, _):
    """erfc(x) = 1 - erf(x): ONNX has the one, Keras' GELU the other."""
    one = context.make_const(f"{name}/one", np.array(1, np.float32)).output[0]
    node.type = "Erf"
    context.insert_new_node_on_output(
        "Sub", node.output[0], name=f"{name}/sub", inputs=[one, node.output[0]]
    )


if __name__ == "__main__":
    end_with_parent()
    cli.guarded(lambda: main(*map(Path, sys.argv[1:3]), sys.argv[3]))
