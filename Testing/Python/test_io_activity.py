"""PET and SPECT: activity in Bq/ml at a known time, with what later stages need."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from SynthDoseLib.core import ImageVolume, SynthDoseError, VoxelGrid
from SynthDoseLib.io import DicomStudy, read_image, suv_to_bq_ml, write_dicom_series
from SynthDoseLib.io.dicom_files import save_dataset
from SynthDoseLib.io.dicom_metadata import nuclide_name

SHAPE = (6, 20, 24)
NOW = datetime(2024, 1, 31, 10, 0, 0)
TURN = np.radians(20)
OBLIQUE = np.array([[1, 0, 0], [0, np.cos(TURN), -np.sin(TURN)], [0, np.sin(TURN), np.cos(TURN)]])
LU_177 = {
    "radionuclide": "Lu-177",
    "half_life_s": 574300.0,
    "injected_activity_MBq": 7400.0,
    "injected_at": datetime(2024, 1, 30, 9, 30),
}


def edit(path: Path, change) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    save_dataset(dataset, path)


def assert_same(image, expected, tolerance=0.0):
    assert image.grid.matches(expected.grid, 1e-4)
    np.testing.assert_allclose(image.values, expected.values, rtol=0, atol=tolerance)


def refuse(path, says):
    with pytest.raises(SynthDoseError, match=says):
        read_image(path)


def spect(**more):
    grid = VoxelGrid.from_spacing(SHAPE, (4, 4, 5), (50, -30, 20), OBLIQUE)
    values = np.random.default_rng(3).random(SHAPE).astype(np.float32) * 1e6
    return ImageVolume(grid, values, modality="NM", unit="Bq/ml", acquired_at=NOW, metadata={**LU_177, **more})


@pytest.mark.parametrize("modality", ["NM", "PT"])
def test_activity_comes_back_in_bq_per_ml_with_what_is_needed_to_use_it(tmp_path, modality):
    image = spect()
    write_dicom_series(tmp_path / "a", image, DicomStudy(patient_weight_kg=70, patient_sex="F"), modality=modality)
    again = read_image(tmp_path / "a")
    # 16 bit, so half of a 65535th of the maximum
    assert_same(again, image, tolerance=1e6 / 65535 * 0.51)
    assert (again.unit, again.modality, again.acquired_at) == ("Bq/ml", modality, NOW)
    for key, value in LU_177.items():
        assert again.metadata[key] == pytest.approx(value) if isinstance(value, float) else again.metadata[key] == value
    assert again.metadata["patient_weight_kg"] == 70
    assert again.notes == ()


def test_spect_slices_are_stacked_as_the_sign_of_their_spacing_says(tmp_path):
    image = spect()
    [path] = write_dicom_series(tmp_path / "a", image)

    def downwards(dataset):
        detector = dataset.DetectorInformationSequence[0]
        last = image.grid.to_ras((0, 0, SHAPE[0] - 1)) * (-1, -1, 1)
        detector.ImagePositionPatient = [f"{v:.6f}" for v in last]
        dataset.SpacingBetweenSlices = "-5"
        dataset.PixelData = dataset.pixel_array[::-1].tobytes()

    edit(path, downwards)
    assert_same(read_image(path), image, tolerance=10)


def test_projections_and_several_windows_are_refused(tmp_path):
    [path] = write_dicom_series(tmp_path / "a", spect())
    original = path.read_bytes()
    edit(path, lambda d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]))
    refuse(path, "no reconstructed SPECT")
    path.write_bytes(original)
    edit(path, lambda d: setattr(d, "NumberOfSlices", 3))
    refuse(path, "several energy windows")


def pet(tmp_path, unit="Bq/ml", change=lambda d: None, **more):
    image = spect(**more)
    values = image.values if unit == "Bq/ml" else image.values / 1e5
    study = DicomStudy(patient_weight_kg=70)
    paths = write_dicom_series(tmp_path / "p", ImageVolume(image.grid, values, "PT", unit, NOW, image.metadata), study)
    for path in paths:
        edit(path, change)
    return image, read_image(tmp_path / "p")


def test_pet_corrected_to_the_injection_is_brought_to_the_scan(tmp_path):
    image, again = pet(tmp_path, decay_correction="ADMIN")
    hours = 24.5
    np.testing.assert_allclose(again.values.max(), image.values.max() * 0.5 ** (hours * 3600 / 574300), rtol=1e-4)
    assert "decay-corrected to the injection" in again.notes[0]


def test_pet_corrected_to_the_injection_without_its_time_is_refused(tmp_path):
    with pytest.raises(SynthDoseError, match="lacks its injection time"):
        pet(
            tmp_path,
            decay_correction="ADMIN",
            change=lambda d: [
                d.RadiopharmaceuticalInformationSequence[0].__delitem__(k)
                for k in ("RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime")
            ],
        )


def test_pet_slices_acquired_one_after_the_other_without_correction_are_brought_to_the_first(tmp_path):
    image = spect(half_life_s=6588.0)
    paths = write_dicom_series(
        tmp_path / "p",
        ImageVolume(image.grid, image.values, "PT", "Bq/ml", NOW, {**image.metadata, "decay_correction": "NONE"}),
    )
    edit(paths[5], lambda d: setattr(d, "AcquisitionTime", "101000"))
    again = read_image(tmp_path / "p")
    np.testing.assert_allclose(again.values[5].mean() / image.values[5].mean(), 2 ** (600 / 6588), rtol=1e-4)
    np.testing.assert_allclose(again.values[4], image.values[4], atol=10)


def test_a_series_time_after_the_acquisition_is_not_the_scan_time(tmp_path):
    _, again = pet(tmp_path, change=lambda d: setattr(d, "SeriesTime", "150000"))
    assert again.acquired_at == NOW
    assert "later than the first acquisition" in again.notes[0]


def test_suv_becomes_activity_by_its_definition(tmp_path):
    _, again = pet(tmp_path, unit="g/ml")
    assert again.unit == "g/ml"
    activity = suv_to_bq_ml(again)
    # 7400 MBq 24.5 h before the scan in 70 kg
    per_suv = 7400e6 * 0.5 ** (24.5 * 3600 / 574300) / 70000
    np.testing.assert_allclose(activity.values, again.values * per_suv, rtol=1e-6)
    assert activity.unit == "Bq/ml"
    with pytest.raises(SynthDoseError, match="not in g/ml"):
        suv_to_bq_ml(activity)


def test_what_suv_lacks_is_named_and_can_be_given(tmp_path):
    _, again = pet(tmp_path, unit="g/ml", change=lambda d: d.__delitem__("PatientWeight"))
    with pytest.raises(SynthDoseError, match="patient_weight_kg is not in the file"):
        suv_to_bq_ml(again)
    assert suv_to_bq_ml(again, patient_weight_kg=80).unit == "Bq/ml"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("^18^Fluorine", "F-18"),
        ("Lutetium-177", "Lu-177"),
        ("^177^Lutetium", "Lu-177"),
        ("lu177", "Lu-177"),
        ("Tc^99m^", "Tc-99m"),
        ("99mTc-MDP", "Tc-99m"),
        ("Y-90 microspheres", "Y-90"),
        ("FDG -- fluorodeoxyglucose", ""),
        ("Solution 500", ""),
        (None, ""),
    ],
)
def test_nuclides_are_recognised_in_the_spellings_of_scanners(text, name):
    assert nuclide_name(text) == name
