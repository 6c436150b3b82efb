"""Make the training layout of the field (crops and sound of every track) from annotation csv files and videos.

    python tools/prepare.py --dataset ava --csv AVA/csv --videos AVA/orig_videos --out AVA --split train val
    python tools/prepare.py --dataset wasd --csv WASD/csv --videos WASD/orig_videos --out WASD --split train val
    python tools/prepare.py --dataset columbia --csv col_labels/fusion --videos columbia.mp4 --out Columbia

OUT gets ``clips_videos``, ``clips_audios`` (WASD: ``clips_videos_body``) and ``csv/SPLIT_orig.csv``,
``SPLIT_loader.csv``, as the loaders of TalkNet and its kin read them (see ``datasets/dumped.py``), and
``prepared/SPLIT.json`` with what was made and what is missing. Crops are gray: the loaders make them so. Tracks that
are there and whole are left alone, so the same command goes on where a run was cut off. Videos are looked for under the
folder by their names. What is missing does not end the run: it is listed at the end, the tables leave it out, and the
exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from asd_explain.datasets.annotations import find_table, loader_lines, orig_lines, read_tracks
from asd_explain.datasets.columbia import ColumbiaSet
from asd_explain.datasets.entities import EntityRow
from asd_explain.datasets.preparing import VideoJob, VideoReport, prepare_video
from asd_explain.datasets.streamed import find_videos, videos_of
from asd_explain.errors import OptionError, OutputError
from asd_explain.outputs import write_text
from asd_explain.running import run_tool

log = logging.getLogger("asd_explain.tools.prepare")

DATASETS = ("ava", "wasd", "columbia")
_SHOWN = 8


@dataclass(frozen=True)
class SplitPlan:
    """What one split is made of: its tracks, their videos, and the annotation files they come from."""

    split: str
    rows: list[EntityRow]
    videos: dict[str, Path]
    sources: tuple[Path, ...]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dataset", choices=DATASETS, required=True)
    p.add_argument("--split", nargs="+", help="train, val, test (default: train val; columbia: test)")
    p.add_argument("--csv", type=Path, required=True, help="annotations: a folder, or a csv where one split is made")
    p.add_argument("--body-csv", type=Path, help="csv of bodies, or a folder (default: beside --csv; wasd only)")
    p.add_argument("--videos", type=Path, required=True, help="folder of the videos (columbia: the video)")
    p.add_argument("--out", type=Path, required=True, help="the data set's folder; made when needed")
    p.add_argument("--no-body", action="store_true", help="leave bodies out (wasd)")
    p.add_argument("--workers", type=int, default=0, help="processes, 0 for all cores (default)")
    p.add_argument("--backend", choices=("auto", "decord", "pyav"), default="auto", help="of random access")
    p.add_argument("--overwrite", action="store_true", help="replace crops, sound and tables that differ")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def plans(args: argparse.Namespace) -> list[SplitPlan]:
    """What is to be made.

    Raises:
        OptionError: options that do not go together.
        DataError: annotations or videos are not there, or malformed.
    """
    splits = args.split or (["test"] if args.dataset == "columbia" else ["train", "val"])
    if args.workers < 0:
        raise OptionError(f"--workers {args.workers} is negative; 0 means all cores")
    if len(set(splits)) < len(splits) or any(not name.isalnum() for name in splits):
        raise OptionError(f"--split {' '.join(splits)}: name each split once, such as train val")
    if args.dataset == "columbia":
        if len(splits) > 1:
            raise OptionError("columbia has one split; give one --split")
        whole = ColumbiaSet.streamed(args.csv, args.videos)
        return [SplitPlan(splits[0], whole.rows, whole.source.paths, (args.csv,))]
    if len(splits) > 1 and args.csv.is_file():
        raise OptionError(f"--csv {args.csv} is one file; give a folder, or one --split")
    videos = find_videos(args.videos)
    out = []
    for split in splits:
        tables = find_table(args.csv, split)
        body: list[Path] = []
        if with_body(args):
            folder = args.csv if args.csv.is_dir() else args.csv.parent
            body = find_table(args.body_csv or folder, split, body=True)
        rows = read_tracks(tables, body[0] if body else None)
        out.append(SplitPlan(split, rows, videos, (*tables, *body)))
    return out


def with_body(args: argparse.Namespace) -> bool:
    """Whether bodies are cut."""
    return args.dataset == "wasd" and not args.no_body


def prepare_split(plan: SplitPlan, args: argparse.Namespace) -> dict:
    """Make one split; returns its report, which is also in OUT/prepared/SPLIT.json."""
    report_path = args.out / "prepared" / f"{plan.split}.json"
    before = _read_report(report_path)
    tables = _tables(plan, args)
    for name in tables:  # found out before hours of work
        _check_table(args.out / "csv" / name, plan, before, args.overwrite)
    trial = args.out / "prepared" / f".{plan.split}.trial"
    write_text(trial, "")
    trial.unlink()
    jobs = [
        VideoJob(
            *(video, plan.videos.get(video), tuple(rows), args.out, plan.split),
            *(with_body(args), args.overwrite, args.backend),
        )
        for video, rows in videos_of(plan.rows).items()
    ]
    reports: dict[str, VideoReport] = {}
    with tqdm(total=len(jobs), desc=f"{plan.split}: videos", disable=args.quiet or None, leave=False) as bar:
        for report in _run_jobs(jobs, args.workers or os.cpu_count() or 1):
            reports[report.video_id] = report
            bar.update()
    ordered = [reports[job.video_id] for job in jobs]
    complete = set().union(*(report.complete for report in ordered))
    rows = [row for row in plan.rows if row.entity_id in complete]
    sums = {}
    for name, lines in _tables(plan, args, rows).items():
        path = args.out / "csv" / name
        if _is_source(path, plan):
            continue
        text = "".join(f"{line}\n" for line in lines)
        write_text(path, text)
        sums[name] = hashlib.sha256(text.encode()).hexdigest()
    summary = {
        "dataset": args.dataset,
        "split": plan.split,
        "tracks": len(plan.rows),
        "complete": len(complete),
        "made": sum(len(r.made) for r in ordered),
        "kept": sum(len(r.kept) for r in ordered),
        "crops_written": sum(r.frames for r in ordered),
        "missing_videos": [r.video_id for r in ordered if r.missing_video],
        "videos_without_sound": [r.video_id for r in ordered if r.missing_audio],
        "tracks_outside_their_video": {k: v for r in ordered for k, v in r.outside.items()},
        "tracks_without_body_boxes": {k: v for r in ordered for k, v in r.no_body.items()},
        "failed": {k: v for r in ordered for k, v in r.failed.items()},
        "tables": sums,
        "videos": {
            r.video_id: asdict(r) for r, job in zip(ordered, jobs, strict=True) if len(r.complete) < len(job.rows)
        },
    }
    write_text(report_path, json.dumps(summary, indent=1) + "\n")
    return summary


def _run_jobs(jobs: list[VideoJob], workers: int) -> Iterator[VideoReport]:
    if workers == 1 or len(jobs) == 1:
        yield from map(prepare_video, jobs)
        return
    # spawn: a forked child would inherit the decoders' and torch's threads in an unknown state
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=multiprocessing.get_context("spawn"))
    try:
        futures = {pool.submit(prepare_video, job): job for job in jobs}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise OptionError(
                    "a worker process was killed, as happens without memory; try fewer --workers: the run goes on "
                    "where it stopped"
                ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _tables(plan: SplitPlan, args: argparse.Namespace, rows: Sequence[EntityRow] = ()) -> dict[str, Iterator[str]]:
    """Lines of the tables by file name."""
    tables = {f"{plan.split}_orig.csv": orig_lines(rows), f"{plan.split}_loader.csv": loader_lines(rows)}
    if with_body(args):
        tables[f"{plan.split}_body_orig.csv"] = orig_lines(rows, body=True)
        tables[f"{plan.split}_body_loader.csv"] = loader_lines(rows)
    return tables


def _is_source(path: Path, plan: SplitPlan) -> bool:
    return any(path.exists() and source.exists() and path.samefile(source) for source in plan.sources)


def _check_table(path: Path, plan: SplitPlan, before: dict, overwrite: bool) -> None:
    """See that a table may be written: it is new, ours, or may be replaced. The annotations are never replaced.

    Raises:
        OutputError: it may not.
    """
    if not path.exists() or overwrite or _is_source(path, plan):
        return
    if hashlib.sha256(path.read_bytes()).hexdigest() != before.get("tables", {}).get(path.name):
        raise OutputError(f"{path} exists and was not made by this command; give another --out, or --overwrite")


def _read_report(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def summary_text(summary: dict, out: Path) -> str:
    """What a person wants to know about one split."""
    lines = [
        f"{summary['dataset']} {summary['split']}: {summary['complete']} of {summary['tracks']} tracks are complete "
        f"({summary['made']} made now, {summary['kept']} kept, {summary['crops_written']} crops written)"
    ]
    for what, key in (
        ("videos missing", "missing_videos"),
        ("videos without sound", "videos_without_sound"),
        ("tracks with frames outside their video", "tracks_outside_their_video"),
        ("tracks without all body boxes", "tracks_without_body_boxes"),
        ("tracks failed", "failed"),
    ):
        if names := list(summary[key]):
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"  {what}: {len(names)} ({', '.join(names[:_SHOWN])}{more})")
    lines += [f"    {text}" for text in list(dict.fromkeys(summary["failed"].values()))[:_SHOWN]]
    lines.append(f"  all of it: {out / 'prepared' / (summary['split'] + '.json')}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 1 where something is missing, 2 where the command could not be carried out."""
    args = parser().parse_args(argv)
    summaries: list[dict] = []

    def work() -> str:
        for plan in plans(args):
            summaries.append(prepare_split(plan, args))
        return "".join(summary_text(summary, args.out) for summary in summaries)

    code = run_tool(work, "interrupted; the same command goes on where it stopped")
    return code or int(any(s["complete"] < s["tracks"] for s in summaries))


if __name__ == "__main__":
    raise SystemExit(main())
