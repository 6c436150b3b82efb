"""Evaluate csv files of scores as the data sets of active speaker detection are evaluated; needs no network, no video.

    python tools/evaluate_asd.py ava val_orig.csv val_res.csv --out ava.json
    python tools/evaluate_asd.py wasd val_orig.csv val_res.csv --metadata wasd_metadata.csv \
        --division dataset_division.txt
    python tools/evaluate_asd.py columbia col_labels/fusion columbia.scores.csv

Prints a table in markdown, and says what was not plain about the files. Formats and rules: AVA-ActiveSpeaker's in
``asd_explain/evaluate/ava_csv.py``, WASD's categories in ``wasd.py``, Columbia's protocol in ``columbia.py`` beside it.
Where all scores lie in [0, 1] they are taken for probabilities, and their calibration error (ECE) is given too.
Networks are measured on local clips by ``tools/evaluate_networks.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from asd_explain import __version__
from asd_explain.errors import OptionError
from asd_explain.evaluate.ava_csv import Matched, join, read_predictions, read_truth
from asd_explain.evaluate.calibration import BINS
from asd_explain.evaluate.columbia import (
    BOX_SCALE,
    FPS,
    FRAME_SIZE,
    LABEL_FPS,
    OUTSIDE,
    ColumbiaFigures,
    columbia_figures,
    faces_of,
    read_labels,
)
from asd_explain.evaluate.csv_table import CsvError
from asd_explain.evaluate.detection_figures import Figures, are_probabilities, figures_of
from asd_explain.evaluate.json_report import check_report, write_report
from asd_explain.evaluate.wasd import (
    WasdFigures,
    faults,
    place_once,
    place_published,
    read_division,
    read_metadata,
    wasd_figures,
)
from asd_explain.running import run_tool


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a cell of a table."""
    return "undefined" if value is None else f"{100 * value:.{digits}f} %"


def read_pair(args: argparse.Namespace) -> Matched:
    """Both csv files, joined."""
    with tqdm(total=3, desc=f"reading {args.truth.name}", disable=None, leave=False) as bar:
        truth = read_truth(args.truth)
        bar.set_description(f"reading {args.scores.name}")
        bar.update()
        scored = read_predictions(args.scores, args.score_column)
        bar.set_description("joining")
        bar.update()
        found = join(truth, scored)
    if len(set(found.labels.tolist())) < 2:
        word = "speaks" if found.labels[0] else "is silent"
        raise CsvError(f"{args.truth}: every row {word}; average precision needs speaking and silent rows")
    return found


def words_on_scores(figures: Figures, args: argparse.Namespace) -> list[str]:
    """What to know about ties and calibration."""
    said = []
    if figures.ap_best_tie_order - figures.ap > 1e-12:
        said.append(
            "equal scores count as one step, the least that the official script can give for them; with the speaking "
            f"rows first it gives {percent(figures.ap_best_tie_order, 4)}"
        )
    if figures.ece is None:
        said.append(f"no calibration error: column {args.score_column} leaves [0, 1], so it holds no probabilities")
    else:
        said.append(f"ECE over {args.bins} bins of equal width, scores taken for P(speaking)")
    return said


def report_of(args: argparse.Namespace, *inputs: Path | None, **found: object) -> dict:
    """What every report begins with; inputs by name, no path of a machine."""
    return {
        "evaluated": args.data,
        "asd_explain": __version__,
        "inputs": [path.name for path in inputs if path is not None],
        "score_column": args.score_column,
        **found,
    }


