"""The report on explanations as one HTML file: what was asked, what came out, and every figure behind it.

Made from the summary of a run (metrics.json) alone, and pictures. Parts that were not measured are named as missing;
numbers that do not exist are en dashes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence

from asd_explain.evaluate import attention_words as words
from asd_explain.evaluate.attention_charts import (
    assumptions,
    curves,
    paired_forests,
    placement,
    sanity,
    shares,
    silence,
    stability,
)
from asd_explain.evaluate.report_page import (
    NOTHING,
    Html,
    any_value,
    decimal,
    details,
    generic_table,
    join,
    missing,
    page,
    percent,
    span,
    table,
    tag,
)
from asd_explain.evaluate.svg import number

TITLE = "Is the heat true?"

_GLOSSARY = {
    "P": "The network's probability of the class (speaking or silent) that it named for the frame before anything was "
    "changed.",
    "Deletion (lower is better)": "The pixels that a map calls most important are replaced by a baseline, step "
    "by step, until all are gone. The figure is the area under P, from 0 to 1: where a map found what the network "
    "goes by, P falls early.",
    "Insertion (higher is better)": "The other way round: all is baseline, and the most important pixels come back "
    "first. Where a map found what the network goes by, P rises early.",
    "ROAD (higher is better)": "Removed pixels are filled in from their neighbours, so that the hole's outline tells "
    "nothing. The figure is half of P with the least important removed minus P with the most important removed, from "
    "-0.5 to 0.5; 0 is chance.",
    "Baselines": "What stands where pixels were: blur keeps coarse motion and light, mean is an even grey.",
    "Moves": "Frame-wise, every frame has its own order of pixels; tube-wise, one order holds for all frames of a "
    "stretch. To such a network a mask that moves is motion: hence both.",
    "Streams": "What the network looks at: face, and with some networks body. Joint: both are masked at once.",
    "Frames called speaking": "P(speaking) is at least 0.5 on the untouched picture. The first tables are about these; "
    "figures on frames called silent stand further down.",
    "Interval": "Clips are drawn again with replacement many times; 95 % of the means so found lie within. It tells "
    "how much hangs on which clips were at hand. Intervals are not widened for the number of comparisons: of twenty, "
    "one is clear of zero by chance.",
    "SE minus the other": "The difference within each clip, then its mean. Better or worse is said only where the "
    "interval is clear of zero; else there is no clear difference, which is not the same as being equal.",
    "Pointing at the mouth (higher: more on the mouth)": "Share of frames whose hottest pixel lies on the mouth, of "
    "those whose mouth is known. No proof of truth: a blob painted over the mouth wins.",
    "Dead maps (lower is better)": "Share of the same frames whose map has no heat at all. A dead map points nowhere "
    "and counts as a miss; heat on the mouth is the mean over the others.",
    "Heat on the mouth": "Share of all heat that lies there, beside the mouth's share of the area: what an even map "
    "has there.",
    "Called, truth": "Whether a frame counts as speaking because the network says so, or because it is known.",
    "Temporal consistency (higher is steadier)": "Correlation of each frame's map with the next one's, after the "
    "picture's own motion. A blob that never moves has 1.",
    "Sensitivity": "Correlation of the maps before and after a disturbance that changes nothing in the picture (noise, "
    "one pixel's shift, encoding again), overlap of their hottest parts, and how far P itself moved.",
    "Sanity (a fall is good)": "The layers lose what they learned, one after the other from the output. A map that "
    "stays the same does not explain what was learned.",
    "Milliseconds a frame (lower is better)": "Time that the map adds to scoring, on the machine of this run.",
    "Talking photos": "Made scenes in which photographs are animated, so that who speaks is known, and where the mouth "
    "is.",
}


def report_html(summary: Mapping, pictures: Sequence[Mapping] = ()) -> str:
    """The whole report.

    Args:
        summary: {"settings": ..., "networks": {name: ...}} as metrics.json holds it; any part may be missing.
        pictures: {"network", "clip", "time_s", "caption", "png": bytes} each.

    Returns:
        An HTML document that asks nothing of any other file.
    """
    settings, networks = summary.get("settings") or {}, summary.get("networks") or {}
    links = [tag("li", tag("a", name, href=f"#n{i}")) for i, name in enumerate(networks)]
    links += [tag("li", tag("a", t, href=f"#{to}")) for t, to in (("How it was measured", "how"), ("Words", "words"))]
    sections = [
        _network(i, name, network or {}, settings, [p for p in pictures if p.get("network") == name])
        for i, (name, network) in enumerate(networks.items())
    ]
    others = [picture for picture in pictures if picture.get("network") not in networks]
    body = join(
        tag("h1", TITLE),
        _answer(summary),
        tag("nav", tag("ul", *links)),
        *sections,
        join(tag("h2", "More pictures"), _pictures(others)) if others else Html(""),
        _how(settings, networks),
        _words(),
    )
    return page(f"{TITLE} {', '.join(map(str, networks))}".strip(), body)


def _answer(summary: Mapping) -> Html:
    parts = [tag("h2", "What was asked, what came out"), tag("p", words.asked(summary))]
    networks = summary.get("networks") or {}
    for name, network in networks.items():
        first, *rest = words.network_sentences(network or {})
        points = tag("ul", *(tag("li", sentence) for sentence in rest)) if rest else ""
        parts.append(join(tag("h3", name), tag("p", tag("strong", first)), points))
    if not networks:
        parts.append(missing("any network"))
    return tag("section", *parts, class_="answer")


def _network(index: int, name: str, network: Mapping, settings: Mapping, pictures: Sequence[Mapping]) -> Html:
    methods = words.methods_of(network)
    parts: list[tuple[str, Html]] = [
        ("The figures", _headline(methods, settings)),
        ("SE against each other method, clip by clip", join(_verdicts(methods), paired_forests(methods))),
        ("P as pixels go and come", curves(methods)),
        ("Where the heat lies", placement(methods)),
        ("Do maps stay dark where nobody speaks?", silence(methods)),
        ("Do maps hold still?", stability(methods)),
        ("Do maps depend on what was learned?", join(sanity(methods), _untrained(network))),
        ("Which of sound, face and body decided?", shares(network)),
        ("What the published recipe takes for granted", assumptions(network.get("assumptions") or {})),
        ("Does FullGrad add up?", _residual(network.get("fullgrad_residual") or [])),
        ("Examples", _pictures(pictures)),
        ("All figures of faithfulness", _everything(methods)),
    ]
    content = [join(tag("h3", title), part) for title, part in parts]
    return tag("section", tag("h2", "Network: ", name, id=f"n{index}"), *content)


def _headline(methods: Mapping[str, Mapping], settings: Mapping) -> Html:
    if not methods:
        return missing("any method")
    choice, placed, held = words.headline(methods), _placed(methods), _held(methods, settings)
    note = (
        f"Faithfulness: clips: {any_value(choice.kind)}; stream: {any_value(choice.stream)}; baseline: "
        f"{any_value(choice.baseline)}; frames called {any_value(choice.verdict)}. Placement: "
        f"{words.how_known(placed)}, {any_value(placed['stream'])}, {any_value(placed['state'])} frames. "
        f"Consistency: smoothed over {any_value(held['seconds'])} s and {any_value(held['cells'])} cells. "
        "Means over clips with 95 % intervals. ★ marks a column's best mean; whether it is more than chance stands "
        "in the next part. In the last four columns "
        "only methods that read the network take part, since a fixed blob is quick, still and well placed without any "
        "merit. Controls are in italics."
    )
    found = [tag("p", note, class_="note")]
    for i, move in enumerate(words.moves_of(methods) or [None]):
        if move is not None:
            found.append(tag("h4", f"With {words.MOVE_TITLES.get(move, move)}"))
        found.append(_big_table(methods, choice, move, placed, held, road=i == 0))
    return join(*found)


def _placed(methods: Mapping[str, Mapping]) -> dict[str, object]:
    """Which rows of placement the first tables show."""
    choice = words.headline(methods)
    rows = words.all_rows(methods, "placement")
    return words.choose(
        rows, kind=[choice.kind, "all"], stream=[choice.stream, "face"], by=["called"], state=["speaking"]
    )


def _held(methods: Mapping[str, Mapping], settings: Mapping) -> dict[str, object]:
    """Which rows of consistency the first tables show: those of the run's own smoothing, where there are such."""
    choice, smoothing = words.headline(methods), settings.get("smoothing") or {}
    own = {key: [smoothing.get(key)] for key in ("seconds", "cells")}
    return words.choose(words.all_rows(methods, "consistency"), stream=[choice.stream, "face"], **own)


