"""Clips of talking photographs with exact ground truth.

    truth = make_clip(PRESETS["demo"](), "demo.mp4")
    python -m asd_explain.datasets.talking_photos --preset demo -o out/
    python -m asd_explain.datasets.talking_photos --dataset ava -o out/   # a data set, see datasets/miniature.py

Photographs that wheels ship (both in the public domain) talk with the voices of espeak-ng: the same scene gives the
same clip. Beside ``NAME.mp4`` stand ``NAME.csv``, the truth in the AVA-ActiveSpeaker format (no header), and
``NAME.mouths.csv``, where face, body and mouth are in every frame, in pixels.

The rule of the labels stands in :mod:`asd_explain.datasets.talking_truth`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from scipy.signal import resample_poly

from asd_explain.datasets.speech_synth import Utterance, Voice, synthesise
from asd_explain.datasets.talking_face import Pose, TalkingFace
from asd_explain.datasets.talking_motion import CONTROL_HZ, FaceMotion, articulate
from asd_explain.datasets.talking_scene import PRESETS, SENTENCES, Offscreen, Person, Scene, Shot
from asd_explain.datasets.talking_truth import PersonTruth, Truth, speaking_rule, write_tables
from asd_explain.errors import AsdExplainError, OutputError

log = logging.getLogger(__name__)

AUDIO_HZ = 44_100
_VOICE_RMS = 0.085
_GUTTER = (24, 24, 26)


@dataclass(frozen=True)
class VoiceTrack:
    """One voice over the whole clip: control signals at CONTROL_HZ and sound at the synthesiser's rate."""

    opening: np.ndarray
    rounding: np.ndarray
    loudness: np.ndarray
    voiced: np.ndarray
    label: np.ndarray
    waveform: np.ndarray


def frame_times(scene: Scene) -> tuple[list[int], Fraction]:
    """Presentation times of a scene's frames as integers, and their unit in seconds."""
    rate = scene.rate
    numbers = np.arange(max(1, round(scene.duration_s * rate)))
    if scene.variable_rate and len(numbers) > 2:
        drop = np.random.default_rng((scene.seed, 7)).random(len(numbers)) < 0.25
        drop[[0, -1]] = False
        drop[1:] &= ~drop[:-1]  # never two in a row
        numbers = numbers[~drop]
    return [int(n) * rate.denominator for n in numbers], Fraction(1, rate.numerator)


def _texts(one: Person | Offscreen, turns: Sequence[tuple[float, float]], rng: np.random.Generator) -> list[str]:
    """What a voice says in its turns: its lines, or sentences enough to fill the time."""
    if one.lines:
        return [one.lines[k % len(one.lines)] for k in range(len(turns))]
    texts = []
    for start_s, end_s in turns:
        words_wanted = (end_s - start_s) * one.voice.rate_wpm / 60 * 1.5 + 4
        order, said = rng.permutation(len(SENTENCES)), []
        while sum(len(s.split()) for s in said) < words_wanted:
            said.append(SENTENCES[order[len(said) % len(order)]])
        texts.append(" ".join(said))
    return texts


def perform(scene: Scene) -> list[VoiceTrack]:
    """All voices of a scene over its whole length, people first."""
    voices = (*scene.people, *scene.offscreen)
    turns = [[(t, True) for t in one.turns] + [(t, False) for t in getattr(one, "mouthing", ())] for one in voices]
    jobs: list[tuple[str, Voice]] = []
    for who, one in enumerate(voices):
        rng = np.random.default_rng((scene.seed, 1, who))
        jobs += [(text, one.voice) for text in _texts(one, [t for t, _ in turns[who]], rng)]
    spoken = iter(synthesise(jobs))
    tracks = []
    for who, one in enumerate(voices):
        said = [(t, audible, next(spoken).cut(t[1] - t[0])) for t, audible in turns[who]]
        tracks.append(_track(said, scene.duration_s, one.gain))
    return tracks


