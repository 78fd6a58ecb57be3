"""Search the space between the variants: `python -m fusion_keras.search --budget_ms=15`."""

from pathlib import Path

from absl import flags

from fusion_keras import cli, cluster, huge_pages, terminal, training_flags
from fusion_keras.errors import UsageError

CONFIG = training_flags.define_for_entry()
WORKDIR = flags.DEFINE_string("workdir", "runs/search", "Where all of it goes.")
BUDGET = flags.DEFINE_float("budget_ms", None, "Milliseconds of p90, at the fastest precision.")
SPACE = flags.DEFINE_string("space", None, "A file that says what may vary.")
MEMORY = flags.DEFINE_float("budget_mb", None, "MB of the process that answers, at its peak.")
ENERGY = flags.DEFINE_float("budget_mj", None, "Millijoules of an inference.")
TRIALS = flags.DEFINE_integer("trials", 40, "Models to try, the named variants among them.")
PRECISIONS = flags.DEFINE_list("precisions", None, "What is measured and scored.")
SAMPLER = flags.DEFINE_string("sampler", "tpe", "tpe, nsga2, random or gp.")
STORAGE = flags.DEFINE_string("storage", "", "Optuna's storage, as a URL.")
FINALISTS = flags.DEFINE_integer("finalists", 3, "Models to prove on new seeds; 0 for none.")
SEEDS = flags.DEFINE_integer("seeds", 3, "New seeds of each finalist.")
JOBS = flags.DEFINE_string("jobs", "1", "Models at a time, or auto.")
DRY = flags.DEFINE_bool("dry_run", False, "Say what would be searched, and stop.")
DEVICE = flags.DEFINE_string("device", None, "Another machine, that measures: ssh://USER@HOST.")
RUNNER = flags.DEFINE_string("runner", None, "What runs the models that are measured.")
SSH = flags.DEFINE_string("ssh", "ssh", "How to call OpenSSH.")
RAY = flags.DEFINE_string("ray", None, "A Ray cluster: HOST:PORT of its head, or auto.")
CPUS = flags.DEFINE_integer("num_cpus", None, "Of a node, that a training takes.")
GPUS = flags.DEFINE_float("num_gpus", None, "Of a node, that a training takes.")
GIGABYTES = flags.DEFINE_float("memory_gb", None, "Of a node, that a training takes.")
NAMED = flags.DEFINE_list("named", None, "Variants to begin with.")

HELP = """Search for the best fused model within a budget of milliseconds on this machine,
or on another (--device).

  python -m fusion_keras.search --budget_ms=1.5
      on the built-in demo: forty models, each exported and measured before it is trained; what is
      over the budget is not trained.
  python -m fusion_keras.search --budget_ms=15 --config=configs/small.py --recipe=best \\
      --config.data.path=my.csv --space=my_space.py
      on your own table, in your own space.
  ... --recipe=distil --teacher=late
      trains late first, and every joint model learns from it; --teacher=RUN is a finished run.

The same command goes on with a search that was stopped or killed. Models are judged by the negative
log-likelihood of the validation split and by the 90th percentile of their latency at the fastest
precision. Of the test split nothing is used before the finalists are proven: trained anew on new
seeds, as are the named variants beside them (7 models, 3 seeds: 21 trainings), and exported to
runs/search/proof/artifacts. More --trials with the same command lengthen a search.

FLAGS
  --budget_ms=15          milliseconds; without it the whole front is looked for
  --budget_mb=120         likewise megabytes of the process that answers, at its peak
  --budget_mj=50          likewise millijoules of an inference, all that the module takes; where the
                          machine has sensors (a Jetson)
  --trials=40             models to try, the named variants among them
  --space=FILE            a Python file with get_space(), which gives name -> values: junctions (how
                          many), joins, taps.text, taps.image, ... (depths, or "all"), and settings
                          such as fusion.width, image.size, data.max_length, text.preset; what it
                          leaves out is one junction, attention, every depth. Without a file: up to
                          three junctions, every join and depth, and four settings of the fusion
  --finalists=3           models of the front to prove: trained anew on new seeds, exported,
                          measured beside the named variants, and tested; 0 for none
  --seeds=3               how many new seeds
  --jobs=1                models at a time, which divide cores and GPUs; all stand still while one
                          is measured; auto: one for each GPU, else as many as cores and memory
                          allow
  --named=text,late,inter,early
                          variants to begin with, in or outside the space
  --runner=ort            what runs the models that are measured: ort (ONNX Runtime on the CPU),
                          ort-cuda, ort-tensorrt or openvino, as in python -m bench
  --precisions=fp32,int8  what is measured and scored; one training gives them all. Left out,
                          fp32,int8 of ort; fp32,fp16 of ort-cuda; fp16,int8_static of ort-tensorrt;
                          fp32,int8_static of openvino
  --sampler=tpe           tpe, nsga2, random, or gp (needs torch)
  --device=ssh://USER@HOST[:PORT][/DIR]
                          another machine that measures, by OpenSSH; all else is done here, and
                          nothing stands still meanwhile. Where it is gone the search ends, and the
                          same command goes on; see python -m bench --help
  --ssh=ssh               how to call OpenSSH: --ssh='ssh -F FILE'
  --ray=ADDRESS           train on the nodes of a Ray cluster (pip install -e '.[ray]'): HOST:PORT
                          of its head, or auto for the one that this machine belongs to, else one
                          of this machine alone. As many models at a time as the nodes have room
                          for; built, exported and scored they are here, and measured, unless
                          --device does
  --num_cpus=4 --num_gpus=1 --memory_gb=8
                          what a training takes of its node; see python -m fusion_keras.sweep --help
  --storage=URL           Optuna's; left out, a SQLite file in the folder, which
                          optuna-dashboard opens
  --workdir=runs/search   where trials, storage and report go
  --seed=0                of the trainings and of the sampler
  --dry_run               check it all, say what may vary and what would be tried, and stop
  all others              settings of fusion_keras.train; see its --help
"""
ANEW = "Interrupted. The same command goes on from here."


