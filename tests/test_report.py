"""What `python -m bench.report` says: fronts and comparisons worked out by hand, mistakes named."""

import json
import math
import os

import numpy as np
import pytest

from bench.edge import results
from bench.report import charts, front, gather, published, sections
from bench.report.__main__ import main
from export.artifact import building, seal
from tests.support.reports import (
    FINGERPRINT,
    FOUR,
    LABELS,
    ORIN,
    artifact,
    contender,
    estimated,
    measured,
)


def early_spec(blocks):
    return {"junctions": [{"join": "attention", "blocks": blocks}], "pool": "mean"}


def answer(tmp_path, capsys, *inputs, code=0):
    """(stdout, Markdown) of a report that ends with exit code `code`."""
    assert main([*map(str, inputs), f"--out={tmp_path / 'r'}"]) == code
    found = capsys.readouterr()
    return (found.out, (tmp_path / "r.md").read_text()) if code == 0 else (found.err, None)


def points(*contenders):
    content = {"format": results.FORMAT, "fingerprint": FINGERPRINT, "contenders": contenders}
    return gather.points_of(gather.Inputs(measured={"a.json": content}), [])[0]


def test_the_front_leaves_out_what_is_slower_and_no_more_accurate():
    assert [p.name for p in front.pareto(points(*FOUR), "p90")] == ["image", "early", "late"]


def test_what_rounds_as_no_scored_graph_does_is_on_no_front(tmp_path, capsys):
    rounded = contender("bf16", 1, runner="openvino-bf16")
    path = measured(tmp_path / "a.json", *FOUR, rounded)
    assert main([str(path), "--budget_ms=15", f"--out={tmp_path / 'r'}"]) == 0
    assert "bf16" not in capsys.readouterr().out.partition("Report:")[0]
    assert "not known in bfloat16" in (tmp_path / "r.md").read_text()


@pytest.mark.parametrize(("budget", "best"), [(15, "late"), (14.1, "early"), (3, "image")])
def test_a_p90_is_within_the_budget_only_with_its_interval(budget, best):
    # late: 14 ms, up to 14.14 ms.
    assert front.best_within(points(*FOUR), budget).chosen.name == best


def test_nothing_in_the_budget_names_the_nearest(tmp_path, capsys):
    path = measured(tmp_path / "a.json", *(c for c in FOUR if c["name"] in ("late", "inter")))
    assert main([str(path), "--budget_ms=5", f"--out={tmp_path / 'r'}"]) == 0
    said = capsys.readouterr().out
    assert "nothing fits 5 ms. inter comes nearest, p90 8.00 [7.84, 8.08] ms" in said


def test_a_gain_of_the_same_answers_is_none():
    twin = artifact("late", 80, seal="another")
    gain = front.difference(*(p.model for p in points(contender("a", 1), contender("b", 2, twin))))
    # None of 100 rows differs: by the rule of three fewer than 3 in 100 do.
    assert gain == front.Interval(0.0, -0.03, 0.03, above=0.0)


def test_where_a_bootstrap_sees_no_doubt_the_rule_of_three_does():
    perfect, alone = artifact("late", 100), artifact("late", 80, seal="another")
    alone["test"]["groups"] = ["one speaker"] * 100
    first, second = points(contender("a", 1, perfect), contender("b", 2, alone))
    assert (first.model.accuracy.low, first.model.accuracy.high) == (pytest.approx(0.97), 1.0)
    assert (second.model.accuracy.low, second.model.accuracy.high) == (0.0, 1.0)


def test_a_gain_is_paired_by_row():
    # 4 more of the same 100 rows: the rows both answer alike cancel, which leaves a share of
    # 0.04 with a standard deviation of sqrt(0.04 * 0.96 / 100) = 0.0196.
    first, second = points(contender("a", 1, artifact("late", 84)), contender("b", 2))
    gain = front.difference(first.model, second.model)
    assert gain.mean == pytest.approx(0.04)
    assert gain.high - gain.low == pytest.approx(2 * 1.96 * 0.0196, abs=0.012)
    # At least one of the four is drawn in all but 0.96 ** 100 = 1.7 % of resamples.
    assert gain.above == pytest.approx(0.983, abs=0.01)


