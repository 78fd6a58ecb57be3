"""transformers' models as references: random weights that mean something, all taps."""

import keras
import numpy as np
import torch

TOLERANCE = 1e-4  # of the tap's largest value


def randomise(model, seed=0):
    """Draws every weight so that no tap fades and no attention is uniform; returns model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim <= 1:
                is_scale = "norm" in name.lower() and name.endswith("weight")
                tensor.copy_(0.2 * noise + (1.0 if is_scale else 0.0))
            elif "embedding" in name and "patch" not in name:
                tensor.copy_(noise)
            else:
                tensor.copy_(1.3 * noise / tensor[0].numel() ** 0.5)
    return model.eval()


def randomise_convolutions(model):
    """The same for MobileNetV2, BatchNorm's statistics too; drawn from torch's own generator."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            # He initialisation: with transformers' own 0.02 the deep taps fade to nothing.
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def all_taps(backbone, inputs):
    """Every tap and then the summary, as arrays."""
    outputs = [*backbone.taps.values(), backbone.summary]
    return [np.asarray(x) for x in keras.Model(backbone.input, outputs)(inputs, training=False)]


def worst_difference(ours, theirs):
    """The largest of max |difference| / max |value| over the taps; shapes must agree."""
    assert len(ours) == len(theirs)
    worst = 0.0
    for depth, (got, wanted) in enumerate(zip(ours, theirs, strict=True)):
        assert got.shape == wanted.shape, depth
        scale = np.abs(wanted).max()
        assert scale > 0.5, f"tap {depth} proves nothing: its values have faded"
        worst = max(worst, np.abs(got - wanted).max() / scale)
    return worst


def randomise_settled(model):
    """As `randomise_convolutions`, but that BatchNorm's statistics are near a batch's own.

    Far from them values grow from block to block, and a gate that is given hundreds where it turns
    within three makes of a rounding in its input a thousandfold one in its output, PyTorch's too.
    """
    randomise_convolutions(model)

    def settle(norm, inputs):
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        norm.running_mean.copy_(mean + 0.3 * torch.randn_like(mean) * variance.sqrt())
        norm.running_var.copy_(variance * (torch.rand_like(variance) + 0.5))

    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    with torch.no_grad():
        model(torch.rand(8, 3, 128, 128) * 2 - 1)
    for hook in hooks:
        hook.remove()
    return model
