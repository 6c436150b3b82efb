"""The parts of the report on explanations that are drawn: each takes what was measured and gives a piece of HTML.

A part that has nothing to draw says so in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from asd_explain.evaluate import attention_words as words
from asd_explain.evaluate.report_page import (
    Html,
    any_value,
    charts,
    decimal,
    details,
    figure,
    generic_table,
    join,
    legend,
    missing,
    percent,
    span,
    table,
    tag,
)
from asd_explain.evaluate.segments import REGIONS
from asd_explain.evaluate.svg import Bar, Interval, Line, forest, histogram, line_chart, number, scatter, stacked_bars

_MOST_FORESTS = 12
_STYLES = {name: "gradcam-pp" if name == "gradcam++" else name for name in words.METHODS}


def style_of(method: str) -> str:
    """The class of a method's colour."""
    return _STYLES.get(method, "other")


def _same(row: Mapping, keys: Mapping[str, object]) -> bool:
    return all(row.get(k) == v for k, v in keys.items())


def _groups(rows: Iterable[Mapping], *keys: str) -> list[dict[str, object]]:
    """The different values of some keys, in the order in which they first appear."""
    return [dict(zip(keys, v, strict=True)) for v in dict.fromkeys(tuple(row.get(k) for k in keys) for row in rows)]


def _title(group: Mapping[str, object]) -> str:
    return ", ".join(any_value(value) for value in group.values())


def _method_legend(methods: Iterable[str]) -> Html:
    return legend((name, style_of(name)) for name in methods)


def paired_forests(methods: Mapping[str, Mapping]) -> Html:
    """SE minus each other method, one plot a metric and move."""
    choice, found = words.headline(methods), []
    plots = [(metric, move) for move in words.moves_of(methods) for metric in ("deletion", "insertion")]
    for metric, move in [*plots[:2], ("road", "tube"), *plots[2:]]:
        rows = []
        for name, method in methods.items():
            row = choice.row(method.get("against_se") or (), metric, move)
            if name != words.SE and row is not None:
                style = {"better": "better", "worse": "worse"}.get(words.compared(row), "open")
                rows.append(Interval(name, row.get("difference"), row.get("low"), row.get("high"), style))
        sides = ("SE worse", "SE better") if words.HIGHER_IS_BETTER[metric] else ("SE better", "SE worse")
        how = "" if metric == "road" else f", {move}-wise"
        name = f"{words.TITLES[metric]}{how}: SE minus the other"
        found.append(figure(name, forest(rows, name=name, x_label="difference with 95 % interval", sides=sides)))
    return charts(*found)


def curves(methods: Mapping[str, Mapping]) -> Html:
    """P over the fraction of pixels, every method a line; other streams, baselines and verdicts folded away."""
    rows = [row for row in words.all_rows(methods, "curves") if row.get("curve") in ("deletion", "insertion")]
    if not rows:
        return missing("curves")
    first = vars(words.headline(methods))
    groups = _groups(rows, "kind", "stream", "baseline", "verdict")
    shown = first if first in groups else groups[0]
    drawn = {_title(group): _curve_charts(methods, group) for group in groups}
    others = [details(title, part) for title, part in drawn.items() if title != _title(shown) and part]
    return join(
        tag("p", f"{_title(shown)}. Deletion should fall early, insertion rise early.", class_="note"),
        _method_legend(name for name in methods if methods[name].get("curves")),
        drawn[_title(shown)],
        *others,
    )


def _curve_charts(methods: Mapping[str, Mapping], group: Mapping[str, object]) -> Html:
    rows = [row for row in words.all_rows(methods, "curves") if _same(row, group)]
    moves = sorted({str(row.get("move")) for row in rows}, key=lambda move: (move != "tube", move))
    found = []
    for move in moves:
        for kind, way in (("deletion", "removed"), ("insertion", "shown")):
            lines = []
            for name in reversed(list(methods)):  # SE last: on top
                row = words.find(methods[name].get("curves"), {**group, "move": move, "curve": kind})
                if row:
                    lines.append(Line(name, row.get("fractions") or (), row.get("p") or (), style_of(name)))
            title = f"{words.TITLES[kind]}, {move}-wise"
            x_label = f"fraction of the pixels {way}"
            chart = line_chart(lines, name=title, x_label=x_label, y_label="P", x_range=(0, 1), y_range=(0, 1))
            found.append(figure(title, chart))
    return charts(*found)


