"""Data sets of the field by name, and which of them lies in a folder."""

from __future__ import annotations

import csv
import json
import re
from importlib import import_module
from itertools import islice
from pathlib import Path

from asd_explain.ava_format import COLUMNS
from asd_explain.datasets.annotations import find_table, video_of_entity
from asd_explain.datasets.dumped import BODIES
from asd_explain.datasets.entities import DataError, EntitySet
from asd_explain.errors import OptionError

#: Name to the module of this package and its class, whose ``dumped`` opens a prepared folder.
SETS = {"ava": ("ava", "AvaSet"), "wasd": ("wasd", "WasdSet")}
#: AVA's videos have YouTube's names of 11 characters; WASD's clips have them too, and say which seconds they are.
_VIDEO_IDS = {"ava": re.compile(r".{11}"), "wasd": re.compile(r".{11}_\d+-\d+")}
_ROWS_LOOKED_AT = 200


def open_entities(name: str, root: Path, split: str, body: bool = False) -> EntitySet:
    """The annotated entities of one split of a data set: prepared (``tools/prepare.py``), or as it was downloaded.

    A folder with ``csv`` and ``orig_videos`` but no crops and no sound of the split is read straight from its videos.

    Args:
        name: "ava" or "wasd".
        root: its folder.
        split: for instance "train" or "val".
        body: whether to read bodies, where the set has any.

    Raises:
        OptionError: no such set, or no such folder.
        DataError: the folder does not hold what is needed of that set.
    """
    if name not in SETS:
        raise OptionError(f"no data set called {name!r}; choose from {', '.join(SETS)}")
    if not root.is_dir():
        raise OptionError(f"--data {root}: there is no such folder; give the one that holds the data set")
    module, kind = SETS[name]
    opened = getattr(import_module(f"asd_explain.datasets.{module}"), kind)
    from asd_explain.datasets.downloaded import only_videos  # here: it brings torch

    if (videos := only_videos(root, split)) is not None:
        more = {"with_body": body} if name == "wasd" else {}
        return opened.streamed(root / "csv", videos, split, **more)
    return opened.dumped(root, split, with_body=body) if name == "wasd" else opened.dumped(root, split)


def detect_set(root: Path, split: str) -> str:
    """Which data set a prepared folder holds.

    What is asked, in this order: the report of ``tools/prepare.py``, a miniature's mark, whether there are bodies, and
    the names of the videos in the csv of the split.

    Args:
        root: the folder.
        split: for instance "train" or "val".

    Raises:
        OptionError: there is no such folder, it holds another data set, or nothing in it tells.
    """
    if not root.is_dir():
        raise OptionError(f"--data {root}: there is no such folder; give the one that holds the data set")
    for path in (root / "prepared" / f"{split}.json", root / "miniature.json"):
        if (said := _dataset_of(path)) is not None:
            if said not in SETS:
                raise OptionError(f"{path} says that {root} holds {said}; only {' and '.join(SETS)} can be opened")
            return said
    if (root / BODIES).is_dir() or _has_body_csv(root / "csv", split):
        return "wasd"
    videos = _some_videos(root / "csv", split)
    fitting = [name for name, pattern in _VIDEO_IDS.items() if videos and all(map(pattern.fullmatch, videos))]
    if len(fitting) != 1:
        named = (
            f"{', '.join(sorted(videos)[:3])} could be videos of any set" if videos else f"no csv of {split} is there"
        )
        raise OptionError(
            f"--data {root} does not tell which data set it is: it has no prepared/{split}.json and no bodies, and "
            f"{named}; say which with --set {' or --set '.join(SETS)}"
        )
    return fitting[0]


def _dataset_of(path: Path) -> str | None:
    """What a JSON file calls its data set, None where it is not there or says nothing."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    name = said.get("dataset") if isinstance(said, dict) else None
    return name if isinstance(name, str) else None


def _has_body_csv(folder: Path, split: str) -> bool:
    try:
        return bool(find_table(folder, split, body=True))
    except DataError:
        return False


def _some_videos(folder: Path, split: str) -> set[str]:
    """Names of videos in the first rows of a split's annotation csv; of its loader csv where there is no other."""
    try:
        path = find_table(folder, split)[0]
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [cells for cells in islice(csv.reader(file), _ROWS_LOOKED_AT) if cells]
        place = rows[0].index("video_id") if rows and "video_id" in rows[0] else COLUMNS.index("video_id")
        return {cells[place] for cells in rows if len(cells) >= len(COLUMNS)} - {"video_id"}
    except DataError:
        pass
    except (OSError, UnicodeDecodeError, csv.Error):
        return set()
    try:
        with (folder / f"{split}_loader.csv").open(encoding="utf-8") as file:
            return {video_of_entity(line.split("\t", 1)[0]) for line in islice(file, _ROWS_LOOKED_AT) if line.strip()}
    except (OSError, UnicodeDecodeError):
        return set()
