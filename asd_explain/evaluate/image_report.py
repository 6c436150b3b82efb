"""What was measured on pictures, for people: a page of markdown, a csv of all figures, and a grid of pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from asd_explain.evaluate.images import PictureRow

ARROWS = {"deletion": "deletion (lower is better)", "insertion": "insertion (higher is better)"}


def csv_text(rows: Sequence[PictureRow]) -> str:
    """One line a picture, method, metric and baseline."""
    text = io.StringIO()
    table = csv.DictWriter(text, ["picture", "method", "metric", "baseline", "value"], lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow(asdict(row) | {"value": f"{row.value:.6f}"})
    return text.getvalue()


def _cell(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _percent(value: float | None, sign: str = "") -> str:
    return "-" if value is None or not np.isfinite(value) else f"{100 * value:{sign}.2f}"


def _metrics(title: str, entries: Sequence[Mapping], against: str) -> list[str]:
    lines = [f"## {title}", ""]
    kinds = list(dict.fromkeys((e["metric"], e["baseline"]) for e in entries))
    names = list(dict.fromkeys(e["method"] for e in entries))
    found = {(e["method"], e["metric"], e["baseline"]): e for e in entries}
    for metric, baseline in kinds:
        lines += [
            f"### {ARROWS[metric]}, {baseline}",
            "",
            f"| method | mean [95 %] | `{against}` minus it [95 %] | pictures `{against}` wins | verdict on it |",
            "|---|---|---|---|---|",
        ]
        for name in sorted(names, key=lambda n: found[n, metric, baseline]["mean"], reverse=metric == "insertion"):
            e = found[name, metric, baseline]
            mean = f"{_cell(e['mean'])} [{_cell(e['low'])}, {_cell(e['high'])}]"
            if "verdict" in e:
                other = f"{_cell(e['difference'])} [{_cell(e['difference_low'])}, {_cell(e['difference_high'])}]"
                lines.append(f"| {name} | {mean} | {other} | {100 * e['wins']:.0f} % | {e['verdict']} |")
            else:
                lines.append(f"| **{name}** | {mean} | | | |" if name == against else f"| {name} | {mean} | | | |")
        lines.append("")
    return lines


def markdown(report: Mapping) -> str:
    """The report of tools/evaluate_images.py as a page.

    Args:
        report: with "command", "network", "data", "accuracy", "faithfulness", "ablations", "gates", "selection",
            "against", "ablations_against"; what is empty is left out.
    """
    lines = [
        "# Explanations of pictures",
        "",
        f"`{report['command']}`",
        "",
        f"{report['network']} on {report['data']}.",
        "",
    ]
    lines += ["## Accuracy", "", "| | accuracy [95 %] | pictures |", "|---|---|---|"]
    for name, a in report["accuracy"].items():
        shown = f"{_percent(a['mean'])} % [{_percent(a['low'])}, {_percent(a['high'])}]"
        lines.append(f"| {name} | {shown} | {a['pictures']} |")
    lines.append("")
    if drop := report.get("drop"):
        lines += [
            f"With the block minus the network trained without it: {_percent(drop['difference'], '+')} points "
            f"[{_percent(drop['low'], '+')}, {_percent(drop['high'], '+')}], picture by picture (one training each).",
            "",
        ]
    if report["faithfulness"]:
        lines += _metrics("Faithfulness", report["faithfulness"], report["against"])
    if report["ablations"]:
        lines += _metrics("Percentile, top k and interpolation", report["ablations"], report["ablations_against"])
    for g in report["gates"]:
        lines += [
            "## SE values",
            "",
            f"{g['channels']} channels, {g['frames']} pictures. Mean {_cell(g['mean'])}; a channel's value moves by "
            f"{_cell(g['within_track'])} from picture to picture (standard deviation); over channels "
            f"{_cell(g['std_of_mean_gates'])}. Skewness {_cell(g['skewness'], 2)}, excess kurtosis "
            f"{_cell(g['excess_kurtosis'], 2)}; distance to the normal distribution {_cell(g['ks_distance'])} (5 % of "
            f"normal samples exceed {_cell(g['ks_limit'])}), exceeded in {100 * (g['not_normal'] or 0):.0f} % of the "
            f"pictures; normality rejected at 5 % in "
            + ("-" if g["rejected"] is None else f"{100 * g['rejected']:.0f} %")
            + " of them.",
            "",
        ]
    frame = [s for s in report["selection"] if s["scope"] == "frame"]
    if frame:
        lines += [
            "| percentile | a normal distribution passes | really pass | channels kept | top k |",
            "|---|---|---|---|---|",
        ]
        for s in frame:
            lines.append(
                f"| {100 * s['percentile']:.0f} | {100 * s['expected']:.0f} % | {100 * s['selected']:.1f} % | "
                f"{s['channels']:.1f} | {s['top_k']} |"
            )
        lines.append("")
    return "\n".join(lines)


def grid(
    path: Path, pictures: Sequence[np.ndarray], titles: Sequence[str], heats: Sequence[Mapping[str, np.ndarray]]
) -> None:
    """A grid: one row a picture, one column the picture and each method over it.

    Args:
        path: a .png.
        pictures: (H, W, 3) float in [0, 1].
        titles: of the rows.
        heats: {method: (H, W)} of each picture; colours go from a map's least to its largest value, so strengths cannot
            be compared between maps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    methods = list(heats[0])
    figure = Figure(figsize=(1.35 * (1 + len(methods)), 1.5 * len(pictures) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(pictures), 1 + len(methods), squeeze=False)
    for row, (picture, title, maps) in enumerate(zip(pictures, titles, heats, strict=True)):
        for column, axis in enumerate(axes[row]):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.imshow(np.clip(picture, 0, 1))
            if column:
                axis.imshow(maps[methods[column - 1]], cmap="jet", alpha=0.5)
            else:
                axis.set_xlabel(title, fontsize=7)
            if not row:
                axis.set_title(methods[column - 1] if column else "picture", fontsize=8)
    figure.savefig(path, dpi=150)
