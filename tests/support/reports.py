"""What stands for artifacts, measurements and runs, as `bench.report` reads them."""

import csv
import json

from bench.edge import results
from bench.report.__main__ import main

FINGERPRINT = {"cpu": "A <CPU>", "cores": 2, "board": None, "packages": {"onnxruntime": "1.31"}}
ORIN = {**FINGERPRINT, "board": "Orin"}
LABELS = [0, 1] * 50


def artifact(variant="inter", right=80, seed=0, wrong_from=0, **changes):
    """As `bench.edge.artifact.described` has it: `right` of 100 rows are answered rightly."""
    wrong = {(wrong_from + i) % 100 for i in range(100 - right)}
    predicted = [1 - label if i in wrong else label for i, label in enumerate(LABELS)]
    backbones = {"text": "bert-base-uncased", "image": "mobilenet_v2_1.4_224"}
    if variant in backbones:
        backbones = {variant: backbones[variant]}
    plain = {
        "path": f"artifacts/{variant}-{seed}",
        "seal": f"{variant} {right} {seed} {wrong_from} {sorted(changes)}",
        "variant": variant,
        "seed": seed,
        "spec": {"junctions": [], "pool": "mean"},
        "backbones": backbones,
        "classes": ["negative", "non-negative"],
        "dataset": "demo",
        "lengths": [16],
        "shapes": {"batch": 1},
        "models": {p: {"nodes": 10, "accuracy": right / 100} for p in ("fp32", "int8")},
    }
    predicted = {"fp32": predicted, "int8": predicted}
    test = {"ids": "ids", "groups": None, "labels": LABELS, "predicted": predicted}
    return {**plain, "test": test, **changes}


def contender(name, p90, of=None, precision="fp32", **changes):
    latency = {"count": 1024, "mean": 0.9 * p90, "min": 0.8 * p90, "p50": 0.9 * p90, "p90": p90}
    latency |= {"p95": None, "p99": None, "p50_interval": [0.85 * p90, 0.95 * p90]}
    latency |= {"p90_interval": [0.98 * p90, 1.01 * p90]}
    plain = {"name": name, "artifact": of or artifact(), "precision": precision, "batch": 1}
    plain |= {"runner": "ort", "threads": 2, "inputs": "data", "hz": 0}
    plain |= {"complete": True, "error": None, "latency": latency, "stages": None, "power": None}
    plain |= {
        "parity": {"relative": 1e-6, "allowed": 1e-4, "cosine": 1.0},
        "providers": ["CPUExecutionProvider"],
    }
    return {**plain, **changes}


def measured(path, *contenders, **changes):
    plain = {"when": "2026-11-22T00:00:00Z", "method": {"profile": "full"}, "ratios": []}
    plain |= {"machine_speed": {"steady": True, "change": 1.0, "sentence": "steady"}}
    results.write(path, {**plain, "fingerprint": FINGERPRINT, "contenders": contenders, **changes})
    return path


def estimated(path, *entries):
    content = {"format": "fusion_keras estimate 1", "device": "Orin", "engine": "TensorRT"}
    content |= {"assumed": "fp16, 32 tokens", "error": "28 % at the median", "estimates": entries}
    path.write_text(json.dumps(content))
    return path


FOUR = (
    contender("image", 2, artifact("image", 55)),
    contender("early", 5, artifact("early", 70)),
    contender("inter", 8, artifact("inter", 68)),
    contender("late", 14, artifact("late", 84)),
)

BACKBONES = {"text": "bert_base", "image": "mobilenet_v2_1.4"}


def write_run(folder, variant="late", seed=0, wrong=(), group_size=2, rows=20, **changes):
    """A run of which these test rows are answered wrongly; groups of `group_size` rows.

    config, about, metrics: what else stands in `config.json` and `metrics.json`.
    """
    taken = {variant} & BACKBONES.keys() or BACKBONES.keys()
    at = {m: "last" if m in taken else None for m in BACKBONES}
    junction = {**at, "join": changes.get("join", "concat"), "blocks": changes.get("blocks", 0)}
    config = {m: {"preset": p} for m, p in (BACKBONES | changes.get("backbones", {})).items()}
    config |= {"seed": seed, "recipe": "paper", "data": {"path": f"{seed}.csv", "max_length": 64}}
    about = {"config": config, "variant": variant, "seed": seed, "parameters": 123_450_000}
    about |= {"spec": {"junctions": [junction]}, "dataset": {"name": changes.get("name", "demo")}}
    about["framework"] = changes.get("framework", "keras")
    about["config"] |= changes.get("config", {})
    about |= changes.get("about", {})
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "metrics.json").write_text(json.dumps(changes.get("metrics", {})))
    (folder / "history.csv").write_text("epoch,seconds,loss\n1,10.5,0.7\n2,9.5,0.6\n")
    videos = changes.get("videos") or [f"g{i // group_size}" for i in range(rows)]
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "group", "target", "predicted"])
        writer.writerow(["v", "valid", "g", "a", "b"])
        for row, video in enumerate(videos):
            writer.writerow([f"r{row:04}", "test", video, "a", "b" if row in wrong else "a"])
    return folder


def cells(text, title, name):
    """Head -> cell of a row of the report's Markdown."""
    lines = text.split(f"**{title}**")[1].strip().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    rows = [row for row in table[: lines.index("") if "" in lines else None] if row[0] == name]
    return [dict(zip(table[0], row, strict=True)) for row in rows]


def reported(tmp_path, *inputs):
    assert main([*map(str, inputs), f"--out={tmp_path / 'r'}"]) == 0
    return (tmp_path / "r.md").read_text().replace("\\", "")
