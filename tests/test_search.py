"""A search as a whole: what is proposed, what is kept, what a kill costs, what is refused.

Trials are looked up in a formula here; `test_search_trials.py` has real ones.
"""

import contextlib
import dataclasses
import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta

from fusion_keras import metrics
from fusion_keras.config import copied, get_config
from fusion_keras.errors import UsageError
from fusion_keras.searching import asked, page, proof, proposals, report, space_file, study, trial
from fusion_keras.searching import base as bases
from fusion_keras.searching.losses import half_width, losses_of
from fusion_keras.searching.outcome import FAILED, OVER, TRAINED, Outcome, others, pareto
from fusion_keras.searching.request import Request
from fusion_keras.searching.trial import PICTURE
from fusion_keras.training.recipes import resolve
from tests.support.many_trials import looked_up

BUDGET = 3.0


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def base():
    return get_config()


@pytest.fixture
def ask(tmp_path, base):
    def made(**changes):
        given = {"count": 14, "budget": 1.6, "precisions": ("int8",), "cache": tmp_path / "cache"}
        given |= {"base": base, "space": space_file.default(base), "folder": tmp_path / "search"}
        return Request(**(given | changes))

    return made


def searched(request, **more):
    outcomes = []
    study.search(request, outcomes, **{"carry_out": looked_up, **more})
    return outcomes


def optuna_trials(request):
    return optuna.load_study(study_name="fusion_keras", storage=request.url).trials


@pytest.mark.parametrize(
    ("teacher", "folder"), [("late", "late-s1"), ("text", "text-s1"), ("inter", "inter-alone-s1")]
)
def test_a_teacher_stands_beside_its_taught_namesake(teacher, folder, ask, monkeypatch):
    """In the proof inter learns from inter."""
    trained = []
    monkeypatch.setattr(bases, "train_whole", lambda place, config, at: trained.append(at.name))

    made = bases.joint_base(ask(teacher=teacher), None, 1, lambda line: None)

    assert [Path(run).name for run in made.teacher.runs] == [folder]
    assert trained == [*(Path(run).name for run in made.parents), folder]


def test_what_trials_start_from_is_trained_as_any_parent(ask, base, monkeypatch):
    config = copied(base)
    config.recipe, config.train.epochs, config.parent.epochs = "best", 2, 7
    trained = {}
    monkeypatch.setattr(
        bases, "train_whole", lambda place, config, at: trained.update({at.name: resolve(config)})
    )

    bases.joint_base(ask(base=config, space=space_file.default(config)), None, 1, lambda line: None)

    assert {name: found.train.epochs for name, found in trained.items()} == {"image-parent-s1": 7}


def test_a_search_does_not_go_on_over_other_rows(ask, base, tmp_path):
    config, table = copied(base), tmp_path / "set.csv"
    config.data.source, config.data.path = "manifest", str(table)
    table.write_text("text,label\na,0\n")
    (tmp_path / "search").mkdir()
    study.open_study(ask(base=config))
    study.open_study(ask(base=config))
    table.write_text("text,label\na,1\n")
    with pytest.raises(UsageError, match=r"set.csv has changed since the search in .* began"):
        study.open_study(ask(base=config))


def test_the_named_variants_come_first_and_no_model_comes_twice(ask):
    outcomes = searched(ask())

    assert [o.named for o in outcomes[:5]] == ["text", "late", "inter", "early", ""]
    assert len(outcomes) == 14 == len({o.key for o in outcomes})


@pytest.mark.parametrize("sampler", ["nsga2", "random"])
def test_other_samplers_find_as_many_models(sampler, ask):
    outcomes = searched(ask(sampler=sampler, count=14))

    assert len({o.key for o in outcomes}) == 14


def test_what_is_over_the_budget_is_told_to_the_sampler_as_a_constraint(ask):
    request = ask()
    outcomes = {o.key: o for o in searched(request)}

    told = [t for t in optuna_trials(request) if "key" in t.user_attrs]

    assert any(outcomes[t.user_attrs["key"]].state == OVER for t in told)
    for frozen in told:
        over = outcomes[frozen.user_attrs["key"]].p90 - request.budget
        assert sum(frozen.constraints.values()) == pytest.approx(over)
        wanted = optuna.trial.TrialState.PRUNED if over > 0 else optuna.trial.TrialState.COMPLETE
        assert frozen.state == wanted