def _track(said: list[tuple[tuple[float, float], bool, Utterance]], duration_s: float, gain: float) -> VoiceTrack:
    count = int(np.ceil(duration_s * CONTROL_HZ)) + 2
    rate_hz = said[0][2].rate_hz if said else AUDIO_HZ
    signals = {name: np.zeros(count) for name in ("opening", "rounding", "loudness")}
    voiced, label = np.zeros(count, bool), np.zeros(count, np.int8)
    waveform = np.zeros(int(np.ceil(duration_s * rate_hz)), np.float32)
    for (start_s, _), audible, utterance in said:
        speech = articulate(utterance)
        first = round(start_s * CONTROL_HZ)
        span = slice(first, min(first + len(speech.opening), count))
        here = slice(0, span.stop - first)
        signals["opening"][span] = np.maximum(signals["opening"][span], speech.opening[here])
        signals["rounding"][span] += speech.rounding[here]
        signals["loudness"][span] = np.maximum(signals["loudness"][span], speech.loudness[here])
        label[span][speaking_rule(speech.voiced[here], CONTROL_HZ)] = 1 if audible else 2
        if audible:
            voiced[span] |= speech.voiced[here]
            at = round(start_s * rate_hz)
            wave = utterance.waveform[: len(waveform) - at]
            loud = wave[np.abs(wave) > 0.01]
            level = float(np.sqrt(np.mean(np.square(loud)))) if len(loud) else 1.0
            waveform[at : at + len(wave)] += wave * np.float32(gain * _VOICE_RMS / level)
    return VoiceTrack(*signals.values(), voiced, label, _resampled(waveform, rate_hz))


def _resampled(waveform: np.ndarray, rate_hz: int) -> np.ndarray:
    if rate_hz == AUDIO_HZ or not len(waveform):
        return waveform
    ratio = Fraction(AUDIO_HZ, rate_hz)
    return resample_poly(waveform, ratio.numerator, ratio.denominator).astype(np.float32)


