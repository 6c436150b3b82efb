"""Average precision on WASD by category, from the official metadata or division file, faults of both handled.

WASD (Roxo et al., arXiv 2303.05321) has five categories of recordings: OC optimal conditions, SI speech impairment, FO
facial occlusion, HVN human voice noise, SS surveillance settings; Easy is OC and SI, Hard the rest. A row's video_id is
a sub-clip, ``<YouTube id>_<start>-<end>``. Two files say what category it has: ``wasd_metadata.csv``, a row a
sub-clip, and ``dataset_division.txt``, a list of YouTube ids under headings of their own.

Both place one recording in two categories (``B068jfKfC8A``: SI and HVN), and the division file lists two ids that the
metadata lack. Two schemes deal with that:

``once``: a row counts in one category at most. A sub-clip has the category that the metadata give it; where they have
no row of it, the one category of its recording's other sub-clips, or else that of the division file. What is placed in
two categories counts in neither, and what nothing places in none; both still count in the pooled figure.

``published``: as the official script (``WASD_evaluation.py``) with the division file. A row counts in every category
that lists an id which its video_id contains, so that a recording listed twice counts twice. (Where one category lists
two ids that a video_id contains, the official script stops; here the row counts once.)

In both, Easy and Hard are pooled over their categories' rows, ``pooled`` is one AP over all rows (the official
"overall"), and ``macro`` is the mean of the five categories' AP, which the official script does not give.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from asd_explain.evaluate.calibration import BINS
from asd_explain.evaluate.csv_table import CsvError, read_lines, read_table
from asd_explain.evaluate.detection_figures import Figures, are_probabilities, figures_of

#: In the order of the metadata's numbers.
CATEGORIES = ("OC", "SI", "FO", "HVN", "SS")
GROUPS = {"Easy": ("OC", "SI"), "Hard": ("FO", "HVN", "SS")}
#: The division file's headings.
HEADINGS = {"Interview": "OC", "Debate": "SI", "React": "HVN", "Podcast": "FO", "Police": "SS"}
_SPAN = re.compile(r"_\d+-\d+$")
_ID = re.compile(r"[A-Za-z0-9_-]+")


def recording(video_id: str) -> str:
    """The YouTube id of a sub-clip's name."""
    return _SPAN.sub("", video_id)


def read_metadata(path: Path | str) -> dict[str, frozenset[str]]:
    """{sub-clip: its categories} of ``wasd_metadata.csv``; some have two.

    Raises:
        CsvError: see :func:`~asd_explain.evaluate.csv_table.read_table`; a category that is not 0 to 4.
    """
    table = read_table(path, (), ("video", "category"))
    videos, categories = table.texts["video"], table.texts["category"]
    known = {str(i): name for i, name in enumerate(CATEGORIES)}
    for code, name in enumerate(categories.names):
        if name not in known:
            row = int(np.flatnonzero(categories.codes == code)[0])
            raise CsvError(f"{table.where(row)}: category {name!r}; expected 0 to 4 ({', '.join(CATEGORIES)})")
    found: dict[str, set[str]] = {}
    for video, category in zip(videos.codes, categories.codes, strict=True):
        found.setdefault(videos.names[video], set()).add(known[categories.names[category]])
    return {video: frozenset(names) for video, names in found.items()}


def read_division(path: Path | str) -> dict[str, tuple[str, ...]]:
    """{category: ids of recordings} of ``dataset_division.txt``: a heading ``# Name``, below it an id a line.

    Raises:
        CsvError: unreadable; a heading that is not known or missing; a line that is no id.
    """
    path = Path(path)
    found: dict[str, list[str]] = {}
    category = None
    for number, line in enumerate(map(str.strip, read_lines(path)), 1):
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
            category = HEADINGS.get(heading)
            if category is None:
                raise CsvError(f"{path}, line {number}: heading {heading!r}; expected {', '.join(HEADINGS)}")
            found.setdefault(category, [])
        elif line and (category is None or not _ID.fullmatch(line)):
            what = "an id before any heading" if category is None else f"{line!r} is no YouTube id"
            raise CsvError(f"{path}, line {number}: {what}; expected '# Interview' and below it an id a line")
        elif line:
            found[category].append(line)
    if missing := [heading for heading, name in HEADINGS.items() if name not in found]:
        raise CsvError(f"{path}: no heading # {', # '.join(missing)}; give WASD's dataset_division.txt")
    return {name: tuple(dict.fromkeys(found[name])) for name in CATEGORIES}


