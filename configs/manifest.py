"""Any table of sentences, images and labels, with full-size published backbones.

    python -m fusion_keras.train --config=configs/manifest.py --variant=inter \
        --config.data.path=my_data/manifest.csv

The table (CSV, TSV or JSON lines) has columns `text`, `image` (a path relative to the
table) and `label`, and may have `split`, `id`, `group` and `score`; other names are set
with --config.data.manifest.text_column=... and so on. BERT-base and MobileNetV2 1.4 come from
Hugging Face at the first use, about 460 MB; give local directories with
--config.text.preset=DIR --config.image.preset=DIR to stay offline.
"""

from fusion_keras.config import get_config as default_config


def get_config():
    config = default_config()
    config.name = "manifest"
    config.data.source = "manifest"
    config.data.max_length = 64
    config.recipe = "best"
    config.text.preset = "bert_base"
    config.text.dropout = 0.1
    config.image.preset = "mobilenet_v2_1.4"
    config.image.size = 224
    return config
