"""Photon kernels against closed forms: attenuation, Klein-Nishina, moments of the samplers, conservation of energy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

import SynthDoseLib.transport  # noqa: F401  (sets the folder of compiled kernels before the first one is defined)
from SynthDoseLib.core import LabelMap, Material, VoxelGrid, VoxelPhantom
from SynthDoseLib.physics import (
    absorption_edges,
    atomic_shells,
    form_factor,
    get_material,
    incoherent_scattering_function,
    photon_cross_sections,
)
from SynthDoseLib.transport.electrons_tables import build_electron_tables
from SynthDoseLib.transport.geometry import COUNTS, ELECTRON, ENERGY, KIND, STACK_SIZE, TALLY_PER_MEV, build_geometry
from SynthDoseLib.transport.photon_collisions import (
    sample_compton,
    sample_pair_share,
    sample_photoelectron,
    sample_rayleigh,
)
from SynthDoseLib.transport.photon_flights import energy_row, fly
from SynthDoseLib.transport.photons import score_flight, transport_photon
from SynthDoseLib.transport.random import next_uniform, seed_history
from SynthDoseLib.transport.tables import PER_ANGSTROM, REST_ENERGY, build_photon_tables
from SynthDoseLib.transport.tracks import PLACES

WATER = get_material("water")
TABLES = build_photon_tables((WATER,), 20.0)
ELECTRONS = build_electron_tables((WATER,), 19.99)
SAMPLES = 200_000


def water_cube(voxels: int, spacing_mm: float, density: float = 1.0) -> VoxelPhantom:
    grid = VoxelGrid.from_spacing((voxels, voxels, voxels), (spacing_mm,) * 3)
    nothing = LabelMap(grid, np.zeros(grid.shape, np.uint16), ())
    return VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), np.full(grid.shape, density, np.float32), (WATER,), nothing)


@njit
def compton_samples(energy, count, photons):
    state = np.zeros(2, np.uint64)
    seed_history(state, np.uint64(1), np.uint64(0), np.uint64(0))
    result = np.empty((count, 2))
    for n in range(count):
        result[n] = sample_compton(energy, 0, photons.incoherent, state)
    return result


@njit
def rayleigh_samples(energy, count, photons):
    state = np.zeros(2, np.uint64)
    seed_history(state, np.uint64(2), np.uint64(0), np.uint64(0))
    result = np.empty(count)
    for n in range(count):
        result[n] = sample_rayleigh(energy, 0, photons.form_x2, photons.form_sum, state)
    return result


@njit
def photoelectron_samples(energy, count):
    state = np.zeros(2, np.uint64)
    seed_history(state, np.uint64(3), np.uint64(0), np.uint64(0))
    result = np.empty(count)
    for n in range(count):
        result[n] = sample_photoelectron(energy, state)
    return result


@njit
def pair_samples(energy, count, photons):
    state = np.zeros(2, np.uint64)
    seed_history(state, np.uint64(4), np.uint64(0), np.uint64(0))
    result = np.empty(count)
    for n in range(count):
        result[n] = sample_pair_share(energy, photons.pair_screening[0], photons.pair_log[0], state)
    return result


@njit
def flights(energy, count, geometry, photons):
    """Fly photons along k from the middle of the first slice; return the depths where they ended, -1 for those that left."""
    state = np.zeros(2, np.uint64)
    depth = np.full(count, -1.0)
    row, fraction = energy_row(energy, photons)
    x, y = geometry.ni * geometry.dx / 2, geometry.nj * geometry.dy / 2
    for n in range(count):
        seed_history(state, np.uint64(5), np.uint64(0), np.uint64(n))
        paths = -math.log(next_uniform(state))
        inside, _, _, z, _, _, k = fly(
            x, y, 0.0, 0.0, 0.0, 1.0, int(x / geometry.dx), int(y / geometry.dy), 0, paths, row, fraction, geometry, photons
        )
        if inside:
            depth[n] = z if k == int(z / geometry.dz) else math.nan
    return depth


@njit
def scored_flights(energy, count, geometry, photons, electrons, voxel_class, tally, stack, waiting):
    """As `flights`, with scores on the way; return the energy that was scored or given to electrons."""
    state = np.zeros(2, np.uint64)
    row, fraction = energy_row(energy, photons)
    x, y = geometry.ni * geometry.dx / 2, geometry.nj * geometry.dy / 2
    total, places = 0.0, np.zeros((PLACES, 4))
    for n in range(count):
        seed_history(state, np.uint64(5), np.uint64(0), np.uint64(n))
        paths = -math.log(next_uniform(state))
        total += score_flight(
            energy, x, y, 0.0, 0.0, 0.0, 1.0, int(x / geometry.dx), int(y / geometry.dy), 0, paths, 1.0, row, fraction,
            geometry, photons, electrons, voxel_class, places, tally, stack, waiting, state,
        )[7]  # fmt: skip
        waiting[:] = 0
    return total


@njit
def histories(energy, count, geometry, photons, electrons, voxel_class, kerma, tally, stack, waiting):
    """Photons from the middle of the cube; return what left, and the energy of all that was put on the stack."""
    state = np.zeros(2, np.uint64)
    middle = geometry.ni // 2
    place = (middle + 0.5) * geometry.dx
    left = 0.0
    pushed = 0.0
    places = np.zeros((PLACES, 4))
    for n in range(count):
        seed_history(state, np.uint64(6), np.uint64(0), np.uint64(n))
        cosine = 2.0 * next_uniform(state) - 1.0
        sine = math.sqrt(1.0 - cosine * cosine)
        azimuth = 2.0 * math.pi * next_uniform(state)
        gone, _ = transport_photon(
            energy, place, place, place, sine * math.cos(azimuth), sine * math.sin(azimuth), cosine, 1.0,
            middle, middle, middle, geometry, photons, electrons, voxel_class, kerma, places, tally, stack, waiting, 0.0,
            state,
        )  # fmt: skip
        left += gone
        while waiting[0] > 0:
            waiting[0] -= 1
            pushed += stack[waiting[0], ENERGY]
            if stack[waiting[0], KIND] > ELECTRON:
                pushed += 2.0 * 0.51099895
    return left, pushed


def klein_nishina(energy_MeV: float, material: Material) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines, scattered share and relative weights of Compton scattering with binding, on a fine grid."""
    cosine = (np.arange(200_000) + 0.5) / 100_000 - 1
    ratio = 1 / (1 + energy_MeV / REST_ENERGY * (1 - cosine))
    x = PER_ANGSTROM * energy_MeV * np.sqrt((1 - cosine) / 2)
    weight = ratio**2 * (ratio + 1 / ratio - 1 + cosine**2) * incoherent_scattering_function(material, x)
    return cosine, ratio, weight / weight.sum()


