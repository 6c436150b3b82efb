"""The command on csv files: without PyTorch, three data sets, reports, errors."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from asd_explain.evaluate.detection import average_precision
from asd_explain.tools import evaluate_asd

COLUMNS = "video_id,frame_timestamp,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,label,entity_id"
VIDEOS = [f"{c * 11}_0-30" for c in "abcde"]
METADATA = "Video,Category\n" + "".join(f"{video},{i}\n" for i, video in enumerate(VIDEOS))
DIVISION = "".join(
    f"# {heading}\n{VIDEOS[i][:11]}\n"
    for heading, i in (("Interview", 0), ("Debate", 1), ("React", 3), ("Podcast", 2), ("Police", 4))
).replace("# Podcast", f"{VIDEOS[1][:11]}\n# Podcast")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """Truth and scores in another order, five videos of 40 rows; scores (200,), labels (200,)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = np.round(np.clip(labels * 0.3 + rng.random(200) * 0.7, 0, 1), 4)
    truth, guess = [], []
    for i, (label, score) in enumerate(zip(labels, scores, strict=True)):
        start = f"{VIDEOS[i // 40]},{i % 40 / 25:.2f},0.1,0.1,0.4,0.5"
        truth.append(f"{start},{'SPEAKING_AUDIBLE' if label else 'NOT_SPEAKING'},{VIDEOS[i // 40]}_0000:1")
        guess.append(f"{start},SPEAKING_AUDIBLE,{VIDEOS[i // 40]}_0000:1,{score},{score * 9 - 4}")
    rng.shuffle(guess)
    paths = tmp_path / "truth.csv", tmp_path / "scores.csv"
    paths[0].write_text("\n".join(truth))
    paths[1].write_text("\n".join([f"{COLUMNS},score,logit", *guess]))
    (tmp_path / "meta.csv").write_text(METADATA)
    (tmp_path / "division.txt").write_text(DIVISION)
    return *paths, scores, labels


def test_ava(pair: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    truth, guess, scores, labels = pair
    command = ["ava", str(truth), str(guess), "--out", str(tmp_path / "out" / "ava.json")]
    assert evaluate_asd.main(command) == 0
    value = average_precision(scores, labels)
    said = f"| 200 | 5 | {100 * labels.mean():.2f} % | {100 * value:.4f} % |"
    assert said in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "ava.json").read_text())
    assert report["figures"]["ap"] == pytest.approx(value, abs=1e-12)
    assert 0 < report["figures"]["ece"] < 1
    assert report["inputs"] == ["truth.csv", "scores.csv"]
    assert str(tmp_path) not in json.dumps(report), "no path of this machine"
    assert evaluate_asd.main(command) == 2
    assert "exists already" in caplog.text
    assert evaluate_asd.main([*command, "--overwrite", "--score-column", "logit"]) == 0
    again = json.loads((tmp_path / "out" / "ava.json").read_text())
    assert again["figures"]["ap"] == pytest.approx(value, abs=1e-12)
    assert again["figures"]["ece"] is None
    assert "no probabilities" in capsys.readouterr().out


def test_ties_are_named(pair: tuple, capsys: pytest.CaptureFixture[str]) -> None:
    truth, guess, *_ = pair
    rows = guess.read_text().splitlines()
    guess.write_text("\n".join([rows[0], *(",".join([*row.split(",")[:8], "0.5", "0"]) for row in rows[1:])]))
    assert evaluate_asd.main(["ava", str(truth), str(guess)]) == 0
    assert "with the speaking rows first it gives 100.0000 %" in capsys.readouterr().out


