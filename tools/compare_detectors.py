"""Count, on the clips of the shared folder, which faces of one face detector the others miss, and what they add.

Every detector runs on the same frames, as the command runs it (every 0.2 s and at cuts), and each gets its own tracker.
What is compared is therefore what the command would explain: the tracked boxes of every frame. In each frame:

* ``faces``: boxes of the reference detector whose side, sqrt(width x height), is at least ``--min-face`` px;
* ``recall``: the share of them (%) that has a partner: one box each, intersection over union of ``--iou`` or more;
* ``IoU``: median intersection over union with that partner;
* ``extra``: boxes a frame, of at least ``--min-face`` px, that overlap no box of the reference (smaller ones included)
  as much. False alarms, unless the reference has missed a face;
* ``ms``: processor time of a detection on one thread.

Rows pool frames, so that long clips with many faces count for more.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from asd_explain.datasets.shared_clips import GROUPS, SPLITS, ClipEntry, list_clips
from asd_explain.errors import OptionError
from asd_explain.media.reader import VideoReader
from asd_explain.outputs import check_new, write_text
from asd_explain.running import run_tool
from asd_explain.tracks.detect import DETECTORS, DetectionSchedule, Detector, create_detector
from asd_explain.tracks.link import FaceTracker
from asd_explain.tracks.shots import ShotDetector
from asd_explain.weights.store import needed_shared_dir

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """Counts of one detector against the reference; ``+`` pools them.

    Attributes:
        frames: frames compared.
        faces: faces of the reference that are large enough.
        found: how many of them have a partner.
        extra: large enough boxes without a partner among the reference's.
        detections: how often the detector ran.
        seconds: processor time that took.
        overlaps: intersection over union of every pair, in [0, 1].
    """

    frames: int = 0
    faces: int = 0
    found: int = 0
    extra: int = 0
    detections: int = 0
    seconds: float = 0.0
    overlaps: list[float] = field(default_factory=list, repr=False)

    def __add__(self, other: Tally) -> Tally:
        mine, others = vars(self), vars(other)
        return Tally(**{name: mine[name] + others[name] for name in mine})

    @property
    def recall(self) -> float:
        """Share of the reference's faces found, in [0, 1]; NaN where there are none."""
        return self.found / self.faces if self.faces else float("nan")

    @property
    def extra_a_frame(self) -> float:
        """Boxes a frame without a partner; NaN without a frame."""
        return self.extra / self.frames if self.frames else float("nan")

    @property
    def overlap(self) -> float:
        """Median intersection over union of the pairs; NaN without a pair."""
        return float(np.median(self.overlaps)) if self.overlaps else float("nan")

    @property
    def ms(self) -> float:
        """Processor time of a detection in milliseconds; NaN where there was none."""
        return 1e3 * self.seconds / self.detections if self.detections else float("nan")

    def plain(self) -> dict[str, float | int | None]:
        """For a JSON file: the counts and the figures; null for what is not known."""
        counts = {name: value for name, value in asdict(self).items() if name != "overlaps"}
        figures = {name: getattr(self, name) for name in ("recall", "extra_a_frame", "overlap", "ms")}
        return counts | {name: round(v, 5) if np.isfinite(v) else None for name, v in figures.items()}


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(m, n) in [0, 1] of (m, 4) and (n, 4) boxes x1 y1 x2 y2, none of them empty."""
    inner = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.clip(inner, 0, None).prod(axis=-1)
    areas_a, areas_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    return shared / (areas_a[:, None] + areas_b[None, :] - shared)


def compare_frame(
    reference: np.ndarray, boxes: np.ndarray, *, least_iou: float = 0.4, min_face_px: float = 24.0
) -> Tally:
    """Compare the boxes of one frame; as many pairs as possible are made, then the best overlapping ones.

    Args:
        reference: (m, 4) px, x1 y1 x2 y2.
        boxes: (n, 4) px, the other detector's.
        least_iou: two boxes are one face from this intersection over union on, in (0, 1].
        min_face_px: smaller faces of the reference need not be found, and smaller boxes are not counted as extra.
    """
    wanted, large = _side(reference) >= min_face_px, _side(boxes) >= min_face_px
    iou = intersection_over_union(reference, boxes)
    # What must be found goes first, then the number of pairs, then how well they fit.
    worth = np.where(iou >= least_iou, iou + 1e3 + 1e6 * wanted[:, None], 0.0)
    pairs = [(i, j) for i, j in zip(*linear_sum_assignment(-worth), strict=True) if iou[i, j] >= least_iou]
    kept = [(i, j) for i, j in pairs if wanted[i]]
    alone = large.copy()
    alone[[j for _, j in pairs]] = False
    return Tally(1, int(wanted.sum()), len(kept), int(alone.sum()), overlaps=[float(iou[i, j]) for i, j in kept])


def _side(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def compare_clip(
    path: Path,
    detectors: Mapping[str, Detector],
    reference: str,
    *,
    interval_s: float = 0.2,
    least_iou: float = 0.4,
    min_face_px: float = 24.0,
) -> dict[str, Tally]:
    """Run detectors and trackers over one clip and compare them frame by frame.

    Args:
        path: the clip.
        detectors: by name.
        reference: which of them the others are measured against.
        interval_s: seconds between two detections.
        least_iou, min_face_px: see :func:`compare_frame`.

    Returns:
        A tally for every detector, the reference included (its own finds itself).

    Raises:
        ClipError: the clip cannot be read.
    """
    totals = {name: Tally() for name in detectors}
    with VideoReader(path, threads=1) as reader:
        info = reader.info
        sizes = {name: d.working_size(info.width, info.height) for name, d in detectors.items()}
        trackers = {name: FaceTracker(info.width, info.height) for name in detectors}
        final: dict[str, deque[np.ndarray]] = {name: deque() for name in detectors}
        shots, schedule = ShotDetector(), DetectionSchedule(interval_s)
        shot_size = ShotDetector.working_size(info.width, info.height)

        def take(name: str, done: list) -> None:
            final[name] += [np.array([f.box for f in frame.faces], np.float64).reshape(-1, 4) for frame in done]

        def compare() -> None:
            while all(final.values()):
                boxes = {name: queue.popleft() for name, queue in final.items()}
                for name, found in boxes.items():
                    totals[name] += compare_frame(boxes[reference], found, least_iou=least_iou, min_face_px=min_face_px)

        for frame in reader:
            cut = shots.push(frame.bgr(*shot_size), frame.time_s)
            due = schedule.due(frame.time_s, cut=cut)
            for name, detector in detectors.items():
                found = None
                if due:
                    width, height = sizes[name]
                    picture = frame.bgr(width, height)
                    begin_s = time.thread_time()
                    found = detector.detect(picture, info.width / width, info.height / height)
                    totals[name] += Tally(detections=1, seconds=time.thread_time() - begin_s)
                take(name, trackers[name].push(frame.index, frame.time_s, found, cut))
            compare()
        for name, tracker in trackers.items():
            take(name, tracker.flush())
        compare()
    return totals


def pooled(rows: Sequence[Mapping[str, Tally]]) -> dict[str, Tally]:
    """Sums by detector."""
    totals: dict[str, Tally] = {}
    for row in rows:
        for name, tally in row.items():
            totals[name] = totals.get(name, Tally()) + tally
    return totals


def table(title: str, rows: Mapping[str, Mapping[str, Tally]], reference: str) -> str:
    """Markdown: a line for every row, recall, IoU, extra boxes a frame and time of each detector."""
    others = [name for name in next(iter(rows.values())) if name != reference]
    heads = [f"{name}: recall % / IoU / extra" for name in others]
    lines = [
        f"| {title} | frames | {reference} faces | " + " | ".join(heads) + " |",
        "|---|---:|---:|" + "---:|" * len(heads),
    ]
    for row, tallies in rows.items():
        base = tallies[reference]
        cells = (f"{100 * t.recall:.1f} / {t.overlap:.2f} / {t.extra_a_frame:.3f}" for t in map(tallies.get, others))
        lines.append(f"| {row} | {base.frames} | {base.faces} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    names = [name for name in DETECTORS if name != "auto"]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--detectors", nargs="+", default=names, choices=names, help=f"default: {' '.join(names)}")
    p.add_argument("--reference", default="yunet", choices=names, help="whose faces are looked for (default yunet)")
    p.add_argument("--groups", nargs="+", default=list(GROUPS), choices=GROUPS, help="which folders of clips")
    p.add_argument("--per-speaker", type=int, default=3, help="clips of each speaker of clips/tracks (default 3)")
    p.add_argument("--interval", type=float, default=0.2, help="seconds between two detections (default 0.2)")
    p.add_argument("--iou", type=float, default=0.4, help="from which overlap two boxes are one face (default 0.4)")
    p.add_argument("--min-face", type=float, default=24.0, help="px: smaller faces do not count (default 24)")
    p.add_argument("--shared", type=Path, help="shared folder (default: ASD_EXPLAIN_SHARED, else ../shared)")
    p.add_argument("--out", type=Path, metavar="JSON", help="write all counts there as well")
    p.add_argument("--overwrite", action="store_true", help="an existing --out may be replaced")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def run(args: argparse.Namespace) -> str:
    """Everything, as markdown; written to ``args.out`` as JSON too.

    Raises:
        OptionError, OutputError, WeightsError, ClipError: with one line that says what to do.
    """
    if not 0 < args.iou <= 1:
        raise OptionError(f"--iou {args.iou:g}: an overlap lies above 0 and is at most 1")
    if args.interval < 0 or args.per_speaker < 1 or args.min_face < 0:
        raise OptionError("--interval and --min-face are 0 or more, --per-speaker 1 or more")
    if args.out is not None:
        check_new(args.out, args.overwrite)
    shared = needed_shared_dir(args.shared)
    entries = list_clips(shared, groups=tuple(args.groups), per_speaker=args.per_speaker)
    cv2.setNumThreads(1)
    detectors = {name: create_detector(name) for name in dict.fromkeys((args.reference, *args.detectors))}
    found: dict[ClipEntry, dict[str, Tally]] = {}
    for entry in tqdm(entries, "clips", disable=True if args.quiet else None, leave=False):
        found[entry] = compare_clip(
            entry.path,
            detectors,
            args.reference,
            interval_s=args.interval,
            least_iou=args.iou,
            min_face_px=args.min_face,
        )
    if args.out is not None:
        _write(args.out, found)

    # Speakers are one row each: their clips look alike.
    names: dict[str, list[dict[str, Tally]]] = {}
    for entry, row in found.items():
        names.setdefault(f"tracks/{entry.person}" if entry.group == "tracks" else entry.name, []).append(row)
    totals = {s: [row for entry, row in found.items() if entry.split == s] for s in SPLITS}
    totals = {s: rows for s, rows in totals.items() if rows} | {"all": list(found.values())}
    summed = {s: pooled(rows) for s, rows in totals.items()}
    ms = ", ".join(f"{name} {tally.ms:.1f} ms" for name, tally in summed["all"].items())
    parts = [
        table("clip", {name: pooled(rows) for name, rows in names.items()}, args.reference),
        table("split", summed, args.reference),
        f"A detection, on one thread: {ms}.",
    ]
    return "\n\n".join(parts) + "\n"


def _write(path: Path, found: Mapping[ClipEntry, Mapping[str, Tally]]) -> None:
    rows = [
        {"clip": e.name, "split": e.split, "detectors": {name: tally.plain() for name, tally in row.items()}}
        for e, row in found.items()
    ]
    write_text(path, json.dumps({"clips": rows}, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    return run_tool(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
