"""Reference cases of ../shared (PenRed) with fewer histories than `make validate` takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from Testing.Benchmarks.point_kernels import compare_photon_kernel
from Testing.Benchmarks.precision import Effort
from Testing.Benchmarks.reference_cases import CASES, REFERENCE, compare_case

pytestmark = [pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared"), pytest.mark.shared]

SHARES = dict.fromkeys(CASES, 0.4) | {"e_6MV_10x10_slabs": 0.15, "d_slabs_gamma_0.5MeV": 0.5}


@pytest.mark.parametrize("name", CASES)
def test_organ_doses_are_those_of_penred(name):
    rows, result = compare_case(name, share=SHARES[name], threads=1)
    for row in rows:
        assert not row.judged or abs(row.ratio - 1) <= max(0.05, 3 * row.sigma), row
    balance = (result.energy_deposited_MeV + result.energy_escaped_MeV) / result.energy_emitted_MeV
    assert balance == pytest.approx(1, abs=1e-6)


def test_a_photon_kernel_in_water_is_that_of_penred():
    for row in compare_photon_kernel("b_photon_kernel_0.14MeV", Effort(0.1, threads=1), voxel_cm=1.0, shell_cm=2.0):
        assert row.passes, row
