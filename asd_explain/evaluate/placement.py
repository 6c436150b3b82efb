"""Does heat lie where speech is visible? Pure functions on heat over a crop and the crop's regions.

Good placement is no proof of a true explanation: a blob painted over the mouth has the best of all. It says whether
what the network looks at is what a person would look at, and is to be read beside the faithfulness.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from asd_explain.errors import OptionError
from asd_explain.evaluate.regions import known_frames
from asd_explain.explain.geometry import TIE, drawable_frames


def pointing_hits(heat: np.ndarray, mask: np.ndarray, tolerance_px: int = 0) -> np.ndarray:
    """The pointing game (Zhang et al., "Top-down Neural Attention by Excitation Backprop", arXiv 1608.00507).

    A frame is a hit when its hottest pixel lies in the region, or no further than the tolerance from it. The original
    allows 15 px on photographs of about 500 px; here the default is none, because the regions are drawn generously
    already. Where several pixels are equally hot, at least half of them must lie inside. A map that is dead (all zero)
    or the same everywhere points nowhere: a miss of every region, or a method could do well by saying nothing.

    Args:
        heat: (T, h, w).
        mask: (T, h, w) bool, the region.
        tolerance_px: radius in pixels by which the region grows.

    Returns:
        (T,) float32: 1 hit, 0 miss, NaN where the map is not finite, or the region is empty.

    Raises:
        OptionError: unequal shapes or a negative tolerance.
    """
    heat, mask = np.asarray(heat), np.asarray(mask, bool)
    if heat.shape != mask.shape or tolerance_px < 0:
        raise OptionError(f"heat {heat.shape} and region {mask.shape} must agree, tolerance {tolerance_px} be >= 0")
    hits = np.full(len(heat), np.nan, np.float32)
    reach = np.arange(-tolerance_px, tolerance_px + 1)
    disc = (reach[:, None] ** 2 + reach[None] ** 2 <= tolerance_px**2).astype(np.uint8)
    shown = mask.any((1, 2))
    hits[shown & np.isfinite(heat).all((1, 2))] = 0
    for t in np.flatnonzero(drawable_frames(heat) & shown):
        grown = cv2.dilate(mask[t].astype(np.uint8), disc).astype(bool) if tolerance_px else mask[t]
        hottest = heat[t] >= heat[t].max() * (1 - TIE) if heat[t].max() > 0 else heat[t] == heat[t].max()
        hits[t] = grown[hottest].mean() >= 0.5
    return hits


def heat_mass(heat: np.ndarray, regions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How a frame's heat is divided among the regions.

    Args:
        heat: (T, h, w), >= 0.
        regions: {region: (T, h, w) bool}, disjoint and covering.

    Returns:
        {region: (T,) float64} that sum to 1 over the regions; NaN in frames without any heat or with heat that is not
        finite, and where the mouth is not known (:func:`asd_explain.evaluate.regions.known_frames`).

    Raises:
        OptionError: unequal shapes.
    """
    heat = np.asarray(heat, np.float64)
    for region, mask in regions.items():
        if mask.shape != heat.shape:
            raise OptionError(f"heat {heat.shape} and region {region!r} {mask.shape} must agree")
    peak = heat.max((1, 2), keepdims=True)
    usable = np.isfinite(heat).all((1, 2)) & (peak[:, 0, 0] > 0) & known_frames(regions)
    # Divided by the peak first, so that heat of any scale neither overflows nor vanishes in the sums.
    scaled = np.divide(heat, peak, out=np.zeros_like(heat), where=usable[:, None, None])
    total = scaled.sum((1, 2))
    return {
        region: np.divide((scaled * mask).sum((1, 2)), total, out=np.full(len(heat), np.nan), where=usable)
        for region, mask in regions.items()
    }


def area_share(regions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{region: (T,) float64}: the regions' shares of the pixels, which is the mass that a uniform map has there.

    Mass divided by area is the enrichment: 1 for a map that does not care. NaN where the mouth is not known.
    """
    known = known_frames(regions)
    return {region: np.where(known, mask.mean((1, 2)), np.nan) for region, mask in regions.items()}


@dataclass(frozen=True)
class PlacementRow:
    """Where the heat of a segment's speaking, or silent, frames lies: means over frames.

    Attributes:
        state: "speaking" or "silent".
        frames: frames in that state.
        known: those of them whose mouth is known and whose map is finite.
        counted: those of the known ones that have heat.
        dead: share of the known frames whose map is zero everywhere, in [0, 1].
        pointing: {region: share of the known frames whose hottest pixel lies there}, in [0, 1]; over frames that show
            the region. A dead or constant map points nowhere and is a miss, so the shares may sum to less than 1.
        mass: {region: share of the heat}, over the counted frames, sums to 1.
        area: {region: share of the pixels}, over the same frames as ``mass``, sums to 1.

    Numbers that no frame stands behind are NaN.
    """

    state: str
    frames: int
    known: int
    counted: int
    dead: float
    pointing: dict[str, float]
    mass: dict[str, float]
    area: dict[str, float]

    @property
    def enrichment(self) -> dict[str, float]:
        """{region: mass / area}; NaN for a region that is nowhere to be seen."""
        return {r: self.mass[r] / self.area[r] if self.area[r] > 0 else float("nan") for r in self.mass}


def placement_rows(
    heat: np.ndarray, regions: dict[str, np.ndarray], speaking: np.ndarray, tolerance_px: int = 0
) -> list[PlacementRow]:
    """One row for the speaking frames of a segment and one for the silent ones.

    Args:
        heat: (T, h, w), >= 0, of one stream, as it is drawn.
        regions: {region: (T, h, w) bool} of the same stream.
        speaking: (T,) 1 or True speaking, 0 or False silent, NaN in neither row: called so, or true, as the caller has
            it.
        tolerance_px: of the pointing game.

    Raises:
        OptionError: shapes that do not agree.
    """
    speaking = np.asarray(speaking, np.float64)
    if speaking.shape != (len(heat),):
        raise OptionError(f"{speaking.shape} states for {len(heat)} frames")
    mass, area = heat_mass(heat, regions), area_share(regions)
    known = known_frames(regions) & np.isfinite(heat).all((1, 2))
    counted = np.isfinite(next(iter(mass.values())))
    pointing = {r: np.where(known, pointing_hits(heat, mask, tolerance_px), np.nan) for r, mask in regions.items()}
    rows = []
    for state, frames in (("speaking", speaking == 1), ("silent", speaking == 0)):
        seen, used = frames & known, frames & counted
        rows.append(
            PlacementRow(
                state=state,
                frames=int(frames.sum()),
                known=int(seen.sum()),
                counted=int(used.sum()),
                dead=finite_mean((~counted[seen]).astype(np.float64)),
                pointing={r: finite_mean(values[seen]) for r, values in pointing.items()},
                mass={r: finite_mean(values[used]) for r, values in mass.items()},
                area={r: finite_mean(values[used]) for r, values in area.items()},
            )
        )
    return rows


def finite_mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN of nothing."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
