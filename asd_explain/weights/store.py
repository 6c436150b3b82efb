"""Finding, fetching, checking and loading weights.

A file is looked for in the package, in the cache folder (``ASD_EXPLAIN_CACHE``, default the user's cache folder), in
the shared material (``ASD_EXPLAIN_SHARED``, default ``../shared`` beside a checkout), and last on the web, over https.
Its hash is always checked; where it is not known, against the file used first
(:mod:`asd_explain.weights.first_use`). ``ASD_EXPLAIN_OFFLINE=1`` forbids fetching. Nothing is fetched at import.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from importlib.resources import as_file, files
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from asd_explain.errors import OptionError, WeightsError
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite
from asd_explain.weights import first_use
from asd_explain.weights.cards import Card, card, cards
from asd_explain.weights.trained import attach_trained_gates, card_beside

log = logging.getLogger(__name__)

TIMEOUT_S = 30
#: Names under which training checkpoints hold the network's state, and what wrappers put before its keys.
STATE_NAMES = ("state_dict", "model_state_dict", "model", "network")
WRAPPERS = ("module.", "model.")


def cache_dir() -> Path:
    """Folder for fetched files; made when something is stored."""
    if folder := os.environ.get("ASD_EXPLAIN_CACHE"):
        return Path(folder).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "asd-explain"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "asd-explain"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asd-explain"


def shared_dir() -> Path | None:
    """Folder of the shared material, or None where there is none."""
    if folder := os.environ.get("ASD_EXPLAIN_SHARED"):
        return Path(folder).expanduser()
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    return beside if (beside / "weights").is_dir() else None


def needed_shared_dir(given: Path | None, instead: str = "") -> Path:
    """The shared material's folder for a command that cannot do without it.

    Args:
        given: what the user named, or None for :func:`shared_dir`.
        instead: what else could be done, appended to the message.

    Raises:
        OptionError: there is none.
    """
    found = given or shared_dir()
    if found is None:
        raise OptionError(f"no shared folder found; give it with --shared or ASD_EXPLAIN_SHARED{instead}")
    return found


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _candidates(wanted: Card) -> list[Path]:
    places = [cache_dir() / wanted.file]
    shared = shared_dir()
    if shared is not None and wanted.shared:
        places.append(shared / wanted.shared)
    return places


def is_available(name: str) -> bool:
    """Whether a file can be had without the network."""
    wanted = card(name)
    if wanted.by_path_only:
        return False
    return wanted.url is None or any(path.is_file() for path in _candidates(wanted))


def locate(name: str) -> Path:
    """Path of a card's file, fetched if need be, its hash checked.

    Raises:
        WeightsError: when it is damaged, or neither here nor to be fetched; the message names file, URL and folder.
    """
    wanted = card(name)
    if wanted.by_path_only:
        raise WeightsError(
            f"{name} is neither in the package nor to be fetched ({wanted.source}); give the file with --weights PATH"
        )
    if wanted.url is None:
        with as_file(files("asd_explain.weights") / wanted.file) as path:
            embedded = Path(path)
        if not embedded.is_file():
            raise WeightsError(f"{wanted.file} is missing from the installed package; install asd-explain again")
        _check(embedded, wanted)
        return embedded
    for path in _candidates(wanted):
        if path.is_file():
            _check(path, wanted)
            return path
    return _fetch(wanted)


def _check(path: Path, wanted: Card) -> None:
    found = sha256_of(path)
    if found != wanted.sha256:
        raise WeightsError(
            f"{path} is not {wanted.name}: sha256 is {found[:12]}..., expected {wanted.sha256[:12]}...; "
            "delete it to have it fetched again, or give the right file with --weights"
        )


def _fetch(wanted: Card) -> Path:
    folder = cache_dir()
    target = folder / wanted.file
    instead = "use --detector haar" if wanted.kind == "detector" else "give it with --weights PATH"
    how = f"put it from {wanted.url} into {folder} under that name, or {instead}"
    if os.environ.get("ASD_EXPLAIN_OFFLINE", "") not in ("", "0"):
        raise WeightsError(f"{wanted.file} is not in {folder} and ASD_EXPLAIN_OFFLINE forbids fetching it; {how}")
    log.info("fetching %s (%.1f MB) from %s", wanted.file, wanted.size_bytes / 1e6, wanted.url)
    partial = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(wanted.url, timeout=TIMEOUT_S) as response,
            tempfile.NamedTemporaryFile(dir=folder, prefix=".fetch-", delete=False) as stream,
        ):
            partial = Path(stream.name)
            shutil.copyfileobj(response, stream)
        _check(partial, wanted)
        partial.replace(target)
    except WeightsError as error:
        raise WeightsError(f"what {wanted.url} serves is not {wanted.name} (hash differs); {how}") from error
    except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(f"cannot fetch {wanted.file} ({reason}); {how}") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
    return target


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file or of a torch file (read with ``weights_only=True``), by their plain keys.

    A training checkpoint that holds the state under one of ``STATE_NAMES`` gives that. What training wrappers put
    before every key ("module.", "model.module.") is taken off.

    Raises:
        WeightsError: when the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:
        # torch.load raises whatever a damaged archive makes its unpickler raise; all of them mean the same here.
        raise WeightsError(
            f"{path} cannot be read as weights (damaged, or not a weights file); fetch it again"
        ) from error
    if isinstance(state, dict):
        inner = [state[name] for name in STATE_NAMES if isinstance(state.get(name), dict)]
        state = inner[0] if len(inner) == 1 else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no plain state dict of tensors; convert it to one first")
    return _unwrapped(state)


def _unwrapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state = {key.removeprefix("module."): value for key, value in state.items()}
    # No network of ours has "model." before every key: the heads' keys lie outside.
    while prefix := next((p for p in WRAPPERS if state and all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _some(keys: set[str]) -> str:
    listed = sorted(keys)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def load_state(model: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """Load exactly the model's keys with exactly its shapes.

    Raises:
        WeightsError: naming keys that are missing, unknown, of another shape, or not finite.
    """
    expected = model.state_dict()
    problems = []
    if missing := set(expected) - set(state):
        problems.append(f"missing {_some(missing)}")
    if unknown := set(state) - set(expected):
        problems.append(f"unknown {_some(unknown)}")
    shared = set(state) & set(expected)
    if wrong := {key for key in shared if state[key].shape != expected[key].shape}:
        problems.append(f"of another shape {_some(wrong)}")
    if bad := {key for key in shared if not torch.isfinite(state[key].float()).all()}:
        problems.append(f"not finite {_some(bad)}")
    if problems:
        raise WeightsError(f"{origin} does not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(state, strict=True)


def gates_for(name: str) -> str | None:
    """Name of the gate card fitted to a network's weights, or None."""
    return _fitted("gates", name)


