"""Hashes of published files that are not known to us: recorded at first use, checked from then on.

A card can name a published checkpoint without its hash, where nobody who wrote the card has had the file. The first
file that is loaded under such a card and fits it is taken for it, and its sha256 is kept in the cache folder, one small
text file a card. A later file with another hash is refused: a checkpoint that changed unnoticed would change every
result.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from asd_explain.errors import WeightsError

log = logging.getLogger(__name__)

_DIGITS = frozenset("0123456789abcdef")


def record_of(folder: Path, card: str) -> Path:
    """Where a card's hash is kept, below the cache folder."""
    return folder / "first_use" / f"{card}.sha256"


def recorded(folder: Path, card: str) -> str | None:
    """The hash recorded for a card, or None.

    Raises:
        WeightsError: the record is no hash.
    """
    path = record_of(folder, card)
    try:
        text = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); delete it to have the hash recorded anew") from error
    if len(text) != 64 or set(text) - _DIGITS:
        raise WeightsError(f"{path} holds no sha256; delete it to have the hash recorded anew")
    return text


def check(folder: Path, card: str, weights: Path, sha256: str) -> bool:
    """Compare a file's hash with the one recorded for its card.

    Returns:
        Whether there is a record.

    Raises:
        WeightsError: the file is another one; both hashes are named.
    """
    known = recorded(folder, card)
    if known is not None and known != sha256:
        raise WeightsError(
            f"{weights} is not the file that was first used as {card}: sha256 is {sha256}, recorded was {known}; give "
            f"the earlier file, or delete {record_of(folder, card)} if the new one is right"
        )
    return known is not None


def record(folder: Path, card: str, weights: Path, sha256: str) -> None:
    """Keep a file's hash as that of its card. Where the folder cannot be written this is said, and no more."""
    path = record_of(folder, card)
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".record-", delete=False) as stream:
            partial = Path(stream.name)
            stream.write(sha256 + "\n")
        os.replace(partial, path)
    except OSError as error:
        log.warning("the hash of %s cannot be recorded in %s (%s)", weights, path.parent, error)
        if partial is not None:
            partial.unlink(missing_ok=True)
    else:
        log.info("%s is from now on the file of %s (sha256 %s, recorded in %s)", weights, card, sha256, path)
