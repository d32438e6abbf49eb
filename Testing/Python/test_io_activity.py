"""PET and SPECT: activity in Bq/ml at a known time, with what later stages need."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from SynthDoseLib.core import ImageVolume, SynthDoseError, VoxelGrid
from SynthDoseLib.io import DicomStudy, read_image, write_dicom_series
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


def test_counts_take_the_unit_that_the_user_states(tmp_path):
    image = spect()
    write_dicom_series(tmp_path / "a", ImageVolume(image.grid, image.values, "NM", "counts", NOW, image.metadata))
    assert read_image(tmp_path / "a").unit == "counts"
    stated = read_image(tmp_path / "a", unit="Bq/ml")
    assert stated.unit == "Bq/ml"
    assert "as stated by the user" in stated.notes[-1]


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


def test_suv_stays_suv_with_what_its_conversion_needs(tmp_path):
    _, again = pet(tmp_path, unit="g/ml", decay_correction="ADMIN")
    assert (again.unit, again.metadata["suv_type"], again.metadata["patient_weight_kg"]) == ("g/ml", "BW", 70)
    assert again.notes == ()


def test_suv_by_lean_body_mass_is_not_taken_for_body_weight(tmp_path):
    _, again = pet(tmp_path, unit="g/ml", change=lambda d: setattr(d, "SUVType", "LBM"))
    assert again.unit == "g/ml (LBM)"


def test_counts_with_the_factor_of_philips_become_activity(tmp_path):
    def philips(dataset):
        dataset.Units, dataset.Manufacturer = "CNTS", "Philips Medical Systems"
        block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x09, "DS", "2.5")

    image, again = pet(tmp_path, change=philips)
    assert again.unit == "Bq/ml"
    np.testing.assert_allclose(again.values, 2.5 * image.values, atol=25)
    assert "factor of 2.5 Bq/ml" in again.notes[0]


def test_a_pet_that_lacks_slices_at_its_end_is_told_of(tmp_path):
    paths = write_dicom_series(tmp_path / "p", spect(), modality="PT")
    paths[-1].unlink()
    assert "speaks of 6 slices, 5 are there" in read_image(tmp_path / "p").notes[0]


@pytest.mark.parametrize("injected", ["7400", "7.4e9"])
def test_the_injected_activity_of_spect_is_read_in_mbq_and_in_bq(tmp_path, injected):
    [path] = write_dicom_series(tmp_path / "a", spect())
    edit(path, lambda d: setattr(d.RadiopharmaceuticalInformationSequence[0], "RadionuclideTotalDose", injected))
    image = read_image(path)
    assert image.metadata["injected_activity_MBq"] == pytest.approx(7400)
    assert bool(image.notes) == (injected == "7.4e9")


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
