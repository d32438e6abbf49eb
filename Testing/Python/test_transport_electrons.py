"""Electron and positron kernels against closed forms: energy balance, moments, cross sections, losses, yields, backscatter."""

from __future__ import annotations

import json
import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numba import njit

sys.path.insert(0, str(Path(__file__).parent))
from electron_runs import block, run

from SynthDoseLib.core import Material
from SynthDoseLib.physics import csda_range, elastic_moments, electrons_per_gram, get_material, stopping_powers
from SynthDoseLib.transport.electrons import nearest_shape, sample_bhabha, sample_loss, sample_moller, transport_electron
from SynthDoseLib.transport.electrons_deflection import SHAPE_POINTS, SHAPE_STEP, sampling_shapes
from SynthDoseLib.transport.electrons_tables import (
    HARD,
    HARD_RISE,
    MU,
    RANGE,
    RATE,
    REST_ENERGY,
    SPREAD,
    STEP,
    TURN,
    build_electron_tables,
)
from SynthDoseLib.transport.geometry import COUNTS, ELECTRON, ENERGY, KIND, PHOTON, POSITRON, STACK_SIZE, TALLY_PER_MEV
from SynthDoseLib.transport.random import seed_history

SHARED = Path(__file__).resolve().parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")

WATER = get_material("water")
ALUMINIUM = Material("aluminium", 2.699, {"Al": 1.0})
TWICE_R0_SQUARED = 2 * math.pi * 2.8179403262e-13**2 * REST_ENERGY  # MeV cm2 per electron


@pytest.fixture(scope="module")
def water_tables():
    return build_electron_tables([WATER], 12.0)


@pytest.mark.parametrize(("kind", "extra"), [(ELECTRON, 0.0), (POSITRON, 2 * REST_ENERGY)])
@pytest.mark.parametrize("energy", [0.003, 0.05, 0.7, 10.0])
def test_energy_is_conserved_in_any_mixture_of_voxels(kind, extra, energy):
    numbers = np.random.default_rng(5)
    shape = (9, 8, 7)
    density = numbers.choice([0.0, 0.001, 0.26, 1.0, 1.9], shape).astype(np.float32)
    material = numbers.integers(0, 3, shape).astype(np.uint8)
    geometry = block(shape, (0.2, 0.15, 0.1), density, material)
    tables = build_electron_tables([WATER, get_material("air"), ALUMINIUM], 12.0)
    deposited, result = run(kind, energy, geometry, tables, position=(0.7, 0.6, 0.45), weight=0.7, histories=500)
    total = deposited.sum() + result[:, 0].sum() + result[:, 1].sum()
    assert total == pytest.approx(500 * 0.7 * (energy + extra), rel=1e-9, abs=500 * 2e-11)


def test_a_full_stack_deposits_what_it_cannot_take():
    geometry = block((3, 3, 3), (0.1, 0.1, 0.1))
    tables = build_electron_tables([WATER], 3.0)
    tally, count = np.zeros(27, np.int64), np.zeros(COUNTS, np.int64)
    state = np.array([3, 5], np.uint64)
    escaped = transport_electron(
        POSITRON, 2.0, 0.15, 0.15, 0.15, 0.0, 0.0, 1.0, 1.0, 1, 1, 1, geometry, tables, tally, np.zeros((0, 12)), count, state,
        np.zeros((1, 9)),
    )  # fmt: skip
    assert tally.sum() / TALLY_PER_MEV + escaped == pytest.approx(2.0 + 2 * REST_ENERGY, rel=1e-9)


def test_twice_the_density_in_voxels_of_half_the_size_gives_the_same_deposits_to_the_bit(water_tables):
    large, _ = run(ELECTRON, 2.0, block((11, 11, 11), (0.25,) * 3), water_tables, position=(1.375,) * 3)
    small, _ = run(ELECTRON, 2.0, block((11, 11, 11), (0.125,) * 3, density=2.0), water_tables, position=(0.6875,) * 3)
    assert np.array_equal(large, small)


