"""The network and the pictures of tests/explain/data/image_cams.npz, made from names and seeds, so that anybody can."""

from __future__ import annotations

import numpy as np
import torch
from rule_support import rule_state
from torch import nn

from asd_explain.models.images import block_of, cifar_resnet, squeeze


def network() -> nn.Module:
    """A CIFAR ResNet-18 of width 8 with a block whose gates differ, in evaluation mode."""
    model = squeeze(cifar_resnet(18, width=8), reduction=4).eval()
    model.load_state_dict(rule_state(model))
    # Under the rule activations grow large; so scaled, gates lie between 0.3 and 0.8 and move.
    block_of(model).set_statistics(torch.full((64,), 3.0), torch.full((64,), 5.0))
    return model


def pictures() -> torch.Tensor:
    """(3, 3, 32, 32) float32 in [0, 1], coarse patterns."""
    coarse = np.random.RandomState(0).random_sample((3, 3, 8, 8))
    return torch.from_numpy(np.float32(coarse.repeat(4, 2).repeat(4, 3)))
