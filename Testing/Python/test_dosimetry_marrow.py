import csv
import json

import numpy as np
import pytest

from SynthDoseLib.core import (
    DoseMap,
    Emission,
    LabelMap,
    SynthDoseError,
    VoxelGrid,
    VoxelPhantom,
    organ_table,
    resource_path,
    sha256_of,
)
from SynthDoseLib.dosimetry import (
    Spongiosa,
    absorbed_fractions,
    active_marrow_distribution,
    bones_of,
    marrow_doses,
    marrow_enhancement,
    photon_ratio,
    stopping_ratio,
    trabecula_thickness_cm,
)
from SynthDoseLib.dosimetry.spongiosa import DETOUR
from SynthDoseLib.io import write_volume
from SynthDoseLib.physics import csda_range, decay_emissions, get_material
from SynthDoseLib.pipeline.case import run_case
from SynthDoseLib.transport import OrganSource, RunSettings, simulate

MARROW, BONE = get_material("red_marrow"), get_material("cortical_bone")
ENERGIES = np.array([0.01, 0.02, 0.03, 0.05, 0.08, 0.15, 0.3, 1.0, 3.0])
# ICRP Publication 70 (1996), Table 41, adult of 40 years, % of the active marrow
ICRP_70_PERCENT = {
    "cranium": 7.6, "mandible": 0.8, "scapulae": 2.8, "clavicles": 0.8, "sternum": 3.1, "ribs": 16.1, "cervical_spine": 3.9,
    "thoracic_spine": 16.1, "lumbar_spine": 12.3, "sacrum": 9.9, "pelvis": 17.5, "femora_upper_half": 6.7,
    "humeri_upper_half": 2.3,
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(resource_path("dosimetry").glob("*.json")), ids=lambda p: p.stem)
def test_every_table_of_dosimetry_has_a_sidecar_that_describes_these_bytes(path):
    about = json.loads(path.read_text(encoding="utf-8"))
    assert about["sha256"] == sha256_of(path.with_name(about["file"]))
    assert all(about[key] for key in ("source", "edition", "licence", "changes", "checks", "retrieved"))


@pytest.mark.parametrize("sex", ["male", "female", "mean"])
def test_active_marrow_is_distributed_as_in_icrp_70(sex):
    shares = active_marrow_distribution(sex)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert {bone: pytest.approx(percent / 100, abs=6e-4) for bone, percent in ICRP_70_PERCENT.items()} == shares


def test_one_material_has_neither_enhancement_nor_ratio():
    homogeneous = Spongiosa(0.2, bone=MARROW)
    marrow, endosteum = marrow_enhancement(homogeneous, ENERGIES)
    assert np.allclose(marrow, 1, atol=1e-3)
    assert np.allclose(endosteum, 1, atol=1e-2)  # the layer is thin against the quadrature's steps
    for energies in (0.003, 0.1, 2.0):
        absorbed, near = absorbed_fractions(homogeneous, energies)
        assert absorbed == pytest.approx(1 - homogeneous.bone_mass_fraction, rel=1e-3)
        assert near == pytest.approx(absorbed * homogeneous.endosteum_mass_fraction, rel=0.02)
    assert np.allclose(photon_ratio(MARROW, MARROW, ENERGIES), 1)
    assert np.allclose(stopping_ratio(MARROW, MARROW, ENERGIES), 1)


def test_a_short_range_leaves_a_thick_plate_through_a_quarter_of_the_range_of_its_surface():
    """Mean over depth, direction and energy left: per face a quarter of R / t times the mean of E(left) / E along the range."""
    structure = Spongiosa(0.5, trabecula_cm=0.4, bone=MARROW)
    energy = 0.05
    reach = float(csda_range(MARROW, energy)) / MARROW.density_g_cm3
    assert reach < 0.02 * structure.trabecula_cm
    grid = np.linspace(0, 1, 4001)[1:]  # path to the face over range
    energies = np.geomspace(1e-3, energy, 4000)
    ranges = np.asarray(csda_range(MARROW, energies)) / MARROW.density_g_cm3
    left = np.interp((1 - grid) * reach, ranges, energies, left=0.0) / energy
    # depth z = u R cos: mean over directions of one side (1/2), depths and both faces
    expected = 2 * 0.5 * 0.5 * reach / DETOUR / structure.trabecula_cm * float(left.mean())
    found, _ = absorbed_fractions(structure, energy, source="bone")
    assert found == pytest.approx(expected, rel=0.01)


