"""The options of an explanation, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from asd_explain.errors import OptionError
from asd_explain.tracks.detect import DETECTORS
from asd_explain.weights.choice import choose

STREAMS = ("face", "body")
LAYOUTS = ("overlay", "panel")
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Options:
    """How to explain a clip.

    Attributes:
        model: "auto", a backbone's name or a weights card's name.
        weights: file to read the network from instead of the card's.
        device: "auto", "cpu", "cuda" or "mps".
        detector: "auto", "yunet", "yunet-2023mar" or "haar".
        boxes: csv of face boxes in AVA or WASD format that replaces detection.
        body_boxes: csv of body boxes, matched to ``boxes`` by entity.
        explainer: name of an explainer.
        streams: visual streams whose heat is drawn.
        layout: "overlay" or "panel".
        smooth_s: standard deviation of the heat's Gaussian smoothing along time in seconds, 0 for none.
        threshold: P(speaking) from which a face is called speaking.
        stills: moments, in seconds from the clip's first frame, of which figures are made.
        still_format: "png" or "pdf".
        start_s, end_s: part of the clip, in seconds from its first frame.
        threads: CPU threads, 0 for all cores.
        overwrite: whether existing outputs may be replaced.
        seed: seed of everything random (nothing in the default path is).
        progress: whether to show progress bars.

    Raises:
        OptionError: for a value that cannot be used.
    """

    model: str = "auto"
    weights: Path | None = None
    device: str = "auto"
    detector: str = "auto"
    boxes: Path | None = None
    body_boxes: Path | None = None
    explainer: str = "se"
    streams: tuple[str, ...] = STREAMS
    layout: str = "overlay"
    smooth_s: float = 0.2
    threshold: float = 0.5
    stills: tuple[float, ...] = ()
    still_format: str = "png"
    start_s: float | None = None
    end_s: float | None = None
    threads: int = 0
    overwrite: bool = False
    seed: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("detector", self.detector, DETECTORS),
            ("layout", self.layout, LAYOUTS),
            ("device", self.device, DEVICES),
            ("still format", self.still_format, ("png", "pdf")),
        ):
            if value not in choices:
                raise OptionError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")
        for stream in self.streams:
            if stream not in STREAMS:
                raise OptionError(f"unknown stream {stream!r} in --streams; choose from {', '.join(STREAMS)}")
        if not self.streams:
            raise OptionError("--streams is empty; choose from face, body")
        if not 0 < self.threshold < 1:
            raise OptionError(f"--threshold {self.threshold} is not a probability between 0 and 1")
        if not (math.isfinite(self.smooth_s) and 0 <= self.smooth_s <= 10):
            raise OptionError(f"--smooth {self.smooth_s} is not between 0 and 10 seconds")
        if self.threads < 0:
            raise OptionError(f"--threads {self.threads} is negative; 0 means all cores")
        for name, value in (("--start", self.start_s), ("--end", self.end_s)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{name} {value} is not a time in seconds from the clip's first frame")
        if self.start_s is not None and self.end_s is not None and self.end_s <= self.start_s:
            raise OptionError(f"--end {self.end_s} is not after --start {self.start_s}")
        if any(not math.isfinite(t) or t < 0 for t in self.stills):
            raise OptionError("--stills takes seconds from the clip's first frame, separated by commas")
        if self.body_boxes is not None and self.boxes is None:
            raise OptionError("--body-boxes needs --boxes: bodies are matched to faces by entity_id")
        if self.model != "auto":
            _ = self.card_name

    @property
    def card_name(self) -> str:
        """Name of the weights card that ``model`` and ``weights`` stand for."""
        return choose(self.model, self.weights)


def pick_device(name: str) -> torch.device:
    """The device that a name stands for; "auto" takes a GPU where there is one.

    Raises:
        OptionError: when it is not there.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    if (name == "cuda" and not torch.cuda.is_available()) or (name == "mps" and not mps):
        raise OptionError(f"--device {name}: there is none here; use --device cpu")
    return torch.device(name)