def test_wasd_by_both_schemes(pair: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, guess, scores, labels = pair
    out = tmp_path / "wasd.json"
    files = ["--metadata", str(tmp_path / "meta.csv"), "--division", str(tmp_path / "division.txt")]
    assert evaluate_asd.main(["wasd", str(truth), str(guess), *files, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    report = json.loads(out.read_text())["schemes"]
    aps = [average_precision(scores[i : i + 40], labels[i : i + 40]) for i in range(0, 200, 40)]
    for name, ap in zip(("OC", "SI", "FO", "HVN", "SS"), aps, strict=True):
        assert report["once"]["sections"][name]["ap"] == pytest.approx(ap, abs=1e-12)
    assert report["once"]["macro"] == pytest.approx(np.mean(aps))
    assert report["once"]["sections"]["pooled"]["ap"] == pytest.approx(average_precision(scores, labels))
    both = np.r_[40:80, 120:160]
    assert report["published"]["sections"]["HVN"]["ap"] == pytest.approx(average_precision(scores[both], labels[both]))
    assert report["published"]["sections"]["pooled"] == report["once"]["sections"]["pooled"]
    assert "| macro (mean of the five categories) |" in text
    assert "the division file lists bbbbbbbbbbb under two headings" in text
    assert "count in two categories, as they are listed: 1 (bbbbbbbbbbb_0-30)" in text


def test_wasd_without_a_category(pair: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, guess, *_ = pair
    (tmp_path / "meta.csv").write_text(METADATA.rsplit("\n", 2)[0])
    assert evaluate_asd.main(["wasd", str(truth), str(guess), "--metadata", str(tmp_path / "meta.csv")]) == 0
    text = capsys.readouterr().out
    assert "| SS | 0 | none | undefined: no row | none |" in text
    assert "| macro (mean of the five categories) |  |  | undefined |  |" in text
    assert "published" not in text


def test_columbia(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "fusion"
    folder.mkdir()
    for name in ("bell", "boll", "lieb", "long", "sick", "abbas"):
        (folder / f"{name}.txt").write_text("0\t100\t50\t40\t1\n2\t100\t50\t40\t0\n")
    box = f"{200 / 1280},{100 / 720},{280 / 1280},{180 / 720}"
    guess = tmp_path / "scores.csv"
    guess.write_text(
        f"{COLUMNS},score,logit\nc,0,{box},SPEAKING_AUDIBLE,1,0.8,1.4\nc,0.04,{box},SPEAKING_AUDIBLE,1,0.4,-0.4\n"
    )
    out = tmp_path / "columbia.json"
    command = ["columbia", str(folder), str(guess), "--out", str(out), "--overwrite"]
    assert evaluate_asd.main(command) == 0
    text = capsys.readouterr().out
    assert "| abbas (outside the mean) | 2 | 50.00 % | 100.00 % |" in text
    assert "| mean of five | | | | | | | 100.00 % |" in text
    assert "above 0.5 (all scores lie in [0, 1])" in text
    report = json.loads(out.read_text())
    assert (report["figures"]["mean_f1"], report["threshold"]) == (1, 0.5)
    assert evaluate_asd.main([*command, "--score-column", "logit"]) == 0
    assert "above 0 (scores leave [0, 1])" in capsys.readouterr().out
    assert evaluate_asd.main([*command, "--threshold", "0.3"]) == 0
    assert "| mean of five | | | | | | | 66.67 % |" in capsys.readouterr().out
    assert evaluate_asd.main([*command, "--frame-size", "640x360"]) == 0  # boxes too small by half: elsewhere
    assert "| mean of five | | | | | | | 0.00 % |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ava", "absent.csv", "{s}"], "absent.csv cannot be read"),
        (["ava", "{s}", "{s}"], "scores.csv: every row speaks"),
        (["ava", "{t}", "{t}"], "8 columns without a header; expected 9"),
        (["ava", "{t}", "{s}", "--out", "report.txt"], "ends in .json"),
        (["ava", "{t}", "{s}", "--bins", "0"], "--bins must be at least 1"),
        (["ava", "{t}", "{s}", "--score-column", "p"], "no column p; it has video_id"),
        (["wasd", "{t}", "{s}"], "give --metadata wasd_metadata.csv or --division"),
        (["wasd", "{t}", "{s}", "--metadata", "{t}"], "no header with video, category"),
        (["wasd", "{t}", "{s}", "--division", "{t}"], "line 1: an id before any heading"),
        (["columbia", "{t}", "{s}"], "is not a folder"),
        (["ava", "{t}", "{s}", "--out", "{t}/x.json"], "x.json cannot be written"),
    ],
)
def test_names_what_is_wrong(pair: tuple, words: list[str], said: str, caplog: pytest.LogCaptureFixture) -> None:
    assert evaluate_asd.main([word.format(t=pair[0], s=pair[1]) for word in words]) == 2
    assert said in caplog.text
    assert "\n" not in caplog.records[-1].message


def test_runs_where_heavy_libraries_cannot_be_imported(pair: tuple, tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {"torch", "torchvision", "torchaudio", "cv2", "av", "librosa", "scipy"}:
                    raise ImportError(f"{name} was asked for")

        sys.meta_path.insert(0, Refuse())
        from asd_explain.tools.evaluate_asd import main
        sys.exit(main(sys.argv[1:]))
        """
    )
    for words in (["ava"], ["wasd", "--metadata", str(tmp_path / "meta.csv")]):
        command = [sys.executable, "-c", program, *words, str(pair[0]), str(pair[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "| 200 |" in done.stdout
    refused = [sys.executable, "-c", program.replace("asd_explain.tools.evaluate_asd", "asd_explain.tools.train")]
    assert "was asked for" in subprocess.run(refused, capture_output=True, text=True, check=False).stderr