def finished(lines: Sequence[str], notes: Sequence[str]) -> str:
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def ava(args: argparse.Namespace) -> tuple[dict, str]:
    """AVA-ActiveSpeaker: one AP over all rows."""
    found = read_pair(args)
    figures = figures_of(found.scores, found.labels, probabilities=are_probabilities(found.scores), bins=args.bins)
    notes = words_on_scores(figures, args)
    lines = [
        "| rows | entities | speaking | AP (official mAP) | ECE |",
        "|---:|---:|---:|---:|---:|",
        f"| {figures.rows} | {len(found.entities.names)} | {percent(figures.base_rate)} | {percent(figures.ap, 4)} | "
        f"{'none' if figures.ece is None else percent(figures.ece)} |",
    ]
    report = report_of(
        args,
        args.truth,
        args.scores,
        entities=len(found.entities.names),
        figures={**asdict(figures), "base_rate": figures.base_rate},
        ece_bins=args.bins,
        notes=notes,
    )
    return report, finished(lines, notes)


def wasd(args: argparse.Namespace) -> tuple[dict, str]:
    """WASD: AP by category."""
    if args.metadata is None and args.division is None:
        raise OptionError("give --metadata wasd_metadata.csv or --division dataset_division.txt (or both) of WASD")
    metadata = None if args.metadata is None else read_metadata(args.metadata)
    division = None if args.division is None else read_division(args.division)
    found = read_pair(args)
    videos = found.videos.names
    schemes = {"once": place_once(videos, metadata, division)}
    if division is not None:
        schemes["published"] = place_published(videos, division)
    measured = {
        name: wasd_figures(found.scores, found.labels, found.videos.codes, placement, bins=args.bins)
        for name, placement in schemes.items()
    }
    pooled = measured["once"].sections["pooled"]
    notes = [
        "Easy, Hard and pooled are AP over all their rows together; macro is the mean of the five categories' AP",
        "scheme once: a row counts in one category at most, by its sub-clip where there are metadata",
        *(f"scheme once: {note}" for note in measured["once"].notes),
    ]
    if "published" in measured:
        notes.append("scheme published: as the official script, every category whose list has the recording's id")
        notes += [f"scheme published: {note}" for note in measured["published"].notes]
    notes += [f"the files: {fault}" for fault in faults(metadata, division)]
    notes += words_on_scores(pooled, args)
    report = report_of(
        args,
        args.truth,
        args.scores,
        args.metadata,
        args.division,
        schemes={name: figures.as_dict() for name, figures in measured.items()},
        ece_bins=args.bins,
        notes=notes,
    )
    return report, finished(wasd_table(measured), notes)


def wasd_table(measured: dict[str, WasdFigures]) -> list[str]:
    """Rows of the table: a section each, columns by scheme."""
    columns = ("rows", "speaking", "AP", "ECE")
    head = ["section", *(f"{c}, {name}" if len(measured) > 1 else c for name in measured for c in columns)]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for section in measured["once"].sections:
        cells = [section]
        for figures in (m.sections[section] for m in measured.values()):
            ap = f"undefined: {figures.undefined}" if figures.undefined else percent(figures.ap)
            share = "none" if figures.base_rate is None else percent(figures.base_rate)
            cells += [str(figures.rows), share, ap, "none" if figures.ece is None else percent(figures.ece)]
        lines.append(f"| {' | '.join(cells)} |")
    macro = [cell for m in measured.values() for cell in ("", "", percent(m.macro), "")]
    lines.append(f"| {' | '.join(['macro (mean of the five categories)', *macro])} |")
    return lines


def columbia(args: argparse.Namespace) -> tuple[dict, str]:
    """Columbia: F1 of each person."""
    labels = read_labels(args.labels)
    rows = read_predictions(args.scores, args.score_column)
    size = None if args.pixels else args.frame_size
    faces = faces_of(rows, frame_size=size, box_scale=args.box_scale, fps=args.fps)
    threshold, why = args.threshold, "as asked"
    if threshold is None:
        probable = are_probabilities(rows.scores)
        threshold, why = (0.5, "all scores lie in [0, 1]") if probable else (0.0, "scores leave [0, 1]")
    found = columbia_figures(labels, faces, threshold=threshold, label_fps=args.label_fps, fps=args.fps)
    notes = [
        f"speech is a score above {threshold:g} ({why}); a missed face is silent",
        "the mean is over the five people that the field reports; abbas stays out of it",
    ]
    if found.after_the_end:
        notes.append(f"{found.after_the_end} labels lie after the last prediction; their faces count as missed")
    report = report_of(
        args,
        args.scores,
        threshold=threshold,
        label_fps=args.label_fps,
        fps=args.fps,
        frame_size=None if size is None else list(size),
        box_scale=args.box_scale,
        figures=found.as_dict(),
        notes=notes,
    )
    return report, finished(columbia_table(found), notes)