def _big_table(
    methods: Mapping[str, Mapping],
    choice: words.Choice,
    move: str | None,
    placed: Mapping[str, object],
    held: Mapping[str, object],
    road: bool,
) -> Html:
    """Rows are methods; every column knows its direction, its numbers and how they are written."""

    def place(method: Mapping, key: str) -> object:
        return (words.find(method.get("placement"), placed).get(key) or {}).get("mouth")

    def pointed(method: Mapping) -> str:
        row = words.find(method.get("placement"), placed)
        return percent(place(method, "pointing")) + span(row.get("low"), row.get("high"), percent)

    def mass(method: Mapping) -> Html:
        return join(percent(place(method, "mass")), tag("small", f" on {percent(place(method, 'area'))} of the area"))

    columns: list[tuple[str, bool, Callable[[Mapping], object], Callable[[Mapping], object], bool]] = []
    for metric in ("deletion", "insertion", "road") if road else ("deletion", "insertion"):

        def row(method: Mapping, metric: str = metric) -> Mapping:
            return choice.row(method.get("faithfulness") or (), metric, move) or {}

        columns.append(
            (
                words.TITLES[metric],
                words.HIGHER_IS_BETTER[metric],
                lambda method, row=row: row(method).get("mean"),
                lambda method, row=row: words.mean_of(row(method)),
                True,
            )
        )
    columns += [
        ("Pointing at the mouth", True, lambda m: place(m, "pointing"), pointed, False),
        ("Heat on the mouth", True, lambda m: place(m, "mass"), mass, False),
        (
            "Consistency",
            True,
            lambda m: words.find(m.get("consistency"), held).get("value"),
            lambda m: decimal(words.find(m.get("consistency"), held).get("value")),
            False,
        ),
        ("ms a frame", False, lambda m: m.get("ms_per_frame"), _milliseconds, False),
    ]
    head = ["Method", *(f"{title} {'↑' if higher else '↓'}" for title, higher, *_ in columns)]
    cells: dict[str, list[object]] = {name: [name] for name in methods}
    for _, higher, value, written, blind_too in columns:
        values = {n: number(value(m)) for n, m in methods.items() if blind_too or n not in words.BLIND}
        known = [v for v in values.values() if v is not None]
        best = (max(known) if higher else min(known)) if len(known) > 1 else None
        for name, method in methods.items():
            text = written(method)
            won = best is not None and values.get(name) == best
            cells[name].append(tag("span", text, " ★", class_="best") if won else text)
    classes = ["control" if name in words.CONTROLS else "" for name in methods]
    return table(head, cells.values(), classes=classes)


