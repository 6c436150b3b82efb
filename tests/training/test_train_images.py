"""Training on pictures from the command line: both arms, going on, cards; on pictures made here."""

import csv
import json
import re
import shlex
import shutil
import tomllib

import numpy as np
import pytest
import torch
from PIL import Image

from asd_explain.datasets.images import open_images
from asd_explain.errors import OptionError, WeightsError
from asd_explain.evaluate.classification import attribute_scores, class_scores
from asd_explain.models.images import block_of, blocks_in, host_state_dict
from asd_explain.tools.train_images import compare, main
from asd_explain.training.config import find_config
from asd_explain.training.image_config import ImageLoopConfig, read_image_config
from asd_explain.training.images import ImageTrainer, _Drawn
from asd_explain.weights.images import build_network, load_classifier

SMALL = (
    "model.width=4", "data.hold_out=16", "data.part=0", 'data.set="folder"', "loop.epochs=2", "loop.batch=16",
    "loop.save_every=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes that differ by their colour, 40 pictures each of 16 x 16 px."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 20)):
        for k, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                picture = rng.integers(0, 150, (16, 16, 3), dtype=np.uint8)
                picture[..., k] += 90
                Image.fromarray(picture).save(root / split / name / f"{i}.png")
    return root


def train(pictures, out, *more, changes=(), seeds=("0",)):
    sets = [word for change in (*SMALL, *changes) for word in ("--set", change)]
    return main(
        ["cifar10_short", "--data", str(pictures), "--out", str(out), "--device", "cpu", "--threads", "1", "--quiet",
         "--seeds", *seeds, *sets, *more]
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "both"
    assert train(pictures, out) == 0
    return out


def test_both_arms_are_trained_and_told_apart(trained, pictures):
    summary = json.loads((trained / "summary.json").read_text())
    assert [r["arm"] for r in summary["runs"]] == ["plain", "block"]
    test = open_images("folder", pictures, "test")
    for run in summary["runs"]:
        classifier = load_classifier(trained / f"{run['arm']}.seed0" / "last.safetensors")
        shown = torch.stack([test[i][0] for i in range(len(test))])
        accuracy = float((classifier(shown).argmax(1).numpy() == test.targets).mean())
        assert run["last"]["accuracy"] == pytest.approx(accuracy)
        assert accuracy > 0.8  # colours are easily told
    plain, block = summary["runs"]
    assert summary["comparison"]["accuracy"]["difference"] == block["last"]["accuracy"] - plain["last"]["accuracy"]
    # The block's own: two linear layers of 32 channels and 2 hidden units.
    assert block["parameters"] - plain["parameters"] == 32 * 2 + 2 + 2 * 32 + 32


def test_the_card_holds_what_is_needed(trained, pictures):
    path = trained / "block.seed0" / "best.safetensors"
    classifier = load_classifier(path)
    card = tomllib.loads(path.with_suffix(".toml").read_text())
    mean, std = open_images("folder", pictures, "train", hold_out=16).mean_std()
    assert card["pictures"]["mean"] == list(mean)
    assert card["pictures"]["std"] == list(std)
    assert card["pictures"]["classes"] == ["ant", "bee"]
    assert (card["pictures"]["size"], card["pictures"]["block"]) == ([16, 16], True)
    assert card["results"]["command"].startswith("python tools/train_images.py cifar10_short --set model.width=4")
    assert block_of(classifier.network).learnt
    image = torch.rand(2, 3, 16, 16)
    by_hand = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(classifier(image), classifier.network(by_hand))
    torch.testing.assert_close(classifier.channels_last()(image), classifier.network(by_hand))
    assert not blocks_in(load_classifier(trained / "plain.seed0" / "best.safetensors").network)


def test_a_card_of_other_weights_or_none_is_refused(trained, tmp_path):
    for name in ("best.safetensors", "best.toml"):
        shutil.copy(trained / "plain.seed0" / name, tmp_path / name)
    shutil.copy(trained / "block.seed0" / "best.safetensors", tmp_path / "best.safetensors")
    with pytest.raises(WeightsError, match="card of other weights"):
        load_classifier(tmp_path / "best.safetensors")
    (tmp_path / "best.toml").write_text("kind = 3")
    with pytest.raises(WeightsError, match="no card"):
        load_classifier(tmp_path / "best.safetensors")
    (tmp_path / "best.toml").unlink()
    with pytest.raises(WeightsError, match="no such file"):
        load_classifier(tmp_path / "best.safetensors")


def test_arms_begin_alike_and_see_the_same(trained):
    facts = load_classifier(trained / "block.seed0" / "last.safetensors").facts
    states = []
    for block in (False, True):
        torch.manual_seed(5)
        network = build_network(type(facts)(**{**facts.__dict__, "block": block}))
        states.append(host_state_dict(network) if block else network.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_draws_follow_from_seed_epoch_and_picture(pictures):
    images = open_images("folder", pictures, "train", train_transform=True)
    first = [_Drawn(images, 1, 1)[i][0] for i in (3, 4)]
    torch.manual_seed(9)
    again = [_Drawn(images, 1, 1)[i][0] for i in (4, 3)]
    assert torch.equal(first[0], again[1])
    assert torch.equal(first[1], again[0])
    others = [_Drawn(images, s, e)[3][0] for s, e in ((1, 2), (1, 3), (2, 1), (3, 1), (4, 1))]
    assert any(not torch.equal(first[0], other) for other in others)


class PowerError(Exception):
    """The power failed."""


@pytest.mark.parametrize("steps", [3, 6])
def test_a_training_that_was_cut_off_ends_with_the_same_bits(trained, pictures, tmp_path, monkeypatch, steps):
    out, one, left = tmp_path / "cut", ImageTrainer._one, [steps]

    def failing(self, *args):
        if not left[0]:
            raise PowerError
        left[0] -= 1
        one(self, *args)

    monkeypatch.setattr(ImageTrainer, "_one", failing)
    with pytest.raises(PowerError):  # within the first epoch, and within the second
        train(pictures, out, "--arms", "block")
    monkeypatch.undo()
    assert train(pictures, out, "--arms", "block") == 0
    for name in ("last.safetensors", "best.safetensors"):
        assert (out / "block.seed0" / name).read_bytes() == (trained / "block.seed0" / name).read_bytes()
    rows = []
    for folder in (trained, out):
        with (folder / "block.seed0" / "log.csv").open() as stream:
            rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)])
    assert rows[0] == rows[1]
    assert [row["epoch"] for row in rows[0]] == ["1", "2"]


