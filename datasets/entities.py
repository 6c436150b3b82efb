"""Labelled face tracks of a data set: what training and evaluation get, whatever the data set and its place on disk.

    for i, row in enumerate(entities.rows):   # times, boxes, labels: known without touching a picture
        clip = entities.load(i)               # crops and sound, read now

One entity is one annotated track of one person. Its frames lie at the data set's own rate (AVA 25 or so, WASD 10 to
60); MFCC for that rate come from ``asd_explain.media.mfcc.mfcc(clip.waveform, clip.fps)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asd_explain.errors import AsdExplainError, OptionError
from asd_explain.tracks.crops import CROP_SIZE

SPEAKING_AUDIBLE = "SPEAKING_AUDIBLE"
LABEL_NAMES = ("NOT_SPEAKING", SPEAKING_AUDIBLE, "SPEAKING_NOT_AUDIBLE")
"""AVA's labels; a name's place is the ``label_id`` of TalkNet's tables."""


class DataError(AsdExplainError):
    """A data set is incomplete or malformed; the message names the file."""


@dataclass(frozen=True, eq=False)
class EntityRow:
    """One annotated track, without its pictures and its sound.

    Attributes:
        entity_id: the csv's name of the track, unique in its set.
        video_id: the csv's name of the video (for WASD: of the clip cut from it).
        timestamps_s: (T,) float64 seconds on the video's clock, strictly increasing, as written in the csv.
        labels: (T,) int8, 1 speaking and heard, else 0.
        fps: nominal frame rate of the track, frames a second.
        boxes: (T, 4) float64 x1 y1 x2 y2 of the face as shares of the frame, or None where the source has none. As
            written in the csv: the official evaluation compares boxes to 1e-9, which float32 could not keep.
        body_boxes: (T, 4) like ``boxes``, of the body, NaN in frames without one; None where bodies are not read.
        label_names: T of ``LABEL_NAMES``, or None where the source knows 0 and 1 only.
    """

    entity_id: str
    video_id: str
    timestamps_s: np.ndarray
    labels: np.ndarray
    fps: float
    boxes: np.ndarray | None = None
    body_boxes: np.ndarray | None = None
    label_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.timestamps_s)
        if count == 0:
            raise DataError(f"entity {self.entity_id} has no frame")
        for name in ("labels", "boxes", "body_boxes", "label_names"):
            values = getattr(self, name)
            if values is not None and len(values) != count:
                raise DataError(f"entity {self.entity_id}: {len(values)} {name} for {count} timestamps")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise DataError(f"entity {self.entity_id}: a frame rate of {self.fps} is none")

    def __len__(self) -> int:
        return len(self.timestamps_s)


@dataclass(frozen=True, eq=False)
class EntityClip:
    """One track with its pictures and its sound.

    Attributes:
        entity: the track.
        face: (T, 112, 112) uint8 gray, the annotated box cut exactly, aspect ratio not kept.
        body: the same of the body's box, or None where bodies are not read.
        waveform: (N,) float32 in [-1, 1], 16 kHz mono: the samples int(16000 first) up to int(16000 last timestamp),
            which is one frame short of T frames, as in the layout of the field (the features are padded to 4 T steps
            later). A track of one frame has that frame's sound.
        labels: (T,) int8, those of ``entity``.
        fps: frames a second, that of ``entity``.
    """

    entity: EntityRow
    face: np.ndarray
    body: np.ndarray | None
    waveform: np.ndarray
    labels: np.ndarray
    fps: float

    def __post_init__(self) -> None:
        shape = (len(self.entity), CROP_SIZE, CROP_SIZE)
        for name, crops in (("face", self.face), ("body", self.body)):
            if crops is not None and crops.shape != shape:
                raise DataError(f"entity {self.entity.entity_id}: {name} crops are {crops.shape}, not {shape}")

    def __len__(self) -> int:
        return len(self.entity)


class EntitySet(ABC):
    """The tracks of one split of a data set. Picklable: every worker of a ``DataLoader`` opens its own files.

    Attributes:
        rows: the tracks, in the order of the csv.
        with_body: whether clips bring bodies.
    """

    rows: list[EntityRow]
    with_body: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @abstractmethod
    def load(self, index: int) -> EntityClip:
        """The track ``index`` with its pictures and its sound.

        Raises:
            IndexError: there is no such track.
            DataError: a picture or the sound is missing or damaged; the message names the file.
        """

    def sound(self, index: int) -> np.ndarray:
        """The sound of the track ``index`` alone, see :class:`EntityClip`; a set may do that without its pictures.

        Raises:
            IndexError, DataError: as :meth:`load`.
        """
        return self.load(index).waveform

    def select(self, keep: Callable[[EntityRow], bool]) -> EntitySubset:
        """The tracks for which ``keep`` is true, in the same order."""
        return EntitySubset(self, [i for i, row in enumerate(self.rows) if keep(row)])


class EntitySubset(EntitySet):
    """Some tracks of a set.

    Args:
        whole: the set.
        indices: which of its tracks, in the order wanted.
    """

    def __init__(self, whole: EntitySet, indices: list[int]) -> None:
        if not all(0 <= i < len(whole) for i in indices):
            raise OptionError(f"a track outside 0..{len(whole) - 1} was asked for")
        self.whole, self.indices = whole, list(indices)
        self.rows = [whole.rows[i] for i in self.indices]
        self.with_body = whole.with_body

    def load(self, index: int) -> EntityClip:
        """See :meth:`EntitySet.load`."""
        return self.whole.load(self.indices[index])

    def sound(self, index: int) -> np.ndarray:
        """See :meth:`EntitySet.sound`."""
        return self.whole.sound(self.indices[index])


def sample_span(row: EntityRow) -> tuple[int, int]:
    """The first sample of a track's sound on the video's clock at 16 kHz, and how many there are; see EntityClip."""
    from asd_explain.media.audio import RATE  # here: it brings torch, which tables alone do without

    first = int(row.timestamps_s[0] * RATE)
    count = int(row.timestamps_s[-1] * RATE) - first
    return first, count or max(1, round(RATE / row.fps))


def nominal_fps(timestamps_s: np.ndarray, declared: float | None = None) -> float:
    """Frame rate of a track in frames a second.

    The csv rounds times to 10 ms, so the rate of the whole track is taken, (T - 1) / (last - first), which rounding
    moves by less than 0.01 s over its length; a median of differences would turn 30 fps into 33.3. Where frames are
    missing inside a track the rate falls below the video's, and so 4 T steps of MFCC still span the whole track.

    Args:
        timestamps_s: (T,) increasing seconds.
        declared: what a table or the video says; taken as it is.

    Returns:
        frames a second; 25 for a track of one frame of which nothing is declared.
    """
    if declared is not None:
        return float(declared)
    if len(timestamps_s) < 2:
        return 25.0
    return float((len(timestamps_s) - 1) / (timestamps_s[-1] - timestamps_s[0]))
