"""Fit a squeeze-and-excitation block to a published network, frozen, without labels.

    python tools/fit_gates.py --model lr_asd.pretrain_AVA --out runs/gates
    python tools/fit_gates.py --model talknet.pretrain_TalkSet --weights FILE --out runs/gates

Faces of the shared folder's clips are cut and encoded once (a cache outside the repository); then a fit takes a
few minutes (at a trunk, 600 steps on one core: 5 with TalkNet, 26 with LoCoNet).
Each face is fed with its own sound, other voices, silence, near-silence, its sound shifted, and as a frozen picture.
Fitted on ``fit``, chosen on ``dev`` (sparsity first, by the mean over seeds; then the seed), reported on ``test``.
The block stands where its gates can be drawn: at the fusion point, or, in networks with projections between their maps
and that point (TalkNet, LoCoNet), at the end of the face's trunk; ``--at`` chooses (places:
``asd_explain/explain/gate_places.py``). Objective and sources: ``asd_explain/explain/gate_fitting.py``. Written are
``gates.CARD.safetensors`` and its card; ``--report`` measures the block that is already in the package instead, and
writes nothing.
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
from tqdm import tqdm

from asd_explain.datasets.shared_clips import SPLITS, list_clips
from asd_explain.errors import OptionError, OutputError
from asd_explain.evaluate.gate_report import (
    GateReport,
    Sample,
    rank_without_gates,
    report,
    shares_against_intervention,
    take_sample,
)
from asd_explain.evaluate.gate_tables import results_of, tables
from asd_explain.evaluate.pooled import CONDITIONS, Conditions, PooledCache, PooledTrack
from asd_explain.evaluate.sufficiency import live_channels
from asd_explain.explain.gate_fitting import FitOptions, GateFitter
from asd_explain.explain.gate_places import PLACES, Place, place_of
from asd_explain.models.se import SqueezeExcite
from asd_explain.outputs import write_text
from asd_explain.running import command_text, run_tool
from asd_explain.training.export import write_tensors
from asd_explain.weights.card_writing import fitted_card_text
from asd_explain.weights.cards import cards
from asd_explain.weights.store import cache_dir, load, needed_shared_dir

log = logging.getLogger(__name__)

#: How often each condition is drawn for a training clip.
MIXTURE = {"own": 0.35, "other": 0.2, "still": 0.15, "noise": 0.12, "shifted": 0.1, "silence": 0.08}
CLIPS, FRAMES = 16, 40
MAX_DRIFT, MIN_AGREEMENT = 0.02, 0.99


def vectors(place: Place, given: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """(T, C + R) vectors at a place of what :meth:`Conditions.inputs` gives of a track."""
    with torch.no_grad():
        return place.vectors({"audio": given[0][None], "face": given[1][None]})[0]


def batches(place: Place, tracks: list[PooledTrack], conditions: Conditions, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches (CLIPS, FRAMES, C + R) of vectors: a track (by length), a condition, a stretch of it."""
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
            x = vectors(place, given)
            while len(x) < FRAMES:
                x = torch.cat((x, x.flip(0)))
            first = rng.integers(len(x) - FRAMES + 1)
            clips.append(x[first : first + FRAMES])
        yield torch.stack(clips)


class Corpus:
    """Pooled tracks of the three splits for one network, with samples for measuring."""

    def __init__(self, place: Place, cache: PooledCache, shared: Path, per_speaker: int, quiet: bool) -> None:
        model = place.model
        entries = list_clips(shared, per_speaker=per_speaker)
        bar = tqdm(entries, f"{model.card.name}: faces", leave=False, disable=True if quiet else None)
        tracks = [t for t in cache.collect(bar) if len(t) >= 25]
        self.place = place
        self.tracks = {s: [t for t in tracks if t.split == s] for s in SPLITS}
        if missing := [s for s in SPLITS if not self.tracks[s]]:
            raise OptionError(f"no faces in the split {', '.join(missing)} of {shared}; all three are needed")
        self.conditions = {s: Conditions(model, self.tracks[s]) for s in SPLITS}
        joined = torch.cat(
            [
                place.split(vectors(place, given))[0]
                for track in self.tracks["fit"]
                for name in CONDITIONS
                if (given := self.conditions["fit"].inputs(track, name)) is not None
            ]
        )
        self.live, self.mean, self.std = live_channels(joined), joined.mean(0), joined.std(0)

    def sample(self, split: str) -> Sample:
        """All tracks of a split under all conditions."""
        return take_sample(self.place, self.tracks[split], self.conditions[split], self.live, self.mean, self.std)

    def shares(self, block: SqueezeExcite, split: str) -> dict[str, dict[str, float]]:
        """Modality shares against intervention; nothing where the block has no part in them."""
        if self.place.name != "fusion":
            return {}
        self.place.attach(block)
        try:
            return shares_against_intervention(self.place.model, self.tracks[split], self.conditions[split])
        finally:
            self.place.attach(None)


def as_stored(block: SqueezeExcite) -> dict[str, torch.Tensor]:
    """The block's state in half precision, as it goes into the file."""
    return {key: value.half().contiguous() for key, value in block.state_dict().items()}


