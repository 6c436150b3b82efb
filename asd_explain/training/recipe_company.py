"""Tracks that are in the picture together, and batches of tracks with their company, for networks that see several.

As in the published training of LoCoNet (Wang et al., arXiv 2301.08237), company of a track are those that are there at
its middle frame and share more than half of its frames; of several it is drawn who stands beside it, and where there
are fewer than places, some stand twice. A track alone stands in all places. In frames in which one is not there its
picture is black and its loss does not count. What differs: frames are those that are learnt from (published: those of
the whole track, before it is cut to 200); who stands in two places is seen the same way in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asd_explain.datasets.entities import EntityClip, EntityRow
from asd_explain.errors import OptionError
from asd_explain.grid import nearest
from asd_explain.training.recipe_augment import draw_view
from asd_explain.training.recipe_data import SPEAKING, RecipeBatch, RecipeBatches, checked_clip


class Company:
    """Which tracks of a set are in the picture together.

    Args:
        rows: of the set.
    """

    def __init__(self, rows: Sequence[EntityRow]) -> None:
        self.rows = rows
        places: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            places.setdefault(row.video_id, []).append(index)
        self._by_video = {video: np.array(indices) for video, indices in places.items()}
        self._spans_s = np.array([(row.timestamps_s[0], row.timestamps_s[-1]) for row in rows]).reshape(-1, 2)

    def beside(self, index: int, frames: int | None = None) -> dict[int, np.ndarray]:
        """The tracks that share frames with one, in the order of the set.

        Args:
            index: of the track.
            frames: only its first so many; None for all.

        Returns:
            {other track: (T,) number of its frame at each frame of the track, -1 where it is not there}. Two frames are
            the same where less than half a frame's duration lies between them.
        """
        row = self.rows[index]
        times_s = row.timestamps_s[:frames]
        half_s = 0.5 / row.fps
        others = self._by_video[row.video_id]
        first, last = self._spans_s[others].T
        others = others[(first < times_s[-1] + half_s) & (last > times_s[0] - half_s) & (others != index)]
        found = {}
        for other in others.tolist():
            theirs_s = self.rows[other].timestamps_s
            at = nearest(theirs_s, times_s)
            at = np.where(np.abs(theirs_s[at] - times_s) < half_s, at, -1)
            if (at >= 0).any():
                found[other] = at
        return found


def draw_company(
    rng: np.random.Generator, beside: dict[int, np.ndarray], places: int
) -> tuple[list[int], list[np.ndarray], list[int]]:
    """Who stands beside a track in training, see the module's text.

    Args:
        rng: draws.
        beside: as :meth:`Company.beside` gives it.
        places: how many candidates are seen together, the track included.

    Returns:
        (others, frames, standing): the tracks that stand beside it, each once; their frames (T,) as in ``beside``; and
        for each place who stands there, 0 the track itself and 1 + i the i-th of the others.
    """
    lasting = [other for other, at in beside.items() if at[len(at) // 2] >= 0 and 2 * int((at >= 0).sum()) > len(at)]
    others = [lasting[i] for i in rng.permutation(len(lasting))[: places - 1]]
    standing = [0, *range(1, len(others) + 1)]
    while len(standing) < places:
        standing.append(1 + int(rng.integers(len(others))) if others else 0)
    return others, [beside[other] for other in others], standing


@dataclass(frozen=True, kw_only=True)
class CompanyBatch(RecipeBatch):
    """N tracks of T frames, each with who stands beside it in S places, the first of which is its own.

    Attributes:
        face, audio, entities: of the tracks themselves, see the base; ``body`` is None.
        company: (M, T, 112, 112) uint8 faces of those who stand beside one, black where one is not there.
        standing: for each track, for each place, who stands there: a row of ``face`` followed by ``company``.
        target: (N, S, T) int64, 1 speaking.
        weight: (N, S, T) float32, 0 where who stands there is not there.
        counted: the sum of ``weight`` in the whole batch, over all processes.
    """

    company: torch.Tensor
    standing: tuple[tuple[int, ...], ...]
    counted: int


class CompanyBatches(RecipeBatches):
    """Draws a recipe's batches for a network that sees several candidates.

    Args:
        entities, recipe, ...: see the base.
        places: how many candidates are seen together.

    Raises:
        OptionError: the recipe leaves streams out.
    """

    def __init__(self, *args: object, places: int, **named: object) -> None:
        super().__init__(*args, **named)
        if self.recipe.augment.absent:
            raise OptionError("[augment] absent: a network that sees several candidates knows of no absent stream")
        self.places = places
        self.together = Company(self.entities.rows)

    def batch(self, epoch: int, number: int) -> CompanyBatch:
        """This process's share of a batch: every ``ranks``-th track from ``rank`` on, with its company."""
        members = self.plan[number]
        length = min(self.lengths[i] for i in members)
        drawn = [
            draw_company(
                np.random.default_rng([self.recipe.seed, epoch, number, place, 0xC0]),
                self.together.beside(int(index), length),
                self.places,
            )
            for place, index in enumerate(members)
        ]
        loaded: dict[int, EntityClip] = {}

        def clip(index: int) -> EntityClip:
            if index not in loaded:
                loaded[index] = checked_clip(self.entities, index)
            return loaded[index]

        mine = list(range(self.rank, len(members), self.ranks))
        idle = not mine
        faces, sounds, company, standing, targets, weights = [], [], [], [], [], []
        for place in mine or [0]:
            face, _, sound, target = self._row(epoch, number, place, members, length, lambda at: clip(int(members[at])))
            faces.append(face)
            sounds.append(sound)
            others, frames, places = drawn[place]
            seen = [np.ones(length, bool), *(at >= 0 for at in frames)]
            said = [target]
            rows = [len(faces) - 1]
            for k, (other, at) in enumerate(zip(others, frames, strict=True)):
                rows.append(-1 - len(company))
                company.append(self._other(epoch, number, place, k, clip(other).face, at))
                labels = np.asarray(self.entities.rows[other].labels) == SPEAKING
                said.append(np.where(at >= 0, labels[at], False).astype(np.int64))
            standing.append([rows[who] for who in places])
            targets.append(np.stack([said[who] for who in places]))
            weights.append(np.stack([seen[who] for who in places]))
        size = faces[0].shape[1:]
        return CompanyBatch(
            face=torch.from_numpy(np.stack(faces)),
            body=None,
            audio=torch.stack(sounds),
            target=torch.from_numpy(np.stack(targets)),
            weight=torch.from_numpy(np.stack(weights)).float() * (0.0 if idle else 1.0),
            entities=len(members),
            company=torch.from_numpy(np.stack(company) if company else np.zeros((0, length, *size), np.uint8)),
            # The others were numbered -1, -2, ... until it was known how many tracks come before them.
            standing=tuple(tuple(r if r >= 0 else len(faces) - 1 - r for r in rows) for rows in standing),
            counted=sum(self._counted(length, frames, places) for _, frames, places in drawn),
        )

    @staticmethod
    def _counted(length: int, frames: Sequence[np.ndarray], standing: Sequence[int]) -> int:
        there = [length, *(int((at >= 0).sum()) for at in frames)]
        return sum(there[who] for who in standing)

    def _other(self, epoch: int, number: int, place: int, k: int, face: np.ndarray, at: np.ndarray) -> np.ndarray:
        """(T, 112, 112) uint8 of another track at the frames ``at`` of a track, seen its own way; black at -1."""
        rng = np.random.default_rng([self.recipe.seed, epoch, number, place, 1 + k, 0x0B])
        view = draw_view(rng, self.recipe.augment, face.shape[1])
        seen = np.zeros((len(at), *face.shape[1:]), np.uint8)
        seen[at >= 0] = view.apply(face[at[at >= 0]])
        return seen