def test_a_change_of_index_without_a_change_of_composition_does_not_change_the_dose():
    chess = (np.indices((9, 9, 9)).sum(axis=0) % 2).astype(np.uint8)
    tables = build_electron_tables([WATER, WATER], 3.0)
    doses = []
    for material in (np.zeros_like(chess), chess):
        runs = [
            run(
                ELECTRON,
                1.5,
                block((9, 9, 9), (0.1,) * 3, material=material),
                tables,
                position=(0.45,) * 3,
                histories=8000,
                seed=s,
            )[0]
            for s in range(8)
        ]
        rings = np.abs(np.indices((9, 9, 9)) - 4).max(axis=0).ravel()
        doses.append(np.array([np.bincount(rings, weights=deposited) for deposited in runs]))
    difference = doses[1].mean(axis=0) / doses[0].mean(axis=0) - 1
    error = np.hypot(*(d.std(axis=0, ddof=1) / d.mean(axis=0) / math.sqrt(8) for d in doses))
    assert np.all(np.abs(difference) < 4 * error + 0.003)


@pytest.mark.parametrize(("k1", "ratio"), [(0.02, 2.8), (0.2, 2.6), (0.2, 2.9), (0.5, 2.7)])
def test_deflections_have_the_first_two_moments_of_goudsmit_and_saunderson(k1, ratio):
    k2 = ratio * k1
    mean = 0.5 * -math.expm1(-k1)
    shape = mean * sampling_shapes(np.array([k1]), np.array([k2]))[0]
    t = np.linspace(0, 30, 300_001)
    mu = np.interp(t, SHAPE_STEP * np.arange(SHAPE_POINTS), shape)
    cosine = 1 - 2 * mu
    weight = np.exp(-t)
    assert np.all(np.diff(shape) >= 0)
    assert np.trapezoid(weight * cosine, t) == pytest.approx(math.exp(-k1), rel=1e-4)
    assert np.trapezoid(weight * (1.5 * cosine**2 - 0.5), t) == pytest.approx(math.exp(-k2), rel=0.004)


def test_weak_scattering_has_the_shape_of_a_gaussian():
    # Without large single deflections mu is exponentially distributed, so that mu(t) = t times the mean.
    shape = sampling_shapes(np.array([0.05]), np.array([0.05 * 2.999]))[0]
    t = SHAPE_STEP * np.arange(1, 17)
    np.testing.assert_allclose(shape[1:17], t, rtol=0.12)


@pytest.mark.parametrize("energy", [0.1, 0.1021, 0.1042, 0.1064])  # rows of energies: 0, 1, 2 and 3 above a multiple of 4
def test_the_first_deflection_at_the_highest_energy_has_the_second_moment_of_elsepa(energy):
    tables = build_electron_tables([WATER], energy)
    moments = elastic_moments(WATER, energy), elastic_moments(WATER, energy, positron=True)
    t = np.linspace(0, 30, 30_001)
    for rows, shapes, (first, second) in zip(tables.rows, tables.shapes, moments * 2, strict=True):
        n = rows.shape[0] - 2
        assert nearest_shape(n) < len(shapes)
        mu = rows[n, MU] * np.interp(t, SHAPE_STEP * np.arange(SHAPE_POINTS), shapes[nearest_shape(n)])
        damped = np.trapezoid(np.exp(-t) * (1 - 6 * mu * (1 - mu)), t)
        ratio = math.log(damped) / math.log(1 - 2 * rows[n, MU])
        # soft collisions, a tenth of all scattering, have a ratio of 3; over a step the energy falls by up to 10 %
        assert second / first - 0.02 < ratio < second / first + 0.06


@njit
def share_samples(positron, tau, least, count):
    state = np.zeros(2, np.uint64)
    seed_history(state, np.uint64(3), np.uint64(0), np.uint64(0))
    result = np.empty(count)
    for n in range(count):
        result[n] = sample_bhabha(tau, least, state) if positron else sample_moller(tau, least, state)
    return result


