"""Labelled pictures: CIFAR-10, CIFAR-100 and CelebA as torchvision reads them, and any folder of class folders.

    images = open_images("cifar10", "cifar10.zip", "train", train_transform=True, hold_out=5000)
    picture, target = images[0]          # (3, 32, 32) float32 in [0, 1], 6

Nothing is downloaded. Pictures are handed out in [0, 1]; mean and deviation belong to a network and are kept in the
card of its weights. ``ROOT`` is, for

* ``cifar10``, ``cifar100``: the folder that holds ``cifar-10-batches-py`` or ``cifar-100-python``, or a folder or a zip
  as for ``folder``;
* ``celeba``: the folder ``celeba`` or the one that holds it (:mod:`asd_explain.datasets.celeba`);
* ``folder``: a folder with ``train/CLASS/*.jpg`` and ``val`` or ``test`` alike (torchvision's ``ImageFolder``), or a
  zip of one, which is unzipped once into the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets
from torchvision.transforms import v2
from tqdm import tqdm

from asd_explain.datasets.celeba import open_celeba
from asd_explain.datasets.entities import DataError
from asd_explain.errors import OptionError
from asd_explain.weights.store import cache_dir, sha256_of

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset

log = logging.getLogger(__name__)

SETS = ("cifar10", "cifar100", "celeba", "folder")
SPLITS = ("train", "val", "test")
#: A folder's pictures of one size that need less than this are decoded once and held.
HELD_BYTES = 512 * 2**20
#: Seed of the choice of pictures that are held out of train: the same for every training.
_HELD_OUT_SEED = 0x1A6E
_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_PUBLISHED = {
    "cifar10": (datasets.CIFAR10, "cifar-10-python.tar.gz"),
    "cifar100": (datasets.CIFAR100, "cifar-100-python.tar.gz"),
}


class ImageSet(Dataset):
    """One split of a set of labelled pictures.

    Args:
        name: of the set, for messages and cards.
        classes: names of the classes, or of the attributes.
        targets: (N,) int64 numbers of classes, or (N, A) float32 of 0 and 1 for attributes.
        raw: gives the picture of a number: (H, W, 3) uint8 RGB.
        transform: of a (3, H, W) uint8 tensor, gives float32 in [0, 1].
    """

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        targets: np.ndarray,
        raw: Callable[[int], np.ndarray],
        transform: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.name, self.classes, self.targets = name, tuple(classes), targets
        self._raw, self._transform = raw, transform

    @property
    def multilabel(self) -> bool:
        """Whether a picture has any number of attributes instead of one class."""
        return self.targets.ndim == 2

    def __len__(self) -> int:
        return len(self.targets)

    def raw(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB as it is stored."""
        return self._raw(index)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | torch.Tensor]:
        """((3, H, W) float32 in [0, 1], number of the class or (A,) float32 of 0 and 1)."""
        picture = self._transform(torch.from_numpy(np.array(self._raw(index).transpose(2, 0, 1))))
        target = self.targets[index]
        return picture, torch.from_numpy(target) if self.multilabel else int(target)

    def part(self, numbers: np.ndarray) -> ImageSet:
        """The pictures of some numbers, in their order."""
        return ImageSet(
            self.name, self.classes, self.targets[numbers], _Renumbered(self._raw, np.asarray(numbers)), self._transform
        )

    def fingerprint(self) -> str:
        """16 hex digits that change with the classes, the targets, and the pictures or their files' names and sizes."""
        told = [self.name, self.multilabel, self.classes, self.targets.shape]
        found = hashlib.sha256(json.dumps(told).encode())
        found.update(np.ascontiguousarray(self.targets).tobytes())
        for index in range(len(self)):
            found.update(self._raw.mark(index))
        return found.hexdigest()[:16]

    def mean_std(self, most: int = 5000) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the three colours in [0, 1], over at most so many pictures, evenly spaced."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).astype(int))
        sums, squares, count = np.zeros(3), np.zeros(3), 0
        for index in chosen:
            pixels = self._raw(int(index)).reshape(-1, 3) / 255.0
            sums += pixels.sum(0)
            squares += (pixels**2).sum(0)
            count += len(pixels)
        mean = sums / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))
        return tuple(round(float(v), 6) for v in mean), tuple(round(float(v), 6) for v in std)


class _Renumbered:
    def __init__(self, raw: Callable[[int], np.ndarray], numbers: np.ndarray) -> None:
        self.raw, self.numbers = raw, numbers

    def __call__(self, index: int) -> np.ndarray:
        return self.raw(int(self.numbers[index]))

    def mark(self, index: int) -> bytes:
        return self.raw.mark(int(self.numbers[index]))


