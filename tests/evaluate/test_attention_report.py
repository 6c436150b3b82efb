"""The report on explanations: complete and bare summaries, what its sentences say, sound HTML and SVG."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.evaluate import attention_words as words
from asd_explain.evaluate import svg
from asd_explain.evaluate.attention_report import report_html
from asd_explain.evaluate.report_page import any_value, decimal, esc, generic_table, percent, table
from asd_explain.evaluate.segments import REGIONS

FOUND = (0.28, 0.42, 0.43, 0.36, 0.35, 0.74, 0.5, 0.6, 0.31, 0.33, 0.34, 0.7, 0.37, 0.3)
DELETION = dict(zip(words.METHODS, FOUND, strict=True))
#: SE minus the other on deletion: (difference, low, high).
AGAINST = {"gradcam": (-0.08, -0.12, -0.04), "mouth": (-0.02, -0.06, 0.02), "centre": (0.05, 0.01, 0.09)}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Knows whether every tag is closed in its place, and keeps text, links and all elements of charts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.linked: list[str] = []
        self.ids: list[str] = []
        self.charts: list[tuple[list[float], list[tuple[str, dict[str, str]]]]] = []
        self._in_chart = False
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._element(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._element(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"
        self._in_chart = self._in_chart and tag != "svg"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def _element(self, tag: str, attributes: dict[str, str]) -> None:
        assert not any(name.startswith("on") for name in attributes), "no handlers of events"
        self.linked += [attributes[name] for name in ("src", "href", "xlink:href") if name in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "svg":
            self._in_chart = True
            self.charts.append(([float(v) for v in attributes["viewbox"].split()], []))
        elif self._in_chart:
            self.charts[-1][1].append((tag, attributes))

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def check_charts(self) -> None:
        """Everything drawn has finite coordinates within the view box."""
        for (_, _, width, height), elements in self.charts:
            for tag, a in elements:
                if tag == "polyline":
                    points = [tuple(map(float, p.split(","))) for p in a["points"].split()]
                elif tag == "rect":
                    x, y, w, h = (float(a[k]) for k in ("x", "y", "width", "height"))
                    assert w >= 0
                    assert h >= 0
                    points = [(x, y), (x + w, y + h)]
                elif tag == "circle":
                    points = [(float(a["cx"]), float(a["cy"]))]
                elif tag == "line":
                    points = [(float(a["x1"]), float(a["y1"])), (float(a["x2"]), float(a["y2"]))]
                elif tag == "text":
                    points = [(float(a["x"]), float(a["y"]))]
                else:
                    assert tag in ("g", "title")
                    continue
                for x, y in points:
                    assert -0.06 <= x <= width + 0.06, (tag, a)
                    assert -0.06 <= y <= height + 0.06, (tag, a)


def faithfulness(name: str, value: float) -> list[dict]:
    rows = []
    for kind in ("real", "all"):
        for stream in ("face", "joint"):
            for verdict in ("speaking", "silent"):
                same = {"kind": kind, "stream": stream, "verdict": verdict, "clips": 7}
                for move, lift in (("tube", 0.0), ("frame", 0.1)):
                    for metric, mean in (("deletion", value + lift), ("insertion", 0.95 - value / 3 - lift)):
                        mean += 0.0 if (kind, stream, verdict) == ("all", "face", "speaking") else 0.01
                        row = {"metric": metric, "baseline": "blur", "move": move, "mean": mean}
                        rows.append({**same, **row, "low": mean - 0.03, "high": mean + 0.04})
                road = {"metric": "road", "baseline": "road", "move": "tube", "mean": 0.4 - value / 2}
                rows.append({**same, **road, "low": None, "high": None})
    return rows


def method(name: str, value: float) -> dict:
    curve = [1 - f * (1 - value) for f in (0.0, 0.5, 1.0)]
    mass = dict(zip(REGIONS, (0.4, 0.1, 0.3, 0.0, 0.2), strict=True))
    area = dict(zip(REGIONS, (0.1, 0.08, 0.42, 0.0, 0.4), strict=True))
    smoothings = [{"stream": "face", "seconds": s, "cells": c} for s, c in ((0, 0), (0.2, 0.6))]
    found = {
        "ms_per_frame": 0.1 if name == "se" else 2.0,
        "scoring_ms_per_frame": 3.5,
        "needs_gradient": name.startswith("grad"),
        "faithfulness": faithfulness(name, value),
        "curves": [
            {"kind": "all", "stream": s, "baseline": "blur", "move": m, "curve": c, "verdict": "speaking"}
            | {"fractions": [0.0, 0.5, 1.0], "p": curve if c == "deletion" else curve[::-1]}
            for s in ("face", "joint")
            for m in ("tube", "frame")
            for c in ("deletion", "insertion")
        ],
        "placement": [
            {"kind": kind, "stream": "face", "state": state, "by": by, "frames": 50, "counted": 45, "mass": mass}
            | {
                "known": 48,
                "dead": 0.0625,
                "pointing": {r: 0.93 if r == "mouth" else 0.02 for r in REGIONS},
                "area": area,
                "low": 0.85,
                "high": 0.97,
            }
            for kind, by in (("all", "called"), ("talking photos", "truth"))
            for state in ("speaking", "silent")
        ],
        "silence": [
            {"kind": "all", "stream": "face", "of": of, "mean": mean, "low": mean - 0.1, "high": mean + 0.1}
            | {"clips": 5, "frames": 125, "speaking_frames": 130}
            for of, mean in (("mean", 0.42), ("peak", 0.57))
        ],
        "consistency": [{**s, "value": 0.5 + 0.4 * (s["cells"] > 0)} for s in smoothings],
        "smoothing_cost": [{**s, "metric": "deletion", "move": "tube", "mean": value} for s in smoothings],
        "sensitivity": [
            {"stream": "face", "kind": k, "correlation": 0.98, "overlap": 0.8, "p_change": 0.004}
            for k in ("noise", "shift")
        ],
        "sanity": [
            {"stream": "face", "depth": d, "layer": f"layer {d}", "spearman": 1 - 0.4 * d, "pearson": 1 - 0.3 * d}
            for d in range(3)
        ],
    }
    if name != "se":
        difference, low, high = AGAINST.get(name, (DELETION["se"] - value, -0.2, -0.01))
        same = {"kind": "all", "stream": "face", "baseline": "blur", "verdict": "speaking", "wins": 0.9, "clips": 7}
        found["against_se"] = [
            {**same, "metric": metric, "move": move, "difference": sign * difference, "verdict_of_comparison": "open"}
            | {"low": min(sign * low, sign * high), "high": max(sign * low, sign * high)}
            for move in ("tube", "frame")
            for metric, sign in (("deletion", 1), ("insertion", -1))
        ]
    return found


@pytest.fixture
def summary() -> dict:
    clips = [
        {"name": f"clip {i}", "kind": "real", "segments": 2, "frames": 40, "speaking_frames": 21} for i in range(7)
    ]
    shares = {
        "kind": "gated",
        "stream": "audio",
        "replacement": "silence",
        "effect_on": "P",
        "of": "all",
        "pooled": 0.4,
    }
    network = {
        "methods": {name: method(name, value) for name, value in reversed(DELETION.items())},
        "fullgrad_residual": [{"clip": "a", "logit": 2.0, "attributed": 1.5, "residual": 0.5}],
        "shares": [{**shares, "low": 0.2, "high": 0.6}],
        "agreement": [{"kind": "gated", "agreement": 0.7, "streams": {"audio": 0.6, "face": 0.4}}],
        "decisive": [{"kind": "gated", "agreement": 0.8}],
        "assumptions": {
            "distribution": [
                {
                    "stream": "face",
                    "qq": {"normal": [-1.0, 0.0, 1.0], "values": [-1.2, 0.1, 0.8]},
                    "histogram": {"edges": [0.0, 0.5, 1.0], "counts": [3, 5]},
                    "rejected": 0.97,
                },
                {"stream": "audio", "histogram": [1, 2, 3], "qq": {"normal": [0.0, 1.0], "gates": [0.1, 0.9]}},
            ],
            "selection": [{"stream": "face", "scope": "frame", "percentile": 0.9, "expected": 0.1, "selected": 0.17}],
            "variants": [
                {"label": f"se: {p}", "stream": "face", "metric": "deletion", "move": "tube", "mean": 0.3}
                | {"low": 0.2, "high": 0.4}
                for p in (75, 90)
            ],
        },
        "untrained_gates": [{"ranking": "gate", "P": 0.3}],
    }
    run = {
        "command": "evaluate_attention.py clips --out out",
        "version": "0.1.0",
        "date": "2026-11-21",
        "clips": clips,
        "steps": 10,
        "baselines": ["blur", "mean"],
        "moves": ["tube", "frame"],
        "road_shares": [0.1, 0.5],
        "frames_per_segment": 40,
        "smoothing": {"seconds": 0.2, "cells": 0.6, "interpolation": "bicubic"},
        "explainers": list(DELETION),
        "seed": 0,
    }
    return {"settings": run, "networks": {"squeeze_asd": network}}


def pictures(**changed: object) -> list[dict]:
    return [{"network": "squeeze_asd", "clip": "clip 1", "time_s": 1.24, "caption": "SE, 0.97", "png": PNG} | changed]


def nothing_known(value: object, nothing: float | None) -> object:
    """The same with every number replaced."""
    if isinstance(value, dict):
        return {k: nothing_known(v, nothing) for k, v in value.items()}
    if isinstance(value, list):
        return [nothing_known(v, nothing) for v in value]
    return nothing if isinstance(value, int | float) and not isinstance(value, bool) else value


def test_a_full_report_is_sound(summary: dict) -> None:
    page = Page(text := report_html(summary, pictures()))
    page.check_charts()
    for part in (
        "What was asked, what came out",
        "7 clips (7 real; 280 frames, 147 of them called speaking)",
        "Here 8 ways to make such maps and 6 controls were measured alike on 1 network",
        "clip 1 at 1.24 s. SE, 0.97",
        "evaluate_attention.py clips --out out",
        "Here its middle value is 25 % of the logit.",
        "streams: audio",
        "hottest cell clips silent frames speaking frames se 0.42 (0.32 to 0.52) 0.57 (0.47 to 0.67) 5 125 130",
        "se, speaking 48 of 50 93 % (85 % to 97 %) 6 %",
        "blur, mean",
    ):
        assert part in page.words, part
    assert "Not in this run" not in page.words
    assert "http" not in text
    assert "url(" not in text
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.linked)
    assert {link[1:] for link in page.linked if link[0] == "#"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    drawn = [kind for _, elements in page.charts for kind, _ in elements]
    assert {"polyline", "rect", "circle", "line"} <= set(drawn)
    assert report_html(json.loads(json.dumps(summary)), pictures()) == text, "the same from the file"


def test_methods_stand_in_their_order_with_the_best_marked(summary: dict) -> None:
    text = report_html(summary, [])
    first = text[text.index("<table>") : text.index("</table>")]
    rows = re.findall(r"<tr.*?</tr>", first)
    assert [re.search(r'scope="row">(.*?)</th>', row)[1] for row in rows[1:]] == list(words.METHODS)
    cells = {
        row[0]: row[1:] for row in ([re.sub("<.*?>", "", c) for c in re.findall(r"<t[hd].*?</t[hd]>", r)] for r in rows)
    }
    assert cells["Method"][:3] == ["Deletion ↓", "Insertion ↑", "ROAD ↑"]
    assert cells["Method"][-1] == "ms a frame ↓"
    assert cells["se"][0] == "0.28 (0.25 to 0.32) ★", "of all kinds, on the face, called speaking, tube-wise"
    assert cells["se"][2] == "0.26 ★", "no interval is known"
    assert cells["se"][4] == "40 % on 10 % of the area ★"
    assert cells["se"][5] == "0.90 ★", "at the run's own smoothing"
    assert cells["se"][6] == "0.10 ★"
    assert cells["gradcam"][6] == "2.00 with gradient"
    assert "★" not in "".join(cells["mouth"]), "level with the best in placement, but no merit of its"
    assert sum("★" in row[0] for row in cells.values()) == 1


def test_an_unknown_method_stands_before_the_controls() -> None:
    order = list(words.methods_of({"methods": {"random": {}, "new": {}, "fem": {}, "activation": None, "se": {}}}))
    assert order == ["se", "fem", "new", "activation", "random"]
    Page(report_html({"networks": {"n": {"methods": {"new": method("new", 0.4)}}}}, [])).check_charts()


@pytest.mark.parametrize(
    ("metric", "low", "high", "said"),
    [
        ("deletion", -0.2, -0.1, "better"),
        ("deletion", 0.1, 0.2, "worse"),
        ("deletion", -0.1, 0.2, "open"),
        ("deletion", -0.2, 0.0, "open"),
        ("insertion", 0.1, 0.2, "better"),
        ("insertion", -0.2, -0.1, "worse"),
        ("road", 0.1, 0.2, "better"),
        ("road", 0.0, 0.2, "open"),
        ("road", math.nan, 0.2, "unknown"),
        ("deletion", None, None, "unknown"),
    ],
)
def test_better_is_said_in_the_metrics_own_direction(metric: str, low: float, high: float, said: str) -> None:
    row = {"metric": metric, "difference": -0.1, "low": low, "high": high, "verdict_of_comparison": "better"}
    assert words.compared(row) == said
    assert words.compared({**row, "difference": None}) == "unknown"


def test_sentences_follow_the_numbers(summary: dict) -> None:
    network = summary["networks"]["squeeze_asd"]
    first, *rest = words.network_sentences(network)
    said = " ".join(rest)
    assert first == (
        "SE is better, clear of zero, in 18 of 22 comparisons on deletion and insertion with 11 rivals and controls. "
        "Not against centre (deletion: worse), mouth (deletion: no clear difference), centre (insertion: worse) and "
        "mouth (insertion: no clear difference)."
    )
    assert (
        "Deletion with one mask for the whole stretch (lower is better): SE has the best mean of 14, "
        "0.28 (0.25 to 0.32); next is mouth with 0.30 (0.27 to 0.34). Against the rivals, SE is better than "
        "gradcam, gradcam++, eigengradcam, fullgrad and fem. Against the controls, SE is better than "
        "activation, se-shuffled, weights-shuffled and random; no clear difference from mouth; worse than "
        "centre. Against the heat without gains, SE is better than se-plain. "
        "Against the published recipe, SE is better than se-paper." in said
    )
    assert (
        "beats the fixed blobs by the mean (mouth 0.30, se 0.28); SE is not clearly different from mouth; SE is "
        "clearly worse" in said
    )
    road = (
        "Fixed blobs on ROAD: the best map made from the network beats the fixed blobs by the mean (mouth 0.25, "
        "se 0.26). "
    )
    assert road in said, "nothing of what was not compared"
    assert (
        "In speaking frames (all clips, as the network calls them), SE's hottest point lies on the mouth in 93 %"
        in said
    )
    assert "40 % of the heat on 10 % of the area, 4.0 times an even share" in said
    assert "in 93 % of the speaking frames (85 % to 97 %): the aim of 90 % is reached." in said
    assert (
        "SE adds 0.10 ms a frame to scoring, GradCAM 2.00 ms, 20.0 times as much: the aim of at least 3 times" in said
    )
    assert "After all 2 layers tested have lost what they learned, SE's map has a rank correlation of 0.20" in said


def test_sentences_say_when_se_loses(summary: dict) -> None:
    methods = summary["networks"]["squeeze_asd"]["methods"]
    for name, value in (("se", 0.5), ("mouth", 0.2)):
        methods[name]["faithfulness"] = faithfulness(name, value)
    for row in methods["gradcam"]["against_se"]:
        if row["metric"] == "deletion":
            row |= {"difference": 0.1, "low": 0.05, "high": 0.2}
    for row in methods["se"]["placement"]:
        row["pointing"]["mouth"] = 0.6
    methods["gradcam"]["ms_per_frame"] = 0.2
    said = " ".join(words.network_sentences(summary["networks"]["squeeze_asd"]))
    assert "mouth has the best mean of 14, 0.20 (0.17 to 0.24); SE comes 10th with 0.50" in said
    assert "worse than gradcam." in said
    assert "a fixed blob beats every map made from the network by the mean (mouth 0.20, activation 0.31)" in said
    assert "★</span>" in report_html(summary, [])
    assert "the aim of 90 % is missed" in said
    assert "times is missed" in said


def test_a_win_against_all_is_said_and_needs_both_metrics(summary: dict) -> None:
    network = summary["networks"]["squeeze_asd"]
    for other in network["methods"].values():
        for row in other.get("against_se") or ():
            clear = (-0.2, -0.1) if row["metric"] == "deletion" else (0.1, 0.2)
            row |= {"difference": sum(clear) / 2, "low": clear[0], "high": clear[1]}
    said = words.overall(words.methods_of(network))
    assert said == "SE is better than all 11 rivals and controls here on deletion and on insertion, clear of zero."
    rows = network["methods"]["fem"]["against_se"]
    network["methods"]["fem"]["against_se"] = [row for row in rows if row["metric"] == "deletion"]
    said = words.overall(words.methods_of(network))
    assert said.endswith(
        "in 21 of 22 comparisons on deletion and insertion with 11 rivals and controls. "
        "Not against fem (insertion: not known)."
    )


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_numbers_may_all_be_missing(summary: dict, nothing: float | None) -> None:
    bare = nothing_known(summary, nothing)
    page = Page(text := report_html(bare, pictures(time_s=nothing)))
    page.check_charts()
    shown = " ".join(page.text)
    assert not re.search(r"\b(nan|inf|None)\b", shown)
    assert "–" in shown
    assert "is better than" not in " ".join(words.network_sentences(bare["networks"]["squeeze_asd"]))
    assert "★</span>" not in text


def test_parts_may_all_be_missing(summary: dict) -> None:
    Page(report_html({}, []))
    page = Page(report_html({"settings": {}, "networks": {}}, []))
    assert "Not in this run: any network." in page.words
    for network in ({}, None, {"methods": {}}, {"methods": {"se": {}}}, {"methods": {"se": None, "fem": {}}}):
        page = Page(report_html({"settings": {}, "networks": {"a network": network}}, []))
        for what in (
            "curves",
            "placement",
            "heat where nobody",
            "sensitivity",
            "cascading randomisation",
            "modality shares",
            "comparisons",
        ):
            assert f"Not in this run: {what}" in page.words, what
    network = summary["networks"]["squeeze_asd"]
    network["methods"] = {name: network["methods"][name] for name in ("fem", "se")}
    for i, part in enumerate([*network, *network["methods"]["fem"]]):
        less = copy.deepcopy(summary)
        inner = less["networks"]["squeeze_asd"]
        for place in [inner, *inner["methods"].values()]:
            if part in place and part != "methods":
                place[part] = None if i % 2 else []
        Page(report_html(less, [])).check_charts()


def test_text_from_outside_is_escaped(summary: dict) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    network = summary["networks"]["squeeze_asd"]
    network["methods"][evil] = method(evil, 0.2)
    network["fullgrad_residual"][0]["clip"] = evil
    network["shares"][0] |= {"stream": evil, evil: evil}
    network["assumptions"]["variants"][0]["label"] = evil
    network["assumptions"]["distribution"][0]["stream"] = evil
    network["methods"]["se"]["sanity"][0]["layer"] = evil
    summary["settings"]["clips"][0]["name"] = evil
    summary["settings"]["command"] = evil
    summary["networks"][evil] = network
    text = report_html(summary, pictures(clip=evil, caption=evil) + pictures(network="another", caption=evil))
    page = Page(text)
    page.check_charts()
    assert "<script" not in text
    assert "<img src=x" not in text
    assert page.words.count("<script>alert(1)</script>") > 10


def test_pictures_of_no_network_are_shown_too(summary: dict) -> None:
    page = Page(report_html(summary, pictures() + pictures(network="", clip="lost") + pictures(png=b"")))
    assert sum(link.startswith("data:") for link in page.linked) == 2
    assert "More pictures" in page.words
    assert "lost at 1.24 s" in page.words


def test_numbers_are_written_for_readers() -> None:
    assert [decimal(v) for v in (0.125, -0.5, -0.001, None, math.nan, "x", True)] == [
        "0.12",
        "−0.50",
        "0.00",
        "–",
        "–",
        "–",
        "–",
    ]
    assert percent(0.934) == "93 %"
    given = (3.0, 0.12345, -2, None, "", True, [1, 2], list(range(20)))
    assert [any_value(v) for v in given] == [
        "3",
        "0.123",
        "−2",
        "–",
        "–",
        "yes",
        "1, 2",
        "0, 1, 2, 3, 4, 5, 6, 7, … (20 in all)",
    ]
    assert esc("<&'\"") == "&lt;&amp;&#x27;&quot;"
    assert '<th scope="col">a: b</th>' in generic_table([{"a": {"b": 1}}, {"c": 2}])
    assert generic_table([]) == ""
    assert table(["<"], [["&"]]).count("&lt;") == 1


finite = st.floats(-1e6, 1e6)
maybe = st.one_of(finite, st.none(), st.just(math.nan))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(maybe, maybe, maybe), max_size=6), st.text(max_size=40))
def test_whatever_is_drawn_lies_within_the_box(rows: list[tuple], label: str) -> None:
    x, y, z = ([row[i] for row in rows] for i in range(3))
    drawn = [
        svg.line_chart([svg.Line(label, x, y, "se")], name=label, x_label=label, y_label=label, marks=True),
        svg.line_chart([svg.Line(label, x, y, "se")], name="", x_label="", y_label="y", x_range=(0, 1), y_range=(0, 1)),
        svg.forest([svg.Interval(label, *row, "se") for row in rows], name=label, x_label=label, sides=(label, label)),
        svg.forest([svg.Interval(label, *row, "se", 0.1) for row in rows], name=label, x_label=label, zero=False),
        svg.stacked_bars([svg.Bar(label, [(label, v, "se") for v in row]) for row in rows], name=label),
        svg.scatter(x, z, name=label, x_label=label, y_label=label),
        svg.histogram(list(range(len(rows) + 1)), y, name=label, x_label=label),
    ]
    for chart in drawn:
        Page(chart).check_charts()
    known = [v for v in x if svg.number(v) is not None]
    assert bool(drawn[2]) == bool(known), "a chart where there is a value, else nothing"


def test_charts_are_drawn_to_scale() -> None:
    chart = svg.forest(
        [svg.Interval("a", 0.0, -1.0, 1.0, "se"), svg.Interval("b", 1.0, 0.5, 1.5, "se")], name="", x_label=""
    )
    circles = re.findall(r'<circle class="(.*?)" cx="(.*?)"', chart)
    zero = re.search(r'class="zero" x1="(.*?)"', chart)[1]
    assert circles[0] == ("dot c-se hollow", zero), "its interval holds zero"
    assert circles[1][0] == "dot c-se"
    ends = [float(v) for v in re.findall(r'class="line c-se" x1="(.*?)" y1=".*?" x2="(.*?)"', chart)[0]]
    assert sum(ends) / 2 == pytest.approx(float(zero), abs=0.1)
    assert float(circles[1][1]) == pytest.approx(ends[1], abs=0.1)
    line = svg.line_chart(
        [svg.Line("l", [0, 0.5, None, 1], [0, 1, 1, 0.5], "se")],
        name="",
        x_label="x",
        y_label="y",
        x_range=(0, 1),
        y_range=(0, 1),
    )
    (points,) = re.findall(r'points="(.*?)"', line)
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in points.split())
    last = re.search(r'<circle class="dot c-se" cx="(.*?)" cy="(.*?)"', line)
    assert (float(last[1]), float(last[2])) == pytest.approx((2 * x1 - x0, (y0 + y1) / 2), abs=0.1), (
        "alone after the gap"
    )
    widths = re.findall(
        r'width="(.*?)"', svg.stacked_bars([svg.Bar("a", [("x", 0.25, "se"), ("y", 0.9, "fem")])], name="")
    )
    assert float(widths[1]) == pytest.approx(3 * float(widths[0]), abs=0.2), "cut off at one"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.06, 0.31), (1e-7, 3e-7), (0, 1e6), (-1, -0.5)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = svg.ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low <= t <= high for t in found)
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert float(f"{steps[0]:.0e}") == pytest.approx(steps[0])
