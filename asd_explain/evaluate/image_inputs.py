"""Pictures as a checkpoint was trained on them: the same classes, brought to the same size."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from asd_explain.errors import OptionError

if TYPE_CHECKING:
    from asd_explain.datasets.images import ImageSet
    from asd_explain.weights.images import PictureFacts


def check_classes(path: Path, facts: PictureFacts, data: ImageSet) -> None:
    """Refuse a checkpoint that says other things of a picture than the set's labels do.

    Raises:
        OptionError: it was trained on other classes or attributes.
    """
    if facts.classes == data.classes and facts.multilabel == data.multilabel:
        return
    said, there = (f"{len(one.classes)} {'attributes' if one.multilabel else 'classes'}" for one in (facts, data))
    pairs = zip_longest(facts.classes, data.classes, fillvalue="nothing")
    first = next((f"; the first that differ: {a}, {b}" for a, b in pairs if a != b), "")
    raise OptionError(
        f"{path} was trained on {said}, these pictures have {there}{first}; give the set that it was trained on "
        "(--set, --root)"
    )


def side_for(given: int | None, facts: PictureFacts, opened: Callable[[int], ImageSet]) -> int:
    """The side in px that pictures are brought to, 0 for none: ``given``, or what the network was trained with.

    Args:
        given: None where nobody said.
        facts: of the network.
        opened: opens the set with a side.
    """
    if given is not None:
        return given
    if facts.side is not None:
        return facts.side
    # A card that does not say: pictures that have the size already were not brought to it.
    side = facts.size[1]
    return 0 if opened(side).raw(0).shape[:2] == facts.size else side
