"""From spec to model: every variant, golden sizes, joins worked out by hand, counts, pictures."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from fusion_keras.backbones.depthwise import DepthwiseConv2D
from fusion_keras.backbones.presets import load_image, load_text
from fusion_keras.config import get_config
from fusion_keras.fusion.describe import count_macs, describe
from fusion_keras.fusion.draw import draw
from fusion_keras.fusion.graph import ScoreAverage, build
from fusion_keras.fusion.joins import join
from fusion_keras.fusion.spec import LAST, FusionSpec, Junction
from fusion_keras.fusion.variants import make_spec
from tests.support.backbones import facts
from tests.support.graphs import VISIONS, inputs_of, normed, run, weigh
from tests.support.shared import slow_but
from tests.support.tiny import OF_TEXT_AND_IMAGES as VARIANTS

CLASSES, LENGTH = 3, 6
# One of each way to fuse at layers, and one with feature maps.
QUICK = [
    ("inter", "vit"),
    ("early", "vit"),
    ("image", "mobilenet"),
]
VARIANTS_AND_VISIONS = [(variant, vision) for vision in VISIONS for variant in VARIANTS]

# (vision, variant) -> parameters with the tiny presets, width 32, 3 classes.
TINY_GOLDEN = {
    ("mobilenet", "text"): 1070595,
    ("mobilenet", "image"): 52227,
    ("mobilenet", "late"): 1122819,
    ("mobilenet", "inter"): 1070739,
    ("mobilenet", "early"): 1077459,
    ("mobilenet", "late_score"): 1122824,
    ("mobilenet", "hybrid"): 1158803,
    ("mobilenet", "input"): 1032723,
    ("vit", "text"): 1070595,
    ("vit", "image"): 109443,
    ("vit", "late"): 1180035,
    ("vit", "inter"): 1135299,
    ("vit", "early"): 1126531,
    ("vit", "late_score"): 1180040,
    ("vit", "hybrid"): 1217219,
    ("vit", "input"): 1037155,
}
# The same for BERT-base with MobileNetV2 1.4 or ViT-base at 224 pixels, the default fusion
# settings, 2 classes and 64 tokens.
FULL_GOLDEN = {
    ("mobilenet", "text"): 109483778,
    ("mobilenet", "image"): 4367298,
    ("mobilenet", "late"): 113851074,
    ("mobilenet", "inter"): 82427986,
    ("mobilenet", "early"): 69196130,
    ("mobilenet", "late_score"): 113851078,
    ("mobilenet", "hybrid"): 116524402,
    ("mobilenet", "input"): 27734610,
    ("vit", "text"): 109483778,
    ("vit", "image"): 85800194,
    ("vit", "late"): 195283970,
    ("vit", "inter"): 142658562,
    ("vit", "early"): 115094274,
    ("vit", "late_score"): 195283974,
    ("vit", "hybrid"): 200743938,
    ("vit", "input"): 27688962,
}


@pytest.fixture(scope="module")
def text():
    return load_text("tiny_bert")


@pytest.fixture(scope="module")
def images():
    return {vision: load_image(preset) for vision, (preset, _) in VISIONS.items()}


@pytest.fixture(scope="module")
def make(text, images):
    """(variant, vision, ...) -> (spec, graph), each made once."""
    made = {}

    def make(variant, vision, length=LENGTH, regression=False, **changes):
        key = (variant, vision, length, regression, *changes.items())
        if key not in made:
            fusion = get_config().fusion
            fusion.update({"width": 32, **changes})
            spec = make_spec(variant, fusion, VISIONS[vision][1])
            graph = build(
                spec,
                {"text": text, "image": images[vision]},
                num_classes=CLASSES,
                sequence_length=length,
                regression=regression,
            )
            made[key] = spec, graph
        return made[key]

    return make


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


# --- Every variant ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "vision"),
    slow_but(QUICK, VARIANTS_AND_VISIONS),
)
def test_variant_runs_and_comes_back_from_disk(make, tmp_path, variant, vision):
    _, graph = make(variant, vision)
    inputs = inputs_of(graph.model)
    outputs = run(graph.model, inputs)
    assert {n: (x.shape, x.dtype) for n, x in outputs.items()} == {"logits": ((2, 3), "float32")}
    assert np.abs(outputs["logits"][0] - outputs["logits"][1]).max() > 0
    graph.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(run(again, inputs)["logits"], outputs["logits"])


@pytest.mark.parametrize(("variant", "vision"), VARIANTS_AND_VISIONS)
def test_variant_has_its_golden_size(make, variant, vision):
    _, graph = make(variant, vision)
    assert graph.model.count_params() == TINY_GOLDEN[vision, variant]


def test_no_variant_is_without_a_golden_size():
    assert set(TINY_GOLDEN) == {(vision, variant) for variant, vision in VARIANTS_AND_VISIONS}
    assert set(FULL_GOLDEN) == set(TINY_GOLDEN)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vision", "preset", "depths"),
    [
        ("mobilenet", "random:mobilenet_v2_1.4", facts(12, 16)),
        ("vit", "random:vit_base", facts(12, 12, image_scales=True)),
    ],
)
def test_full_size_variants_have_their_golden_sizes(vision, preset, depths):
    text, image = load_text("random:bert_base"), load_image(preset, 224)
    fusion = get_config().fusion
    found = {}
    for variant in VARIANTS:
        spec = make_spec(variant, fusion, depths)
        graph = build(spec, {"text": text, "image": image}, num_classes=2, sequence_length=64)
        found[vision, variant] = graph.model.count_params()
    assert found == {key: n for key, n in FULL_GOLDEN.items() if key[0] == vision}


@pytest.mark.parametrize(("vision", "layer"), [("mobilenet", "layer.7."), ("vit", "transformer_")])
def test_what_no_junction_reaches_is_not_built(make, images, vision, layer):
    _, graph = make("inter", vision)
    _, whole = make("image", vision)
    part = graph.model.get_layer("image_backbone")
    full = whole.model.get_layer("image_backbone")
    names, all_names = ({x.name for x in model.layers} for model in (part, full))
    assert names < all_names == {x.name for x in images[vision].backbone.layers}
    assert any(name.startswith(layer) for name in names)
    assert part.count_params() < full.count_params() == images[vision].backbone.count_params()
    behind = {"mobilenet": "layer.8.", "vit": "transformer_layer_8"}[vision]
    assert any(name.startswith(behind) for name in all_names)
    assert not any(name.startswith(behind) for name in names)
    text_part = graph.model.get_layer("text_backbone")
    assert "transformer_layer_3" in {x.name for x in text_part.layers}
    assert "transformer_layer_4" not in {x.name for x in text_part.layers}


def test_encoders_and_fusion_together_are_the_model(make):
    _, graph = make("hybrid", "vit")
    inputs = inputs_of(graph.model)
    taps = graph.encoders(inputs, training=False)
    np.testing.assert_allclose(
        run(graph.fusion, taps)["logits"], run(graph.model, inputs)["logits"], atol=1e-5
    )


CROSS = {"junctions": "2+4:cross"}
MIXED = {"junctions": "2+-:attention,-+6:attention"}


@pytest.mark.parametrize(
    ("variant", "changes"),
    slow_but(
        [("text", {}), ("inter", {}), ("early", MIXED)],
        [
            ("text", {}),
            ("inter", {}),
            ("early", {}),
            ("early", {"tokens": "pooled"}),
            ("input", {}),
            ("early", CROSS),
            ("early", {**CROSS, "tokens": "pooled"}),
            ("early", MIXED),
        ],
    ),
    ids=lambda x: x if isinstance(x, str) else " ".join(map(str, x.values())),
)
def test_more_padding_changes_nothing(make, variant, changes):
    _, graph = make(variant, "vit", length=None, **changes)
    inputs = inputs_of(graph.model)
    logits = run(graph.model, inputs)["logits"]
    inputs["token_ids"] = np.pad(inputs["token_ids"], [(0, 0), (0, 3)])
    np.testing.assert_allclose(run(graph.model, inputs)["logits"], logits, atol=1e-5)


def test_regression_adds_a_score(make):
    _, graph = make("inter", "vit", regression=True)
    outputs = run(graph.model, inputs_of(graph.model))
    assert {n: x.shape for n, x in outputs.items()} == {"logits": (2, 3), "score": (2, 1)}


def test_a_hidden_layer_stands_in_front_of_the_logits(make):
    _, graph = make("late", "vit", hidden=5)
    assert graph.fusion.get_layer("head_hidden").units == 5
    assert graph.fusion.get_layer("logits").kernel.shape == (5, CLASSES)


@pytest.mark.parametrize("weights", [(0.3, 0.7), ()], ids=["given", "learned"])
def test_late_score_averages_the_probabilities_of_its_heads(make, weights):
    _, graph = make("late_score", "vit", weights=weights)
    fusion = graph.fusion
    taps = {name: np.asarray(x) for name, x in graph.encoders(inputs_of(graph.model)).items()}
    heads = {"text_last": "head0_logits", "image_last": "head1_logits"}
    probs = [softmax(np.asarray(fusion.get_layer(h)(taps[tap]))) for tap, h in heads.items()]
    shares = weights or (0.5, 0.5)
    expected = shares[0] * probs[0] + shares[1] * probs[1]
    np.testing.assert_allclose(softmax(run(fusion, taps)["logits"]), expected, rtol=1e-5)


# --- Joins by hand ------------------------------------------------------------------------------

TEXT = np.array([[[1.0, 2.0], [3.0, 4.0], [100.0, 200.0]]], "float32")  # [1, 3, 2]
MASK = np.array([[1, 1, 0]], "int32")
MAP = np.arange(12, dtype="float32").reshape(1, 2, 2, 3)
TEXT_MEAN, MAP_MEAN = np.array([[2.0, 3.0]]), np.array([[4.5, 5.5, 6.5]])


def joined(junction, pool="mean", text=TEXT, image=MAP, mask=MASK):
    """A model of one junction on fixed taps, and its inputs."""
    given = {m: x for m, x in {"text": text, "image": image}.items() if m in junction.depths}
    taps = {m: keras.Input(x.shape[1:], name=m) for m, x in given.items()}
    masks = {"mask": keras.Input(mask.shape[1:], dtype="int32", name="mask")}
    output = join(junction, taps, masks["mask"], pool, "j")
    return keras.Model({**taps, **masks}, output), {**given, "mask": mask}


def test_concat_takes_masked_mean_and_map_mean():
    model, inputs = joined(Junction({"text": 1, "image": 1}, "concat"))
    np.testing.assert_allclose(model(inputs), [[2, 3, 4.5, 5.5, 6.5]])


def test_cls_takes_the_first_token():
    model, inputs = joined(Junction({"text": 1}, "concat"), pool="cls")
    np.testing.assert_allclose(model(inputs), [[1, 2]])


def test_a_sentence_without_tokens_is_no_division_by_zero():
    model, inputs = joined(Junction({"text": 1}, "concat"), mask=np.zeros_like(MASK))
    np.testing.assert_array_equal(model(inputs), [[0, 0]])


def test_linear_is_one_dense_layer_over_normed_taps():
    model, inputs = joined(Junction({"text": 1, "image": 1}, "linear", width=4))
    dense = weigh(model, dense="j")["dense"]
    expected = dense(np.concatenate([normed(TEXT_MEAN), normed(MAP_MEAN)], -1))
    np.testing.assert_allclose(model(inputs), expected, atol=1e-5)


def test_add_sums_projections():
    model, inputs = joined(Junction({"text": 1, "image": 1}, "add", width=4))
    to = weigh(model, text="j_text_project", image="j_image_project")
    expected = to["text"](normed(TEXT_MEAN)) + to["image"](normed(MAP_MEAN))
    np.testing.assert_allclose(model(inputs), expected, atol=1e-5)


def test_gate_is_a_gated_multimodal_unit():
    model, inputs = joined(Junction({"text": 1, "image": 1}, "gate", width=4))
    to = weigh(model, text="j_text_project", image="j_image_project", gate="j_gate")
    a, b = np.tanh(to["text"](normed(TEXT_MEAN))), np.tanh(to["image"](normed(MAP_MEAN)))
    z = 1 / (1 + np.exp(-to["gate"](np.concatenate([a, b], -1))))
    assert 0.05 < z.min() < z.max() < 0.999
    np.testing.assert_allclose(model(inputs), z * a + (1 - z) * b, atol=1e-5)


@pytest.mark.parametrize("tokens", ["pooled", "sequence"])
@pytest.mark.parametrize("kind", slow_but(["attention"], ["attention", "cross"]))
def test_attention_gives_a_vector_for_each_modality(kind, tokens):
    grid = 1 if tokens == "sequence" else 0
    model, inputs = joined(
        Junction({"text": 1, "image": 1}, kind, 4, blocks=2, heads=2, tokens=tokens, grid=grid)
    )
    assert model(inputs).shape == (1, 8)
    masked = np.where(MASK[..., None], TEXT, -7.0)
    np.testing.assert_allclose(model({**inputs, "text": masked}), model(inputs), atol=1e-6)


def test_another_junctions_padding_does_not_mask_image_tokens():
    model, inputs = joined(Junction({"image": 1}, "attention", 4, 1, 2, "sequence", 2))
    np.testing.assert_array_equal(model(inputs), model({**inputs, "mask": 1 - MASK}))


def test_score_average_is_the_weighted_mean_of_probabilities():
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(4, 3)).astype("float32") for _ in range(2)]
    learned = ScoreAverage()
    learned(logits)
    learned.set_weights([np.log([1.0, 3.0])])
    for layer in (learned, ScoreAverage((0.25, 0.75))):
        expected = 0.25 * softmax(logits[0]) + 0.75 * softmax(logits[1])
        np.testing.assert_allclose(softmax(np.asarray(layer(logits))), expected, rtol=1e-5)


# --- Counts and pictures ----------------------------------------------------------------------


def macs(*made, shape):
    x = keras.Input(shape)
    y = x
    for layer in made:
        y = layer(y, y) if isinstance(layer, layers.MultiHeadAttention) else layer(y)
    return count_macs(keras.Model(x, y))


def test_macs_are_those_worked_out_by_hand():
    assert macs(layers.Dense(5), shape=(7,)) == 7 * 5
    assert macs(layers.Dense(5), layers.Dense(2), shape=(3, 7)) == 3 * (7 * 5 + 5 * 2)
    conv = layers.Conv2D(5, 3, strides=2, padding="same")
    assert macs(conv, shape=(8, 8, 4)) == (4 * 4) * 5 * (3 * 3 * 4)
    for depthwise in (DepthwiseConv2D, layers.DepthwiseConv2D):
        assert macs(depthwise(3, padding="same"), shape=(8, 8, 4)) == (8 * 8 * 4) * 9
    projections, scores = 4 * (6 * 10 * 8), 2 * (2 * 6 * 6 * 4)
    assert macs(layers.MultiHeadAttention(2, 4), shape=(6, 10)) == projections + scores


@pytest.mark.parametrize(
    ("variant", "vision"), [*((v, "vit") for v in VARIANTS), ("inter", "mobilenet")]
)
def test_description_adds_up(make, tmp_path, variant, vision):
    spec, graph = make(variant, vision)
    *parts, total = describe(spec, graph)
    assert total.name == "all"
    assert total.parameters == sum(p.parameters for p in parts) == graph.model.count_params()
    assert total.macs == sum(p.macs for p in parts) == count_macs(graph.model)
    assert len(parts) == len(spec.modalities) + len(spec.junctions) + 1
    assert min(p.macs for p in parts) >= 0
    tops = {"text": 6, "image": VISIONS[vision][1]["image"].num_depths}
    draw(spec, tops, parts, f"{variant} with {vision}", tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        picture.load()
        assert min(picture.size) > 300
        assert len(set(picture.convert("L").tobytes())) > 10


def test_earlier_fusion_costs_less(make):
    costs = [count_macs(make(v, "vit")[1].encoders) for v in ("input", "early", "inter", "late")]
    assert costs == sorted(costs)
    assert len(set(costs)) == len(costs)


def test_open_length_is_counted_as_asked(make):
    _, graph = make("text", "vit", length=None)
    _, fixed = make("text", "vit")
    assert count_macs(graph.model, LENGTH) == count_macs(fixed.model)
    assert count_macs(graph.model, 2 * LENGTH) > 1.9 * count_macs(fixed.model)


def test_four_junctions_are_counted_and_drawn(text, images, tmp_path):
    junctions = (
        Junction({"text": 1, "image": 1}, "gate", 8),
        Junction({"text": 2}, "linear", 8),
        Junction({"image": LAST}, "concat"),
        Junction({"text": LAST, "image": LAST}, "add", 8),
    )
    spec = FusionSpec(junctions, pool="cls")
    graph = build(
        spec, {"text": text, "image": images["vit"]}, num_classes=2, sequence_length=LENGTH
    )
    *parts, total = describe(spec, graph)
    assert total.parameters == graph.model.count_params()
    draw(spec, {"text": 6, "image": 12}, parts, "four", tmp_path / "picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()


# --- TensorFlow builds the same graph ---------------------------------------------------------

_ON_TENSORFLOW = """
import sys
import numpy as np
import keras
import fusion_keras.backbones.presets, fusion_keras.fusion.graph
assert keras.backend.backend() == "tensorflow"
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
with np.load(sys.argv[2], allow_pickle=False) as inputs:
    outputs = model({x.name: inputs[x.name] for x in model.inputs}, training=False)
np.savez(sys.argv[3], **{name: np.asarray(x) for name, x in outputs.items()})
"""


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["inter", "early"])
def test_tensorflow_gives_the_same_logits(convert, make, tmp_path, variant):
    _, graph = make(variant, "mobilenet")
    inputs = inputs_of(graph.model)
    files = [tmp_path / name for name in ("model.keras", "inputs.npz", "outputs.npz")]
    graph.model.save(files[0])
    np.savez(files[1], **inputs)
    done = convert.run("-c", _ON_TENSORFLOW, *files)
    assert done.returncode == 0, done.stderr
    with np.load(files[2], allow_pickle=False) as outputs:
        np.testing.assert_allclose(outputs["logits"], run(graph.model, inputs)["logits"], atol=1e-5)
