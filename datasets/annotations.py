"""The tables of AVA-ActiveSpeaker and WASD: annotations in every dialect, and the lists of TalkNet's loaders.

* Original: eight columns, no header (video_id, frame_timestamp, entity_box_x1, y1, x2, y2, label, entity_id); one file
  a split, or a folder of ``<video>-activespeaker.csv``.
* TalkNet-style ``*_orig.csv``: a header, further columns ``label_id`` (0 silent, 1 speaking, 2 speaking unheard) and
  ``instance_id``. WASD is the same; in its body files the box is the body's.
* ``*_loader.csv``: tab-separated lines of entity_id, number of frames, fps, ``[label, ...]`` and a number by which
  tracks of equal length are sorted. It has neither times nor boxes.
"""

from __future__ import annotations

import csv
import itertools
import logging
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from asd_explain.ava_format import COLUMNS
from asd_explain.datasets.entities import LABEL_NAMES, DataError, EntityRow, nominal_fps

log = logging.getLogger(__name__)

_CHUNK = 20_000
_IDS = {name: k for k, name in enumerate(LABEL_NAMES)}
# Annotators' boxes reach a little past the frame; what goes far past it is in pixels, or belongs to something else.
_LOW, _HIGH = -0.5, 1.5
_NAME = re.compile(r"[^/\\\x00-\x1f\",.\s][^/\\\x00-\x1f\",]*")
_OFFICIAL = "ava_activespeaker_{split}_v1.0"


@dataclass(frozen=True)
class LoaderLine:
    """One line of a ``*_loader.csv``: a track, its rate in frames a second, and (T,) int8 labels 0 or 1."""

    entity_id: str
    fps: float
    labels: np.ndarray


@dataclass(frozen=True)
class _Table:
    """All rows of some csv files: ``video`` and ``entity`` are places in ``videos`` and ``entities``."""

    videos: list[str]
    entities: list[str]
    video: np.ndarray
    entity: np.ndarray
    times_s: np.ndarray
    boxes: np.ndarray
    label: np.ndarray
    where: list[tuple[int, Path]]  # first row of each file

    def place(self, row: int) -> str:
        """The file of a row, for messages."""
        return str(next(path for first, path in reversed(self.where) if first <= row))