def placement(methods: Mapping[str, Mapping]) -> Html:
    """The heat's division among the regions as stacked bars, with an even map's; the numbers below."""
    rows = words.all_rows(methods, "placement")
    if not rows:
        return missing("placement")
    note = "Each bar is a method's heat, divided among the regions; the last one is what an even map would have."
    parts = [tag("p", note, class_="note"), legend(((r, f"region{i}") for i, r in enumerate(REGIONS)), boxes=True)]
    for i, group in enumerate(_groups(rows, "kind", "stream", "by")):
        part = join(
            charts(*(_bars(methods, {**group, "state": state}) for state in ("speaking", "silent"))),
            _placement_table(methods, group),
        )
        known = "true state" if group["by"] == "truth" else "as the network calls the frames"
        title = f"{any_value(group['kind'])}, {any_value(group['stream'])}, {known}"
        parts.append(join(tag("h4", title), part) if i == 0 else details(title, part))
    return join(*parts)


def _bars(methods: Mapping[str, Mapping], keys: Mapping[str, object]) -> Html:
    bars, even = [], {}
    for name, method in methods.items():
        row = words.find(method.get("placement"), keys)
        mass = row.get("mass") or {}
        bars.append(Bar(name, [(r, mass.get(r), f"region{i}") for i, r in enumerate(REGIONS)]))
        even = even or row.get("area") or {}
    bars.append(Bar("even map", [(r, even.get(r), f"region{i}") for i, r in enumerate(REGIONS)]))
    title = f"Heat in {keys['state']} frames"
    return figure(title, stacked_bars(bars, name=title))


def _placement_table(methods: Mapping[str, Mapping], group: Mapping[str, object]) -> Html:
    head = ["Method", "frames", "pointing at the mouth", "dead maps", *(f"heat: {r}" for r in REGIONS)]
    head.append("mouth: heat over area")
    rows = []
    for name, method in methods.items():
        for state in ("speaking", "silent"):
            row = words.find(method.get("placement"), {**group, "state": state})
            if row:
                mass, area = row.get("mass") or {}, row.get("area") or {}
                heat, even = number(mass.get("mouth")), number(area.get("mouth"))
                times = decimal(heat / even, 1) if heat is not None and even else decimal(None)
                hits = percent((row.get("pointing") or {}).get("mouth")) + span(
                    row.get("low"), row.get("high"), percent
                )
                known = f"{any_value(row.get('known'))} of {any_value(row.get('frames'))}"
                masses = (percent(mass.get(r)) for r in REGIONS)
                rows.append([f"{name}, {state}", known, hits, percent(row.get("dead")), *masses, times])
    return table(head, rows)


def silence(methods: Mapping[str, Mapping]) -> Html:
    """Heat of tracks that are silent in all that was measured, relative to the clip's speech, as tables."""
    rows = words.all_rows(methods, "silence")
    if not rows:
        return missing("heat where nobody speaks (it needs a clip with a speaking and a silent track)")
    note = (
        "Raw heat in stretches of tracks that are silent in all that was measured, divided by that in the same clip's "
        "frames called speaking: 0 is a map that stays dark where nobody speaks, 1 one that cannot tell; a fixed blob "
        "has 1."
    )
    parts = [tag("p", note, class_="note")]
    for i, group in enumerate(_groups(rows, "kind", "stream")):
        lines = []
        for name, method in methods.items():
            mean, peak = (words.find(method.get("silence"), {**group, "of": of}) for of in ("mean", "peak"))
            if mean or peak:
                counts = [any_value((mean or peak).get(key)) for key in ("clips", "frames", "speaking_frames")]
                lines.append([name, words.mean_of(mean), words.mean_of(peak), *counts])
        head = ["Method", "mean heat", "hottest cell", "clips", "silent frames", "speaking frames"]
        part = table(head, lines)
        parts.append(join(tag("h4", _title(group)), part) if i == 0 else details(_title(group), part))
    return join(*parts)


