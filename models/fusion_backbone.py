"""What the light networks of the field share: streams, a fusion point, gates on it, a temporal classifier."""

from __future__ import annotations

import torch
from torch import nn

from asd_explain.models.output import Output
from asd_explain.models.se import SqueezeExcite


class FusionBackbone(nn.Module):
    """Base of networks with an audio stream, a face stream and maybe others, pooled maps and per-frame embeddings.

    A subclass gives ``audio_embedding``, ``face_maps`` and ``classify``. The squeeze-and-excitation block stands at the
    fusion point over the streams' concatenation; where it is None (:meth:`attach_gates`) all gates are one. Because a
    positive gate commutes with the spatial pool, channel c of a stream's gate weighs channel c of its map; under max
    pooling, the default, only a channel's strongest cell reaches the logits.

    Attributes:
        streams: stream names in the order of the fusion vector, with their widths.
        learned_absence: whether None stands for a stream that is not there; then ``absent`` holds {stream: (C,)}.
        halo_frames: how many neighbours on either side an encoded frame depends on.
        map_stride_px, map_offset_px: map cell i is centred on crop pixel ``stride * i + offset`` (pixel centres at
            whole numbers), as the strides and paddings put it.
        fusion_gate: the block, or None.
    """

    streams: dict[str, int]
    halo_frames: int
    map_stride_px: float
    map_offset_px: float
    learned_absence = False

    def __init__(self) -> None:
        super().__init__()
        self.fusion_gate: SqueezeExcite | None = None

    def attach_gates(self, block: SqueezeExcite | None) -> None:
        """Put a block over the concatenated streams (or take it away with None)."""
        if block is not None and block.channels != sum(self.streams.values()):
            raise ValueError(f"the block has {block.channels} channels, the fusion point {sum(self.streams.values())}")
        self.fusion_gate = block

    def attach_gains(self, gains: dict[str, torch.Tensor]) -> None:
        """Store each visual stream's gains, (C,) >= 0: how much a channel's map counts per unit of gate in
        squeeze-and-excitation heat (:mod:`asd_explain.explain.gains`). They have no part in scoring, and take the place
        of all earlier ones.

        Raises:
            ValueError: gains of a stream that has no map, of another width, below zero or not finite; nothing is then
                stored.
        """
        for stream, values in gains.items():
            if stream == "audio" or values.shape != (self.streams.get(stream),):
                raise ValueError(f"gains of {stream} have the shape {tuple(values.shape)}; streams: {self.streams}")
            if not (torch.isfinite(values).all() and (values >= 0).all()):
                raise ValueError(f"gains of {stream} must be finite and not below zero")
        for stream in self.gains:
            delattr(self, f"gain_{stream}")
        device = next(self.parameters()).device
        for stream, values in gains.items():
            # A buffer follows the network to its device; it is no part of the published state.
            own = values.detach().float().clone().to(device)
            self.register_buffer(f"gain_{stream}", own, persistent=False)

    @property
    def gains(self) -> dict[str, torch.Tensor]:
        """{visual stream: (C,) gains}, of the streams that have any."""
        found = {stream: getattr(self, f"gain_{stream}", None) for stream in self.streams}
        return {stream: values for stream, values in found.items() if values is not None}

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        """(B, 4T, 13) MFCC to (B, T, C)."""
        raise NotImplementedError

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        """(B, T, 112, 112) gray values 0..255 to maps (B, T, C, h, w)."""
        raise NotImplementedError

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, T, C, h, w) maps to what reaches the fusion point, (B, T, C): each channel's largest value."""
        return maps.amax((-2, -1))

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        """(B, T, C) embeddings of the streams in their order, already gated, to logits (B, T, 2)."""
        raise NotImplementedError

    def forward(
        self,
        face: torch.Tensor,
        audio: torch.Tensor,
        body: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
    ) -> Output:
        """Score B tracks of T grid frames.

        Args:
            face: (B, T, 112, 112) gray values 0..255, uint8 or float.
            audio: (B, 4T, 13) MFCC of the TalkNet family.
            body: ignored, these networks do not see it.
            context: ignored, these networks see one candidate.

        Raises:
            ValueError: when audio has not exactly four steps a frame.
        """
        del context
        return self.fuse(*self.encode(face, audio, body))

    def encode(
        self, face: torch.Tensor, audio: torch.Tensor, body: torch.Tensor | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The streams' encoders alone: (pooled {stream: (B, T, C)}, maps {stream: (B, T, C, h, w)}).

        A frame's result depends on ``halo_frames`` neighbours on either side and on nothing further away, so a long
        track can be encoded in pieces that overlap by that much, exactly.
        """
        del body
        if audio.shape[1] != 4 * face.shape[1]:
            raise ValueError(
                f"{audio.shape[1]} audio steps for {face.shape[1]} frames; exactly four a frame are needed"
            )
        maps = self.face_maps(face)
        return {"audio": self.audio_embedding(audio), "face": self.pool(maps)}, {"face": maps}

    def fuse(self, pooled: dict[str, torch.Tensor], maps: dict[str, torch.Tensor] | None = None) -> Output:
        """From pooled embeddings {stream: (B, T, C)} onwards: gate, classify, hand out what was seen on the way.

        A network with ``learned_absence`` puts its learned state in place of a stream that is missing. That is no
        evidence: its ``standardised`` is zero, so that its share is zero.

        Raises:
            ValueError: a stream is missing, and the network knows of no absence.
        """
        missing = [stream for stream in self.streams if stream not in pooled]
        if missing and not self.learned_absence:
            raise ValueError(f"{type(self).__name__} needs {', '.join(missing)} as well")
        if missing:
            shape = next(iter(pooled.values())).shape[:2]
            pooled = pooled | {stream: self.absent[stream].expand(*shape, -1) for stream in missing}
        fused = torch.cat([pooled[stream] for stream in self.streams], -1)
        block = self.fusion_gate
        if block is None:
            fusion, standardised = None, fused
            gated = fused
        else:
            standardised = block.standardised(fused)
            fusion = block.excitation(fused)
            gated = fused * fusion
        widths = list(self.streams.values())
        logits = self.classify(*gated.split(widths, -1))
        gates = torch.ones_like(fused) if fusion is None else fusion
        evidence = dict(zip(self.streams, standardised.split(widths, -1), strict=True))
        evidence |= {stream: torch.zeros_like(pooled[stream]) for stream in missing}
        return Output(
            logits=logits,
            gates=dict(zip(self.streams, gates.split(widths, -1), strict=True)),
            maps=maps or {},
            pooled=pooled,
            standardised=evidence,
            fusion=fusion,
        )