def gains_for(name: str) -> str | None:
    """Name of the card of the gains fitted to a network's weights and gates, or None."""
    return _fitted("gains", name)


def _fitted(kind: str, name: str) -> str | None:
    return next((c.name for c in cards().values() if c.kind == kind and c.base == name), None)


def load_gains(model: nn.Module, gains: Card, path: Path | None = None) -> None:
    """Attach fitted gains to a network.

    Raises:
        WeightsError: when the file does not fit.
    """
    path = path or locate(gains.name)
    try:
        model.attach_gains(read_state(path))
    except ValueError as error:
        raise WeightsError(f"{path} does not fit {type(model).__name__}: {error}") from None


def load_gates(model: nn.Module, gates: Card, path: Path | None = None) -> None:
    """Attach a fitted block to a frozen network, at the place that its card names.

    Raises:
        WeightsError: when the file does not fit.
    """
    at_trunk = gates.gate.get("place", "fusion") == "trunk"
    block = SqueezeExcite(
        model.streams["face"] if at_trunk else sum(model.fusion_streams.values()),
        reduction=gates.gate["reduction"],
        scope=gates.gate.get("scope", "frame"),
        standardise=True,
    )
    path = path or locate(gates.name)
    state = {key: value.float() for key, value in read_state(path).items()}
    load_state(block, state, str(path))
    if at_trunk:
        model.attach_trunk_gates("face", block.eval())
    else:
        model.attach_gates(block.eval())


