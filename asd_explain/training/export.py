"""From a trained network to a weights file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from asd_explain.errors import OutputError, WeightsError
from asd_explain.outputs import whole_file


def export_weights(model: nn.Module, path: Path, half: bool = True) -> None:
    """Write a network's parameters and statistics as safetensors, as a whole or not at all.

    Counters of batch norms are left as integers. Values beyond float16's range are refused.

    Args:
        model: the network.
        path: of the file.
        half: whether as float16; else as they are.

    Raises:
        WeightsError: a value is not finite or does not fit into float16.
        OutputError: the file cannot be written.
    """
    state = {}
    for key, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        if value.dtype.is_floating_point:
            kept = value.half() if half else value
            if not torch.isfinite(kept).all():
                kind = "float16 cannot hold" if half else "are not finite"
                raise WeightsError(f"{path}: {key} has values that {kind}; nothing was written")
            value = kept
        # A file cannot hold memory that two tensors share.
        state[key] = value.clone()
    write_tensors(state, Path(path))


def write_tensors(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors as safetensors, as a whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    with whole_file(path) as partial:
        try:
            save_file(state, partial)
        except SafetensorError as error:  # what its writer makes of a full disk
            raise OutputError(f"{path} cannot be written: {error}; is the disk full?") from error
        partial.chmod(0o644)  # it comes out readable by its owner alone
