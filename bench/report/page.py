"""The report as one HTML page that needs nothing else: charts, tables that sort, no request.

Sections hold paragraphs, tables and charts; `bench.report.sections` fills them and writes the
same ones as Markdown. plotly.js, which the plotly package brings and the page carries, draws the
charts in the browser; a content security policy forbids the page every request.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, field

from bench.report.front import Interval, Point


@dataclass
class Table:
    """Cells are plain text; an empty one was not measured."""

    title: str
    heads: list[str]
    rows: list[list[str]]


@dataclass
class Chart:
    """A plotly figure, without the theme, which the page adds."""

    title: str
    traces: list[dict]
    layout: dict


@dataclass
class Section:
    """parts: paragraphs (str), tables and charts, in order."""

    title: str
    parts: list = field(default_factory=list)


def milliseconds(value: tuple[float, float, float] | float | None) -> str:
    """`21.6 [21.2, 22.0]`, or one number alone; nothing where it is not known."""
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
    middle, low, high = value
    around = f" [{milliseconds(low)}, {milliseconds(high)}]" if low != high else ""
    return milliseconds(middle) + around


def percent(value: Interval, sign: str = "") -> str:
    """`84.2 [81.5, 86.9]`; sign "+" for differences."""
    mean, low, high = (f"{100 * x:{sign}.1f}" for x in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def seeds_of(point: Point) -> str:
    return ", ".join(str(seed) for seed in point.model.correct)


def page(title: str, lead: list[str], sections: list[Section]) -> str:
    """The whole page; every text is escaped here.

    Raises:
        ImportError: the plotly package is not installed.
    """
    from plotly.offline import get_plotlyjs

    charts = [part for section in sections for part in section.parts if isinstance(part, Chart)]
    figures = json.dumps([{"data": chart.traces, "layout": chart.layout} for chart in charts])
    # In a script element only "<" could end it or open another state.
    figures = figures.replace("<", "\\u003c")
    numbers = {id(chart): i for i, chart in enumerate(charts)}
    links = "".join(
        f'<a href="#s{i}">{html.escape(section.title)}</a>' for i, section in enumerate(sections)
    )
    body = "".join(_section(i, section, numbers) for i, section in enumerate(sections))
    answer = "".join(f"<p>{html.escape(line)}</p>" for line in lead)
    library = get_plotlyjs() if charts else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>{html.escape(title)}</h1></header><main>"
        f'<section class="answer">{answer}</section><nav aria-label="Sections">{links}</nav>'
        f"{body}</main><script>{library}</script>"
        f'<script type="application/json" id="figures">{figures}</script>'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _section(number: int, section: Section, numbers: dict[int, int]) -> str:
    parts = [f'<section id="s{number}"><h2>{html.escape(section.title)}</h2>']
    for part in section.parts:
        if isinstance(part, Table):
            parts.append(_table(part))
        elif isinstance(part, Chart):
            height = part.layout.get("height", 460)
            parts.append(
                f"<figure><figcaption>{html.escape(part.title)}</figcaption>"
                f'<div class="chart" data-figure="{numbers[id(part)]}" '
                f'style="height:{height}px"></div></figure>'
            )
        else:
            parts.append(f"<p>{html.escape(part)}</p>")
    return "".join([*parts, "</section>"])


def _table(table: Table) -> str:
    heads = "".join(
        f'<th scope="col"><button type="button">{html.escape(head)}</button></th>'
        for head in table.heads
    )
    rows = "".join(
        "<tr>" + "".join(_cell(str(cell)) for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{html.escape(table.title)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    long = ' class="long"' if len(text) > 24 else ""
    return f"<td{long}>{html.escape(text)}</td>"


_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)

_STYLE = """
:root{--ink:#1d2329;--soft:#5c6670;--line:#dfe3e8;--paper:#fbfbfa;--card:#fff;--accent:#0072b2}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7ea;--soft:#98a2ad;--line:#333a42;
--paper:#14171a;--card:#1b1f24;--accent:#56b4e9}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
header,main{max-width:72rem;margin:auto;padding:0 clamp(.9rem,3vw,2rem)}
main{padding-bottom:4rem}
h1{font-size:1.7rem;margin:2rem 0 1rem}
h2{font-size:1.2rem;margin:2.6rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
p{margin:.5rem 0;max-width:48rem;overflow-wrap:anywhere}
.answer{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--accent);
border-radius:6px;padding:.5rem 1.1rem}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:1.1rem 0;font-size:.9rem}
a{color:var(--accent)}
figure{margin:1.1rem 0;background:var(--card);border:1px solid var(--line);border-radius:6px;
padding:.7rem .4rem .3rem}
figcaption,caption{text-align:left;font-weight:600;font-size:.95rem;padding:0 .6rem .4rem}
caption{padding:.5rem .7rem;overflow-wrap:anywhere}
.chart{width:100%}
.scroll{overflow-x:auto;margin:1rem 0;background:var(--card);border:1px solid var(--line);
border-radius:6px}
table{border-collapse:collapse;font-size:.87rem;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.4rem .7rem;border-top:1px solid var(--line)}
th{vertical-align:bottom;min-width:4.5rem}
td{max-width:26rem;overflow-wrap:break-word}
td:first-child{min-width:8rem}
td.long{min-width:14rem}
td.number{white-space:nowrap}
th button{all:unset;cursor:pointer;font-weight:600;color:var(--soft)}
th button:hover{color:var(--ink)}
th button:focus-visible{outline:2px solid var(--accent)}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
tbody tr:hover{background:color-mix(in srgb,var(--accent) 8%,transparent)}
@media print{nav{display:none}.scroll{overflow:visible}}
"""

# A cell's leading number decides where all filled cells of a column have one.
_SCRIPT = r"""
"use strict";
const number = text => /^[+-]?\d/.test(text) ? parseFloat(text) : NaN;
for (const cell of document.querySelectorAll("td"))
  if (/^[+-]?\d[\d.]*( \[.*\])?$/.test(cell.textContent)) cell.className = "number";
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const table = head.closest("table"), body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  const text = row => row.cells[head.cellIndex].textContent.trim();
  const rows = [...body.rows], filled = rows.filter(text);
  const numeric = filled.every(row => !isNaN(number(text(row))));
  filled.sort((a, b) => numeric ? number(text(a)) - number(text(b))
                                : text(a).localeCompare(text(b)));
  if (down) filled.reverse();
  body.append(...filled, ...rows.filter(row => !text(row)));
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
};
const figures = JSON.parse(document.getElementById("figures").textContent);
const draw = () => {
  const colour = name => getComputedStyle(document.body).getPropertyValue(name).trim();
  const axis = {gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false,
                automargin: true};
  for (const place of document.querySelectorAll(".chart")) {
    const {data, layout} = figures[place.dataset.figure];
    const all = {paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {color: colour("--ink"), family: "system-ui, sans-serif", size: 12},
      margin: {l: 55, r: 20, t: 34, b: 50}, hovermode: "closest",
      modebar: {bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink")},
      hoverlabel: {align: "left", bgcolor: colour("--card"), bordercolor: colour("--soft"),
                   font: {color: colour("--ink")}},
      legend: {orientation: "h", y: -0.18, yanchor: "top"}, ...layout};
    for (const name of ["xaxis", "yaxis", "yaxis2"])
      if (layout[name]) all[name] = {...axis, ...layout[name]};
    Plotly.react(place, data, all, {responsive: true, displaylogo: false,
      displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"]});
  }
};
if (figures.length) {
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
"""
