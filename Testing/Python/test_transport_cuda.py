"""The engine on NVIDIA GPUs, without one: in numba's CUDA simulator, through NVIDIA's compiler, and the errors."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from SynthDoseLib.core import MissingPackageError, SynthDoseError
from SynthDoseLib.transport import cuda_device

HERE = Path(__file__).parent
needs_numba_cuda = pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
needs_assembler = pytest.mark.skipif(
    not (Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin" / "ptxas").exists(),
    reason="NVIDIA's compiler (pip install nvidia-cuda-nvcc) is not installed",
)


def run_script(name: str, *arguments: str, **environment: str):
    """Run a script of this folder and read what it prints: numba decides when it is imported whether it simulates."""
    process = subprocess.run(
        [sys.executable, str(HERE / name), *arguments], capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def simulated():
    return run_script("cuda_simulated.py", NUMBA_ENABLE_CUDASIM="1")


@needs_numba_cuda
@pytest.mark.slow
def test_every_particle_leaves_the_same_tallies_counts_and_totals_in_the_simulator(simulated):
    found = simulated["groups"]
    assert {group["particle"] for group in found} == {"photon", "electron", "positron", "alpha"}
    assert {group["estimator"] for group in found if group["particle"] == "photon"} == {"auto", "analog"}
    assert [group for group in found if group["equal"] != [True, True, True]] == []
    assert min(group["voxels"] for group in found) > 5


@needs_numba_cuda
@pytest.mark.slow
def test_a_whole_simulation_gives_the_same_result_in_the_simulator(simulated):
    assert simulated["engine"]["devices"] == ["cpu", "cuda: simulator"]
    assert set(simulated["engine"]["equal"]) == {True}


@needs_numba_cuda
@pytest.mark.slow
def test_too_little_memory_is_an_error_that_says_how_much_is_needed_and_free(simulated):
    message = simulated["memory"]["message"]
    assert "has 0.00 GiB of free memory" in message
    assert "needs 0." in message


@needs_numba_cuda
@pytest.mark.slow
def test_auto_goes_back_to_the_cpu_where_the_gpu_is_too_small_and_says_so(simulated):
    assert simulated["memory"]["device"] == "cpu"
    assert any(note.startswith("The CPU was used: The GPU (simulator) has") for note in simulated["memory"]["notes"])


@needs_numba_cuda
@needs_assembler
@pytest.mark.slow
def test_the_kernel_compiles_for_current_cards_and_keeps_its_values_in_registers():
    found = run_script("cuda_compiled.py", "8.6", "9.0")
    for capability in ("8.6", "9.0"):
        assert found[capability]["spilled_bytes"] == 0, found
        assert found[capability]["registers"] <= 255, found
    assert found["atomic additions"] > 0


def test_cuda_without_numba_cuda_is_an_error_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(cuda_device, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"synthdose\[cuda\]"):
        cuda_device.wants_gpu("cuda")
    assert not cuda_device.wants_gpu("auto")


@needs_numba_cuda
def test_cuda_without_a_gpu_is_an_error_and_auto_takes_the_cpu():
    from numba import cuda

    if cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(SynthDoseError, match=r"No NVIDIA GPU can be used: .*nvidia-smi"):
        cuda_device.wants_gpu("cuda")
    assert not cuda_device.wants_gpu("auto")
    assert not cuda_device.wants_gpu("cpu")
