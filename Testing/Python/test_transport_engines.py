"""Local deposition and kernel convolution: closed forms, and the Monte Carlo where all three have to agree."""

from __future__ import annotations

import numpy as np
import pytest

from SynthDoseLib.core import Emission, LabelMap, Material, SynthDoseError, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.physics import get_material
from SynthDoseLib.transport import (
    LUNG_SOFT_BONE,
    KernelTissue,
    OrganSource,
    PointSource,
    RunSettings,
    VolumeSource,
    VoxelKernel,
    kernel_dose,
    local_dose,
    simulate,
)
from SynthDoseLib.transport.convolution import convolve, split_emissions, tissue_classes

MEV_PER_G_IN_GY = 1.602176634e-10
WATER = get_material("water")
GRID = VoxelGrid.from_spacing((12, 10, 14), (2.0, 2.5, 3.0))
DECAY = [Emission.line("electron", 0.5, 0.8), Emission.line("photon", 0.2, 1.5), Emission.line("positron", 0.3, 0.1),
         Emission.line("alpha", 5.0, 0.2)]  # fmt: skip
CHARGED_MEV, PHOTON_MEV = 0.8 * 0.5 + 0.1 * 0.3 + 0.2 * 5.0, 1.5 * 0.2 + 0.1 * 1.02199790


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("SynthDoseLib.transport.kernel_store.user_cache_folder", lambda: tmp_path / "cache")


