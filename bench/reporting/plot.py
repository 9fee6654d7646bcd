"""Plots as SVG, without a library: bars by server, lines of growth; colours follow the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from bench.reporting.numbers import short
from bench.reporting.statistics import Spread

WIDTH = 760
LABELS = 190
"""Width of the names left of bars."""
ROW = 26
OURS = "here"
"""What the names of this server's sides begin with."""
COLOURS = ("#0969da", "#8250df", "#1a7f37", "#bc4c00", "#bf3989", "#57606a", "#9a6700", "#0a8a8a", "#a40e26")
DARK_COLOURS = ("#58a6ff", "#bc8cff", "#3fb950", "#f0883e", "#f778ba", "#8b949e", "#d29922", "#39c5cf", "#ff7b72")


def _style(names: Sequence[str]) -> str:
    def rules(colours: Sequence[str], ink: str, faint: str) -> str:
        each = "".join(
            f".c{number}{{fill:{colour};stroke:{colour}}}" for number, colour in enumerate(colours[: len(names)])
        )
        return f"text{{fill:{ink}}}.faint{{stroke:{faint}}}.peer{{fill:{faint}}}.ours{{fill:{colours[0]}}}{each}"

    light, dark = rules(COLOURS, "#1f2328", "#afb8c1"), rules(DARK_COLOURS, "#e6edf3", "#484f58")
    return (
        "<style>text{font:13px "
        "system-ui,sans-serif;stroke:none}.title{font-weight:600;font-size:15px}line.faint{stroke-width:1}"
        f"polyline{{fill:none!important;stroke-width:2}}{light}@media(prefers-color-scheme:dark){{{dark}}}</style>"
    )


def _svg(height: float, title: str, names: Sequence[str], parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img" aria-label="{escape(title)}">{_style(names)}'
        f'<text class="title" x="8" y="22">{escape(title)}</text>{"".join(parts)}</svg>\n'
    )


def bars(title: str, values: Mapping[str, Spread]) -> str:
    """Return a plot with a bar for each server's median, and a whisker from its least round to its most."""
    most = max((spread.most for spread in values.values()), default=0) or 1.0
    scale = (WIDTH - LABELS - 80) / most
    parts = []
    for number, (name, spread) in enumerate(values.items()):
        top = 36 + number * ROW
        end = LABELS + spread.middle * scale
        kind = "ours" if name.startswith(OURS) else "peer"
        parts.append(
            f'<text x="{LABELS - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="{kind}" x="{LABELS}" y="{top + 3}" rx="2" '
            f'width="{max(1.0, end - LABELS):.1f}" height="{ROW - 8}"/>'
            f'<text x="{LABELS + spread.most * scale + 6:.1f}" y="{top + 16}">{short(spread.middle)}</text>'
        )
        if spread.least != spread.most:
            least, greatest = LABELS + spread.least * scale, LABELS + spread.most * scale
            parts.append(f'<line class="faint" x1="{least:.1f}" x2="{greatest:.1f}" y1="{top + 12}" y2="{top + 12}"/>')
    return _svg(44 + len(values) * ROW, title, (), parts)


def lines(title: str, growing: str, values: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return a plot with a line for each server, of points (what grew, the figure); both axes are logarithmic."""
    left, top, right, bottom = 64, 40, WIDTH - 200, 320
    points = [point for line in values.values() for point in line if min(point) > 0]
    if not points:
        return _svg(60, title, (), ['<text x="8" y="46">nothing was measured</text>'])
    across = _axis([x for x, _ in points])
    up = _axis([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (math.log10(x) - across[0]) / (across[1] - across[0]) * (right - left),
            bottom - (math.log10(y) - up[0]) / (up[1] - up[0]) * (bottom - top),
        )

    parts = [f'<line class="faint" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>']
    for x in sorted({x for x, _ in points}):
        at, _ = place(x, 10 ** up[0])
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{short(x)}</text>')
    parts.append(f'<text x="{(left + right) / 2:g}" y="{bottom + 38}" text-anchor="middle">{escape(growing)}</text>')
    for y in _ticks(up):
        _, at = place(10 ** across[0], y)
        parts.append(
            f'<line class="faint" stroke-dasharray="2 4" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{short(y)}</text>'
        )
    for number, (name, line) in enumerate(values.items()):
        places = [place(x, y) for x, y in line if min(x, y) > 0]
        if places:
            drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline class="c{number % len(COLOURS)}" points="{drawn}"/>')
            parts += [f'<circle class="c{number % len(COLOURS)}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
            row = top + 8 + number * 22
            parts.append(
                f'<circle class="c{number % len(COLOURS)}" cx="{right + 16}" cy="{row - 4}" r="5"/>'
                f'<text x="{right + 28}" y="{row}">{escape(name)}</text>'
            )
    return _svg(bottom + 50, title, COLOURS, parts)


def _axis(values: Sequence[float]) -> tuple[float, float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    return (low - 0.05, high + 0.05) if high > low else (low - 0.5, high + 0.5)


def _ticks(axis: tuple[float, float]) -> list[float]:
    """Return round numbers within a logarithmic axis, not too many."""
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [
            step * 10.0**power
            for power in range(math.floor(axis[0]), math.ceil(axis[1]) + 1)
            for step in steps
            if axis[0] <= math.log10(step * 10.0**power) <= axis[1]
        ]
        if len(found) <= 8:
            return found
    return found
