"""From a recipe to weights: learns, goes on to the same bits, shares its work, and leaves files that the tools take."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from entity_support import FakeEntities, SmallNetwork, fake_entities
from safetensors.torch import load_file
from training_support import in_two_processes

from asd_explain.errors import OptionError, WeightsError
from asd_explain.evaluate.ava_csv import ava_average_precision
from asd_explain.evaluate.detection import average_precision
from asd_explain.models.registry import create_model
from asd_explain.tools import explain_video, predict_asd, train
from asd_explain.training import recipe_run
from asd_explain.training.recipe_data import RecipeBatches
from asd_explain.training.recipe_trainer import CHECKPOINT, LOG, RecipeTrainer
from asd_explain.weights.cards import Card
from asd_explain.weights.choice import choose
from asd_explain.weights.store import load, read_state

RECIPE = """
seed = 2
[model]
name = "light_asd"
[batches]
frames = 60
[loss]
audio = 0.4
face = 0.4
[loop]
epochs = 2
lr = 5e-3
save_every = 2
"""


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeEntities]:
    """Twelve entities to learn from in six batches, five others to look at."""
    found = {
        "train": fake_entities([24, 30, 18, 26] * 3, seed=1),
        "val": fake_entities([25, 18, 31, 22, 27], seed=2, fps=30),
    }
    monkeypatch.setattr(recipe_run, "open_entities", lambda name, root, split, body: found[split])
    monkeypatch.setattr(predict_asd, "open_entities", lambda name, root, split, body: found[split])
    monkeypatch.setattr(predict_asd, "detect_set", lambda root, split: "ava")
    monkeypatch.setattr(recipe_run, "keep_large_blocks", lambda: None)
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is one of no size, whatever the recipe says."""
    monkeypatch.setattr(recipe_run, "build", lambda config: SmallNetwork())


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., list[str]]:
    """``command(out, *more)``: arguments of two epochs."""
    (tmp_path / "mine.toml").write_text(RECIPE)

    def arguments(out: str, *more: str) -> list[str]:
        return [
            *(str(tmp_path / "mine.toml"), "--out", str(tmp_path / out), "--data", str(tmp_path), "--quiet"),
            *("--threads", "1", "--workers", "0", "--device", "cpu", *more),
        ]

    return arguments


