"""Who is seen and heard in the miniatures: faces, voices and turns, none of train in val."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from asd_explain.datasets.drawn_faces import PREFIX
from asd_explain.datasets.portraits import Look
from asd_explain.datasets.speech_synth import Voice
from asd_explain.datasets.talking_draws import VOICES, lines_of_words
from asd_explain.datasets.talking_scene import Offscreen, Person, Turns

SPLITS = ("train", "val")
_VOICES = {"train": VOICES["fit"], "val": VOICES["test"]}
PHOTOS = {"train": "hopper", "val": "astronaut"}
DRAWN_VAL = 2
"""Every so manieth of val's people has a drawn face."""
_DRAWN = 1000  # faces that can be drawn a split: numbers 0 to 999 for train, 1000 to 1999 for val
UNSEEN = (
    "faces: val has another photograph, and drawn faces that are not in train; voices: other variants of espeak-ng; "
    "turns, texts, motion, backgrounds and light: drawn anew. Shared: the synthesiser, how mouths follow phonemes, and "
    "how pictures are drawn"
)
"""What val has that train has not, in words."""


def draw_look(rng: np.random.Generator, split: str, drawn: bool, small: bool) -> Look:
    """The split's photograph or one of its drawn faces, changed to pass for another person.

    Args:
        rng: of everything.
        split: train or val.
        drawn: whether it is a drawn face.
        small: as seen from far away.
    """
    fraction = float(rng.uniform(0.17, 0.22) if small else rng.uniform(0.42, 0.56))
    side, top = (1.6, 1.2) if small else (0.3, 0.3)  # no more than the panel shows: padding costs time
    number = SPLITS.index(split) * _DRAWN + int(rng.integers(_DRAWN))
    return Look(
        f"{PREFIX}{number}" if drawn else PHOTOS[split],
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


def company(
    rng: np.random.Generator,
    split: str,
    faces: int,
    seconds: float,
    first: int,
    drawn: int,
    stranger: bool = False,
    mouthing: bool = False,
    overlap: bool = False,
    small: bool = False,
    torso: float = 0.0,
) -> tuple[tuple[Person, ...], tuple[Offscreen, ...]]:
    """People and voices off screen who take turns.

    Args:
        rng: of everything.
        split: train or val.
        faces: how many people.
        seconds: length of the clip.
        first: the people's number, from which drawn faces are counted.
        drawn: every so manieth of train's people has a drawn face; 0: none.
        stranger: a voice off screen takes turns too.
        mouthing: one of them moves the mouth while another is heard.
        overlap: turns begin before the last one ends.
        small: as seen from far away.
        torso: how far upper bodies move.
    """
    every = DRAWN_VAL if split == "val" else drawn
    names = rng.choice(_VOICES[split], faces + 1, replace=False)
    voices = [Voice(f"en-us+{n}", *(int(rng.integers(*r)) for r in ((135, 200), (20, 80), (30, 80)))) for n in names]
    turns = _turns(rng, faces + stranger, seconds, overlap)
    people = []
    for who in range(faces):
        mute: Turns = ()
        if mouthing and who == faces - 1:  # moves the mouth while another voice is heard
            turns[who], mute = (), turns[0] or turns[who]
        lines = lines_of_words(rng, max(1, len(turns[who]) + len(mute)))
        people.append(
            Person(
                draw_look(rng, split, bool(every) and (first + who) % every == every - 1, small),
                voices[who],
                turns[who],
                mute,
                lines,
                torso=torso,
            )
        )
    if not stranger:
        return tuple(people), ()
    lines = lines_of_words(rng, max(1, len(turns[faces])))
    return tuple(people), (Offscreen(voices[faces], turns[faces], lines),)


def _turns(rng: np.random.Generator, voices: int, seconds: float, overlap: bool) -> list[Turns]:
    """Turns of 0.7 to 1.5 s one after another, with pauses; with ``overlap`` the next begins before the last ends."""
    turns: list[list[tuple[float, float]]] = [[] for _ in range(voices)]
    # A voice alone pauses as long as it talks, else nearly every frame would be speaking.
    time_s, who = float(rng.uniform(0.0, 0.5)), int(rng.integers(voices))
    while time_s < seconds - 0.5:
        end = min(seconds, time_s + float(rng.uniform(0.7, 1.5)))
        if not turns[who] or time_s >= turns[who][-1][1] + 0.1:
            turns[who].append((round(time_s, 3), round(end, 3)))
        pause = rng.uniform(0.7, 1.3) if voices == 1 else rng.uniform(-0.6, -0.3) if overlap else rng.uniform(0.1, 0.5)
        time_s = end + float(pause)
        who = int((who + rng.integers(1, voices)) % voices) if voices > 1 else 0
    return [tuple(one) for one in turns]