def test_a_doubtful_gain_says_that_the_cheaper_one_may_do(tmp_path, capsys):
    doubtful = contender("late", 9, artifact("late", 81, wrong_from=50))
    said, _ = answer(tmp_path, capsys, measured(tmp_path / "a.json", FOUR[1], FOUR[3]))
    assert "cheaper one may be just as good" not in said
    said, _ = answer(
        tmp_path, capsys, measured(tmp_path / "b.json", contender("inter", 3), doubtful)
    )
    assert "most accurate is late (late at fp32)" in said
    assert "cheaper one may be just as good" in said


def test_rows_of_a_group_are_drawn_together():
    values = np.tile([True, False], 200)[None]
    # The binomial's standard deviation; groups of ten rows that are alike have ten times its
    # variance.
    alone = front.interval(values, None)
    together = front.interval(
        np.repeat(values[:, :40], 10, axis=1), [str(i // 10) for i in range(400)]
    )
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 400), rel=0.1)
    assert together.high - together.low == pytest.approx(2 * 1.96 * math.sqrt(2.5 / 400), rel=0.1)


def test_seeds_are_drawn_too():
    found = front.interval(np.array([[1.0] * 10, [0.0] * 10]), None)
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_seeds_of_one_model_are_pooled():
    pooled = front.pool([artifact(right=80), artifact(right=90, seed=1)])
    assert len(set(pooled.values())) == 2  # fp32, int8
    (model,) = {m for (_, precision), m in pooled.items() if precision == "fp32"}
    assert list(model.correct) == [0, 1]
    assert model.accuracy.mean == pytest.approx(0.85)


def test_seeds_are_pooled_by_spec_whatever_the_order_of_its_keys_and_the_nodes():
    turned = dict(reversed(artifact()["spec"].items()))
    fewer = {"fp32": {"nodes": 9}, "int8": {"nodes": 9}}
    pooled = front.pool([artifact(), artifact(seed=1, spec=turned, models=fewer)])
    assert {tuple(model.correct) for model in pooled.values()} == {(0, 1)}


def test_without_a_spec_seeds_pool_with_each_other():
    older = [artifact(seed=seed) for seed in (0, 1)]
    for one in older:
        del one["spec"]
    assert {tuple(model.correct) for model in front.pool(older).values()} == {(0, 1)}


def test_two_trainings_of_one_seed_stand_alone():
    pooled = front.pool([artifact(right=80), artifact(right=90), artifact(right=70, seed=1)])
    found = {m.accuracy.mean for (_, precision), m in pooled.items() if precision == "fp32"}
    assert found == {0.8, 0.9, 0.7}


@pytest.mark.parametrize(
    "changes", [{"dataset": "b"}, {"spec": early_spec(4)}, {"spec": None}, {"variant": "late"}]
)
def test_what_is_another_model_is_not_pooled(changes):
    pooled = front.pool([artifact(), artifact(seed=1, **changes)])
    assert all(len(model.correct) == 1 for model in pooled.values())


def test_unlike_machines_stand_apart(tmp_path, capsys):
    slow = measured(tmp_path / "slow.json", contender("inter", 20))
    fast = measured(tmp_path / "fast.json", contender("inter", 10), fingerprint=ORIN)
    said, text = answer(tmp_path, capsys, slow, fast)
    assert "A <CPU>; demo: nothing fits 15 ms" in said
    assert "Orin, A <CPU>; demo: within 15 ms the most accurate is inter (fast)" in said
    assert text.count("Chart in r.html") == 2
    assert "| board | differs |  | Orin |" in text


