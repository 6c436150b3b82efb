"""What the figures of explanations say, in sentences: which method is best, against whom that is more than chance.

Works on the summary of a run (metrics.json). Every comparison here is "SE minus the other", clip by clip; for deletion
a negative difference is good, for insertion and ROAD a positive one. It counts only where its interval is clear of
zero. Nothing is concluded from missing numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from asd_explain.evaluate.attention import CONTROLS, PAPER, PLAIN, RIVALS, SE
from asd_explain.evaluate.attention_summary import HIGHER_IS_BETTER
from asd_explain.evaluate.report_page import NOTHING, decimal, percent, span
from asd_explain.evaluate.svg import number

#: {method: what it is}, in the order of all tables.
METHODS = {
    "se": "squeeze-and-excitation: the mean of the network's feature maps, each weighted by the gate that the network "
    "itself put on it in this frame, times the map's gain, a fixed number that was fitted once for the network by "
    "blurring other clips but for one patch (networks without gains: by the gate alone); one forward pass, no gradient",
    "se-plain": "the same without gains: by the gate alone",
    "se-paper": "by the published recipe: only channels whose gate passes mean + 1.28 standard deviations, "
    "with one set of gates for the whole clip",
    "gradcam": "feature maps weighted by the mean gradient of the frame's decision",
    "gradcam++": "the same, weighted towards the cells that speak for the decision",
    "eigengradcam": "the first principal component of gradient times feature map",
    "fullgrad": "gradient times input plus what every bias of the network adds",
    "fem": "where each feature map is unusually strong, without gradients",
    "activation": "the plain mean of the feature maps, with no gate at all",
    "se-shuffled": "SE with its gates dealt out to the wrong channels; gains keep their place",
    "weights-shuffled": "the same with gates and gains dealt out together",
    "random": "random numbers",
    "centre": "a fixed blob in the middle of the picture, which knows neither network nor picture",
    "mouth": "a fixed blob where a mouth usually is, which knows neither network nor picture",
}
BLOBS = ("centre", "mouth")
#: Controls that do not read the network: that they are quick, still and well placed is no merit.
BLIND = ("random", *BLOBS)
TITLES = {"deletion": "Deletion", "insertion": "Insertion", "road": "ROAD"}
MOVE_TITLES = {
    "tube": "one order of pixels for the whole stretch (tube-wise)",
    "frame": "an order for each frame (frame-wise)",
}
_MASKS = {"tube": " with one mask for the whole stretch", "frame": " with a mask that changes from frame to frame"}
WORDS = {"better": "better", "worse": "worse", "open": "no clear difference", "unknown": "not known"}
MOUTH_AIM, SPEED_AIM = 0.9, 3.0


@dataclass(frozen=True)
class Choice:
    """Which of many figures the first tables and sentences are about."""

    kind: object = None
    stream: object = None
    baseline: object = None
    verdict: object = None

    def row(self, rows: Iterable[Mapping], metric: str, move: object) -> Mapping | None:
        """The row of this choice; ROAD has one baseline and one move of its own."""
        for row in rows:
            same = row.get("metric") == metric and (row.get("kind"), row.get("stream")) == (self.kind, self.stream)
            own = metric == "road" or (row.get("baseline"), row.get("move")) == (self.baseline, move)
            if same and own and row.get("verdict") == self.verdict:
                return row
        return None


def methods_of(network: Mapping) -> dict[str, Mapping]:
    """The network's methods in the order of ``METHODS``; unknown ones stand before the controls."""
    given = network.get("methods") or {}
    known = list(METHODS)
    place = {name: i for i, name in enumerate(known)}
    return {n: given[n] or {} for n in sorted(given, key=lambda n: place.get(n, place["activation"] - 0.5))}


def all_rows(methods: Mapping[str, Mapping], part: str) -> list[Mapping]:
    """The rows that all methods have in a part."""
    return [row for method in methods.values() for row in method.get(part) or ()]


def choose(rows: Iterable[Mapping], **wanted: Sequence[object]) -> dict[str, object]:
    """{key: value} that picks rows: of each key the first wanted value that there is, else the first there is."""
    rows, chosen = list(rows), {}
    for key, values in wanted.items():
        there = list(dict.fromkeys(row.get(key) for row in rows))
        chosen[key] = next((v for v in values if v in there), there[0] if there else None)
        rows = [row for row in rows if row.get(key) == chosen[key]]
    return chosen


