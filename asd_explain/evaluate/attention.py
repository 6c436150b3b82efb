"""All that is measured of the explanations of one segment, method by method.

A segment's figures (:func:`measure`) are plain numbers and small arrays, so that they can be kept on disk and a long
evaluation goes on where it was cut off; :mod:`asd_explain.evaluate.attention_summary` makes means of them.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.assumptions import gates_of, variants
from asd_explain.evaluate.attention_picking import MIN_FRAMES
from asd_explain.evaluate.faithfulness import Probe, Protocol
from asd_explain.evaluate.placement import placement_rows
from asd_explain.evaluate.segments import Segment, Smoothing, inputs_of, on_pixels
from asd_explain.evaluate.silence import level_rows
from asd_explain.evaluate.stability import consistency_table, sensitivity
from asd_explain.explain.base import Explainer, create_explainer, list_explainers
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.models.output import Output
from asd_explain.tracks.crops import CROP_SIZE, OUTSIDE

SE, PLAIN, PAPER = "se", "se-plain", "se-paper"
RIVALS = ("gradcam", "gradcam++", "eigengradcam", "fullgrad", "fem")
CONTROLS = ("activation", "se-shuffled", "weights-shuffled", "random", "centre", "mouth")
METHODS = (SE, PLAIN, PAPER, *RIVALS, *CONTROLS)
SEEDED = ("random", "se-shuffled", "weights-shuffled")
#: What takes longer is timed once.
QUICK_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        explainers: names of methods; ``se`` is what the others are compared with.
        protocol: of deletion, insertion and ROAD.
        smoothing: of every method's maps alike, before anything is measured or drawn.
        smoothings: at which temporal consistency is measured, and of ``se`` what smoothing costs in faithfulness.
        variants: whether the published recipe's assumptions are varied and measured one by one.
        sensitivity: whether maps are compared under noise, shifts and re-encoding.
        seed: of everything that is drawn.

    Raises:
        OptionError: an unknown explainer, or one named twice.
    """

    explainers: tuple[str, ...] = METHODS
    protocol: Protocol = field(default_factory=Protocol)
    smoothing: Smoothing = field(default_factory=lambda: Smoothing(seconds=0.2, cells=1.0))
    smoothings: tuple[Smoothing, ...] = (
        Smoothing(),
        Smoothing(seconds=0.1),
        Smoothing(seconds=0.2),
        Smoothing(seconds=0.2, cells=1.0),
        Smoothing(seconds=0.5, cells=1.0),
    )
    variants: bool = True
    sensitivity: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        known = list_explainers()
        if unknown := [name for name in self.explainers if name not in known]:
            raise OptionError(f"unknown explainer {unknown[0]!r}; choose among {', '.join(known)}")
        if not self.explainers or len(set(self.explainers)) < len(self.explainers):
            raise OptionError(f"explainers must be named once each, not {', '.join(self.explainers) or 'none'}")


@dataclass
class Measured:
    """One segment's figures.

    Attributes:
        record: numbers for JSON: "segment", "clip", "kind", "frames", "speaking_frames", "called_speaking" [T bool],
            "scoring_s", "methods" {name: figures}, "smoothing_cost", "variants". A method's "level" has a row
            {"stream", "mean": [T], "peak": [T]} a stream, of the raw maps (:mod:`asd_explain.evaluate.silence`).
        arrays: {"gates.STREAM": (T, C) float16, "pooled": (T, sum of C) fusion vectors before gating, "p": (T,)}.
        heat: {method: {stream: (T, 112, 112) float32}} as measured, for pictures; not kept on disk.
    """

    record: dict
    arrays: dict[str, np.ndarray]
    heat: dict[str, dict[str, np.ndarray]]


def measure(
    model: nn.Module, segment: Segment, settings: Settings, progress: Callable[[], None] | None = None
) -> Measured:
    """Measure every method on one segment with one network.

    The time that counts for a method is what its heat takes once the network has scored the segment: where a method
    needs no more than the scoring pass has left, that is little.

    Args:
        model: in evaluation mode.
        segment: what is explained.
        settings: what is measured.
        progress: called after each method.
    """
    inputs = inputs_of(model, segment)

    def score() -> Output:
        with torch.inference_mode():
            return model(**inputs)

    output, scoring_s = _timed(score)
    probe = Probe(model, segment, settings.protocol)
    record = {
        "segment": segment.name,
        "clip": segment.clip,
        "kind": segment.kind,
        "frames": len(segment),
        "speaking_frames": int(probe.called_speaking.sum()),
        "called_speaking": probe.called_speaking.tolist(),
        "scoring_s": scoring_s,
        "methods": {},
    }
    heat = {}
    for name in settings.explainers:
        figures, heat[name] = _method(model, segment, name, probe, output, inputs, settings)
        record["methods"][name] = figures
        if progress is not None:
            progress()
    if SE in settings.explainers:
        raw = _raw(model, segment, SE, inputs, output, settings)[0]
        record["smoothing_cost"] = _smoothing_cost(model, segment, raw, settings)
    if settings.variants:
        record["variants"] = _variants(model, segment, inputs, output, settings)
        if progress is not None:
            progress()
    arrays = {f"gates.{s}": g.half().cpu().numpy() for s, g in gates_of(output).items()}
    pooled = torch.cat(list(model.at_fusion(output.pooled).values()), -1)[0].float().cpu().numpy()
    return Measured(record, arrays | {"pooled": pooled, "p": probe.p_speaking}, heat)


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call gives, and the seconds it takes: the least of three where it is quick, so that a hiccup of the
    machine does not count."""
    times = []
    while len(times) < (3 if not times or times[0] < QUICK_S else 1):
        _wait()
        began = time.perf_counter()
        result = call()
        _wait()
        times.append(time.perf_counter() - began)
    return result, min(times)


def _wait() -> None:
    """Let an accelerator finish what it was given, so that its work is timed and not its queue."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def warm_up(model: nn.Module, settings: Settings) -> None:
    """Run scoring and every method once on grey pictures, so that what the libraries do on first use is not timed."""
    grey = np.full((MIN_FRAMES, CROP_SIZE, CROP_SIZE), OUTSIDE, np.uint8)
    crops = {stream: grey for stream in model.streams if stream != "audio"}
    segment = Segment("warm-up", "warm-up", "real", crops, aligned_mfcc(None, 0.0, MIN_FRAMES).numpy())
    inputs = inputs_of(model, segment)
    with torch.inference_mode():
        output = model(**inputs)
    for name in settings.explainers:
        _create(name, segment, settings).heat(model, inputs, 1, output)


