"""Who may import whom: the table of the design, read from the source files themselves."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.remote import travelling

ROOT = Path(__file__).parents[1]
PLACES = ("fusion_keras", "export", "bench", "configs")
STACK = ("keras", "keras_hub", "jax", "tensorflow", "torch")

# Folder -> which of our folders it may import, at module level or anywhere.
MAY_IMPORT = {
    "fusion_keras": (),
    "export": ("fusion_keras", "bench"),
    "bench": (),
    "configs": ("fusion_keras",),
}
# Inside fusion_keras, each imports itself and what stands before it.
ORDER = (
    *("leaf", "data", "backbones", "modalities", "fusion", "training", "reference", "studies"),
    *("searching", "api", "entries"),
)
LEAVES = (
    "__init__",
    "__main__",
    "errors",
    "exported",
    "files",
    "interrupts",
    "jobs",
    "cluster_needs",
    "cluster_node",
    "cluster",
    "metrics",
    "metric_sums",
    "label_sums",
    "config",
    "renamed",
    "setting_names",
    "terminal",
    "huge_pages",
    "cli",
    "training_flags",
)
# The networks of the PyTorch reference, written from the spec alone: ours are compared with them.
INDEPENDENT = ("model", "joins", "text", "audio_cnn", "clstm", "mobilenet_v3", "efficientnet_lite")
ENTRIES = (
    *("train", "plan", "sweep", "search", "prices", "reliance", "robustness", "port", "pair"),
    "digits",
)
# `from jax import lax` in a file called jax.py would import itself.
LIBRARY_NAMES = ("onnx", "tensorrt", "keras", "jax", "torch", "profile", "statistics")


def files(place: str) -> list[Path]:
    return sorted((ROOT / place).rglob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports; `from a import b` is `a.b`."""
    return _imports(ast.parse(path.read_text(), str(path)), path, top_level_only)


def _imports(node, path, top_level_only):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -child.level] if child.level else ()
            module = ".".join([*package, *([child.module] if child.module else [])])
            yield from ((child.lineno, f"{module}.{alias.name}") for alias in child.names)
        elif not (top_level_only and isinstance(child, (ast.FunctionDef, ast.Lambda))):
            yield from _imports(child, path, top_level_only)


def breaches(paths, forbidden, top_level_only=False) -> list[str]:
    """`file:line imports name` for every import that `forbidden(path, name)` is true of."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for line, name in imports(path, top_level_only)
        if forbidden(path, name)
    ]


def rank(parts: list[str]) -> int:
    """Where a module of fusion_keras stands in the one direction."""
    first = parts[0] if parts else "__init__"
    if first in ENTRIES:
        return ORDER.index("entries")
    return ORDER.index(first) if first in ORDER else ORDER.index("leaf")


@pytest.mark.parametrize("place", PLACES)
def test_folder_imports_only_the_folders_it_may(place):
    foreign = [other for other in PLACES if other != place and other not in MAY_IMPORT[place]]
    # The workstation-only contenders of a measurement bring the stack inside a function.
    top_only = place == "bench"
    assert not breaches(files(place), lambda _, name: name.split(".")[0] in foreign, top_only)


def test_bench_imports_no_training_stack_when_it_is_imported():
    def forbidden(_, name):
        return name.split(".")[0] in (*STACK, "absl")

    assert not breaches(files("bench"), forbidden, top_level_only=True)


def test_every_module_of_fusion_keras_has_a_place_in_the_order():
    places = {path.relative_to(ROOT / "fusion_keras").parts[0] for path in files("fusion_keras")}
    known = {*ORDER[1:-1], *(f"{name}.py" for name in (*LEAVES, "api", *ENTRIES))}
    assert places <= known, "a new module: say in LEAVES, ENTRIES or ORDER where it belongs"


def test_fusion_keras_imports_in_one_direction():
    def forbidden(path, name):
        parts = name.split(".")
        if parts[0] != "fusion_keras":
            return False
        own = list(path.relative_to(ROOT / "fusion_keras").with_suffix("").parts)
        return rank(parts[1:]) > rank(own)

    # The entries bring in the stack late, but still only what stands before them.
    assert not breaches(files("fusion_keras"), forbidden)


def test_the_networks_of_the_reference_know_nothing_of_ours_but_the_spec():
    place = ROOT / "fusion_keras" / "reference"
    own = tuple(f"fusion_keras.reference.{name}." for name in INDEPENDENT)
    known = ("fusion_keras.fusion.spec.", *own)

    def forbidden(_, name):
        return name.split(".")[0] in PLACES and not name.startswith(known)

    assert not breaches([place / f"{name}.py" for name in INDEPENDENT], forbidden)


def test_the_reference_is_optional():
    """What is imported with the rest of the package brings in neither it nor PyTorch."""
    place = ROOT / "fusion_keras" / "reference"
    product = [path for folder in PLACES for path in files(folder) if place not in path.parents]

    def forbidden(_, name):
        return f"{name}.".startswith(("fusion_keras.reference.", "torch.", "transformers."))

    assert not breaches(product, forbidden, top_level_only=True)


def test_product_code_imports_no_tests():
    product = [path for place in PLACES for path in files(place)]
    assert not breaches(product, lambda _, name: name.split(".")[0] == "tests")


def bench_entries() -> list[Path]:
    """Every file that `python -m bench...` can start."""
    return [*(ROOT / "bench").glob("*.py"), *(ROOT / "bench").rglob("__main__.py")]


def test_entry_modules_are_never_imported():
    entries = [f"fusion_keras.{name}" for name in ENTRIES]
    entries += [dotted(path) for path in bench_entries()]

    def forbidden(_, name):
        return any(name == entry or name.startswith(f"{entry}.") for entry in entries)

    assert not breaches([p for place in PLACES for p in files(place)], forbidden)


def dotted(path: Path) -> str:
    """A file as a module is called."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_what_travels_to_a_device_is_what_its_commands_reach():
    copied = {ROOT / "bench" / path for path in travelling.travelling()}
    modules = {dotted(path): path for path in files("bench")}
    reached = set()
    met = [ROOT / "bench" / f"{name}.py" for name in (*travelling.ENTRIES, travelling.LIBRARY)]
    while met:
        path = met.pop()
        reached.add(path)
        names = [name for _, name in imports(path)]
        # `from a import b` may name a module or something in one.
        names += [name.rpartition(".")[0] for name in names]
        met += [modules[n] for n in names if n in modules and modules[n] not in reached]
    assert reached == copied


