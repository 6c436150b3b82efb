"""Descriptions of talking-photo clips: who stands where, who talks when, and some ready-made scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from asd_explain.datasets.portraits import Look, check_photo
from asd_explain.datasets.speech_synth import Voice
from asd_explain.errors import OptionError

Turns = tuple[tuple[float, float], ...]
"""Spans (start_s, end_s) of the clip in seconds, in order, not overlapping."""


@dataclass(frozen=True)
class Person:
    """Somebody in the picture.

    Attributes:
        look: the photograph and what is changed about it.
        voice: of espeak-ng.
        turns: when the person talks. Speech fills a turn from its start and ends at the last word that fits in.
        mouthing: when the mouth moves as in speech but makes no sound.
        lines: what is said in the turns, one text a turn (then from the start again); empty: sentences drawn by seed.
        gain: loudness; 1 is the same for every voice.
        liveliness: factor on the head's motion; 0: a still photograph, blinking neither (the mouth still talks).
        torso: factor on the motion of shoulders and upper body; above 0 the mouth also moves a little while silent
            (smiles, parted lips, chewing); 0: only the head moves.
        gestures: how much the hands are used, 0 (none are seen) to 1; they are drawn, see ``talking_hands``.
        articulation: factor on the mouth's opening; small for somebody who mumbles.
    """

    look: Look
    voice: Voice
    turns: Turns = ()
    mouthing: Turns = ()
    lines: tuple[str, ...] = ()
    gain: float = 1.0
    liveliness: float = 1.0
    torso: float = 0.0
    gestures: float = 0.0
    articulation: float = 1.0


@dataclass(frozen=True)
class Offscreen:
    """A voice whose owner is not in the picture; attributes as in :class:`Person`."""

    voice: Voice
    turns: Turns = ()
    lines: tuple[str, ...] = ()
    gain: float = 1.0


@dataclass(frozen=True)
class Shot:
    """What the camera shows from ``start_s`` to the next shot: these people (indices), ``zoom`` times closer."""

    start_s: float
    people: tuple[int, ...]
    zoom: float = 1.0


@dataclass(frozen=True)
class Scene:
    """A clip to be made.

    Attributes:
        people: in the picture, left to right; somebody whom a shot leaves out still talks, off screen.
        offscreen: voices from outside the picture.
        shots: in order of time, the first at 0; empty: one shot of everybody.
        width, height: pixels, at least 16; odd sizes are encoded as 4:4:4.
        fps: frames a second: a number or an exact ratio such as "30000/1001"; 23.976, 29.97 and 59.94 mean the ratio.
        duration_s: length of the clip.
        seed: of texts, motion and noise.
        noise: standard deviation of the camera's noise in gray levels.
        room_db: level of the room's own noise in dB of full scale.
        audio: whether the clip has an audio track.
        variable_rate: a quarter of the frames is missing, at random, as from a phone in the dark.
    """

    people: tuple[Person, ...]
    offscreen: tuple[Offscreen, ...] = ()
    shots: tuple[Shot, ...] = ()
    width: int = 640
    height: int = 360
    fps: Fraction | float | str = 25
    duration_s: float = 8.0
    seed: int = 0
    noise: float = 1.2
    room_db: float = -62.0
    audio: bool = True
    variable_rate: bool = False

    @property
    def rate(self) -> Fraction:
        """The exact frame rate."""
        if isinstance(self.fps, float):
            for ratio in (Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)):
                if abs(self.fps - ratio) < 0.005:
                    return ratio
        return Fraction(self.fps).limit_denominator(1001)

    def camera(self) -> tuple[Shot, ...]:
        """The shots; one of everybody where none are given."""
        return self.shots or (Shot(0.0, tuple(range(len(self.people)))),)

    def check(self) -> None:
        """Raise OptionError, with one line that says what to change, where the scene cannot be made."""
        if not self.people:
            raise OptionError("a scene needs at least one person")
        if self.width < 16 or self.height < 16:
            raise OptionError(f"a scene of {self.width}x{self.height} pixels is too small; make it at least 16x16")
        if not 1 <= self.rate <= 240:
            raise OptionError(f"{self.fps} frames a second is outside 1 to 240")
        if not self.duration_s * self.rate >= 1:
            raise OptionError(f"a scene of {self.duration_s} s has no frame; make it longer")
        for who, one in enumerate((*self.people, *self.offscreen)):
            _check_turns((*one.turns, *getattr(one, "mouthing", ())), self.duration_s, f"voice {who}")
        for who, person in enumerate(self.people):
            try:
                check_photo(person.look.photo)
            except OptionError as error:
                raise OptionError(f"person {who}: {error}") from None
        starts = [shot.start_s for shot in self.camera()]
        if starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
            raise OptionError(f"shots must start at 0 and go on in order of time, not at {starts}")
        for shot in self.camera():
            if not shot.people or not set(shot.people) <= set(range(len(self.people))):
                raise OptionError(f"the shot at {shot.start_s} s shows {shot.people}, of {len(self.people)} people")


def _check_turns(turns: Turns, duration_s: float, who: str) -> None:
    for start_s, end_s in turns:
        if not 0 <= start_s < end_s <= duration_s + 1e-6:
            raise OptionError(f"{who}: the turn {start_s}-{end_s} s does not lie within the clip of {duration_s} s")
    ordered = sorted(turns)
    if any(b[0] < a[1] for a, b in pairwise(ordered)):
        raise OptionError(f"{who}: turns overlap each other: {ordered}")


HOPPER = Person(Look("hopper"), Voice("en-us+f2", rate_wpm=155, pitch=38, pitch_range=55))
ASTRONAUT = Person(Look("astronaut"), Voice("en-us+Annie", rate_wpm=165, pitch=55, pitch_range=60))
NAVY_TWIN = Person(
    Look("hopper", mirrored=True, warmth=-0.6, brightness=0.86, saturation=0.7, stretch=1.06),
    Voice("en-gb-scotland+f4", rate_wpm=150, pitch=45),
)
PILOT_TWIN = Person(
    Look("astronaut", mirrored=True, warmth=0.5, brightness=0.9, saturation=0.85, stretch=0.94),
    Voice("en+f3", rate_wpm=175, pitch=62),
)
ANNOUNCER = Voice("en+m3", rate_wpm=160, pitch=35)


def _talks(person: Person, *turns: tuple[float, float], **changes) -> Person:
    return replace(person, turns=turns, **changes)


def demo() -> Scene:
    """Ten seconds that show everything: one talks, the other answers, both talk, then a voice from off screen."""
    left = _talks(
        HOPPER,
        *((0.3, 3.1), (5.9, 8.4)),
        lines=("Good morning! Can you see who speaks?", "And what if both of us talk at once?"),
    )
    right = _talks(
        ASTRONAUT,
        *((3.2, 5.85), (6.5, 8.4)),
        lines=("Easily. My lips move along with my voice.", "Then both of us should light up."),
    )
    voice = Offscreen(ANNOUNCER, ((8.65, 10.4),), ("Nobody you see is saying this.",))
    return Scene((left, right), (voice,), duration_s=10.5)


def dialogue() -> Scene:
    """Two people taking turns."""
    left = _talks(HOPPER, (0.3, 3.3), (6.4, 9.0))
    return Scene((left, _talks(ASTRONAUT, (3.6, 6.2), (9.3, 11.6))), duration_s=12.0)


def monologue() -> Scene:
    """One person talking, with long pauses."""
    return Scene((_talks(HOPPER, (0.5, 3.6), (5.2, 8.4)),), duration_s=10.0)


def overlap() -> Scene:
    """Two people talking over each other."""
    return Scene((_talks(HOPPER, (0.5, 5.0)), _talks(ASTRONAUT, (2.5, 7.5))), duration_s=9.0)


def offscreen() -> Scene:
    """Two people who listen to a voice from off screen; one of them answers once."""
    voice = Offscreen(ANNOUNCER, ((0.4, 3.8), (6.6, 9.4)))
    return Scene((_talks(HOPPER, (4.2, 6.4)), ASTRONAUT), (voice,), duration_s=10.0)


def mouthing() -> Scene:
    """Mouths that move without a sound while nobody is heard; each of them talks aloud as well."""
    left = _talks(HOPPER, (3.4, 5.6), mouthing=((0.3, 3.0),))
    return Scene((left, _talks(ASTRONAUT, (8.2, 10.4), mouthing=((6.0, 7.9),))), duration_s=11.0)


def dubbed() -> Scene:
    """Mouths that move to other words than those of the voice that is heard: hard, also for published networks."""
    voice = Offscreen(ANNOUNCER, ((6.8, 9.6),))
    left = _talks(HOPPER, (0.4, 3.2), mouthing=((6.9, 9.5),))
    return Scene((left, _talks(ASTRONAUT, (3.6, 6.4), mouthing=((0.5, 3.1),))), (voice,), duration_s=10.0)


def cuts() -> Scene:
    """A two-shot and close-ups: some of the talking goes on off screen."""
    shots = (Shot(0, (0, 1)), Shot(3.0, (0,), 1.2), Shot(5.6, (1,), 1.2), Shot(8.4, (0, 1)))
    return Scene((_talks(HOPPER, (0.4, 4.6)), _talks(ASTRONAUT, (5.0, 9.6))), shots=shots, duration_s=10.0)


def call() -> Scene:
    """Four people in a video call, two of them from the same photographs, changed."""
    people = (
        *(_talks(HOPPER, (0.4, 3.0)), _talks(ASTRONAUT, (3.2, 5.6))),
        *(_talks(PILOT_TWIN, (5.8, 8.2)), _talks(NAVY_TWIN, (8.4, 11.4))),
    )
    return Scene(people, width=854, height=480, duration_s=12.0)


def gestures() -> Scene:
    """Two people who talk with their hands, shoulders and all; the one who listens moves as well."""
    moves = {"torso": 1.0, "gestures": 1.0}
    left = replace(HOPPER, look=replace(HOPPER.look, backdrop=3, room=(1.0, 0.4, 1.0), face_fraction=0.3), **moves)
    right = replace(ASTRONAUT, look=replace(ASTRONAUT.look, face_fraction=0.23), **moves)
    left, right = _talks(left, (0.4, 3.6), (6.8, 9.4)), _talks(right, (3.8, 6.6), (9.6, 11.6))
    return Scene((left, right), duration_s=12.0)


PRESETS: dict[str, Callable[[], Scene]] = {
    scene.__name__: scene
    for scene in (demo, dialogue, monologue, overlap, offscreen, mouthing, dubbed, cuts, call, gestures)
}

SENTENCES: tuple[str, ...] = (
    "The ship left the harbour early in the morning, before anybody was awake.",
    "I have never seen so many papers on one small table.",
    "We could try it again, but this time a little more slowly.",
    "My brother bought a big blue boat and painted it himself.",
    "It is much easier to ask forgiveness than it is to get permission.",
    "You will find the key under the third flower pot on the left.",
    "Nobody believed that the machine would ever work, and then it did.",
    "Please remember to open the window before you go to bed.",
    "The most beautiful part of the flight was the view of the ocean.",
    "Five people waited at the bus stop while the rain was pouring down.",
    "What I meant to say was something completely different.",
    "Mother made apple pie every Monday, and we ate all of it.",
    "A good plan today is better than a perfect plan next week.",
    "They have been working above the old bakery for over forty years.",
    "Maybe we ought to move the meeting to tomorrow afternoon.",
    "From up there you can watch the lamps of the whole valley.",
    "Why would anybody walk when there is a perfectly good train?",
    "The numbers looked wrong, so we went through all of them again.",
)
"""What people say who are given no lines."""
