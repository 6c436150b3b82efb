"""Scenes of talking photographs drawn at random: who sits where, who talks when, and what picture and sound go through.

A scene is a pure function of its split and its number. Voices, and the proportions of faces, of ``test`` are not in
``fit``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asd_explain.datasets.portraits import GEOMETRY, Look
from asd_explain.datasets.shared_clips import SPLITS
from asd_explain.datasets.speech_synth import Voice
from asd_explain.datasets.talking_scene import SENTENCES, Offscreen, Person, Scene, Shot, Turns

VOICES: dict[str, tuple[str, ...]] = {
    "fit": (
        *("f1", "f2", "f4", "m1", "m4", "m5", "m6", "m8", "Alex", "Andrea", "Denis", "Diogo", "Gene", "Henrique"),
        *("Hugo", "Jacky", "Lee", "Michael", "Mike", "Reed", "adam", "anika", "antonio", "aunty", "benjamin", "boris"),
        *("caleb", "david", "ed", "edward", "grandma", "gustave", "iven", "iven2", "john", "kaukovalta", "klatt"),
        *("klatt2", "marcelo", "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert"),
        *("sandro", "shelby", "steph", "travis", "victor", "zac"),
    ),
    "dev": ("f5", "m2", "Annie", "max", "belinda", "iven3", "klatt3"),
    "test": ("f3", "m3", "m7", "Alicia", "Andy", "steph2", "klatt4", "Marco", "linda", "grandpa", "ian", "Gene2"),
}
"""espeak-ng's variants by split, disjoint."""
_LANGUAGES = {
    "fit": ("en-us", "en", "de", "fr", "es", "nl", "pl"),
    "dev": ("en-us", "en-gb-scotland", "sv"),
    "test": ("en-us", "en-gb-x-rp", "it", "pt", "en-029"),
}


@dataclass(frozen=True)
class Treatment:
    """What happens to a scene's picture and sound before crops are cut.

    Attributes:
        blur: standard deviation of the lens, px.
        jpeg: quality of a pass through JPEG (20 to 95); 0: none.
        background: "none", "noise", "babble" or "music".
        snr_db: voices over background.
        reverb_s: the room's reverberation time; 0: dry.
        late_s: the sound comes later than the picture by this much.
        box_error: relative error of the boxes' places and sizes: standard deviation over the tracks.
    """

    blur: float = 0.0
    jpeg: int = 0
    background: str = "none"
    snr_db: float = 20.0
    reverb_s: float = 0.0
    late_s: float = 0.0
    box_error: float = 0.035


