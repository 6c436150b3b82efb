"""Does a map depend on what the network has learned?

A test that an explanation can fail: *cascading randomisation* (Adebayo et al., "Sanity Checks for Saliency Maps",
arXiv 1810.03292). The layers lose what they learned one after the other, from the logits back to the input; a map that
stays the same does not explain the network.

A layer is randomised with its own statistics: the values of each tensor are permuted within it ("permute", which keeps
the distribution exactly), or drawn anew from a normal distribution of their mean and standard deviation ("normal").
Batch norms and the squeeze-excitation block also hold statistics of what reaches them, which no longer fit: a channel
that was quiet would be blown up by what is now loud. So norms of randomised layers take theirs anew from the segments
measured, and the block does so once an encoder has been randomised. Layers not yet reached stay as they are; everything
behind a randomised layer has been randomised before it. Gains are permuted with the block.
"""

from __future__ import annotations

import copy
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.segments import Segment, inputs_of, raw_heat
from asd_explain.explain.base import Explainer
from asd_explain.models.fusion_backbone import FusionBackbone

HOW = ("permute", "normal")
UNTOUCHED = "none"
GATES = "squeeze-excitation block"
#: From the logits back. A module has the first role whose pattern its name has; all others are encoders' layers.
ROLES = (
    ("classifier head", r"(^|\.)(head|lossAV|lossComb)(\.|$)"),
    ("temporal attention", r"(^|\.)(selfAV|comb_att|convAV)(\.|$)"),
    ("recurrent layers", r"(^|\.)(gru|GRU|detector)(\.|$)"),
    ("fusion", r"^(mix|match_\w+|norm|absent|model\.fusion)(\.|$)"),
    (GATES, r"^(fusion_gate|se)(\.|$)"),
    ("projections", r"(^|\.)(cross\w+|\w+_att|visualTCN\w*|visualConv1D\w*)(\.|$)"),
)
_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SMALL = 1e-12


@dataclass(frozen=True)
class Layer:
    """What is randomised together: the own parameters of some modules, under one name."""

    name: str
    modules: tuple[str, ...]


def layers_from_the_logits(model: nn.Module) -> list[Layer]:
    """All layers that reach the verdict, from the logits back to the input.

    First the roles of ``ROLES`` that the network has, each as one (LR-ASD's attention behind its recurrent layers is
    one with them). Then the encoders' layers, a convolution with its norm, from the last to the first in the order
    in which they were made; the last layers of all encoders go together, and so on back (parallel branches of a block
    of Light-ASD one after the other).
    """
    with_parameters = [name for name, m in model.named_modules() if list(m.parameters(recurse=False))]
    idle = tuple(f"{name}." for name in model.idle)
    with_parameters = [name for name in with_parameters if name and not f"{name}.".startswith(idle)]
    found: dict[str, list[str]] = {role: [] for role, _ in ROLES}
    encoders: dict[str, list[str]] = {}
    for name in with_parameters:
        role = next((role for role, pattern in ROLES if re.search(pattern, name)), None)
        if role is None:
            encoders.setdefault(_encoder_of(name), []).append(name)
        else:
            found[role].append(name)
    layers = [Layer(role, tuple(names)) for role, names in found.items() if names]
    chains = [_with_norms(model, names)[::-1] for names in encoders.values()]
    for i in range(max(map(len, chains), default=0)):
        together = [chain[i] for chain in chains if i < len(chain)]
        layers.append(Layer(" + ".join(group[0] for group in together), tuple(n for group in together for n in group)))
    return layers


def _encoder_of(name: str) -> str:
    """The shortest path that names an encoder; else the first part."""
    parts = name.split(".")
    end = next((i for i, part in enumerate(parts) if re.search("encoder|frontend", part.lower())), 0)
    return ".".join(parts[: end + 1])