def find_table(source: Path, split: str, body: bool = False) -> list[Path]:
    """The annotation files of a split.

    Args:
        source: a csv, or a folder that holds ``ava_activespeaker_<split>_v1.0.csv``, a folder of that name or named
            like the split with one csv a video, or ``<split>_orig.csv`` (bodies: ``<split>_orig_body.csv``, as WASD's
            code calls it, or ``<split>_body_orig.csv``, as its README does); or is a folder of one csv a video.
        split: train, val or test.
        body: look for the body boxes.

    Raises:
        DataError: there is none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source}: no such annotation csv or folder of them")
    # Official files first: a table beside them may be what was made of them, without the tracks that could not be.
    official = _OFFICIAL.format(split=split)
    names = [f"{official}.csv", official, split, f"{split}_orig.csv", f"{split}.csv"]
    if body:
        names = [f"{split}_orig_body.csv", f"{split}_body_orig.csv"]
    for name in names:
        if (source / name).is_file():
            return [source / name]
        if files := sorted((source / name).glob("*.csv")):
            return files
    if not body and (files := sorted(source.glob("*-activespeaker.csv"))):
        return files
    raise DataError(f"{source} has no annotations of {split}; looked for {', '.join(names)}")


def read_tracks(
    paths: Path | Sequence[Path], bodies: Path | None = None, fps: dict[str, float] | None = None
) -> list[EntityRow]:
    """All tracks of annotation csv files, in order of first appearance, each in order of time.

    Args:
        paths: one csv or several, in any dialect with boxes.
        bodies: csv whose boxes are the bodies', matched by entity and time.
        fps: declared frame rates by entity; others are measured, see ``nominal_fps``.

    Raises:
        DataError: a file is missing, empty, malformed, or holds predictions; a box is none; two rows of a track at one
            time; a track in two videos.
    """
    table = _read([paths] if isinstance(paths, Path) else list(paths))
    body = _read([bodies]) if bodies is not None else None
    rows = []
    spans = _spans(table)
    body_spans = {} if body is None else {body.entities[k]: span for k, span in _spans(body).items()}
    fps = fps or {}
    for k, order in spans.items():
        entity, times_s, label = table.entities[k], table.times_s[order], table.label[order]
        rows.append(
            EntityRow(
                entity_id=entity,
                video_id=table.videos[table.video[order[0]]],
                timestamps_s=times_s,
                labels=(label == 1).astype(np.int8),
                fps=nominal_fps(times_s, fps.get(entity)),
                boxes=table.boxes[order],
                body_boxes=None if body is None else _matched(times_s, body, body_spans.get(entity)),
                label_names=tuple(map(LABEL_NAMES.__getitem__, label.tolist())),
            )
        )
    if body is not None:
        _say_unmatched(rows, body_spans, bodies)
    return rows


def _spans(table: _Table) -> dict[int, np.ndarray]:
    """Rows of each entity in order of time, entities in order of first appearance."""
    order = np.lexsort((table.times_s, table.entity))
    entity, times_s, video = table.entity[order], table.times_s[order], table.video[order]
    same = entity[1:] == entity[:-1]
    for bad, what in (
        (same & (times_s[1:] - times_s[:-1] < 1e-6), "twice at one time"),
        (same & (video[1:] != video[:-1]), "in two videos"),
    ):
        if bad.any():
            at = order[1:][bad][0]
            name = table.entities[table.entity[at]]
            raise DataError(f"{table.place(at)}: {name} is there {what} ({table.times_s[at]:g} s); keep one")
    bounds = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
    return {int(entity[a]): order[a:b] for a, b in itertools.pairwise(bounds)}


def _matched(times_s: np.ndarray, body: _Table, span: np.ndarray | None) -> np.ndarray:
    """(T, 4) body boxes at a track's times, NaN where there is none."""
    out = np.full((len(times_s), 4), np.nan)
    if span is not None:
        theirs = body.times_s[span]
        at = np.clip(np.searchsorted(theirs, times_s - 1e-6), 0, len(theirs) - 1)
        found = np.abs(theirs[at] - times_s) < 1e-6
        out[found] = body.boxes[span[at[found]]]
    return out


def _say_unmatched(rows: list[EntityRow], spans: dict[str, np.ndarray], bodies: Path) -> None:
    if not spans.keys() & {row.entity_id for row in rows}:
        raise DataError(f"{bodies}: none of its entities is among the faces; give the body csv of the same split")
    without = sum(int(np.isnan(row.body_boxes[:, 0]).sum()) for row in rows)
    if without:
        log.warning("%s: %d face boxes have no body box; tracks that need one cannot be loaded", bodies, without)


def _read(paths: list[Path]) -> _Table:
    videos: dict[str, int] = {}
    entities: dict[str, int] = {}
    parts: list[tuple[np.ndarray, ...]] = []
    where, count = [], 0
    for path in paths:
        where.append((count, path))
        for video, numbers, label, entity in _chunks(path):
            codes = (_codes(video, videos), _codes(entity, entities))
            parts.append((*codes, numbers[0], np.stack(numbers[1:], axis=1), label))
            count += len(video)
    if not count:
        raise DataError(f"{', '.join(map(str, paths))}: no annotation in it; expected rows of {', '.join(COLUMNS)}")
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return _Table(list(videos), list(entities), *columns[:2], *columns[2:], where=where)


def _codes(names: tuple[str, ...], known: dict[str, int]) -> np.ndarray:
    """(n,) int32: the numbers of names; new ones are added to ``known``."""
    for name in dict.fromkeys(names):
        known.setdefault(name, len(known))
    return np.fromiter(map(known.__getitem__, names), np.int32, len(names))


