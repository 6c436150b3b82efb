"""Sets of pictures: the files of others, read as they lie; nothing is downloaded."""

import hashlib
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from asd_explain.datasets.celeba import TEXTS, CelebAFiles
from asd_explain.datasets.celeba_miniature import ATTRIBUTES, DRAWN, main, make_celeba_miniature
from asd_explain.datasets.entities import DataError
from asd_explain.datasets.images import open_images
from asd_explain.errors import OptionError, OutputError


def write_folder(root, splits=("train", "test"), per_class=6, size=(32, 32), suffix="png"):
    """Class folders of pictures whose colour tells the class, losslessly."""
    rng = np.random.default_rng(0)
    for split in splits:
        for k, name in enumerate(("ant", "bee")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                picture = rng.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
                picture[..., k] += 150
                Image.fromarray(picture).save(folder / f"{i}.{suffix}")
    return root


def write_cifar(root, loader, monkeypatch):
    """A CIFAR of three pictures a file, in the published form, and its md5 where the loader looks them up."""
    folder = root / loader.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    key = "labels" if loader is datasets.CIFAR10 else "fine_labels"

    def put(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    for attribute in ("train_list", "test_list"):
        files = [
            put(name, {"data": rng.integers(0, 256, (3, 3072), dtype=np.uint8), key: [0, 1, 2]})
            for name, _ in getattr(loader, attribute)
        ]
        monkeypatch.setattr(loader, attribute, files)
    names = {loader.meta["key"]: [f"c{i}" for i in range(10)]}
    monkeypatch.setattr(loader, "meta", loader.meta | {"md5": put(loader.meta["filename"], names)[1]})
    return root


@pytest.mark.parametrize(
    ("name", "loader", "count"), [("cifar10", datasets.CIFAR10, 15), ("cifar100", datasets.CIFAR100, 3)]
)
def test_cifar_is_what_torchvision_reads(tmp_path, monkeypatch, name, loader, count):
    root = write_cifar(tmp_path, loader, monkeypatch)
    ours, theirs = open_images(name, root, "train"), loader(root, train=True)
    assert len(ours) == count
    assert ours.classes == tuple(theirs.classes)
    for i in range(count):
        picture, target = theirs[i]
        np.testing.assert_array_equal(ours.raw(i), np.asarray(picture))
        assert ours[i][1] == target
        expected = np.asarray(picture).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(ours[i][0].numpy(), expected, atol=1e-6)
    held = open_images(name, root, "val", hold_out=2)
    rest = open_images(name, root, "train", hold_out=2)
    shown = {images.raw(i).tobytes() for images in (held, rest) for i in range(len(images))}
    assert (len(held), len(rest), len(shown)) == (2, count - 2, count)
    with pytest.raises(OptionError, match="no split val"):
        open_images(name, root, "val")
    (root / loader.base_folder / loader.test_list[0][0]).write_bytes(b"x")
    with pytest.raises(DataError, match="damaged"):
        open_images(name, root, "train")
    (root / loader.base_folder / loader.test_list[0][0]).unlink()
    with pytest.raises(DataError, match=rf"{loader.test_list[0][0]}: no such file; unpack {name[:5]}-"):
        open_images(name, root, "train")


def test_missing_sets_are_told(tmp_path):
    with pytest.raises(DataError, match="nothing is downloaded"):
        open_images("cifar10", tmp_path / "no", "train")
    with pytest.raises(DataError, match=r"cifar-10-batches-py: no such folder; unpack cifar-10-python.tar.gz"):
        open_images("cifar10", tmp_path, "train")
    with pytest.raises(DataError, match=r"list_attr_celeba.txt: no such file"):
        open_images("celeba", tmp_path, "train")
    with pytest.raises(DataError, match=r"train: no such folder"):
        open_images("folder", tmp_path, "train")
    with pytest.raises(OptionError, match="choose from"):
        open_images("imagenet", tmp_path, "train")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be unpacked"):
        open_images("folder", tmp_path / "bad.zip", "train")


@pytest.mark.parametrize("inner", ["", "pictures/"])
def test_a_zip_is_unpacked_once_into_the_cache(tmp_path, monkeypatch, inner):
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "cache"))
    root = write_folder(tmp_path / "made")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, inner + str(path.relative_to(root)))
    first = open_images("folder", tmp_path / "set.zip", "train")
    assert first.classes == ("ant", "bee")
    assert first.targets.tolist() == [0] * 6 + [1] * 6
    np.testing.assert_array_equal(first.raw(7), np.asarray(Image.open(root / "train" / "bee" / "1.png")))
    (place,) = (tmp_path / "cache" / "images").iterdir()
    stamp = place.stat().st_mtime_ns
    open_images("folder", tmp_path / "set.zip", "test")
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cache" / "images").iterdir()] == [stamp]