def test_what_is_finished_is_left_alone_and_other_options_are_refused(trained, pictures, capsys, caplog):
    stamp = (trained / "plain.seed0" / "last.safetensors").stat().st_mtime_ns
    assert train(pictures, trained) == 0
    assert (trained / "plain.seed0" / "last.safetensors").stat().st_mtime_ns == stamp
    assert capsys.readouterr().out == f"{trained / 'summary.json'}\n"
    assert train(pictures, trained, changes=["loop.lr=0.2"]) == 2
    assert "another loop" in caplog.text
    assert train(pictures, trained, changes=["loop.batch=1000"]) == 2
    assert train(pictures, trained / "new", changes=['model.arch="nothing"']) == 2
    assert "neither cifar_resnet18" in caplog.text


def strict(path):
    """A JSON file, read as the standard says: without NaN."""
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{path} holds {name}"))


def test_one_seed_has_no_standard_error_and_json_says_null(trained):
    assert strict(trained / "summary.json")["comparison"]["accuracy"]["standard_error"] is None
    assert compare(strict(trained / "summary.json")["runs"])["accuracy"]["seeds"] == 1


def test_scores_that_a_set_lacks_are_null_and_compared_as_nothing():
    runs = [{"arm": arm, "seed": 0, "last": {"mean_ap": None, "accuracy": 0.5}} for arm in ("plain", "block")]
    found = compare(runs)
    assert np.isnan(found["mean_ap"]["difference"])
    assert found["accuracy"]["difference"] == 0


