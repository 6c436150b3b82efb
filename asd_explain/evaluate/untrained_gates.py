"""Do gates depend on what their block has learned?

A test that they can fail: a block that has learned nothing must not name channels that suffice better than random ones;
else the sufficiency test would measure something else than gates.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.gate_report import FILLS, Moved, by_class, filled, p_of
from asd_explain.evaluate.sufficiency import live_channels, random_mask, top_mask
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite

TRAINED, UNTRAINED, RANDOM = "trained", "untrained", "random"


@dataclass(frozen=True)
class UntrainedTest:
    """Mean |change of P(speaking)| when only the channels that a ranking puts first are kept; lower is better.

    Attributes:
        drift: {(ranking, share, fill): one ``Moved`` by class a draw}; "trained" has one, the others one a seed.
        by_track: {the same: (draws, tracks) mean |change of P|}, to draw intervals from.
        frames: how many frames.
    """

    drift: dict[tuple[str, float, str], list[Moved]]
    by_track: dict[tuple[str, float, str], torch.Tensor]
    frames: int

    def mean(self, ranking: str, share: float, fill: str, frames: str = "all") -> float:
        """Mean over the draws; ``frames`` is "all", "speaking" or "silent"."""
        return float(np.mean([moved[frames] for moved in self.drift[ranking, share, fill]]))

    def difference(self, ranking: str, share: float, fill: str, frames: str = "all") -> float:
        """How much less P moves than with random channels: above 0 the ranking is the better; 0 expected of
        "untrained"."""
        return self.mean(RANDOM, share, fill, frames) - self.mean(ranking, share, fill, frames)


def untrained(block: SqueezeExcite, seed: int) -> SqueezeExcite:
    """A copy of the block with its statistics but freshly initialised layers, as before any training."""
    fresh = copy.deepcopy(block)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in (fresh.reduce, fresh.expand):
            values = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            layer.load_state_dict(values.state_dict())
    return fresh.eval()


@torch.inference_mode()
def gates_against_untrained(
    model: FusionBackbone,
    pooled: Sequence[torch.Tensor],
    seeds: Sequence[int] = tuple(range(10)),
    shares: Sequence[float] = (0.1,),
    *,
    gated: bool = True,
) -> UntrainedTest:
    """The sufficiency test with the gates of the network's block, of untrained blocks, and with random channels.

    Only the ranking differs; P and what is kept are the network's. All three choose among live channels: random draws
    do so in the project's other tests, and an untrained block must not lose by naming dead ones.

    Args:
        model: with its block.
        pooled: one (T, sum of C) tensor a track, fusion vectors before gating.
        seeds: of the untrained blocks and of the random draws.
        shares: of each stream's channels to keep.
        gated: whether the classifier sees gated activations, as in a network trained with its gates; False takes the
            network without its block (for one fitted to a frozen network), and plain activations are kept.

    Raises:
        OptionError: the network has no block.
    """
    block, widths = model.fusion_gate, list(model.fusion_streams.values())
    if block is None:
        raise OptionError("the network has no squeeze-and-excitation block whose gates could be tested")
    own = [block.excitation(v[None])[0] for v in pooled]
    seen = [g * v if gated else v for g, v in zip(own, pooled, strict=True)]
    joined = torch.cat(seen)
    live, mean, lengths = live_channels(joined), joined.mean(0), [len(v) for v in seen]
    p = [p_of(model, v[None])[0] for v in seen]
    rankings: list[tuple[str, list[torch.Tensor]]] = [(TRAINED, own)]
    for seed in seeds:
        fresh = untrained(block, seed)
        rankings.append((UNTRAINED, [fresh.excitation(v[None])[0] for v in pooled]))
    speaking = torch.cat(p) > 0.5
    drift: dict[tuple[str, float, str], list[Moved]] = {}
    tracks: dict[tuple[str, float, str], list[torch.Tensor]] = {}
    for share in shares:
        chosen = [
            (name, [top_mask(g.masked_fill(~live, -1.0), widths, share) & live for g in gates])
            for name, gates in rankings
        ]
        for seed in seeds:
            mask = random_mask(live.cpu(), widths, share, torch.Generator().manual_seed(seed)).to(live.device)
            chosen.append((RANDOM, [mask] * len(seen)))
        for name, masks in chosen:
            changed = [
                p_of(model, torch.stack(filled(v, m, mean))) - before
                for v, m, before in zip(seen, masks, p, strict=True)
            ]
            for fill, moved in zip(FILLS, torch.cat(changed, 1).abs(), strict=True):
                drift.setdefault((name, share, fill), []).append(by_class(moved, speaking))
                by_track = torch.stack([part.mean() for part in moved.split(lengths)])
                tracks.setdefault((name, share, fill), []).append(by_track)
    return UntrainedTest(drift, {key: torch.stack(rows) for key, rows in tracks.items()}, len(joined))
