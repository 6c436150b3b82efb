"""Statistics that a network and its objective take from the data before the first step."""

from __future__ import annotations

import numpy as np
import torch

from asd_explain.errors import OptionError
from asd_explain.training.corpus import TrainTrack
from asd_explain.training.objective import Objective


def prepare(objective: Objective, tracks: list[TrainTrack]) -> None:
    """Set mean and deviation of MFCC in the network, and how far the teacher's features move in the objective.

    A network that standardises its MFCC has an audio encoder with ``mean`` and ``std``; others are left alone.

    Raises:
        OptionError: no track has a voice in it.
    """
    encoder = getattr(objective.model, "audio_encoder", None)
    if encoder is not None and hasattr(encoder, "mean"):
        rows = [t.clip.mfcc for t in tracks if t.voiced > 0.3]
        if not rows:
            raise OptionError("no face track has a voice in it; look at [data] groups")
        rows = encoder.audible(torch.from_numpy(np.concatenate(rows)))
        encoder.mean.copy_(rows.mean(0))
        encoder.std.copy_(rows.std(0, correction=0))
    for name in ("face", "audio"):
        moves = [
            rows - rows.mean(0)
            for rows in (
                getattr(t.lesson, name).astype(np.float32)
                for t in tracks
                if t.lesson is not None and (name == "face" or t.clip.has_audio)
            )
        ]
        if moves:
            spread = np.concatenate(moves).std(0)
            getattr(objective, f"{name}_std").copy_(torch.from_numpy(np.maximum(spread, 0.1 * spread.mean() + 1e-6)))
