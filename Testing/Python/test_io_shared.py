"""Real images and segmentations of ../shared, against what their makers say of them."""

from __future__ import annotations

import tarfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from SynthDoseLib.core import DoseMap, SynthDoseError, resample
from SynthDoseLib.io import (
    read_image,
    read_labels,
    read_rtdose,
    write_dicom_seg,
    write_rtdose,
    write_rtstruct,
    write_segmentation,
)
from SynthDoseLib.io.polygons import polygon_area
from SynthDoseLib.io.rtstruct import read_structures
from SynthDoseLib.kinetics import activity_from_suv

SHARED = Path(__file__).resolve().parents[3] / "shared"
IMAGES = SHARED / "data" / "images"
pytestmark = [pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared"), pytest.mark.shared]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Folder with the packed DICOM series, unpacked."""
    folder = tmp_path_factory.mktemp("series")
    for name in ("ct_chest_abdomen_crlm1004/CRLM-CT-1004_image_41.tar.xz", "pet_fdg_raw_sts001/FDG_PET_image_267.tar.xz"):
        with tarfile.open(IMAGES / name) as archive:
            archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def crlm(unpacked):
    return read_image(unpacked / "CRLM-CT-1004")


@pytest.fixture(scope="module")
def sts_ct():
    return read_image(IMAGES / "petctmr_sts001_ibsi" / "CT")


def test_dicom_ct_of_41_slices_with_padding(crlm):
    assert crlm.grid.shape == (41, 512, 512)
    assert crlm.grid.spacing_mm == pytest.approx((0.796875, 0.796875, 5.0))
    assert (crlm.modality, crlm.unit, crlm.acquired_at) == ("CT", "HU", datetime(1994, 11, 22, 14, 51, 59))
    assert crlm.values.min() == -1024
    corners = crlm.values[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == -1000).all()
    assert any("-3024 HU" in note for note in crlm.notes)
    # fat and muscle of the abdomen are where they belong on the HU scale
    middle = crlm.values[20, 200:312, 150:360]
    assert -150 < np.percentile(middle, 5) < np.percentile(middle, 95) < 400


def test_geometry_agrees_with_itk_for_a_real_series(unpacked, crlm):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(unpacked / "CRLM-CT-1004" / "image")))
    other = reader.Execute()
    values = SimpleITK.GetArrayFromImage(other)
    np.testing.assert_array_equal(crlm.values[values > -1500], values[values > -1500])
    for ijk in [(0, 0, 0), (511, 100, 40)]:
        lps = other.TransformIndexToPhysicalPoint(ijk)
        np.testing.assert_allclose(crlm.grid.to_ras(ijk), np.multiply(lps, (-1, -1, 1)), atol=1e-3)


def test_whole_body_pet_with_uneven_slices_and_what_suv_needs(unpacked):
    pet = read_image(unpacked / "FDG_PET")
    assert (pet.modality, pet.unit) == ("PT", "Bq/ml")
    assert pet.grid.shape == (267, 128, 128)
    assert any("not evenly spaced (3.190 to 3.290 mm)" in note for note in pet.notes)
    assert pet.acquired_at == datetime(2000, 9, 7, 11, 20, 11)
    says = pet.metadata
    assert (says["radionuclide"], says["half_life_s"], says["decay_correction"]) == ("F-18", 6588.0, "START")
    assert says["injected_at"] == datetime(2000, 9, 7, 10, 35)
    assert says["injected_activity_MBq"] == pytest.approx(388.777472)
    assert (says["patient_weight_kg"], says["patient_height_m"], says["patient_age_years"]) == (71, 1.63, 59)


def test_suv_of_the_ibsi_pet_converts_to_the_activity_of_the_original_pet(unpacked):
    """The IBSI PET is the same scan as SUV (ratio 1.0000 by MANIFEST.md); ours must be its Bq/ml again."""
    raw = read_image(unpacked / "FDG_PET")
    suv = read_image(IMAGES / "petctmr_sts001_ibsi" / "PET")
    assert (suv.unit, suv.metadata["suv_type"]) == ("g/ml", "BW")
    says = suv.metadata
    activity = activity_from_suv(
        suv,
        injected_MBq=says["injected_activity_MBq"],
        weight_kg=says["patient_weight_kg"],
        seconds_since_injection=(suv.acquired_at - says["injected_at"]).total_seconds(),
        physical_half_life_s=says["half_life_s"],
    )
    original = resample(raw.values, raw.grid, suv.grid)
    hot = original > 20000
    assert hot.sum() > 300
    # the slices of the raw PET were resampled by up to some hundredths of a slice
    assert np.median(activity.values[hot] / original[hot]) == pytest.approx(1.0, abs=0.002)
    assert np.corrcoef(activity.values[hot], original[hot])[0, 1] > 0.995