@dataclass(frozen=True)
class Placement:
    """Which videos count in which category.

    Attributes:
        members: {category: (V,) bool} over the videos asked about.
        notes: what was not plain, a sentence each.
    """

    members: dict[str, np.ndarray]
    notes: tuple[str, ...]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def place_once(
    videos: Sequence[str],
    metadata: Mapping[str, frozenset[str]] | None,
    division: Mapping[str, Sequence[str]] | None = None,
) -> Placement:
    """The scheme ``once`` for videos (V,), by sub-clip where there are metadata; see the module's text."""
    by_recording: dict[str, set[str]] = {}
    for video, names in (metadata or {}).items():
        by_recording.setdefault(recording(video), set()).update(names)
    by_division: dict[str, set[str]] = {}
    for category, ids in (division or {}).items():
        for name in ids:
            by_division.setdefault(name, set()).add(category)
    placed: list[frozenset[str]] = []
    aside: dict[str, list[str]] = {"recording": [], "division": [], "two": [], "none": []}
    for video in videos:
        names = (metadata or {}).get(video, frozenset())
        if not names and (names := frozenset(by_recording.get(recording(video), ()))):
            aside["recording"].append(video)
        elif not names and (names := frozenset(by_division.get(recording(video), ()))) and metadata is not None:
            aside["division"].append(video)
        if len(names) != 1:
            aside["two" if names else "none"].append(video)
        placed.append(names)
    members = {c: np.array([names == {c} for names in placed], bool) for c in CATEGORIES}
    outside = "left out of categories, Easy and Hard, kept in pooled"
    said = {
        "recording": "without a row in the metadata, placed as the other sub-clips of their recording",
        "division": "of recordings without a row in the metadata, placed by the division file",
        "two": f"that the file itself places in two categories, {outside}",
        "none": f"in none of the files given, {outside}",
    }
    notes = [f"sub-clips {text}: {len(aside[k])} ({_listed(aside[k])})" for k, text in said.items() if aside[k]]
    return Placement(members, tuple(notes))


def place_published(videos: Sequence[str], division: Mapping[str, Sequence[str]]) -> Placement:
    """The scheme ``published`` for videos (V,); see the module's text."""
    members = {c: np.array([any(i in video for i in division[c]) for video in videos], bool) for c in CATEGORIES}
    times = np.sum([members[c] for c in CATEGORIES], axis=0) if len(videos) else np.zeros(0, int)
    twice = [video for video, n in zip(videos, times, strict=True) if n > 1]
    never = [video for video, n in zip(videos, times, strict=True) if not n]
    notes = []
    if twice:
        notes.append(f"sub-clips that count in two categories, as they are listed: {len(twice)} ({_listed(twice)})")
    if never:
        notes.append(f"sub-clips that are not listed, which count in pooled alone: {len(never)} ({_listed(never)})")
    return Placement(members, tuple(notes))


def faults(metadata: Mapping[str, frozenset[str]] | None, division: Mapping[str, Sequence[str]] | None) -> list[str]:
    """What is wrong with the files themselves, a sentence each."""
    found = []
    if metadata is not None:
        twice = [video for video, names in metadata.items() if len(names) > 1]
        if twice:
            whose = sorted({recording(video) for video in twice})
            found.append(f"sub-clips to which the metadata give two categories: {len(twice)} (of {_listed(whose)})")
    if division is not None:
        ids = [name for c in CATEGORIES for name in division[c]]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            found.append(f"the division file lists {_listed(twice)} under two headings")
    if metadata is not None and division is not None:
        of = {recording(video) for video in metadata}
        if lost := [name for name in dict.fromkeys(ids) if name not in of]:
            found.append(f"the division file lists {_listed(lost)}, of which the metadata have no row")
        if lost := sorted(of - set(ids)):
            found.append(f"the metadata have rows of {_listed(lost)}, which the division file does not list")
    return found


@dataclass(frozen=True)
class WasdFigures:
    """Figures on WASD.

    Attributes:
        sections: {category, "Easy", "Hard", "pooled": figures}.
        macro: mean AP of the five categories in [0, 1]; None where one of them has none.
        probabilities: whether all scores lie in [0, 1] and therefore have calibration errors.
        notes: of the placement.
    """

    sections: dict[str, Figures]
    macro: float | None
    probabilities: bool
    notes: tuple[str, ...]

    def as_dict(self) -> dict:
        """For JSON."""
        sections = {name: {**asdict(f), "base_rate": f.base_rate} for name, f in self.sections.items()}
        return {"sections": sections, "macro": self.macro, "notes": list(self.notes)}


def wasd_figures(
    scores: np.ndarray, labels: np.ndarray, videos: np.ndarray, placement: Placement, *, bins: int = BINS
) -> WasdFigures:
    """Figures by category, Easy, Hard and pooled.

    Args:
        scores: (N,) higher means speaking.
        labels: (N,) 1 speaking, 0 not.
        videos: (N,) int, which of the placement's videos each row is of.
        placement: of the videos.
        bins: of the calibration error.
    """
    probabilities = are_probabilities(scores)

    def of(chosen: np.ndarray) -> Figures:
        return figures_of(scores[chosen], labels[chosen], probabilities=probabilities, bins=bins)

    members = placement.members
    sections = {c: of(members[c][videos]) for c in CATEGORIES}
    for name, parts in GROUPS.items():
        sections[name] = of(np.any([members[c] for c in parts], axis=0)[videos])
    sections["pooled"] = of(np.ones(len(labels), bool))
    values = [sections[c].ap for c in CATEGORIES]
    macro = None if None in values else math.fsum(values) / len(values)
    return WasdFigures(sections, macro, probabilities, placement.notes)