def columbia_table(found: ColumbiaFigures) -> list[str]:
    """Rows of the table, a person each."""
    lines = [
        "| person | labels | speaking | face found | precision | recall | accuracy | F1 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, f in found.people.items():
        cells = [percent(v) for v in (f.speaking / f.labels, f.found, f.precision, f.recall, f.accuracy, f.f1)]
        outside = " (outside the mean)" if name in OUTSIDE else ""
        lines.append(f"| {name}{outside} | {f.labels} | {' | '.join(cells)} |")
    return [*lines, f"| mean of five | | | | | | | {percent(found.mean_f1)} |"]


def width_x_height(text: str) -> tuple[int, int]:
    """Two whole numbers with an x between."""
    width, _, height = text.lower().partition("x")
    return int(width), int(height)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = p.add_subparsers(dest="data", required=True, metavar="ava|wasd|columbia")
    made = {}
    for name, work, text in (
        ("ava", ava, "AVA-ActiveSpeaker: average precision, the official way"),
        ("wasd", wasd, "WASD: average precision by category, Easy, Hard, macro and pooled"),
        ("columbia", columbia, "Columbia: F1 of each person"),
    ):
        made[name] = kinds.add_parser(name, help=text, description=text)
        made[name].set_defaults(work=work)
    for name in ("ava", "wasd"):
        made[name].add_argument("truth", type=Path, metavar="TRUTH.csv", help="annotations in AVA columns")
    made["columbia"].add_argument("labels", type=Path, metavar="LABELS", help="folder with bell.txt, boll.txt, ...")
    for one in made.values():
        one.add_argument("scores", type=Path, metavar="SCORES.csv", help="predictions: the same columns and a score")
        one.add_argument("--score-column", default="score", metavar="NAME", help="column of the score (default score)")
        one.add_argument("--out", type=Path, metavar="REPORT.json", help="write everything as JSON")
        one.add_argument("--overwrite", action="store_true", help="replace an existing report")
    for name in ("ava", "wasd"):
        made[name].add_argument("--bins", type=int, default=BINS, help=f"of the calibration error (default {BINS})")
    made["wasd"].add_argument("--metadata", type=Path, help="wasd_metadata.csv: categories by sub-clip")
    made["wasd"].add_argument(
        "--division", type=Path, help="dataset_division.txt: categories by recording; adds the published scheme"
    )
    col = made["columbia"]
    col.add_argument("--threshold", type=float, help="speech is a score above it (default 0; 0.5 if all are in [0, 1])")
    width, height = FRAME_SIZE
    col.add_argument(
        "--frame-size",
        type=width_x_height,
        default=FRAME_SIZE,
        metavar="WxH",
        help=f"of the video that boxes are shares of (default {width}x{height})",
    )
    col.add_argument("--pixels", action="store_true", help="boxes are pixels of the video, not shares")
    col.add_argument("--box-scale", type=float, default=BOX_SCALE, help=f"labels' over video's (default {BOX_SCALE:g})")
    col.add_argument("--fps", type=float, default=FPS, help=f"of the frames that are compared (default {FPS:g})")
    col.add_argument("--label-fps", type=float, default=LABEL_FPS, help=f"of the labels (default {LABEL_FPS:g})")
    return p


def run(args: argparse.Namespace) -> str:
    """Everything, as markdown; writes the report where ``--out`` says."""
    if getattr(args, "bins", 1) < 1:
        raise OptionError("--bins must be at least 1")
    if args.out:
        check_report(args.out, args.overwrite)
    report, text = args.work(args)
    if args.out:
        write_report(report, args.out)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    return run_tool(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