@pytest.mark.parametrize("energy_MeV", [0.01, 0.03, 0.14, 0.662, 6.0])
def test_compton_scattering_has_the_moments_of_klein_and_nishina_with_binding(energy_MeV):
    drawn = compton_samples(energy_MeV, SAMPLES, TABLES)
    cosine, ratio, weight = klein_nishina(energy_MeV, WATER)
    for values, exact in ((drawn[:, 0], ratio), (drawn[:, 1], cosine), (drawn[:, 1] ** 2, cosine**2)):
        mean = weight @ exact
        sigma = math.sqrt((weight @ exact**2 - mean**2) / SAMPLES)
        assert abs(values.mean() - mean) < 4 * sigma + 2e-4 * abs(mean)  # the table of S is linear between 512 points


def test_energy_and_angle_of_a_scattered_photon_belong_together():
    ratio, cosine = compton_samples(0.3, 1000, TABLES).T
    np.testing.assert_allclose(ratio, 1 / (1 + 0.3 / REST_ENERGY * (1 - cosine)), rtol=1e-10)


@pytest.mark.parametrize("energy_MeV", [0.005, 0.03, 0.14])
def test_rayleigh_scattering_follows_the_form_factor(energy_MeV):
    drawn = rayleigh_samples(energy_MeV, SAMPLES, TABLES)
    cosine = (np.arange(400_000) + 0.5) / 200_000 - 1
    x = PER_ANGSTROM * energy_MeV * np.sqrt((1 - cosine) / 2)
    weight = (1 + cosine**2) * form_factor(WATER, x) ** 2
    weight /= weight.sum()
    for power in (1, 2):
        mean = weight @ cosine**power
        sigma = math.sqrt((weight @ cosine ** (2 * power) - mean**2) / SAMPLES)
        assert abs((drawn**power).mean() - mean) < 4 * sigma + 5e-4


