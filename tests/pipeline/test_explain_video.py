"""The whole way, on clips made here and a network with random parameters: what is written, and that it is right."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests_support import write_clip

from asd_explain import pipeline
from asd_explain.errors import OptionError, OutputError
from asd_explain.media.frame import Planes
from asd_explain.pipeline import explain_video
from asd_explain.results import CSV_COLUMNS, HYSTERESIS, Result, hysteresis_segments


@pytest.fixture(scope="module")
def explained(
    tmp_path_factory: pytest.TempPathFactory, face_clip: Path, face_boxes: Path, random_weights: Path
) -> tuple[Result, Path]:
    """One explained clip, with a still."""
    output = tmp_path_factory.mktemp("out") / "face_out.mp4"
    result = explain_video(
        face_clip, output, model="lr_asd", weights=random_weights, boxes=face_boxes, stills=(0.5,), device="cpu"
    )
    return result, output


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_everything_lies_beside_the_video_and_nothing_else(explained: tuple[Result, Path]) -> None:
    result, output = explained
    names = {path.name for path in output.parent.iterdir()}
    assert names == {
        "face_out.mp4",
        "face_out.scores.csv",
        "face_out.segments.json",
        "face_out.heat.npz",
        "face_out.manifest.json",
        "face_out.still_0.50s.png",
    }
    assert set(result.files) >= {"video", "scores.csv", "segments.json", "heat.npz", "manifest.json", "still_0.50s"}


def test_the_video_has_the_sources_frames_times_size_and_sound(explained: tuple[Result, Path], face_clip: Path) -> None:
    def seen(path: Path) -> tuple[list[float], tuple[int, int], bool]:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            size = stream.width, stream.height
            return [f.time for f in container.decode(stream)], size, bool(container.streams.audio)

    times, size, sound = seen(explained[1])
    source_times, source_size, _ = seen(face_clip)
    np.testing.assert_allclose(times, source_times, atol=1e-4)
    assert size == source_size
    assert sound


def test_scores_are_one_row_a_face_and_frame_in_ava_form(explained: tuple[Result, Path], face_clip: Path) -> None:
    result, output = explained
    rows = _rows(output.with_name("face_out.scores.csv"))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 30 == len(result.frame_times_s)
    for row, time_s in zip(rows, result.frame_times_s, strict=True):
        assert float(row["frame_timestamp"]) == pytest.approx(time_s, abs=5e-4)
        assert row["video_id"] == face_clip.stem
        assert row["label"] == "SPEAKING_AUDIBLE"
        assert row["entity_id"] == "face_0"
        p, logit = float(row["score"]), float(row["logit"])
        assert p == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)
        assert int(row["speaking"]) == (p >= 0.5)
        assert row["audio"] == "own"


def test_the_scores_can_be_used_as_boxes_again(
    explained: tuple[Result, Path], face_clip: Path, random_weights: Path
) -> None:
    result, output = explained
    again = explain_video(
        face_clip, model="lr_asd", weights=random_weights, boxes=output.with_name("face_out.scores.csv"), device="cpu"
    )
    np.testing.assert_allclose(again.tracks[0].track.boxes, result.tracks[0].track.boxes, atol=0.01)
    # csv boxes have six decimals, crops follow them to a thousandth of a pixel
    np.testing.assert_allclose(again.tracks[0].logit, result.tracks[0].logit, atol=0.02)


def test_heat_file_holds_raw_values_on_the_grid(explained: tuple[Result, Path]) -> None:
    result, output = explained
    with np.load(output.with_name("face_out.heat.npz")) as stored:
        assert stored["tracks"].tolist() == [1]
        frames = len(stored["1.times_s"])
        assert stored["1.heat.face"].shape == (frames, 14, 14)
        assert (stored["1.heat.face"] >= 0).all()
        assert stored["1.gates.audio"].shape == (frames, 128)
        assert stored["1.streams"].tolist() == ["audio", "face"]
        np.testing.assert_allclose(stored["1.shares"].sum(1), 1, atol=1e-5)
        np.testing.assert_array_equal(stored["1.heat.face"], result.tracks[0].scores.heat["face"])


def test_manifest_and_segments_say_how_it_came_about(explained: tuple[Result, Path], random_weights: Path) -> None:
    result, output = explained
    manifest = json.loads(output.with_name("face_out.manifest.json").read_text())
    assert manifest["weights"]["sha256"] == result.manifest["weights"]["sha256"]
    assert manifest["options"]["weights"] == str(random_weights)
    assert manifest["clip"]["frames"] == 30
    assert {"decode", "network", "draw", "encode"} <= set(manifest["timings_s"])
    assert manifest["heat"]["maps_that_draw_nothing"] == 0
    segments = json.loads(output.with_name("face_out.segments.json").read_text())
    assert segments["begins_at_p"] == 0.5
    assert segments["ends_below_p"] == 0.35


def test_same_input_same_output(face_clip: Path, face_boxes: Path, random_weights: Path) -> None:
    options = {"model": "lr_asd", "weights": random_weights, "boxes": face_boxes, "device": "cpu"}
    one, two = (explain_video(face_clip, **options) for _ in range(2))
    np.testing.assert_array_equal(one.tracks[0].scores.logits, two.tracks[0].scores.logits)
    np.testing.assert_array_equal(one.tracks[0].scores.heat["face"], two.tracks[0].scores.heat["face"])


def test_heat_is_drawn_in_the_box_and_not_outside(
    tmp_path: Path, face_clip: Path, face_boxes: Path, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same clip drawn with and without heat differs inside the box and nowhere else."""
    drawn = []
    original = pipeline.Renderer.draw

    def keep(self: object, planes: Planes, *args: object) -> Planes:
        done = original(self, planes, *args)
        drawn.append((done.y.copy(), done.u.copy()))
        return done

    monkeypatch.setattr(pipeline.Renderer, "draw", keep)
    options = {"model": "lr_asd", "weights": random_weights, "boxes": face_boxes, "device": "cpu", "end_s": 0.2}
    explain_video(face_clip, tmp_path / "with.mp4", **options)
    monkeypatch.setattr(pipeline.Views, "_scaled", lambda *_: None)
    explain_video(face_clip, tmp_path / "without.mp4", **options)
    half = len(drawn) // 2
    for (luma, chroma), (plain_luma, plain_chroma) in zip(drawn[:half], drawn[half:], strict=True):
        difference = np.abs(luma.astype(int) - plain_luma) + np.abs(
            np.kron(chroma.astype(int) - plain_chroma, np.ones((2, 2)))
        )
        rows, columns = slice(24, 144), slice(int(0.36 * 256), int(0.66 * 256) + 1)
        assert (difference[rows, columns] > 8).mean() > 0.05, "some of the face is coloured"
        difference[rows, columns] = 0
        assert difference.max() == 0, "nothing outside the box is"