def test_a_study_with_ct_pet_and_mr_lists_them_and_takes_the_one_asked_for():
    folder = IMAGES / "petctmr_sts001_ibsi"
    with pytest.raises(SynthDoseError, match=r"3 series: CT .*59 files.*MR .*59 files.*PT .*59 files"):
        read_image(folder)
    for modality, shape in (("CT", (59, 202, 198)), ("PT", (59, 43, 41)), ("MR", (59, 158, 174))):
        assert read_image(folder, modality=modality).grid.shape == shape


@pytest.mark.parametrize("name", ["CT", "PET", "MR_T1"])
def test_rtstruct_volume_is_that_of_its_contours(name):
    folder = IMAGES / "petctmr_sts001_ibsi" / name
    image = read_image(folder / "image")
    labels = read_labels(folder / "mask", reference_image=image)
    [structure] = read_structures(folder / "mask" / "RS.dcm")[0]
    assert len(structure.contours) == 32
    area = sum(polygon_area(image.grid.to_ijk(c)[:, :2]) for c in structure.contours)
    assert labels.voxel_counts()[structure.name] == pytest.approx(area, rel=0.004)
    assert labels.notes == ()


def test_contours_drawn_on_the_pet_fall_into_the_same_place_on_the_ct(sts_ct):
    folder = IMAGES / "petctmr_sts001_ibsi"
    on_ct = read_labels(folder / "CT" / "mask", reference_image=sts_ct)
    from_pet = read_labels(folder / "PET" / "mask", reference_image=sts_ct)
    a, b = on_ct.mask("GTV_Mass_CT"), from_pet.mask("GTV_Mass_PET")
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.99


def test_contours_of_another_patient_are_refused(crlm):
    with pytest.raises(SynthDoseError, match="another frame of reference"):
        read_labels(IMAGES / "petctmr_sts001_ibsi" / "CT" / "mask", reference_image=crlm)


def test_original_rtstruct_with_two_structures(unpacked):
    pet = read_image(unpacked / "FDG_PET")
    labels = read_labels(IMAGES / "pet_fdg_raw_sts001" / "mask" / "1-1.dcm", reference_image=pet)
    volumes = {name: count * pet.grid.voxel_volume_ml for name, count in labels.voxel_counts().items()}
    assert {name.split("_")[-1].lower() for name in volumes} >= {"mass", "edema"}
    # MANIFEST.md: the tumour is the IBSI one, 365 ml
    tumour = next(v for name, v in volumes.items() if "mass" in name.lower())
    assert tumour == pytest.approx(365.2, rel=0.01)


@pytest.mark.parametrize("name", ["binary", "binary_fractional", "true_fractional"])
def test_dicom_seg_of_highdicom(name):
    path = IMAGES / "seg_highdicom" / f"seg_image_ct_{name}.dcm"
    labels = read_labels(path)
    [organ] = labels.organs
    assert (organ.name, organ.snomed_code) == ("first segment", "272673000")  # bone
    assert labels.grid.spacing_mm == pytest.approx((0.488281, 0.488281, 1.25))
    frames = pydicom.dcmread(path)
    expected = frames.pixel_array / (1 if name == "binary" else frames.MaximumFractionalValue) >= 0.5
    assert labels.voxel_counts()["first segment"] == expected.sum()
    assert bool(labels.notes) == (name != "binary")


def test_total_segmentator_labels_on_their_ct_survive_a_slicer_segmentation(tmp_path):
    folder = IMAGES / "ct_torso_totalseg"
    ct = read_image(folder / "example_ct.nii.gz", modality="CT")
    labels = read_labels(folder / "example_seg_fast_force_split.nii.gz", reference=ct.grid)
    assert (len(labels.organs), labels.notes) == (61, ())
    assert (ct.values.min(), ct.values.max()) == (-1207, 3382)
    write_segmentation(tmp_path / "a.seg.nrrd", labels)
    again = read_labels(tmp_path / "a.seg.nrrd", reference=ct.grid)
    np.testing.assert_array_equal(again.labels, labels.labels)


