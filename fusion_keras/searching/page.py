"""A search as a page: every trial, the front, how it grew, and what mattered."""

from __future__ import annotations

import html
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import plotly.graph_objects as go

from fusion_keras.files import write
from fusion_keras.searching.outcome import OVER, STOPPED, TRAINED, Outcome, pareto
from fusion_keras.searching.proof import label
from fusion_keras.searching.request import Request
from fusion_keras.searching.rungs import front
from fusion_keras.searching.study import OBJECTIVES, open_study
from fusion_keras.searching.trial import PICTURE

# Okabe and Ito's colours, which everybody can tell apart.
_COLOURS = {TRAINED: "#0072B2", STOPPED: "#999999", "named": "#009E73"}
# Importance of fewer trials says nothing.
_ENOUGH = 10


def write_page(
    request: Request,
    outcomes: Sequence[Outcome],
    volumes: Sequence[float],
    chosen: Sequence[Outcome],
) -> Path:
    """Write `report.html` into the search's folder.

    Args:
        request: of the search.
        outcomes: what became of its trials.
        volumes: hypervolume behind each of them.
        chosen: the finalists, whose architecture is drawn.
    """
    figures = [_cloud(request, outcomes), _growth(volumes), *_importance(request)]
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=not number)
        for number, figure in enumerate(figures)
    ]
    body = "\n".join([*parts, *map(_drawn, chosen)])
    target = request.folder / "report.html"
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>fusion_keras search"
        "</title><style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 "
        "1rem}img{max-width:100%}</style></head><body><h1>Search</h1>"
        f"{body}</body></html>\n"
    )
    write(target, page.encode())
    return target


def _cloud(request: Request, outcomes: Sequence[Outcome]) -> go.Figure:
    figure = go.Figure()
    groups: dict[str, list[tuple[Outcome, str]]] = {}
    for outcome in outcomes:
        for precision in outcome.nll:
            groups.setdefault("named" if outcome.named else TRAINED, []).append(
                (outcome, precision)
            )
    for group, members in groups.items():
        figure.add_scatter(
            x=[o.latency[p]["p90"] for o, p in members],
            y=[o.nll[p] for o, p in members],
            text=[f"{o.named or o.name}<br>{p}" for o, p in members],
            mode="markers",
            name="named variants" if group == "named" else "trained",
            marker={"color": _COLOURS[group], "size": 10 if group == "named" else 7},
            hovertemplate="%{text}<br>%{x:.2f} ms, NLL %{y:.3f}<extra></extra>",
        )
    stopped = [o for o in outcomes if o.state == STOPPED and o.history]
    if stopped:
        figure.add_scatter(
            x=[o.p90 for o in stopped],
            y=[min(line["valid_nll"] for line in o.history) for o in stopped],
            text=[o.name for o in stopped],
            mode="markers",
            name="stopped early",
            marker={"color": _COLOURS[STOPPED], "symbol": "x"},
            hovertemplate="%{text}<br>%{x:.2f} ms, NLL %{y:.3f} when stopped<extra></extra>",
        )
    _add_fronts(figure, request, outcomes)
    over = sum(outcome.state == OVER for outcome in outcomes)
    if request.budget is not None:
        note = f"budget {request.budget:g} ms; {over} models over the limits were never trained"
        figure.add_vline(x=request.budget, line_dash="dot", annotation_text=note)
    figure.update_layout(
        title="Every trial: validation, untrained latency",
        xaxis_title=f"{OBJECTIVES[1]}, measured",
        yaxis_title=OBJECTIVES[0],
        template="plotly_white",
    )
    return figure


def _add_fronts(figure: go.Figure, request: Request, outcomes: Sequence[Outcome]) -> None:
    """The front with 95 % of each of its points, and what it would be at the best and at the worst
    ends of all of them."""
    best = pareto(outcomes, request.limits)
    points = np.array([(o.nll[p], o.latency[p]["p90"]) for o, p in best]).reshape(-1, 2)
    bars = {}
    for axis, column in (("error_y", 0), ("error_x", 1)):
        low, high = (np.array([o.bounds(p, side)[column] for o, p in best]) for side in (-1, 1))
        bars[axis] = {
            "type": "data",
            "array": high - points[:, column],
            "arrayminus": points[:, column] - low,
            "thickness": 1,
        }
    figure.add_scatter(
        x=points[:, 1],
        y=points[:, 0],
        mode="lines",
        name="front (bars: 95 %)",
        line={"shape": "hv", "color": _COLOURS[TRAINED]},
        **bars,
    )
    others = {name: most for name, most in request.limits.items() if name != "p90"}
    every = [
        (o, p)
        for o in outcomes
        if o.state == TRAINED
        for p in o.nll
        if all(o.latency[p][measured] <= most for measured, most in others.items())
    ]
    for side, name in ((-1, "optimistic front"), (1, "pessimistic front")):
        ends = np.array([o.bounds(p, side) for o, p in every])
        if request.budget is not None:
            ends = ends[ends[:, 1] <= request.budget]
        if not len(ends):
            continue
        ends = ends[front(ends)]
        ends = ends[ends[:, 1].argsort()]
        figure.add_scatter(
            x=ends[:, 1],
            y=ends[:, 0],
            mode="lines",
            name=name,
            line={"shape": "hv", "color": _COLOURS[TRAINED], "dash": "dot", "width": 1},
        )


def _growth(volumes: Sequence[float]) -> go.Figure:
    figure = go.Figure()
    figure.add_scatter(x=list(range(1, len(volumes) + 1)), y=list(volumes), line={"shape": "hv"})
    figure.update_layout(
        title="Hypervolume",
        xaxis_title="trials",
        yaxis_title="share of the area up to a guess and the budget",
        template="plotly_white",
    )
    return figure


def _importance(request: Request) -> list[go.Figure]:
    """How much each dimension tells of the NLL: PED-ANOVA (Watanabe et al. 2023)."""
    study = open_study(request)
    trained = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if len(trained) < _ENOUGH:
        return []
    # Of low values, as it says, and as is wanted.
    warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")
    try:
        found = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            target=lambda trial: trial.values[0],
        )
    except (ValueError, RuntimeError):
        return []  # no dimension that all trials have varies
    values = {name: value for name, value in found.items() if np.isfinite(value)}
    names = sorted(values, key=values.get)
    figure = go.Figure(go.Bar(x=[values[n] for n in names], y=names, orientation="h"))
    figure.update_layout(
        title="What tells of the NLL, of the dimensions that all models have",
        xaxis_title="importance",
        template="plotly_white",
    )
    return [figure]


def _drawn(outcome: Outcome) -> str:
    """A finalist's architecture, which its trial has drawn."""
    title = f"{label(outcome)}: {outcome.name}"
    place = f"trials/{outcome.key}/{PICTURE}"
    return f"<h2>{html.escape(title)}</h2><img src='{place}' alt='its layers and junctions'>"
