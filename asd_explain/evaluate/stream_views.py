"""Each face track as a network's streams see it, encoded once: as it is, held still, tiny, with the face hidden.

A view is a way to look at the pictures of a track; the sound is chosen apart. Under each view every visual stream of
the network has its pooled embeddings, so that sounds can be swapped and streams taken away without encoding again.

Views: ``own``; ``still``, the middle picture held through; ``tiny16``, ``tiny24``, ``tiny40``, the crops shrunk as if
the face were so many pixels wide, and enlarged again; and of the body alone ``hidden``, the face painted gray. The name
of a view with ``_still`` behind it is the same view held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from asd_explain.datasets.face_clips import CACHE_VERSION, FaceClip, save_arrays, wide_box
from asd_explain.datasets.shared_clips import ClipEntry
from asd_explain.evaluate.pooled import (
    Conditions,
    PooledCache,
    PooledTrack,
    crops_beside,
    held_stream,
    pool_track,
    pooled_stream,
)
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.scoring import classify
from asd_explain.together import Encoded, beside, black_face, longest, present
from asd_explain.tracks.crops import CROP_SIZE, OUTSIDE, body_box

TINY_PX = (16, 24, 40)
TINY = tuple(f"tiny{px}" for px in TINY_PX)
#: Width and height of the body box in sides of the face, see :func:`asd_explain.tracks.crops.body_box`.
_BODY_SIDES = (3.0, 4.9)


@dataclass(frozen=True)
class ViewedTrack:
    """One face track at the fusion point of one network, under several views.

    Attributes:
        pooled: the track with its own sound; ``pooled.name`` identifies it.
        views: {view: {visual stream: (T, C) pooled embeddings}}.
        truth: (T,) 1 speaking, 0 silent, NaN unknown, where it is known exactly; else None.
    """

    pooled: PooledTrack
    views: dict[str, dict[str, torch.Tensor]]
    truth: np.ndarray | None = None


def shrunk(crops: np.ndarray, width: int, height: int) -> np.ndarray:
    """(T, H, W) uint8 crops shrunk to ``width`` x ``height`` pixels by area, then enlarged again bilinearly."""
    size = crops.shape[2], crops.shape[1]
    small = (cv2.resize(c, (min(width, size[0]), min(height, size[1])), interpolation=cv2.INTER_AREA) for c in crops)
    return np.stack([cv2.resize(c, size, interpolation=cv2.INTER_LINEAR) for c in small])


def face_in_body(boxes: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where a track's face lies in its body crops: x1 y1 x2 y2 in crop pixels, one rectangle for the whole track.

    The face box grown to 1.4 times its sides (brow to chin becomes hair to neck), over all frames: a rectangle that
    moved with the box would tell of the jaw.

    Args:
        boxes: (T, 4) face boxes, px.
        size: (width, height) of the picture, px.
    """
    bodies = body_box(boxes, *size).astype(np.float64)
    faces = np.stack([wide_box(box) for box in boxes.astype(np.float64)])
    corner, scale = np.tile(bodies[:, :2], 2), CROP_SIZE / np.tile(bodies[:, 2:] - bodies[:, :2], 2)
    inside = (faces - corner) * scale
    low, high = np.floor(inside[:, :2].min(0)), np.ceil(inside[:, 2:].max(0))
    x1, y1, x2, y2 = np.clip(np.concatenate([low, high]), 0, CROP_SIZE).astype(int)
    return int(x1), int(y1), int(x2), int(y2)


