"""Tracks as files: the layout that the loaders of TalkNet and its kin read.

::

    ROOT/clips_videos/SPLIT/VIDEO/ENTITY/12.34.jpg        a face, of the size of its box
    ROOT/clips_videos_body/SPLIT/VIDEO/ENTITY/12.34.jpg   a body (WASD)
    ROOT/clips_audios/SPLIT/VIDEO/ENTITY.wav              16 kHz mono int16
    ROOT/csv/SPLIT_orig.csv, SPLIT_loader.csv, ...        see asd_explain.datasets.annotations

Read besides: folders without VIDEO (WASD's ``convert_dataset.py``, whose audio folder is ``clip_audio``), named by the
first 11 characters of the entity (TalkNet), and ``_`` for the ``:`` of entity ids (file systems that forbid it).
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from scipy.io import wavfile

from asd_explain.datasets.annotations import LoaderLine, video_of_entity
from asd_explain.datasets.entities import DataError, EntityClip, EntityRow, sample_span
from asd_explain.media.audio import RATE
from asd_explain.tracks.crops import CROP_SIZE

FACES, BODIES, AUDIOS = "clips_videos", "clips_videos_body", "clips_audios"
_FLAT_AUDIOS = "clip_audio"
KINDS = (FACES, BODIES, AUDIOS, _FLAT_AUDIOS)
TAIL_S = 0.5
"""Sound that may be missing at a track's ends, seconds: containers' tracks rarely end together. It reads as silence."""


def crop_name(time_s: float) -> str:
    """File name of the crop at a time."""
    return f"{time_s:.2f}.jpg"


def pixel_box(box: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 px of a box in shares of the frame, cut as the field cuts: corners rounded down.

    Clipped to the frame, and at least a pixel wide and high.

    Raises:
        DataError: the box is not finite.
    """
    if not np.isfinite(box).all():
        raise DataError("there is no box")
    x1, y1, x2, y2 = (int(v * side) for v, side in zip(box, (width, height, width, height), strict=True))
    x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return x1, y1, min(max(x2, x1 + 1), width), min(max(y2, y1 + 1), height)


