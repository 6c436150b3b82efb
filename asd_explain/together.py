"""Scoring the faces of a picture together, for networks that see other candidates beside a face (LoCoNet).

Faces are encoded one by one as they come (:mod:`asd_explain.scoring`); what is kept of each is small. When the clip
ends, each track is classified once more beside those that were in the picture with it for the longest time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from asd_explain.grid import GRID_FPS
from asd_explain.scoring import classify


@dataclass
class Encoded:
    """One track's embeddings on its grid of T frames.

    Attributes:
        start_s: time of grid frame 0 in seconds.
        pooled: {stream: (1, T, C)} as the network's ``encode`` gives them.
    """

    start_s: float
    pooled: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return self.pooled["face"].shape[1]


def present(one: Encoded, other: Encoded) -> torch.Tensor:
    """(T,) for every frame of one track the frame of another nearest in time, or -1 where the other is not there."""
    frames = torch.arange(len(one)) + round((one.start_s - other.start_s) * GRID_FPS)
    return torch.where((frames >= 0) & (frames < len(other)), frames, -1)


@torch.inference_mode()
def score_together(model: nn.Module, tracks: Sequence[Encoded]) -> list[np.ndarray]:
    """(T, 2) float32 logits of every track beside its company.

    Company are the ``scored_together - 1`` other tracks that share most frames with it, at least one; of equals, the
    earlier in order. In frames in which one is not there its face is black. Two frames next to such a gap would see
    some of the black picture through the network's 5-frame convolution, and do not here.

    Args:
        model: a backbone that takes ``context``, in evaluation mode.
        tracks: all of the clip.
    """
    device = next(model.parameters()).device
    # Five black frames, as the convolution pads with what is not black.
    black = model.pool(model.face_maps(torch.zeros(1, 5, 112, 112, device=device)))[0, 2]
    found = []
    for i, one in enumerate(tracks):
        others = [(other, present(one, other)) for j, other in enumerate(tracks) if j != i]
        others = [(other, frames) for other, frames in others if (frames >= 0).any()]
        others.sort(key=lambda item: -int((item[1] >= 0).sum()))
        context = [
            torch.where((frames >= 0)[:, None].to(device), other.pooled["face"][0, frames.clamp_min(0)], black)
            for other, frames in others[: model.scored_together - 1]
        ]
        company = {"context": torch.stack(context, 1)[None]} if context else {}
        found.append(classify(model, one.pooled | company)[0].float().cpu().numpy())
    return found
