"""From a trained network to a weights file."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from asd_explain.errors import WeightsError


def export_weights(model: nn.Module, path: Path) -> None:
    """Write a network's parameters and statistics as float16 safetensors, as a whole or not at all.

    Counters of batch norms are left as integers. Values beyond float16's range are refused.

    Raises:
        WeightsError: a value is not finite or does not fit into float16.
    """
    state = {}
    for key, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        if value.dtype.is_floating_point:
            small = value.half()
            if not torch.isfinite(small).all():
                raise WeightsError(f"{path}: {key} has values that float16 cannot hold; nothing was written")
            value = small
        state[key] = value
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(state, partial)
        partial.chmod(0o644)  # it comes out readable by its owner alone
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