def _with_norms(model: nn.Module, names: Sequence[str]) -> list[list[str]]:
    """Each layer with its norm: the n-th with the n-th where there are as many, else the norms that follow it."""
    norms = [n for n in names if isinstance(model.get_submodule(n), _NORM)]
    others = [n for n in names if n not in norms]
    if len(norms) == len(others):
        return [[a, b] for a, b in zip(others, norms, strict=True)]
    groups: list[list[str]] = []
    for name in names:
        if name in norms and groups:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


@torch.no_grad()
def randomise(model: nn.Module, layer: Layer, seed: int, how: str = "permute") -> None:
    """Take from a layer, in place, what it learned; a draw depends on the seed and the parameter's name.

    Raises:
        OptionError: for an unknown ``how``.
    """
    if how not in HOW:
        raise OptionError(f"unknown way {how!r} to randomise; choose one of {', '.join(HOW)}")
    learned = {f"{n}.{k}": v for n in layer.modules for k, v in model.get_submodule(n).named_parameters(recurse=False)}
    if layer.name == GATES:
        learned |= {f"gain.{stream}": values for stream, values in getattr(model, "gains", {}).items()}
    for name, values in learned.items():
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        old = values.detach().cpu().numpy().reshape(-1)
        drawn = how == "normal" and not name.startswith("gain.")  # which may be negative, and a gain never is
        new = rng.normal(old.mean(), old.std(), old.size) if drawn else rng.permutation(old)
        values.copy_(torch.from_numpy(new.reshape(values.shape)))


