"""The engine as a service: what is split, cropped, stopped, killed and gone on with gives the dose it should."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from SynthDoseLib.core import Cancelled, Emission, LabelMap, SynthDoseError, VoxelGrid, VoxelPhantom, organ_table
from SynthDoseLib.physics import get_material
from SynthDoseLib.transport import (
    BeamSource,
    CheckpointError,
    OrganSource,
    PointSource,
    RunSettings,
    SimulationResult,
    SphereSource,
    VolumeSource,
    engine,
    simulate,
    simulate_s_values,
)
from SynthDoseLib.transport.checkpoint import Checkpoint
from SynthDoseLib.transport.limits import batch_rates
from SynthDoseLib.transport.memory import affordable_threads, needed_bytes

WATER = get_material("water")
GRID = VoxelGrid.from_spacing((13, 14, 15), (5.0, 5.0, 5.0))
BETA, GAMMA = Emission.line("electron", 0.6, 0.8), Emission.line("photon", 0.3, 1.2)
ALPHA, POSITRON = Emission.line("alpha", 5.5, 0.3), Emission.line("positron", 0.4, 0.5)


def phantom_of(grid: VoxelGrid = GRID, *, vacuum: int = 0) -> VoxelPhantom:
    """Water with two organs of 3 x 3 x 3 voxels, and so many planes of vacuum on every side."""
    inside = tuple(slice(vacuum, size - vacuum) for size in grid.shape)
    density = np.zeros(grid.shape, np.float32)
    density[inside] = 1.0
    labels = np.zeros(grid.shape, np.uint16)
    labels[inside] = 3
    middle = [size // 2 for size in grid.shape]
    for index, shift in ((1, -3), (2, 1)):
        labels[middle[0] - 1 : middle[0] + 2, middle[1] - 1 : middle[1] + 2, middle[2] + shift : middle[2] + shift + 3] = index
    organs = LabelMap(grid, labels, organ_table(["kidney", "liver", "rest"]))
    return VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), density, (WATER,), organs)


KIDNEY = OrganSource({"kidney": 1.0})
TINY = RunSettings(histories=1000, threads=1)


def same(one: SimulationResult, two: SimulationResult) -> bool:
    """Whether two results agree bit by bit in all that does not depend on the computer."""
    maps = np.array_equal(one.dose.dose_Gy, two.dose.dose_Gy) and np.array_equal(one.dose.sigma_Gy, two.dose.sigma_Gy)
    energies = one.energy_escaped_MeV == two.energy_escaped_MeV and one.energy_scored_MeV == two.energy_scored_MeV
    counts = one.histories_per_emission == two.histories_per_emission and one.batches == two.batches
    return maps and energies and counts and one.organs == two.organs


# components


def test_components_sum_to_the_total_and_do_not_change_it():
    emissions = [BETA, GAMMA, ALPHA, POSITRON]
    settings = {"histories": 4000, "threads": 1}
    whole = simulate(phantom_of(), KIDNEY, emissions, RunSettings(**settings))
    split = simulate(phantom_of(), KIDNEY, emissions, RunSettings(**settings, components=True))
    assert np.array_equal(whole.dose.dose_Gy, split.dose.dose_Gy)
    assert np.array_equal(whole.dose.sigma_Gy, split.dose.sigma_Gy)
    assert whole.components == ()
    assert [part.component for part in split.components] == ["photon", "electron", "positron", "alpha"]
    total = np.sum([part.dose.dose_Gy.astype(np.float64) for part in split.components], axis=0)
    assert np.allclose(total, split.dose.dose_Gy, rtol=1e-6, atol=0)
    for n, organ in enumerate(split.organs):
        assert sum(part.organs[n].dose_Gy for part in split.components) == pytest.approx(organ.dose_Gy, rel=1e-12)
        assert organ.dose_Gy == pytest.approx(whole.organs[n].dose_Gy, rel=1e-12)
    alpha = split.components[3]
    kidney = alpha.organs[0]
    # alphas of 5.5 MeV have a range of 0.04 mm: all their energy stays in an organ of 15 mm but for the surface
    assert kidney.dose_Gy * kidney.mass_g / 1.602176634e-10 == pytest.approx(0.3 * 5.5, rel=0.01)
    variance = sum(part.organs[0].sigma_Gy ** 2 for part in split.components)
    assert split.organs[0].sigma_Gy ** 2 == pytest.approx(variance, rel=0.5)  # the parts are independent; 64 batches


def test_one_component_is_the_total():
    result = simulate(phantom_of(), KIDNEY, [BETA], RunSettings(histories=1000, threads=1, components=True))
    (part,) = result.components
    assert part.component == "electron"
    assert np.array_equal(part.dose.dose_Gy, result.dose.dose_Gy)
    assert part.organs == result.organs


def test_components_do_not_depend_on_the_number_of_threads():
    one, two = (
        simulate(phantom_of(), KIDNEY, [BETA, GAMMA], RunSettings(histories=3000, threads=n, components=True)) for n in (1, 3)
    )
    assert same(one, two)
    for first, second in zip(one.components, two.components, strict=True):
        assert np.array_equal(first.dose.sigma_Gy, second.dose.sigma_Gy)
        assert first.organs == second.organs


# vacuum around the body


@pytest.mark.parametrize(
    "source",
    [KIDNEY, PointSource((2.0, 1.0, -3.0)), SphereSource((2.0, 1.0, -3.0), 4.0), "map", "beam"],
    ids=["organ", "point", "sphere", "map", "beam"],
)
def test_vacuum_around_the_body_makes_no_difference(source):
    """The same body in a grid with four more planes on each side; equal but for the rounding of positions."""
    wide = VoxelGrid.from_spacing((21, 22, 23), (5.0, 5.0, 5.0))
    bare, packed = phantom_of(), phantom_of(wide, vacuum=4)
    first = second = source
    if source == "map":
        weights = (bare.labels.labels == 2).astype(np.float32)
        first, second = VolumeSource(GRID, weights), VolumeSource(wide, np.pad(weights, 4))
    if source == "beam":
        first = second = BeamSource((0.0, 0.0, 60.0), (0.1, 0.0, -1.0), (20.0, 20.0))
    settings = RunSettings(histories=2000, threads=1)
    one, two = (simulate(p, s, [GAMMA], settings) for p, s in ((bare, first), (packed, second)))
    inner = two.dose.dose_Gy[4:-4, 4:-4, 4:-4]
    assert two.dose.grid.matches(wide)
    assert two.dose.dose_Gy.sum() == pytest.approx(inner.sum(), rel=1e-6)
    assert np.abs(inner - one.dose.dose_Gy).max() < 0.02 * one.dose.dose_Gy.max()
    for a, b in zip(one.organs, two.organs, strict=True):
        assert b.dose_Gy == pytest.approx(a.dose_Gy, rel=1e-3)


def test_activity_in_the_vacuum_that_is_cropped_is_refused():
    wide = VoxelGrid.from_spacing((21, 22, 23), (5.0, 5.0, 5.0))
    packed = phantom_of(wide, vacuum=4)
    weights = np.zeros(wide.shape, np.float32)
    weights[1, 1, 1] = weights[10, 10, 10] = 1.0
    with pytest.raises(SynthDoseError, match="zero density"):
        simulate(packed, VolumeSource(wide, weights), [GAMMA], RunSettings(histories=1000))
    with pytest.raises(SynthDoseError, match="lies in vacuum"):
        simulate(packed, PointSource((50.0, 0.0, 0.0)), [GAMMA], RunSettings(histories=1000))


# batches


@pytest.mark.parametrize("total", [1000, 10_000, 999_983])
def test_batches_hold_the_histories_asked_for_and_only_one_group_varies(total):
    share = np.array([0.5, 0.3, 0.15, 0.03, 0.01, 0.01])
    rates, largest = batch_rates(share, total, 64)
    assert rates.sum() * 64 == pytest.approx(total, abs=1e-6)
    assert rates.min() >= 1
    others = np.delete(rates, largest)
    assert np.array_equal(others, np.round(others))
    assert np.abs(others - np.delete(share, largest) * total / 64).max() <= 1  # less than one history per batch is not possible


# checkpoints


class _StopAfter:
    """Cancels when so many batches or histories are reported."""

    def __init__(self, histories: int) -> None:
        self.histories = histories

    def __call__(self, report) -> None:
        words = report.message.split()
        if len(words) > 1 and words[1].startswith("histories") and int(words[0]) >= self.histories:
            raise Cancelled


@pytest.mark.parametrize(
    "limits",
    [{"histories": 3_000_000}, {"relative_sigma": 0.0015, "organs": ("liver",)}],
    ids=["histories", "sigma"],
)
def test_a_cancelled_run_goes_on_to_the_same_result(tmp_path, limits):
    settings = RunSettings(**limits, threads=1, components=True)
    straight = simulate(phantom_of(), KIDNEY, [BETA, GAMMA], settings)
    file = tmp_path / "state.npz"
    breaks = 0
    for histories in (straight.histories // 5, straight.histories // 2):
        try:
            resumed = simulate(phantom_of(), KIDNEY, [BETA, GAMMA], settings, _StopAfter(histories), file)
        except Cancelled:
            breaks += 1
            with np.load(file) as kept:
                assert 0 < len(kept["organ_energy"]) < straight.batches
    assert breaks >= 1
    resumed = simulate(phantom_of(), KIDNEY, [BETA, GAMMA], settings, checkpoint=file)
    assert same(straight, resumed)
    for one, two in zip(straight.components, resumed.components, strict=True):
        assert np.array_equal(one.dose.dose_Gy, two.dose.dose_Gy)
    assert file.exists()
    assert [f.name for f in tmp_path.iterdir()] == ["state.npz"]
    begun = time.monotonic()
    again = simulate(phantom_of(), KIDNEY, [BETA, GAMMA], settings, checkpoint=file)
    assert same(straight, again)
    assert time.monotonic() - begun < 5


def test_a_checkpoint_of_something_else_is_refused_and_kept(tmp_path):
    file = tmp_path / "state.npz"
    settings = {"histories": 2000, "threads": 1}
    simulate(phantom_of(), KIDNEY, [BETA], RunSettings(**settings), checkpoint=file)
    before = file.read_bytes()
    changes = [
        (KIDNEY, [GAMMA], RunSettings(**settings)),
        (OrganSource({"liver": 1.0}), [BETA], RunSettings(**settings)),
        (KIDNEY, [BETA], RunSettings(**settings, seed=2)),
        (KIDNEY, [BETA], RunSettings(**settings, estimator="analog")),
    ]
    for source, emissions, other in changes:
        with pytest.raises(CheckpointError, match="another simulation"):
            simulate(phantom_of(), source, emissions, other, checkpoint=file)
    simulate(phantom_of(), KIDNEY, [BETA], RunSettings(histories=2000, threads=2), checkpoint=file)  # threads do not matter
    for damaged in (before[: len(before) // 2], b"", b"something else", before[:3000] + b"x" * 50 + before[3050:]):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            simulate(phantom_of(), KIDNEY, [BETA], RunSettings(**settings), checkpoint=file)
        assert file.read_bytes() == damaged


def test_no_byte_that_changes_in_a_checkpoint_goes_unnoticed_or_ends_in_another_error(tmp_path):
    """Whatever is read back is what was written: bits of archive, headers and numbers flip one at a time."""
    file = tmp_path / "state.npz"
    simulate(phantom_of(VoxelGrid.from_spacing((13, 5, 11), (5.0,) * 3)), KIDNEY, [BETA], TINY, checkpoint=file)
    whole = file.read_bytes()
    with np.load(file) as arrays:
        expected = {name: arrays[name] for name in arrays.files}
    random = np.random.default_rng(3)
    headers = [
        place + n for place in (m.start() for m in re.finditer(rb"PK\x03\x04|PK\x01\x02|\x93NUMPY", whole)) for n in range(70)
    ]
    refused = 0
    for place in [*random.choice(headers, 220), *random.integers(0, len(whole), 80)]:
        damaged = bytearray(whole)
        damaged[min(place, len(whole) - 1)] ^= 1 << random.integers(8)
        file.write_bytes(bytes(damaged))
        try:
            state = Checkpoint(file, str(expected["key"])).load()
        except CheckpointError:
            refused += 1
        else:
            assert np.array_equal(state.statistics.energy, expected["energy"])
            assert np.array_equal(state.statistics.organ_energy, expected["organ_energy"])
    assert refused > 150


def test_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    result = simulate(phantom_of(), KIDNEY, [BETA], RunSettings(histories=2000, threads=1), checkpoint=tmp_path / "state.npz")
    assert any("No space left" in note for note in result.notes)
    assert list(tmp_path.iterdir()) == []


def test_large_phantoms_are_written_less_often(tmp_path):
    kept = Checkpoint(tmp_path / "state.npz", "key")
    kept._written_at = time.monotonic() - 30
    assert kept.due()
    kept._write_seconds = 3.0
    assert not kept.due()


# S values


def test_s_values_are_those_of_single_runs_with_each_organ_as_the_source():
    """Other seeds, and a run of its own for each source: the numbers agree within their standard errors."""
    settings = RunSettings(histories=6000, threads=1, estimator="analog")
    matrix = simulate_s_values(phantom_of(vacuum=1), [BETA, GAMMA], settings)
    assert [row.source for row in matrix] == ["kidney", "liver", "rest"]
    for row in matrix:
        assert row.histories == 6000
        source = OrganSource({row.source: 1.0})
        single = simulate(phantom_of(vacuum=1), source, [BETA, GAMMA], RunSettings(histories=20_000, threads=1, seed=99))
        for target, expected in zip(row.targets, single.organs, strict=True):
            assert target.organ == expected.organ
            assert target.mass_g == expected.mass_g
            assert abs(target.dose_Gy - expected.dose_Gy) < 4 * np.hypot(target.sigma_Gy, expected.sigma_Gy)


def test_s_values_of_two_equal_organs_are_reciprocal():
    """Equal organs, placed as mirror images in water: S(a <- b) = S(b <- a) and S(a <- a) = S(b <- b) by symmetry."""
    grid = VoxelGrid.from_spacing((11, 11, 15), (5.0, 5.0, 5.0))
    labels = np.full(grid.shape, 3, np.uint16)
    labels[4:7, 4:7, 2:5], labels[4:7, 4:7, 10:13] = 1, 2
    organs = LabelMap(grid, labels, organ_table(["left", "right", "rest"]))
    phantom = VoxelPhantom(grid, np.zeros(grid.shape, np.uint8), np.ones(grid.shape, np.float32), (WATER,), organs)
    left, right = simulate_s_values(phantom, [GAMMA], RunSettings(histories=200_000, threads=1), ["left", "right"])
    for one, two in ((left.targets[1], right.targets[0]), (left.targets[0], right.targets[1])):
        assert abs(one.dose_Gy - two.dose_Gy) < 4 * np.hypot(one.sigma_Gy, two.sigma_Gy)
        assert one.sigma_Gy < 0.03 * one.dose_Gy


def test_s_values_honour_sigma_and_go_on_from_their_checkpoints(tmp_path):
    settings = RunSettings(relative_sigma=0.02, threads=1)
    fractions: list[float] = []
    straight = simulate_s_values(phantom_of(), [GAMMA], settings, progress=lambda report: fractions.append(report.fraction))
    for n, row in enumerate(straight):
        assert 0 < row.targets[n].sigma_Gy <= 0.02 * row.targets[n].dose_Gy
    assert fractions == sorted(fractions)

    def stop_at_third(report):
        if "(3 of 3)" in report.message:
            raise Cancelled

    with pytest.raises(Cancelled):
        simulate_s_values(phantom_of(), [GAMMA], settings, progress=stop_at_third, checkpoint=tmp_path / "kept")
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["1.npz", "2.npz"]
    messages: list[str] = []
    resumed = simulate_s_values(
        phantom_of(), [GAMMA], settings, progress=lambda r: messages.append(r.message), checkpoint=tmp_path / "kept"
    )
    assert resumed == straight
    assert not any("Pilot" in message for message in messages if "(1 of 3)" in message)
    with pytest.raises(CheckpointError, match="another simulation"):
        simulate_s_values(phantom_of(), [BETA], settings, checkpoint=tmp_path / "kept")
    alone = simulate_s_values(phantom_of(), [GAMMA], settings, ["liver"])
    assert alone == (straight[1],)


def test_s_values_of_targets_that_nothing_reaches_are_zero():
    """Alphas stay in their organ: where a single run refuses to look for the other organ's sigma, a matrix has a zero."""
    settings = RunSettings(relative_sigma=0.05, organs=("liver",), threads=1)
    with pytest.raises(SynthDoseError, match="no dose at all"):
        simulate(phantom_of(), KIDNEY, [ALPHA], settings)
    (kidney,) = simulate_s_values(phantom_of(), [ALPHA], settings, ["kidney"])
    assert kidney.targets[0].dose_Gy > 0
    assert (kidney.targets[1].dose_Gy, kidney.targets[1].sigma_Gy) == (0.0, 0.0)


