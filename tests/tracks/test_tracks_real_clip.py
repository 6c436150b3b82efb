"""Cuts, detector and tracker together on real clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_explain.media.reader import VideoReader
from asd_explain.tracks.detect import DetectionSchedule, YuNetDetector
from asd_explain.tracks.link import FaceTracker
from asd_explain.tracks.shots import ShotDetector
from asd_explain.tracks.track import FrameTracks


def follow(path: Path, model: Path, end_s: float) -> list[FrameTracks]:
    detector, shots, schedule = YuNetDetector(model), ShotDetector(), DetectionSchedule()
    done: list[FrameTracks] = []
    with VideoReader(path, end_s=end_s, threads=1) as reader:
        width, height = reader.info.width, reader.info.height
        tracker = FaceTracker(width, height)
        small = detector.working_size(width, height)
        for frame in reader:
            cut = shots.push(frame.bgr(*shots.working_size(width, height)), frame.time_s)
            found = None
            if schedule.due(frame.time_s, cut=cut):
                found = detector.detect(frame.bgr(*small), width / small[0], height / small[1])
            done += tracker.push(frame.index, frame.time_s, found, cut)
    return done + tracker.flush()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("clip", "faces"),
    [
        ("conversations/standup_two_mixed.mp4", 2),
        ("single/variable_frame_rate.mp4", 1),
        ("single/studio_bbaf2n.mpg", 1),
    ],
)
def test_everybody_is_followed_from_the_first_frame_to_the_last(shared_dir: Path, clip: str, faces: int) -> None:
    frames = follow(shared_dir / "clips" / clip, shared_dir / "weights" / "yunet" / "yunet_n_320_320.onnx", 2.5)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all([face.track_id for face in frame.faces] == list(range(1, faces + 1)) for frame in frames)
    assert all(face.landmarks is not None for frame in frames for face in frame.faces)
    share = np.mean([not face.interpolated for frame in frames for face in frame.faces])
    assert 0.1 < share < 0.4
