"""What the three kinds of training share: their log, and reading their checkpoint."""

from __future__ import annotations

import logging

import pytest
import torch

from asd_explain.errors import OptionError, OutputError
from asd_explain.training.folder import append_log, log_row, read_checkpoint, save_checkpoint, trim_log


def test_a_log_has_one_head_and_one_kind_of_line_end(tmp_path, caplog):
    path = tmp_path / "new" / "log.csv"
    with caplog.at_level(logging.INFO):
        log_row(path, {"epoch": 1, "loss": 1 / 3, "frames": 12345678})
    log_row(path, {"epoch": 2, "loss": 1e-9, "frames": 2})
    assert path.read_bytes() == b"epoch,loss,frames\n1,0.333333,12345678\n2,1e-09,2\n"
    assert "epoch 1, loss 0.3333, frames 1.235e+07" in caplog.text
    trim_log(path, lambda epoch: epoch < 2)
    log_row(path, {"epoch": 2, "loss": 0.5, "frames": 2})
    assert path.read_bytes() == b"epoch,loss,frames\n1,0.333333,12345678\n2,0.5,2\n"


def test_a_log_that_was_begun_with_other_line_ends_goes_on(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"step,name,value\r\n1,loss,2\r\n5,loss,1\r\n")
    trim_log(path, lambda step: step <= 1)
    append_log(path, ("step", "name", "value"), [(2, "loss", 1.5), (2, "lr", 0.1)])
    assert path.read_bytes() == b"step,name,value\n1,loss,2\n2,loss,1.5\n2,lr,0.1\n"


def test_a_log_that_cannot_be_used_is_told_in_one_line(tmp_path):
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(OutputError, match=r"log\.csv cannot be written"):
        log_row(tmp_path / "log.csv", {"epoch": 1})
    (tmp_path / "damaged.csv").write_text("epoch,loss\nx,1\n")
    with pytest.raises(OptionError, match=r"damaged\.csv is damaged"):
        trim_log(tmp_path / "damaged.csv", lambda epoch: True)
    trim_log(tmp_path / "none.csv", lambda epoch: True)
    assert not (tmp_path / "none.csv").exists()


def test_a_checkpoint_has_what_is_needed(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"step": 3, "values": torch.arange(2), "more": 1}, path)
    stored = read_checkpoint(path, torch.device("cpu"), ("step", "values"), "training")
    assert (stored["step"], stored["values"].tolist(), stored["more"]) == (3, [0, 1], 1)
    with pytest.raises(OptionError, match="is no checkpoint of a recipe; give another --out"):
        read_checkpoint(path, torch.device("cpu"), ("step", "ranks"), "recipe")
    torch.save([1], path)
    with pytest.raises(OptionError, match="is no checkpoint of a recipe"):
        read_checkpoint(path, torch.device("cpu"), (), "recipe")
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(OptionError, match="cannot be read as a checkpoint"):
        read_checkpoint(path, torch.device("cpu"), (), "recipe")
