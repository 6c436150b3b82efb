"""From one track's faces to scores, gates and heat, in a stream: memory stays small however long the track is.

Crops arrive source frame by source frame and are put on the 25-fps grid. The encoders run over pieces that overlap by
exactly what a frame depends on, so cutting into pieces changes nothing; crops and maps of a piece are then dropped.
What stays are small vectors: pooled embeddings, gates, heat cells. The temporal classifier, which is recurrent in both
directions, runs at the track's end over windows that overlap and fade into each other.

TalkNet, BIAS and ASDnB hear by averages over the whole clip's sound, which is not there yet when a piece is encoded. A
piece is heard with ``audio_context_frames`` of sound on either side (which goes on where the track ends). A track no
longer than a window is heard again as a whole before it is classified, so that its logits are exact. Gates of a clip's
scope are those of a piece, and so are gates and shares at the fusion point of TalkNet, BIAS and LoCoNet, to which
attention carries the whole clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from asd_explain.explain.base import Explainer
from asd_explain.explain.shares import modality_shares
from asd_explain.grid import GRID_FPS, grid_length
from asd_explain.media.audio import Audio
from asd_explain.media.features import AUDIO_FEATURES
from asd_explain.stages import Timings

PIECE_FRAMES = 50  # 2 s encoded at a time
# The classifiers of this family are recurrent and remember for a minute and more: cut into windows side by side, P
# changes by up to 0.4 at a border even with 10 s of context thrown away. Windows that overlap densely and fade into
# each other have no borders: each frame's logits are a weighted mean over all windows that hold it. With a window every
# 3 frames P is within 0.005 of one on every frame, wherever the grid begins (real tracks of 17 s, all four networks).
WINDOW_FRAMES = 250  # 10 s
HOP_FRAMES = 3
BATCH_WINDOWS = 8


@dataclass
class Scores:
    """What the network said of one track, on the grid of T frames.

    Attributes:
        logits: (T, 2) float32, column 1 = speaking.
        gates: {stream: (T, C)} float16 in (0, 1).
        heat: {stream: (T, h, w)} float16, raw.
        shares: (T, streams) float32 that sum to 1.
        streams: names of the streams, in the order of ``shares``.
    """

    logits: np.ndarray
    gates: dict[str, np.ndarray]
    heat: dict[str, np.ndarray]
    shares: np.ndarray
    streams: list[str] = field(default_factory=list)


def window_starts(length: int, window: int, hop: int, phase: int = 0) -> list[int]:
    """First frames of windows that cover ``length`` frames: one every ``hop``, and one that ends with the track.

    Args:
        length: frames of the track, more than ``window``.
        window, hop: frames.
        phase: shift of the inner windows, 0 <= phase < hop.
    """
    return sorted({0, *range(phase, length - window, hop), length - window})


def classify(
    model: nn.Module,
    pooled: dict[str, torch.Tensor],
    window: int = WINDOW_FRAMES,
    hop: int = HOP_FRAMES,
    phase: int = 0,
) -> torch.Tensor:
    """Run the fusion point and the classifier over a whole track, in overlapping windows that fade into each other.

    A track no longer than one window is classified as it is. Otherwise a frame's logits are the mean over all windows
    that hold it, weighted by a Hann window, so that what a window says near its ends, with little context on one side,
    hardly counts. What is said of a frame depends on no more than ``window`` frames on either side.

    Args:
        model: a backbone with ``fuse``.
        pooled: {stream: (1, T, C)} embeddings of the whole track.
        window, hop: frames.
        phase: shift of the windows' grid; the result should not depend on it.

    Returns:
        (1, T, 2) logits.
    """
    length = next(iter(pooled.values())).shape[1]
    if length <= window:
        return model.fuse(pooled).logits
    device = next(iter(pooled.values())).device
    fade = torch.hann_window(window + 2, periodic=False, device=device)[1:-1]
    total = torch.zeros(length, 2, device=device)
    weight = torch.zeros(length, 1, device=device)
    starts = window_starts(length, window, hop, phase)
    for first in range(0, len(starts), BATCH_WINDOWS):
        batch = starts[first : first + BATCH_WINDOWS]
        logits = model.fuse(
            {stream: torch.cat([values[:, s : s + window] for s in batch]) for stream, values in pooled.items()}
        ).logits
        for start, piece in zip(batch, logits, strict=True):
            counts = fade.clone()
            # The track's own ends are no borders: there is nothing beyond them that a window could lack. The windows
            # there weigh as much as all those together that would begin (end) within a tenth of a window beyond.
            if start == 0:
                counts[: window // 2] = 1.0
            if start == length - window:
                counts[window // 2 :] = 1.0
            if start in (0, length - window):
                counts *= 0.1 * window / hop
            total[start : start + window] += piece * counts[:, None]
            weight[start : start + window] += counts[:, None]
    return (total / weight)[None]


class TrackScorer:
    """Scores one track as its crops come in.

    Args:
        model: a backbone with ``encode``, ``fuse`` and ``halo_frames``.
        explainer: makes the heat of each piece.
        audio: the clip's sound, or None where it has no sound track.
        start_s: the track's first time in seconds; grid frame 0.
        timings: where stage times are counted ("audio", "network", "explain").
        piece: grid frames encoded at a time.

    Attributes:
        start_s: as given.
        pooled: {stream: (1, T, C)} embeddings of the whole track, once it is finished.
    """

    def __init__(
        self,
        model: nn.Module,
        explainer: Explainer,
        audio: Audio | None,
        start_s: float,
        timings: Timings,
        piece: int = PIECE_FRAMES,
    ) -> None:
        self._model, self._explainer, self._audio = model, explainer, audio
        self.start_s, self._timings, self._piece = start_s, timings, piece
        self._device = next(model.parameters()).device
        self._crops: dict[str, list[np.ndarray]] = {}
        self._dropped = 0  # grid frames whose crops are gone
        self._encoded = 0  # grid frames encoded
        self._pooled: dict[str, list[torch.Tensor]] = {}
        self._heat: dict[str, list[np.ndarray]] = {}
        self._gates: dict[str, list[np.ndarray]] = {}
        self._shares: list[np.ndarray] = []
        self.pooled: dict[str, torch.Tensor] = {}

    def add(self, crops: dict[str, np.ndarray]) -> None:
        """Take the crops (112, 112) uint8 of the next grid frame, by stream ("face", and "body" where it is seen)."""
        for stream, crop in crops.items():
            self._crops.setdefault(stream, []).append(crop)
        if self._arrived() - self._encoded >= self._piece + self._model.halo_frames:
            self._encode(self._encoded + self._piece)

    def _arrived(self) -> int:
        return self._dropped + len(self._crops["face"])

    def _sound(self, first: int, frames: int) -> torch.Tensor:
        """(1, 4 * frames, C) of the feature that the network hears, from a grid frame on."""
        feature, _ = AUDIO_FEATURES[getattr(self._model, "audio_feature", "mfcc")]
        return feature(self._audio, self.start_s + first / GRID_FPS, frames)[None].to(self._device)

    @torch.inference_mode()
    def _encode(self, until: int, *, last: bool = False) -> None:
        first, halo = self._encoded, self._model.halo_frames
        begin, end = max(0, first - halo), min(self._arrived(), until + halo)
        with self._timings("audio"):
            # A network that knows of absence is told that there is no sound track; others are fed silence.
            deaf = self._audio is None and getattr(self._model, "learned_absence", False)
            context = getattr(self._model, "audio_context_frames", None)
            hears_from, hears_to = begin, end
            if context is not None:
                hears_from = max(0, first - context)
                hears_to = until if last else until + context
            sound = None if deaf else self._sound(hears_from, hears_to - hears_from)
        with self._timings("network"):
            inputs = {
                stream: torch.from_numpy(np.stack(crops[begin - self._dropped : end - self._dropped]))[None]
                for stream, crops in self._crops.items()
            }
            inputs = {stream: values.to(self._device) for stream, values in inputs.items()}
            inputs["audio"] = sound if context is None else None
            pooled, maps = self._model.encode(**inputs)
            inside = slice(first - begin, until - begin)
            pooled = {stream: values[:, inside] for stream, values in pooled.items()}
            if context is not None:
                heard = self._model.audio_embedding(sound)
                pooled["audio"] = heard[:, first - hears_from : until - hears_from]
            for stream, values in pooled.items():
                self._pooled.setdefault(stream, []).append(values)
            maps = {stream: values[:, inside] for stream, values in maps.items()}
            output = self._model.fuse(pooled, maps)
        with self._timings("explain"):
            for stream, values in self._explainer.heat(self._model, {}, output=output).items():
                self._heat.setdefault(stream, []).append(values.half().cpu().numpy())
            # Gates and shares are frame by frame, they need no more context than the embeddings.
            for stream, values in output.gates.items():
                self._gates.setdefault(stream, []).append(values[0].half().cpu().numpy())
            self._shares.append(modality_shares(output)[1][0].float().cpu().numpy())
        self._encoded = until
        keep_from = max(0, until - halo)
        for crops in self._crops.values():
            del crops[: keep_from - self._dropped]
        self._dropped = keep_from

    @torch.inference_mode()
    def finish(self) -> Scores:
        """Score what is left and run the temporal classifier over the whole track."""
        if self._encoded < self._arrived():
            self._encode(self._arrived(), last=True)
        pooled = {stream: torch.cat(parts, 1) for stream, parts in self._pooled.items()}
        if getattr(self._model, "audio_context_frames", None) is not None and self._arrived() <= WINDOW_FRAMES:
            with self._timings("audio"):
                sound = self._sound(0, self._arrived())
            with self._timings("network"):
                pooled["audio"] = self._model.audio_embedding(sound)
        self.pooled = pooled
        with self._timings("network"):
            logits = classify(self._model, pooled)
        return Scores(
            logits=logits[0].float().cpu().numpy(),
            gates={stream: np.concatenate(parts) for stream, parts in self._gates.items()},
            heat={stream: np.concatenate(parts) for stream, parts in self._heat.items()},
            shares=np.concatenate(self._shares),
            streams=list(self._gates),
        )


class GridFeeder:
    """Puts a track's source frames onto its grid: each grid frame gets the source frame nearest in time, in a stream.

    A source frame's crop is cut only when some grid frame wants it, and at most once. Equal to
    :attr:`asd_explain.grid.TimeGrid.source_of_grid`, which needs all times at once.

    Args:
        sink: called once a grid frame, in order, with what the source frame's ``cut`` gave.
    """

    def __init__(self, sink: Callable[[dict[str, np.ndarray]], None]) -> None:
        self._sink = sink
        self._start_s: float | None = None
        self._fed = 0
        self._waiting: tuple[float, Callable[[], dict[str, np.ndarray]]] | None = None

    def push(self, time_s: float, cut: Callable[[], dict[str, np.ndarray]]) -> None:
        """Take the next source frame; ``cut`` makes its crops when they are wanted."""
        if self._waiting is None:
            self._start_s = time_s
        else:
            # Half of the tie's slack in grid.nearest: the earlier frame serves grid times up to the middle.
            middle = (self._waiting[0] + time_s) / 2 + 0.5e-6
            self._feed(int(np.floor((middle - self._start_s) * GRID_FPS)) + 1)
        self._waiting = (time_s, cut)

    def flush(self) -> None:
        """The track ends with the last frame pushed."""
        if self._waiting is not None:
            self._feed(grid_length(self._start_s, self._waiting[0]))
            self._waiting = None

    def _feed(self, until: int) -> None:
        if until > self._fed:
            crops = self._waiting[1]()
            while self._fed < until:
                self._sink(crops)
                self._fed += 1
