"""The statistics of a block that standardises what it squeezes, while it is trained."""

from __future__ import annotations

import torch

from asd_explain.models.fusion_backbone import FusionBackbone


@torch.no_grad()
def follow_statistics(model: FusionBackbone, pooled: dict[str, torch.Tensor], seen: torch.Tensor) -> None:
    """Let a block that standardises follow the mean and deviation of the embeddings, as a batch norm does.

    Args:
        model: whose block it is; nothing happens without one, or where it does not standardise.
        pooled: {stream: (..., C)} embeddings of a batch; a stream may be missing.
        seen: scalar, batches so far; counted on.
    """
    block = model.fusion_gate
    if block is None or block.mean is None:
        return
    seen += 1
    pace = max(0.01, 1.0 / float(seen))
    first = 0
    for stream, width in model.streams.items():
        part = slice(first, first + width)
        first += width
        if stream in pooled:
            values = pooled[stream].detach().flatten(0, -2)
            block.mean[part] += pace * (values.mean(0) - block.mean[part])
            block.std[part] += pace * (values.std(0).clamp_min(1e-3) - block.std[part])
