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


def longest(frames: Sequence[torch.Tensor], count: int) -> list[int]:
    """Which tracks are shown beside one: up to ``count`` that share most frames with it, at least one frame.

    Args:
        frames: of every other track, as :func:`present` gives them.

    Returns:
        numbers in ``frames``, the longest first; of equals, the earlier in order.
    """
    shared = [int((at >= 0).sum()) for at in frames]
    return sorted((i for i, n in enumerate(shared) if n), key=lambda i: -shared[i])[:count]


@torch.inference_mode()
def black_face(model: nn.Module) -> torch.Tensor:
    """(C,) pooled maps of a black picture among black ones."""
    device = next(model.parameters()).device
    # Five black frames, as the convolution pads with what is not black.
    return model.pool(model.face_maps(torch.zeros(1, 5, 112, 112, device=device)))[0, 2]


def beside(faces: Sequence[torch.Tensor], frames: Sequence[torch.Tensor], black: torch.Tensor) -> dict:
    """What a network is given of the company of a track: {"context": (1, T, K, C)}, or nothing where there is none.

    Args:
        faces: K times (T', C) pooled maps of another track.
        frames: K times (T,) frames of it, -1 where it is not there: its face is black then.
        black: as :func:`black_face` gives it.
    """
    context = [
        torch.where((at >= 0)[:, None].to(black.device), face[at.clamp_min(0).to(face.device)], black)
        for face, at in zip(faces, frames, strict=True)
    ]
    return {"context": torch.stack(context, 1)[None]} if context else {}


@torch.inference_mode()
def score_together(model: nn.Module, tracks: Sequence[Encoded]) -> list[np.ndarray]:
    """(T, 2) float32 logits of every track beside its company.

    Company are the ``scored_together - 1`` other tracks that share most frames with it, see :func:`longest`. In frames
    in which one is not there its face is black. Two frames next to such a gap would see some of the black picture
    through the network's 5-frame convolution, and do not here.

    Args:
        model: a backbone that takes ``context``, in evaluation mode.
        tracks: all of the clip.
    """
    black = black_face(model)
    found = []
    for i, one in enumerate(tracks):
        others = [other for j, other in enumerate(tracks) if j != i]
        frames = [present(one, other) for other in others]
        chosen = longest(frames, model.scored_together - 1)
        company = beside([others[k].pooled["face"][0] for k in chosen], [frames[k] for k in chosen], black)
        found.append(classify(model, one.pooled | company)[0].float().cpu().numpy())
    return found
