"""The history loop for NVIDIA GPUs: the functions of the CPU, translated, not written again.

`on_device` copies an ``@njit`` function, and with it every one that it calls, into functions for numba-cuda. `add_whole` alone
has another body there, because the threads of a GPU add to one tally. Seen so far only in numba's CUDA simulator and by
NVIDIA's assembler, not on a GPU.

To be imported only where numba-cuda is installed; nothing is compiled before the first launch.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from numba import config, cuda, float64, int64, uint64
from numba.cuda.core import config as cuda_config

from .geometry import COUNTS, STACK_SIZE, add_whole
from .histories import run_histories
from .tracks import PLACES, SEGMENTS, Tracks

THREADS_PER_BLOCK, BLOCKS_PER_MULTIPROCESSOR = 128, 2
"""The kernel needs all of the 255 registers that a thread can have; two blocks of 128 threads leave it that many."""

cuda_config.CACHE_DIR = config.CACHE_DIR  # see `cache`; numba.cuda may have been imported before
cuda_config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # the first launches are short: how long a history takes is not known yet

# the simulator knows neither
_OPTIONS = {} if config.ENABLE_CUDASIM else {"launch_bounds": (THREADS_PER_BLOCK, BLOCKS_PER_MULTIPROCESSOR), "cache": True}


@cuda.jit(device=True)
def add_whole_atomically(array, place, number):
    """See `add_whole`; no other thread's number is lost."""
    cuda.atomic.add(array, place, number)


def on_device(function: Any, translated: dict[Any, Any]) -> Any:
    """Translate a function compiled by ``@njit``, and those that it calls, for numba-cuda.

    Parameters
    ----------
    function : dispatcher of numba
    translated : dict
        Functions that have a translation already; those made here are added.
    """
    if function not in translated:
        python = function.py_func
        names = dict(python.__globals__)
        for name in python.__code__.co_names:
            if hasattr(names.get(name), "py_func"):
                names[name] = on_device(names[name], translated)
        copy = FunctionType(python.__code__, names, python.__name__, python.__defaults__, python.__closure__)
        translated[function] = cuda.jit(device=True)(copy)
    return translated[function]


_follow = on_device(run_histories, {add_whole: add_whole_atomically})


@cuda.jit(**_OPTIONS)
def run_on_device(first, last, seed, stream, batch, kind, weight, spectrum, tables, tally, counts, totals):
    """As `run_histories`, on all threads of a grid; what belongs to a thread is made here."""
    stack = cuda.local.array((STACK_SIZE, 12), float64)
    count = cuda.local.array(COUNTS, int64)
    state = cuda.local.array(7, uint64)
    tracks = Tracks(
        cuda.local.array((SEGMENTS, 9), float64), cuda.local.array((PLACES, 4), float64), cuda.local.array(3, float64)
    )  # fmt: skip
    for place in range(COUNTS):
        count[place] = 0
    # a block has sums of its own: three places for all histories of a GPU would be waited for, and registers are short
    sums = cuda.shared.array(3, int64)
    thread = cuda.threadIdx.x
    if thread < 3:
        sums[thread] = 0
    cuda.syncthreads()
    _follow(
        first + cuda.grid(1), last, cuda.gridsize(1), seed, stream, batch, kind, weight, spectrum, tables, tally, stack, count,
        state, tracks, counts, sums,
    )  # fmt: skip
    cuda.syncthreads()
    if thread < 3:
        cuda.atomic.add(totals, thread, sums[thread])


@cuda.jit
def clear(array):
    """Set a one-dimensional array to zero."""
    for place in range(cuda.grid(1), array.size, cuda.gridsize(1)):
        array[place] = 0
