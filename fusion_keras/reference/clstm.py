"""The three C-LSTMs of Barnum, Talukder and Yue 2020 (arXiv 2011.07191) in PyTorch.

Written from the spec alone, as `model.py` is, and as one writes it for speed: whatever does not
depend on the hidden state is convolved before the loop over time, all four gates by one
convolution, and the first step, whose hidden state is zero, by none.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class ConvLSTM(nn.Module):
    """Figure 5 of the paper at every place of a map; the gates are f, i, g, o.

    Forward takes one map [B, C, H, W] and sound [B, T, F], or maps [B, T, C, H, W] alone;
    gives the pooled hidden states [B, T, U, H / 2, W / 2], or the last one with last.
    """

    def __init__(self, channels: int, units: int, kernel: int, heard: int = 0, last: bool = False):
        super().__init__()
        gates = 4 * units
        self.last = last
        self.seen = nn.Conv2d(channels, gates, kernel, padding="same")
        self.hidden = nn.Conv2d(units, gates, kernel, padding="same", bias=False)
        self.heard = nn.Linear(heard, gates, bias=False) if heard else None

    def forward(self, maps, sound=None):
        if self.heard is not None:
            entering = self.seen(maps)[:, None] + self.heard(sound)[..., None, None]
        else:
            entering = self.seen(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
        hidden, cell, each = None, 0.0, []
        for gates in entering.unbind(1):
            gates = gates if hidden is None else gates + self.hidden(hidden)
            forget, enter, change, leave = gates.chunk(4, 1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(change)
            hidden = torch.sigmoid(leave) * torch.tanh(cell)
            each.append(hidden)
        if self.last:
            return F.max_pool2d(hidden, 2)
        each = torch.stack(each, 1)
        return F.max_pool2d(each.flatten(0, 1), 2).unflatten(0, each.shape[:2])


class Lstm(nn.LSTM):
    """`nn.LSTM` over [B, T, F] with one bias for each gate: a second would learn a second time."""

    def __init__(self, size: int, units: int):
        super().__init__(size, units, batch_first=True)
        nn.init.zeros_(self.bias_hh_l0).requires_grad_(False)

    def forward(self, x):
        return super().forward(x)[0]


def _visual(channels: int, sizes: dict) -> nn.Conv2d:
    return nn.Conv2d(channels, sizes["units"], sizes["kernel"], padding="same")


def _pooled(x):
    return F.max_pool2d(F.relu(x), 2)


class Clstm(nn.Module):
    """One of the architectures.

    Args:
        spec: `config.json`'s "spec": architecture, sizes.

    Forward takes images uint8 or float [B, 1, S, S], 0 to 255, and spectrograms float32
    [B, T, F]; gives logits float32 [B, C].
    """

    # What a model of two backbones has, see `optimizers`.
    text = image = audio = None

    def __init__(self, spec: dict):
        super().__init__()
        self.spec = {"frozen": False, **spec}
        sizes, architecture = spec["sizes"], spec["architecture"]
        units, kernel, bins = sizes["units"], sizes["kernel"], sizes["bins"]
        if architecture == "clstm_initial":
            self.clstm1 = ConvLSTM(1, units, kernel, heard=bins)
            self.clstm2 = ConvLSTM(units, units, kernel, last=True)
        else:
            self.visual1, self.audio1 = _visual(1, sizes), Lstm(bins, units)
        if architecture == "clstm_second":
            self.clstm2 = ConvLSTM(units, units, kernel, heard=units, last=True)
        if architecture == "clstm_fc":
            self.visual2, self.audio2 = _visual(units, sizes), Lstm(units, units)
        features = units * (sizes["image"] // 2 // 2) ** 2
        features += units if architecture == "clstm_fc" else 0
        self.hidden = nn.Linear(features, sizes["hidden"])
        self.logits = nn.Linear(sizes["hidden"], sizes["classes"])

    def forward(self, image, spectrogram):
        features = getattr(self, "_" + self.spec["architecture"].removeprefix("clstm_"))
        x = features(image / 255, spectrogram)
        return self.logits(F.relu(self.hidden(x)))

    def _initial(self, image, spectrogram):
        return _flat(self.clstm2(self.clstm1(image, spectrogram)))

    def _second(self, image, spectrogram):
        seen = _pooled(self.visual1(image))
        return _flat(self.clstm2(seen, self.audio1(spectrogram)))

    def _fc(self, image, spectrogram):
        seen = _pooled(self.visual2(_pooled(self.visual1(image))))
        heard = self.audio2(self.audio1(spectrogram))[:, -1]
        return torch.cat([_flat(seen), heard], 1)


def _flat(x):
    """[B, U, H, W] -> [B, H * W * U], the order in which we keep the dense layer's weights."""
    return x.permute(0, 2, 3, 1).flatten(1)


def tensors(inputs: dict, device="cpu") -> dict[str, torch.Tensor]:
    """Our inputs, images [B, S, S, 1] and spectrograms [B, T, F] -> the reference's."""
    image, spectrogram = (
        torch.tensor(np.asarray(inputs[name]), device=device) for name in ("image", "spectrogram")
    )
    return {"image": image.permute(0, 3, 1, 2), "spectrogram": spectrogram}