class _Held:
    """Pictures of an array (N, H, W, 3) uint8."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = pictures

    def __call__(self, index: int) -> np.ndarray:
        return self.pictures[index]

    def mark(self, index: int) -> bytes:
        return self.pictures[index].tobytes()


class _Files:
    """Pictures of files; without ``any_size`` all have to be of the first one's size."""

    def __init__(self, paths: list[Path], any_size: bool) -> None:
        self.paths, self.shape = paths, None
        first = self._read(0)
        self.shape = None if any_size else first.shape

    def _read(self, index: int) -> np.ndarray:
        path = self.paths[index]
        try:
            with Image.open(path) as picture:
                if picture.mode == "F" or picture.mode.startswith("I"):
                    raise DataError(f"{path} has more than 8 bits a colour; convert the pictures to 8")
                return np.asarray(picture.convert("RGB"))
        except FileNotFoundError:
            raise DataError(f"{path}: no such picture; unpack the data set again") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            # What PIL makes of damaged files, and of those that say that they are larger than any picture.
            raise DataError(f"{path} cannot be read as a picture ({error})") from None

    def one_size(self, most: int = 1000) -> tuple[int, int] | None:
        """(height, width) of all pictures, or of so many evenly spaced ones; None where they differ."""
        found = set()
        for index in np.unique(np.linspace(0, len(self.paths) - 1, min(most, len(self.paths))).astype(int)):
            try:
                with Image.open(self.paths[index]) as picture:
                    found.add(picture.size)
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                continue  # who reads the picture says so
            if len(found) > 1:
                return None
        return found.pop()[::-1] if found else None

    def mark(self, index: int) -> bytes:
        path = self.paths[index]
        try:
            return f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode()
        except OSError:
            raise DataError(f"{path}: no such picture; unpack the data set again") from None

    def __call__(self, index: int) -> np.ndarray:
        picture = self._read(index)
        if self.shape is not None and picture.shape != self.shape:
            raise DataError(
                f"{self.paths[index]} is {picture.shape[1]} x {picture.shape[0]} px and {self.paths[0]} "
                f"{self.shape[1]} x {self.shape[0]}; state a size to bring all to ([data] size)"
            )
        return picture


def _small(height: int, width: int, size: int, train: bool) -> v2.Compose:
    """Pictures that are used whole: cut anew after a border of 4 px (a sixteenth of large ones), and mirrored."""
    out = (height, width) if not size else (round(size * height / width), size)
    steps: list = [v2.Resize(out, antialias=True)] if size else []
    if train:
        border = max(4, min(out) // 16)
        steps += [v2.RandomCrop(out, padding=border, padding_mode="constant"), v2.RandomHorizontalFlip()]
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)])


