"""The text families: tiny checkpoints of transformers, and tokenizers trained on sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from fusion_keras.backbones.albert import AlbertBackbone
from fusion_keras.backbones.bert import BertBackbone
from fusion_keras.backbones.clip_text import CLIPTextBackbone
from fusion_keras.backbones.deberta_v2 import DebertaV2Backbone
from fusion_keras.backbones.distilbert import DistilBertBackbone
from fusion_keras.backbones.electra import ElectraBackbone
from fusion_keras.backbones.roberta import RobertaBackbone
from tests.support.hf_encoders import randomise

_SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 20,
}
# As every published DeBERTa-v3 has it, but for the few buckets: of 20 tokens some are far apart.
DEBERTA = {
    "relative_attention": True,
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "norm_rel_ebd": "layer_norm",
    "position_buckets": 8,
    "position_biased_input": False,
}
_DISTIL = {
    "vocab_size": 60,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 64,
    "max_position_embeddings": 20,
}


@dataclass(frozen=True)
class Family:
    """A family, as transformers has it.

    Attributes:
        cls: ours.
        name: transformers' classes are NAMEConfig and NAMEModel.
        sizes: of a tiny one, transformers' names.
        odd: further settings of three unusual ones.
        pooler: whether its tiny one has one.
        kind: of tokenizer: "words" (WordPiece), "bytes" (BPE of bytes), "pieces" (Unigram), "clip",
            "deberta" (Unigram, too).
        headed: transformers' model that holds it, whose file has the backbone under a prefix.
    """

    cls: type
    name: str
    sizes: dict
    odd: tuple[dict, dict, dict]
    pooler: bool = True
    kind: str = "words"
    more: dict = field(default_factory=dict)
    headed: str = "ForSequenceClassification"

    def save(self, path: Path, **fields):
        """A checkpoint of random weights that mean something; returns transformers' model."""
        config = getattr(transformers, f"{self.name}Config")(**{**self.sizes, **fields})
        model = randomise(getattr(transformers, f"{self.name}Model")(config, **self.more))
        model.save_pretrained(path)
        return model

    def inner(self, model):
        """Of a `headed` one, what gives the pooled vector."""
        return model if self.headed == "ModelWithProjection" else model.base_model


FAMILIES = {
    "bert": Family(
        BertBackbone,
        "Bert",
        _SIZES,
        (
            {"layer_norm_eps": 0.1, "type_vocab_size": 3},
            {"hidden_act": "gelu_new", "pad_token_id": 7},
            {"hidden_act": "relu", "intermediate_size": 40, "num_attention_heads": 2},
        ),
    ),
    "distilbert": Family(
        DistilBertBackbone,
        "DistilBert",
        _DISTIL,
        ({"activation": "relu"}, {"pad_token_id": 3, "n_heads": 2}, {"hidden_dim": 40, "dim": 24}),
        pooler=False,
    ),
    "roberta": Family(
        RobertaBackbone,
        "Roberta",
        _SIZES,
        (
            {"layer_norm_eps": 0.1, "type_vocab_size": 1},
            {"hidden_act": "gelu_new", "pad_token_id": 4},
            {"pad_token_id": 0, "hidden_size": 24, "max_position_embeddings": 33},
        ),
        kind="bytes",
    ),
    "roberta without a pooler": Family(
        RobertaBackbone,
        "Roberta",
        _SIZES,
        ({"type_vocab_size": 1}, {"pad_token_id": 6}, {"hidden_act": "relu"}),
        pooler=False,
        kind="bytes",
        more={"add_pooling_layer": False},
    ),
    "xlm-roberta": Family(
        RobertaBackbone,
        "XLMRoberta",
        {**_SIZES, "type_vocab_size": 1},
        ({"layer_norm_eps": 0.1}, {"hidden_act": "gelu_new"}, {"pad_token_id": 2}),
        kind="pieces",
    ),
    "camembert": Family(
        RobertaBackbone,
        "Camembert",
        {**_SIZES, "type_vocab_size": 1},
        ({"layer_norm_eps": 0.1}, {"hidden_act": "relu"}, {"pad_token_id": 3}),
        kind="pieces",
    ),
    "electra": Family(
        ElectraBackbone,
        "Electra",
        {**_SIZES, "embedding_size": 16},
        (
            {"layer_norm_eps": 0.1, "embedding_size": 32},
            {"hidden_act": "gelu_new", "pad_token_id": 5},
            {"embedding_size": 48, "type_vocab_size": 1},
        ),
        pooler=False,
    ),
    "albert": Family(
        AlbertBackbone,
        "Albert",
        {**_SIZES, "embedding_size": 16},
        (
            {"layer_norm_eps": 0.1, "embedding_size": 32},
            {"num_hidden_groups": 2, "num_hidden_layers": 5, "hidden_act": "gelu"},
            {"pad_token_id": 6, "hidden_act": "relu", "num_hidden_groups": 3},
        ),
        kind="pieces",
    ),
    "deberta": Family(
        DebertaV2Backbone,
        "DebertaV2",
        {**_SIZES, **DEBERTA},
        (
            {"layer_norm_eps": 0.1, "type_vocab_size": 3, "position_buckets": 7},
            {"position_buckets": -1, "max_relative_positions": 5, "hidden_act": "gelu_new"},
            {"position_biased_input": True, "pad_token_id": 7, "num_attention_heads": 2},
        ),
        pooler=False,
        kind="deberta",
    ),
    "clip": Family(
        CLIPTextBackbone,
        "CLIPText",
        {**_SIZES, "bos_token_id": 57, "eos_token_id": 58, "pad_token_id": 12},
        (
            {"layer_norm_eps": 0.1, "hidden_act": "gelu"},
            # As configs of before transformers' pull request 24773 say it.
            {"eos_token_id": 2, "num_attention_heads": 2, "intermediate_size": 40},
            {"eos_token_id": 9, "hidden_size": 24, "max_position_embeddings": 33},
        ),
        pooler=False,
        kind="clip",
        headed="ModelWithProjection",
    ),
}


