"""Report of an active speaker detector: calibration figures, tables, reliability diagram."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from asd_explain.evaluate.asd_protocol import CERTAIN, SECTIONS, Material
from asd_explain.evaluate.calibration import fit_temperature, negative_log_likelihood, reliability, sigmoid
from asd_explain.evaluate.detection import EvaluationError
from asd_explain.outputs import whole_file

CALIBRATED = ("ensemble_balanced", "certain")
_LOOK_COLUMNS = (
    "ensemble",
    "ensemble_balanced",
    "own_vs_silence",
    "own_vs_frozen",
    "own_vs_other_voice",
    "talking_photos",
)


def calibration(dev: Mapping[str, Material], reported: Mapping[str, Material]) -> dict[str, dict]:
    """Calibration before and after a temperature that was fitted on dev, by material.

    Args:
        dev: materials to fit on.
        reported: materials to report on.

    Returns:
        {material: {temperature, fitted_on_frames, ece_before, ece_after, nll_before, nll_after, curve_before,
        curve_after}}; for ``certain`` also ``ece_with_ensemble_temperature``. A material that cannot be used is left
        out.
    """
    found: dict[str, dict] = {}
    for name in CALIBRATED:
        fit_on, report_on = dev[name], reported[name]
        try:
            t = fit_temperature(fit_on.margin, fit_on.label, fit_on.weights)
            before, after = (_curve(report_on, value) for value in (1.0, t))
        except EvaluationError:
            continue
        found[name] = {
            "temperature": t,
            "fitted_on_frames": len(fit_on.label),
            **{f"{key}_before": value for key, value in before.items()},
            **{f"{key}_after": value for key, value in after.items()},
        }
    if len(found) == len(CALIBRATED):
        t = found["ensemble_balanced"]["temperature"]
        found["certain"]["ece_with_ensemble_temperature"] = _curve(reported["certain"], t)["ece"]
    return found


def _curve(material: Material, temperature: float) -> dict:
    margin = material.margin / temperature
    curve = reliability(sigmoid(margin), material.label, material.weights)
    return {
        "ece": curve.ece,
        "nll": negative_log_likelihood(margin, material.label, material.weights),
        "curve": {
            "edges": curve.edges.tolist(),
            "counts": curve.counts.tolist(),
            "weights": curve.weights.tolist(),
            "predicted": curve.predicted.tolist(),
            "observed": curve.observed.tolist(),
        },
    }


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _with_interval(figures: dict | None) -> str:
    if figures is None or math.isnan(figures["ap"]):
        return "-"
    if math.isnan(figures["low"]):
        return _percent(figures["ap"])
    return f"{_percent(figures['ap'])} ({_percent(figures['low'])}-{_percent(figures['high'])})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    line = "| " + " | ".join(head) + " |"
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([line, rule, *("| " + " | ".join(row) + " |" for row in rows)])


def tables(report: dict) -> str:
    """The report as markdown; all figures in %."""
    networks: dict[str, dict] = report["networks"]
    names = list(networks)
    first = networks[names[0]]["sections"]
    rows = []
    for name in SECTIONS:
        if name in first:
            f = first[name]
            cells = [_with_interval(networks[n]["sections"].get(name)) for n in names]
            rows.append([name, *cells, _percent(f["base_rate"]), str(f["frames"]), str(f["clips"])])
    parts = [
        f"{report['clips'][report['split']]} clips of {report['people']} people or scenes, {report['talking_tracks']} "
        f"talking faces; {len(report['left_out'])} left out, whose own voice it seems not to be.\n",
        f"**AP on {report['split']}** (95 % interval over clips; a base rate of 50 % is by weights)",
        _table(["section", *names, "base rate", "frames", "clips"], rows),
        "\n**Frames called speaking at 0.5**, by what is heard and seen",
        _table(["kind", *names], _rates(networks)),
        "\n**The ensemble's members** under the own sound: AP against the whole ensemble, against the others alone",
        _table(
            ["member", "all", "others"],
            [[n, _with_interval(m["all"]), _with_interval(m.get("others"))] for n, m in report["members"].items()],
        ),
    ]
    for name in names:
        if networks[name]["looks"]:
            parts += [f"\n**{name}: AP by streams and size of the face**", _looks(networks[name])]
    rows = []
    for name in names:
        for material, c in networks[name]["calibration"].items():
            other = c.get("ece_with_ensemble_temperature")
            figures = [_percent(c["ece_before"]), _percent(c["ece_after"]), "-" if other is None else _percent(other)]
            nll = [f"{c['nll_before']:.3f}", f"{c['nll_after']:.3f}"]
            rows.append([name, material, f"{c['temperature']:.2f}", *figures, *nll])
    if rows:
        head = ["network", "labels", "temperature", "ECE", "ECE after", "ECE after the ensemble's", "NLL", "NLL after"]
        parts += ["\n**Calibration** (temperature fitted on dev)", _table(head, rows)]
    return "\n".join(parts) + "\n"


def _rates(networks: dict[str, dict]) -> list[list[str]]:
    rows = []
    for name in ("ensemble", *CERTAIN, "hints", "talking_photos"):
        if name == "certain":
            continue
        rates = [n["sections"].get(name, {}).get("speaking_rates", {}) for n in networks.values()]
        for kind in rates[0]:
            title = kind.removesuffix(", silent") if name in CERTAIN else f"{name}: {kind}"
            if kind != "own voice, speaking" or name == next(iter(CERTAIN)):
                rows.append([title, *(_percent(r.get(kind)) for r in rates)])
    return rows


def _looks(network: dict) -> str:
    everything = {"all streams, as they are": network["sections"], **network["looks"]}
    columns = [c for c in _LOOK_COLUMNS if c in network["sections"]]
    rows = [[title, *(_with_interval(s.get(c)) for c in columns)] for title, s in everything.items()]
    return _table(["look", *columns], rows)


def draw_reliability(report: dict, path: Path) -> None:
    """Reliability diagram as PNG: a row a network, a column a material, before and after the temperature."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    networks = report["networks"]
    figure = Figure(figsize=(4 * len(CALIBRATED), 3.6 * len(networks)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(networks), len(CALIBRATED), squeeze=False)
    for row, (name, network) in zip(axes, networks.items(), strict=True):
        for axis, material in zip(row, CALIBRATED, strict=True):
            axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
            axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="P(speaking)", ylabel="share of speaking frames", aspect="equal")
            axis.set_title(f"{name}\n{material}", fontsize=8)
            found = network["calibration"].get(material)
            if found is None:
                continue
            for when, marker in (("before", "o"), ("after", "s")):
                curve = found[f"curve_{when}"]
                size = 4 + 120 * np.array(curve["weights"])
                label = f"{when}: ECE {100 * found[f'ece_{when}']:.1f} %"
                axis.plot(curve["predicted"], curve["observed"], linewidth=1)
                axis.scatter(curve["predicted"], curve["observed"], s=size, marker=marker, label=label)
            axis.legend(fontsize=7, loc="upper left")
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=110)
