"""Ask an exported model: `python -m bench.predict ARTIFACT --text "..." --image face.jpg`.

Needs numpy, onnxruntime, tokenizers and Pillow, nothing else. Prints the class, or of several
labels those whose probability is above the artifact's threshold, the probability of each, and how
long each stage took. A model that takes sound wants --audio, a WAV file, and one that takes a
table's columns --tabular NAME=VALUE ... Where the sentence is joined from several columns, --text
NAME=VALUE comes once for each. One that learned with a modality withheld also answers without it.

A table of rows: --table=rows.csv --out=answers.csv, its columns called as for training. A stream:
--jsonl, on standard input an object a line, as in {"text": "...", "image": "face.jpg"}.

On another machine, from this one, by OpenSSH (`python -m bench --help` tells how):

    python -m bench.predict ARTIFACT --text "..." --image face.jpg --device=ssh://USER@HOST[/DIR]

The pictures and recordings that are named travel, those of a table or of lines of JSON, too; they
stay in DIR/inputs for the next time. Lines are read to their end before the first is answered.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bench.edge import elsewhere, files, flags, inputs, json_lines, scores, tables
from bench.edge.entry import Progress, ends
from bench.edge.errors import BenchError
from bench.edge.predictor import PROVIDERS, Answer, Predictor

_COLUMNS = ("text", "image", "audio", "label", "score", "id")


@ends(install="pip install numpy onnxruntime tokenizers pillow")
def main(arguments: list[str]) -> int:
    options = _parser().parse_args(_joined(arguments))
    kinds = inputs.KINDS.values()
    given = {kind.keyword: getattr(options, kind.modality) for kind in kinds}
    given = {keyword: value for keyword, value in given.items() if value is not None}
    _check(options, given)
    if options.device:
        asking = elsewhere.remote("asking")
        return asking.ask(options, _columns(options), PROVIDERS[options.provider])
    predictor = Predictor(options.artifact, options.precision, options.provider, options.threads)
    if options.table:
        _of_table(predictor, options)
    elif options.jsonl:
        _of_stream(predictor)
    elif options.json:
        print(json.dumps(predictor.predict(**given).as_json(), ensure_ascii=False))
    else:
        _print(predictor, predictor.predict(**given))
    return 0


def _check(options, given: dict) -> None:
    """
    Raises:
        BenchError: what is asked in more than one way, or where a file is in the way.
    """
    if bool(given) + bool(options.table) + options.jsonl > 1:
        raise BenchError("Ask one example, or a --table, or --jsonl: one of them.")
    if options.json and (options.table or options.jsonl):
        raise BenchError(
            "--json prints the answer to one example; --jsonl answers in JSON, a --table as a "
            "table: leave --json out."
        )
    if bool(options.table) != bool(options.out):
        raise BenchError("--table=rows.csv and --out=answers.csv go together.")
    if options.out and options.out.exists():
        if options.table.exists() and options.out.samefile(options.table):
            raise BenchError(f"--out={options.out} is the table itself: give another name.")
        if not options.replace:
            raise BenchError(f"{options.out} is there: give --out another name, or --replace it.")
    if options.out:
        files.check_place(options.out)


# --- What is answered -----------------------------------------------------------------------------


def _print(predictor: Predictor, answer: Answer) -> None:
    for note in answer.notes:
        print(f"note: {note}", file=sys.stderr)
    print(answer.label or "(no label)")
    for name, share in answer.probabilities.items():
        print(f"  {100 * share:5.1f} %  {name}")
    if answer.score is not None:
        print(f"  score {answer.score:.2f}")
    stages = {name: ms for name, ms in answer.milliseconds.items() if name != "all"}
    for stage, milliseconds in {**predictor.opening, **stages}.items():
        print(f"{milliseconds:10.2f} ms  {stage}")


def _of_table(predictor: Predictor, options) -> None:
    start = time.monotonic()
    found = tables.answer(predictor, options.table, _columns(options), Progress())
    files.write(options.out, found.csv)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    seconds = time.monotonic() - start
    print(f"{found.rows - found.failed} of {found.rows} rows answered in {seconds:.1f} s")
    if found.failed:
        print(f"{found.failed} could not be, as in", *found.first, sep="\n  ")
    if found.noted:
        print(f"{found.noted} have a note on what the model does not get of them")
    for name, value in found.metrics.items():
        shown = f"{value:.4f}"
        if name.endswith("accuracy"):
            low, high = scores.wilson(value, found.scored)
            shown += f" [{low:.4f}, {high:.4f}] of {found.scored} rows"
        print(f"{name} {shown}")
    print(f"Answers: {options.out}")
    if isinstance(found.ended, KeyboardInterrupt):
        raise KeyboardInterrupt(f"Interrupted: what was answered until then is in {options.out}.")
    if found.ended:
        raise BenchError(f"{found.ended} What was answered until then is in {options.out}.")


def _columns(options) -> tables.Columns:
    named = {name: getattr(options, f"{name}_column") for name in _COLUMNS}
    words = tuple(options.missing.split(","))
    return tables.Columns(**named, label_separator=options.label_separator, missing=words)


def _of_stream(predictor: Predictor) -> None:
    failed = count = 0
    for answer in json_lines.answers(predictor, sys.stdin.buffer):
        print(json.dumps(answer, ensure_ascii=True), flush=True)
        count += 1
        failed += "error" in answer
    print(f"{count - failed} of {count} lines answered", file=sys.stderr)


# --- Flags ----------------------------------------------------------------------------------------


def _parser():
    parser = flags.parser("bench.predict", __doc__, json="the answer")
    add = parser.add_argument
    add("artifact", type=Path, help="what `python -m export` wrote")
    for kind in inputs.KINDS.values():
        add(f"--{kind.modality}", **kind.flag)
    add(
        "--precision",
        default="fp32",
        help="fp32 (default), fp16, int8, int8_static: what the artifact has",
    )
    add(
        "--provider",
        choices=PROVIDERS,
        default="cpu",
        help="what runs it (default cpu, of ONNX Runtime)",
    )
    add("--threads", type=flags.positive, default=0, help="of the CPU (default: ONNX Runtime's)")
    add(
        "--jsonl",
        action="store_true",
        help="answer JSON objects, a line each, of standard input: --jsonl < FILE",
    )
    add("--table", type=Path, help="a .csv of rows; files are named relative to its folder")
    add("--out", type=flags.file, help="where the table's answers go")
    add("--replace", action="store_true", help="replace the answers that are there")
    defaults = tables.Columns()
    for name in _COLUMNS:
        default = getattr(defaults, name)
        said = default or "text, or what the artifact joins"
        add(f"--{name}_column", default=default, help=f"of the table (default {said})")
    add(
        "--label_separator",
        default=defaults.label_separator,
        help="between several labels of a cell (default ;)",
    )
    add(
        "--missing",
        default=",".join(defaults.missing),
        help="cells that are missing values (default %(default)s)",
    )
    elsewhere.add_flags(parser)
    return parser


def _joined(arguments: list[str]) -> list[str]:
    """Flags and values, what follows --text joined to it: a sentence may begin with "-"."""
    known = {"--help", *(f"--{name}" for name in vars(_parser().parse_args(["artifact"])))}
    joined: list[str] = []
    for argument in arguments:
        is_flag = flags.spelled([argument])[0].partition("=")[0] in known
        if joined and joined[-1] == "--text" and not is_flag:
            joined[-1] = f"--text={argument}"
        else:
            joined.append(argument)
    return joined
