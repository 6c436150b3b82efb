"""Fit a squeeze-and-excitation block to a published network, frozen, without labels.

    python tools/fit_gates.py --model lr_asd.pretrain_AVA --out runs/gates

Faces of the shared folder's clips are cut and encoded once (a cache outside the repository); then a fit takes a minute.
Each face is fed with its own sound, other voices, silence, near-silence, its sound shifted, and as a frozen picture.
Fitted on ``fit``, chosen on ``dev`` (sparsity first, by the mean over seeds; then the seed), reported on ``test``.
Objective and sources: ``asd_explain/explain/gate_fitting.py``. Written are ``gates.CARD.safetensors`` and its card;
``--report`` measures the block that is already in the package instead, and writes nothing.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from asd_explain.datasets.shared_clips import SPLITS, list_clips
from asd_explain.errors import AsdExplainError, OptionError, OutputError
from asd_explain.evaluate.gate_report import (
    CURVE,
    FILLS,
    OTHER_CLASS,
    GateReport,
    Moved,
    Sample,
    rank_without_gates,
    report,
    shares_against_intervention,
    take_sample,
)
from asd_explain.evaluate.pooled import CONDITIONS, Conditions, PooledCache, PooledTrack
from asd_explain.evaluate.sufficiency import live_channels
from asd_explain.explain.gate_fitting import FitOptions, GateFitter
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite
from asd_explain.weights.card_writing import fitted_card_text
from asd_explain.weights.cards import cards
from asd_explain.weights.store import cache_dir, load, needed_shared_dir

log = logging.getLogger(__name__)

#: How often each condition is drawn for a training clip.
MIXTURE = {"own": 0.35, "other": 0.2, "still": 0.15, "noise": 0.12, "shifted": 0.1, "silence": 0.08}
CLIPS, FRAMES = 16, 40
MAX_DRIFT, MIN_AGREEMENT = 0.02, 0.99


def batches(tracks: list[PooledTrack], conditions: Conditions, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches (CLIPS, FRAMES, C) of fusion vectors: a track (by length), a condition, a stretch of it."""
    rng = np.random.default_rng(seed)
    weight = np.array([min(len(t), 300) for t in tracks], float)
    names, chances = list(MIXTURE), list(MIXTURE.values())
    turn = 0
    while True:
        clips = []
        while len(clips) < CLIPS:
            turn += 1
            given = conditions.inputs(
                tracks[rng.choice(len(tracks), p=weight / weight.sum())], names[rng.choice(len(names), p=chances)], turn
            )
            if given is None:
                continue
            x = torch.cat(given, -1)
            while len(x) < FRAMES:
                x = torch.cat((x, x.flip(0)))
            first = rng.integers(len(x) - FRAMES + 1)
            clips.append(x[first : first + FRAMES])
        yield torch.stack(clips)


class Corpus:
    """Pooled tracks of the three splits for one network, with samples for measuring."""

    def __init__(self, model: FusionBackbone, cache: PooledCache, shared: Path, per_speaker: int, quiet: bool) -> None:
        if list(model.streams) != ["audio", "face"] or model.fusion_streams != model.streams:
            raise OptionError(
                f"blocks are fitted here to networks of sound and face whose pooled maps are their fusion vectors; "
                f"{model.card.name} is none"
            )
        entries = list_clips(shared, per_speaker=per_speaker)
        bar = tqdm(entries, f"{model.card.name}: faces", leave=False, disable=True if quiet else None)
        tracks = [t for t in cache.collect(bar) if len(t) >= 25]
        self.model = model
        self.tracks = {s: [t for t in tracks if t.split == s] for s in SPLITS}
        if missing := [s for s in SPLITS if not self.tracks[s]]:
            raise OptionError(f"no faces in the split {', '.join(missing)} of {shared}; all three are needed")
        self.conditions = {s: Conditions(model, self.tracks[s]) for s in SPLITS}
        joined = torch.cat(
            [
                torch.cat(given, -1)
                for track in self.tracks["fit"]
                for name in CONDITIONS
                if (given := self.conditions["fit"].inputs(track, name)) is not None
            ]
        )
        self.live, self.mean, self.std = live_channels(joined), joined.mean(0), joined.std(0)

    def sample(self, split: str) -> Sample:
        """All tracks of a split under all conditions."""
        return take_sample(self.model, self.tracks[split], self.conditions[split], self.live, self.mean, self.std)

    def shares(self, block: SqueezeExcite, split: str) -> dict[str, dict[str, float]]:
        """Modality shares against intervention."""
        self.model.attach_gates(block)
        try:
            return shares_against_intervention(self.model, self.tracks[split], self.conditions[split])
        finally:
            self.model.attach_gates(None)