def talking_scene(split: str, index: int) -> tuple[Scene, Treatment, str]:
    """Scene, treatment and kind of one clip: a pure function of its arguments."""
    rng = np.random.default_rng((SPLITS.index(split), index, 20_24))
    kinds = ("turns", "overlap", "monologue", "offscreen", "mouthing", "dubbed")
    kind = str(rng.choice(kinds, p=(0.36, 0.12, 0.14, 0.12, 0.10, 0.16)))
    count = int(rng.choice((1, 2, 3, 4), p=(0.34, 0.36, 0.16, 0.14)))
    if kind == "overlap":
        count = max(count, 2)
    duration_s = float(rng.integers(60, 101)) / 10
    voices = rng.choice(VOICES[split], count + 1, replace=False)
    spoken, silent, outside = _timeline(rng, kind, count, duration_s)
    close = rng.random() < 0.22
    largest = {1: 220, 2: 200, 3: 140, 4: 120}[count]
    face_px = float(np.exp(rng.uniform(np.log(24), np.log(largest))))
    fraction = rng.uniform(0.46, 0.66) if close else rng.uniform(0.2, 0.38)
    aspect = float(rng.uniform(0.75, 1.7))
    still = rng.random() < 0.12
    people = tuple(
        Person(
            look=_look(rng, split, fraction * rng.uniform(0.88, 1.12), aspect),
            voice=_voice(rng, split, str(voices[who])),
            turns=spoken[who],
            mouthing=silent[who],
            lines=lines_of_words(rng, len(spoken[who]) + len(silent[who])),
            gain=float(np.exp(rng.uniform(-0.5, 0.4))),
            liveliness=0.0 if still else float(rng.uniform(0.4, 2.0)),
            torso=0.0 if still else float(rng.uniform(0.3, 1.6)),
            articulation=float(rng.uniform(0.4, 1.15)),
            gestures=0.0 if still or rng.random() < 0.35 else float(rng.uniform(0.3, 1.0)),
        )
        for who in range(count)
    )
    strangers = ()
    if outside:
        voice = _voice(rng, split, str(voices[count]))
        strangers = (
            Offscreen(voice, outside, lines_of_words(rng, len(outside)), float(np.exp(rng.uniform(-0.5, 0.3)))),
        )
    height = face_px / fraction
    rows, cols = {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2)}[count]
    scene = Scene(
        people,
        strangers,
        _shots(rng, count, duration_s),
        width=max(48, 2 * round(cols * aspect * height / 2)),
        height=max(48, 2 * round(rows * height / 2)),
        fps=float(rng.choice((25, 25, 25, 25, 30, 24, 29.97, 15))),
        duration_s=duration_s,
        seed=int(rng.integers(1, 2**31)),
        noise=float(rng.uniform(0.3, 4.0)),
        room_db=float(rng.uniform(-75, -48)),
    )
    treatment = Treatment(
        blur=float(max(0.0, rng.uniform(-0.6, 1.3))),
        jpeg=int(rng.integers(22, 92)) if rng.random() < 0.6 else 0,
        background=str(rng.choice(("none", "noise", "babble", "music"), p=(0.4, 0.25, 0.2, 0.15))),
        snr_db=float(rng.uniform(4, 24)),
        reverb_s=float(rng.uniform(0.1, 0.5)) if rng.random() < 0.4 else 0.0,
        late_s=float(rng.uniform(-0.03, 0.04)),
    )
    return scene, treatment, kind


def _timeline(
    rng: np.random.Generator, kind: str, count: int, duration_s: float
) -> tuple[list[Turns], list[Turns], Turns]:
    """Heard turns and silent mouthing of each person, and the turns of somebody off screen."""
    spoken: list[list[tuple[float, float]]] = [[] for _ in range(count + 1)]
    silent: list[list[tuple[float, float]]] = [[] for _ in range(count)]
    stranger = count if kind in ("offscreen", "dubbed") or (kind == "turns" and rng.random() < 0.25) else None
    time_s, last = float(rng.uniform(-0.6, 0.9)), -1
    only = int(rng.integers(count))
    while time_s < duration_s - 0.8:
        if kind == "monologue":
            who = only
        elif kind in ("offscreen", "dubbed") and rng.random() < 0.6:
            who = count
        else:
            choices = [k for k in range(count) if k != last or count == 1]
            who = int(rng.choice(choices))
            if stranger is not None and rng.random() < 0.25:
                who = stranger
        length = float(rng.uniform(0.9, 4.2))
        start, end = max(0.0, time_s), min(duration_s, time_s + length)
        if end - start >= 0.7 and (not spoken[who] or start >= spoken[who][-1][1] + 0.15):
            spoken[who].append((start, end))
        last = who
        if kind == "overlap":
            time_s = end - float(rng.uniform(-0.2, 0.7)) * (end - start)
        else:
            time_s = end + float(rng.choice((rng.uniform(-0.4, 0.2), rng.uniform(0.2, 0.6), rng.uniform(0.6, 2.2))))
    if kind in ("mouthing", "dubbed"):
        voiced = [turn for turns in spoken for turn in turns]
        for who in range(count):
            if rng.random() > 0.75 and who != only:
                continue
            foreign = [t for k, turns in enumerate(spoken) if k != who for t in turns]
            for _ in range(2):
                if kind == "dubbed" and foreign:  # together with somebody else's voice, its borders not quite met
                    start, end = foreign[int(rng.integers(len(foreign)))]
                    start, end = start + rng.normal(0, 0.1), end + rng.normal(0, 0.1)
                else:
                    start = float(rng.uniform(0, max(0.1, duration_s - 1.5)))
                    end = start + float(rng.uniform(1.0, 3.5))
                span = max(0.0, float(start)), min(duration_s, float(end))
                taken = spoken[who] + silent[who] + ([] if kind == "dubbed" else voiced)
                if span[1] - span[0] >= 0.7 and all(span[1] + 0.1 < a or span[0] > b + 0.1 for a, b in taken):
                    silent[who].append(span)
    turns = [tuple(sorted((round(a, 3), round(b, 3)) for a, b in one)) for one in spoken]
    return turns[:count], [tuple(sorted((round(a, 3), round(b, 3)) for a, b in one)) for one in silent], turns[count]


