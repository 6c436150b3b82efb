"""A photograph that talks: mouth, jaw, eyelids and head of a portrait, moved by smooth warps of the picture.

Every warp is an inverse map (output pixel -> photo pixel), so one frame costs one ``cv2.remap`` of the panel. The head
turns and shifts rigidly with a soft border; inside it the lower face is split along the lips into an upper and a lower
layer. The lower layer follows the jaw down, the gap between them shows the photo's own teeth where it has any, drawn
ones where not, and the dark of the mouth. Coordinates ("px") are photo pixels with pixel centres at integers unless a
name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from asd_explain.datasets.face_geometry import Eye
from asd_explain.datasets.portraits import Look, geometry_of, load_photo, person_mask
from asd_explain.datasets.talking_hands import Hand, HandPainter


@dataclass(frozen=True)
class Pose:
    """One moment of a face.

    Attributes:
        opening: 0 (shut) to 1 (as wide as loud speech gets).
        rounding: -1 (lips spread) to 1 (lips rounded).
        blink: 0 (eyes open) to 1 (shut).
        turn, nod: the face's middle shifted against its outline, in face widths to the right and face heights down.
        roll: head tilted clockwise about the neck, radians.
        shift: head moved, in face heights, (right, down).
        sway: the whole picture moved, in face heights, (right, down).
        zoom: head larger (> 1) or smaller.
        lean: the shoulders moved with the head, in face heights, (right, down); less towards the photo's lower edge.
        lean_in: upper body and head larger (> 1) or smaller.
        shrug: the left and the right shoulder lifted, in face heights.
        hands: hands in front of the body.
    """

    opening: float = 0.0
    rounding: float = 0.0
    blink: float = 0.0
    turn: float = 0.0
    nod: float = 0.0
    roll: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    sway: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    lean: tuple[float, float] = (0.0, 0.0)
    lean_in: float = 1.0
    shrug: tuple[float, float] = (0.0, 0.0)
    hands: tuple[Hand, ...] = ()

    @property
    def torso_moves(self) -> bool:
        """Whether anything below the head is not at rest."""
        return self.lean_in != 1.0 or any(self.lean) or any(self.shrug)


# All relative to the width of the mouth (corner to corner).
_GAP = 0.34  # widest gap between the lips
_JAW = 0.60  # part of the gap by which the jaw goes down
_RAISE = 0.10  # part of the gap by which the upper lip goes up
_TEETH = 0.06  # height of the visible upper teeth
_INSIDE = np.array((46, 16, 16), np.float32)  # RGB, 0..255
_TONGUE = np.array((118, 58, 56), np.float32)
_TOOTH = np.array((228, 196, 162), np.float32)


def _smooth(t: np.ndarray) -> np.ndarray:
    """Smoothstep of t clipped to [0, 1]: 0 at 0, 1 at 1, flat at both ends."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


