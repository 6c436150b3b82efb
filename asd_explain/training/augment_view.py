"""Disturbed views of a face track: what other cameras, detectors and moments would have shown.

A chunk of frames goes through one geometric map (as if the box had been another one), drawn once, with a smooth
wobble of the box added. Each frame is cut by a single bilinear warp straight from the wide crop. What is in the way
of the face (a hand, a microphone) is painted before that, in the coordinates of the face, so that it moves with it;
what the camera does (tone, blur, resolution, noise, compression) comes after, in that order. The body's picture goes
through the same map of the scene as the face's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from asd_explain.errors import OptionError
from asd_explain.tracks.crops import CROP_SIZE, OUTSIDE, body_box
from asd_explain.training._tables import FromTable
from asd_explain.training.augment_camera import Camera
from asd_explain.training.augment_covers import BOX_PX, WIDE_SIZE, draw_mouth_cover, draw_other_cover

_PROBABILITIES = (
    *("flip", "jitter", "tone", "blur", "noise", "compress", "small"),
    *("occlude_mouth", "occlude_other", "hide_face_in_body"),
)
_AXES_APART = 0.05  # how far the zoom of either axis may be from the common one


@dataclass(frozen=True)
class ViewAugment(FromTable):
    """How often, and how much, views are disturbed.

    Attributes:
        flip: P(face and body are mirrored).
        jitter: P(the box is another one: zoom, shift, turn and wobble).
        max_zoom: the box's scale factor is log-uniform in [1 - max_zoom, 1 + max_zoom]; the axes differ from it by up
            to 5 % each.
        max_shift: the box's shift along each axis, uniform up to this share of its side.
        max_turn_deg: the box's turn, uniform up to this many degrees either way.
        wobble: most standard deviation of the box's smooth movement from frame to frame, as a share of its side.
        tone: P(another brightness, contrast and gamma).
        blur: P(out of focus, or blurred by motion).
        noise: P(camera noise).
        compress: P(JPEG blocks).
        quality: range of the JPEG quality, 1 to 100.
        small: P(the face is shrunk to few pixels and back).
        small_px: range of the side it is shrunk to, px.
        occlude_mouth: P(something covers the lower 45 % or so of the face throughout).
        occlude_other: P(something covers another part of the face for a while).
        hide_face_in_body: P(the face is painted over in the body's picture).

    Raises:
        OptionError: for a value that cannot be used.
    """

    _table = "view"

    flip: float = 0.5
    jitter: float = 0.9
    max_zoom: float = 0.15
    max_shift: float = 0.08
    max_turn_deg: float = 8.0
    wobble: float = 0.01
    tone: float = 0.5
    blur: float = 0.15
    noise: float = 0.15
    compress: float = 0.15
    quality: tuple[int, int] = (10, 50)
    small: float = 0.2
    small_px: tuple[int, int] = (16, 40)
    occlude_mouth: float = 0.08
    occlude_other: float = 0.1
    hide_face_in_body: float = 0.3

    def __post_init__(self) -> None:
        self._check_number(_PROBABILITIES, 0, 1)
        self._check_number(("max_zoom", "max_shift"), 0, 0.5)
        self._check_number(("max_turn_deg",), 0, 45)
        self._check_number(("wobble",), 0, 0.1)
        self._check_range("quality", 1, 100)
        self._check_range("small_px", 8, CROP_SIZE)

    @classmethod
    def off(cls) -> ViewAugment:
        """Nothing is disturbed: :func:`augment_view` gives :func:`plain_view`."""
        return cls(**dict.fromkeys(_PROBABILITIES, 0.0))


@dataclass(frozen=True)
class ViewSample:
    """A disturbed view.

    Attributes:
        face: (T, 112, 112) uint8.
        body: (T, 112, 112) uint8, or None where there was none.
        mouth_hidden: whether something covers the mouth throughout.
        flipped: whether face and body are mirrored.
        small_px: side in pixels to which the face was shrunk, or None.
    """

    face: np.ndarray
    body: np.ndarray | None
    mouth_hidden: bool
    flipped: bool
    small_px: int | None


def face_boxes_in_body(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where the face lies in the crop of the body box that it implies (:func:`asd_explain.tracks.crops.body_box`).

    Args:
        boxes: (T, 4) face boxes x1 y1 x2 y2 in the frame, px.
        size: (width, height) of the frame, px.

    Returns:
        (T, 4) float32 in pixels of the body's crop, clipped to [0, 112].

    Raises:
        OptionError: the boxes are not (T, 4) finite numbers.
    """
    boxes = _checked_boxes(boxes, None, "boxes")
    body = body_box(boxes, *size).astype(np.float64)
    corner, sides = body[:, :2], body[:, 2:] - body[:, :2]
    inside = (boxes - np.tile(corner, 2)) * np.tile(CROP_SIZE / sides, 2)
    return np.clip(inside, 0, CROP_SIZE).astype(np.float32)


def plain_view(wide: np.ndarray) -> np.ndarray:
    """The undisturbed crop of the face box: the centre 160 / 1.4 px of the wide crop.

    Args:
        wide: (T, 160, 160) uint8.

    Returns:
        (T, 112, 112) uint8, bilinear, with the mapping of pixel centres of :func:`asd_explain.tracks.crops.crop`.

    Raises:
        OptionError: ``wide`` is something else, or has no frames.
    """
    wide = _checked_frames(wide, WIDE_SIZE, None, "wide")
    return _warp_face(wide, _identity(len(wide)))


def augment_view(
    wide: np.ndarray,
    bodies: np.ndarray | None,
    face_in_body: np.ndarray | None,
    rng: np.random.Generator,
    config: ViewAugment,
) -> ViewSample:
    """A disturbed view of one chunk of a face track.

    What is drawn for the face does not depend on whether there is a body.

    Args:
        wide: (T, 160, 160) uint8, the box grown to 1.4 times its sides.
        bodies: (T, 112, 112) uint8 or None.
        face_in_body: (T, 4) the face box in pixels of ``bodies`` (:func:`face_boxes_in_body`); needed with them.
        rng: the only source of chance.
        config: how often and how much.

    Raises:
        OptionError: an array has another shape or type, no frames, or boxes that are not finite.
    """
    wide = _checked_frames(wide, WIDE_SIZE, None, "wide")
    n = len(wide)
    if bodies is not None:
        bodies = _checked_frames(bodies, CROP_SIZE, n, "bodies")
        if face_in_body is None:
            raise OptionError("bodies came without face_in_body; compute it with face_boxes_in_body")
        face_in_body = _checked_boxes(face_in_body, n, "face_in_body")

    flipped = bool(rng.random() < config.flip)
    jittered = rng.random() < config.jitter
    maps = _draw_maps(n, rng, config) if jittered else _identity(n)
    mouth_hidden = bool(rng.random() < config.occlude_mouth)
    things = [draw_mouth_cover(wide, rng)] if mouth_hidden else []
    if rng.random() < config.occlude_other:
        things.append(draw_other_cover(wide, rng))
    hide_face = rng.random() < config.hide_face_in_body
    margin, with_gray = rng.uniform(-0.05, 0.25), rng.random() < 0.5
    camera = Camera.draw(n, rng, config)

    if things:
        wide = wide.copy()
        for thing in things:
            thing.paint_wide(wide)
    face = camera.take(_warp_face(wide, maps), 1.0, rng)
    body = None
    if bodies is not None:
        body = bodies.copy()
        for thing in things:
            thing.paint_bodies(body, face_in_body)
        if hide_face:
            _paint_face_over(body, face_in_body, margin, with_gray)
        if jittered:
            body = _warp_body(body, face_in_body, maps)
        sides = np.sqrt((face_in_body[:, 2:] - face_in_body[:, :2]).prod(1))
        body = camera.take(body, max(float(np.median(sides)), 1.0) / CROP_SIZE, rng)
    if flipped:
        face = np.ascontiguousarray(face[:, :, ::-1])
        body = None if body is None else np.ascontiguousarray(body[:, :, ::-1])
    return ViewSample(face, body, mouth_hidden, flipped, camera.small_px)


def _checked_frames(frames: np.ndarray, side: int, n: int | None, name: str) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1:] != (side, side) or len(frames) == 0:
        raise OptionError(
            f"{name} must be (T, {side}, {side}) uint8 with at least one frame, not {frames.shape} {frames.dtype}"
        )
    if n is not None and len(frames) != n:
        raise OptionError(f"{name} has {len(frames)} frames, the face {n}; hand over the same frames of both")
    return frames


