"""Explain clips: who speaks, and which pixels and which modality made the network say so."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from asd_explain.memory import give_back_large_blocks

INTERRUPTED = 130
EPILOG = """\
examples:
  asd-explain talk.mp4                          writes talk_explained.mp4 and its tables into this folder
  asd-explain talk.mp4 -o out/talk.mp4 --layout panel
  asd-explain *.mp4 -o out/ --quiet             several clips, one after the other, into a folder
  asd-explain talk.mp4 --start 60 --end 90 --stills 62.5,71 --stills-format pdf
  asd-explain talk.mp4 --boxes talk_faces.csv   face boxes in AVA or WASD csv instead of detection

beside OUT.mp4: OUT.scores.csv (every face and frame), OUT.segments.json (who speaks when),
OUT.heat.npz (raw heat, gates, shares), OUT.manifest.json (versions, options, timings)
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="asd-explain",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("clips", nargs="+", metavar="CLIP", type=Path, help="any video that FFmpeg reads")
    p.add_argument(
        "-o",
        "--output",
        metavar="OUT.mp4",
        type=Path,
        help="the video to write, or a folder (needed for several clips); default CLIP_explained.mp4 in this folder",
    )
    net = p.add_argument_group("network")
    net.add_argument(
        "--model", default="auto", help="auto, a backbone (squeeze_asd, lr_asd, light_asd) or a weights card"
    )
    net.add_argument("--weights", metavar="FILE", type=Path, help="read the network from this file")
    net.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    faces = p.add_argument_group("faces")
    faces.add_argument("--detector", default="auto", help="auto, yunet, yunet-2023mar or haar (default auto)")
    faces.add_argument("--boxes", metavar="CSV", type=Path, help="face boxes (AVA or WASD csv) instead of detection")
    faces.add_argument("--body-boxes", metavar="CSV", type=Path, help="body boxes for the same entities")
    why = p.add_argument_group("explanation")
    why.add_argument(
        "--explainer",
        default="se",
        help="se (default), se-plain (without gains), se-paper (the published recipe); to compare: gradcam, gradcam++, "
        "eigengradcam, fem",
    )
    why.add_argument("--streams", default="face,body", help="streams whose heat is drawn (default face,body)")
    why.add_argument(
        "--smooth", metavar="SECONDS", type=float, help="standard deviation of the heat's smoothing in time; 0: none"
    )
    why.add_argument("--threshold", metavar="P", type=float, default=0.5, help="P(speaking) that counts as speaking")
    out = p.add_argument_group("output")
    out.add_argument("--layout", default="overlay", help="overlay, or panel with enlarged crops at the side")
    out.add_argument("--stills", metavar="TIMES", default="", help="figures at these seconds, separated by commas")
    out.add_argument("--stills-format", default="png", help="png or pdf (default png)")
    out.add_argument("--start", metavar="SECONDS", type=float, help="begin here, from the first frame")
    out.add_argument("--end", metavar="SECONDS", type=float, help="end here, from the first frame")
    out.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    run = p.add_argument_group("running")
    run.add_argument("--threads", type=int, default=0, help="CPU threads (default: all cores)")
    run.add_argument("--seed", type=int, default=0, help="seed of everything random")
    run.add_argument(
        "-q", "--quiet", action="store_true", help="no progress and no remarks, only errors and what was written"
    )
    return p


def target_of(clip: Path, output: Path | None, several: bool) -> Path:
    """Where a clip's video goes.

    Raises:
        OptionError: several clips and one file name.
        OutputError: the folder cannot be made.
    """
    from asd_explain.errors import OptionError, OutputError

    name = f"{clip.stem}_explained.mp4"
    if output is None:
        return Path(name)
    if output.suffix == "" or output.is_dir():
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{output}: cannot be made ({error.strerror}); choose another folder") from error
        return output / name
    if several:
        raise OptionError(f"-o {output}: several clips need a folder, not one file")
    return output


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 when a clip failed, 130 when interrupted (argparse exits with 2)."""
    args = parser().parse_args(argv)
    give_back_large_blocks()
    with remarks(quiet=args.quiet):
        return explain_all(args)


@contextmanager
def remarks(*, quiet: bool) -> Iterator[None]:
    """Show the package's remarks on stderr, one line each, for as long as this lasts; none of them when quiet."""
    logger = logging.getLogger("asd_explain")
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.ERROR if quiet else logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def explain_all(args: argparse.Namespace) -> int:
    """Explain every clip in turn; returns the exit code."""
    failed = 0
    try:
        from asd_explain.errors import AsdExplainError, OutputError
        from asd_explain.pipeline import explain_video

        options = {
            "model": args.model,
            "weights": args.weights,
            "device": args.device,
            "detector": args.detector,
            "boxes": args.boxes,
            "body_boxes": args.body_boxes,
            "explainer": args.explainer,
            "streams": tuple(s.strip() for s in args.streams.split(",") if s.strip()),
            "layout": args.layout,
            "threshold": args.threshold,
            "still_format": args.stills_format,
            "start_s": args.start,
            "end_s": args.end,
            "threads": args.threads,
            "overwrite": args.overwrite,
            "seed": args.seed,
            "progress": not args.quiet,
        }
        if args.smooth is not None:
            options["smooth_s"] = args.smooth
        taken: dict[Path, Path] = {}
        for clip in args.clips:
            try:
                options["stills"] = moments(args.stills)
                output = target_of(clip, args.output, len(args.clips) > 1)
                if output.absolute() in taken:
                    raise OutputError(f"{clip}: its output {output} was just written for {taken[output.absolute()]}")
                result = explain_video(clip, output, **options)
            except AsdExplainError as error:
                complain(error)
                failed += 1
                continue
            except Exception as error:
                # One clip's surprise must not take the others along; the trace is for whoever mends it.
                logging.getLogger("asd_explain").debug("unexpected", exc_info=True)
                complain(f"{clip}: unexpected {type(error).__name__}: {' '.join(str(error).split())}; please report it")
                failed += 1
                continue
            taken[output.absolute()] = clip
            report(result)
    except KeyboardInterrupt:
        print("asd-explain: interrupted; nothing unfinished was left", file=sys.stderr)
        return INTERRUPTED
    return 1 if failed else 0


def complain(error: object) -> None:
    """One line on standard error."""
    print(f"asd-explain: error: {error}", file=sys.stderr)


def moments(text: str) -> tuple[float, ...]:
    """Seconds from a list such as "1.5,12".

    Raises:
        OptionError: for anything else.
    """
    from asd_explain.errors import OptionError

    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise OptionError(f"--stills {text!r}: seconds separated by commas are needed, such as 1.5,12") from None


def report(result: object) -> None:
    """Say on standard output what was written."""
    speaking = {s["track"] for s in result.segments()["segments"]}
    told = f"{len(result.tracks)} tracks, {len(speaking)} of them speaking" if result.tracks else "no face found"
    print(f"{result.files['video']}  ({told}; {result.manifest['timings_s']['total']:.1f} s)")


def command() -> NoReturn:
    """The console command: :func:`main`, and an exit that no thread of a library can spoil."""
    code = main()
    if code == INTERRUPTED:
        # Everything of ours is closed by now; PyTorch's and FFmpeg's threads, caught in the middle, may abort the
        # process when the interpreter takes them down, with a code and a message of their own.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    command()
