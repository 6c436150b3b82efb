"""A quick look at a network in training: average precision on some tracks of dev, in the conditions it is taught."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from asd_explain.evaluate.detection import average_precision
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.scoring import classify
from asd_explain.training.corpus import TrainTrack

_HOP = 50
_CHUNK = 150


def quick_check(tracks: list[TrainTrack], seed: int = 0) -> Callable[[nn.Module], dict[str, float]]:
    """A function from a network to {what: average precision in [0, 1]} on these tracks.

    ``own``: the own sound against the labels; ``silence``, ``other``, ``frozen``: frames labelled speaking under the
    own sound against the same under digital silence, another person's voice, and with the middle picture held; and
    ``*_photos`` the first where truth is exact; ``body`` and ``sound`` with one stream alone, ``face`` without the
    body, where the network has them.
    """
    rng = np.random.default_rng(seed)
    voices = [t for t in tracks if t.voiced > 0.3]
    others = []
    for t in tracks:
        strangers = [v for v in voices if v.voice != t.voice]
        chosen = strangers[rng.integers(len(strangers))] if strangers else None
        others.append(None if chosen is None else np.resize(chosen.clip.mfcc, (4 * len(t), 13)))

    @torch.inference_mode()
    def check(model: nn.Module) -> dict[str, float]:
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for track, other in zip(tracks, others, strict=True):
            known = ~np.isnan(track.own)
            own = track.own[known] >= 0.5
            pooled = _pooled(model, track)
            silence = _audio(model, aligned_mfcc(None, 0.0, len(track)))
            photos = "_photos" if track.clip.truth is not None else ""

            def said(known: np.ndarray = known, **streams: torch.Tensor) -> np.ndarray:
                logits = classify(model, streams, hop=_HOP)[0]
                return (logits[:, 1] - logits[:, 0]).numpy()[known]

            p_own = said(**pooled)
            found.setdefault("own" + photos, []).append((p_own, own))
            against = {"silence": pooled | {"audio": silence}}
            if other is not None:
                against["other"] = pooled | {"audio": _audio(model, torch.from_numpy(other))}
            still = {**pooled, "face": _still(model.face_maps, model, track.clip.faces["box"])}
            if "body" in pooled:
                still["body"] = _still(model.body_maps, model, track.clip.bodies)
            against["frozen"] = still
            for name, streams in against.items():
                scores = np.concatenate([p_own[own], said(**streams)[own]])
                labels = np.repeat([True, False], own.sum())
                found.setdefault(name + photos, []).append((scores, labels))
            if model.learned_absence:
                gone = {s: model.absent[s].expand(1, len(track), -1) for s in model.streams}
                found.setdefault("body" + photos, []).append((said(**{**pooled, "face": gone["face"]}), own))
                found.setdefault("face" + photos, []).append((said(**{**pooled, "body": gone["body"]}), own))
        result = {}
        for name, pairs in found.items():
            scores, labels = (np.concatenate(x) for x in zip(*pairs, strict=True))
            if 0 < labels.sum() < len(labels):
                result[name] = average_precision(scores, labels)
        return result

    return check


def _pooled(model: nn.Module, track: TrainTrack) -> dict[str, torch.Tensor]:
    pooled = {"audio": _audio(model, torch.from_numpy(track.clip.mfcc))}
    pooled["face"] = _visual(model.face_maps, model, track.clip.faces["box"])
    if "body" in model.streams:
        pooled["body"] = _visual(model.body_maps, model, track.clip.bodies)
    return pooled


def _audio(model: nn.Module, mfcc: torch.Tensor) -> torch.Tensor:
    return model.audio_embedding(mfcc[None])


def _visual(encode: Callable, model: nn.Module, crops: np.ndarray) -> torch.Tensor:
    parts, halo = [], model.halo_frames
    for first in range(0, len(crops), _CHUNK):
        low = max(0, first - halo)
        maps = encode(torch.from_numpy(crops[low : first + _CHUNK + halo])[None])
        parts.append(model.pool(maps)[:, first - low : first - low + _CHUNK])
    return torch.cat(parts, 1)


def _still(encode: Callable, model: nn.Module, crops: np.ndarray) -> torch.Tensor:
    # A held picture looks the same everywhere but within the encoder's reach of the ends, which hardly matters here.
    reach = model.halo_frames
    picture = np.repeat(crops[len(crops) // 2][None], 2 * reach + 1, 0)
    maps = encode(torch.from_numpy(picture)[None])
    return model.pool(maps)[:, reach : reach + 1].expand(1, len(crops), -1)
