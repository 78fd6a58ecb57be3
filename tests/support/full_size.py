"""Exports at full size, a line of the tables of docs/models.md for each.

    python -m tests.support.full_size DIR early:minilm:resnet_18 late:electra_small:mobilenet_v2_1.0

A triple is VARIANT:TEXT:IMAGE, both of random weights, but MiniLM. Each is trained for an epoch of
sixty rows of the demo at 224 px and 40 tokens and exported with its checks, NVIDIA's compiler
among them where it is installed. The line has the relative differences of float32 against the
SavedModel and of fp16 and int8 against float32, the export's seconds, the GB of its largest process
and the engines' MB; what the doctor finds, or the end of what failed, follows it. Runs
and artifacts are deleted where all went well.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

PRECISIONS = ("fp32", "fp16", "int8")


def main(folder: Path, triples: list[str]) -> None:
    for triple in triples:
        try:
            print(line(folder, *triple.split(":")), flush=True)
        except RuntimeError as error:
            print(f"| {triple} | {error}", flush=True)


def line(folder: Path, variant: str, text: str, image: str) -> str:
    name = f"{variant}-{text}-{image}"
    run, artifact = folder / name, folder / f"{name}-artifact"
    _python(
        "fusion_keras.train",
        f"--variant={variant}",
        f"--run={run}",
        f"--config.text.preset={text if text == 'minilm' else f'random:{text}'}",
        f"--config.image.preset=random:{image}",
        "--config.image.size=224",
        "--config.data.max_length=40",
        "--config.data.demo.size=60",
        "--config.train.epochs=1",
        "--config.parent.epochs=1",
    )
    _python("export", str(run), f"--out={artifact}", "--precisions=fp16,int8")
    meta = json.loads((artifact / "meta.json").read_text())
    rungs = {rung["name"]: rung for rung in meta["ladder"]}
    engines = [f"{built['bytes'] / 1e6:.0f}" for built in meta["compiled"].values()]
    cells = [
        f"{variant} of {text}, {image}",
        *(f"{rungs[precision]['relative']:.0e}".replace("e-0", "e-") for precision in PRECISIONS),
        f"{sum(meta['seconds'].values()):.0f}",
        f"{meta['peak_bytes'] / 2**30:.1f}",
        ", ".join(engines),
    ]
    found = _python("export.doctor", str(artifact / "model.onnx"), fine=(0, 1)).splitlines()[2:]
    for left in (run, artifact):
        shutil.rmtree(left)
    return "\n".join([f"| {' | '.join(cells)} |", *found])


def _python(module: str, *arguments: str, fine: tuple[int, ...] = (0,)) -> str:
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in fine:
        raise RuntimeError(f"{module}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
