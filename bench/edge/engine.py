"""TensorRT engines of an artifact, built on the device that will run them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.edge.artifact import ArtifactError, read
from bench.edge.files import digest, write

# What the user asks for -> the artifact's model.
MODELS = {"fp32": "fp32", "fp16": "fp16", "int8": "int8_static"}
MIB = 1 << 20


def build(
    folder: Path,
    precision: str,
    *,
    workspace: int = 1024,
    max_batch: int = 8,
    timing_cache: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write an engine; returns its path.

    Args:
        folder: the artifact.
        precision: fp32, fp16 or int8.
        workspace: most memory for the tactics' scratch space, MiB.
        max_batch: of an artifact whose batch is open; its profiles are tuned for one example.
        timing_cache: file of the timings of an earlier build, read if it is there, and updated.
        say: told when the long part begins.

    Raises:
        BenchError: the artifact lacks this precision, TensorRT is not installed, or refuses; or
            a file cannot be written.
    """
    meta = read(folder)
    source = _model(meta, precision, folder)
    trt = _tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # as it reports that CUDA does not start
        raise ArtifactError(f"TensorRT finds no GPU that it can use ({error}).") from None
    network = parsed(trt, builder, logger, source)
    config, profiles = configured(trt, builder, network, meta["lengths"], workspace, max_batch)
    cache = config.create_timing_cache(_bytes(timing_cache))
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        raise ArtifactError(
            f"{timing_cache} holds timings of another GPU or TensorRT: remove it, or name another "
            "file."
        )
    say(f"Building {precision} of {source}: minutes, on a Jetson more ...")
    start = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ArtifactError(
            f"TensorRT {trt.__version__} could not build {source}; its messages stand above. "
            "Where they speak of memory, try --workspace with another number of MiB."
        )
    seconds = time.perf_counter() - start
    gpu = gpu_name()
    target = Path(folder) / "engines" / engine_name(precision, trt.__version__, gpu)
    described = {
        "model": source.name,
        "sha256": digest(source),
        "precision": precision,
        "tensorrt": trt.__version__,
        "gpu": gpu,
        "workspace_mib": workspace,
        "profiles": profiles,
        "build_seconds": seconds,
    }
    write(target, plan)
    write(target.with_suffix(".json"), json.dumps(described, indent=1))
    if timing_cache:
        write(timing_cache, config.get_timing_cache().serialize())
    return target


class RefusedError(ArtifactError):
    """TensorRT's parser refuses a graph.

    Attributes:
        nodes: of each node that it names: its name, its operator, and what is said of it.
    """

    def __init__(self, refuses: str, nodes: list[tuple[str, str, str]]):
        said = "; ".join(f"{operator} ({name}): {words}" for name, operator, words in nodes[:3])
        more = f"; and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        super().__init__(f"{refuses}: {said}{more}")
        self.nodes = nodes


def parsed(trt, builder, logger, source: Path):
    """The network of an ONNX file.

    Args:
        trt: TensorRT's bindings; builder, logger: of them.

    Raises:
        RefusedError: the parser's own words.
    """
    network = builder.create_network(_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        nodes = [(e.node_name(), e.node_operator(), _words(e)) for e in errors]
        raise RefusedError(f"{trt.__name__} {trt.__version__} refuses {source}", nodes)
    return network


def _words(error) -> str:
    """What the parser says of a node; its kind of error where that is the condition `false`."""
    return error.code().name if error.desc() == "false" else error.desc()


def configured(trt, builder, network, lengths: list[int], workspace: int, max_batch: int):
    """How a network is to be built: TensorRT's config, and its profiles; see `build`."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace * MIB)
    # It would round the inputs of fp32 products to 10 bits of mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    shapes = {x.name: tuple(x.shape) for x in inputs}
    profiles = profiles_of(shapes, lengths, max_batch)
    for ranges in profiles:
        profile = builder.create_optimization_profile()
        for name, (least, best, most) in ranges.items():
            profile.set_shape(name, least, best, most)
        config.add_optimization_profile(profile)
    return config, profiles


def profiles_of(
    shapes: dict[str, tuple[int, ...]], lengths: list[int], max_batch: int
) -> list[dict[str, tuple[tuple[int, ...], ...]]]:
    """Ranges (least, best, most) of every input with an open axis, -1; one profile a length.

    No open axis: no profile. Sentences come padded to one of `lengths` and to nothing else.
    """
    open_inputs = {name: shape for name, shape in shapes.items() if -1 in shape}
    if not open_inputs:
        return []
    profiles = []
    for length in lengths or [0]:
        ranges = {}
        for name, shape in open_inputs.items():
            rest = tuple(length if size == -1 else size for size in shape[1:])
            batches = (1, 1, max_batch) if shape[0] == -1 else (shape[0],) * 3
            ranges[name] = tuple((batch, *rest) for batch in batches)
        profiles.append(ranges)
        if "token_ids" not in open_inputs or -1 not in open_inputs["token_ids"][1:]:
            break
    return profiles


def engine_name(precision: str, version: str, gpu: str) -> str:
    """The file's name, which says where the engine holds."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", gpu).strip("-").lower()
    return f"{precision}-trt{version}-{plain}.engine"


def gpu_name() -> str:
    """The GPU as the driver calls it; on a Jetson, where all are "Orin (nvgpu)", the board."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        if name and "N/A" not in name and "(nvgpu)" not in name:
            return name.splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        pass
    board = Path("/proc/device-tree/model")
    return board.read_text().strip("\0\n ") if board.is_file() else "unknown-gpu"


def _flags(trt) -> int:
    """Strongly typed: always so from TensorRT 11 on, a choice in 10 and TensorRT-RTX.

    Raises:
        ArtifactError: it has no such networks.
    """
    if int(trt.__version__.split(".")[0]) >= 11:
        return 0
    flags = trt.NetworkDefinitionCreationFlag
    if not hasattr(flags, "STRONGLY_TYPED"):
        raise ArtifactError(
            f"{trt.__name__} {trt.__version__} is too old: it chooses a network's types itself, "
            "where an artifact has them in its ONNX file. Take TensorRT 10 or later; a Jetson has "
            "it from JetPack 6.1 on."
        )
    return 1 << int(flags.STRONGLY_TYPED)


def _model(meta: dict, precision: str, folder: Path) -> Path:
    model = meta["models"].get(MODELS[precision])
    if model is None:
        raise ArtifactError(
            f"{folder} has no {MODELS[precision]} model, only {', '.join(meta['models'])}: export "
            f"it with --precisions={MODELS[precision]}."
        )
    return Path(folder) / model["file"]


def _tensorrt():
    try:
        import tensorrt
    except ImportError as error:
        raise ArtifactError(
            f"TensorRT is not installed here ({error}). A Jetson has it with JetPack: use the "
            "system's Python, or a venv made with --system-site-packages. Elsewhere: pip install "
            "tensorrt."
        ) from None
    return tensorrt


def _bytes(path: Path | None) -> bytes:
    return path.read_bytes() if path and path.is_file() else b""
