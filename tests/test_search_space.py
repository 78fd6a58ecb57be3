"""What a search may vary, and that a point, its spec and its coordinates are one thing."""

import random
import re
import shutil

import optuna
import pytest

from fusion_keras.config import copied, get_config
from fusion_keras.errors import UsageError
from fusion_keras.fusion.spec import decode, encode
from fusion_keras.searching import space_file
from fusion_keras.searching.space import key_of, plan_at, variant_point
from tests.support import tiny


@pytest.fixture(scope="module")
def base():
    return get_config()


@pytest.fixture(scope="module")
def space(base):
    return space_file.default(base)


class Drawn:
    """Suggests at random, or what it is told, and remembers."""

    def __init__(self, seed: int = 0, told: dict | None = None):
        self.random, self.told, self.params = random.Random(seed), told or {}, {}

    def suggest_int(self, name, low, high):
        return self.suggest_categorical(name, range(low, high + 1))

    def suggest_categorical(self, name, values):
        self.params[name] = self.told.get(name, self.random.choice(list(values)))
        return self.params[name]


def drawn_plans(space, base, count):
    for seed in range(count):
        drawn = Drawn(seed)
        point = space.drawn(drawn)
        try:
            yield point, plan_at(point, base)
        except UsageError:
            continue


def test_every_point_is_a_spec_whose_vector_gives_it_back(space, base):
    plans = list(drawn_plans(space, base, 60))

    assert len(plans) > 45
    assert all(decode(encode(plan.spec)) == plan.spec for _, plan in plans)


def test_coordinates_of_a_point_lead_back_to_it(space, base):
    for point, plan in drawn_plans(space, base, 40):
        coordinates = space.coordinates(plan.spec, plan.config)
        assert space.drawn(Drawn(told=coordinates)) == point
        assert key_of(plan_at(point, base)) == key_of(plan)


@pytest.mark.parametrize("variant", ["inter", "early"])
def test_a_named_variant_inside_the_space_has_its_coordinates(variant, space, base):
    plan = plan_at(variant_point(variant), base)

    point = space.drawn(Drawn(told=space.coordinates(plan.spec, plan.config)))

    assert key_of(plan_at(point, base)) == key_of(plan)


@pytest.mark.parametrize("variant", ["text", "late", "late_score"])
def test_a_named_variant_outside_has_none(variant, space, base):
    plan = plan_at(variant_point(variant), base)

    assert space.coordinates(plan.spec, plan.config) is None


def test_the_order_of_junctions_and_one_that_is_there_twice_make_no_other_point(space):
    values = {"fusion.width": 128}
    one = [({"text": 2, "image": 4}, "linear"), ({"text": 3, "image": 6}, "add")]

    points = [space.point(chosen, values) for chosen in (one, one[::-1], [*one, one[0]])]

    assert points[0] == points[1] == points[2]


def test_a_setting_that_a_model_does_not_read_is_no_part_of_its_point(space, base):
    drawn = Drawn(told={"junctions": 1, "join_0": "concat"})

    point = space.drawn(drawn, flat=True)

    assert "fusion.blocks" in drawn.params
    assert set(point.settings) == {"variant", "fusion.junctions"}


def test_a_preset_that_is_a_directory_is_known_by_what_it_holds(base, tmp_path):
    def key(folder):
        config = copied(base)
        config.image.preset = str(folder / "image")
        return key_of(plan_at(variant_point("image"), config))

    one, other = tmp_path / "one", tmp_path / "other"
    tiny.write_presets(one)
    shutil.copytree(one, other)
    assert key(one) == key(other)
    with (other / "image" / "config.json").open("a") as file:
        file.write("\n")
    assert key(one) != key(other)


def test_optuna_draws_points_of_the_space(space, base):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    point = space.drawn(study.ask())

    assert point.settings["fusion.junctions"]


@pytest.mark.parametrize(
    ("described", "said"),
    [
        (
            {"fusion.widht": (64,)},
            r"varies fusion\.widht, which is no dimension\. Is it fusion\.wi",
        ),
        ({"train.learning_rate": (0.1,)}, "It is a setting of the training"),
        ({"junctions": (5,)}, "junctions has 5; some of 1, 2, 3, 4 are wanted"),
        ({"joins": ("sum",)}, "joins has 'sum'; some of concat"),
        ({"taps.text": (7,)}, "taps.text has 7"),
        ({"taps.text": (2.0,)}, r"taps.text has 2\.0; some of 0 to 6, or - are wanted"),
        ({"junctions": (True,)}, "junctions has True; some of 1, 2, 3, 4 are wanted"),
        ({1: (2,)}, "varies 1, which is no dimension"),
        ({"fusion.width": range(64, 10**9)}, "fusion.width has 999999936 values; 1000 are the mo"),
        ({"taps.audio": (1,)}, "varies taps.audio, which is no dimension"),
        ({"fusion.width": ()}, "fusion.width has no values"),
        ({"fusion.width": 64}, "fusion.width is 64; a list of values is wanted"),
        ({"fusion.width": ("64",)}, "fusion.width has '64'; ints are wanted"),
        ({"fusion.width": ((64,),)}, "a list of values is wanted"),
        ({"fusion.tokens": ("sequnce",)}, "fusion.tokens has 'sequnce': Junction 0"),
        ({"image.preset": ("nonsense",)}, "nonsense"),
        ({"fusion.width": (64, 42)}, "fusion.width has 42: .*multiple"),
        ({"fusion.width": (42, 66), "fusion.heads": (2, 6, 4)}, "fusion.heads has 4: .*multiple"),
    ],
)
def test_a_space_that_cannot_be_is_told_in_a_sentence(described, said, base):
    with pytest.raises(UsageError, match=said):
        space_file.checked(described, base, "my_space.py")


def test_a_modality_may_be_left_out_of_every_junction(base):
    space = space_file.checked({"taps.text": ("-",), "fusion.width": (64, 128)}, base, "it")

    point = space.drawn(optuna.create_study().ask())

    assert plan_at(point, base).spec.modalities == ("image",)


def test_widths_without_a_file_are_multiples_of_the_heads(base):
    small = copied(base)
    small.text.preset = "random:bert_mini"  # 256 wide

    assert space_file.default(small).dimensions["fusion.width"] == (40, 84, 168)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("values = 3\n", "has no get_space()"),
        ("def get_space():\n    return {}['x']\n", "fails: KeyError"),
        ("def get_space():\n    return 1 / 0\n", "fails: ZeroDivisionError"),
        ("exit(3)\n", "fails: SystemExit: 3"),
    ],
)
def test_a_space_file_that_cannot_be_read(content, said, tmp_path, base):
    file = tmp_path / "space.py"
    if content is not None:
        file.write_text(content)

    with pytest.raises(UsageError, match=re.escape(said)):
        space_file.of_file(file, base)


def test_the_space_of_configs_is_one(base):
    from configs import space_small

    space = space_file.checked(space_small.get_space(), base, "configs/space_small.py")

    assert space.modalities == ("text", "image")