# bad input


def test_a_sphere_that_is_partly_outside_or_in_vacuum_is_refused():
    tilt = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    oblique = VoxelGrid.from_spacing((13, 14, 15), (5.0, 5.0, 5.0), directions=tilt)
    phantom = phantom_of(oblique)
    near_a_face = tuple(oblique.to_ras((2.6, 7.0, 6.0)))  # 15.5 mm along i; along R and A there is more room
    settings = RunSettings(histories=1000, threads=1)
    simulate(phantom, SphereSource(near_a_face, 15.0), [GAMMA], settings)
    with pytest.raises(SynthDoseError, match="outside the phantom"):
        simulate(phantom, SphereSource(near_a_face, 17.0), [GAMMA], settings)
    density = phantom.density_g_cm3.copy()
    density[6, 7, 4] = 0.0
    hollow = VoxelPhantom(oblique, phantom.material_index, density, phantom.materials, phantom.labels)
    with pytest.raises(SynthDoseError, match="1 voxels of zero density"):
        simulate(hollow, SphereSource(near_a_face, 15.0), [GAMMA], settings)


def test_too_few_histories_for_the_emissions_are_refused():
    lines = [Emission.line(particle, energy, 1.0) for energy in (0.02, 0.3, 0.5, 1.0) for particle in ("photon", "electron")]
    lines += [Emission.line("photon", energy, 1.0) for energy in (0.005, 0.07, 0.15, 2.0)] + [ALPHA, POSITRON]
    with pytest.raises(SynthDoseError, match=r"100 histories are too few.*12 groups"):
        simulate(phantom_of(), KIDNEY, lines, RunSettings(histories=100, threads=1))


