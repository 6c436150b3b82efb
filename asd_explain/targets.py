"""Where everything goes, decided and checked before any work is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asd_explain.errors import OptionError, OutputError
from asd_explain.media.writer import check_output
from asd_explain.options import Options
from asd_explain.outputs import check_new
from asd_explain.results import RESULT_FILES, Result


@dataclass(frozen=True)
class Targets:
    """Where everything goes.

    Attributes:
        video: the MP4.
        stills: {moment in seconds from the clip's first frame: path}.
    """

    video: Path
    stills: dict[float, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, video: Path, options: Options) -> Targets:
        """Names for an output video and its stills."""
        if video.suffix.lower() not in (".mp4", ".m4v", ".mov"):
            raise OptionError(f"{video}: the output must end in .mp4")
        stem = video.with_suffix("")
        return cls(
            video, {t: stem.with_name(f"{stem.name}.still_{t:.2f}s.{options.still_format}") for t in options.stills}
        )

    @property
    def folder(self) -> Path:
        """Folder of all outputs."""
        return self.video.parent

    @property
    def prefix(self) -> str:
        """What stands before the result files' names."""
        return f"{self.video.stem}."

    def check(self, clip: Path, overwrite: bool) -> None:
        """Refuse before any work what could not be written afterwards."""
        if self.video.exists() and clip.exists() and self.video.samefile(clip):
            raise OutputError(f"{self.video}: is the clip itself; choose another output name")
        check_output(self.video, overwrite)
        for path in (*(self.folder / f"{self.prefix}{name}" for name in RESULT_FILES), *self.stills.values()):
            check_new(path, overwrite)


def still_frames(result: Result, targets: Targets) -> dict[int, list[Path]]:
    """Source frame index to the stills made of it: for each wanted moment, the frame that is shown then.

    Raises:
        OptionError: for a moment outside what is explained.
    """
    times, found = result.frame_times_s, {}
    frame_s = float(1 / result.clip.fps)
    for moment, path in targets.stills.items():
        time_s = result.clip.start_s + moment
        if not times[0] - frame_s <= time_s <= times[-1] + frame_s:
            first, last = (t - result.clip.start_s for t in (times[0], times[-1]))
            raise OptionError(f"--stills {moment:g}: not between {first:.2f} and {last:.2f} s, which are explained")
        index = int(np.searchsorted(times, time_s + 1e-6, side="right")) - 1
        found.setdefault(max(index, 0), []).append(path)
    return found