def moller_number(energy, low, high):
    """Integral of Moller's cross section over the share of the energy, without the constant 2 pi r0^2 m / (beta^2 E)."""
    a = (energy / (energy + REST_ENERGY)) ** 2

    def antiderivative(s):
        return -1 / s + 1 / (1 - s) + a * s - (1 - a) * math.log(s / (1 - s))

    return antiderivative(high) - antiderivative(low)


@pytest.mark.parametrize("energy", [0.05, 0.5, 5.0])
def test_moller_secondaries_follow_the_cross_section(energy):
    edges = np.geomspace(0.08, 0.5, 9)
    observed = np.histogram(share_samples(False, energy / REST_ENERGY, 0.08, 200_000), edges)[0]
    expected = np.array([moller_number(energy, *pair) for pair in pairwise(edges)])
    expected *= 200_000 / expected.sum()
    assert observed.sum() == 200_000
    assert ((observed - expected) ** 2 / expected).sum() < 30  # chi squared, 7 degrees of freedom: by chance 1e-4


def test_bhabha_secondaries_follow_the_cross_section():
    energy, least = 1.2, 0.08
    edges = np.geomspace(least, 1.0, 11)
    observed = np.histogram(share_samples(True, energy / REST_ENERGY, least, 200_000), edges)[0]
    gamma = 1 + energy / REST_ENERGY
    beta2 = 1 - 1 / gamma**2
    y = 1 / (gamma + 1)
    s = np.concatenate([np.linspace(low, high, 401) for low, high in pairwise(edges)]).reshape(10, 401)
    # ICRU Report 37, in the share of the energy lost
    density = (1 / beta2 / s - (2 - y**2)) / s + (1 - 2 * y) * (3 + y**2) - s * (
        (1 - 2 * y) ** 2 + (1 - 2 * y) ** 3
    ) + s**2 * (1 - 2 * y) ** 3  # fmt: skip
    expected = np.trapezoid(density, s, axis=1)
    expected *= 200_000 / expected.sum()
    assert ((observed - expected) ** 2 / expected).sum() < 36  # 9 degrees of freedom


def test_collisions_above_the_cut_off_are_as_many_as_moller_says():
    energy = 0.5
    tables = build_electron_tables([WATER], 1.0, photon_cut_MeV=0.9, first_moment=(1e-4,) * 2, energy_share=(1e-3,) * 2)
    place = (math.log(energy) - tables.log_first) * tables.rows_per_log
    hard = np.interp(place, np.arange(tables.rows.shape[1]), tables.rows[0, :, HARD])
    gamma = 1 + energy / REST_ENERGY
    constant = TWICE_R0_SQUARED * electrons_per_gram(WATER) / (1 - 1 / gamma**2) / energy
    assert hard == pytest.approx(constant * moller_number(energy, tables.hard_share, 0.5), rel=1e-3)


@njit
def loss_samples(loss, spread, count):
    state = np.zeros(2, np.uint64)
    seed_history(state, np.uint64(4), np.uint64(0), np.uint64(0))
    result = np.empty(count)
    for n in range(count):
        result[n] = sample_loss(loss, spread, state)
    return result


@pytest.mark.parametrize("spread", [0.1, 0.9, 1.5, 4.0])
def test_soft_losses_have_their_mean_and_variance_and_are_no_gains(spread):
    samples = loss_samples(1.0, spread, 400_000)
    assert samples.min() >= 0
    assert samples.mean() == pytest.approx(1.0, abs=4 * spread / math.sqrt(3 * 400_000))
    assert samples.var() == pytest.approx(spread**2 / 3, rel=0.02)


@pytest.mark.parametrize(("kind", "energy"), [(ELECTRON, 10.0), (ELECTRON, 2.0), (POSITRON, 5.0)])
def test_mean_loss_in_a_foil_is_the_stopping_power_times_its_thickness(water_tables, kind, energy):
    thickness = 0.02
    geometry = block((1, 1, 1), (50.0, 50.0, thickness))
    histories = 100_000
    _, result = run(
        kind,
        energy,
        geometry,
        water_tables,
        position=(25.0, 25.0, 0.0),
        direction=(0, 0, 1),
        histories=histories,
        primaries=True,
    )
    rest = 2 * REST_ENERGY if kind == POSITRON else 0.0
    loss = (energy + rest - result[:, 0])[result[:, 0] > 0]  # a positron that annihilates in the foil does not count
    expected = float(stopping_powers(WATER, energy, positron=kind == POSITRON).total) * thickness
    # Multiple scattering makes the path longer than the foil is thick: by less than 1 % here.
    assert loss.mean() == pytest.approx(expected, rel=0.015, abs=4 * loss.std() / math.sqrt(histories))


