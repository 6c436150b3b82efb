"""A miniature of CelebA, in its exact layout, of portraits that the project draws: for tests and a first try.

    python -m asd_explain.datasets.celeba_miniature -o mini
    python tools/train_images.py celeba_miniature --data mini --out runs/faces

``OUT/celeba`` gets ``img_align_celeba/000001.jpg`` ... (178 x 218 px, eyes where CelebA's are), and
``list_attr_celeba.txt``, ``list_eval_partition.txt``, ``identity_CelebA.txt``, ``list_bbox_celeba.txt`` and
``list_landmarks_align_celeba.txt`` to the letter of the published ones, and ``miniature.json``.

**What the attributes say.** ``DRAWN`` are put on or left off by the generator, whatever else is in the picture;
``PHOTOGRAPH`` hold of one of the two photographs that the pictures are made of (portraits in the public domain, in the
wheels of matplotlib and scikit-image). All others are -1, but for No_Beard, which is 1: nobody has judged them. One
photograph wears glasses and a cap by itself. An identity is a photograph with other proportions, light and colours; no
identity is in two splits, both photographs are in each. A classifier that does well has learnt to see drawn glasses,
hats and mouths on two faces: that the way from data to an explained decision works, no more. ``list_bbox_celeba.txt``
holds the face's box in the aligned picture; CelebA's are of the pictures before that.

torchvision's ``CelebA`` compares the md5 of every text file with the published ones, so it takes this set only through
:class:`asd_explain.datasets.celeba.CelebAFiles`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from asd_explain.datasets.celeba import PICTURES
from asd_explain.datasets.dressed_face import SIZE, DressedFace, Worn
from asd_explain.datasets.miniature_folder import miniature_folder, read_mark, write_mark
from asd_explain.datasets.portraits import Look
from asd_explain.datasets.talking_face import Pose
from asd_explain.errors import OptionError
from asd_explain.running import run_tool

log = logging.getLogger(__name__)

# fmt: off
ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache",
    "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks",
    "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie", "Young"
)
# fmt: on
DRAWN = {
    "Blurry": 0.2,
    "Eyeglasses": 0.4,
    "Mouth_Slightly_Open": 0.5,
    "Narrow_Eyes": 0.35,
    "Pale_Skin": 0.3,
    "Rosy_Cheeks": 0.35,
    "Wearing_Hat": 0.35,
    "Wearing_Lipstick": 0.4,
}
"""How often each is put on."""
PHOTOGRAPH = {"hopper": ("Gray_Hair",), "astronaut": ("Brown_Hair", "Smiling", "Young")}
_WORN_ALREADY = {"hopper": ("Eyeglasses", "Wearing_Hat"), "astronaut": ()}
_HOPPER = 0.25  # share of the identities
_SHARES = (0.7, 0.15)  # of train and of valid
_PER_IDENTITY = 5
_LANDMARKS = " ".join(f"{p}_{c}" for p in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for c in "xy")


@dataclass(frozen=True, eq=False)
class MiniPicture:
    """One picture with what CelebA says of it.

    Attributes:
        picture: (218, 178, 3) uint8 RGB.
        present: names of the attributes that are there.
        landmarks: (5, 2) px.
        box: (4,) x, y, width, height of the face, px.
    """

    picture: np.ndarray
    present: frozenset[str]
    landmarks: np.ndarray
    box: np.ndarray


def draw_identity(rng: np.random.Generator) -> Look:
    """A photograph, changed to pass for another person."""
    return Look(
        "hopper" if rng.random() < _HOPPER else "astronaut",
        mirrored=bool(rng.random() < 0.5),
        warmth=float(rng.uniform(-0.7, 0.7)),
        brightness=float(rng.uniform(0.8, 1.1)),
        saturation=float(rng.uniform(0.6, 1.15)),
        stretch=float(rng.uniform(0.94, 1.06)),
        face_fraction=0.37,
        gamma=float(np.exp(rng.uniform(-0.2, 0.2))),
        side_light=float(rng.uniform(-0.5, 0.5)),
        jaw=float(rng.uniform(-0.1, 0.1)),
        brow=float(rng.uniform(-0.08, 0.08)),
        nose=float(rng.uniform(-0.03, 0.03)),
        backdrop=int(rng.integers(1, 2**31)),
        room=(0.6, 0.7, 0.6),
    )


def draw_picture(look: Look, rng: np.random.Generator) -> MiniPicture:
    """One picture of an identity, wearing and doing what the draws say."""
    on = {name: bool(rng.random() < share) for name, share in DRAWN.items()}
    on |= dict.fromkeys(_WORN_ALREADY[look.photo], False)

    def colour(low: int, high: int) -> tuple[int, int, int]:
        return tuple(int(v) for v in rng.integers(low, high, 3))

    worn = Worn(
        glasses=colour(5, 70) if on["Eyeglasses"] else None,
        hat=colour(20, 220) if on["Wearing_Hat"] else None,
        lipstick=(int(rng.integers(140, 210)), int(rng.integers(5, 40)), int(rng.integers(25, 90)))
        if on["Wearing_Lipstick"]
        else None,
        rouge=float(rng.uniform(0.4, 0.65)) if on["Rosy_Cheeks"] else 0.0,
        powder=float(rng.uniform(0.55, 0.8)) if on["Pale_Skin"] else 0.0,
        blur_px=float(rng.uniform(1.8, 3.2)) if on["Blurry"] else 0.0,
    )
    pose = Pose(
        opening=float(rng.uniform(0.4, 0.95)) if on["Mouth_Slightly_Open"] else 0.0,
        rounding=float(rng.uniform(-0.5, 0.5)),
        blink=float(rng.uniform(0.5, 0.7)) if on["Narrow_Eyes"] else 0.0,
        turn=float(rng.uniform(-0.05, 0.05)),
        nod=float(rng.uniform(-0.03, 0.03)),
        roll=float(rng.uniform(-0.12, 0.12)),
    )
    picture, landmarks, box = DressedFace(look, worn).picture(pose, rng.normal(0, 1.5, (5, 2)).astype(np.float32))
    present = {name for name, there in on.items() if there} | {"No_Beard"}
    present |= {*PHOTOGRAPH[look.photo], *_WORN_ALREADY[look.photo]}
    # The astronaut's fringe is what the cap covers.
    if look.photo == "astronaut" and not on["Wearing_Hat"]:
        present.add("Bangs")
    return MiniPicture(picture, frozenset(present), landmarks, np.r_[box[:2], box[2:] - box[:2]])


def make_celeba_miniature(
    out: str | Path, *, pictures: int = 1200, seed: int = 0, overwrite: bool = False, progress: bool = False
) -> Path:
    """Make the miniature.

    Args:
        out: gets the folder ``celeba``.
        pictures: how many; about 70 % are of train, 15 % of valid and of test.
        seed: of everything; the same seed, the same pictures.
        overwrite: replace a miniature that is there.
        progress: show a progress bar.

    Returns:
        ``out``/celeba.

    Raises:
        OptionError: fewer than 20 pictures, or more than a million.
        OutputError: the folder exists, or cannot be written.
        AsdExplainError: scikit-image, which one photograph comes from, is not installed.
    """
    if not 20 <= pictures < 10**6:
        raise OptionError(f"{pictures} pictures: from 20 to 999999 can be made")
    target = Path(out) / "celeba"
    with miniature_folder(target, overwrite) as part:
        (part / PICTURES).mkdir()
        _write(part, pictures, seed, progress)
    return target


def _write(folder: Path, pictures: int, seed: int, progress: bool) -> None:
    identities = max(4, -(-pictures // _PER_IDENTITY))
    first = min(round(_SHARES[0] * identities), identities - 2)
    second = min(max(round((_SHARES[0] + _SHARES[1]) * identities), first + 1), identities - 1)
    lines: dict[str, list[str]] = {name: [] for name in ("attr", "partition", "identity", "box", "landmarks")}
    counts = dict.fromkeys(ATTRIBUTES, 0)
    looks: dict[int, Look] = {}
    bar = tqdm(range(pictures), desc="pictures", unit="picture", disable=None if progress else True, leave=False)
    for index in bar:
        # Identities of valid and test come last, as CelebA's do in its order.
        identity = index * identities // pictures
        if identity not in looks:
            looks = {identity: draw_identity(np.random.default_rng((seed, 0xCE1E, identity)))}
        made = draw_picture(looks[identity], np.random.default_rng((seed, 0xBA, index)))
        name = f"{index + 1:06d}.jpg"
        if not cv2.imwrite(str(folder / PICTURES / name), made.picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92]):
            raise OSError(f"{name} was not written")
        values = [1 if attribute in made.present else -1 for attribute in ATTRIBUTES]
        lines["attr"].append(f"{name} " + " ".join(f"{v:2d}" for v in values))
        lines["partition"].append(f"{name} {int(identity >= first) + int(identity >= second)}")
        lines["identity"].append(f"{name} {identity + 1}")
        lines["box"].append(f"{name} " + " ".join(f"{round(float(v)):3d}" for v in made.box))
        lines["landmarks"].append(f"{name} " + " ".join(f"{round(float(v)):3d}" for v in made.landmarks.ravel()))
        for attribute in made.present:
            counts[attribute] += 1
    heads = {
        "list_attr_celeba.txt": ([str(pictures), " ".join(ATTRIBUTES) + " "], "attr"),
        "list_eval_partition.txt": ([], "partition"),
        "identity_CelebA.txt": ([], "identity"),
        "list_bbox_celeba.txt": ([str(pictures), "image_id x_1 y_1 width height"], "box"),
        "list_landmarks_align_celeba.txt": ([str(pictures), _LANDMARKS], "landmarks"),
    }
    for name, (head, body) in heads.items():
        (folder / name).write_text("\n".join([*head, *lines[body]]) + "\n", encoding="utf-8", newline="")
    told = {
        "what": "drawn by asd_explain.datasets.celeba_miniature; no real data set",
        "seed": seed,
        "pictures": pictures,
        "size": SIZE,
        "identities": identities,
        "drawn": sorted(DRAWN),
        "of_the_photograph": {photo: [*names, *_WORN_ALREADY[photo]] for photo, names in PHOTOGRAPH.items()},
        "present": {name: count for name, count in counts.items() if count},
    }
    write_mark(folder, told)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m asd_explain.datasets.celeba_miniature",
        description="Draw a miniature of CelebA in its exact layout (needs the demo extra).",
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("miniature"), help="gets the folder celeba")
    parser.add_argument("--pictures", type=int, default=1200, help="how many (default: 1200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace a miniature that is there")
    options = parser.parse_args(argv)

    def work() -> str:
        folder = make_celeba_miniature(
            options.out, pictures=options.pictures, seed=options.seed, overwrite=options.overwrite, progress=True
        )
        log.info("%s: %s", folder, json.dumps(read_mark(folder)["present"]))
        return ""

    return run_tool(work)


if __name__ == "__main__":
    sys.exit(main())
