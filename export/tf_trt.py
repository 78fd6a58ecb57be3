"""TF-TRT: an artifact's SavedModel with its subgraphs compiled by TensorRT, for TensorFlow users.

    python -m export.tf_trt ARTIFACT --out=DIR --precision=fp16

Runs on the device, with a TensorFlow that still has it: below 2.18, built with TensorRT, as
NVIDIA's for Jetson are. Everything else is better served by `python -m bench.engine`, which
needs no TensorFlow. The engines are built for the shapes of the artifact's golden examples.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np

from bench.edge import flags
from bench.edge.artifact import ArtifactError, golden, read
from bench.edge.entry import ends

PRECISIONS = ("fp32", "fp16")


def convert(folder: Path, out: Path, precision: str, workspace: int) -> None:
    """Write a SavedModel with TensorRT's engines in it to `out`, which must not be there.

    Args:
        folder: the artifact.
        precision: one of PRECISIONS.
        workspace: most scratch memory of an engine, MiB.

    Raises:
        ArtifactError: the artifact cannot be used, `out` is there, or this TensorFlow lacks it.
    """
    meta = read(folder)
    if out.exists():
        raise ArtifactError(f"{out} is there: give --out another name, or remove it.")
    converter = _converter_class()(
        input_saved_model_dir=str(folder / "saved_model"),
        precision_mode=precision.upper(),
        max_workspace_size_bytes=workspace << 20,
        use_dynamic_shape=None in meta["shapes"].values(),
    )
    batch = meta["shapes"]["batch"] or 1
    examples = {n: np.resize(x, (batch, *x.shape[1:])) for n, x in golden(folder)[0].items()}
    converter.convert()
    converter.build(input_fn=lambda: iter([examples]))
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    converter.save(output_saved_model_dir=str(partial))
    os.replace(partial, out)


def _converter_class():
    """TensorFlow's public `tf.experimental.tensorrt.Converter`.

    Raises:
        ArtifactError: this TensorFlow has none.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ArtifactError(f"TensorFlow is not installed here ({error}).") from None
    built = tf.sysconfig.get_build_info().get("is_tensorrt_build", True)
    converter = getattr(getattr(tf.experimental, "tensorrt", None), "Converter", None)
    if converter is None or not built:
        raise ArtifactError(
            f"TensorFlow {tf.__version__} has no TF-TRT, which left its builds at 2.18. Use "
            "`python -m bench.engine`, which needs no TensorFlow, or a TensorFlow below 2.18 built "
            "with TensorRT, such as NVIDIA's for Jetson."
        )
    return converter


@ends()
def main(arguments: list[str]) -> int:
    parser = flags.parser("export.tf_trt", __doc__)
    add = parser.add_argument
    add("artifact", type=Path, help="what `python -m export` wrote")
    add("--out", type=Path, required=True, help="the new SavedModel")
    add("--precision", choices=PRECISIONS, default="fp16", help="default: fp16")
    add("--workspace", type=flags.positive, default=1024, help="MiB (default 1024)")
    options = parser.parse_args(arguments)
    convert(options.artifact, options.out, options.precision, options.workspace)
    print(f"SavedModel: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
