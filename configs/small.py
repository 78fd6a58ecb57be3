"""A small model on any table, for a CPU: MiniLM and MobileNetV2 1.0 at 96 px.

    python -m fusion_keras.train --config=configs/small.py --variant=inter \
        --config.data.path=my_data/manifest.csv --config.image.preset=MOBILENET_DIR

MiniLM comes with the installation. MOBILENET_DIR is a Hugging Face directory of
google/mobilenet_v2_1.0_224; left out, it is downloaded at the first use.
"""

from configs.manifest import get_config as manifest_config


def get_config():
    config = manifest_config()
    config.name = "small"
    config.data.max_length = 40
    config.text.preset = "minilm"
    config.image.preset = "mobilenet_v2_1.0"
    config.image.size = 96
    # Small images are often all face: cutting the centre out would lose some of it.
    config.image.resize = "squash"
    return config
