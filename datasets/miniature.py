"""Miniature AVA-ActiveSpeaker and WASD of talking photographs, in the real ones' files: for tests and a first try.

    python -m asd_explain.datasets.miniature --dataset ava wasd -o mini
    python tools/prepare.py --dataset ava --csv mini/ava/csv --videos mini/ava/orig_videos --out mini/ava

* ``ava/``: ``orig_videos/trainval/VIDEO.mp4`` and ``csv/ava_activespeaker_SPLIT_v1.0/VIDEO-activespeaker.csv``, the
  original dialect without a header.
* ``wasd/``: ``orig_videos/trainval/VIDEO_START-END.mp4``, ``csv/SPLIT_orig.csv`` with TalkNet's columns, the bodies as
  ``csv/train_body_orig.csv`` and ``csv/val_orig_body.csv`` (both names are in use), ``eval/wasd_metadata.csv`` and
  ``eval/dataset_division.txt``.

**What val has that train has not.** The faces: train's people are made of one photograph, every other of val's of
another (the dependencies' wheels ship two whose face can be used and are in the public domain; scikit-image's LFW faces
are 25 x 25 pixels). The rest of val are drawn, a face each (:mod:`asd_explain.datasets.drawn_faces`); ``--drawn N``
draws every N-th of train's people too, none that val has. (A small network learns sooner from one photograph than from
many faces, hence the default.) All are mirrored at random, with other proportions, light, colours and background. The
voices of val are other variants of espeak-ng, and turns, texts and motion are drawn anew. What both share: the
synthesiser, the rules by which mouths follow phonemes, and the drawing. A network that does well on val has learnt that
mouth and sound go together, on such pictures; nothing more is shown. ``miniature.json`` says it beside the data.

**WASD's categories** are imitated by sound and size: OC turns in quiet; SI two who talk at once; FO hands that move
before the body (the face itself stays free: nothing is drawn over it); HVN voices from off screen; SS small faces,
noise and 10 or 15 frames a second.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asd_explain.datasets.annotations import orig_lines
from asd_explain.datasets.entities import EntityRow
from asd_explain.datasets.miniature_folder import miniature_folder, read_mark, write_mark
from asd_explain.datasets.miniature_people import PHOTOS, SPLITS, UNSEEN, company, faces_seen
from asd_explain.datasets.talking_photos import make_clip
from asd_explain.datasets.talking_scene import Scene, Shot
from asd_explain.datasets.talking_truth import LABELS, Truth
from asd_explain.errors import OptionError
from asd_explain.running import run_tool

log = logging.getLogger(__name__)

DATASETS = ("ava", "wasd")
CATEGORIES = ("OC", "SI", "FO", "HVN", "SS")
"""WASD's categories by their number in the metadata."""
_HEADINGS = {"Interview": 0, "Debate": 1, "React": 3, "Podcast": 2, "Police": 4}
_METADATA = (
    *("Video", "Category", "Facial Occlusion", "Human Voice as Background Noise", "Speech Overlap", "Body Access"),
    *("Proximity to Camera", "Surveillance Settings", "Delayed Speech", "Audio Quality", "Face Availability"),
    *("Number of People", "Race", "Language ", "Gender", "FPS", "Image Size", "Indoor/Outdoor"),
    *("Head Body Proportion", "Body Image Proportion", "Talking Proportion", "Silence Proportion"),
    "Overlap Communication",
)
_AVA_RATES = (25, 24, 29.97, 30)
_WASD_RATES = ((30, 25), (25, 30), (24, 30), (29.97, 24), (10, 15))
_CLIP_S = 30


@dataclass(frozen=True)
class MiniClip:
    """One clip to be made: its name, split, scene, and for WASD the number of its category."""

    video_id: str
    split: str
    scene: Scene
    category: int | None = None


