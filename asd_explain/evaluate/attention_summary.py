"""From the figures of segments to those of a network: means over clips with intervals, and SE against each rival."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from asd_explain.evaluate.attention import SE
from asd_explain.evaluate.faithfulness import Row
from asd_explain.evaluate.paired import by_clip, mean_interval, paired
from asd_explain.evaluate.silence import FIGURES, silence_means, silence_rows

HIGHER_IS_BETTER = {"deletion": False, "insertion": True, "road": True}
KINDS = ("all", "real", "talking photos")
#: With fewer clips a percentile interval is clear of zero by chance far too often (half of the time with two).
MIN_CLIPS = 6
_MOUTH = "mouth"


def summarise(records: Sequence[dict], seed: int = 0) -> dict:
    """Means of the methods' figures over clips, each clip counting once, with 95 % intervals over clips.

    Args:
        records: of :func:`measure`, all of one network.
        seed: of the bootstrap.

    Returns:
        {"methods": ..., "smoothing_cost" within se, "variants": [...]}: the part of the report's summary that comes
        from segments (see :mod:`asd_explain.evaluate.attention_report`).
    """
    names = list(dict.fromkeys(name for record in records for name in record["methods"]))
    methods = {name: _method_summary(records, name, seed) for name in names}
    if SE in methods:
        cost = [row for record in records for row in record.get("smoothing_cost", ())]
        methods[SE]["smoothing_cost"] = _means(
            cost, ("stream", "seconds", "cells", "metric", "baseline", "move", "verdict"), seed
        )
        for name in names:
            if name != SE:
                methods[name]["against_se"] = _against(records, name, seed)
    rows = [row for record in records for row in record.get("variants", ()) if row["verdict"] == "speaking"]
    found = _means(rows, ("label", "stream", "metric", "baseline", "move", "verdict"), seed)
    return {"methods": methods, "variants": found}


def _kinds(records: Sequence[dict]) -> list[str]:
    """The kinds of clip there are; "all" only where there are several."""
    present = [kind for kind in KINDS[1:] if any(r["kind"] == kind for r in records)]
    return ["all", *present] if len(present) > 1 else present


def _means(rows: Sequence[dict], keys: Sequence[str], seed: int) -> list[dict]:
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    found = []
    for names, own in groups.items():
        values = by_clip((r["clip"] for r in own), (r["value"] for r in own), (r["frames"] for r in own))
        mean, low, high = mean_interval(values, seed=seed)
        found.append(
            {**dict(zip(keys, names, strict=True)), "mean": mean, "low": low, "high": high, "clips": len(values)}
        )
    return found


_FIGURE = ("stream", "metric", "baseline", "move", "verdict")


def _method_summary(records: Sequence[dict], name: str, seed: int) -> dict:
    own = [(record, record["methods"][name]) for record in records if name in record["methods"]]
    result = {
        "ms_per_frame": 1000 * float(np.median([m["s"] / record["frames"] for record, m in own])),
        "scoring_ms_per_frame": 1000 * float(np.median([r["scoring_s"] / r["frames"] for r, _ in own])),
        "needs_gradient": own[0][1]["needs_gradient"],
        "faithfulness": [],
        "curves": [],
        "placement": [],
        "silence": [],
    }
    silent = silence_rows(records, name)
    for kind in _kinds(records):
        some = [m for record, m in own if kind in ("all", record["kind"])]
        rows = [row for m in some for row in m["faithfulness"]]
        result["faithfulness"] += [{"kind": kind, **row} for row in _means(rows, _FIGURE, seed)]
        drawn = [{"clip": r["clip"], **c} for r, m in own if kind in ("all", r["kind"]) for c in m["curves"]]
        result["curves"] += [{"kind": kind, **row} for row in _mean_curves(drawn)]
        placed = [
            {"clip": record["clip"], **row}
            for record, m in own
            if kind in ("all", record["kind"])
            for row in m["placement"]
        ]
        result["placement"] += [{"kind": kind, **row} for row in _placements(placed, seed)]
        quiet = [row for row in silent if kind in ("all", row["kind"])]
        result["silence"] += [{"kind": kind, **row} for row in silence_means(quiet, seed)]
    for what, keys in (("consistency", ("stream", "seconds", "cells")), ("sensitivity", ("stream", "kind"))):
        result[what] = _plain_means([{"clip": r["clip"], **row} for r, m in own for row in m[what]], keys)
    return result


def _clip_mean(rows: Sequence[dict], values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Mean over clips of the clips' (weighted) means; NaN where nothing is known."""
    means = by_clip((row["clip"] for row in rows), values, weights)
    return float(np.mean(list(means.values()))) if means else math.nan