def _create(name: str, segment: Segment, settings: Settings) -> Explainer:
    seed = zlib.crc32(f"{settings.seed}:{segment.name}".encode())
    return create_explainer(name, **({"seed": seed} if name in SEEDED else {}))


def _raw(
    model: nn.Module,
    segment: Segment,
    name: str,
    inputs: dict[str, torch.Tensor | None],
    output: Output,
    settings: Settings,
) -> tuple[dict[str, np.ndarray], float, bool]:
    """(raw heat {stream: (T, h, w)}, seconds it took, whether it needs gradients)."""
    explainer = _create(name, segment, settings)
    heat, spent = _timed(lambda: explainer.heat(model, inputs, 1, output))
    return {s: v.float().cpu().numpy() for s, v in heat.items()}, spent, explainer.needs_gradient


def _method(
    model: nn.Module,
    segment: Segment,
    name: str,
    probe: Probe,
    output: Output,
    inputs: dict[str, torch.Tensor | None],
    settings: Settings,
) -> tuple[dict, dict[str, np.ndarray]]:
    raw, spent, gradient = _raw(model, segment, name, inputs, output, settings)
    heat = {stream: on_pixels(model, raw[stream], settings.smoothing) for stream in probe.streams}
    curves, road = probe.curves(heat), probe.road(heat)
    verdicts = {"speaking": probe.called_speaking, "silent": ~probe.called_speaking}
    figures = {
        "s": spent,
        "needs_gradient": gradient,
        "faithfulness": [asdict(row) for row in probe.rows(name, curves, road)],
        "curves": [
            {
                **{key: getattr(c, key) for key in ("stream", "baseline", "move")},
                "curve": c.kind,
                "verdict": verdict,
                "frames": int(frames.sum()),
                "fractions": c.fractions.tolist(),
                "p": c.p[:, frames].mean(1).tolist(),
            }
            for c in curves
            for verdict, frames in verdicts.items()
            if frames.any()
        ],
        "level": level_rows({stream: raw[stream] for stream in probe.streams}),
        "placement": [],
        "consistency": [],
        "sensitivity": [],
    }
    for stream in probe.streams:
        if stream in segment.regions:
            states = {"called": probe.called_speaking.astype(np.float32)}
            if segment.truth is not None:
                states["truth"] = segment.truth
            figures["placement"] += [
                {"stream": stream, "by": by, **asdict(row)}
                for by, state in states.items()
                for row in placement_rows(heat[stream], segment.regions[stream], state)
                if row.known
            ]
        figures["consistency"] += [
            {
                "stream": stream,
                "seconds": row.smoothing.seconds,
                "cells": row.smoothing.cells,
                "value": row.after_motion,
                "in_place": row.in_place,
            }
            for row in consistency_table(model, raw[stream], segment.crops[stream], settings.smoothings)
        ]
    if settings.sensitivity:
        explainer = _create(name, segment, settings)
        figures["sensitivity"] = [
            asdict(row)
            for row in sensitivity(explainer, model, segment, seed=settings.seed, smoothing=settings.smoothing)
        ]
    return figures, heat


def _smoothing_cost(model: nn.Module, segment: Segment, raw: dict[str, np.ndarray], settings: Settings) -> list[dict]:
    """Areas of ``se`` at every smoothing, with the first baseline: what smoothing gives or takes."""
    own = settings.protocol
    probe = Probe(model, segment, replace(own, baselines=own.baselines[:1], road_shares=()))
    found = []
    for smoothing in settings.smoothings:
        heat = {stream: on_pixels(model, raw[stream], smoothing) for stream in probe.streams}
        found += [
            {**asdict(row), "seconds": smoothing.seconds, "cells": smoothing.cells}
            for row in probe.rows(SE, probe.curves(heat))
            if row.verdict == "speaking"
        ]
    return found


def _variants(
    model: nn.Module, segment: Segment, inputs: dict[str, torch.Tensor | None], output: Output, settings: Settings
) -> list[dict]:
    """Areas of every variant of SE, tube-wise, with the first baseline."""
    own = settings.protocol
    probe = Probe(model, segment, replace(own, baselines=own.baselines[:1], moves=("tube",), road_shares=()))
    found = []
    for label, make, smoothing in variants(settings.smoothing):
        raw = {s: v.float().cpu().numpy() for s, v in make().heat(model, inputs, 1, output).items()}
        heat = {stream: on_pixels(model, raw[stream], smoothing) for stream in probe.streams}
        found += [{"label": label, **asdict(row)} for row in probe.rows(label, probe.curves(heat))]
    return found
