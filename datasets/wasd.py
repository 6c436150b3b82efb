"""WASD (Roxo et al., 2023): faces and bodies in the wild, in AVA's form.

    WasdSet.dumped("WASD", "val")
    WasdSet.streamed("WASD/csv", "WASD/orig_videos", "val")

Clips of 30 s at 10 to 60 frames a second, named ``<youtube id>_<start>-<end>``, times from the clip's beginning. Body
csv files are found under the README's name (``val_body_orig.csv``) and under the code's (``val_orig_body.csv``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from asd_explain.datasets.annotations import find_table, read_tracks
from asd_explain.datasets.ava import AvaSet, _videos, dumped_rows
from asd_explain.datasets.dumped import Dump


class WasdSet(AvaSet):
    """Face and body tracks of one split; ``with_body=False`` leaves the bodies out."""

    @classmethod
    def dumped(cls, root: str | Path, split: str = "train", with_body: bool = True) -> Self:
        """The tracks of a prepared folder, see :meth:`AvaSet.dumped`.

        Raises:
            DataError: as there.
        """
        return cls(dumped_rows(Path(root), split, with_body), Dump(Path(root), split), with_body)

    @classmethod
    def streamed(
        cls,
        annotations: str | Path,
        videos: str | Path | dict[str, Path],
        split: str = "train",
        backend: str = "auto",
        with_body: bool = True,
        bodies: str | Path | None = None,
    ) -> Self:
        """The tracks of annotation csv files, cut out of the videos when asked for, see :meth:`AvaSet.streamed`.

        Args:
            annotations, videos, split, backend: as there.
            with_body: read the body boxes.
            bodies: their csv; None looks for it beside ``annotations``.

        Raises:
            DataError: as there, or there is no csv of bodies.
        """
        annotations = Path(annotations)
        body = None
        if with_body:
            folder = annotations if annotations.is_dir() else annotations.parent
            (body,) = find_table(folder if bodies is None else Path(bodies), split, body=True)
        return cls(read_tracks(find_table(annotations, split), body), _videos(videos, backend), with_body)
