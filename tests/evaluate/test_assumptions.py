"""What the published recipe assumes of gates: samples whose distribution is known."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from asd_explain.errors import OptionError
from asd_explain.evaluate.assumptions import (
    PERCENTILES,
    TopKSqueeze,
    distribution_rows,
    gates_of,
    qq_points,
    rejected_share,
    selection_rows,
    variants,
)
from asd_explain.evaluate.segments import Smoothing
from asd_explain.explain.base import create_explainer
from asd_explain.explain.squeeze import SqueezeHeat
from asd_explain.models.output import Output


def _normal(frames: int, channels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 0.1 * torch.randn(frames, channels, generator=generator)


def _selected(gates: torch.Tensor) -> dict[float, float]:
    return {r["percentile"]: r["selected"] for r in selection_rows([{"face": gates}]) if r["scope"] == "frame"}


def test_the_threshold_selects_a_tenth_of_normal_gates_only() -> None:
    normal = _selected(_normal(200, 500))
    assert [normal[p] for p in PERCENTILES] == pytest.approx([0.25, 0.10, 0.05, 0.01], abs=0.004)
    # Uniform on (0, 1): the threshold is 1/2 + z / sqrt(12), above it 1/2 - z / sqrt(12) of the values, or none.
    uniform = _selected(torch.rand(200, 500, generator=torch.Generator().manual_seed(0)))
    z = stats.norm.ppf(PERCENTILES)
    expected = np.maximum(0.5 - z / np.sqrt(12), 0)
    assert [uniform[p] for p in PERCENTILES] == pytest.approx(list(expected), abs=0.004)
    assert uniform[0.90] > 0.12
    # Half closed, half open: mean 0.5, deviation 0.4, threshold 1.01; nothing is above it, so one channel is kept.
    rows = selection_rows([{"face": torch.tensor([[0.1] * 10 + [0.9] * 10])}], (0.90,))
    assert [(r["selected"], r["none"], r["channels"], r["top_k"]) for r in rows] == [(0.0, 1.0, 1.0, 2)] * 2


def test_clip_gates_are_the_mean_over_a_track() -> None:
    # Each frame opens another channel: one in ten passes; on average all are alike, and none does.
    rows = {r["scope"]: r for r in selection_rows([{"face": torch.eye(10)}], (0.90,))}
    assert rows["frame"]["selected"] == pytest.approx(0.1)
    assert rows["frame"]["times"] == pytest.approx(1.0)
    assert (rows["clip"]["selected"], rows["clip"]["none"]) == (0.0, 1.0)


def test_normal_gates_pass_and_others_do_not() -> None:
    (normal,) = distribution_rows([{"face": _normal(1000, 100)}])
    assert normal["rejected"] == pytest.approx(0.05, abs=0.025)
    assert normal["not_normal"] == pytest.approx(0.05, abs=0.025)
    assert abs(normal["skewness"]) < 0.05
    np.testing.assert_allclose(normal["qq"]["gates"], normal["qq"]["normal"], atol=0.06)
    (bimodal,) = distribution_rows([{"face": 0.2 + 0.6 * (_normal(200, 100) > 0.5) + 0.01 * _normal(200, 100, 1)}])
    assert bimodal["rejected"] > 0.99
    assert bimodal["excess_kurtosis"] < -1.5
    assert bimodal["ks_distance"] > 5 * normal["ks_distance"] / 2
    assert np.abs(np.subtract(bimodal["qq"]["gates"], bimodal["qq"]["normal"])).max() > 0.5


def test_rejection_equals_scipy_row_by_row() -> None:
    rows = torch.rand(60, 30, generator=torch.Generator().manual_seed(2)).double() ** 1.5
    expected = np.mean([stats.normaltest(row).pvalue < 0.05 for row in rows.numpy()])
    assert 0 < expected < 1
    assert rejected_share(rows) == pytest.approx(expected)
    assert rejected_share(rows[:, :7]) is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(2, 200), scale=st.floats(0.01, 10), shift=st.floats(-5, 5))
def test_qq_points_rise_and_move_with_the_sample(seed: int, count: int, scale: float, shift: float) -> None:
    values = np.random.default_rng(seed).standard_normal(300)
    normal, sample = qq_points(values, count)
    assert (np.diff(normal) > 0).all()
    assert (np.diff(sample) >= 0).all()
    for before, after in zip((normal, sample), qq_points(scale * values + shift, count), strict=True):
        np.testing.assert_allclose(after, scale * before + shift, rtol=1e-6, atol=1e-6)


def test_qq_points_by_hand() -> None:
    normal, sample = qq_points(np.array([0.0, 1.0, 2.0]), 3)  # probabilities 1/6, 1/2, 5/6
    assert sample == pytest.approx([1 / 3, 1, 5 / 3])
    assert normal == pytest.approx(1 + np.sqrt(2 / 3) * stats.norm.ppf([1 / 6, 1 / 2, 5 / 6]))


def test_constant_gates_give_no_nan() -> None:
    tracks = [{"face": torch.full((5, 16), 0.5)}, {"face": torch.full((1, 16), 0.5), "body": torch.ones(1, 3)}]
    rows = distribution_rows(tracks)
    json.dumps([rows, selection_rows(tracks)], allow_nan=False)
    assert [(r["stream"], r["tracks"], r["frames"], r["constant"]) for r in rows] == [
        ("face", 2, 6, 1.0),
        ("body", 1, 1, 1.0),
    ]
    assert rows[0]["rejected"] is rows[0]["ks_distance"] is None
    assert rows[0]["qq"]["gates"] == []
    assert rows[0]["histogram"][10] == 6 * 16
    # Frames that are constant leave the others' figures alone.
    normal = _normal(200, 40)
    (alone,), (mixed,) = (distribution_rows([{"face": g}]) for g in (normal, torch.cat((normal, torch.ones(200, 40)))))
    assert mixed["constant"] == 0.5
    assert mixed["rejected"] == alone["rejected"]
    assert mixed["qq"] == alone["qq"]


def _output(frames: int, channels: int, seed: int = 0) -> Output:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(1, frames, channels, 3, 4, generator=generator)
    gates = torch.rand(1, frames, channels, generator=generator)
    return Output(torch.zeros(1, frames, 2), {"face": gates, "audio": gates}, {"face": maps})


def test_streams_that_are_not_there_have_no_gates() -> None:
    output = _output(3, 5)
    output.standardised.update(face=torch.ones(1, 3, 5), audio=torch.zeros(1, 3, 5))
    assert {s: v.shape for s, v in gates_of(output).items()} == {"face": (3, 5)}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), channels=st.integers(1, 30), share=st.sampled_from([0.01, 0.1, 0.25, 0.5]))
def test_top_share_by_brute_force(seed: int, channels: int, share: float) -> None:
    output = _output(2, channels, seed)
    heat = TopKSqueeze(share).heat(None, {}, output=output)["face"].numpy()
    count = max(1, int(np.ceil(share * channels - 1e-9)))
    for t in range(2):
        gates, maps = (v[0, t].numpy() for v in (output.gates["face"], output.maps["face"]))
        first = np.argsort(-gates, kind="stable")[:count]
        np.testing.assert_allclose(heat[t], sum(gates[c] * maps[c] for c in first) / count, atol=1e-5)


def test_all_channels_are_the_plain_heat() -> None:
    output = _output(3, 9)
    for scope in ("frame", "clip"):
        own = TopKSqueeze(1.0, scope).heat(None, {}, output=output)["face"]
        torch.testing.assert_close(own, SqueezeHeat(None, scope).heat(None, {}, output=output)["face"])
    for options in ((0.0,), (1.1,), (0.5, "video")):
        with pytest.raises(OptionError, match=r"outside|scope"):
            TopKSqueeze(*options)


def test_variants_are_what_their_labels_say() -> None:
    base = Smoothing(0.4, 1.0, "bilinear")
    found = variants(base)
    labels = [label for label, _, _ in found]
    assert len(set(labels)) == len(labels)
    output = _output(4, 200)
    output.gates["face"] = output.gates["face"] ** 8  # skewed, so that no threshold keeps as many as its share
    gains = torch.rand(200, generator=torch.Generator().manual_seed(4))
    model = SimpleNamespace(gains={"face": gains})  # only what is called after gains, and se, may change with them
    made = {label: make().heat(model, {}, output=output)["face"] for label, make, _ in found}
    assert all(torch.isfinite(heat).all() and (heat >= 0).all() for heat in made.values())
    paper = create_explainer("se-paper").heat(model, {}, output=output)["face"]
    torch.testing.assert_close(made["se: gains, frame"], SqueezeHeat().heat(model, {}, output=output)["face"])
    plain = create_explainer("se-plain").heat(model, {}, output=output)["face"]
    torch.testing.assert_close(made["se: all, frame"], plain, rtol=0, atol=0)
    torch.testing.assert_close(made["se: percentile 90, clip"], paper, rtol=0, atol=0)
    torch.testing.assert_close(made["se: top 10 %, frame"], TopKSqueeze(0.1).heat(None, {}, output=output)["face"])
    # Each assumption makes a difference; interpolation alone leaves the raw heat as it is.
    different = [label for label in labels if not label.endswith(("bicubic", "bilinear", "nearest"))]
    for i, a in enumerate(different):
        assert not any(torch.equal(made[a], made[b]) for b in different[:i])
    for label, _, smoothing in found:
        kind = label.rpartition(", ")[2]
        expected = kind if kind in ("bicubic", "bilinear", "nearest") else "bilinear"
        assert smoothing == Smoothing(0.4, 1.0, expected)
