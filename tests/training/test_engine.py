"""The loop: its law of rates, exact resumption, averaged weights, what it writes and when it stops."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asd_explain.errors import OptionError, OutputError
from asd_explain.training.engine import CHECKPOINT, LOG, LoopConfig, Trainer, learning_rate
from asd_explain.training.objective import LossWeights, Objective
from asd_explain.training.sampler import Batch

CONFIG = LoopConfig(
    steps=4, lr=1e-2, precision="float32", workers=0, log_every=1, check_every=100, save_every=100, average=0.9
)


class Prepared:
    """What a sampler gives, without the work."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def batch(self, number: int) -> Batch:
        return self.batches[number]


@pytest.fixture
def sampler(make_batch: Callable) -> Prepared:
    return Prepared([make_batch(seed, length=10) for seed in range(7)])


@pytest.fixture
def begin(tiny: nn.Module, sampler: Prepared, tmp_path: Path) -> Callable[..., Trainer]:
    """``begin(folder, steps=..., check=...)``: always the same fresh network and random numbers."""
    fresh = {k: v.clone() for k, v in tiny.state_dict().items()}

    def made(folder: str = "run", check: Callable | None = None, **changes: object) -> Trainer:
        torch.manual_seed(11)
        objective = Objective(type(tiny)(), LossWeights())
        objective.model.load_state_dict(fresh)
        return Trainer(objective, sampler, replace(CONFIG, **changes), tmp_path / folder, check)

    return made


def cut_off(trainer: Trainer, step: int) -> None:
    """Run until the batch of ``step`` would be drawn."""

    class CutOffError(Exception):
        pass

    given_batch = trainer.sampler.batch

    class Until:
        def batch(self, number: int) -> Batch:
            if number == step:
                raise CutOffError
            return given_batch(number)

    trainer.sampler = Until()
    with pytest.raises(CutOffError):
        trainer.run()


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows(folder: Path) -> list[list[str]]:
    with (folder / LOG).open(newline="") as stream:
        return list(csv.reader(stream))