def _checked_boxes(boxes: np.ndarray, n: int | None, name: str) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or (n is not None and len(boxes) != n):
        raise OptionError(f"{name} must be ({'T' if n is None else n}, 4), not {boxes.shape}")
    if not np.isfinite(boxes).all():
        raise OptionError(f"{name} has values that are not finite; leave such frames out")
    return boxes


# --- geometry -------------------------------------------------------------------------------------------------------
# A map is (2, 3): with q the place in the new box and u that in the old one, both relative to the box's centre and in
# sides of the old box, u = map[:, :2] q + map[:, 2].


def _identity(n: int) -> np.ndarray:
    return np.broadcast_to(np.eye(2, 3), (n, 2, 3))


def _draw_maps(n: int, rng: np.random.Generator, config: ViewAugment) -> np.ndarray:
    """(n, 2, 3): one map for the chunk, with the wobble of each frame."""
    zoom = np.exp(rng.uniform(np.log1p(-config.max_zoom), np.log1p(config.max_zoom)))
    apart = rng.uniform(1 - _AXES_APART, 1 + _AXES_APART, 2)
    shift = rng.uniform(-config.max_shift, config.max_shift, 2)
    turn = np.deg2rad(rng.uniform(-config.max_turn_deg, config.max_turn_deg))
    size, slow = rng.uniform(0, config.wobble), rng.uniform(1.0, 6.0)
    pad = 24
    white = rng.standard_normal((n + 2 * pad, 4))
    # White noise smoothed by a Gaussian of s.d. ``slow`` keeps 1 / (2 sqrt(pi) slow) of its variance.
    moved = gaussian_filter1d(white, slow, axis=0)[pad : pad + n] * size * np.sqrt(2 * np.sqrt(np.pi) * slow)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.diag(zoom * apart)
    maps = np.empty((n, 2, 3))
    maps[:, :, :2] = matrix * np.exp(moved[:, None, 2:])
    maps[:, :, 2] = shift + moved[:, :2]
    return maps