def test_haar_finds_the_photographed_face(face_clip: Path, random_weights: Path) -> None:
    result = explain_video(face_clip, model="lr_asd", weights=random_weights, detector="haar", device="cpu")
    assert len(result.tracks) == 1
    x1, y1, x2, _ = np.median(result.tracks[0].track.boxes, 0)
    assert 0.30 * 256 < x1 < 0.48 * 256
    assert 0.52 * 256 < x2 < 0.72 * 256
    assert 0.05 * 200 < y1 < 0.35 * 200
    assert len(result.tracks[0].track) == 30


@pytest.mark.parametrize("fps", [10, Fraction(24000, 1001), 30, 60])
def test_scores_come_for_every_source_frame_at_any_rate(
    tmp_path: Path, random_weights: Path, fps: Fraction | int
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", fps=fps, frames=20)
    boxes = tmp_path / "boxes.csv"
    rows = [f"clip,{i / float(fps):.4f},0.36,0.12,0.66,0.72,NOT_SPEAKING,a" for i in range(20)]
    boxes.write_text("\n".join(rows))
    result = explain_video(clip, tmp_path / "o.mp4", model="lr_asd", weights=random_weights, boxes=boxes, device="cpu")
    assert len(result.tracks[0].p_speaking) == 20
    assert len(result.tracks[0].scores.logits) == len(result.tracks[0].grid)
    assert any("frames/s" in note for note in result.notes) == (fps == 10)


def test_no_audio_is_said_everywhere(tmp_path: Path, random_weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = write_clip(tmp_path / "mute.mp4", sound=False, frames=12)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("\n".join(f"mute,{i / 25:.2f},0.36,0.12,0.66,0.72,NOT_SPEAKING,a" for i in range(12)))
    result = explain_video(clip, tmp_path / "o.mp4", model="lr_asd", weights=random_weights, boxes=boxes, device="cpu")
    assert any("no audio" in note for note in result.notes)
    assert "no audio" in caplog.text
    assert {row["audio"] for row in _rows(tmp_path / "o.scores.csv")} == {"none"}
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert not container.streams.audio


def test_no_face_is_no_error(tmp_path: Path, random_weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = write_clip(tmp_path / "flat.mp4", face=False, frames=12)
    result = explain_video(
        clip, tmp_path / "o.mp4", model="lr_asd", weights=random_weights, detector="haar", device="cpu"
    )
    assert result.tracks == []
    assert "no face found" in result.notes
    assert "no face found" in caplog.text
    assert (tmp_path / "o.mp4").is_file()
    assert _rows(tmp_path / "o.scores.csv") == []


@pytest.mark.parametrize("layout", ["overlay", "panel"])
@pytest.mark.parametrize(("frames", "size"), [(1, (256, 200)), (3, (8, 8)), (4, (130, 98))])
@pytest.mark.parametrize("given", [True, False])
def test_tiny_clips(
    tmp_path: Path, random_weights: Path, frames: int, size: tuple[int, int], layout: str, given: bool
) -> None:
    clip = write_clip(tmp_path / "tiny.mp4", frames=frames, size=size, sound=False)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("\n".join(f"tiny,{i / 25:.2f},0.36,0.12,0.66,0.72,NOT_SPEAKING,a" for i in range(frames)))
    result = explain_video(
        clip,
        tmp_path / "o.mp4",
        model="lr_asd",
        weights=random_weights,
        detector="haar",
        boxes=boxes if given else None,
        layout=layout,
        device="cpu",
    )
    if given:
        assert [len(item.p_speaking) for item in result.tracks] == [frames]
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert len(list(container.decode(video=0))) == frames == len(result.frame_times_s)


def test_a_part_of_a_clip(tmp_path: Path, face_clip: Path, random_weights: Path) -> None:
    result = explain_video(
        face_clip,
        tmp_path / "o.mp4",
        model="lr_asd",
        weights=random_weights,
        detector="haar",
        start_s=0.4,
        end_s=0.8,
        device="cpu",
    )
    assert len(result.frame_times_s) == 10
    assert result.frame_times_s[0] == pytest.approx(0.4, abs=1e-3)


def test_stills_show_the_frame_that_is_shown_then(
    tmp_path: Path, face_clip: Path, face_boxes: Path, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asd_explain.render import stills

    drawn = []
    monkeypatch.setattr(
        stills, "save_still", lambda path, _rgb, time_s, *_: (path.write_text("x"), drawn.append(time_s))
    )
    options = {"model": "lr_asd", "weights": random_weights, "boxes": face_boxes, "device": "cpu"}
    result = explain_video(
        face_clip, tmp_path / "o.mp4", stills=(0.61, 0.62, 0.9), still_format="pdf", start_s=0.41, end_s=1.0, **options
    )
    # Frames lie at 0.60 and 0.64; both moments show the one at 0.60.
    assert drawn == pytest.approx([0.60, 0.60, 0.88])
    assert {path.name for path in tmp_path.glob("*.pdf")} == {
        "o.still_0.61s.pdf",
        "o.still_0.62s.pdf",
        "o.still_0.90s.pdf",
    }
    assert all(path.is_file() for path in result.files.values())
    with pytest.raises(OptionError, match="--stills 50"):
        explain_video(face_clip, tmp_path / "p.mp4", stills=(50.0,), **options)
    with pytest.raises(OptionError, match="output"):
        explain_video(face_clip, stills=(0.5,), **options)


def test_all_files_appear_or_none(
    tmp_path: Path, face_clip: Path, face_boxes: Path, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Result, "write_heat", full)
    with pytest.raises(OutputError, match="No space left"):
        explain_video(
            face_clip, tmp_path / "o.mp4", model="lr_asd", weights=random_weights, boxes=face_boxes, device="cpu"
        )
    assert list(tmp_path.iterdir()) == []


def test_given_boxes_do_not_cross_a_cut(
    tmp_path: Path, face_boxes: Path, random_weights: Path, monkeypatch: pytest.MonkeyPatch, face_clip: Path
) -> None:
    monkeypatch.setattr(pipeline.ShotDetector, "push", lambda self, picture, time_s: abs(time_s - 0.6) < 1e-3)
    result = explain_video(face_clip, model="lr_asd", weights=random_weights, boxes=face_boxes, device="cpu")
    assert [(int(t.track.frames[0]), int(t.track.frames[-1])) for t in result.tracks] == [(0, 14), (15, 29)]
    assert {t.entity_id for t in result.tracks} == {"face_0"}


def test_panel_layout_is_larger_and_even(
    tmp_path: Path, face_clip: Path, face_boxes: Path, random_weights: Path
) -> None:
    explain_video(
        face_clip,
        tmp_path / "o.mp4",
        model="lr_asd",
        weights=random_weights,
        boxes=face_boxes,
        layout="panel",
        device="cpu",
    )
    with av.open(str(tmp_path / "o.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.width > 256
        assert stream.width % 2 == stream.height % 2 == 0


def test_analysing_alone_writes_nothing_until_saved(
    tmp_path: Path, face_clip: Path, face_boxes: Path, random_weights: Path
) -> None:
    result = explain_video(face_clip, model="lr_asd", weights=random_weights, boxes=face_boxes, device="cpu")
    assert result.files == {}
    written = result.save(tmp_path / "new" / "folder")
    assert {path.name for path in written.values()} == {"scores.csv", "segments.json", "heat.npz", "manifest.json"}
    with pytest.raises(OutputError, match="exists"):
        result.save(tmp_path / "new" / "folder")
    result.save(tmp_path / "new" / "folder", overwrite=True)


def test_hysteresis_by_hand() -> None:
    p = np.array([0.1, 0.6, 0.4, 0.36, 0.6, 0.3, 0.9, 0.2, 0.7, 0.7])
    times = np.arange(10) * 0.1
    ends = times + 0.1
    assert hysteresis_segments(p, times, 0.5, 0.35, ends, min_s=0.0) == [(1, 4), (6, 6), (8, 9)]
    assert hysteresis_segments(p, times, 0.5, 0.35, ends, min_s=0.2) == [(1, 4), (8, 9)]
    assert hysteresis_segments(np.full(3, np.nan), times[:3], 0.5, 0.35, ends[:3]) == []
    # At a variable rate a single frame that stands for a while is a segment.
    ends[6] = times[6] + 0.5
    assert (6, 6) in hysteresis_segments(p, times, 0.5, 0.35, ends, min_s=0.2)


def test_a_low_threshold_still_ends_segments() -> None:
    p = np.array([0.05, 0.2, 0.01, 0.01, 0.01])
    times = np.arange(5) * 0.2
    assert hysteresis_segments(p, times, 0.1, max(0.1 / 2, 0.1 - HYSTERESIS), times + 0.2) == [(1, 1)]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("model", "resnet", "unknown model"),
        ("explainer", "tea-leaves", "unknown explainer"),
        ("device", "tpu", "unknown device"),
        ("detector", "eyes", "unknown detector"),
        ("layout", "poster", "unknown layout"),
        ("threshold", 1.5, "--threshold"),
        ("smooth_s", -1.0, "--smooth"),
        ("streams", ("hands",), "unknown stream"),
        ("streams", (), "--streams"),
        ("start_s", -1.0, "--start"),
        ("threads", -1, "--threads"),
        ("stills", (float("nan"),), "--stills"),
        ("body_boxes", Path("b.csv"), "--boxes"),
    ],
)
def test_bad_options_are_refused_before_any_work(face_clip: Path, option: str, value: object, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        explain_video(face_clip, **{option: value})