@pytest.mark.parametrize("energy_MeV", [0.01, 0.1, 1.0])
def test_photoelectrons_follow_sauter(energy_MeV):
    drawn = photoelectron_samples(energy_MeV, SAMPLES)
    gamma = 1 + energy_MeV / REST_ENERGY
    beta = math.sqrt(1 - 1 / gamma**2)
    cosine = (np.arange(400_000) + 0.5) / 200_000 - 1
    weight = (1 - cosine**2) / (1 - beta * cosine) ** 4 * (1 + 0.5 * gamma * (gamma - 1) * (gamma - 2) * (1 - beta * cosine))
    weight /= weight.sum()
    mean = weight @ cosine
    sigma = math.sqrt((weight @ cosine**2 - mean**2) / SAMPLES)
    assert abs(drawn.mean() - mean) < 4 * sigma


@pytest.mark.parametrize("energy_MeV", [1.5, 3.0, 10.0, 20.0])
def test_a_pair_shares_its_energy_without_preference(energy_MeV):
    share = pair_samples(energy_MeV, SAMPLES, TABLES)
    least = REST_ENERGY / energy_MeV
    assert least <= share.min()
    assert share.max() <= 1 - least
    assert abs(share.mean() - 0.5) < 4 * share.std() / math.sqrt(SAMPLES)


@pytest.mark.parametrize("wide_mm", [300.0, 2_000.0, 40_000.0])
def test_a_flight_along_an_axis_is_attenuated_alike_however_wide_the_grid_is(wide_mm):
    # a beam onto a patient of two metres, or onto wide slabs: the faces beside it are never reached
    grid = VoxelGrid.from_spacing((20, 1, 3), (wide_mm / 3, wide_mm, 5.0))
    nothing = LabelMap(grid, np.zeros(grid.shape, np.uint16), ())
    slabs = VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), np.ones(grid.shape, np.float32), (WATER,), nothing)
    depth = flights(0.1, 20_000, build_geometry(slabs), TABLES)
    inside = 1 - math.exp(-10.0 * float(photon_cross_sections(WATER, 0.1).total))
    assert (depth >= 0).mean() == pytest.approx(inside, abs=4 * math.sqrt(inside * (1 - inside) / 20_000))


def test_uncollided_photons_follow_beer_lambert_through_a_denser_medium():
    energy_MeV, density = 0.5, 1.7
    phantom = water_cube(21, 5.0, density)
    geometry = build_geometry(phantom)
    count = 100_000
    depth = flights(energy_MeV, count, geometry, TABLES)
    mu = density * float(photon_cross_sections(WATER, energy_MeV).total)
    expected = math.exp(-mu * 10.5)
    assert abs((depth < 0).mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / count)
    assert np.isfinite(depth).all()  # the voxel counted belongs to the position
    near = (depth >= 0) & (depth < 3.0)
    expected = 1 - math.exp(-mu * 3.0)
    assert abs(near.mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / count)


@pytest.mark.parametrize("energy_MeV", [0.03, 0.14, 1.0, 8.0])
@pytest.mark.parametrize("voxel_class", [254, 0])
def test_what_is_scored_on_the_way_is_the_energy_transfer_of_first_collisions(energy_MeV, voxel_class):
    # in class 254 all electrons are local and tracks are scored; in class 0 none is, and electrons are set free on the way
    phantom = water_cube(21, 5.0)
    tally = np.zeros(phantom.grid.size, np.int64)
    count = 100_000
    scored = scored_flights(
        energy_MeV, count, build_geometry(phantom), TABLES, ELECTRONS, np.full(phantom.grid.size, voxel_class, np.uint8), tally,
        np.zeros((STACK_SIZE, 12)), np.zeros(COUNTS, np.int64),
    )  # fmt: skip
    sections = photon_cross_sections(WATER, energy_MeV)
    _, ratio, weight = klein_nishina(energy_MeV, WATER)
    pairs = float(sections.pair + sections.triplet)
    # pairs that are set free on the way come with their rest energy; those of collisions that are drawn later do not yet
    later = energy_MeV > 2
    of_pair = energy_MeV - (2 * REST_ENERGY if voxel_class or later else 0.0)
    transfer = energy_MeV * float(sections.photoelectric + sections.compton * (1 - weight @ ratio)) + pairs * of_pair
    mu = float(sections.total)
    crossed = 1 - math.exp(-mu * 10.5)
    # a track ends with the exponential distribution cut at the far side: relative spread below 0.9 of the mean; the
    # electrons on it all bring the same energy; independent ones of the whole energy would spread more than they do
    spread = 0.9 + (0.0 if voxel_class else math.sqrt(energy_MeV * mu / transfer / crossed))
    assert abs(scored / count / (transfer * crossed / mu) - 1) < 4 * spread / math.sqrt(count)
    if voxel_class:
        assert tally.sum() / TALLY_PER_MEV == pytest.approx(scored, rel=1e-6)


