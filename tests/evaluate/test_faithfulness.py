"""Deletion, insertion and ROAD on networks whose answer is known, and against loops that mask one picture at a time."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.faithfulness import Curve, Probe, Protocol, area, areas, road_scores
from asd_explain.evaluate.masking import baseline, linear_fill, road_impute
from asd_explain.evaluate.segments import Segment, inputs_of
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.registry import create_model

SIDE = 112
BLOCK = (slice(0, 56), slice(0, 56))  # a quarter of the pixels


class BlockModel(FusionBackbone):
    """P(speaking) is the mean light (0 to 1) of the top left quarter, over all streams; there is no sound."""

    streams = {"face": 1}  # noqa: RUF012
    halo_frames = 0

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.eval().requires_grad_(False)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return (face[..., *BLOCK].float() / 255).mean((-2, -1))[:, :, None, None, None]

    body_maps = face_maps

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        p = torch.cat(streams, -1).mean(-1).clamp(1e-6, 1 - 1e-6)
        return torch.stack((torch.log1p(-p), torch.log(p)), -1)


class TwoBlocks(BlockModel):
    """The same of face and body alike."""

    streams = {"face": 1, "body": 1}  # noqa: RUF012


class MotionModel(BlockModel):
    """P(speaking) grows with the change from the frame before."""

    halo_frames = 1

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        light = face.float() / 255
        change = torch.zeros_like(light)
        change[:, 1:] = (light[:, 1:] - light[:, :-1]).abs()
        return change.mean((-2, -1))[:, :, None, None, None]


class RandomModel(FusionBackbone):
    """Three streams, a random convolution over space and time for each picture, a classifier that looks around."""

    streams = {"audio": 3, "face": 4, "body": 2}  # noqa: RUF012
    halo_frames = 1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.face_conv = nn.Conv3d(1, 4, (3, 9, 9), (1, 8, 8), (1, 4, 4))
        self.body_conv = nn.Conv3d(1, 2, (3, 9, 9), (1, 8, 8), (1, 4, 4))
        self.around = nn.Conv1d(9, 2, 3, padding=1)
        self.calls: list[tuple[str, int]] = []
        self.eval().requires_grad_(False)

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        self.calls.append(("audio", audio.shape[1] // 4))
        return audio[..., :3].unflatten(1, (-1, 4)).mean(2)

    def _maps(self, name: str, crops: torch.Tensor) -> torch.Tensor:
        self.calls.append((name, crops.shape[0] * crops.shape[1]))
        conv = self.face_conv if name == "face" else self.body_conv
        return torch.relu(conv(crops[:, None].float() / 50 - 2)).transpose(1, 2)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return self._maps("face", face)

    def body_maps(self, body: torch.Tensor) -> torch.Tensor:
        return self._maps("body", body)

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        return self.around(torch.cat(streams, -1).transpose(1, 2)).transpose(1, 2)


def _segment(face: np.ndarray, body: np.ndarray | None = None, mfcc: np.ndarray | None = None) -> Segment:
    crops = {"face": face} if body is None else {"face": face, "body": body}
    return Segment("clip#1@0", "clip", "real", crops, mfcc)


def _block_crops(block: int, rest: int, length: int = 2) -> np.ndarray:
    crops = np.full((length, SIDE, SIDE), rest, np.uint8)
    crops[:, *BLOCK] = block
    return crops


def _block_heat(length: int = 2) -> np.ndarray:
    heat = np.zeros((length, SIDE, SIDE), np.float32)
    heat[:, *BLOCK] = 1
    return heat


def _noise_segment(length: int = 5, seed: int = 0) -> Segment:
    rng = np.random.default_rng(seed)
    face, body = rng.integers(0, 256, (2, length, SIDE, SIDE), np.uint8)
    return _segment(face, body, rng.standard_normal((4 * length, 13)).astype(np.float32))


def _noise_heat(segment: Segment, seed: int = 1) -> dict[str, np.ndarray]:
    """Heat without ties, in a frame or in the mean over frames."""
    rng = np.random.default_rng(seed)
    return {s: rng.random(c.shape) for s, c in segment.crops.items()}


def _pick(curves: list[Curve], **wanted: str) -> list[Curve]:
    return [c for c in curves if all(getattr(c, name) == value for name, value in wanted.items())]


# Whoever speaks has a bright block in the dark, whoever is silent a dark one in the light; in both P of the predicted
# class is 0.8, and 0.2 when all is the mean grey.
@pytest.mark.parametrize(("block", "rest", "verdict"), [(204, 0, "speaking"), (51, 255, "silent")])
def test_areas_of_the_best_and_the_worst_order_are_as_computed_by_hand(block: int, rest: int, verdict: str) -> None:
    probe = Probe(BlockModel(), _segment(_block_crops(block, rest)), Protocol(steps=8, baselines=("mean",)))
    assert probe.p_class == pytest.approx(0.8, abs=1e-6)
    assert probe.called_speaking.tolist() == [verdict == "speaking"] * 2
    # The block, a quarter of the pixels, is gone at 1/4: 1/4 of the mean of 0.8 and 0.2, and 3/4 of 0.2.
    for heat, deletion, insertion in ((_block_heat(), 0.275, 0.725), (-_block_heat(), 0.725, 0.275)):
        curves = probe.curves({"face": heat})
        assert len(curves) == 4
        for move in ("frame", "tube"):
            (gone,) = _pick(curves, kind="deletion", move=move)
            (come,) = _pick(curves, kind="insertion", move=move)
            # Which of the block's pixels go first is drawn, but they are all alike.
            assert areas(gone) == pytest.approx([deletion] * 2, abs=1e-5)
            assert areas(come) == pytest.approx([insertion] * 2, abs=1e-5)
            assert gone.p[0] == pytest.approx(come.p[-1])
    rows = probe.rows("se", curves)
    assert {(r.verdict, r.frames) for r in rows} == {(verdict, 2)}
    assert [r.value for r in rows if r.metric == "deletion"] == pytest.approx([0.725] * 2, abs=1e-5)


def _p_speaking(model: FusionBackbone, segment: Segment, crops: dict[str, np.ndarray]) -> np.ndarray:
    """One clip, encoded whole."""
    pooled = {s: model.pool(getattr(model, f"{s}_maps")(torch.from_numpy(c)[None])) for s, c in crops.items()}
    pooled["audio"] = model.audio_embedding(inputs_of(model, segment)["audio"])
    with torch.inference_mode():
        return model.fuse(pooled).p_speaking[0].numpy()


def _replaced(crops: np.ndarray, heat: np.ndarray, curve: Curve, fraction: float) -> np.ndarray:
    """The curve's crops at one fraction, frame by frame with a plain sort; the heat has no ties."""
    base = baseline(crops, curve.baseline)
    shown = []
    for t in range(len(crops)):
        values = (heat[t] if curve.move == "frame" else heat.mean(0)).ravel()
        removed = np.zeros(values.size, bool)
        removed[np.argsort(-values)[: int(np.ceil(fraction * values.size))]] = True
        if curve.kind == "insertion":
            removed = ~removed
        shown.append(np.where(removed.reshape(SIDE, SIDE), base[t], crops[t]))
    return np.stack(shown)


