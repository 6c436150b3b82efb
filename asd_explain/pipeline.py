"""The whole way of the data, readable in one sitting: a clip goes in, who speaks and why comes out.

Two passes over the clip: :func:`analyse` decodes, detects, links, cuts, scores and explains in a stream;
:func:`draw` decodes again and writes the annotated video.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from asd_explain.errors import ClipError, OptionError
from asd_explain.explain.base import create_explainer
from asd_explain.loudness import loudness
from asd_explain.manifest import finish_manifest, manifest
from asd_explain.media.audio import Audio, load_audio
from asd_explain.media.frame import Frame, Planes
from asd_explain.media.probing import ClipInfo
from asd_explain.media.reader import VideoReader
from asd_explain.media.writer import VideoWriter
from asd_explain.options import Options, pick_device
from asd_explain.render import Renderer, Scene, TimelineTrack
from asd_explain.results import NewFiles, Result, TrackResult
from asd_explain.running import bounded_threads, progress_bar, seed_everything
from asd_explain.scoring import GridFeeder, Scores, TrackScorer
from asd_explain.stages import Ahead, Behind, Timings
from asd_explain.targets import Targets, still_frames
from asd_explain.together import Encoded, score_together
from asd_explain.tracks.boxes_csv import CsvTracker
from asd_explain.tracks.crops import BODY_GEOMETRY, body_box, crop
from asd_explain.tracks.detect import Detections, DetectionSchedule, Detector, create_detector
from asd_explain.tracks.link import FaceTracker
from asd_explain.tracks.shots import ShotDetector
from asd_explain.tracks.track import FrameTracks, Track, TrackedFace
from asd_explain.views import Views
from asd_explain.weights.store import load

log = logging.getLogger(__name__)

FRAMES_AHEAD = 12
CROPS_BEHIND = 400  # crops of 12 KB that may wait for the network


def explain_video(path: Path | str, output: Path | str | None = None, **options: object) -> Result:
    """Explain a clip: find faces, score them, and draw and write why.

    Args:
        path: any video that FFmpeg reads.
        output: the MP4 to write; ``scores.csv`` and the other results are written beside it with its stem before their
            names. None analyses only; write with :meth:`Result.save`.
        **options: fields of :class:`asd_explain.options.Options`.

    Returns:
        The result; ``files`` says what was written.

    Raises:
        AsdExplainError: one of its kinds, with a message that says what to do.
    """
    chosen = Options(**options)
    clip = Path(path)
    targets = None if output is None else Targets.of(Path(output), chosen)
    if targets is not None:
        targets.check(clip, chosen.overwrite)
    elif chosen.stills:
        raise OptionError("stills are drawn beside a video; give an output")
    timings = Timings()
    seed_everything(chosen.seed)
    with timings("total"), bounded_threads(chosen.threads):
        with timings("first pass"):
            result, audio = analyse(clip, chosen, timings)
        try:
            if targets is not None:
                with NewFiles(chosen.overwrite) as new:
                    with timings("second pass"):
                        draw(result, targets, chosen, audio, timings, new)
                    finish_manifest(result, timings)
                    written = result.write_all(new, targets.folder, targets.prefix)
                result.files.update({"video": targets.video, **written})
        finally:
            if audio is not None:
                audio.close()
    finish_manifest(result, timings)
    return result


# --- first pass -------------------------------------------------------------------------------------------------------


@dataclass
class _Looked:
    """One source frame after detection."""

    frame: Frame
    detections: Detections | None
    cut: bool


def _look(reader: VideoReader, detector: Detector | None, timings: Timings) -> Iterator[_Looked]:
    """Decode, find cuts, and run the detector where it is due; runs ahead of everything else in its own thread."""
    info = reader.info
    shots, schedule = ShotDetector(), DetectionSchedule()
    shot_size = shots.working_size(info.width, info.height)
    size = (0, 0) if detector is None else detector.working_size(info.width, info.height)
    for frame in timings.over(reader, "decode"):
        with timings("shots"):
            cut = shots.push(frame.bgr(*shot_size), frame.time_s)
        detections = None
        if detector is not None and schedule.due(frame.time_s, cut=cut):
            with timings("detect"):
                detections = detector.detect(frame.bgr(*size), info.width / size[0], info.height / size[1])
        yield _Looked(frame, detections, cut)


@dataclass
class _Done:
    """A track that has ended; ``encoded`` where the network scores the faces of a picture together."""

    track: Track
    scores: Scores
    encoded: Encoded | None


class _Follower:
    """One track while it lasts: puts its crops on the grid and into the scorer, and keeps its small data."""

    def __init__(
        self, track_id: int, scorer: TrackScorer, score: Behind[Callable[[], None]], *, together: bool = False
    ) -> None:
        self.track_id, self._together = track_id, together
        self._scorer, self._score = scorer, score
        self.feeder = GridFeeder(lambda crops: score(partial(scorer.add, crops)))
        self.seen: list[tuple[int, float, TrackedFace]] = []

    def finish(self, done: list[_Done]) -> None:
        """Hand in the rest; the result is appended to ``done`` when the network has come to it."""
        self.feeder.flush()
        track = Track.from_frames(self.track_id, self.seen)
        self._score(lambda: done.append(_Done(track, self._scorer.finish(), self._encoded())))

    def _encoded(self) -> Encoded | None:
        return Encoded(self._scorer.start_s, self._scorer.pooled) if self._together else None


def analyse(clip: Path, options: Options, timings: Timings) -> tuple[Result, Audio | None]:
    """First pass: everything but the drawing.

    Returns:
        (result, the sound), which the second pass needs.
    """
    with VideoReader(clip, start_s=options.start_s, end_s=options.end_s, threads=options.threads) as reader:
        info = reader.info
        refuse_truncated(info, options)
        explainer = create_explainer(options.explainer)
        if explainer.needs_inputs:
            raise OptionError(
                f"--explainer {options.explainer} cannot explain a clip in a stream; take another, or measure it with "
                "tools/evaluate_attention.py"
            )
        with timings("load"):
            device = pick_device(options.device)
            chosen = options.card_name
            model = load(chosen, weights=options.weights, device=device)
            log.info("network: %s (%s)", model.card.name, model.card.source)
        if not set(options.streams) & set(model.streams):
            raise OptionError(
                f"--streams {','.join(options.streams)}: {chosen} does not see it; "
                f"it sees {', '.join(s for s in model.streams if s != 'audio')}"
            )
        notes: list[str] = []
        if options.boxes is None:
            detector = create_detector(options.detector)
            if detector.name == "haar" and options.detector == "auto":
                notes.append("fallback face detector: faces may be missed")
            tracker: FaceTracker | CsvTracker = FaceTracker(info.width, info.height)
        else:
            detector, tracker = None, CsvTracker(options.boxes, options.body_boxes, info)
        with timings("audio"):
            audio = load_audio(clip, start_s=options.start_s, end_s=options.end_s)
        if audio is None:
            if getattr(model, "learned_absence", False):
                notes.append("no audio track: judged by sight")
                log.warning("%s: no audio track; whoever moves the lips as if talking will be called speaking", clip)
            else:
                notes.append("no audio track: silence fed")
                log.warning(
                    "%s: no audio track; the network is fed silence, so hardly anybody will be called speaking", clip
                )
        if float(info.fps) < 20:
            notes.append(f"{float(info.fps):.3g} frames/s: lips are hard to read")
            log.warning("%s: %.3g frames a second; below about 20 lips are hard to read", clip, float(info.fps))

        cut_crops = partial(_cut_crops, geometry=model.card.geometry, with_body="body" in model.crops)
        followers: dict[int, _Follower] = {}
        done: list[_Done] = []
        waiting: dict[int, Frame] = {}
        frame_times: list[float] = []

        def take(final: FrameTracks) -> None:
            frame = waiting.pop(final.index)
            present = {face.track_id for face in final.faces}
            for track_id in [t for t in followers if t not in present]:
                followers.pop(track_id).finish(done)
            for face in final.faces:
                if face.track_id not in followers:
                    scorer = TrackScorer(model, explainer, audio, final.time_s, timings)
                    together = model.scored_together > 1
                    followers[face.track_id] = _Follower(face.track_id, scorer, score, together=together)
                if face.body is None:
                    face = dataclasses.replace(face, body=body_box(face.box, info.width, info.height))
                follower = followers[face.track_id]
                follower.seen.append((final.index, final.time_s, face))
                follower.feeder.push(final.time_s, partial(cut_crops, frame, face, timings))

        bar = progress_bar("analysing", info, options)
        # Side by side: pictures and faces ahead, the network behind, linking and cutting in between.
        with (
            Behind(lambda job: job(), CROPS_BEHIND) as score,
            Ahead(_look(reader, detector, timings), FRAMES_AHEAD) as looked_at,
            bar,
        ):
            for looked in looked_at:
                frame = looked.frame
                waiting[frame.index] = frame
                frame_times.append(frame.time_s)
                with timings("link"):
                    final = tracker.push(frame.index, frame.time_s, looked.detections, looked.cut)
                for tracks in final:
                    take(tracks)
                bar.update()
            for tracks in tracker.flush():
                take(tracks)
            for follower in followers.values():
                follower.finish(done)

    done.sort(key=lambda item: item.track.track_id)
    if model.scored_together > 1:
        with timings("network"):
            for item, logits in zip(done, score_together(model, [item.encoded for item in done]), strict=True):
                item.scores.logits = logits
    entities = getattr(tracker, "entity_ids", {})
    results = [
        TrackResult(
            item.track,
            item.scores,
            entities.get(item.track.track_id, f"{clip.stem}:{item.track.track_id}"),
            options.smooth_s,
        )
        for item in done
    ]
    if not results:
        notes.append("no face found")
        log.warning("%s: no face found; the video comes out without boxes", clip)
    if not model.maps_are_gated:
        notes.append("no fitted gates: plain activations shown")
        log.warning("no gates are fitted to %s: the heat shows plain activations", chosen)
    result = Result(
        clip=info,
        tracks=results,
        threshold=options.threshold,
        frame_times_s=np.array(frame_times),
        notes=notes,
        has_audio=audio is not None,
    )
    result.manifest = manifest(result, options, model, detector, explainer)
    return result, audio


def _cut_crops(frame: Frame, face: TrackedFace, timings: Timings, *, geometry: str, with_body: bool) -> dict:
    """The crops of one face in one frame, by stream."""
    with timings("crop"):
        crops = {"face": crop(frame.luma(), face.box, geometry)}
        if with_body:
            crops["body"] = crop(frame.luma(), face.body, BODY_GEOMETRY)
    return crops


# --- second pass ------------------------------------------------------------------------------------------------------


def draw(
    result: Result,
    targets: Targets,
    options: Options,
    audio: Audio | None,
    timings: Timings,
    new: NewFiles,
) -> None:
    """Second pass: decode again, draw, and write the MP4 and the stills."""
    info, times = result.clip, result.frame_times_s
    wanted = still_frames(result, targets)
    with timings("loudness"):
        sound = None if audio is None else loudness(audio, times[0], times[-1] + float(1 / info.fps))
    scene = Scene(
        width=info.width,
        height=info.height,
        start_s=float(times[0]),
        end_s=float(times[-1] + 1 / info.fps),
        tracks=[TimelineTrack(t.track.track_id, t.track.times_s, t.p_speaking) for t in result.tracks],
        loudness=sound,
        threshold=options.threshold,
        notes=result.notes,
        smooth_s=options.smooth_s,
        model=result.manifest["weights"]["name"],
        explainer=options.explainer if result.manifest["weights"]["gates"] else "activations (no gates)",
        zero_s=info.start_s,
    )
    renderer = Renderer(scene, layout=options.layout)
    width, height = renderer.output_size
    cells = result.manifest["heat"]["cell_stride_px"], result.manifest["heat"]["cell_offset_px"]
    geometry = result.manifest["weights"]["geometry"]
    views = Views(
        result,
        options.streams,
        geometry,
        cells,
        with_crops=options.layout == "panel",
        with_bodies=options.body_boxes is not None,
    )

    def prepared(reader: VideoReader) -> Iterator[tuple[Frame, Planes]]:
        for frame in timings.over(reader, "decode"):
            with timings("planes"):
                planes = frame.planes()
            yield frame, planes

    with (
        VideoReader(info.path, start_s=options.start_s, end_s=options.end_s, threads=options.threads) as reader,
        VideoWriter(
            new.add(targets.video),
            width=width,
            height=height,
            source=info,
            audio_path=info.path if info.has_audio else None,
            start_s=options.start_s,
            end_s=options.end_s,
            overwrite=True,  # the hidden file that `new` has made
            threads=options.threads,
        ) as writer,
    ):
        result.manifest["output_clock_offset_s"] = writer.origin_s

        def encode(item: tuple[Planes, float]) -> None:
            with timings("encode"):
                writer.write(*item)

        bar = progress_bar("drawing", info, options, total=len(times))
        with Ahead(prepared(reader), 4) as frames, Behind(encode, 4) as send, bar:
            for frame, planes in frames:
                with timings("views"):
                    faces = views.of(frame)
                for path in wanted.get(frame.index, []):
                    from asd_explain.render.stills import save_still  # matplotlib is slow to import

                    with timings("stills"):
                        save_still(new.add(path), frame.rgb(), frame.time_s, faces, scene, result.video_id)
                with timings("draw"):
                    planes = renderer.draw(planes, frame.time_s, faces)
                send((planes, frame.time_s))
                bar.update()
    result.files.update({f"still_{moment:.2f}s": path for moment, path in targets.stills.items()})


def refuse_truncated(info: ClipInfo, options: Options) -> None:
    """Refuse a clip that breaks off before the end of what is to be explained.

    Raises:
        ClipError: saying where, and how to explain what is there.
    """
    if info.truncated_at_s is None or (options.end_s is not None and options.end_s <= info.truncated_at_s):
        return
    raise ClipError(
        f"{info.path}: breaks off at {info.truncated_at_s:.2f} s of {info.duration_s:.2f} s (copied incompletely?); "
        f"get the whole file, or explain what is there with --end {info.truncated_at_s:.2f}"
    )
