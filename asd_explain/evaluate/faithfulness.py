"""Is it these pixels that the network goes by? Remove them, or show nothing but them, and see what it says.

*Deletion*: the most important fraction f of a stream's pixels is replaced by a baseline; *insertion*: all is baseline
but the most important fraction f. Under each, P of the class that the network predicted on the untouched segment is
followed as f goes from 0 to 1 in equal steps, both ends included; the area under that curve is the figure (Petsiuk et
al., RISE, arXiv 1806.07421), for deletion the lower the better, for insertion the higher. *ROAD* (Rong et al., arXiv
2202.00449) imputes what is removed and compares removing the least with removing the most important share; the higher
the better.

How a mask moves in time is part of the protocol, since to such a network a mask that moves is motion: "frame" gives
every frame its own order, "tube" one order to all, from the mean of the heat over the segment. ROAD is tube-wise.

A segment is encoded as a clip of its own. Streams that are not touched are encoded once; what is touched goes through
its encoder alone, many masks in one forward. "joint" touches all visual streams at once by the same fraction, each by
its own order; since streams meet only at the fusion point, it costs no encoding of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product

import numpy as np
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.masking import BASELINES, MOVES, baseline, order, road_impute
from asd_explain.evaluate.pooled import pooled_stream
from asd_explain.evaluate.segments import Segment, inputs_of, visual_streams
from asd_explain.explain.gradients import maps_of

KINDS = ("deletion", "insertion")
ROAD_KINDS = ("morf", "lerf")
JOINT = "joint"
VERDICTS = ("speaking", "silent")
THRESHOLD = 0.5


@dataclass(frozen=True)
class Protocol:
    """What is measured, and how finely.

    Attributes:
        steps: intervals of a curve; it has ``steps + 1`` points, the ends included.
        baselines: of :data:`asd_explain.evaluate.masking.BASELINES`.
        moves: of :data:`asd_explain.evaluate.masking.MOVES`.
        road_shares: shares of the pixels that ROAD removes, each in (0, 1); none for no ROAD.
        batch_frames: crops that go through an encoder at a time: what bounds the memory. On a CPU larger batches are
            slower as well (they leave its cache); on a GPU some hundred are better.
        seed: of ROAD's noise, together with the segment's name.

    Raises:
        OptionError: a value cannot be used.
    """

    steps: int = 10
    baselines: tuple[str, ...] = BASELINES
    moves: tuple[str, ...] = MOVES
    road_shares: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    batch_frames: int = 80
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_frames < 1:
            raise OptionError(f"steps and batch_frames must be at least 1, not {self.steps} and {self.batch_frames}")
        for name, given, known in (("baseline", self.baselines, BASELINES), ("move", self.moves, MOVES)):
            if unknown := [value for value in given if value not in known]:
                raise OptionError(f"unknown {name} {unknown[0]!r}; choose among {', '.join(known)}")
            if len(set(given)) < len(given):
                raise OptionError(f"a {name} is named twice: {', '.join(given)}")
        if wrong := [share for share in self.road_shares if not 0 < share < 1]:
            raise OptionError(f"a share of ROAD must lie between 0 and 1, not {wrong[0]}")
        if list(self.road_shares) != sorted(set(self.road_shares)):
            raise OptionError(f"shares of ROAD must rise: {self.road_shares}")

    @property
    def fractions(self) -> np.ndarray:
        """(steps + 1,) float32 from 0 to 1, comparable with the ranks of :func:`asd_explain.evaluate.masking.order`."""
        return (np.arange(self.steps + 1) / self.steps).astype(np.float32)


@dataclass(frozen=True)
class Curve:
    """P of the predicted class as pixels go or come.

    Attributes:
        stream: a visual stream, or "joint".
        baseline: "blur" or "mean"; "road" where the removed pixels are imputed.
        move: "frame" or "tube".
        kind: "deletion", "insertion"; of ROAD "morf" and "lerf" (most, least relevant first).
        fractions: (n,) float32 of the pixels, rising; those removed, for insertion those shown.
        p: (n, T) float32 in [0, 1].
    """

    stream: str
    baseline: str
    move: str
    kind: str
    fractions: np.ndarray
    p: np.ndarray


@dataclass(frozen=True)
class Row:
    """One figure of one method on one segment.

    Attributes:
        segment, clip: names.
        method: the explainer's name.
        stream: a visual stream, or "joint".
        metric: "deletion" (lower is better), "insertion" or "road" (higher is better).
        baseline, move: as in :class:`Curve`.
        verdict: which frames: those called "speaking" or "silent" on the untouched segment.
        value: mean over these frames.
        frames: how many there are, at least 1.
    """

    segment: str
    clip: str
    method: str
    stream: str
    metric: str
    baseline: str
    move: str
    verdict: str
    value: float
    frames: int


def areas(curve: Curve) -> np.ndarray:
    """(T,) area under each frame's P over the fractions, by trapezoids; in [0, 1] where fractions go from 0 to 1."""
    widths = np.diff(curve.fractions.astype(np.float64))
    return widths @ ((curve.p[1:].astype(np.float64) + curve.p[:-1]) / 2)


