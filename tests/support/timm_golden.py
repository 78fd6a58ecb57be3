"""What timm itself gives, for `tests/test_timm.py`; this file writes it where timm can be imported.

    python -m tests.support.timm_golden

timm imports torchvision, whose wheel must be of the same build as PyTorch: no extra brings either.
Weights and pixels are worked out from names, so that the file holds nothing but what came of them.
"""

import hashlib
import json
import math
import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".json")
# Name -> (timm's architecture, arguments of `timm.create_model`, edge of the images). Strides meet
# the last column of odd sizes.
CASES = {
    "small": ("mobilenetv3_small_050", {}, 64),
    "small, SAME": ("tf_mobilenetv3_small_075", {}, 45),
    "lite": ("efficientnet_lite0", {"bn_eps": 0.1}, 37),
    "lite, SAME": ("tf_efficientnet_lite2", {}, 45),
    "large": ("mobilenetv3_large_100", {"bn_eps": 0.1}, 64),
    "large, SAME": ("tf_mobilenetv3_large_075", {}, 45),
}
_ROWS, _VALUES = 2, 8


def pixels(size: int) -> np.ndarray:
    """float32 [B, 3, S, S] in [-1, 1]."""
    drawn = np.random.default_rng(0).random((_ROWS, 3, size, size))
    return (2 * drawn - 1).astype(np.float32)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Values for tensors of PyTorch, each from its name, that let no tap fade or explode."""
    return {name: _drawn(name, shape).astype(np.float32) for name, shape in shapes.items()}


def _drawn(name: str, shape) -> np.ndarray:
    # Uniform in [-1, 1]: `random` of a generator stays what it is from one numpy to the next.
    noise = 2 * np.random.default_rng(zlib.crc32(name.encode())).random(shape) - 1
    if name.endswith("running_var"):
        return 1 + 0.5 * noise
    if len(shape) == 1:
        scale = 1.0 if name.endswith("weight") else 0.0
        return scale + 0.3 * noise
    gain = 0.2 if ".se." in name else 1.4
    return gain * noise * math.sqrt(3 / math.prod(shape[1:]))


def digest(shapes: dict[str, tuple[int, ...]]) -> str:
    """Of all names and shapes."""
    lines = sorted(f"{name} {list(shape)}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def sample(tap: np.ndarray) -> dict:
    """A few values of a tap, spread over it, its shape and its largest magnitude."""
    places = np.linspace(0, tap.size - 1, _VALUES).astype(int)
    values = [float(f"{x:.6g}") for x in tap.reshape(-1)[places]]
    return {"shape": list(tap.shape), "largest": float(f"{abs(tap).max():.6g}"), "values": values}


def held(tensors: dict) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what of a state dict is the backbone's."""
    left_out = ("num_batches_tracked", "classifier.weight", "classifier.bias")
    return {n: tuple(x.shape) for n, x in tensors.items() if not n.endswith(left_out)}


def taps_of(model, x) -> list:
    """Stem, every block, channels last, and what the classifier of a model of timm reads."""
    found = []
    blocks = [block for stage in model.blocks for block in stage if hasattr(block, "conv_dw")]
    for module in (model.bn1, *blocks):
        module.register_forward_hook(lambda _m, _i, y: found.append(y.permute(0, 2, 3, 1).clone()))
    found.append(model.forward_head(model.forward_features(x), pre_logits=True))
    return found


def main() -> None:
    """Write the file."""
    import timm
    import torch

    made = {"timm": timm.__version__, "cases": {}}
    for case, (architecture, arguments, size) in CASES.items():
        model = timm.create_model(architecture, **arguments).eval()
        shapes = held(model.state_dict())
        tensors = {n: torch.from_numpy(x) for n, x in weights(shapes).items()}
        model.load_state_dict(tensors, strict=False)
        model.double()  # the digits of the comparison are then ours to lose
        with torch.no_grad():
            found = taps_of(model, torch.from_numpy(pixels(size)).double())
        taps = [sample(y.numpy()) for y in found]
        made["cases"][case] = {"tensors": digest(shapes), "taps": taps}
    FILE.write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
