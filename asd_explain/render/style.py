"""Sizes of everything that is drawn, from the size of the picture, and the words that are."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Below this height in pixels no text is drawn: it could not be read.
MIN_TEXT_HEIGHT = 160


def even(value: float) -> int:
    """The nearest even integer."""
    return 2 * round(value / 2)


@dataclass(frozen=True)
class Style:
    """Sizes in pixels.

    Attributes:
        text: whether there is room for text at all.
        label: em size of labels.
        small: em size of the timeline's and the legend's text.
        thick, thin: line widths of speaking and silent faces.
        gap: distance between things; even.
    """

    text: bool
    label: int
    small: int
    thick: int
    thin: int
    gap: int

    @classmethod
    def of(cls, width: int, height: int) -> Style:
        """The sizes for a picture of this size."""
        short = min(width, height)
        label = max(round(5.5 + 0.0165 * short), 9)
        return cls(
            text=height >= MIN_TEXT_HEIGHT and width >= 120,
            label=label,
            small=max(round(0.84 * label), 9),
            thick=1 if short < 64 else max(round(short * 0.0056), 3),
            thin=max(round(short * 0.0025), 1),
            gap=max(even(short * 0.006), 2),
        )


def clock(time_s: float, tenths: bool = False) -> str:
    """Seconds as m:ss or h:mm:ss, with tenths if asked for."""
    ticks = round(max(time_s, 0.0) * 10) if tenths else int(max(time_s, 0.0)) * 10
    seconds, rest = divmod(ticks, 10)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return f"{text}.{rest}" if tenths else text


def percent(p: float) -> str:
    """A probability as a whole percentage; a dash where there is none."""
    return "– %" if p != p else f"{round(100 * min(max(p, 0.0), 1.0))} %"


def heat_words(explainer: str) -> list[str]:
    """What the heat means, from the full sentence to the shortest that is still true."""
    if _squeezes(explainer):
        return [
            "where channels that the gate holds open fire; same for speaking and silent; opacity = P(speaking)",
            "where open-gate channels fire, speaking or silent; opacity = P(speaking)",
            "open-gate channels; opacity = P(speaking)",
        ]
    return [f"by {explainer}; opacity = P(speaking)"]


def heat_name(explainer: str) -> str:
    """The heat's name in the legend."""
    return "SE heat" if _squeezes(explainer) else "heat"


def _squeezes(explainer: str) -> bool:
    """Whether the explainer reads the gates: "se", with or without options after it."""
    return re.match(r"se(?![a-z])", explainer) is not None


def smoothing_words(smooth_s: float) -> str:
    """The temporal smoothing in words."""
    return f"smoothed over {smooth_s:g} s" if smooth_s > 0 else "not smoothed"