def test_batches_equal_one_picture_at_a_time() -> None:
    model, segment = RandomModel(), _noise_segment(3)
    heat = _noise_heat(segment)
    p0 = _p_speaking(model, segment, segment.crops)
    called = p0 >= 0.5
    curves = Probe(model, segment, Protocol(steps=4, batch_frames=11)).curves(heat)
    assert [c.stream for c in curves[:3]] == ["face", "body", "joint"]
    assert len(curves) == 3 * 2 * 2 * 2
    varied = 0.0
    for curve in curves:
        assert curve.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert curve.p.shape == (5, 3)
        assert curve.p.dtype == np.float32
        for fraction, p in zip(curve.fractions.tolist(), curve.p, strict=True):
            touched = segment.crops.keys() if curve.stream == "joint" else [curve.stream]
            masked = {s: _replaced(segment.crops[s], heat[s], curve, fraction) for s in touched}
            expected = _p_speaking(model, segment, segment.crops | masked)
            np.testing.assert_allclose(p, np.where(called, expected, 1 - expected), atol=2e-5)
        varied = max(varied, float(np.ptp(curve.p, 0).max()))
    assert varied > 0.05  # the network does react


def test_batches_are_bounded_and_untouched_streams_are_encoded_once() -> None:
    model, segment = RandomModel(), _noise_segment(5)
    heat, found = _noise_heat(segment), {}
    for bound in (1, 12, 400):
        model.calls.clear()
        probe = Probe(model, segment, Protocol(steps=3, road_shares=(0.4,), batch_frames=bound))
        made = list(model.calls)
        found[bound] = [c.p for c in (*probe.curves(heat), *probe.road(heat))]
        later = model.calls[len(made) :]
        assert [name for name, _ in made].count("audio") == 1
        assert sum(frames for name, frames in made if name == "face") == 15  # untouched, blurred, grey
        # 8 curves of 2 inner points and 2 masks of ROAD; the joint curves encode nothing.
        assert {name for name, _ in later} == {"face", "body"}
        assert sum(frames for name, frames in later if name == "face") == (8 * 2 + 2) * 5
        assert max(frames for _, frames in model.calls) <= max(bound, 5)
        if bound == 12:
            assert max(frames for _, frames in later) == 10
    for one, two, three in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one, three, atol=1e-5)
        np.testing.assert_allclose(two, three, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 3))