def test_unlike_machines_share_no_chart_of_batches():
    batches = [contender(f"batch {n}", 5 * n, batch=n) for n in (1, 4)]
    chart = charts.sweep_chart(points(*batches), "here", "batch")
    assert [trace["x"] for trace in chart.traces] == [[1, 4], [1, 4]]
    # 4.5 ms a query of one, 18 ms of four: 222 examples a second either way.
    assert chart.traces[1]["y"] == pytest.approx([1000 / 4.5] * 2)
    files = {
        name: {"format": results.FORMAT, "fingerprint": print_, "contenders": batches, "ratios": []}
        for name, print_ in (("a.json", FINGERPRINT), ("b.json", ORIN))
    }
    for content in files.values():
        content |= {"machine_speed": {"steady": True}, "method": {}}
    inputs = gather.Inputs(measured=files)
    found, models = gather.points_of(inputs, [])
    _, shown = sections.sections_of(inputs, found, models, budget=15, precisions=[])
    (swept,) = [s for s in shown if s.title == "Batch and threads"]
    assert [len(chart.traces) for chart in swept.parts] == [2, 2]


def test_unlike_test_sets_stand_apart(tmp_path, capsys):
    other = artifact("late", 90)
    other["test"] = {**other["test"], "ids": "other"}
    path = measured(tmp_path / "a.json", contender("a", 5), contender("b", 6, other))
    said, text = answer(tmp_path, capsys, path)
    assert "demo, test set 1 of 2: within 15 ms the most accurate is a " in said
    assert text.count("Chart in r.html") == 2


def test_a_contender_of_two_files_is_shown_twice(tmp_path, capsys):
    files = [measured(tmp_path / f"{n}.json", contender("inter", n)) for n in (10, 11)]
    _, text = answer(tmp_path, capsys, *files)
    assert "| inter (10) |" in text
    assert "| inter (11) |" in text
    assert text.count("Chart in r.html") == 1


def test_an_estimate_is_called_one_wherever_it_stands(tmp_path, capsys):
    entry = {"artifact": artifact(), "precision": "fp32"}
    entry |= {"milliseconds": 7.77, "low": 5, "high": 9}
    given = estimated(tmp_path / "e.json", entry)
    said, text = answer(tmp_path, capsys, given, measured(tmp_path / "a.json", FOUR[1]))
    lines = [line for line in (said + text).splitlines() if "7.77" in line]
    assert len(lines) >= 4
    assert all("estimate" in line.lower() for line in lines)
    assert "28 % at the median" in text
    (point,) = gather.points_of(gather.gather([given]), [])[0]
    chart = charts.front_chart([point], "", 15)
    assert all("estimate" in trace["name"] for trace in chart.traces)
    assert chart.traces[1]["marker"]["symbol"].endswith("-open")


def test_a_taught_model_has_the_colour_of_the_same_untaught_and_a_mark_of_its_own():
    names = ("early", "late", "early taught")
    found = points(*(contender(name, 10, artifact(name)) for name in names))
    traces = {t["name"]: t["marker"] for t in charts.front_chart(found, "", 15).traces[1:]}
    alone, other, taught = (traces[f"{name} fp32"] for name in names)
    assert alone["color"] == taught["color"] != other["color"]
    assert taught["symbol"] == f"{alone['symbol']}-dot"


def test_without_any_p90_the_axis_is_p50_and_the_budget_has_no_answer(tmp_path, capsys):
    quick = contender("inter", 5)
    quick["latency"] |= {"p90": None, "p90_interval": None, "count": 20}
    said, _ = answer(tmp_path, capsys, measured(tmp_path / "a.json", quick, FOUR[0]))
    assert "most accurate is image" in said
    assert front.axis_of(points(quick, FOUR[0])) == "p50"
    said, _ = answer(tmp_path, capsys, measured(tmp_path / "b.json", quick))
    assert "64 samples at least are wanted" in said


def test_baselines_stand_beside_the_answer(tmp_path, capsys):
    _, text = answer(tmp_path, capsys, measured(tmp_path / "a.json", *FOUR))
    assert "| always negative, the most frequent class | 50.0 |" in text
    assert "| image only: image | 55.0 [" in text
    assert "Not measured here: text only." in text


