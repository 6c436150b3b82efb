"""Clips of different lengths in one batch, without the padding being seen or heard.

Recurrent layers that run backwards, attention, and everything that averages over time would carry what a clip is filled
up with into its own frames. So the fill never enters a network: clips of one length go through it together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.models.output import Output


def forward_padded(
    model: nn.Module,
    lengths: Sequence[int] | torch.Tensor,
    face: torch.Tensor | None,
    audio: torch.Tensor | None,
    body: torch.Tensor | None = None,
    context: torch.Tensor | None = None,
) -> Output:
    """Score B clips, filled up to T frames, each as if it were alone.

    Args:
        model: a backbone.
        lengths: frames of each clip that are its own, 1 to T.
        face, audio, body, context: as the network's ``forward`` takes them; what lies behind a clip's length is not
            read.

    Returns:
        The output over T frames; zero behind a clip's length.

    Raises:
        ValueError: a length is not between 1 and T, or there are not as many as clips.
    """
    given = {"face": face, "audio": audio, "body": body, "context": context}
    given = {name: x for name, x in given.items() if x is not None}
    clips, most = next((x.shape[0], x.shape[1] // (4 if name == "audio" else 1)) for name, x in given.items())
    lengths = [int(n) for n in lengths]
    if len(lengths) != clips or not all(1 <= n <= most for n in lengths):
        raise ValueError(f"lengths {lengths} do not go with {clips} clips of {most} frames")
    found: list[Output | None] = [None] * clips
    for length in sorted(set(lengths)):
        rows = [i for i, n in enumerate(lengths) if n == length]
        cut = {name: x[rows, : length * (4 if name == "audio" else 1)] for name, x in given.items()}
        output = model(**{"face": None, "audio": None, **cut})
        for k, i in enumerate(rows):
            found[i] = _map(output, lambda x, k=k, length=length: _filled(x[k], most - length))
    return _joined(found)


def _filled(x: torch.Tensor, frames: int) -> torch.Tensor:
    """(T, ...) with zeros behind."""
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, frames))


def _map(output: Output, change) -> Output:
    def of(value):
        if isinstance(value, dict):
            return {key: change(x) for key, x in value.items()}
        return None if value is None else change(value)

    return Output(**{f.name: of(getattr(output, f.name)) for f in fields(Output)})


def _joined(outputs: Sequence[Output]) -> Output:
    def of(values):
        if isinstance(values[0], dict):
            return {key: torch.stack([v[key] for v in values]) for key in values[0]}
        return None if values[0] is None else torch.stack(values)

    return Output(**{f.name: of([getattr(o, f.name) for o in outputs]) for f in fields(Output)})
