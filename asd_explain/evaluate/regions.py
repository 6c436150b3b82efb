"""Which pixels of a crop are mouth, eyes, rest of face, rest of body, and which are none of the person.

Everything is laid out in pixels of the frame and read off at the centres of the crop's pixels, so the same face has the
same regions in every crop geometry. Proportions were set by eye on faces of real clips. They are an anatomy in a few
numbers, not a segmentation: mouth and eyes sit where the landmarks are, the face is the ellipse of its box, and the
body is what an upright person's outline below such a face would be.

A frame whose mouth is not known, or not in the crop, has an empty mouth: such frames do not count in any measurement
of placement (:func:`known_frames`).
"""

from __future__ import annotations

import itertools

import numpy as np

from asd_explain.errors import OptionError
from asd_explain.evaluate.segments import REGIONS
from asd_explain.tracks.crops import BODY_GEOMETRY, CROP_SIZE, CropGeometry, body_box, crop_window

#: Landmarks are interpolated over gaps of at most this many frames (0.5 s); a head moves too far in longer ones.
LONGEST_GAP_FRAMES = 12
#: How far a known mouth's box is enlarged on each side, in widths of the mouth: lips drag the skin around them along.
MOUTH_MARGIN = 0.1

# The mouth's rectangle: width in distances of its corners; above and below its line in nose-mouth distances. Below is
# longer, because the lower jaw is what moves.
_MOUTH_WIDTH = 1.4
_MOUTH_ABOVE, _MOUTH_BELOW = 0.6, 0.9
# Seen from the side or from above, corners and nose come close to each other: no less than these shares of the face's
# scale (the larger of the eyes' distance and 0.9 x the distance from eyes to mouth; turning shortens only one of them).
_LEAST_CORNERS, _LEAST_NOSE = 0.5, 0.35
_EYES_TO_MOUTH = 0.9
# Half the width and height of the ellipse around an eye (lids and brow's lower edge), in the face's scale.
_EYE_HALF_WIDTH, _EYE_HALF_HEIGHT = 0.36, 0.24

# The person's outline in shares of s = sqrt(face width x face height), see :func:`asd_explain.tracks.crops.body_box`.
_HEAD_HALF_WIDTH, _HEAD_ABOVE = 0.65, 0.35  # the head with its hair: an ellipse from above the brow to the chin
_NECK_HALF_WIDTH, _NECK_LENGTH = 0.45, 0.2
_SHOULDER_HALF_WIDTH, _SHOULDER_DROP = 1.3, 0.6  # arms included; the trapezius falls by so much to the shoulder


def face_regions(
    boxes: np.ndarray,
    landmarks: np.ndarray | None,
    mouths: np.ndarray | None,
    size: tuple[int, int],
    geometry: CropGeometry | str,
) -> dict[str, np.ndarray]:
    """Regions of face crops.

    Mouth: where ``mouths`` knows it, that box, enlarged by ``MOUTH_MARGIN`` of its width on each side; elsewhere a
    rectangle turned with the face, 1.4 corner distances wide, from 0.6 nose-mouth distances above the corners' line to
    0.9 below it. Eyes: an ellipse around each eye point. Rest of face: the ellipse in the face's box. Outside:
    everything else, hair, neck and shoulders included, and what lies beyond the frame; "rest of body" is empty.
    Landmarks that are missing in up to ``LONGEST_GAP_FRAMES`` frames between known ones are interpolated, relative to
    the box. Where they stay unknown, eyes are empty, and so is the mouth unless ``mouths`` knows it.

    Args:
        boxes: (T, 4) face boxes, x1 y1 x2 y2 in pixels of the frame.
        landmarks: (T, 5, 2) pixels (right eye, left eye, nose tip, right and left mouth corner, the person's right and
            left), NaN where unknown, or None.
        mouths: (T, 4) true mouth boxes in pixels, NaN where unknown, or None.
        size: (width, height) of the frame in pixels.
        geometry: of the face crops.

    Returns:
        {region: (T, 112, 112) bool} in the order of ``REGIONS``; every pixel is in exactly one.

    Raises:
        OptionError: the arrays' shapes do not belong together.
        ValueError: an unknown geometry.
    """
    boxes, landmarks, mouths = _checked(boxes, landmarks, mouths)
    x, y = _pixel_centres(crop_window(boxes, geometry))
    mouth, eyes = _features(x, y, landmarks, mouths)
    nothing = np.zeros(mouth.shape, bool)
    return _disjoint(mouth, eyes, _ellipse(x, y, boxes), nothing, _in_frame(x, y, size))


