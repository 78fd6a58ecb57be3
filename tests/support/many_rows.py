"""A table of many rows over few small images, and what loading it takes, in a process of its own.

    python -m tests.support.many_rows 100000 /tmp/rows [--images=N] [--profile] [--parquet]

makes it and loads it twice as a training does, with an empty cache and from it; with --parquet from
a Parquet file.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.tiny import EDGE, Bench

IMAGES = 2000
SPLITS = ("train",) * 8 + ("valid", "test")
_WORDS = ("bad", "awful", "sad", "dull", "good", "lovely", "happy", "bright")


def make(folder: Path, count: int, pictures: int = IMAGES) -> Bench:
    """A bench whose table has `count` rows: ids, a split, sentences that no two rows share, and
    images that as many do as there are fewer of them, each a group and in one split."""
    bench = Bench.make(folder)
    images = folder / "data" / "many"
    images.mkdir()
    rng = np.random.default_rng(0)
    for n in range(pictures):
        pixels = rng.integers(0, 256, (EDGE, EDGE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{n}.png", compress_level=1)
    with (folder / "data" / "many.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "image", "label", "split", "id", "group"])
        for row in range(count):
            image = row % pictures
            word = _WORDS[row % 8]
            label = "positive" if row % 8 > 3 else "negative"
            text = f"a {word} day in a town of {row} people, number {row * 7919 % 1000003}"
            split = SPLITS[image % len(SPLITS)]
            writer.writerow([text, f"many/{image}.png", label, split, f"r{row}", f"g{image}"])
    return bench


def convert(folder: Path) -> None:
    """Writes `many.parquet` of the same content."""
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.csv.read_csv(folder / "data" / "many.csv")
    pyarrow.parquet.write_table(table, folder / "data" / "many.parquet")


def load(
    folder: Path, profile: bool = False, variant: str = "inter", table: str = "many.csv"
) -> dict:
    """Loads the table as a training does, and takes what it needs of it.

    Returns:
      "wall" and "cpu" seconds of loading and of the fingerprint, "peak" and "before" MiB resident,
      "mapped" of them pages of files at the end, which the system takes back where it needs them,
      and the fingerprint.
    """
    from fusion_keras.fusion.architectures import of_variant
    from fusion_keras.training.recipes import resolve

    bench = Bench(folder)
    config = resolve(
        bench.config(data__path=folder / "data" / table, data__max_length=24, variant=variant)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stages = {}

    def staged(name, work):
        wall, cpu = time.perf_counter(), time.process_time()
        value = work()
        stages[name] = {
            "wall": round(time.perf_counter() - wall, 2),
            "cpu": round(time.process_time() - cpu, 2),
            "peak": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "mapped": _mapped(),
        }
        return value

    def work():
        dataset = staged("load", lambda: of_variant(variant).data(config))
        fingerprint = staged("fingerprint", lambda: dataset.fingerprint)
        return dataset, fingerprint

    if profile:
        import cProfile
        import pstats

        profiler = cProfile.Profile()
        dataset, fingerprint = profiler.runcall(work)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(35)
    else:
        dataset, fingerprint = work()
    return {
        "rows": len(dataset),
        "before": round(before),
        "stages": stages,
        "fingerprint": fingerprint,
        "notes": len(dataset.notes),
    }


def _mapped() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssFile:")[2].split()[0]) // 1024


def measured(folder: Path, *flags: str) -> dict:
    """What `load` gives in a process of its own."""
    command = [sys.executable, "-m", "tests.support.many_rows", "0", str(folder), *flags]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int, help="rows to make; 0 loads what is there")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES, help="that the rows share")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--parquet", action="store_true")
    parser.add_argument("--variant", default="inter")
    options = parser.parse_args()
    if options.count:
        make(options.folder, options.count, options.images)
        flags = []
        if options.parquet:
            convert(options.folder)
            flags = ["--parquet"]
        for _ in range(2):
            print(json.dumps(measured(options.folder, *flags), indent=1))
    else:
        table = "many.parquet" if options.parquet else "many.csv"
        print(json.dumps(load(options.folder, options.profile, options.variant, table)))
