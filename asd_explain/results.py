"""What an explanation says, and how it is written down."""

from __future__ import annotations

import csv
import json
import math
import os
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from asd_explain.ava_format import COLUMNS
from asd_explain.errors import OutputError
from asd_explain.explain.geometry import drawable_frames, drawing_scale
from asd_explain.explain.smooth import smooth_heat
from asd_explain.grid import TimeGrid
from asd_explain.media.probing import ClipInfo
from asd_explain.outputs import check_new
from asd_explain.scoring import Scores
from asd_explain.tracks.track import Track

HYSTERESIS = 0.15
MIN_SEGMENT_S = 0.2
# Smoothing over space that goes with smoothing over time, in cells; see explain/smooth.py.
SMOOTH_CELLS = 0.8

CSV_COLUMNS = (
    *COLUMNS,
    "score",
    "logit",
    "speaking",
    "track",
    "interpolated",
    "audio",
)
RESULT_FILES = ("scores.csv", "segments.json", "heat.npz", "manifest.json")


@dataclass(frozen=True)
class TrackResult:
    """One track and what the network said of it.

    Attributes:
        track: boxes and times of its N source frames.
        scores: logits, gates, heat and shares on the grid of T frames.
        entity_id: the boxes csv's name for it, or "<video>:<track>".
        smooth_s: temporal smoothing of the heat in seconds.
    """

    track: Track
    scores: Scores
    entity_id: str
    smooth_s: float

    @cached_property
    def grid(self) -> TimeGrid:
        """Mapping between source frames and the grid."""
        return TimeGrid(self.track.times_s)

    @cached_property
    def p_speaking(self) -> np.ndarray:
        """(N,) P(speaking) of each source frame."""
        return 1 / (1 + np.exp(-self.logit))

    @cached_property
    def logit(self) -> np.ndarray:
        """(N,) logit of speaking minus logit of silent, float64, of each source frame."""
        margin = self.scores.logits[:, 1].astype(np.float64) - self.scores.logits[:, 0]
        return self.grid.to_source(margin)

    @cached_property
    def smoothed_heat(self) -> dict[str, np.ndarray]:
        """{stream: (T, h, w)} float32 heat after smoothing; not scaled. Frames that draw nothing are NaN."""
        result = {}
        for stream, heat in self.scores.heat.items():
            values = heat.astype(np.float32)
            values[~drawable_frames(values)] = np.nan
            cells = SMOOTH_CELLS if self.smooth_s > 0 else 0.0
            result[stream] = smooth_heat(values, self.smooth_s, cells)
        return result

    @cached_property
    def heat_scale(self) -> dict[str, float]:
        """{stream: value that is drawn as the hottest colour}, one for the whole track; 0 = nothing to draw."""
        return {stream: drawing_scale(heat) for stream, heat in self.smoothed_heat.items()}

    def undrawable(self) -> int:
        """Number of maps (over streams) that were constant, empty or not finite, and so draw nothing."""
        return sum(int((~drawable_frames(heat)).sum()) for heat in self.scores.heat.values())


def hysteresis_segments(
    p: np.ndarray,
    times_s: np.ndarray,
    threshold: float,
    low: float,
    ends_s: np.ndarray,
    min_s: float = MIN_SEGMENT_S,
) -> list[tuple[int, int]]:
    """Stretches of speech: begun where P reaches ``threshold``, ended where it falls below ``low``.

    Args:
        p: (N,) probabilities.
        times_s: (N,) times in seconds.
        threshold: P that begins a segment.
        low: P below which it ends, <= threshold.
        ends_s: (N,) times at which the frames cease to be shown, in seconds.
        min_s: shorter segments are dropped.

    Returns:
        (first row, last row) of each, both included.
    """
    segments, first = [], None
    for i, value in enumerate(p):
        if first is None and value >= threshold:
            first = i
        elif first is not None and not value >= low:
            segments.append((first, i - 1))
            first = None
    if first is not None:
        segments.append((first, len(p) - 1))
    return [(a, b) for a, b in segments if ends_s[b] - times_s[a] >= min_s - 1e-6]