def mix(scene: Scene, tracks: list[VoiceTrack]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """The clip's sound and each voice alone, (n,) float32 at AUDIO_HZ."""
    count = round(scene.duration_s * AUDIO_HZ)
    voices = [np.pad(t.waveform[:count], (0, max(0, count - len(t.waveform)))) for t in tracks]
    room = np.random.default_rng((scene.seed, 2)).standard_normal(count)
    total = np.sum(voices, axis=0) + room * 10 ** (scene.room_db / 20)
    scale = np.float32(min(1.0, 0.95 / max(float(np.abs(total).max()), 1e-6)))
    return total.astype(np.float32) * scale, tuple(v * scale for v in voices)


def panels(count: int, width: int, height: int) -> list[tuple[int, int, int, int]]:
    """xyxy px of ``count`` panels filling a frame in rows, their shape as near to square as it gets."""

    def shape(rows: int) -> float:
        return abs(np.log((width / -(-count // rows)) / (height / rows)))

    rows = min(range(1, count + 1), key=shape)
    gutter = 0 if count == 1 else max(1, round(0.004 * max(width, height)))
    boxes, done = [], 0
    for row in range(rows):
        here = (count - done) // (rows - row)
        y1, y2 = round(row * height / rows), round((row + 1) * height / rows)
        for col in range(here):
            x1, x2 = round(col * width / here), round((col + 1) * width / here)
            boxes.append((x1, y1, x2 - (gutter if col + 1 < here else 0), y2 - (gutter if row + 1 < rows else 0)))
        done += here
    return boxes


class Camera:
    """Draws a scene's frames and knows where everything is in them."""

    def __init__(self, scene: Scene, tracks: list[VoiceTrack]) -> None:
        self.scene = scene
        self.shots = scene.camera()
        self._cached: tuple[int, list[tuple[int, tuple[int, int, int, int], TalkingFace]]] = (-1, [])
        self._motion = [
            FaceMotion(
                *(person.articulation * track.opening, track.rounding, track.loudness),
                seed=(scene.seed * 1009 + 31 * who + 17),
                liveliness=person.liveliness,
                torso=person.torso,
                gestures=person.gestures,
            )
            for who, (person, track) in enumerate(zip(scene.people, tracks, strict=False))
        ]
        rng = np.random.default_rng((scene.seed, 3))
        grain = rng.standard_normal((scene.height + 64, scene.width + 64, 1), np.float32)
        tint = rng.standard_normal((scene.height + 64, scene.width + 64, 3), np.float32)
        self._grain = np.rint(scene.noise * (0.9 * grain + 0.45 * tint)).astype(np.int16)

    def shot_at(self, time_s: float) -> int:
        return max(k for k, shot in enumerate(self.shots) if shot.start_s <= time_s + 1e-6)

    def faces(self, number: int) -> list[tuple[int, tuple[int, int, int, int], TalkingFace]]:
        """(person, panel xyxy px, face) of a shot."""
        if self._cached[0] != number:
            shot: Shot = self.shots[number]
            boxes = panels(len(shot.people), self.scene.width, self.scene.height)
            self._cached = (
                number,
                [
                    (who, box, self._face(who, box[2] - box[0], box[3] - box[1], shot.zoom))
                    for who, box in zip(shot.people, boxes, strict=True)
                ],
            )
        return self._cached[1]

    def _face(self, who: int, width: int, height: int, zoom: float) -> TalkingFace:
        person = self.scene.people[who]
        return TalkingFace(person.look, width, height, zoom, torso=person.torso > 0 or person.gestures > 0)

    def pose(self, who: int, time_s: float) -> Pose:
        return self._motion[who].at(time_s)

    def frame(self, index: int, time_s: float) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        picture = np.empty((self.scene.height, self.scene.width, 3), np.uint8)
        picture[:] = _GUTTER
        for who, (x1, y1, x2, y2), face in self.faces(self.shot_at(time_s)):
            picture[y1:y2, x1:x2] = face.render(self.pose(who, time_s))
        if self.scene.noise > 0:
            dx, dy = np.random.default_rng((self.scene.seed, 4, index)).integers(0, 64, 2)
            grain = self._grain[dy : dy + self.scene.height, dx : dx + self.scene.width]
            picture = cv2.add(picture, grain, dtype=cv2.CV_8U)
        return picture


def render_frames(scene: Scene) -> Iterator[tuple[float, np.ndarray]]:
    """The frames of a scene before encoding: (time in seconds, (H, W, 3) uint8 RGB). The same scene, the same bytes."""
    scene.check()
    camera = Camera(scene, perform(scene))
    stamps, unit = frame_times(scene)
    for index, stamp in enumerate(stamps):
        time_s = float(stamp * unit)
        yield time_s, camera.frame(index, time_s)


def _truths(scene: Scene, camera: Camera, tracks: list[VoiceTrack], times_s: np.ndarray, video_id: str):
    size = (scene.width, scene.height)
    shots = np.array([camera.shot_at(t) for t in times_s])
    controls = np.clip(np.rint(times_s * CONTROL_HZ).astype(int), 0, len(tracks[0].voiced) - 1)
    people = []
    for who, track in enumerate(tracks[: len(scene.people)]):
        boxes = {name: np.full((len(times_s), 4), np.nan, np.float32) for name in ("face", "body", "mouth")}
        visible = np.zeros(len(times_s), bool)
        entity = np.full(len(times_s), "", dtype=object)
        opening = np.zeros(len(times_s), np.float32)
        for n, time_s in enumerate(times_s):
            pose = camera.pose(who, time_s)
            opening[n] = pose.opening
            for one, panel, face in camera.faces(shots[n]):
                if one != who:
                    continue
                visible[n] = True
                entity[n] = f"{video_id}_{shots[n]:04d}:{who + 1}"
                boxes["face"][n] = _place(face.face_box(pose), panel, size)
                boxes["body"][n] = _place(face.body_box(pose), panel, size)
                boxes["mouth"][n] = _place(face.mouth_box(pose), panel, size)
        people.append(
            PersonTruth(visible, entity, *boxes.values(), track.label[controls], track.voiced[controls], opening)
        )
    return tuple(people), shots


def _place(box: np.ndarray, panel: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """A box in panel pixels -> frame pixels, clipped to the panel."""
    x1, y1, x2, y2 = panel
    placed = box + np.array([x1, y1, x1, y1], np.float32)
    return np.clip(placed, (x1, y1, x1, y1), (x2, y2, x2, y2)).astype(np.float32)


def make_clip(scene: Scene, out_path: str | Path, *, overwrite: bool = False) -> Truth:
    """Make the clip of a scene with its truth beside it.

    Args:
        scene: what to make.
        out_path: the MP4; ``.csv`` and ``.mouths.csv`` are written beside it under the same name.
        overwrite: replace files that exist.

    Raises:
        OptionError: the scene cannot be made.
        OutputError: the file exists, or cannot be written.
        AsdExplainError: the ``demo`` extra is not installed, or espeak-ng has no such voice.
    """
    scene.check()
    path = Path(out_path)
    if path.suffix.lower() != ".mp4":
        raise OutputError(f"{path}: the clip is an MP4; end its name in .mp4")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; pass overwrite, or another name")
    tracks = perform(scene)
    camera = Camera(scene, tracks)
    stamps, unit = frame_times(scene)
    times_s = np.array([float(stamp * unit) for stamp in stamps])
    waveform, voices = mix(scene, tracks)
    hidden = path.with_name(f".{path.stem}.part.mp4")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _encode(hidden, scene, camera, stamps, unit, waveform)
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)
    except (OSError, av.FFmpegError) as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
    people, shots = _truths(scene, camera, tracks, times_s, path.stem)
    truth = Truth(
        *(path, path.with_suffix(".csv"), path.with_suffix(".mouths.csv"), path.stem, times_s),
        *(people, shots, waveform, voices),
    )
    write_tables(truth, scene.width, scene.height)
    return truth


def _encode(path: Path, scene: Scene, camera: Camera, stamps: list[int], unit: Fraction, waveform: np.ndarray) -> None:
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=scene.rate, options={"crf": "18", "preset": "veryfast"})
        video.width, video.height = scene.width, scene.height
        video.pix_fmt = "yuv444p" if scene.width % 2 or scene.height % 2 else "yuv420p"
        video.codec_context.time_base = unit
        video.codec_context.thread_count = 2  # x264's output depends on it: not on the machine's cores, then
        for name, value in (("color_range", 1), ("color_primaries", 1), ("color_trc", 1), ("colorspace", 1)):
            setattr(video.codec_context, name, value)  # limited range, BT.709
        audio = container.add_stream("aac", rate=AUDIO_HZ, layout="mono") if scene.audio else None
        sent = 0
        for index, stamp in enumerate(stamps):
            time_s = float(stamp * unit)
            picture = av.VideoFrame.from_ndarray(camera.frame(index, time_s), format="rgb24")
            frame = picture.reformat(format=video.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = stamp, unit
            container.mux(video.encode(frame))
            while audio is not None and sent < len(waveform) and sent <= time_s * AUDIO_HZ:
                sent = _send_audio(container, audio, waveform, sent)
        container.mux(video.encode(None))
        if audio is not None:
            while sent < len(waveform):
                sent = _send_audio(container, audio, waveform, sent)
            container.mux(audio.encode(None))


def _send_audio(container, audio, waveform: np.ndarray, sent: int) -> int:
    block = np.ascontiguousarray(waveform[None, sent : sent + 1024])
    frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = AUDIO_HZ, sent, Fraction(1, AUDIO_HZ)
    container.mux(audio.encode(frame))
    return sent + block.shape[1]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m asd_explain.datasets.talking_photos",
        description="Make a clip of talking photographs with its ground truth (needs the demo extra).",
    )
    parser.add_argument("--preset", choices=[*PRESETS, "all"], default="demo", help="the scene (default: demo)")
    parser.add_argument(
        "--dataset", choices=("ava", "wasd"), help="make a miniature of this data set instead, as OUT/ava or OUT/wasd"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("."), metavar="DIR", help="folder for the files")
    parser.add_argument("--width", type=int, help="pixels")
    parser.add_argument("--height", type=int, help="pixels")
    parser.add_argument("--fps", help="frames a second, e.g. 25, 29.97 or 30000/1001")
    parser.add_argument("--seed", type=int, help="of texts, motion and noise")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.dataset is not None:
        # Imported here: the miniature is made of this module's clips.
        from asd_explain.datasets.miniature import main as miniature

        if any(getattr(options, k) is not None for k in ("width", "height", "fps")):
            parser.error("--width, --height and --fps belong to --preset; a miniature has its own")
        words = ["--dataset", options.dataset, "--out", str(options.out), "--seed", str(options.seed or 0)]
        return miniature([*words, "--overwrite"] if options.overwrite else words)
    changes = {k: getattr(options, k) for k in ("width", "height", "seed") if getattr(options, k) is not None}
    try:
        if options.fps is not None:
            try:
                changes["fps"] = Fraction(options.fps) if "/" in options.fps else float(options.fps)
            except (ValueError, ZeroDivisionError):
                parser.error(f"--fps {options.fps} is not a number or a ratio")
        for name in PRESETS if options.preset == "all" else [options.preset]:
            truth = make_clip(
                replace(PRESETS[name](), **changes), options.out / f"{name}.mp4", overwrite=options.overwrite
            )
            log.info("%s (%d frames), %s, %s", truth.path, len(truth.times_s), truth.csv_path, truth.mouths_path)
    except AsdExplainError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