def area(curve: Curve, frames: np.ndarray | None = None) -> float:
    """Mean of :func:`areas` over the frames chosen.

    Args:
        curve: of deletion (lower is better) or insertion (higher is better).
        frames: (T,) bool, or None for all; NaN where none is chosen.
    """
    return _mean(areas(curve), frames)


def road_scores(curves: Iterable[Curve]) -> dict[str, np.ndarray]:
    """{stream: (T,) scores in [-0.5, 0.5]}, higher is better: the mean over the shares of (P under LeRF - P under
    MoRF) / 2, as "ROADCombined" of the package pytorch-grad-cam defines it.

    Args:
        curves: as :meth:`Probe.road` gives them.
    """
    p = {(curve.stream, curve.kind): curve.p.astype(np.float64) for curve in curves}
    return {stream: (p[stream, "lerf"] - p[stream, "morf"]).mean(0) / 2 for stream in dict.fromkeys(s for s, _ in p)}


def _mean(values: np.ndarray, frames: np.ndarray | None) -> float:
    chosen = values if frames is None else values[np.asarray(frames, bool)]
    return float(chosen.mean()) if len(chosen) else float("nan")


class Probe:
    """Asks one network about one segment, with the masks of any number of methods.

    Made once for all methods: what they share (untouched streams, baselines and what the network makes of them) is
    computed once. Segments are short (at most some hundred frames): the classifier sees them in one window.

    Args:
        model: a backbone with ``pool``, ``fuse`` and a ``{stream}_maps`` for each visual stream, in evaluation mode.
        segment: what it is asked about.
        protocol: how.

    Attributes:
        streams: the visual streams measured, in the network's order.
        p_speaking: (T,) float32 P(speaking) on the untouched segment.
        called_speaking: (T,) bool, P(speaking) >= 0.5 there.
        p_class: (T,) float32 P of the class predicted there.
    """

    @torch.inference_mode()
    def __init__(self, model: nn.Module, segment: Segment, protocol: Protocol | None = None) -> None:
        self._model, self._segment = model, segment
        self.protocol = protocol or Protocol()
        self.streams = visual_streams(model, segment)
        inputs = self._inputs = inputs_of(model, segment)
        self._device = next(model.parameters()).device
        self._crops = {stream: inputs[stream][0] for stream in self.streams}
        self._untouched = {stream: self._encode(stream, [crops])[0] for stream, crops in self._crops.items()}
        if "audio" in model.streams and inputs["audio"] is not None:
            self._untouched["audio"] = model.audio_embedding(inputs["audio"])[0]
        pairs = list(product(self.streams, self.protocol.baselines))
        self._baselines = {
            (s, kind): torch.from_numpy(baseline(segment.crops[s], kind)).to(self._device) for s, kind in pairs
        }
        self._emptied = {(s, kind): self._encode(s, [self._baselines[s, kind]])[0] for s, kind in pairs}
        self.p_speaking = self._speaking({})[0]
        self.called_speaking = self.p_speaking >= THRESHOLD
        self.p_class = self._of_class(self.p_speaking)

    def curves(self, heat: dict[str, np.ndarray]) -> list[Curve]:
        """Deletion and insertion, for each visual stream alone and, where there are several, jointly.

        Args:
            heat: {visual stream: (T, 112, 112)}, only its order counts.

        Returns:
            One curve for every stream, baseline, move and kind.

        Raises:
            ValueError: the heat of a stream is missing or has not its crops' shape.
        """
        self._check(heat)
        fractions = self.protocol.fractions
        found = []
        for move in self.protocol.moves:
            keys = list(product(self.protocol.baselines, KINDS))
            touched: dict[tuple[str, str], dict[str, torch.Tensor]] = {key: {} for key in keys}
            for stream in self.streams:
                ranks = torch.from_numpy(order(heat[stream], move)).to(self._device)
                inner = self._encode(stream, self._masked(stream, ranks, keys))
                each = self.protocol.steps - 1
                for i, key in enumerate(keys):
                    ends = [self._untouched[stream], self._emptied[stream, key[0]]]
                    first, last = ends if key[1] == "deletion" else reversed(ends)
                    touched[key][stream] = torch.cat((first[None], inner[i * each : (i + 1) * each], last[None]))
            for (what, kind), pooled in touched.items():
                for stream, some in self._alone_and_joint(pooled):
                    p = self._of_class(self._speaking(some))
                    found.append(Curve(stream, what, move, kind, fractions, p))
        return found

    def road(self, heat: dict[str, np.ndarray]) -> list[Curve]:
        """P where the most ("morf") and where the least ("lerf") important shares are imputed, tube-wise.

        The noise is the same for every method, share and direction. Arguments and errors are those of :meth:`curves`;
        figures come from :func:`road_scores`.
        """
        self._check(heat)
        shares = np.asarray(self.protocol.road_shares, np.float32)
        if not len(shares):
            return []
        touched: dict[str, dict[str, torch.Tensor]] = {kind: {} for kind in ROAD_KINDS}
        for stream in self.streams:
            ranks = order(heat[stream], "tube")[0]
            removed = [round(share * ranks.size) for share in self.protocol.road_shares]
            masks = [ranks < np.float32(n / ranks.size) for n in removed]
            masks += [ranks >= np.float32((ranks.size - n) / ranks.size) for n in removed]
            pooled = self._encode(stream, map(partial(self._imputed, stream), masks))
            touched["morf"][stream], touched["lerf"][stream] = pooled.chunk(2)
        return [
            Curve(stream, "road", "tube", kind, shares, self._of_class(self._speaking(some)))
            for kind, pooled in touched.items()
            for stream, some in self._alone_and_joint(pooled)
        ]

    def rows(self, method: str, curves: Iterable[Curve], road: Sequence[Curve] = ()) -> list[Row]:
        """Every curve's area, and ROAD's scores, as means over the frames called speaking and over those called silent.

        Args:
            method: the explainer's name.
            curves: of :meth:`curves`.
            road: of :meth:`road`.

        Returns:
            One row for each figure and each of the two verdicts that there are frames of.
        """
        figures = [(c.stream, c.kind, c.baseline, c.move, areas(c)) for c in curves]
        figures += [(stream, "road", "road", "tube", scores) for stream, scores in road_scores(road).items()]
        verdicts = zip(VERDICTS, (self.called_speaking, ~self.called_speaking), strict=True)
        chosen = [(verdict, frames, int(frames.sum())) for verdict, frames in verdicts if frames.any()]
        return [
            Row(self._segment.name, self._segment.clip, method, *names, verdict, _mean(values, frames), count)
            for *names, values in figures
            for verdict, frames, count in chosen
        ]

    def _check(self, heat: dict[str, np.ndarray]) -> None:
        for stream in self.streams:
            wanted = self._segment.crops[stream].shape
            given = np.shape(heat[stream]) if stream in heat else None
            if given != wanted:
                raise ValueError(f"the heat of {stream} must have the shape {wanted} of its crops, not {given}")

    def _masked(self, stream: str, ranks: torch.Tensor, keys: Iterable[tuple[str, str]]) -> Iterator[torch.Tensor]:
        """The stream's crops (T, 112, 112) with each inner fraction gone (come), key after key."""
        crops = self._crops[stream]
        for what, kind in keys:
            empty = self._baselines[stream, what]
            first, then = (empty, crops) if kind == "deletion" else (crops, empty)
            for fraction in self.protocol.fractions[1:-1]:
                yield torch.where(ranks < fraction.item(), first, then)

    def _imputed(self, stream: str, mask: np.ndarray) -> torch.Tensor:
        seed = f"{self.protocol.seed}/{self._segment.name}/{stream}"
        digest = hashlib.sha256(seed.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return torch.from_numpy(road_impute(self._segment.crops[stream], mask, rng)).to(self._device)

    @torch.inference_mode()
    def _encode(self, stream: str, pictures: Iterable[torch.Tensor]) -> torch.Tensor:
        """(n, T, C) pooled embeddings of n versions (T, 112, 112) of a stream, as many at a time as may be."""
        length = len(self._segment)
        at_once, parts, pictures = max(1, self.protocol.batch_frames // length), [], iter(pictures)
        while batch := list(islice(pictures, at_once)):
            if length > self.protocol.batch_frames:
                parts.append(pooled_stream(self._model, stream, batch[0].cpu().numpy())[None])
            else:
                parts.append(self._model.pool(maps_of(self._model, stream, torch.stack(batch), self._inputs)))
        return torch.cat(parts) if parts else torch.empty(0, length, self._model.streams[stream], device=self._device)

    def _alone_and_joint(self, touched: dict[str, torch.Tensor]) -> list[tuple[str, dict[str, torch.Tensor]]]:
        alone = [(stream, {stream: values}) for stream, values in touched.items()]
        return [*alone, (JOINT, touched)] if len(touched) > 1 else alone

    @torch.inference_mode()
    def _speaking(self, touched: dict[str, torch.Tensor]) -> np.ndarray:
        """(n, T) float32 P(speaking) with some streams' embeddings (n, T, C) in the place of the untouched ones."""
        count = len(next(iter(touched.values()))) if touched else 1
        pooled = {stream: values.expand(count, -1, -1) for stream, values in self._untouched.items()} | touched
        return self._model.fuse(pooled).p_speaking.float().cpu().numpy()

    def _of_class(self, p_speaking: np.ndarray) -> np.ndarray:
        return np.where(self.called_speaking, p_speaking, 1 - p_speaking)
