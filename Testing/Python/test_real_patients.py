"""The four plans of real patients (Testing/Plans) with few histories: the chain holds on data that nobody made for it."""

import csv
import dataclasses
import tarfile
from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.io import read_labels, read_volume
from SynthDoseLib.pipeline import RunPlan, read_plan
from SynthDoseLib.pipeline.run import run_patient

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
IMAGES = SHARED / "data" / "images"
PLANS = ROOT / "Testing" / "Plans"

pytestmark = [pytest.mark.shared, pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")]


def run(plan: RunPlan, out: Path, histories: int = 30_000) -> dict[str, dict[str, float]]:
    """Run a plan quickly and return the organ table."""
    dose = dataclasses.replace(plan.dose, histories=histories, relative_sigma=None)
    output = dataclasses.replace(plan.output, scene=False, radiomics=False)
    run_patient(dataclasses.replace(plan, dose=dose, output=output), out)
    with open(out / "organ_doses.csv", newline="", encoding="utf-8") as stream:
        return {row.pop("organ"): {k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(stream)}


def local_dose_Gy(tia_MBq_s: float, energy_MeV: float, mass_g: float) -> float:
    """Dose if all of `energy_MeV` per decay stays in the organ."""
    return tia_MBq_s * 1e6 * energy_MeV * 1.602176634e-13 / (mass_g / 1000)


def centroid_ras(folder: Path, organ: str) -> np.ndarray:
    labels = read_labels(folder / "labels.seg.nrrd")
    return labels.grid.to_ras(np.argwhere(labels.mask(organ))[:, ::-1].mean(axis=0))


def test_torso_with_totalsegmentator_labels(tmp_path):
    organs = run(read_plan(PLANS / "ct_torso_totalseg.toml"), tmp_path / "out")
    # Lu-177: 147.2 keV of electrons per decay (ICRP 107) stay in these large organs; photons (35 keV) add less than 10 %
    for organ, hours in (("liver", 8.0), ("spleen", 4.0), ("kidneys", 5.0)):
        row = organs[organ]
        expected = local_dose_Gy(7400 * hours * 3600, 0.1472, row["mass_g"])
        assert 0.97 * expected < row["mean_dose_Gy"] < 1.12 * expected, organ
    assert organs["liver"]["volume_ml"] == pytest.approx(41692 * 0.027, rel=1e-5)  # voxels of label 5, counted in the file
    assert organs["rest_of_body"]["mean_dose_Gy"] < 0.05 * organs["liver"]["mean_dose_Gy"]
    assert centroid_ras(tmp_path / "out", "liver")[0] > centroid_ras(tmp_path / "out", "spleen")[0]


def test_a_hip_implant_is_refused_until_its_material_is_named(tmp_path):
    plan = read_plan(PLANS / "ct_torso_totalseg.toml")
    phantom = dataclasses.replace(plan.phantom, metal_material="")
    tissue = dataclasses.replace(plan.segmentation, path=None, labels="", method="tissue")
    source = (dataclasses.replace(plan.organ_activity[0], organ="soft_tissue"),)
    dose = dataclasses.replace(plan.dose, organs=("soft_tissue",))
    plan = dataclasses.replace(plan, phantom=phantom, segmentation=tissue, organ_activity=source, dose=dose)
    with pytest.raises(SynthDoseError, match="metal"):
        run(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    phantom = dataclasses.replace(plan.phantom, metal_material="titanium_grade5")
    organs = run(dataclasses.replace(plan, phantom=phantom), tmp_path / "out", histories=5000)
    assert organs["bone"]["mass_g"] > 1000
    density, _, _ = read_volume(tmp_path / "out" / "density.nrrd")
    assert 4.4 < float(density.max()) < 4.5  # Ti-6Al-4V, 4.43 g/cm3


def test_dotatate_patient_from_interfile(tmp_path):
    plan = read_plan(PLANS / "lu177_dotatate_patient15.toml")
    organs = run(plan, tmp_path / "out")
    voxel_ml = 3.9063 * 3.9063 * 4.4196 / 1000
    counts = {"liver": 15381, "spleen": 1535, "kidney_left": 2052, "kidney_right": 2493, "tumour_1": 93, "tumour_3": 90}
    for organ, count in counts.items():  # source_regions.csv of the data set
        assert organs[organ]["volume_ml"] == pytest.approx(count * voxel_ml, rel=1e-3), organ
    row = organs["liver"]
    expected = local_dose_Gy(17.96 * 70 * 3600 / np.log(2), 0.1472, row["mass_g"])
    assert 0.97 * expected < row["mean_dose_Gy"] < 1.12 * expected
    # left is left, the liver is on the right, the lungs are above it, the couch is gone
    left, right = (centroid_ras(tmp_path / "out", f"kidney_{side}") for side in ("left", "right"))
    assert left[0] < right[0]
    density, grid, _ = read_volume(tmp_path / "out" / "density.nrrd")
    body = np.argwhere(density > 0)[:, ::-1]
    assert centroid_ras(tmp_path / "out", "liver")[0] > grid.to_ras(body.mean(axis=0))[0]
    spine = np.argwhere(density > 1.4)[:, ::-1]
    assert grid.to_ras(np.median(spine, axis=0))[1] < grid.to_ras(body.mean(axis=0))[1]  # bone lies behind the middle
    assert float(density.max()) < 2.5  # the couch of carbon fibre, 3000 in the map, is outside the body


def test_padded_dicom_ct_with_a_box_source(tmp_path):
    archive = IMAGES / "ct_chest_abdomen_crlm1004" / "CRLM-CT-1004_image_41.tar.xz"
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    plan = read_plan(PLANS / "crlm1004.toml", tmp_path)
    organs = run(plan, tmp_path / "out")
    row = organs["liver_box"]
    assert row["volume_ml"] == pytest.approx(75 * 80 * 60 / 1000, rel=0.1)
    assert row["mass_g"] / row["volume_ml"] == pytest.approx(1.06, abs=0.04)  # liver, 1.05-1.07 g/ml with contrast
    expected = local_dose_Gy(1e8, 0.1472, row["mass_g"])
    assert 0.97 * expected < row["mean_dose_Gy"] < 1.12 * expected
    assert organs["lungs"]["mass_g"] / organs["lungs"]["volume_ml"] < 0.5
    assert {p.name for p in (tmp_path / "out" / "dicom").iterdir()} == {"rtdose.dcm", "seg.dcm", "rtstruct.dcm"}


def test_pet_ct_with_rtstruct(tmp_path):
    organs = run(read_plan(PLANS / "petctmr_sts001.toml"), tmp_path / "out")
    tumour = organs["GTV_Mass_CT"]
    tia, _, _ = read_volume(tmp_path / "out" / "tia_MBq_s.nrrd")
    labels = read_labels(tmp_path / "out" / "labels.seg.nrrd")
    inside = float(tia[labels.mask("GTV_Mass_CT")].sum(dtype=np.float64))
    # F-18: 0.2416 MeV of positrons per decay stay. Of 0.988 MeV in 511 keV quanta a sphere of 400 g of tissue keeps 0.12 to
    # 0.17 (MIRD pamphlet 8), half of the positrons' energy or more, and the thigh around it sends some of its own
    positrons = local_dose_Gy(inside, 0.2416, tumour["mass_g"])
    assert 1.4 * positrons < tumour["mean_dose_Gy"] < 2.0 * positrons
    assert tumour["mean_dose_Gy"] > 2 * organs["rest_of_body"]["mean_dose_Gy"]