@torch.no_grad()
def take_statistics(model: FusionBackbone, layers: Sequence[Layer], segments: Sequence[Segment]) -> None:
    """Give the norms of randomised layers, in place, the statistics of the segments, all of which count alike.

    The squeeze-excitation block takes those of the fusion vectors where one of the layers is an encoder's. A segment of
    one frame is shown as two equal ones, as one value has no spread.
    """
    norms = [model.get_submodule(n) for layer in layers for n in layer.modules]
    norms = [m for m in norms if isinstance(m, _NORM) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    given = [_at_least_two_frames(inputs_of(model, segment)) for segment in segments]
    for norm in norms:
        norm.train()
    for i, inputs in enumerate(given):
        for norm in norms:
            norm.momentum = 1 / (i + 1)
        if norms:
            model(**inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
    block = model.fusion_gate
    behind = {role for role, _ in ROLES}
    if block is not None and block.mean is not None and any(layer.name not in behind for layer in layers):
        outputs = [model(**inputs) for inputs in given]
        x = torch.cat([torch.cat(list(model.at_fusion(o.pooled).values()), -1)[0] for o in outputs])
        block.set_statistics(x.mean(0), x.std(0, correction=0))


def _at_least_two_frames(inputs: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
    if inputs["face"].shape[1] > 1:
        return inputs
    return {name: None if x is None else torch.cat((x, x), 1) for name, x in inputs.items()}


def cascade(
    model: FusionBackbone, segments: Sequence[Segment], seed: int, how: str = "permute"
) -> Iterator[tuple[int, str, FusionBackbone]]:
    """(depth, name of the layer randomised last, network) from depth 0, where nothing is; the model stays as it is.

    It is always the same copy of the model, changed between two steps.
    """
    network = copy.deepcopy(model).eval()
    layers = layers_from_the_logits(network)
    yield 0, UNTOUCHED, network
    for depth, layer in enumerate(layers, 1):
        randomise(network, layer, seed, how)
        take_statistics(network, layers[:depth], segments)
        yield depth, layer.name, network


def map_similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, float, int]:
    """How alike two maps are: means over frames of the correlations of their absolute values over cells.

    Frames in which ``a``, the original, is constant or not finite say nothing and are left out. One in which only ``b``
    is has nothing left of ``a`` and counts as 0.

    Args:
        a, b: (T, h, w).

    Returns:
        (Spearman's with ties averaged, Pearson's, frames that count); NaN where none does.
    """
    x, y = (np.abs(np.asarray(v, np.float64)).reshape(len(v), -1) for v in (a, b))
    counts = _varies(x)
    x, y = x[counts], y[counts]
    if not len(x):
        return float("nan"), float("nan"), 0
    said = _varies(y)
    y = np.where(said[:, None], y, 0.0)
    ranked = _row_correlation(rankdata(x, axis=1), rankdata(y, axis=1))
    return float(np.where(said, ranked, 0.0).mean()), float(np.where(said, _row_correlation(x, y), 0.0).mean()), len(x)


def _varies(rows: np.ndarray) -> np.ndarray:
    finite = np.isfinite(rows).all(1)
    clean = np.where(finite[:, None], rows, 0.0)
    low, high = clean.min(1), clean.max(1)
    return finite & (high - low > 1e-9 * np.maximum(np.abs(high), _SMALL))


def _row_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = (v / np.maximum(np.abs(v).max(1, keepdims=True), np.finfo(float).tiny) for v in (x, y))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return (x * y).sum(1) / np.where(scale > 0, scale, 1.0)


@dataclass(frozen=True)
class CascadeRow:
    """How alike a map is to the original when the network has been randomised down to a depth.

    Attributes:
        depth, layer: how many layers were randomised, 0 for none, and the last one of them.
        spearman, pearson, frames: see :func:`map_similarity`; 1 is the same map, 0 no likeness. Lower is better.
    """

    explainer: str
    segment: str
    clip: str
    stream: str
    seed: int
    depth: int
    layer: str
    spearman: float
    pearson: float
    frames: int


def cascading_randomisation(
    model: FusionBackbone,
    segments: Sequence[Segment],
    explainers: Mapping[str, Explainer],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    how: str = "permute",
    at: Sequence[int] | None = None,
    target: int = 1,
    progress: Callable[[], None] | None = None,
) -> list[CascadeRow]:
    """The table of the cascade: every explainer on every segment at every depth, raw maps, with each seed.

    Args:
        model: stays as it is.
        segments: to explain; randomised norms take their statistics from all of them together.
        explainers: by the name in the table.
        seeds: of the randomisations.
        how: "permute" or "normal".
        at: depths to measure (all layers above are randomised all the same); None measures all.
        target: class explained.
        progress: called after each explanation but the originals.
    """
    originals = {(e, s.name): raw_heat(x, model, s, target) for e, x in explainers.items() for s in segments}
    rows = []
    for seed in seeds:
        for depth, layer, network in cascade(model, segments, seed, how):
            if at is not None and depth not in at:
                continue
            for name, explainer in explainers.items():
                for segment in segments:
                    heat = raw_heat(explainer, network, segment, target)
                    for stream, original in originals[name, segment.name].items():
                        alike = map_similarity(original, heat[stream])
                        rows.append(CascadeRow(name, segment.name, segment.clip, stream, seed, depth, layer, *alike))
                    if progress is not None:
                        progress()
    return rows


def by_depth(rows: Sequence[CascadeRow]) -> list[dict]:
    """One row an explainer, stream and depth: means over segments and seeds.

    Returns:
        Dicts with "explainer", "stream", "depth", "layer", "spearman", "pearson", "over_seeds" (standard deviation of
        Spearman's over seeds), "segments". Segments without a frame that counts are left out.
    """
    groups: dict[tuple[str, str, int], list[CascadeRow]] = {}
    for row in rows:
        if row.frames:
            groups.setdefault((row.explainer, row.stream, row.depth), []).append(row)
    found = []
    for (explainer, stream, depth), own in groups.items():
        by_seed = [np.mean([r.spearman for r in own if r.seed == seed]) for seed in {r.seed for r in own}]
        found.append(
            {
                "explainer": explainer,
                "stream": stream,
                "depth": depth,
                "layer": own[0].layer,
                "spearman": float(np.mean([r.spearman for r in own])),
                "pearson": float(np.mean([r.pearson for r in own])),
                "over_seeds": float(np.std(by_seed)),
                "segments": len({r.segment for r in own}),
            }
        )
    return found