def main() -> None:
    teacher = flags.FLAGS.teacher or []
    of_variant = teacher[0] if len(teacher) == 1 and not Path(teacher[0]).exists() else ""
    if of_variant:
        # A variant, which the search trains itself.
        flags.FLAGS.teacher = None
    _refuse(flags.FLAGS)
    config, framework = training_flags.config_of(CONFIG, flags.FLAGS), flags.FLAGS.framework
    if framework != "keras":
        raise UsageError(f"--framework is {framework}; a search trains with keras.")
    needs = (CPUS.value, GPUS.value, GIGABYTES.value)
    # Before Keras is there: a cluster of this machine alone is made by forks.
    asked = (RAY.value, needs, JOBS.value, Path(WORKDIR.value))
    with cluster.asked(*asked, connect=not DRY.value) as nodes:
        _search(config, of_variant, nodes)


def _refuse(given: flags.FlagValues) -> None:
    """Raises UsageError for what a training takes and a search decides itself."""
    if given.variant is not None:
        raise UsageError(
            f"--variant is {given.variant}; a search tries them all. --named says with which it "
            "begins."
        )
    if given["devices"].present:
        raise UsageError(
            "--devices is given; models divide the cores and the GPUs (--jobs): leave it out."
        )


def _search(config, teacher: str, nodes: cluster.Cluster | None) -> None:
    try:
        with cli.quiet_native_logs():
            import fusion_keras.modalities  # noqa: F401  (brings TensorFlow, with its lines)
            from fusion_keras.searching import asked, away, proof, report, study, trainee
    except ModuleNotFoundError as error:
        if error.name not in ("optuna", "plotly"):
            raise
        raise UsageError(
            f"{error.name} is not installed: pip install -e '.[search,export,bench,cpu]'."
        ) from None
    request = asked.request(
        config,
        folder=Path(WORKDIR.value),
        space=SPACE.value,
        count=TRIALS.value,
        budget=BUDGET.value,
        memory=MEMORY.value,
        energy=ENERGY.value,
        precisions=PRECISIONS.value,
        sampler=SAMPLER.value,
        storage=STORAGE.value,
        named=NAMED.value,
        teacher=teacher,
        finalists=FINALISTS.value,
        seeds=SEEDS.value,
        side_by_side=str(nodes.room()) if nodes else JOBS.value,
        device=DEVICE.value,
        ssh=SSH.value,
        runner=RUNNER.value,
    )
    if DRY.value:
        terminal.print_results(*report.described(request, FINALISTS.value, SEEDS.value))
        return
    trainee.begin_server()
    there = away.Away(nodes, measures_here=not DEVICE.value) if nodes else None
    progress, stopped = report.Progress(request), True
    try:
        with progress:
            study.search(request, progress.outcomes, progress.say, progress.ended, away=there)
        stopped = False
    finally:
        found = progress.outcomes
        if found or not stopped:
            chosen = proof.finalists(found, FINALISTS.value, request.limits)
            terminal.print_results(*report.closing(request, found, chosen))
    if not chosen:
        return
    with progress:
        answer = proof.prove(request, chosen, SEEDS.value, progress.say, there)
    terminal.print_results(*report.proven(request, chosen, SEEDS.value), *answer)


if __name__ == "__main__":
    huge_pages.restart_with()
    cli.run(main, HELP, ANEW, progress_on_stdout=True, settings=cli.settings_help)