def ava_clips(train: int, val: int, seconds: float, seed: int = 0, drawn: int = 0) -> list[MiniClip]:
    """The clips of a miniature AVA: one to three faces, pauses, mouthing, voices off screen, cuts.

    Args:
        train, val: how many clips.
        seconds: length of each.
        seed: of everything.
        drawn: every so manieth of train's people has a drawn face; 0: none.
    """
    clips = []
    for split, count in zip(SPLITS, (train, val), strict=True):
        for k in range(count):
            rng = np.random.default_rng((seed, SPLITS.index(split), k, 1))
            name = f"-tr_{k:02d}-mini" if split == "train" else f"_va-{k:02d}_mini"
            faces = (2, 1, 3)[k % 3]
            people, strangers = company(
                rng, split, faces, seconds, k // 3, drawn, stranger=k % 3 == 1, mouthing=k % 4 == 2
            )
            everybody = tuple(range(faces))
            cut = (Shot(0.0, everybody), Shot(round(seconds * 0.55, 2), everybody[:1], 1.2)) if k % 4 == 3 else ()
            width = {1: 144, 2: 256, 3: 320}[faces]
            clips.append(MiniClip(name, split, _scene(rng, people, strangers, cut, width, _AVA_RATES[k % 4], seconds)))
    return clips


def wasd_clips(train: int, val: int, seconds: float, seed: int = 0, drawn: int = 0) -> list[MiniClip]:
    """The clips of a miniature WASD, so many a category, each category with a video of its own in each split."""
    clips = []
    for split, count in zip(SPLITS, (train, val), strict=True):
        for category in range(len(CATEGORIES)):
            video = f"w-c{category}_{split[0]}mini"
            video += "_" * (11 - len(video))
            for k in range(count):
                rng = np.random.default_rng((seed, SPLITS.index(split), k, 2, category))
                scene = _wasd_scene(rng, split, category, k, seconds, drawn)
                clips.append(MiniClip(f"{video}_{_CLIP_S * k}-{_CLIP_S * (k + 1)}", split, scene, category))
    return clips


def _wasd_scene(rng: np.random.Generator, split: str, category: int, k: int, seconds: float, drawn: int) -> Scene:
    name = CATEGORIES[category]
    faces = 1 if name in ("FO", "HVN") else 2
    kind = {"stranger": name == "HVN", "overlap": name == "SI", "small": name == "SS", "torso": 0.5}
    people, strangers = company(rng, split, faces, seconds, category + k, drawn, **kind)
    if name == "FO":
        people = tuple(replace(p, gestures=1.0, torso=1.0) for p in people)
    scene = _scene(rng, people, strangers, (), 144 * faces, _WASD_RATES[category][k % 2], seconds)
    return replace(scene, noise=4.0) if name == "SS" else scene


def _scene(rng, people, strangers, shots, width: int, fps: float, seconds: float) -> Scene:
    return Scene(
        *(people, strangers, shots),
        width=width,
        height=144,
        fps=fps,
        duration_s=seconds,
        seed=int(rng.integers(1, 2**31)),
        noise=float(rng.uniform(0.5, 2.0)),
    )


def truth_rows(clip: MiniClip, truth: Truth) -> list[EntityRow]:
    """The tracks of a clip as annotators would give them: times to 10 ms, boxes to six digits."""
    size = np.array([clip.scene.width, clip.scene.height] * 2, np.float64)
    rows: list[EntityRow] = []
    for person in truth.people:
        for shot in np.unique(truth.shot):
            frames = np.flatnonzero(person.visible & (truth.shot == shot))
            if not len(frames):
                continue
            times_s = np.round(truth.times_s[frames], 2)
            span = "0000_0060" if clip.category is not None else f"{int(times_s[0]):04d}_{int(times_s[-1]) + 1:04d}"
            rows.append(
                EntityRow(
                    entity_id=f"{clip.video_id}_{span}:{len(rows) + 1}",
                    video_id=clip.video_id,
                    timestamps_s=times_s,
                    labels=(person.label[frames] == 1).astype(np.int8),
                    fps=float(clip.scene.rate),
                    boxes=np.round(person.face[frames] / size, 6),
                    body_boxes=np.round(person.body[frames] / size, 6),
                    label_names=tuple(LABELS[k] for k in person.label[frames]),
                )
            )
    return rows