def _chunks(path: Path) -> Iterator[tuple[tuple[str, ...], list[np.ndarray], np.ndarray, tuple[str, ...]]]:
    """(video ids, [time, x1, y1, x2, y2], label ids, entity ids) of some thousand rows at a time, checked."""
    if not path.is_file():
        raise DataError(f"{path}: no such annotation csv")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            first = next((cells for cells in reader if cells), None)
            if first is None:
                return
            names, is_header = _columns(path, first)
            line = reader.line_num + is_header
            rows = itertools.chain([] if is_header else [first], reader)
            while chunk := [cells for cells in itertools.islice(rows, _CHUNK) if cells]:
                yield _checked(path, line, chunk, names)
                line = reader.line_num + 1
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a csv text file ({error})") from error


def _columns(path: Path, cells: list[str]) -> tuple[list[str], bool]:
    """Names of the columns, and whether ``cells``, the first row, is a header."""
    names = [cell.strip().lower() for cell in cells]
    if "video_id" not in names and "frame_timestamp" not in names:
        if len(cells) != len(COLUMNS):
            raise DataError(f"{path}: {len(cells)} columns without a header; expected {', '.join(COLUMNS)}")
        return list(COLUMNS), False
    if missing := [name for name in COLUMNS if name not in names]:
        raise DataError(f"{path}: its header lacks {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    if "score" in names:
        raise DataError(f"{path} holds predictions (it has a column score); give the annotations")
    return names, True


def _checked(path: Path, line: int, rows: list[list[str]], names: list[str]):
    """A chunk of rows, its first at about ``line``, as columns."""
    if uneven := [k for k, cells in enumerate(rows) if len(cells) != len(names)]:
        at = uneven[0]
        raise DataError(f"{path}, line {line + at}: {len(rows[at])} columns instead of {len(names)}")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    for name in ("video_id", "entity_id"):
        if bad := [text for text in set(columns[name]) if not _NAME.fullmatch(text)]:
            at = min(map(columns[name].index, bad))
            raise DataError(f"{path}, line {line + at}: {name} {columns[name][at]!r} cannot name a file")
    numbers = []
    for name in COLUMNS[1:6]:
        try:
            values = np.fromiter(map(float, columns[name]), np.float64, len(rows))
        except ValueError:
            values = np.array([_number(text) for text in columns[name]])
        low, high = (0.0, np.inf) if name == "frame_timestamp" else (_LOW, _HIGH)
        bad = ~((values >= low) & (values <= high) & np.isfinite(values))
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            hint = "; are these pixels? Divide by the frame's size" if values[at] > 2 and name != COLUMNS[1] else ""
            raise DataError(f"{path}, line {line + at}: {name} is {columns[name][at]!r}{hint}")
        numbers.append(values)
    _, x1, y1, x2, y2 = numbers
    if (empty := ~((x2 > x1) & (y2 > y1))).any():
        raise DataError(f"{path}, line {line + int(np.flatnonzero(empty)[0])}: a box without area")
    ids = {name: _IDS.get(name.strip(), -1) for name in set(columns["label"])}
    label = np.array([ids[name] for name in columns["label"]], np.int8)
    if (label < 0).any():
        at = int(np.flatnonzero(label < 0)[0])
        raise DataError(f"{path}, line {line + at}: label {columns['label'][at]!r} is none of {', '.join(LABEL_NAMES)}")
    if "label_id" in columns:
        speaking = {text: _number(text) == 1 for text in set(columns["label_id"])}
        if (wrong := np.array([speaking[text] for text in columns["label_id"]]) != (label == 1)).any():
            at = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{path}, line {line + at}: label {columns['label'][at]} has label_id {columns['label_id'][at]}; 1 is "
                "speaking and heard, in both"
            )
    return columns["video_id"], numbers, label, columns["entity_id"]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def read_loader(path: Path) -> list[LoaderLine]:
    """The lines of a ``*_loader.csv``; labels 1 stay 1, 0 and 2 become 0.

    Raises:
        DataError: the file is missing, lists no track or one twice, or a line is malformed.
    """
    lines: dict[str, LoaderLine] = {}
    for number, text in enumerate(text_of(path, "loader csv").splitlines(), 1):
        if not text.strip():
            continue
        cells = text.split("\t")
        try:
            entity, count, fps = cells[0], int(cells[1]), float(cells[2])
            labels = np.array([int(float(v)) for v in re.split(r"[,\s]+", cells[3].strip(" []"))], np.int64)
        except (IndexError, ValueError, OverflowError) as error:
            raise DataError(
                f"{path}, line {number}: not entity, frames, fps and [labels], by tabs ({error})"
            ) from error
        if len(labels) != count or not 0 < fps < np.inf or not np.isin(labels, (0, 1, 2)).all():
            raise DataError(f"{path}, line {number}: {entity} has {count} frames at {fps} fps and {len(labels)} labels")
        if entity in lines:
            raise DataError(f"{path}, line {number}: {entity} is there twice; keep one")
        lines[entity] = LoaderLine(entity, fps, (labels == 1).astype(np.int8))
    if not lines:
        raise DataError(f"{path}: lists no track; prepare the data first")
    return list(lines.values())