@pytest.mark.parametrize("energy_MeV", [0.03, 0.5, 5.0])
def test_analog_photons_conserve_energy(energy_MeV):
    phantom = water_cube(11, 20.0)
    tally = np.zeros(phantom.grid.size, np.int64)
    count = 5000
    left, pushed = histories(
        energy_MeV, count, build_geometry(phantom), TABLES, ELECTRONS, np.zeros(1, np.uint8), False, tally,
        np.zeros((STACK_SIZE, 12)), np.zeros(COUNTS, np.int64),
    )  # fmt: skip
    found = (left + pushed + tally.sum() / TALLY_PER_MEV) / (count * energy_MeV)
    assert found == pytest.approx(1, abs=1e-7)


def test_fluorescence_of_iodine_takes_its_share_of_the_photoelectric_effect():
    iodine = Material("iodine", 4.93, {"I": 1.0})
    tables = build_photon_tables((iodine,), 1.0)
    row, _ = energy_row(0.040, tables)
    # K shell: jump 5.8, yield 0.88 (Hubbell et al. 1994): 0.83 * 0.88 = 0.73 of all events, above L lines of about 4 keV
    assert tables.line_probability[:, row].sum() == pytest.approx(0.73, abs=0.03)
    row, _ = energy_row(0.030, tables)
    assert tables.line_probability[:, row].sum() < 0.01  # below the K edge only L lines above 5 keV are left


@pytest.mark.parametrize("name", ["lung", "cortical bone", "Ti", "Pb"])
@pytest.mark.parametrize("energy_MeV", [0.06, 0.364, 6.0])
def test_uncollided_photons_follow_beer_lambert_in_every_material(name, energy_MeV):
    material = get_material(name)
    tables = build_photon_tables((material,), 20.0)
    coefficient = float(photon_cross_sections(material, energy_MeV).total)
    density = 1.5 / coefficient / 10.5  # one and a half mean free paths from the middle of the first slice to the far side
    count = 100_000
    depth = flights(energy_MeV, count, build_geometry(water_cube(21, 5.0, density)), tables)
    expected = math.exp(-1.5)
    assert abs((depth < 0).mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / count) + 1e-3 * expected


@pytest.mark.parametrize(
    ("number", "fluorescence_yield", "uncertainty", "k_alpha_1_keV"),
    # yields and their uncertainties: M. O. Krause, J. Phys. Chem. Ref. Data 8 (1979) 307; energies: J. A. Bearden, Rev. Mod.
    # Phys. 39 (1967) 78
    [
        (20, 0.163, 0.05, 3.69168), (22, 0.214, 0.05, 4.51084), (53, 0.884, 0.02, 28.6120), (74, 0.958, 0.01, 59.31824),
        (82, 0.963, 0.01, 74.9694),
    ],
)  # fmt: skip
def test_k_fluorescence_has_its_published_yield_and_energy(number, fluorescence_yield, uncertainty, k_alpha_1_keV):
    shell = next(shell for shell in atomic_shells(number) if shell.edge_MeV == pytest.approx(absorption_edges(number)["K"]))
    assert shell.fluorescence_yield == pytest.approx(fluorescence_yield, rel=2 * uncertainty)
    strongest = max(shell.lines, key=lambda line: line.probability)
    assert 1000 * strongest.energy_MeV == pytest.approx(k_alpha_1_keV, rel=2e-3)
