"""Where the time goes: a stage table for a clip, beside the cost of decoding and encoding it and nothing else."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asd_explain.errors import AsdExplainError, ClipError
from asd_explain.media.container import open_container
from asd_explain.media.reader import VideoReader
from asd_explain.media.writer import VideoWriter
from asd_explain.outputs import write_text

STAGES = {
    "load": "load (network, gates)",
    "audio": "audio (decode, MFCC)",
    "decode": "decode (both passes)",
    "shots": "shot cuts",
    "detect": "detect faces",
    "link": "link",
    "crop": "crop",
    "network": "network",
    "explain": "explain",
    "planes": "copy planes",
    "views": "heat: smooth, scale, upsample",
    "draw": "draw",
    "encode": "encode, mux",
    "first pass": "first pass",
    "second pass": "second pass",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("clip", nargs="?", type=Path, help="clip to measure; default: the project's own demo clip")
    p.add_argument("--minutes", type=float, help="repeat the clip to this length first (for the memory)")
    p.add_argument("--repeats", type=int, default=3, help="runs of each kind; the fastest counts (default 3)")
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: all cores)")
    p.add_argument("--model", default="auto", help="as for asd-explain")
    p.add_argument("--layout", default="overlay", help="as for asd-explain")
    p.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as well")
    return p


def lengthened(clip: Path, minutes: float, folder: Path) -> Path:
    """The clip, stream-copied end to end until it lasts ``minutes``."""
    import av

    target = folder / f"{clip.stem}_{minutes:g}min.mp4"
    with av.open(str(target), "w") as out:
        streams: dict[int, av.stream.Stream] = {}
        offset_s = 0.0
        while offset_s < 60 * minutes:
            end_s = 0.0
            with open_container(clip) as source:
                kept = [*source.streams.video[:1], *source.streams.audio[:1]]
                for stream in kept:
                    if stream.index not in streams:
                        streams[stream.index] = out.add_stream_from_template(stream)
                for packet in source.demux(kept):
                    if packet.dts is None:
                        continue
                    base = packet.stream.time_base
                    end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * base))
                    shift = round(offset_s / base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
            if end_s <= 0:
                raise ClipError(f"{clip}: holds nothing to repeat")
            # A little air, so that the next round's first packets (decoding order, encoder delay) come after the last.
            offset_s += end_s + 0.2
    return target


def own_clip(folder: Path) -> Path:
    """The demo clip, made on the spot."""
    from asd_explain.datasets.talking_photos import PRESETS, make_clip

    target = folder / "demo.mp4"
    make_clip(PRESETS["demo"](), target)
    return target


def copy_clip(clip: Path, target: Path, threads: int) -> tuple[float, int]:
    """Decode and encode with nothing in between: (seconds, frames)."""
    begun, frames = time.perf_counter(), 0
    with VideoReader(clip, threads=threads) as reader:
        info = reader.info
        size = {"width": info.width + info.width % 2, "height": info.height + info.height % 2}
        audio = clip if info.has_audio else None
        with VideoWriter(target, **size, source=info, audio_path=audio, threads=threads) as writer:
            for frame in reader:
                writer.write(frame.planes(), frame.time_s)
                frames += 1
    return time.perf_counter() - begun, frames


def explain(clip: Path, target: Path, args: argparse.Namespace) -> tuple[float, dict]:
    """The whole command in a process of its own: (seconds from start to exit, its manifest)."""
    words = [sys.executable, "-m", "asd_explain.tools.explain_video", str(clip), "-o", str(target), "--quiet"]
    words += ["--overwrite", "--model", args.model, "--layout", args.layout, "--threads", str(args.threads)]
    begun = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise ClipError(done.stderr.strip().removeprefix("asd-explain: error: "))
    return seconds, json.loads(target.with_suffix(".manifest.json").read_text(encoding="utf-8"))


def table(seconds: float, manifest: dict, plain_s: float) -> str:
    """The stage table as text."""
    frames = manifest["clip"]["frames"]
    timings = manifest["timings_s"]
    explained = timings["explain"] + timings["views"]
    lines = [f"{'stage':30s} {'s':>8s} {'ms/frame':>9s}"]
    for stage, title in STAGES.items():
        if stage in timings:
            lines.append(f"{title:30s} {timings[stage]:8.2f} {1e3 * timings[stage] / frames:9.2f}")
    lines.append("(stages run side by side: their sum is more than the whole)")
    size = f"{manifest['clip']['width']}x{manifest['clip']['height']}"
    lines += [
        "",
        f"clip                       {frames} frames, {size}, {manifest['tracks']} tracks, {os.cpu_count()} cores",
        f"whole command              {seconds:.2f} s = {frames / seconds:.1f} frames a second",
        f"decode + encode alone      {plain_s:.2f} s; the whole command costs {seconds / plain_s:.2f} times that",
        f"explaining adds            {100 * explained / timings['network']:.1f} % to the network's time",
        f"peak memory                {manifest['peak_rss_mb']:.0f} MB",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            clip = args.clip or own_clip(folder)
            if args.minutes:
                clip = lengthened(clip, args.minutes, folder)
            plain = min(copy_clip(clip, folder / f"plain{i}.mp4", args.threads)[0] for i in range(args.repeats))
            runs = [explain(clip, folder / "explained.mp4", args) for _ in range(args.repeats)]
            seconds, manifest = min(runs, key=lambda run: run[0])
            print(table(seconds, manifest, plain))
            if args.json:
                figures = {"seconds": [run[0] for run in runs], "plain_s": plain, "manifest": manifest}
                write_text(args.json, json.dumps(figures, indent=1) + "\n")
    except AsdExplainError as error:
        print(f"benchmark: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