def _scene(size: int, train: bool) -> v2.Compose:
    """Pictures of any size: a part of each (train), or its middle after the shorter side was brought to ``size``."""
    if train:
        steps = [v2.RandomResizedCrop(size, scale=(0.35, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    else:
        steps = [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)])


def open_images(
    name: str,
    root: str | Path,
    split: str,
    *,
    train_transform: bool = False,
    size: int = 0,
    hold_out: float = 0,
    progress: bool = False,
) -> ImageSet:
    """One split of a set of pictures.

    Args:
        name: one of ``SETS``.
        root: where it lies, see above.
        split: one of ``SPLITS``; CIFAR has no "val" of its own.
        train_transform: whether to cut and to mirror pictures at random (from torch's global generator).
        size: side in px that pictures are brought to (width, for CelebA); 0 leaves them as they are.
        hold_out: so many pictures, or below 1 that share of them, are taken out of "train", and are "val" (always the
            same ones).
        progress: whether to show a progress bar while pictures are decoded.

    Raises:
        OptionError: no such set or split, or a number that cannot be.
        DataError: a file is missing or damaged; the message says which and what to do.
    """
    if name not in SETS:
        raise OptionError(f"no set of pictures called {name!r}; choose from {', '.join(SETS)}")
    if split not in SPLITS:
        raise OptionError(f"no split called {split!r}; choose from {', '.join(SPLITS)}")
    if size < 0 or hold_out < 0:
        raise OptionError(f"size {size} and hold_out {hold_out} have to be 0 or more")
    root = Path(root).expanduser()
    if not root.exists():
        raise DataError(f"{root}: there is no such folder or file; say where {name} lies (nothing is downloaded)")
    source = "train" if split == "val" and hold_out else split
    if name == "celeba":
        opened = _celeba(root, source, train_transform, size)
    elif name in _PUBLISHED and (root / _PUBLISHED[name][0].base_folder).is_dir():
        opened = _published(name, root, source, train_transform, size)
    elif name in _PUBLISHED and root.is_dir() and not _folder_of(root, "train"):
        loader, archive = _PUBLISHED[name]
        raise DataError(
            f"{root / loader.base_folder}: no such folder; unpack {archive} ({loader.url}) in {root}, or give a folder "
            "or a zip with train/CLASS/*.jpg and test/CLASS/*.jpg"
        )
    else:
        opened = _folder(name, root, source, train_transform, size, progress)
    if not hold_out or split == "test":
        return opened
    hold_out = max(1, round(hold_out * len(opened))) if hold_out < 1 else int(hold_out)
    if hold_out >= len(opened):
        raise OptionError(
            f"{hold_out} pictures cannot be held out of {len(opened)}; set [data] hold_out = 0.1, a share"
        )
    order = np.random.default_rng(_HELD_OUT_SEED).permutation(len(opened))
    return opened.part(np.sort(order[:hold_out] if split == "val" else order[hold_out:]))


def _published(name: str, root: Path, split: str, train: bool, size: int) -> ImageSet:
    loader, archive = _PUBLISHED[name]
    if split == "val":
        raise OptionError(f"{name} has no split val; hold pictures out of train ([data] hold_out), or use test")
    folder = root / loader.base_folder
    for file in [pair[0] for pair in (*loader.train_list, *loader.test_list)] + [loader.meta["filename"]]:
        if not (folder / file).is_file():
            raise DataError(f"{folder / file}: no such file; unpack {archive} ({loader.url}) in {root} again")
    try:
        found: VisionDataset = loader(root, train=split == "train", download=False)
    except RuntimeError:
        raise DataError(f"{folder}: a file in it is damaged (its md5 is another); unpack {archive} again") from None
    pictures = np.ascontiguousarray(found.data)
    targets = np.asarray(found.targets, np.int64)
    return ImageSet(name, tuple(found.classes), targets, _Held(pictures), _small(*pictures.shape[1:3], size, train))


def _celeba(root: Path, split: str, train: bool, size: int) -> ImageSet:
    found, folder = open_celeba(root, split)
    read = _Files([folder / name for name in found.filename], any_size=False)
    targets = found.attr.numpy().astype(np.float32)
    return ImageSet("celeba", found.attr_names, targets, read, _small(*read.shape[:2], size, train))


def _folder_of(root: Path, split: str) -> Path | None:
    return next((root / name for name in _FOLDERS[split] if (root / name).is_dir()), None)


def _folder(name: str, root: Path, split: str, train: bool, size: int, progress: bool) -> ImageSet:
    if root.is_file():
        root = unzipped(root)
    folder = _folder_of(root, split)
    if folder is None:
        instead = "; hold pictures out of train ([data] hold_out), or use test" if split == "val" else ""
        raise DataError(f"{root / split}: no such folder; {root} should hold {split}/CLASS/*.jpg{instead}")
    found = _classes_in(folder)
    read = _Files(_paths(found), any_size=size > 0)
    targets = np.asarray(found.targets, np.int64)
    height, width, _ = read(0).shape
    if size:
        # Train decides for all splits, so that what is learnt on and what is asked about are cut alike.
        ruling = _folder_of(root, "train")
        shape = (read if ruling in (None, folder) else _Files(_paths(_classes_in(ruling)), any_size=True)).one_size()
        if shape is None or max(shape) > 64:
            return ImageSet(name, tuple(found.classes), targets, read, _scene(size, train))
        height, width = shape
    if not size and len(read.paths) * height * width * 3 <= HELD_BYTES:
        read = _Held(_decoded(folder, len(read.paths), progress))
    return ImageSet(name, tuple(found.classes), targets, read, _small(height, width, size, train))


def _classes_in(folder: Path) -> datasets.ImageFolder:
    try:
        return datasets.ImageFolder(folder)
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no class folders with pictures ({error})") from None


def _paths(found: datasets.ImageFolder) -> list[Path]:
    return [Path(path) for path, _ in found.samples]


@lru_cache(maxsize=2)
def _decoded(folder: Path, count: int, progress: bool) -> np.ndarray:
    """(count, H, W, 3) uint8; kept, as train and what is held out of it are of the same folder."""
    read = _Files(_paths(_classes_in(folder)), any_size=False)
    bar = tqdm(
        range(count), desc=f"{folder.name}: pictures", unit="picture", leave=False, disable=None if progress else True
    )
    held = np.empty((count, *read.shape), np.uint8)
    for index in bar:
        held[index] = read(index)
    return held


def unzipped(path: Path) -> Path:
    """The folder that a zip of pictures was unpacked to, in the cache folder, unpacked now if need be.

    Raises:
        DataError: it is no zip, or is damaged.
    """
    place = cache_dir() / "images" / f"{path.stem}.{sha256_of(path)[:12]}"
    if not place.is_dir():
        log.info("unpacking %s to %s", path, place)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(part)
            if not place.is_dir():  # another process may have been faster
                part.rename(place)
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, zlib.error) as error:
            # RuntimeError: encrypted, or compressed in a way that zipfile does not know.
            raise DataError(f"{path} cannot be unpacked ({error}); give a zip of train/CLASS/*.jpg") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    inside = [entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(("__", "."))]
    return inside[0] if _folder_of(place, "train") is None and len(inside) == 1 else place
