"""Which network a name stands for."""

from __future__ import annotations

import logging
from pathlib import Path

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
}


def choose(model: str, weights: Path | None = None) -> str:
    """Name of the weights card that ``--model`` and ``--weights`` stand for.

    Args:
        model: "auto", a backbone's name or a card's name.
        weights: a weights file; with "auto" it says by its hash or its keys which network it is of.

    Raises:
        OptionError: no network of that name.
        WeightsError: the file cannot be read, or its keys are of no network.
    """
    networks = {c.name: c for c in cards().values() if c.kind == "network"}
    if model == "auto":
        return _best_at_hand() if weights is None else _of_file(Path(weights))
    if model in PREFERRED:
        return PREFERRED[model]
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
        if set(create_model(model).state_dict()) == keys:
            return PREFERRED[model]
    raise WeightsError(f"{path}: its keys are those of no network; known are {', '.join(list_models())}")
