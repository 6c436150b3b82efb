"""Batches: chunks of face tracks, each looked at once and heard several times.

To encode a face costs far more than to encode its sound, so each disturbed view of a chunk is paired with several
sounds, whose labels are certain or the teacher's:

* ``own``: the clip's sound, disturbed; label of the track;
* ``silent``: digital silence, near-silence, noise or music alone; nobody speaks;
* ``other``: another person's voice; whom we see does not speak;
* ``asked``: the own sound moved by 0.6 or 1.5 s, or backwards (the teacher decides; nobody is asked where it was not),
  or no sound track at all (label of the track).

A share of the views is frozen: one picture held through, of which no sound makes a speaker. A batch is a pure function
of the seed and its number, so that a training that was cut off goes on as if it had not been.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from asd_explain.errors import OptionError
from asd_explain.media.audio import Audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.training._tables import FromTable
from asd_explain.training.augment_sound import SoundAugment, augment_sound, music_like, near_silence, noise
from asd_explain.training.augment_view import ViewAugment, augment_view
from asd_explain.training.corpus import TrainTrack
from asd_explain.training.teacher import SHIFTS

SOUNDS = ("own", "silent", "other", "asked")
_SAMPLES = 640  # 16 kHz samples a grid frame
_LOUD = 0.1  # RMS of noise and music that stand alone


@dataclass(frozen=True)
class SamplerConfig(FromTable):
    """How batches are drawn.

    Attributes:
        chunks: face chunks a batch.
        frames: grid frames a chunk.
        frozen: P(a view is one picture held through).
        body: P(the body is looked at as well), where the network has a body stream.
        face_absent: P(the face stream is absent for one sound, the body being there).
        body_absent: P(the body stream is absent for one sound, although it was looked at).
        sound_only: P(both visual streams are absent for the own or the silent sound).
        groups: how often a frame of each group of clips is drawn, against the others.
    """

    _table = "sampler"

    chunks: int = 12
    frames: int = 75
    frozen: float = 0.12
    body: float = 0.5
    face_absent: float = 0.25
    body_absent: float = 0.3
    sound_only: float = 0.03
    groups: tuple[tuple[str, float], ...] = (
        ("tracks", 1.0),
        ("conversations", 2.0),
        ("single", 1.5),
        ("listening", 1.0),
        ("talking_photos", 1.0),
    )

    def __post_init__(self) -> None:
        self._check_number(("chunks",), 2, 4096)
        self._check_number(("frames",), 25, 500)
        self._check_number(("frozen", "body", "face_absent", "body_absent", "sound_only"), 0, 1)
        pairs = isinstance(self.groups, tuple) and all(isinstance(p, tuple) and len(p) == 2 for p in self.groups)
        if not (pairs and all(isinstance(f, int | float) and math.isfinite(f) and f >= 0 for _, f in self.groups)):
            raise OptionError(f"[sampler] groups = {self.groups!r} is not a table of group = factor, not negative")


@dataclass
class Batch:
    """N chunks of T frames, each with S sounds.

    Attributes:
        face: (N, T, 112, 112) uint8.
        body: (M, T, 112, 112) uint8, of the chunks in ``body_of`` only; M may be 0.
        body_of: (M,) int64 numbers of these chunks.
        mfcc: (N, S, 4T, 13) float32.
        present: (N, S, 3) bool: which of audio, face, body the network is given.
        target: (N, S, T) float32 in [0, 1]: P(speaking) to be learnt.
        weight: (N, S, T) float32, 0 where nothing is known.
        lips: (N, T) float32 in [0, 1]: whether the lips talk, heard or not, for the heads that only see.
        lips_weight: (N, T) float32, 0 where that is not known.
        teacher_face: (N, T, F) float16 the teacher's face embeddings; NaN where unknown.
        teacher_audio: (N, T, A) float16 of the own sound; NaN where unknown.
        matched: (N, T) bool: frames in which the person who is seen is heard (for the loss of synchrony).
    """

    face: torch.Tensor
    body: torch.Tensor
    body_of: torch.Tensor
    mfcc: torch.Tensor
    present: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    lips: torch.Tensor
    lips_weight: torch.Tensor
    teacher_face: torch.Tensor
    teacher_audio: torch.Tensor
    matched: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(**{key: value.to(device, non_blocking=True) for key, value in vars(self).items()})


class Sampler:
    """Draws batches.

    Args:
        tracks: what to draw from.
        config, view, sound: how.
        seed: of all draws.
        body: whether the network has a body stream.
        absence: whether it knows of absent streams.
        rank, ranks: this process's number among several, which draw different batches.

    Raises:
        OptionError: there are no tracks, or no two voices.
    """

    def __init__(
        self,
        tracks: list[TrainTrack],
        config: SamplerConfig,
        view: ViewAugment,
        sound: SoundAugment,
        *,
        seed: int = 0,
        body: bool = True,
        absence: bool = True,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.tracks, self.config, self.view, self.sound = tracks, config, view, sound
        self.seed, self.body, self.absence, self.rank, self.ranks = seed, body, absence, rank, ranks
        factor = dict(config.groups)
        drawn = np.array([len(t) * factor.get(t.clip.entry.group, 1.0) for t in tracks])
        if not len(tracks) or drawn.sum() <= 0:
            raise OptionError("there are no face tracks to draw from; look at [data] groups and [sampler] groups")
        self._share = drawn / drawn.sum()
        self._voices: dict[str, list[TrainTrack]] = {}
        for t in tracks:
            if t.voiced > 0.3:
                self._voices.setdefault(t.voice, []).append(t)
        if len(self._voices) < 2:
            raise OptionError("voices of at least two people are needed, for the sounds that do not match; add clips")

    def batch(self, number: int) -> Batch:
        """Batch ``number`` (0, 1, ...)."""
        rng = np.random.default_rng([self.seed, number * self.ranks + self.rank])
        picks = rng.choice(len(self.tracks), self.config.chunks, p=self._share)
        rows = [self._chunk(self.tracks[i], rng) for i in picks]
        bodies = [(i, row["body"]) for i, row in enumerate(rows) if row["body"] is not None]
        stacked = {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0] if key != "body"}
        shape = (0, *rows[0]["face"].shape)
        return Batch(
            body=torch.from_numpy(np.stack([b for _, b in bodies]) if bodies else np.zeros(shape, np.uint8)),
            body_of=torch.tensor([i for i, _ in bodies], dtype=torch.int64),
            **stacked,
        )

    def _chunk(self, track: TrainTrack, rng: np.random.Generator) -> dict[str, np.ndarray | None]:
        length, clip = self.config.frames, track.clip
        first = int(rng.integers(0, max(1, len(track) - length + 1)))
        wanted = np.arange(first, first + length)
        index = np.minimum(wanted, len(track) - 1)
        known = (wanted < len(track)).astype(np.float32)
        frozen = rng.random() < self.config.frozen
        seen = np.full(length, index[rng.integers(length)]) if frozen else index
        look_at_body = self.body and rng.random() < self.config.body
        view = augment_view(
            clip.wide[seen],
            clip.bodies[seen] if look_at_body else None,
            track.face_in_body[seen] if look_at_body else None,
            rng,
            self.view,
        )
        own = np.where(np.isnan(track.own[index]), 0, track.own[index])
        own_known = known * ~np.isnan(track.own[index])
        lips = track.lips[index]
        lips_known = known * ~np.isnan(lips)
        never = np.zeros(length, np.float32)
        sounds, targets, weights, present = [], [], [], []

        def add(mfcc: torch.Tensor, target: np.ndarray, weight: np.ndarray, streams: tuple[bool, bool, bool]) -> None:
            sounds.append(mfcc.numpy())
            targets.append(never if frozen else target)
            weights.append(known if frozen else weight)
            present.append(streams)

        wave = self._own_sound(track, first, length)
        streams = [self._streams(rng, view.body is not None, frozen, kind) for kind in SOUNDS]
        if clip.has_audio:
            add(_mfcc(augment_sound(wave, rng, self.sound)), own, own_known, streams[0])
        else:
            add(_mfcc(near_silence(length * _SAMPLES, rng)), never, known, streams[0])
        add(_mfcc(self._nobody(length * _SAMPLES, rng)), never, known, streams[1])
        add(self._other_voice(track, length, rng), never, known, streams[2])
        asked = rng.integers(3)
        if asked == 2 and self.absence:
            # Without any sound track, lips alone say who seems to speak.
            nothing = _mfcc(np.zeros(length * _SAMPLES, np.float32))
            add(nothing, np.nan_to_num(lips), lips_known, (False, *streams[3][1:]))
        else:
            add(*self._asked(track, index, first, length, known, bool(asked), rng), streams[3])

        lesson = track.lesson
        width_face, width_audio = (0, 0) if lesson is None else (lesson.face.shape[1], lesson.audio.shape[1])
        teach_face = lesson is not None and not view.mouth_hidden
        taught = lesson.still[index] if teach_face and frozen else lesson.face[index] if teach_face else None
        heard = lesson.audio[index] if lesson is not None and clip.has_audio else None

        def features(values: np.ndarray | None, width: int) -> np.ndarray:
            rows = np.full((length, width), np.nan, np.float16)
            if values is not None:
                rows[known > 0] = values[known > 0]
            return rows

        return {
            "face": view.face,
            "body": view.body,
            "mfcc": np.stack(sounds),
            "target": np.stack(targets).astype(np.float32),
            "weight": np.stack(weights).astype(np.float32),
            "present": np.array(present),
            "lips": never if frozen else np.nan_to_num(lips).astype(np.float32),
            "lips_weight": (known if frozen else lips_known).astype(np.float32),
            "teacher_face": features(taught, width_face or FEATURES[0]),
            "teacher_audio": features(heard, width_audio or FEATURES[1]),
            "matched": (own > 0.7) & (own_known > 0) & (not frozen) & clip.has_audio & (not view.mouth_hidden),
        }

    def _streams(self, rng: np.random.Generator, body: bool, frozen: bool, kind: str) -> tuple[bool, bool, bool]:
        face_gone, body_gone, alone = rng.random(3)
        if not self.absence:
            return True, True, body
        # Unseen, a held picture is no reason for the voice to be somebody else's.
        if kind in ("own", "silent") and not frozen and alone < self.config.sound_only:
            return True, False, False
        if body and face_gone < self.config.face_absent:
            return True, False, True
        return True, True, body and body_gone >= self.config.body_absent

    @staticmethod
    def _own_sound(track: TrainTrack, first: int, length: int) -> np.ndarray:
        wave = np.zeros(length * _SAMPLES, np.float32)
        piece = track.clip.waveform[first * _SAMPLES : (first + length) * _SAMPLES]
        wave[: len(piece)] = piece.astype(np.float32) / 32768
        return wave

    @staticmethod
    def _nobody(n: int, rng: np.random.Generator) -> np.ndarray:
        kind, level = rng.integers(4), 10 ** rng.uniform(-1.7, 0.3)
        if kind == 0:
            return np.zeros(n, np.float32)
        if kind == 1:
            return near_silence(n, rng)
        sound = (
            music_like(n, rng) if kind == 2 else noise(n, rng, str(rng.choice(["white", "pink", "brown", "household"])))
        )
        return (sound * (_LOUD * level / max(1e-9, float(np.sqrt(np.mean(np.square(sound))))))).astype(np.float32)

    def _other_voice(self, track: TrainTrack, length: int, rng: np.random.Generator) -> torch.Tensor:
        people = [name for name in self._voices if name != track.voice]
        voices = self._voices[people[rng.integers(len(people))]]
        other = voices[rng.integers(len(voices))]
        first = int(rng.integers(0, max(1, len(other) - length + 1)))
        # Disturbed like the own voice: else a clean sound would tell that it is somebody else's.
        return _mfcc(augment_sound(self._own_sound(other, first, length), rng, self.sound))

    def _asked(
        self,
        track: TrainTrack,
        index: np.ndarray,
        first: int,
        length: int,
        known: np.ndarray,
        moved: bool,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        lesson, n = track.lesson, len(track)
        asked = known if lesson is not None and track.clip.has_audio else np.zeros_like(known)
        wave = track.clip.waveform
        if moved:
            shift = int(rng.choice(SHIFTS))
            # The teacher's embeddings went round the clip's ends, so the sound does too.
            wave = np.roll(np.pad(wave, (0, max(0, n * _SAMPLES - len(wave))))[: n * _SAMPLES], shift * _SAMPLES)
            said = lesson.shifted[shift][index] if lesson is not None else known
        else:
            wave = wave[::-1]
            said = lesson.reversed[index] if lesson is not None else known
        heard = np.zeros(length * _SAMPLES, np.float32)
        piece = wave[first * _SAMPLES : (first + length) * _SAMPLES]
        heard[: len(piece)] = piece.astype(np.float32) / 32768
        return _mfcc(augment_sound(heard, rng, self.sound)), said, asked


#: Widths of the teacher's features, for tracks that it was not asked about.
FEATURES = (512, 256)


def _mfcc(wave: np.ndarray) -> torch.Tensor:
    """(4T, 13) of (640 T,) samples."""
    return aligned_mfcc(Audio(wave, 0.0), 0.0, len(wave) // _SAMPLES)
