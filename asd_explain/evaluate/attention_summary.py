"""From the figures of segments to those of a network: means over clips with intervals, and SE against each rival."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from asd_explain.evaluate.attention import SE
from asd_explain.evaluate.faithfulness import Row
from asd_explain.evaluate.paired import by_clip, mean_interval, paired

HIGHER_IS_BETTER = {"deletion": False, "insertion": True, "road": True}
KINDS = ("all", "real", "talking photos")
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
    frames = sum(record["frames"] for record, _ in own)
    result = {
        "ms_per_frame": 1000 * sum(m["s"] for _, m in own) / frames,
        "scoring_ms_per_frame": 1000 * sum(record["scoring_s"] for record, _ in own) / frames,
        "needs_gradient": own[0][1]["needs_gradient"],
        "faithfulness": [],
        "curves": [],
        "placement": [],
    }
    for kind in _kinds(records):
        some = [m for record, m in own if kind in ("all", record["kind"])]
        rows = [row for m in some for row in m["faithfulness"]]
        result["faithfulness"] += [{"kind": kind, **row} for row in _means(rows, _FIGURE, seed)]
        result["curves"] += [{"kind": kind, **row} for row in _mean_curves([c for m in some for c in m["curves"]])]
        placed = [
            {"clip": record["clip"], **row}
            for record, m in own
            if kind in ("all", record["kind"])
            for row in m["placement"]
        ]
        result["placement"] += [{"kind": kind, **row} for row in _placements(placed, seed)]
    result["consistency"] = _plain_means([r for _, m in own for r in m["consistency"]], ("stream", "seconds", "cells"))
    result["sensitivity"] = _plain_means([r for _, m in own for r in m["sensitivity"]], ("stream", "kind"))
    return result


def _mean_curves(curves: Sequence[dict]) -> list[dict]:
    """Mean over segments of every kind of curve; a curve without frames is not there to begin with."""
    keys = ("stream", "baseline", "move", "curve", "verdict")
    groups: dict[tuple, list[dict]] = {}
    for curve in curves:
        groups.setdefault(tuple(curve[key] for key in keys), []).append(curve)
    return [
        {
            **dict(zip(keys, names, strict=True)),
            "fractions": own[0]["fractions"],
            "p": np.mean([c["p"] for c in own], 0).tolist(),
        }
        for names, own in groups.items()
    ]


def _placements(rows: Sequence[dict], seed: int) -> list[dict]:
    """Frame-weighted means over segments; the interval is that of pointing at the mouth, over clips."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["stream"], row["state"], row["by"]), []).append(row)
    found = []
    for (stream, state, by), own in groups.items():
        weights = [r["counted"] for r in own]
        values = by_clip((r["clip"] for r in own), (r["pointing"][_MOUTH] for r in own), weights)
        mean, low, high = mean_interval(values, seed=seed) if values else (math.nan,) * 3
        found.append(
            {
                "stream": stream,
                "state": state,
                "by": by,
                "frames": sum(r["frames"] for r in own),
                "counted": sum(weights),
                "pointing_by_clip": mean,
                "low": low,
                "high": high,
                "clips": len(values),
                **{
                    what: {region: _weighted([r[what][region] for r in own], weights) for region in own[0][what]}
                    for what in ("pointing", "mass", "area")
                },
            }
        )
    return found


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    usable = np.isfinite(values) & (weights > 0)
    return float(np.average(values[usable], weights=weights[usable])) if usable.any() else math.nan


def _plain_means(rows: Sequence[dict], keys: Sequence[str]) -> list[dict]:
    """Means over segments of everything that is a number and no key."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    found = []
    for names, own in groups.items():
        figures = [key for key, value in own[0].items() if key not in keys and isinstance(value, int | float)]
        means = {key: _weighted([r[key] for r in own], np.ones(len(own))) for key in figures}
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
    """One flat row a network, segment, method and figure of faithfulness, for a spreadsheet."""
    fields = [f for f in Row.__dataclass_fields__ if f != "method"]
    return [
        {"network": network, "kind": record["kind"], "method": name, **{key: row[key] for key in fields}}
        for record in records
        for name, figures in record["methods"].items()
        for row in figures["faithfulness"]
    ]
