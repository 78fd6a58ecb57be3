"""Whether a draft takes as long as the trained model whose architecture it is.

    python -m tests.support.trained_drafts 20 DIR

That many models are drawn at random from configs/space_small.py. Each is drafted as a search drafts
it, trained and exported as an ordinary run, and both take turns in the bench; the line has the
medians and minima in ms and trained / draft of each.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import sys
from pathlib import Path

import optuna

from fusion_keras.config import get_config
from fusion_keras.searching import measuring, space_file
from fusion_keras.searching.crew import Crew
from fusion_keras.searching.trainee import train_whole, trainee

PRECISIONS = ("fp32", "int8")


def main() -> None:
    count, folder = int(sys.argv[1]), Path(sys.argv[2])
    logging.disable(logging.WARNING)
    base = get_config()
    base.data.demo.size = 400
    base.train.epochs = 2
    space = space_file.of_file(Path("configs/space_small.py"), base)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    ratios: dict[tuple[str, str], list[float]] = {}
    with Crew() as crew:
        for number in range(count):
            point = space.drawn(study.ask())
            place = folder / f"{number:02}"
            said = [f"{number + 1}/{count} {point.name}"]
            for precision, times in _compared(crew, point.config(base), place).items():
                for which, (untrained, trained) in times.items():
                    ratio = trained / untrained
                    ratios.setdefault((precision, which), []).append(ratio)
                    said.append(f"{precision} {which} {untrained:.3f} {trained:.3f} {ratio:.3f}")
            print("; ".join(said), flush=True)
            shutil.rmtree(place)
    for (precision, which), found in ratios.items():
        within = sum(abs(ratio - 1) <= 0.03 for ratio in found)
        middle = statistics.median(found)
        print(
            f"{precision} {which}: {within} of {len(found)} within 3 %, {min(found):.3f} to "
            f"{max(found):.3f}, median {middle:.3f}"
        )


def _compared(crew: Crew, config, folder: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Precision -> p50, min -> (draft's, trained model's) in ms."""
    made, draft, run, artifact = (folder / n for n in ("made", "draft", "run", "artifact"))
    folder.mkdir(parents=True)
    with trainee(config, folder / "untrained", crew.whole) as model:
        model.built()
        model.draft(made)
    crew.whole.converter.make(made, draft, PRECISIONS, folder / "draft.log")
    train_whole(crew.whole, config, run)
    # Trained for a minute, a graph may lose more at int8 than one that is to be used.
    command = [sys.executable, "-m", "export", str(run), f"--out={artifact}", "--allow_loss=100"]
    measuring.run([*command, "--precisions=int8"], folder / "export.log", crew)
    times = measuring.bench([draft, artifact], folder / "bench.log", crew, None)
    return {
        precision: {
            which: tuple(times[(of.name, precision)][which] for of in (draft, artifact))
            for which in ("p50", "min")
        }
        for precision in PRECISIONS
    }


if __name__ == "__main__":
    main()