def find(rows: Iterable[Mapping] | None, keys: Mapping[str, object]) -> Mapping:
    """The first row with these values, or an empty one."""
    return next((row for row in rows or () if all(row.get(k) == v for k, v in keys.items())), {})


def headline(methods: Mapping[str, Mapping]) -> Choice:
    """All kinds of clips where they were pooled, the face, blur, frames called speaking; else what there is."""
    rows = [row for row in all_rows(methods, "faithfulness") if row.get("metric") != "road"]
    rows = rows or all_rows(methods, "faithfulness")
    return Choice(**choose(rows, kind=["all"], stream=["face"], baseline=["blur"], verdict=["speaking"]))


def moves_of(methods: Mapping[str, Mapping]) -> list[str]:
    """The moves measured, "tube" first."""
    rows = [row for row in all_rows(methods, "faithfulness") if row.get("metric") != "road"]
    there = list(dict.fromkeys(str(row.get("move")) for row in rows))
    return sorted(there, key=lambda move: (move != "tube", move != "frame"))


def compared(row: Mapping | None) -> str:
    """What a row of "SE minus the other" says of SE: "better", "worse", "open", or "unknown" where there is none.

    The interval alone decides, in the metric's own direction, so that words and drawn intervals cannot disagree.
    """
    if not row or number(row.get("difference")) is None:
        return "unknown"
    low, high = number(row.get("low")), number(row.get("high"))
    if low is None or high is None:
        return "unknown"
    if low <= 0 <= high:
        return "open"
    return "better" if (low > 0) == HIGHER_IS_BETTER.get(str(row.get("metric")), True) else "worse"


def ranking(methods: Mapping[str, Mapping], choice: Choice, metric: str, move: object) -> list[tuple[str, Mapping]]:
    """(method, row) from best to worst by the mean; methods without a number are left out."""
    found = [(name, choice.row(m.get("faithfulness") or (), metric, move)) for name, m in methods.items()]
    known = [(name, row) for name, row in found if row and number(row.get("mean")) is not None]
    return sorted(known, key=lambda pair: number(pair[1]["mean"]) * (-1 if HIGHER_IS_BETTER[metric] else 1))


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def mean_of(row: Mapping) -> str:
    """A mean with its interval."""
    return decimal(row.get("mean")) + span(row.get("low"), row.get("high"))


def outcomes(methods: Mapping[str, Mapping], choice: Choice, metric: str, move: object) -> dict[str, str]:
    """{other method: what :func:`compared` says of SE against it}, for those that were measured."""
    found = {}
    for name, method in methods.items():
        row = choice.row(method.get("against_se") or (), metric, move)
        if name != SE and row is not None:
            found[name] = compared(row)
    return found


def against(found: Mapping[str, str], whom: Sequence[str]) -> str:
    """ "better than a and b; no clear difference from c; worse than d", of those of ``whom`` that were compared."""
    joined = {"better": "better than", "open": "no clear difference from", "worse": "worse than"}
    parts = []
    for outcome, words in {**joined, "unknown": "no interval (too few clips) against"}.items():
        names = [name for name in whom if found.get(name) == outcome]
        if names:
            parts.append(f"{words} {listed(names)}")
    return "; ".join(parts)


def overall(methods: Mapping[str, Mapping]) -> str:
    """One sentence: is SE better than all others on deletion and on insertion, clear of chance?"""
    choice, moves = headline(methods), moves_of(methods)
    if SE not in methods or not moves:
        return "SE was not measured for faithfulness here, so nothing can be said of it."
    found = {metric: outcomes(methods, choice, metric, moves[0]) for metric in ("deletion", "insertion")}
    others = [name for name in RIVALS + CONTROLS if any(name in outcome for outcome in found.values())]
    if not others:
        return "SE was compared with no rival and no control here."
    pairs = {(name, metric): found[metric].get(name, "unknown") for metric in found for name in others}
    held = [f"{name} ({metric}: {WORDS[outcome]})" for (name, metric), outcome in pairs.items() if outcome != "better"]
    if not held:
        return (
            f"SE is better than all {len(others)} rivals and controls here on deletion and on insertion, clear of zero."
        )
    return (
        f"SE is better, clear of zero, in {len(pairs) - len(held)} of {len(pairs)} comparisons on deletion and "
        f"insertion with {len(others)} rivals and controls. Not against {listed(held)}."
    )