def test_insertion_is_the_deletion_of_the_reverse_run_backwards(seed: int, length: int) -> None:
    segment = _noise_segment(length, seed)
    heat = _noise_heat(segment, seed + 1)
    probe = Probe(RandomModel(), segment, Protocol(steps=4))
    there, back = probe.curves(heat), probe.curves({s: -h for s, h in heat.items()})
    for a, b in zip(_pick(there, kind="insertion"), _pick(back, kind="deletion"), strict=True):
        np.testing.assert_allclose(a.p, b.p[::-1], atol=1e-6)
    # Only the order counts, so frame by frame any rising function of the heat gives the same.
    other = probe.curves({s: np.sqrt(h) + 3 for s, h in heat.items()})
    for a, b in zip(_pick(there, move="frame"), _pick(other, move="frame"), strict=True):
        assert (a.p == b.p).all()


def test_ends_of_the_curves_meet() -> None:
    segment = _noise_segment(2)
    probe = Probe(RandomModel(), segment, Protocol(steps=1))
    by_kind = [_pick(probe.curves(_noise_heat(segment)), kind=kind) for kind in ("deletion", "insertion")]
    for gone, come in zip(*by_kind, strict=True):
        assert gone.p.shape == (2, 2)
        assert (gone.p == come.p[::-1]).all()
        np.testing.assert_allclose(gone.p[0], probe.p_class, atol=1e-6)


def test_joint_adds_what_the_streams_add() -> None:
    segment = _segment(_block_crops(204, 0), _block_crops(255, 100))
    probe = Probe(TwoBlocks(), segment, Protocol(steps=4))
    assert probe.streams == ["face", "body"]
    curves = probe.curves({"face": _block_heat(), "body": -_block_heat()})
    for joint in _pick(curves, stream="joint"):
        same = {"baseline": joint.baseline, "move": joint.move, "kind": joint.kind}
        (face,), (body,) = (_pick(curves, stream=s, **same) for s in ("face", "body"))
        # While one stream is measured alone the other is untouched.
        np.testing.assert_allclose(joint.p, face.p + body.p - probe.p_class, atol=1e-5)


def test_a_mask_that_changes_is_motion_unless_it_moves_as_a_tube() -> None:
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE), np.uint8), 4, 0)
    segment = _segment(still)
    curves = Probe(MotionModel(), segment, Protocol(steps=4)).curves(_noise_heat(segment))
    for curve in _pick(curves, kind="deletion"):
        silent = curve.p[2]  # P of "silent", half of the pixels gone
        if curve.move == "tube":
            assert silent == pytest.approx(1, abs=1e-5)
        else:
            assert silent[1:].max() < 0.95