@pytest.mark.parametrize("energy_share", [0.001, 0.004])
def test_straggling_in_a_foil_has_the_variance_of_moller_collisions(energy_share):
    # In a foil much thinner than a step only the mean is right: steps are made shorter than it.
    energy, thickness, histories = 10.0, 0.1, 100_000
    tables = build_electron_tables([WATER], 12.0, energy_share=(energy_share,) * 2)
    geometry = block((1, 1, 1), (50.0, 50.0, thickness))
    _, result = run(
        ELECTRON, energy, geometry, tables, position=(25.0, 25.0, 0.0), direction=(0, 0, 1), histories=histories, primaries=True
    )
    # Single collisions above 2 MeV and hard photons are left out: few, and they would make all of the variance.
    largest = 2.0
    loss = energy - result[:, 0]
    kept = (result[:, 1] == 0) & (result[:, 4] < largest)
    share = np.geomspace(1e-7, largest / energy, 20_001)
    a = (energy / (energy + REST_ENERGY)) ** 2
    rest = share / (1 - share)
    spectrum = TWICE_R0_SQUARED * electrons_per_gram(WATER) * (1 + rest**2 - rest + a * (share**2 + rest))  # times W^2
    bohr = np.trapezoid(spectrum, share * energy) * thickness
    squares = (loss[kept] - loss[kept].mean()) ** 2
    assert squares.mean() == pytest.approx(bohr, rel=0.03, abs=4 * squares.std() / math.sqrt(histories))


@pytest.mark.parametrize(("symbol", "excitation_eV"), [("H", 19.2), ("He", 41.8)])
@pytest.mark.parametrize("energy", [0.03, 0.05, 0.3])
def test_bound_electrons_widen_the_soft_losses(symbol, excitation_eV, energy):
    # One shell, one resonance R. Bethe: distant collisions add R^2 times their number, R (ln(2 m v^2 gamma^2 / R) - beta^2),
    # and close ones begin at R. Distant ones are 1 to 14 % of the sum here.
    gas = Material(symbol, 1e-4, {symbol: 1.0}, mean_excitation_eV=excitation_eV)
    tables = build_electron_tables([gas], 0.5, energy_share=(0.001,) * 2, hard_share=0.1)
    place = (math.log(energy) - tables.log_first) * tables.rows_per_log
    rows = tables.rows[0]
    per_path = np.interp(place, np.arange(rows.shape[0]), rows[:, SPREAD] ** 2 / 3 / rows[:, STEP])
    cut, resonance = 0.1 * energy, 1e-6 * excitation_eV
    gamma = 1 + energy / REST_ENERGY
    beta2 = 1 - 1 / gamma**2
    share = np.geomspace(resonance, cut, 4001) / energy
    rest, a = share / (1 - share), ((gamma - 1) / gamma) ** 2
    close = np.trapezoid(1 + rest**2 - rest + a * (share**2 + rest), share * energy)
    distant = resonance * (math.log(2 * REST_ENERGY * beta2 * gamma**2 / resonance) - beta2)
    expected = TWICE_R0_SQUARED * electrons_per_gram(gas) / beta2 * (close + distant)
    assert per_path == pytest.approx(expected, rel=4e-3)


