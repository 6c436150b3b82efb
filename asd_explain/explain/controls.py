"""What an explanation has to beat: chance, plain activations, gates of the wrong channels, and fixed blobs.

No control reads the target. The blobs do not read the network or the picture either, only where a face usually lies in
a crop: whoever explains faces with less than them has explained nothing.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.explain.base import Explainer, register, scored
from asd_explain.explain.squeeze import SqueezeHeat
from asd_explain.models.output import Output
from asd_explain.tracks.crops import CROP_SIZE, GEOMETRIES, body_box, crop_window

# A face box as the detector draws it, brow to chin, with its mouth: medians over 132 faces of real clips. It is 1.39
# widths high; the middle of the mouth's corners lies at 0.50 of its width and 0.74 of its height (std 0.13 and 0.02).
FACE_ASPECT = 1.39
MOUTH_AT = (0.5, 0.74)
# Standard deviations of the blobs, as fractions of sqrt(face width x face height).
CENTRE_SIGMA, MOUTH_SIGMA = 0.20, 0.15


def _generator(seed: int, stream: str) -> torch.Generator:
    """The same draw for the same seed and stream, in whatever order streams and calls come."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{stream}".encode()))


def _map_shapes(
    model: nn.Module, inputs: dict[str, torch.Tensor], output: Output | None
) -> dict[str, tuple[int, int, int]]:
    """{visual stream: (T, h, w)} of the network's maps, without running it."""
    if output is not None and output.maps:
        return {stream: (maps.shape[1], *maps.shape[-2:]) for stream, maps in output.maps.items()}
    crops = {s: x for s, x in inputs.items() if s != "audio" and s in model.streams and x is not None}
    if not crops:
        raise OptionError("neither crops nor an output with maps is given")
    cells = math.ceil(CROP_SIZE / model.map_stride_px)
    return {stream: (x.shape[1], cells, cells) for stream, x in crops.items()}


@register("random")
class RandomHeat(Explainer):
    """Uniform numbers in [0, 1), independent in every cell and frame.

    A draw depends on the seed, the stream and the shape only. Whoever wants other draws for other segments makes one
    explainer a segment, with a seed made from its name.
    """

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Explainer.heat`; on the cells of the network's maps."""
        del target
        shapes = _map_shapes(model, inputs, output)
        return {stream: torch.rand(shape, generator=_generator(self.seed, stream)) for stream, shape in shapes.items()}


@register("activation")
class ActivationHeat(Explainer):
    """The plain mean of the maps over their channels, negative values cut off: SE without a gate."""

    name = "activation"

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Explainer.heat`."""
        del target
        output = scored(model, inputs, output)
        return {stream: maps[0].mean(1).relu() for stream, maps in output.maps.items()}


@register("se-shuffled")
class ShuffledHeat(SqueezeHeat):
    """SE with each stream's gates permuted over its channels: one permutation for all frames of a call.

    The gates keep their distribution and their course in time and lose only which channel they belong to. Gains, which
    are fixed numbers of the network, keep their place: what SE is better than this by is the excitation's own doing.

    Args:
        seed: of the permutations; a stream's depends on the seed, its name and its width only.
        gains_too: permute gates and gains together, which is the control for all that weighs the channels; under the
            name "weights-shuffled".
        percentile, scope: see :class:`asd_explain.explain.squeeze.SqueezeHeat`.
    """

    def __init__(
        self, seed: int = 0, gains_too: bool = False, percentile: float | None = None, scope: str = "frame"
    ) -> None:
        super().__init__(percentile, scope)
        self.name, self.seed, self.gains_too = "weights-shuffled" if gains_too else "se-shuffled", seed, gains_too

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Explainer.heat`."""
        output = scored(model, inputs, output)
        gates = {stream: self._shuffled(stream, values) for stream, values in output.gates.items()}
        return super().heat(model, inputs, target, replace(output, gates=gates))

    def _gains(self, model: nn.Module | None) -> dict[str, torch.Tensor]:
        gains = super()._gains(model)
        return {s: self._shuffled(s, values) for s, values in gains.items()} if self.gains_too else gains

    def _shuffled(self, stream: str, values: torch.Tensor) -> torch.Tensor:
        order = torch.randperm(values.shape[-1], generator=_generator(self.seed, stream))
        return values[..., order.to(values.device)]


