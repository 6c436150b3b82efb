"""The figures of fitted blocks as tables and as what goes into a card."""

from __future__ import annotations

import statistics

from asd_explain.evaluate.gate_report import CURVE, FILLS, OTHER_CLASS, GateReport, Moved
from asd_explain.explain.gate_fitting import FitOptions

_CLASSES = ("all", "speaking", "silent")


def _span(values: list[float], digits: int = 3) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def tables(title: str, found: list[GateReport], controls: dict[tuple[str, str], Moved]) -> str:
    """Markdown: what several seeds give on one split; mean (least-most) over the seeds."""

    def row(name: str, pick: list[Moved], digits: int = 3) -> str:
        return f"| {name} | " + " | ".join(_span([m[c] for m in pick], digits) for c in pick[0] if c in _CLASSES) + " |"

    lines = [
        f"**{title}: the gated network** ({len(found)} seeds)\n",
        "| | all | speaking | silent |",
        "|---|---:|---:|---:|",
        row("mean change of P", [f.drift for f in found], 4),
        row("same decision", [f.agreement for f in found], 4),
        "",
        "| gates: mean | spread over channels | over time | within a track |",
        "|---:|---:|---:|---:|",
        "| "
        + " | ".join(
            _span([getattr(f, n) for f in found]) for n in ("mean_gate", "over_channels", "over_time", "within_track")
        )
        + " |",
        f"\n**{title}: mean change of P when only the top 10 % of each stream are kept** (lower is better)\n",
        "| ranking | others become | all | speaking | silent |",
        "|---|---|---:|---:|---:|",
    ]
    for fill in FILLS:
        for name in ("gate", OTHER_CLASS, "gate x activation", "gate x standardised"):
            lines.append(row(f"{name} | {fill}", [f.top[name, fill] for f in found]))
        for name in ("activation", "standardised", "random"):
            lines.append(row(f"{name} | {fill}", [controls[name, fill]]))
    lines += [
        f"\n**{title}: by share kept** (ranking by gate, others zero)\n",
        "| " + " | ".join(f"{share:.0%}" for share in CURVE) + " |",
        "|" + "---:|" * len(CURVE),
        "| " + " | ".join(_span([f.curve[share] for f in found]) for share in CURVE) + " |",
    ]
    if found[0].shares:
        kinds = list(found[0].shares)
        lines += [
            f"\n**{title}: modality shares against intervention** (rank correlation over frames, higher is better)\n",
            "| comparison, effect, frames | " + " | ".join(kinds) + " |",
            "|---|" + "---:|" * len(kinds),
        ]
        for what in found[0].shares[kinds[0]]:
            cells = (_span([f.shares[kind][what] for f in found], 2) for kind in kinds)
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def results_of(command: str, options: FitOptions, found: list[GateReport], controls: dict, chosen: int) -> dict:
    """What goes into the card: figures on test, those of the shipped seed first, then the seeds' range."""
    mine = found[chosen]
    spread = [f.top["gate", "zero"]["all"] for f in found]
    flat: dict[str, object] = {
        "command": command,
        "objective": "KL(P || P of the top channels by gate) + mean gate, subject to a small mean |dP| of the gated "
        "network; asd_explain/explain/gate_fitting.py",
        "options": f"steps {options.steps}, learning rate {options.learning_rate}, sparsity {options.sparsity}, "
        f"target drift {options.target_drift}, keep weight {options.keep_weight}, mean fill {options.mean_fill}, "
        f"swap {options.swap}",
        "split": "test, all frames under all conditions",
        "mean_change_of_p": mine.drift["all"],
        "mean_change_of_p_speaking": mine.drift["speaking"],
        "mean_change_of_p_silent": mine.drift["silent"],
        "agreement": mine.agreement["all"],
        "agreement_speaking": mine.agreement["speaking"],
        "agreement_silent": mine.agreement["silent"],
        "mean_gate": mine.mean_gate,
        "gate_spread_over_channels": mine.over_channels,
        "gate_spread_over_time": mine.over_time,
        "gate_spread_within_track": mine.within_track,
    }
    for fill in FILLS:
        for name in ("gate", "gate x activation"):
            for c in _CLASSES:
                suffix = "" if c == "all" else f"_{c}"
                flat[f"top10_{name.replace(' ', '_')}_others_{fill}{suffix}"] = mine.top[name, fill][c]
        flat[f"top10_gate_of_other_class_others_{fill}"] = mine.top[OTHER_CLASS, fill]["all"]
        for name in ("activation", "random"):
            flat[f"top10_{name}_others_{fill}"] = controls[name, fill]["all"]
    flat["seeds"] = len(found)
    flat["mean_change_of_p_seeds"] = [f.drift["all"] for f in found]
    flat["agreement_seeds"] = [f.agreement["all"] for f in found]
    flat["top10_gate_others_zero_seeds"] = spread
    for kind, values in mine.shares.items():
        for effect in ("P", "margin"):
            key = f"shares_{kind}_vs_difference_of_{effect}_speaking".replace("-", "_").lower()
            flat[key] = values[f"difference, {effect}, speaking"]
    rounded: dict[str, object] = {}
    for key, value in flat.items():
        if isinstance(value, float):
            value = round(value, 4)  # NaN, where there is nothing to measure, stays: TOML knows it
        elif isinstance(value, list):
            value = [round(v, 4) for v in value]
        rounded[key] = value
    return rounded
