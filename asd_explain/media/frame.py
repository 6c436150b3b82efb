"""One decoded picture as arrays: gray, BGR, RGB and 4:2:0 planes, converted when asked for.

Conventions of this module, which the rest of the project relies on:

* Pictures are upright: the rotation that a phone writes into the display matrix is applied.
* ``Frame.luma`` is full-range gray whatever the clip's own range is; ``Frame.planes`` keeps the clip's range and
  matrix.
* Odd sizes: ``luma`` and ``bgr`` have the exact upright size; ``planes`` repeats the last column or row to make both
  sizes even, because 4:2:0 pictures in H.264 must be even. No pixel moves, so box coordinates stay valid.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from asd_explain.media.probing import UNSPECIFIED, ClipInfo, kind_of

_MATRIX_SWS = {
    "bt601": Colorspace.ITU601,
    "bt709": Colorspace.ITU709,
    "fcc": Colorspace.FCC,
    "smpte240m": Colorspace.SMPTE240M,
    "bt2020": Colorspace.BT2020,
}
# Formats whose first three planes are already 8-bit 4:2:0; yuvj420p is the same memory with full range.
_DIRECT_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuva420p"})


@dataclass
class Planes:
    """One upright 8-bit 4:2:0 picture of even size, writable.

    Attributes:
        y: (H, W) uint8 luma.
        u: (H/2, W/2) uint8 Cb.
        v: (H/2, W/2) uint8 Cr.
        full_range: True when luma spans 0..255, False when it spans 16..235 (chroma 16..240).
        matrix: YCbCr matrix, as in :class:`ClipInfo`.
    """

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    full_range: bool
    matrix: str


def expand_luma(luma: np.ndarray) -> np.ndarray:
    """Stretch limited-range luma (H, W) uint8, 16..235, to 0..255; values outside are clipped.

    Equal to the table ``round((y - 16) * 255 / 219)`` for all 256 values; two saturating passes, because they are
    vectorised where a table look-up is not.
    """
    return cv2.convertScaleAbs(cv2.subtract(luma, 16.0), alpha=255.0 / 219.0)


def rotate(plane: np.ndarray, clockwise: int) -> np.ndarray:
    """Turn a picture (H, W, ...) clockwise by 0, 90, 180 or 270 degrees; 0 returns it as it is."""
    if clockwise == 0:
        return plane
    code = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}[clockwise]
    return cv2.rotate(plane, code)


def plane_array(frame: av.VideoFrame, index: int) -> np.ndarray:
    """Plane ``index`` of a decoded 8-bit planar frame as an (h, w) uint8 view without its row padding."""
    plane = frame.planes[index]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]


def _even(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """A writable contiguous copy of ``plane`` at (height, width), the last column and row repeated where needed."""
    if plane.shape == (height, width):
        return plane.copy()
    pad = ((0, max(0, height - plane.shape[0])), (0, max(0, width - plane.shape[1])))
    return np.ascontiguousarray(np.pad(plane, pad, mode="edge")[:height, :width])


class Converter:
    """Swscale contexts of one reader, kept from frame to frame; a context serves one call at a time, hence the lock."""

    def __init__(self, info: ClipInfo) -> None:
        self.info = info
        self.coded_size = (info.width, info.height) if info.rotation % 180 == 0 else (info.height, info.width)
        self._contexts: dict[tuple[int, int, str], VideoReformatter] = {}
        self._lock = threading.Lock()
        rgb_or_gray = kind_of(info.pixel_format) != "yuv"
        native = ColorRange.JPEG if info.full_range else ColorRange.MPEG
        # swscale reads RGB and gray as full range by nature; for YUV the range has to be said.
        self._range = native
        self._src_matrix = Colorspace.DEFAULT if rgb_or_gray else _MATRIX_SWS[info.matrix]

    def to_420(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame as 8-bit 4:2:0 of the clip's size, range and matrix; itself where it is that already."""
        if frame.format.name in _DIRECT_FORMATS and (frame.width, frame.height) == self.coded_size:
            return frame
        kind = kind_of(frame.format.name)
        return self._reformat(
            frame,
            *self.coded_size,
            "gray" if kind == "gray" else "yuv420p",
            src_colorspace=None if kind == "rgb" else self._src_matrix,
            dst_colorspace=_MATRIX_SWS[self.info.matrix],
            src_color_range=ColorRange.JPEG if kind == "rgb" else self._range,
            dst_color_range=self._range,
        )

    def for_decord(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright, in the matrix that decord takes: BT.601 where the clip names none."""
        matrix = Colorspace.ITU601 if self.info.colorspace == UNSPECIFIED else None
        return rotate(self.to_packed(frame, *self.coded_size, "rgb24", matrix), self.info.rotation)

    def to_packed(
        self, frame: av.VideoFrame, width: int, height: int, name: str, src_matrix: int | None = None
    ) -> np.ndarray:
        """(height, width, 3) uint8 in the order of ``name`` ("bgr24" or "rgb24"), not yet rotated."""
        kind = kind_of(frame.format.name)
        matrix = self._src_matrix if src_matrix is None else src_matrix
        small = self._reformat(
            frame,
            width,
            height,
            name,
            src_colorspace=None if kind == "rgb" else matrix,
            src_color_range=ColorRange.JPEG if kind == "rgb" else self._range,
            dst_color_range=ColorRange.JPEG,
        )
        plane = small.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : 3 * width]
        return rows.reshape(height, width, 3) if plane.line_size == 3 * width else rows.copy().reshape(height, width, 3)

    def _reformat(self, frame: av.VideoFrame, width: int, height: int, name: str, **colour: object) -> av.VideoFrame:
        with self._lock:
            context = self._contexts.setdefault((width, height, name), VideoReformatter())
            return context.reformat(
                frame, width, height, name, interpolation=Interpolation.BILINEAR, threads=1, **colour
            )


class Frame:
    """One decoded picture. Pixels are converted when asked for; nothing is copied before.

    Attributes:
        index: number of the frame in the order in which its reader delivered it, from 0.
        time_s: presentation time in seconds, container clock.
        width: px, upright.
        height: px, upright.
    """

    __slots__ = ("_base", "_convert", "_frame", "_luma", "height", "index", "time_s", "width")

    def __init__(self, frame: av.VideoFrame, index: int, time_s: float, convert: Converter) -> None:
        self._frame = frame
        self._convert = convert
        self._base: av.VideoFrame | None = None
        self._luma: np.ndarray | None = None
        self.index = index
        self.time_s = time_s
        self.width = convert.info.width
        self.height = convert.info.height

    def __repr__(self) -> str:
        return f"Frame(index={self.index}, time_s={self.time_s:.6f}, {self.width}x{self.height})"

    @property
    def decoded(self) -> av.VideoFrame:
        """The decoder's own frame, neither rotated nor converted."""
        return self._frame

    def luma(self) -> np.ndarray:
        """(H, W) uint8 gray, upright, full range (0 black, 255 white). Kept; do not write into it."""
        if self._luma is None:
            info = self._convert.info
            luma = plane_array(self._420(), 0)
            luma = rotate(luma if info.full_range else expand_luma(luma), info.rotation)
            luma.flags.writeable = False
            self._luma = luma
        return self._luma

    def bgr(self, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 BGR, upright, the whole picture scaled to that size by swscale."""
        return self._packed(width, height, "bgr24")

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright, at the source's size."""
        return self._packed(self.width, self.height, "rgb24")

    def planes(self) -> Planes:
        """A writable upright 4:2:0 copy at even size (last column or row repeated), in the clip's range and matrix."""
        info = self._convert.info
        width, height = self.width + self.width % 2, self.height + self.height % 2
        base = self._420()
        y = _even(rotate(plane_array(base, 0), info.rotation), width, height)
        if base.format.name == "gray":
            u = np.full((height // 2, width // 2), 128, np.uint8)
            return Planes(y, u, u.copy(), info.full_range, info.matrix)
        u, v = (_even(rotate(plane_array(base, index), info.rotation), width // 2, height // 2) for index in (1, 2))
        return Planes(y, u, v, info.full_range, info.matrix)

    def _420(self) -> av.VideoFrame:
        if self._base is None:
            self._base = self._convert.to_420(self._frame)
        return self._base

    def _packed(self, width: int, height: int, name: str) -> np.ndarray:
        rotation = self._convert.info.rotation
        size = (width, height) if rotation % 180 == 0 else (height, width)
        return rotate(self._convert.to_packed(self._frame, *size, name), rotation)
