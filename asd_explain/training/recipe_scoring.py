"""What a network says of every entity of a data set, whole, at its own frame rate.

A network that sees several candidates (LoCoNet) is shown each entity beside those that share most frames with it, as
:mod:`asd_explain.together` does it with clips. Every face is encoded once; entities are then scored video by video.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from asd_explain.datasets.entities import EntityClip, EntitySet
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.together import beside, black_face, longest
from asd_explain.training.recipe_company import Company
from asd_explain.training.recipe_data import SPEAKING, checked_clip, entity_sound, loaded
from asd_explain.training.recipe_objective import sees_body

#: Frames encoded at a time, beside the halo; the longest entities of AVA are shorter.
PIECE_FRAMES = 400


@torch.inference_mode()
def encoded(
    model: FusionBackbone, clip: EntityClip, audio: torch.Tensor, device: torch.device
) -> dict[str, torch.Tensor]:
    """{stream: (1, T, C)} float32: what the network's encoders give of an entity from its first frame to its last.

    They run over pieces that overlap by what a frame depends on, which changes nothing.

    Args:
        model: in evaluation mode, on the device.
        clip: crops.
        audio: (4T, C) of what it hears.
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
    return pooled


@torch.inference_mode()
def margin_of(model: FusionBackbone, pooled: dict[str, torch.Tensor]) -> np.ndarray:
    """(T,) float32 logit of speaking minus logit of silent; it sees the whole clip, as the published evaluation does.

    Args:
        model: in evaluation mode.
        pooled: as :func:`encoded` gives it.
    """
    return model.fuse(pooled).margin[0].float().cpu().numpy()


def share_of(model: FusionBackbone, entities: EntitySet, rank: int = 0, ranks: int = 1) -> list[int]:
    """The entities that a process scores, in the order in which they come.

    Every ``ranks``-th from ``rank`` on; for a network that sees several candidates, those of whole videos, dealt out
    from the longest on.

    Args:
        model: the network.
        entities: the set.
        rank, ranks: this process and how many share the set.
    """
    if model.scored_together == 1:
        return list(range(rank, len(entities), ranks))
    videos: dict[str, list[int]] = {}
    for index, row in enumerate(entities.rows):
        videos.setdefault(row.video_id, []).append(index)
    frames = {video: sum(len(entities.rows[i]) for i in indices) for video, indices in videos.items()}
    mine = sorted(videos, key=lambda video: -frames[video])[rank::ranks]
    return [index for video in mine for index in videos[video]]


def score_entities(
    model: FusionBackbone, entities: EntitySet, device: torch.device, workers: int = 0, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(index, (T,) margin, (T,) bool labels) of every entity of a process's share.

    Args:
        model: in evaluation mode, on the device.
        entities: to score.
        device: of the network.
        workers: processes that load, 0 for none.
        rank, ranks: see :func:`share_of`.

    Raises:
        AsdExplainError: an entity cannot be read; the message names it.
    """
    mine = share_of(model, entities, rank, ranks)
    needed = sees_body(model) == "needed"

    def make(place: int) -> tuple[int, EntityClip, torch.Tensor]:
        index = mine[place]
        clip = checked_clip(entities, index, needed)
        return index, clip, entity_sound(clip.waveform, clip.fps, len(clip.face), model.audio_feature)

    def label(index: int) -> np.ndarray:
        return np.asarray(entities.rows[index].labels) == SPEAKING

    together = model.scored_together > 1
    scorer = _VideoScorer(model, entities) if together else None
    for place, (index, clip, audio) in enumerate(loaded(make, len(mine), workers)):
        pooled = encoded(model, clip, audio, device)
        if scorer is None:
            yield index, margin_of(model, pooled), label(index)
            continue
        scorer.waiting[index] = pooled
        video = entities.rows[index].video_id
        if place + 1 == len(mine) or entities.rows[mine[place + 1]].video_id != video:
            for done, margin in scorer.flush():
                yield done, margin, label(done)


class _VideoScorer:
    """Scores the entities of one video beside each other.

    Attributes:
        waiting: {entity: what its encoders gave} of the video.
    """

    def __init__(self, model: FusionBackbone, entities: EntitySet) -> None:
        self._model, self._company = model, Company(entities.rows)
        self._black = black_face(model)
        self.waiting: dict[int, dict[str, torch.Tensor]] = {}

    @torch.inference_mode()
    def flush(self) -> list[tuple[int, np.ndarray]]:
        """(entity, margin) of all that wait; none waits any longer."""
        found = []
        for index, pooled in self.waiting.items():
            shared = {other: torch.from_numpy(at) for other, at in self._company.beside(index).items()}
            names = list(shared)
            chosen = [names[i] for i in longest(list(shared.values()), self._model.scored_together - 1)]
            faces = [self.waiting[other]["face"][0] for other in chosen]
            company = beside(faces, [shared[other] for other in chosen], self._black.float())
            found.append((index, margin_of(self._model, pooled | company)))
        self.waiting = {}
        return found
