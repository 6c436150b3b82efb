"""The Columbia panel discussion (Chakravarty and Tuytelaars, ECCV 2016), labelled person by person.

    ColumbiaSet.streamed("col_labels/fusion", "columbia.mp4")

``col_labels/fusion/NAME.txt`` as TalkNet's demo unpacks it: lines of frame, x, y, size and label by tabs. Frames count
at 29.97 a second; boxes are squares in pixels of a picture of half the video's size (640 x 360 for 1280 x 720). Of the
six people the field reports five: abbas is left out of the mean.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from asd_explain.datasets.annotations import text_of
from asd_explain.datasets.ava import AvaSet
from asd_explain.datasets.entities import DataError, EntityRow
from asd_explain.datasets.streamed import Videos
from asd_explain.media.probing import probe

PEOPLE = ("abbas", "bell", "boll", "lieb", "long", "sick")
REPORTED = ("bell", "boll", "lieb", "long", "sick")
FPS = 30000 / 1001
_SCALE = 2  # the video's pixels for one of the labels'
_MOST = 10**9  # what frame numbers and pixels never reach
_GAP_FRAMES = 10  # labels further apart than this belong to two tracks


def read_people(folder: Path, video_id: str, width: int, height: int) -> list[EntityRow]:
    """Tracks of the label files, person by person; a track ends where frames without a label follow.

    Args:
        folder: with one ``NAME.txt`` a person.
        video_id: goes into the rows.
        width, height: of the video, px.

    Raises:
        DataError: no label file, or a malformed line.
    """
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise DataError(f"{folder}: no label files (NAME.txt) in it")
    rows = []
    for path in paths:
        table = _read_person(path)
        cuts = [0, *(k for k, (a, b) in enumerate(pairwise(table[:, 0]), 1) if b - a > _GAP_FRAMES), len(table)]
        for first, last in pairwise(cuts):
            part = table[first:last]
            x, y, size = (_SCALE * part[:, k].astype(np.float64) for k in (1, 2, 3))
            rows.append(
                EntityRow(
                    entity_id=f"{video_id}_{part[0, 0]:06d}_{part[-1, 0]:06d}:{path.stem}",
                    video_id=video_id,
                    timestamps_s=part[:, 0] / FPS,
                    labels=part[:, 4].astype(np.int8),
                    fps=FPS,
                    boxes=np.stack([x / width, y / height, (x + size) / width, (y + size) / height], axis=1),
                )
            )
    return rows


def _read_person(path: Path) -> np.ndarray:
    """(n, 5) int64 frame, x, y, size, label in order of frame; of a frame labelled twice the first line counts."""
    lines = []
    for number, text in enumerate(text_of(path, "label file").splitlines(), 1):
        if not text.strip():
            continue
        try:
            values = [int(cell) for cell in text.split("\t")[:5]]
        except ValueError as error:
            raise DataError(f"{path}, line {number}: whole numbers by tabs are needed ({error})") from error
        if (
            len(values) < 5
            or values[3] <= 0
            or values[4] not in (0, 1)
            or values[0] < 0
            or max(map(abs, values)) > _MOST
        ):
            raise DataError(f"{path}, line {number}: not frame, x, y, size and label 0 or 1: {text!r}")
        lines.append(values)
    if not lines:
        raise DataError(f"{path}: no label in it")
    table = np.array(lines, np.int64)
    _, first = np.unique(table[:, 0], return_index=True)
    return table[first]


class ColumbiaSet(AvaSet):
    """Face tracks of the panel; the person is what follows the colon of an entity's name."""

    @classmethod
    def streamed(cls, annotations: str | Path, videos: str | Path, split: str = "test", backend: str = "auto") -> Self:
        """The tracks, cut out of the video when asked for.

        Args:
            annotations: folder of the label files.
            videos: the video.
            split: not looked at, there is only one.
            backend: of ``RandomAccess``.

        Raises:
            DataError: no label file, or a malformed one.
            ClipError: the video cannot be read.
        """
        path = Path(videos)
        info = probe(path)
        rows = read_people(Path(annotations), path.stem, info.width, info.height)
        return cls(rows, Videos({path.stem: path}, backend))


def person_of(row: EntityRow) -> str:
    """The name of a track's person."""
    return row.entity_id.rpartition(":")[2]
