"""PET and SPECT: activity in Bq/ml at a known time, with what later stages need."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from SynthDoseLib.core import ImageVolume, SynthDoseError, VoxelGrid
from SynthDoseLib.io import DicomStudy, activity_fields, read_image, read_native_slices, write_dicom_series
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


def test_a_pet_read_and_written_again_is_not_corrected_twice(tmp_path):
    image, again = pet(tmp_path, decay_correction="ADMIN")
    assert again.metadata["decay_correction"] == "START"
    assert again.metadata["decay_correction_header"] == "ADMIN"
    write_dicom_series(tmp_path / "second", again)
    np.testing.assert_allclose(read_image(tmp_path / "second").values.max(), again.values.max(), rtol=1e-4)
    assert again.values.max() < image.values.max() * 0.95


def test_what_the_header_says_wrongly_is_overridden_before_it_is_used(tmp_path):
    image, _ = pet(tmp_path, decay_correction="ADMIN")
    as_start = read_image(tmp_path / "p", overrides={"decay_correction": "START"})
    np.testing.assert_allclose(as_start.values.max(), image.values.max(), rtol=1e-4)
    earlier = read_image(tmp_path / "p", overrides={"injected_at": datetime(2024, 1, 31, 9)})
    np.testing.assert_allclose(earlier.values.max(), image.values.max() * 0.5 ** (3600 / 574300), rtol=1e-4)
    with pytest.raises(SynthDoseError, match="lacks its injection time"):
        read_image(tmp_path / "p", overrides={"injected_at": None})


def test_counts_with_only_the_suv_factor_of_philips_become_suv(tmp_path):
    def philips(dataset):
        dataset.Units, dataset.Manufacturer = "CNTS", "Philips"
        block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", "0.0005")
        block.add_new(0x09, "DS", "0")

    image, again = pet(tmp_path, change=philips)
    assert again.unit == "g/ml"
    np.testing.assert_allclose(again.values, 0.0005 * image.values, atol=0.01)
    assert again.metadata["suv_factor"] == 0.0005
    assert "factor of 0.0005 g/ml" in again.notes[0]


def test_the_scan_start_in_ges_private_element_is_used_for_a_series_made_later(tmp_path):
    def later(dataset):
        dataset.SeriesTime, dataset.Manufacturer = "150000", "GE MEDICAL SYSTEMS"
        dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20240131095500.00")

    _, again = pet(tmp_path, change=later)
    assert again.acquired_at == datetime(2024, 1, 31, 9, 55)
    assert "scanner's private element" in again.notes[0]


def test_the_duration_of_a_spect_is_that_of_its_rotation(tmp_path):
    write_dicom_series(tmp_path / "a", spect())
    assert read_image(tmp_path / "a").metadata["duration_s"] == 2400.0  # 120 views of 20 s


def test_native_slices_keep_their_own_places_and_values(tmp_path):
    image = spect()
    paths = write_dicom_series(tmp_path / "p", image, modality="PT")

    def nearer(dataset):
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y + 0.8 * np.sin(TURN), z - 0.8 * np.cos(TURN)]

    edit(paths[3], nearer)
    native = read_native_slices(tmp_path / "p")
    assert native.values.shape == SHAPE
    np.testing.assert_allclose(native.values, image.values, atol=1e6 / 65535 * 0.51)
    assert len(native.placements) == SHAPE[0]
    assert any("not evenly spaced" in note for note in read_image(tmp_path / "p").notes)
    assert not any("not evenly spaced" in note for note in native.notes)


def test_the_table_of_fields_says_where_each_value_comes_from(tmp_path):
    _, again = pet(tmp_path, decay_correction="ADMIN")
    fields = {f.name: f for f in activity_fields(again, {"patient_height_m": 1.7, "sensitivity_cps_per_MBq": 9.4})}
    assert (fields["injected_activity_MBq"].value, fields["injected_activity_MBq"].source) == ("7400", "header")
    assert (fields["patient_height_m"].value, fields["patient_height_m"].source) == ("1.7", "plan")
    assert fields["decay_correction"].source == "computed"
    assert fields["decay_correction_header"].value == "ADMIN"
    assert (fields["patient_sex"].value, fields["patient_sex"].source) == ("", "missing")
    assert fields["sensitivity_cps_per_MBq"].source == "plan"
    assert fields["acquired_at"].value == "2024-01-31 10:00:00"


def test_what_the_header_lacks_comes_from_the_plan_and_nothing_else_does(tmp_path):
    image, _ = pet(tmp_path, decay_correction="ADMIN")
    wrong = {"injected_at": datetime(2024, 1, 31, 9), "patient_height_m": 1.7}
    again = read_image(tmp_path / "p", defaults=wrong)
    np.testing.assert_allclose(again.values.max(), image.values.max() * 0.5 ** (24.5 * 3600 / 574300), rtol=1e-4)
    assert again.metadata["patient_height_m"] == 1.7
    with pytest.raises(SynthDoseError, match="whose time has a time zone"):
        read_image(tmp_path / "p", overrides={"injected_at": datetime(2024, 1, 31, 9, tzinfo=UTC)})