def test_road_removes_and_imputes_the_shares_from_both_ends() -> None:
    crops = _block_crops(204, 20)  # far enough from 0 and 255 that no noise is cut off
    crops[:, :, 80:] = np.random.default_rng(0).integers(20, 60, (2, SIDE, 32))
    probe = Probe(BlockModel(), _segment(crops), Protocol(road_shares=(0.25, 0.5)))
    heat = np.random.default_rng(1).random((2, SIDE, SIDE)) + 2 * _block_heat()
    curves = probe.road({"face": heat})
    assert [(c.kind, c.baseline, c.move) for c in curves] == [("morf", "road", "tube"), ("lerf", "road", "tube")]
    ranked = np.argsort(-heat.mean(0).ravel())
    for curve, removed in zip(curves, (lambda n: ranked[:n], lambda n: ranked[-n:]), strict=True):
        assert curve.fractions == pytest.approx([0.25, 0.5])
        for share, p in zip((0.25, 0.5), curve.p, strict=True):
            mask = np.zeros(SIDE * SIDE, bool)
            mask[removed(int(share * SIDE * SIDE))] = True
            expected = linear_fill(crops, mask.reshape(SIDE, SIDE))[:, *BLOCK].mean((1, 2)) / 255
            np.testing.assert_allclose(p, expected, atol=2e-3)  # noise and rounding
    scores = road_scores(curves)["face"]
    expected = ((curves[1].p[0] - curves[0].p[0]) + (curves[1].p[1] - curves[0].p[1])) / 4
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert scores.min() > 0.1
    (turned,) = road_scores(probe.road({"face": -heat})).values()
    np.testing.assert_allclose(turned, -scores, atol=1e-6)


def test_road_noise_depends_on_seed_and_segment_only() -> None:
    segment = _noise_segment(2)
    heat = _noise_heat(segment)
    ask = partial(Protocol, road_shares=(0.6,), baselines=())
    p = [c.p for c in Probe(RandomModel(), segment, ask()).road(heat)]
    again = [c.p for c in Probe(RandomModel(), segment, ask()).road(heat)]
    for changed in ((segment, ask(seed=1)), (replace(segment, name="clip#1@40"), ask())):
        other = [c.p for c in Probe(RandomModel(), *changed).road(heat)]
        assert all((a == b).all() for a, b in zip(p, again, strict=True))
        assert not all((a == b).all() for a, b in zip(p, other, strict=True))
    digest = hashlib.sha256(b"0/clip#1@0/face").digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    mask = np.zeros(SIDE * SIDE, bool)
    mask[np.argsort(-heat["face"].mean(0).ravel())[: round(0.6 * SIDE * SIDE)]] = True
    shown = road_impute(segment.crops["face"], mask.reshape(SIDE, SIDE), rng)
    speaking = _p_speaking(RandomModel(), segment, segment.crops | {"face": shown})
    called = _p_speaking(RandomModel(), segment, segment.crops) >= 0.5
    np.testing.assert_allclose(p[0][0], np.where(called, speaking, 1 - speaking), atol=1e-5)
    assert Probe(RandomModel(), segment, Protocol(road_shares=(), baselines=())).road(heat) == []


def test_rows_are_means_over_the_frames_of_each_verdict() -> None:
    crops = np.concatenate((_block_crops(204, 0, 3), _block_crops(51, 255, 1)))
    probe = Probe(BlockModel(), _segment(crops), Protocol(steps=4))
    assert probe.called_speaking.tolist() == [True, True, True, False]
    heat = {"face": np.random.default_rng(0).random(crops.shape)}
    curves, road = probe.curves(heat), probe.road(heat)
    rows = probe.rows("random", curves, road)
    assert len(rows) == (2 * 2 * 2 + 1) * 2
    assert len({(r.metric, r.baseline, r.move, r.verdict) for r in rows}) == len(rows)
    for row in rows:
        assert (row.segment, row.clip, row.method, row.stream) == ("clip#1@0", "clip", "random", "face")
        chosen = probe.called_speaking if row.verdict == "speaking" else ~probe.called_speaking
        assert row.frames == chosen.sum()
        if row.metric == "road":
            assert row.value == pytest.approx(road_scores(road)["face"][chosen].mean())
        else:
            (curve,) = _pick(curves, kind=row.metric, baseline=row.baseline, move=row.move)
            assert row.value == pytest.approx(area(curve, chosen)) == pytest.approx(areas(curve)[chosen].mean())


