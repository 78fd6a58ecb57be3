"""The report's page, in a real browser where one is installed; else only as text."""

import html
import json
import re
import shutil
import subprocess

import pytest

from bench.report import front, page
from bench.report.__main__ import main
from tests.support.reports import FOUR, ORIN, artifact, contender, estimated, measured

NASTY = 'late <img src="http://localhost:9/x" onerror="document.title=1"> & "co"'

# Put in front of the page's own scripts: what the page tries to load, and what goes wrong.
WATCH = """<script>
const seen = {violations: [], errors: []};
addEventListener("securitypolicyviolation", e => seen.violations.push(e.blockedURI));
addEventListener("error", e => seen.errors.push(String(e.message)));
</script>"""
# Behind them: use the page, then leave nothing but what was found.
USE = """<script>
addEventListener("load", () => setTimeout(() => {
  const chart = document.querySelector(".chart");
  seen.marks = chart.querySelectorAll("svg .scatterlayer path.point").length;
  seen.bars = chart.querySelectorAll("svg .errorbars path").length;
  seen.drawn = [...document.querySelectorAll(".chart")].map(c => !!c.querySelector("svg.main-svg"));
  Plotly.Fx.hover(chart, [{curveNumber: 4, pointNumber: 0}]);
  seen.hover = [...chart.querySelectorAll(".hoverlayer text")].map(t => t.textContent).join("\\n");
  const table = [...document.querySelectorAll("table")]
    .find(t => t.caption.textContent === "Every contender");
  const head = [...table.querySelectorAll("th")].find(t => t.textContent === "p90, ms");
  const column = () => [...table.tBodies[0].rows].map(r => r.cells[head.cellIndex].textContent);
  seen.before = column();
  head.querySelector("button").click();
  seen.up = column();
  seen.order = head.getAttribute("aria-sort");
  head.querySelector("button").click();
  seen.down = column();
  seen.requests = performance.getEntriesByType("resource").map(e => e.name);
  seen.images = document.images.length;
  seen.wide = document.documentElement.scrollWidth > innerWidth;
  seen.ink = getComputedStyle(document.body).color;
  const text = JSON.stringify(seen);
  document.head.remove();
  document.body.textContent = text;
}, 0));
</script>"""


def written(folder):
    late = contender(
        NASTY, 14, artifact("late", 84), stages={"tokens": None, "inference": {"p50": 9}}
    )
    batches = [contender(f"inter batch {n}", 6 * n, batch=n) for n in (2, 4)]
    first = measured(folder / "a.json", *reversed(FOUR[:3]), late, *batches)
    second = measured(folder / "b.json", contender("inter", 3), fingerprint=ORIN)
    entry = {"artifact": artifact(), "precision": "fp32", "milliseconds": 7, "low": 5, "high": 9}
    third = estimated(folder / "c.json", entry)
    inputs = [str(path) for path in (first, second, third)]
    assert main([*inputs, f"--out={folder / 'r'}"]) == 0
    return folder / "r.html"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return written(tmp_path_factory.mktemp("report"))


def browse(path, folder, *flags):
    """What USE found on the page."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    browser = browser or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed: the page was not opened")
    text = path.read_text()
    text = text.replace('<meta name="viewport"', f'{WATCH}<meta name="viewport"', 1)
    used = folder / "used.html"
    used.write_text(text.replace("</body></html>", f"{USE}</body></html>"))
    headless = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    asked = [f"--user-data-dir={folder / 'user'}", "--virtual-time-budget=8000", "--dump-dom"]
    command = [*headless, *asked, *flags, used.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"<body>(.*)</body>", dom, re.DOTALL)
    assert found, dom[:300]
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def seen(path, tmp_path_factory):
    return browse(path, tmp_path_factory.mktemp("desk"), "--window-size=1280,900")


def test_every_chart_is_drawn(seen):
    assert seen["errors"] == []
    # Three fronts, the batch plot, the stages.
    assert seen["drawn"] == [True] * 5
    assert seen["marks"] == 4
    assert seen["bars"] == 8


def test_hovering_shows_the_values(seen):
    for part in ("14.0 [13.7, 14.1] ms", "12.6 [11.9, 13.3]", "84.0 [", "1024 samples", "seeds 0"):
        assert part in seen["hover"]
    assert NASTY in seen["hover"]


def test_a_click_on_a_head_sorts_by_number(seen):
    filled = [cell for cell in seen["before"] if cell]
    order = sorted(filled, key=lambda cell: float(cell.split()[0]))
    assert filled != order
    # Two-digit numbers come after one-digit ones, empty cells last in both directions.
    assert [cell for cell in seen["up"] if cell] == order
    assert [cell for cell in seen["down"] if cell] == order[::-1]
    assert seen["up"][-1] == seen["down"][-1] == ""
    assert seen["order"] == "ascending"


def test_no_request_leaves_the_page_and_none_is_tried(seen):
    assert seen["requests"] == []
    assert seen["violations"] == []
    assert seen["images"] == 0


def test_a_narrow_dark_screen_does_without_scrolling_sideways(path, seen, tmp_path):
    found = browse(
        path, tmp_path, "--window-size=500,900", "--blink-settings=preferredColorScheme=0"
    )
    assert not found["wide"]
    assert found["ink"] != seen["ink"]


def test_names_are_text_wherever_they_stand(path):
    text = path.read_text()
    assert "<img" not in text.split("<main>")[1].split("</main>")[0]
    assert html.escape(NASTY) in text
    figures = text.split('id="figures">')[1]
    assert "<" not in figures[: figures.index("</script>")]


def test_the_policy_allows_no_source_at_all(path):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', path.read_text())[1]
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"https?:|\*|connect-src", policy)


def test_numbers_are_told_with_three_digits_and_their_interval():
    assert page.milliseconds((21.64, 21.2, 22)) == "21.6 [21.2, 22.0]"
    assert page.milliseconds((0.984, 0.984, 0.984)) == "0.98"
    assert page.milliseconds(1234.5) == "1234"
    assert page.milliseconds(None) == ""
    assert page.percent(front.Interval(0.842, 0.815, 0.8694), "+") == "+84.2 [+81.5, +86.9]"
