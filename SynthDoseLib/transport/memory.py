"""What a simulation needs in memory, how many threads that leaves, and what it takes in the end."""

from __future__ import annotations

import os

import psutil

from ..core import SynthDoseError
from .tallies import list_length

PREPARING = 24
"""Bytes per voxel while the estimator is chosen voxel by voxel; given back before the sums are made."""

_SHARE_OF_FREE = 0.9
_SUMS, _RESULT, _ESTIMATOR, _TALLY, _CROPPED = 16, 8, 1, 8, 7  # bytes per voxel
_BASE = 300 << 20  # tables, stacks, compiled kernels


def needed_bytes(voxels: int, grid_voxels: int, threads: int, components: int = 1, *, with_map: bool = True) -> int:
    """Memory that a simulation takes besides its phantom and source.

    Parameters
    ----------
    voxels : int
        Inside the box of matter.
    grid_voxels : int
        Of the whole grid, which the result is given on.
    threads, components : int
    with_map : bool
        Whether there are sums per voxel, or per organ only.
    """
    parts = components + 1 if components > 1 else 1
    cropped = _CROPPED * voxels if voxels < grid_voxels else 0
    tallies = threads * components * _TALLY * voxels
    # each thread may have a list in its hands and one parked
    lists = 2 * threads * (4 + 8 * components) * list_length(voxels) if with_map else 0
    sums = parts * (_SUMS * voxels + _RESULT * grid_voxels) if with_map else 0
    running = _ESTIMATOR * voxels + tallies + lists + sums
    return _BASE + cropped + max(PREPARING * voxels, running)


def affordable_threads(voxels: int, grid_voxels: int, wanted: int, components: int = 1, *, with_map: bool = True) -> int:
    """Threads that are wanted (0 for one per core), or as many as free memory allows.

    Raises
    ------
    SynthDoseError
        If there is not enough for one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    available = psutil.virtual_memory().available
    usable = _SHARE_OF_FREE * available
    threads = wanted or cores
    while threads > 1 and needed_bytes(voxels, grid_voxels, threads, components, with_map=with_map) > usable:
        threads -= 1
    needed = needed_bytes(voxels, grid_voxels, threads, components, with_map=with_map)
    if needed > usable:
        raise SynthDoseError(
            f"The phantom of {grid_voxels} voxels needs {needed / _SHARE_OF_FREE / 2**30:.1f} GiB of free memory; "
            f"{available / 2**30:.1f} GiB are free. Crop it to the body or use larger voxels."
        )
    return threads


class MemoryWatch:
    """How much this process has grown since the watch was made.

    Attributes
    ----------
    peak_bytes : int
        The most of it, as often as `look` was called.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self.peak_bytes = 0

    def look(self) -> None:
        """Measure; takes some microseconds."""
        self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss - self._before)
