"""Small charts as inline SVG, for reports that are one file: lines, intervals, stacked bars, histograms, points.

Every function returns one ``<svg>`` element with a view box of ``WIDTH`` units, so that it grows and shrinks with its
place; colours come from the classes of the page's style sheet (``.c-NAME``), which has one set for light and one for
dark. All text is escaped. Values that are not finite numbers are not drawn; where nothing is left to draw, the result
is an empty string. All coordinates lie inside the view box.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real

WIDTH = 360.0
_ROW = 18.0
_LETTER = 6.8  # mean width of a letter at the font size of the style sheet (11 units), in a wide sans serif
_RIGHT, _TOP = 12.0, 10.0


@dataclass(frozen=True)
class Line:
    """One line of a chart: ``y`` over ``x`` (equally many, gaps where either is missing), drawn in a class's colour."""

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    style: str


@dataclass(frozen=True)
class Interval:
    """One row of a forest plot: a value with the ends of its interval; ``target`` is marked by a line of its own."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    style: str
    target: float | None = None


@dataclass(frozen=True)
class Bar:
    """One row of stacked bars: (name, share in [0, 1], style) of each part, from left to right."""

    label: str
    parts: Sequence[tuple[str, float | None, str]] = field(default_factory=tuple)


def number(value: object) -> float | None:
    """A finite number as a float, everything else (None, NaN, infinity, text, booleans) as None."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(value) if math.isfinite(value) else None


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within [low, high], about so many; low < high."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [min(max(i * step, low), high) for i in range(first, last + 1)]


