"""Histories on an NVIDIA GPU: memory, launches, and what to say where that cannot be.

The tables of a problem are copied once. A launch follows a range of histories of one group; its threads add to one tally in the
memory of the GPU, which is fetched when a batch is complete. Random numbers belong to the history and tallies are whole
numbers, so that the dose does not depend on the number of threads. It differs from that of the CPU by the histories that take
another turn where mathematical functions of the two differ in the last digit; with the same functions (in numba's CUDA
simulator) all tallies are equal. Seen so far only in the simulator and by NVIDIA's assembler, not on a GPU.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import MissingPackageError, SynthDoseError
from .geometry import STACK_SIZE
from .problem import Problem, Work
from .tracks import PLACES, SEGMENTS, new_tracks

INSTALL = 'pip install "synthdose[cuda]"'
_WAVES = 4  # blocks for each that has room: a long history holds up one of many
_LOCAL_BYTES = 8 * (STACK_SIZE * 12 + SEGMENTS * 9 + PLACES * 4) + 1024  # of each thread that has room, in use or not
_MEMORY_SHARE = 0.9
_FETCHED_AT_ONCE = 1 << 22
_LAUNCH_BYTES = 1 << 27  # compiled code and small arrays


def require_gpu() -> None:
    """Make sure that there is a GPU and what it takes to use it.

    Raises
    ------
    MissingPackageError
        If numba-cuda is not installed.
    SynthDoseError
        If no GPU, or no driver, is found.
    """
    from numba import config

    if config.ENABLE_CUDASIM:
        return
    if find_spec("numba_cuda") is None:
        raise MissingPackageError("numba-cuda", 'device = "cuda"', INSTALL)
    from numba import cuda

    if not cuda.is_available():
        reason = " ".join(str(cuda.cuda_error() or "there is none").split()).rstrip(" .:")
        raise SynthDoseError(
            f"No NVIDIA GPU can be used: {reason}. Check that the command nvidia-smi lists one and that its driver is version "
            '525 or newer, or use device = "cpu".'
        )


def wants_gpu(device: str) -> bool:
    """Tell whether a run with this `device` setting goes to a GPU.

    Raises
    ------
    MissingPackageError, SynthDoseError
        If it has to, and cannot: see `require_gpu`.
    """
    if device == "auto":
        if find_spec("numba_cuda") is None or not _has_driver():
            return False
        try:
            require_gpu()
        except SynthDoseError:
            return False
        return True
    if device == "cuda":
        require_gpu()
        return True
    return False


def _has_driver() -> bool:
    """Look for NVIDIA's driver, which is quicker than to load numba-cuda."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def open_gpu(problem: Problem, device: str) -> Gpu | str:
    """Copy a problem to the GPU; where that cannot be, and `device` is "auto", say why and that the CPU is used."""
    try:
        return Gpu(problem)
    except SynthDoseError as error:
        if device == "cuda":
            raise
        return f"The CPU was used: {error}"


