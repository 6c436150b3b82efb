"""The faces of a picture scored together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain.models.registry import create_model
from asd_explain.together import Encoded, present, score_together


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model("loconet").requires_grad_(False)


def _encoded(start_s: float, frames: int, seed: int) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    return Encoded(
        start_s,
        {s: torch.randn(1, frames, w, generator=generator) for s, w in (("audio", 128), ("face", 512))},
    )


def test_frames_of_another_track_are_those_nearest_in_time() -> None:
    one, other = _encoded(1.0, 5, 0), _encoded(1.09, 2, 1)  # 2.25 frames later
    assert present(one, other).tolist() == [-1, -1, 0, 1, -1]
    assert present(other, one).tolist() == [2, 3]
    assert present(one, _encoded(9.0, 3, 2)).tolist() == [-1] * 5


@torch.inference_mode()
def test_a_track_is_scored_beside_those_that_share_most_frames(model: nn.Module) -> None:
    one = _encoded(0.0, 6, 0)
    far, brief = _encoded(9.0, 6, 1), _encoded(0.2, 4, 2)
    long, longer = _encoded(0.04, 6, 3), _encoded(0.0, 6, 4)
    scores = score_together(model, [one, far, brief, long, longer])
    assert [s.shape for s in scores] == [(6, 2), (6, 2), (4, 2), (6, 2), (6, 2)]
    # By hand: the two longest; the second is not there in the first frame, where its face is black.
    black = model.pool(model.face_maps(torch.zeros(1, 9, 112, 112)))[:, 4:5]
    shifted = torch.cat((black, long.pooled["face"][:, :5]), 1)
    by_hand = model.fuse(one.pooled | {"context": torch.stack((longer.pooled["face"], shifted), 2)})
    np.testing.assert_allclose(scores[0], by_hand.logits[0], atol=1e-4, rtol=1e-4)
    # Who shares no frame with anybody is alone.
    np.testing.assert_allclose(scores[1], model.fuse(far.pooled).logits[0], atol=1e-5)
    assert np.abs(scores[0] - model.fuse(one.pooled).logits[0].numpy()).max() > 1e-4
    np.testing.assert_allclose(score_together(model, [one])[0], model.fuse(one.pooled).logits[0], atol=1e-5)
    assert score_together(model, []) == []
