"""Who is seen in the miniatures: photographs and drawn faces, changed to pass for many people, none of train in val."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from asd_explain.datasets.drawn_faces import PREFIX
from asd_explain.datasets.portraits import Look

SPLITS = ("train", "val")
PHOTOS = {"train": "hopper", "val": "astronaut"}
_DRAWN = 1000  # faces that can be drawn a split: numbers 0 to 999 for train, 1000 to 1999 for val
UNSEEN = (
    "faces: val has another photograph and other drawn faces; voices: other variants of espeak-ng; turns, texts, "
    "motion, backgrounds and light: drawn anew. Shared: the synthesiser, how mouths follow phonemes, and how pictures "
    "are drawn"
)
"""What val has that train has not, in words."""


def draw_look(rng: np.random.Generator, split: str, photograph: bool, small: bool) -> Look:
    """The split's photograph or one of its drawn faces, changed to pass for another person.

    Args:
        rng: of everything.
        split: train or val.
        photograph: whether it is made of the photograph.
        small: as seen from far away.
    """
    fraction = float(rng.uniform(0.17, 0.22) if small else rng.uniform(0.42, 0.56))
    side, top = (1.6, 1.2) if small else (0.3, 0.3)  # no more than the panel shows: padding costs time
    number = SPLITS.index(split) * _DRAWN + int(rng.integers(_DRAWN))
    return Look(
        PHOTOS[split] if photograph else f"{PREFIX}{number}",
        mirrored=bool(rng.random() < 0.5),
        warmth=float(rng.uniform(-0.8, 0.8)),
        brightness=float(rng.uniform(0.75, 1.15)),
        saturation=float(rng.uniform(0.4, 1.2)),
        stretch=float(rng.uniform(0.93, 1.08)),
        face_fraction=fraction,
        gamma=float(np.exp(rng.uniform(-0.3, 0.3))),
        side_light=float(rng.uniform(-0.6, 0.6)),
        jaw=float(rng.uniform(-0.1, 0.1)),
        brow=float(rng.uniform(-0.08, 0.08)),
        nose=float(rng.uniform(-0.03, 0.03)),
        backdrop=int(rng.integers(1, 2**31)),
        room=(side, top, side),
    )


def faces_seen(looks: Iterable[Look]) -> dict[str, int]:
    """{photograph, or "drawn": how many of the people are made of it, or of how many drawn faces}."""
    photos = [look.photo for look in looks]
    found = {name: photos.count(name) for name in dict.fromkeys(photos) if not name.startswith(PREFIX)}
    return found | {"drawn": len({name for name in photos if name.startswith(PREFIX)})}
