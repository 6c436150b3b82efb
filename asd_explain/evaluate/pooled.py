"""Pooled embeddings of face tracks, cached once, and the conditions under which a network is looked at.

What reaches the fusion point is small: 256 numbers a frame. With it on disk, every experiment that begins at the fusion
point (fitting a gate, swapping the sound, removing channels) takes seconds where the pictures would take minutes.

Conditions, each on the same face track:

* ``own``: the clip's own sound;
* ``other``: another person's voice of the same split;
* ``silence``: digital silence; ``noise``: near-silence, white noise of -80 to -50 dB full scale;
* ``still``: the track's middle picture held through, under the clip's own sound;
* ``shifted``: the own sound, moved by half a second to two (turned over at the ends).

In all but ``own`` nobody who is seen can be heard, so "speaking" is a mistake, as far as the clips keep their promise.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asd_explain.datasets.face_clips import CACHE_VERSION, FaceClip, FaceClipCache, save_arrays
from asd_explain.datasets.shared_clips import ClipEntry, voice_name
from asd_explain.media.audio import Audio
from asd_explain.media.features import AUDIO_FEATURES, need_mfcc
from asd_explain.models.fusion_backbone import FusionBackbone

log = logging.getLogger(__name__)

CONDITIONS = ("own", "other", "silence", "noise", "still", "shifted")
NEGATIVES = CONDITIONS[1:]
#: Frames that an encoder sees at a time, beside its halo.
_CHUNK = 150
_VOICED_DB = 25.0


@dataclass(frozen=True)
class PooledTrack:
    """What one face track gives at the fusion point of one network.

    Attributes:
        name: the clip's name and the track's id.
        split, group, person: of the clip, see :class:`~asd_explain.datasets.shared_clips.ClipEntry`.
        has_audio: whether the clip has a sound track.
        times_s: (T,) seconds from the clip's first frame.
        boxes: (T, 4) px.
        size: (width, height) of the clip, px.
        audio: (T, Ca) audio embedding of the clip's own sound.
        face: (T, Cf) pooled face embedding.
        still: (T, Cf) the same of the middle picture held through.
        voiced: (T,) bool, frames whose sound is at most 25 dB below the loud (95th percentile) of its track.
    """

    name: str
    split: str
    group: str
    person: str
    has_audio: bool
    times_s: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int]
    audio: torch.Tensor
    face: torch.Tensor
    still: torch.Tensor
    voiced: np.ndarray

    def __len__(self) -> int:
        return len(self.face)


def voiced_frames(mfcc: np.ndarray, below_db: float = _VOICED_DB) -> np.ndarray:
    """(T,) bool from (4T, 13) MFCC: frames whose energy is within ``below_db`` of the 95th percentile.

    Coefficient 0 of this family is the natural logarithm of the window's energy. Digital silence is never voiced.
    """
    energy = mfcc[:, 0].reshape(-1, 4).mean(1)
    loud = np.percentile(energy, 95)
    return (energy > loud - below_db * math.log(10) / 10) & (energy > -10)


@torch.inference_mode()
def pooled_stream(
    model: FusionBackbone, stream: str, crops: np.ndarray, beside: Mapping[str, np.ndarray] | None = None
) -> torch.Tensor:
    """(T, C) pooled embedding of (T, 112, 112) uint8 crops of a visual stream, in chunks that overlap: exact.

    Args:
        model: the network.
        stream: whose maps are pooled.
        crops: of that stream.
        beside: {name: (T, 112, 112) uint8} of other crops that the maps depend on, see :func:`crops_beside`.
    """
    maps_of, device = getattr(model, f"{stream}_maps"), _device(model)
    parts = []
    for first in range(0, len(crops), _CHUNK):
        low, high = max(0, first - model.halo_frames), min(len(crops), first + _CHUNK + model.halo_frames)
        own, *others = (torch.from_numpy(x[low:high])[None].to(device) for x in (crops, *(beside or {}).values()))
        pooled = model.pool(maps_of(own, **dict(zip(beside or {}, others, strict=True))))
        parts.append(pooled[0, first - low : first - low + _CHUNK])
    return torch.cat(parts)


def crops_beside(model: FusionBackbone, stream: str, crops: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of {name: crops} those that the maps of a stream depend on beside its own (ASDnB: the body), where there."""
    return {name: crops[name] for name in model.beside.get(stream, ()) if name in crops}