@register("weights-shuffled")
def shuffled_weights(seed: int = 0) -> ShuffledHeat:
    """SE with the products of gate and gain permuted over the channels."""
    return ShuffledHeat(seed, gains_too=True)


def blob_in_crop(where: str, stream: str, geometry: str) -> tuple[np.ndarray, np.ndarray]:
    """Where a fixed blob lies in a crop of 112 pixels.

    Args:
        where: "centre" or "mouth".
        stream: "face", or "body", a crop by :func:`asd_explain.tracks.crops.body_box` of an upright person.
        geometry: how faces are cut, "box" or "demo".

    Returns:
        (x, y) centre and (x, y) standard deviations, in crop pixels. The centre is that of the crop for faces; in a
        body crop that of the face.
    """
    # A face in a frame so large that no window is clipped.
    width, height = 1000.0, 1000.0 * FACE_ASPECT
    box = np.array([1e4, 1e4, 1e4 + width, 1e4 + height])
    window = crop_window(box, geometry) if stream == "face" else body_box(box, 30000, 30000)
    if where == "mouth":
        point = box[:2] + np.array(MOUTH_AT) * (width, height)
    else:
        seen = window if stream == "face" else box
        point = (seen[:2] + seen[2:]) / 2
    sigma = (MOUTH_SIGMA if where == "mouth" else CENTRE_SIGMA) * np.sqrt(width * height)
    pixels = CROP_SIZE / (window[2:] - window[:2]).astype(np.float64)
    # Crop pixel i covers [i, i + 1] of the window's 112 parts; its centre is the whole number i.
    return (point - window[:2]) * pixels - 0.5, sigma * pixels


class BlobHeat(Explainer):
    """A Gaussian at a fixed place, the same in every frame; 1 at its centre.

    It is no narrower than a cell (in body crops it would be): a map cannot show less, and far cells would tie at zero.

    Args:
        where: "centre" or "mouth", see :func:`blob_in_crop`.
        geometry: how the faces were cut, "box" or "demo"; None asks the network's weights card, "box" without one.

    Raises:
        OptionError: for an unknown geometry.
    """

    def __init__(self, where: str, geometry: str | None = None) -> None:
        if geometry is not None and geometry not in GEOMETRIES:
            raise OptionError(f"unknown geometry {geometry!r}; choose one of {', '.join(GEOMETRIES)}")
        self.name, self.geometry = where, geometry

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Explainer.heat`; on the cells of the network's maps."""
        del target
        geometry = self.geometry or getattr(getattr(model, "card", None), "geometry", None) or "box"
        result = {}
        for stream, (length, height, width) in _map_shapes(model, inputs, output).items():
            (x, y), sigma = blob_in_crop(self.name, stream, geometry)
            sigma_x, sigma_y = np.maximum(sigma, model.map_stride_px)
            columns, rows = (model.map_stride_px * np.arange(n) + model.map_offset_px for n in (width, height))
            across = np.exp(-0.5 * ((columns - x) / sigma_x) ** 2)
            down = np.exp(-0.5 * ((rows - y) / sigma_y) ** 2)
            blob = torch.from_numpy(np.outer(down, across).astype(np.float32))
            result[stream] = blob.expand(length, -1, -1).clone()
        return result


@register("centre")
def centre_blob(geometry: str | None = None) -> BlobHeat:
    """A blob in the middle of the face crop (in a body crop: of the face)."""
    return BlobHeat("centre", geometry)


@register("mouth")
def mouth_blob(geometry: str | None = None) -> BlobHeat:
    """A blob where the mouth of an upright, frontal face lies."""
    return BlobHeat("mouth", geometry)