def _milliseconds(method: Mapping) -> Html:
    gradient = " with gradient" if method.get("needs_gradient") is True else ""
    return join(decimal(method.get("ms_per_frame")), tag("small", gradient))


def _verdicts(methods: Mapping[str, Mapping]) -> Html:
    """A row an opponent, a column a metric and move: better, worse or no clear difference."""
    choice = words.headline(methods)
    columns = [(metric, move) for move in words.moves_of(methods) for metric in ("deletion", "insertion")]
    columns.append(("road", "tube"))
    found = {column: words.outcomes(methods, choice, *column) for column in columns}
    columns = [column for column in columns if found[column]]
    others = [name for name in methods if any(name in found[column] for column in columns)]
    if not others:
        return missing("comparisons with SE")

    def cell(name: str, column: tuple[str, str]) -> object:
        outcome = found[column].get(name)
        if outcome is None:
            return NOTHING
        row = choice.row(methods[name].get("against_se") or (), *column) or {}
        wins, clips = number(row.get("wins")), number(row.get("clips"))
        share = f", ahead in {percent(wins)} of {clips:.0f}" if wins is not None and clips is not None else ""
        style = {"better": "is-better", "worse": "is-worse"}.get(outcome, "is-open")
        return join(tag("span", words.WORDS[outcome], class_=style), tag("small", share))

    head = ["SE against", *(words.TITLES[m] + ("" if m == "road" else f", {move}-wise") for m, move in columns)]
    note = (
        "Better or worse only where the 95 % interval of the difference is clear of zero; small: the share of "
        "clips in which SE is ahead."
    )
    return join(
        tag("p", note, class_="note"),
        table(head, [[name, *(cell(name, column) for column in columns)] for name in others]),
    )


def _untrained(network: Mapping) -> Html:
    rows = network.get("untrained_gates") or []
    if not rows:
        return missing("the test of untrained gates")
    text = "Gates of a block that has learned nothing must name channels no better than random draws do:"
    return join(tag("h4", "Untrained gates"), tag("p", text), generic_table(rows))


def _residual(rows: Sequence[Mapping]) -> Html:
    if not rows:
        return missing("FullGrad's residual")
    pairs = [(number(row.get("residual")), number(row.get("logit"))) for row in rows]
    ratios = sorted(abs(r) / abs(v) for r, v in pairs if r is not None and v)
    middle = f" Here its middle value is {percent(ratios[len(ratios) // 2])} of the logit." if ratios else ""
    text = (
        "FullGrad divides a logit among input and biases. In a network of ReLUs alone the parts sum to the logit; what "
        f"is missing here is the residual.{middle}"
    )
    return join(tag("p", text), details("By clip", generic_table(rows)))


