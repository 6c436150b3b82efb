"""Where a block stands in a frozen network: what it sees there, and the network from there on.

At the **fusion** point a block weighs every stream's vector. In the light networks that is what the maps were pooled
to, so its gates can be drawn. In networks with projections in between (:mod:`asd_explain.models.projected`) they say
what counts at the fusion point, and no map has such channels; there the gates that can be drawn are those of a block at
the end of the **trunk**, which weighs the pooled maps and leaves what is heard alone. Both are fitted alike: the
network from the place on is a function of the vectors there, over a stretch of a track.

A place's vectors are [own | rest]: the channels that the block weighs, then what else the network needs from there on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from asd_explain.errors import OptionError
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite

PLACES = ("fusion", "trunk")


class Place(ABC):
    """A place in a network.

    Args:
        model: of two streams, "audio" and "face".

    Attributes:
        name: one of ``PLACES``.
        widths: of the streams that the block weighs, in the order of their vector.
    """

    name: str
    widths: list[int]

    def __init__(self, model: FusionBackbone) -> None:
        self.model = model

    @property
    def channels(self) -> int:
        """C, how many channels the block weighs."""
        return sum(self.widths)

    def split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(..., C + R) vectors to their own channels (..., C) and the rest (..., R)."""
        return x[..., : self.channels], x[..., self.channels :]

    @abstractmethod
    def vectors(self, pooled: dict[str, torch.Tensor]) -> torch.Tensor:
        """What ``encode`` gives of a track, {stream: (B, T, C)}, to the vectors at the place (B, T, C + R), ungated."""

    @abstractmethod
    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, C + R) vectors to the network's logits (B, T, 2), without any block."""

    @property
    @abstractmethod
    def block(self) -> SqueezeExcite | None:
        """The block that stands there."""

    @abstractmethod
    def attach(self, block: SqueezeExcite | None) -> None:
        """Put a block there, or take it away with None."""


class FusionPlace(Place):
    """The fusion point, over all streams; nothing else is needed from there on."""

    name = "fusion"

    def __init__(self, model: FusionBackbone) -> None:
        super().__init__(model)
        self.widths = list(model.fusion_streams.values())

    def vectors(self, pooled: dict[str, torch.Tensor]) -> torch.Tensor:
        at_fusion = self.model.at_fusion(pooled)
        return torch.cat([at_fusion[stream] for stream in self.model.fusion_streams], -1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.classify(*x.split(self.widths, -1))

    @property
    def block(self) -> SqueezeExcite | None:
        return self.model.fusion_gate

    def attach(self, block: SqueezeExcite | None) -> None:
        self.model.attach_gates(block)


class TrunkPlace(Place):
    """The end of the face's trunk: the pooled maps; the audio embedding is the rest."""

    name = "trunk"

    def __init__(self, model: FusionBackbone) -> None:
        super().__init__(model)
        if not hasattr(model, "attach_trunk_gates"):
            raise OptionError(
                f"{type(model).__name__} has no projections behind its maps: a block at its fusion point is one at "
                "the end of its trunk; leave out --at trunk"
            )
        self.widths = [model.streams["face"]]

    def vectors(self, pooled: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat((pooled["face"], pooled["audio"]), -1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        face, audio = self.split(x)
        at_fusion = self.model.at_fusion({"face": face, "audio": audio})
        return self.model.classify(*(at_fusion[stream] for stream in self.model.fusion_streams))

    @property
    def block(self) -> SqueezeExcite | None:
        return self.model.trunk_gate("face")

    def attach(self, block: SqueezeExcite | None) -> None:
        self.model.attach_trunk_gates("face", block)


def place_of(model: FusionBackbone, name: str | None = None) -> Place:
    """A place in a network.

    Args:
        model: the network.
        name: one of ``PLACES``; None: where gates can be drawn.

    Raises:
        OptionError: the network has other streams than sound and face, or no such place.
    """
    if list(model.streams) != ["audio", "face"]:
        raise OptionError(
            f"blocks are fitted here to networks of sound and face; {type(model).__name__} has "
            f"{', '.join(model.streams)}"
        )
    if name is None:
        name = "fusion" if model.fusion_streams == model.streams else "trunk"
    return {"fusion": FusionPlace, "trunk": TrunkPlace}[name](model)
