"""Build a TensorRT engine of an artifact, on the device that will run it.

    python -m bench.engine ARTIFACT --precision=fp16

An engine holds for one TensorRT release on one kind of GPU, so it is built on the device. It
is written into ARTIFACT/engines, with a JSON file beside it that says what it was built of, with
what, and in how long. Precisions are the artifact's own: types stand in the ONNX file, which
TensorRT 10 and 11 both take as it is (strongly typed); int8 wants the calibrated file,
`python -m export --precisions=int8_static`. An artifact with length buckets gets one profile
for each, tuned for exactly that length.

On another machine, from this one, by OpenSSH (`python -m bench --help` tells how):

    python -m bench.engine ARTIFACT --precision=fp16 --device=ssh://USER@HOST[:PORT][/DIR]

The engine stays there, where --runners=tensorrt with the same --device finds it, and a copy comes
into ARTIFACT/engines here. --timing_cache names a file here, which goes there and comes back.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.edge import elsewhere, engine, flags
from bench.edge.entry import ends, tell


@ends("Interrupted. No engine was written.")
def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.device:
        timings = {"timing_cache": options.timing_cache} if options.timing_cache else {}
        there = elsewhere.Wanted(
            *("bench.engine", "build", ["tensorrt"], [options.artifact]),
            updates=timings,
            fills="engines",
        )
        return elsewhere.run(there, options)
    built = engine.build(
        options.artifact,
        options.precision,
        workspace=options.workspace,
        max_batch=options.max_batch,
        timing_cache=options.timing_cache,
        say=tell,
    )
    seconds = json.loads(built.with_suffix(".json").read_text())["build_seconds"]
    print(f"{seconds:.0f} s, {built.stat().st_size / engine.MIB:.0f} MiB\nEngine: {built}")
    return 0


def _parser():
    parser = flags.parser("bench.engine", __doc__)
    add = parser.add_argument
    add("artifact", type=Path, help="what `python -m export` wrote")
    add("--precision", choices=engine.MODELS, default="fp16", help="default: fp16")
    add("--workspace", type=flags.positive, default=1024, help="MiB (default 1024)")
    help_text = "of an artifact with an open batch (default 8)"
    add("--max_batch", type=flags.positive, default=8, help=help_text)
    add("--timing_cache", type=Path, help="file that keeps timings: later builds are faster")
    elsewhere.add_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
