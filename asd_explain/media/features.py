"""What networks hear, by name: each feature has four steps a frame of the 25-fps grid."""

from __future__ import annotations

from asd_explain.errors import OptionError
from asd_explain.media.log_mel import BINS, aligned_log_mel
from asd_explain.media.mfcc import NUMCEP, aligned_mfcc

#: {name: (function of a clip's sound, a start in seconds and a number of frames; width)}.
AUDIO_FEATURES = {"mfcc": (aligned_mfcc, NUMCEP), "log_mel": (aligned_log_mel, BINS)}


def need_mfcc(network: object) -> None:
    """Refuse a network that does not hear MFCC, where nothing else is there.

    Raises:
        OptionError: naming what it hears.
    """
    hears = getattr(network, "audio_feature", "mfcc")
    if hears != "mfcc":
        raise OptionError(f"{type(network).__name__} hears {hears}, and only MFCC are made here; take another network")