def original_lines(rows: Sequence[EntityRow]) -> Iterator[str]:
    """The lines of an AVA csv in the original dialect: eight columns, no header."""
    for row in rows:
        for time_s, box, label in zip(row.timestamps_s, row.boxes, row.label_names, strict=True):
            yield ",".join([row.video_id, f"{time_s:.2f}", *(f"{v:.6f}" for v in box), label, row.entity_id])


def make_miniature(
    dataset: str,
    out: str | Path,
    *,
    train: int | None = None,
    val: int | None = None,
    seconds: float = 4.0,
    seed: int = 0,
    drawn: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Make a miniature data set.

    Args:
        dataset: ava or wasd.
        out: its folder.
        train, val: clips a split (wasd: a category and split); None: 24 and 8 (wasd: 5 and 2).
        seconds: length of each clip.
        seed: of everything; the same seed, the same data.
        drawn: every so manieth of train's people has a drawn face instead of the photograph's; 0: none.
        overwrite: replace a miniature that is there.
        progress: show a progress bar.

    Returns:
        ``out``.

    Raises:
        OptionError: no such data set, or numbers that cannot be.
        OutputError: the folder exists, or cannot be written.
        AsdExplainError: the ``demo`` extra, which the voices come from, is not installed.
    """
    if dataset not in DATASETS:
        raise OptionError(f"no miniature of {dataset!r}; choose from {', '.join(DATASETS)}")
    train = (24 if dataset == "ava" else 5) if train is None else train
    val = (8 if dataset == "ava" else 2) if val is None else val
    if not 0 <= drawn <= 99:
        raise OptionError(f"every {drawn}-th face drawn: give 0 (none) to 99")
    if not (1 <= train <= 99 and 1 <= val <= 99) or not 1.5 <= seconds <= _CLIP_S:
        raise OptionError(f"{train} and {val} clips of {seconds} s: 1 to 99 clips of 1.5 to {_CLIP_S} s can be made")
    out = Path(out)
    with miniature_folder(out, overwrite) as part:
        clips = (ava_clips if dataset == "ava" else wasd_clips)(train, val, seconds, seed, drawn)
        rows = _draw(clips, part / "orig_videos" / "trainval", progress)
        (_write_ava if dataset == "ava" else _write_wasd)(part, clips, rows)
        write_mark(part, _told(dataset, clips, rows, seed))
    return out


def _draw(clips: list[MiniClip], folder: Path, progress: bool) -> dict[str, list[EntityRow]]:
    rows = {}
    for clip in tqdm(clips, desc="clips", disable=None if progress else True, leave=False):
        truth = make_clip(clip.scene, folder / f"{clip.video_id}.mp4")
        rows[clip.video_id] = truth_rows(clip, truth)
        truth.csv_path.unlink()
        truth.mouths_path.unlink()
    return rows


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")


def _write_ava(folder: Path, clips: list[MiniClip], rows: dict[str, list[EntityRow]]) -> None:
    for clip in clips:
        name = f"ava_activespeaker_{clip.split}_v1.0/{clip.video_id}-activespeaker.csv"
        _write_lines(folder / "csv" / name, original_lines(rows[clip.video_id]))


def _write_wasd(folder: Path, clips: list[MiniClip], rows: dict[str, list[EntityRow]]) -> None:
    for split, bodies in zip(SPLITS, ("train_body_orig.csv", "val_orig_body.csv"), strict=True):
        tracks = [row for clip in clips if clip.split == split for row in rows[clip.video_id]]
        _write_lines(folder / "csv" / f"{split}_orig.csv", orig_lines(tracks))
        _write_lines(folder / "csv" / bodies, orig_lines(tracks, body=True))
    (folder / "eval").mkdir()
    with (folder / "eval" / "wasd_metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_METADATA)
        writer.writerows(_metadata(clip, rows[clip.video_id]) for clip in clips)
    lines = []
    for heading, category in _HEADINGS.items():
        names = dict.fromkeys(clip.video_id[:11] for clip in clips if clip.category == category)
        lines += [f"# {heading}", *names]
    _write_lines(folder / "eval" / "dataset_division.txt", iter(lines))


def _metadata(clip: MiniClip, rows: list[EntityRow]) -> list:
    """One line of the metadata; nobody's race, language or gender can be told of a changed photograph."""
    name = CATEGORIES[clip.category]
    people = np.stack([row.labels for row in rows])
    talking, together = float(people.any(0).mean()), float((people.sum(0) > 1).mean())
    face, body = (np.concatenate(boxes) for boxes in ([r.boxes for r in rows], [r.body_boxes for r in rows]))
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (face, body)]
    return [
        *(clip.video_id, clip.category, 0, int(name == "HVN"), int(name == "SI"), 1),
        *(0 if name == "SS" else 1, int(name == "SS"), 0, int(name != "SS"), 1.0, len(rows)),
        *("Unknown", "English", "Unknown", round(float(clip.scene.rate))),
        *(f"{clip.scene.width}x{clip.scene.height}", "Indoor"),
        *(float((areas[0] / areas[1]).mean()), float(areas[1].mean())),
        *(talking, 1 - talking, together),
    ]


