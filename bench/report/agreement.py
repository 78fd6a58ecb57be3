"""Does what we measured agree with the paper's accuracies, tables 2 and 3?

Its rows are those of runs on CMU-MOSI's standard test videos alone; any other data set keeps its
own name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from bench.report import published
from bench.report.front import Interval, Model
from bench.report.gather import ReportError
from bench.report.page import percent
from bench.report.runs import OURS, Family

MOSI = "CMU-MOSI"
# The 31 test videos of the standard split (CMU-MultimodalSDK, cmu_mosi_std_folds.py): sha256
# of their names, sorted, joined by line feeds.
TEST_VIDEOS = "d39f727168fd9a0660ad1553761a8c878c517829b088bdf91ffec2e922d31e48"
# 686 utterances, of which 1 in 100 may be unusable (`config.data.max_skipped`).
TEST_ROWS = range(680, 687)
# Section 3.3.3: early fusion has four attention blocks where nothing else is said.
BLOCKS = 4


@dataclass(frozen=True)
class Row:
    """A row of the paper's tables 2 or 3.

    Attributes:
        name: the paper's, with (M) or (V) where both exist.
        paper: its name in `published.ROWS`, table 4 and table 5.
        vit: whether the images go through a ViT; None where there are none.
        blocks: attention blocks of early fusion.
        accuracy: as published, percent; None where it is not.
    """

    name: str
    paper: str
    vit: bool | None
    blocks: int | None = None
    accuracy: str | None = None

    def takes(self, model: Model) -> bool:
        """Whether this is the row of a model, whatever its data."""
        if published.takes_more(model):
            return False
        image = model.artifact["backbones"].get("image")
        same = model.artifact["variant"] == published.ROWS[self.paper][0]
        same = same and (self.vit is None or self.vit == published.is_vit(image))
        return same and (self.blocks is None or published.attention_blocks(model) == self.blocks)


def _rows() -> list[Row]:
    rows = []
    for paper, values in published.TABLE_2.items():
        variant, vit = published.ROWS[paper]
        if variant in ("text", "image"):
            rows.append(Row(paper, paper, vit, None, next(filter(None, values))))
            continue
        blocks = BLOCKS if variant == "early" else None
        for sign, value in zip(("M", "V"), values, strict=True):
            rows.append(Row(f"{paper} ({sign})", paper, sign == "V", blocks, value))
    early = next(row.paper for row in rows if row.blocks)
    for sign in ("M", "V"):
        for blocks, value in published.TABLE_3.items():
            name = f"{early}, {blocks} blocks ({sign})"
            # The paper's ablation is of MobileNetV2 alone.
            value = value if sign == "M" else None
            rows += [Row(name, early, sign == "V", blocks, value)] if blocks != BLOCKS else []
    return rows


ROWS = _rows()


def dataset_of(model: Model) -> str:
    """What the data set of a run is called; CMU-MOSI only with its standard test videos."""
    name, test = model.artifact["dataset"], model.artifact["test"]
    if name != "mosi":
        return name
    videos = "\n".join(sorted(set(test["groups"] or ())))
    standard = hashlib.sha256(videos.encode()).hexdigest() == TEST_VIDEOS
    whole = standard and len(test["labels"]) in TEST_ROWS
    return MOSI if whole else "mosi, not the standard test split"


def accuracies(pairs: list[dict[str, Family]], framework: str = OURS) -> dict[str, Interval]:
    """Row -> the accuracy on CMU-MOSI, over the seeds, with its interval.

    Args:
        pairs: as `bench.report.runs.paired` has them.

    Raises:
        ReportError: two models are of one row.
    """
    by_row: dict[str, Interval] = {}
    for model in (pair[framework].model for pair in pairs if framework in pair):
        row = next((row for row in ROWS if row.takes(model)), None)
        if row is None or dataset_of(model) != MOSI:
            continue
        if row.name in by_row:
            raise ReportError(
                f"two models are {row.name} (of other backbones or settings): give the runs of one."
            )
        by_row[row.name] = model.accuracy
    return by_row


def gaps(measured: dict[str, Interval]) -> list[str]:
    """A sentence for each published accuracy of tables 2 and 3 that is not in our interval.

    Args:
        measured: row -> accuracy as a share, as `accuracies` gives it.
    """
    said = []
    for row in ROWS:
        if row.accuracy is None:
            continue
        if row.name not in measured:
            said.append(f"{row.name}: published {row.accuracy} %, ours not measured")
        elif away := missed(row, measured[row.name]):
            ours = percent(measured[row.name])
            said.append(f"{row.name}: published {row.accuracy} %, ours {ours} %, {away}")
    return said


def missed(row: Row, ours: Interval) -> str:
    """By how much the published value lies outside; nothing where it does not."""
    value = float(row.accuracy) / 100
    if value > ours.high:
        return f"{100 * (value - ours.high):.2f} points above the interval"
    return f"{100 * (ours.low - value):.2f} points below the interval" if value < ours.low else ""
