"""Does a map stay dark where nobody speaks? Raw heat of silent tracks against that of the same clip's speaking frames.

Only raw heat can be compared between tracks; what is drawn has been scaled for each track. Of every raw map two numbers
are kept, its mean and its hottest cell, so that a clip's tracks can be compared long after their maps are gone.

Only what was measured is known. "Silent" are stretches of tracks that are silent in all that was measured: no frame of
any of the track's segments is called speaking. Elsewhere such a track may speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from asd_explain.errors import OptionError
from asd_explain.evaluate.paired import by_clip, mean_interval
from asd_explain.evaluate.placement import finite_mean

#: {name in the tables: attribute of SilentHeat}.
FIGURES = {"mean": "relative_mean", "peak": "relative_peak"}


@dataclass(frozen=True)
class Level:
    """How much heat each of T frames has, whatever its place.

    Attributes:
        mean: (T,) float64, >= 0, mean raw heat of a frame's cells; NaN where the map is not finite.
        peak: (T,) float64, >= 0, raw heat of the frame's hottest cell; NaN where the map is not finite.

    Raises:
        OptionError: not as many of one as of the other.
    """

    mean: np.ndarray
    peak: np.ndarray

    def __post_init__(self) -> None:
        for name in ("mean", "peak"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if self.mean.ndim != 1 or self.mean.shape != self.peak.shape:
            raise OptionError(f"levels must be (T,), as many means as peaks, not {self.mean.shape}, {self.peak.shape}")

    def of(self, frames: np.ndarray) -> Level:
        """The level of the frames that are True in (T,) ``frames``."""
        return Level(self.mean[frames], self.peak[frames])


def level(raw: np.ndarray) -> Level:
    """The level of raw heat (T, h, w), before any smoothing or scaling.

    Raises:
        OptionError: no maps of at least one cell.
    """
    raw = np.asarray(raw, np.float64)
    if raw.ndim != 3 or not raw.shape[1] * raw.shape[2]:
        raise OptionError(f"raw heat must be (T, h, w), not {raw.shape}")
    finite = np.isfinite(raw).all((1, 2))
    raw = np.where(finite[:, None, None], raw, 0.0)
    return Level(np.where(finite, raw.mean((1, 2)), np.nan), np.where(finite, raw.max((1, 2)), np.nan))


@dataclass(frozen=True)
class SilentHeat:
    """How much raw heat silent tracks get.

    Attributes:
        mean: mean raw heat of a cell, over all cells and frames.
        peak: mean over the frames of the hottest cell's raw heat.
        relative_mean, relative_peak: the same, divided by that of the clip's speaking frames, >= 0: 0 is a map that
            stays dark where nobody speaks, 1 one that cannot tell. NaN where nobody speaks in the clip, or its
            speaking frames have no heat either.
        frames, speaking_frames: how many frames, with finite maps, stand behind either.
    """

    mean: float
    peak: float
    relative_mean: float
    relative_peak: float
    frames: int
    speaking_frames: int


def silent_track_heat(silent: Sequence[Level], speaking: Sequence[Level]) -> SilentHeat:
    """Heat of silent tracks, absolute and relative to the level of the same clip's speaking frames.

    Args:
        silent: raw levels of a clip's silent tracks, a part each.
        speaking: raw levels of frames of the same clip that speak, of any number of tracks; the same explainer, network
            and stream. Frames weigh alike on either side.
    """
    mean, peak, frames = _means(silent)
    others_mean, others_peak, others = _means(speaking)
    return SilentHeat(
        mean=mean,
        peak=peak,
        relative_mean=mean / others_mean if others_mean > 0 else float("nan"),
        relative_peak=peak / others_peak if others_peak > 0 else float("nan"),
        frames=frames,
        speaking_frames=others,
    )


def _means(parts: Sequence[Level]) -> tuple[float, float, int]:
    """Means over all finite frames: of the map's mean, of its peak; and how many frames."""
    means = np.concatenate([np.zeros(0), *(part.mean for part in parts)])
    peaks = np.concatenate([np.zeros(0), *(part.peak for part in parts)])
    return finite_mean(means), finite_mean(peaks), int(np.isfinite(means).sum())


def level_rows(raw: dict[str, np.ndarray]) -> list[dict]:
    """A record's "level": {"stream", "mean": [T numbers], "peak": [T numbers]} for each {stream: (T, h, w)}."""
    kept = {stream: level(values) for stream, values in raw.items()}
    return [{"stream": stream, "mean": own.mean.tolist(), "peak": own.peak.tolist()} for stream, own in kept.items()]


def silence_rows(records: Sequence[dict], method: str) -> list[dict]:
    """Heat of a method on every clip's silent tracks.

    Args:
        records: of :func:`asd_explain.evaluate.attention.measure`, of one network. Of each are read "segment"
            ("clip#track@first frame"), "clip", "kind", "called_speaking" [T] and the method's "level".
        method: its name. Controls are no exception: a fixed blob has exactly 1, random numbers about 1.

    Returns:
        {"clip", "kind", "stream", and the attributes of :class:`SilentHeat`}: a row for each clip and stream with
        both a silent track and a frame called speaking.
    """
    clips: dict[str, list[dict]] = {}
    for record in records:
        if method in record["methods"]:
            clips.setdefault(record["clip"], []).append(record)
    found = []
    for clip, own in clips.items():
        loud = {_track(record) for record in own if any(record["called_speaking"])}
        streams = dict.fromkeys(row["stream"] for record in own for row in record["methods"][method]["level"])
        for stream in streams:
            silent, speaking = [], []
            for record in own:
                for row in record["methods"][method]["level"]:
                    if row["stream"] == stream:
                        kept = Level(row["mean"], row["peak"])
                        if _track(record) in loud:
                            speaking.append(kept.of(np.asarray(record["called_speaking"], bool)))
                        else:
                            silent.append(kept)
            heat = silent_track_heat(silent, speaking)
            if heat.frames and heat.speaking_frames:
                found.append({"clip": clip, "kind": own[0]["kind"], "stream": stream, **asdict(heat)})
    return found


def _track(record: dict) -> str:
    """ "clip#track" of "clip#track@first frame"; a clip's name may hold an @ too."""
    return record["segment"].rpartition("@")[0]


def silence_means(rows: Sequence[dict], seed: int = 0) -> list[dict]:
    """Means over clips, each clip counting once.

    Args:
        rows: of :func:`silence_rows`.
        seed: of the bootstrap.

    Returns:
        {"stream", "of": "mean" or "peak", "mean": the relative heat, "low", "high": its 95 % interval over clips,
        "clips": how many, "frames", "speaking_frames": in these clips}; none where no clip has a number.
    """
    found = []
    for stream in dict.fromkeys(row["stream"] for row in rows):
        for of, figure in FIGURES.items():
            own = [row for row in rows if row["stream"] == stream and np.isfinite(row[figure])]
            if own:
                values = by_clip((row["clip"] for row in own), (row[figure] for row in own))
                mean, low, high = mean_interval(values, seed=seed)
                counts = {key: sum(row[key] for row in own) for key in ("frames", "speaking_frames")}
                same = {"stream": stream, "of": of, "clips": len(values)}
                found.append({**same, "mean": mean, "low": low, "high": high, **counts})
    return found