def _warp_face(wide: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """(T, 112, 112) uint8: each frame's box cut from the wide crop."""
    linear, offset = maps[:, :, :2], maps[:, :, 2]
    # Pixel i's centre is at q = (i + 0.5) / 112 - 0.5; OpenCV's coordinates are half a pixel off centres.
    origin = offset + linear @ np.full(2, 0.5 / CROP_SIZE - 0.5)
    matrices = np.concatenate(
        [linear * (BOX_PX / CROP_SIZE), (WIDE_SIZE / 2 - 0.5 + BOX_PX * origin)[..., None]], axis=2
    )
    return _warp(wide, matrices, cv2.BORDER_CONSTANT)


def _warp_body(bodies: np.ndarray, face_in_body: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """(T, 112, 112) uint8: the bodies through the same maps of the scene, about the face.

    Crops of bodies end at the frame's border and hence never show what is outside; the edge is repeated here too.
    """
    centre = (face_in_body[:, :2] + face_in_body[:, 2:]) / 2
    sides = np.maximum(face_in_body[:, 2:] - face_in_body[:, :2], 1.0)
    linear = maps[:, :, :2] * sides[:, :, None] / sides[:, None, :]
    offset = centre + sides * maps[:, :, 2] + (linear @ (0.5 - centre)[..., None])[..., 0] - 0.5
    return _warp(bodies, np.concatenate([linear, offset[..., None]], axis=2), cv2.BORDER_REPLICATE)


def _warp(frames: np.ndarray, to_source: np.ndarray, border: int) -> np.ndarray:
    out = np.empty((len(frames), CROP_SIZE, CROP_SIZE), np.uint8)
    for frame, matrix, target in zip(frames, to_source, out, strict=True):
        cv2.warpAffine(
            frame,
            matrix,
            (CROP_SIZE, CROP_SIZE),
            dst=target,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=border,
            borderValue=OUTSIDE,
        )
    return out


def _paint_face_over(bodies: np.ndarray, face_in_body: np.ndarray, margin: float, with_gray: bool) -> None:
    """Fill the face's box, grown by ``margin`` of its sides, with ``OUTSIDE`` or the mean of what it covers."""
    sides = face_in_body[:, 2:] - face_in_body[:, :2]
    low = np.clip(np.floor(face_in_body[:, :2] - margin * sides), 0, CROP_SIZE).astype(int)
    high = np.clip(np.ceil(face_in_body[:, 2:] + margin * sides), 0, CROP_SIZE).astype(int)
    for body, (x1, y1), (x2, y2) in zip(bodies, low, high, strict=True):
        if x1 < x2 and y1 < y2:
            body[y1:y2, x1:x2] = OUTSIDE if with_gray else round(float(body[y1:y2, x1:x2].mean()))