def phantom_of(grid: VoxelGrid, density) -> VoxelPhantom:
    labels = np.ones(grid.shape, np.uint16)
    labels[: grid.shape[0] // 2] = 2
    density = np.broadcast_to(np.asarray(density, np.float32), grid.shape)
    return VoxelPhantom(
        grid, np.zeros(grid.shape, np.uint8), density, (WATER,), LabelMap(grid, labels, organ_table(["up", "down"]))
    )


def kernel_of(shape=(4, 3, 5), grid=GRID, density=1.0, seed=3) -> VoxelKernel:
    """A made-up kernel, whose numbers are nothing but different."""
    values = np.random.default_rng(seed).uniform(0.1, 1.0, shape) * 1e-12
    material = Material("made up", density, WATER.mass_fractions)
    return VoxelKernel(values, 0.01 * values, grid.spacing_mm, material, {"energy_emitted_MeV": 1.0, "radius_mm": 1.0})


def direct(shares: np.ndarray, kernel: VoxelKernel) -> np.ndarray:
    """The convolution as a sum, element by element."""
    result = np.zeros(shares.shape)
    for source in np.argwhere(shares):
        for target in np.ndindex(shares.shape):
            offset = np.abs(np.array(target) - source)
            if (offset < kernel.octant_Gy.shape).all():
                result[target] += shares[tuple(source)] * kernel.octant_Gy[tuple(offset)]
    return result


def test_local_energy_over_mass():
    density = np.random.default_rng(1).uniform(0.2, 2.0, GRID.shape).astype(np.float32)
    weights = np.random.default_rng(2).uniform(0, 1, GRID.shape).astype(np.float32)
    phantom, source = phantom_of(GRID, density), VolumeSource(GRID, weights)
    for photons, energy in ((False, CHARGED_MEV), (True, CHARGED_MEV + PHOTON_MEV)):
        result = local_dose(phantom, source, DECAY, photons=photons)
        expected = energy * MEV_PER_G_IN_GY * weights / weights.sum(dtype=float) / (density * 0.015)
        assert result.dose.dose_Gy == pytest.approx(expected, rel=1e-5)
        assert result.energy_deposited_MeV == pytest.approx(energy)
        assert result.energy_deposited_MeV + result.energy_escaped_MeV == pytest.approx(CHARGED_MEV + PHOTON_MEV)
        assert not result.dose.sigma_Gy.any()
        up = phantom.labels.mask("up")
        mean = (expected * density)[up].sum() / density[up].sum()
        assert result.organs[0].dose_Gy == pytest.approx(mean, rel=1e-5)
        assert (result.dose.per, result.histories) == ("decay", 0)


def test_a_point_gives_the_kernel_itself():
    phantom, kernel = phantom_of(GRID, 1.0), kernel_of()
    shares = np.zeros(GRID.shape)
    shares[6, 5, 7] = 1.0
    dose, sigma = convolve(phantom, shares, {0: kernel}, np.zeros(GRID.shape, np.uint8))
    whole = kernel.values_Gy
    assert dose[3:10, 3:8, 3:12] == pytest.approx(whole, abs=1e-12 * whole.max())
    assert sigma[3:10, 3:8, 3:12] == pytest.approx(0.01 * whole, abs=1e-12 * whole.max())
    dose[3:10, 3:8, 3:12] = 0
    assert dose.max() < 1e-12 * whole.max()


@pytest.mark.parametrize("shape", [(4, 3, 5), (12, 10, 14), (30, 20, 40)])
def test_nothing_comes_in_again_at_the_opposite_border(shape):
    phantom, kernel = phantom_of(GRID, 1.0), kernel_of(shape)
    shares = np.zeros(GRID.shape)
    shares[0, 0, 0], shares[11, 9, 13], shares[11, 0, 5] = 0.5, 0.3, 0.2
    dose, _ = convolve(phantom, shares, {0: kernel}, np.zeros(GRID.shape, np.uint8))
    assert dose == pytest.approx(direct(shares, kernel), abs=1e-12 * kernel.octant_Gy.max())


def test_convolution_is_linear():
    phantom, kernel = phantom_of(GRID, 1.0), kernel_of()
    first, second = np.random.default_rng(4).uniform(0, 1, (2, *GRID.shape))
    classes = np.zeros(GRID.shape, np.uint8)
    one, two, both = (convolve(phantom, s, {0: kernel}, classes)[0] for s in (first, second, 2 * first + 3 * second))
    assert both == pytest.approx(2 * one + 3 * two, rel=1e-10)


def test_even_activity_gives_the_equilibrium_dose_away_from_borders():
    phantom, kernel = phantom_of(GRID, 1.0), kernel_of()
    dose, _ = convolve(phantom, np.ones(GRID.shape), {0: kernel}, np.zeros(GRID.shape, np.uint8))
    assert dose[3:9, 2:8, 4:10] == pytest.approx(kernel.values_Gy.sum(), rel=1e-10)


def test_energy_goes_to_the_mass_of_the_voxel_but_not_in_air():
    density = np.random.default_rng(5).uniform(0.2, 2.0, GRID.shape).astype(np.float32)
    density[0, 0, :3] = 0.0012, 0.04, 0.0
    shares, classes = np.ones(GRID.shape), np.zeros(GRID.shape, np.uint8)
    kernel = kernel_of(density=1.05)
    plain, _ = convolve(phantom_of(GRID, 1.0), shares, {0: kernel}, classes, density_scaling=False)
    scaled, sigma = convolve(phantom_of(GRID, density), shares, {0: kernel}, classes)
    where = density > 0.05
    assert scaled[where] == pytest.approx((plain * 1.05)[where] / density[where], rel=1e-6)
    assert scaled[0, 0, :3] == pytest.approx([plain[0, 0, 0], plain[0, 0, 1], 0.0])
    assert sigma == pytest.approx(0.01 * scaled)


def test_each_tissue_receives_by_its_own_kernel():
    density = np.full(GRID.shape, 1.04, np.float32)
    density[:4], density[8:], density[5, 5, 5] = 0.3, 1.6, 0.001
    phantom = phantom_of(GRID, density)
    classes = tissue_classes(phantom, LUNG_SOFT_BONE)
    assert [int(classes[k, 0, 0]) for k in (0, 5, 10)] == [0, 1, 2]
    assert classes[5, 5, 5] == 1  # air as its surroundings
    kernels = {n: kernel_of(seed=n, density=rho) for n, rho in enumerate((0.3, 1.04, 1.6))}
    shares = np.random.default_rng(6).uniform(0, 1, GRID.shape) * (np.random.default_rng(7).uniform(0, 1, GRID.shape) > 0.97)
    dose, _ = convolve(phantom, shares, kernels, classes)
    for n, kernel in kernels.items():
        expected = direct(shares, kernel)
        assert dose[classes == n] == pytest.approx(expected[classes == n], rel=1e-6, abs=1e-24)


def test_a_map_on_another_grid_keeps_its_place():
    fine = VoxelGrid.from_spacing((24, 20, 28), (1.0, 1.25, 1.5))
    weights = np.zeros(fine.shape, np.float32)
    weights[10:16, 8:10, 20:26] = 1.0  # voxels 10 to 12, 4, 5 to 7 ... of the phantom along i, j, k
    result = local_dose(phantom_of(GRID, 1.0), VolumeSource(fine, weights), DECAY)
    lit = np.zeros(GRID.shape, bool)
    lit[5:8, 4, 10:13] = True
    assert np.array_equal(result.dose.dose_Gy > 0, lit)
    assert result.energy_deposited_MeV == pytest.approx(CHARGED_MEV)


def test_positrons_are_split_into_what_stays_and_what_leaves():
    charged, photons = split_emissions([*DECAY, Emission.line("electron", 1.0, 0.0)])
    assert [e.particle for e in charged] == ["electron", "electron", "alpha"]
    assert sum(e.yield_per_decay * e.mean_energy_MeV for e in charged) == pytest.approx(CHARGED_MEV)
    assert sum(e.yield_per_decay * e.mean_energy_MeV for e in photons) == pytest.approx(PHOTON_MEV)


def test_density_scales_the_dose_of_charged_particles_but_not_that_of_photons():
    """Energy that photons leave goes with the mass they meet: the dose in a lung is that in tissue at the same distance."""
    grid = VoxelGrid.from_spacing((8, 8, 8), (5.0, 5.0, 5.0))
    density = np.ones(grid.shape, np.float32)
    density[4:] = 0.3
    for emission, scale in ((Emission.line("photon", 0.1, 1.0), 1.0), (Emission.line("electron", 0.3, 1.0), 1 / 0.3)):
        even, uneven = (
            kernel_dose(phantom_of(grid, d), OrganSource({"down": 1.0, "up": 1.0}), [emission], tissues=[
                KernelTissue("water"), KernelTissue("soft_tissue", 1.2)], relative_sigma=0.05, threads=1)
            for d in (1.0, density)
        )  # fmt: skip
        ratio = uneven.dose.dose_Gy / even.dose.dose_Gy
        # the kernel of the uneven phantom is that of its mean density, 0.65 g/cm3
        assert ratio[6:].mean() / ratio[:2].mean() == pytest.approx(scale, rel=1e-3)


def test_three_engines_agree_in_even_water():
    """Electrons of 0.3 MeV reach 0.8 mm: the organ that holds the activity keeps what it gives, but for its border."""
    grid = VoxelGrid.from_spacing((9, 9, 9), (6.0, 6.0, 6.0))
    labels = np.full(grid.shape, 2, np.uint16)
    labels[2:7, 2:7, 2:7] = 1
    phantom = VoxelPhantom(
        grid, np.zeros(grid.shape, np.uint8), np.ones(grid.shape, np.float32), (WATER,),
        LabelMap(grid, labels, organ_table(["core", "shell"])),
    )  # fmt: skip
    source, emissions = OrganSource({"core": 1.0}), [Emission.line("electron", 0.3, 1.0), Emission.line("photon", 0.05, 0.2)]
    carlo = simulate(phantom, source, emissions, RunSettings(histories=200_000, threads=1))
    kernel = kernel_dose(phantom, source, emissions, tissues=[KernelTissue("water")], relative_sigma=0.01, threads=1)
    local = local_dose(phantom, source, emissions)
    for n in range(2):
        sigma = np.hypot(carlo.organs[n].sigma_Gy, kernel.organs[n].sigma_Gy)
        # photons of 50 keV: the grid ends where the kernel's medium goes on, which sends some back
        assert abs(kernel.organs[n].dose_Gy - carlo.organs[n].dose_Gy) < 3 * sigma + (0.003, 0.05)[n] * carlo.organs[n].dose_Gy
    assert local.organs[0].dose_Gy == pytest.approx(0.3 * MEV_PER_G_IN_GY / (125 * 0.216), rel=1e-6)
    assert 0.95 < carlo.organs[0].dose_Gy / local.organs[0].dose_Gy < 1.05
    assert any("water 1 g/cm3" in note for note in kernel.notes)


@pytest.mark.parametrize("engine", [local_dose, kernel_dose])
def test_a_point_source_needs_the_monte_carlo(engine):
    with pytest.raises(SynthDoseError, match="monte-carlo"):
        engine(phantom_of(GRID, 1.0), PointSource((0, 0, 0)), DECAY)


def test_tissues_have_to_be_in_order():
    with pytest.raises(SynthDoseError, match="increasing density"):
        kernel_dose(phantom_of(GRID, 1.0), OrganSource({"up": 1.0}), DECAY, tissues=LUNG_SOFT_BONE[::-1])
    with pytest.raises(SynthDoseError, match="kernel is for voxels"):
        convolve(phantom_of(GRID, 1.0), np.ones(GRID.shape), {0: kernel_of(grid=VoxelGrid.from_spacing((2, 2, 2), (1, 1, 1)))},
                 np.zeros(GRID.shape, np.uint8))  # fmt: skip