def card_of_file(path: Path, model: str) -> Card | None:
    """The card whose hash a file has, among the networks of one model."""
    found = sha256_of(path)
    return next((c for c in cards().values() if c.kind == "network" and c.model == model and c.sha256 == found), None)


def _card_of_unknown(path: Path, like: Card) -> Card:
    """A card for a file of which nothing is known but that its keys fit: what it says of ``like`` is how to feed it."""
    digest = sha256_of(path)
    return Card(
        *(f"{like.model}.{path.stem}.{digest[:8]}", "network", path.name, "unknown", "a file of the user's"),
        sha256=digest,
        size_bytes=path.stat().st_size,
        model=like.model,
        geometry=like.geometry,
        audio=like.audio,
        limits=(f"no card lay beside it: crops are cut as for {like.name}",),
    )


def load(
    name: str, *, weights: Path | str | None = None, gates: bool = True, device: str | torch.device = "cpu"
) -> nn.Module:
    """A network with published weights and the gates and gains fitted to them, in evaluation mode.

    Args:
        name: a card's name, for instance "lr_asd.pretrain_AVA".
        weights: a file to read instead; when its hash is another card's of the same model, that card is used; so is
            a card beside it (:mod:`asd_explain.weights.trained`), and an unknown file gets one that keeps of this card
            how crops are cut. Neither gets the package's gates and gains, which were fitted to other weights. Under a
            card whose hash is not known, a torch file is taken for the published one, whose hash is recorded and
            checked; a .safetensors file, which none of them is, for somebody's own.
        gates: whether to attach the fitted block and the gains.
        device: where to put it.

    Returns:
        The module; its ``card`` attribute is the card in force, ``weights_sha256`` the hash of the file read,
        ``fitted`` {"gates", "gains": name of what was attached or None}, empty where nothing was asked for or fits.

    Raises:
        WeightsError, OptionError: see :func:`locate`, :func:`load_state`, :func:`asd_explain.weights.cards.card`.
    """
    chosen: Card = card(name)
    noted = True
    if weights is not None:
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"{path}: no such weights file")
        known = card_of_file(path, chosen.model)
        beside = card_beside(path, sha256_of(path)) if known is None else None
        published = chosen.by_path_only and path.suffix != ".safetensors"
        if beside is not None:
            if beside.model != chosen.model:
                raise WeightsError(f"{path} are weights of {beside.model}, not of {chosen.model}: so says its card")
            chosen, gates = beside, False
        elif known is None and published:
            noted = first_use.check(cache_dir(), chosen.name, path, sha256_of(path))
        elif known is None:
            without = ", and no gates are fitted to it" if gates_for(name) else ""
            log.warning("%s is not a file we know: crops are cut as for %s%s", path, name, without)
            chosen, gates = _card_of_unknown(path, chosen), False
        else:
            chosen = known
    else:
        path = locate(name)
    model = create_model(chosen.model)
    if model.audio_feature != chosen.audio:
        raise WeightsError(
            f"the card {chosen.name} says {chosen.audio}, but {chosen.model} hears {model.audio_feature}"
        )
    state = read_state(path)
    attach_trained_gates(model, state, chosen.gate)
    load_state(model, state, str(path))
    if not noted:
        first_use.record(cache_dir(), chosen.name, path, sha256_of(path))
    model.fitted = {"gates": gates_for(chosen.name), "gains": gains_for(chosen.name)} if gates else {}
    if (fitted := model.fitted.get("gates")) is not None:
        load_gates(model, card(fitted))
    if (gains := model.fitted.get("gains")) is not None:
        load_gains(model, card(gains))
    model.card = chosen
    model.weights_sha256 = sha256_of(path)
    model.requires_grad_(False)
    return model.to(device).eval()