def test_data_and_leaves_import_no_keras():
    def forbidden(_, name):
        return name.split(".")[0] in STACK

    leaves = [ROOT / "fusion_keras" / f"{name}.py" for name in LEAVES]
    assert not breaches([*files("fusion_keras/data"), *leaves], forbidden)


def test_metrics_and_errors_import_nothing_of_ours():
    own = ("fusion_keras.errors", "fusion_keras.metric_sums", "fusion_keras.label_sums")
    names = ("metrics", "metric_sums", "label_sums", "errors")
    leaves = [ROOT / "fusion_keras" / f"{n}.py" for n in names]
    assert not breaches(leaves, lambda _, n: n.startswith("fusion_keras") and not n.startswith(own))


def test_graph_code_is_of_no_backend():
    def forbidden(_, name):
        return name.split(".")[0] in ("jax", "tensorflow", "torch")

    # describe.py counts on the traced graph and builds none.
    graph_code = [
        path
        for path in (*files("fusion_keras/fusion"), *files("fusion_keras/backbones"))
        if path.name != "describe.py"
    ]
    assert not breaches(graph_code, forbidden)


def test_no_file_is_named_as_a_library():
    ours = [path for place in (*PLACES, "tests") for path in files(place)]
    assert not [p for p in [*ours, *ROOT.glob("*.py")] if p.stem in LIBRARY_NAMES]


def test_no_test_is_imported():
    """What tests share is in `tests/support`: a test file is read, and moved, on its own."""
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert breaches(tests, lambda path, name: name.startswith("tests.test_")) == []


# --- The walk itself --------------------------------------------------------------------------


def test_the_walk_sees_every_form_of_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "pack" / "mod.py"
    path.parent.mkdir()
    path.write_text(
        "import a.b as c, d\n"
        "from e import f\n"
        "from . import g\n"
        "from .h import i\n"
        "if True:\n    import j\n"
        "def k():\n    import l\n"
    )
    top = {"a.b", "d", "e.f", "pack.g", "pack.h.i", "j"}
    assert {name for _, name in imports(path, top_level_only=True)} == top
    assert {name for _, name in imports(path)} == {*top, "l"}


def test_pytorch_is_there_before_tensorflow():
    """In a process of its own: among tests it is not, and they do without Triton."""
    code = "import fusion_keras.reference, sys; print(*{'torch', 'tensorflow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "torch\n"
