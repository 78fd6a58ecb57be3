"""What named variants must know of backbones, in short."""

from pathlib import Path

from fusion_keras.backbones.bert import BertBackbone
from fusion_keras.backbones.facts import Facts
from fusion_keras.backbones.presets import TextPreset


def facts(text: int = 0, image: int = 0, image_scales: bool = False, audio: int = 0) -> dict:
    """Modality -> its `Facts`, of each with a depth; MobileNetV2's do not scale, ViT's do."""
    out_of = 12 if image_scales else image
    every = {"text": Facts(text), "image": Facts(image, out_of), "audio": Facts(audio)}
    return {modality: facts for modality, facts in every.items() if facts.num_depths}


def known(presets: dict) -> dict[str, Facts]:
    """Modality -> the facts of presets that are loaded."""
    return {m: Facts(p.backbone.num_depths, p.backbone.out_of) for m, p in presets.items()}


def text_preset(pad_id: int = 0) -> TextPreset:
    """A preset of a text that nothing runs: its ids alone are asked for."""
    return TextPreset(BertBackbone(10, 1, 1, 4, 4, pad_id=pad_id), Path())
