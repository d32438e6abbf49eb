"""Compiles the CUDA kernel for graphics cards that are not there and prints the assembler's reports as JSON.

    python Testing/Python/cuda_compiled.py 8.6 9.0

numba-cuda asks the driver what to compile for; it is told here. Code is generated once, for the first compute capability, and
assembled for all.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numba.cuda.cuda_paths
import numba.cuda.cudadrv.nvrtc
import numba.cuda.dispatcher
import numpy as np
from numba import cuda, typeof

from SynthDoseLib.core import Emission, LabelMap, Material, Organ, VoxelGrid, VoxelPhantom
from SynthDoseLib.transport import PointSource, cuda_kernels
from SynthDoseLib.transport.problem import build_problem, new_work

ASSEMBLER = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin" / "ptxas"


def portable_code(capability: tuple[int, int]) -> str:
    """PTX of the kernel."""
    numba.cuda.dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    numba.cuda.cudadrv.nvrtc.get_supported_ccs = lambda: [capability]
    numba.cuda.cuda_paths._get_nvrtc_path = lambda: None  # compiles CUDA C, of which there is none
    grid = VoxelGrid.from_spacing((2, 2, 2), (3.0, 3.0, 3.0))
    water = Material("water", 1.0, {"H": 0.111894, "O": 0.888106})
    labels = LabelMap(grid, np.ones(grid.shape, np.uint16), (Organ(1, "all"),))
    phantom = VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), np.ones(grid.shape, np.float32), (water,), labels)
    source = PointSource((0.0, 0.0, 0.0))
    problem = build_problem(phantom, source, [Emission.line("photon", 0.3, 1.0)], seed=1, estimator="auto")
    work = new_work(problem)
    seed = np.uint64(1)
    arguments = (
        0, 1, seed, seed, seed, 0, 1.0, problem.groups[0].spectrum, problem.tables, work.tallies[0], work.counts, work.totals,
    )  # fmt: skip
    kernel = cuda_kernels.run_on_device
    bounds = kernel.targetoptions["launch_bounds"]
    signature = tuple(typeof(argument) for argument in arguments)
    code, _ = cuda.compile(kernel.py_func, signature, device=False, cc=capability, abi="numba", launch_bounds=bounds)
    return str(code)


def main() -> None:
    """Assemble for every compute capability that is named."""
    capabilities = [tuple(int(part) for part in name.split(".")) for name in sys.argv[1:]]
    code = portable_code(capabilities[0])
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(code, encoding="ascii")
        for major, minor in capabilities:
            command = [str(ASSEMBLER), "-v", f"-arch=sm_{major}{minor}", str(source), "-o", str(Path(folder) / "kernel.cubin")]
            report = subprocess.run(command, capture_output=True, text=True, check=True)
            numbers = re.search(
                r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\D*?Used (\d+) registers",
                report.stderr,
            )
            assert numbers, report.stderr
            frame, stores, loads, registers = map(int, numbers.groups())
            found[f"{major}.{minor}"] = {"registers": registers, "spilled_bytes": stores + loads, "stack_bytes": frame}
    found["atomic additions"] = len(re.findall(r"\b(?:atom|red)\.\S*add\.u64", code))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
