"""Figures of single moments for a paper: the annotated frame, the timeline, what the colours mean, a caption.

Drawn by matplotlib, so that text and lines in a PDF are vectors. The canvas is used without pyplot: no window, no
global state.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from asd_explain.errors import OptionError
from asd_explain.render.colours import (
    INK,
    STREAM_GREYS,
    Rgb,
    assign_colours,
    heat_lut,
    heat_opacity,
    text_colour,
    track_colour,
)
from asd_explain.render.heat import heat_index, heat_region
from asd_explain.render.overlay import box_rect, face_holes, whole_shares
from asd_explain.render.placement import LabelPlacer, LabelRequest, Rect
from asd_explain.render.scene import FaceView, Scene
from asd_explain.render.style import clock, heat_name, heat_words, percent, smoothing_words
from asd_explain.render.text import Typeface

SUFFIXES = (".png", ".pdf")
DPI = 300
_WIDTH_IN = 7.2  # a journal's two columns
_TALLEST_IN = 6.6
_LABEL_PT, _SMALL_PT = 7.5, 6.5
_UNITS = 400  # label geometry is laid out in whole units of 1/400 inch
_FONT = "DejaVu Sans"


def still(frame_rgb: np.ndarray, time_s: float, faces: Sequence[FaceView], scene: Scene, clip: str = "") -> Image.Image:
    """Draw the figure of one moment.

    Args:
        frame_rgb: (H, W, 3) uint8, the source frame, upright.
        time_s: its time in seconds, on the scene's clock.
        faces: the faces in it.
        scene: the clip.
        clip: name of the clip for the caption.

    Returns:
        The figure at 300 dots an inch, RGB.
    """
    figure = still_figure(frame_rgb, time_s, faces, scene, clip)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def save_still(
    path: Path, frame_rgb: np.ndarray, time_s: float, faces: Sequence[FaceView], scene: Scene, clip: str = ""
) -> None:
    """Write the figure of one moment as PNG or PDF, by the path's suffix; a PDF keeps text and lines as vectors.

    Args:
        path: where to; overwritten.
        frame_rgb, time_s, faces, scene, clip: as for `still`.

    Raises:
        OptionError: for another suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise OptionError(f"cannot write a figure as {path.name}: the suffix must be .png or .pdf")
    if suffix == ".png":
        still(frame_rgb, time_s, faces, scene, clip).save(path, dpi=(DPI, DPI))
        return
    figure = still_figure(frame_rgb, time_s, faces, scene, clip)
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType: editable text, accepted by journals
        figure.savefig(path, format="pdf", metadata={"CreationDate": None})


def still_figure(
    frame_rgb: np.ndarray, time_s: float, faces: Sequence[FaceView], scene: Scene, clip: str = ""
) -> Figure:
    """The figure itself, for those who want to change it; arguments as for `still`."""
    height, width = frame_rgb.shape[:2]
    colours = assign_colours(scene.tracks)
    image_in = min(_WIDTH_IN, _TALLEST_IN * width / height)
    image_height_in = image_in * height / width
    figure_in = max(image_in, 4.6)
    caption = _wrapped(_caption(time_s, faces, scene, clip), figure_in)
    parts = {"image": image_height_in, "timeline": 0.85, "scale": 0.34, "caption": 0.15 * (caption.count("\n") + 1)}
    gap = 0.10
    figure_height = sum(parts.values()) + gap * (len(parts) + 1) + 0.12
    figure = Figure(figsize=(figure_in, figure_height), dpi=DPI, facecolor="white")
    top = figure_height
    boxes = {}
    for name, part in parts.items():
        top -= part + (0 if name == "image" else gap)
        boxes[name] = (top / figure_height, part / figure_height)
        top -= 0.12 if name == "timeline" else 0  # room for its tick labels
    bottom, part = boxes["image"]
    axes = figure.add_axes(((figure_in - image_in) / 2 / figure_in, bottom, image_in / figure_in, part))
    _draw_picture(axes, frame_rgb, faces, colours, image_in)
    bottom, part = boxes["timeline"]
    _draw_timeline(figure, (0.42 / figure_in, bottom, 1 - 0.52 / figure_in, part), time_s, scene, colours)
    bottom, part = boxes["scale"]
    streams = [stream for stream in STREAM_GREYS if any(stream in (face.shares or {}) for face in faces)]
    _draw_scale(figure, (0.0, bottom, 1.0, part), scene, figure_in, streams)
    bottom, part = boxes["caption"]
    figure.text(0.06 / figure_in, bottom + part, caption, fontsize=_SMALL_PT, family=_FONT, va="top", linespacing=1.35)
    return figure