@pytest.mark.parametrize("energy", [5.0, 12.0])
def test_mean_depth_of_the_energy_is_that_of_lewis(energy):
    # Without hard events and straggling: after a path s the mean depth is the integral of exp(-K1), however long
    # the steps are (12 % of the energy; the deflection of a step trebles between 12 and 2 MeV).
    tables = build_electron_tables([WATER], 12.0)
    rows = tables.rows.copy()
    rows[:, :, [SPREAD, HARD, HARD_RISE]] = 0.0
    slices, thickness, histories = 200, 0.1 * energy / 12, 60_000
    geometry = block((2 * slices, 1, 1), (1e3, 1e3, thickness))
    deposited, _ = run(
        ELECTRON, energy, geometry, tables._replace(rows=rows), position=(500.0, 500.0, slices * thickness),
        direction=(0, 0, 1), histories=histories,
    )  # fmt: skip
    depth = (np.arange(2 * slices) + 0.5 - slices) * thickness
    found = (deposited @ depth) / deposited.sum()
    grid = np.linspace(energy, 2e-3, 20_001)
    place = (np.log(grid) - tables.log_first) * tables.rows_per_log
    k1_step, turn, power = (
        np.interp(place, np.arange(rows.shape[1]), column)
        for column in (-np.log1p(-2 * rows[0, :, MU]), rows[0, :, TURN], rows[0, :, RATE])
    )
    path_step = -np.diff(grid) / (0.5 * (power[1:] + power[:-1]))
    strength = np.concatenate(([0.0], np.cumsum((turn * k1_step)[:-1] * path_step)))
    mean_depth = np.concatenate(([0.0], np.cumsum(np.exp(-strength[:-1]) * path_step)))
    assert found == pytest.approx(np.trapezoid(mean_depth, -grid) / energy, rel=0.0025)


def test_the_range_column_is_the_csda_range(water_tables):
    energies = np.array([0.01, 0.1, 1.0, 10.0])
    place = (np.log(energies) - water_tables.log_first) * water_tables.rows_per_log
    column = np.interp(place, np.arange(water_tables.rows.shape[1]), water_tables.rows[0, :, RANGE])
    np.testing.assert_allclose(column, csda_range(WATER, energies), rtol=2e-3)


@pytest.mark.parametrize("energy", [1.0, 6.0])
@pytest.mark.parametrize("size_cm", [0.05, 50.0])
def test_stopped_electrons_radiate_their_yield_however_they_stop(water_tables, energy, size_cm):
    # In large voxels electrons are deposited where they start, with the photons of their remaining range.
    histories = 40_000
    geometry = block((161, 161, 161), (size_cm,) * 3)
    _, result = run(ELECTRON, energy, geometry, water_tables, position=(80.5 * size_cm,) * 3, histories=histories)
    grid = np.geomspace(1e-3, energy, 400)
    powers = stopping_powers(WATER, grid)
    radiated = np.trapezoid(powers.radiative / powers.total, grid)
    radiated -= np.trapezoid(np.minimum(water_tables.photon_cut / grid, 1) * powers.radiative / powers.total, grid)
    photons = result[:, 1]
    assert photons.mean() == pytest.approx(radiated, rel=0.05, abs=4 * photons.std() / math.sqrt(histories))


@pytest.mark.parametrize(("energy", "least", "most"), [(0.1, 0.11, 0.15), (1.0, 0.075, 0.11)])
def test_backscatter_of_aluminium_is_plausible(energy, least, most):
    # Normal incidence, thick target, share of electrons: what is measured scatters over this interval.
    tables = build_electron_tables([ALUMINIUM], 1.1)
    thickness = 1.2 * float(csda_range(ALUMINIUM, energy))
    geometry = block((60, 1, 1), (1e3, 1e3, thickness / 60))
    _, result = run(
        ELECTRON, energy, geometry, tables, position=(500, 500, 0), direction=(0, 0, 1), histories=20_000, primaries=True
    )
    assert least < (result[:, 0] > 0).mean() < most