def test_arms_and_seeds_trained_one_after_another_add_up(trained, pictures, tmp_path):
    out = tmp_path / "runs"
    shutil.copytree(trained / "block.seed0", out / "block.seed0")
    (out / "notes.seed0").mkdir()
    (out / "notes.seed0" / "test.json").write_text("{}")  # none of ours
    assert train(pictures, out, "--arms", "plain", seeds=("10", "2")) == 0
    summary = strict(out / "summary.json")
    assert [(r["arm"], r["seed"]) for r in summary["runs"]] == [("block", 0), ("plain", 2), ("plain", 10)]
    assert summary["comparison"] == {}
    assert train(pictures, out, "--arms", "plain") == 0
    summary = strict(out / "summary.json")
    assert [(r["arm"], r["seed"]) for r in summary["runs"][:2]] == [("plain", 0), ("block", 0)]
    assert summary["comparison"]["accuracy"] == strict(trained / "summary.json")["comparison"]["accuracy"]


def test_a_summary_is_of_one_configuration(trained, pictures, tmp_path, caplog):
    shutil.copytree(trained / "plain.seed0", tmp_path / "plain.seed0")
    assert train(pictures, tmp_path, "--arms", "plain", changes=["loop.lr=0.2"]) == 2
    assert re.search(r"plain.seed0.*begun with another loop; .*--overwrite to begin anew$", caplog.messages[-1])
    assert train(pictures, tmp_path, "--arms", "block", changes=["loop.lr=0.2"]) == 2
    assert re.search(r"plain.seed0.*begun with another loop; give another --out: ", caplog.messages[-1])
    (tmp_path / "plain.seed0" / "checkpoint.pt").unlink()  # large, and no longer needed
    assert train(pictures, tmp_path, "--arms", "block", changes=["loop.lr=0.2"]) == 2
    assert not (tmp_path / "block.seed0").exists()
    assert not (tmp_path / "summary.json").exists()
    assert train(pictures, tmp_path, "--arms", "plain", "--overwrite", changes=["loop.lr=0.2"]) == 0
    assert len(strict(tmp_path / "summary.json")["runs"]) == 1


def test_what_cannot_be_trained_anew_is_not_removed(trained, pictures, tmp_path, caplog):
    for name in ("plain.seed0", "block.seed0"):
        shutil.copytree(trained / name, tmp_path / name)
    before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert train(pictures, tmp_path, "--arms", "plain", "--overwrite", changes=["loop.lr=0.2"]) == 2
    assert re.search(r"block.seed0.*give another --out", caplog.messages[-1])
    assert "--overwrite" not in caplog.messages[-1]  # it was given, and does not help
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--set", "loop.batch=4000"], r"batch = 4000, but there are 64 pictures.*--set loop.batch=64"),
        (["--set", 'model.arch="nope"'], "nope"),
        (["--weights", "broken.safetensors"], "broken"),
    ],
)
def test_nothing_is_removed_for_a_training_that_cannot_begin(trained, pictures, tmp_path, caplog, more, told):
    shutil.copytree(trained, tmp_path / "runs")
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    more = [str(tmp_path / word) if word.endswith(".safetensors") else word for word in more]
    before = {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file()}
    assert train(pictures, tmp_path / "runs", "--overwrite", *more) == 2
    assert re.search(told, caplog.messages[-1])
    assert {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file()} == before


def test_a_summary_forgets_what_is_begun_anew(trained, pictures, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "runs")

    def fail(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageTrainer, "_one", fail)
    assert train(pictures, tmp_path / "runs", "--arms", "block", "--overwrite") == 130
    assert [r["arm"] for r in strict(tmp_path / "runs" / "summary.json")["runs"]] == ["plain"]


def test_splits_of_other_sizes_are_refused(pictures, tmp_path, caplog):
    shutil.copytree(pictures, tmp_path / "set")
    for path in (tmp_path / "set" / "test").rglob("*.png"):
        Image.open(path).resize((20, 24)).save(path)
    assert train(tmp_path / "set", tmp_path / "out", "--arms", "plain") == 2
    assert "pictures of 16 x 16 and 20 x 24 px; bring all to one size ([data] size)" in caplog.messages[-1]


def test_what_is_finished_belongs_to_its_pictures(trained, pictures, tmp_path, caplog):
    shutil.copytree(pictures, tmp_path / "moved")
    assert train(tmp_path / "moved", trained) == 0  # wherever they lie
    (tmp_path / "moved" / "test" / "ant" / "0.png").rename(tmp_path / "moved" / "test" / "bee" / "20.png")
    assert train(tmp_path / "moved", trained) == 2
    assert "begun with another pictures;" in caplog.text