def test_the_same_seed_proposes_the_same_models(ask, tmp_path):
    one = searched(ask())
    other = searched(ask(folder=tmp_path / "other"))

    assert [o.key for o in one] == [o.key for o in other]


@pytest.mark.parametrize(("sampler", "jobs"), [("tpe", 1), ("nsga2", 1), ("tpe", 3)])
def test_a_search_that_is_killed_again_and_again_finds_the_same(sampler, jobs, ask, tmp_path):
    asked = {"sampler": sampler, "jobs": jobs, "count": 16}
    undisturbed = searched(ask(**asked))
    request, killed = ask(**asked, folder=tmp_path / "killed"), set()

    def dying(place, point, plan, key, *more):
        if jobs > 1:  # they end in another order
            time.sleep(random.Random(key).uniform(0, 0.1))
        if int(key, 16) % 2 and key not in killed:  # before the trial has an outcome
            killed.add(key)
            raise Killed
        return looked_up(place, point, plan, key, *more)

    outcomes = None
    while outcomes is None:
        with contextlib.suppress(Killed):
            outcomes = searched(request, carry_out=dying)

    assert [o.key for o in outcomes] == [o.key for o in undisturbed]
    assert pareto(outcomes) == pareto(undisturbed)
    states = {t.state for t in optuna_trials(request)}
    assert len(killed) > 4
    assert optuna.trial.TrialState.RUNNING not in states


def test_several_at_a_time_find_the_same_whichever_ends_first(ask, tmp_path):
    rng, most, now = random.Random(0), [0], set()

    def slow(place, point, plan, key, folder, settings, before, named=""):
        now.add(key)
        most[0] = max(most[0], len(now))
        time.sleep(rng.uniform(0, 0.6))
        outcome = looked_up(place, point, plan, key, folder, settings, before, named)
        compared[-1][key] = [o.key for o in before]
        now.discard(key)
        return outcome

    compared, found = [], []
    for number in range(2):
        compared.append({})
        request = ask(jobs=2, folder=tmp_path / str(number))
        found.append([o.key for o in searched(request, carry_out=slow)])

    assert found[0] == found[1]
    assert compared[0] == compared[1]
    assert most[0] == 2
    # Of those that it was begun beside a trial knows nothing.
    assert [len(compared[0][key]) for key in found[0]] == [
        max(0, number + 1 - study.ahead(2)) for number in range(14)
    ]


def test_more_trials_go_on_from_those_that_are_there(ask):
    first = searched(ask(count=10))
    made = []

    def counted(*arguments):
        made.append(arguments)
        return looked_up(*arguments)

    all_of_them = searched(ask(count=15), carry_out=counted)

    assert [o.key for o in all_of_them[:10]] == [o.key for o in first]
    # Those outside the space are asked again, and have their outcome at once.
    assert len(made) == 5 + 2


def test_a_finished_search_that_is_run_again_says_the_same(ask):
    request, told = ask(), []
    first = searched(request)

    again = searched(request, on_trial=told.append)

    assert again == first
    assert told == []
    said = [report.closing(request, outcomes)[1] for outcomes in (first, again)]
    assert said[0] == said[1]
    assert proof.finalists(again, 3, request.limits)


def test_a_second_process_in_the_same_folder_is_refused(ask):
    request = ask(count=5)

    def nested(*arguments):
        searched(request)

    with pytest.raises(UsageError, match="Another process is searching"):
        searched(request, carry_out=nested)


def test_a_variant_whose_other_settings_are_no_dimension_is_no_point(ask, base):
    space = space_file.checked({"taps.text": "all", "fusion.tokens": ("sequence",)}, base, "it")

    # Its four blocks are not there, where points have one.
    assert "early" not in proposals.inside(ask(space=space))


def test_the_front_ends_at_the_budget(ask):
    request = ask()
    outcomes = searched(request)

    front = pareto(outcomes, request.limits)

    assert front
    assert all(o.latency[p]["p90"] <= request.budget for o, p in front)


def test_hypervolume_never_falls(ask):
    request = ask(budget=None)
    outcomes = searched(request)

    grown = report.volumes(request, outcomes)

    assert grown == sorted(grown)
    assert 0 < grown[-1] < 1
    nll = min(o.nll[p] for o, p in pareto(outcomes))
    standing = report.standing(request, outcomes)
    assert standing.startswith(f"(best: NLL {nll:.3f}, ")
    assert f"dominates {100 * grown[-1]:.1f} %" in standing
    assert report.standing(request, []) == ""


