"""A device whose rates make round nanoseconds, and rows of costs."""

from bench.edge import device

# 100 FLOPs take a nanosecond, 10 bytes another; int8 is four times as fast.
PROFILE = {
    "format": device.FORMAT,
    "device": "by hand",
    "engine": "ort",
    "kind": "measured",
    "matrix_gflops": {"fp32": 100, "int8": 400},
    "convolution_gflops": 50,
    "depthwise_gflops": 5,
    "bandwidth_gbs": 10,
    "launch_us": 1.0,
    "spread": 0.1,
    "fingerprint": {"cpu": "by hand"},
}


def row(operator, flops, moved, weights=0, name="node"):
    return {
        "name": name,
        "operator": operator,
        "flops": flops,
        "bytes": moved,
        "weights": weights,
    }
