"""As `small.py`, on data in CMU-MOSI's layout.

    python -m fusion_keras.train --config=configs/small_mosi.py --variant=late \
        --config.data.path=label.csv --config.data.mosi.frames_dir=frames \
        --config.image.preset=MOBILENET_DIR
"""

from configs.small import get_config as small_config


def get_config():
    config = small_config()
    config.name = "small_mosi"
    config.data.source = "mosi"
    return config