def test_finalists_are_of_the_front_and_no_named_variants(ask):
    request = ask()
    outcomes = searched(request)

    chosen = proof.finalists(outcomes, 2, request.limits)

    keys = {o.key for o, _ in pareto(outcomes, request.limits)}
    assert 0 < len(chosen) <= 2
    assert all(o.key in keys and not o.named for o in chosen)


def test_what_is_no_better_than_a_guess_is_told_and_not_proven(ask):
    request = ask()
    outcomes = searched(request)
    lucky, *others = proof.finalists(outcomes, 14, request.limits)
    lucky.guess = min(lucky.nll.values())

    assert proof.finalists(outcomes, 14, request.limits) == others
    said = report.closing(request, outcomes)[1]
    assert said.startswith("note: 1 of the front's ")
    assert "no better than a guess" in said


def test_validation_rows_too_few_to_tell_the_best_are_told(ask):
    request = ask()
    outcomes = searched(request)
    trained = [o for o in outcomes if o.state == TRAINED]
    assert not [x for x in report.closing(request, outcomes) if "which is best is open" in str(x)]
    for outcome in trained:
        outcome.nll_error = {"int8": 1.0}

    said = report.closing(request, outcomes)[1]

    assert f"is known to +- 1.000 (95 %), and {len(trained) - 1} of the {len(trained) - 1}" in said


@pytest.mark.parametrize("seed", [5000, 2**31])
def test_large_seeds_are_seeds(seed, ask):
    assert len(searched(ask(seed=seed, count=5))) == 5


def test_more_named_variants_may_be_asked_for_later(ask):
    searched(ask(count=5, named=("early",)))

    outcomes = searched(ask(count=8, named=("early", "inter")))

    assert {"early", "inter"} <= {o.named for o in outcomes}


def test_a_failed_trial_is_kept_with_its_reason(ask):
    def failing(place, point, plan, key, folder, settings, before, named=""):
        outcome = looked_up(place, point, plan, key, folder, settings, before, named)
        if not named:
            outcome.state, outcome.reason = FAILED, "out of memory"
            outcome.latency = {}
        return outcome

    request = ask(count=6)
    searched(request, carry_out=failing)

    reasons = [t.user_attrs.get("reason") for t in optuna_trials(request)]
    assert "out of memory" in reasons


def test_a_damaged_trial_is_told_and_may_be_removed(ask):
    request = ask(count=8)
    broken = next(o for o in searched(request) if not o.named)
    folder = request.folder / "trials" / broken.key
    (folder / "outcome.json").write_text("{")

    with pytest.raises(UsageError, match=f"outcome.json cannot be read .* remove .*{broken.key}"):
        searched(request)
    shutil.rmtree(folder)

    assert len({o.key for o in searched(request)}) == 8


def test_a_picture_of_each_trained_model_is_an_artifact_of_its_trial(ask):
    def drawn(place, point, plan, key, folder, *more):
        outcome = looked_up(place, point, plan, key, folder, *more)
        (folder / PICTURE).write_text(f"<svg>{key}</svg>")
        return outcome

    request = ask(count=6, budget=None)
    searched(request, carry_out=drawn)

    kept = FileSystemArtifactStore(request.folder / "artifacts")
    for frozen in (t for t in optuna_trials(request) if "key" in t.user_attrs):
        storage = optuna.storages.get_storage(request.url)
        (meta,) = get_all_artifact_meta(frozen, storage=storage)
        with kept.open_reader(meta.artifact_id) as file:
            assert file.read().decode() == f"<svg>{frozen.user_attrs['key']}</svg>"
        assert meta.mimetype == "image/svg+xml"


def test_a_space_without_further_points_ends_the_search(ask, base, monkeypatch):
    monkeypatch.setattr(proposals, "_EXHAUSTED", 15)
    small = space_file.checked(
        {"taps.text": (2, 3), "taps.image": (4,), "joins": ("concat",)}, base, "it"
    )

    outcomes = searched(ask(space=small, named=(), count=30))

    assert len(outcomes) == 2