def _told(dataset: str, clips: list[MiniClip], rows: dict[str, list[EntityRow]], seed: int) -> dict:
    tracks = {s: [r for c in clips if c.split == s for r in rows[c.video_id]] for s in SPLITS}
    people = {s: [p for c in clips if c.split == s for p in c.scene.people] for s in SPLITS}
    voices = {s: sorted({p.voice.name for p in people[s]}) for s in SPLITS}
    return {
        "dataset": dataset,
        "seed": seed,
        "what": "made of talking photographs by asd_explain.datasets.miniature; no real data set",
        "unseen in val": UNSEEN,
        "photographs": PHOTOS,
        "faces": {s: faces_seen(p.look for p in people[s]) for s in SPLITS},
        "voices": voices,
        "tracks": {s: len(tracks[s]) for s in SPLITS},
        "frames": {s: sum(map(len, tracks[s])) for s in SPLITS},
        "speaking": {s: round(float(np.concatenate([r.labels for r in tracks[s]]).mean()), 4) for s in SPLITS},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m asd_explain.datasets.miniature",
        description="Make miniature data sets of talking photographs in the real ones' files (needs the demo extra).",
    )
    parser.add_argument("--dataset", nargs="+", choices=DATASETS, default=["ava"], help="which (default: ava)")
    parser.add_argument("-o", "--out", type=Path, default=Path("miniature"), help="folder; gets one folder a data set")
    parser.add_argument("--train", type=int, help="clips of train (wasd: a category); default 24, wasd 5")
    parser.add_argument("--val", type=int, help="clips of val (wasd: a category); default 8, wasd 2")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a clip (default: 4)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--drawn",
        type=int,
        default=0,
        metavar="N",
        help="draw the face of every N-th of train's people (default 0: none)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a miniature that is there")
    options = parser.parse_args(argv)
    numbers = {k: getattr(options, k) for k in ("train", "val", "seconds", "seed", "drawn", "overwrite")}

    def work() -> str:
        for name in options.dataset:
            folder = make_miniature(name, options.out / name, progress=True, **numbers)
            log.info("%s: %s", folder, json.dumps(read_mark(folder)))
        return ""

    return run_tool(work)


if __name__ == "__main__":
    sys.exit(main())
