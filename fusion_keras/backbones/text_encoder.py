"""What all text backbones are: the contract, the one graph, and how Hugging Face's files fill it.

The graph is that of keras-hub's BertBackbone, under the names it has there. keras-hub has classes
for the other families too, with the same departures from the published checkpoints in each: the
tanh approximation of GELU and a LayerNorm epsilon of 1e-12 whatever config.json says, positions of
RoBERTa and DistilBERT inside a layer that cannot be cut, a pooler for ELECTRA that was never
trained. One graph that the config decides is less than five that are corrected.
"""

from pathlib import Path

import keras
import keras_hub
from keras import layers, ops

from fusion_keras.backbones import backbone_weights
from fusion_keras.backbones.encoder import EncoderLayer, activation
from fusion_keras.backbones.hf_files import Weights, read_config
from fusion_keras.backbones.sources import FromPreset, read_json
from fusion_keras.errors import UsageError

# config.json field -> (our argument, Hugging Face's default for an absent field); most families'.
FIELDS = {
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
    "pad_token_id": ("pad_id", 0),
}


@keras.saving.register_keras_serializable(package="fusion_keras")
class PositionEmbedding(keras_hub.layers.PositionEmbedding):
    """keras-hub's position vectors, the first token's standing in row `first`.

    Weights files name a layer by its class: it is called as keras-hub's, which older presets have.
    """

    def __init__(self, sequence_length: int, first: int = 0, **kwargs):
        super().__init__(sequence_length, **kwargs)
        self.first = first

    def call(self, inputs):
        """Vectors of the places of inputs [B, T, D], of that shape."""
        shape = ops.shape(inputs)
        # Cut twice: the first cut is folded into the weights of an exported graph.
        rows = ops.convert_to_tensor(self.position_embeddings)[self.first :]
        return ops.broadcast_to(ops.slice(rows, (0, 0), (shape[-2], shape[-1])), shape)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "first": self.first}