def as_stored(block: SqueezeExcite) -> dict[str, torch.Tensor]:
    """The block's state in half precision, as it goes into the file."""
    return {key: value.half().contiguous() for key, value in block.state_dict().items()}


def fit(corpus: Corpus, options: FitOptions, seed: int, quiet: bool) -> SqueezeExcite:
    """One fit on the split "fit"; the block comes back as it will be after it has been stored."""
    fitter = GateFitter(corpus.model, corpus.mean, corpus.std, options, seed)
    with tqdm(total=options.steps, desc=f"seed {seed}", leave=False, disable=True if quiet else None) as bar:

        def progress(_: int, parts: dict[str, float]) -> None:
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in parts.items()}, refresh=False)

        block = fitter.run(batches(corpus.tracks["fit"], corpus.conditions["fit"], seed), progress)
    block.load_state_dict({key: value.float() for key, value in as_stored(block).items()})
    return block


def keeps_the_verdict(found: GateReport) -> bool:
    """Whether the gated network is close enough to the ungated one."""
    return found.drift["all"] <= MAX_DRIFT and found.agreement["all"] >= MIN_AGREEMENT


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


_CLASSES = ("all", "speaking", "silent")


TRAINING_DATA = (
    "faces of the local clips (split fit), each with its own sound, other voices, silence, near-silence, shifted "
    "sound, and as a frozen picture"
)
LIMITS = (
    "ranks channels for this network only; a gate says nothing about which class it speaks for",
    "the top channels suffice because they were fitted to: the ranking is this block's, not the only one",
    "gates follow the verdict as well as the evidence; how far is told by top10_gate_of_other_class",
)


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


def choose_sparsity(found: dict[float, list[GateReport]]) -> float:
    """The sparsity whose seeds all keep the verdict and whose top channels move P least, by the mean over seeds on dev;
    where none keeps it for all seeds, the one with the least drift."""

    def order(sparsity: float) -> tuple[bool, float]:
        reports = found[sparsity]
        if all(keeps_the_verdict(r) for r in reports):
            return False, statistics.mean(r.top["gate", "zero"]["all"] for r in reports)
        return True, statistics.mean(r.drift["all"] for r in reports)

    return min(found, key=order)


def choose_seed(found: list[GateReport]) -> int:
    """Among the seeds that keep the verdict (or all, if none does), the one whose top channels move P least on dev."""
    good = [i for i, r in enumerate(found) if keeps_the_verdict(r)] or list(range(len(found)))
    return min(good, key=lambda i: found[i].top["gate", "zero"]["all"])


