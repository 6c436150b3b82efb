"""Deletion, insertion and the rest on pictures, against brute force and networks whose answer is known."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.image_report import csv_text, grid, markdown
from asd_explain.evaluate.images import (
    METHODS,
    PictureProbe,
    PictureRow,
    ablations,
    chosen,
    measure,
    picture_baseline,
    right,
    seen,
    table,
)
from asd_explain.explain.geometry import over_picture, upsample
from asd_explain.models.images import block_of, cifar_resnet, squeeze
from asd_explain.tools import evaluate_images
from asd_explain.training.export import export_weights
from asd_explain.weights.card_writing import classifier_card_text
from asd_explain.weights.images import PictureFacts, build_network


class Brightness(nn.Module):
    """Logits (0, mean of the left half of the red channel times 8)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = 8 * x[:, 0, :, : x.shape[-1] // 2].mean((1, 2))
        return torch.stack((torch.zeros_like(value), value), -1)


def _left(height: int = 6, width: int = 8) -> np.ndarray:
    heat = np.zeros((height, width), np.float32)
    heat[:, : width // 2] = 1
    return heat


def test_curves_by_hand() -> None:
    """Red only in the left half; the baseline is the mean colour, 0.5 everywhere."""
    picture = torch.zeros(3, 6, 8)
    picture[0, :, :4] = 1
    probe = PictureProbe(Brightness(), picture, 1, steps=4, baselines=("mean",))
    deletion, insertion = probe.curves(_left())
    shown = torch.tensor([1.0, 0.75, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(deletion.p[:, 0], torch.sigmoid(8 * shown), rtol=1e-5)
    np.testing.assert_allclose(
        insertion.p[:, 0], torch.sigmoid(8 * torch.tensor([0.5, 0.75, 1.0, 1.0, 1.0])), rtol=1e-5
    )
    worst = probe.curves(1 - _left())
    np.testing.assert_allclose(worst[0].p[:, 0], torch.sigmoid(8 * torch.tensor([1.0, 1.0, 1.0, 0.75, 0.5])), rtol=1e-5)


def test_attributes_are_followed_by_their_own_sigmoid() -> None:
    picture = torch.rand(3, 6, 8)
    probe = PictureProbe(Brightness(), picture, 0, multilabel=True, steps=2)
    assert probe.p == 0.5
    with pytest.raises(ValueError, match="shape"):
        probe.curves(np.zeros((8, 6), np.float32))


def test_baselines() -> None:
    picture = np.random.default_rng(0).random((3, 28, 40)).astype(np.float32)
    np.testing.assert_allclose(picture_baseline(picture, "mean")[:, 3, 5], picture.mean((1, 2)), rtol=1e-5)
    blurred = picture_baseline(picture, "blur")
    assert blurred.shape == picture.shape
    assert blurred.std() < 0.3 * picture.std()
    with pytest.raises(OptionError, match="unknown baseline"):
        picture_baseline(picture, "noise")


def test_enlarging_is_resizing() -> None:
    heat = np.random.default_rng(0).random((4, 7)).astype(np.float32)
    ours = upsample(heat, *over_picture((4, 7), (32, 42)), (32, 42), "bilinear")
    theirs = F.interpolate(torch.from_numpy(heat)[None, None], (32, 42), mode="bilinear", align_corners=False)[0, 0]
    # OpenCV interpolates in steps of 1/32 pixel.
    np.testing.assert_allclose(ours, theirs, atol=1 / 32)


def _model(learnt: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = squeeze(cifar_resnet(18, width=8), reduction=4).eval().requires_grad_(False)
    if learnt:
        nn.init.normal_(block_of(model).expand.weight)
    return model


class Pictures(torch.utils.data.Dataset):
    """A dozen pictures of ten classes."""

    classes = tuple("abcdefghij")
    multilabel = False

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index)), index % 10


class Attributes(Pictures):
    """The same pictures with ten attributes each."""

    multilabel = True

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return super().__getitem__(index)[0], (torch.arange(10) % (2 + index % 3) == 0).float()


def test_every_method_and_ablation_is_measured() -> None:
    more = ablations()
    rows = measure(_model(), Pictures()[0][0], 0, METHODS, more=more, steps=3)
    labels = [*METHODS, *(label for label, *_ in more)]
    assert len(set(labels)) == len(labels)
    assert {(r.method, r.metric, r.baseline) for r in rows} == {
        (m, k, b) for m in labels for k in ("deletion", "insertion") for b in ("blur", "mean")
    }
    assert all(0 <= r.value <= 1 for r in rows)
    # One picture's recipe is the percentile 90 of its gates.
    value = {(r.method, r.metric, r.baseline): r.value for r in rows}
    assert value["se-paper", "deletion", "blur"] == value["se: percentile 90", "deletion", "blur"]


def test_the_table_pairs_pictures() -> None:
    rows = [
        PictureRow(n, m, "deletion", "blur", v)
        for n in range(8)
        for m, v in (("se-plain", 0.1 * n), ("random", 0.1 * n + 0.05))
    ]
    plain, other = table(rows)
    assert plain["mean"] == pytest.approx(0.35)
    assert "verdict" not in plain
    assert other["difference"] == pytest.approx(-0.05)
    assert (other["verdict"], other["wins"], other["pictures"]) == ("better", 1.0, 8)
    read = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert len(read) == 16
    assert float(read[3]["value"]) == pytest.approx(0.15)


def test_what_was_seen() -> None:
    answers = seen(_model(), Pictures(), batch=5)
    assert {k: v.shape for k, v in answers.items()} == {
        "logits": (12, 10), "bypassed": (12, 10), "gates": (12, 64), "targets": (12,),
    }  # fmt: skip
    untouched = seen(_model(learnt=False), Pictures())
    np.testing.assert_array_equal(untouched["logits"], untouched["bypassed"])
    np.testing.assert_allclose(answers["bypassed"], untouched["logits"], rtol=1e-4, atol=1e-5)
    assert not np.allclose(answers["logits"], answers["bypassed"])


def test_right() -> None:
    assert right(np.array([[0, 1.0], [1, 0]]), np.array([1, 1])).tolist() == [1, 0]
    assert right(np.array([[-1, 1.0, 2, -2]]), np.array([[0, 1.0, 0, 1]])).tolist() == [0.5]


def test_choice_of_pictures() -> None:
    assert chosen(Pictures(), 99).tolist() == list(range(12))
    some = chosen(Pictures(), 5, seed=1)
    assert len(set(some.tolist())) == 5
    assert some.tolist() == sorted(some.tolist()) == chosen(Pictures(), 5, seed=1).tolist()
    with pytest.raises(OptionError, match="at least one"):
        chosen(Pictures(), 0)


def test_grid_is_a_picture(tmp_path) -> None:
    path = tmp_path / "grid.png"
    grid(path, [np.zeros((8, 8, 3))] * 2, ["a", "b"], [{"se": np.zeros((8, 8)), "fem": np.ones((8, 8))}] * 2)
    with Image.open(path) as image:
        assert min(image.size) > 300


# ---- the command, on a network and a set of its own


def _facts(classes: tuple[str, ...], **more: object) -> PictureFacts:
    known = {"set": "folder", "arch": "cifar_resnet18", "width": 4, "block": True, "reduction": 4, "multilabel": False}
    known |= {"size": (16, 16), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return PictureFacts(classes=classes, **known | more)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Runs the tool on networks and pictures made here; returns its exit code."""

    class Classifier(nn.Module):
        card = None

        def __init__(self, network: nn.Module, multilabel: bool) -> None:
            super().__init__()
            self.network, self.facts = network, _facts(Pictures.classes, multilabel=multilabel, side=0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network((x - 0.5) / 0.25)

    def load(path, device):
        torch.manual_seed(0)
        faces = "faces" in path.name
        return Classifier(cifar_resnet(18, width=8) if "plain" in path.name else _model(), faces).eval()

    monkeypatch.setattr(evaluate_images, "load_classifier", load)
    data = {"folder": Pictures(), "celeba": Attributes()}
    monkeypatch.setattr(evaluate_images, "open_images", lambda name, *a, **k: data[name])
    small = ["--pictures", "3", "--ablation-pictures", "2", "--grid-pictures", "2", "--steps", "2", "--quiet"]

    def run(out, *more: str, weights: str = "block.safetensors") -> int:
        given = ["--weights", weights, "--set", "folder", "--root", "/secret/place", "--out", str(out)]
        return evaluate_images.main([*given, *small, *more])

    return run


def test_the_command_writes_whole_files_and_no_folder_of_the_machine(command, tmp_path, capsys) -> None:
    assert command(tmp_path / "r", "--plain", "plain.safetensors") == 0
    page = capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["grid.png", "metrics.csv", "report.json", "report.md"]
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert set(report["accuracy"]) == {
        "with the block", "the same network, its block bypassed", "trained without the block",
    }  # fmt: skip
    assert {e["method"] for e in report["faithfulness"]} == set(METHODS)
    assert report["gates"][0]["frames"] == 12
    assert [s["percentile"] for s in report["selection"] if s["scope"] == "frame"] == [0.75, 0.9, 0.95, 0.99]
    assert "secret/" not in page + json.dumps(report)
    assert page == markdown(report)
    lines = (tmp_path / "r" / "metrics.csv").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 1 + 4 * (3 * len(METHODS) + 2 * len(ablations()))


def test_the_command_in_the_report_can_be_pasted(command, tmp_path) -> None:
    out = tmp_path / "two words"
    assert command(out, "--plain=/secret/runs of mine/plain.safetensors", "--ablation-pictures", "0") == 0
    told = shlex.split(json.loads((out / "report.json").read_text())["command"])
    assert told[:4] == ["python", "tools/evaluate_images.py", "--weights", "block.safetensors"]
    assert told[told.index("--out") + 1] == "two words"
    assert told[told.index("--plain") + 1] == "runs of mine/plain.safetensors"


def test_results_are_not_replaced_unasked(command, tmp_path, caplog) -> None:
    (tmp_path / "report.md").write_text("mine")
    assert command(tmp_path) == 2
    assert "--overwrite" in caplog.text
    assert (tmp_path / "report.md").read_text() == "mine"
    assert command(tmp_path, "--overwrite", "--ablation-pictures", "0") == 0
    assert (tmp_path / "report.md").read_text() != "mine"


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(
    command, tmp_path, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(evaluate_images, "seen", lambda *a, **k: pytest.fail("measured"))
    (tmp_path / "file").write_text("mine")
    assert command(tmp_path / "file") == 2
    assert "cannot be written" in caplog.messages[-1]


def test_one_picture_has_no_interval(command, tmp_path, capsys) -> None:
    one = ("--pictures", "1", "--accuracy-pictures", "1", "--ablation-pictures", "0")
    assert command(tmp_path / "r", "--plain", "plain.safetensors", *one) == 0
    page = capsys.readouterr().out
    assert "nan" not in page
    assert "% [-, -]" in page


def test_a_plain_network_is_measured_by_its_rivals_or_fitted(command, tmp_path) -> None:
    assert command(tmp_path / "a", weights="plain.safetensors") == 0
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert not any(e["method"].startswith("se") for e in report["faithfulness"])
    assert report["against"] == "gradcam"
    assert report["gates"] == report["ablations"] == []
    fitting = ("--fit", "12", "--fit-steps", "20", "--ablation-pictures", "0")
    assert command(tmp_path / "b", *fitting, weights="plain.safetensors") == 0
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert report["fit"]["pictures"] == 12
    assert "se-plain" in {e["method"] for e in report["faithfulness"]}
    assert command(tmp_path / "c", *fitting) == 2


def test_attributes_end_to_end(command, tmp_path) -> None:
    fitting = ("--fit", "12", "--fit-steps", "5", "--ablation-pictures", "1")
    assert command(tmp_path, "--set", "celeba", *fitting, weights="plain.faces.safetensors") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    answers = seen(evaluate_images.load_classifier(tmp_path / "block.safetensors", "cpu"), Attributes())
    assert answers["targets"].shape == (12, 10)
    accuracy = report["accuracy"]["the same network, its block bypassed"]
    assert accuracy["mean"] == pytest.approx(right(answers["bypassed"], answers["targets"]).mean(), abs=1e-3)


# ---- the command on checkpoints with their cards, and folders of pictures


def _checkpoint(path: Path, classes: tuple[str, ...], **more: object) -> Path:
    """An untrained network with a card."""
    facts = _facts(classes, **more)
    torch.manual_seed(0)
    export_weights(build_network(facts), path, half=False)
    tables = {"pictures": facts.table(), "results": {}}
    text = classifier_card_text("c", facts.arch, path, source="", training_data="", limits=(), tables=tables)
    path.with_suffix(".toml").write_text(text)
    return path


def _folder(root: Path, classes: tuple[str, ...], size: tuple[int, int] = (16, 16), each: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / "test" / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(root / "test" / name / f"{i}.png")
    return root


def _evaluate(weights: Path, root: Path, out: Path, *more: object) -> int:
    small = ["--pictures", "2", "--ablation-pictures", "0", "--grid-pictures", "1", "--steps", "2", "--quiet"]
    given = ["--weights", weights, "--set", "folder", "--root", root, "--out", out, *small, *more]
    return evaluate_images.main([str(word) for word in given])


@pytest.mark.parametrize(
    ("trained_on", "there", "told"),
    [
        (("ant", "bee", "cat"), ("ant",), "3 classes, these pictures have 1 classes; the first that differ: bee, no"),
        (("ant",), ("ant", "bee", "cat"), "1 classes, these pictures have 3 classes; the first that differ: nothing, "),
        (("ant", "bee"), ("ant", "wasp"), "the first that differ: bee, wasp"),
    ],
)
@pytest.mark.parametrize("option", ["--weights", "--plain"])
def test_a_checkpoint_of_other_classes_is_refused(trained_on, there, told, option, tmp_path, caplog) -> None:
    wrong, right = (
        _checkpoint(tmp_path / f"{i}.safetensors", classes) for i, classes in enumerate((trained_on, there))
    )
    given = [wrong] if option == "--weights" else [right]
    more = ["--plain", wrong] if option == "--plain" else []
    assert _evaluate(*given, _folder(tmp_path / "set", there), tmp_path / "out", *more) == 2
    assert f"{wrong} was trained on" in caplog.text
    assert told in caplog.text
    assert not (tmp_path / "out").exists()


def test_attributes_are_no_classes(tmp_path, caplog) -> None:
    weights = _checkpoint(tmp_path / "a.safetensors", ("ant", "bee"), multilabel=True)
    assert _evaluate(weights, _folder(tmp_path / "set", ("ant", "bee")), tmp_path / "out") == 2
    assert "trained on 2 attributes, these pictures have 2 classes; give the set" in caplog.text


@pytest.mark.parametrize(
    ("stored", "card", "more", "shown"),
    [
        ((20, 24), {"size": (16, 16), "side": 16}, (), (13, 16)),  # small pictures are used whole
        ((80, 96), {"size": (16, 16), "side": 16}, (), (16, 16)),
        ((20, 24), {"size": (20, 24), "side": 0}, (), (20, 24)),
        ((72, 96), {"size": (72, 96), "side": 0}, (), (72, 96)),  # brought to 96 px it would be a square
        ((20, 24), {"size": (16, 16), "side": 16}, ("--size", 0), (20, 24)),
        ((20, 24), {"size": (16, 16), "side": 16}, ("--size", 12), (10, 12)),
        ((80, 96), {"size": (16, 16)}, (), (16, 16)),  # cards of trainings that did not say
        ((72, 96), {"size": (72, 96)}, (), (72, 96)),
    ],
)
def test_pictures_are_brought_to_the_card_s_size(stored, card, more, shown, tmp_path, monkeypatch) -> None:
    weights = _checkpoint(tmp_path / "a.safetensors", ("ant", "bee"), **card)
    asked = []

    def look(model, data, **options) -> None:
        asked.append(tuple(data[0][0].shape[1:]))
        raise OptionError("seen enough")

    monkeypatch.setattr(evaluate_images, "seen", look)
    root = _folder(tmp_path / "set", ("ant", "bee"), stored, each=1)
    assert _evaluate(weights, root, tmp_path / "out", *more) == 2
    assert asked == [shown]


def test_networks_of_two_sizes_are_compared_at_a_stated_one_only(tmp_path, caplog) -> None:
    root = _folder(tmp_path / "set", ("ant", "bee"), each=1)
    weights = _checkpoint(tmp_path / "a.safetensors", ("ant", "bee"), side=16)
    plain = _checkpoint(tmp_path / "b.safetensors", ("ant", "bee"), block=False, side=24, size=(24, 24))
    assert _evaluate(weights, root, tmp_path / "out", "--plain", plain) == 2
    assert "pictures of another size than" in caplog.text
    assert _evaluate(weights, root, tmp_path / "out", "--plain", plain, "--size", 16) == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("workers", -1), ("seed", -1), ("fit", -1), ("fit-steps", 0), ("ablation-pictures", -1), ("size", -1),
     ("accuracy-pictures", -1), ("pictures", 0), ("steps", 0), ("grid-pictures", 0)],
)  # fmt: skip
def test_numbers_that_cannot_be_are_told_before_anything_is_read(option, value, tmp_path, caplog) -> None:
    assert _evaluate(tmp_path / "none", tmp_path, tmp_path / "out", f"--{option}", value) == 2
    assert f"--{option} must be at least" in caplog.text


def test_a_device_that_is_not_there_is_told(tmp_path, caplog, capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _evaluate(tmp_path / "none", tmp_path, tmp_path / "out", "--device", "cuda") == 2
    assert "--device cuda: there is none here" in caplog.text
    with pytest.raises(SystemExit):
        _evaluate(tmp_path / "none", tmp_path, tmp_path / "out", "--device", "foo")
    assert "invalid choice: 'foo'" in capsys.readouterr().err
