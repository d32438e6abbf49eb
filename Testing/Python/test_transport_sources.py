"""Sources put their particles where and how they should: closed forms of geometry, attenuation and counting statistics.

Photons of 1.5 keV are absorbed without scatter (0.1 % of the interactions) and their electrons stop on the spot, so that a dose
is a count of photons, and a thin gas a purely absorbing medium.
"""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy.stats import chi2

from SynthDoseLib.core import Emission, LabelMap, ParticleList, SynthDoseError, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.physics import get_material
from SynthDoseLib.transport import (
    BeamSource,
    OrganSource,
    ParticleListSource,
    PointSource,
    RunSettings,
    SphereSource,
    VolumeSource,
    simulate,
)
from SynthDoseLib.transport.random import next_uniform, seed_history
from SynthDoseLib.transport.sampling import build_spectrum, sample_energy
from SynthDoseLib.transport.sources import z_order

MEV_PER_G_IN_GY = 1.602176634e-10
SOFT = [Emission.line("photon", 0.0015, 1.0)]
WATER = get_material("water")
TILT = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]) @ np.array(
    [[1.0, 0.0, 0.0], [0.0, 0.28, -0.96], [0.0, 0.96, 0.28]]
)
OBLIQUE = VoxelGrid.from_spacing((17, 13, 15), (4.0, 5.0, 6.0), directions=TILT, origin_ras_mm=(-20.0, 35.0, 110.0))
CUBE = VoxelGrid.from_spacing((20, 20, 20), (5.0, 5.0, 5.0))
ONE = RunSettings(histories=40_000, threads=1, seed=5)


