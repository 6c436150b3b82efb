"""Explanations of pictures, measured: deletion and insertion, gates' distribution, and what accuracy the block costs.

The definitions are those for clips (:mod:`asd_explain.evaluate.faithfulness`); a picture is the unit that counts once,
and that is drawn with replacement for intervals. P is that of the class predicted on the untouched picture (of the
attribute that is most surely there). Baselines: "blur" by a Gaussian of a share of the shorter side, "mean" the
picture's own mean colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from asd_explain.errors import OptionError
from asd_explain.evaluate.assumptions import PERCENTILES, TopKSqueeze
from asd_explain.evaluate.faithfulness import KINDS, Curve, area
from asd_explain.evaluate.masking import BASELINES, BLUR_SIGMA_PX, order
from asd_explain.evaluate.paired import mean_interval, paired
from asd_explain.explain.base import Explainer
from asd_explain.explain.geometry import INTERPOLATIONS
from asd_explain.explain.images import (
    STREAM,
    PictureNetwork,
    beyond_fullgrad,
    enlarged,
    picture_explainer,
    predicted,
    raw_heat,
)
from asd_explain.explain.squeeze import SqueezeHeat
from asd_explain.models.images import block_of, without_block

#: As wide, relative to the picture, as the blur of crops of 112 px.
BLUR_SHARE = BLUR_SIGMA_PX / 112
SE_METHODS = ("se-paper", "se-plain", "se-shuffled")
#: Those that need gains.
GAINS_METHODS = ("se", "weights-shuffled")
RIVALS = ("gradcam", "gradcam++", "eigengradcam", "fullgrad")
CONTROLS = ("activation", "centre", "random")
METHODS = (*SE_METHODS, *RIVALS, *CONTROLS)
#: What variants are compared with, picture by picture.
AGAINST = "se-plain"


@dataclass(frozen=True)
class PictureRow:
    """One figure of one method on one picture.

    Attributes:
        picture: its number in the data set.
        method: name of the explainer, or of the variant.
        metric: "deletion" (lower is better) or "insertion" (higher is better), in [0, 1].
        baseline: "blur" or "mean".
        value: area under the curve of P.
    """

    picture: int
    method: str
    metric: str
    baseline: str
    value: float


def picture_baseline(picture: np.ndarray, kind: str) -> np.ndarray:
    """What stands in the place of removed pixels.

    Args:
        picture: (3, H, W) float32.
        kind: "blur" or "mean".

    Returns:
        (3, H, W) float32.

    Raises:
        OptionError: for an unknown kind.
    """
    if kind == "mean":
        return np.broadcast_to(picture.mean((1, 2), keepdims=True), picture.shape).copy()
    if kind == "blur":
        sigma = BLUR_SHARE * min(picture.shape[1:])
        return np.stack([cv2.GaussianBlur(c, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) for c in picture])
    raise OptionError(f"unknown baseline {kind!r}; choose one of {', '.join(BASELINES)}")


def probability(logits: torch.Tensor, target: int, multilabel: bool) -> np.ndarray:
    """(N,) P of a class (softmax) or of an attribute (sigmoid) from logits (N, classes)."""
    p = logits[:, target].sigmoid() if multilabel else logits.softmax(-1)[:, target]
    return p.float().cpu().numpy()


class PictureProbe:
    """Asks a classifier about one picture under the masks of any number of methods.

    Args:
        model: (N, 3, H, W) in [0, 1] to logits; in evaluation mode.
        picture: (3, H, W) float in [0, 1].
        target: whose P is followed.
        multilabel: whether the logits are of attributes.
        steps: intervals of a curve.
        baselines: of :data:`~asd_explain.evaluate.masking.BASELINES`.

    Attributes:
        p: P on the untouched picture.
    """

    def __init__(
        self,
        model: nn.Module,
        picture: torch.Tensor,
        target: int,
        multilabel: bool = False,
        steps: int = 10,
        baselines: Sequence[str] = BASELINES,
    ) -> None:
        if steps < 1:
            raise OptionError(f"a curve needs at least one step, not {steps}")
        self._model, self._target, self._multilabel, self._steps = model, target, multilabel, steps
        self._picture = picture
        own = picture.float().cpu().numpy()
        self._baselines = {k: torch.from_numpy(picture_baseline(own, k)).to(picture) for k in baselines}
        ends = self._ask([picture, *self._baselines.values()])
        self.p, self._emptied = float(ends[0]), dict(zip(self._baselines, ends[1:], strict=True))

    @torch.inference_mode()
    def _ask(self, pictures: Sequence[torch.Tensor]) -> np.ndarray:
        return probability(self._model(torch.stack(list(pictures))), self._target, self._multilabel)

    def curves(self, heat: np.ndarray) -> list[Curve]:
        """Deletion and insertion with each baseline; ``p`` of the curves is (steps + 1, 1).

        Args:
            heat: (H, W), only its order counts; ties are drawn by lot, see :func:`asd_explain.evaluate.masking.order`.
        """
        if heat.shape != tuple(self._picture.shape[1:]):
            raise ValueError(f"heat of shape {heat.shape} for a picture of {tuple(self._picture.shape[1:])}")
        ranks = torch.from_numpy(order(heat[None], "frame")[0]).to(self._picture.device)
        fractions = (np.arange(self._steps + 1) / self._steps).astype(np.float32)
        keys = [(what, kind) for what in self._baselines for kind in KINDS]
        masked = []
        for what, kind in keys:
            empty = self._baselines[what]
            first, then = (empty, self._picture) if kind == "deletion" else (self._picture, empty)
            masked += [torch.where(ranks < float(f), first, then) for f in fractions[1:-1]]
        inner = self._ask(masked).reshape(len(keys), -1) if masked else np.zeros((len(keys), 0), np.float32)
        found = []
        for (what, kind), some in zip(keys, inner, strict=True):
            ends = (self.p, self._emptied[what]) if kind == "deletion" else (self._emptied[what], self.p)
            p = np.array([ends[0], *some, ends[1]], np.float32)[:, None]
            found.append(Curve(STREAM, what, "frame", kind, fractions, p))
        return found


Variant = tuple[str, Callable[[], Explainer], str]


def ablations() -> list[Variant]:
    """(label, what makes the explainer, interpolation): each percentile of the published recipe beside the same share
    taken as the top k, and each interpolation."""
    found: list[Variant] = []
    for p in PERCENTILES:
        found.append((f"se: percentile {100 * p:.0f}", _percentile(p), "bicubic"))
        found.append((f"se: top {100 * (1 - p):.0f} %", _top(round(1 - p, 6)), "bicubic"))
    for method in ("se-plain", "se-paper", "gradcam"):
        found += [
            (f"{method}, {kind}", _named(method), kind)
            for kind in INTERPOLATIONS
            if (method, kind) != (AGAINST, "bicubic")  # that is AGAINST itself
        ]
    return found


def _percentile(p: float) -> Callable[[], Explainer]:
    return lambda: SqueezeHeat(p, gains=False)


def _top(share: float) -> Callable[[], Explainer]:
    return lambda: TopKSqueeze(share)


def _named(method: str, **options: object) -> Callable[[], Explainer]:
    return lambda: picture_explainer(method, **options)


def variants_of(methods: Iterable[str], number: int) -> list[Variant]:
    """The methods with their defaults; what is drawn by lot is drawn anew for each picture ``number``."""
    by_lot = ("random", "se-shuffled", "weights-shuffled")
    return [(m, _named(m, **({"seed": number} if m in by_lot else {})), "bicubic") for m in methods]


def methods_for(model: nn.Module) -> tuple[str, ...]:
    """The methods that a squeezed network admits."""
    block = block_of(model)
    methods = (*(GAINS_METHODS if block.gains is not None else ()), *(SE_METHODS if block.learnt else ()))
    methods = (*methods, *RIVALS, *CONTROLS)
    return tuple(m for m in methods if m != "fullgrad" or beyond_fullgrad(model) is None)


def reference_for(model: nn.Module) -> str:
    """The method that the others are compared with: SE with its gains, or what is nearest to it."""
    return next(m for m in ("se", AGAINST, RIVALS[0]) if m in methods_for(model))


def measure(
    model: nn.Module,
    picture: torch.Tensor,
    number: int,
    methods: Sequence[str] = METHODS,
    *,
    more: Sequence[Variant] = (),
    multilabel: bool = False,
    steps: int = 10,
) -> list[PictureRow]:
    """Deletion and insertion of methods on one picture.

    Args:
        model: squeezed, in evaluation mode.
        picture: (3, H, W) in [0, 1].
        number: of the picture.
        methods: names; a method that the network does not admit must not be among them.
        more: variants, see :func:`ablations`.
        multilabel, steps: see :class:`PictureProbe`.
    """
    outputs = PictureNetwork(model).score(picture[None])
    target = predicted(outputs[0].logits[0, 0])
    probe = PictureProbe(model, picture, target, multilabel, steps)
    rows = []
    for label, make, interpolation in (*variants_of(methods, number), *more):
        heat = raw_heat(model, picture[None], make(), target, outputs)[0]
        for curve in probe.curves(enlarged(heat, tuple(picture.shape[1:]), interpolation)):
            rows.append(PictureRow(number, label, curve.kind, curve.baseline, area(curve)))
    return rows


def table(rows: Sequence[PictureRow], against: str = AGAINST) -> list[dict]:
    """Means over pictures with 95 % intervals, and ``against`` compared with each method picture by picture.

    Returns:
        One dict a method, metric and baseline: "mean", "low", "high", "pictures"; "difference" of ``against`` minus the
        method with "difference_low", "difference_high"; "wins", share of pictures in which ``against`` is better; and
        "verdict" on ``against``. The comparison is empty without ``against``.
    """
    values: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        values.setdefault((row.method, row.metric, row.baseline), {})[str(row.picture)] = row.value
    found = []
    for (method, metric, baseline), by_picture in values.items():
        mean = mean_interval(by_picture)
        entry = {"method": method, "metric": metric, "baseline": baseline, "pictures": len(by_picture)}
        entry |= {"mean": mean.mean, "low": mean.low, "high": mean.high}
        reference = values.get((against, metric, baseline))
        if reference is not None and method != against:
            c = paired(reference, by_picture, higher_is_better=metric == "insertion")
            entry |= {"difference": c.difference, "difference_low": c.low, "difference_high": c.high}
            entry |= {"wins": c.wins, "verdict": c.verdict}
        found.append(entry)
    return found


@torch.inference_mode()
def seen(
    model: nn.Module, data: Dataset, batch: int = 256, workers: int = 0, progress: Callable[[int], None] | None = None
) -> dict[str, np.ndarray]:
    """What a squeezed classifier answers, with its block and without, and its gates.

    Args:
        model: in evaluation mode.
        data: of (picture (3, H, W) in [0, 1], class or attributes).
        batch, workers: of the loader.
        progress: told after each batch how many pictures it had.

    Returns:
        {"logits", "bypassed": (N, classes), "gates": (N, C), "targets": (N,) or (N, A)}.
    """
    network = PictureNetwork(model)
    device = next(model.parameters()).device
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("logits", "bypassed", "gates", "targets")}
    for pictures, targets in DataLoader(data, batch, num_workers=workers):
        pictures = pictures.to(device)
        outputs = network.score(pictures)
        parts["logits"].append(torch.cat([o.logits[0] for o in outputs]).cpu().numpy())
        parts["gates"].append(torch.cat([o.gates[STREAM][0] for o in outputs]).cpu().numpy())
        with without_block(model):
            parts["bypassed"].append(model(pictures).cpu().numpy())
        parts["targets"].append(np.asarray(targets))
        if progress is not None:
            progress(len(pictures))
    return {name: np.concatenate(some) for name, some in parts.items()}


def right(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,) in [0, 1]: whether the largest logit is that of the class; of attributes (N, A) the share told right."""
    if targets.ndim == 2:
        return ((logits > 0) == (targets > 0.5)).mean(1)
    return (logits.argmax(1) == targets).astype(float)


def chosen(data: Dataset, count: int, seed: int = 0) -> np.ndarray:
    """Numbers of ``count`` pictures drawn without replacement, rising; all of them where there are no more."""
    if count < 1:
        raise OptionError(f"at least one picture has to be measured, not {count}")
    numbers = np.random.default_rng(seed).permutation(len(data))[:count]
    return np.sort(numbers)


def subset(data: Dataset, numbers: np.ndarray) -> Subset:
    """The pictures of some numbers."""
    return Subset(data, [int(n) for n in numbers])
