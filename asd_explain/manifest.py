"""Everything that is needed to say how a result came about, and to make it again."""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from asd_explain import __version__
from asd_explain.explain.base import Explainer
from asd_explain.explain.squeeze import SqueezeHeat
from asd_explain.options import Options
from asd_explain.results import Result
from asd_explain.stages import Timings
from asd_explain.tracks.detect import Detector
from asd_explain.weights.cards import card

_PACKAGES = ("torch", "torchaudio", "av", "opencv-python-headless", "numpy", "scipy")


def manifest(
    result: Result, options: Options, model: torch.nn.Module, detector: Detector | None, explainer: Explainer
) -> dict:
    """Everything that is needed to say how a result came about, and to make it again."""
    info = result.clip
    gains = _gains(model, explainer)
    kept = {
        stream: {"mean": float(np.mean(counts)), "least": int(min(counts)), "most": int(max(counts))}
        for stream, counts in getattr(explainer, "channels_kept", {}).items()
        if counts
    }
    return {
        "asd_explain": __version__,
        "clip": {
            "path": str(info.path),
            "width": info.width,
            "height": info.height,
            "fps": str(info.fps),
            "frames": len(result.frame_times_s),
            "start_s": info.start_s,
            "rotation": info.rotation,
            "codec": info.codec,
            "audio_codec": info.audio_codec,
        },
        "weights": {
            "name": model.card.name,
            "sha256": model.weights_sha256,
            "licence": model.card.licence,
            "geometry": model.card.geometry,
            "audio": model.card.audio,
            "gates": _gates(model),
            "gains": gains,
        },
        "detector": "boxes csv" if detector is None else detector.name,
        "options": {f.name: getattr(options, f.name) for f in dataclasses.fields(options)},
        "heat": {
            "explainer": explainer.name,
            "cell_stride_px": model.map_stride_px,
            "cell_offset_px": model.map_offset_px,
            "smooth_s": options.smooth_s,
            "channels_kept": kept,
            "maps_that_draw_nothing": sum(item.undrawable() for item in result.tracks),
            "meaning": _meaning(explainer, with_gains=gains is not None),
        },
        "tracks": len(result.tracks),
        "notes": result.notes,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "device": str(next(model.parameters()).device),
    }


def _gates(model: torch.nn.Module) -> dict[str, str] | None:
    """Where the network's gates come from."""
    if not model.maps_are_gated:
        return None
    fitted = getattr(model, "fitted", {}).get("gates")
    return {"name": "trained with the network"} if fitted is None else _fitted(fitted)


def _fitted(name: str) -> dict[str, str]:
    return {"name": name, "sha256": card(name).sha256}


def _gains(model: torch.nn.Module, explainer: Explainer) -> dict[str, str] | None:
    """Where the gains that the heat was made with come from; None where it was made without."""
    fitted = getattr(model, "fitted", {}).get("gains")
    if not getattr(explainer, "gains", False) or not getattr(model, "gains", None) or fitted is None:
        return None
    return _fitted(fitted)


def _meaning(explainer: Explainer, *, with_gains: bool) -> str:
    if not isinstance(explainer, SqueezeHeat):
        return f"by {explainer.name}"
    counted = ", each counted by its gain" if with_gains else ""
    return f"where channels that the gate holds open fire{counted}; the same for speaking and silent"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def finish_manifest(result: Result, timings: Timings) -> None:
    """Put stage timings and peak memory into the manifest."""
    result.manifest["timings_s"] = {stage: round(seconds, 3) for stage, seconds in sorted(timings.seconds.items())}
    result.manifest["peak_rss_mb"] = peak_rss_mb()
    result.manifest["written"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")


def peak_rss_mb() -> float | None:
    """Most memory this process has held so far, in MB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
