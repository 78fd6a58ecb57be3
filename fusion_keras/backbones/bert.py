"""BERT (Devlin et al. 2018), keras-hub's graph with every layer as a tap.

keras-hub hard-codes the tanh approximation of GELU and a LayerNorm epsilon of 1e-12. The
Hugging Face checkpoints say in their config which they were trained with (nearly all: the
exact, erf one), and here the config decides.
"""

import keras
import keras_hub

from fusion_keras.backbones.text_encoder import TextEncoder


@keras.saving.register_keras_serializable(package="fusion_keras")
class BertBackbone(TextEncoder):
    """BERT. Its classifiers read the pooler: weights without one have no depth `last`."""

    hub_class = keras_hub.models.BertBackbone
    model_types = ("bert",)
    prefix = "bert"
    reads_first = False

    @classmethod
    def from_hub(cls, source, **kwargs) -> "BertBackbone":
        """The same model as a keras_hub.models.BertBackbone, approximate GELU included."""
        backbone = cls.from_config({**source.get_config(), "hidden_act": "gelu_new", **kwargs})
        backbone.set_weights(source.get_weights())
        return backbone
