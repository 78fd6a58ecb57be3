"""As `mosi.py` with ViT-B/16 in MobileNetV2's place (Willis and Bakos 2025, section 3.4)."""

from configs.mosi import get_config as mosi_config


def get_config():
    config = mosi_config()
    config.name = "mosi_vit"
    config.image.preset = "vit_base"
    return config
