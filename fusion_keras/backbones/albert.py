"""ALBERT (Lan et al. 2020): BERT whose layers share their weights.

Embeddings are narrow and projected to the width of the layers. One layer, or one for each group
of neighbouring depths, is run again and again: few parameters, and as many products as BERT.
"""

import keras

from fusion_keras.backbones.hf_files import read_config
from fusion_keras.backbones.text_encoder import FIELDS, TextEncoder
from fusion_keras.errors import UsageError

# As `text_encoder.FIELDS`.
_FIELDS = {
    **FIELDS,
    "vocab_size": ("vocabulary_size", 30000),
    "num_attention_heads": ("num_heads", 64),
    "hidden_size": ("hidden_dim", 4096),
    "intermediate_size": ("intermediate_dim", 16384),
    "hidden_dropout_prob": ("dropout", 0.0),
    "hidden_act": ("hidden_act", "gelu_new"),
    "embedding_size": ("embedding_dim", 128),
    "num_hidden_groups": ("num_groups", 1),
}


@keras.saving.register_keras_serializable(package="fusion_keras")
class AlbertBackbone(TextEncoder):
    """ALBERT. Its classifiers read the pooler: weights without one have no depth `last`."""

    model_types = ("albert",)
    prefix = "albert"
    fields = _FIELDS
    pooler_name = "pooler"
    projection = "embedding_projection"
    always_projected = True
    reads_first = False

    def __init__(self, *args, num_groups=1, **kwargs):
        """Builds the graph.

        Args:
            *args, **kwargs: as `TextEncoder`.
            num_groups: of depths; each has a layer of its own.
        """
        self.num_groups = num_groups
        super().__init__(*args, **kwargs)

    def _encoder_layers(self, make, count):
        groups = [make(f"shared_layer_{group}") for group in range(self.num_groups)]
        return [groups[depth * self.num_groups // count] for depth in range(count)]

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "num_groups": self.num_groups}

    @classmethod
    def from_hf(cls, directory, **kwargs) -> "AlbertBackbone":
        """As `TextEncoder.from_hf`; one layer a group is all that it knows."""
        inner = read_config(directory, cls.model_types).get("inner_group_num", 1)
        if inner != 1:
            raise UsageError(
                f"got an ALBERT with inner_group_num={inner} in {directory}, wanted 1, as the "
                "published ones have; choose another checkpoint."
            )
        return super().from_hf(directory, **kwargs)