def _draw_picture(
    axes: Axes, frame_rgb: np.ndarray, faces: Sequence[FaceView], colours: dict[int, Rgb], image_in: float
) -> None:
    height, width = frame_rgb.shape[:2]
    axes.imshow(frame_rgb, extent=(0, width, height, 0), interpolation="lanczos")
    _draw_heat(axes, faces, width, height)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    for face in faces:
        for box, weight in ((face.body, 0.6), (face.box, 1.0)):
            if box is None or not np.isfinite(box).all():
                continue
            for rgb, extra in ((INK, 1.0), (track_colour(colours, face.track_id), 0.0)):
                outline = Rectangle(
                    (float(box[0]), float(box[1])),
                    float(box[2] - box[0]),
                    float(box[3] - box[1]),
                    fill=False,
                    edgecolor=_unit(rgb),
                    linewidth=(1.8 if face.speaking else 0.9) * weight + extra,
                    linestyle="-" if face.speaking else (0, (4, 2.5)),
                    alpha=(0.5 if extra else 1.0) * (0.6 if face.interpolated else 1.0),
                    joinstyle="miter",
                )
                axes.add_patch(outline)
    _draw_labels(axes, faces, colours, width, height, image_in)


def _draw_heat(axes: Axes, faces: Sequence[FaceView], width: int, height: int) -> None:
    """Heat as RGBA pictures, sampled so finely that no pixel shows in print."""
    fine = max(int(np.ceil(1600 / max(width, height))), 1)
    lut, opacity = heat_lut().astype(np.float32) / 255, heat_opacity()
    for stream in ("body", "face"):
        for face in faces:
            box = face.box if stream == "face" else face.body
            heat, window = face.heat.get(stream), face.windows.get(stream)
            if heat is None or window is None or box is None or face.p != face.p:
                continue
            window = np.asarray(window, float) * fine
            region = heat_region(window, np.asarray(box, float) * fine, width * fine, height * fine)
            index = None if region is None else heat_index(heat, window, region)
            if index is None:
                continue
            alpha = opacity[index] * min(max(face.p, 0.0), 1.0)
            for hole in face_holes(faces) if stream == "body" else ():
                rows = slice(max(hole.y0 * fine - region.y0, 0), max(hole.y1 * fine - region.y0, 0))
                alpha[rows, max(hole.x0 * fine - region.x0, 0) : max(hole.x1 * fine - region.x0, 0)] = 0
            extent = tuple(value / fine for value in (region.x0, region.x1, region.y1, region.y0))
            axes.imshow(np.dstack([lut[index], alpha]), extent=extent, interpolation="nearest")


