"""CelebA (Liu et al., ICCV 2015) as it lies on disk, or anything of the same layout.

torchvision's loader compares the md5 of every text file with the published one's (it does not look at the pictures), so
that it takes no other set of the same layout: not a subset, not a set of one's own, not the miniature of
:mod:`asd_explain.datasets.celeba_miniature`. Here it reads the same files after a check of what it needs of them.
"""

from __future__ import annotations

from pathlib import Path

from torchvision import datasets

from asd_explain.datasets.entities import DataError

PICTURES = "img_align_celeba"
TEXTS = (
    "list_attr_celeba.txt",
    "list_eval_partition.txt",
    "identity_CelebA.txt",
    "list_bbox_celeba.txt",
    "list_landmarks_align_celeba.txt",
)
_SPLITS = {"train": "train", "val": "valid", "test": "test"}
_FROM = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


class CelebAFiles(datasets.CelebA):
    """torchvision's loader for a folder of CelebA's layout, whatever its md5; ``root`` is the folder itself."""

    base_folder = ""

    def _check_integrity(self) -> bool:
        return True  # open_celeba has looked


def open_celeba(root: Path, split: str) -> tuple[CelebAFiles, Path]:
    """The loader of one split, and the folder of its pictures.

    Args:
        root: the folder with the text files, or the one that holds it as ``celeba``.
        split: "train", "val" or "test".

    Raises:
        DataError: a file is missing or malformed; the message says which.
    """
    folder = root / "celeba" if (root / "celeba").is_dir() else root
    for name in TEXTS:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: no such file; put CelebA's text files ({_FROM}) into {folder}")
    if not (folder / PICTURES).is_dir():
        raise DataError(f"{folder / PICTURES}: no such folder; unpack {PICTURES}.zip ({_FROM}) in {folder}")
    try:
        found = CelebAFiles(folder, split=_SPLITS[split], download=False)
        # The published file's line of names ends in a blank, which the loader takes for another name.
        found.attr_names = tuple(name for name in found.attr_names if name)
    except (ValueError, IndexError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{folder}: its text files are not of CelebA's form ({error}); unpack them again") from None
    if not len(found.filename):
        raise DataError(f"{folder / 'list_eval_partition.txt'}: no picture of the split {_SPLITS[split]}")
    if found.attr.shape != (len(found.filename), len(found.attr_names)):
        raise DataError(
            f"{folder / 'list_attr_celeba.txt'}: {found.attr.shape[0]} rows of {found.attr.shape[1]} for "
            f"{len(found.filename)} pictures and {len(found.attr_names)} names of attributes"
        )
    return found, folder / PICTURES
