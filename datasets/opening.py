"""Data sets of the field by name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from asd_explain.datasets.entities import EntitySet
from asd_explain.errors import OptionError

#: Name to the module of this package and its class, whose ``dumped`` opens a prepared folder.
SETS = {"ava": ("ava", "AvaSet"), "wasd": ("wasd", "WasdSet")}


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
