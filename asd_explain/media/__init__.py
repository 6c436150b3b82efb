"""Reading clips and writing them: pictures, sound and features, with exact times."""

from asd_explain.media.audio import RATE, Audio, load_audio
from asd_explain.media.frame import Frame, Planes
from asd_explain.media.mfcc import STEPS_PER_FRAME, aligned_mfcc, mfcc
from asd_explain.media.probing import ClipInfo, probe
from asd_explain.media.random_access import RandomAccess
from asd_explain.media.reader import VideoReader
from asd_explain.media.writer import VideoWriter, check_output

__all__ = [
    "RATE",
    "STEPS_PER_FRAME",
    "Audio",
    "ClipInfo",
    "Frame",
    "Planes",
    "RandomAccess",
    "VideoReader",
    "VideoWriter",
    "aligned_mfcc",
    "check_output",
    "load_audio",
    "mfcc",
    "probe",
]
