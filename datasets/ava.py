"""AVA-ActiveSpeaker (Roth et al., ICASSP 2020), and what WASD, which has the same form, shares with it.

    AvaSet.dumped("AVA", "train")                          # the layout of asd_explain.datasets.dumped
    AvaSet.streamed("csv/train_orig.csv", "orig_videos")   # straight from the videos

Timestamps are seconds of the video file (AVA annotates 900 to 1800 s of feature films), to 10 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from asd_explain.datasets.annotations import declare_rates, find_table, read_loader, read_tracks
from asd_explain.datasets.dumped import Dump
from asd_explain.datasets.entities import DataError, EntityClip, EntityRow, EntitySet
from asd_explain.datasets.streamed import Videos, find_videos


class Source(Protocol):
    """What gives a track its pictures and its sound: a dump, or the videos."""

    def load(self, row: EntityRow, with_body: bool) -> EntityClip:
        """The track, complete."""

    def sound(self, row: EntityRow) -> np.ndarray:
        """Its sound alone."""


class AvaSet(EntitySet):
    """Face tracks of one split.

    Args:
        rows: the tracks.
        source: where their pictures and sound are.
        with_body: whether clips bring bodies.
    """

    def __init__(self, rows: Sequence[EntityRow], source: Source, with_body: bool = False) -> None:
        self.rows, self.source, self.with_body = list(rows), source, with_body

    @classmethod
    def dumped(cls, root: str | Path, split: str = "train") -> Self:
        """The tracks of a prepared folder.

        Tracks and their order are those of ``csv/SPLIT_loader.csv``; times, boxes and names of labels come from
        ``csv/SPLIT_orig.csv``. One of the two is enough.

        Raises:
            DataError: neither is there, one is malformed, or they disagree.
        """
        return cls(dumped_rows(Path(root), split, False), Dump(Path(root), split))

    @classmethod
    def streamed(
        cls, annotations: str | Path, videos: str | Path | dict[str, Path], split: str = "train", backend: str = "auto"
    ) -> Self:
        """The tracks of annotation csv files, cut out of the videos when asked for.

        Args:
            annotations: a csv, or a folder, see ``find_table``.
            videos: folder with the videos, or paths by video id.
            split: which csv of a folder.
            backend: of ``RandomAccess``.

        Raises:
            DataError: no such files, or malformed ones. A video that is missing is an error when it is loaded.
        """
        return cls(read_tracks(find_table(Path(annotations), split)), _videos(videos, backend))

    def load(self, index: int) -> EntityClip:
        """See :meth:`EntitySet.load`."""
        return self.source.load(self.rows[index], self.with_body)

    def sound(self, index: int) -> np.ndarray:
        """See :meth:`EntitySet.sound`."""
        return self.source.sound(self.rows[index])


def _videos(videos: str | Path | dict[str, Path], backend: str) -> Videos:
    return Videos(videos if isinstance(videos, dict) else find_videos(Path(videos)), backend)


def dumped_rows(root: Path, split: str, with_body: bool) -> list[EntityRow]:
    """The tracks of a prepared folder, by its csv files; see :meth:`AvaSet.dumped`."""
    folder = root / "csv"
    loader = folder / f"{split}_loader.csv"
    lines = read_loader(loader) if loader.is_file() else None
    orig = folder / f"{split}_orig.csv"
    try:
        table = [orig] if orig.is_file() else find_table(folder, split)
    except DataError:
        if lines is None:
            raise DataError(
                f"{folder}: neither {split}_loader.csv nor {split}_orig.csv; prepare the data first"
            ) from None
        return Dump(root, split).rows_of(lines)
    bodies = None
    if with_body:
        try:
            (bodies,) = find_table(folder, split, body=True)
        except DataError:
            bodies = None  # the crops are there, by time; only their boxes stay unknown
    rows = read_tracks(table, bodies)
    return rows if lines is None else declare_rates(rows, lines, loader)
