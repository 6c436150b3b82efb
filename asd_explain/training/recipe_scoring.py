"""What a network says of every entity of a data set, whole, at its own frame rate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from asd_explain.datasets.entities import EntityClip, EntitySet
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.training.recipe_data import SPEAKING, checked_clip, entity_mfcc, loaded
from asd_explain.training.recipe_objective import sees_body

#: Frames encoded at a time, beside the halo; the longest entities of AVA are shorter.
PIECE_FRAMES = 400


@torch.inference_mode()
def clip_margin(model: FusionBackbone, clip: EntityClip, audio: torch.Tensor, device: torch.device) -> np.ndarray:
    """(T,) float32 logit of speaking minus logit of silent, of an entity from its first frame to its last.

    The encoders run over pieces that overlap by what a frame depends on, which changes nothing; what follows sees the
    whole clip, as the published evaluation has it.

    Args:
        model: in evaluation mode, on the device.
        clip: crops.
        audio: (4T, 13) MFCC.
        device: of the network.
    """
    length, halo = len(clip.face), model.halo_frames
    body = clip.body if sees_body(model) != "no" else None
    parts: dict[str, list[torch.Tensor]] = {}
    for first in range(0, length, PIECE_FRAMES):
        end = min(length, first + PIECE_FRAMES)
        begin, stop = max(0, first - halo), min(length, end + halo)
        inputs = {
            stream: torch.from_numpy(np.ascontiguousarray(crops[begin:stop]))[None].to(device)
            for stream, crops in (("face", clip.face), ("body", body))
            if crops is not None
        }
        pooled, _ = model.encode(audio=audio[None, 4 * begin : 4 * stop].to(device), **inputs)
        for stream, values in pooled.items():
            parts.setdefault(stream, []).append(values[:, first - begin : end - begin].float())
    pooled = {stream: torch.cat(values, 1) for stream, values in parts.items()}
    if length > PIECE_FRAMES:  # an audio encoder may depend on the whole clip's sound
        pooled["audio"] = model.audio_embedding(audio[None].to(device)).float()
    return model.fuse(pooled).margin[0].float().cpu().numpy()


def score_entities(
    model: FusionBackbone, entities: EntitySet, device: torch.device, workers: int = 0, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(index, (T,) margin, (T,) bool labels) of every ``ranks``-th entity from ``rank`` on.

    Args:
        model: in evaluation mode, on the device.
        entities: to score.
        device: of the network.
        workers: processes that load, 0 for none.
        rank, ranks: this process and how many share the set.

    Raises:
        AsdExplainError: an entity cannot be read; the message names it.
    """
    mine = range(rank, len(entities), ranks)
    needed = sees_body(model) == "needed"

    def make(place: int) -> tuple[int, EntityClip, torch.Tensor]:
        index = mine[place]
        clip = checked_clip(entities, index, needed)
        return index, clip, entity_mfcc(clip.waveform, clip.fps, len(clip.face))

    for index, clip, audio in loaded(make, len(mine), workers):
        yield index, clip_margin(model, clip, audio, device), np.asarray(clip.labels) == SPEAKING
