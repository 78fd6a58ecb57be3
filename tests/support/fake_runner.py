"""An engine with known delays and known misbehaviour, opened in the bench's own processes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models

from bench.edge.artifact import ArtifactError, described, read
from export.artifact import building, seal

GOLDEN = np.array([[1.0, -2.0], [0.5, 0.25], [-3.0, 3.0]], np.float32)


def write_artifact(folder: Path, behaviour: dict, lengths=(4, 8)) -> Path:
    """An artifact whose one output is the sum of what comes in; `behaviour` as in FakeRunner."""
    with building(folder) as made:
        ids = np.array([[1, 2, 0, 0, 0, 0, 0, 0], [3] * 6 + [0, 0], [4] * 8], np.int32)
        np.savez(made / "golden.npz", input_token_ids=ids, output_logits=GOLDEN)
        np.savez(made / "queries.npz", token_ids=np.tile(ids, (4, 1)))
        (made / "test.csv").write_text("id,group,label,fp32\na,g,0,0\nb,g,1,0\n")
        (made / "fake.json").write_text(json.dumps(behaviour))
        words = {"[UNK]": 0, "one": 1, "two": 3}
        Tokenizer(models.WordLevel(words, "[UNK]")).save(str(made / "tokenizer.json"))
        (made / "queries").mkdir()
        texts = behaviour.get("texts", ["one", "two"])
        (made / "queries" / "texts.json").write_text(json.dumps(texts))
        meta = {
            "variant": "text",
            "seed": 0,
            "spec": {},
            "backbones": {"text": "fake"},
            "classes": ["negative", "positive"],
            "dataset": {"name": "fakes"},
            "inputs": {"token_ids": {"max_length": 8, "pad_id": 0}},
            "lengths": list(lengths),
            "shapes": {"batch": None, "length": None if len(lengths) > 1 else lengths[0]},
            "models": {"fp32": {"nodes": 1, "metrics": {"accuracy": 0.5}}},
            "ladder": [{"name": "fp32", "tolerance": {"relative": 1e-4, "cosine": 0.999999}}],
        }
        seal(made, meta)
    assert described(folder, read(folder))["test"]["labels"] == [0, 1]
    return folder


class FakeRunner:
    """Behaviour, all optional: delay (s a query), first (s of the first), slow_until (queries
    that take ten delays), wrong (added to logits), dies_at, hangs_at, raises_at (query numbers),
    refuses (a sentence), texts (the queries' sentences), log (a file that gets the length of every
    query's sentence), built_in (s that its engine took)."""

    providers = ("FakeProvider",)
    device_ms = None
    tolerance = None

    def __init__(self, behaviour: dict):
        self.behaviour, self.count = behaviour, 0
        self.build_seconds = behaviour.get("built_in")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def infer(self, inputs: dict) -> dict:
        b, number = self.behaviour, self.count
        self.count += 1
        ids = inputs["token_ids"]
        if "log" in b:
            with open(b["log"], "a") as file:
                file.write(f"{ids.shape[1]}\n")
        if number == b.get("dies_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if number == b.get("hangs_at"):
            time.sleep(1000)
        if number == b.get("raises_at"):
            raise RuntimeError("the engine is broken")
        delay = b.get("delay", 0.002)
        if number < b.get("slow_until", 0):
            delay *= 10
        until = time.perf_counter() + (b.get("first", delay) if number == 0 else delay)
        while time.perf_counter() < until:
            pass
        first = {1: 0, 3: 1, 4: 2}
        logits = np.stack([GOLDEN[first[int(row[0])]] for row in ids])
        return {"logits": logits + b.get("wrong", 0)}


def open_runner(name, folder, meta, precision, *, threads, allow_fallback, run):
    behaviour = json.loads((folder / "fake.json").read_text())
    if "refuses" in behaviour:
        raise ArtifactError(behaviour["refuses"])
    return FakeRunner(behaviour)
