"""What a second of one face costs each network: milliseconds of a CPU a face-frame, sound and classifier included.

    python tools/benchmark_networks.py [--threads 1] [--json FILE]

The parameters are random: time does not depend on them. Networks take turns, and the fastest of the rounds counts, so
that what else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.media.features import AUDIO_FEATURES
from asd_explain.models.registry import create_model, list_models
from asd_explain.outputs import check_new, write_text
from asd_explain.running import run_tool

FRAMES = 50  # as the pipeline encodes them


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=15, help="the fastest counts (default 15)")
    p.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    p.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as well")
    p.add_argument("--overwrite", action="store_true", help="an existing --json may be replaced")
    return p


def variants() -> dict[str, tuple[nn.Module, bool]]:
    """{title: (network, with the body)}: every backbone, and once more with the body where it has that stream."""
    found = {}
    for name in list_models():
        model = create_model(name)
        sees_body = "body" in model.crops
        if not sees_body or model.learned_absence:
            found[f"{name}, face alone" if sees_body else name] = (model, False)
        if sees_body:
            found[f"{name}, face and body"] = (model, True)
    return found


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@torch.inference_mode()
def measure(rounds: int) -> dict[str, dict[str, float]]:
    """{title: {"parameters": millions, "ms": milliseconds a face-frame}}."""
    crops = torch.randint(0, 256, (1, FRAMES, 112, 112), dtype=torch.uint8)
    sounds = {width: torch.randn(1, 4 * FRAMES, width) for _, width in AUDIO_FEATURES.values()}
    networks = variants()
    best = dict.fromkeys(networks, float("inf"))
    for _ in range(rounds + 1):  # one to warm up would be enough; the fastest counts anyway
        for title, (model, with_body) in networks.items():
            body = crops if with_body else None
            best[title] = min(best[title], seconds_of(lambda m=model, b=body: m(crops, sounds[m.audio_width], b)))
    return {
        title: {
            "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
            "ms": 1e3 * best[title] / FRAMES,
        }
        for title, (model, _) in networks.items()
    }


def run(args: argparse.Namespace) -> str:
    """Everything, as a table of plain text."""
    if min(args.rounds, args.threads) < 1:
        raise OptionError("--rounds and --threads must be at least 1")
    if args.json:
        check_new(args.json, args.overwrite)
    torch.set_num_threads(args.threads)
    found = measure(args.rounds)
    against = found["lr_asd"]["ms"]
    lines = [f"{'network':32s} {'parameters':>10s} {'ms/frame':>9s} {'frames/s':>9s} {'x LR-ASD':>9s}"]
    lines += [
        f"{title:32s} {row['parameters']:9.2f}M {row['ms']:9.2f} {1e3 / row['ms']:9.0f} {row['ms'] / against:9.2f}"
        for title, row in found.items()
    ]
    if args.json:
        write_text(args.json, json.dumps(found, indent=1) + "\n")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    return run_tool(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
