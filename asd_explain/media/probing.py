"""What a clip is: size, rotation, rate, length, colour and tracks, read from its header and its first frame."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import ColorRange

from asd_explain.errors import ClipError
from asd_explain.media.container import audio_stream, decode_packets, open_container, ticks_to_s, video_stream
from asd_explain.media.joints import joints_of

log = logging.getLogger(__name__)

# AVCOL_SPC_* numbers (ITU-T H.273) -> our names; everything else is unspecified.
_MATRIX_NAMES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_GRAY_PREFIXES = ("gray", "ya8", "ya16", "mono")
#: ITU-T H.273: a colour property that a stream does not state.
UNSPECIFIED = 2


@dataclass(frozen=True)
class ClipInfo:
    """What is known about a clip after its first frame has been decoded.

    Attributes:
        path: the file.
        width: px, upright (after the rotation metadata).
        height: px, upright.
        fps: exact average frame rate, frames a second.
        duration_s: length of the video in seconds, None where the container does not say.
        start_s: presentation time of the first video frame in seconds, container clock.
        rotation: clockwise degrees that were applied to make the picture upright: 0, 90, 180 or 270.
        has_audio: whether there is an audio track.
        full_range: True when luma spans 0..255, False when it spans 16..235.
        matrix: YCbCr matrix: "bt601", "bt709", "bt2020", "fcc" or "smpte240m". Where the clip does not say: bt709 from
            720 lines on, else bt601, as players assume.
        sample_aspect_ratio: width / height of a pixel of the upright picture, 1 where unknown.
        codec: FFmpeg's name of the video codec.
        audio_codec: FFmpeg's name of the audio codec, or None.
        time_base: seconds of one tick of the video stream's clock.
        clock_start_s: earliest start of the video and the audio track in seconds, container clock.
        pixel_format: FFmpeg's name of the decoder's pixel format.
        color_primaries, color_trc, colorspace: the tags as ITU-T H.273 numbers, 2 = unspecified.
        range_tagged: whether the clip itself states its range.
        truncated_at_s: where the pictures break off although the file's index promises more (MP4 and MOV), in seconds
            from the first frame; None for a file that is whole, or has no index.
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    duration_s: float | None
    start_s: float
    rotation: int
    has_audio: bool
    full_range: bool
    matrix: str
    sample_aspect_ratio: Fraction
    codec: str
    audio_codec: str | None
    time_base: Fraction = Fraction(1, 90000)
    clock_start_s: float = 0.0
    pixel_format: str = "yuv420p"
    color_primaries: int = UNSPECIFIED
    color_trc: int = UNSPECIFIED
    colorspace: int = UNSPECIFIED
    range_tagged: bool = False
    truncated_at_s: float | None = None


def probe(path: str | Path) -> ClipInfo:
    """Read a clip's properties; decodes its first frame.

    Raises:
        ClipError: missing file, directory, not a media file, audio-only file, no frame that can be decoded.
    """
    path = Path(path)
    with open_container(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = 1
        first = next(decode_packets(container, stream, path), None)
        if first is None:
            raise ClipError(f"{path}: its video track holds no frame that can be decoded")
        return _describe(path, container, stream, first)


def _describe(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame
) -> ClipInfo:
    """Collect :class:`ClipInfo` from an open container and its first decoded frame."""
    context = stream.codec_context
    audio = audio_stream(container)
    rotation = _upright_rotation(first, path)
    width, height = first.width, first.height
    sar = stream.sample_aspect_ratio or context.sample_aspect_ratio or Fraction(1)
    if rotation % 180:
        width, height = height, width
        sar = 1 / sar if sar > 0 else Fraction(1)
    pixel_format = first.format.name
    kind = kind_of(pixel_format)
    colorspace = int(first.colorspace) if kind == "yuv" else UNSPECIFIED
    matrix = _MATRIX_NAMES.get(colorspace)
    if matrix is None:
        colorspace = UNSPECIFIED
        matrix = "bt709" if min(width, height) >= 720 or max(width, height) >= 1280 else "bt601"
    if kind == "rgb":
        # Converted by us, so the output can say how.
        colorspace = 1 if matrix == "bt709" else 6
    full_range = kind != "rgb" and (
        pixel_format.startswith("yuvj")
        or first.color_range == ColorRange.JPEG
        or (kind == "gray" and first.color_range != ColorRange.MPEG)
    )
    time_base = stream.time_base or Fraction(1, 90000)
    start_s = ticks_to_s(first.pts, time_base) if first.pts is not None else 0.0
    clock_start_s = start_s
    if audio is not None and audio.start_time is not None:
        clock_start_s = min(clock_start_s, ticks_to_s(audio.start_time, audio.time_base))
    duration_s = None
    if (joints := joints_of(path, container)) is not None:
        duration_s = joints.length_s(stream)
    elif stream.duration is not None and stream.duration > 0:
        duration_s = ticks_to_s(stream.duration, time_base)
    elif container.duration is not None and container.duration > 0:
        duration_s = container.duration / av.time_base
    return ClipInfo(
        path=path,
        width=width,
        height=height,
        fps=_frame_rate(stream),
        duration_s=duration_s,
        start_s=start_s,
        rotation=rotation,
        has_audio=audio is not None,
        full_range=full_range,
        matrix=matrix,
        sample_aspect_ratio=Fraction(sar) if sar > 0 else Fraction(1),
        codec=context.name,
        audio_codec=audio.codec_context.name if audio is not None else None,
        time_base=time_base,
        clock_start_s=clock_start_s,
        pixel_format=pixel_format,
        color_primaries=int(first.color_primaries),
        color_trc=int(first.color_trc),
        colorspace=colorspace,
        range_tagged=full_range or kind == "rgb" or first.color_range == ColorRange.MPEG,
        truncated_at_s=_truncated_at(path, container, stream),
    )


def kind_of(pixel_format: str) -> str:
    """How a pixel format carries brightness: "yuv", "rgb" or "gray"."""
    if pixel_format.startswith(_GRAY_PREFIXES):
        return "gray"
    described = av.VideoFormat(pixel_format)
    return "rgb" if described.is_rgb or described.has_palette else "yuv"


def _truncated_at(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Seconds from the start at which the index points beyond the file's end; None when it does not, or there is none.

    Only MP4 and MOV are looked at: their index is written with the file, others are found by scanning what is there.
    """
    entries = stream.index_entries
    if "mp4" not in container.format.name or not len(entries):
        return None
    size = path.stat().st_size
    if entries[-1].pos + entries[-1].size <= size:
        return None
    first = entries[0].timestamp
    lost = next(entry for entry in entries if entry.pos + entry.size > size)
    return ticks_to_s(lost.timestamp - first, stream.time_base)


def _frame_rate(stream: av.VideoStream) -> Fraction:
    """Exact average rate; where the container gives nonsense, FFmpeg's guess, and 25 as the last resort."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and Fraction(1, 100) <= rate <= 1000:
            return Fraction(rate)
    return Fraction(25)


def _upright_rotation(frame: av.VideoFrame, path: Path) -> int:
    """Clockwise degrees that make the frame upright, from its display matrix (FFmpeg counts counter-clockwise)."""
    clockwise = -frame.rotation % 360
    if clockwise % 90:
        log.warning("%s: rotated by %d degrees; only quarter turns are undone", path, clockwise)
        clockwise = round(clockwise / 90) * 90 % 360
    return clockwise