def inputs_of(backbone, length: int = 12, rows: int = 3) -> dict:
    """Rows of several lengths, the last a full one; every id but the padding's."""
    rng, pad = np.random.default_rng(0), backbone.pad_id
    ids = rng.integers(0, backbone.vocabulary_size - 1, (rows, length)).astype(np.int32)
    ids += ids >= pad
    lengths = np.linspace(length // 3, length, rows).astype(int)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    if hasattr(backbone, "end_id"):
        # Every text ends, the first one twice.
        end = backbone.vocabulary_size - 1 if backbone.end_id == 2 else backbone.end_id
        ids[np.arange(rows), lengths - 1] = ids[0, 1] = end
    found = {"token_ids": np.where(mask, ids, pad).astype(np.int32), "padding_mask": mask}
    if backbone.num_segments:
        segments = (np.arange(length) > length // 4) * mask % backbone.num_segments
        found["segment_ids"] = segments.astype(np.int32)
    return found


def their_taps(model, inputs: dict) -> list:
    """What transformers' model says: every tap and the summary, padded places zero."""
    mask = inputs["padding_mask"]
    given = {
        "input_ids": inputs["token_ids"],
        "attention_mask": mask,
        "token_type_ids": inputs.get("segment_ids"),
    }
    given = {n: torch.from_numpy(x).long() for n, x in given.items() if x is not None}
    with torch.no_grad():
        output = model(**given, output_hidden_states=True)
    pooled = getattr(output, "text_embeds", getattr(output, "pooler_output", None))
    pooled = output.last_hidden_state[:, 0] if pooled is None else pooled
    return [*(x.numpy() * mask[..., None] for x in output.hidden_states), pooled.numpy()]


# --- Tokenizers -----------------------------------------------------------------------------------

SENTENCES = [
    *(f"a {word} day, number {n}" for n in range(9) for word in ("bad", "sad", "good", "lovely")),
    "The quick brown fox jumps over the lazy dog; 0123456789!",
    "pack my box with five dozen liquor jugs",
    "naïve café, über Straße",
]
_ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
_ROBERTA |= {"mask_token": "<mask>", "cls_token": "<s>", "sep_token": "</s>"}
_BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_BERT |= {"mask_token": "[MASK]"}


# Article 1 of the Universal Declaration of Human Rights, its first sentence, in ten scripts.
SCRIPTS = (
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "人人生而自由，在尊严和权利上一律平等。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
)


def in_ten_scripts(count: int = 200) -> list[str]:
    """Pieces of SCRIPTS, each script's as often, beside one another and with numbers."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        whole, other = SCRIPTS[number % 10], SCRIPTS[rng.integers(10)]
        start, end = sorted(rng.integers(0, len(whole) + 1, 2))
        made.append(f"{whole[start:end]} {number}{other[: rng.integers(12)]}")
    return made


def write_tokenizer(
    path: Path, kind: str, texts: Sequence[str] = SENTENCES, more: int = 0
) -> Tokenizer:
    """Train one of a kind and save it as Hugging Face does; see `Family.kind`.

    Args:
        texts: what it learns from, and more: how many words beside those that SENTENCES need.
    """
    made = {"words": _words, "bytes": _bytes, "pieces": _pieces, "clip": _clip, "deberta": _deberta}
    tokenizer, special = made[kind](texts, more)
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {**special, "tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def _words(texts, more):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=120 + more, special_tokens=names, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer, _BERT


def _bytes(texts, more):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320 + more,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return tokenizer, _ROBERTA


def _clip(texts, more):
    """The pipeline of transformers' CLIPTokenizer, which pads with what ends a text."""
    started, ended = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=ended))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    words += r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=700 + more,
        special_tokens=[*letters, *(f"{letter}</w>" for letter in letters)],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # They stand at the end of the vocabulary, and letters are no special tokens.
    described = json.loads(tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    ids = {name: len(vocabulary) + i for i, name in enumerate((started, ended))}
    vocabulary |= ids
    described["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.add_special_tokens([started, ended])
    tokenizer.post_processor = processors.RobertaProcessing(
        (ended, ids[ended]), (started, ids[started]), trim_offsets=False, add_prefix_space=False
    )
    names = {"bos_token": started, "eos_token": ended, "unk_token": ended, "pad_token": ended}
    return tokenizer, names


def _pieces(texts, more):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120 + more,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer, _ROBERTA


def _deberta(texts, more):
    """transformers' own pipeline over pieces with DeBERTa-v3's ids: [PAD], [CLS], [SEP], [UNK]."""
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120 + more, special_tokens=names, unk_token="[UNK]", show_progress=False
    )
    pieces.train_from_iterator(texts, trainer)
    vocabulary = json.loads(pieces.to_str())["model"]["vocab"]
    tokenizer = transformers.DebertaV2Tokenizer(vocab=[(p, s) for p, s in vocabulary], unk_id=3)
    return tokenizer.backend_tokenizer, _BERT
