"""Annihilation in flight against Heitler's formulas, conservation laws and the number that slowing down gives."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numba import njit
from scipy.integrate import quad

sys.path.insert(0, str(Path(__file__).parent))
from electron_runs import block, run

from SynthDoseLib.physics import electrons_per_gram, get_material, stopping_powers
from SynthDoseLib.transport.annihilation import REST_ENERGY, annihilate, annihilation_cross_section, sample_quantum
from SynthDoseLib.transport.electrons_tables import build_electron_tables
from SynthDoseLib.transport.geometry import ENERGY, POSITRON, STACK_SIZE, U, V, W
from SynthDoseLib.transport.random import seed_history

WATER = get_material("water")
RADIUS_CM = 2.8179403262e-13


def differential(zeta, gamma):
    """dsigma/dzeta of one quantum's share, cm2 (zeta from its least value to 1/2)."""

    def part(share):
        return -((gamma + 1) ** 2) + (gamma**2 + 4 * gamma + 1) / share - 1 / share**2

    return math.pi * RADIUS_CM**2 / ((gamma + 1) * (gamma**2 - 1)) * (part(zeta) + part(1 - zeta))


@pytest.mark.parametrize("energy", [0.05, 0.633, 6.0, 20.0])
def test_the_total_cross_section_is_the_integral_of_the_differential_one(energy):
    gamma = 1 + energy / REST_ENERGY
    least = 1 / (gamma + 1 + math.sqrt(gamma**2 - 1))
    expected = quad(differential, least, 0.5, args=(gamma,), epsabs=0, epsrel=1e-9)[0]
    assert annihilation_cross_section(np.array([energy]))[0] == pytest.approx(expected, rel=1e-7)


def test_the_cross_section_has_the_limits_of_slow_and_fast_positrons():
    slow, fast = 1e-5, 5e4
    beta = math.sqrt(slow * (slow + 2 * REST_ENERGY)) / (slow + REST_ENERGY)
    gamma = 1 + fast / REST_ENERGY
    found = annihilation_cross_section(np.array([slow, fast])) / (math.pi * RADIUS_CM**2)
    assert found[0] == pytest.approx(1 / beta, rel=2e-3)
    assert found[1] == pytest.approx((math.log(2 * gamma) - 1) / gamma, rel=1e-3)


@njit
def quanta(gamma, count):
    state = np.zeros(2, np.uint64)
    seed_history(state, np.uint64(8), np.uint64(0), np.uint64(0))
    result = np.empty(count)
    for n in range(count):
        result[n] = sample_quantum(gamma, state)
    return result


@pytest.mark.parametrize("energy", [0.1, 0.633, 8.0])
def test_quanta_share_the_energy_as_heitler_says(energy):
    gamma = 1 + energy / REST_ENERGY
    least = 1 / (gamma + 1 + math.sqrt(gamma**2 - 1))
    share = quanta(gamma, 200_000)
    share = np.minimum(share, 1 - share)
    edges = np.linspace(least, 0.5, 13)
    observed = np.histogram(share, edges)[0]
    expected = np.array([quad(differential, low, high, args=(gamma,))[0] for low, high in pairwise(edges)])
    expected *= share.size / expected.sum()
    assert observed.sum() == share.size
    assert ((observed - expected) ** 2 / expected).sum() < 33  # chi squared, 11 degrees of freedom: by chance 5e-4


@pytest.mark.parametrize("energy", [0.0, 0.002, 0.5, 12.0])
def test_two_quanta_carry_energy_and_momentum(energy):
    stack, count, state = np.zeros((STACK_SIZE, 12)), np.zeros(1, np.int64), np.array([3, 4], np.uint64)
    direction = np.array([0.36, 0.48, 0.8])
    for _ in range(50):
        count[0] = 0
        annihilate(energy, 0.5, 0.5, 0.5, *direction, 1.0, 0, 0, 0, 0, np.zeros(1, np.int64), stack, count, state)
        momentum = stack[:2, ENERGY] @ stack[:2][:, [U, V, W]]
        assert stack[:2, ENERGY].sum() == pytest.approx(energy + 2 * REST_ENERGY, rel=1e-12)
        np.testing.assert_allclose(momentum, math.sqrt(energy * (energy + 2 * REST_ENERGY)) * direction, atol=1e-8)


@pytest.mark.parametrize("size_cm", [0.05, 50.0])
@pytest.mark.parametrize("energy", [0.633, 6.0])
def test_as_many_annihilate_in_flight_as_their_slowing_down_gives(energy, size_cm):
    # In large voxels positrons are deposited where they start, and annihilate on the range that is left.
    tables = build_electron_tables([WATER], 7.0, photon_cut_MeV=6.9)  # no bremsstrahlung photons, but its losses
    histories = 20_000
    geometry = block((161, 161, 161), (size_cm,) * 3)
    _, result = run(POSITRON, energy, geometry, tables, position=(80.5 * size_cm,) * 3, histories=histories, primaries=True)
    grid = np.geomspace(1e-3, energy, 2000)
    rate = electrons_per_gram(WATER) * annihilation_cross_section(grid) / stopping_powers(WATER, grid, positron=True).total
    in_flight = -math.expm1(-np.trapezoid(rate, grid))
    flown = result[:, 1] > 2 * REST_ENERGY + 0.003
    assert np.all(result[:, 2] == 2)
    assert flown.mean() == pytest.approx(in_flight, abs=4 * math.sqrt(in_flight / histories) + 0.003 * in_flight)