def test_published_and_measured_numbers_have_columns_of_their_own(tmp_path, capsys):
    by_tensorrt = contender("early", 3, artifact("early", 70), runner="tensorrt")
    path = measured(tmp_path / "a.json", FOUR[1], FOUR[0], by_tensorrt)
    _, text = answer(tmp_path, capsys, path)
    rows = [line for line in text.splitlines() if line.startswith("| Early Fusion")]
    accuracy, runtime, tensorrt = ([c.strip() for c in row.split("|")[1:-1]] for row in rows)
    assert accuracy[:4] == ["Early Fusion", "early", "67.89", "66.59"]
    assert accuracy[4].startswith("70.0 [")
    assert runtime[2:] == ["11.4", "4.50 [4.25, 4.75]"]
    assert tensorrt[2:] == ["7.32538", "10.951", "2.70 [2.55, 2.85]"]
    (late,) = [
        line for line in text.splitlines() if line.startswith("| Late Fusion | late | 84.25")
    ]
    assert late == "| Late Fusion | late | 84.25 | 83.62 |  |"
    assert "| BERT | text | 80.20 |" in text
    heads = [line for line in text.splitlines() if line.startswith("| model |")]
    assert all("CMU-MOSI" not in head.split("measured")[-1] for head in heads if "measured" in head)
    assert "measured, A &lt;CPU>, demo, bert-base-uncased + mobilenet" in heads[1]


def test_what_is_published_does_not_stand_beside_other_data_on_a_cpu(tmp_path, capsys):
    _, text = answer(tmp_path, capsys, measured(tmp_path / "a.json", FOUR[1], FOUR[0]))
    assert "published (" not in text


def test_attention_blocks_are_told_of_contenders_and_of_artifacts_alike():
    # Of the same backbones and node counts: only the spec tells two depths apart.
    four = artifact("early", 70, spec=early_spec(4))
    six = artifact("early", 60, seed=1, spec=early_spec(6))
    unlike = artifact("input", 90, spec=early_spec(8))
    ran = {"format": results.FORMAT, "fingerprint": FINGERPRINT}
    ran["contenders"] = [contender("early", 5, four), contender("input", 9, unlike)]
    inputs = gather.Inputs(measured={"a.json": ran}, artifacts={"six": six})
    _, blocks, *_ = published.tables(gather.points_of(inputs, [])[1], [], {})
    shown = {row[0]: [cell.split(" [")[0] for cell in row[1:]] for row in blocks.rows}
    assert shown == {
        "2": ["62.37", ""],
        "4": ["67.89", "70.0"],
        "6": ["61.38", "60.0"],
        "8": ["69.09", ""],
    }


def test_a_model_with_sound_stands_beside_no_published_one():
    plain = artifact("early", 70, spec=early_spec(4))
    three = {**plain["backbones"], "audio": "audio_cnn"}
    sounding = artifact("early", 60, seed=1, spec=early_spec(6), backbones=three)
    ran = {"format": results.FORMAT, "fingerprint": FINGERPRINT}
    ran["contenders"] = [contender("early", 5, plain), contender("sound", 6, sounding)]
    inputs = gather.Inputs(measured={"a.json": ran}, artifacts={"three": sounding})
    points, models = gather.points_of(inputs, [])
    machines = {point.machine: "A" for point in points}
    rows = [row for table in published.tables(models, points, machines) for row in table.rows]
    assert any("70.0" in cell for row in rows for cell in row[1:])
    assert not any("60.0" in cell for row in rows for cell in row[1:])


def test_tensorrt_is_known_by_the_provider_that_ran():
    run = points(contender("late", 9, artifact("late"), providers=["TensorrtExecutionProvider"]))
    *_, runtime, tensorrt = published.tables([], run, {run[0].machine: "here"})
    assert runtime.rows[0] == ["Late Fusion", "late", "21.6"]
    assert tensorrt.rows[0][-1] == "8.10 [7.65, 8.55]"


