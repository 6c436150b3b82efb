"""One clip's figures for one network on disk, so that a long evaluation goes on where it was cut off.

Two files a clip: arrays (gates, embeddings, interventions) in an npz, everything else in a JSON that is written last;
so a JSON that is there says that the clip is done.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.intervention import Change, SegmentEffects
from asd_explain.evaluate.json_report import write_report
from asd_explain.outputs import whole_file

#: Of the stored figures; goes up with every change after which old ones would be read wrongly.
#: 2: levels of raw heat and which frames are called speaking; a dead map is a miss in placement.
FORMAT = 3
_SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"


@dataclass
class ClipFigures:
    """What one network gave on one clip.

    Attributes:
        clip: its name.
        records: of :func:`asd_explain.evaluate.attention.measure`, one a segment.
        gates: {stream: (T, C)} a segment.
        pooled: (T, sum of C) fusion vectors before gating, a segment.
        effects: interventions, a segment.
        sanity: rows of the cascade; only of the clips on which it was run.
        residual: FullGrad's equation on one frame, or empty.
        pictures: (caption, time in seconds, PNG bytes).
        decisive: {segment's name: (T,) which stream must decide}, of scenes in which that is known.
    """

    clip: str
    records: list[dict] = field(default_factory=list)
    gates: list[dict[str, np.ndarray]] = field(default_factory=list)
    pooled: list[np.ndarray] = field(default_factory=list)
    effects: list[SegmentEffects] = field(default_factory=list)
    sanity: list[dict] = field(default_factory=list)
    residual: dict = field(default_factory=dict)
    pictures: list[tuple[str, float, bytes]] = field(default_factory=list)
    decisive: dict[str, np.ndarray] = field(default_factory=dict)


class Store:
    """The folder of clips' figures.

    Args:
        folder: made when needed.
        settings: everything on which figures depend, ready for JSON; figures of other settings are refused.
    """

    def __init__(self, folder: Path, settings: dict) -> None:
        self.folder, self.settings = Path(folder), json.loads(json.dumps(settings))

    def path(self, network: str, clip: str) -> Path:
        """The JSON of one clip; its name says which, and a hash keeps apart what a file name cannot hold."""
        short = "".join(c if c in _SAFE else "_" for c in clip)[-60:]
        # The user's own card may call its network anything.
        folder = "".join(c if c in _SAFE else "_" for c in network).lstrip(".") or "_"
        return self.folder / folder / f"{short}.{hashlib.sha256(clip.encode()).hexdigest()[:8]}.json"

    def get(self, network: str, clip: str, source: str = "") -> ClipFigures | None:
        """What is there of a clip, or None where there is nothing, or of another source.

        Args:
            network, clip: names.
            source: what the clip was made from (its file, size and time); figures of another source do not count.

        Raises:
            OptionError: it was measured with other settings or is of another ``FORMAT``, or cannot be read.
        """
        path = self.path(network, clip)
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.get("format") != FORMAT:
                raise OptionError(
                    f"{path} is from another version of this tool, whose figures cannot be mixed with these; give "
                    "another --out, or --fresh to measure anew"
                )
            if stored["settings"] != self.settings:
                before, now = _flat(stored["settings"]), _flat(self.settings)
                changed = sorted(k for k in before | now if before.get(k) != now.get(k))
                raise OptionError(
                    f"{path} was measured with other settings ({', '.join(changed)}); give another --out, or "
                    "--fresh to measure anew"
                )
            if stored["source"] != source:
                return None
            with np.load(path.with_suffix(".npz")) as arrays:
                return _unpack(stored, dict(arrays))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise OptionError(f"{path} cannot be read ({error}); --fresh measures anew") from None

    def put(self, network: str, figures: ClipFigures, source: str = "") -> None:
        """Keep a clip's figures, as a whole or not at all.

        Raises:
            OutputError: they cannot be written.
        """
        path = self.path(network, figures.clip)
        stored, arrays = _pack(figures)
        with whole_file(path.with_suffix(".npz")) as partial:
            np.savez_compressed(partial, **arrays)
        write_report({"format": FORMAT, "settings": self.settings, "source": source, **stored}, path)


def _flat(settings: dict, prefix: str = "") -> dict[str, object]:
    """{"outer.inner": value} of nested settings."""
    found = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _with_nan(value: object) -> object:
    """JSON knows no NaN and holds None in its place; figures get theirs back."""
    if isinstance(value, dict):
        return {key: _with_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_nan(inner) for inner in value]
    return math.nan if value is None else value


def fingerprint(model: nn.Module) -> str:
    """A hash of everything that was learned, fitted gates and gains included."""
    digest = hashlib.sha256()
    gains = {f"gain of {stream}": values for stream, values in getattr(model, "gains", {}).items()}
    for name, values in sorted({**model.state_dict(), **gains}.items()):
        digest.update(name.encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _pack(figures: ClipFigures) -> tuple[dict, dict[str, np.ndarray]]:
    arrays: dict[str, np.ndarray] = {f"decisive/{name}": values for name, values in figures.decisive.items()}
    for i, gates in enumerate(figures.gates):
        arrays |= {f"{i}/gates/{stream}": values for stream, values in gates.items()}
    arrays |= {f"{i}/pooled": values for i, values in enumerate(figures.pooled)}
    for i, one in enumerate(figures.effects):
        arrays |= {f"{i}/p": one.p, f"{i}/margin": one.margin}
        for (stream, replacement), change in one.changes.items():
            arrays[f"{i}/change/{stream}/{replacement}"] = np.stack([change.p, change.margin])
        for kind, shares in one.shares.items():
            arrays |= {f"{i}/share/{kind}/{stream}": values for stream, values in shares.items()}
    for i, (_, _, png) in enumerate(figures.pictures):
        arrays[f"{i}/png"] = np.frombuffer(png, np.uint8)
    stored = {
        "clip": figures.clip,
        "records": figures.records,
        "effects": [[one.name, one.clip] for one in figures.effects],
        "sanity": figures.sanity,
        "residual": figures.residual,
        "pictures": [[caption, time_s] for caption, time_s, _ in figures.pictures],
    }
    return stored, arrays


def _unpack(stored: dict, arrays: dict[str, np.ndarray]) -> ClipFigures:
    count = len(stored["records"])
    gates: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    changes: list[dict] = [{} for _ in stored["effects"]]
    shares: list[dict] = [{} for _ in stored["effects"]]
    for key, values in arrays.items():
        if key.startswith("decisive/"):
            continue
        number, what, *rest = key.split("/")
        if what == "gates":
            gates[int(number)][rest[0]] = values
        elif what == "change":
            changes[int(number)][tuple(rest)] = Change(values[0], values[1])
        elif what == "share":
            shares[int(number)].setdefault(rest[0], {})[rest[1]] = values
    effects = [
        SegmentEffects(name, clip, arrays[f"{i}/p"], arrays[f"{i}/margin"], changes[i], shares[i])
        for i, (name, clip) in enumerate(stored["effects"])
    ]
    return ClipFigures(
        clip=stored["clip"],
        records=_with_nan(stored["records"]),
        gates=gates,
        pooled=[arrays[f"{i}/pooled"] for i in range(count)],
        effects=effects,
        sanity=_with_nan(stored["sanity"]),
        residual=_with_nan(stored["residual"]),
        decisive={key.split("/", 1)[1]: values for key, values in arrays.items() if key.startswith("decisive/")},
        pictures=[(c, t, arrays[f"{i}/png"].tobytes()) for i, (c, t) in enumerate(stored["pictures"])],
    )
