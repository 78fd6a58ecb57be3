"""RoBERTa (Liu et al. 2019), XLM-R (Conneau et al. 2020) and CamemBERT (Martin et al. 2020).

BERT's graph, with ids and positions as fairseq counts them: padding is id 1 and <s>, the first
token, id 0; the first token's position is `pad_id` + 1, so that of 514 rows 512 are of use.
Hugging Face counts positions over tokens that are not padding; as padding stands behind them,
those are their places. At padded places, which nothing reads, the two have different vectors.

Most checkpoints have a pooler that was never trained, or none: their own classifiers read the
state of <s>.
"""

import keras

from fusion_keras.backbones.text_encoder import FIELDS, TextEncoder

# As `text_encoder.FIELDS`.
_FIELDS = {
    **FIELDS,
    "vocab_size": ("vocabulary_size", 50265),
    "pad_token_id": ("pad_id", 1),
}


@keras.saving.register_keras_serializable(package="fusion_keras")
class RobertaBackbone(TextEncoder):
    """RoBERTa and what has its architecture."""

    model_types = ("roberta", "xlm-roberta", "camembert")
    prefix = "roberta"
    fields = _FIELDS
    offset_positions = True