def test_energy_is_shared_between_bone_and_marrow_reciprocally():
    """Dose by a uniform source per volume: what bone gives to marrow and marrow to bone is alike if both are one material."""
    structure = Spongiosa(0.3, bone=MARROW)
    for energy in (0.02, 0.1, 0.5):
        from_bone, _ = absorbed_fractions(structure, energy, source="bone")
        in_marrow, _ = absorbed_fractions(structure, energy, source="marrow")
        assert 0.3 * from_bone == pytest.approx(0.7 * (1 - in_marrow), rel=0.02)


def test_long_ranges_share_by_mass_and_stopping_power():
    structure = Spongiosa(0.145)
    found, _ = absorbed_fractions(structure, 2.5, source="surface")
    bone = structure.bone_mass_fraction
    ratio = float(1 / stopping_ratio(BONE, MARROW, 2.5))
    assert found == pytest.approx((1 - bone) * ratio / (bone + (1 - bone) * ratio), rel=0.015)


def test_surface_sources_give_half_to_short_ranges():
    found, near = absorbed_fractions(Spongiosa(0.145), 0.01, source="surface")
    assert found == pytest.approx(0.5, abs=1e-3)
    assert near == pytest.approx(0.5, abs=1e-3)
    alpha, _ = absorbed_fractions(Spongiosa(0.145), 5.5, source="surface", particle="alpha")
    assert alpha == pytest.approx(0.5, abs=0.01)


def test_enhancement_has_the_known_shape():
    """No effect at 10 keV (electrons too short), most near 50-60 keV, gone above 200 keV, more where there is more bone."""
    energies = np.array([0.008, 0.02, 0.055, 0.2, 1.0])
    some, _ = marrow_enhancement(Spongiosa(0.12), energies)
    more, _ = marrow_enhancement(Spongiosa(0.3), energies)
    assert some[0] == pytest.approx(1, abs=0.01)
    assert energies[np.argmax(some)] == 0.055
    assert some[-1] == pytest.approx(1, abs=0.02)
    assert (more >= some)[1:].all()


def test_plates_share_energy_as_the_transport_engine_finds():
    """Straight lines with a detour against multiple scattering in the same plates: 0.1 mm of bone every 0.7 mm."""
    grid = VoxelGrid.from_spacing((98, 3, 3), (10.0, 10.0, 0.05))
    bone = np.isin(np.arange(98) % 14, (6, 7))[:, None, None] & np.ones(grid.shape, bool)
    labels = np.where(bone, 3, 4).astype(np.uint16)
    labels[48:50, 1, 1], labels[50:62, 1, 1] = 1, 2
    density = np.where(bone, BONE.density_g_cm3, MARROW.density_g_cm3)
    organs = organ_table(["bone", "marrow", "other_bone", "other_marrow"])
    phantom = VoxelPhantom(grid, bone.astype(np.uint8), density, (MARROW, BONE), LabelMap(grid, labels, organs))
    structure = Spongiosa(2 / 14, trabecula_cm=0.01)
    for energy in (0.05, 0.2, 0.6):
        for source in ("bone", "marrow"):
            settings = RunSettings(histories=6000, seed=5, threads=1, estimator="analog")
            emission = Emission.line("electron", energy, 1.0)
            result = simulate(phantom, OrganSource({source: 1.0}), [emission], settings)
            deposited = {o.organ: o.dose_Gy * o.mass_g for o in result.organs}
            in_marrow = (deposited["marrow"] + deposited["other_marrow"]) / sum(deposited.values())
            found, _ = absorbed_fractions(structure, energy, source=source)
            # 0.02 is what the plates may differ by, 4 sigma of 6000 histories that each give all or nothing at worst 0.026
            assert float(found) == pytest.approx(in_marrow, abs=0.02 + 4 * np.sqrt(in_marrow * (1 - in_marrow) / 6000))


def test_plates_have_the_surface_of_the_endosteum():
    assert trabecula_thickness_cm(1100, 580) == pytest.approx(102e-4, rel=0.01)
    assert Spongiosa(0.2, trabecula_cm=0.01).cavity_cm == pytest.approx(0.04)


