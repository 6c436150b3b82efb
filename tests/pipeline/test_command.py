"""The command, as a person calls it: bad input, several clips, interruption."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from tests_support import interruptible, write_clip

from asd_explain.tools.explain_video import main, parser


@pytest.fixture
def run(random_weights: Path, capsys: pytest.CaptureFixture[str]):
    """Call the command in this process: (exit code, standard error without remarks, standard output)."""

    def call(*args: object) -> tuple[int, str, str]:
        words = [str(a) for a in args]
        if "--model" not in words:
            words += ["--model", "lr_asd", "--weights", str(random_weights)]
        code = main([*words, "--detector", "haar", "--device", "cpu", "--quiet"])
        told = capsys.readouterr()
        return code, told.err, told.out

    return call


def _one_line(err: str) -> None:
    assert err.count("\n") == 1, err
    assert err.startswith("asd-explain: error: ")
    assert "Traceback" not in err


def _nothing_left(folder: Path, *known: str) -> None:
    assert {path.name for path in folder.iterdir()} == set(known)


def _audio_only(path: Path) -> None:
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for first in range(0, 16384, 1024):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            block.sample_rate, block.pts = 16000, first
            for packet in stream.encode(block):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "truncated", "audio only"])
def test_what_is_no_video_gets_one_line(run, tmp_path: Path, face_clip: Path, kind: str) -> None:
    clip, out = tmp_path / "clip.mp4", tmp_path / "out"
    out.mkdir()
    if kind == "folder":
        clip.mkdir()
    elif kind == "text":
        clip.write_text("this is a text file, whatever its name says\n" * 20)
    elif kind == "empty":
        clip.touch()
    elif kind == "truncated":
        clip.write_bytes(face_clip.read_bytes()[:3000])
    elif kind == "audio only":
        _audio_only(clip)
    code, err, _ = run(clip, "-o", out / "o.mp4")
    assert code == 1
    _one_line(err)
    assert str(clip) in err
    _nothing_left(out)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("other_clip,0.0,0.1,0.1,0.5,0.5,NOT_SPEAKING,a", "other_clip"),
        ("face,0.0,nan,0.1,0.5,0.5,NOT_SPEAKING,a", "nan|finite|number"),
        ("face,0.0,0.1\n", "column"),
        ("", "empty|no rows"),
        ("face,900.0,0.1,0.1,0.5,0.5,NOT_SPEAKING,a", "900|overlap|time"),
    ],
)
def test_boxes_that_do_not_fit_get_one_line(run, tmp_path: Path, face_clip: Path, rows: str, words: str) -> None:
    boxes, out = tmp_path / "boxes.csv", tmp_path / "out"
    out.mkdir()
    boxes.write_text(rows)
    code, err, _ = run(face_clip, "--boxes", boxes, "-o", out / "o.mp4")
    assert code == 1
    _one_line(err)
    assert re.search(words, err, re.IGNORECASE)
    _nothing_left(out)


def test_an_existing_output_is_kept_unless_told_otherwise(
    run, tmp_path: Path, face_clip: Path, face_boxes: Path
) -> None:
    for name in ("o.mp4", "o.scores.csv"):
        for path in tmp_path.iterdir():
            path.unlink()
        (tmp_path / name).write_text("precious")
        code, err, _ = run(face_clip, "--boxes", face_boxes, "-o", tmp_path / "o.mp4")
        assert code == 1
        _one_line(err)
        assert "--overwrite" in err
        assert (tmp_path / name).read_text() == "precious"
        _nothing_left(tmp_path, name)
    code, _, out = run(face_clip, "--boxes", face_boxes, "-o", tmp_path / "o.mp4", "--overwrite")
    assert code == 0
    assert "o.mp4" in out
    assert (tmp_path / "o.mp4").stat().st_size > 1000


def test_a_folder_that_cannot_be_written_gets_one_line(run, tmp_path: Path, face_clip: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, err, _ = run(face_clip, "-o", tmp_path / "file" / "o.mp4")
    assert code == 1
    _one_line(err)
    code, err, _ = run(face_clip, "-o", "/proc/o.mp4")
    assert code == 1
    _one_line(err)


def test_an_output_that_is_the_clip_or_no_mp4_is_refused(run, face_clip: Path, tmp_path: Path) -> None:
    before = face_clip.read_bytes()
    code, err, _ = run(face_clip, "-o", face_clip, "--overwrite")
    assert code == 1
    _one_line(err)
    assert face_clip.read_bytes() == before
    code, err, _ = run(face_clip, "-o", tmp_path / "o.gif")
    assert code == 1
    assert ".mp4" in err


def test_a_clip_that_breaks_off_is_refused_and_its_whole_part_can_be_asked_for(run, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", frames=100, sound=False)
    clip, out = tmp_path / "clip.mp4", tmp_path / "out"
    out.mkdir()
    with av.open(str(whole)) as source, av.open(str(clip), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    clip.write_bytes(clip.read_bytes()[: int(0.6 * clip.stat().st_size)])
    code, err, _ = run(clip, "-o", out / "o.mp4")
    assert code == 1
    _one_line(err)
    _nothing_left(out)
    end = re.search(r"--end (\d+\.\d+)", err)
    assert end
    code, err, _ = run(clip, "-o", out / "o.mp4", "--end", end[1])
    assert code == 0, err
    with av.open(str(out / "o.mp4")) as container:
        assert len(list(container.decode(video=0))) == pytest.approx(25 * float(end[1]), abs=2)


def test_two_clips_of_one_name_do_not_overwrite_each_other(run, tmp_path: Path, face_clip: Path) -> None:
    other = tmp_path / "other" / face_clip.name
    other.parent.mkdir()
    other.write_bytes(face_clip.read_bytes())
    code, err, out = run(face_clip, other, "-o", tmp_path / "many", "--overwrite")
    assert code == 1
    assert str(other) in err
    assert out.count("_explained.mp4") == 1


def test_a_surprise_is_one_line_and_does_not_stop_the_rest(
    run, tmp_path: Path, face_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asd_explain import pipeline

    explain = pipeline.explain_video

    def fail_once(clip: Path, *args: object, **options: object) -> object:
        if clip.name == "absent.mp4":
            raise ZeroDivisionError("division\nby zero")
        return explain(clip, *args, **options)

    monkeypatch.setattr(pipeline, "explain_video", fail_once)
    code, err, out = run(tmp_path / "absent.mp4", face_clip, "-o", tmp_path / "many")
    assert code == 1
    _one_line(err)
    assert "ZeroDivisionError" in err
    assert "face_explained.mp4" in out


def test_one_failure_does_not_stop_the_rest(run, tmp_path: Path, face_clip: Path) -> None:
    code, err, out = run(tmp_path / "absent.mp4", face_clip, "-o", tmp_path / "many")
    assert code == 1
    assert "absent.mp4" in err
    assert "face_explained.mp4" in out
    assert (tmp_path / "many" / "face_explained.mp4").is_file()


def test_several_clips_into_one_file_are_refused(run, tmp_path: Path, face_clip: Path) -> None:
    code, err, _ = run(face_clip, face_clip, "-o", tmp_path / "o.mp4")
    assert code == 1
    assert "folder" in err


def test_missing_weights_are_one_line(run, tmp_path: Path, face_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ASD_EXPLAIN_SHARED", str(tmp_path / "nothing"))
    code, err, _ = run(face_clip, "-o", tmp_path / "o.mp4", "--model", "lr_asd")
    assert code == 1
    _one_line(err)
    assert "--weights" in err
    _nothing_left(tmp_path)


@interruptible
def test_interrupting_leaves_nothing(tmp_path: Path, random_weights: Path) -> None:
    clip = write_clip(tmp_path / "long.mp4", frames=1500, size=(256, 200))
    out = tmp_path / "out"
    out.mkdir()
    words = [sys.executable, "-m", "asd_explain.tools.explain_video", str(clip), "-o", str(out / "o.mp4")]
    words += ["--model", "lr_asd", "--weights", str(random_weights), "--detector", "haar", "--device", "cpu"]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env={**os.environ, "ASD_EXPLAIN_OFFLINE": "1"}, cwd=tmp_path
    )
    # Wait for the second pass: the unfinished video is there under its hidden name.
    for _ in range(1200):
        if list(out.iterdir()) or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    _nothing_left(out)


def test_help_names_every_option() -> None:
    text = parser().format_help()
    for option in (
        *("--model", "--weights", "--device", "--detector", "--boxes", "--body-boxes", "--explainer", "--streams"),
        *("--layout", "--smooth", "--threshold", "--stills", "--start", "--end", "--threads", "--overwrite"),
        *("--quiet", "--seed", "--output"),
    ):
        assert option in text