def test_a_positron_ends_in_two_quanta_back_to_back(water_tables):
    geometry = block((5, 5, 5), (0.3,) * 3)
    stack, count = np.zeros((STACK_SIZE, 12)), np.zeros(COUNTS, np.int64)
    state = np.array([11, 13], np.uint64)
    transport_electron(
        POSITRON,
        0.005,
        0.7,
        0.7,
        0.7,
        0.0,
        0.0,
        1.0,
        1.0,
        2,
        2,
        2,
        geometry,
        water_tables,
        np.zeros(125, np.int64),
        stack,
        count,
        state,
        np.zeros((1, 9)),
    )
    assert count[0] == 2
    np.testing.assert_array_equal(stack[:2, KIND], PHOTON)
    np.testing.assert_array_equal(stack[:2, ENERGY], REST_ENERGY)
    np.testing.assert_allclose(stack[0, 5:8], -stack[1, 5:8])


PENRED_WATER_EV = 68.999
"""Mean excitation energy that PenRed's material file has for H 0.111894, O 0.888106 (from those of the gases; ICRU: 75)."""


@needs_shared
@pytest.mark.shared
def test_dose_around_a_point_source_is_that_of_penred_with_its_mean_excitation_energy():
    folder = SHARED / "reference" / "cases" / "a_electron_1MeV_voxels"
    image = SimpleITK.ReadImage(str(folder / "organs.nrrd"))
    labels = SimpleITK.GetArrayFromImage(image).ravel()
    water = Material("water", 1.0, {"H": 0.111894, "O": 0.888106})
    tables = build_electron_tables([water], 1.0, mean_excitation_eV=[PENRED_WATER_EV])
    size = image.GetSpacing()[0] / 10
    geometry = block(image.GetSize()[::-1], (size,) * 3)
    batches, histories = 10, 5000
    rings = np.array(
        [
            np.bincount(
                labels, run(ELECTRON, 1.0, geometry, tables, position=(25.5 * size,) * 3, histories=histories, seed=n)[0]
            )
            for n in range(batches)
        ]
    )
    for ring in json.loads((folder / "expected.json").read_text())["quantities"]:
        own = rings[:, ring["label"]] / histories * 1.602176634e-13 / (ring["mass_g"] * 1e-3)
        error = math.hypot(own.std(ddof=1) / math.sqrt(batches), ring["sigma_Gy"])
        assert abs(own.mean() - ring["dose_Gy"]) < max(ring["tolerance"] * ring["dose_Gy"], 3 * error), ring["organ"]


@needs_shared
@pytest.mark.shared
def test_voxel_s_values_of_y90_are_those_of_penred():
    reference = np.load(SHARED / "reference" / "c_Svalue_3mm_Y-90_beta.npz")
    tissue = Material("soft tissue", 1.0, {"H": 0.101172, "C": 0.111, "N": 0.026, "O": 0.761828})
    edges = reference["spec_edges_eV"] * 1e-6
    voxels, batches, lines = 15, 10, 200
    tables = build_electron_tables([tissue], edges[-1])
    quantiles = np.interp((np.arange(lines) + 0.5) / lines, np.concatenate(([0.0], np.cumsum(reference["spec_prob"]))), edges)
    numbers = np.random.default_rng(7)
    geometry = block((voxels,) * 3, (0.3,) * 3)
    doses = np.zeros((batches, voxels**3))
    for batch in range(batches):
        for energy in quantiles:
            for _ in range(3):
                position = (voxels // 2 + numbers.random(3)) * 0.3
                doses[batch] += run(
                    ELECTRON, energy, geometry, tables, position=position, histories=20, seed=int(numbers.integers(2**31))
                )[0]
    doses *= 1.602176634e-13 / 0.027e-3 * 1e9 / (lines * 60)  # mGy per MBq s
    offset = np.sort(np.abs(np.indices((voxels,) * 3).reshape(3, -1) - voxels // 2), axis=0)[::-1]
    for key, tolerance in (((0, 0, 0), 0.01), ((1, 0, 0), 0.02), ((1, 1, 0), 0.02), ((1, 1, 1), 0.03), ((2, 0, 0), 0.04)):
        own = doses[:, np.all(np.array(key) == offset.T, axis=1)].mean(axis=1)
        value, error = own.mean(), math.hypot(own.std(ddof=1) / math.sqrt(batches), reference["sigma"][key])
        assert abs(value - reference["S"][key]) < max(tolerance * reference["S"][key], 3 * error), key
