"""Gains of a classifier: on a network whose reading is known, against hand-computed reveals, and through its files."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from asd_explain.errors import OptionError, WeightsError
from asd_explain.evaluate.images import methods_for, picture_baseline, reference_for
from asd_explain.explain import image_gains
from asd_explain.explain.image_gains import fit_gains, log_odds, picture_patches, picture_reveal
from asd_explain.explain.images import explain, explain_batch, raw_heat
from asd_explain.models.images import block_of, cifar_resnet, load_host_state_dict, squeeze
from asd_explain.tools import fit_image_gains
from asd_explain.training.export import export_weights
from asd_explain.weights.card_writing import classifier_card_text
from asd_explain.weights.images import PictureFacts, build_network, load_classifier


class Colours(nn.Module):
    """Class 0 is red, class 1 is green, each by its channel; blue is a channel ten times as large that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = nn.Conv2d(3, 3, 8, 8, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.sums.weight.copy_(
                torch.diag(torch.tensor([1.0, 1.0, 10.0]))[..., None, None].expand(-1, -1, 8, 8) / 64
            )
            self.head.weight.copy_(torch.tensor([[30.0, 0.0, 0.0], [0.0, 30.0, 0.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.sums(x)).flatten(1))


def _colours() -> nn.Module:
    torch.manual_seed(0)
    model = squeeze(Colours().eval(), size=32, reduction=1).eval().requires_grad_(False)
    # As if it had learnt: the more blue there is, the more the gate of red closes.
    block_of(model).reduce.weight.copy_(torch.tensor([[0.0, 0.0, 1.0]] * 3))
    block_of(model).reduce.bias.zero_()
    block_of(model).expand.weight.copy_(torch.tensor([[-1.0, 0.0, 0.0], [0.0] * 3, [0.0] * 3]))
    return model


def _spots(count: int = 30) -> torch.Tensor:
    """A red spot or a green one, and a smaller one of the other colour, elsewhere; blue spots anywhere."""
    rng = np.random.default_rng(0)
    pictures = torch.zeros(count, 3, 32, 32)
    for i, picture in enumerate(pictures):
        y, x, v, u, b, c = rng.integers(0, 24, 6)
        picture[i % 2, y : y + 8, x : x + 8] = 1
        picture[1 - i % 2, v : v + 6, u : u + 6] = 0.7
        picture[2, b : b + 8, c : c + 8] = 1
    return pictures


def test_each_class_gets_the_channel_that_speaks_for_it() -> None:
    model = _colours()
    before = model(_spots(4))
    found = fit_gains(model, _spots())
    gains = block_of(model).gains
    assert gains.shape == (2, 3)
    assert gains[0, 0] == gains[1, 1] == 1
    assert gains[0, 1] < 0.1
    assert gains[1, 0] < 0.1
    assert gains[:, 2].max() < 0.05, "nobody reads the large channel"
    assert found.own > 0.8  # what speaks against a class has no weight, so not all is explained
    assert found.own > found.shared > found.without
    assert (found.pictures, found.classes) == (30, 2)
    torch.testing.assert_close(model(_spots(4)), before, rtol=0, atol=0)
    # The same picture, asked for either class.
    picture = _spots(1)[0]
    for target in (0, 1):
        heat = explain(model, picture, "se", target=target, interpolation="nearest")
        wanted = torch.nn.functional.avg_pool2d(picture, 8)[target]
        assert np.corrcoef(heat[4::8, 4::8].ravel(), wanted.ravel())[0, 1] > 0.9
    plain = explain_batch(model, picture[None], "se-plain", target=0)
    np.testing.assert_array_equal(plain, explain_batch(model, picture[None], "se-plain", target=1))


def test_a_class_that_is_never_said_has_the_gains_of_all() -> None:
    model = _colours()
    pictures = _spots(40)[::2]
    assert set(model(pictures).argmax(1).tolist()) == {0}
    fit_gains(model, pictures)
    gains = block_of(model).gains
    assert gains[1].argmax() == 0
    assert gains[1].max() == 1


def test_a_patch_reveals_what_the_log_odds_say_by_hand() -> None:
    model, picture = _colours(), _spots(1)[0]
    found = picture_reveal(model, picture, 0)
    hidden = torch.from_numpy(picture_baseline(picture.numpy(), "blur"))
    gates = block_of(model).gates_of
    odds = []
    for shown in torch.cat((torch.zeros(1, 32, 32), picture_patches((32, 32)))):
        maps = nn.functional.avg_pool2d(picture * shown + hidden * (1 - shown), 8)[None]
        maps = maps * torch.tensor([1.0, 1.0, 10.0])[:, None, None]
        red, green, _ = (maps * gates(maps)[..., None, None] / 0.5).mean((2, 3))[0]
        odds.append(30 * float(red - green))  # two classes: the other's logit taken off
    np.testing.assert_allclose(found.ravel(), np.array(odds[1:]) - odds[0], atol=1e-4)


def test_log_odds_are_those_of_p() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_odds(logits, 2, False).sigmoid(), logits.softmax(1)[:, 2])
    torch.testing.assert_close(log_odds(logits, 2, True), logits[:, 2])
    torch.testing.assert_close(log_odds(logits[:, :1], 0, False), logits[:, 0])


@pytest.mark.parametrize("size", [(32, 32), (21, 35)])
def test_patches_lie_evenly_in_any_size(size: tuple[int, int]) -> None:
    shown = picture_patches(size)
    assert shown.shape == (49, *size)
    torch.testing.assert_close(shown, shown.flip(0, 1, 2))  # the same from either corner
    assert 0.9 < shown.max() <= 1
    assert shown.amax(0).min() > 0.4
    middle = shown[24]  # as wide, in shares of the picture, as it is high
    np.testing.assert_allclose(middle.sum(0).max() / size[0], middle.sum(1).max() / size[1], rtol=0.1)


def test_what_gains_cannot_be_fitted_to_is_named() -> None:
    model = _colours()
    with pytest.raises(OptionError, match="at least 10,"):
        fit_gains(model, _spots(9))
    with pytest.raises(OptionError, match="of 12 pictures 0 have a place"):
        fit_gains(model, torch.full((12, 3, 32, 32), 0.5))  # a patch of an even grey reveals nothing
    torch.manual_seed(0)
    deep = squeeze(cifar_resnet(18, width=8), reduction=4).eval()
    nn.init.normal_(block_of(deep).expand.weight)
    with pytest.raises(OptionError, match="of 12 pictures 0 have a place"):  # but rounding
        fit_gains(deep, torch.full((12, 3, 32, 32), 0.5))
    for odd in (_spots(1)[0], (255 * _spots()).byte(), _spots()[:, :1]):
        with pytest.raises(OptionError, match=r"must be \(N, 3, H, W\) of floats"):
            fit_gains(model, odd)
    new = squeeze(Colours().eval(), size=32, reduction=1).eval()
    with pytest.raises(OptionError, match="learnt nothing"):
        fit_gains(new, _spots())
    for bad in (torch.ones(3), torch.ones(2, 4), torch.full((2, 3), torch.nan), -torch.ones(2, 3)):
        with pytest.raises(ValueError, match="gains"):
            block_of(model).set_gains(bad)
    assert block_of(model).gains is None


def test_gains_travel_with_copies_and_state_dicts_and_go_with_none() -> None:
    model = _colours()
    bare = copy.deepcopy(model.state_dict())
    fit_gains(model, _spots())
    fitted = copy.deepcopy(model.state_dict())
    assert set(fitted) - set(bare) == {"squeeze_excite.gains"}
    other = _colours()
    other.load_state_dict(fitted)
    torch.testing.assert_close(block_of(other).gains, block_of(model).gains)
    torch.testing.assert_close(block_of(copy.deepcopy(model)).gains, block_of(model).gains)
    other.load_state_dict({"head.weight": other.head.weight}, strict=False)
    assert block_of(other).gains is not None, "a part of a state dict that does not speak of the block"
    for bad in (torch.ones(2, 5), torch.ones(3), torch.full((2, 3), torch.nan), -torch.ones(2, 3)):
        with pytest.raises(RuntimeError, match=r"squeeze_excite\.gains"):
            other.load_state_dict(fitted | {"squeeze_excite.gains": bad})
    other.load_state_dict(bare)
    assert block_of(other).gains is None
    load_host_state_dict(other, fitted)
    assert block_of(other).gains is None, "its block stays as it is"
    block_of(other).set_gains(torch.ones(1, 3))
    with pytest.raises(OptionError, match="gains of 1 classes, and none of class 1"):
        explain(other, _spots(1)[0], "se", target=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_gains_go_with_any_precision(dtype: torch.dtype) -> None:
    model = _colours()
    fit_gains(model, _spots())
    wanted = explain(model, _spots(1)[0], "se")
    found = explain(model.to(dtype), _spots(1)[0].to(dtype), "se")
    np.testing.assert_allclose(found / found.max(), wanted / wanted.max(), atol=0.02)


def _looks(of: list[tuple[int, int]], seed: int = 0) -> list[image_gains._Look]:
    """Pictures of (class, channel that speaks for it); three channels."""
    rng = np.random.default_rng(seed)
    maps = [rng.random((3, 4, 4)).astype(np.float32) for _ in of]
    pairs = zip(of, maps, strict=True)
    return [image_gains._Look(said, m, m[channel].astype(np.float64)) for (said, channel), m in pairs]


def test_few_pictures_of_a_class_lean_on_all_and_their_order_does_not_matter() -> None:
    of = [(0, 0)] * 40 + [(1, 1)] * 8 + [(2, 2)] * 4
    gains, found = image_gains._fitted(_looks(of), 4)
    assert found.classes == 2, "one is said too seldom, one never"
    np.testing.assert_array_equal(gains[2], gains[3])
    assert gains[0].argmax() == 0
    assert gains[1].argmax() == 1
    assert gains[3].argmax() == 0
    assert gains[1, 0] > gains[1, 2], "held towards what speaks for most"
    looks = _looks([(k, k) for _ in range(10) for k in range(3)])
    assert image_gains._fitted(looks, 3)[1].own > 0.99, "classes in turn, as many as are held back every time"
    # All classes alike: nothing is gained by gains of their own.
    rng = np.random.default_rng(1)
    alike = _looks([(k % 8, 0) for k in range(80)])
    noisy = [image_gains._Look(k.said, k.maps, k.target + rng.normal(0, 0.5, k.target.shape)) for k in alike]
    same = image_gains._fitted(noisy, 8)[1]
    assert same.hold >= 30
    assert same.shared <= same.own < same.shared + 0.01


def test_a_class_without_a_living_channel_has_the_gains_of_all() -> None:
    looks = _looks([(0, 0)] * 20 + [(1, 1)] * 10)
    dead = [image_gains._Look(1, np.zeros_like(k.maps), k.target) for k in looks[20:]]
    gains, _ = image_gains._fitted([*looks[:20], *dead], 2)
    assert np.isfinite(gains).all()
    np.testing.assert_allclose(gains[1], gains[0], atol=0.05)


def test_attributes_are_explained_by_their_own_logits() -> None:
    model, picture = _colours(), _spots(1)[0]
    one, several = (picture_reveal(model, picture, 0, multilabel) for multilabel in (False, True))
    assert np.abs(one - several).max() > 0.1, "green speaks against red, and not against the attribute"
    assert fit_gains(model, _spots(), multilabel=True).own > 0.85


def test_methods_and_reference_follow_what_the_block_can() -> None:
    model = squeeze(cifar_resnet(18, width=8), reduction=4).eval()
    assert not any(m.startswith("se") for m in methods_for(model))
    assert reference_for(model) == "gradcam"
    nn.init.normal_(block_of(model).expand.weight)
    assert reference_for(model) == "se-plain"
    assert "se" not in methods_for(model)
    block_of(model).set_gains(torch.rand(10, block_of(model).channels))
    assert reference_for(model) == "se"
    assert {"se", "se-plain", "se-shuffled", "weights-shuffled"} <= set(methods_for(model))
    picture = torch.rand(1, 3, 32, 32)
    for method in methods_for(model):
        assert raw_heat(model, picture, method, target=3)[0].shape


FACTS = PictureFacts("folder", "cifar_resnet18", 8, True, 4, ("cat", "dog"), False, (16, 16), (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = build_network(FACTS).eval()
    nn.init.normal_(block_of(network).expand.weight)
    return _kept(network, tmp_path / "last.safetensors")


def _kept(network: nn.Module, path: Path) -> Path:
    export_weights(network, path, half=False)
    texts = {"source": "a test", "training_data": "none", "limits": ()}
    tables = {"pictures": FACTS.table(), "results": {"epoch": 1}}
    path.with_suffix(".toml").write_text(classifier_card_text("a.last", FACTS.arch, path, **texts, tables=tables))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in FACTS.classes:
        folder = tmp_path / "set" / "train" / name
        folder.mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "set"


def test_the_command_leaves_the_same_weights_with_gains(
    checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "with.safetensors"
    words = ["--weights", str(checkpoint), "--set", "folder", "--root", str(pictures), "--out", str(out), "--quiet"]
    assert fit_image_gains.main([*words, "--pictures", "38"]) == 0
    assert "Written" in capsys.readouterr().out
    card = tomllib.loads(out.with_suffix(".toml").read_text())
    assert card["results"]["epoch"] == 1
    assert card["results"]["gains_pictures"] == 38
    assert str(tmp_path) not in card["results"]["gains_command"]
    before, after = load_classifier(checkpoint), load_classifier(out)
    assert block_of(before).gains is None
    assert block_of(after).gains.shape == (2, block_of(after).channels)
    x = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(after(x), before(x), rtol=0, atol=0)
    assert reference_for(after) == "se"


def test_bad_input_to_the_command_is_one_line(
    checkpoint: Path, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "with.safetensors"
    words = ["--weights", str(checkpoint), "--set", "folder", "--root", str(pictures), "--out", str(out), "--quiet"]
    assert fit_image_gains.main([*words[:-2], str(tmp_path / "gains.pt")]) == 2
    assert ".safetensors" in caplog.text
    assert fit_image_gains.main([*words, "--pictures", "0"]) == 2
    assert "--pictures" in caplog.text
    assert fit_image_gains.main([*words, "--pictures", "3"]) == 2
    assert "at least 10" in caplog.text
    assert fit_image_gains.main([*words, "--seed", "-1"]) == 2
    assert "--seed" in caplog.text
    assert fit_image_gains.main([*words, "--out", f"{tmp_path}/{'x' * 300}.safetensors"]) == 2
    assert "too long" in caplog.text
    out.with_suffix(".toml").write_text("mine")
    assert fit_image_gains.main(words) == 2
    assert "--overwrite" in caplog.text
    (pictures / "train" / "cat").rename(pictures / "train" / "cow")
    assert fit_image_gains.main([*words, "--overwrite"]) == 2
    assert "the first that differ: cat, cow" in caplog.text
    assert not out.exists()
    assert out.with_suffix(".toml").read_text() == "mine"


def test_gains_of_another_width_in_a_file_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    network = load_classifier(checkpoint).network
    block_of(network).register_buffer("gains", torch.ones(2, 5))
    path = _kept(network, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match="gains of"):
        load_classifier(path)
    block_of(network).register_buffer("gains", torch.ones(3, block_of(network).channels))
    with pytest.raises(WeightsError, match="gains of 3 classes, the card names 2"):
        load_classifier(_kept(network, path))


def test_tokens_have_gains_too() -> None:
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16, "num_classes": 3}
    model = squeeze(VisionTransformer(image_size=32, patch_size=8, **sizes).eval(), size=32, reduction=1).eval()
    nn.init.normal_(block_of(model).expand.weight)
    nn.init.normal_(model.heads[-1].weight)
    found = fit_gains(model.requires_grad_(False), torch.rand(20, 3, 32, 32))
    assert block_of(model).gains.shape == (3, 8)
    assert found.pictures == 20
    assert explain(model, torch.rand(3, 32, 32), "se", target=2).shape == (32, 32)
