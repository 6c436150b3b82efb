"""A quick look at a network in training: average precision on some tracks of dev, in the conditions it is taught."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from asd_explain.evaluate.calibration import fit_temperature
from asd_explain.evaluate.detection import average_precision
from asd_explain.evaluate.pooled import held_stream, pooled_audio, pooled_stream
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.scoring import classify
from asd_explain.training.corpus import TrainTrack

_HOP = 50


class QuickCheck:
    """Looks at networks, always on the same tracks with the same foreign voices.

    ``own``: the own sound against the labels; ``silence``, ``other``, ``frozen``: frames labelled speaking under the
    own sound against the same under digital silence, another person's voice, and with the middle picture held; and
    ``*_photos`` the same where truth is exact; ``body`` the own sound without the face, ``face`` without the body,
    where the network has a body stream and knows of absence. The network may be on any device.

    Args:
        tracks: with labels.
        seed: of whose voices are drawn.
    """

    def __init__(self, tracks: list[TrainTrack], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        voices = [t for t in tracks if t.voiced > 0.3]
        self._pairs: list[tuple[TrainTrack, np.ndarray | None]] = []
        for t in tracks:
            strangers = [v for v in voices if v.voice != t.voice]
            chosen = strangers[rng.integers(len(strangers))] if strangers else None
            self._pairs.append((t, None if chosen is None else np.resize(chosen.clip.mfcc, (4 * len(t), 13))))

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """{condition: average precision in [0, 1]}; conditions of one class only are left out."""
        return {
            name: average_precision(scores, labels)
            for name, (scores, labels) in self.margins(model).items()
            if 0 < labels.sum() < len(labels)
        }

    def temperature(self, model: nn.Module) -> float:
        """The temperature that calibrates the network best on these tracks.

        Taken over the own sound alone, real and generated clips weighing the same: silence and held pictures are so
        easy that they would only make it more certain of itself. On real clips "right" is what the teacher decides.
        """
        margins = self.margins(model)
        chosen = [margins[n] for n in ("own", "own_photos") if n in margins]
        scores, labels = (np.concatenate(x) for x in zip(*chosen, strict=True))
        weights = np.concatenate([np.full(len(s), 1 / max(1, len(s))) for s, _ in chosen])
        return fit_temperature(scores, labels.astype(np.int8), weights)

    @torch.inference_mode()
    def margins(self, model: nn.Module) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{condition: ((N,) logit of speaking minus silent, (N,) bool labels)}."""
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for track, other in self._pairs:
            known = ~np.isnan(track.own)
            own = track.own[known] >= 0.5
            pooled = _pooled(model, track)
            silence = pooled_audio(model, aligned_mfcc(None, 0.0, len(track)))[None]
            photos = "_photos" if track.clip.truth is not None else ""

            def said(known: np.ndarray = known, **streams: torch.Tensor) -> np.ndarray:
                logits = classify(model, streams, hop=_HOP)[0]
                return (logits[:, 1] - logits[:, 0]).double().cpu().numpy()[known]

            p_own = said(**pooled)
            found.setdefault("own" + photos, []).append((p_own, own))
            against = {"silence": pooled | {"audio": silence}}
            if other is not None:
                against["other"] = pooled | {"audio": pooled_audio(model, other)[None]}
            against["frozen"] = pooled | _held(model, track)
            for name, streams in against.items():
                scores = np.concatenate([p_own[own], said(**streams)[own]])
                found.setdefault(name + photos, []).append((scores, np.repeat([True, False], own.sum())))
            if model.learned_absence and "body" in model.streams:
                for name, gone in (("body", "face"), ("face", "body")):
                    left = {stream: values for stream, values in pooled.items() if stream != gone}
                    found.setdefault(name + photos, []).append((said(**left), own))
        return {
            name: tuple(np.concatenate(values) for values in zip(*pairs, strict=True)) for name, pairs in found.items()
        }


def _pooled(model: nn.Module, track: TrainTrack) -> dict[str, torch.Tensor]:
    pooled = {"audio": pooled_audio(model, track.clip.mfcc)[None]}
    for stream, crops in _crops(model, track).items():
        pooled[stream] = pooled_stream(model, stream, crops)[None]
    return pooled


def _held(model: nn.Module, track: TrainTrack) -> dict[str, torch.Tensor]:
    return {
        stream: held_stream(model, stream, crops[len(crops) // 2], len(crops))[None]
        for stream, crops in _crops(model, track).items()
    }


def _crops(model: nn.Module, track: TrainTrack) -> dict[str, np.ndarray]:
    crops = {"face": track.clip.faces["box"]}
    return crops | {"body": track.clip.bodies} if "body" in model.streams else crops
