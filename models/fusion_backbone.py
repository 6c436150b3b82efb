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

    In some networks projections lie between the maps and the fusion point (:mod:`asd_explain.models.projected`); the
    gates of a stream are then those at its maps, and the fusion gates are handed out beside them.

    Attributes:
        streams: stream names in the order of the fusion vector, with the widths of what ``encode`` gives of them: for a
            visual stream, the channels of its maps.
        fusion_streams: the same with the widths at the fusion point.
        scored_together: how many candidates of a picture it scores together, those of ``context`` included.
        crops: the crops that the network looks at, "face" and maybe "body", whether or not each has maps of its own.
        idle: names of modules in the published state that have no part in the verdict.
        begun_part: the module whose weights published trainings begin with, from a file that names them without it
            (LoCoNet: its VGGish), or "".
        beside: {visual stream: other crops that its maps depend on}, arguments of ``<stream>_maps`` by name.
        audio_feature, audio_width: what it hears, a key of :data:`asd_explain.media.features.AUDIO_FEATURES`, and how
            many numbers a step that has.
        audio_context_frames: None, or how many frames of sound on either side a piece of a long track is heard with,
            where an audio embedding depends on the whole clip's sound.
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
    scored_together = 1
    audio_feature = "mfcc"
    audio_width = 13
    beside: dict[str, tuple[str, ...]] = {}  # noqa: RUF012
    idle: tuple[str, ...] = ()
    begun_part = ""
    audio_context_frames: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.fusion_gate: SqueezeExcite | None = None

    @property
    def fusion_streams(self) -> dict[str, int]:
        """See above; as in ``streams`` where nothing lies between the maps' pool and the fusion point."""
        return self.streams

    @property
    def crops(self) -> tuple[str, ...]:
        """See above."""
        return tuple(stream for stream in self.streams if stream != "audio")

    @property
    def maps_are_gated(self) -> bool:
        """Whether the gates that weigh the maps come from a block (or are all one)."""
        return self.fusion_gate is not None

    def attach_gates(self, block: SqueezeExcite | None) -> None:
        """Put a block over the concatenated streams (or take it away with None)."""
        self._check_width(block, sum(self.fusion_streams.values()), "the fusion point")
        self.fusion_gate = block

    @staticmethod
    def _check_width(block: SqueezeExcite | None, width: int, where: str) -> None:
        if block is not None and block.channels != width:
            raise ValueError(f"the block has {block.channels} channels, {where} {width}")

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
            audio: (B, 4T, 13) MFCC of the TalkNet family (LoCoNet: (B, 4T, 64) log-mel).
            body: (B, T, 112, 112) like face; ignored by networks that do not see it.
            context: (B, T, K, 112, 112) faces of other candidates; ignored by networks that see one candidate.

        Raises:
            ValueError: when audio has not exactly four steps a frame.
        """
        del context
        return self.fuse(*self.encode(face, audio, body))

    def encode(
        self, face: torch.Tensor, audio: torch.Tensor | None, body: torch.Tensor | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The streams' encoders alone: (pooled {stream: (B, T, C)}, maps {stream: (B, T, C, h, w)}).

        What is seen of a frame depends on ``halo_frames`` neighbours on either side and on nothing further away, so a
        long track can be encoded in pieces that overlap by that much, exactly. The same holds for what is heard, but
        where ``audio_context_frames`` is given: there it depends on the whole clip's sound. Sound may be None where it
        is encoded apart; its embedding is then to be put in before :meth:`fuse`.
        """
        del body
        maps = self.face_maps(face)
        pooled = {"face": self.pool(maps)}
        if audio is not None:
            self.check_sound(audio, face.shape[1])
            pooled["audio"] = self.audio_embedding(audio)
        return pooled, {"face": maps}

    @classmethod
    def check_sound(cls, audio: torch.Tensor, frames: int) -> None:
        """Raise a ValueError where audio (B, steps, C) is another feature or has not exactly four steps a frame."""
        if audio.shape[-1] != cls.audio_width:
            raise ValueError(
                f"{cls.__name__} hears {cls.audio_feature}, {cls.audio_width} numbers a step, not {audio.shape[-1]}"
            )
        if audio.shape[1] != 4 * frames:
            raise ValueError(f"{audio.shape[1]} audio steps for {frames} frames; exactly four a frame are needed")

    def at_fusion(self, pooled: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """From what ``encode`` gives of all streams to the vectors at the fusion point, {stream: (B, T, C)}, ungated.

        The same vectors here; a network with projections overrides it.
        """
        return {stream: pooled[stream] for stream in self.fusion_streams}

    def map_gates(self, pooled: dict[str, torch.Tensor], fusion: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The gates that weigh the channels of the maps, {stream: (B, T, C)}; here the fusion gates themselves.

        Args:
            pooled: what ``encode`` gives.
            fusion: the fusion gates by stream.
        """
        del pooled
        return fusion

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
        projected = self.at_fusion(pooled)
        widths = list(self.fusion_streams.values())
        fused = torch.cat([projected[stream] for stream in self.fusion_streams], -1)
        block = self.fusion_gate
        if block is None:
            fusion, standardised = None, fused
            gated = fused
        else:
            standardised = block.standardised(fused)
            fusion = block.excitation(fused)
            gated = fused * fusion
        gates = torch.ones_like(fused) if fusion is None else fusion
        by_stream = dict(zip(self.fusion_streams, gates.split(widths, -1), strict=True))
        evidence = dict(zip(self.fusion_streams, standardised.split(widths, -1), strict=True))
        evidence |= {stream: torch.zeros_like(projected[stream]) for stream in missing}
        return Output(
            logits=self.verdict(gated.split(widths, -1), pooled),
            gates=self.map_gates(pooled, by_stream),
            maps=maps or {},
            pooled=pooled,
            standardised=evidence,
            fusion=fusion,
        )

    def verdict(self, gated: tuple[torch.Tensor, ...], pooled: dict[str, torch.Tensor]) -> torch.Tensor:
        """Gated fusion vectors of the streams to logits (B, T, 2); ``pooled`` for networks that see more candidates."""
        del pooled
        return self.classify(*gated)