def test_few_batches_are_said_so():
    result = simulate(phantom_of(), KIDNEY, [BETA, GAMMA], RunSettings(histories=100, threads=1))
    assert result.histories == 100
    assert result.batches == 50
    lines = [Emission.line("photon", 0.1 + 0.1 * n, 1.0) for n in range(8)]
    few = simulate(phantom_of(), KIDNEY, lines, RunSettings(histories=100, threads=1))
    assert few.batches == 12
    assert any("12 batches only" in note for note in few.notes)


@pytest.mark.parametrize("particle", ["photon", "electron", "positron", "alpha"])
def test_energies_below_the_tables_stay_where_they_are(particle):
    """Below 1 keV (alphas: the shortest range) nothing is transported; a positron's quanta still are."""
    phantom, position = phantom_of(), (0.3, 0.4, 0.2)
    result = simulate(
        phantom, PointSource(position), [Emission.line(particle, 0.0009, 1.0)], RunSettings(histories=200, threads=1)
    )
    i, j, k = np.floor(GRID.to_ijk(position) + 0.5).astype(int)
    energy = float(result.dose.dose_Gy[k, j, i]) * 0.125 / 1.602176634e-10
    if particle == "positron":
        assert energy >= 0.0009
        assert result.energy_emitted_MeV == pytest.approx(1.02199790 + 0.0009)
    else:
        assert energy == pytest.approx(0.0009, rel=1e-5)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [({"histories": 3000}, "ended with its 3000 histories"), ({"max_seconds": 0.5}, r"ended after its 0\.5 s \(max_seconds\)")],
    ids=["histories", "time"],
)
def test_a_sigma_that_was_not_reached_is_told_with_the_organ_and_both_numbers(limit, reason):
    settings = RunSettings(relative_sigma=0.0002, organs=("liver",), threads=1, **limit)
    result = simulate(phantom_of(), KIDNEY, [BETA, GAMMA], settings)
    liver = result.organs[1]
    reached = 100 * liver.sigma_Gy / liver.dose_Gy
    (note,) = result.missed_sigma
    assert note in result.notes
    assert re.search(rf"asked for, 0\.02 %, was not reached: liver {reached:.3g} %\. The run {reason}", note)
    easy = RunSettings(relative_sigma=0.5, organs=("kidney",), threads=1, **limit)
    assert simulate(phantom_of(), KIDNEY, [BETA, GAMMA], easy).missed_sigma == ()