def test_training_pictures_are_cut_and_mirrored_and_others_are_not(tmp_path):
    root = write_folder(tmp_path)
    plain, cut = open_images("folder", root, "train"), open_images("folder", root, "train", train_transform=True)

    def levels(picture):
        assert picture.dtype == torch.float32
        return (picture * 255).round().to(torch.uint8)

    source = torch.from_numpy(plain.raw(3).transpose(2, 0, 1).copy())
    assert torch.equal(levels(plain[3][0]), source)
    padded = torch.nn.functional.pad(source, (4, 4, 4, 4))
    allowed = {
        view[:, y : y + 32, x : x + 32].numpy().tobytes()
        for view in (padded, padded.flip(-1))
        for y in range(9)
        for x in range(9)
    }
    torch.manual_seed(0)
    drawn = [levels(cut[3][0]).numpy().tobytes() for _ in range(20)]
    assert set(drawn) <= allowed
    assert len(set(drawn)) > 10
    torch.manual_seed(0)
    assert levels(cut[3][0]).numpy().tobytes() == drawn[0]


def test_sizes_are_made_alike_or_asked_for(tmp_path):
    root = write_folder(tmp_path, size=(100, 80), suffix="jpg")
    Image.new("RGB", (90, 120)).save(root / "train" / "bee" / "0.jpg")
    assert open_images("folder", root, "train", size=64)[6][0].shape == (3, 64, 64)
    assert open_images("folder", root, "train", size=64, train_transform=True)[0][0].shape == (3, 64, 64)
    with pytest.raises(DataError, match=r"90 x 120 px .* state a size"):
        open_images("folder", root, "train")
    mean, std = open_images("folder", root, "test").mean_std()
    pixels = np.concatenate([np.asarray(Image.open(p)).reshape(-1, 3) for p in (root / "test").rglob("*.jpg")]) / 255
    np.testing.assert_allclose(mean, pixels.mean(0), atol=1e-6)
    np.testing.assert_allclose(std, pixels.std(0), atol=1e-6)


@pytest.mark.parametrize("first", ["train/ant/0.png", "test/ant/0.png", None])
def test_which_picture_comes_first_does_not_decide_how_all_are_cut(tmp_path, first):
    root = write_folder(tmp_path, size=(28, 28))
    Image.new("RGB", (50, 30)).save(root / "train" / "bee" / "3.png")
    if first is not None:
        Image.new("RGB", (40, 60)).save(root / first)
    train, test = (open_images("folder", root, split, size=32) for split in ("train", "test"))
    shapes = {tuple(one[i][0].shape) for one in (train, test) for i in range(len(one))}
    assert shapes == {(3, 32, 32)}
    wide = torch.from_numpy(train.raw(9).transpose(2, 0, 1).copy())
    assert wide.shape == (3, 30, 50)
    middle = v2.functional.center_crop(v2.functional.resize(wide, 32, antialias=True), 32) / 255
    torch.testing.assert_close(train[9][0], middle)  # cut, not squeezed


def test_small_pictures_of_one_size_keep_their_shape(tmp_path):
    root = write_folder(tmp_path, size=(28, 21))
    for split in ("train", "test"):
        assert open_images("folder", root, split, size=56)[0][0].shape == (3, 42, 56)


@pytest.mark.parametrize(("kind", "dtype"), [("I;16", np.uint16), ("I", np.int32), ("F", np.float32)])
def test_pictures_of_more_than_eight_bits_are_told_not_cut_off(tmp_path, kind, dtype):
    root = write_folder(tmp_path)
    deep = root / "test" / "bee" / ("1.png" if kind == "I;16" else "1.tif")
    Image.fromarray(np.full((32, 32), 20000, dtype)).save(deep)
    with pytest.raises(DataError, match=r"bee/1\.(png|tif) has more than 8 bits a colour; convert"):
        open_images("folder", root, "test")


def test_a_share_is_held_out(tmp_path):
    root = write_folder(tmp_path)
    train, val = (open_images("folder", root, split, hold_out=0.25) for split in ("train", "val"))
    assert (len(train), len(val)) == (9, 3)
    for split in ("train", "val"):
        by_count = open_images("folder", root, split, hold_out=3)
        assert by_count.fingerprint() == {"train": train, "val": val}[split].fingerprint()
    assert len(open_images("folder", root, "val", hold_out=0.01)) == 1
    with pytest.raises(OptionError, match="12 pictures cannot be held out of 12; set"):
        open_images("folder", root, "val", hold_out=12)


@pytest.mark.parametrize("size", [0, 16])  # held in memory, or read picture by picture
def test_a_fingerprint_is_of_what_is_in_a_set(tmp_path, size):
    root = write_folder(tmp_path / "a")

    def mark(place=root, split="train"):
        return open_images("folder", place, split, size=size).fingerprint()

    first = mark()
    assert len(first) == 16
    assert mark(shutil.copytree(root, tmp_path / "b" / "moved")) == first
    assert mark(split="test") != first
    assert open_images("folder", root, "train", size=size, hold_out=1).fingerprint() != first
    others = []
    for k, change in enumerate(
        (
            lambda folder: (folder / "ant" / "0.png").unlink(),
            lambda folder: Image.new("RGB", (32, 32)).save(folder / "ant" / "0.png"),
            lambda folder: (folder / "bee").rename(folder / "wasp"),
            lambda folder: (folder / "ant" / "5.png").rename(folder / "bee" / "6.png"),
        )
    ):
        place = shutil.copytree(root, tmp_path / f"changed{k}")
        change(place / "train")
        others.append(mark(place))
    assert len({first, *others}) == 5