def _pictures(pictures: Iterable[Mapping]) -> Html:
    found = []
    for picture in pictures:
        time = number(picture.get("time_s"))
        caption = str(picture.get("caption") or "")
        where = f"{picture.get('clip') or ''}{'' if time is None else f' at {time:.2f} s'}"
        data = base64.b64encode(picture.get("png") or b"").decode("ascii")
        image = Html(tag("img", src=f"data:image/png;base64,{data}", alt=caption or where).replace("></img>", "/>"))
        found.append(tag("figure", image if data else "", tag("figcaption", ". ".join(filter(None, (where, caption))))))
    return tag("div", *found, class_="pictures") if found else missing("example pictures")


def _everything(methods: Mapping[str, Mapping]) -> Html:
    """Folded away: one table a kind, stream and verdict, all metrics, baselines and moves."""
    rows = words.all_rows(methods, "faithfulness")
    if not rows:
        return missing("faithfulness")
    found = []
    for group in dict.fromkeys((row.get("kind"), row.get("stream"), row.get("verdict")) for row in rows):
        keys = dict(zip(("kind", "stream", "verdict"), group, strict=True))
        own = [row for row in rows if all(row.get(k) == v for k, v in keys.items())]
        columns = dict.fromkeys((row.get("metric"), row.get("baseline"), row.get("move")) for row in own)
        head = ["Method", *(", ".join(any_value(part) for part in column) for column in columns), "clips"]
        lines = []
        for name, method in methods.items():
            cells, clips = [], None
            for column in columns:
                wanted = keys | dict(zip(("metric", "baseline", "move"), column, strict=True))
                row = words.find(method.get("faithfulness"), wanted)
                cells.append(words.mean_of(row))
                clips = row.get("clips") if clips is None else clips
            lines.append([name, *cells, any_value(clips)])
        title = ", ".join(any_value(part) for part in group)
        found.append(details(f"{title}: means with 95 % intervals", table(head, lines)))
    return join(*found)


def _how(settings: Mapping, networks: Mapping) -> Html:
    """The protocol, the clips, the methods, the command."""
    smoothing = settings.get("smoothing") or {}
    rows = {
        "Steps of a curve": settings.get("steps"),
        "Baselines": settings.get("baselines"),
        "How masks move": settings.get("moves"),
        "Shares that ROAD removes": settings.get("road_shares"),
        "Frames a stretch, at most": settings.get("frames_per_segment"),
        "Smoothing in time, s (all methods alike)": smoothing.get("seconds"),
        "Smoothing in space, cells (all methods alike)": smoothing.get("cells"),
        "From cells to pixels": smoothing.get("interpolation"),
        "Seed": settings.get("seed"),
        "Version": settings.get("version"),
        "Date": settings.get("date"),
    }
    scoring = {name: _scoring(network or {}) for name, network in networks.items()}
    rows |= {f"Scoring itself, ms a frame, {name}": value for name, value in scoring.items() if value is not None}
    protocol = (
        "Short stretches of face tracks are shown to the network as clips of their own, so nothing that was deleted "
        "can come back from frames around them. Every method gives a map for each stream; all are smoothed and "
        "enlarged alike; only then pixels are removed in the order of the map. A clip's value is the mean over "
        "its frames, and every clip counts once. SE's gains were fitted to what one patch of a blurred crop brings "
        "back, on other clips, which is nearly what insertion with a blur measures, and less nearly what deletion "
        "does; its rivals were fitted to nothing. ROAD, the "
        "mean grey and where the mouth is were no part of that fit."
    )
    names = list(dict.fromkeys(m for network in networks.values() for m in words.methods_of(network or {})))
    names = names or [str(name) for name in settings.get("explainers") or []]
    explained = [part for name in names for part in (tag("dt", name), tag("dd", words.described(name)))]
    clips = settings.get("clips") or []
    command = settings.get("command")
    return tag(
        "section",
        tag("h2", "How it was measured", id="how"),
        tag("p", protocol),
        tag("p", "Command: ", tag("code", command)) if command else missing("the command line"),
        table(["Setting", "Value"], [[key, any_value(value)] for key, value in rows.items()]),
        tag("h3", "Methods"),
        tag("dl", *explained) if explained else missing("any method"),
        tag("h3", "Clips"),
        details("All clips", generic_table(clips)) if clips else missing("a list of clips"),
    )


def _scoring(network: Mapping) -> float | None:
    values = [number(m.get("scoring_ms_per_frame")) for m in words.methods_of(network).values()]
    return next((value for value in values if value is not None), None)


def _words() -> Html:
    entries = [part for term, text in _GLOSSARY.items() for part in (tag("dt", term), tag("dd", text))]
    return tag("section", tag("h2", "Words", id="words"), tag("dl", *entries))