def test_a_matrix_tells_which_source_did_not_reach_its_sigma():
    settings = RunSettings(relative_sigma=0.001, histories=2000, threads=1)
    for row in simulate_s_values(phantom_of(), [GAMMA], settings, ["kidney", "liver"]):
        (note,) = row.notes
        assert f"was not reached: {row.source} " in note


# memory


def forecast_and_peak(edge: int) -> list[float]:
    """Memory of a run in a cube of so many voxels to a side, GiB: told before, and taken."""
    grid = VoxelGrid.from_spacing((edge,) * 3, (1.0, 1.0, 1.0))
    result = simulate(phantom_of(grid), KIDNEY, [BETA], RunSettings(histories=1000, threads=1))
    return [result.memory_forecast_GiB, result.memory_peak_GiB]


def test_what_a_run_takes_is_kept_beside_the_forecast():
    """10 million voxels: sums (16 bytes each), a tally (8) and the result (8) are new; the source is there before.

    In a process of its own: one that has calculated before takes less, because it has memory left.
    """
    script = "import json, test_transport_service as t; print(json.dumps(t.forecast_and_peak(216)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    forecast, peak = json.loads(done.stdout.splitlines()[-1])
    voxels = 216**3
    assert forecast == pytest.approx(needed_bytes(voxels, voxels, 1) / 2**30, rel=1e-12)
    assert 24 * voxels / 2**30 < peak < forecast


