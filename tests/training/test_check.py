"""The look at dev in between, and the statistics before the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.calibration import fit_temperature
from asd_explain.evaluate.detection import average_precision
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.registry import create_model
from asd_explain.models.squeeze_asd import ENERGY_FLOOR
from asd_explain.training.check import QuickCheck
from asd_explain.training.corpus import TrainTrack, track_of
from asd_explain.training.objective import LossWeights, Objective
from asd_explain.training.prepare import prepare

T = 30


class Knows(FusionBackbone):
    """Says "speaks" where the face is bright and the sound is loud; ``body`` says the same as the face."""

    streams = {"audio": 1, "face": 1, "body": 1}  # noqa: RUF012
    halo_frames = 2
    learned_absence = True

    def __init__(self) -> None:
        super().__init__()
        self.absent = nn.ParameterDict({s: nn.Parameter(torch.zeros(1)) for s in self.streams})

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return audio[..., :1].unflatten(1, (-1, 4)).mean(2) / 20

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return face.float().mean((-2, -1))[..., None, None, None] / 255

    body_maps = face_maps

    def classify(self, audio: torch.Tensor, face: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        margin = ((face + body) * audio)[..., 0]
        return torch.stack((torch.zeros_like(margin), margin), -1)


@pytest.fixture
def tracks(make_clip: Callable) -> list[TrainTrack]:
    """Faces that are bright while they speak; some frames are unknown; one clip has no sound track."""
    found = []
    for i, (person, voice) in enumerate((("anna", True), ("bo", True), ("mute", False))):
        speaks = np.random.default_rng(i).random(T) < 0.5
        truth = speaks.astype(np.float32)
        truth[3:6] = np.nan
        light = np.broadcast_to(np.where(speaks, 200, 50)[:, None, None], (T, 112, 112)).astype(np.uint8)
        light[3:6] = 255 - light[3:6]
        clip = make_clip(person, seed=i, length=T, voice=voice, truth=truth if i else None)
        clip = replace(clip, faces={"box": light, "demo": light}, bodies=light)
        lesson = None if i else type("Says", (), {"own": truth})()
        found.append(track_of(clip, lesson))
    return found


def test_a_network_that_knows_is_right_where_something_is_known(tracks: list[TrainTrack]) -> None:
    found = QuickCheck(tracks)(Knows().eval())
    assert found["own"] == pytest.approx(1.0), "unknown frames do not count"
    assert found["body"] == found["face"] == pytest.approx(1.0)
    assert found["silence"] == pytest.approx(1.0), "digital silence is far from loud"
    assert 0.4 < found["other"] < 1, "who is heard it cannot tell"
    assert 0 < found["frozen"] <= 1
    photos = {name for name in found if name.endswith("_photos")}
    assert photos == {f"{name}_photos" for name in ("own", "silence", "other", "frozen", "body", "face")}
    assert found == QuickCheck(tracks)(Knows().eval()), "the same voices each time"


def test_precision_is_that_of_all_known_frames_together(tracks: list[TrainTrack]) -> None:
    known = [~np.isnan(t.own) for t in tracks[1:]]
    labels = np.concatenate([t.own[k] >= 0.5 for t, k in zip(tracks[1:], known, strict=True)])
    scores = []
    for t, k in zip(tracks[1:], known, strict=True):
        light = t.clip.faces["box"][:, 0, 0] / 255
        scores.append((2 * light * t.clip.mfcc[:, 0].reshape(T, 4).mean(1) / 20)[k])
    found = QuickCheck(tracks)(Knows().eval())
    assert found["own_photos"] == pytest.approx(average_precision(np.concatenate(scores), labels), abs=1e-6)


def test_networks_without_a_body_are_looked_at_as_well(tracks: list[TrainTrack]) -> None:
    torch.manual_seed(0)
    found = QuickCheck(tracks[:1])(create_model("light_asd"))
    assert set(found) == {"own", "silence", "frozen"}, "one voice alone has no other"
    assert QuickCheck([])(create_model("light_asd")) == {}


def test_the_network_is_told_the_mean_and_spread_of_voices(tracks: list[TrainTrack]) -> None:
    made = Objective(create_model("squeeze_asd"), LossWeights())
    prepare(made, tracks[1:])
    rows = tracks[1].clip.mfcc.copy()
    rows[:, 0] = np.maximum(rows[:, 0], ENERGY_FLOOR)  # as the encoder hears it
    np.testing.assert_allclose(made.model.audio_encoder.mean, rows.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(made.model.audio_encoder.std, rows.std(0), rtol=1e-4, atol=1e-4)
    assert (made.face_std == 1).all(), "no teacher was asked"


def test_the_objective_is_told_how_far_features_move(
    tiny: nn.Module, make_clip: Callable, make_lesson: Callable
) -> None:
    """About each track's mean; sound only where there is some; channels that hardly move are not blown up."""
    tracks = [track_of(make_clip(p, voice=v), make_lesson(40, seed=v)) for p, v in (("anna", True), ("mute", False))]
    for i, t in enumerate(tracks):
        t.lesson.face[:] += 5 * i
        t.lesson.face[:, 7] = i
        t.lesson.audio[:] *= 2 - i
    made = Objective(tiny, LossWeights())
    prepare(made, tracks)
    moves = [t.lesson.face.astype(np.float64) - t.lesson.face.astype(np.float64).mean(0) for t in tracks]
    spread = np.concatenate(moves).std(0)
    moving = np.arange(512) != 7
    np.testing.assert_allclose(made.face_std[moving], spread[moving], rtol=1e-3)
    assert 0 < float(made.face_std[7]) < spread.mean()
    np.testing.assert_allclose(made.audio_std, tracks[0].lesson.audio.astype(np.float64).std(0), rtol=1e-3)


def test_voices_are_needed(make_clip: Callable, make_lesson: Callable) -> None:
    mute = track_of(make_clip("mute", voice=False), make_lesson(40))
    with pytest.raises(OptionError, match="no face track has a voice"):
        prepare(Objective(create_model("squeeze_asd"), LossWeights()), [mute])


def test_the_temperature_calibrates_the_own_sound(tracks: list[TrainTrack]) -> None:
    """A network that is right but far too sure of itself is cooled; easy conditions have no say."""
    check = QuickCheck(tracks)
    sure = Knows().eval()
    margin, labels = check.margins(sure)["own"]
    assert check.temperature(sure) == pytest.approx(
        fit_temperature(
            np.concatenate([margin, check.margins(sure)["own_photos"][0]]),
            np.concatenate([labels, check.margins(sure)["own_photos"][1]]).astype(int),
            np.repeat(
                [1 / len(margin), 1 / len(check.margins(sure)["own_photos"][0])],
                [len(margin), len(check.margins(sure)["own_photos"][0])],
            ),
        )
    )