def test_area_by_hand() -> None:
    curve = Curve("face", "mean", "tube", "deletion", np.array([0, 0.5, 1]), np.array([[1, 0.5], [0.5, 0.5], [0, 0.1]]))
    assert areas(curve) == pytest.approx([0.5, 0.4])
    assert area(curve) == pytest.approx(0.45)
    assert area(curve, np.array([False, True])) == pytest.approx(0.4)
    assert np.isnan(area(curve, np.zeros(2, bool)))


def test_what_cannot_be_used_is_refused() -> None:
    for options, message in (
        ({"steps": 0}, "at least 1"),
        ({"batch_frames": 0}, "at least 1"),
        ({"baselines": ("black",)}, "blur, mean"),
        ({"moves": ("frame", "frame")}, "twice"),
        ({"road_shares": (0.5, 1.0)}, "between 0 and 1"),
        ({"road_shares": (0.5, 0.3)}, "rise"),
    ):
        with pytest.raises(OptionError, match=message):
            Protocol(**options)
    probe = Probe(BlockModel(), _segment(_block_crops(204, 0)), Protocol(steps=2))
    with pytest.raises(ValueError, match="face"):
        probe.curves({"body": _block_heat()})
    with pytest.raises(ValueError, match="14, 14"):
        probe.road({"face": np.zeros((2, 14, 14))})


@pytest.fixture(scope="module")
def squeeze() -> nn.Module:
    torch.manual_seed(0)
    model = create_model("squeeze_asd")
    model.scale_logits(30.0)  # untrained it is sure of nothing, and P would hardly move
    return model.eval().requires_grad_(False)


def test_a_real_network(squeeze: nn.Module) -> None:
    segment = _noise_segment(8)
    heat = _noise_heat(segment)
    probe = Probe(squeeze, segment, Protocol(steps=2, road_shares=(0.5,)))
    with torch.inference_mode():
        whole = squeeze(**inputs_of(squeeze, segment)).p_speaking[0].numpy()
    np.testing.assert_allclose(probe.p_speaking, whole, atol=1e-5)
    curves, road = probe.curves(heat), probe.road(heat)
    assert [c.p.shape for c in curves] == [(3, 8)] * 24
    assert [c.p.shape for c in road] == [(1, 8)] * 6
    (middle,) = _pick(curves, stream="joint", baseline="mean", move="frame", kind="deletion")
    masked = {s: _replaced(c, heat[s], middle, 0.5) for s, c in segment.crops.items()}
    with torch.inference_mode():
        expected = squeeze(**inputs_of(squeeze, replace(segment, crops=masked))).p_speaking[0].numpy()
    np.testing.assert_allclose(middle.p[1], np.where(whole >= 0.5, expected, 1 - expected), atol=1e-5)
    assert np.abs(middle.p[1] - middle.p[0]).max() > 1e-4  # it does react, by far more than the tolerance
    assert len(probe.rows("x", curves, road)) in (27, 54)


@pytest.mark.parametrize("with_body", [True, False])
def test_one_frame_without_sound_and_a_constant_map(squeeze: nn.Module, with_body: bool) -> None:
    full = _noise_segment(1)
    crops = full.crops if with_body else {"face": full.crops["face"]}
    segment = replace(full, crops=crops, mfcc=None)
    probe = Probe(squeeze, segment, Protocol(steps=2, road_shares=(0.5,)))
    with torch.inference_mode():
        whole = squeeze(**inputs_of(squeeze, segment)).p_speaking[0].numpy()
    np.testing.assert_allclose(probe.p_speaking, whole, atol=1e-6)
    heat = {s: np.zeros((1, SIDE, SIDE), np.float32) for s in crops}
    curves = [*probe.curves(heat), *probe.road(heat)]
    assert {c.stream for c in curves} == ({"face", "body", "joint"} if with_body else {"face"})
    assert all(np.isfinite(c.p).all() and (c.p >= 0).all() and (c.p <= 1).all() for c in curves)
