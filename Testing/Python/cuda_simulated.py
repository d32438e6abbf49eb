"""Runs the same histories on the CPU and in numba's CUDA simulator, where kernels are plain Python; prints what is equal.

To be run with NUMBA_ENABLE_CUDASIM=1, by `test_transport_cuda`.
"""

from __future__ import annotations

import json
import time
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda

from SynthDoseLib.core import Emission, LabelMap, Material, Organ, SynthDoseError, VoxelGrid, VoxelPhantom
from SynthDoseLib.transport import PointSource, RunSettings, cuda_device, cuda_kernels, simulate
from SynthDoseLib.transport.cuda_device import Gpu
from SynthDoseLib.transport.problem import Problem, build_problem, new_work

KINDS = ("photon", "electron", "positron", "alpha")
HISTORIES = {"photon": 500, "electron": 70, "positron": 50, "alpha": 300}


class Single(np.float32):
    """A float32 that follows numba's rules: with anything but another one it becomes a float64, with a Python float too."""


def _operation(name: str) -> Any:
    double, single = getattr(np.float64, name), getattr(np.float32, name)

    def operation(self: Single, other: Any) -> Any:
        if isinstance(other, np.float32):
            return Single(single(np.float32(self), np.float32(other)))
        return double(np.float64(self), other)

    return operation


for _name in ("add", "sub", "mul", "truediv", "pow", "floordiv", "mod"):
    for _side in (f"__{_name}__", f"__r{_name}__"):
        setattr(Single, _side, _operation(_side))


class SingleArray(np.ndarray):
    """An array whose elements are `Single`."""

    def __getitem__(self, place: Any) -> Any:
        """One element or a part."""
        found = super().__getitem__(place)
        return Single(found) if isinstance(found, np.float32) else found


def heterogeneous(spacing_mm: float) -> VoxelPhantom:
    """Soft tissue, bone, lung and vacuum in 7 x 6 x 5 voxels."""
    grid = VoxelGrid.from_spacing((5, 6, 7), (spacing_mm, 1.2 * spacing_mm, 0.8 * spacing_mm))
    tissue = Material("tissue", 1.0, {"H": 0.1, "C": 0.2, "N": 0.03, "O": 0.67})
    bone = Material("bone", 1.9, {"H": 0.03, "C": 0.16, "N": 0.04, "O": 0.44, "P": 0.1, "Ca": 0.23})
    material = np.indices(grid.shape).sum(axis=0) % 2
    density = np.where(material == 1, 1.9, 1.04).astype(np.float32)
    density[:, :2], density[4] = 0.26, 0.0
    labels = LabelMap(grid, np.ones(grid.shape, np.uint16), (Organ(1, "all"),))
    return VoxelPhantom(grid, material.astype(np.uint8), density, (tissue, bone), labels)


def problems() -> list[Problem]:
    """Photons that score along their tracks, photons and electrons that are followed, alphas that cross faces."""
    photons = [Emission.line("photon", energy_MeV, 1.0) for energy_MeV in (0.05, 6.0)]
    leptons = [Emission.line("electron", 1.5, 1.0), Emission.line("positron", 0.6, 0.2)]
    alphas = [Emission.line("alpha", 6.0, 1.0)]
    cases = (("auto", 8.0, photons), ("analog", 4.0, photons + leptons), ("analog", 0.03, alphas))
    made = []
    for estimator, spacing_mm, emissions in cases:
        phantom = heterogeneous(spacing_mm)
        source = PointSource(tuple(phantom.grid.to_ras((3.1, 2.8, 2.2))))
        made.append(build_problem(phantom, source, emissions, seed=5, estimator=estimator))
    return made


def compare(problem: Problem, group: int) -> dict[str, Any]:
    """The same histories on both."""
    kind = KINDS[problem.groups[group].kind]
    last = HISTORIES[kind]
    cpu, simulated = new_work(problem), Gpu(problem).new_work(1)
    cpu.run(problem, group, 0, last, 0.7, group, 0, 0)
    begun = time.perf_counter()
    simulated.run(problem, group, 0, last, 0.7, group, 0, 0)
    simulated.fetch()
    return {
        "particle": kind,
        "estimator": "auto" if problem.tables.kerma else "analog",
        "histories": int(simulated.counts.sum()),
        "voxels": int((simulated.tallies > 0).sum()),
        "equal": [bool((getattr(cpu, name) == getattr(simulated, name)).all()) for name in ("tallies", "counts", "totals")],
        "seconds": time.perf_counter() - begun,
    }


def compare_engines() -> dict[str, Any]:
    """A whole simulation on both, with pilot, batches and components."""
    phantom = heterogeneous(5.0)
    emissions = [Emission.line("photon", 0.2, 1.0), Emission.line("electron", 0.4, 1.0)]
    results = {}
    for device in ("cpu", "cuda"):
        settings = RunSettings(histories=400, seed=3, device=device, threads=1, components=True)
        results[device] = simulate(phantom, PointSource((0.0, 0.0, 0.0)), emissions, settings)
    cpu, gpu = results["cpu"], results["cuda"]
    pairs = [(cpu.dose, gpu.dose), *((one.dose, other.dose) for one, other in zip(cpu.components, gpu.components, strict=True))]
    names = ("histories_per_emission", "organs", "energy_emitted_MeV", "energy_escaped_MeV", "energy_scored_MeV", "batches")
    return {
        "devices": [cpu.device, gpu.device],
        "equal": [bool((getattr(a, name) == getattr(b, name)).all()) for a, b in pairs for name in ("dose_Gy", "sigma_Gy")]
        + [getattr(cpu, name) == getattr(gpu, name) for name in names],
    }


def refused_for_memory() -> dict[str, Any]:
    """What is said and done when the GPU has a megabyte left."""
    cuda.current_context = lambda: SimpleNamespace(get_memory_info=lambda: SimpleNamespace(free=2**20))
    cuda_device._has_driver = lambda: True
    settings = RunSettings(histories=400, device="auto", threads=1)
    emissions = [Emission.line("photon", 0.2, 1.0)]
    result = simulate(heterogeneous(5.0), PointSource((0.0, 0.0, 0.0)), emissions, settings)
    message = ""
    try:
        Gpu(problems()[2])
    except SynthDoseError as error:
        message = str(error)
    return {"message": message, "device": result.device, "notes": result.notes}


def main() -> None:
    """Compare all tallies, counts and totals."""
    real_copy = cuda.to_device

    def copy_as_numba_sees_it(array: np.ndarray) -> Any:
        assert array.size, "a GPU would refuse an empty array"
        return real_copy(array.view(SingleArray) if array.dtype == np.float32 else array)

    cuda.to_device = copy_as_numba_sees_it
    cuda_kernels.THREADS_PER_BLOCK = 8  # threads of Python take long to start
    warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)  # random numbers wrap around
    groups = [compare(problem, group) for problem in problems() for group in range(len(problem.groups))]
    print(json.dumps({"groups": groups, "engine": compare_engines(), "memory": refused_for_memory()}))


if __name__ == "__main__":
    main()