def one_line(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "\n" not in record.getMessage()
    return record.getMessage()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.usefixtures("sets", "small")
def test_learns_and_leaves_the_best_and_the_last(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(command("out", "--set", "loop.epochs=8", "--set", "loop.lr=0.02")) == 0
    out = tmp_path / "out"
    assert capsys.readouterr().out == f"{out / 'best.safetensors'}\n"
    names = {"best.safetensors", "best.toml", "last.safetensors", "last.toml", CHECKPOINT, LOG, "config.json"}
    assert {p.name for p in out.iterdir()} == names
    log = rows(out / LOG)
    assert [row["epoch"] for row in log] == [str(i) for i in range(1, 9)]
    assert float(log[-1]["loss_fused"]) < 0.8 * float(log[0]["loss_fused"])
    assert float(log[2]["lr"]) == pytest.approx(0.02 * 0.95**2)
    best = tomllib.loads((out / "best.toml").read_text())
    card = Card(**{**best, "limits": tuple(best["limits"])})
    assert (card.kind, card.model, card.geometry, card.file) == ("network", "light_asd", "box", "best.safetensors")
    values = [float(row["val_ap"]) for row in log]
    assert max(values) > card.results["val_base_rate"] + 0.25, "on entities that were not learnt from"
    assert card.results["val_ap"] == pytest.approx(max(values), abs=1e-5)
    assert card.results["epoch"] == values.index(max(values)) + 1
    assert card.results["val_frames"] == 123
    assert "--set loop.epochs=8" in card.results["command"]
    assert str(tmp_path) not in (out / "best.toml").read_text()
    kept = torch.load(out / CHECKPOINT, weights_only=True)["objective"]
    last = load_file(out / "last.safetensors")
    assert all(torch.equal(values, kept[f"model.{key}"]) for key, values in last.items())


@pytest.mark.usefixtures("sets", "small")
@pytest.mark.parametrize("where", ["after an epoch", "within an epoch"])
def test_what_was_cut_off_goes_on_to_the_same_bits(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    assert train.main(command("straight")) == 0
    batch = RecipeBatches.batch
    seen: list[int] = []

    def interrupted(self: RecipeBatches, epoch: int, number: int) -> object:
        seen.append(epoch)
        if (where == "after an epoch" and epoch == 2) or len(seen) == 4:
            raise KeyboardInterrupt
        return batch(self, epoch, number)

    with monkeypatch.context() as patch:
        patch.setattr(RecipeBatches, "batch", interrupted)
        if where == "after an epoch":
            seen += [0] * 10
        assert train.main(command("out")) == 130
    assert "goes on from the last checkpoint" in one_line(caplog)
    torch.manual_seed(99)
    assert train.main(command("out")) == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    one, two = (rows(tmp_path / folder / LOG) for folder in ("straight", "out"))
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in one] == [
        {k: v for k, v in row.items() if k != "seconds"} for row in two
    ]


@pytest.mark.usefixtures("small")
def test_a_validation_that_was_cut_off_is_done_again(
    sets: dict[str, FakeEntities],
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert train.main(command("straight")) == 0
    sets["val"].missing = sets["val"].rows[2].entity_id
    assert train.main(command("out")) == 2
    assert one_line(caplog) == f"audio/{sets['val'].missing}.wav: no such file; prepare the data set again"
    sets["val"].missing = ""
    saved = RecipeTrainer._save

    def failing(self: RecipeTrainer) -> None:
        if self.state.done == 0 and self.state.epoch == 3:
            raise KeyboardInterrupt  # weights and log are written, the checkpoint is not
        saved(self)

    with monkeypatch.context() as patch:
        patch.setattr(RecipeTrainer, "_save", failing)
        assert train.main(command("out")) == 130
    assert train.main(command("out")) == 0
    assert [row["epoch"] for row in rows(tmp_path / "out" / LOG)] == ["1", "2"]
    one, two = ((tmp_path / folder / "last.safetensors").read_bytes() for folder in ("straight", "out"))
    assert one == two


@pytest.mark.usefixtures("sets", "small")
def test_workers_change_nothing(command: Callable[..., list[str]], tmp_path: Path) -> None:
    assert train.main(command("straight", "--set", "loop.epochs=1")) == 0
    assert train.main([*command("out", "--set", "loop.epochs=1"), "--workers", "2"]) == 0
    one, two = ((tmp_path / folder / "last.safetensors").read_bytes() for folder in ("straight", "out"))
    assert one == two


@pytest.mark.usefixtures("sets")
def test_two_processes_learn_what_one_does(
    command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_run, "build", lambda config: SmallNetwork(drop=0.0))
    more = ["--set", "augment.voice=1.0"]
    assert train.main(command("one", *more)) == 0
    in_two_processes(command("two", *more))
    one, two = (load_file(tmp_path / folder / "last.safetensors") for folder in ("one", "two"))
    torch.manual_seed(2)
    start = SmallNetwork(drop=0.0).state_dict()
    for key, values in one.items():
        torch.testing.assert_close(two[key], values, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(values, start[key], rtol=1e-2, atol=1e-3), "it has learnt"
    logs = [rows(tmp_path / folder / LOG) for folder in ("one", "two")]
    assert [len(log) for log in logs] == [2, 2], "written once"
    for a, b in zip(*logs, strict=True):
        assert a["frames"] == b["frames"]
        for name in ("loss", "loss_face", "accuracy", "val_ap"):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-3)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {support!r})
from entity_support import SmallNetwork, fake_entities
from asd_explain.tools import train
from asd_explain.training import recipe_run
sets = {{"train": fake_entities([24, 30, 18, 26] * 3, seed=1), "val": fake_entities([25, 18, 31], seed=2)}}
recipe_run.open_entities = lambda name, root, split, body: sets[split]
recipe_run.build = lambda config: SmallNetwork()
raise SystemExit(train.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_torchrun_trains_and_goes_on(command: Callable[..., list[str]], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(support=str(Path(__file__).parents[1] / "support")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run() -> subprocess.CompletedProcess:
        return subprocess.run(
            [*launch, *command("out")], capture_output=True, text=True, check=False, env=environment, timeout=300
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out' / 'best.safetensors'}\n", "said once"
    assert run().returncode == 0
    assert len(rows(tmp_path / "out" / LOG)) == 2, "it was at its end"


@pytest.fixture
def short(sets: dict[str, FakeEntities]) -> dict[str, FakeEntities]:
    """Sets for a network of real size."""
    sets["train"] = fake_entities([9, 8], seed=1)
    sets["val"] = fake_entities([12, 7, 9], seed=2)
    return sets


@pytest.mark.usefixtures("short")
def test_weights_with_a_block_trained_in_are_taken_by_every_tool(
    command: Callable[..., list[str]], tmp_path: Path, face_clip: Path, face_boxes: Path
) -> None:
    more = ["--set", "model.gates=true", "--set", "model.reduction=8", "--set", "loss.audio=0"]
    assert train.main(command("out", "--set", "loop.epochs=1", *more)) == 0
    best = tmp_path / "out" / "best.safetensors"
    assert choose("auto", best).startswith("light_asd.")
    model = load(choose("light_asd", best), weights=best)
    assert model.fusion_gate.reduce.out_features == 32
    assert torch.equal(model.fusion_gate.reduce.weight, read_state(best)["fusion_gate.reduce.weight"])
    assert (model.card.name, model.card.geometry) == ("light_asd.out.best", "box")
    words = ["--model", "light_asd", "--weights", str(best), "--boxes", str(face_boxes), "--device", "cpu"]
    assert explain_video.main([str(face_clip), "--out", str(tmp_path / "video"), *words]) == 0
    (manifest,) = (tmp_path / "video").glob("*.manifest.json")
    assert "light_asd.out.best" in manifest.read_text()
    with pytest.raises(WeightsError, match="are weights of light_asd, not of lr_asd"):
        load("lr_asd.pretrain_AVA", weights=best)
    (tmp_path / "out" / "best.toml").rename(tmp_path / "elsewhere.toml")
    with pytest.raises(WeightsError, match="no card beside them"):
        load(choose("light_asd", best), weights=best)
    (tmp_path / "out" / "last.toml").write_text((tmp_path / "elsewhere.toml").read_text().replace("best.", "last."))
    last = best.with_name("last.safetensors")
    last.write_bytes(last.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    with pytest.raises(WeightsError, match="is the card of other weights"):
        load(choose("light_asd"), weights=last)
    # Renamed together they still belong together: the hash says so.
    mine = best.rename(tmp_path / "mine.safetensors")
    (tmp_path / "elsewhere.toml").rename(tmp_path / "mine.toml")
    assert load(choose("light_asd"), weights=mine).card.name == "light_asd.out.best"


def test_predictions_are_what_the_official_evaluation_reads(
    short: dict[str, FakeEntities],
    command: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train.main(command("out", "--set", "loop.epochs=1", "--set", "loss.audio=0")) == 0
    recorded = float(rows(tmp_path / "out" / LOG)[0]["val_ap"])
    capsys.readouterr()
    truth = tmp_path / "val_orig.csv"
    names = [*predict_asd.COLUMNS[:6], "label", "entity_id", "label_id", "instance_id"]
    lines = [",".join(names)]
    for row in reversed(short["val"].rows):
        for stamp, box, label in zip(row.timestamps_s, row.boxes, row.labels, strict=True):
            where = ",".join(f"{value:.6f}" for value in box)
            said = ("NOT_SPEAKING", "SPEAKING_AUDIBLE")[label]
            lines.append(f"{row.video_id},{stamp:.2f},{where},{said},{row.entity_id},{label},{row.entity_id}:0")
    truth.write_text("\n".join(lines) + "\n")
    words = ["--weights", str(tmp_path / "out" / "best.safetensors"), "--data", str(tmp_path), "--device", "cpu"]
    words += ["--workers", "0", "--quiet"]
    assert predict_asd.main([*words, "--out", str(tmp_path / "scores.csv")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'scores.csv'}: 28 rows, 3 entities\n"
    assert ava_average_precision(truth, tmp_path / "scores.csv") == pytest.approx(recorded, abs=1e-5)
    assert predict_asd.main([*words, "--out", str(tmp_path / "like.csv"), "--like", str(truth)]) == 0
    written = (tmp_path / "like.csv").read_text().splitlines()
    assert [w.split(",")[:6] for w in written] == [line.split(",")[:6] for line in lines], "digit by digit, row by row"
    assert ava_average_precision(truth, tmp_path / "like.csv") == pytest.approx(recorded, abs=1e-5)
    assert predict_asd.main([*words, "--out", str(tmp_path / "like.csv")]) == 2, "it is there"


def test_mistakes_of_predicting(
    sets: dict[str, FakeEntities], command: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores = {i: np.zeros(len(row.labels)) for i, row in enumerate(sets["val"].rows)}
    truth = tmp_path / "other.csv"
    truth.write_text("video9,1.00,0,0,1,1,NOT_SPEAKING,somebody\n")
    with pytest.raises(OptionError, match="line 1: somebody at 1 s is not in the data set"):
        list(predict_asd.rows_like(truth, sets["val"], scores))
    truth.write_text("video9,1.00\n")
    with pytest.raises(OptionError, match="is no annotation csv"):
        list(predict_asd.rows_like(truth, sets["val"], scores))
    sets["val"].change(1, entity=replace(sets["val"].rows[1], boxes=None))
    with pytest.raises(OptionError, match="has no boxes of it"):
        predict_asd.write_csv(tmp_path / "scores.csv", predict_asd.entity_rows(sets["val"], scores))
    assert list(tmp_path.glob("*scores*")) == [], "nothing half-written"


@pytest.mark.usefixtures("sets", "small")
def test_mistakes_are_told_in_one_line(
    command: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train.main(command("out")[:3]) == 2
    assert "say where it lies with --data" in one_line(caplog)
    caplog.clear()
    assert train.main(["squeeze_asd", "--out", str(tmp_path / "out"), "--data", str(tmp_path)]) == 2
    assert "learns from the shared clips" in one_line(caplog)
    caplog.clear()
    assert train.main(command("out", "--set", "loop.epochs=1")) == 0
    assert train.main(command("out", "--set", "loop.epochs=1", "--set", "seed=7")) == 2
    assert "begun with another seed" in one_line(caplog)
    caplog.clear()
    (tmp_path / "out" / CHECKPOINT).unlink()
    assert train.main(command("out", "--set", "loop.epochs=1")) == 2
    assert "--overwrite" in one_line(caplog)
    assert train.main(command("out", "--set", "loop.epochs=1", "--overwrite")) == 0
    caplog.clear()
    (tmp_path / "out" / CHECKPOINT).write_bytes(b"nothing")
    assert train.main(command("out", "--set", "loop.epochs=1")) == 2
    assert "cannot be read as a checkpoint" in one_line(caplog)


@pytest.mark.usefixtures("small")
def test_a_validation_of_one_class_is_refused_at_once(
    sets: dict[str, FakeEntities], command: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    for row in sets["val"].rows:
        row.labels[:] = 0
    assert train.main(command("out")) == 2
    assert "0 of 123 frames are labelled speaking" in one_line(caplog)


def test_long_entities_are_scored_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    from asd_explain.training import recipe_scoring

    torch.manual_seed(3)
    entities = fake_entities([50, 1], bodies=True)
    for name in ("light_asd", "squeeze_asd"):
        model = create_model(name)
        (_, whole, labels), (_, single, _) = recipe_scoring.score_entities(model, entities, torch.device("cpu"))
        assert len(single) == 1
        with monkeypatch.context() as patch:
            patch.setattr(recipe_scoring, "PIECE_FRAMES", 17)
            ((_, pieces, _),) = recipe_scoring.score_entities(model, entities, torch.device("cpu"), ranks=2)
        np.testing.assert_allclose(pieces, whole, atol=1e-4)
        assert 0 < average_precision(whole, labels) <= 1