def bone_phantom(names=("vertebrae_L1", "hip_left", "liver"), densities=(1.1, 1.3, 1.06), material="red_marrow"):
    grid = VoxelGrid.from_spacing((1, 1, 30), (4.0, 4.0, 4.0))
    labels = np.repeat(np.arange(1, len(names) + 1), 30 // len(names)).reshape(grid.shape)
    density = np.repeat(densities, 30 // len(names)).reshape(grid.shape)
    materials = (get_material(material), get_material("liver"))
    index = (labels == len(names)).astype(np.uint8)
    return VoxelPhantom(grid, index, density, materials, LabelMap(grid, labels, organ_table(names)))


def dose_like(phantom, values):
    shape = phantom.grid.shape
    return DoseMap(phantom.grid, np.broadcast_to(values, shape).copy(), np.zeros(shape))


PHOTON, BETA = Emission.line("photon", 0.2, 1.0), Emission.line("electron", 0.5, 1.0)


def test_marrow_in_marrow_has_the_dose_of_its_voxels():
    phantom = bone_phantom()
    found = marrow_doses(dose_like(phantom, 2.0), phantom, [BETA])
    assert found.red_marrow.mean_dose_Gy == pytest.approx(2.0, rel=1e-6)
    assert found.endosteum.mean_dose_Gy == pytest.approx(2.0, rel=1e-6)
    assert found.marrow_seen == pytest.approx(0.123 + 0.175, abs=1e-3)
    assert "30%" in found.notes[0]


def test_bones_count_by_their_share_of_the_active_marrow_not_by_their_size():
    phantom = bone_phantom()
    dose = dose_like(phantom, np.repeat([1.0, 3.0, 50.0], 10))
    found = marrow_doses(dose, phantom, [BETA], organ_sigma={"vertebrae_L1": 0.01, "hip_left": 0.03})
    assert found.red_marrow.mean_dose_Gy == pytest.approx((12.3 * 1 + 17.5 * 3) / (12.3 + 17.5), rel=2e-3)
    assert found.red_marrow.sigma_Gy == pytest.approx(0.01 * found.red_marrow.mean_dose_Gy, rel=1e-6)
    assert (found.red_marrow.min_Gy, found.red_marrow.max_Gy) == pytest.approx((1.0, 3.0))


def test_voxels_of_compact_bone_hold_no_marrow():
    phantom = bone_phantom(densities=(1.92, 1.475, 1.06))
    found = marrow_doses(dose_like(phantom, np.repeat([9.0, 3.0, 0.0], 10)), phantom, [BETA])
    assert found.red_marrow.mean_dose_Gy == pytest.approx(3.0)
    half = 10 * 0.064 * 0.5 * 1.03  # half of each voxel is marrow
    assert found.endosteum.mass_g == pytest.approx(half * Spongiosa().endosteum_mass_fraction, rel=1e-5)


def test_photons_and_betas_have_their_own_factors_and_what_is_unknown_is_uncertainty():
    phantom = bone_phantom(material="spongiosa")
    dose = dose_like(phantom, 1.0)
    photons, betas = (marrow_doses(dose, phantom, [e]) for e in (Emission.line("photon", 0.06, 1.0), BETA))
    spongiosa = get_material("spongiosa")
    expected = float(photon_ratio(MARROW, spongiosa, 0.06) * marrow_enhancement(Spongiosa(), 0.06)[0])
    assert photons.red_marrow.mean_dose_Gy == pytest.approx(expected, rel=1e-6)
    assert betas.red_marrow.mean_dose_Gy == pytest.approx(float(stopping_ratio(MARROW, spongiosa, 0.5)), rel=1e-6)
    emissions = [Emission.line("photon", 0.06, 1.0), BETA]
    bones = ("vertebrae_L1", "hip_left")
    components = {"photon": dict.fromkeys(bones, 1.0), "electron": dict.fromkeys(bones, 3.0)}
    known = marrow_doses(dose, phantom, emissions, components=components)
    quarter = 0.25 * photons.red_marrow.mean_dose_Gy + 0.75 * betas.red_marrow.mean_dose_Gy
    assert known.red_marrow.mean_dose_Gy == pytest.approx(quarter, rel=1e-6)
    unknown = marrow_doses(dose, phantom, emissions)
    distance = abs(photons.red_marrow.mean_dose_Gy - betas.red_marrow.mean_dose_Gy)
    assert unknown.red_marrow_model_sigma_Gy >= distance / np.sqrt(12)
    assert "not scored apart" in " ".join(unknown.notes)


def test_soft_x_rays_of_a_nuclide_do_not_decide_the_photon_factor():
    """Lu-177 sends out most photon energy at 113 and 208 keV, where bone and marrow absorb alike within a few per cent."""
    phantom = bone_phantom(material="spongiosa")
    photons = [e for e in decay_emissions("Lu-177") if e.particle == "photon"]
    found = marrow_doses(dose_like(phantom, 1.0), phantom, photons)
    lines = np.array([0.2084, 0.1129, 0.0556])  # gamma rays, and the K X rays of hafnium; energies per decay in keV (ICRP 107)
    energy = np.array([23.0, 7.2, 2.9])
    ratio = photon_ratio(MARROW, get_material("spongiosa"), lines) * marrow_enhancement(Spongiosa(), lines)[0]
    assert found.red_marrow.mean_dose_Gy == pytest.approx(float(energy @ ratio / energy.sum()), rel=0.01)
    y90 = marrow_doses(dose_like(phantom, 1.0), phantom, decay_emissions("Y-90"))
    assert y90.red_marrow.mean_dose_Gy == pytest.approx(float(stopping_ratio(MARROW, get_material("spongiosa"), 1.0)), rel=0.01)
    assert "not scored apart" not in " ".join(y90.notes)


def test_activity_in_the_marrow_gives_short_ranged_particles_the_whole_energy():
    phantom = bone_phantom(material="spongiosa")
    alpha = Emission.line("alpha", 5.5, 1.0)
    found = marrow_doses(dose_like(phantom, 1.0), phantom, [alpha], source="marrow")
    structure = Spongiosa()
    assert found.red_marrow.mean_dose_Gy == pytest.approx(1 / (1 - structure.bone_mass_fraction), rel=0.03)


def test_one_label_for_the_skeleton_or_none_at_all():
    phantom = bone_phantom(names=("skeleton", "liver"), densities=(1.2, 1.06))
    found = marrow_doses(dose_like(phantom, 1.5), phantom, [BETA])
    assert found.marrow_seen == pytest.approx(1.0)
    assert found.red_marrow.mean_dose_Gy == pytest.approx(1.5)
    without = bone_phantom(names=("spleen", "liver"), densities=(1.06, 1.06))
    assert marrow_doses(dose_like(without, 1.0), without, [BETA]) is None


CASE = """
[phantom]
materials = "materials.nrrd"
organs = "organs.nrrd"
[[phantom.material]]
index = 1
name = "marrow"
density_g_cm3 = 1.03
mass_fractions = { H = 0.105, C = 0.414, N = 0.034, O = 0.439, P = 0.001, S = 0.002, Cl = 0.002, K = 0.002, Fe = 0.001 }
[[phantom.organ]]
index = 1
name = "sacrum"
[[phantom.organ]]
index = 2
name = "muscles"
[source]
kind = "organs"
weights = { sacrum = 1 }
[[source.emission]]
particle = "electron"
energy_MeV = 0.1
[run]
histories = 2000
threads = 1
marrow = true
"""


def test_simulate_adds_rows_for_red_marrow_and_endosteum(tmp_path):
    """A bone that is nothing but marrow: both have its own dose."""
    grid = VoxelGrid.from_spacing((6, 6, 6), (5.0, 5.0, 5.0))
    organs = np.full(grid.shape, 2, np.uint8)
    organs[2:4, 2:4, 2:4] = 1
    write_volume(tmp_path / "materials.nrrd", np.ones(grid.shape, np.uint8), grid)
    write_volume(tmp_path / "organs.nrrd", organs, grid)
    (tmp_path / "case.toml").write_text(CASE)
    run_case(tmp_path / "case.toml", tmp_path / "out")
    with open(tmp_path / "out" / "organs.csv", newline="", encoding="utf-8") as stream:
        rows = {row["organ"]: float(row["dose_Gy"]) for row in csv.DictReader(stream)}
    assert list(rows) == ["sacrum", "muscles", "red_marrow", "endosteum"]
    assert rows["red_marrow"] == pytest.approx(rows["sacrum"], rel=1e-5)
    assert rows["endosteum"] == pytest.approx(rows["sacrum"], rel=1e-5)
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["marrow"]["share_of_active_marrow_seen"] == pytest.approx(0.099, abs=1e-3)
    (tmp_path / "case.toml").write_text(CASE.replace("sacrum", "liver"))
    with pytest.raises(SynthDoseError, match="needs bones among the organs"):
        run_case(tmp_path / "case.toml", tmp_path / "none")


def test_bones_are_known_by_the_names_of_the_organ_table():
    assert bones_of("vertebrae_C1") == ("cervical_spine",)
    assert bones_of("vertebrae") == ("cervical_spine", "thoracic_spine", "lumbar_spine")
    assert bones_of("femoral_head_right") == ("femora_upper_half",)
    assert bones_of("costal_cartilages") == bones_of("tibia_left") == ()


def test_what_is_not_known_is_refused():
    phantom = bone_phantom()
    with pytest.raises(SynthDoseError, match="source 'blood'"):
        marrow_doses(dose_like(phantom, 1.0), phantom, [BETA], source="blood")
    with pytest.raises(SynthDoseError, match="sex"):
        active_marrow_distribution("child")
    with pytest.raises(SynthDoseError, match="between 0 and 1"):
        Spongiosa(1.0)
