"""Case files of ``synthdose simulate``: read to the letter, refused with one message, results all or none."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.cli import main
from SynthDoseLib.core import SynthDoseError, VoxelGrid
from SynthDoseLib.io import read_volume, write_volume
from SynthDoseLib.pipeline import case_file
from SynthDoseLib.pipeline.case import read_case, run_case
from SynthDoseLib.pipeline.toml_tables import read_table

GRID = VoxelGrid.from_spacing((9, 10, 11), (4.0, 4.0, 4.0))
CASE = """
[phantom]
materials = "materials.nrrd"
organs = "organs.nrrd"
[[phantom.material]]
index = 1
name = "water"
density_g_cm3 = 1.0
mass_fractions = { H = 0.111894, O = 0.888106 }
[[phantom.material]]
index = 7
name = "lung"
density_g_cm3 = 0.26
mass_fractions = { H = 0.111894, O = 0.888106 }
[[phantom.organ]]
index = 2
name = "kidneys"
[[phantom.organ]]
index = 3
name = "liver"
[source]
kind = "organs"
weights = { kidneys = 3, liver = 1 }
[[source.emission]]
particle = "electron"
yield_per_decay = 0.5
spectrum = "beta.csv"
[[source.emission]]
particle = "photon"
energy_MeV = 0.2
[run]
histories = 2000
threads = 1
"""
SPECTRUM = "energy_MeV,probability\n0.1,3\n0.2,1\n0.4,0\n"


@pytest.fixture
def case(tmp_path) -> Path:
    """Case file in a folder of its own."""
    materials = np.ones(GRID.shape, np.uint8)
    materials[6:] = 7
    organs = np.zeros(GRID.shape, np.uint8)
    organs[2:5, 3:7, 3:5] = 2
    organs[2:5, 3:7, 6:9] = 3
    write_volume(tmp_path / "materials.nrrd", materials, GRID)
    write_volume(tmp_path / "organs.nrrd", organs, GRID)
    (tmp_path / "beta.csv").write_text(SPECTRUM)
    (tmp_path / "CASE.toml").write_text(CASE)
    return tmp_path / "CASE.toml"


def rewrite(case: Path, old: str, new: str) -> None:
    text = case.read_text()
    assert old in text
    case.write_text(text.replace(old, new, 1))


def test_a_case_is_read_to_the_letter(case):
    read = read_case(case)
    assert [m.name for m in read.phantom.materials] == ["water", "lung"]
    assert read.phantom.density_g_cm3[0, 0, 0] == 1.0
    assert read.phantom.density_g_cm3[8, 0, 0] == np.float32(0.26)
    assert read.phantom.labels.voxel_counts() == {"kidneys": 24, "liver": 36}
    beta, gamma = read.emissions
    assert beta.yield_per_decay == 0.5
    assert beta.edges_MeV.tolist() == [0.1, 0.2, 0.4]
    assert beta.probability.tolist() == [0.75, 0.25]
    assert gamma.mean_energy_MeV == 0.2
    assert gamma.yield_per_decay == 1.0


def test_simulate_writes_what_the_design_promises(case, tmp_path):
    out = tmp_path / "new" / "out"
    assert main(["simulate", str(case), "--out", str(out)]) == 0
    assert sorted(file.name for file in out.iterdir()) == ["dose_Gy.nrrd", "organs.csv", "run.json", "sigma_Gy.nrrd"]
    dose, grid, unit = read_volume(out / "dose_Gy.nrrd")
    assert grid.matches(GRID)
    assert unit == "Gy"
    with (out / "organs.csv").open(newline="") as stream:
        rows = {row["organ"]: row for row in csv.DictReader(stream)}
    assert list(rows["kidneys"]) == ["organ", "mass_g", "dose_Gy", "sigma_Gy"]
    assert float(rows["kidneys"]["mass_g"]) == pytest.approx(24 * 0.064)
    read = read_case(case)
    assert float(rows["kidneys"]["dose_Gy"]) == pytest.approx(float(dose[read.phantom.labels.mask("kidneys")].mean()), rel=1e-5)
    record = json.loads((out / "run.json").read_text())
    assert record["histories"] == sum(record["histories_per_emission"]) == 2000
    for key in ("cpu_s", "wall_s", "transport_cpu_s", "device", "threads", "seed", "versions"):
        assert key in record
    total = record["energy_deposited_MeV"] + record["energy_escaped_MeV"]
    assert total == pytest.approx(record["energy_emitted_MeV"], rel=1e-6)
    assert record["energy_emitted_MeV"] == pytest.approx(0.2 + 0.5 * (0.75 * 0.15 + 0.25 * 0.3), rel=0.03)


PHASE_SPACE = """kind = "phase-space"
path = "beam.csv"
origin_mm_ras = [0, 0, 100]
x_axis_ras = [1, 0, 0]
z_axis_ras = [0, 0, -1]
"""


def as_phase_space(case: Path) -> None:
    text = case.read_text()
    begin, end = text.index('kind = "organs"'), text.index("[run]")
    case.write_text(text[:begin] + PHASE_SPACE + text[end:])
    rows = [f"photon,0.5,{x},0,0,0,0,1" for x in range(-10, 10)] + [f"electron,1.0,{x},5,0,0,0,1" for x in range(-10, 10)]
    (case.parent / "beam.csv").write_text("\n".join(["particle,energy_MeV,x_mm,y_mm,z_mm,u,v,w", *rows]))


def test_the_template_shows_every_key(capsys):
    assert main(["simulate", "--template"]) == 0
    text = capsys.readouterr().out
    for table in (case_file.CaseTable, case_file.PhantomTable, case_file.MaterialTable, case_file.OrganTable,
                  case_file.SourceTable, case_file.EmissionTable, case_file.RunTable):  # fmt: skip
        for field in dataclasses.fields(table):
            assert re.search(rf"^(# )?\[*(phantom\.|source\.)?{field.name}( =|\])|with {field.name} =", text, re.MULTILINE), (
                field.name
            )
    read_table(case_file.CaseTable, tomllib.loads(text), "The template")
    assert main(["simulate"]) == 2
    assert "--template" in capsys.readouterr().err


def test_a_phase_space_is_a_source(case, tmp_path):
    as_phase_space(case)
    result = run_case(case, tmp_path / "out")
    assert result.energy_emitted_MeV == pytest.approx(0.75)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["emissions"] == []
    assert "beam.csv" in record["inputs"]
    assert any("per original history" in note for note in record["notes"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("z_axis_ras = [0, 0, -1]", "", "lacks the key 'z_axis_ras'"), ("beam.csv", "no.csv", "no.csv"),
        ("origin_mm_ras", 'nuclide = "Lu-177"\norigin_mm_ras', "brings its own energies"),
        ("threads = 1", "threads = 1\ns_values = true", "needs a nuclide"),
        ("threads = 1", "threads = 1\ncomponents = true", "components = true needs"),
        ("origin_mm_ras", "original_histories = 3\norigin_mm_ras", "more than the 3 original"),
    ],
)  # fmt: skip
def test_a_bad_phase_space_case_is_refused(case, old, new, message):
    as_phase_space(case)
    rewrite(case, old, new)
    with pytest.raises(SynthDoseError, match=message):
        read_case(case)


def test_s_values_are_a_matrix_of_organs(case, tmp_path):
    rewrite(case, "threads = 1", "threads = 1\ns_values = true")
    run_case(case, tmp_path / "out")
    with (tmp_path / "out" / "s_values.csv").open(newline="") as stream:
        rows = {(row["source"], row["target"]): float(row["dose_Gy"]) for row in csv.DictReader(stream)}
    assert len(rows) == 4
    assert rows["kidneys", "kidneys"] > rows["kidneys", "liver"] > 0


def test_a_nuclide_brings_its_emissions_and_asks_about_its_progeny(case):
    text = case.read_text()
    start, end = text.index("[[source.emission]]"), text.index("[run]")
    case.write_text(text[:start] + 'nuclide = "Lu-177"\n' + text[end:])
    assert {e.particle for e in read_case(case).emissions} == {"electron", "photon"}
    rewrite(case, "Lu-177", "Ra-223")
    with pytest.raises(SynthDoseError, match="Rn-219"):
        read_case(case)
    rewrite(case, 'nuclide = "Ra-223"', 'nuclide = "Ra-223"\nprogeny = "all"')
    assert sum(e.yield_per_decay * e.mean_energy_MeV for e in read_case(case).emissions if e.particle == "alpha") > 25
    rewrite(case, "Ra-223", "Ra-233")
    with pytest.raises(SynthDoseError, match="Ra-223"):
        read_case(case)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("materials = ", "material_map = ", "unknown key 'material_map'.*'material"),
        ("histories = 2000", "histroies = 2000", "Did you mean 'histories'"),
        ('"materials.nrrd"', '"nothing.nrrd"', "nothing.nrrd"),
        ("index = 7", "index = 8", r"\[7\]"),
        ("index = 3", "index = 4", r"\[3\]"),
        ("O = 0.888106", "O = 0.5", "sum to"),
        ("O = 0.888106", "Ox = 0.888106", "'Ox'"),
        ("density_g_cm3 = 0.26", "density_g_cm3 = -1.0", "positive"),
        ('kind = "organs"', 'kind = "organ"', "Did you mean 'organs'"),
        ('kind = "organs"', 'kind = "phase-space"', "does not belong"),
        ('kind = "organs"', 'kind = "point"', "does not belong"),
        ("weights = { kidneys = 3, liver = 1 }", "weights = { kidney = 3 }", "kidneys, liver"),
        ('particle = "photon"', 'particle = "neutron"', "neutron"),
        ("energy_MeV = 0.2", "energy_MeV = 25.0", "20 MeV"),
        ("energy_MeV = 0.2", 'energy_MeV = 0.2\nspectrum = "beta.csv"', "either"),
        ('"beta.csv"', '"gamma.csv"', "gamma.csv"),
        ("[source]", '[source]\nnuclide = "Lu-177"', "both"),
        ("threads = 1", 'organs = ["heart"]', "no organ 'heart'"),
        ("histories = 2000", "seed = 2", "needs a limit"),
        ("[phantom]", "schema = 2\n[phantom]", "schema = 1"),
        ("[run]", "[run", "TOML"),
    ],
)
def test_bad_input_is_refused_with_one_message_and_nothing_is_written(case, tmp_path, capsys, old, new, message):
    rewrite(case, old, new)
    with pytest.raises(SynthDoseError, match=message):
        run_case(case, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(["simulate", str(case), "--out", str(tmp_path / "out")]) == 2


def test_an_empty_organ_is_refused(case):
    rewrite(case, "[source]", '[[phantom.organ]]\nindex = 9\nname = "spleen"\n[source]')
    with pytest.raises(SynthDoseError, match="'spleen'"):
        read_case(case)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("energy,probability\n0,1\n1,0\n", "energy_MeV,probability"),
        ("energy_MeV,probability\n0,1\n1,2\n", "has to be 0"),
        ("energy_MeV,probability\n0,1\nx,0\n", "not a number"),
        ("energy_MeV,probability\n0,-1\n1,0\n", "negative"),
        ("energy_MeV,probability\n0,0\n1,0\n", "all zero"),
        ("energy_MeV,probability\n1,1\n0,0\n", "increasing"),
        ("energy_MeV,probability\n0,1\n", "two rows"),
    ],
)
def test_a_bad_spectrum_is_refused(case, text, message):
    (case.parent / "beta.csv").write_text(text)
    with pytest.raises(SynthDoseError, match=message):
        read_case(case)


def test_volumes_without_a_place_in_the_patient_are_refused(case):
    data = np.ones(GRID.shape, np.uint8)
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 11 10 9\nspacings: 4 4 4\nencoding: raw\n\n"
    (case.parent / "materials.nrrd").write_bytes(header.encode() + data.tobytes())
    with pytest.raises(SynthDoseError, match="space"):
        read_case(case)


def test_density_per_voxel_is_used_and_has_to_be_on_the_same_grid(case):
    rewrite(case, 'organs = "organs.nrrd"', 'organs = "organs.nrrd"\ndensity = "density.nrrd"')
    write_volume(case.parent / "density.nrrd", np.full(GRID.shape, 1.05, np.float32), GRID)
    assert read_case(case).phantom.density_g_cm3.max() == np.float32(1.05)
    other = VoxelGrid.from_spacing(GRID.shape, (4.0, 4.0, 4.5))
    write_volume(case.parent / "density.nrrd", np.ones(GRID.shape, np.float32), other)
    with pytest.raises(SynthDoseError, match="another grid"):
        read_case(case)
    write_volume(case.parent / "density.nrrd", np.full(GRID.shape, -1, np.float32), GRID)
    with pytest.raises(SynthDoseError, match="not negative"):
        read_case(case)


def test_organs_on_another_grid_are_resampled_with_a_note(case):
    fine = VoxelGrid.from_spacing((18, 20, 22), (2.0, 2.0, 2.0))
    labels, _, _ = read_volume(case.parent / "organs.nrrd")
    write_volume(case.parent / "organs.nrrd", labels.repeat(2, 0).repeat(2, 1).repeat(2, 2), fine)
    read = read_case(case)
    assert np.array_equal(read.phantom.labels.labels, labels)
    assert any("resampled" in note for note in read.notes)
    far = VoxelGrid.from_spacing(GRID.shape, (4.0, 4.0, 4.0), origin_ras_mm=(1000.0, 0.0, 0.0))
    write_volume(case.parent / "organs.nrrd", labels, far)
    with pytest.raises(SynthDoseError, match="overlap"):
        read_case(case)


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_work(case, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SynthDoseError, match="it is a file"):
        run_case(case, tmp_path / "file")
    with pytest.raises(SynthDoseError, match="it is a file"):
        run_case(case, tmp_path / "file" / "out")


def test_the_dose_keeps_the_voxel_order_of_a_left_handed_file(case, tmp_path):
    """Slices from head to feet: read by another program, dose and materials still line up voxel by voxel."""
    import SimpleITK

    for name in ("materials", "organs"):
        image = SimpleITK.ReadImage(str(tmp_path / f"{name}.nrrd"))
        array = SimpleITK.GetArrayFromImage(image)[::-1]
        turned = SimpleITK.GetImageFromArray(np.ascontiguousarray(array))
        direction = np.asarray(image.GetDirection()).reshape(3, 3) @ np.diag([1, 1, -1])
        turned.SetOrigin(image.TransformIndexToPhysicalPoint((0, 0, image.GetSize()[2] - 1)))
        turned.SetSpacing(image.GetSpacing())
        turned.SetDirection(direction.ravel().tolist())
        SimpleITK.WriteImage(turned, str(tmp_path / f"{name}.nrrd"))
    assert main(["simulate", str(case), "--out", str(tmp_path / "out")]) == 0
    organs = SimpleITK.ReadImage(str(tmp_path / "organs.nrrd"))
    dose = SimpleITK.ReadImage(str(tmp_path / "out" / "dose_Gy.nrrd"))
    assert dose.GetDirection() == pytest.approx(organs.GetDirection())
    assert dose.GetOrigin() == pytest.approx(organs.GetOrigin())
    kidneys = SimpleITK.GetArrayFromImage(dose)[SimpleITK.GetArrayFromImage(organs) == 2].mean()
    with (tmp_path / "out" / "organs.csv").open(newline="") as stream:
        rows = {row["organ"]: row for row in csv.DictReader(stream)}
    assert float(rows["kidneys"]["dose_Gy"]) == pytest.approx(float(kidneys), rel=1e-5)


def test_components_are_written_one_by_one(case, tmp_path):
    rewrite(case, "threads = 1", "threads = 1\ncomponents = true")
    out = tmp_path / "out"
    run_case(case, out)
    names = {f"{what}_{part}_Gy.nrrd" for what in ("dose", "sigma") for part in ("photon", "electron")}
    whole = {"dose_Gy.nrrd", "sigma_Gy.nrrd", "organs.csv", "organs_components.csv", "run.json"}
    assert {file.name for file in out.iterdir()} == names | whole
    total, photon, electron = (read_volume(out / f"dose_{part}Gy.nrrd")[0] for part in ("", "photon_", "electron_"))
    assert np.allclose(photon + electron, total, rtol=1e-6, atol=0)
    with (out / "organs.csv").open(newline="") as stream:
        organs = {row["organ"]: float(row["dose_Gy"]) for row in csv.DictReader(stream)}
    with (out / "organs_components.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["organ", "component", "mass_g", "dose_Gy", "sigma_Gy"]
    for organ, dose in organs.items():
        parts = [float(row["dose_Gy"]) for row in rows if row["organ"] == organ]
        assert len(parts) == 2
        assert sum(parts) == pytest.approx(dose, rel=1e-6)


RUN_AND_DIE = """
import os, signal, sys
from SynthDoseLib.pipeline.case import run_case
from SynthDoseLib.transport import checkpoint
checkpoint.SECONDS_BETWEEN = 0.0
def progress(report):
    words = report.message.split()
    kept = os.path.exists(os.path.join(sys.argv[2], ".checkpoint.npz"))
    if len(words) > 1 and words[1].startswith("histories") and int(words[0]) > 100_000 and kept:
        os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
