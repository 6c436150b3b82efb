"""Statistics that a network and its objective take from the data before the first step."""

from __future__ import annotations

import numpy as np
import torch

from asd_explain.training.corpus import TrainTrack
from asd_explain.training.objective import Objective


def prepare(objective: Objective, tracks: list[TrainTrack]) -> None:
    """Set the mean and deviation of MFCC in the network, and of the teacher's features in the objective.

    A network that standardises its MFCC has an audio encoder with ``mean`` and ``std``; others are left alone.
    """
    encoder = getattr(objective.model, "audio_encoder", None)
    if encoder is not None and hasattr(encoder, "mean"):
        rows = np.concatenate([t.clip.mfcc for t in tracks if t.voiced > 0.3])
        encoder.mean.copy_(torch.from_numpy(rows.mean(0)))
        encoder.std.copy_(torch.from_numpy(rows.std(0)))
    for name in ("face", "audio"):
        rows = [
            getattr(t.lesson, name).astype(np.float32)
            for t in tracks
            if t.lesson is not None and (name == "face" or t.clip.has_audio)
        ]
        if not rows:
            continue
        rows = np.concatenate(rows)
        getattr(objective, f"{name}_mean").copy_(torch.from_numpy(rows.mean(0)))
        getattr(objective, f"{name}_std").copy_(torch.from_numpy(np.maximum(rows.std(0), 1e-3)))