def test_an_encrypted_zip_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train/ant/0.png", b"x")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[6] |= 1  # the flag in the local header, and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a.zip cannot be unpacked \(.*encrypted"):
        open_images("folder", tmp_path / "a.zip", "train")
    assert not list((tmp_path / "cache").rglob("*.zip*")) + list((tmp_path / "cache" / "images").iterdir())


def test_a_picture_that_is_too_large_to_be_one_is_told_in_one_line(tmp_path, monkeypatch):
    root = write_folder(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"0.png cannot be read as a picture \(.*exceeds limit"):
        open_images("folder", root, "train")


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    pytest.importorskip("skimage", reason="the miniature needs the demo extra")
    return make_celeba_miniature(tmp_path_factory.mktemp("mini"), pictures=20, seed=3)


def test_the_miniature_is_read_by_torchvision_itself(celeba, monkeypatch):
    with pytest.raises(RuntimeError, match="not found or corrupted"):
        datasets.CelebA(celeba.parent)  # it compares md5 with the published files'
    monkeypatch.setattr("torchvision.datasets.celeba.check_integrity", lambda path, md5: True)
    theirs = datasets.CelebA(celeba.parent, split="all", target_type=["attr", "identity", "bbox", "landmarks"])
    assert theirs.attr_names[:40] == list(ATTRIBUTES)
    assert len(ATTRIBUTES) == 40
    assert len(theirs) == 20
    picture, (attr, identity, box, landmarks) = theirs[5]
    assert picture.size == (178, 218)
    assert attr.shape == (40,)
    assert set(theirs.attr.unique().tolist()) == {0, 1}
    assert 1 <= int(identity) <= 4
    assert (box[2:] > 40).all()
    # Eyes level, above the mouth, and about where CelebA has them.
    assert abs(landmarks.float().view(5, 2)[:2, 1] - 111.5).max() < 8
    ours = open_images("celeba", celeba, "val")
    assert ours.multilabel
    assert ours.classes == tuple(ATTRIBUTES)
    expected = datasets.CelebA(celeba.parent, split="valid")
    np.testing.assert_array_equal(ours.targets, expected.attr.numpy())
    np.testing.assert_array_equal(ours.raw(0), np.asarray(expected[0][0]))
    assert open_images("celeba", celeba.parent, "train", size=48)[0][0].shape == (3, 59, 48)


def test_the_miniature_s_splits_share_no_identity_and_both_kinds_are_drawn(celeba):
    sets = {split: CelebAFiles(celeba, split=split) for split in ("train", "valid", "test")}
    people = [set(s.identity.flatten().tolist()) for s in sets.values()]
    assert not people[0] & people[1] | people[0] & people[2] | people[1] & people[2]
    everything = CelebAFiles(celeba, split="all")
    shown = everything.attr.float().mean(0)
    drawn = [ATTRIBUTES.index(name) for name in DRAWN]
    assert ((shown[drawn] > 0) & (shown[drawn] < 1)).all()
    assert shown[ATTRIBUTES.index("No_Beard")] == 1
    assert shown[ATTRIBUTES.index("Male")] == 0


def test_the_miniature_repeats_itself_and_is_not_overwritten_unasked(celeba, tmp_path):
    again = make_celeba_miniature(tmp_path, pictures=20, seed=3)
    for name in (*TEXTS, "img_align_celeba/000007.jpg"):
        assert (again / name).read_bytes() == (celeba / name).read_bytes()
    with pytest.raises(OutputError, match="exists"):
        make_celeba_miniature(tmp_path, pictures=20)
    assert main(["-o", str(tmp_path), "--pictures", "2"]) == 2


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("list_attr_celeba.txt", lambda text: text.replace(" -1", " x", 1), "not of CelebA's form"),
        ("list_eval_partition.txt", lambda text: text.replace(".jpg 2", ".jpg 0"), "no picture of the split test"),
        ("list_attr_celeba.txt", lambda text: text.replace("Young ", "", 1), "names of attributes"),
    ],
)
def test_malformed_celeba_is_told(celeba, tmp_path, file, change, told):
    (tmp_path / "img_align_celeba").symlink_to(celeba / "img_align_celeba")
    for name in TEXTS:
        (tmp_path / name).write_bytes((celeba / name).read_bytes())
    (tmp_path / file).write_text(change((celeba / file).read_text()))
    with pytest.raises(DataError, match=told):
        open_images("celeba", tmp_path, "test")