@dataclass
class Result:
    """An explained clip.

    Attributes:
        clip: what is known of the clip.
        tracks: one entry a track, by id.
        threshold: P(speaking) from which a face is called speaking.
        frame_times_s: (F,) times of all source frames in seconds, container clock.
        notes: what a reader must know: no audio track, no face found, a fallback detector, few frames a second.
        has_audio: whether the clip has a sound track; a network that knows no absence was fed silence where not.
        manifest: versions, options, weights, timings; completed when it is saved.
        files: what was written, by kind.
    """

    clip: ClipInfo
    tracks: list[TrackResult]
    threshold: float
    frame_times_s: np.ndarray
    notes: list[str]
    has_audio: bool
    manifest: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def video_id(self) -> str:
        """Name of the clip in csv files: its file name without suffix."""
        return self.clip.path.stem

    def segments(self) -> dict[str, Any]:
        """Who speaks when, with the rule that made the segments; times in seconds on the container's clock."""
        low = max(self.threshold / 2, self.threshold - HYSTERESIS)
        # A frame is shown until the next one; the last one for an average frame's time.
        shown_until = np.append(self.frame_times_s[1:], self.frame_times_s[-1] + float(1 / self.clip.fps))
        found = []
        for item in self.tracks:
            times = item.track.times_s
            ends = shown_until[item.track.frames]
            for a, b in hysteresis_segments(item.p_speaking, times, self.threshold, low, ends):
                found.append(
                    {
                        "track": item.track.track_id,
                        "entity_id": item.entity_id,
                        "start_s": round(float(times[a]), 4),
                        "end_s": round(float(ends[b]), 4),
                        "mean_probability": round(float(item.p_speaking[a : b + 1].mean()), 4),
                    }
                )
        found.sort(key=lambda s: (s["start_s"], s["track"]))
        return {
            "video_id": self.video_id,
            "begins_at_p": self.threshold,
            "ends_below_p": round(low, 4),
            "shortest_s": MIN_SEGMENT_S,
            "clock": "seconds, the source container's clock; end_s is when the last frame ceases to show",
            "output_clock_offset_s": self.manifest.get("output_clock_offset_s", 0.0),
            "audio": "the clip's own" if self.has_audio else "none: the clip has no sound track",
            "segments": found,
        }

    def write_scores(self, path: Path) -> None:
        """Write one row a face and source frame, in AVA-ActiveSpeaker's prediction format and five columns more."""
        rows = []
        width, height = self.clip.width, self.clip.height
        for item in self.tracks:
            boxes = item.track.boxes / np.array([width, height, width, height], np.float32)
            for i, time_s in enumerate(item.track.times_s):
                p = item.p_speaking[i]
                box = [f"{min(max(float(v), 0.0), 1.0):.6f}" for v in boxes[i]]
                rows.append(
                    (
                        time_s,
                        item.track.track_id,
                        [
                            self.video_id,
                            f"{time_s:.3f}",
                            *box,
                            "SPEAKING_AUDIBLE",
                            item.entity_id,
                            f"{p:.6f}",
                            f"{item.logit[i]:.4f}",
                            int(p >= self.threshold),
                            item.track.track_id,
                            int(item.track.interpolated[i]),
                            "own" if self.has_audio else "none",
                        ],
                    )
                )
        rows.sort(key=lambda row: row[:2])
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(CSV_COLUMNS)
            writer.writerows(row for _, _, row in rows)

    def write_heat(self, path: Path) -> None:
        """Write raw heat, gates, shares and times of every track on its grid as compressed NumPy arrays.

        Names: ``<track>.heat.<stream>`` (T, h, w), ``<track>.gates.<stream>`` (T, C), ``<track>.shares`` (T, streams),
        ``<track>.streams``, ``<track>.logits`` (T, 2), ``<track>.times_s`` (T,), ``<track>.scale.<stream>`` (what was
        drawn as the hottest colour); and per source frame ``<track>.frames``, ``<track>.frame_times_s`` (N,),
        ``<track>.boxes`` and ``<track>.bodies`` (N, 4) in pixels.
        """
        arrays: dict[str, np.ndarray] = {"tracks": np.array([t.track.track_id for t in self.tracks], np.int64)}
        for item in self.tracks:
            name = str(item.track.track_id)
            arrays[f"{name}.times_s"] = item.grid.grid_s
            arrays[f"{name}.frames"] = item.track.frames
            arrays[f"{name}.frame_times_s"] = item.track.times_s
            arrays[f"{name}.boxes"] = item.track.boxes
            if item.track.bodies is not None:
                arrays[f"{name}.bodies"] = item.track.bodies
            arrays[f"{name}.logits"] = item.scores.logits
            arrays[f"{name}.shares"] = item.scores.shares
            arrays[f"{name}.streams"] = np.array(item.scores.streams)
            for stream, values in item.scores.heat.items():
                arrays[f"{name}.heat.{stream}"] = values
                arrays[f"{name}.scale.{stream}"] = np.float32(item.heat_scale[stream])
            for stream, values in item.scores.gates.items():
                arrays[f"{name}.gates.{stream}"] = values
        with path.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    def save(self, folder: Path | str, *, prefix: str = "", overwrite: bool = False) -> dict[str, Path]:
        """Write ``scores.csv``, ``segments.json``, ``heat.npz`` and ``manifest.json`` into a folder, all or none.

        Args:
            folder: made if it does not exist.
            prefix: put before each name.
            overwrite: whether existing files may be replaced.

        Returns:
            {name: path}.

        Raises:
            OutputError: when a file exists, or the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
        with NewFiles(overwrite) as new:
            written = self.write_all(new, folder, prefix)
        self.files.update(written)
        return written

    def write_all(self, new: NewFiles, folder: Path, prefix: str) -> dict[str, Path]:
        """Write the four result files through ``new``; they get their names when it is left."""
        paths = {name: folder / f"{prefix}{name}" for name in RESULT_FILES}
        try:
            self.write_scores(new.add(paths["scores.csv"]))
            self.write_heat(new.add(paths["heat.npz"]))
            for name, content in (("segments.json", self.segments()), ("manifest.json", self.manifest)):
                text = json.dumps(_plain(content), indent=1, ensure_ascii=False)
                new.add(paths[name]).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{folder}: results cannot be written ({error.strerror}); is the disk full?") from error
        return paths


def _plain(value: Any) -> Any:
    """The value in JSON's own types; numbers that JSON has no word for become null."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


class NewFiles:
    """Files that appear under their names together when a ``with`` block ends well, and not at all when it fails."""

    def __init__(self, overwrite: bool) -> None:
        self._overwrite = overwrite
        self._pending: list[tuple[Path, Path]] = []

    def add(self, final: Path) -> Path:
        """A hidden path beside ``final``, of the same suffix, to write to.

        Raises:
            OutputError: when ``final`` exists and may not be replaced, or its folder cannot be written.
        """
        check_new(final, self._overwrite)
        hidden = final.with_name(f".{final.stem}.{secrets.token_hex(4)}.part{final.suffix}")
        try:
            hidden.touch()
        except OSError as error:
            raise OutputError(
                f"{final}: cannot be written ({os.strerror(error.errno)}); choose another folder"
            ) from error
        self._pending.append((hidden, final))
        return hidden

    def __enter__(self) -> NewFiles:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                for _, final in self._pending:
                    check_new(final, self._overwrite)
                for hidden, final in self._pending:
                    hidden.replace(final)
        except OSError as failure:
            raise OutputError(f"{final}: cannot be written ({failure.strerror}); is the disk full?") from failure
        finally:
            for hidden, _ in self._pending:
                hidden.unlink(missing_ok=True)