def phantom_of(grid: VoxelGrid, density_g_cm3: float = 1.0) -> VoxelPhantom:
    labels = np.ones(grid.shape, np.uint16)
    labels[:, :, : grid.shape[2] // 2] = 2
    return VoxelPhantom(
        grid, np.zeros(grid.shape, np.uint8), np.full(grid.shape, density_g_cm3, np.float32), (WATER,),
        LabelMap(grid, labels, organ_table(["right", "left"])),
    )  # fmt: skip


def counts(result, phantom: VoxelPhantom, energy_MeV: float = 0.0015, what: str = "dose_Gy") -> np.ndarray:
    """Particles absorbed per voxel, per particle."""
    dose_Gy = getattr(result.dose, what).astype(np.float64)
    return dose_Gy * phantom.density_g_cm3 * phantom.grid.voxel_volume_ml / MEV_PER_G_IN_GY / energy_MeV


def require_shares(found: np.ndarray, expected: np.ndarray, histories: int) -> None:
    """Chi-square of counted shares against expected ones; cells that expect fewer than 10 are put together.

    The beginnings of histories lie on a lattice, so that counts are evener than those of chance, and may be much so.
    """
    assert found.sum() == pytest.approx(1, abs=2e-3)
    many = expected * histories >= 10
    shares = np.append(found[many], found[~many].sum()), np.append(expected[many], expected[~many].sum())
    used = shares[1] * histories >= 10
    assert np.all(found[expected == 0] == 0)
    value = histories * ((shares[0] - shares[1])[used] ** 2 / shares[1][used]).sum()
    assert chi2.sf(value, used.sum() - 1) > 1e-4


def test_an_off_centre_point_in_an_oblique_phantom_follows_inverse_square_and_attenuation():
    phantom = phantom_of(OBLIQUE, 3e-4)
    position = OBLIQUE.to_ras((4.2, 8.7, 6.4))
    # cm2/g, NIST Standard Reference Database 126, water at 1.5 keV
    mu_per_cm = 1.376e3 * 3e-4
    result = simulate(phantom, PointSource(tuple(position)), SOFT, RunSettings(histories=300_000, threads=1, seed=3))
    offset = (np.indices((4, 4, 4)).reshape(3, -1).T + 0.5) / 4 - 0.5
    voxels = np.argwhere(np.ones(OBLIQUE.shape))[:, ::-1]
    points = OBLIQUE.to_ras(voxels[:, None, :] + offset)
    r_cm = np.linalg.norm(points - position, axis=-1) / 10
    density = mu_per_cm * np.exp(-mu_per_cm * r_cm) / (4 * np.pi * r_cm**2)
    expected = (density.mean(axis=1) * OBLIQUE.voxel_volume_ml).reshape(OBLIQUE.shape)
    found, sigma = counts(result, phantom), counts(result, phantom, what="sigma_Gy")
    far = (np.linalg.norm(OBLIQUE.to_ras(voxels) - position, axis=-1) > 12).reshape(OBLIQUE.shape)
    for axis in range(3):  # layers of the grid, without the voxels beside the point
        layers = tuple(n for n in range(3) if n != axis)
        ratio = (found * far).sum(axis=layers) / (expected * far).sum(axis=layers)
        error = np.sqrt((sigma**2 * far).sum(axis=layers)) / (expected * far).sum(axis=layers)
        assert np.all(np.abs(ratio - 1) < 4 * error + 0.003)
    assert (found * far).sum() == pytest.approx((expected * far).sum(), rel=0.01)
    many = far & (expected * 300_000 > 50)
    pulls = (found - expected)[many] / sigma[many]
    assert abs(pulls.mean()) < 5 / np.sqrt(pulls.size) + 0.05
    assert pulls.std() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("particle", ["photon", "electron"])
def test_a_parallel_beam_is_even_over_its_tilted_field(particle):
    grid = VoxelGrid.from_spacing((4, 20, 20), (5.0, 5.0, 5.0), directions=TILT)
    phantom = phantom_of(grid)
    centre = grid.to_ras((10.3, 8.6, -8.0))
    beam = BeamSource(tuple(centre), tuple(2.5 * TILT[:, 2]), (32.0, 48.0), up_ras=tuple(TILT[:, 1] + 0.3 * TILT[:, 2]))
    emission = SOFT if particle == "photon" else [Emission.line("electron", 0.02, 1.0)]
    result = simulate(phantom, beam, emission, ONE)
    found = counts(result, phantom, emission[0].mean_energy_MeV)
    assert found[1:].sum() < 1e-3  # all stop in the first layer
    edges = np.arange(21) - 0.5
    along_j = np.clip(np.minimum(edges[1:], 8.6 + 3.2) - np.maximum(edges[:-1], 8.6 - 3.2), 0, 1) / 6.4
    along_i = np.clip(np.minimum(edges[1:], 10.3 + 4.8) - np.maximum(edges[:-1], 10.3 - 4.8), 0, 1) / 9.6
    expected = along_j[:, None] * along_i
    if particle == "photon":
        require_shares(found[0], expected, ONE.histories)
        return
    inner = expected > 0.99 * expected.max()  # a few per cent are scattered back, as many from everywhere
    spread = found[0][inner] / found[0][inner].mean() - 1
    assert found[0][expected == 0].sum() < 1e-3  # a little bremsstrahlung
    assert np.abs(spread).max() < 4.5 / np.sqrt(expected.max() * ONE.histories)


def corner_angle(x: np.ndarray, y: np.ndarray, distance: float) -> np.ndarray:
    """Solid angle of the rectangle from (0, 0) to (x, y) in a plane, seen from above its first corner."""
    return np.arctan(x * y / (distance * np.sqrt(x * x + y * y + distance**2)))


def test_a_diverging_beam_has_the_solid_angles_of_its_focus():
    """Voxels behind the start plane get the share of the field's solid angle that they fill, seen from the focus."""
    phantom = phantom_of(CUBE)
    # focus 100 mm from the field, and the phantom's face another 60 mm behind it
    beam = BeamSource((4.0, -50 - 60.0, -3.0), (0.0, 3.0, 0.0), (40.0, 30.0), up_ras=(1.0, 0.0, 0.0), source_distance_mm=100.0)
    result = simulate(phantom, beam, SOFT, ONE)
    found = counts(result, phantom)
    edges = np.arange(21) * 5.0 - 50
    x, z = np.clip(edges - 4.0, -32, 32), np.clip(edges + 3.0, -24, 24)  # the field at the face is 1.6 times as wide
    corner = corner_angle(x[None, :], z[:, None], 160.0)
    angle = np.diff(np.diff(corner, axis=0), axis=1)
    require_shares(found.sum(axis=1), angle / (4 * corner_angle(np.array(32.0), np.array(24.0), 160.0)), ONE.histories)
    assert found[:, 1:].sum() < 1e-6


@pytest.mark.parametrize(
    "beam",
    [
        BeamSource((0, 0, -100), (0, 0, -1), (10, 10)),  # flies away
        BeamSource((0, 0, 100), (0, 0, 1), (10, 10), source_distance_mm=50.0),
        BeamSource((90, 0, -100), (0, 0, 1), (70, 70)),  # passes by 5 mm away
        BeamSource((120, 120, -100), (-1, 1, 0.0), (300, 40)),
    ],
)
def test_a_beam_that_misses_the_phantom_is_refused(beam):
    with pytest.raises(SynthDoseError, match="misses the phantom"):
        simulate(phantom_of(CUBE), beam, SOFT, ONE)


@pytest.mark.parametrize(
    "beam",
    [
        BeamSource((130, 130, -100), (0, 0, 1), (200, 200)),  # only a corner of the field's inside
        BeamSource((0, 0, -100), (0, 0, 1), (900, 900), source_distance_mm=100.0),
        BeamSource((140, 0, -100), (0, 0, 1), (200, 5000)),  # none of its corners and centre, but the field
        BeamSource((200, 0, -100), (0, 0, 1), (4, 320), (0, 1, 0), 100.0),
    ],
)
def test_a_beam_that_only_grazes_the_phantom_is_taken(beam):
    result = simulate(phantom_of(CUBE), beam, SOFT, RunSettings(histories=20_000, threads=1))
    assert result.energy_deposited_MeV > 0


def test_a_sphere_is_uniform():
    grid = VoxelGrid.from_spacing((24, 24, 24), (2.0, 2.0, 2.0), directions=TILT)
    phantom = phantom_of(grid)
    centre = grid.to_ras((11.5, 11.5, 11.5)) + np.array([1.0, -2.0, 1.5])
    result = simulate(phantom, SphereSource(tuple(centre), 15.0), [Emission.line("alpha", 5.0, 1.0)], ONE)
    points = grid.to_ras(np.argwhere(result.dose.dose_Gy >= 0)[:, ::-1])
    share = counts(result, phantom, 5.0).ravel()
    moved = points - centre
    for axis in range(3):  # mean of a uniform ball: its middle, and its mean square R2 / 5 along each axis
        assert abs(share @ moved[:, axis]) < 4 * np.sqrt(15.0**2 / 5 / ONE.histories)
        assert share @ moved[:, axis] ** 2 == pytest.approx(15.0**2 / 5 + 2.0**2 / 12, rel=0.02)
    assert np.linalg.norm(moved[share > 0], axis=1).max() < 15 + np.sqrt(3)


def test_organs_share_decays_by_weight_and_voxels_evenly():
    phantom = phantom_of(CUBE)
    source = OrganSource({"right": 3.0, "left": 1.0})
    found = counts(simulate(phantom, source, [Emission.line("alpha", 5.0, 1.0)], ONE), phantom, 5.0)
    half = np.where(np.arange(20) < 10, 0.25, 0.75) / (20 * 20 * 10)
    by_slabs = found.sum(axis=0)  # 400 columns
    require_shares(by_slabs, np.broadcast_to(half * 20, (20, 20)), ONE.histories)


def test_cells_of_a_block_follow_each_other():
    """Morton's curve enters an aligned block of 2^n voxels to a side once, and leaves it when it has been everywhere in it."""
    k, j, i = np.indices((8, 8, 8)).reshape(3, -1)
    order = z_order(i, j, k)
    assert sorted(order) == list(range(512))
    for side in (2, 4):
        block = ((k // side) * 8 + j // side) * 8 + i // side
        assert np.count_nonzero(np.diff(block[order])) == (8 // side) ** 3 - 1


def test_a_coarse_oblique_activity_map_lands_in_a_fine_phantom():
    """Shares of activity per octant of the phantom, against the volumes of the tilted source voxels in it."""
    phantom = phantom_of(CUBE)
    grid = VoxelGrid.from_spacing((2, 2, 3), (9.0, 11.0, 7.0), directions=TILT, origin_ras_mm=(-3.0, 2.0, 1.0))
    weights = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    found = counts(simulate(phantom, VolumeSource(grid, weights), [Emission.line("alpha", 5.0, 1.0)], ONE), phantom, 5.0)
    offsets = (np.indices((40, 40, 40)).reshape(3, -1).T + 0.5) / 40 - 0.5
    expected = np.zeros((2, 2, 2))
    for (k, j, i), weight in np.ndenumerate(weights):
        right, anterior, superior = (grid.to_ras(offsets + np.array([i, j, k])) > 0).astype(int).T
        np.add.at(expected, (superior, anterior, right), weight / weights.sum() / len(offsets))
    octants = found.reshape(2, 10, 2, 10, 2, 10).sum(axis=(1, 3, 5))
    require_shares(octants, expected, ONE.histories)


@njit
def histogram_of_draws(spectrum, draws, edges):
    state, counts = np.zeros(2, np.uint64), np.zeros((3, edges.size - 1), np.int64)
    seed_history(state, np.uint64(11), np.uint64(0), np.uint64(0))
    for _ in range(draws):
        energy, emission = sample_energy(spectrum, next_uniform(state))
        counts[emission, np.searchsorted(edges, energy, side="right") - 1] += 1
    return counts


def test_energies_have_the_shares_of_their_spectra():
    beta = Emission("electron", 0.6, np.array([0.0, 0.1, 0.4, 0.5, 0.9]), np.array([3.0, 1.0, 0.0, 2.0]))
    line, other = Emission.line("electron", 0.35, 0.3), Emission.line("electron", 0.2, 0.1)
    edges = np.linspace(0, 0.9, 19)
    found = histogram_of_draws(build_spectrum([beta, line, other], [0, 1, 2]), 400_000, edges) / 400_000
    expected = np.zeros((3, 18))
    expected[0, :2], expected[0, 2:8], expected[0, 10:] = 0.6 * 0.5 / 2, 0.6 / 6 / 6, 0.6 / 3 / 8
    expected[1, 7], expected[2, 4] = 0.3, 0.1
    expected[1, 6:8], expected[2, 3:5] = expected[1, 6:8].sum() * (found[1, 6:8] > 0), 0.1 * (found[2, 3:5] > 0)
    require_shares(found, expected, 400_000)


def list_of(position_mm, direction, *, weight=None, first=None, kind=0, energy_MeV=0.0015, original=None) -> ParticleList:
    count = len(position_mm)
    first = np.ones(count, bool) if first is None else first
    weight = np.ones(count) if weight is None else weight
    return ParticleList(
        position_mm, np.broadcast_to(direction, (count, 3)), np.full(count, energy_MeV), np.full(count, kind), weight, first,
        float(first.sum()) if original is None else original,
    )  # fmt: skip


def test_a_list_is_placed_by_its_axes():
    """Rays along the list's z axis from a grid of starts, each into the voxel that a rotation matrix says."""
    phantom = phantom_of(OBLIQUE)
    x_axis, z_axis = np.array([0.0, 0.6, 0.8]), np.array([1.0, 0.0, 0.0])
    turn = np.stack([x_axis, np.cross(z_axis, x_axis), z_axis], axis=-1)
    middle = OBLIQUE.to_ras((7, 6, 8))
    start = np.array([[a, b, -80.0] for a in (-8.0, 0.0, 9.0) for b in (-7.0, 0.0, 11.0)])
    source = ParticleListSource(list_of(start, (0, 0, 1)), tuple(middle), tuple(3 * x_axis + z_axis), tuple(2 * z_axis))
    found = counts(simulate(phantom, source, (), RunSettings(histories=900, threads=1)), phantom)
    expected = np.zeros(OBLIQUE.shape)
    steps = np.arange(0, 160, 0.01)
    for ray in start:
        ras = middle + (ray + steps[:, None] * [0, 0, 1]) @ turn.T
        index = np.floor(OBLIQUE.to_ijk(ras) + 0.5).astype(int)
        i, j, k = index[((index >= 0) & (index < OBLIQUE.shape[::-1])).all(axis=1)][0]
        expected[k, j, i] += 1 / 9
    assert found == pytest.approx(expected, abs=2e-4)


def test_the_dose_of_a_list_is_per_original_history_and_weighted():
    start = np.repeat([[0.0, 0.0, -60.0]], 200, axis=0)
    first = np.arange(200) % 2 == 0
    source = ParticleListSource(
        list_of(start, (0, 0, 1), weight=np.where(first, 0.5, 2.0), first=first, original=5000.0),
        (0, 0, 0),
        (1, 0, 0),
        (0, 0, 1),
    )
    result = simulate(phantom_of(CUBE), source, (), RunSettings(histories=1000, threads=1))
    assert result.dose.per == "history"
    assert result.histories == 1000
    assert result.energy_emitted_MeV == pytest.approx(100 / 5000 * 2.5 * 0.0015)
    assert result.energy_deposited_MeV == pytest.approx(result.energy_emitted_MeV, rel=2e-3)
    assert any("5000" in note for note in result.notes)


def test_every_particle_of_a_list_conserves_energy():
    start = np.repeat([[0.0, 0.0, -60.0]], 300, axis=0)
    kinds, energy = np.arange(300) % 3, np.linspace(0.05, 19.0, 300)
    positrons = 1.02199790 * 100
    particles = list_of(start, (0.6, 0, 0.8), kind=kinds, energy_MeV=energy)
    source = ParticleListSource(particles, (0, 0, 0), (1, 0, 0), (0, 0, 1), exact=True)
    result = simulate(phantom_of(CUBE), source, (), RunSettings(histories=3000, threads=1, estimator="analog"))
    assert result.energy_emitted_MeV == pytest.approx((particles.energy_MeV.sum() + positrons) / 300, rel=1e-5)
    assert result.energy_deposited_MeV + result.energy_escaped_MeV == pytest.approx(result.energy_emitted_MeV, rel=1e-6)


def shares_of_lists(lists: int, entries: int, copies: int, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """Share absorbed on the right, and its sigma, of independent lists that light both sides evenly; 20 uses of each entry."""
    grid = VoxelGrid.from_spacing((2, 2, 2), (50.0, 50.0, 50.0))
    phantom, random = phantom_of(grid), np.random.default_rng(17)
    shares, sigmas = [], []
    for n in range(lists):
        start = np.stack([random.uniform(-40, 40, entries), np.full(entries, 10.0), np.full(entries, -60.0)], axis=-1)
        start = np.repeat(start, copies, axis=0)
        first = np.arange(entries * copies) % copies == 0
        source = ParticleListSource(list_of(start, (0, 0, 1), first=first), (0, 0, 0), (1, 0, 0), (0, 0, 1), exact)
        organ = simulate(phantom, source, (), RunSettings(histories=20 * entries, threads=1, seed=n)).organs[0]
        to_share = organ.mass_g / MEV_PER_G_IN_GY / 0.0015 / copies
        shares.append(organ.dose_Gy * to_share)
        sigmas.append(organ.sigma_Gy * to_share)
    return np.array(shares), np.array(sigmas)


def test_sigma_of_a_list_used_many_times_is_that_of_its_histories():
    """Each entry falls on the right with probability 1/2, whole: 200 of them give sqrt(1/4 / 200), however often used."""
    shares, sigmas = shares_of_lists(40, 200, 3, exact=False)
    expected = np.sqrt(0.25 / 200)
    assert np.sqrt(np.mean(sigmas**2)) == pytest.approx(expected, rel=0.1)
    assert shares.std(ddof=1) == pytest.approx(expected, rel=4 / np.sqrt(78))
    assert abs(np.mean((shares - 0.5) / sigmas)) < 4 / np.sqrt(40)


def test_sigma_of_an_exact_list_leaves_its_noise_out():
    _, sigmas = shares_of_lists(4, 200, 1, exact=True)
    assert np.sqrt(np.mean(sigmas**2)) == pytest.approx(np.sqrt(0.25 / (20 * 200)), rel=4 / np.sqrt(4 * 2 * 63))


def test_a_run_to_a_sigma_that_a_list_does_not_give_ends_and_says_so():
    start = np.random.default_rng(2).uniform((-45, -45, -60), (45, 45, -60), (500, 3))
    source = ParticleListSource(list_of(start, (0, 0, 1)), (0, 0, 0), (1, 0, 0), (0, 0, 1))
    result = simulate(phantom_of(CUBE), source, (), RunSettings(relative_sigma=0.003, organs=("left",), threads=1))
    assert any("used up" in note for note in result.notes)
    enough = simulate(phantom_of(CUBE), source, (), RunSettings(relative_sigma=0.1, organs=("left",), threads=1))
    assert not any("used up" in note for note in enough.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z_axis_ras": (0, 0, -1)}, "flies into the phantom"), ({"x_axis_ras": (0, 0, 2)}, "parallel"),
        ({"x_axis_ras": (0, 0, 0)}, "not all zero"), ({"origin_mm_ras": (0, 0, np.nan)}, "origin_mm_ras"),
    ],
)  # fmt: skip
def test_a_list_that_is_placed_badly_is_refused(change, message):
    start = np.repeat([[0.0, 0.0, 60.0]], 100, axis=0)
    placed = {"origin_mm_ras": (0, 0, -120), "x_axis_ras": (1, 0, 0), "z_axis_ras": (0, 0, 1), **change}
    with pytest.raises(SynthDoseError, match=message):
        simulate(phantom_of(CUBE), ParticleListSource(list_of(start, (0, 0, 1)), **placed), (), ONE)


def test_a_list_with_energies_beyond_the_tables_or_emissions_is_refused():
    start = np.repeat([[0.0, 0.0, -60.0]], 100, axis=0)
    hot, soft = (
        ParticleListSource(list_of(start, (0, 0, 1), energy_MeV=energy), (0, 0, 0), (1, 0, 0), (0, 0, 1))
        for energy in (25.0, 0.0015)
    )
    with pytest.raises(SynthDoseError, match="100 of 100 particles"):
        simulate(phantom_of(CUBE), hot, (), ONE)
    with pytest.raises(SynthDoseError, match="brings its own energies"):
        simulate(phantom_of(CUBE), soft, SOFT, ONE)