@settings(deadline=None, max_examples=50)
@given(steps=st.integers(1, 500), warmup=st.floats(0, 1), lr=st.floats(1e-5, 1))
def test_rates_rise_along_a_line_and_fall_along_a_cosine(steps: int, warmup: float, lr: float) -> None:
    config = LoopConfig(steps=steps, warmup=warmup, lr=lr)
    rates = [learning_rate(step, config) for step in range(steps)]
    warm = max(1, round(warmup * steps))
    assert rates[:warm] == pytest.approx([lr * (i + 1) / warm for i in range(warm)])
    assert all(a >= b for a, b in zip(rates[warm:], rates[warm + 1 :], strict=False))
    assert all(0.02 * lr * (1 - 1e-9) <= r <= lr * (1 + 1e-9) for r in rates[warm:])
    if warm < steps:
        assert rates[warm] == pytest.approx(lr)
        middle = config.lr * (0.02 + 0.98 / 2)
        if (steps - warm) % 2 == 0:
            assert rates[warm + (steps - warm) // 2] == pytest.approx(middle)
    assert learning_rate(max(steps, warm + 1), config) == pytest.approx(0.02 * lr)


@pytest.mark.parametrize("workers", [0, 1])
def test_going_on_is_exact(begin: Callable, workers: int) -> None:
    """Two steps, a new process's state, two more: bit by bit what four steps give, dropout included."""
    straight = begin("straight")
    straight.run()
    first = begin("cut", save_every=2)
    cut_off(first, 2)
    torch.manual_seed(99)
    torch.rand(5)
    second = begin("cut", save_every=2)
    second.config = first.config
    assert second.resume()
    assert second.step == 2
    second.config = replace(second.config, workers=workers)
    second.run()
    assert same(second.average, straight.average)
    assert same(second.objective.state_dict(), straight.objective.state_dict())
    assert [r for r in rows(second.folder) if r[1] != "frames_per_s"] == [
        r for r in rows(straight.folder) if r[1] != "frames_per_s"
    ]


def test_steps_that_are_done_again_are_logged_once(begin: Callable) -> None:
    first = begin(save_every=2)
    cut_off(first, 3)
    assert {r[0] for r in rows(first.folder)[1:]} == {"1", "2", "3"}
    second = begin(save_every=2)
    assert second.resume()
    second.run()
    logged = [tuple(r[:2]) for r in rows(second.folder)[1:]]
    assert len(set(logged)) == len(logged)
    assert {step for step, _ in logged} == {"1", "2", "3", "4"}


def test_there_may_be_nothing_to_go_on_from(begin: Callable) -> None:
    trainer = begin()
    assert not trainer.resume()
    assert trainer.step == 0


def test_a_finished_training_has_nothing_left_to_do(begin: Callable) -> None:
    first = begin()
    first.run()
    second = begin()
    assert second.resume()
    second.run()
    assert second.step == 4
    assert same(first.average, second.average)


def test_other_options_are_refused(begin: Callable) -> None:
    begin().save()
    with pytest.raises(OptionError, match=r"other \[loop\] options \(lr, steps\).*--overwrite") as caught:
        begin(lr=1e-3, steps=6).resume()
    assert "\n" not in str(caught.value)


def test_another_network_or_a_damaged_file_is_refused(begin: Callable) -> None:
    trainer = begin()
    trainer.save()
    other = begin()
    other.objective.model.head = nn.Linear(15, 3)
    with pytest.raises(OptionError, match="another network") as caught:
        other.resume()
    assert "\n" not in str(caught.value)
    path = trainer.folder / CHECKPOINT
    whole = path.read_bytes()
    torch.save({"head.weight": torch.zeros(1)}, path)
    with pytest.raises(OptionError, match="no checkpoint of a training"):
        begin().resume()
    path.write_bytes(whole[:1000])
    with pytest.raises(OptionError, match="cannot be read"):
        begin().resume()


def test_a_checkpoint_is_there_as_a_whole_or_not_at_all(begin: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = begin()
    trainer.save()
    before = (trainer.folder / CHECKPOINT).read_bytes()
    trainer.step = 3

    def full_disk(stored: dict, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_disk)
        with pytest.raises(OutputError, match="no space"):
            trainer.save()
    assert (trainer.folder / CHECKPOINT).read_bytes() == before
    assert [p.name for p in trainer.folder.iterdir()] == [CHECKPOINT]


def test_the_log_states_means_since_the_last_row(begin: Callable) -> None:
    every = begin("every", steps=5)
    every.run()
    some = begin("some", steps=5, log_every=2)
    some.run()
    head, *one = rows(every.folder)
    assert head == ["step", "name", "value"]
    names = [r[1] for r in one if r[0] == "1"]
    parts = ["own", "silent", "other", "asked", "streams", "features", "synchrony"]
    assert names == [*parts, "loss", "frames_per_s", "lr"]
    single = {(int(s), n): float(v) for s, n, v in one}
    means = {(int(s), n): float(v) for s, n, v in rows(some.folder)[1:]}
    assert {s for s, _ in means} == {2, 4, 5}, "every second, and the last"
    for name in (*parts, "loss"):
        assert means[2, name] == pytest.approx((single[1, name] + single[2, name]) / 2, rel=1e-4, abs=1e-6)
        assert means[5, name] == pytest.approx(single[5, name], rel=1e-4, abs=1e-6)
    assert single[3, "lr"] == pytest.approx(learning_rate(2, every.config), rel=1e-4)
    assert all(single[s, "frames_per_s"] > 0 for s in range(1, 6))


def test_a_loss_that_is_not_finite_stops_the_training(begin: Callable, sampler: Prepared) -> None:
    sampler.batches[2].weight[0, 0, 0] = torch.nan
    trainer = begin(save_every=1)
    with pytest.raises(FloatingPointError, match="nan at step 2") as caught:
        trainer.run()
    assert "\n" not in str(caught.value)
    kept = begin(save_every=1)
    assert kept.resume()
    assert kept.step == 2
    assert all(v.isfinite().all() for v in kept.average.values())


def test_the_average_follows_the_weights(begin: Callable) -> None:
    """avg <- d avg + (1 - d) w with d = min(average, (1 + step) / (10 + step)); counters are taken as they are."""
    trainer = begin(steps=6, average=0.3)
    expected = {k: v.double() for k, v in trainer.average.items()}
    seen = []
    take = trainer._update_average

    def watched() -> None:
        take()
        decay = min(0.3, (1 + trainer.step) / (10 + trainer.step))
        for key, value in trainer.objective.model.state_dict().items():
            expected[key] = decay * expected[key] + (1 - decay) * value.double()
        seen.append(decay)

    trainer._update_average = watched
    trainer.run()
    assert seen[0] == 0.1
    assert seen[-1] == 0.3
    for key, value in expected.items():
        torch.testing.assert_close(trainer.average[key].double(), value, atol=1e-6, rtol=1e-5)
    averaged = trainer.averaged()
    assert same(averaged.state_dict(), trainer.average)
    assert not averaged.training
    assert trainer.objective.model.training
    assert not same(trainer.objective.model.state_dict(), trainer.average)


def test_the_check_sees_the_averaged_network_now_and_then_and_at_the_end(begin: Callable) -> None:
    seen = []

    def check(model: nn.Module) -> dict[str, float]:
        assert not model.training
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"own": 0.5 + 0.1 * len(seen)}

    trainer = begin(check=check, steps=5, check_every=2, log_every=100)
    trainer.run()
    assert len(seen) == 3
    assert same(seen[-1], trainer.average)
    found = [r for r in rows(trainer.folder) if r[1] == "dev_own"]
    assert found == [["2", "dev_own", "0.6"], ["4", "dev_own", "0.7"], ["5", "dev_own", "0.8"]]
    assert trainer.objective.training


def test_only_matrices_decay(begin: Callable) -> None:
    trainer = begin(weight_decay=0.3)
    decayed, others = trainer.optimiser.param_groups
    assert decayed["weight_decay"] == 0.3
    assert others["weight_decay"] == 0
    absent = set(map(id, trainer.objective.model.absent.values()))
    assert absent <= set(map(id, others["params"]))
    assert len(decayed["params"]) + len(others["params"]) == len(list(trainer.objective.parameters()))


def test_workers_prepare_the_batches_in_order(begin: Callable) -> None:
    alone = begin("alone")
    alone.run()
    helped = begin("helped", workers=2)
    helped.run()
    assert same(alone.average, helped.average)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"lr": 0.0}, {"lr": float("inf")}, {"warmup": 1.5}, {"workers": -1}, {"precision": "half"}]
)
def test_options_that_cannot_be_used(wrong: dict) -> None:
    with pytest.raises(OptionError, match=rf"\[loop\] {next(iter(wrong))} = "):
        LoopConfig(**wrong)
    assert LoopConfig(precision="float32").dtype is None
    assert LoopConfig(precision="bfloat16").dtype is torch.bfloat16
