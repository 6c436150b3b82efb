"""The command: from a configuration to weights that load, and one line for every mistake."""

from __future__ import annotations

import csv
import json
import os
import pickle
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asd_explain.datasets.talking_corpus import talking_entries
from asd_explain.errors import WeightsError
from asd_explain.models.registry import create_model
from asd_explain.tools import train
from asd_explain.training.config import read_config
from asd_explain.training.corpus import TrainTrack, track_of
from asd_explain.training.engine import CHECKPOINT, LOG
from asd_explain.weights.store import load_state, read_state

CONFIG = """
model = "squeeze_asd"
[sampler]
chunks = 2
frames = 25
[loop]
steps = 2
workers = 0
precision = "float32"
save_every = 1
log_every = 1
"""


@pytest.fixture
def tracks(make_clip: Callable, make_lesson: Callable) -> dict[str, list[TrainTrack]]:
    return {
        split: [
            track_of(make_clip(name, seed=i, length=28), make_lesson(28, own=own))
            for i, (name, own) in enumerate((("anna", 0.9), ("bo", 0.2)))
        ]
        for split in ("fit", "dev")
    }


@pytest.fixture
def command(tracks: dict[str, list[TrainTrack]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of two steps on made-up tracks."""
    (tmp_path / "small.toml").write_text(CONFIG)
    monkeypatch.setattr(train, "tracks_of", lambda config, split, args: tracks[split])
    monkeypatch.setattr(train, "keep_large_blocks", lambda: None)
    return [
        *(str(tmp_path / "small.toml"), "--out", str(tmp_path / "out"), "--quiet", "--threads", "1"),
        *("--device", "cpu"),
    ]


@pytest.fixture
def tiny_command(command: list[str], tiny: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The same with a network of no size."""

    def create(name: str, gated: bool = True) -> torch.nn.Module:
        return type(tiny)()

    monkeypatch.setattr(train, "create_model", create)
    return command


def one_line(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "\n" not in record.getMessage()
    return record.getMessage()


def test_trains_and_writes_weights_that_load(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(command) == 0
    out = tmp_path / "out"
    assert capsys.readouterr().out == f"{out / train.WEIGHTS}\n"
    assert {p.name for p in out.iterdir()} == {CHECKPOINT, LOG, train.CONFIG, train.WEIGHTS}
    state = read_state(out / train.WEIGHTS)
    load_state(create_model("squeeze_asd"), state, "the file")
    kept = torch.load(out / CHECKPOINT, weights_only=True)
    assert kept["step"] == 2
    same = {k: v.half() if v.is_floating_point() else v for k, v in kept["average"].items() if "head" not in k}
    assert all(torch.equal(state[k], v) for k, v in same.items())
    # The temperature fitted on dev is folded into the last layer.
    stored_head, trained_head = state["head.weight"].float(), kept["average"]["head.weight"]
    factor = (stored_head * trained_head).sum() / trained_head.square().sum()
    # Half precision: relative for large weights, 2^-25 for those below its normal range.
    torch.testing.assert_close(stored_head, factor * trained_head, atol=1e-6, rtol=0.002)
    assert state["audio_encoder.std"].float().sum() != 13, "statistics of the sound were taken"
    stored = json.loads((out / train.CONFIG).read_text())
    assert stored["loop"]["steps"] == 2
    assert stored["view"]["flip"] == 0.5, "with all defaults"
    with (out / LOG).open(newline="") as stream:
        names = {row["name"] for row in csv.DictReader(stream)}
    assert {"loss", "lr", "dev_own", "dev_frozen", "dev_other"} <= names


def test_the_same_command_goes_on_where_it_was_cut_off(
    tiny_command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    straight = [a.replace("out", "straight") if a.endswith("/out") else a for a in tiny_command]
    assert train.main(straight) == 0
    drawn = train.Sampler.batch

    def interrupted(self: object, number: int) -> object:
        if number == 1:
            raise KeyboardInterrupt
        return drawn(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(train.Sampler, "batch", interrupted)
        assert train.main(tiny_command) == 130
    assert "goes on from the last checkpoint" in one_line(caplog)
    assert not (tmp_path / "out" / train.WEIGHTS).exists()
    assert train.main(tiny_command) == 0
    one, two = ((tmp_path / f / train.WEIGHTS).read_bytes() for f in ("straight", "out"))
    assert one == two


def test_weights_that_are_there_stay_and_so_does_what_is_not_ours(
    tiny_command: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / train.WEIGHTS).write_bytes(b"dear")
    (out / "notes.txt").write_text("mine")
    (out / LOG).write_text("step,name,value\n7,loss,1\n")
    assert train.main(tiny_command) == 2
    assert "--overwrite" in one_line(caplog)
    assert (out / train.WEIGHTS).read_bytes() == b"dear"
    assert train.main([*tiny_command, "--overwrite"]) == 0
    assert (out / train.WEIGHTS).read_bytes() != b"dear"
    assert (out / "notes.txt").read_text() == "mine"
    assert "7,loss" not in (out / LOG).read_text()


def test_another_configuration_does_not_go_on(
    tiny_command: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train.main(tiny_command) == 0
    (tmp_path / "out" / train.WEIGHTS).unlink()
    assert train.main([*tiny_command, "--set", "seed=1", "--set", "view.flip=0.1"]) == 2
    assert "begun with another seed, view;" in one_line(caplog)
    assert train.main(tiny_command) == 0, "the old one does"
    (tmp_path / "out" / train.WEIGHTS).unlink()
    assert train.main([*tiny_command, "--set", "seed=1", "--overwrite"]) == 0


def test_begins_with_what_fits_of_given_weights(tmp_path: Path) -> None:
    before, after = create_model("squeeze_asd"), create_model("squeeze_asd")
    state = {k: v.clone() for k, v in before.state_dict().items() if k != "head.bias"}
    state["gru.bias_hh_l0"] = torch.zeros(3)
    save_file(state, tmp_path / "w.safetensors")
    own_bias = after.state_dict()["gru.bias_hh_l0"].clone()
    assert train.begin_with(after, tmp_path / "w.safetensors") == ["gru.bias_hh_l0", "head.bias"]
    got = after.state_dict()
    assert torch.equal(got["gru.bias_hh_l0"], own_bias), "of another shape: left as it was"
    assert torch.equal(got["face_encoder.layers.3.conv.weight"], state["face_encoder.layers.3.conv.weight"])
    save_file({"nothing.of.it": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="nothing in it fits"):
        train.begin_with(after, tmp_path / "other.safetensors")


def test_a_training_with_other_first_weights_does_not_go_on(
    tiny_command: list[str], tiny: torch.nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file({k: v.contiguous() for k, v in tiny.state_dict().items()}, tmp_path / "w.safetensors")
    begun = [*tiny_command, "--weights", str(tmp_path / "w.safetensors")]
    assert train.main(begun) == 0
    (tmp_path / "out" / train.WEIGHTS).unlink()
    assert train.main(tiny_command) == 2
    assert "first_weights_sha256" in one_line(caplog)
    caplog.clear()
    assert train.main([*tiny_command, "--weights", str(tmp_path / "none.safetensors")]) == 2
    assert "no such file" in one_line(caplog)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--set", "loop.stepz=3"], r"no option 'stepz'"),
        (["--set", "options.depth=3"], r"[options] do not fit squeeze_asd"),
        (["--set", 'model="no_net"'], "unknown model 'no_net'"),
    ],
)
def test_mistakes_in_the_configuration(
    command: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: list[str], says: str
) -> None:
    assert train.main([*command, *changes]) == 2
    assert says in one_line(caplog)
    assert not (tmp_path / "out").exists()


def test_an_unknown_configuration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert train.main(["no_such", "--out", str(tmp_path / "out")]) == 2
    assert "no_such: no such file" in one_line(caplog)


def test_a_file_is_no_folder(command: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "out").touch()
    assert train.main([*command, "--overwrite"]) == 2
    assert "is not a folder" in one_line(caplog)


def test_too_little_to_learn_from(
    tiny_command: list[str], tracks: dict[str, list[TrainTrack]], caplog: pytest.LogCaptureFixture
) -> None:
    tracks["fit"].pop()
    assert train.main(tiny_command) == 2
    assert "at least two people" in one_line(caplog)


def test_a_loss_that_is_not_finite(
    tiny_command: list[str], tracks: dict[str, list[TrainTrack]], caplog: pytest.LogCaptureFixture
) -> None:
    for track in tracks["fit"]:
        track.own[:] = float("inf")
    assert train.main(tiny_command) == 2
    assert "at step 0" in one_line(caplog)


def test_tracks_are_those_of_the_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = [Namespace(split=s, name=f"{s}_{i}") for s in ("fit", "dev", "test") for i in range(2)]
    seen = []
    monkeypatch.setattr(
        train, "list_clips", lambda shared, groups, per_speaker: seen.append((groups, per_speaker)) or real
    )
    monkeypatch.setattr(
        train, "load_tracks", lambda entries, source, teacher, bar: [(e.split, teacher is not None) for e in entries]
    )
    monkeypatch.setattr(train, "talking_entries", lambda split: talking_entries(split)[:3])
    (tmp_path / "small.toml").write_text('model = "x"\n[data]\ngroups = ["single", "talking_photos"]\n')
    config = read_config(tmp_path / "small.toml")
    args = Namespace(shared=tmp_path, cache=tmp_path, quiet=True)
    assert train.tracks_of(config, "fit", args) == [("fit", True)] * 2 + [("fit", False)] * 3
    assert train.tracks_of(config, "dev", args) == [("dev", True)] * 2 + [("dev", False)] * 3
    assert seen == [(("single",), config.data.per_speaker), (("single",), config.data.dev_per_speaker)]


def test_real_clips_need_the_shared_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asd_explain.weights.store.shared_dir", lambda: None)
    monkeypatch.setattr(train, "keep_large_blocks", lambda: None)
    (tmp_path / "small.toml").write_text(CONFIG)
    words = [str(tmp_path / "small.toml"), "--out", str(tmp_path / "out"), "--threads", "1", "--device", "cpu"]
    assert train.main([*words, "--cache", str(tmp_path)]) == 2
    assert "--shared" in one_line(caplog)


@pytest.mark.slow
def test_two_processes_train_one_network(tracks: dict[str, list[TrainTrack]], tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(CONFIG)
    (tmp_path / "tracks.pickle").write_bytes(pickle.dumps(tracks))
    script = tmp_path / "script.py"
    script.write_text(
        "import pickle, sys\nfrom pathlib import Path\nfrom asd_explain.tools import train\n"
        "tracks = pickle.loads((Path(__file__).parent / 'tracks.pickle').read_bytes())\n"
        "train.tracks_of = lambda config, split, args: tracks[split]\n"
        "raise SystemExit(train.main(sys.argv[1:]))\n"
    )
    out = tmp_path / "out"
    words = [str(tmp_path / "small.toml"), "--out", str(out), "--quiet", "--threads", "1", "--device", "cpu"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run() -> subprocess.CompletedProcess:
        return subprocess.run(
            [*launch, *words], capture_output=True, text=True, check=False, env=environment, timeout=300
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out / train.WEIGHTS}\n", "said once"
    first = (out / train.WEIGHTS).read_bytes()
    load_state(create_model("squeeze_asd"), read_state(out / train.WEIGHTS), "the file")
    with (out / LOG).open(newline="") as stream:
        losses = [row["step"] for row in csv.DictReader(stream) if row["name"] == "loss"]
    assert losses == ["1", "2"], "logged once"
    (out / train.WEIGHTS).unlink()
    assert run().returncode == 0
    assert (out / train.WEIGHTS).read_bytes() == first
