"""DistilBERT (Sanh et al. 2019): BERT with half the layers, without segments and without a pooler.

Its config has names of its own, and no LayerNorm epsilon, which is 1e-12.
"""

import keras

from fusion_keras.backbones.text_encoder import TextEncoder

# As `text_encoder.FIELDS`.
_FIELDS = {
    "vocab_size": ("vocabulary_size", 30522),
    "n_layers": ("num_layers", 6),
    "n_heads": ("num_heads", 12),
    "dim": ("hidden_dim", 768),
    "hidden_dim": ("intermediate_dim", 3072),
    "max_position_embeddings": ("max_sequence_length", 512),
    "dropout": ("dropout", 0.1),
    "activation": ("hidden_act", "gelu"),
    "pad_token_id": ("pad_id", 0),
}


@keras.saving.register_keras_serializable(package="fusion_keras")
class DistilBertBackbone(TextEncoder):
    """DistilBERT. Its classifiers read the last layer's [CLS]."""

    model_types = ("distilbert",)
    prefix = "distilbert"
    fields = _FIELDS
    attention_dropout = "attention_dropout"

    def __init__(self, *args, num_segments=0, pooler=False, **kwargs):
        """Builds the graph; arguments are those of `TextEncoder`."""
        super().__init__(*args, num_segments=num_segments, pooler=pooler, **kwargs)