def _mean_curves(curves: Sequence[dict]) -> list[dict]:
    """Mean over clips of every kind of curve, frames weighing alike within a clip: its area is the table's figure."""
    keys = ("stream", "baseline", "move", "curve", "verdict")
    groups: dict[tuple, list[dict]] = {}
    for curve in curves:
        groups.setdefault(tuple(curve[key] for key in keys), []).append(curve)
    return [
        {
            **dict(zip(keys, names, strict=True)),
            "fractions": own[0]["fractions"],
            "p": [
                _clip_mean(own, [c["p"][i] for c in own], [c["frames"] for c in own])
                for i in range(len(own[0]["fractions"]))
            ],
        }
        for names, own in groups.items()
    ]


def _placements(rows: Sequence[dict], seed: int) -> list[dict]:
    """Means over clips, frames weighing alike within a clip; the interval is that of pointing at the mouth.

    Pointing and the share of dead maps are over the frames whose mouth is known, mass and area over those of them that
    have heat.
    """
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["stream"], row["state"], row["by"]), []).append(row)
    found = []
    for (stream, state, by), own in groups.items():
        known, counted = ([r[key] for r in own] for key in ("known", "counted"))
        values = by_clip((r["clip"] for r in own), (r["pointing"][_MOUTH] for r in own), known)
        _, low, high = mean_interval(values, seed=seed) if values else (math.nan,) * 3
        found.append(
            {
                "stream": stream,
                "state": state,
                "by": by,
                "frames": sum(r["frames"] for r in own),
                "known": sum(known),
                "counted": sum(counted),
                "dead": _clip_mean(own, [r["dead"] for r in own], known),
                "low": low,
                "high": high,
                "clips": len(values),
                **{
                    what: {r: _clip_mean(own, [one[what][r] for one in own], weights) for r in own[0][what]}
                    for what, weights in (("pointing", known), ("mass", counted), ("area", counted))
                },
            }
        )
    return found


def _plain_means(rows: Sequence[dict], keys: Sequence[str]) -> list[dict]:
    """Means over clips of everything that is a number and no key."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    found = []
    for names, own in groups.items():
        figures = dict.fromkeys(
            key for row in own for key, value in row.items() if key not in keys and isinstance(value, int | float)
        )
        means = {key: _clip_mean(own, [row.get(key, math.nan) for row in own]) for key in figures}
        found.append({**dict(zip(keys, names, strict=True)), **means})
    return found


def _against(records: Sequence[dict], name: str, seed: int) -> list[dict]:
    """``se`` minus a method, clip by clip, for every figure of faithfulness."""
    found = []
    for kind in _kinds(records):
        values: dict[tuple, dict[str, list[dict]]] = {}
        for record in (r for r in records if kind in ("all", r["kind"])):
            for method in (SE, name):
                for row in record["methods"].get(method, {"faithfulness": ()})["faithfulness"]:
                    key = tuple(row[k] for k in _FIGURE)
                    values.setdefault(key, {}).setdefault(method, []).append(row)
        for key, both in values.items():
            if len(both) < 2:
                continue
            clips = [
                by_clip((r["clip"] for r in both[m]), (r["value"] for r in both[m]), (r["frames"] for r in both[m]))
                for m in (SE, name)
            ]
            result = paired(*clips, higher_is_better=HIGHER_IS_BETTER[key[1]], seed=seed)
            figures = asdict(result)
            if result.clips < MIN_CLIPS:
                figures |= {"low": math.nan, "high": math.nan, "verdict": "open"}
            found.append(
                {
                    "kind": kind,
                    **dict(zip(_FIGURE, key, strict=True)),
                    "verdict_of_comparison": figures.pop("verdict"),
                    **figures,
                }
            )
    return found


def rows_for_csv(network: str, records: Sequence[dict]) -> list[dict]:
    """One flat row a network, segment, method and figure of faithfulness, for a spreadsheet.

    Then one a clip, method and stream for heat on silent tracks ("silent mean", "silent peak"), which no one segment
    has: "segment", "baseline" and "move" are empty, and "frames" are the silent ones.
    """
    fields = [f for f in Row.__dataclass_fields__ if f != "method"]
    found = [
        {"network": network, "kind": record["kind"], "method": name, **{key: row[key] for key in fields}}
        for record in records
        for name, figures in record["methods"].items()
        for row in figures["faithfulness"]
    ]
    for name in dict.fromkeys(name for record in records for name in record["methods"]):
        for row in silence_rows(records, name):
            same = {"network": network, "kind": row["kind"], "method": name, **dict.fromkeys(fields, "")}
            same |= {key: row[key] for key in ("clip", "stream", "frames")} | {"verdict": "silent"}
            values = {f"silent {of}": row[figure] for of, figure in FIGURES.items()}
            found += [{**same, "metric": m, "value": value} for m, value in values.items() if math.isfinite(value)]
    return found
