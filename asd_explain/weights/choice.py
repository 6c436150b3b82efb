"""Which network a name stands for."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from asd_explain.errors import OptionError, WeightsError
from asd_explain.models.registry import create_model, list_models
from asd_explain.weights.cards import cards
from asd_explain.weights.store import is_available, locate, read_state, sha256_of
from asd_explain.weights.trained import card_beside

log = logging.getLogger(__name__)

#: What "auto" looks for, best first by the measurements in the cards. One that would have to be fetched is passed over;
#: the last is in the package.
AUTO = ("lr_asd.pretrain_AVA", "squeeze_asd.distilled")
#: The weights that a bare backbone's name stands for, the better of its several by the measurements in the cards.
PREFERRED = {
    "lr_asd": "lr_asd.pretrain_AVA",
    "light_asd": "light_asd.pretrain_AVA_CVPR",
    "squeeze_asd": "squeeze_asd.distilled",
    # Their files have to be given. On raw video TalkNet's TalkSet weights are the better (Columbia, F1 96 to 56).
    "talknet": "talknet.pretrain_TalkSet",
    "bias": "bias.published",
    "asdnb": "asdnb.published",
    "loconet": "loconet.published",
}


def choose(model: str, weights: Path | None = None) -> str:
    """Name of the weights card that ``--model`` and ``--weights`` stand for.

    Args:
        model: "auto", a backbone's name or a card's name.
        weights: a weights file; with "auto" it says by its hash or its keys which network it is of. Of several cards of
            a backbone whose files have to be given, the one counts that has the file's name.

    Raises:
        OptionError: no network of that name.
        WeightsError: the file cannot be read, or its keys are of no network.
    """
    networks = {c.name: c for c in cards().values() if c.kind == "network"}
    if model == "auto":
        return _best_at_hand() if weights is None else _of_file(Path(weights))
    if model in PREFERRED:
        return _of_backbone(model, weights)
    if model in networks:
        return model
    raise OptionError(f"unknown model {model!r}; choose one of auto, {', '.join([*list_models(), *networks])}")


def _best_at_hand() -> str:
    for name in AUTO[:-1]:
        if is_available(name):
            try:
                locate(name)
            except WeightsError as error:
                log.warning("%s", error)
            else:
                return name
    return AUTO[-1]


def _of_backbone(model: str, weights: Path | None) -> str:
    named = [c.name for c in cards().values() if c.model == model and c.by_path_only]
    named = [name for name in named if weights is not None and cards()[name].file == Path(weights).name]
    return named[0] if len(named) == 1 else PREFERRED[model]


def _of_file(path: Path) -> str:
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    digest = sha256_of(path)
    for card in cards().values():
        if card.kind == "network" and card.sha256 == digest:
            return card.name
    if (beside := card_beside(path, digest)) is not None and beside.model in PREFERRED:
        return PREFERRED[beside.model]
    keys = set(read_state(path))
    for model in list_models():
        with torch.device("meta"):  # keys are all that is asked for
            known = set(create_model(model).state_dict())
        if known == keys:
            return _of_backbone(model, path)
    raise WeightsError(f"{path}: its keys are those of no network; known are {', '.join(list_models())}")