def fit(corpus: Corpus, options: FitOptions, seed: int, quiet: bool) -> SqueezeExcite:
    """One fit on the split "fit"; the block comes back as it will be after it has been stored."""
    fitter = GateFitter(corpus.place, corpus.mean, corpus.std, options, seed)
    with tqdm(total=options.steps, desc=f"seed {seed}", leave=False, disable=True if quiet else None) as bar:

        def progress(_: int, parts: dict[str, float]) -> None:
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in parts.items()}, refresh=False)

        block = fitter.run(batches(corpus.place, corpus.tracks["fit"], corpus.conditions["fit"], seed), progress)
    block.load_state_dict({key: value.float() for key, value in as_stored(block).items()})
    return block


def keeps_the_verdict(found: GateReport) -> bool:
    """Whether the gated network is close enough to the ungated one."""
    return found.drift["all"] <= MAX_DRIFT and found.agreement["all"] >= MIN_AGREEMENT


TRAINING_DATA = (
    "faces of the local clips (split fit), each with its own sound, other voices, silence, near-silence, shifted "
    "sound, and as a frozen picture"
)
LIMITS = (
    "ranks channels for this network only; a gate says nothing about which class it speaks for",
    "the top channels suffice because they were fitted to: the ranking is this block's, not the only one",
    "gates follow the verdict as well as the evidence; how far is told by top10_gate_of_other_class",
)


#: Of networks that see several candidates.
ALONE = ("fitted to and measured on faces that are alone; beside others every candidate is weighed by it, unmeasured",)


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
    p.add_argument("--weights", type=Path, metavar="FILE", help="file to read the network from instead of the card's")
    p.add_argument("--at", choices=PLACES, help="where the block stands (default: where its gates can be drawn)")
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
    torch.set_num_threads(args.threads)
    model = load(args.model, weights=args.weights, gates=False)
    place = place_of(model, args.at)
    if model.fusion_gate is not None or place.block is not None:
        raise OptionError(
            f"{model.card.name} has a block of its own, trained with it; blocks are fitted to networks without"
        )
    base_name = args.model if args.weights is None else model.card.name
    weights = args.out / f"gates.{base_name}.safetensors"
    card = args.out / "cards" / f"gates.{base_name}.toml"
    if not args.report and not args.overwrite and (weights.exists() or card.exists()):
        raise OutputError(f"{weights} or its card exists; give --overwrite, or another folder with --out")

    shipped = None
    if args.report:
        shipped = place_of(load(args.model, weights=args.weights), place.name).block
        if shipped is None:
            raise OptionError(f"no gates in the package for {base_name}; fit some without --report")
    corpus = Corpus(
        place,
        PooledCache(args.cache or cache_dir() / "corpus", model, model.card.geometry),
        shared,
        args.per_speaker,
        args.quiet,
    )
    if shipped is not None:
        test = corpus.sample("test")
        found = report(shipped, test)
        found.shares = corpus.shares(shipped, "test")
        return tables("test", [found], rank_without_gates(test))

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
    controls = rank_without_gates(dev)
    for sparsity in args.sparsity:
        options = replace(base, sparsity=sparsity)
        blocks[sparsity] = [fit(corpus, options, seed, args.quiet) for seed in range(args.seeds)]
        on_dev[sparsity] = [report(block, dev) for block in blocks[sparsity]]
        parts.append(tables(f"dev, sparsity {sparsity}", on_dev[sparsity], controls))
        log.info("sparsity %s done", sparsity)
    sparsity = choose_sparsity(on_dev)
    chosen = choose_seed(on_dev[sparsity])
    options = replace(base, sparsity=sparsity)
    parts.append(f"Chosen on dev: sparsity {sparsity}, seed {chosen}.\n")

    test = corpus.sample("test")
    found = []
    for block in blocks[sparsity]:
        found.append(report(block, test))
        found[-1].shares = corpus.shares(block, "test")
    controls = rank_without_gates(test)
    parts.append(tables("test", found, controls))
    write_tensors(as_stored(blocks[sparsity][chosen]), weights)
    results = results_of(command, options, found, controls, chosen)
    text = fitted_card_text(
        "gates",
        base_name,
        model.card.model,
        weights,
        source=f"fitted by tools/fit_gates.py, without labels; seed {chosen}, chosen on dev",
        training_data=TRAINING_DATA,
        limits=LIMITS + (ALONE if model.scored_together > 1 else ()),
        tables={
            "gate": {"reduction": options.reduction, "scope": "frame", "place": place.name},
            "results": results | {"weights_sha256": model.weights_sha256},
        },
    )
    write_text(card, text)
    parts.append(f"Written: {weights} and {card}\n")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    # Folders are the caller's own business and do not belong into a card.
    private = {"--shared", "--cache", "--out", "--weights"}
    words = [w for i, w in enumerate(given) if w not in private and (i == 0 or given[i - 1] not in private)]
    command = command_text("fit_gates", *words)
    return run_tool(lambda: run(args, command))


if __name__ == "__main__":
    raise SystemExit(main())
