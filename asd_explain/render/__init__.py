"""Drawing: annotated frames straight on yuv420p planes.

Figures of single moments are in :mod:`asd_explain.render.stills`, which imports matplotlib and is imported when needed.
"""

from asd_explain.render.canvas import Canvas, Patch
from asd_explain.render.renderer import LAYOUTS, Renderer
from asd_explain.render.scene import FaceView, Scene, TimelineTrack

__all__ = ["LAYOUTS", "Canvas", "FaceView", "Patch", "Renderer", "Scene", "TimelineTrack"]