def _voice(rng: np.random.Generator, split: str, variant: str) -> Voice:
    language = str(rng.choice(_LANGUAGES[split])) if rng.random() < 0.5 else "en-us"
    rate, pitch, lively = rng.integers(125, 215), rng.integers(15, 85), rng.integers(25, 85)
    return Voice(f"{language}+{variant}", int(rate), int(pitch), int(lively))


def lines_of_words(rng: np.random.Generator, count: int) -> tuple[str, ...]:
    """Texts of words drawn from all sentences: no sense, much variety; longer than any turn."""
    words = [word.strip(".,?!").lower() for sentence in SENTENCES for word in sentence.split()]
    lines = []
    for _ in range(count):
        text, left = [], 24
        while left > 0:
            size = int(rng.integers(3, 10))
            text.append(
                " ".join(rng.choice(words, size)) + str(rng.choice((".", ",", "?", "!"), p=(0.5, 0.3, 0.1, 0.1)))
            )
            left -= size
        lines.append(" ".join(text))
    return tuple(lines)


def _look(rng: np.random.Generator, split: str, fraction: float, aspect: float) -> Look:
    """A portrait's variant; faces of ``test`` have proportions that the others never have."""
    photo = str(rng.choice(("hopper", "astronaut")))
    jaw, brow = rng.uniform(0.02, 0.11), rng.uniform(0.0, 0.09)
    if rng.random() < 0.5:
        jaw, brow = -jaw, -brow
    if split == "test":
        brow = -brow
    size, face = GEOMETRY[photo].size, GEOMETRY[photo].face[3] - GEOMETRY[photo].face[1]
    backdrop = int(rng.integers(1, 2**31)) if rng.random() < 0.65 else 0
    top = max(0.2, 1.0 / fraction - size[1] / face + 0.25)
    side = float(np.clip(0.75 * aspect / fraction - 1.2, 0.3, 5.0))
    return Look(
        photo,
        mirrored=bool(rng.random() < 0.5),
        warmth=float(rng.uniform(-0.8, 0.8)),
        brightness=float(rng.uniform(0.7, 1.15)),
        saturation=float(rng.uniform(0.3, 1.2)),
        stretch=float(rng.uniform(0.92, 1.1)),
        face_fraction=float(fraction),
        place=float(rng.uniform(-0.16, 0.16)),
        gamma=float(np.exp(rng.uniform(-0.35, 0.35))),
        side_light=float(rng.uniform(-0.7, 0.7)) if rng.random() < 0.6 else 0.0,
        jaw=float(jaw),
        brow=float(brow),
        nose=float(rng.uniform(-0.035, 0.035)),
        backdrop=backdrop,
        room=(side, top, side),
    )


def _shots(rng: np.random.Generator, count: int, duration_s: float) -> tuple[Shot, ...]:
    everybody = tuple(range(count))
    if rng.random() > 0.2:
        return ()
    start_s = float(rng.uniform(2.0, duration_s - 2.0))
    some = everybody
    if count > 1:
        some = tuple(sorted(rng.choice(count, int(rng.integers(1, count)), replace=False).tolist()))
    return Shot(0.0, everybody), Shot(round(start_s, 2), some, float(rng.uniform(1.0, 1.5)))
