"""The documents: links lead somewhere, modules exist, the two front pages stay short."""

import re
from pathlib import Path

import pytest

from fusion_keras import setting_names
from fusion_keras.config import get_config

ROOT = Path(__file__).parents[1]
PAGES = [*(ROOT / f"{n}.md" for n in ("README", "WORKSPACE", "CHANGELOG"))]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


# Programs whose flags are not ours to know.
OTHERS = r"\b(pip|pytest|ray|srun|sphinx-build|nvpmodel|docker|trtexec)\b"


def prose(text: str) -> str:
    """Without blocks and spans of code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^\s*```.*?^\s*```", "", text))


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    heads = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", text))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def dead_links(page: Path) -> list[str]:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(link)
    return dead


def missing_modules(text: str) -> list[str]:
    found = set(re.findall(r"python3? -m ((?:fusion_keras|bench|export)(?:\.\w+)*)", text))
    paths = {name: ROOT.joinpath(*name.split(".")) for name in found}
    return sorted(
        name
        for name, path in paths.items()
        if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists()
    )


def known_flags() -> set[str]:
    """As our sources name them, in code or help, with underscores."""
    folders = ("fusion_keras", "bench", "export", "tests/support")
    sources = "".join(p.read_text() for f in folders for p in (ROOT / f).rglob("*.py"))
    named = re.findall(r"--([a-z][\w-]*)", sources)
    defined = re.findall(r'DEFINE_\w+\(\s*"(\w+)"', sources)
    # Made of the names of what a table has.
    columns = [f"{m}_column" for m in ("text", "image", "audio", "label", "score", "id")]
    return {name.replace("-", "_") for name in (*named, *defined, *columns)}


def missing_flags(text: str) -> list[str]:
    """Flags and settings that nothing here has; another program's line may have others."""
    ours = [line for line in text.splitlines() if not re.search(OTHERS, line)]
    given = set(re.findall(r"(?<![\w-])--([a-z][\w.-]*\w)", "\n".join(ours)))
    settings = {name for name, _ in setting_names.settings(get_config())}
    sections = {name.rpartition(".")[0] for name in settings}
    known = known_flags()
    return sorted(
        flag
        for flag in given
        if (
            flag.removeprefix("config.") not in settings | sections
            if flag.startswith("config.")
            else flag.replace("-", "_") not in known
        )
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_commands_of_a_page_lead_somewhere(page):
    assert dead_links(page) == []
    assert missing_modules(page.read_text()) == []
    assert missing_flags(page.read_text()) == []


@pytest.mark.parametrize(("name", "most"), [("README", 150), ("WORKSPACE", 200)])
def test_front_pages_stay_short(name, most):
    assert len((ROOT / f"{name}.md").read_text().splitlines()) <= most


def test_a_dead_link_a_dead_anchor_and_a_missing_module_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n[a](gone.md) [b](#gone) [c](#a-page) `[d](code.md)`\n")
    assert dead_links(page) == ["gone.md", "#gone"]
    assert missing_modules("python -m bench.gone and python -m bench") == ["bench.gone"]


def test_a_flag_and_a_setting_that_are_not_there_are_found():
    text = "`--variant=late --varaint=late --config.image.size=96 --config.image.sise=96`"
    assert missing_flags(text) == ["config.image.sise", "varaint"]
    assert missing_flags("pip install --no-deps x") == []
