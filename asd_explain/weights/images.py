"""Classifiers of pictures that were trained here: a safetensors file with its card (TOML) beside it.

classifier = load_classifier("runs/cifar10/block.seed0/best.safetensors")
logits = classifier(pictures)        # (B, 3, H, W) in [0, 1]: it knows the mean and the deviation to take off
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import nn
from torchvision import models

from asd_explain.errors import OptionError, WeightsError
from asd_explain.models.images import BLOCK, block_of, blocks_in, cifar_resnet, squeeze
from asd_explain.weights.store import load_state, read_state, sha256_of

KIND = "classifier"
_DEPTHS = {"cifar_resnet18": 18, "cifar_resnet50": 50}


@dataclass(frozen=True)
class PictureFacts:
    """What has to be known to build a classifier and to feed it: the card's table ``[pictures]``.

    Attributes:
        set: of pictures it was trained on.
        arch, width: see :class:`asd_explain.training.image_config.ImageModelConfig`.
        block: whether it holds the squeeze-and-excitation block, of this ``reduction``.
        classes: names of the classes, or of the attributes.
        multilabel: whether they are attributes.
        size: height and width of its pictures, px.
        mean, std: of the three colours in [0, 1], taken off and divided by.
        side: in px that its pictures were brought to, 0 where they were left as they are; None: the card does not say.
    """

    set: str
    arch: str
    width: int
    block: bool
    reduction: int
    classes: tuple[str, ...]
    multilabel: bool
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int | None = None

    def table(self) -> dict[str, object]:
        """As a table of a card."""
        known = {key: value for key, value in asdict(self).items() if value is not None}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}


@dataclass(frozen=True)
class PictureCard:
    """The card of a classifier; its other fields are those of :class:`asd_explain.weights.cards.Card`."""

    name: str
    kind: str
    model: str
    file: str
    sha256: str
    size_bytes: int
    licence: str
    source: str
    training_data: str
    pictures: PictureFacts
    limits: tuple[str, ...] = ()
    results: dict = field(default_factory=dict)


class ImageClassifier(nn.Module):
    """A network with what has to be done to a picture before it.

    Attributes:
        network: with or without the block; takes standardised pictures.
        facts: what it is.
        card: of the file it was read from, or None.
    """

    def __init__(self, network: nn.Module, facts: PictureFacts, card: PictureCard | None = None) -> None:
        super().__init__()
        self.network, self.facts, self.card = network, facts, card
        self._channels_last = False
        # The card keeps these; a state dict has the network's own keys only.
        self.register_buffer("mean", torch.tensor(facts.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(facts.std).view(3, 1, 1), persistent=False)

    def standardised(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [0, 1] as the network takes them."""
        return (pictures - self.mean) / self.std

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, C) logits of (B, 3, H, W) pictures in [0, 1]."""
        standardised = self.standardised(pictures)
        if self._channels_last:
            standardised = standardised.contiguous(memory_format=torch.channels_last)
        return self.network(standardised)

    def channels_last(self) -> ImageClassifier:
        """Keep maps with the channels innermost: the same answers, sooner where there are few channels or a GPU."""
        self.network.to(memory_format=torch.channels_last)
        self._channels_last = True
        return self


def build_network(facts: PictureFacts) -> nn.Module:
    """A fresh network. The block is made last: the host's parameters are the same with it and without.

    Raises:
        OptionError: no such architecture, or the block cannot be put into it.
    """
    number = len(facts.classes)
    if facts.arch in _DEPTHS:
        host = cifar_resnet(_DEPTHS[facts.arch], classes=number, width=facts.width)
    else:
        if facts.arch not in models.list_models(module=models):
            raise OptionError(
                f"[model] arch = {facts.arch!r} is neither {', '.join(_DEPTHS)} nor a torchvision classifier"
            )
        # These two have heads that only count while training; nothing here listens to them.
        more = {"aux_logits": False, "init_weights": True} if facts.arch in ("googlenet", "inception_v3") else {}
        host = models.get_model(facts.arch, weights=None, num_classes=number, **more)
    return squeeze(host, reduction=facts.reduction, size=facts.size) if facts.block else host


def load_classifier(path: str | Path, device: str | torch.device = "cpu") -> ImageClassifier:
    """A classifier from its weights and the card beside them, in evaluation mode.

    Raises:
        WeightsError: there is no card, it is of other weights, or they do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    beside = path.with_suffix(".toml")
    try:
        values = tomllib.loads(beside.read_text(encoding="utf-8"))
        given = values["pictures"]
        facts = PictureFacts(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
        known = {f.name for f in fields(PictureCard)}
        rest = {k: v for k, v in values.items() if k in known}
        card = PictureCard(**rest | {"pictures": facts, "limits": tuple(values.get("limits", ()))})
    except FileNotFoundError:
        raise WeightsError(
            f"{beside}: no such file; it lies beside the weights that tools/train_images.py left"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise WeightsError(f"{beside} is no card of a classifier of pictures ({error})") from None
    if card.sha256 != (found := sha256_of(path)):
        raise WeightsError(
            f"{beside} is the card of other weights than {path}: sha256 is {found[:12]}..., the card says "
            f"{card.sha256[:12]}...; put the right one there"
        )
    network, state = build_network(facts), read_state(path)
    _make_room_for_gains(network, state, len(facts.classes), path)
    load_state(network, state, str(path))
    return ImageClassifier(network, facts, card).requires_grad_(False).to(device).eval()


def _make_room_for_gains(network: nn.Module, state: Mapping[str, torch.Tensor], classes: int, path: Path) -> None:
    """A fresh block has none, and a state dict may or may not."""
    gains = state.get(f"{BLOCK}.gains")
    if gains is None or not blocks_in(network):
        return
    if len(gains) != classes:
        raise WeightsError(f"{path}: holds gains of {len(gains)} classes, the card names {classes}")
    try:
        block_of(network).set_gains(gains)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None
