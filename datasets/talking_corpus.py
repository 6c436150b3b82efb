"""Talking photographs as a corpus of face tracks with exact truth, for training and for testing.

    for entry in talking_entries("fit"):
        for clip in TalkingClipCache(folder).get(entry):
            clip.truth  # (T,) 1 speaking, 0 silent, NaN within 80 ms of a change

Every clip is made from a seed that is a function of its split and its number alone, so everybody gets the same corpus;
nothing is downloaded. Voices and the texts' word order of ``dev`` and ``test`` are not in ``fit``; test faces have
proportions (a broad jaw under a narrow brow, or the other way round) that fit faces never have.

**How synthetic it is.** There are two photographs; "other people" are the same two with other proportions, light,
colours and backgrounds. The voices are a formant synthesiser's. Mouths follow phonemes and loudness by rules, bodies
and hands follow rules invented for the purpose (:mod:`asd_explain.datasets.talking_body`). A network can learn from it
that mouth and sound go together in time, and that bodies move; how people really move it cannot. Numbers on the test
split say how well a network does on such clips, not on people.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from scipy.signal import fftconvolve, lfilter, resample_poly

from asd_explain.datasets.portraits import GEOMETRY, Look
from asd_explain.datasets.shared_clips import (
    CACHE_VERSION,
    SPLITS,
    WIDE_SIZE,
    ClipEntry,
    FaceClip,
    FaceClipCache,
    save_arrays,
    wide_box,
)
from asd_explain.datasets.speech_synth import Voice, synthesise
from asd_explain.datasets.talking_motion import CONTROL_HZ
from asd_explain.datasets.talking_photos import AUDIO_HZ, Camera, VoiceTrack, frame_times, mix, perform
from asd_explain.datasets.talking_scene import SENTENCES, Offscreen, Person, Scene, Shot, Turns
from asd_explain.errors import OptionError
from asd_explain.grid import GRID_FPS, nearest
from asd_explain.media.audio import RATE, Audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.tracks.crops import BODY_GEOMETRY, GEOMETRIES, body_box, crop

log = logging.getLogger(__name__)

GROUP = "talking_photos"
CORPUS_VERSION = 1
COUNTS = {"fit": 320, "dev": 16, "test": 24}
"""Clips in a split, of 6 to 10 seconds each."""
BORDER_S = 0.08
"""So near to a change of the truth it counts as unknown, seconds."""

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
class TalkingClip(FaceClip):
    """A face track of a generated clip.

    Attributes:
        talking: (T,) float32 like ``truth``, but 1 also where the mouth talks without being heard (mouthing, dubbed):
            what somebody without ears can know.
        kind: "turns", "overlap", "monologue", "offscreen", "mouthing" or "dubbed".
    """

    talking: np.ndarray | None = None
    kind: str = ""


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


def talking_entries(split: str) -> list[ClipEntry]:
    """The clips of a split, in a fixed order.

    Raises:
        OptionError: no such split.
    """
    if split not in SPLITS:
        raise OptionError(f"no split of talking photos called {split!r}; choose from {', '.join(SPLITS)}")
    entries = []
    for index in range(COUNTS[split]):
        scene, _, _ = talking_scene(split, index)
        who = "+".join(f"{p.voice.name.partition('+')[2]}/{p.look.photo}" for p in scene.people)
        name = f"{GROUP}/{split}_{index:03d}"
        entries.append(ClipEntry(Path(name), name, GROUP, split, who))
    return entries


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
            lines=_lines(rng, len(spoken[who]) + len(silent[who])),
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
        strangers = (Offscreen(voice, outside, _lines(rng, len(outside)), float(np.exp(rng.uniform(-0.5, 0.3)))),)
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


def _lines(rng: np.random.Generator, count: int) -> tuple[str, ...]:
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


def render_clips(entry: ClipEntry, scene: Scene, treatment: Treatment, kind: str = "") -> list[TalkingClip]:
    """The face tracks of a scene: one a person and shot, of at least a second.

    Pictures are drawn only at the source times that the 25-fps grid needs, and go straight into crops.

    Args:
        entry: what the tracks are filed under.
        scene: what happens.
        treatment: what picture and sound go through.
        kind: goes into the clips.

    Raises:
        AsdExplainError: the ``demo`` extra is not installed, or espeak-ng has no such voice.
        OptionError: the scene cannot be made.
    """
    scene.check()
    voices = perform(scene)
    camera = Camera(scene, voices)
    stamps, unit = frame_times(scene)
    times_s = np.array([float(stamp * unit) for stamp in stamps])
    sound = _sound(scene, treatment, voices)
    audio = Audio(sound, 0.0)
    starts = [*(shot.start_s for shot in camera.shots), scene.duration_s]
    clips: list[TalkingClip] = []
    for number, shot in enumerate(camera.shots):
        in_shot = np.flatnonzero((times_s >= starts[number] - 1e-6) & (times_s < starts[number + 1] - 1e-6))
        if len(in_shot) < 2:
            continue
        length = int((times_s[in_shot[-1]] - times_s[in_shot[0]]) * GRID_FPS + 1e-6) + 1
        if length < GRID_FPS:
            continue
        grid_s = times_s[in_shot[0]] + np.arange(length) / GRID_FPS
        source = in_shot[nearest(times_s[in_shot], grid_s)]
        cuts = _cut_shot(scene, treatment, camera, number, source, times_s)
        for who in shot.people:
            boxes, pictures = cuts[who]
            talking, truth = _truth(voices[who], grid_s)
            waveform = audio.slice(grid_s[0], round(length / GRID_FPS * RATE))
            clips.append(
                TalkingClip(
                    entry=entry,
                    track_id=number * 10 + who,
                    start_s=float(grid_s[0]),
                    boxes=boxes,
                    size=(scene.width, scene.height),
                    faces={g: np.stack(pictures[g]) for g in GEOMETRIES},
                    wide=np.stack(pictures["wide"]),
                    bodies=np.stack(pictures["body"]),
                    mfcc=aligned_mfcc(audio, float(grid_s[0]), length).numpy(),
                    waveform=np.clip(np.rint(waveform * 32768), -32768, 32767).astype(np.int16),
                    has_audio=True,
                    truth=truth,
                    talking=talking,
                    kind=kind,
                )
            )
    return clips


def _cut_shot(
    scene: Scene, treatment: Treatment, camera: Camera, number: int, source: np.ndarray, times_s: np.ndarray
) -> dict[int, tuple[np.ndarray, dict[str, list[np.ndarray]]]]:
    """Per person of a shot: (T, 4) boxes as a detector might draw them, and the crops."""
    size = (scene.width, scene.height)
    people = camera.shots[number].people
    drawn: dict[int, list[np.ndarray]] = {who: [] for who in people}
    rows, where = np.unique(source, return_inverse=True)
    for row in rows:
        for who, panel, face in camera.faces(number):
            box = face.face_box(camera.pose(who, times_s[row])) + np.array([panel[0], panel[1]] * 2, np.float32)
            drawn[who].append(np.clip(box, (panel[0], panel[1]) * 2, (panel[2], panel[3]) * 2))
    boxes = {}
    for who in people:
        rng = np.random.default_rng((scene.seed, 21, number, who))
        boxes[who] = _detected(rng, np.stack(drawn[who]), treatment.box_error)
    names = (*GEOMETRIES, "wide", "body")
    pictures: dict[int, dict[str, list[np.ndarray]]] = {who: {n: [] for n in names} for who in people}
    grain = np.rint(
        scene.noise
        * np.random.default_rng((scene.seed, 22)).standard_normal((scene.height + 32, scene.width + 32), np.float32)
    ).astype(np.int16)
    for k, row in enumerate(rows):
        luma = _luma(scene, treatment, camera, number, times_s[row], grain, int(row))
        for who in people:
            box, cut = boxes[who][k], pictures[who]
            for g in GEOMETRIES:
                cut[g].append(crop(luma, box, g))
            cut["wide"].append(crop(luma, wide_box(box), "box", WIDE_SIZE))
            cut["body"].append(crop(luma, body_box(box, *size), BODY_GEOMETRY))
    return {who: (boxes[who][where], {n: [pictures[who][n][k] for k in where] for n in names}) for who in people}


def _luma(
    scene: Scene, treatment: Treatment, camera: Camera, number: int, time_s: float, grain: np.ndarray, row: int
) -> np.ndarray:
    """(H, W) uint8: one frame of a shot as a decoder would give it."""
    luma = np.full((scene.height, scene.width), 24, np.uint8)
    for who, (x1, y1, x2, y2), face in camera.faces(number):
        luma[y1:y2, x1:x2] = cv2.cvtColor(face.render(camera.pose(who, time_s)), cv2.COLOR_RGB2GRAY)
    if treatment.blur > 0.25:
        luma = cv2.GaussianBlur(luma, (0, 0), treatment.blur)
    dx, dy = np.random.default_rng((scene.seed, 23, row)).integers(0, 32, 2)
    luma = cv2.add(luma, grain[dy : dy + scene.height, dx : dx + scene.width], dtype=cv2.CV_8U)
    if treatment.jpeg:
        luma = cv2.imdecode(
            cv2.imencode(".jpg", luma, [cv2.IMWRITE_JPEG_QUALITY, treatment.jpeg])[1], cv2.IMREAD_GRAYSCALE
        )
    return luma


def _detected(rng: np.random.Generator, boxes: np.ndarray, error: float) -> np.ndarray:
    """True boxes (T, 4) -> boxes as a tracked detector's: one error of place and size a track, and a small wobble."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    count = len(boxes)
    wobble = rng.standard_normal((count + 8, 4))
    wobble = np.stack([np.convolve(w, np.ones(9) / 3, "valid") for w in wobble.T], axis=1) * 0.008
    centre = centre + size * (np.clip(rng.normal(0, error, 2), -0.1, 0.1) + wobble[:, :2])
    size = size * np.exp(np.clip(rng.normal(0, error, 2) + rng.normal(0, error), -0.15, 0.15) + wobble[:, 2:])
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)