def _draw_labels(
    axes: Axes, faces: Sequence[FaceView], colours: dict[int, Rgb], width: int, height: int, image_in: float
) -> None:
    """Labels placed as in the video, in units of 1/400 inch, then drawn in pixels of the frame."""
    scale = image_in * _UNITS / width  # units a pixel
    bold = Typeface(round(_LABEL_PT / 72 * _UNITS), bold=True)
    pad, row, bar = 10, 2 * (bold.height // 2) + 8, 36
    placer = LabelPlacer(Rect(0, 0, int(width * scale), int(height * scale)), gap=12)
    shown = sorted((f for f in faces if np.isfinite(f.box).all()), key=lambda f: f.track_id)
    requests = []
    for face in shown:
        tall = row + (bar if face.shares else 0)
        sizes = [(2 * ((bold.width(_label(face, word)) + 2 * pad) // 2 + 1), tall) for word in (True, False)]
        requests.append(LabelRequest(face.track_id, box_rect(np.asarray(face.box) * scale), sizes))
    placed = placer.place(requests)
    for face in shown:
        place = placed.get(face.track_id)
        if place is None:
            continue
        rect, rgb = place.rect, track_colour(colours, face.track_id)
        ground = rgb if face.speaking else INK
        x, y = rect.x0 / scale, rect.y0 / scale
        axes.add_patch(
            FancyBboxPatch(
                (x, y),
                rect.width / scale,
                row / scale,
                boxstyle=f"round,pad=0,rounding_size={8 / scale}",
                facecolor=_unit(ground),
                edgecolor=_unit(rgb),
                linewidth=0.7,
                alpha=1.0 if face.speaking else 0.85,
            )
        )
        axes.text(
            x + pad / scale,
            y + 0.5 * row / scale,
            _label(face, place.size_index == 0),
            fontsize=_LABEL_PT,
            family=_FONT,
            weight="bold",
            va="center_baseline",
            color=_unit(text_colour(ground)),
        )
        left = rect.x0
        for stream, share in whole_shares(face.shares) if face.shares else ():
            step = rect.width * share / 100
            grey = STREAM_GREYS.get(stream, (128, 128, 128))
            corner = (left / scale, (rect.y0 + row + 2) / scale)
            axes.add_patch(Rectangle(corner, step / scale, (bar - 4) / scale, facecolor=_unit(grey), linewidth=0))
            text = f"{stream[0].upper()} {share}"
            if step > 14 * len(text):
                axes.text(
                    (left + step / 2) / scale,
                    (rect.y0 + row + bar / 2) / scale,
                    text,
                    fontsize=5,
                    family=_FONT,
                    ha="center",
                    va="center_baseline",
                    color=_unit(text_colour(grey)),
                )
            left += step


def _draw_timeline(
    figure: Figure, box: tuple[float, float, float, float], time_s: float, scene: Scene, colours: dict[int, Rgb]
) -> None:
    left, bottom, width, height = box
    lane = 0.22 * height
    start_s = scene.shown_s(scene.start_s)
    axes = figure.add_axes((left, bottom + lane, width, height - lane))
    sound = figure.add_axes((left, bottom, width, lane * 0.9), sharex=axes)
    for track in scene.tracks:
        if not len(track.times_s):
            continue
        times_s, p = scene.shown_s(np.asarray(track.times_s, float)), np.asarray(track.p, float)
        breaks = np.flatnonzero(np.diff(times_s) > 0.5) + 1
        rgb = _unit(tuple(round(0.85 * value) for value in track_colour(colours, track.track_id)))
        axes.plot(np.insert(times_s, breaks, np.nan), np.insert(p, breaks, np.nan), color=rgb, linewidth=0.9)
    axes.axhline(scene.threshold, color="0.35", linewidth=0.5, linestyle=(0, (4, 3)))
    axes.set(ylim=(-0.04, 1.04), yticks=[0, 1], xlim=(start_s, start_s + max(scene.end_s - scene.start_s, 1e-3)))
    axes.set_ylabel("P(speaking)", fontsize=5.5, family=_FONT, labelpad=1)
    axes.tick_params(labelsize=5.5, length=2, width=0.5, pad=1.5, labelbottom=False)
    if scene.loudness is not None and len(scene.loudness[0]):
        times_s, level = (np.asarray(values, float) for values in scene.loudness)
        sound.fill_between(scene.shown_s(times_s), -level, level, color="0.45", linewidth=0)
    else:
        sound.text(
            0.01, 0.5, "no audio", transform=sound.transAxes, fontsize=5.5, family=_FONT, va="center", color="0.4"
        )
    sound.set(ylim=(-1.05, 1.05), yticks=[])
    sound.tick_params(labelsize=5.5, length=2, width=0.5, pad=1.5)
    sound.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 3, 5, 6, 10], integer=True))
    sound.xaxis.set_major_formatter(lambda value, _position: clock(value))
    for part in (axes, sound):
        part.axvline(scene.shown_s(time_s), color="black", linewidth=0.9)
        for name, spine in part.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_linewidth(0.5)


def _draw_scale(
    figure: Figure, box: tuple[float, float, float, float], scene: Scene, figure_in: float, streams: list[str]
) -> None:
    """The colour scale with its meaning, the line styles and the streams' greys."""
    axes = figure.add_axes(box)
    axes.set(xlim=(0, figure_in), ylim=(0, 0.34))
    axes.axis("off")
    lut = heat_lut() / 255
    text = {"fontsize": _SMALL_PT, "family": _FONT, "va": "center_baseline"}
    axes.text(0.06, 0.26, f"{heat_name(scene.explainer)}: low", **text)
    ramp = np.arange(256)[None]
    axes.imshow(ramp, cmap=ListedColormap(lut), norm=Normalize(0, 255), extent=(0.85, 1.65, 0.21, 0.31), aspect="auto")
    axes.set(xlim=(0, figure_in), ylim=(0, 0.34))
    axes.text(1.70, 0.26, "high", **text)
    axes.plot([2.2, 2.5], [0.26, 0.26], color="0.2", linewidth=1.8)
    axes.text(2.56, 0.26, "speaking", **text)
    axes.plot([3.2, 3.5], [0.26, 0.26], color="0.2", linewidth=0.9, linestyle=(0, (4, 2.5)))
    axes.text(3.56, 0.26, "silent", **text)
    if streams:
        axes.text(0.06, 0.08, "shares:", **text)
        x = 0.55
        for stream in streams:
            grey = _unit(STREAM_GREYS[stream])
            swatch = Rectangle((x, 0.03), 0.1, 0.1, facecolor=grey, edgecolor="0.3", linewidth=0.4)
            axes.add_patch(swatch)
            axes.text(x + 0.14, 0.08, f"{stream} ({stream[0].upper()})", **text)
            x += 0.85


def _caption(time_s: float, faces: Sequence[FaceView], scene: Scene, clip: str) -> str:
    moment = f"{clip}, {clock(scene.shown_s(time_s), True)}" if clip else clock(scene.shown_s(time_s), True)
    shown = sorted(faces, key=lambda face: face.track_id)
    told = ", ".join(
        f"#{f.track_id} {percent(f.p)} ({'speaking' if f.speaking else 'silent'}"
        f"{', position interpolated' if f.interpolated else ''})"
        for f in shown
    )
    sentences = [f"{moment}.", f"P(speaking): {told}." if told else "No face."]
    sentences.append(f"Threshold {scene.threshold:g}.")
    name = heat_name(scene.explainer)
    sentences.append(f"Colour: {name}, {heat_words(scene.explainer)[0]}; {smoothing_words(scene.smooth_s)}.")
    sentences.append(f"Network {scene.model}, explainer {scene.explainer}.")
    if scene.notes:
        sentences.append(f"Note: {'; '.join(scene.notes)}.")
    return " ".join(sentences)


def _wrapped(text: str, width_in: float) -> str:
    """The text in lines of the figure's width, by the width of an average letter."""
    letter_in = Typeface(100).width("abcdefghijklmnopqrstuvwxyz ") / 27 / 100 * _SMALL_PT / 72
    return "\n".join(textwrap.wrap(text, max(int((width_in - 0.12) / letter_in), 20)))


def _label(face: FaceView, word: bool) -> str:
    text = f"{'●' if face.speaking else '○'} #{face.track_id}  {percent(face.p)}"
    return f"{text}  {'speaking' if face.speaking else 'silent'}" if word else text


def _unit(rgb: Rgb) -> tuple[float, float, float]:
    red, green, blue = (value / 255 for value in rgb)
    return red, green, blue