def test_further_seeds_come_from_artifacts(tmp_path, capsys):
    folder = tmp_path / "seed 1"
    with building(folder) as partial:
        lines = ["id,label,fp32", *(f"{i},{label},{label}" for i, label in enumerate(LABELS))]
        (partial / "test.csv").write_text("\n".join(lines) + "\n")
        meta = {
            key: value for key, value in artifact(seed=1).items() if key not in ("path", "test")
        }
        meta |= {"dataset": {"name": "demo"}, "models": {"fp32": {"nodes": 10}}}
        meta["models"]["fp32"]["metrics"] = {"accuracy": 1.0}
        seal(partial, meta)
    found = gather.gather([folder, estimated(tmp_path / "e.json")]).artifacts[str(folder)]
    mine = artifact(right=80)
    mine["test"] = {**mine["test"], "ids": found["test"]["ids"]}
    path = measured(tmp_path / "a.json", contender("inter", 5, mine))
    assert "accuracy 80.0 [" in answer(tmp_path, capsys, path)[0]
    said, text = answer(tmp_path, capsys, path, folder)
    assert "accuracy 90.0 [" in said
    assert "| 0, 1 |" in text


def test_ratios_are_told_in_words(tmp_path, capsys):
    shared = {"confidence": 0.99, "rounds": 12, "margin": 0.03}
    clear = {"first": 0, "second": 1, "ratio": 0.4, "low": 0.38, "high": 0.42, **shared}
    short = {"first": 1, "second": 0, "ratio": 2.5, "low": None, "high": None, **shared}
    ratios = [{**clear, "verdict": "faster"}, {**short, "verdict": "unclear"}]
    _, text = answer(tmp_path, capsys, measured(tmp_path / "a.json", *FOUR[:2], ratios=ratios))
    assert "| 0.400 [0.380, 0.420] | 99 | 12 | image is faster than early, by more" in text
    assert "| 2.500 | 99 | 12 | early against image: too noisy to tell, more" in text


def test_what_a_reader_should_doubt_is_said(tmp_path, capsys):
    lost = {"name": "broken|", "error": "It was killed.", "complete": False, "precision": "fp32"}
    half = contender("half", 3, complete=False)
    speed = {"steady": False, "change": 1.3, "sentence": "1.30 times slower in one part"}
    path = measured(
        tmp_path / "a.json",
        lost,
        half,
        machine_speed=speed,
        method={"profile": "quick"},
        moment={"before": {"busy": "Other work takes 2.0 of 2 cores."}},
    )
    _, text = answer(tmp_path, capsys, path)
    assert "| broken\\| | It was killed. |" in text
    assert "Not complete, with fewer samples than planned: half." in text
    assert "1.30 times slower" in text
    assert "as it began: Other work takes 2.0 of 2 cores." in text
    assert "profile quick" in text
    assert "One seed only" in text


def test_a_measurement_that_was_killed_is_shown_with_the_samples_it_has(tmp_path, capsys):
    blocks = [{"round": i, "samples": [5.0] * 20} for i in range(5)]
    killed = contender("inter", 0, blocks=blocks, complete=False, latency=None)
    path = measured(tmp_path / "a.json", killed, contender("late", 0, blocks=[], latency=None))
    content = json.loads(path.read_text())
    del content["ratios"], content["machine_speed"]
    path.write_text(json.dumps(content))
    said, text = answer(tmp_path, capsys, path)
    assert "most accurate is inter (inter at fp32): accuracy 80.0 [" in said
    assert "p90 5.00 ms" in said
    assert "fewer samples than planned: inter" in text


def test_only_the_wanted_precision_is_shown(tmp_path, capsys):
    slim = contender("slim", 4, artifact("late", 90), "int8")
    path = measured(tmp_path / "a.json", *FOUR, slim)
    assert main([str(path), "--precisions=int8", f"--out={tmp_path / 'r'}"]) == 0
    assert "most accurate is slim" in capsys.readouterr().out
    assert "\n| early |" not in (tmp_path / "r.md").read_text()
    assert main([str(path), "--precisions=int4", f"--out={tmp_path / 'r'}"]) == 2


