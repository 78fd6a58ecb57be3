"""ELECTRA's discriminator (Clark et al. 2020): BERT without a pooler.

The small one has embeddings of another width than its layers, and a projection between them.
"""

import keras

from fusion_keras.backbones.text_encoder import FIELDS, TextEncoder

# As `text_encoder.FIELDS`.
_FIELDS = {
    **FIELDS,
    "embedding_size": ("embedding_dim", 128),
    "hidden_size": ("hidden_dim", 256),
    "num_attention_heads": ("num_heads", 4),
    "intermediate_size": ("intermediate_dim", 1024),
}


@keras.saving.register_keras_serializable(package="fusion_keras")
class ElectraBackbone(TextEncoder):
    """ELECTRA. Its classifiers read the last layer's [CLS]."""

    model_types = ("electra",)
    prefix = "electra"
    fields = _FIELDS

    def __init__(self, *args, pooler=False, **kwargs):
        """Builds the graph; arguments are those of `TextEncoder`."""
        super().__init__(*args, pooler=pooler, **kwargs)