def text_of(path: Path, what: str) -> str:
    """A small UTF-8 text file, with or without byte order mark.

    Raises:
        DataError: the file is missing, cannot be read, or is no such text; ``what`` it should be is named.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such {what}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no {what}: it is not UTF-8 text ({error})") from error


def video_of_entity(entity_id: str, known: Collection[str] = ()) -> str:
    """The video of a track, from the track's name.

    Video ids may hold dashes and underscores, so no fixed cut is right for all: TalkNet takes the first 11 characters
    (AVA's ids), BIAS drops the last two parts at "_" (WASD's). The longest known id that the name begins with wins;
    where none are known, BIAS's rule, which is right for both data sets.

    Raises:
        DataError: ids are known, but none fits.
    """
    cuts = [k for k, letter in enumerate(entity_id) if letter in "_:"]
    for cut in [len(entity_id), *reversed(cuts)]:
        if entity_id[:cut] in known:
            return entity_id[:cut]
    if known:
        raise DataError(f"entity {entity_id} begins with the name of no known video")
    parts = entity_id.split("_")
    return "_".join(parts[:-2]) if len(parts) > 2 else entity_id[:11]


def declare_rates(rows: Iterable[EntityRow], lines: Iterable[LoaderLine], where: Path) -> list[EntityRow]:
    """Rows with the frame rates of a loader csv, in its order; rows that it lacks are left out.

    Raises:
        DataError: it lists a track that is not among the rows, or other labels.
    """
    known = {row.entity_id: row for row in rows}
    out = []
    for line in lines:
        row = known.get(line.entity_id)
        if row is None:
            raise DataError(f"{where}: {line.entity_id} is not in the annotations beside it")
        if not np.array_equal(row.labels, line.labels):
            raise DataError(f"{where}: {line.entity_id} has other labels than in the annotations beside it")
        out.append(replace(row, fps=line.fps))
    return out


def orig_lines(rows: Iterable[EntityRow], body: bool = False) -> Iterator[str]:
    """The lines of a TalkNet-style ``*_orig.csv``, header first; numbers as they were read."""
    yield ",".join((*COLUMNS, "label_id", "instance_id"))
    for row in rows:
        names = row.label_names or tuple(LABEL_NAMES[v] for v in row.labels)
        instance, before = -1, None
        boxes = (row.body_boxes if body else row.boxes).tolist()
        for time_s, box, name in zip(row.timestamps_s.tolist(), boxes, names, strict=True):
            instance += name != before
            before = name
            numbers = ",".join(map(repr, (time_s, *box)))
            yield f"{row.video_id},{numbers},{name},{row.entity_id},{_IDS[name]},{row.entity_id}:{instance}"


def loader_lines(rows: Iterable[EntityRow]) -> Iterator[str]:
    """The lines of a ``*_loader.csv``; the sorting number is a hash, so that neighbours come from different videos."""
    for row in rows:
        labels = ", ".join(str(int(v)) for v in row.labels)
        rank = zlib.crc32(row.entity_id.encode()) % 1_000_000
        yield f"{row.entity_id}\t{len(row)}\t{round(row.fps, 4):g}\t[{labels}]\t{rank}"
