"""The engine as a whole: what it conserves, what it does not depend on, and where sources land."""

from __future__ import annotations

import time

import numpy as np
import pytest

from SynthDoseLib.core import Cancelled, Emission, LabelMap, Material, SynthDoseError, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.physics import alpha_csda_range, get_material
from SynthDoseLib.transport import (
    BeamSource,
    OrganSource,
    PointSource,
    RunSettings,
    SphereSource,
    VolumeSource,
    simulate,
)
from SynthDoseLib.transport.cache import engine_hash, prepare_kernel_cache

MEV_PER_G_IN_GY = 1.602176634e-10
WATER, LUNG = get_material("water"), Material("lung", 0.26, get_material("water").mass_fractions)
LINE = Emission.line("photon", 0.14, 1.0)
TILT = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]) @ np.array(
    [[1.0, 0.0, 0.0], [0.0, 0.28, -0.96], [0.0, 0.96, 0.28]]
)


def phantom_of(grid: VoxelGrid, *, halves: bool = False) -> VoxelPhantom:
    """Water; with `halves` the upper slices are lung. Organs: a core of 3 x 3 x 3 voxels, and the shell around it."""
    nk, nj, ni = grid.shape
    labels = np.full(grid.shape, 2, np.uint16)
    labels[nk // 2 - 1 : nk // 2 + 2, nj // 2 - 1 : nj // 2 + 2, ni // 2 - 1 : ni // 2 + 2] = 1
    material = np.zeros(grid.shape, np.uint8)
    if halves:
        material[nk // 2 :] = 1
    density = np.array([1.0, 0.26], np.float32)[material]
    return VoxelPhantom(grid, material, density, (WATER, LUNG), LabelMap(grid, labels, organ_table(["core", "shell"])))


CUBE = VoxelGrid.from_spacing((15, 15, 15), (5.0, 5.0, 5.0))
OBLIQUE = VoxelGrid.from_spacing((17, 13, 15), (4.0, 5.0, 6.0), directions=TILT, origin_ras_mm=(-20.0, 35.0, 110.0))


@pytest.mark.parametrize("particle", ["photon", "electron", "positron", "alpha"])
def test_analog_runs_conserve_energy(particle):
    emission = Emission.line(particle, 1.5, 1.0)
    settings = RunSettings(histories=2000, threads=1, estimator="analog")
    result = simulate(phantom_of(CUBE, halves=True), PointSource((1.0, 1.0, 1.0)), [emission], settings)
    assert result.energy_emitted_MeV == pytest.approx(1.5 + (1.02199790 if particle == "positron" else 0))
    assert result.energy_deposited_MeV + result.energy_escaped_MeV == pytest.approx(result.energy_emitted_MeV, rel=1e-6)


@pytest.mark.parametrize(
    ("particle", "energy_MeV"),
    [
        ("photon", 0.0005), ("photon", 20.0), ("electron", 1e-5), ("electron", 20.0), ("positron", 1e-5), ("positron", 0.1),
        ("alpha", 1e-4), ("alpha", 10.0),
    ],
)  # fmt: skip
def test_the_ends_of_the_energy_range_are_transported(particle, energy_MeV):
    settings = RunSettings(histories=300, threads=1)
    result = simulate(phantom_of(CUBE), PointSource((1.0, 1.0, 1.0)), [Emission.line(particle, energy_MeV, 1.0)], settings)
    emitted = energy_MeV + (1.02199790 if particle == "positron" else 0)
    assert result.energy_deposited_MeV + result.energy_escaped_MeV == pytest.approx(emitted, rel=1e-6)


def test_a_run_without_organs_gives_the_dose_map_alone():
    nothing = LabelMap(CUBE, np.zeros(CUBE.shape, np.uint16), ())
    full = phantom_of(CUBE)
    phantom = VoxelPhantom(CUBE, full.material_index, full.density_g_cm3, full.materials, nothing)
    emissions = [LINE, Emission.line("electron", 0.5, 1.0)]
    result = simulate(phantom, PointSource((0.0, 0.0, 0.0)), emissions, RunSettings(histories=1000, threads=1))
    assert result.organs == ()
    assert result.dose.dose_Gy.max() > 0


def test_dose_map_organs_and_energy_agree():
    phantom = phantom_of(CUBE)
    result = simulate(phantom, OrganSource({"core": 1.0}), [LINE], RunSettings(histories=5000, threads=1))
    mass = phantom.density_g_cm3 * phantom.grid.voxel_volume_ml
    energy = float((result.dose.dose_Gy.astype(np.float64) * mass).sum()) / MEV_PER_G_IN_GY
    assert energy == pytest.approx(result.energy_scored_MeV, rel=1e-5)
    assert result.energy_scored_MeV == pytest.approx(result.energy_deposited_MeV, rel=0.05)  # 4 standard errors
    core = phantom.labels.mask("core")
    mean = float((result.dose.dose_Gy * mass)[core].sum() / mass[core].sum())
    assert mean == pytest.approx(result.organs[0].dose_Gy, rel=1e-5)
    assert result.organs[0].mass_g == pytest.approx(27 * 0.125)


def test_the_dose_does_not_depend_on_the_number_of_threads():
    emissions = [LINE, Emission.line("electron", 0.7, 0.5)]
    source = OrganSource({"core": 2.0, "shell": 1.0})
    one, two = (simulate(phantom_of(CUBE), source, emissions, RunSettings(histories=4000, threads=n, seed=7)) for n in (1, 2))
    assert np.array_equal(one.dose.dose_Gy, two.dose.dose_Gy)
    assert np.array_equal(one.dose.sigma_Gy, two.dose.sigma_Gy)
    assert one.organs == two.organs
    assert one.histories_per_emission == two.histories_per_emission
    other = simulate(phantom_of(CUBE), source, emissions, RunSettings(histories=4000, threads=2, seed=8))
    assert not np.array_equal(one.dose.dose_Gy, other.dose.dose_Gy)


def test_sigma_is_the_spread_of_independent_runs():
    phantom = phantom_of(CUBE)
    runs = [
        simulate(phantom, OrganSource({"core": 1.0}), [LINE], RunSettings(histories=3000, threads=1, seed=seed))
        for seed in range(1, 41)
    ]
    for organ in range(2):
        doses = np.array([run.organs[organ].dose_Gy for run in runs])
        sigma = np.sqrt(np.mean([run.organs[organ].sigma_Gy ** 2 for run in runs]))
        # the spread of 40 runs is known to 1 / sqrt(78) = 11 %
        assert doses.std(ddof=1) == pytest.approx(sigma, rel=0.4)
    voxels = np.stack([run.dose.dose_Gy for run in runs]).astype(np.float64)
    variance = np.mean([run.dose.sigma_Gy.astype(np.float64) ** 2 for run in runs], axis=0)
    core = phantom.labels.mask("core")
    assert np.mean(voxels.var(axis=0, ddof=1)[core] / variance[core]) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("spacing_mm", [3.0, 10.0])
def test_automatic_estimator_agrees_with_analog_where_lung_meets_water(spacing_mm):
    grid = VoxelGrid.from_spacing((15, 15, 15), (spacing_mm,) * 3)
    source = SphereSource((0.0, 0.0, 1.0), 2 * spacing_mm)
    emission = [Emission.line("photon", 0.364, 1.0)]
    phantom = phantom_of(grid, halves=True)
    auto, analog = (
        simulate(phantom, source, emission, RunSettings(histories=60_000, threads=1, estimator=estimator, seed=3))
        for estimator in ("auto", "analog")
    )
    for first, second in zip(auto.organs, analog.organs, strict=True):
        assert abs(first.dose_Gy - second.dose_Gy) < 4 * np.hypot(first.sigma_Gy, second.sigma_Gy)
    assert auto.energy_deposited_MeV + auto.energy_escaped_MeV == pytest.approx(0.364, rel=1e-6)


@pytest.mark.parametrize(("spacing_mm", "energy_MeV"), [(3.0, 0.364), (10.0, 0.511)])
def test_automatic_estimator_keeps_electrons_in_a_lone_source_voxel_honest(spacing_mm, energy_MeV):
    """Track length there would give 8 and 5 % too much, because nothing comes in for what goes out."""
    grid = VoxelGrid.from_spacing((9, 9, 9), (spacing_mm,) * 3)
    weights = np.zeros(grid.shape, np.float32)
    weights[4, 4, 4] = 1.0
    labels = LabelMap(grid, (weights > 0).astype(np.uint16), organ_table(["source"]))
    water = np.zeros(grid.shape, np.uint8)
    phantom = VoxelPhantom(grid, water, np.ones(grid.shape, np.float32), (WATER,), labels)
    auto, analog = (
        simulate(
            phantom,
            VolumeSource(grid, weights),
            [Emission.line("photon", energy_MeV, 1.0)],
            RunSettings(histories=250_000, threads=1, estimator=estimator, seed=4),
        ).organs[0]
        for estimator in ("auto", "analog")
    )
    sigma = np.hypot(auto.sigma_Gy, analog.sigma_Gy) / analog.dose_Gy
    assert sigma < 0.025
    assert abs(auto.dose_Gy / analog.dose_Gy - 1) < 3 * sigma


def test_materials_that_no_voxel_has_make_no_difference():
    phantom = phantom_of(CUBE, halves=True)
    iodine = Material("iodine", 4.93, {"I": 1.0})
    longer = VoxelPhantom(CUBE, 2 - phantom.material_index, phantom.density_g_cm3, (iodine, LUNG, WATER), phantom.labels)
    settings = RunSettings(histories=2000, threads=1)
    first, second = (simulate(p, OrganSource({"core": 1.0}), [LINE], settings) for p in (phantom, longer))
    for one, two in zip(first.organs, second.organs, strict=True):
        assert one.dose_Gy == pytest.approx(two.dose_Gy, rel=1e-6)


def test_a_point_lands_where_it_should_in_an_oblique_phantom():
    position = OBLIQUE.to_ras((4.0, 9.0, 6.0))
    result = simulate(
        phantom_of(OBLIQUE),
        PointSource(tuple(position)),
        [Emission.line("alpha", 5.0, 1.0)],
        RunSettings(histories=100, threads=1),
    )
    assert np.argwhere(result.dose.dose_Gy).tolist() == [[6, 9, 4]]


def test_an_activity_map_on_another_grid_lands_where_it_should():
    source_grid = VoxelGrid.from_spacing((3, 3, 3), (2.0, 2.0, 2.0), origin_ras_mm=OBLIQUE.to_ras((9, 4, 10)) - 2.0)
    weights = np.ones(source_grid.shape, np.float32)
    phantom = phantom_of(OBLIQUE)
    emission = [Emission.line("alpha", 5.0, 1.0)]
    result = simulate(phantom, VolumeSource(source_grid, weights), emission, RunSettings(histories=20_000, threads=1))
    points = source_grid.to_ras(np.random.default_rng(1).uniform(-0.5, 2.5, (200_000, 3)))
    index = np.floor(OBLIQUE.to_ijk(points) + 0.5).astype(int)
    expected = np.zeros(OBLIQUE.shape)
    np.add.at(expected, (index[:, 2], index[:, 1], index[:, 0]), 5.0 / len(points))
    found = result.dose.dose_Gy.astype(np.float64) * OBLIQUE.voxel_volume_ml / MEV_PER_G_IN_GY
    # alphas stay within 0.04 mm of where they start; each voxel is a binomial share of 20 000 and of 200 000
    assert np.abs(found - expected).max() < 5.0 * 5 * 0.5 / np.sqrt(20_000)
    assert found.sum() == pytest.approx(5.0, rel=1e-6)


def test_a_parallel_beam_lights_its_field_and_nothing_else():
    beam = BeamSource((0.0, -60.0, 5.0), (0.0, 2.0, 0.0), (20.0, 10.0), up_ras=(0.0, 1.0, 1.0))
    soft = Emission.line("electron", 0.009, 1.0)  # too soft for bremsstrahlung that is followed: it would be seen elsewhere
    result = simulate(phantom_of(CUBE), beam, [soft], RunSettings(histories=3000, threads=1))
    lit = np.argwhere(result.dose.dose_Gy > 0)
    centres = CUBE.to_ras(lit[:, ::-1])
    assert np.all(centres[:, 1] == centres[:, 1].min())  # all stop in the first layer
    assert np.abs(centres[:, 0]).max() < 5 + 2.6  # 10 mm across
    assert np.abs(centres[:, 2] - 5).max() < 10 + 2.6  # 20 mm along S


def test_a_diverging_beam_spreads_with_the_distance_to_its_focus():
    beam = BeamSource((0.0, 0.0, -37.5), (0.0, 0.0, 1.0), (10.0, 10.0), source_distance_mm=50.0)
    vacuum = phantom_of(CUBE)
    density = np.where(np.arange(15)[:, None, None] < 14, 0.0, 1.0) * np.ones(CUBE.shape)
    phantom = VoxelPhantom(CUBE, vacuum.material_index, density.astype(np.float32), vacuum.materials, vacuum.labels)
    result = simulate(phantom, beam, [Emission.line("electron", 0.02, 1.0)], RunSettings(histories=5000, threads=1))
    lit = CUBE.to_ras(np.argwhere(result.dose.dose_Gy > 0)[:, ::-1])
    half_width = 5.0 * (50.0 + 70.0) / 50.0  # at the last slice, 70 mm behind the plane
    assert half_width - 5 < np.abs(lit[:, :2]).max() <= half_width + 2.5
    assert result.energy_deposited_MeV + result.energy_escaped_MeV == pytest.approx(0.02, rel=1e-6)


def test_alphas_lose_their_range_along_a_line():
    grid = VoxelGrid.from_spacing((41, 41, 41), (0.01, 0.01, 0.01))
    phantom = phantom_of(grid)
    result = simulate(
        phantom, PointSource((0.0, 0.0, 0.0)), [Emission.line("alpha", 6.0, 1.0)], RunSettings(histories=500, threads=1)
    )
    reach_cm = float(alpha_csda_range(WATER, np.array([6.0]))[0])
    distance = np.linalg.norm(grid.to_ras(np.argwhere(result.dose.dose_Gy > 0)[:, ::-1]), axis=1).max() / 10
    assert distance == pytest.approx(reach_cm, abs=0.001)
    assert result.energy_deposited_MeV == pytest.approx(6.0, rel=1e-6)


def test_a_run_stops_at_the_sigma_it_was_asked_for():
    settings = RunSettings(relative_sigma=0.02, organs=("core",), threads=1)
    result = simulate(phantom_of(CUBE), OrganSource({"shell": 1.0}), [LINE], settings)
    core = result.organs[0]
    assert core.sigma_Gy / core.dose_Gy <= 0.02
    assert result.batches >= 40


def test_a_run_stops_when_its_time_is_over():
    begun = time.monotonic()
    settings = RunSettings(max_seconds=1.0, histories=10**12, threads=1)
    result = simulate(phantom_of(CUBE), OrganSource({"core": 1.0}), [LINE], settings)
    assert time.monotonic() - begun < 10
    assert result.batches >= 10
    assert 0 < result.histories < 10**12


def test_cancelling_is_felt_at_once():
    begun: list[float] = []

    def cancel(report):
        if report.fraction > 0 or "histories" in report.message:
            begun.append(time.monotonic())
            raise Cancelled

    settings = RunSettings(histories=10**10, threads=2)
    with pytest.raises(Cancelled):
        simulate(phantom_of(CUBE), OrganSource({"core": 1.0}), [LINE], settings, cancel)
    assert time.monotonic() - begun[0] < 1.0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (PointSource((1000.0, 0.0, 0.0)), "outside the phantom"),
        (SphereSource((0.0, 0.0, 0.0), 60.0), "outside the phantom"),
        (SphereSource((0.0, 0.0, 0.0), -1.0), "radius_mm"),
        (OrganSource({"heart": 1.0}), "core, shell"),
        (OrganSource({"core": -1.0}), "0 or more"),
        (BeamSource((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0)), "direction_ras"),
        (BeamSource((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0), up_ras=(0.0, 0.0, 3.0)), "parallel"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, message):
    with pytest.raises(SynthDoseError, match=message):
        simulate(phantom_of(CUBE), source, [LINE], RunSettings(histories=1000))


@pytest.mark.parametrize(("value", "message"), [(-1.0, "negative"), (np.nan, "not finite")])
def test_bad_activity_is_refused(value, message):
    weights = np.ones(CUBE.shape, np.float32)
    weights[3, 3, 3] = value
    with pytest.raises(SynthDoseError, match=message):
        VolumeSource(CUBE, weights)


def test_activity_outside_the_phantom_or_in_vacuum_is_refused():
    shifted = VoxelGrid.from_spacing((15, 15, 15), (5.0, 5.0, 5.0), origin_ras_mm=(0.0, 0.0, 0.0))
    with pytest.raises(SynthDoseError, match="outside the phantom's grid"):
        simulate(phantom_of(CUBE), VolumeSource(shifted, np.ones(shifted.shape)), [LINE], RunSettings(histories=1000))
    full = phantom_of(CUBE)
    hollow = VoxelPhantom(
        CUBE, full.material_index, full.density_g_cm3 * (full.labels.labels == 2), full.materials, full.labels
    )
    with pytest.raises(SynthDoseError, match="zero density"):
        simulate(hollow, VolumeSource(CUBE, np.ones(CUBE.shape)), [LINE], RunSettings(histories=1000))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs a limit"),
        ({"histories": 5}, "at least 100"),
        ({"histories": 1000, "device": "gpu"}, "Allowed: auto, cpu, cuda"),
        ({"histories": 1000, "estimator": "magic"}, "Allowed: auto, analog"),
        ({"relative_sigma": 2.0}, "between"),
        ({"max_seconds": 0.0}, "positive"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(SynthDoseError, match=message):
        RunSettings(**settings)


def test_organs_of_the_settings_have_to_exist():
    with pytest.raises(SynthDoseError, match="no organ 'heart'"):
        simulate(phantom_of(CUBE), OrganSource({"core": 1.0}), [LINE], RunSettings(histories=1000, organs=("heart",)))
    with pytest.raises(SynthDoseError, match="needs the organs"):
        simulate(phantom_of(CUBE), OrganSource({"core": 1.0}), [LINE], RunSettings(relative_sigma=0.1))


def test_a_sigma_that_cannot_be_reached_is_refused():
    phantom = phantom_of(VoxelGrid.from_spacing((31, 31, 31), (5.0, 5.0, 5.0)))
    far = PointSource((70.0, 70.0, 70.0))  # alphas stay there
    with pytest.raises(SynthDoseError, match="no dose at all"):
        simulate(phantom, far, [Emission.line("alpha", 5.0, 1.0)], RunSettings(relative_sigma=0.1, organs=("core",)))


def test_energies_beyond_the_tables_are_refused():
    with pytest.raises(SynthDoseError, match="20 MeV"):
        simulate(
            phantom_of(CUBE), OrganSource({"core": 1.0}), [Emission.line("photon", 30.0, 1.0)], RunSettings(histories=1000)
        )


def test_kernels_are_cached_where_the_user_may_write(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "CACHE_DIR", numba.config.CACHE_DIR)
    folder = prepare_kernel_cache()
    assert folder.is_relative_to(tmp_path)
    assert engine_hash() in folder.name
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    assert prepare_kernel_cache() == tmp_path / "mine"