def test_damaged_scores_are_told(trained, pictures, tmp_path, caplog):
    shutil.copytree(trained / "plain.seed0", tmp_path / "plain.seed0")
    (tmp_path / "plain.seed0" / "test.json").write_text("{")
    assert train(pictures, tmp_path, "--arms", "plain") == 2
    assert "test.json cannot be read as scores" in caplog.text
    assert train(pictures, tmp_path, "--arms", "block") == 2
    assert not (tmp_path / "block.seed0").exists()  # told before the work
    (tmp_path / "plain.seed0" / "test.json").unlink()
    assert train(pictures, tmp_path, "--arms", "plain") == 0
    last = [strict(folder / "plain.seed0" / "test.json")["last"] for folder in (tmp_path, trained)]
    assert last[0] == last[1]


def test_one_class_is_nothing_to_tell_apart(pictures, tmp_path, caplog):
    for split in ("train", "test"):
        shutil.copytree(pictures / split / "ant", tmp_path / "set" / split / "ant")
    assert train(tmp_path / "set", tmp_path / "out") == 2
    assert "ant is the only class" in caplog.text
    assert not (tmp_path / "out").exists()


def test_the_command_on_the_card_can_be_pasted(trained):
    card = tomllib.loads((trained / "block.seed0" / "last.toml").read_text())
    told = shlex.split(card["results"]["command"])
    assert told == ["python", "tools/train_images.py", "cifar10_short", *(w for c in SMALL for w in ("--set", c))]
    assert card["source"] == f"trained by {card['results']['command']}"


@pytest.mark.parametrize(("error", "code"), [(FloatingPointError("loss nan"), 2), (KeyboardInterrupt(), 130)])
def test_a_training_that_ends_early_says_so_in_one_line(error, code, pictures, tmp_path, monkeypatch, caplog):
    def fail(self, *args):
        raise error

    monkeypatch.setattr(ImageTrainer, "_one", fail)
    assert train(pictures, tmp_path, "--arms", "plain") == code
    assert caplog.messages[-1] in ("loss nan", "interrupted; the same command goes on from the last checkpoint")