def test_another_search_in_the_same_folder_is_refused(ask):
    searched(ask(count=5))

    with pytest.raises(UsageError, match=r"other settings \(budget_ms was 1.6, is 2.0\)"):
        searched(ask(budget=2.0, count=5))


def test_the_storage_of_another_search_is_refused(ask, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    searched(ask(count=5, storage=url))

    with pytest.raises(UsageError, match="is of another search"):
        searched(ask(count=5, storage=url, budget=2.0, folder=tmp_path / "other"))


def test_a_storage_that_cannot_be_opened_is_told(ask):
    with pytest.raises(UsageError, match="--storage nothing://here cannot be opened"):
        searched(ask(storage="nothing://here"))


def test_the_front_has_one_point_for_each_precision_that_no_other_dominates():
    def of(name, p90, nll):
        outcome = Outcome(name, name, {}, TRAINED)
        outcome.latency = {p: {"p50": x, "p90": x, "min": x} for p, x in p90.items()}
        outcome.nll = nll
        return outcome

    slow = of("slow", {"fp32": 4.0, "int8": 2.0}, {"fp32": 0.30, "int8": 0.31})
    fast = of("fast", {"fp32": 3.0, "int8": 1.0}, {"fp32": 0.40, "int8": 0.45})

    front = [(o.name, precision) for o, precision in pareto([slow, fast])]

    assert front == [("fast", "int8"), ("slow", "int8"), ("slow", "fp32")]


def test_a_rung_compares_with_those_that_got_there_whatever_became_of_others():
    """One that failed, or was over the budget, before it was measured has no latency."""
    failed, over = Outcome("a", "a", {}, FAILED, epochs=9), Outcome("b", "b", {}, OVER, epochs=9)
    better = Outcome("c", "c", {}, TRAINED, epochs=9, latency={"fp32": {"p90": 1.0}})
    better.history = [{"epoch": 3, "valid_nll": 0.4}]
    asked = Outcome("d", "d", {}, epochs=9, latency={"fp32": {"p90": 2.0}})

    history = [{"epoch": 3, "valid_nll": 0.5}]

    assert trial._goes_on(asked, [failed, over], history)
    assert not trial._goes_on(asked, [failed, over, better, better], history)
    assert "others do better" in asked.reason


def test_the_page_shows_how_far_the_front_is_to_be_trusted(ask):
    """Of two on the front the slower may be no better, and the faster may be over the budget."""
    fast = Outcome("a", "fast", {}, TRAINED, nll={"int8": 0.50}, nll_error={"int8": 0.06})
    fast.latency = {"int8": {"p90": 1.4, "p90_interval": [1.2, 1.7]}}
    slow = Outcome("b", "slow", {}, TRAINED, nll={"int8": 0.48}, nll_error={"int8": 0.01})
    slow.latency = {"int8": {"p90": 1.55, "p90_interval": [1.5, 1.5]}}

    drawn = {line.name: line for line in page._cloud(ask(), [fast, slow]).data}

    assert list(drawn["front (bars: 95 %)"].x) == [1.4, 1.55]
    assert drawn["front (bars: 95 %)"].error_x.array == pytest.approx([0.3, 0.0])
    assert drawn["front (bars: 95 %)"].error_x.arrayminus == pytest.approx([0.2, 0.05])
    assert drawn["front (bars: 95 %)"].error_y.array == pytest.approx([0.06, 0.01])
    best, worst = drawn["optimistic front"], drawn["pessimistic front"]
    assert (list(best.x), best.y) == ([1.2], pytest.approx([0.44]))
    assert (list(worst.x), worst.y) == ([1.55], pytest.approx([0.49]))


def test_an_nll_is_as_uncertain_as_its_rows_are_few():
    rng = np.random.default_rng(0)
    own, labels = rng.normal(size=(400, 3)), rng.integers(0, 3, 400)
    lower = own + rng.normal(0, 0.1, (400, 3))

    def losses(logits):
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return -np.log(probs[np.arange(400), labels])

    plain, added = losses(own), losses(lower) - losses(own)
    sure = 20 * own  # some are wrong beyond what is counted
    probs = np.exp(sure - sure.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    wanted = metrics.classification_metrics(probs, labels)["nll"]
    assert losses_of(sure, labels).mean() == pytest.approx(wanted)
    assert half_width(own, own, labels, 400) == pytest.approx(1.96 * plain.std(ddof=1) / 20)
    # A model's own rows are many; what int8 adds is known of 400.
    wanted = 1.96 * np.hypot(plain.std(ddof=1) / 100, added.std(ddof=1) / 20)
    assert half_width(own, lower, labels, 10_000) == pytest.approx(wanted)
    several = rng.integers(0, 2, (400, 3))
    chance = 1 / (1 + np.exp(-own))
    plain = -np.log(np.where(several == 1, chance, 1 - chance)).mean(1)
    wanted = 1.96 * plain.std(ddof=1) / 20
    assert half_width(own, own, several, 400) == pytest.approx(wanted)


def test_a_budget_that_nothing_meets_names_the_nearest(ask):
    request = ask(budget=0.1, count=6)
    outcomes = searched(request)

    *_, last = report.closing(request, outcomes)

    nearest = min(outcomes, key=lambda o: o.p90)
    assert f"the nearest is {nearest.named or nearest.name}, p90 {nearest.p90:.2f} ms" in last


def test_memory_is_a_limit_of_its_own(ask):
    request = ask(budget=None, memory=94.0)
    outcomes = searched(request)

    assert {o.state for o in outcomes} == {OVER, TRAINED}
    assert all((o.state == OVER) == (o.latency["int8"]["peak_mb"] > 94) for o in outcomes)
    assert all(o.latency[p]["peak_mb"] <= 94 for o, p in pareto(outcomes, request.limits))
    told = [sum(t.constraints.values()) for t in optuna_trials(request) if "key" in t.user_attrs]
    assert min(told) < 0 < max(told)


def test_limits_that_nothing_meets_name_the_nearest(ask):
    request = ask(budget=0.1, memory=1.0, count=6)
    outcomes = searched(request)

    *_, last = report.closing(request, outcomes)

    assert "is within 0.1 ms and 1 MB; the nearest is" in last


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": 0.0}, "--budget_ms is 0; more than 0"),
        ({"budget": float("nan")}, "--budget_ms is nan"),
        ({"memory": -1.0}, "--budget_mb is -1; more than 0"),
        ({"count": 0}, "--trials is 0"),
        ({"seeds": 0}, "--seeds 0; at least 0 and 1 are wanted"),
        ({"finalists": -1}, "--finalists is -1"),
        ({"side_by_side": "0"}, "--jobs is '0'; a number of at least 1, or auto"),
        ({"sampler": "cmaes"}, "--sampler is 'cmaes'; one of tpe"),
        ({"precisions": ["int4"]}, "--precisions is 'int4'"),
        (
            {"runner": "tensorrt"},
            "--runner is 'tensorrt'; one of ort, ort-cuda, ort-tensorrt, open",
        ),
        (
            {"runner": "openvino", "precisions": ["int8"]},
            "some of fp32, fp16, int8_static are wanted on openvino",
        ),
        ({"named": ["eary"]}, "Unknown variant 'eary'"),
        ({"space": "missing.py"}, "missing.py cannot be read"),
        ({"teacher": "runs/lost"}, "Unknown variant 'runs/lost'"),
    ],
)
def test_what_is_asked_is_checked_first(changes, said, base, tmp_path):
    given = {"folder": tmp_path, "space": None, "count": 5, "budget": 3.0, "precisions": ["fp32"]}
    given |= {"sampler": "tpe", "storage": "", "named": ["early"]}

    with pytest.raises(UsageError, match=said):
        asked.request(base, **(given | changes))


