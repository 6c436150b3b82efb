"""Annotated entities made of a square that opens as loudly as it sounds, in memory, and small networks that learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from asd_explain.datasets.entities import DataError, EntityClip, EntityRow, EntitySet
from asd_explain.models.fusion_backbone import FusionBackbone


class FakeEntities(EntitySet):
    """Who speaks opens the mouth and is loud, a quarter of a second at a time; who does not is quiet and still.

    Attributes:
        clips: what is loaded; may be replaced.
        missing: name of an entity whose sound is not there.
    """

    def __init__(self, clips: list[EntityClip], with_body: bool) -> None:
        self.clips, self.with_body, self.missing = clips, with_body, ""

    @property
    def rows(self) -> list[EntityRow]:
        return [clip.entity for clip in self.clips]

    def load(self, index: int) -> EntityClip:
        if self.rows[index].entity_id == self.missing:
            raise DataError(f"audio/{self.missing}.wav: no such file; prepare the data set again")
        return self.clips[index]

    def change(self, index: int, **fields: object) -> None:
        """Replace fields of a clip."""
        self.clips[index] = replace(self.clips[index], **fields)


def fake_entities(lengths: list[int], *, seed: int = 0, fps: float = 25.0, bodies: bool = False) -> FakeEntities:
    """One entity a length; the sound of the last frame is missing, as in the field's layout."""
    rng, side = np.random.default_rng(seed), 112
    clips = []
    for number, length in enumerate(lengths):
        labels = np.repeat(rng.random(-(-length // 6)) < 0.5, 6)[:length].astype(np.int8)
        open_px = np.where(labels, rng.integers(side // 5, side // 3, length), 2)
        face = rng.integers(80, 120, (length, side, side), dtype=np.uint8)
        middle = side // 2
        for picture, px in zip(face, open_px, strict=True):
            picture[3 * side // 4 - px // 2 : 3 * side // 4 + px // 2 + 1, middle - side // 6 : middle + side // 6] = 10
        samples = round(16000 / fps)
        loud = np.repeat(np.where(labels, 0.2, 0.003), samples)
        waveform = (loud * rng.standard_normal(length * samples)).astype(np.float32)
        stamps = np.round(900 + np.arange(length) / fps, 2)
        corner = rng.uniform(0, 0.5, 2).round(3)
        row = EntityRow(
            entity_id=f"video{number % 2}_0900_0930:{number}",
            video_id=f"video{number % 2}",
            timestamps_s=stamps,
            labels=labels,
            fps=fps,
            boxes=np.tile(np.r_[corner, corner + 0.25], (length, 1)),
        )
        body = 255 - face if bodies else None
        clips.append(EntityClip(row, face, body, waveform[: (length - 1) * samples], labels, fps))
    return FakeEntities(clips, bodies)


class SmallNetwork(FusionBackbone):
    """Two streams of a few channels without norms over the batch; heads as the published networks name them."""

    streams = {"audio": 6, "face": 5}  # noqa: RUF012
    halo_frames = 0

    def __init__(self, drop: float = 0.3) -> None:
        super().__init__()
        self.sound, self.looks = nn.Linear(13, 6), nn.Conv2d(1, 5, 1)
        self.drop = nn.Dropout(drop)
        self.head = nn.Linear(11, 2)
        self.lossA, self.lossV = (nn.ModuleDict({"FC": nn.Linear(n, 2)}) for n in (6, 5))

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return self.sound(audio.unflatten(1, (-1, 4)).mean(2) / 10)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        cells = nn.functional.adaptive_avg_pool2d(1 - face.float() / 255, 4).flatten(0, 1)[:, None]
        return self.looks(cells).unflatten(0, face.shape[:2])

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.cat(streams, -1)))


class SmallCompany(SmallNetwork):
    """The same for three candidates, each of which is told what the others look like; it hears log-mel."""

    audio_feature, audio_width, scored_together = "log_mel", 64, 3

    def __init__(self, drop: float = 0.3) -> None:
        super().__init__(drop)
        self.sound, self.others = nn.Linear(64, 6), nn.Linear(22, 2)

    def meet(self, audio: torch.Tensor, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"audio": audio[:, None].expand(-1, faces.shape[1], -1, -1), "face": faces}

    def across(self, vectors: torch.Tensor) -> torch.Tensor:
        around = torch.cat((vectors.roll(1, 1), vectors.roll(2, 1)), -1)
        return self.classify(vectors) + self.others(around)

    def verdict(self, gated: tuple[torch.Tensor, ...], pooled: dict[str, torch.Tensor]) -> torch.Tensor:
        own, others = torch.cat(gated, -1), []
        if "context" in pooled:
            others = list(
                torch.cat(
                    (pooled["audio"][:, :, None].expand(*pooled["context"].shape[:3], -1), pooled["context"]), -1
                ).unbind(2)
            )
        filled = [(others or [own])[i % max(1, len(others))] for i in range(2)]
        return self.across(torch.stack([own, *filled], 1))[:, 0]