def body_regions(
    boxes: np.ndarray,
    landmarks: np.ndarray | None,
    mouths: np.ndarray | None,
    size: tuple[int, int],
    bodies: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Regions of body crops; mouth, eyes and rest of face as in :func:`face_regions`.

    Rest of body is a rough outline made from the face's box alone, for an upright person seen from the front: a head
    with hair 1.3 s wide (s = sqrt(face width x face height)), a neck, and from there shoulders and arms 2.6 s wide down
    to the crop's end. Raised hands lie outside it, a chair's back may lie inside.

    Args:
        boxes, landmarks, mouths, size: as for :func:`face_regions`.
        bodies: (T, 4) the boxes that the crops were cut from; None: what :func:`body_box` derives from the face's.

    Returns:
        {region: (T, 112, 112) bool} in the order of ``REGIONS``; every pixel is in exactly one.

    Raises:
        OptionError: the arrays' shapes do not belong together.
    """
    boxes, landmarks, mouths = _checked(boxes, landmarks, mouths)
    bodies = body_box(boxes, *size) if bodies is None else np.asarray(bodies, np.float64)
    if bodies.shape != boxes.shape:
        raise OptionError(f"{bodies.shape} body boxes for {boxes.shape} face boxes; one a frame is needed")
    x, y = _pixel_centres(crop_window(bodies, BODY_GEOMETRY))
    mouth, eyes = _features(x, y, landmarks, mouths)
    return _disjoint(mouth, eyes, _ellipse(x, y, boxes), _silhouette(x, y, boxes), _in_frame(x, y, size))


def known_frames(regions: dict[str, np.ndarray]) -> np.ndarray:
    """(T,) bool: frames that count, because some of the mouth is in the crop and known to be there."""
    return regions["mouth"].any((1, 2))


def _checked(
    boxes: np.ndarray, landmarks: np.ndarray | None, mouths: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Float64 arrays of the right shapes, NaN for what is not given, gaps in the landmarks filled."""
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise OptionError(f"face boxes must be (T, 4), not {boxes.shape}")
    landmarks = np.full((len(boxes), 5, 2), np.nan) if landmarks is None else np.asarray(landmarks, np.float64)
    mouths = np.full((len(boxes), 4), np.nan) if mouths is None else np.asarray(mouths, np.float64)
    for name, values, shape in (("landmarks", landmarks, (5, 2)), ("mouths", mouths, (4,))):
        if values.shape != (len(boxes), *shape):
            raise OptionError(f"{name} must be {(len(boxes), *shape)} for {len(boxes)} face boxes, not {values.shape}")
    return boxes, _fill_gaps(landmarks, boxes), mouths


def _fill_gaps(landmarks: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Landmarks (T, 5, 2) with short gaps between known frames interpolated linearly, relative to the boxes (T, 4)."""
    known = np.flatnonzero(np.isfinite(landmarks).all((1, 2)))
    filled = np.full_like(landmarks, np.nan)
    filled[known] = landmarks[known]
    corner, extent = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = (landmarks - corner) / extent
    for before, after in itertools.pairwise(known):
        if 1 < after - before <= LONGEST_GAP_FRAMES + 1:
            gap = np.arange(before + 1, after)
            share = ((gap - before) / (after - before))[:, None, None]
            between = (1 - share) * relative[before] + share * relative[after]
            filled[gap] = corner[gap] + between * extent[gap]
    return filled


def _pixel_centres(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the centres of a crop's pixels lie in the frame: x (T, 1, 112) and y (T, 112, 1) for windows (T, 4)."""
    share = (np.arange(CROP_SIZE) + 0.5) / CROP_SIZE
    x1, y1, x2, y2 = np.asarray(windows, np.float64).T[:, :, None]
    return (x1 + share * (x2 - x1))[:, None, :], (y1 + share * (y2 - y1))[:, :, None]


def _column(values: np.ndarray) -> np.ndarray:
    """(T,) to (T, 1, 1)."""
    return values[:, None, None]


def _ellipse(x: np.ndarray, y: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(T, 112, 112) bool: inside the ellipse that touches the sides of the boxes (T, 4)."""
    x1, y1, x2, y2 = boxes.T[:, :, None, None]
    return ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1


def _inside(x: np.ndarray, y: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(T, 112, 112) bool: inside the boxes (T, 4); nowhere for a NaN."""
    x1, y1, x2, y2 = boxes.T[:, :, None, None]
    return (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)


def _in_frame(x: np.ndarray, y: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return (x >= 0) & (x <= size[0]) & (y >= 0) & (y <= size[1])


def _turned(x: np.ndarray, y: np.ndarray, centre: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in the face's own axes, in frame pixels: along ``right`` (T, 2), a unit vector, and downwards from it."""
    dx, dy = x - _column(centre[:, 0]), y - _column(centre[:, 1])
    along, across = _column(right[:, 0]), _column(right[:, 1])
    return dx * along + dy * across, dy * along - dx * across


def _features(x: np.ndarray, y: np.ndarray, landmarks: np.ndarray, mouths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mouth and eyes, each (T, 112, 112) bool; they may overlap. A NaN makes every comparison false."""
    right_eye, left_eye, nose, right_corner, left_corner = np.moveaxis(landmarks, 1, 0)
    eyes_middle, mouth_middle = (right_eye + left_eye) / 2, (right_corner + left_corner) / 2
    down = mouth_middle - eyes_middle
    # The picture's right in the face's axes: three witnesses, of which turning the head silences at most two.
    right = (left_eye - right_eye) + (left_corner - right_corner) + np.stack([down[:, 1], -down[:, 0]], 1)
    length = np.linalg.norm(right, axis=1, keepdims=True)
    right = np.where(length > 1e-6, right / np.maximum(length, 1e-6), [1.0, 0.0])
    scale = np.maximum(np.linalg.norm(left_eye - right_eye, axis=1), _EYES_TO_MOUTH * np.linalg.norm(down, axis=1))

    corners = np.maximum(np.linalg.norm(left_corner - right_corner, axis=1), _LEAST_CORNERS * scale)
    below_nose = mouth_middle - nose
    nose_mouth = np.abs(below_nose[:, 1] * right[:, 0] - below_nose[:, 0] * right[:, 1])
    nose_mouth = np.maximum(nose_mouth, _LEAST_NOSE * scale)
    sideways, downwards = _turned(x, y, mouth_middle, right)
    mouth = np.abs(sideways) <= _column(_MOUTH_WIDTH / 2 * corners)
    mouth &= (downwards >= _column(-_MOUTH_ABOVE * nose_mouth)) & (downwards <= _column(_MOUTH_BELOW * nose_mouth))

    true = np.isfinite(mouths).all(1)
    margin = MOUTH_MARGIN * (mouths[:, 2:3] - mouths[:, 0:1]) * np.array([-1.0, -1.0, 1.0, 1.0])
    mouth = np.where(_column(true), _inside(x, y, mouths + margin), mouth)

    eyes = np.zeros(mouth.shape, bool)
    for eye in (right_eye, left_eye):
        sideways, downwards = _turned(x, y, eye, right)
        eyes |= (sideways / _EYE_HALF_WIDTH) ** 2 + (downwards / _EYE_HALF_HEIGHT) ** 2 <= _column(scale) ** 2
    return mouth, eyes


def _silhouette(x: np.ndarray, y: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(T, 112, 112) bool: an upright person's outline around a face's box, seen from the front."""
    x1, y1, x2, y2 = boxes.T
    s = np.sqrt(np.maximum(x2 - x1, 1) * np.maximum(y2 - y1, 1))
    middle = (x1 + x2) / 2
    head = np.stack([middle - _HEAD_HALF_WIDTH * s, y1 - _HEAD_ABOVE * s, middle + _HEAD_HALF_WIDTH * s, y2], 1)
    outline = _ellipse(x, y, head)
    # From the middle of the face down: neck, sloping shoulders, arms.
    s, depth, sideways = _column(s), y - _column(y2), np.abs(x - _column(middle))
    slope = np.clip((depth / s - _NECK_LENGTH) / _SHOULDER_DROP, 0, 1)
    half_width = (_NECK_HALF_WIDTH + slope * (_SHOULDER_HALF_WIDTH - _NECK_HALF_WIDTH)) * s
    return outline | ((y >= _column((y1 + y2) / 2)) & (sideways <= half_width))


def _disjoint(
    mouth: np.ndarray, eyes: np.ndarray, face: np.ndarray, body: np.ndarray, in_frame: np.ndarray
) -> dict[str, np.ndarray]:
    """Earlier regions take the pixels that several claim; nothing lies beyond the frame but "outside"."""
    taken = ~in_frame
    result = {}
    for region, claimed in zip(REGIONS[:-1], (mouth, eyes, face, body), strict=True):
        result[region] = claimed & ~taken
        taken = taken | claimed
    result[REGIONS[-1]] = ~taken | ~in_frame
    return result