@pytest.mark.parametrize(
    ("option", "told"),
    [("--workers=-1", "have to be 0 or more"), ("--threads=-1", "have to be 0 or more"),
     ("--seeds=-1", "have to be 0 or more"), ("--device=cuda", "there is none here")],
)  # fmt: skip
def test_options_that_cannot_be_are_told(option, told, pictures, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train(pictures, tmp_path / "out", option) == 2
    assert told in caplog.text
    assert not (tmp_path / "out").exists()


def test_a_folder_of_a_few_pictures_needs_no_change_of_its_configuration(pictures, tmp_path):
    quick = ("model.arch='resnet18'", "data.size=32", "loop.epochs=1")  # of the network and its cost only
    sets = [word for change in quick for word in ("--set", change)]
    given = ["folder_resnet50", "--data", pictures, "--out", tmp_path, "--arms", "plain", "--threads", 1, "--quiet"]
    assert main([str(word) for word in (*given, "--device", "cpu", *sets)]) == 0
    card = tomllib.loads((tmp_path / "plain.seed0" / "last.toml").read_text())
    assert card["training_data"] == "folder: 72 pictures"
    assert card["results"]["val_pictures"] == 8
    assert card["pictures"]["side"] == 32


def test_faces_with_attributes_are_learnt_end_to_end(tmp_path):
    pytest.importorskip("skimage", reason="the miniature needs the demo extra")
    from asd_explain.datasets.celeba_miniature import make_celeba_miniature

    make_celeba_miniature(tmp_path / "mini", pictures=20)
    sets = ["model.width=4", "data.size=24", "loop.epochs=1", "loop.batch=7"]
    words = [word for change in sets for word in ("--set", change)]
    assert main(
        ["celeba_miniature", "--data", str(tmp_path / "mini"), "--out", str(tmp_path / "runs"), "--device", "cpu",
         "--threads", "1", "--quiet", *words]
    ) == 0  # fmt: skip
    summary = json.loads((tmp_path / "runs" / "summary.json").read_text())
    assert set(summary["comparison"]) == {"accuracy", "balanced_accuracy", "mean_ap", "attributes_with_both"}
    classifier = load_classifier(tmp_path / "runs" / "block.seed0" / "best.safetensors")
    assert classifier.facts.multilabel
    assert classifier(torch.rand(1, 3, *classifier.facts.size)).shape == (1, 40)


def test_a_torchvision_classifier_begins_with_given_weights(pictures, tmp_path):
    changes = ('model.arch="mobilenet_v3_small"', "data.size=32", "loop.epochs=1", "loop.batch=64")
    assert train(pictures, tmp_path / "first", "--arms", "plain", changes=changes) == 0
    weights = tmp_path / "first" / "plain.seed0" / "last.safetensors"
    out = tmp_path / "second"
    assert train(pictures, out, "--arms", "block", "--weights", str(weights), changes=[*changes, "loop.lr=1e-9"]) == 0
    before, after = load_classifier(weights), load_classifier(out / "block.seed0" / "last.safetensors")
    kept = after.network.state_dict()
    for key, value in before.network.named_parameters():
        torch.testing.assert_close(kept[key], value, atol=1e-6, rtol=0)


def test_scores_against_counting_by_hand():
    assert class_scores(np.array([[2.0, 1], [0, 3], [5, 4]]), np.array([0, 0, 0])) == {"accuracy": 2 / 3}
    logits = np.array([[2.0, -1, -1], [1, -1, -1], [-1, 3, -1], [-2, -1, -1]])
    targets = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    found = attribute_scores(logits, targets)
    assert found["accuracy"] == 10 / 12
    assert found["attributes_with_both"] == 2  # nobody has the third
    # First: its one picture told right, one of three others not; second: one of two, and both others.
    assert found["balanced_accuracy"] == pytest.approx(((1 + 2 / 3) / 2 + (0.5 + 1) / 2) / 2)
    # First: best score is right. Second: 3 is right, then three tied at -1 of which one is: precision 1 and 2/4.
    assert found["mean_ap"] == pytest.approx((1 + (0.5 * 1 + 0.5 * 0.5)) / 2)
    assert np.isnan(attribute_scores(logits[:, 2:], targets[:, 2:])["mean_ap"])


def test_the_difference_is_taken_seed_by_seed():
    runs = [
        {"arm": arm, "seed": seed, "last": {"accuracy": value}}
        for arm, values in (("plain", (0.5, 0.7, 0.6)), ("block", (0.52, 0.70, 0.61)))
        for seed, value in enumerate(values)
    ]
    found = compare([*runs, {"arm": "plain", "seed": 9, "last": {"accuracy": 0.0}}])["accuracy"]
    assert found["difference"] == pytest.approx(0.01)
    assert found["standard_error"] == pytest.approx(0.01 / 3**0.5)
    assert found["seeds"] == 3
    assert compare(runs[:3]) == {}


def test_configurations_are_read_and_mistakes_told(tmp_path):
    folder = find_config("cifar10_short", "image_configs").parent
    for name in sorted(path.stem for path in folder.glob("*.toml")):
        assert read_image_config(find_config(name, "image_configs")).loop.epochs >= 1
    with pytest.raises(OptionError, match="there are celeba_miniature"):
        find_config("nothing", "image_configs")
    path = tmp_path / "own.toml"
    for text, told in (
        ("[model]\nwidth = 1.5", "not a whole number"),
        ("[loop]\nprecision = 'half'", "neither"),
        ("[data]\nset = 'mnist'", "choose from"),
        ("[loss]\na = 1", "unknown loss"),
        ("model = 3", "not a table"),
    ):
        path.write_text(text)
        with pytest.raises(OptionError, match=told):
            read_image_config(path)


def test_the_rate_rises_then_falls_to_nothing():
    loop = ImageLoopConfig(lr=0.4, warmup=0.25)
    rates = [loop.rate(step, 40) for step in range(40)]
    assert rates.index(max(rates)) == 10
    assert max(rates) == pytest.approx(0.4)
    assert (np.diff(rates[:11]) > 0).all()
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[25] == pytest.approx(0.2)
    assert 0 < rates[-1] < 0.002