def test_interfile_patient_with_stated_place_is_upright_and_faces_forward():
    path = IMAGES / "lu177_dotatate_patient15" / "patient15_LuDOTATATE_attn.h33"
    with pytest.raises(SynthDoseError, match=r"State orientation .* and spacing_mm"):
        read_image(path)
    # columns run to the left, rows to the front (the couch comes first), slices to the feet (the lungs come first)
    arguments = {"spacing_mm": (3.9063, 3.9063, 4.4196), "orientation": "LAI"}
    image = read_image(path, **arguments, hu_offset=-1000)
    assert image.grid.shape == (90, 70, 108)
    assert (image.values.min(), image.values.max(), image.unit) == (-1000, 2000, "HU")
    sources = read_labels(path.with_name("patient15_LuDOTATATE_src.h33"), **arguments)
    middle = {}
    for line in (path.parent / "source_regions.csv").read_text().splitlines()[1:]:
        region, value, voxels, _ = line.split(",")
        mask = sources.mask(f"label_{value}")
        assert mask.sum() == int(voxels)
        middle[region] = image.grid.to_ras(np.argwhere(mask)[:, ::-1]).mean(axis=0)
    couch = image.grid.to_ras(np.argwhere(image.values == 2000)[:, ::-1]).mean(axis=0)
    assert middle["Liver"][0] > 0 > middle["Spleen"][0]
    assert middle["R Kidney"][0] > 0 > middle["L Kidney"][0]
    assert middle["Spleen"][2] > middle["L Kidney"][2]
    assert couch[1] < middle["R Kidney"][1] < middle["Liver"][1]


def test_mr_in_nrrd_and_nifti():
    brain = read_image(IMAGES / "mri_brain1_pyradiomics" / "brain1_image.nrrd")
    assert brain.grid.is_right_handed
    labels = read_labels(IMAGES / "mri_brain1_pyradiomics" / "brain1_label.nrrd", reference=brain.grid)
    assert labels.voxel_counts() == {"label_1": 4137}
    assert read_image(IMAGES / "mri_flair_lesion" / "FLAIR.nii.gz").grid.shape == (140, 160, 124)


def test_rtdose_of_other_systems():
    proton = read_rtdose(next((IMAGES / "rt" / "dcpt_plan06").glob("RD*.dcm")))
    assert proton.grid.shape == (127, 89, 127)
    assert proton.grid.spacing_mm == pytest.approx((2.5, 2.5, 2.5))
    assert proton.values.max() == pytest.approx(2.27, abs=0.005)
    with pytest.raises(SynthDoseError, match="holds dose in 'RELATIVE'"):
        read_rtdose(IMAGES / "rt" / "pydicom_small" / "rtdose.dcm")


def test_an_rtstruct_without_preamble_is_read():
    path = IMAGES / "rt" / "pydicom_small" / "rtstruct.dcm"
    structures, _ = read_structures(path)
    assert structures


def test_breast_plan_structures_on_its_ct_slice():
    folder = IMAGES / "rt" / "dicompyler_example"
    ct = read_image(folder / "ct.0.dcm")
    labels = read_labels(folder / "rtss.dcm", reference_image=ct)
    assert len(labels.organs) == 10
    assert any(labels.voxel_counts().values())


def test_results_on_a_real_ct_read_back_the_same(tmp_path, sts_ct):
    labels = read_labels(IMAGES / "petctmr_sts001_ibsi" / "CT" / "mask", reference_image=sts_ct)
    mask = labels.mask("GTV_Mass_CT")
    write_dicom_seg(tmp_path / "seg.dcm", labels, sts_ct, deidentify=True)
    write_rtstruct(tmp_path / "rs.dcm", labels, sts_ct, deidentify=True)
    for name in ("seg", "rs"):
        again = read_labels(tmp_path / f"{name}.dcm", reference_image=sts_ct)
        np.testing.assert_array_equal(again.mask("GTV_Mass_CT"), mask)
    dose = np.where(mask, 3.0, 0.01).astype(np.float32)
    write_rtdose(tmp_path / "rd.dcm", DoseMap(sts_ct.grid, dose, dose), sts_ct, deidentify=True)
    again = read_rtdose(tmp_path / "rd.dcm")
    assert again.grid.matches(sts_ct.grid)
    np.testing.assert_allclose(again.values, dose, rtol=1e-4)
