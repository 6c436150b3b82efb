"""Residual networks for small pictures, such as CIFAR's 32 x 32: torchvision's, but for the stem.

A 7x7 convolution of stride 2 and a max pool leave 8 x 8 cells of 32 x 32 pixels before the first block. He et al.
(arXiv 1512.03385, section 4.2) put one 3x3 convolution there instead; with it the ResNets of ImageNet's widths became
the usual CIFAR baselines.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from asd_explain.errors import OptionError

#: Depth: block, blocks of each stage.
DEPTHS = {18: (BasicBlock, (2, 2, 2, 2)), 50: (Bottleneck, (3, 4, 6, 3))}
_STANDARD_WIDTH = 64


class CifarResNet(ResNet):
    """A ResNet with a 3x3 stem of stride 1 and no max pool; see :func:`cifar_resnet`."""

    image_size = 32

    def __init__(self, block: type[nn.Module], layers: tuple[int, ...], classes: int, width: int) -> None:
        self._width = width
        super().__init__(block, list(layers), num_classes=classes)
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        self.fc = nn.Linear(8 * width * block.expansion, classes)

    def _make_layer(
        self, block: type[nn.Module], planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        """torchvision's stage, with all widths scaled."""
        if planes == _STANDARD_WIDTH:
            self.inplanes = self._width
        return super()._make_layer(block, planes * self._width // _STANDARD_WIDTH, blocks, stride, dilate)


def cifar_resnet(depth: int, *, classes: int = 10, width: int = _STANDARD_WIDTH) -> CifarResNet:
    """ResNet-18 or -50 for pictures of about 32 x 32 pixels: (N, 3, H, W) to logits (N, classes).

    Keys of the state dict are torchvision's; only ``conv1.weight`` has another shape.

    Args:
        depth: 18 or 50.
        classes: how many logits.
        width: channels of the stem and of the first stage (times 4 with bottlenecks); 64 is the published one.

    Raises:
        OptionError: another depth, or classes or width below 1.
    """
    if depth not in DEPTHS:
        raise OptionError(f"there is no CIFAR ResNet of depth {depth}; choose one of {', '.join(map(str, DEPTHS))}")
    if classes < 1 or width < 1:
        raise OptionError(f"classes and width must be at least 1, not {classes} and {width}")
    block, layers = DEPTHS[depth]
    return CifarResNet(block, layers, classes, width)