def test_the_ladder_compares_with_fp32_row_by_row(tmp_path, capsys):
    of = artifact("late", 80)
    of["test"] = {**of["test"], "predicted": {**of["test"]["predicted"], "int8": LABELS}}
    rungs = [contender("full", 10, of), contender("slim", 4, of, "int8")]
    _, text = answer(tmp_path, capsys, measured(tmp_path / "a.json", *rungs))
    (row,) = [line for line in text.splitlines() if line.startswith("| slim | A &lt;CPU> | int8")]
    assert "| 100.0 [97.0, 100.0] | +20.0 [+" in row
    assert row.endswith("] |  | 3.60 [3.40, 3.80] |"), (
        "an artifact of before does not say what it may lose"
    )


def test_the_ladder_shows_what_a_precision_may_lose_and_what_the_export_noted(tmp_path, capsys):
    said = "int8: 6 of 64 predictions change, which --allow_loss allows (4 would be)."
    lost = {"fp32": {"allowed_loss": 0.025}, "int8": {"allowed_loss": 0.025}}
    of = artifact("late", 80, allow_loss=2.5, notes=[said])
    of["models"] = {name: {**model, **lost[name]} for name, model in of["models"].items()}
    rungs = [contender("full", 10, of), contender("slim", 4, of, "int8")]
    _, text = answer(tmp_path, capsys, measured(tmp_path / "a.json", *rungs))
    text = text.replace("\\_", "_")
    (row,) = [line for line in text.splitlines() if line.startswith("| slim | A &lt;CPU> | int8")]
    assert "| 2.5 (--allow_loss) |" in row
    assert text.count(f"artifacts/late-0: {said}") == 1


def test_a_folder_gives_all_its_files_and_out_may_be_a_folder(tmp_path, capsys):
    folder = tmp_path / "results"
    measured(folder / "a.json", contender("inter", 5))
    (folder / "notes.json").write_text("{}")
    (folder / "older.json").write_text('{"format": "fusion_keras results 0"}')
    assert main([str(folder), str(folder / "a.json"), f"--out={tmp_path}"]) == 0
    text = (tmp_path / "report.md").read_text()
    assert "notes.json was passed over" in text
    assert "older.json was passed over" in text
    assert (tmp_path / "report.html").is_file()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".partial")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ('{"format": "fusion_keras results 1", "cont', "cut short"),
        ("[]", "no results of this bench"),
        ('{"format": "fusion_keras results 0"}', "measure again"),
        ('{"format": "fusion_keras results 1"}', "is not laid out as"),
        ('{"format": "fusion_keras results 1", "contenders": [{"name": "a"}]}', "'artifact'"),
        ('{"format": "fusion_keras estimate 1", "estimates": 3}', "is not laid out as"),
        ("\xff\xfe", "no JSON"),
    ],
)
def test_an_unusable_file_is_one_sentence(tmp_path, capsys, text, said):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    error, _ = answer(tmp_path, capsys, path, code=2)
    assert error.startswith("error: ")
    assert said in error
    assert str(path) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r.md").exists()


def test_the_same_measurement_twice_is_refused(tmp_path, capsys):
    files = [measured(tmp_path / name, contender("inter", 5)) for name in ("a.json", "b.json")]
    error, _ = answer(tmp_path, capsys, *files, code=2)
    assert "are the same measurement" in error


def test_an_empty_folder_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "holds neither" in answer(tmp_path, capsys, tmp_path / "empty", code=2)[0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [("id,label\nx,0\n", "no measurement"), ("id,label\n", "test.csv has no rows")],
)
def test_an_artifact_alone_or_without_test_rows_is_refused(tmp_path, capsys, rows, said):
    with building(tmp_path / "artifact") as partial:
        (partial / "test.csv").write_text(rows)
        meta = {key: value for key, value in artifact().items() if key not in ("path", "test")}
        seal(partial, meta | {"dataset": {"name": "demo"}, "models": {}})
    assert said in answer(tmp_path, capsys, tmp_path / "artifact", code=2)[0]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    path = measured(tmp_path / "a.json", contender("inter", 5))
    assert main([str(path), f"--out={path}/r"]) == 2
    assert "cannot be written" in capsys.readouterr().err