def faithfulness_sentences(methods: Mapping[str, Mapping]) -> list[str]:
    """Who is best on each metric, where SE comes, and whether SE is better than each rival and control."""
    choice, said = headline(methods), []
    for i, move in enumerate(moves_of(methods)):
        for metric in TITLES if i == 0 else ("deletion", "insertion"):
            said += _of_metric(methods, choice, metric, move)
    return said


def _of_metric(methods: Mapping[str, Mapping], choice: Choice, metric: str, move: str) -> list[str]:
    ranked = ranking(methods, choice, metric, move)
    if not ranked:
        return []
    way = "higher is better" if HIGHER_IS_BETTER[metric] else "lower is better"
    how = "" if metric == "road" else _MASKS.get(move, f", {move}")
    names = [name for name, _ in ranked]
    (best, row), count = ranked[0], len(ranked)
    text = f"{TITLES[metric]}{how} ({way}): "
    if best == SE:
        text += f"SE has the best mean of {count}, {mean_of(row)}"
        text += f"; next is {names[1]} with {mean_of(ranked[1][1])}." if count > 1 else "."
    else:
        text += f"{best} has the best mean of {count}, {mean_of(row)}"
        place = names.index(SE) + 1 if SE in names else None
        text += f"; SE comes {_nth(place)} with {mean_of(ranked[place - 1][1])}." if place else "; SE has none."
    found = outcomes(methods, choice, metric, move)
    groups = {"rivals": RIVALS, "controls": CONTROLS, "heat without gains": (PLAIN,), "published recipe": (PAPER,)}
    for title, whom in groups.items():
        if words := against(found, whom):
            text += f" Against the {title}, SE is {words}." if words[0] in "bw" else f" Against the {title}: {words}."
    return [text, *_blobs(ranked, found, metric, how)]


def _nth(place: int) -> str:
    ending = "th" if 10 < place % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def _blobs(ranked: list[tuple[str, Mapping]], found: Mapping[str, str], metric: str, how: str) -> list[str]:
    """Do fixed blobs beat every map that is made from the network?"""
    blobs = [pair for pair in ranked if pair[0] in BLOBS]
    maps = [pair for pair in ranked if pair[0] not in BLIND]
    if not blobs or not maps:
        return []
    order = [name for name, _ in ranked]
    (blob, blob_row), (first, first_row) = blobs[0], maps[0]
    figures = f"{blob} {decimal(blob_row['mean'])}, {first} {decimal(first_row['mean'])}"
    if number(blob_row["mean"]) == number(first_row["mean"]):
        text = f"the best fixed blob and the best map made from the network are level ({figures})"
    elif order.index(blob) < order.index(first):
        text = f"a fixed blob beats every map made from the network by the mean ({figures})"
    else:
        text = f"the best map made from the network beats the fixed blobs by the mean ({figures})"
    said = {
        "better": "is clearly better than",
        "open": "is not clearly different from",
        "worse": "is clearly worse than",
    }
    for outcome, says in said.items():
        if names := [name for name in BLOBS if found.get(name) == outcome]:
            text += f"; SE {says} {listed(names)}"
    return [f"Fixed blobs on {TITLES[metric] if metric == 'road' else metric}{how}: {text}."]


def placement_sentences(methods: Mapping[str, Mapping]) -> list[str]:
    """Where SE's heat lies, in frames called speaking, and on talking photos against the aim."""
    rows = (methods.get(SE) or {}).get("placement") or []
    said = []
    keys = choose(rows, kind=["all"], stream=["face"], by=["called"], state=["speaking"])
    row = find(rows, keys)
    if row and number((row.get("pointing") or {}).get("mouth")) is not None:
        pointing, mass, area = ((row.get(k) or {}).get("mouth") for k in ("pointing", "mass", "area"))
        text = f"In {keys['state']} frames ({how_known(keys)}), SE's hottest point lies on the mouth in "
        text += f"{percent(pointing)}{span(row.get('low'), row.get('high'), percent)}"
        if number(mass) is not None:
            text += f"; the mouth has {percent(mass)} of the heat"
            if number(area):
                text += (
                    f" on {percent(area)} of the area, {decimal(number(mass) / number(area), 1)} times an even share"
                )
        said.append(text + ".")
    truth = {"kind": "talking photos", "stream": "face", "by": "truth", "state": "speaking"}
    row = find(rows, truth)
    hit = number((row.get("pointing") or {}).get("mouth"))
    if hit is not None:
        verdict = "reached" if hit >= MOUTH_AIM else "missed"
        text = f"On talking photos, where the truth is known, it does so in {percent(hit)} of the speaking frames"
        said.append(
            f"{text}{span(row.get('low'), row.get('high'), percent)}: the aim of {percent(MOUTH_AIM)} is {verdict}."
        )
    return said