def hide_face(bodies: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(T, 112, 112) body crops with the face painted gray; see :func:`face_in_body`."""
    x1, y1, x2, y2 = face_in_body(boxes, size)
    hidden = bodies.copy()
    hidden[:, y1:y2, x1:x2] = OUTSIDE
    return hidden


def further_views(model: FusionBackbone, clip: FaceClip, geometry: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """{"view.stream": (T, C)} of what :class:`PooledTrack` does not have: the body, and the views in ``names``."""
    found: dict[str, torch.Tensor] = {}
    n, middle = len(clip), len(clip) // 2
    has_body = "body" in model.streams
    for name, px in zip(TINY, TINY_PX, strict=True):
        if name in names:
            tiny = {"face": shrunk(clip.faces[geometry], px, px)}
            if "body" in model.crops:
                tiny["body"] = shrunk(clip.bodies, *(round(side * px) for side in _BODY_SIDES))
            for stream in [s for s in tiny if s in model.streams]:
                others = crops_beside(model, stream, tiny)
                held = {k: v[middle] for k, v in others.items()}
                found[f"{name}.{stream}"] = pooled_stream(model, stream, tiny[stream], others)
                found[f"{name}_still.{stream}"] = held_stream(model, stream, tiny[stream][middle], n, held)
    if has_body:
        found["own.body"] = pooled_stream(model, "body", clip.bodies)
        found["still.body"] = held_stream(model, "body", clip.bodies[middle], n)
        if "hidden" in names:
            hidden = hide_face(clip.bodies, clip.boxes, clip.size)
            found["hidden.body"] = pooled_stream(model, "body", hidden)
            found["hidden_still.body"] = held_stream(model, "body", hidden[middle], n)
    return {key: value.numpy() for key, value in found.items()}


class ViewCache:
    """Viewed tracks of one network, kept below the cache's folder under the hash of the weights.

    Args:
        folder: the cache's folder.
        model: with ``card`` and ``weights_sha256`` set.
        geometry: how faces are cut.
        names: which of ``TINY`` and "hidden" to make.
        keep: whether to write to the cache; reading faces from it is always done.
    """

    def __init__(
        self, folder: Path, model: FusionBackbone, geometry: str, names: Sequence[str] = (), keep: bool = True
    ) -> None:
        self.model, self.geometry, self.names, self.keep = model, geometry, tuple(names), keep
        self.base = PooledCache(folder, model, geometry)
        seen = f"{geometry}.beside" if model.beside else geometry
        self.folder = (
            Path(folder) / f"views_v1.{CACHE_VERSION}" / f"{model.card.name}.{model.weights_sha256[:16]}.{seen}"
        )

    def get(self, entry: ClipEntry) -> list[ViewedTrack]:
        """The clip's tracks under all views."""
        clips: list[FaceClip] | None = None
        if self.keep:
            tracks = self.base.get(entry)
        else:
            clips = self.base.clips.get(entry)
            tracks = [pool_track(self.model, clip, self.geometry) for clip in clips]
        if "body" not in self.model.streams and not set(self.names) & set(TINY):
            return [_viewed(track, {}) for track in tracks]
        # What is asked for is part of the name: a file is complete or not there.
        path = self.folder / f"{entry.name.replace('/', '.')}.{'-'.join(('body', *self.names))}.npz"
        if self.keep and path.is_file():
            with np.load(path) as stored:
                further = dict(stored)
        else:
            clips = self.base.clips.get(entry) if clips is None else clips
            further = {
                f"{i}.{key}": value
                for i, clip in enumerate(clips)
                for key, value in further_views(self.model, clip, self.geometry, self.names).items()
            }
            if self.keep:
                save_arrays(path, further)
        return [
            _viewed(t, {k.split(".", 1)[1]: v for k, v in further.items() if k.split(".")[0] == str(i)})
            for i, t in enumerate(tracks)
        ]

    def collect(self, entries: Iterable[ClipEntry]) -> list[ViewedTrack]:
        """All tracks of some clips."""
        return [track for entry in entries for track in self.get(entry)]


def view_clip(model: FusionBackbone, clip: FaceClip, geometry: str, names: Sequence[str] = ()) -> ViewedTrack:
    """A track with ``own`` and ``still`` views and those in ``names``, uncached, with its truth."""
    further = further_views(model, clip, geometry, names)
    return _viewed(pool_track(model, clip, geometry), further, clip.truth)


def _viewed(track: PooledTrack, further: dict[str, np.ndarray], truth: np.ndarray | None = None) -> ViewedTrack:
    views: dict[str, dict[str, torch.Tensor]] = {"own": {"face": track.face}, "still": {"face": track.still}}
    for key, value in further.items():
        view, stream = key.split(".")
        views.setdefault(view, {})[stream] = torch.from_numpy(np.asarray(value))
    return ViewedTrack(track, views, truth)


def _marked(track: PooledTrack) -> PooledTrack:
    return replace(track, audio=torch.from_numpy(track.voiced.astype(np.float32))[:, None])


class Scorer:
    """Gives the margin of one network for tracks under a view, a sound, and some of its streams.

    Args:
        model: the network.
        tracks: all tracks of one split; other voices come from them.
        seed: of the draws of voices, noises and shifts, the same for every network.
    """

    def __init__(self, model: FusionBackbone, tracks: list[ViewedTrack], seed: int = 0) -> None:
        self.model = model
        self.conditions = Conditions(model, [t.pooled for t in tracks], seed)
        self._tracks = [t.pooled for t in tracks]
        self._contexts: dict[str, dict[str, torch.Tensor]] = {}
        # The same draws over "is this frame voiced" in place of embeddings say where the drawn sound is a voice.
        marks = {t.pooled.name: _marked(t.pooled) for t in tracks}
        self._marked = marks, Conditions(model, list(marks.values()), seed)

    def voiced(self, track: ViewedTrack, sound: str) -> np.ndarray | None:
        """(T,) bool, frames in which what is heard under "own", "other" or "shifted" is a voice; None as in margin."""
        marks, conditions = self._marked
        given = conditions.inputs(marks[track.pooled.name], sound)
        return None if given is None else given[0][:, 0].numpy() > 0.5

    def _context(self, track: PooledTrack) -> dict[str, torch.Tensor]:
        """{"context": (1, T, K, C)} for a network that sees several candidates; see :mod:`asd_explain.together`."""
        if self.model.scored_together == 1:
            return {}
        if track.name not in self._contexts:
            clip = track.name.split("#")[0]
            others = [t for t in self._tracks if t.name.split("#")[0] == clip and t.name != track.name]
            own, *found = (Encoded(float(t.times_s[0]), {"face": t.face[None]}) for t in (track, *others))
            frames = [present(own, other) for other in found]
            chosen = longest(frames, self.model.scored_together - 1)
            faces = [others[k].face for k in chosen]
            self._contexts[track.name] = beside(faces, [frames[k] for k in chosen], black_face(self.model))
        return self._contexts[track.name]

    @torch.inference_mode()
    def margin(
        self,
        track: ViewedTrack,
        sound: str = "own",
        view: str = "own",
        streams: Sequence[str] | None = None,
    ) -> np.ndarray | None:
        """(T,) float64 logit of speaking minus logit of silent.

        A clip without a sound track is scored as the command does it: a network that knows of absence is told so,
        others are fed silence. A network that sees several candidates is shown the track beside the others of its clip
        that share most frames with it, as they are, whatever the view.

        Args:
            track: of the split that was given.
            sound: "own", "silence", "noise", "other" or "shifted", see :mod:`asd_explain.evaluate.pooled`.
            view: how the pictures look.
            streams: which streams are there; default all that the network has.

        Returns:
            None where the sound needs one that the clip does not have, or no stream is left.
        """
        streams = tuple(self.model.streams) if streams is None else streams
        if sound == "own" and not track.pooled.has_audio and self.model.learned_absence:
            streams = tuple(s for s in streams if s != "audio")
        pooled: dict[str, torch.Tensor] = {}
        for stream in self.model.streams:
            if stream not in streams:
                continue  # the network puts its learned absent state there
            if stream == "audio":
                given = self.conditions.inputs(track.pooled, sound)
                if given is None:
                    return None
                pooled[stream] = given[0][None]
            else:
                pooled[stream] = track.views[view][stream][None]
        if not pooled:
            return None
        logits = classify(self.model, pooled | self._context(track.pooled))[0].double().numpy()
        return logits[:, 1] - logits[:, 0]
