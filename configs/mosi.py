"""CMU-MOSI as the paper has it: BERT-base and MobileNetV2 1.4, the middle frame at 224 px.

    python -m fusion_keras.train --config=configs/mosi.py --variant=inter --recipe=paper \
        --config.data.path=label.csv --config.data.mosi.raw_dir=Raw

The label file is MMSA's `label.csv`; `Raw/<video_id>/<clip_id>.mp4` are the clips, whose
middle frames are decoded once into the cache. A folder of ready frames goes in with
--config.data.mosi.frames_dir instead. The clips are not distributed with the labels: you
bring them.
"""

from configs.manifest import get_config as manifest_config


def get_config():
    config = manifest_config()
    config.name = "mosi"
    config.data.source = "mosi"
    return config
