"""Batches of annotated entities: sorted by length, cut to the shortest, disturbed as published, shared over processes.

A batch is a pure function of the seed, the epoch and its number, whoever makes it and with however many processes, so
that a training that was cut off goes on as if it had not been. Which entities share a batch does not change from epoch
to epoch (as published); the order of the batches does.

Entities of several frame rates may share a batch: it is cut by frames, and MFCC are taken with windows scaled by
25/fps, as published, so that four steps belong to a frame whatever its rate. Window and step are whole samples, so that
where 160 * 25/fps is none the features drift against the picture (30 frames a second: 0.25 %, 8 ms in 3 s), as in the
published features. What differs: where the sound ends before the picture, silence follows, where the published code
repeats the clip's beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from asd_explain.datasets.entities import EntityClip, EntitySet
from asd_explain.errors import AsdExplainError, OptionError
from asd_explain.media.audio import RATE
from asd_explain.media.log_mel import log_mel
from asd_explain.media.mfcc import STEPS_PER_FRAME, mfcc
from asd_explain.training.recipe_augment import add_voice, draw_view
from asd_explain.training.recipe_config import AugmentConfig, Recipe

SPEAKING = 1
# Last words of seeds. To numpy [s, e, n] and [s, e, n, 0] are one stream: each use of draws ends in a word of its own.
_ORDER, _ABSENCE, _VIEWS = 0x0DE, 0xAB5, 0x0E1
_FEATURES = {"mfcc": mfcc, "log_mel": log_mel}
T = TypeVar("T")


def entity_sound(waveform: np.ndarray, fps: float, frames: int, feature: str = "mfcc") -> torch.Tensor:
    """(4 * frames, C) float32 of a sound that begins with the first frame; silence where it ends early.

    Args:
        waveform: (n,) float32 in [-1, 1], 16 kHz.
        fps: frames a second.
        frames: how many.
        feature: "mfcc" (C = 13) or "log_mel" (C = 64).
    """
    steps = STEPS_PER_FRAME * frames
    length, step = (int(seconds * 25 / fps * RATE + 0.5) for seconds in (0.025, 0.010))
    needed = (steps - 1) * step + length
    sound = np.zeros(needed, np.float32)
    part = waveform[:needed]
    sound[: len(part)] = part
    # Window lengths that lie between two samples may be rounded down there, which leaves room for one step more.
    return _FEATURES[feature](sound, fps)[:steps]


@dataclass(frozen=True)
class RecipeBatch:
    """N entities of T frames.

    Attributes:
        face: (N, T, 112, 112) uint8.
        body: the same, or None where none is seen.
        audio: (N, 4T, C) float32 of what the network hears.
        target: (N, T) int64, 1 speaking.
        weight: (N,) float32: 0 for an entity that is there only because a process must look at something.
        entities: how many the whole batch has over all processes.
        absent: name of a stream that this batch is to do without, or "".
    """

    face: torch.Tensor
    body: torch.Tensor | None
    audio: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    entities: int
    absent: str = ""

    def to(self, device: torch.device) -> RecipeBatch:
        """The same on a device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{k: v.to(device, non_blocking=True) for k, v in tensors.items() if isinstance(v, torch.Tensor)}
        )

    def pin_memory(self) -> RecipeBatch:
        """The same in page-locked memory (called by the loader)."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.pin_memory() for k, v in tensors.items() if isinstance(v, torch.Tensor)})


def plan_batches(lengths: Sequence[int], frames: int, seed: int = 0, entities: int = 0) -> list[np.ndarray]:
    """Which entities share a batch: the longest first, each batch as many as ``frames`` holds of its longest, or one.

    Args:
        lengths: frames of every entity.
        frames: of a batch.
        seed: of the order among entities of equal length.
        entities: of a batch, instead of ``frames``; 0 for no such number.

    Raises:
        OptionError: no entity, or one without frames.
    """
    lengths = np.asarray(lengths)
    if not len(lengths) or lengths.min() < 1:
        raise OptionError("nothing to train on: there is no entity, or one without a frame")
    tie = np.random.default_rng([seed, 0x71E]).permutation(len(lengths))
    order = np.lexsort((tie, -lengths))
    batches, first = [], 0
    while first < len(order):
        count = entities or max(1, frames // int(lengths[order[first]]))
        batches.append(order[first : first + count])
        first += count
    return batches


def checked_clip(entities: EntitySet, index: int, body: bool = False) -> EntityClip:
    """An entity's crops and sound, seen to hold what a network needs.

    Args:
        entities: the data set.
        index: of the entity.
        body: whether it must have body crops.

    Raises:
        OptionError: there is no sound, or no body crop where one is needed.
        AsdExplainError: what the data set raises where a file is missing.
    """
    clip, name = entities.load(index), entities.rows[index].entity_id
    # Sounds end with the last timestamp: of an entity of one frame there is none.
    if not len(clip.waveform) and len(clip) > 1:
        raise OptionError(f"{name}: its sound has no samples; it is missing, and would be learnt as silence")
    if body and clip.body is None:
        raise OptionError(f"{name}: it has no body crops, and the network needs them; choose a set with bodies")
    return clip


class RecipeBatches:
    """Draws a recipe's batches.

    Args:
        entities: to train on.
        recipe: how.
        body: "no", "if there" (a network that knows of absence) or "needed".
        streams: of the network, from which an absent one is drawn.
        rank, ranks: this process and how many share each batch.
        feature: what the network hears, see :func:`entity_sound`.
    """

    def __init__(
        self,
        entities: EntitySet,
        recipe: Recipe,
        body: str = "no",
        streams: Sequence[str] = (),
        rank: int = 0,
        ranks: int = 1,
        feature: str = "mfcc",
    ) -> None:
        self.entities, self.recipe, self.body, self.streams = entities, recipe, body, tuple(streams)
        self.rank, self.ranks, self.feature = rank, ranks, feature
        most = recipe.batches.clip
        self.lengths = [min(len(row.labels), most or len(row.labels)) for row in entities.rows]
        self.plan = plan_batches(self.lengths, recipe.batches.frames, recipe.seed, recipe.batches.entities)

    def __len__(self) -> int:
        return len(self.plan)

    def order(self, epoch: int) -> np.ndarray:
        """Numbers of the batches in the order of an epoch."""
        return np.random.default_rng([self.recipe.seed, epoch, 0, 0, _ORDER]).permutation(len(self.plan))

    def batch(self, epoch: int, number: int) -> RecipeBatch:
        """This process's share of a batch: every ``ranks``-th entity from ``rank`` on."""
        members = self.plan[number]
        length = min(self.lengths[i] for i in members)
        mine = list(range(self.rank, len(members), self.ranks))
        idle = not mine
        loaded: dict[int, EntityClip] = {}

        def clip(place: int) -> EntityClip:
            if place not in loaded:
                loaded[place] = checked_clip(self.entities, int(members[place]), self.body == "needed")
            return loaded[place]

        rows = [self._row(epoch, number, place, members, length, clip) for place in (mine or [0])]
        faces, bodies, sounds, targets = zip(*rows, strict=True)
        seen = self.body != "no" and all(body is not None for body in bodies)
        rng = np.random.default_rng([self.recipe.seed, epoch, number, 0, _ABSENCE])
        absent = ""
        if rng.random() < self.recipe.augment.absent:
            absent = str(rng.choice([s for s in self.streams if s != "body" or seen]))
        return RecipeBatch(
            face=torch.from_numpy(np.stack(faces)),
            body=torch.from_numpy(np.stack(bodies)) if seen else None,
            audio=torch.stack(sounds),
            target=torch.from_numpy(np.stack(targets)),
            weight=torch.full((len(rows),), 0.0 if idle else 1.0),
            entities=len(members),
            absent=absent,
        )

    def _row(
        self,
        epoch: int,
        number: int,
        place: int,
        members: Sequence[int],
        length: int,
        clip: Callable[[int], EntityClip],
    ) -> tuple:
        config: AugmentConfig = self.recipe.augment
        own = clip(place)
        rng = np.random.default_rng([self.recipe.seed, epoch, number, place, _VIEWS])
        size = own.face.shape[1]
        views = [draw_view(rng, config, size) for _ in range(2)]
        sound = own.waveform
        # Of the set, places are numbers of entities.
        of_set = config.voices == "set"
        at, count = (int(members[place]), len(self.entities)) if of_set else (place, len(members))
        if rng.random() < config.voice and count > 1:
            other = (at + 1 + int(rng.integers(count - 1))) % count
            voice = self.entities.sound(other) if of_set else clip(other).waveform
            sound = add_voice(sound, voice, rng.uniform(*config.snr_db))
        body = own.body if self.body != "no" else None
        return (
            views[0].apply(own.face[:length]),
            None if body is None else views[1].apply(body[:length]),
            entity_sound(sound, own.fps, length, self.feature),
            (np.asarray(own.labels[:length]) == SPEAKING).astype(np.int64),
        )


class Guarded(Dataset):
    """A data set of anything, whose errors travel from a worker as they are: a worker would wrap them in a traceback.

    Args:
        make: index to item.
        count: how many.
    """

    def __init__(self, make: Callable[[int], object], count: int) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> object:
        try:
            return self.make(index)
        except AsdExplainError as error:
            return error


def loaded(make: Callable[[int], T], count: int, workers: int, pin: bool = False) -> Iterator[T]:
    """Items 0 to ``count`` - 1 in order, made by ``workers`` processes (0: here).

    Raises:
        AsdExplainError: what ``make`` raised, unchanged.
    """
    loader = DataLoader(
        Guarded(make, count),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=pin,
        multiprocessing_context="fork" if workers else None,
        generator=torch.Generator(),  # else it draws from the one that dropout draws from
    )
    for item in loader:
        if isinstance(item, AsdExplainError):
            raise item
        yield item
