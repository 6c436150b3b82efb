"""Drawing: annotated frames straight on yuv420p planes, and figures of single moments."""

from asd_explain.render.canvas import Canvas, Patch
from asd_explain.render.renderer import LAYOUTS, Renderer
from asd_explain.render.scene import FaceView, Scene, TimelineTrack
from asd_explain.render.stills import save_still, still

__all__ = ["LAYOUTS", "Canvas", "FaceView", "Patch", "Renderer", "Scene", "TimelineTrack", "save_still", "still"]