def as_input(picture: np.ndarray) -> np.ndarray:
    """(h, w) gray or (h, w, 3) BGR uint8 -> (112, 112) uint8, as the published loaders resize."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return cv2.resize(picture, (CROP_SIZE, CROP_SIZE))


def fit_span(waveform: np.ndarray, row: EntityRow, where: Path) -> np.ndarray:
    """A track's sound (n,) at its exact length: what exceeds it is cut off, up to ``TAIL_S`` of silence is added.

    Raises:
        DataError: more is missing, or all of it; names ``where``.
    """
    _, count = sample_span(row)
    if len(waveform) == count:
        return waveform
    if not len(waveform) or count - len(waveform) > TAIL_S * RATE:
        raise DataError(
            f"{where}: {len(waveform) / RATE:.2f} s of sound for {row.entity_id}, which lasts {count / RATE:.2f} s"
        )
    return np.pad(waveform[:count], (0, max(0, count - len(waveform))))


class Dump:
    """Crops and sound of one split in the layout above. Picklable.

    Args:
        root: the data set's folder.
        split: train, val or test.
    """

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = Path(root), split

    def videos(self) -> set[str]:
        """Names of the folders of videos."""
        return {name for kind in (AUDIOS, FACES) for name in _names(self.root / kind / self.split)}

    def crops_folder(self, row: EntityRow, body: bool = False) -> Path:
        """Where a track's crops are, or would be."""
        return self._found(row, (BODIES if body else FACES,), "")

    def audio_path(self, row: EntityRow) -> Path:
        """Where a track's sound is, or would be."""
        return self._found(row, (AUDIOS, _FLAT_AUDIOS), ".wav")

    def _found(self, row: EntityRow, kinds: tuple[str, ...], suffix: str) -> Path:
        entity = row.entity_id
        first = self.root / kinds[0] / self.split / row.video_id / f"{entity}{suffix}"
        if first.exists():
            return first
        videos = dict.fromkeys((row.video_id, entity[:11], video_of_entity(entity), ""))
        for kind in kinds:
            for video in videos:
                for name in dict.fromkeys((entity, entity.replace(":", "_"))):
                    path = self.root / kind / self.split / video / f"{name}{suffix}"
                    if path.exists():
                        return path
        return first

    def load(self, row: EntityRow, with_body: bool) -> EntityClip:
        """Read one track.

        Raises:
            DataError: a crop or the sound is missing or damaged; the message names the file.
        """
        face = self._crops(row, False)
        body = self._crops(row, True) if with_body else None
        return EntityClip(row, face, body, self.sound(row), row.labels, row.fps)

    def _crops(self, row: EntityRow, body: bool) -> np.ndarray:
        folder = self.crops_folder(row, body)
        out = np.empty((len(row), CROP_SIZE, CROP_SIZE), np.uint8)
        for k, time_s in enumerate(row.timestamps_s):
            out[k] = as_input(read_crop(folder / crop_name(time_s)))
        return out

    def sound(self, row: EntityRow) -> np.ndarray:
        """(N,) float32 in [-1, 1]: a track's sound.

        Raises:
            DataError: it is missing or damaged; the message names the file.
        """
        path = self.audio_path(row)
        return fit_span(read_wav(path).astype(np.float32) / 32768, row, path)

    def rows_of(self, lines: list[LoaderLine]) -> list[EntityRow]:
        """Tracks of a loader csv alone, without annotations: times from the names of the crops.

        Raises:
            DataError: a track's folder is missing, or holds another number of crops.
        """
        known = self.videos()
        rows = []
        for line in lines:
            flat = not known or (self.root / FACES / self.split / line.entity_id).is_dir()
            video = video_of_entity(line.entity_id, () if flat else known)
            row = EntityRow(line.entity_id, video, np.arange(len(line.labels), dtype=np.float64), line.labels, line.fps)
            folder = self.crops_folder(row)
            times_s = crop_times(folder)
            if len(times_s) != len(row):
                raise DataError(f"{folder}: {len(times_s)} crops where {len(row)} labels are")
            rows.append(EntityRow(line.entity_id, video, times_s, line.labels, line.fps))
        return rows


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir()]


def crop_times(folder: Path) -> np.ndarray:
    """(n,) float64 increasing seconds: the times of the crops in a folder, by their names.

    Raises:
        DataError: the folder is missing, or a jpg in it is not named by a time.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of crops")
    names = [name for name in os.listdir(folder) if name.endswith(".jpg") and not name.startswith(".")]
    try:
        return np.array(sorted(float(name[:-4]) for name in names))
    except ValueError as error:
        raise DataError(f"{folder}: a crop is not named by its time ({error})") from error


def read_crop(path: Path) -> np.ndarray:
    """One crop: (h, w) or (h, w, 3) BGR uint8.

    Raises:
        DataError: the file is missing or no picture.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(
            f"{path}: the crop cannot be read ({error.strerror or error}); prepare the data again"
        ) from error
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if picture is None or picture.dtype != np.uint8:
        raise DataError(f"{path}: the crop is damaged; prepare the data again")
    return picture[..., :3] if picture.ndim == 3 else picture


def read_wav(path: Path) -> np.ndarray:
    """(n,) int16 of a track's 16 kHz mono wav.

    Raises:
        DataError: the file is missing, damaged, or of another rate, format or number of channels.
    """
    if not path.is_file():
        raise DataError(f"{path}: the sound of the track is missing; prepare the data again")
    try:
        with warnings.catch_warnings():
            # A file that was cut short; what is left of it would be filled up with silence.
            warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
    except (ValueError, OSError, EOFError, wavfile.WavFileWarning) as error:
        raise DataError(f"{path}: the sound is damaged ({error}); prepare the data again") from error
    if rate != RATE or samples.dtype != np.int16 or samples.ndim != 1:
        raise DataError(f"{path}: {rate} Hz {samples.dtype} {samples.shape}; {RATE} Hz mono int16 is needed")
    return samples