def held_stream(
    model: FusionBackbone,
    stream: str,
    picture: np.ndarray,
    length: int,
    beside: Mapping[str, np.ndarray] | None = None,
) -> torch.Tensor:
    """(T, C) pooled embedding of one (112, 112) picture held for ``length`` frames.

    Away from the ends all frames are alike, so only the ends are computed.

    Args:
        model, stream: as for :func:`pooled_stream`.
        picture: the stream's.
        length: frames.
        beside: {name: (112, 112)} of the other pictures that are held.
    """
    edge = model.halo_frames
    short = min(length, 2 * edge + 1)
    others = {name: np.repeat(x[None], short, 0) for name, x in (beside or {}).items()}
    ends = pooled_stream(model, stream, np.repeat(picture[None], short, 0), others)
    if short == length:
        return ends
    return torch.cat((ends[:edge], ends[edge : edge + 1].expand(length - 2 * edge, -1), ends[short - edge :]))


@torch.inference_mode()
def pooled_audio(model: FusionBackbone, mfcc: np.ndarray | torch.Tensor) -> torch.Tensor:
    """(T, Ca) audio embedding of (4T, 13) MFCC."""
    need_mfcc(model)
    return model.audio_embedding(torch.as_tensor(mfcc)[None].to(_device(model)))[0]


@torch.inference_mode()
def heard(model: FusionBackbone, audio: Audio | None, frames: int) -> torch.Tensor:
    """(T, Ca) audio embedding of a sound that begins with the first frame, by the feature that the network hears.

    Args:
        model: the network.
        audio: with ``start_s`` 0, or None: silence.
        frames: T.
    """
    feature, _ = AUDIO_FEATURES[model.audio_feature]
    return model.audio_embedding(feature(audio, 0.0, frames)[None].to(_device(model)))[0]


def _own_sound(model: FusionBackbone, clip: FaceClip) -> torch.Tensor:
    if model.audio_feature == "mfcc":
        return pooled_audio(model, clip.mfcc)
    # The stored samples end with the track: the last window of another feature reaches 15 ms into silence.
    audio = Audio(clip.waveform.astype(np.float32) / 32768, 0.0) if clip.has_audio else None
    return heard(model, audio, len(clip))


def _device(model: FusionBackbone) -> torch.device:
    return next(iter(model.parameters())).device


def pool_track(model: FusionBackbone, clip: FaceClip, geometry: str) -> PooledTrack:
    """Run the encoders of a network over one face track."""
    face = clip.faces[geometry]
    others = crops_beside(model, "face", {"body": clip.bodies})
    middle = len(face) // 2
    entry = clip.entry
    return PooledTrack(
        name=f"{entry.name}#{clip.track_id}",
        split=entry.split,
        group=entry.group,
        person=entry.person,
        has_audio=clip.has_audio,
        times_s=clip.times_s,
        boxes=clip.boxes,
        size=clip.size,
        audio=_own_sound(model, clip),
        face=pooled_stream(model, "face", face, others),
        still=held_stream(model, "face", face[middle], len(face), {k: v[middle] for k, v in others.items()}),
        voiced=voiced_frames(clip.mfcc) if clip.has_audio else np.zeros(len(face), bool),
    )