class TalkingFace:
    """A photograph fitted into a panel of the picture, to be drawn in any :class:`Pose`.

    Args:
        look: which photograph.
        width, height: size of the panel in output pixels.
        zoom: close-up factor on top of ``look.face_fraction``.
        torso: poses may move the torso and show hands (takes a little longer).

    Raises:
        OptionError: no such photograph.
    """

    def __init__(self, look: Look, width: int, height: int, zoom: float = 1.0, torso: bool = True) -> None:
        self.geometry = g = geometry_of(look)
        self._reach = 0.34 if torso else 0.14  # the head's largest motion, face heights
        self.width, self.height = width, height
        face_h = g.face[3] - g.face[1]
        # Photo pixels per panel pixel. The window stays inside the photograph with a margin for the sway, and the
        # face inside the window.
        margin = 0.06 * face_h
        wanted = face_h / (look.face_fraction * zoom * height)
        largest = min((g.size[0] - 2 * margin) * look.stretch / width, (g.size[1] - 2 * margin) / height)
        self.step_y = min(wanted, largest)
        self.step_x = self.step_y / look.stretch
        centre_x = (g.face[0] + g.face[2]) / 2 - look.place * self.step_x * width
        centre_y = g.face[1] + 0.5 * face_h + 0.06 * self.step_y * height
        half_w, half_h = self.step_x * width / 2, self.step_y * height / 2
        self._left = float(np.clip(centre_x, half_w + margin, g.size[0] - margin - half_w)) - half_w
        self._top = float(np.clip(centre_y, half_h + margin, g.size[1] - margin - half_h)) - half_h

        # A panel that shows the photograph smaller gets it smaller first: cv2.remap does not average.
        photo = load_photo(look)
        self._reduce = min(1.0, 1.3 / self.step_y)
        if self._reduce < 0.95:
            size = (round(g.size[0] * self._reduce), round(g.size[1] * self._reduce))
            photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        else:
            self._reduce = 1.0
        self._source = photo
        self._torso = person_mask(g, soft=0.10, grow=0.22) if torso else None
        self._painter = HandPainter(g, load_photo(look)) if torso else None

        x = (self._left + (np.arange(width, dtype=np.float32) + 0.5) * self.step_x - 0.5).astype(np.float32)
        y = (self._top + (np.arange(height, dtype=np.float32) + 0.5) * self.step_y - 0.5).astype(np.float32)
        self._x, self._y = np.meshgrid(x, y)
        self._head, self._bulge = self._weights(self._x, self._y)
        self._body = self._body_weights(self._x, self._y) if torso else None
        self._mouth_rows, self._mouth_cols = self._roi(
            *(self._mouth_x - g.jaw_half_width, g.nose_y - 0.05 * face_h),
            *(self._mouth_x + g.jaw_half_width, g.chin_y + 0.55 * face_h),
        )
        self._eye_rois = [
            self._roi(e.x - 1.6 * e.half_width, e.y - 4 * e.up, e.x + 1.6 * e.half_width, e.y + 4 * e.down)
            for e in g.eyes
        ]

    @property
    def _mouth_x(self) -> float:
        return (self.geometry.lip_x[0] + self.geometry.lip_x[-1]) / 2

    @property
    def _mouth_width(self) -> float:
        return self.geometry.lip_x[-1] - self.geometry.lip_x[0]

    def _roi(self, x1: float, y1: float, x2: float, y2: float) -> tuple[slice, slice]:
        """Panel rows and columns that can show photo box xyxy in any pose (grown by the head's largest motion)."""
        grow = self._reach * (self.geometry.face[3] - self.geometry.face[1])
        rows = np.clip([(y1 - grow - self._top) / self.step_y, (y2 + grow - self._top) / self.step_y], 0, self.height)
        cols = np.clip([(x1 - grow - self._left) / self.step_x, (x2 + grow - self._left) / self.step_x], 0, self.width)
        return slice(int(rows[0]), int(np.ceil(rows[1]))), slice(int(cols[0]), int(np.ceil(cols[1])))

    def _weights(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far a point goes with the head (0..1), and how far it bulges out of it (0 at the face's outline, 1)."""
        g = self.geometry
        cx, cy, half_w, up, down = g.head
        dy = y - cy
        r = np.hypot((x - cx) / half_w, dy / np.where(dy < 0, up, down))
        fx, fy = (g.face[0] + g.face[2]) / 2, (g.face[1] + g.face[3]) / 2
        q = ((x - fx) / (0.62 * (g.face[2] - g.face[0]))) ** 2 + ((y - fy) / (0.68 * (g.face[3] - g.face[1]))) ** 2
        return (1 - _smooth((r - 1) / 0.5)).astype(np.float32), (np.clip(1 - q, 0, 1) ** 1.5).astype(np.float32)

    def _body_weights(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far a point goes with the shoulders, and how far it is lifted with the left and the right one (0..1)."""
        g = self.geometry
        shape, height = x.shape, np.float32(g.face_height)
        points = (np.ascontiguousarray(v, np.float32).reshape(len(v), -1) for v in (x, y))
        person = cv2.remap(self._torso, *points, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(shape)
        rise = _smooth((np.float32(g.size[1]) - y) / np.float32(max(g.size[1] - g.pivot[1], 1)))
        below = person * (1 - self._weights(x, y)[0])  # shoulders do not lift the head
        lifts = []
        for side in (-1, 1):
            dx = (x - np.float32(g.pivot[0] + side * 0.75 * g.face_height)) / (np.float32(0.55) * height)
            dy = (y - np.float32(g.pivot[1] + 0.25 * g.face_height)) / (np.float32(0.7) * height)
            lifts.append((below * np.exp(-dx * dx - dy * dy)).astype(np.float32))
        return (person * rise).astype(np.float32), lifts[0], lifts[1]

    def _torso_to_rest(self, x, y, body, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Points shown -> the same points with shoulders at rest (inverse motion)."""
        g = self.geometry
        go, left, right = body
        grow = np.float32(1 - 1 / pose.lean_in)
        dx = go * (np.float32(pose.lean[0] * g.face_height) + grow * (x - np.float32(g.pivot[0])))
        dy = go * (np.float32(pose.lean[1] * g.face_height) + grow * (y - np.float32(g.size[1])))
        dy -= np.float32(g.face_height) * (np.float32(pose.shrug[0]) * left + np.float32(pose.shrug[1]) * right)
        return x - dx, y - dy

    def _to_rest(self, x, y, head, bulge, body, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Photo points x, y shown by a panel in ``pose`` -> the same points of the unmoved head (inverse motion)."""
        g = self.geometry
        face_w, face_h = g.face[2] - g.face[0], g.face[3] - g.face[1]
        x = x - np.float32(pose.sway[0] * face_h)
        y = y - np.float32(pose.sway[1] * face_h)
        if body is not None and pose.torso_moves:
            x, y = self._torso_to_rest(x, y, body, pose)
        px, py = g.pivot
        c, s = np.cos(pose.roll) / pose.zoom, np.sin(pose.roll) / pose.zoom
        ax, ay = x - np.float32(px + pose.shift[0] * face_h), y - np.float32(py + pose.shift[1] * face_h)
        rx, ry = (
            np.float32(c) * ax + np.float32(s) * ay + np.float32(px),
            np.float32(c) * ay - np.float32(s) * ax + np.float32(py),
        )
        x = x + head * (rx - x) - bulge * np.float32(pose.turn * face_w)
        y = y + head * (ry - y) - bulge * np.float32(pose.nod * face_h)
        return x, y

    def _mouth(self, x: np.ndarray, y: np.ndarray, pose: Pose):
        """Resting-head points x, y of the lower face -> source map and the state of the mouth's inside.

        Returns source x and y, depth below the upper lip or the photo's teeth, height above the lower lip, gap (all
        px) and the position across the mouth (-1..1 at the corners).
        """
        g = self.geometry
        centre, width = np.float32(self._mouth_x), np.float32(self._mouth_width)
        half = width / 2
        line = np.float32(np.mean(g.upper_lip))
        across = (x - centre) / half
        near = np.exp(-((across / 1.7) ** 2) - ((y - line) / (0.55 * width)) ** 2)
        x = centre + (x - centre) * (1 + np.float32(0.15 * pose.rounding) * near)
        across = (x - centre) / half
        arch = np.clip(1 - across * across, 0, None) ** np.float32(0.75)
        upper = np.interp(x, g.lip_x, g.upper_lip).astype(np.float32)
        lower = np.interp(x, g.lip_x, g.lower_lip).astype(np.float32)
        own_gap = lower - upper
        wide = np.float32(_GAP * pose.opening) * width
        jaw = np.float32(_JAW) * wide * np.cos(np.pi / 2 * np.clip(np.abs(x - centre) / g.jaw_half_width, 0, 1)) ** 2
        beyond = np.exp(-((np.clip(np.abs(across) - 1, 0, None) / 0.5) ** 2))
        corner = np.float32(0.22 * _JAW) * wide * beyond * (1 - arch)
        gap = np.float32(g.rest) * own_gap + wide * arch
        lift = corner - np.float32(_RAISE) * wide * arch  # of the upper lip's edge, downwards positive
        drop = lift + gap - own_gap  # of the lower lip's edge
        top, bottom = upper + lift, upper + lift + gap
        chin = np.float32(g.chin_y) + jaw
        below = np.where(
            y < chin,
            drop + (jaw - drop) * _smooth((y - bottom) / np.maximum(chin - bottom, 1)),
            jaw * (1 - _smooth((y - chin) / (0.42 * (g.face[3] - g.face[1])))),
        )
        above = lift * (1 - _smooth((top - y) / np.maximum(top - g.nose_y, 1)))
        teeth = lower + lift  # down to here the upper layer shows the photo's own teeth
        split = (np.minimum(teeth, bottom) + bottom) / 2
        return x, y - np.where(y >= split, below, above), y - teeth, bottom - y, gap, across

    def render(self, pose: Pose) -> np.ndarray:
        """The panel in a pose: (height, width, 3) uint8 RGB."""
        x, y = self._to_rest(self._x, self._y, self._head, self._bulge, self._body, pose)
        rows, cols = self._mouth_rows, self._mouth_cols
        rest_x, rest_y = x[rows, cols], y[rows, cols]
        x, y = x.copy(), y.copy()
        inside = None
        if rest_x.size:
            lips = self._mouth(rest_x, rest_y, pose)
            x[rows, cols], y[rows, cols] = lips[0], lips[1]
            inside = lips[2:]
        panel = self._sample(x, y)
        if inside is not None:
            self._draw_inside(panel[rows, cols], *inside)
        if pose.blink > 0.02:
            for eye, roi in zip(self.geometry.eyes, self._eye_rois, strict=True):
                self._draw_lid(panel[roi], x[roi], y[roi], eye, pose.blink)
        if self._painter is not None:
            for hand in pose.hands:
                self._painter.paint(panel, hand, pose, self._left, self._top, self.step_x, self.step_y)
        return panel

    def _sample(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if self._reduce != 1.0:
            scale, offset = np.float32(self._reduce), np.float32(0.5 * self._reduce - 0.5)
            x, y = x * scale + offset, y * scale + offset
        return cv2.remap(self._source, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)

    def _draw_inside(self, patch: np.ndarray, depth, height, gap, across) -> None:
        """Blend the dark of the mouth, its teeth and tongue into a patch of the panel, in place."""
        soft = np.float32(max(0.9, 0.9 * self.step_y))
        alpha = np.clip(depth / soft + 0.5, 0, 1) * np.clip(height / soft + 0.5, 0, 1) * np.clip(gap / (2 * soft), 0, 1)
        alpha *= np.clip((1 - np.abs(across)) * 8, 0, 1)
        rows, cols = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
        if not len(rows):
            return
        box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
        patch, alpha, depth, height, across = patch[box], alpha[box], depth[box], height[box], across[box]
        width = np.float32(self._mouth_width)
        open_part = np.maximum(depth + height, 1e-3)
        tongue = _smooth((depth / open_part - 0.45) / 0.5) * _smooth(open_part / (0.22 * width) - 0.35)
        tongue *= np.clip(1 - across * across, 0, 1)
        colour = _INSIDE + (tongue * np.float32(0.75))[..., None] * (_TONGUE - _INSIDE)
        if self.geometry.teeth:
            tall = np.minimum(np.float32(_TEETH) * width * np.clip(1 - across**4, 0, 1), 0.5 * open_part)
            tooth = np.clip((tall - depth) / soft + 0.5, 0, 1) * np.clip(open_part / (0.05 * width) - 0.4, 0, 1)
            shade = (0.5 + 0.5 * np.clip(1 - across * across, 0, 1)) * (0.75 + 0.25 * _smooth(depth / (0.05 * width)))
            shade *= 0.96 + 0.04 * np.cos(across * 26)
            colour += (tooth * np.float32(0.8) * np.clip(1.3 - 1.3 * across * across, 0, 1))[..., None] * (
                _TOOTH * shade[..., None] - colour
            )
        patch[...] = np.clip(patch + alpha[..., None] * (colour - patch) + 0.5, 0, 255).astype(np.uint8)

    def _draw_lid(self, patch: np.ndarray, x: np.ndarray, y: np.ndarray, eye: Eye, blink: float) -> None:
        """Pull an eyelid over an eye in a patch of the panel, in place; its skin is that below the eye, mirrored."""
        if not patch.size:
            return
        across = (x - eye.x) / eye.half_width
        arch = np.clip(1 - across * across, 0, None)
        upper, lower = eye.y - eye.up * arch, eye.y + eye.down * arch
        edge = upper + np.float32(blink) * (lower - upper)
        soft = np.float32(max(0.8, 0.8 * self.step_y))
        cover = np.clip((y - upper) / (3 * soft) + 0.3, 0, 1) * np.clip((edge - y) / soft + 0.5, 0, 1)
        cover *= np.clip((1.0 - np.abs(across)) * 4, 0, 1)
        skin = self._sample(x, eye.y + eye.down + np.float32(0.8) * (eye.y + eye.down - y) + np.float32(1.5)).astype(
            np.float32
        )
        lash = np.exp(-(((y - edge) / (1.3 * soft)) ** 2)) * cover
        skin *= (1 - 0.55 * lash)[..., None]
        patch[...] = np.clip(patch + cover[..., None] * (skin - patch) + 0.5, 0, 255).astype(np.uint8)

    def _to_panel(self, points: np.ndarray, pose: Pose) -> np.ndarray:
        """Points (n, 2) of the resting head, photo px -> (n, 2) panel coordinates (edges at integers), in a pose."""
        points = np.asarray(points, np.float32)
        shown = points.copy()
        for _ in range(8):  # the motion is small and smooth: this contracts by a factor of 10 a step
            head, bulge = self._weights(shown[:, 0], shown[:, 1])
            moves = self._torso is not None and pose.torso_moves
            body = self._body_weights(shown[:, 0], shown[:, 1]) if moves else None
            x, y = self._to_rest(shown[:, 0], shown[:, 1], head, bulge, body, pose)
            shown += points - np.stack([x, y], axis=1)
        return np.stack(
            [(shown[:, 0] + 0.5 - self._left) / self.step_x, (shown[:, 1] + 0.5 - self._top) / self.step_y], axis=1
        )

    def _box(self, box: tuple[float, float, float, float], pose: Pose) -> np.ndarray:
        x1, y1, x2, y2 = box
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        sides = self._to_panel(np.array([(x1, cy), (cx, y1), (x2, cy), (cx, y2)]), pose)
        return np.array([sides[0, 0], sides[1, 1], sides[2, 0], sides[3, 1]], np.float32)

    def face_box(self, pose: Pose) -> np.ndarray:
        """(4,) float32 xyxy of the face in panel pixels (edges at integers), not clipped to the panel."""
        return self._box(self.geometry.face, pose)

    def body_box(self, pose: Pose) -> np.ndarray:
        """(4,) float32 xyxy of the person in panel pixels, not clipped to the panel."""
        return self._box(self.geometry.body, pose)

    def mouth_box(self, pose: Pose) -> np.ndarray:
        """(4,) float32 xyxy of the lips, the opening included, in panel pixels, not clipped to the panel."""
        g = self.geometry
        wide = _GAP * pose.opening * self._mouth_width
        middle = len(g.lip_x) // 2
        gap = (g.rest - 1) * (g.lower_lip[middle] - g.upper_lip[middle]) + wide
        half = self._mouth_width / 2 / (1 + 0.15 * pose.rounding * np.exp(-((1 / 1.7) ** 2)))
        top = g.lips[0] - _RAISE * wide
        bottom = g.lips[1] + gap - _RAISE * wide
        return self._box((self._mouth_x - half, top, self._mouth_x + half, bottom), pose)

    def landmarks(self, pose: Pose) -> np.ndarray:
        """(5, 2) panel pixels: right and left eye of the person, base of the nose, right and left corner of the resting
        mouth, in the detectors' order."""
        g = self.geometry
        eyes = sorted((eye.x, eye.y) for eye in g.eyes)  # the person's right eye is on the picture's left
        nose = ((g.lip_x[0] + g.lip_x[-1]) / 2, g.nose_y)
        corners = sorted(((g.lip_x[0], g.upper_lip[0]), (g.lip_x[-1], g.upper_lip[-1])))
        return self._to_panel(np.array([*eyes, nose, *corners]), pose)