def test_memory_is_counted_per_voxel_and_thread():
    """Per voxel: 8 bytes of tally for each thread and component; 16 for sums and 8 for the result of each map; see `memory`."""
    voxels = 512 * 512 * 400
    one, two = (needed_bytes(voxels, voxels, n) for n in (1, 2))
    assert 8 * voxels < two - one < 10 * voxels
    assert one < (8 + 24 + 4) * voxels + 2**29
    assert needed_bytes(voxels, voxels, 1, 3) - one > 3 * 24 * voxels
    assert needed_bytes(voxels, voxels, 1, with_map=False) < one
    assert needed_bytes(voxels // 4, voxels, 1) < one


def test_threads_are_as_many_as_memory_allows(monkeypatch):
    voxels = 10**8
    for threads in (3, 7):
        for share, expected in ((0.9, threads), (0.91, threads - 1)):  # a tenth stays free for others
            free = int(needed_bytes(voxels, voxels, threads) / share) + 1
            monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
            assert affordable_threads(voxels, voxels, 8) == expected
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    with pytest.raises(SynthDoseError, match="Crop it to the body"):
        affordable_threads(voxels, voxels, 8)


# cancelling


@pytest.mark.parametrize("what", ["build_problem", "warm_up"])
def test_cancelling_is_felt_while_tables_are_built_and_kernels_compiled(monkeypatch, what):
    """Neither can be stopped, so neither is waited for."""
    asleep = threading.Event()

    def long(*_, **__):
        asleep.set()
        time.sleep(3)

    monkeypatch.setattr(engine, what, long)
    begun: list[float] = []

    def cancel(_):
        if asleep.is_set():
            begun.append(time.monotonic())
            raise Cancelled

    with pytest.raises(Cancelled):
        simulate(phantom_of(), KIDNEY, [BETA], RunSettings(histories=1000, threads=1), cancel)
    assert time.monotonic() - begun[0] < 0.5