def stability(methods: Mapping[str, Mapping]) -> Html:
    """Consistency at each smoothing and what smoothing costs, as tables; sensitivity to disturbances."""
    parts = []
    held = words.all_rows(methods, "consistency")
    for group in _groups(held, "stream"):
        title = f"Consistency over smoothing, {_title(group)} (1 is steady)"
        parts.append(join(tag("h4", title), _over_smoothing(methods, "consistency", group, "value")))
    if not held:
        parts.append(missing("temporal consistency"))
    cost = words.all_rows(methods, "smoothing_cost")
    for group in _groups(cost, "stream", "metric", "move"):
        way = "higher" if words.HIGHER_IS_BETTER.get(str(group["metric"]), True) else "lower"
        part = _over_smoothing(methods, "smoothing_cost", group, "mean")
        parts.append(details(f"What smoothing does to faithfulness: {_title(group)} ({way} is better)", part))
    if not cost:
        parts.append(missing("what smoothing costs in faithfulness"))
    moved = words.all_rows(methods, "sensitivity")
    for group in _groups(moved, "stream"):
        kinds = _groups([row for row in moved if _same(row, group)], "kind")
        figures = ("correlation", "overlap", "p_change")
        head = ["Method", *(f"{_title(k)}: {f.replace('p_change', 'change of P')}" for k in kinds for f in figures)]
        rows = []
        for name, method in methods.items():
            own = [words.find(method.get("sensitivity"), {**group, **kind}) for kind in kinds]
            rows.append([name, *(decimal(row.get(f), 3) for row in own for f in figures)])
        parts.append(join(tag("h4", f"Sensitivity, {_title(group)}"), table(head, rows)))
    if not moved:
        parts.append(missing("sensitivity to disturbances"))
    return join(*parts)


def _over_smoothing(methods: Mapping[str, Mapping], part: str, group: Mapping[str, object], value: str) -> Html:
    rows = [row for row in words.all_rows(methods, part) if _same(row, group)]
    columns = _groups(rows, "seconds", "cells")
    head = ["Method", *(f"{any_value(c['seconds'])} s, {any_value(c['cells'])} cells" for c in columns)]
    return table(
        head,
        [
            [n, *(decimal(words.find(m.get(part), {**group, **c}).get(value)) for c in columns)]
            for n, m in methods.items()
        ],
    )


def sanity(methods: Mapping[str, Mapping]) -> Html:
    """Similarity with the untouched network's map against the number of layers that have lost what they learned."""
    rows = words.all_rows(methods, "sanity")
    if not rows:
        return missing("cascading randomisation")
    found = []
    for group in _groups(rows, "stream"):
        for figure_name, title in (("spearman", "Rank correlation"), ("pearson", "Correlation")):
            lines = []
            for name in reversed(list(methods)):
                own = [
                    r
                    for r in methods[name].get("sanity") or ()
                    if _same(r, group) and number(r.get("depth")) is not None
                ]
                own.sort(key=lambda r: number(r["depth"]))
                lines.append(Line(name, [r["depth"] for r in own], [r.get(figure_name) for r in own], style_of(name)))
            label = f"{title} with the original map, {_title(group)}"
            chart = line_chart(
                lines,
                name=label,
                x_label="layers randomised, from the output back",
                y_label=title.lower(),
                y_range=(0, 1),
                marks=True,
            )
            found.append(figure(label, chart))
    layers = sorted({(number(r.get("depth")) or 0.0, any_value(r.get("layer"))) for r in rows})
    note = "A fall is good: the map has depended on what was learned. A line that stays at 1 does not."
    return join(
        tag("p", note, class_="note"),
        _method_legend(name for name in methods if methods[name].get("sanity")),
        charts(*found),
        details(
            "Which layers", table(["Layers", "the last one"], [[any_value(depth), layer] for depth, layer in layers])
        ),
    )


