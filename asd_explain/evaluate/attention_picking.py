"""Which stretches of the face tracks explanations are measured on: where a network hears speech, and where it does not.

The choice is made by the network that is measured, from its scores of whole tracks. So every network is asked about
its own decisions, and none about frames on which it is undecided throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from asd_explain.errors import OptionError
from asd_explain.evaluate.pooled import crops_beside, pooled_audio, pooled_stream
from asd_explain.evaluate.regions import body_regions, face_regions
from asd_explain.evaluate.segments import Segment
from asd_explain.media.mfcc import STEPS_PER_FRAME, aligned_mfcc
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.scoring import classify

if TYPE_CHECKING:
    from asd_explain.evaluate.attention_material import CutTrack

#: Shorter segments, below 0.52 s, show too little of speech.
MIN_FRAMES = 13
_SPEAKING = 0.5

RegionsOf = Callable[["CutTrack", slice, str], dict[str, dict[str, np.ndarray]]]


def track_regions(track: CutTrack, part: slice, geometry: str) -> dict[str, dict[str, np.ndarray]]:
    """{"face", "body": {region: (T, 112, 112) bool}} of a part of a track; empty where mouth and eyes are unknown."""
    boxes, landmarks = track.boxes[part], track.landmarks[part]
    mouths = None if track.mouths is None else track.mouths[part]
    if not np.isfinite(landmarks).any() and (mouths is None or not np.isfinite(mouths).any()):
        return {}
    return {
        "face": face_regions(boxes, landmarks, mouths, track.size, geometry),
        "body": body_regions(boxes, landmarks, mouths, track.size),
    }


@torch.inference_mode()
def p_speaking(model: FusionBackbone, track: CutTrack, geometry: str) -> np.ndarray:
    """(T,) float64 P(speaking) of a whole track, as the pipeline scores it.

    A clip without a sound track is silence to a network that knows of no absence.
    """
    seen = _crops(model, track, geometry)
    pooled = {s: pooled_stream(model, s, seen[s], crops_beside(model, s, seen)) for s in seen if s in model.streams}
    if track.mfcc is not None:
        pooled["audio"] = pooled_audio(model, track.mfcc)
    elif not model.learned_absence:
        pooled["audio"] = pooled_audio(model, aligned_mfcc(None, 0.0, len(track)))
    logits = classify(model, {stream: values[None] for stream, values in pooled.items()})[0]
    return logits.double().softmax(-1)[:, 1].cpu().numpy()


def _crops(model: FusionBackbone, track: CutTrack, geometry: str) -> dict[str, np.ndarray]:
    crops = {"face": track.faces[geometry], "body": track.body}
    return {name: crops[name] for name in model.crops if name in crops}


@dataclass(frozen=True)
class _Stretch:
    """Frames ``first`` to ``first + length`` of a track, its mean P(speaking) and the share called speaking."""

    track: int
    first: int
    length: int
    mean: float
    share: float


def pick_segments(
    model: FusionBackbone,
    tracks: Sequence[CutTrack],
    geometry: str,
    frames: int = 40,
    per_clip: int = 2,
    regions_of: RegionsOf | None = None,
) -> list[Segment]:
    """Choose what is measured of each clip.

    First the stretch with the highest mean P(speaking) among those of which at least half of the frames have 0.5 and
    more: the speaking one; there may be none. Then the one with the lowest, from any track of the clip, overlapping
    nothing that is taken: the silent one. Further ones alternate. Full length goes before P: a shorter stretch, of at
    least ``MIN_FRAMES``, is taken only where the clip has no full one of the kind, a silent one with more than half of
    its frames called speaking only where there is no other.

    Args:
        model: the network that is measured.
        tracks: of any number of clips. Segments are copies, so the tracks may be let go.
        geometry: how the network's faces are cut.
        frames: grid frames in a segment.
        per_clip: segments of a clip, at most.
        regions_of: (track, part, geometry) -> {stream: {region: mask}}; :func:`track_regions` unless given.

    Returns:
        Clips in the order of their first track, and in each the speaking one first.

    Raises:
        OptionError: too few frames or segments, or a track has no crops in that geometry.
    """
    if frames < MIN_FRAMES or per_clip < 1:
        raise OptionError(f"{frames} frames, {per_clip} a clip: give {MIN_FRAMES} frames and 1 segment or more")
    regions_of = track_regions if regions_of is None else regions_of
    by_clip: dict[str, list[CutTrack]] = {}
    for track in tracks:
        if geometry not in track.faces:
            raise OptionError(f"{track.name}: no faces cut as {geometry!r}; there are {', '.join(track.faces)}")
        by_clip.setdefault(track.clip, []).append(track)
    segments = []
    for together in by_clip.values():
        scores = [p_speaking(model, t, geometry) if len(t) >= MIN_FRAMES else np.zeros(0) for t in together]
        for stretch in _choose(scores, frames, per_clip):
            track, part = together[stretch.track], slice(stretch.first, stretch.first + stretch.length)
            segments.append(_segment(model, track, part, geometry, regions_of))
    return segments


def _choose(scores: Sequence[np.ndarray], frames: int, per_clip: int) -> list[_Stretch]:
    """Stretches of one clip from P(speaking) of its tracks, each (T,), in the order in which they are taken."""
    free = [(track, 0, len(p)) for track, p in enumerate(scores)]
    taken = []
    for number in range(per_clip):
        found = [s for track, first, last in free for s in _stretches(track, scores[track], first, last, frames)]
        if number % 2 == 0:
            found = [s for s in found if s.share >= 0.5]
            best = max(found, key=lambda s: (s.length, s.mean), default=None)
        else:
            best = max(found, key=lambda s: (s.share <= 0.5, s.length, -s.mean), default=None)
        if best is None:
            continue
        taken.append(best)
        end = best.first + best.length
        free = [
            (track, low, high)
            for track, first, last in free
            for low, high in (
                [(first, last)]
                if track != best.track or last <= best.first or first >= end
                else [(first, best.first), (end, last)]
            )
        ]
    return taken


def _stretches(track: int, p: np.ndarray, first: int, last: int, frames: int) -> list[_Stretch]:
    """All stretches of a free part of a track, as long as it gives, at most ``frames``."""
    length = min(frames, last - first)
    if length < MIN_FRAMES:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(p[first:last], length)
    means, shares = windows.mean(1), (windows >= _SPEAKING).mean(1)
    return [_Stretch(track, first + i, length, float(means[i]), float(shares[i])) for i in range(len(windows))]


def _segment(model: FusionBackbone, track: CutTrack, part: slice, geometry: str, regions_of: RegionsOf) -> Segment:
    crops = {stream: values[part].copy() for stream, values in _crops(model, track, geometry).items()}
    regions = regions_of(track, part, geometry)
    steps = slice(STEPS_PER_FRAME * part.start, STEPS_PER_FRAME * part.stop)
    return Segment(
        name=f"{track.name}@{part.start}",
        clip=track.clip,
        kind=track.kind,
        crops=crops,
        mfcc=None if track.mfcc is None else np.asarray(track.mfcc[steps], np.float32).copy(),
        truth=None if track.truth is None else track.truth[part].copy(),
        regions={stream: regions[stream] for stream in crops if stream in regions},
        times_s=track.times_s[part].copy(),
        decisive=None if track.decisive is None else track.decisive[part].copy(),
    )
