"""A data set as it was downloaded: ``csv`` and ``orig_videos`` in one folder, no crops yet."""

from __future__ import annotations

import logging
from pathlib import Path

from asd_explain.datasets.dumped import KINDS

log = logging.getLogger(__name__)

VIDEOS = "orig_videos"


def only_videos(root: Path, split: str) -> Path | None:
    """The folder of the videos where a data set has neither crops nor sound of a split, else None."""
    videos = root / VIDEOS
    if not videos.is_dir() or any((root / kind / split).is_dir() for kind in KINDS):
        return None
    log.info("%s holds no crops of %s: they are cut out of its %s when they are needed", root, split, VIDEOS)
    return videos