def limits(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """A range with room around the values on both sides; never empty, (0, 1) for no values at all."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = share * (high - low) or max(abs(high) * share, 1e-3)
    return low - room, high + room


def line_chart(
    lines: Sequence[Line],
    *,
    name: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    marks: bool = False,
) -> str:
    """Lines over a common axis; later lines lie over earlier ones.

    Args:
        lines: what is drawn.
        name: what the chart shows, for those who cannot see it.
        x_label, y_label: of the axes.
        x_range, y_range: what the axes must hold at least; values beyond widen them.
        marks: a dot at each point too.
    """
    runs = [(line, run) for line in lines for run in _runs(line)]
    points = [point for _, run in runs for point in run]
    if not points:
        return ""
    box = _Box(220.0, 44.0, 36.0, _range([x for x, _ in points], x_range), _range([y for _, y in points], y_range))
    parts = [box.grid(x_label, y_label)]
    for line, run in runs:
        at = [(box.x(x), box.y(y)) for x, y in run]
        title = f"<title>{_text(line.name)}</title>"
        if len(at) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
            parts.append(f'<polyline class="line c-{line.style}" points="{path}">{title}</polyline>')
        if marks or len(at) == 1:
            parts += [f'<circle class="dot c-{line.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in at]
    return _svg(box.height, name, parts)


def scatter(x: Sequence[float | None], y: Sequence[float | None], *, name: str, x_label: str, y_label: str) -> str:
    """Points (at most some 200 of them, evenly taken) and the diagonal on which both axes agree; equal ranges."""
    points = [(a, b) for a, b in zip(map(number, x), map(number, y), strict=False) if a is not None and b is not None]
    if not points:
        return ""
    points = points[:: math.ceil(len(points) / 200)]
    both = limits([v for point in points for v in point])
    box = _Box(260.0, 44.0, 36.0, both, both)
    ends = f'x1="{box.x(both[0]):.1f}" y1="{box.y(both[0]):.1f}" x2="{box.x(both[1]):.1f}" y2="{box.y(both[1]):.1f}"'
    parts = [box.grid(x_label, y_label), f'<line class="zero" {ends}/>']
    parts += [f'<circle class="dot c-se" cx="{box.x(a):.1f}" cy="{box.y(b):.1f}" r="2.2"/>' for a, b in points]
    return _svg(box.height, name, parts)


def histogram(edges: Sequence[float], counts: Sequence[float], *, name: str, x_label: str) -> str:
    """Bars from edge to edge (one edge more than counts), as shares of all counts."""
    known, total = [number(c) or 0.0 for c in counts], sum(number(c) or 0.0 for c in counts)
    if total <= 0 or len(edges) != len(counts) + 1 or any(number(e) is None for e in edges) or edges[0] >= edges[-1]:
        return ""
    shares = [max(c, 0.0) / total for c in known]
    box = _Box(200.0, 44.0, 36.0, (float(edges[0]), float(edges[-1])), (0.0, max(shares) * 1.06))
    parts = [box.grid(x_label, "share")]
    for i, share in enumerate(shares):
        left, right, top = box.x(float(edges[i])), box.x(float(edges[i + 1])), box.y(share)
        size = f'x="{left:.1f}" y="{top:.1f}" width="{max(right - left - 0.6, 0.1):.1f}"'
        title = f"<title>{float(edges[i]):.3g} to {float(edges[i + 1]):.3g}: {share:.3f}</title>"
        parts.append(f'<rect class="fill c-se" {size} height="{box.bottom - top:.1f}">{title}</rect>')
    return _svg(box.height, name, parts)


def forest(
    rows: Sequence[Interval], *, name: str, x_label: str, zero: bool = True, sides: tuple[str, str] | None = None
) -> str:
    """A row an interval, its value a dot; hollow where the interval holds zero (or is not known).

    Args:
        rows: from top to bottom; those without a value are left out.
        name: what the chart shows, for those who cannot see it.
        x_label: of the axis.
        zero: whether zero is in the chart, with a line, and decides between full and hollow dots.
        sides: what being left and being right of zero means, written above the rows.
    """
    rows = [row for row in rows if number(row.value) is not None]
    if not rows:
        return ""
    values = [v for r in rows for v in map(number, (r.value, r.low, r.high, r.target)) if v is not None]
    label = min(0.45 * WIDTH, max(len(row.label) for row in rows) * _LETTER + 12)
    above = 16.0 if sides else 0.0
    box = _Box(_TOP + above + _ROW * len(rows) + 36, label, 36.0, limits(values + [0.0] * zero), (0.0, 1.0), above)
    parts = [box.grid(x_label, None)]
    if zero:
        parts.append(
            f'<line class="zero" x1="{box.x(0):.1f}" y1="{box.top:.1f}" x2="{box.x(0):.1f}" y2="{box.bottom}"/>'
        )
    if sides:
        parts.append(f'<text x="{label:.1f}" y="{_TOP + 4}">{_text(_short(sides[0], (WIDTH - label) / 2))}</text>')
        right = f'x="{WIDTH - _RIGHT}" y="{_TOP + 4}" text-anchor="end"'
        parts.append(f"<text {right}>{_text(_short(sides[1], (WIDTH - label) / 2))}</text>")
    for i, row in enumerate(rows):
        value, low, high, target = map(number, (row.value, row.low, row.high, row.target))
        y = box.top + _ROW * (i + 0.5)
        known = low is not None and high is not None
        clear = known and (low > 0 or high < 0)
        hollow = " hollow" if zero and not clear else ""
        span = f" ({low:.3f} to {high:.3f})" if known else ""
        parts.append(f"<g><title>{_text(row.label)}: {value:.3f}{span}</title>")
        parts.append(
            f'<text x="{label - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{_text(_short(row.label, label))}</text>'
        )
        if target is not None:
            ends = f'y1="{y - 7:.1f}" x2="{box.x(target):.1f}" y2="{y + 7:.1f}"'
            parts.append(f'<line class="target" x1="{box.x(target):.1f}" {ends}/>')
        if known:
            ends = f'x1="{box.x(low):.1f}" y1="{y:.1f}" x2="{box.x(high):.1f}" y2="{y:.1f}"'
            parts.append(f'<line class="line c-{row.style}" {ends}/>')
        parts.append(f'<circle class="dot c-{row.style}{hollow}" cx="{box.x(value):.1f}" cy="{y:.1f}" r="4"/></g>')
    return _svg(box.height, name, parts)


def stacked_bars(bars: Sequence[Bar], *, name: str) -> str:
    """Rows of shares from 0 to 1, side by side; what reaches beyond 1 is cut off."""
    bars = [bar for bar in bars if any(number(share) is not None for _, share, _ in bar.parts)]
    if not bars:
        return ""
    label = min(0.45 * WIDTH, max(len(bar.label) for bar in bars) * _LETTER + 12)
    box = _Box(_TOP + _ROW * len(bars) + 22, label, 22.0, (0.0, 1.0), (0.0, 1.0))
    parts = [box.grid(None, None)]
    for i, bar in enumerate(bars):
        y, start = box.top + _ROW * i + 2, 0.0
        shown = _text(_short(bar.label, label))
        parts.append(f'<text x="{label - 8:.1f}" y="{y + 11:.1f}" text-anchor="end">{shown}</text>')
        for part, share, style in bar.parts:
            end = min(1.0, start + max(0.0, number(share) or 0.0))
            if end > start:
                size = f'x="{box.x(start):.1f}" y="{y:.1f}" width="{box.x(end) - box.x(start):.1f}" height="{_ROW - 4}"'
                title = f"<title>{_text(bar.label)}, {_text(part)}: {100 * (end - start):.0f} %</title>"
                parts.append(f'<rect class="fill c-{style}" {size}>{title}</rect>')
            start = end
    return _svg(box.height, name, parts)


@dataclass(frozen=True)
class _Box:
    """The area between the axes, and the way from values to coordinates."""

    height: float
    left: float
    under: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    above: float = 0.0

    @property
    def top(self) -> float:
        return _TOP + self.above

    @property
    def bottom(self) -> float:
        return self.height - self.under

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (WIDTH - _RIGHT - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def grid(self, x_label: str | None, y_label: str | None) -> str:
        """Grid lines with their numbers; no numbers along y without a label there."""
        parts = []
        for value in ticks(*self.x_range):
            x = f"{self.x(value):.1f}"
            parts.append(f'<line class="grid" x1="{x}" y1="{self.top:.1f}" x2="{x}" y2="{self.bottom:.1f}"/>')
            parts.append(f'<text x="{x}" y="{self.bottom + 13:.1f}" text-anchor="middle">{_tick(value)}</text>')
        for value in ticks(*self.y_range) if y_label else ():
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{self.left:.1f}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{self.left - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{_tick(value)}</text>')
        middle = (self.left + WIDTH - _RIGHT) / 2
        if x_label:
            shown = _text(_short(x_label, WIDTH - self.left))
            parts.append(f'<text x="{middle:.1f}" y="{self.height - 6:.1f}" text-anchor="middle">{shown}</text>')
        if y_label:
            y = (self.top + self.bottom) / 2
            shown = _text(_short(y_label, self.bottom - self.top))
            parts.append(
                f'<text x="10" y="{y:.1f}" text-anchor="middle" transform="rotate(-90 10 {y:.1f})">{shown}</text>'
            )
        return "".join(parts)


def _runs(line: Line) -> list[list[tuple[float, float]]]:
    """The stretches of a line between its gaps."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(map(number, line.x), map(number, line.y), strict=False):
        if x is None or y is None:
            found.append([])
        else:
            found[-1].append((x, y))
    return [run for run in found if run]


def _range(values: Sequence[float], at_least: tuple[float, float] | None) -> tuple[float, float]:
    if at_least is None:
        return limits(values)
    return min(at_least[0], *values), max(at_least[1], *values)


def _tick(value: float) -> str:
    return f"{value:.10g}".replace("-", "−") if abs(value) > 1e-12 else "0"


def _short(text: str, room: float) -> str:
    """Text cut to what fits into so many units."""
    letters = max(4, int((room - 8) / _LETTER))
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _text(text: str) -> str:
    return html.escape(str(text))


def _svg(height: float, name: str, parts: Sequence[str]) -> str:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{_text(name)}">'
    return head + "".join(parts) + "</svg>"
