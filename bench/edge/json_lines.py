"""A line of JSON in, a line of JSON out: `python -m bench.predict ARTIFACT --jsonl`.

An object has the arguments of `Predictor.predict` by name, files as paths, and may have an "id",
which comes back. Each answer is written before the next line is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from bench.edge.errors import InputError
from bench.edge.predictor import Predictor


def answers(predictor: Predictor, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """For each line that is not blank its number, from 1, and the answer or an "error"."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield {"line": number, **_answer(predictor, line)}


def _answer(predictor: Predictor, line: bytes) -> dict[str, Any]:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"error": f"This line is no JSON ({error}): one object a line is wanted."}
    named = {}
    if isinstance(given, dict) and "id" in given:
        named["id"] = given.pop("id")
    (answer,) = predictor.predict_many([given])
    if isinstance(answer, InputError):
        return {**named, "error": str(answer)}
    return {**named, **answer.as_json()}