def test_precisions_are_the_runners_unless_others_are_asked_for(base, tmp_path):
    given = {"folder": tmp_path, "space": None, "count": 5, "budget": 3.0, "named": ["early"]}
    given |= {"sampler": "tpe", "storage": "", "precisions": None}

    made = asked.request(base, **given, runner="ort-tensorrt")

    assert made.precisions == ("fp16", "int8_static")
    assert made.identity()["runner"] == "ort-tensorrt"
    assert asked.request(base, **given).precisions == ("fp32", "int8")


def test_a_device_whose_gpu_is_not_measured_gets_a_note(base, tmp_path, caplog):
    given = {"folder": tmp_path, "space": None, "count": 5, "budget": 3.0, "named": ["early"]}
    given |= {"sampler": "tpe", "storage": "", "precisions": None, "device": "ssh://orin"}
    with caplog.at_level("INFO"):
        assert asked.request(base, **given).runner == "ort"
        assert "--runner=ort-cuda or ort-tensorrt" in caplog.text
        caplog.clear()
        asked.request(base, **given, runner="ort")
        assert not caplog.text


def test_a_teacher_is_refused_where_none_can_teach(base, tmp_path):
    given = {"folder": tmp_path, "space": None, "count": 5, "budget": 3.0, "precisions": ["fp32"]}
    given |= {"sampler": "tpe", "storage": "", "named": ["early"], "teacher": "late"}
    config = copied(base)
    config.regression = True

    with pytest.raises(UsageError, match="regression"):
        asked.request(config, **given)


