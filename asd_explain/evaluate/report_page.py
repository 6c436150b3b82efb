"""What a report of one file is made of: the page with its style, tables, figures, and how numbers are written."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from asd_explain.evaluate.svg import number

#: Stands where there is no number.
NOTHING = "–"
_MOST_LISTED = 8


class Html(str):
    """Text that is HTML already; all other text is escaped when it is put into a page."""

    __slots__ = ()


def esc(text: object) -> str:
    """Text for a page: escaped, unless it is :class:`Html`."""
    return text if isinstance(text, Html) else html.escape(str(text))


def join(*parts: object) -> Html:
    """Parts one after the other, escaped where they are not HTML."""
    return Html("".join(esc(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element; ``class_`` stands for the attribute "class"."""
    given = "".join(f' {key.rstrip("_")}="{esc(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{join(*content)}</{name}>")


def decimal(value: object, digits: int = 2) -> str:
    """A number with so many decimals, an en dash for none."""
    known = number(value)
    if known is None:
        return NOTHING
    return f"{round(known, digits) + 0.0:.{digits}f}".replace("-", "−")


def percent(value: object) -> str:
    """A share as a whole percentage, an en dash for none."""
    known = number(value)
    return NOTHING if known is None else f"{decimal(100 * known, 0)} %"


def span(low: object, high: object, write: object = decimal) -> str:
    """ " (low to high)" for an interval that is known, else nothing."""
    if number(low) is None or number(high) is None:
        return ""
    return f" ({write(low)} to {write(high)})"


def any_value(value: object) -> str:
    """Whatever a row holds, for reading: three significant digits, yes and no, lists joined."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value or NOTHING
    if isinstance(value, list | tuple):
        listed = ", ".join(map(any_value, value[:_MOST_LISTED]))
        return (listed or NOTHING) if len(value) <= _MOST_LISTED else f"{listed}, … ({len(value)} in all)"
    known = number(value)
    if known is None:
        return NOTHING
    written = str(int(known)) if known == int(known) and abs(known) < 1e15 else f"{known:.3g}"
    return written.replace("-", "−")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, classes: Sequence[str] = ()) -> Html:
    """A table in a box of its own that scrolls; the first column names the rows.

    Args:
        head: the columns' names.
        rows: cells, text or HTML.
        classes: a style class for each row, or none at all.
    """
    columns = Html("".join(tag("th", cell, scope="col") for cell in head))
    lines = []
    for i, row in enumerate(rows):
        first, *rest = row
        cells = [tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)]
        lines.append(tag("tr", *cells, **({"class_": classes[i]} if i < len(classes) and classes[i] else {})))
    body = tag("table", tag("thead", tag("tr", columns)), tag("tbody", *lines))
    return tag("div", body, class_="scroll", tabindex="0")


def generic_table(rows: Iterable[Mapping[str, object]]) -> Html:
    """Rows as they are: their keys are the columns, in the order in which they first appear.

    A dict within a row becomes one column an entry.
    """
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    if not columns:
        return Html("")
    return table(columns, [[any_value(row.get(c)) for c in columns] for row in flat])


def _flat(row: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{key}: {name}": inner for name, inner in _flat(value).items()}
        else:
            found[str(key)] = value
    return found


def figure(caption: object, chart: str) -> Html:
    """A chart under its caption; nothing where there is no chart."""
    return tag("figure", tag("figcaption", caption), Html(chart)) if chart else Html("")


def charts(*figures: Html) -> Html:
    """Figures side by side as far as there is room; nothing where there are none."""
    return tag("div", *figures, class_="charts") if any(figures) else Html("")


def legend(entries: Iterable[tuple[str, str]], *, boxes: bool = False) -> Html:
    """(name, style) pairs with a sample of each line, or a box of each colour."""
    found = []
    for name, style in entries:
        mark = '<rect class="fill c-{}" x="1" y="1" width="26" height="10"/>'
        mark = mark if boxes else '<line class="line c-{}" x1="1" y1="6" x2="27" y2="6"/>'
        sample = Html(f'<svg viewBox="0 0 28 12" class="sample" aria-hidden="true">{mark.format(esc(style))}</svg>')
        found.append(tag("span", sample, name))
    return tag("p", *found, class_="legend")


def details(title: object, *content: object) -> Html:
    """Content that is folded away under a title."""
    return tag("details", tag("summary", title), *content)


def missing(what: str) -> Html:
    """The sentence that stands where a part was not measured."""
    return tag("p", f"Not in this run: {what}.", class_="missing")


def page(title: str, body: Html) -> str:
    """The whole file; it asks nothing of any other."""
    head = (
        '<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
    )
    head = tag("head", Html(head), tag("title", title), tag("style", Html(STYLE)))
    return f'<!DOCTYPE html>\n<html lang="en">{head}{tag("body", tag("main", body))}</html>\n'


# Colours of methods and regions: (class, light, dark, dashes).
_COLOURS = (
    ("se", "#d1410c", "#ff7a45", ""),
    ("se-plain", "#b5651d", "#ffb27a", "5 2"),
    ("se-paper", "#9a6a00", "#f0b04a", ""),
    ("gradcam", "#1f6fb4", "#63aef0", ""),
    ("gradcam-pp", "#5a4fcf", "#a59cff", ""),
    ("eigengradcam", "#007d73", "#3fcfc0", ""),
    ("fullgrad", "#38852b", "#7fd06b", ""),
    ("fem", "#a33ea1", "#e084de", ""),
    ("activation", "#4a4f57", "#c8ccd2", "7 3"),
    ("se-shuffled", "#8a6132", "#d0b07c", "7 3"),
    ("weights-shuffled", "#5c3d1e", "#b08a5c", "2 2"),
    ("random", "#767676", "#9a9a9a", "2 3"),
    ("centre", "#1b7f9e", "#7cc7e6", "9 3 2 3"),
    ("mouth", "#c2185b", "#ff6fa5", "9 3 2 3"),
    ("other", "#5d6b3a", "#b9cc86", "4 2"),
    ("better", "#1a7f37", "#56d36f", ""),
    ("worse", "#c62828", "#ff6b6b", ""),
    ("open", "#6b7280", "#a3aab5", ""),
    ("region0", "#d1410c", "#ff7a45", ""),
    ("region1", "#1f6fb4", "#63aef0", ""),
    ("region2", "#93bfe3", "#2f5f8a", ""),
    ("region3", "#9aa86f", "#68753f", ""),
    ("region4", "#c9ccd1", "#4b525c", ""),
)


def _colours() -> str:
    light = "".join(f"--{name}:{value};" for name, value, _, _ in _COLOURS)
    dark = "".join(f"--{name}:{value};" for name, _, value, _ in _COLOURS)
    rules = "".join(
        f".c-{name}{{stroke:var(--{name});fill:var(--{name})}}"
        + (f".line.c-{name}{{stroke-dasharray:{dashes}}}" if dashes else "")
        for name, _, _, dashes in _COLOURS
    )
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{rules}"


STYLE = """
:root{--page:#fff;--ink:#1c1f24;--soft:#5b626d;--rule:#d9dde3;--box:#f4f6f9;--best:#e3f4e6;--accent:#1f6fb4}
@media(prefers-color-scheme:dark){:root{--page:#14171c;--ink:#e6e9ee;--soft:#a0a8b4;--rule:#343a44;--box:#1d2129;
--best:#1d3a25;--accent:#63aef0}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:16px}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.35rem;margin:2.2em 0 .4em;border-top:2px solid var(--rule);
padding-top:.8em}h3{font-size:1.1rem;margin:1.8em 0 .3em}h4{font-size:1rem;margin:1.2em 0 .2em}
p,ul,dl{max-width:78ch}a{color:var(--accent)}code{overflow-wrap:anywhere}
.answer{background:var(--box);border-left:4px solid var(--accent);border-radius:6px;padding:.4em 1em;margin:1em 0}
.answer h2,.answer h3{border:0;margin:.6em 0 .2em;padding:0}
.missing,.note{color:var(--soft)}
.scroll{overflow:auto;max-height:32rem;border:1px solid var(--rule);border-radius:6px;margin:.6em 0}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.3em .6em;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}
th:first-child{text-align:left}thead th{position:sticky;top:0;background:var(--box);z-index:1}
tbody th{font-weight:500;position:sticky;left:0;background:var(--page)}
tr.control th{font-style:italic}td:has(>.best){background:var(--best)}.best{font-weight:700}
small{color:var(--soft);font-weight:400}
.is-better{color:var(--better);font-weight:600}.is-worse{color:var(--worse);font-weight:600}.is-open{color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:14px;margin:.6em 0}
figure{margin:0;min-width:0}figcaption{font-size:.88rem;color:var(--soft);margin-bottom:2px}
.charts figure{max-width:560px}
svg.chart{width:100%;height:auto;display:block}
svg text{fill:var(--ink);font:11px system-ui,sans-serif}
.grid{stroke:var(--rule);stroke-width:1}.zero{stroke:var(--soft);stroke-width:1.4}
.target{stroke:var(--ink);stroke-width:1.6}
.line{fill:none!important;stroke-width:1.7}polyline.c-se{stroke-width:3.2}.dot.hollow{fill:var(--page)!important}
.dot{stroke-width:1.6}.fill{stroke:none!important}
.legend{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:.85rem;max-width:none}
.sample{width:28px;height:12px;margin-right:5px;vertical-align:-1px}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,280px),1fr));gap:14px}
.pictures img{width:100%;height:auto;border-radius:4px;display:block}
details{margin:.6em 0;border:1px solid var(--rule);border-radius:6px;padding:.3em .8em}
summary{cursor:pointer;font-weight:500}dt{font-weight:600;margin-top:.6em}dd{margin-left:1em}
nav ul{padding-left:1.2em;columns:2;max-width:none}
""" + _colours()
