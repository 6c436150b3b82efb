"""The two time axes and the one place that maps between them.

Source frames n have presentation times t_n at any rate. The networks live on an analysis grid of 25 frames a second
that begins at the track's first time. Both mappings are nearest in time; ties go to the earlier neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID_FPS = 25.0


def grid_length(first_s: float, last_s: float, fps: float = GRID_FPS) -> int:
    """Number of grid frames for source times from ``first_s`` to ``last_s`` (seconds, both included), at least 1."""
    return int(np.floor((last_s - first_s) * fps + 0.5 + 1e-6)) + 1


def nearest(times_s: np.ndarray, query_s: np.ndarray) -> np.ndarray:
    """Index of the entry of ``times_s`` (n,), increasing, nearest to each of ``query_s`` (m,); ties to the earlier."""
    times_s = np.asarray(times_s, np.float64)
    query_s = np.asarray(query_s, np.float64)
    right = np.clip(np.searchsorted(times_s, query_s), 0, len(times_s) - 1)
    left = np.clip(right - 1, 0, None)
    # 1e-6 s of slack: container clocks are no finer, and a rounding error must not turn a tie around.
    use_left = query_s - times_s[left] <= times_s[right] - query_s + 1e-6
    return np.where(use_left, left, right)


@dataclass(frozen=True)
class TimeGrid:
    """The mapping between one track's source frames and its analysis grid.

    Attributes:
        source_s: (N,) times of the track's source frames in seconds, increasing.
        fps: grid frames a second.
    """

    source_s: np.ndarray
    fps: float = GRID_FPS

    @property
    def start_s(self) -> float:
        """Time of grid frame 0 in seconds: the track's first time."""
        return float(self.source_s[0])

    def __len__(self) -> int:
        return grid_length(self.source_s[0], self.source_s[-1], self.fps)

    @property
    def grid_s(self) -> np.ndarray:
        """(T,) times of the grid frames in seconds."""
        return self.start_s + np.arange(len(self)) / self.fps

    @property
    def source_of_grid(self) -> np.ndarray:
        """(T,) int: for each grid frame, the row (0..N-1) of the source frame nearest in time."""
        return nearest(self.source_s, self.grid_s)

    @property
    def grid_of_source(self) -> np.ndarray:
        """(N,) int: for each source frame, the grid frame (0..T-1) nearest in time."""
        return nearest(self.grid_s, self.source_s)

    def to_source(self, values: np.ndarray) -> np.ndarray:
        """Map values (T, ...) on the grid onto the source frames (N, ...)."""
        if len(values) != len(self):
            raise ValueError(f"{len(values)} values for a grid of {len(self)} frames")
        return np.asarray(values)[self.grid_of_source]
