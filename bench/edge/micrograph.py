"""ONNX files of a few nodes, written without the `onnx` package, which a device may lack.

The functions from `products` on give the graphs that `bench.device` times: chains, float32
[...] x -> y, of nodes of one kind that no engine can fold.

Protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding): a field is a
varint key, number << 3 | wire type, and then a varint (type 0), a 32-bit value (5) or a length
and bytes (2). Field numbers are those of onnx.proto
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import struct

import numpy as np

# IR 8 and operator set 17 are read by every ONNX Runtime since 1.12 and by TensorRT 10.
_IR_VERSION, _OPSET = 8, 17
# TensorProto.DataType
_DTYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
# AttributeProto.AttributeType
_FLOAT, _INT, _INTS = 1, 2, 7
# Nodes of `launches`.
LAUNCHES = 300


def node(operator: str, inputs: list[str], outputs: list[str], **attributes) -> bytes:
    """A NodeProto, named as its first output; attributes are a float, an int or a list of int."""
    return b"".join(
        [
            *(_text(1, name) for name in inputs),
            *(_text(2, name) for name in outputs),
            _text(3, outputs[0]),
            _text(4, operator),
            *(_message(5, _attribute(*item)) for item in attributes.items()),
        ]
    )


def model(
    nodes: list[bytes],
    constants: dict[str, np.ndarray],
    inputs: dict[str, tuple[str, tuple[int, ...]]],
    outputs: dict[str, tuple[str, tuple[int, ...]]],
) -> bytes:
    """A ModelProto; inputs and outputs are name -> (dtype as numpy calls it, shape)."""
    graph = b"".join(
        [
            *(_message(1, made) for made in nodes),
            _text(2, "micrograph"),
            *(_message(5, _tensor(*item)) for item in constants.items()),
            *(_message(11, _value(name, *kind)) for name, kind in inputs.items()),
            *(_message(12, _value(name, *kind)) for name, kind in outputs.items()),
        ]
    )
    opset = _text(1, "") + _number(2, _OPSET)
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, opset)


def products(rows: int, count: int) -> bytes:
    """[rows, 768] by 768 x 3072 and by 3072 x 768 in turn, every matrix another."""
    constants = _weights(count, (768, 3072), (3072, 768))
    steps = [("MatMul", [f"w{i}"], {}) for i in range(count)]
    return _chain(steps, constants, (rows, 768), (rows, 768))


def products_int8(rows: int, count: int) -> bytes:
    """The same with 8-bit weights, as dynamic quantization writes it: inputs rounded on the way."""
    nodes, at = [], "x"
    constants = {"zero": np.zeros((), np.int8), "scale": np.array(1 / (64 * 768), np.float32)}
    rng = np.random.default_rng(0)
    for i in range(count):
        shape = (768, 3072) if i % 2 == 0 else (3072, 768)
        constants[f"w{i}"] = rng.integers(1, 127, shape, np.int8)
        made = "y" if i == count - 1 else f"v{i}"
        nodes += [
            node("DynamicQuantizeLinear", [at], [f"q{i}", f"s{i}", f"z{i}"]),
            node("MatMulInteger", [f"q{i}", f"w{i}", f"z{i}", "zero"], [f"p{i}"]),
            node("Cast", [f"p{i}"], [f"f{i}"], to=1),
            node("Mul", [f"s{i}", "scale"], [f"t{i}"]),
            node("Mul", [f"f{i}", f"t{i}"], [made]),
        ]
        at = made
    kind = ("float32", (rows, 768))
    return model(nodes, constants, {"x": kind}, {"y": kind})


def pointwise(deep: int, wide: int, side: int, count: int) -> bytes:
    """1 x 1 convolutions from `deep` to `wide` channels and back, on side x side."""
    constants = _weights(count, (wide, deep, 1, 1), (deep, wide, 1, 1))
    steps = [("Conv", [f"w{i}"], {"kernel_shape": [1, 1]}) for i in range(count)]
    return _chain(steps, constants, (1, deep, side, side), (1, deep, side, side))


def depthwise(wide: int, side: int, count: int) -> bytes:
    """3 x 3 depthwise convolutions, stride 1, of `wide` channels on side x side."""
    constants = _weights(count, (wide, 1, 3, 3))
    attributes = {"group": wide, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    steps = [("Conv", [f"w{i}"], attributes) for i in range(count)]
    return _chain(steps, constants, (1, wide, side, side), (1, wide, side, side))


def elements(size: int, count: int) -> bytes:
    """One number spread over an array, worked on `count` times, one number taken: no big input."""
    constants = {
        "shape": np.array([size], np.int64),
        "half": np.array(0.5, np.float32),
        "zero": np.zeros(1, np.int64),
        "one": np.ones(1, np.int64),
    }
    steps = [("Expand", ["shape"], {})]
    steps += [("Mul" if i % 2 else "Add", ["half"], {}) for i in range(count)]
    steps += [("Slice", ["zero", "one"], {})]
    return _chain(steps, constants, (1,), (1,))


def launches() -> bytes:
    """Nodes on 8 numbers, so small that the time is the engine's own."""
    constants = {"half": np.full(8, 0.5, np.float32)}
    kinds = [("Add", ["half"], {}), ("Mul", ["half"], {}), ("Softmax", [], {"axis": -1})]
    return _chain([kinds[i % 3] for i in range(LAUNCHES)], constants, (8,), (8,))


def _weights(count: int, *shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """w0, w1 ... of these shapes in turn.

    They keep what passes through them near one: subnormal numbers are slow. No two are equal:
    ONNX Runtime keeps equal constants once, and they would stream from the cache.
    """
    rng = np.random.default_rng(0)
    weights = {}
    for i in range(count):
        shape = shapes[i % len(shapes)]
        fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
        weights[f"w{i}"] = (rng.random(shape, np.float32) + 0.5) / np.float32(fan_in)
    return weights


def _chain(steps: list[tuple[str, list[str], dict]], constants: dict, shape, out) -> bytes:
    """Each step takes the output of the one before it, and constants."""
    nodes, at = [], "x"
    for i, (operator, others, attributes) in enumerate(steps):
        made = "y" if i == len(steps) - 1 else f"v{i}"
        nodes.append(node(operator, [at, *others], [made], **attributes))
        at = made
    return model(nodes, constants, {"x": ("float32", shape)}, {"y": ("float32", out)})


def _varint(value: int) -> bytes:
    if value < 0:
        value += 1 << 64  # as two's complement of 64 bits
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _attribute(name: str, value: float | int | list[int]) -> bytes:
    if isinstance(value, float):
        content = _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, _FLOAT)
    elif isinstance(value, int):
        content = _number(3, value) + _number(20, _INT)
    else:
        content = b"".join(_number(8, item) for item in value) + _number(20, _INTS)
    return _text(1, name) + content


def _tensor(name: str, array: np.ndarray) -> bytes:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    dims = b"".join(_number(1, size) for size in array.shape)
    kind = _number(2, _DTYPES[array.dtype.name])
    return dims + kind + _text(8, name) + _message(9, little.tobytes())


def _value(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(_message(1, _number(1, size)) for size in shape)
    tensor_type = _number(1, _DTYPES[dtype]) + _message(2, sizes)
    return _text(1, name) + _message(2, _message(1, tensor_type))
