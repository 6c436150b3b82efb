"""Measure published checkpoints, in both crop geometries, on the clips of the shared folder.

For each checkpoint and geometry, at the threshold 0.5:

* ``talking``: speaking frames (%) of single talking faces under their own voice, in frames whose sound is voiced;
* the same faces when nobody who is seen can be heard: digital silence, near-silence, another person's voice, their own
  voice shifted in time, their own voice under a frozen picture. Here 0 % would be right;
* ``listening``: speaking frames (%) of faces that do not talk, or that talk in clips without sound;
* ``balanced``: half the ``talking`` rate plus half the mean rate of silent frames over those five conditions (%);
* ``AUC``: area under the ROC curve (%), voiced frames under their own voice against all frames of those conditions;
* ``hints``: balanced accuracy (%) on the conversations and dubbed clips whose speakers were noted down by eye.

The choice is made by ``balanced`` on dev + fit; test is printed for the report.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from asd_explain.datasets.shared_clips import SPLITS, hinted_labels, list_clips
from asd_explain.evaluate.pooled import NEGATIVES, Conditions, PooledCache, PooledTrack
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.running import run_tool
from asd_explain.tracks.crops import GEOMETRIES
from asd_explain.weights.cards import cards
from asd_explain.weights.store import cache_dir, load, needed_shared_dir

log = logging.getLogger(__name__)

COLUMNS = ("talking", *NEGATIVES, "listening", "balanced", "AUC", "hints")


@torch.inference_mode()
def p_speaking(model: FusionBackbone, audio: torch.Tensor, face: torch.Tensor) -> np.ndarray:
    """(T,) P(speaking) of one track from its (T, C) embeddings."""
    return model.fuse({"audio": audio[None], "face": face[None]}).p_speaking[0].numpy()


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve in [0, 1]: chance that a positive scores above a negative, ties counting half."""
    if not len(positive) or not len(negative):
        return float("nan")
    negative = np.sort(negative)
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.mean() / 2 / len(negative))


def measure(model: FusionBackbone, tracks: list[PooledTrack], seed: int = 0) -> dict[str, float]:
    """The row of figures (%) of one network over some tracks; see the module's text for what they are."""
    # Voices come from the same split, as the network has seen none of them in training.
    conditions = {s: Conditions(model, [t for t in tracks if t.split == s], seed) for s in {t.split for t in tracks}}
    scores: dict[str, list[np.ndarray]] = {}
    truth: list[np.ndarray] = []
    for track in tracks:
        own = p_speaking(model, track.audio, track.face)
        labels = hinted_labels(track.name.split("#")[0], track.times_s, track.boxes, track.size, track.voiced)
        if labels is not None:
            known = np.isfinite(labels)
            truth.append(np.stack([labels[known], own[known]]))
        if track.group == "listening":
            scores.setdefault("listening", []).append(own)
        if track.group in ("single", "tracks") and track.has_audio and not track.person.startswith("dubbed_foreign"):
            scores.setdefault("talking", []).append(own[track.voiced])
            for name in NEGATIVES:
                given = conditions[track.split].inputs(track, name)
                if given is not None:
                    scores.setdefault(name, []).append(p_speaking(model, *given))
    pooled = {name: np.concatenate(parts) for name, parts in scores.items()}
    row = {name: 100 * float((values > 0.5).mean()) for name, values in pooled.items()}
    row["balanced"] = (row["talking"] + np.mean([100 - row[n] for n in NEGATIVES])) / 2
    row["AUC"] = 100 * auc(pooled["talking"], np.concatenate([pooled[n] for n in NEGATIVES]))
    if truth:
        label, score = np.concatenate(truth, 1)
        row["hints"] = 50 * float((score[label == 1] > 0.5).mean() + (score[label == 0] <= 0.5).mean())
    return row


def table(rows: dict[tuple[str, str], dict[str, float]]) -> str:
    """Markdown, a line for every (checkpoint, geometry)."""
    lines = [
        "| checkpoint | geometry | " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---:|" * len(COLUMNS),
    ]
    for (name, geometry), row in rows.items():
        cells = (f"{row[c]:.1f}" if c in row else "-" for c in COLUMNS)
        lines.append(f"| {name} | {geometry} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    names = [c.name for c in cards().values() if c.kind == "network"]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", nargs="+", default=names, metavar="CARD", help=f"default: {' '.join(names)}")
    p.add_argument("--geometries", nargs="+", default=sorted(GEOMETRIES), choices=sorted(GEOMETRIES))
    p.add_argument("--shared", type=Path, help="shared folder (default: ASD_EXPLAIN_SHARED, else ../shared)")
    p.add_argument("--cache", type=Path, help="folder for crops and embeddings (default: the user's cache folder)")
    p.add_argument("--per-speaker", type=int, default=4, help="clips of each speaker of clips/tracks (default 4)")
    p.add_argument("--seed", type=int, default=0, help="of whose voice, which noise and which shift are drawn")
    p.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def run(args: argparse.Namespace) -> str:
    """Everything, as markdown."""
    shared = needed_shared_dir(args.shared)
    torch.set_num_threads(args.threads)
    entries = list_clips(shared, per_speaker=args.per_speaker)
    splits: dict[str, tuple[str, ...]] = {"dev + fit": ("dev", "fit"), "test": ("test",)}
    rows: dict[str, dict[tuple[str, str], dict[str, float]]] = {title: {} for title in splits}
    for name in args.models:
        model = load(name, gates=False)
        for geometry in args.geometries:
            cache = PooledCache(args.cache or cache_dir() / "corpus", model, geometry)
            bar = tqdm(entries, f"{name} {geometry}", disable=True if args.quiet else None, leave=False)
            tracks = cache.collect(bar)
            for title, wanted in splits.items():
                chosen = [t for t in tracks if t.split in wanted]
                if chosen:
                    rows[title][name, geometry] = measure(model, chosen, args.seed)
    counts = ", ".join(f"{sum(e.split == s for e in entries)} {s}" for s in SPLITS)
    parts = [f"Clips: {counts}. All figures in %."]
    for title, found in rows.items():
        parts += [f"\n**{title}**\n", table(found)]
    return "\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    return run_tool(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
