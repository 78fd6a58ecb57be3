"""BERT (Devlin et al. 2018), keras-hub's graph with every layer as a tap.

keras-hub hard-codes the tanh approximation of GELU and a LayerNorm epsilon of 1e-12. The
Hugging Face checkpoints say in their config which they were trained with (nearly all: the
exact, erf one), and here the config decides.
"""

from pathlib import Path

import keras
import keras_hub

from fusion_keras.backbones.encoder import (
    EncoderLayer,
    activation,
    assign_dense,
    assign_encoder_layer,
    assign_norm,
)
from fusion_keras.backbones.hf_files import Weights, read_config
from fusion_keras.backbones.sources import FromPreset, read_json
from fusion_keras.errors import UsageError

# config.json field -> (our argument, Hugging Face's default for an absent field).
_HF_FIELDS = {
    "vocab_size": ("vocabulary_size", 30522),
    "num_hidden_layers": ("num_layers", 12),
    "num_attention_heads": ("num_heads", 12),
    "hidden_size": ("hidden_dim", 768),
    "intermediate_size": ("intermediate_dim", 3072),
    "max_position_embeddings": ("max_sequence_length", 512),
    "type_vocab_size": ("num_segments", 2),
    "hidden_dropout_prob": ("dropout", 0.1),
    "hidden_act": ("hidden_act", "gelu"),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
}
_LAYER_NAMES = ("attention.self", "attention.output.LayerNorm", "output.LayerNorm")

_POOLER = "pooler.dense.weight"


@keras.saving.register_keras_serializable(package="fusion_keras")
class BertBackbone(FromPreset, keras_hub.models.BertBackbone):
    """keras-hub's BertBackbone with taps, exact GELU and the config's LayerNorm epsilon.

    Inputs: {"token_ids", "segment_ids", "padding_mask"}, int32 [B, T], 1 = a real token.

    Attributes:
        taps: {0: normalised embeddings, 1..N: output of encoder layer i}, each [B, T, D].
        summary: [B, D], the pooler: dense + tanh on the last layer's [CLS]; None where the
            weights have none.
        num_depths: N.
    """

    hub_class = keras_hub.models.BertBackbone

    def __init__(self, *args, hidden_act="gelu", layer_norm_eps=1e-12, **kwargs):
        """Builds the graph.

        Args:
            *args, **kwargs: as keras_hub.models.BertBackbone.
            hidden_act: Hugging Face's name of the feed-forward activation.
            layer_norm_eps: epsilon of every LayerNorm.

        Raises:
            UsageError: an activation that is not supported.
        """
        function = activation(hidden_act)
        super().__init__(*args, **kwargs)
        # Traced only when the model runs, so what keras-hub hard-codes can be corrected in
        # the layers it has built; a saved layer carries the corrected class and values.
        self.embeddings_layer_norm.epsilon = layer_norm_eps
        for layer in self.transformer_layers:
            EncoderLayer.adopt(layer)
            layer.activation = function
            layer._feedforward_intermediate_dense.activation = function
            layer.layer_norm_epsilon = layer_norm_eps
            layer._self_attention_layer_norm.epsilon = layer_norm_eps
            layer._feedforward_layer_norm.epsilon = layer_norm_eps
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        tensors = [self.embeddings_dropout.output, *(x.output for x in self.transformer_layers)]
        self.taps = dict(enumerate(tensors))  # each [B, T, D]
        # The pooler reads nothing of the last layer but its first token.
        first = self.transformer_layers[-1](
            tensors[-2], padding_mask=self.input["padding_mask"], first_only=True
        )
        self.summary = self.pooled_dense(first[:, 0, :])  # [B, D]
        self.num_depths = self.num_layers

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
        }

    @staticmethod
    def longest_sequence(config: dict) -> int:
        """T at most, of what a config describes; see `FromPreset.count_depths`."""
        saved = config.get("config", config)
        return saved.get("max_sequence_length", config.get("max_position_embeddings", 512))

    @staticmethod
    def vocabulary_size_of(config: dict) -> int:
        """Rows of the embedding, likewise."""
        saved = config.get("config", config)
        return saved.get("vocabulary_size", config.get("vocab_size", 30522))

    @classmethod
    def lacks_last(cls, directory: Path) -> str:
        if read_json(directory / "config.json").get("registered_name"):
            return ""
        read_config(directory, model_type="bert")
        if _POOLER in Weights(directory, prefix="bert"):
            return ""
        return (
            f"{directory} has no pooler (its weights hold no {_POOLER}; a BertForMaskedLM is saved "
            "without)"
        )

    @classmethod
    def from_hub(cls, source, **kwargs) -> "BertBackbone":
        """The same model as a keras_hub.models.BertBackbone, approximate GELU included."""
        config = {**source.get_config(), "hidden_act": "gelu_new", **kwargs}
        backbone = cls.from_config(config)
        backbone.set_weights(source.get_weights())
        return backbone

    @classmethod
    def from_hf(cls, directory: str | Path, **kwargs) -> "BertBackbone":
        """Builds from config.json and loads model.safetensors of a Hugging Face directory.

        keras-hub has one dropout rate where Hugging Face has two: `hidden_dropout_prob` is
        taken for both.

        Args:
            directory: holds both files; the tensors may stand under "bert.".
            **kwargs: constructor arguments that replace the config's (dropout, dtype, name).

        Raises:
            UsageError: another model type, an architecture this class has not, or weights
                that are missing, pickled, cut short or of other shapes. The pooler may be
                missing.
        """
        config = read_config(Path(directory), model_type="bert")
        positions = config.get("position_embedding_type", "absolute")
        if positions != "absolute" or config.get("is_decoder"):
            raise UsageError(
                f"got a BERT with {positions!r} positions and is_decoder="
                f"{config.get('is_decoder', False)} in {directory}, wanted an encoder with "
                "'absolute' positions; choose another checkpoint."
            )
        arguments = {ours: config.get(hf, value) for hf, (ours, value) in _HF_FIELDS.items()}
        backbone = cls(**{**arguments, **kwargs})
        weights = Weights(Path(directory), prefix="bert")
        _load(backbone, weights)
        if _POOLER in weights:
            assign_dense(backbone.pooled_dense, weights, "pooler.dense")
        else:
            # Random weights are nobody's summary.
            backbone.summary = None
        return backbone


def _load(backbone, weights):
    """Copies Hugging Face's tensors into the layers, the pooler's aside."""
    suffixes = _norm_suffixes(weights, backbone.hidden_dim)
    for variable, name in (
        (backbone.token_embedding.embeddings, "word_embeddings"),
        (backbone.position_embedding.position_embeddings, "position_embeddings"),
        (backbone.segment_embedding.embeddings, "token_type_embeddings"),
    ):
        variable.assign(weights.get(f"embeddings.{name}.weight", tuple(variable.shape)))
    assign_norm(backbone.embeddings_layer_norm, weights, "embeddings.LayerNorm", suffixes)
    for index, layer in enumerate(backbone.transformer_layers):
        prefix = f"encoder.layer.{index}"
        assign_encoder_layer(layer, weights, prefix, _LAYER_NAMES, suffixes)


def _norm_suffixes(weights, hidden_dim):
    """google-bert/bert-base-uncased, an early conversion, still has TensorFlow's names."""
    try:
        weights.get("embeddings.LayerNorm.gamma", (hidden_dim,))
    except UsageError:
        return "weight", "bias"
    return "gamma", "beta"