class PooledCache:
    """Pooled tracks of one network in one crop geometry, one npz a clip beside the cache of crops.

    Args:
        folder: the cache's folder.
        model: with ``card`` set, as :func:`asd_explain.weights.store.load` leaves it.
        geometry: how faces are cut.
    """

    def __init__(self, folder: Path, model: FusionBackbone, geometry: str) -> None:
        self.clips = FaceClipCache(folder)
        self.model = model
        self.geometry = geometry
        # Before crops could lie beside a stream's own, such networks were shown none.
        seen = f"{geometry}.beside" if model.beside else geometry
        self.folder = Path(folder) / f"pooled_v{CACHE_VERSION}" / f"{model.card.name}.{model.weights_sha256[:8]}.{seen}"

    def get(self, entry: ClipEntry) -> list[PooledTrack]:
        """The clip's tracks, read from the cache or computed now."""
        path = self.folder / f"{entry.name.replace('/', '.')}.npz"
        if not path.is_file():
            self._write(path, [pool_track(self.model, clip, self.geometry) for clip in self.clips.get(entry)])
        with np.load(path) as stored:
            return [self._read(stored, entry, int(i)) for i in range(int(stored["n"]))]

    def collect(self, entries: Iterable[ClipEntry]) -> list[PooledTrack]:
        """All tracks of some clips."""
        return [track for entry in entries for track in self.get(entry)]

    @staticmethod
    def _write(path: Path, tracks: list[PooledTrack]) -> None:
        arrays: dict[str, np.ndarray] = {"n": np.array(len(tracks))}
        for i, t in enumerate(tracks):
            arrays |= {f"{i}.{k}": np.asarray(getattr(t, k)) for k in ("name", "has_audio", "times_s", "boxes", "size")}
            arrays |= {f"{i}.{k}": getattr(t, k).numpy() for k in ("audio", "face", "still")}
            arrays[f"{i}.voiced"] = t.voiced
        save_arrays(path, arrays)

    @staticmethod
    def _read(stored: np.lib.npyio.NpzFile, entry: ClipEntry, i: int) -> PooledTrack:
        return PooledTrack(
            name=str(stored[f"{i}.name"]),
            split=entry.split,
            group=entry.group,
            person=entry.person,
            has_audio=bool(stored[f"{i}.has_audio"]),
            times_s=stored[f"{i}.times_s"],
            boxes=stored[f"{i}.boxes"],
            size=tuple(int(v) for v in stored[f"{i}.size"]),
            audio=torch.from_numpy(stored[f"{i}.audio"]),
            face=torch.from_numpy(stored[f"{i}.face"]),
            still=torch.from_numpy(stored[f"{i}.still"]),
            voiced=stored[f"{i}.voiced"],
        )


class Conditions:
    """Gives each track's fusion input under each condition.

    What is drawn at random (whose voice, where it starts, how loud the noise, how far the shift) depends on the seed,
    the track's name and ``turn`` only, so that every network and every ranking is asked the same questions.

    Args:
        model: for the embeddings of silence and noise.
        tracks: all tracks of one split; voices come from those with sound and another person.
        seed: of the draws.
    """

    def __init__(self, model: FusionBackbone, tracks: list[PooledTrack], seed: int = 0) -> None:
        self.tracks = tracks
        self.seed = seed
        longest = max(len(t) for t in tracks)
        self._silence = heard(model, None, longest)
        rng = np.random.default_rng(seed)
        self._noises = []
        for db in np.linspace(-80, -50, 7):
            wave = rng.standard_normal(640 * (longest + 1)).astype(np.float32) * 10 ** (db / 20)
            self._noises.append(heard(model, Audio(wave, 0.0), longest))
        self._voices: dict[str, list[PooledTrack]] = {}
        seen = set()
        for t in tracks:
            clip = t.name.split("#")[0]
            if t.has_audio and t.voiced.mean() > 0.3 and clip not in seen:
                seen.add(clip)
                self._voices.setdefault(voice_name(t.person), []).append(t)

    def rng(self, track: PooledTrack, turn: int = 0) -> np.random.Generator:
        """The generator that decides this track's draws."""
        digest = hashlib.sha256(f"{self.seed}/{turn}/{track.name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "little"))

    def inputs(self, track: PooledTrack, condition: str, turn: int = 0) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(T, Ca) audio and (T, Cf) face, or None where the condition needs a sound that the clip does not have."""
        rng = self.rng(track, turn)
        n = len(track)
        if condition == "own":
            return track.audio, track.face
        if condition == "silence":
            return self._silence[:n], track.face
        if condition == "noise":
            return self._noises[rng.integers(len(self._noises))][:n], track.face
        if condition == "still":
            return (track.audio, track.still) if track.has_audio else None
        if condition == "shifted":
            shift = int(rng.integers(13, 51)) * int(rng.choice([-1, 1]))
            shift = shift if abs(shift) < n - 5 else n // 2
            return (track.audio.roll(shift, 0), track.face) if track.has_audio else None
        if condition == "other":
            people = sorted(set(self._voices) - {voice_name(track.person)})
            if not people:
                return None
            parts, need = [], n
            while need > 0:
                voices = self._voices[people[rng.integers(len(people))]]
                voice = voices[rng.integers(len(voices))].audio
                first = int(rng.integers(max(1, len(voice) - need + 1)))
                parts.append(voice[first : first + need])
                need -= len(parts[-1])
            return torch.cat(parts), track.face
        raise ValueError(f"no condition called {condition!r}; there are {', '.join(CONDITIONS)}")
