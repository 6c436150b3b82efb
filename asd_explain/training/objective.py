"""The loss: what is asked of the network, of its streams one by one, and of its embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.training._tables import FromTable
from asd_explain.training.gate_statistics import follow_statistics
from asd_explain.training.sampler import FEATURES, SOUNDS, Batch

_SYNC_WIDTH, _SYNC_FRAMES, _SYNC_STRIDE, _SYNC_APART = 64, 9, 4, 3


@dataclass(frozen=True)
class LossWeights(FromTable):
    """Weights of the loss's parts; 0 leaves one out.

    Attributes:
        own, silent, other, asked: of the cross-entropy under each kind of sound.
        streams: of the auxiliary heads that look at one stream's embedding alone (as the field does: TalkNet, Tao et
            al., arXiv 2107.06592; Light-ASD).
        features: of the squared error of how the teacher's embeddings move.
        synchrony: of the contrastive loss between sound and lips (SyncNet's idea, Chung and Zisserman, ACCV-W 2016; in
            the form of InfoNCE, arXiv 1807.03748).
    """

    _table = "loss"

    own: float = 1.0
    silent: float = 0.5
    other: float = 0.7
    asked: float = 0.4
    streams: float = 0.3
    features: float = 1.0
    synchrony: float = 0.2

    def __post_init__(self) -> None:
        self._check_number(vars(self), 0, 100)


class Objective(nn.Module):
    """A backbone with what only its training needs: heads, targets' statistics, the loss.

    Args:
        model: the backbone.
        weights: of the loss's parts.
        precision: type of the encoders' arithmetic under autocast; None for float32.
    """

    def __init__(self, model: FusionBackbone, weights: LossWeights, precision: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self.weights, self.precision = model, weights, precision
        widths = model.streams
        # Pooled activations vary little about large means; heads of plain weights would need ages to grow to that.
        self.level = nn.ModuleDict({stream: nn.BatchNorm1d(width, affine=False) for stream, width in widths.items()})
        self.stream_heads = nn.ModuleDict({stream: nn.Linear(width, 1) for stream, width in widths.items()})
        self.face_features = nn.Linear(widths["face"], FEATURES[0])
        self.audio_features = nn.Linear(widths["audio"], FEATURES[1])
        for name, width in (("face", FEATURES[0]), ("audio", FEATURES[1])):
            self.register_buffer(f"{name}_std", torch.ones(width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.sync_audio = nn.Linear(widths["audio"], _SYNC_WIDTH)
        self.sync_face = nn.Linear(widths["face"], _SYNC_WIDTH)
        self.sync_scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of one batch and its parts for the log."""
        pooled = self._encode(batch)
        n, sounds = batch.present.shape[:2]
        if self.training:
            follow_statistics(self.model, pooled, self.seen)
        views = self._with_absences(batch, pooled)
        logits = self.model.fuse(views).logits
        margin = (logits[..., 1] - logits[..., 0]).reshape(n, sounds, -1)
        losses = F.binary_cross_entropy_with_logits(margin, batch.target, reduction="none")
        parts, w = {}, self.weights
        for i, kind in enumerate(SOUNDS):
            weight = batch.weight[:, i]
            parts[kind] = (losses[:, i] * weight).sum() / weight.sum().clamp_min(1.0)
        pooled = {stream: self._levelled(stream, values) for stream, values in pooled.items()}
        parts["streams"] = self._stream_loss(batch, pooled)
        parts["features"] = self._feature_loss(batch, pooled)
        parts["synchrony"] = self._sync_loss(batch, pooled)
        total = sum(getattr(w, name) * value for name, value in parts.items())
        return total, {name: float(value.detach()) for name, value in parts.items()}

    def _encode(self, batch: Batch) -> dict[str, torch.Tensor]:
        """{stream: embeddings}: face (N, T, C), body (M, T, C), audio (N, S, T, C)."""
        model, kind = self.model, batch.face.device.type
        with torch.autocast(kind, self.precision or torch.bfloat16, enabled=self.precision is not None):
            pooled = {"face": model.pool(model.face_maps(batch.face)).float()}
            if len(batch.body_of):
                pooled["body"] = model.pool(model.body_maps(batch.body)).float()
        audio = model.audio_embedding(batch.mfcc.flatten(0, 1))
        pooled["audio"] = audio.reshape(*batch.mfcc.shape[:2], *audio.shape[1:])
        return pooled

    def _with_absences(self, batch: Batch, pooled: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Every chunk with every sound, {stream: (N * S, T, C)}, absent streams replaced by what stands for them."""
        n, sounds, length = batch.target.shape
        full = {"audio": pooled["audio"], "face": pooled["face"][:, None].expand(n, sounds, length, -1)}
        if "body" in self.model.streams:
            body = torch.zeros(n, length, self.model.streams["body"], device=batch.face.device)
            if "body" in pooled:
                body = body.index_copy(0, batch.body_of, pooled["body"])
            full["body"] = body[:, None].expand(n, sounds, length, -1)
        for i, stream in enumerate(full):
            if self.model.learned_absence:
                there = batch.present[:, :, i, None, None]
                full[stream] = torch.where(there, full[stream], self.model.absent[stream])
            full[stream] = full[stream].flatten(0, 1)
        return full

    def _levelled(self, stream: str, values: torch.Tensor) -> torch.Tensor:
        return self.level[stream](values.flatten(0, -2)).reshape(values.shape)

    def _stream_loss(self, batch: Batch, pooled: dict[str, torch.Tensor]) -> torch.Tensor:
        target, weight = batch.lips, batch.lips_weight
        total = _weighted_bce(self.stream_heads["face"](pooled["face"])[..., 0], target, weight)
        if "body" in pooled:
            body = self.stream_heads["body"](pooled["body"])[..., 0]
            total = total + _weighted_bce(body, target[batch.body_of], weight[batch.body_of])
        # Sound alone cannot know who is seen: only that a voice is there (own sound of a speaker) or is not.
        heard = self.stream_heads["audio"](pooled["audio"][:, :2])[..., 0]
        sure = batch.weight[:, :2].clone()
        sure[:, 0] *= batch.matched
        return total + _weighted_bce(heard, batch.target[:, :2], sure)

    def _feature_loss(self, batch: Batch, pooled: dict[str, torch.Tensor]) -> torch.Tensor:
        face = self._error(self.face_features(pooled["face"]), batch.teacher_face, self.face_std)
        sound = self.audio_features(pooled["audio"][:, 0])
        return face + 0.3 * self._error(sound, batch.teacher_audio, self.audio_std)

    @staticmethod
    def _error(said: torch.Tensor, taught: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        """Squared error of (N, T, F) movements about each chunk's mean; 1 for a network that says nothing moves.

        What stays the same through a chunk (who it is, the light) is most of the teacher's variance and none of the
        answer; with few people a batch the network would chase it from batch to batch.
        """
        known = torch.isfinite(taught[..., :1])
        count = known.sum(1, keepdim=True).clamp_min(1)
        taught = taught.float().nan_to_num() / std
        moves = [(x - (x * known).sum(1, keepdim=True) / count) * known for x in (said, taught)]
        error = (moves[0] - moves[1]).square().mean(-1)
        return error.sum() / known.sum().clamp_min(1)

    def _sync_loss(self, batch: Batch, pooled: dict[str, torch.Tensor]) -> torch.Tensor:
        """InfoNCE over windows of 0.36 s: of all windows of the batch's sounds, which is that of these lips?"""

        def windows(x: torch.Tensor) -> torch.Tensor:
            return F.avg_pool1d(x.transpose(1, 2), _SYNC_FRAMES, _SYNC_STRIDE).transpose(1, 2)

        lips = F.normalize(windows(self.sync_face(pooled["face"])), dim=-1)
        sound = F.normalize(windows(self.sync_audio(pooled["audio"][:, 0])), dim=-1)
        certain = windows(batch.matched[..., None].float())[..., 0] > 0.9
        clips, count = certain.shape
        at = torch.arange(clips * count, device=certain.device)
        clip, place = at // count, at % count
        keep = certain.flatten()
        if keep.sum() < 4:
            return lips.sum() * 0
        near = (clip[:, None] == clip) & ((place[:, None] - place).abs() < _SYNC_APART) & (at[:, None] != at)
        similar = lips.flatten(0, 1) @ sound.flatten(0, 1).T * self.sync_scale.exp().clamp(max=50)
        similar = similar.masked_fill(near, -1e4)[keep][:, keep]
        right = torch.arange(len(similar), device=similar.device)
        return (F.cross_entropy(similar, right) + F.cross_entropy(similar.T, right)) / 2


def _weighted_bce(logit: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    losses = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return (losses * weight).sum() / weight.sum().clamp_min(1.0)