def test_how_a_teacher_is_asked_may_be_set_beside_a_space_of_ones_own(base, tmp_path):
    file = tmp_path / "space.py"
    file.write_text("get_space = lambda: {'fusion.tokens': ('pooled', 'sequence')}")
    given = {"folder": tmp_path, "space": str(file), "count": 5, "budget": 3.0}
    given |= {"precisions": ["fp32"], "sampler": "tpe", "storage": "", "named": []}
    config = copied(base)
    config.teacher.pairs = 1

    made = asked.request(config, **given, teacher="late")

    assert made.base.teacher.pairs == 1
    with pytest.raises(UsageError, match="no teacher: name finished runs"):
        asked.request(config, **given)


def test_unlabelled_rows_are_looked_at_before_the_teacher_is_trained(base, tmp_path):
    given = {"folder": tmp_path, "space": None, "count": 5, "budget": 3.0, "named": ["early"]}
    config = copied(base)
    config.teacher.unlabelled = str(tmp_path / "none.csv")

    with pytest.raises(UsageError, match=r"none\.csv"):
        asked.request(config, **given, precisions=None, sampler="tpe", storage="", teacher="late")


def test_what_cannot_be_exported_is_refused_first(base, tmp_path):
    given = {"folder": tmp_path, "space": None, "count": 5, "budget": 3.0, "precisions": ["fp32"]}
    given |= {"sampler": "tpe", "storage": "", "named": []}
    config = copied(base)
    config.dtype = "bfloat16"

    with pytest.raises(UsageError, match="only float32 can be exported"):
        asked.request(config, **given)


def test_a_space_with_one_point_is_refused(base, tmp_path):
    file = tmp_path / "space.py"
    file.write_text(
        "def get_space():\n"
        "    return {'taps.text': (2,), 'taps.image': (4,), 'joins': ('concat',)}\n"
    )
    given = {"folder": tmp_path, "count": 5, "budget": 3.0, "precisions": ["fp32"]}
    given |= {"sampler": "tpe", "storage": "", "named": [], "space": str(file)}

    with pytest.raises(UsageError, match="has a single point"):
        asked.request(base, **given)


def test_a_search_that_ends_early_tells_of_all_that_is_there_and_a_refused_one_of_nothing(ask):
    request = ask(count=6)
    first = searched(request)
    for found in first:
        folder = request.folder / "trials" / found.key
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "outcome.json").write_text(json.dumps(dataclasses.asdict(found)))

    def killed(*arguments):
        raise Killed

    told = []
    with pytest.raises(Killed):
        study.search(dataclasses.replace(request, count=8), told, carry_out=killed)
    assert {found.key for found in told} == {found.key for found in first}
    told = []
    with pytest.raises(UsageError, match="other settings"):
        study.search(ask(count=6, budget=0.5), told, carry_out=killed)
    assert told == []


def test_what_an_earlier_call_has_found_is_there_whatever_ended_this_one(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        outcome = dataclasses.asdict(Outcome(name, name, {}, TRAINED))
        (tmp_path / name / "outcome.json").write_text(json.dumps(outcome))
    (tmp_path / "b" / "outcome.json").write_text("{")
    (tmp_path / "unfinished").mkdir()
    assert [o.key for o in others(tmp_path, [Outcome("a", "a", {})])] == ["c"]


def test_a_space_of_which_nothing_can_be_built_says_why(ask, monkeypatch):
    def refused(point, config):
        raise UsageError("the model that cannot be")

    monkeypatch.setattr(proposals, "_EXHAUSTED", 5)
    monkeypatch.setattr(proposals, "plan_at", refused)
    with pytest.raises(UsageError, match=r"No point of the space can be built.*that cannot be"):
        searched(ask(named=()))
