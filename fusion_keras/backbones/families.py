"""Which backbones there are of each modality, and which of them a directory's config.json names."""

from fusion_keras.backbones.albert import AlbertBackbone
from fusion_keras.backbones.audio_cnn import AudioCnnBackbone
from fusion_keras.backbones.bert import BertBackbone
from fusion_keras.backbones.clip import CLIPVisionBackbone
from fusion_keras.backbones.clip_text import CLIPTextBackbone
from fusion_keras.backbones.convnext import ConvNextBackbone, ConvNextV2Backbone
from fusion_keras.backbones.deberta_v2 import DebertaV2Backbone
from fusion_keras.backbones.deit import DeiTBackbone
from fusion_keras.backbones.dinov2 import Dinov2Backbone
from fusion_keras.backbones.distilbert import DistilBertBackbone
from fusion_keras.backbones.efficientnet import EfficientNetBackbone
from fusion_keras.backbones.efficientnet_lite import EfficientNetLiteBackbone
from fusion_keras.backbones.electra import ElectraBackbone
from fusion_keras.backbones.hf_files import kind_of
from fusion_keras.backbones.mobilenet_v2 import MobileNetV2Backbone
from fusion_keras.backbones.mobilenet_v3 import MobileNetV3Backbone
from fusion_keras.backbones.preprocessing import Family
from fusion_keras.backbones.resnet import ResNetBackbone
from fusion_keras.backbones.roberta import RobertaBackbone
from fusion_keras.backbones.siglip import SiglipVisionBackbone
from fusion_keras.backbones.sources import read_json
from fusion_keras.backbones.vit import ViTBackbone
from fusion_keras.backbones.whisper import WhisperBackbone
from fusion_keras.data.images import ImageSpec
from fusion_keras.errors import UsageError

TEXT = (
    *(BertBackbone, DistilBertBackbone, RobertaBackbone, ElectraBackbone, AlbertBackbone),
    *(CLIPTextBackbone, DebertaV2Backbone),
)
AUDIO = (AudioCnnBackbone, WhisperBackbone)

# How the published checkpoints of a family bring an image to their size; for presets that
# do not say it themselves.
IMAGE = {
    ViTBackbone: Family(ImageSpec(224, resize="squash")),
    MobileNetV2Backbone: Family(ImageSpec(224, "crop", 0.875)),
    ResNetBackbone: Family.of_imagenet(ImageSpec(224, "crop", 0.875, "bicubic")),
    DeiTBackbone: Family.of_imagenet(ImageSpec(224, "squash_crop", 0.875, "bicubic")),
    EfficientNetBackbone: Family(
        ImageSpec(224, "squash", interpolation="nearest"),
        (0.485, 0.456, 0.406),
        (0.47853944, 0.4732864, 0.47434163),
        include_top=True,
    ),
    Dinov2Backbone: Family.of_imagenet(ImageSpec(224, "crop", 0.875, "bicubic")),
    CLIPVisionBackbone: Family(
        ImageSpec(224, "crop", interpolation="bicubic"),
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
    SiglipVisionBackbone: Family(ImageSpec(224, "squash", interpolation="bicubic")),
    MobileNetV3Backbone: Family.of_imagenet(ImageSpec(224, "crop", 0.875, "bicubic")),
    EfficientNetLiteBackbone: Family.of_imagenet(ImageSpec(224, "crop", 0.875, "bicubic")),
    ConvNextBackbone: Family.of_imagenet(ImageSpec(224, "crop", 0.875, "bicubic")),
    ConvNextV2Backbone: Family.of_imagenet(ImageSpec(224, "crop", 0.875, "bicubic")),
}


def text_class(directory):
    """The backbone class that a directory's config.json names."""
    config = read_json(directory / "config.json")
    kind = config.get("registered_name") or config.get("model_type")
    classes = {known: cls for cls in TEXT for known in cls.kinds()}
    if kind in ("siglip", "siglip_text_model"):
        raise UsageError(
            f"got SigLIP in {directory} for the text backbone, whose text tower learned without a "
            "mask and reads its padding, which a model here leaves out; wanted a model with a "
            f"mask, of {_types(classes)}. SigLIP's image tower is an image preset."
        )
    return _of_kind(kind, classes, directory, "text")


def image_class(directory):
    """The backbone class that a directory's config.json names."""
    classes = {kind: cls for cls in IMAGE for kind in cls.model_types()}
    classes |= {f"fusion_keras>{cls.__name__}": cls for cls in IMAGE}
    return _named(directory, "image", {**classes, "keras_hub>ViTBackbone": ViTBackbone})


def audio_class(directory):
    """The backbone class that a directory's config.json names."""
    classes = {WhisperBackbone.model_type: WhisperBackbone}
    saved = {f"fusion_keras>{cls.__name__}": cls for cls in AUDIO}
    return _named(directory, "audio", classes | saved)


def _named(directory, modality, classes):
    """The one of `classes` whose name a directory's config.json has."""
    config = read_json(directory / "config.json")
    kind = config.get("registered_name") or kind_of(config)
    return _of_kind(kind, classes, directory, modality)


def _of_kind(kind, classes, directory, modality):
    """The one of `classes` by its name in a directory's config.json."""
    if not isinstance(kind, str) or kind not in classes:
        raise UsageError(
            f"got a model of type {kind!r} in {directory / 'config.json'} for the {modality} "
            f"backbone, wanted one of {_types(classes)}; choose another preset."
        )
    return classes[kind]


def _types(classes):
    """Model types as users know them: without the names that `save_to_preset` writes."""
    return ", ".join(kind for kind in classes if ">" not in kind)
