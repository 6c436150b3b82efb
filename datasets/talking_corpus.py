"""Talking photographs as a corpus of face tracks with exact truth, for training and for testing.

    for entry in talking_entries("fit"):
        for clip in TalkingClipCache(folder).get(entry):
            clip.truth  # (T,) 1 speaking, 0 silent, NaN within 80 ms of a change

Every clip is made from a seed that is a function of its split and its number alone, so everybody gets the same corpus;
nothing is downloaded. Voices and the texts' word order of ``dev`` and ``test`` are not in ``fit``; test faces have
proportions (a broad jaw under a narrow brow, or the other way round) that fit faces never have.

**How synthetic it is.** There are two photographs; "other people" are the same two with other proportions, light,
colours and backgrounds. The voices are a formant synthesiser's. Mouths follow phonemes and loudness by rules, bodies
and hands follow rules invented for the purpose (:mod:`asd_explain.datasets.talking_body`). A network can learn from it
that mouth and sound go together in time, and that bodies move; how people really move it cannot. Numbers on the test
split say how well a network does on such clips, not on people.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asd_explain.datasets.face_clips import CACHE_VERSION, FaceClip, FaceClipCache, save_arrays
from asd_explain.datasets.shared_clips import SPLITS, ClipEntry
from asd_explain.datasets.talking_draws import talking_scene
from asd_explain.datasets.talking_tracks import TalkingClip, render_clips
from asd_explain.errors import OptionError

GROUP = "talking_photos"
CORPUS_VERSION = 1
COUNTS = {"fit": 320, "dev": 16, "test": 24}
"""Clips in a split, of 6 to 10 seconds each."""


def talking_entries(split: str) -> list[ClipEntry]:
    """The clips of a split, in a fixed order.

    Raises:
        OptionError: no such split.
    """
    if split not in SPLITS:
        raise OptionError(f"no split of talking photos called {split!r}; choose from {', '.join(SPLITS)}")
    entries = []
    for index in range(COUNTS[split]):
        scene, _, _ = talking_scene(split, index)
        who = "+".join(f"{p.voice.name.partition('+')[2]}/{p.look.photo}" for p in scene.people)
        name = f"{GROUP}/{split}_{index:03d}"
        entries.append(ClipEntry(Path(name), name, GROUP, split, who))
    return entries


class TalkingClipCache(FaceClipCache):
    """Tracks of the generated clips, made once and kept as one npz a clip; the interface of ``FaceClipCache``.

    Args:
        folder: where to keep them; made when needed.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = Path(folder) / f"talking_v{CORPUS_VERSION}.{CACHE_VERSION}"

    def get(self, entry: ClipEntry) -> list[TalkingClip]:
        """The clip's faces, read from the cache or made now.

        Raises:
            OptionError: the entry is none of :func:`talking_entries`.
            AsdExplainError: the ``demo`` extra, which makes the clips, is not installed.
        """
        path = self.path(entry)
        if not path.is_file():
            split, _, index = entry.name.removeprefix(f"{GROUP}/").rpartition("_")
            if entry.group != GROUP or split not in SPLITS or not index.isdigit() or int(index) >= COUNTS[split]:
                raise OptionError(f"{entry.name} is no clip of talking photos; take those of talking_entries")
            self._write(path, render_clips(entry, *talking_scene(split, int(index))))
        return list(self._read(path, entry))

    @staticmethod
    def _extra(path: Path) -> Path:
        """Beside a clip's file: what a :class:`TalkingClip` has more than a ``FaceClip``. Written first."""
        return path.with_suffix(".talking.npz")

    @classmethod
    def _write(cls, path: Path, clips: list[TalkingClip]) -> None:
        extra = {f"{c.track_id}.talking": c.talking for c in clips}
        save_arrays(cls._extra(path), extra | {f"{c.track_id}.kind": np.array(c.kind) for c in clips})
        FaceClipCache._write(path, clips)

    @classmethod
    def _read(cls, path: Path, entry: ClipEntry) -> Iterator[TalkingClip]:
        with np.load(cls._extra(path)) as stored:
            for clip in FaceClipCache._read(path, entry):
                fields = {name: getattr(clip, name) for name in FaceClip.__dataclass_fields__}
                key = f"{clip.track_id}"
                yield TalkingClip(**fields, talking=stored[f"{key}.talking"], kind=str(stored[f"{key}.kind"]))
