"""A data set as it was downloaded is opened straight from its videos, until its crops are there."""

from __future__ import annotations

import numpy as np
import pytest
from data_support import numbered_video, track, write_orig

from asd_explain.datasets.opening import open_entities
from asd_explain.errors import AsdExplainError
from asd_explain.tools import prepare

NAME = "w-00_mini__0-30"


@pytest.mark.parametrize("name", ["ava", "wasd"])
def test_from_the_videos_until_there_are_crops(name, tmp_path, caplog):
    root = tmp_path / "data set"
    numbered_video(root / "orig_videos" / "trainval" / f"{NAME}.mkv", 24)
    rows = [track(NAME, patch, 2, 20, body=True) for patch in "12"]
    write_orig(root / "csv" / "train_orig.csv", rows)
    write_orig(root / "csv" / "train_body_orig.csv", rows, body=True)
    with caplog.at_level("INFO"):
        raw = open_entities(name, root, "train", body=True)
    assert "holds no crops of train" in caplog.text
    before = [raw.load(i) for i in range(len(raw))]
    words = ["--dataset", name, "--csv", str(root / "csv"), "--videos", str(root / "orig_videos"), "--split", "train"]
    assert prepare.main([*words, "--out", str(root), "--workers", "1", "--quiet"]) == 0
    caplog.clear()
    with caplog.at_level("INFO"):
        made = open_entities(name, root, "train", body=True)
    assert "holds no crops" not in caplog.text
    for i, one in enumerate(before):
        other = made.load(i)
        assert one.entity.entity_id == other.entity.entity_id
        assert np.abs(one.face.astype(int) - other.face).max() < 4
        assert (one.body is None) == (other.body is None) == (name == "ava")
        assert one.body is None or np.abs(one.body.astype(int) - other.body).max() < 4
        assert np.array_equal(one.waveform, other.waveform)
        assert np.array_equal(one.labels, other.labels)
        assert abs(one.fps - other.fps) < 1e-3


def test_neither_videos_nor_crops(tmp_path):
    with pytest.raises(AsdExplainError, match="prepare the data first"):
        open_entities("ava", tmp_path, "train")