run_case(sys.argv[1], sys.argv[2], progress)
"""


def test_a_killed_run_is_resumed_to_the_same_result(case, tmp_path, capsys):
    """The process dies without a chance to clean up; the same command with --resume finishes what it began."""
    rewrite(case, "histories = 2000", "histories = 900_000")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run_case(case, straight)
    died = subprocess.run([sys.executable, "-c", RUN_AND_DIE, str(case), str(killed)], check=False, capture_output=True)
    assert died.returncode not in (0, 1, 2), died.stderr.decode()
    assert ".checkpoint.npz" in {file.name for file in killed.iterdir()}
    assert not (killed / "run.json").exists()
    with np.load(killed / ".checkpoint.npz") as kept:
        assert 0 < len(kept["organ_energy"]) < 64
    other = tmp_path / "OTHER.toml"
    other.write_text(case.read_text().replace("yield_per_decay = 0.5", "yield_per_decay = 0.6"))
    assert main(["simulate", str(other), "--out", str(killed), "--resume"]) == 2
    assert "another simulation" in capsys.readouterr().err
    assert main(["simulate", str(case), "--out", str(killed), "--resume"]) == 0
    assert sorted(file.name for file in killed.iterdir()) == ["dose_Gy.nrrd", "organs.csv", "run.json", "sigma_Gy.nrrd"]
    for name in ("dose_Gy.nrrd", "sigma_Gy.nrrd", "organs.csv"):
        assert (killed / name).read_bytes() == (straight / name).read_bytes()
    assert main(["simulate", str(case), "--out", str(tmp_path / "new"), "--resume"]) == 0  # nothing there: from the beginning


ORGANS = "weights = { kidneys = 3, liver = 1 }"
POINT = 'kind = "point"\nposition_mm_ras = [{}, 0, 0]'
SPHERE = 'kind = "sphere"\ncentre_mm_ras = [0, 0, 0]\nradius_mm = {}'
BEAM = 'kind = "beam"\ncentre_mm_ras = [{}, 0, 60]\ndirection_ras = [0, 0, -1]\nsize_mm = [10, 10]'
RUN = "histories = 2000\nthreads = 1"


@pytest.mark.parametrize(
    ("density", "old", "new", "message"),
    [
        ((2, 3, 3, 0.0), "", "", "zero density"),
        ((2, 3, 3, np.nan), "", "", "finite and not negative; found nan"),
        ((2, 3, 3, -0.1), "", "", "finite and not negative; found -0.1"),
        (None, 'kind = "organs"\n' + ORGANS, POINT.format(100.0), "outside the phantom"),
        ((4, 5, 5, 0.0), 'kind = "organs"\n' + ORGANS, POINT.format(0.0), "lies in vacuum"),
        (None, 'kind = "organs"\n' + ORGANS, SPHERE.format(30.0), "outside the phantom"),
        (None, 'kind = "organs"\n' + ORGANS, SPHERE.format(-1.0), "radius_mm"),
        (None, 'kind = "organs"\n' + ORGANS, BEAM.format(500.0), "misses the phantom"),
        (None, 'particle = "photon"\nenergy_MeV = 0.2', 'particle = "alpha"\nenergy_MeV = 12.0', "tables end at"),
        (None, 'particle = "photon"\nenergy_MeV = 0.2', 'particle = "photon"\nenergy_MeV = 0.0', "positive"),
        (None, 'particle = "photon"\nenergy_MeV = 0.2', 'particle = "photon"\nenergy_MeV = nan', "finite"),
        (None, RUN, "histories = 10", "at least 100"),
        (None, RUN, "histories = 1000\nrelative_sigma = 0.1", "needs the organs"),
        (None, RUN, 'histories = 1000\norgans = ["lung_left"]', "kidneys, liver"),
        (None, RUN, "max_seconds = -1", "max_seconds"),
        (None, RUN, "histories = 1000\nthreads = -1", "threads"),
        (None, RUN, 'histories = 1000\nestimator = "magic"', "auto, analog"),
        (None, "index = 7", "index = 300", "300|7"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_one_message(case, tmp_path, capsys, density, old, new, message):
    """Through the command line: exit 2, one message, nothing written."""
    if density is not None:
        k, j, i, value = density
        values = np.ones(GRID.shape, np.float32)
        values[k, j, i] = value
        write_volume(case.parent / "density.nrrd", values, GRID)
        rewrite(case, 'organs = "organs.nrrd"', 'organs = "organs.nrrd"\ndensity = "density.nrrd"')
    if old:
        rewrite(case, old, new)
    assert main(["simulate", str(case), "--out", str(tmp_path / "out")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("synthdose: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0]), lines[0]
    assert not (tmp_path / "out").exists()


def test_too_many_materials_are_refused(case):
    entry = "[[phantom.material]]\nindex = {}\nname = 'm{}'\ndensity_g_cm3 = 1.0\nmass_fractions = {{ O = 1.0 }}\n"
    rewrite(case, "[[phantom.organ]]", "".join(entry.format(n, n) for n in range(10, 270)) + "[[phantom.organ]]")
    with pytest.raises(SynthDoseError, match="at most 255 materials"):
        read_case(case)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C there without its parent getting it")
def test_ctrl_c_ends_a_running_simulation_within_a_second_and_keeps_it(case, tmp_path):
    rewrite(case, "histories = 2000", "histories = 50_000_000_000")
    command = [
        sys.executable,
        "-m",
        "SynthDoseLib",
        "simulate",
        str(case),
        "--out",
        str(tmp_path / "out"),
        "--progress",
        "json",
    ]
    # a shell's background job, which the tests may be, passes on that Ctrl-C is ignored
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    try:
        for line in process.stderr:
            words = json.loads(line)["message"].split() if line.startswith("{") else []
            if len(words) > 1 and words[1].startswith("histories"):
                break
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
        assert time.monotonic() - begun < 1.0
    finally:
        process.kill()
    assert process.returncode == 130
    assert "--resume" in errors