class Gpu:
    """A problem in the memory of the current GPU, with one tally; for one thread of the computer at a time.

    Parameters
    ----------
    problem : Problem

    Attributes
    ----------
    name : str
        Of the GPU.

    Raises
    ------
    MissingPackageError, SynthDoseError
        See `require_gpu`; and if the memory of the GPU does not suffice, or the libraries of CUDA are not complete.
    """

    def __init__(self, problem: Problem) -> None:
        require_gpu()
        from numba import config, cuda

        from .cuda_kernels import BLOCKS_PER_MULTIPROCESSOR, THREADS_PER_BLOCK

        device = cuda.get_current_device()
        if config.ENABLE_CUDASIM:
            self.name, resident, self._blocks = "simulator", 0, 1
        else:
            self.name = str(device.name)
            resident = device.MULTIPROCESSOR_COUNT * device.MAX_THREADS_PER_MULTIPROCESSOR
            self._blocks = device.MULTIPROCESSOR_COUNT * BLOCKS_PER_MULTIPROCESSOR * _WAVES
        self._threads_per_block = THREADS_PER_BLOCK
        self._voxels, self._emissions = problem.labels.size, problem.emission_count
        self._check_memory(problem, resident * _LOCAL_BYTES)
        self._copies: dict[int, tuple[NDArray[Any], Any]] = {}
        self._guard(lambda: self._prepare(problem))

    def new_work(self, components: int) -> Work:
        """Empty tallies, in the computer and on the GPU."""
        self._clear()
        empty = np.zeros(0)
        return GpuWork(
            np.zeros((components, self._voxels), np.int64),
            *(empty, empty.astype(np.int64), empty.astype(np.uint64), new_tracks()),
            np.zeros(self._emissions, np.int64),
            np.zeros(3, np.int64),
            gpu=self,
        )

    def run(
        self,
        problem: Problem,
        group: int,
        first: int,
        last: int,
        weight: float,
        stream: int,
        batch: int,
        counts: NDArray[np.int64],
        totals: NDArray[np.int64],
    ) -> None:
        """Follow the histories `first` to `last` (excluded) of a group and wait for them; see `run_histories`.

        `counts` and `totals` are added to at once, the energies go to the tally on the GPU.
        """
        from numba import cuda

        from .cuda_kernels import run_on_device

        own = problem.groups[group]
        blocks = max(1, min(self._blocks, -(-(last - first) // self._threads_per_block)))
        on_gpu = cuda.to_device(counts), cuda.to_device(totals)
        run_on_device[blocks, self._threads_per_block](
            first, last, np.uint64(problem.seed), np.uint64(stream), np.uint64(batch), own.kind, float(weight),
            self._on_gpu(own.spectrum), self._on_gpu(problem.tables), self._tally, *on_gpu,
        )  # fmt: skip
        for array, place in zip(on_gpu, (counts, totals), strict=True):
            array.copy_to_host(place)

    def fetch(self, tally: NDArray[np.int64]) -> None:
        """Move what the tally on the GPU holds to a tally of the computer (voxels,)."""
        for first in range(0, self._voxels, _FETCHED_AT_ONCE):
            part = slice(first, min(first + _FETCHED_AT_ONCE, self._voxels))
            tally[part] += self._tally[part].copy_to_host()
        self._clear()

    def _check_memory(self, problem: Problem, local_bytes: int) -> None:
        from numba import cuda

        arrays = _bytes((problem.tables, [group.spectrum for group in problem.groups])) + 8 * self._voxels
        needed = (arrays + local_bytes + _LAUNCH_BYTES) / _MEMORY_SHARE
        free = cuda.current_context().get_memory_info().free
        if needed > free:
            raise SynthDoseError(
                f"The GPU ({self.name}) has {free / 2**30:.2f} GiB of free memory; this phantom of {self._voxels} voxels needs "
                f'{needed / 2**30:.2f} GiB. Crop it to the body, use larger voxels, or device = "cpu".'
            )

    def _prepare(self, problem: Problem) -> None:
        """Copy everything, and compile or load the kernels: now, because here it shows if a library is missing."""
        from numba import cuda

        self._tally = cuda.to_device(np.zeros(self._voxels, np.int64))
        for group in range(len(problem.groups)):
            self._on_gpu(problem.groups[group].spectrum)
        self.run(problem, 0, 0, 0, 1.0, 0, 0, np.zeros(self._emissions, np.int64), np.zeros(3, np.int64))

    def _guard(self, action: Callable[[], None]) -> None:
        """Do something, and say what to do where CUDA refuses."""
        from numba.cuda.cudadrv import error as cuda_errors

        names = ("CudaDriverError", "NvvmError", "NvrtcError")
        expected = tuple(getattr(cuda_errors, name) for name in names if hasattr(cuda_errors, name))
        try:
            action()
        except (ImportError, OSError, RuntimeError, *expected) as error:
            raise SynthDoseError(
                f"The GPU ({self.name}) could not be made ready: {error}. Check that it has memory left (nvidia-smi) and that "
                f"CUDA's libraries are installed ({INSTALL}), or use device = 'cpu'."
            ) from error

    def _clear(self) -> None:
        from .cuda_kernels import clear

        clear[self._blocks, self._threads_per_block](self._tally)

    def _on_gpu(self, value: Any) -> Any:
        """Copy the arrays in nested named tuples, each once."""
        from numba import cuda

        if isinstance(value, np.ndarray):
            if id(value) not in self._copies:
                # numba-cuda cannot pass an array of nothing
                filled = value if value.size else np.zeros([max(1, length) for length in value.shape], value.dtype)
                self._copies[id(value)] = value, cuda.to_device(filled)
            return self._copies[id(value)][1]
        return type(value)(*map(self._on_gpu, value)) if isinstance(value, tuple) else value


@dataclass(eq=False)
class GpuWork(Work):
    """What a thread gathers whose histories a GPU follows; `stack`, `count` and `state` are not used."""

    gpu: Gpu = field(kw_only=True)
    component: int = 0

    def clock(self) -> float:
        """See `Work.clock`."""
        return time.perf_counter()

    def run(
        self, problem: Problem, group: int, first: int, last: int, weight: float, stream: int, batch: int, component: int
    ) -> None:
        """See `Work.run`."""
        if component != self.component:
            self.gpu.fetch(self.tallies[self.component])
            self.component = component
        self.gpu.run(problem, group, first, last, weight, stream, batch, self.counts, self.totals)

    def fetch(self) -> None:
        """See `Work.fetch`."""
        begun = self.clock()
        self.gpu.fetch(self.tallies[self.component])
        self.cpu_s += self.clock() - begun


def _bytes(value: Any) -> int:
    """Size of all arrays in nested tuples and lists."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0
