"""Copy what a device needs of the bench: into a folder, or into one file.

    python -m bench.pack to_orin            makes to_orin/bench
    python -m bench.pack bench.tar.gz       the same to be unpacked there

The copy measures, builds engines, answers (in an application, too) and makes a device's profile
with Python 3.10 or newer, numpy and an engine. Studies, reports and estimates stay here.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
from pathlib import Path

from bench.edge import files, flags
from bench.edge.entry import ends, tell
from bench.edge.errors import BenchError
from bench.remote.travelling import BENCH, travelling


def copy(folder: Path) -> None:
    """Write the files to `folder`/bench.

    Raises:
        BenchError: there is something already, or the place cannot be written.
    """
    if (folder / "bench").exists():
        raise BenchError(f"{folder / 'bench'} is there: remove it, or give another folder.")
    for path in travelling():
        files.write(folder / "bench" / path, (BENCH / path).read_bytes())


def archive(target: Path) -> None:
    """Write the files to a .tar.gz, as bench/...

    Raises:
        BenchError: there is something already, or the place cannot be written.
    """
    if target.exists():
        raise BenchError(f"{target} is there: remove it, or give another name.")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for path in travelling():
            tar.add(BENCH / path, f"bench/{path}")
    files.write(target, content.getbuffer())


@ends("Interrupted. The copy is not whole.")
def main(arguments: list[str]) -> int:
    parser = flags.parser("bench.pack", __doc__)
    parser.add_argument("target", type=Path, metavar="DIR|FILE.tar.gz", help="where the copy goes")
    target = parser.parse_args(arguments).target
    packed = target.name.endswith(".tar.gz")
    if not packed and re.search(r"\.(zip|tar|tgz|gz|xz|bz2|zst)$", target.name):
        raise BenchError(f"{target} would be a folder: give one, or a file that ends in .tar.gz.")
    (archive if packed else copy)(target)
    sizes = {path: (BENCH / path).stat().st_size for path in travelling()}
    for path, size in sizes.items():
        tell(f"{size:8} bench/{path}")
    print(f"{sum(sizes.values()):8} bytes in {len(sizes)} files")
    print(f"Copy: {target if packed else target / 'bench'}")
    if packed:
        print(f"Next: scp {target} DEVICE: and there, beside the artifacts, tar xzf {target.name}")
    else:
        print(f"Next: scp -r {target / 'bench'} ARTIFACT ... DEVICE:FOLDER/")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