class TextEncoder(FromPreset, keras_hub.models.Backbone):
    """A text backbone; a family is a subclass that says what differs.

    Inputs: {"token_ids", "padding_mask"} and, with segments, "segment_ids", int32 [B, T]; of the
    mask 1 is a real token. Padding stands behind the tokens.

    The contract, which `tests/test_text_backbones.py` holds every family to:
    `from_hf`, `from_preset` and `from_config` build it, `save_to_preset` writes what `from_preset`
    reads again. Of a config.json, Hugging Face's or our own, or of a constructor's arguments,
    `count_depths`, `width_of`, `longest_sequence`, `vocabulary_size_of` and `pad_id_of` say what
    the built one has. `cut` takes any depths of it, and what lies behind the deepest is gone.

    Attributes:
        taps: {0: what enters the first layer, 1..N: output of encoder layer i}, each [B, T, D].
        summary: [B, D], depth `last`: the pooler, dense + tanh on the last layer's first token.
            Without a pooler, that token's state where the family's own classifiers read it, else
            None (`lacks_last` says so).
        num_depths: N.
        pad_id: the token id that is padding.

    Class attributes:
        model_types: of config.json, that this class reads.
        prefix: what the tensors may stand under, of a model with a head.
        fields: as `FIELDS`.
        pooler_name: the pooler's module.
        projection: our name of the layer that projects the embeddings.
        always_projected: whether it is there although the widths are equal.
        attention_dropout: Hugging Face's field of a rate that we have not, see `from_hf`.
        reads_first: whether the family's classifiers read the last layer's first token itself.
        offset_positions: whether rows of the position embedding up to `pad_id` are unused.
        pre_norm: whether LayerNorms stand before attention and feed-forward part, none behind the
            embeddings, and one behind the last layer.
        any_padding: whether the checkpoint's own id for padding is not read, as no token sees
            what stands behind it: the tokenizer alone then says what is padding.
        embeds_positions: whether a vector of each token's place is added to its own.
        encoder_layer: of what class the encoder's layers are.
    """

    model_types: tuple[str, ...] = ()
    prefix = ""
    fields = FIELDS
    pooler_name = "pooler.dense"
    projection = "embeddings_projection"
    always_projected = False
    attention_dropout = "attention_probs_dropout_prob"
    reads_first = True
    offset_positions = False
    pre_norm = False
    any_padding = False
    embeds_positions = True
    encoder_layer = EncoderLayer

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        dropout=0.1,
        max_sequence_length=512,
        num_segments=2,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        embedding_dim=None,
        pooler=True,
        pad_id=0,
        dtype=None,
        **kwargs,
    ):
        """Builds the graph.

        Args:
            vocabulary_size: rows of the token embedding.
            num_layers, num_heads, hidden_dim, intermediate_dim: of the encoder.
            dropout: behind attention, feed-forward part and embeddings.
            max_sequence_length: T at most.
            num_segments: rows of the segment embedding; 0: there is none.
            hidden_act: Hugging Face's name of the feed-forward activation.
            layer_norm_eps: epsilon of every LayerNorm.
            embedding_dim: width of the embeddings, projected to `hidden_dim` where it differs;
                None: `hidden_dim`.
            pooler: whether there is one.
            pad_id: the token id that is padding.
            dtype: dtype policy of every layer.

        Raises:
            UsageError: an activation that is not supported.
        """
        function = activation(hidden_act)
        embedding_dim = embedding_dim or hidden_dim

        def drawn():
            return keras.initializers.TruncatedNormal(stddev=0.02)

        # === Layers ===
        self.token_embedding = keras_hub.layers.ReversibleEmbedding(
            vocabulary_size,
            embedding_dim,
            embeddings_initializer=drawn(),
            dtype=dtype,
            name="token_embedding",
        )
        if self.embeds_positions:
            first = pad_id + 1 if self.offset_positions else 0
            self.position_embedding = PositionEmbedding(
                max_sequence_length + first,
                first,
                initializer=drawn(),
                dtype=dtype,
                name="position_embedding",
            )
        if num_segments:
            self.segment_embedding = layers.Embedding(
                num_segments,
                embedding_dim,
                embeddings_initializer=drawn(),
                dtype=dtype,
                name="segment_embedding",
            )
        if self.embeds_positions or num_segments:
            self.embeddings_add = layers.Add(dtype=dtype, name="embeddings_add")
        norm = layers.LayerNormalization(
            epsilon=layer_norm_eps,
            dtype=dtype,
            name="final_layer_norm" if self.pre_norm else "embeddings_layer_norm",
        )
        setattr(self, norm.name, norm)
        self.embeddings_dropout = layers.Dropout(dropout, dtype=dtype, name="embeddings_dropout")
        projected = embedding_dim != hidden_dim or self.always_projected
        if projected:
            self.embeddings_projection = layers.Dense(
                hidden_dim, kernel_initializer=drawn(), dtype=dtype, name=self.projection
            )

        def encoder_layer(name):
            return self.encoder_layer(
                num_heads=num_heads,
                intermediate_dim=intermediate_dim,
                activation=function,
                dropout=dropout,
                layer_norm_epsilon=layer_norm_eps,
                normalize_first=self.pre_norm,
                kernel_initializer=drawn(),
                dtype=dtype,
                name=name,
            )

        self.transformer_layers = self._encoder_layers(encoder_layer, num_layers)
        if pooler:
            self.pooled_dense = layers.Dense(
                hidden_dim,
                kernel_initializer=drawn(),
                activation="tanh",
                dtype=dtype,
                name="pooled_dense",
            )

        # === Functional model ===
        names = ("token_ids", *(["segment_ids"] if num_segments else []), "padding_mask")
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
        tokens = self.token_embedding(inputs["token_ids"])
        added = [tokens]
        if self.embeds_positions:
            added.append(self.position_embedding(tokens))
        if num_segments:
            added.append(self.segment_embedding(inputs["segment_ids"]))
        x = self.embeddings_add(added) if len(added) > 1 else tokens
        x = self.embeddings_dropout(x if self.pre_norm else norm(x))
        if projected:
            x = self.embeddings_projection(x)
        taps = {0: x}  # each [B, T, D]
        seen = self._seen(inputs, x)
        for depth, layer in enumerate(self.transformer_layers, 1):
            taps[depth] = layer(taps[depth - 1], **seen)
        # [B, 1, D]
        x = self._read(self.transformer_layers[-1], taps[num_layers - 1], inputs, seen)
        x = (norm(x) if self.pre_norm else x)[:, 0, :]
        if pooler:
            summary = self.pooled_dense(x)
        else:
            summary = self._pooled(x, dtype) if self.reads_first else None
        outputs = {"sequence_output": taps[num_layers]}
        if summary is not None:
            outputs["pooled_output"] = summary
        super().__init__(inputs=inputs, outputs=outputs, dtype=dtype, **kwargs)

        self.taps = taps
        self.summary = summary
        self.num_depths = num_layers
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.dropout = dropout
        self.max_sequence_length = max_sequence_length
        self.num_segments = num_segments
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.embedding_dim = embedding_dim
        self.pooler = pooler
        self.pad_id = pad_id

    def _seen(self, inputs: dict, x) -> dict:
        """What each `EncoderLayer` is called with beside its tokens; x: [B, T, D], the first's."""
        return {"padding_mask": inputs["padding_mask"]}

    def _read(self, layer, before, inputs: dict, seen: dict):
        """What the summary reads of the last layer, [B, 1, D], which is one token alone.

        before: [B, T, D], what enters that layer.
        seen: of `_seen`.
        """
        return layer(before, **seen, first_only=True)

    def _pooled(self, x, dtype):
        """The summary of what `_read` gives, [B, D], where there is no pooler."""
        return x

    def _encoder_layers(self, make, count: int) -> list:
        """The layer of each depth; make: name -> a new one."""
        return [make(f"transformer_layer_{index}") for index in range(count)]

    def get_config(self):
        """Returns the arguments of the constructor."""
        names = [
            *("vocabulary_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim"),
            *("dropout", "max_sequence_length", "num_segments", "hidden_act", "layer_norm_eps"),
            *("embedding_dim", "pooler", "pad_id"),
        ]
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """What config.json of a directory that this class reads says that it is."""
        hub = () if cls.hub_class is None else (f"keras_hub>{cls.hub_class.__name__}",)
        return (*cls.model_types, f"fusion_keras>{cls.__name__}", *hub)

    # --- Of a config, without building it ------------------------------------------------------

    @classmethod
    def arguments_of(cls, config: dict) -> dict:
        """The constructor's arguments that a config describes.

        Args:
            config: a preset's config.json, Hugging Face's or of `save_to_preset`, or arguments of
                the constructor, of which those that are left out have their defaults.
        """
        known = dict(cls.fields.values())
        if "model_type" not in config:
            return {**known, **config.get("config", config)}
        for theirs, (ours, _) in cls.fields.items():
            if config.get(theirs) is not None:
                known[ours] = config[theirs]
        if cls.offset_positions:
            known["max_sequence_length"] -= known["pad_id"] + 1
        return known

    @classmethod
    def count_depths(cls, config: dict) -> int:
        return cls.arguments_of(config)["num_layers"]

    @classmethod
    def width_of(cls, config: dict) -> int:
        return cls.arguments_of(config)["hidden_dim"]

    @classmethod
    def longest_sequence(cls, config: dict) -> int:
        """T at most, of what a config describes; see `arguments_of`."""
        return cls.arguments_of(config)["max_sequence_length"]

    @classmethod
    def vocabulary_size_of(cls, config: dict) -> int:
        """Rows of the token embedding, likewise."""
        return cls.arguments_of(config)["vocabulary_size"]

    @classmethod
    def pad_id_of(cls, config: dict) -> int:
        """The token id that is padding, likewise."""
        return cls.arguments_of(config)["pad_id"]

    @classmethod
    def lacks_last(cls, directory: Path) -> str:
        if cls.reads_first:
            return ""
        config = read_json(directory / "config.json")
        if config.get("registered_name"):
            missing = not config.get("config", {}).get("pooler", True)
        else:
            read_config(directory, cls.model_types)
            missing = f"{cls.pooler_name}.weight" not in Weights(directory, prefix=cls.prefix)
        if not missing:
            return ""
        return (
            f"{directory} has no pooler (its weights hold no {cls.pooler_name}.weight; a "
            "model of masked words is saved without)"
        )

    def hf_fields(self) -> dict:
        """What Hugging Face's config.json of this model says, but for its type."""
        said = {theirs: getattr(self, ours) for theirs, (ours, _) in self.fields.items()}
        if self.offset_positions:
            said["max_position_embeddings"] += self.pad_id + 1
        return {**said, self.attention_dropout: self.dropout}

    @classmethod
    def _found(cls, weights: Weights) -> dict:
        """The constructor's arguments that the tensors decide."""
        return {"pooler": f"{cls.pooler_name}.weight" in weights}

    # --- Hugging Face ---------------------------------------------------------------------------

    @classmethod
    def from_hf(cls, directory: str | Path, **kwargs) -> "TextEncoder":
        """Builds from config.json and loads model.safetensors of a Hugging Face directory.

        There is one dropout rate where Hugging Face has two: that of the hidden states is taken
        for both.

        Args:
            directory: holds both files; the tensors may stand under the family's prefix.
            **kwargs: constructor arguments that replace the config's (dropout, dtype, name).

        Raises:
            UsageError: another model type, an architecture this class has not, or weights
                that are missing, pickled, cut short or of other shapes. The pooler may be
                missing.
        """
        directory = Path(directory)
        config = read_config(directory, cls.model_types)
        positions = config.get("position_embedding_type", "absolute")
        if positions != "absolute" or config.get("is_decoder"):
            raise UsageError(
                f"got a {config['model_type']} with {positions!r} positions and is_decoder="
                f"{config.get('is_decoder', False)} in {directory}, wanted an encoder with "
                "'absolute' positions; choose another checkpoint."
            )
        weights = Weights(directory, prefix=cls.prefix)
        arguments = {**cls.arguments_of(config), **cls._found(weights)}
        backbone = cls(**{**arguments, **kwargs})
        for name, weight in backbone_weights.text(backbone).items():
            values = weight.to_keras(weights.get(name, weight.shape))
            for variable, value in zip(weight.variables, values, strict=True):
                variable.assign(value)
        return backbone