def _truth(voice: VoiceTrack, grid_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the mouth talks (heard or not) and whether it is heard: (T,) float32, NaN near changes."""
    at = np.clip(np.rint(grid_s * CONTROL_HZ).astype(int), 0, len(voice.label) - 1)
    width = 2 * round(BORDER_S * CONTROL_HZ) + 1
    results = []
    for state in (voice.label > 0, voice.label == 1):
        low, high = minimum_filter1d(state.astype(np.int8), width), maximum_filter1d(state.astype(np.int8), width)
        results.append(np.where(low == high, state, np.nan)[at].astype(np.float32))
    return results[0], results[1]


def _sound(scene: Scene, treatment: Treatment, voices: list[VoiceTrack]) -> np.ndarray:
    """(n,) float32 at ``RATE``: the scene's sound after its treatment."""
    rng = np.random.default_rng((scene.seed, 24))
    total, _ = mix(scene, voices)
    ratio = Fraction(RATE, AUDIO_HZ)
    sound = resample_poly(total, ratio.numerator, ratio.denominator)
    count = round(scene.duration_s * RATE)
    sound = np.pad(sound[:count], (0, max(0, count - len(sound))))
    if treatment.reverb_s > 0:
        tail = np.arange(int(treatment.reverb_s * RATE)) / RATE
        response = rng.standard_normal(len(tail)) * 10 ** (-3 * tail / treatment.reverb_s)
        response *= rng.uniform(0.15, 0.5) / np.sqrt(np.sum(response**2))
        response[0] += 1.0
        sound = fftconvolve(sound, response)[:count]
    if treatment.background != "none":
        loud = np.abs(sound) > 0.01
        level = np.sqrt(np.mean(sound[loud] ** 2)) if loud.any() else 0.05
        behind = _background(rng, treatment.background, count)
        behind *= level * 10 ** (-treatment.snr_db / 20) / (np.sqrt(np.mean(behind**2)) + 1e-9)
        sound = sound + behind
    shift = round(treatment.late_s * RATE)
    sound = np.pad(sound, (max(shift, 0), max(-shift, 0)))[max(-shift, 0) :][:count]
    sound = sound * np.exp(rng.uniform(-1.2, 0.5))
    return (sound * min(1.0, 0.98 / max(float(np.abs(sound).max()), 1e-6))).astype(np.float32)


def _background(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    """(count,) noise of some colour, several voices at once, or chords."""
    if kind == "noise":
        return lfilter([1.0], [1.0, -float(rng.uniform(0.3, 0.98))], rng.standard_normal(count))
    if kind == "babble":
        jobs = []
        for name in rng.choice(VOICES["fit"], 4, replace=False):
            voice = Voice(f"en-us+{name}", int(rng.integers(140, 200)), int(rng.integers(20, 80)))
            jobs.append((_lines(rng, 1)[0], voice))
        total = np.zeros(count)
        for said in synthesise(jobs):
            wave = resample_poly(said.waveform, *Fraction(RATE, said.rate_hz).as_integer_ratio())
            total += np.roll(np.resize(wave, count), int(rng.integers(count)))
        return total
    times = np.arange(count) / RATE
    total = np.zeros(count)
    beat_s = float(rng.uniform(0.25, 0.7))
    for start in np.arange(0, count / RATE, beat_s):
        note = 110 * 2 ** (rng.integers(0, 30) / 12)
        decay = np.where(times >= start, np.exp(-(times - start) / 0.4), 0.0)
        total += decay * sum(np.sin(2 * np.pi * note * k * times) / k for k in (1, 2, 3))
    return total


class TalkingClipCache(FaceClipCache):
    """Tracks of the generated clips, made once and kept as one npz a clip; the interface of ``FaceClipCache``.

    Args:
        folder: where to keep them; made when needed.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = Path(folder) / f"talking_v{CORPUS_VERSION}.{CACHE_VERSION}"

    def get(self, entry: ClipEntry) -> list[TalkingClip]:
        """The clip's faces, read from the cache or made now.

        Raises:
            OptionError: the entry is none of :func:`talking_entries`.
            AsdExplainError: the ``demo`` extra, which makes the clips, is not installed.
        """
        path = self.path(entry)
        if not path.is_file():
            split, _, index = entry.name.removeprefix(f"{GROUP}/").rpartition("_")
            if entry.group != GROUP or split not in SPLITS or not index.isdigit() or int(index) >= COUNTS[split]:
                raise OptionError(f"{entry.name} is no clip of talking photos; take those of talking_entries")
            self._write(path, render_clips(entry, *talking_scene(split, int(index))))
        return list(self._read(path, entry))

    @staticmethod
    def _extra(path: Path) -> Path:
        """Beside a clip's file: what a :class:`TalkingClip` has more than a ``FaceClip``. Written first."""
        return path.with_suffix(".talking.npz")

    @classmethod
    def _write(cls, path: Path, clips: list[TalkingClip]) -> None:
        extra = {f"{c.track_id}.talking": c.talking for c in clips}
        save_arrays(cls._extra(path), extra | {f"{c.track_id}.kind": np.array(c.kind) for c in clips})
        FaceClipCache._write(path, clips)

    @classmethod
    def _read(cls, path: Path, entry: ClipEntry) -> Iterator[TalkingClip]:
        with np.load(cls._extra(path)) as stored:
            for clip in FaceClipCache._read(path, entry):
                fields = {name: getattr(clip, name) for name in FaceClip.__dataclass_fields__}
                key = f"{clip.track_id}"
                yield TalkingClip(**fields, talking=stored[f"{key}.talking"], kind=str(stored[f"{key}.kind"]))