def how_known(keys: Mapping[str, object]) -> str:
    """Of which clips placement is, and who says that a frame is speaking."""
    kind = "all clips" if keys.get("kind") == "all" else str(keys.get("kind") or NOTHING)
    return f"{kind}, {'true state' if keys.get('by') == 'truth' else 'as the network calls them'}"


def other_sentences(methods: Mapping[str, Mapping]) -> list[str]:
    """What SE costs, and how far its map follows the network's weights."""
    said = []
    own = number((methods.get(SE) or {}).get("ms_per_frame"))
    gradcam = number((methods.get("gradcam") or {}).get("ms_per_frame"))
    if own is not None:
        text = f"SE adds {decimal(own)} ms a frame to scoring"
        if gradcam is not None and own > 0:
            verdict = "reached" if gradcam >= SPEED_AIM * own else "missed"
            text += f", GradCAM {decimal(gradcam)} ms, {decimal(gradcam / own, 1)} times as much: the aim of at least "
            text += f"{decimal(SPEED_AIM, 0)} times is {verdict}"
        said.append(text + ".")
    rows = (methods.get(SE) or {}).get("sanity") or []
    keys = choose(rows, stream=["face"])
    rows = [r for r in rows if r.get("stream") == keys.get("stream") and number(r.get("depth")) is not None]
    if rows:
        last = max(rows, key=lambda r: number(r["depth"]))
        if number(last.get("spearman")) is not None:
            said.append(
                f"After all {decimal(last['depth'], 0)} layers tested have lost what they learned, SE's map has a "
                f"rank correlation of {decimal(last['spearman'])} with the original "
                "(1: it does not depend on what was learned; 0: nothing is left)."
            )
    return said


def _left_out(network: Mapping) -> str:
    """What could not be measured of a network that has no gates; nothing where it has."""
    names = network.get("left_out") or []
    return f"This network has no gates, so {listed(names)} could not be measured; the others could." if names else ""


def network_sentences(network: Mapping) -> list[str]:
    """Everything that is said of one network, the overall verdict first."""
    methods = methods_of(network)
    if not methods:
        return ["Nothing was measured for this network."]
    parts = (faithfulness_sentences(methods), placement_sentences(methods), other_sentences(methods))
    return [_left_out(network) or overall(methods), *(sentence for part in parts for sentence in part)]


def asked(summary: Mapping) -> str:
    """What was asked, of how much material."""
    settings, networks = summary.get("settings") or {}, summary.get("networks") or {}
    clips = settings.get("clips") or []
    kinds: dict[str, int] = {}
    for clip in clips:
        kinds[str(clip.get("kind") or "unknown")] = kinds.get(str(clip.get("kind") or "unknown"), 0) + 1
    methods = list(dict.fromkeys(m for network in networks.values() for m in methods_of(network or {})))
    controls = sum(m in CONTROLS for m in methods)
    frames = [sum(number(clip.get(key)) or 0 for clip in clips) for key in ("frames", "speaking_frames")]
    text = (
        "A network says in every frame of a video whether a face is speaking. A heat map is to show by which pixels it "
        "decided. A map that looks right can still be wrong, so it is tested: take the hottest pixels away and the "
        "network should lose its opinion; show it nothing but them and it should keep it. "
    )
    made = len(methods) - controls
    text += f"Here {made} way{'s' * (made != 1)} to make such maps and {controls} control{'s' * (controls != 1)} were "
    text += "measured alike"
    text += f" on {len(networks)} network{'s' * (len(networks) != 1)}"
    if clips:
        text += f" and {len(clips)} clip{'s' * (len(clips) != 1)} ("
        text += ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        text += f"; {frames[0]:.0f} frames, {frames[1]:.0f} of them called speaking)"
    return text + "."


def described(method: str) -> str:
    """One sentence about a method; an en dash for one that is not known here."""
    return METHODS.get(method, NOTHING)
