"""DeiT (Touvron et al. 2021): a ViT with a second learned token, for distillation."""

import keras

from fusion_keras.backbones.vit import ViTBackbone


@keras.saving.register_keras_serializable(package="fusion_keras")
class DeiTBackbone(ViTBackbone):
    """A distilled DeiT. One without the distillation token is published as a ViT.

    As ViTBackbone but for one token more in every tap, [B, 2 + P, D]: class token, distillation
    token, patches. The summary is the class token's, which `transformers`' DeiTModel pools and its
    classifier reads.
    """

    hub_class = None
    model_type = "deit"
    special_tokens = ("class_token", "distillation_token")
