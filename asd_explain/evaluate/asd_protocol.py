"""What an active speaker detector is asked on local clips that carry no annotation, and how the answers are counted.

Two sources of labels stand in for annotation:

* **The published ensemble** (``ensemble``): the mean P(speaking) of published networks under the clip's own sound, 0.5
  and more is speaking. Every face of every clip. It says how far a network agrees with its teachers, no more.
* **Certain labels** (``own_vs_*``): a talking face under its own voice, in frames whose sound is voiced, against the
  same frames where what is heard or seen rules speaking out: digital silence and near-silence (``silence``), the middle
  picture held (``frozen``), another person's voice of the same split (``other_voice``), the own voice moved by half a
  second to two (``shifted``: for information, as shifted speech often meets moving lips by chance), and against faces
  that do not talk or have no sound (``listeners``). ``certain`` is all of them but ``shifted``. Where a voice takes the
  own one's place, only frames count in which both are voiced: a pause would be too easy.

Talking faces are the tracks of the groups ``tracks`` and ``single`` with sound, but foreign dubbing, tracks that the
hints call silent, and tracks in which the ensemble finds speech in less than half of the voiced frames: there the voice
is most likely not this face's (bystanders). The choice is by track, not by frame, so that the teachers' own errors
within a track are not taken out; which tracks went is reported.

``ensemble``, ``hints`` and ``talking_photos`` count every frame once. The others are balanced by weights: speaking
frames weigh half; the kinds of silent frames share the other half equally; no frame is thrown away. So the base rate
is 50 % and AP can be compared between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from asd_explain.datasets.shared_clips import hinted_labels
from asd_explain.evaluate.calibration import sigmoid
from asd_explain.evaluate.detection import DetectionMetric, EvaluationError
from asd_explain.evaluate.pooled import PooledTrack
from asd_explain.evaluate.stream_views import TINY, Scorer, ViewedTrack
from asd_explain.models.fusion_backbone import FusionBackbone

#: {section: kinds of silent frames that the own voice is set against}.
CERTAIN = {
    "own_vs_silence": ("silence", "noise"),
    "own_vs_frozen": ("frozen",),
    "own_vs_other_voice": ("other_voice",),
    "own_vs_shifted": ("shifted",),
    "own_vs_listeners": ("listeners",),
    "certain": ("silence", "frozen", "other_voice", "listeners"),
}
SECTIONS = ("ensemble", "ensemble_balanced", *CERTAIN, "hints", "talking_photos")
_SOUNDS = {"silence": "silence", "noise": "noise", "other_voice": "other", "shifted": "shifted"}
_VOICES = ("other_voice", "shifted")


@dataclass(frozen=True)
class Look:
    """Which streams are there, and how they see.

    Attributes:
        streams: names; None = all that the network has.
        view: of the visual streams.
    """

    streams: tuple[str, ...] | None = None
    view: str = "own"

    @property
    def still(self) -> str:
        """The view that shows the same held."""
        return "still" if self.view == "own" else f"{self.view}_still"


def looks(streams: Sequence[str]) -> dict[str, Look]:
    """Every look beside the plain one at a network with these streams: streams taken away, faces made tiny."""
    found = {}
    if "body" in streams:
        for some in (("audio", "face"), ("audio", "body"), ("face", "body"), ("face",), ("body",), ("audio",)):
            found["+".join(some)] = Look(some)
        found["audio+body, face hidden"] = Look(("audio", "body"), "hidden")
        found["body, face hidden"] = Look(("body",), "hidden")
    for name in TINY:
        title = f"face {name.removeprefix('tiny')} px"
        found[title] = Look(None, name)
        if "body" in streams:
            found[f"{title}, audio+face"] = Look(("audio", "face"), name)
    return found


@dataclass(frozen=True)
class Frames:
    """Some frames of one clip: (n,) margins and (n,) labels, 1 speaking."""

    clip: str
    kind: str
    margin: np.ndarray
    label: np.ndarray


@dataclass
class Material:
    """What one section is measured on.

    Attributes:
        parts: the frames.
        balanced: whether the classes weigh the same, and the kinds of silent frames among themselves.
    """

    parts: list[Frames] = field(default_factory=list)
    balanced: bool = True

    def add(self, clip: str, kind: str, margin: np.ndarray | None, label: np.ndarray | float) -> None:
        """Add frames; nothing is added for None (a sound that is not there) or for no frames."""
        if margin is not None and len(margin):
            self.parts.append(Frames(clip, kind, margin, np.broadcast_to(np.asarray(label, np.int8), margin.shape)))

    @property
    def margin(self) -> np.ndarray:
        """(N,) of all frames."""
        return np.concatenate([p.margin for p in self.parts]) if self.parts else np.zeros(0)

    @property
    def label(self) -> np.ndarray:
        """(N,) of all frames."""
        return np.concatenate([p.label for p in self.parts]) if self.parts else np.zeros(0, np.int8)

    @property
    def weights(self) -> np.ndarray:
        """(N,) weights of mean 1."""
        label = self.label
        if not self.balanced or not self.parts:
            return np.ones(len(label))
        kinds = np.concatenate([np.full(len(p.margin), p.kind) for p in self.parts])
        weights = np.zeros(len(label))
        silent = [k for k in np.unique(kinds) if (label[kinds == k] == 0).any()]
        weights[label == 1] = 0.5 / max(1, (label == 1).sum())
        for kind in silent:
            chosen = (kinds == kind) & (label == 0)
            weights[chosen] = 0.5 / len(silent) / chosen.sum()
        return weights * len(label)

    def speaking_rates(self) -> dict[str, float]:
        """{"kind, speaking" and "kind, silent", by label: share of the frames that are called speaking at 0.5}."""
        found: dict[str, list[np.ndarray]] = {}
        for p in self.parts:
            for label, name in ((1, "speaking"), (0, "silent")):
                found.setdefault(f"{p.kind}, {name}", []).append(p.margin[p.label == label] > 0)
        joined = {name: np.concatenate(values) for name, values in found.items()}
        return {name: float(values.mean()) for name, values in joined.items() if len(values)}


@dataclass(frozen=True)
class Labels:
    """The labels of one split, the same for every network.

    Attributes:
        ensemble: {track: (T,) P(speaking) of the ensemble under the own sound}.
        talking: {track: (T,) bool, frames under the own voice}, of the talking faces.
        left_out: {track: why} of tracks that might have been talking faces.
        hinted: {track: (T,) 1, 0 or NaN}.
    """

    ensemble: dict[str, np.ndarray]
    talking: dict[str, np.ndarray]
    left_out: dict[str, str]
    hinted: dict[str, np.ndarray]


def label_tracks(tracks: Sequence[PooledTrack], ensemble: Mapping[str, np.ndarray]) -> Labels:
    """Labels of a split's tracks; see the module's text.

    Args:
        tracks: of any network; only what all networks share is read.
        ensemble: {track: (T,) P(speaking)} of the published ensemble.
    """
    found = Labels(dict(ensemble), {}, {}, {})
    for t in tracks:
        hinted = hinted_labels(t.name.split("#")[0], t.times_s, t.boxes, t.size, t.voiced)
        if hinted is not None:
            found.hinted[t.name] = hinted
        if t.group not in ("tracks", "single") or not t.has_audio:
            continue
        p = ensemble[t.name]
        if not t.voiced.any():
            found.left_out[t.name] = "no voiced frame"
        elif t.person.startswith("dubbed_foreign") or (hinted is not None and not (hinted == 1).any()):
            found.left_out[t.name] = "the hints say that another voice is heard"
        elif (p[t.voiced] >= 0.5).mean() < 0.5:
            found.left_out[t.name] = "the ensemble finds speech in less than half of the voiced frames"
        else:
            found.talking[t.name] = t.voiced
    return found


def materials(
    scorer: Scorer, tracks: Sequence[ViewedTrack], labels: Labels, look: Look | None = None
) -> dict[str, Material]:
    """Score all tracks of one split, section by section (all but ``talking_photos``).

    Args:
        scorer: of the network, made with the same tracks.
        tracks: of one split.
        labels: of the same tracks.
        look: which streams and which view; default all, as they are.
    """
    look = look or Look()
    hears = look.streams is None or "audio" in look.streams
    sees = look.streams is None or set(look.streams) - {"audio"}
    found = {name: Material(balanced=name not in ("ensemble", "hints")) for name in SECTIONS[:-1]}
    negatives: dict[str, list[tuple[str, np.ndarray]]] = {}
    for track in tracks:
        t = track.pooled
        clip = t.name.split("#")[0]
        own = scorer.margin(track, "own", look.view, look.streams)
        teacher = labels.ensemble[t.name] >= 0.5
        kind = "listeners" if t.group == "listening" else "own"
        found["ensemble"].add(clip, "own", own, teacher)
        found["ensemble_balanced"].add(clip, kind, own, teacher)
        if own is not None and t.name in labels.hinted:
            known = np.isfinite(labels.hinted[t.name])
            found["hints"].add(clip, "own", own[known], labels.hinted[t.name][known])
        if t.group == "listening":
            negatives.setdefault("listeners", []).append((clip, own))
        if t.name not in labels.talking:
            continue
        voiced = labels.talking[t.name]
        for name in CERTAIN:
            found[name].add(clip, "own voice", own[voiced], 1)
        changed = {k: scorer.margin(track, s, look.view, look.streams) for k, s in _SOUNDS.items()} if hears else {}
        if sees:
            changed["frozen"] = scorer.margin(track, "own", look.still, look.streams)
        for name, margin in changed.items():
            if margin is not None:
                heard = scorer.voiced(track, _SOUNDS[name]) if name in _VOICES else True
                negatives.setdefault(name, []).append((clip, margin[voiced & heard]))
    for name, kinds in CERTAIN.items():
        for kind in kinds:
            for clip, margin in negatives.get(kind, ()):
                found[name].add(clip, kind, margin, 0)
    # For the balanced mix: digital silence and held pictures of the talking faces.
    for kind in ("silence", "frozen"):
        for clip, margin in negatives.get(kind, ()):
            found["ensemble_balanced"].add(clip, kind, margin, 0)
    if not (hears and sees):  # a mix that lacks a kind of silent frames is another mix
        del found["ensemble_balanced"], found["certain"]
    return found


def photo_material(
    model: FusionBackbone, tracks: Mapping[str, Sequence[ViewedTrack]], look: Look | None = None
) -> Material:
    """Talking photographs under their own sound, by their exact truth.

    Args:
        model: the network.
        tracks: {kind of clip: tracks with truth}.
        look: which streams there are; default all.
    """
    look = look or Look()
    scorer = Scorer(model, [t for some in tracks.values() for t in some])
    found = Material(balanced=False)
    for kind, some in tracks.items():
        for track in some:
            known = np.isfinite(track.truth)
            margin = scorer.margin(track, "own", look.view, look.streams)
            found.add(track.pooled.name.split("#")[0], kind, margin[known], track.truth[known])
    return found


def section(material: Material, *, draws: int = 1000, seed: int = 0) -> dict:
    """Figures of one material, ready for JSON.

    Returns:
        ap, base_rate, low, high (NaN where undefined), frames, positives, clips, speaking_rates, and ``why_not`` where
        there is no AP.
    """
    metric = DetectionMetric(draws=draws, seed=seed)
    start = 0
    weights = material.weights
    for part in material.parts:
        stop = start + len(part.margin)
        metric.update(part.clip, part.margin, part.label, weights[start:stop])
        start = stop
    label = material.label
    figures = {
        "frames": len(label),
        "positives": int((label == 1).sum()),
        "clips": len({p.clip for p in material.parts}),
        "speaking_rates": material.speaking_rates(),
    }
    try:
        found = metric.compute()
    except EvaluationError as error:
        return {"ap": math.nan, "base_rate": math.nan, "low": math.nan, "high": math.nan, **figures} | {
            "why_not": str(error)
        }
    interval = found.interval
    return {"ap": found.ap, "base_rate": found.base_rate, "low": interval.low, "high": interval.high, **figures}


def ensemble_of(members: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """{track: (T,) mean P(speaking)} from {member: {track: (T,) margin}}."""
    names = next(iter(members.values()))
    return {name: np.mean([sigmoid(margins[name]) for margins in members.values()], 0) for name in names}


def members_against_ensemble(
    members: Mapping[str, Mapping[str, np.ndarray]], *, draws: int = 1000, seed: int = 0
) -> dict[str, dict[str, dict]]:
    """Each member's AP against the whole ensemble, and against the others alone, for scale.

    Args:
        members: {member: {track: (T,) margin under the own sound}}.

    Returns:
        {member: {"all": section, "others": section}}.
    """
    found: dict[str, dict[str, dict]] = {}
    for name, margins in members.items():
        others = {other: values for other, values in members.items() if other != name}
        found[name] = {}
        for title, judges in (("all", members), ("others", others)):
            if not judges:
                continue
            p = ensemble_of(judges)
            material = Material(balanced=False)
            for track, margin in margins.items():
                material.add(track.split("#")[0], "own", margin, p[track] >= 0.5)
            found[name][title] = section(material, draws=draws, seed=seed)
    return found
