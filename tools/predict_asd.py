"""Score every entity of a data set and write the predictions as the official AVA-ActiveSpeaker evaluation reads them.

    python tools/predict_asd.py --weights runs/light/best.safetensors --data AVA --out scores.csv
    python tools/predict_asd.py --weights runs/bias/best.safetensors --data WASD --out scores.csv

Which data set the folder holds is seen from it (with WASD, networks that look at bodies get them).
Columns: those of the annotation (video_id, frame_timestamp, entity_box_x1 to y2, label, entity_id) and score, which is
P(speaking); every label is SPEAKING_AUDIBLE, as the official script wants it. ``--like FILE`` takes the rows of an
annotation csv, their order and their very digits from there (``val_orig.csv``), for tools that paste scores by
position. Every entity is scored whole and at its own frame rate, with MFCC windows scaled by 25/fps as the published
recipes have it. LoCoNet sees it beside the others that share most frames with it.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asd_explain.ava_format import COLUMNS, SPEAKING
from asd_explain.datasets.entities import EntitySet
from asd_explain.datasets.opening import SETS, detect_set, open_entities
from asd_explain.errors import OptionError
from asd_explain.options import DEVICES, pick_device
from asd_explain.outputs import check_new, check_writable, whole_file
from asd_explain.running import bounded_threads, run_tool
from asd_explain.training.recipe_objective import sees_body
from asd_explain.training.recipe_scoring import score_entities
from asd_explain.weights.choice import choose
from asd_explain.weights.store import load

log = logging.getLogger("asd_explain.tools.predict_asd")

HEADER = (*COLUMNS, "score")
_STAMP, _LABEL, _ENTITY = COLUMNS.index("frame_timestamp"), COLUMNS.index("label"), COLUMNS.index("entity_id")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--model", default="auto", help="a backbone's name or a weights card's (default: what WEIGHTS are of)"
    )
    p.add_argument("--weights", type=Path, metavar="FILE", help="weights, for instance of tools/train.py")
    p.add_argument("--set", choices=sorted(SETS), help="kind of data set (default: what the folder holds)")
    p.add_argument("--data", type=Path, required=True, help="its folder")
    p.add_argument("--split", default="val", help="split to score (default val)")
    p.add_argument("--like", type=Path, metavar="CSV", help="annotation csv whose rows are repeated as they are")
    p.add_argument("--out", type=Path, required=True, help="csv to write")
    p.add_argument("--device", default="auto", choices=DEVICES)
    p.add_argument("--workers", type=int, default=2, help="processes that load entities (default 2)")
    p.add_argument("--threads", type=int, default=0, help="threads of torch, 0 for all cores (default)")
    p.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def entity_rows(entities: EntitySet, scores: dict[int, np.ndarray]) -> Iterator[list[str]]:
    """Rows of all entities, in the data set's order.

    Args:
        entities: with boxes.
        scores: {index: (T,) P(speaking)}.

    Raises:
        OptionError: an entity has no boxes.
    """
    for index, row in enumerate(entities.rows):
        if row.boxes is None:
            raise OptionError(f"{row.entity_id}: the data set has no boxes of it; take them from a csv with --like")
        for stamp, box, score in zip(row.timestamps_s, row.boxes, scores[index], strict=True):
            where = [repr(float(value)) for value in box]
            yield [row.video_id, repr(float(stamp)), *where, SPEAKING, row.entity_id, repr(float(score))]


def rows_like(path: Path, entities: EntitySet, scores: dict[int, np.ndarray]) -> Iterator[list[str]]:
    """Rows of an annotation csv, with scores.

    Args:
        path: AVA columns, with or without a header line; further columns are left out.
        entities: whose timestamps are looked up.
        scores: {index: (T,) P(speaking)}.

    Raises:
        OptionError: the file cannot be read, or has a row that was not scored.
    """
    found = {
        (row.entity_id, round(float(stamp), 4)): score
        for index, row in enumerate(entities.rows)
        for stamp, score in zip(row.timestamps_s, scores[index], strict=True)
    }
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            places = list(range(len(COLUMNS)))
            for cells in reader:
                if not cells:
                    continue
                if "video_id" in cells:
                    places = [cells.index(name) for name in COLUMNS]
                    continue
                kept = [cells[place] for place in places]
                key = (kept[_ENTITY], round(float(kept[_STAMP]), 4))
                if key not in found:
                    raise OptionError(
                        f"{path}, line {reader.line_num}: {key[0]} at {key[1]:g} s is not in the data set"
                    )
                kept[_LABEL] = SPEAKING
                yield [*kept, repr(float(found[key]))]
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error, ValueError, IndexError) as error:
        raise OptionError(f"{path} is no annotation csv ({error}); expected {', '.join(COLUMNS)}") from None


def write_csv(path: Path, rows: Iterable[list[str]]) -> int:
    """Write rows under the header, as a whole or not at all; returns how many."""
    count = 0
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HEADER)
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def run(args: argparse.Namespace) -> str:
    """Score and write; returns the line to print."""
    check_new(args.out, args.overwrite)
    check_writable(args.out)
    if args.like is not None and not args.like.is_file():
        raise OptionError(f"--like {args.like}: there is no such file")
    kind = args.set or detect_set(args.data, args.split)
    device = pick_device(args.device)
    model = load(choose(args.model, args.weights), weights=args.weights, gates=False, device=device)
    log.info("%s: %s, %s", args.data, kind, args.split)
    entities = open_entities(kind, args.data, args.split, sees_body(model) != "no")
    scores: dict[int, np.ndarray] = {}
    with bounded_threads(args.threads):
        scored = score_entities(model, entities, device, args.workers)
        for index, margin, _ in tqdm(
            scored, total=len(entities), desc=args.split, unit="entity", disable=True if args.quiet else None
        ):
            scores[index] = 1 / (1 + np.exp(-margin.astype(np.float64)))
    rows = entity_rows(entities, scores) if args.like is None else rows_like(args.like, entities, scores)
    return f"{args.out}: {write_csv(args.out, rows)} rows, {len(entities)} entities\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    return run_tool(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
