"""What several tests of recipes need: a loss by hand, a training in two processes."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket

import numpy as np
import torch

from asd_explain.tools import train


def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> float:
    """By hand, in float64."""
    x, t = logits.detach().double().numpy(), target.numpy()
    p = np.exp(x - x.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return float(-np.log(np.take_along_axis(p, t[..., None], -1)).mean())


def in_two_processes(words: list[str]) -> None:
    """The command as torchrun starts it, without the time that a new interpreter takes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(rank: int) -> None:
        faulthandler.dump_traceback_later(50, exit=True)
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        code = train.main(words)
        os._exit(code)  # a forked interpreter has nothing of its own to tidy up

    processes = [multiprocessing.get_context("fork").Process(target=one, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