def shares(network: Mapping) -> Html:
    """Shares of the modalities against the truth of intervention."""
    intervals = [row for row in network.get("shares") or () if number(row.get("pooled")) is not None]
    intervals = [r for r in intervals if r.get("of", "all") == "all" and r.get("effect_on", "P") == "P"]
    found = []
    for group in _groups(intervals, "kind")[:_MOST_FORESTS]:
        rows = [
            Interval(
                _title({k: r.get(k) for k in ("stream", "replacement")}), r["pooled"], r.get("low"), r.get("high"), "se"
            )
            for r in intervals
            if _same(r, group)
        ]
        title = f"Shares “{_title(group)}” and the change of P, all frames"
        found.append(figure(title, forest(rows, name=title, x_label="rank correlation (1 is best, 0 chance)")))
    parts = [charts(*found)]
    for key, title, what in (
        (
            "shares",
            "Does a stream's share rise and fall with what the network would miss without it?",
            "modality shares",
        ),
        ("agreement", "Does the largest share name the stream whose removal moves the network most?", "agreement"),
        (
            "decisive",
            "Talking photos: do shares name the stream that must decide?",
            "scenes with a known decisive stream",
        ),
    ):
        rows = network.get(key) or []
        parts.append(details(title, generic_table(rows)) if rows else missing(what))
    return join(*parts)


def assumptions(found: Mapping) -> Html:
    """Are gates normally distributed, does the threshold keep a tenth, and what do other thresholds do?"""
    distribution, selection = found.get("distribution") or [], found.get("selection") or []
    variants = found.get("variants") or []
    parts = []
    if distribution:
        note = (
            "The recipe takes gates for normally distributed, so that mean + 1.28 standard deviations would keep a "
            "tenth of the channels. Normal gates would lie on the diagonal."
        )
        parts.append(tag("p", note, class_="note"))
        parts.append(charts(*(chart for row in distribution for chart in _distribution(row))))
        plain = [{k: v for k, v in row.items() if k not in ("qq", "histogram")} for row in distribution]
        parts.append(details("Distribution in numbers", generic_table(plain)))
    else:
        parts.append(missing("the distribution of the gates"))
    parts.append(_selection(selection) if selection else missing("how many channels are selected"))
    parts.append(_variants(variants) if variants else missing("faithfulness of other recipes"))
    return join(*parts)


def _distribution(row: Mapping) -> list[Html]:
    stream, qq, counts = any_value(row.get("stream")), row.get("qq") or {}, row.get("histogram") or []
    values = qq.get("values") or qq.get("gates") or ()
    labels = {"x_label": "normal quantile", "y_label": "gate quantile"}
    if isinstance(counts, Mapping):
        edges, counts = counts.get("edges") or [], counts.get("counts") or []
    else:
        edges = [i / len(counts) for i in range(len(counts) + 1)] if counts else []
    title = f"Gates of {stream}"
    return [
        figure(f"{title}, Q-Q", scatter(qq.get("normal") or (), values, name=f"{title}, Q-Q", **labels)),
        figure(f"{title}, histogram", histogram(edges, counts, name=title, x_label="gate")),
    ]


def _selection(rows: Sequence[Mapping]) -> Html:
    drawn = []
    for row in rows:
        parts = [row.get("stream"), row.get("scope"), row.get("percentile")]
        label = ", ".join(any_value(part) for part in parts if part is not None)
        expected = row.get("expected", 0.1)
        drawn.append(Interval(label, row.get("selected"), row.get("low"), row.get("high"), "se", expected))
    title = "Share of channels that really passes; the upright stroke is what was expected (10 % for the recipe)"
    chart = forest(drawn, name=title, x_label="share of channels", zero=False)
    return join(charts(figure(title, chart)), details("Selection in numbers", generic_table(rows)))


def _variants(rows: Sequence[Mapping]) -> Html:
    found = []
    for group in _groups(rows, "stream", "metric", "move"):
        own = [r for r in rows if _same(r, group)]
        drawn = [Interval(any_value(r.get("label")), r.get("mean"), r.get("low"), r.get("high"), "se") for r in own]
        way = "higher" if words.HIGHER_IS_BETTER.get(str(group["metric"]), True) else "lower"
        title = f"Recipes: {_title(group)} ({way} is better)"
        found.append(figure(title, forest(drawn, name=title, x_label="mean with 95 % interval", zero=False)))
    return join(charts(*found), details("Recipes in numbers", generic_table(rows)))