def parser() -> argparse.ArgumentParser:
    names = [c.name for c in cards().values() if c.kind == "network"]
    d = FitOptions()
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, choices=names, metavar="CARD", help=" | ".join(names))
    p.add_argument("--shared", type=Path, help="shared folder (default: ASD_EXPLAIN_SHARED, else ../shared)")
    p.add_argument("--cache", type=Path, help="folder for crops and embeddings (default: the user's cache folder)")
    p.add_argument(
        "--out", type=Path, default=Path("runs/gates"), help="folder for block and card (default runs/gates)"
    )
    p.add_argument("--seeds", type=int, default=3, help="fits with different seeds (default 3)")
    p.add_argument("--per-speaker", type=int, default=4, help="clips of each speaker of clips/tracks (default 4)")
    p.add_argument("--steps", type=int, default=d.steps, help=f"default {d.steps}")
    p.add_argument("--reduction", type=int, default=d.reduction, help=f"default {d.reduction}")
    p.add_argument("--learning-rate", type=float, default=d.learning_rate, help=f"default {d.learning_rate}")
    p.add_argument(
        "--sparsity",
        type=float,
        nargs="+",
        default=[d.sparsity],
        help=f"weights of the mean gate to try ({d.sparsity})",
    )
    p.add_argument(
        "--target-drift", type=float, default=d.target_drift, help=f"mean |change of P| aimed at ({d.target_drift})"
    )
    p.add_argument("--keep-weight", type=float, default=d.keep_weight, help=f"of the selection ({d.keep_weight})")
    p.add_argument("--mean-fill", type=float, default=d.mean_fill, help=f"share of clips ({d.mean_fill})")
    p.add_argument("--swap", type=float, default=d.swap, help=f"share of clips with another's selection ({d.swap})")
    p.add_argument("--report", action="store_true", help="measure the block in the package; fit and write nothing")
    p.add_argument("--overwrite", action="store_true", help="replace an existing block and card")
    p.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def run(args: argparse.Namespace, command: str) -> str:
    """Fit (or only measure) and return the report as markdown."""
    shared = needed_shared_dir(args.shared)
    if args.seeds < 1 or args.steps < 1:
        raise OptionError("--seeds and --steps must be at least 1")
    weights = args.out / f"gates.{args.model}.safetensors"
    card = args.out / "cards" / f"gates.{args.model}.toml"
    if not args.report and not args.overwrite and (weights.exists() or card.exists()):
        raise OutputError(f"{weights} or its card exists; give --overwrite, or another folder with --out")
    torch.set_num_threads(args.threads)

    shipped = None
    if args.report:
        shipped = load(args.model).fusion_gate
        if shipped is None:
            raise OptionError(f"no gates in the package for {args.model}; fit some without --report")
    model = load(args.model, gates=False)
    corpus = Corpus(
        model,
        PooledCache(args.cache or cache_dir() / "corpus", model, model.card.geometry),
        shared,
        args.per_speaker,
        args.quiet,
    )
    if shipped is not None:
        test = corpus.sample("test")
        found = report(model, shipped, test)
        found.shares = corpus.shares(shipped, "test")
        return tables("test", [found], rank_without_gates(model, test))

    base = FitOptions(
        reduction=args.reduction,
        steps=args.steps,
        learning_rate=args.learning_rate,
        target_drift=args.target_drift,
        keep_weight=args.keep_weight,
        mean_fill=args.mean_fill,
        swap=args.swap,
    )
    dev = corpus.sample("dev")
    on_dev: dict[float, list[GateReport]] = {}
    blocks: dict[float, list[SqueezeExcite]] = {}
    parts = []
    controls = rank_without_gates(model, dev)
    for sparsity in args.sparsity:
        options = replace(base, sparsity=sparsity)
        blocks[sparsity] = [fit(corpus, options, seed, args.quiet) for seed in range(args.seeds)]
        on_dev[sparsity] = [report(model, block, dev) for block in blocks[sparsity]]
        parts.append(tables(f"dev, sparsity {sparsity}", on_dev[sparsity], controls))
        log.info("sparsity %s done", sparsity)
    sparsity = choose_sparsity(on_dev)
    chosen = choose_seed(on_dev[sparsity])
    options = replace(base, sparsity=sparsity)
    parts.append(f"Chosen on dev: sparsity {sparsity}, seed {chosen}.\n")

    test = corpus.sample("test")
    found = []
    for block in blocks[sparsity]:
        found.append(report(model, block, test))
        found[-1].shares = corpus.shares(block, "test")
    controls = rank_without_gates(model, test)
    parts.append(tables("test", found, controls))
    card.parent.mkdir(parents=True, exist_ok=True)
    save_file(as_stored(blocks[sparsity][chosen]), weights)
    results = results_of(command, options, found, controls, chosen)
    text = fitted_card_text(
        "gates",
        args.model,
        model.card.model,
        weights,
        source=f"fitted by tools/fit_gates.py, without labels; seed {chosen}, chosen on dev",
        training_data=TRAINING_DATA,
        limits=LIMITS,
        tables={"gate": {"reduction": options.reduction, "scope": "frame"}, "results": results},
    )
    card.write_text(text, encoding="utf-8")
    parts.append(f"Written: {weights} and {card}\n")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = sys.argv[1:] if argv is None else argv
    # Folders are the caller's own business and do not belong into a card.
    private = {"--shared", "--cache", "--out"}
    words = [w for i, w in enumerate(given) if w not in private and (i == 0 or given[i - 1] not in private)]
    command = "python tools/fit_gates.py " + " ".join(words)
    try:
        sys.stdout.write(run(args, command))
    except AsdExplainError as error:
        log.error("%s", error)
        return 2
    except OSError as error:
        log.error("cannot write below %s (%s); give another folder with --out", args.out, error.strerror)
        return 2
    except KeyboardInterrupt:
        log.error("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
