"""One artifact over HTTP: a page for a person, JSON for a program.

    GET  /          the page
    GET  /model     what the model takes and answers
    POST /predict   one answer
    POST /explain   the answer at every precision, and without each modality that may be missing

What is posted is a JSON object with the arguments of `Predictor.predict` by name, image and audio
as base64 of a file's bytes, and, if one likes, "precision". A refusal is an object with "error", a
sentence: 400 what is given cannot be used, 408 it came too slowly, 413 too large, 415 no JSON, 503
too many at once or too slow an answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from bench.edge.errors import BenchError, InputError
from bench.edge.predictor import Answer, Predictor

PAGE = Path(__file__).with_name("page.html")
# The page needs nothing but itself, and shows what was dropped on it.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob:; media-src blob:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FILES = ("image", "audio")
# Characters: all of it is tokenized before it is cut, at half a kilobyte each.
LONGEST_TEXT = 100_000


@dataclass(frozen=True)
class Limits:
    """
    Attributes:
        megabytes: of a request.
        seconds: for a request to come, and again for its answer.
        at_once: requests in work.
    """

    megabytes: float = 20.0
    seconds: float = 30.0
    at_once: int = 4


def make(
    predictors: Mapping[str, Predictor],
    limits: Limits,
    hosts: tuple[str, ...] = ("*",),
    page: str = "",
) -> Starlette:
    """The application.

    Args:
        predictors: precision -> one of the same artifact; the first answers where none is named.
        hosts: names by which it may be asked: a page elsewhere could call itself by another name
            that leads to this machine.
        page: in place of PAGE.
    """
    desk = _Desk(predictors, limits)
    text = page or PAGE.read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
    described = _described(predictors, limits)

    async def home(request: Request) -> Response:
        return HTMLResponse(text, headers=headers)

    async def model(request: Request) -> Response:
        return JSONResponse(described)

    async def predict(request: Request) -> Response:
        return await desk.answered(request, _predicted)

    async def explain(request: Request) -> Response:
        return await desk.answered(request, _explained)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/model", model),
            Route("/predict", predict, methods=["POST"]),
            Route("/explain", explain, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={
            InputError: functools.partial(_refusal, 400),
            BenchError: functools.partial(_refusal, 500),
            HTTPException: lambda request, error: _refusal(
                error.status_code, request, error.detail
            ),
            ClientDisconnect: lambda request, error: Response(status_code=400),
        },
    )


def _refusal(status: int, request: Request, error: object) -> Response:
    # What is left of a request that was not read to its end is not the next one.
    return JSONResponse({"error": str(error)}, status, headers={"Connection": "close"})


class _Desk:
    """Takes requests while it can: so many at once, each so large, none for ever."""

    def __init__(self, predictors: Mapping[str, Predictor], limits: Limits):
        self._predictors, self._limits, self._busy = predictors, limits, 0
        self._most = round(1e6 * limits.megabytes)
        self._pool = ThreadPoolExecutor(limits.at_once)

    async def answered(self, request: Request, work: Callable) -> Response:
        """What `work` (predictors, body) makes of a request.

        Raises:
            HTTPException, InputError, BenchError: why not.
        """
        if self._busy >= self._limits.at_once:
            await self._read(request, most=0)
            raise HTTPException(
                503, f"{self._busy} requests are in work, the most at once: ask again."
            )
        self._busy += 1
        try:
            body = await self._body(request)
            loop = asyncio.get_running_loop()
            thread = loop.run_in_executor(self._pool, work, self._predictors, body)
        except BaseException:
            self._busy -= 1
            raise
        # A thread cannot be stopped: it is busy until it ends, whatever its client is told.
        thread.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._limits.seconds):
                return JSONResponse(await asyncio.shield(thread))
        except TimeoutError:
            raise HTTPException(
                503, f"The answer took more than {self._limits.seconds:g} s: ask again."
            ) from None

    def _ended(self, thread: asyncio.Future) -> None:
        self._busy -= 1
        if not thread.cancelled():
            thread.exception()  # asked for, so that one whose client has gone is not complained of

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        body = await self._read(request, self._most)
        if body is None:
            raise HTTPException(
                413, f"The request is larger than {self._limits.megabytes:g} MB, the most."
            )
        # A page elsewhere cannot send this kind without asking first.
        if kind != "application/json":
            raise HTTPException(
                415, f"The content is {kind or 'of no stated type'}: application/json is wanted."
            )
        return body

    async def _read(self, request: Request, most: int) -> bytes | None:
        """The body; None if it is larger: the rest goes nowhere, for who sends hears no answer."""
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for piece in request.stream():
                    size += len(piece)
                    if size <= most:
                        pieces.append(piece)
                    else:
                        pieces.clear()
        except TimeoutError:
            raise HTTPException(
                408, f"The request did not come within {self._limits.seconds:g} s."
            ) from None
        return b"".join(pieces) if size <= most else None


# --- In threads -----------------------------------------------------------------------------------


def _predicted(predictors: Mapping[str, Predictor], body: bytes) -> dict[str, Any]:
    precision, given = _asked(predictors, body)
    return {"precision": precision, **_one(predictors[precision], given).as_json()}


def _explained(predictors: Mapping[str, Predictor], body: bytes) -> dict[str, Any]:
    """answers: precision -> answer; without: modality -> answer, and by how much it differs.

    "change" is half the sum of what probabilities change by, of several labels the most that one
    does; "leans_on" the modality without which it is largest, if that can be told.
    """
    precision, given = _asked(predictors, body)
    predictor = predictors[precision]
    answers = {name: _one(each, given) for name, each in predictors.items()}
    without = {}
    for keyword in given:
        if keyword in predictor.may_lack and len(given) > 1:
            rest = {name: value for name, value in given.items() if name != keyword}
            answer = _one(predictor, rest)
            without[keyword] = {
                **answer.as_json(),
                "change": _change(answers[precision], answer),
            }
    leans = max(without, key=lambda keyword: without[keyword]["change"], default=None)
    return {
        "precision": precision,
        "answers": {name: answer.as_json() for name, answer in answers.items()},
        "without": without,
        "leans_on": leans if len(without) > 1 else None,
    }


def _one(predictor: Predictor, given: dict[str, Any]) -> Answer:
    (answer,) = predictor.predict_many([given])
    if isinstance(answer, InputError):
        raise answer
    return answer


def _change(answer: Answer, other: Answer) -> float:
    shares = [np.array(list(a.probabilities.values())) for a in (answer, other)]
    apart = np.abs(shares[0] - shares[1])
    return float(apart.max() if answer.several else apart.sum() / 2)


def _asked(predictors: Mapping[str, Predictor], body: bytes) -> tuple[str, dict[str, Any]]:
    """
    Raises:
        InputError: no JSON object, no base64, or a precision that is not there.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"This is no JSON ({error}).") from None
    if not isinstance(given, dict):
        raise InputError(f"This is a {type(given).__name__}: an object is wanted.")
    precision = given.pop("precision", next(iter(predictors)))
    if not isinstance(precision, str) or precision not in predictors:
        raise InputError(f"There is no precision {precision!r}, only {', '.join(predictors)}.")
    given = {name: value for name, value in given.items() if value is not None}
    text = given.get("text", "")
    cells = text.values() if isinstance(text, dict) else [text]
    if (length := sum(len(cell) for cell in cells if isinstance(cell, str))) > LONGEST_TEXT:
        raise InputError(f"The text has {length} characters, more than the {LONGEST_TEXT} allowed.")
    for name in _FILES:
        if name in given:
            given[name] = _bytes(name, given[name])
    return precision, given


def _bytes(name: str, value: object) -> bytes:
    # Never a path: whoever asks has no business with the files of this machine.
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise InputError(f"{name} is no base64 of a file's bytes.") from None


def _described(predictors: Mapping[str, Predictor], limits: Limits) -> dict[str, Any]:
    predictor = next(iter(predictors.values()))
    meta, spec = predictor.meta, predictor.meta["inputs"]
    tabular, sound = spec.get("tabular", {}), spec.get("audio", {})
    return {
        "variant": meta["variant"],
        "dataset": meta["dataset"]["name"],
        "classes": meta["classes"],
        "takes": list(predictor.takes),
        "may_lack": list(predictor.may_lack),
        "precisions": list(predictors),
        "text_columns": spec.get("token_ids", {}).get("columns", []),
        "numbers": [column["name"] for column in tabular.get("numbers", [])],
        "categories": {c["name"]: c["levels"] for c in tabular.get("categories", [])},
        "rate": sound.get("rate"),
        "limits": asdict(limits),
    }
