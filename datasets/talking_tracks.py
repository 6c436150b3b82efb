"""Face tracks of a drawn scene of talking photographs, with exact truth: crops straight from the drawn pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from asd_explain.datasets.face_clips import WIDE_SIZE, FaceClip, wide_box
from asd_explain.datasets.shared_clips import ClipEntry
from asd_explain.datasets.talking_draws import Treatment
from asd_explain.datasets.talking_motion import CONTROL_HZ
from asd_explain.datasets.talking_photos import Camera, VoiceTrack, frame_times, perform
from asd_explain.datasets.talking_scene import Scene
from asd_explain.datasets.talking_sound import scene_sound
from asd_explain.grid import GRID_FPS, nearest
from asd_explain.media.audio import RATE, Audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.tracks.crops import BODY_GEOMETRY, GEOMETRIES, body_box, crop

BORDER_S = 0.08
"""So near to a change of the truth it counts as unknown, seconds."""


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
    sound = scene_sound(scene, treatment, voices)
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
