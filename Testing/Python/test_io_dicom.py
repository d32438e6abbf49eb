"""DICOM images: every value at its place, and what is refused."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, generate_uid

from SynthDoseLib.core import ImageVolume, SynthDoseError, VoxelGrid
from SynthDoseLib.io import DicomStudy, read_image, write_dicom_series
from SynthDoseLib.io.dicom_files import save_dataset

SHAPE = (6, 20, 24)
NOW = datetime(2024, 1, 31, 10, 0, 0)
TURN = np.radians(20)
OBLIQUE = np.array([[1, 0, 0], [0, np.cos(TURN), -np.sin(TURN)], [0, np.sin(TURN), np.cos(TURN)]])


def ct_image(directions=None):
    values = np.random.default_rng(1).integers(-1000, 3000, SHAPE).astype(np.float32)
    grid = VoxelGrid.from_spacing(SHAPE, (1.1, 1.3, 2.5), (5, 6, 7), directions)
    return ImageVolume(grid, values, modality="CT", unit="HU", acquired_at=NOW)


@pytest.fixture
def ct():
    return ct_image()


@pytest.fixture
def series(tmp_path, ct):
    """Files of a CT series, in slice order."""
    return write_dicom_series(tmp_path / "ct", ct)


def edit(path: Path, change) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    save_dataset(dataset, path)


def assert_same(image, expected, tolerance=0.0):
    assert image.grid.matches(expected.grid, 1e-4)
    np.testing.assert_allclose(image.values, expected.values, rtol=0, atol=tolerance)


@pytest.mark.parametrize("directions", [None, OBLIQUE, OBLIQUE[:, [1, 2, 0]]], ids=["axial", "oblique", "other plane"])
def test_a_ct_series_comes_back_exactly_and_as_itk_reads_it(tmp_path, directions):
    ct = ct_image(directions)
    write_dicom_series(tmp_path / "ct", ct)
    image = read_image(tmp_path / "ct")
    assert_same(image, ct)
    assert (image.modality, image.unit, image.acquired_at) == ("CT", "HU", NOW)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    other = reader.Execute()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(other), ct.values)
    for ijk in [(0, 0, 0), (23, 19, 5)]:
        lps = other.TransformContinuousIndexToPhysicalPoint([float(n) for n in ijk])
        np.testing.assert_allclose(ct.grid.to_ras(ijk), np.multiply(lps, (-1, -1, 1)), atol=1e-4)


def test_file_names_and_instance_numbers_do_not_decide_the_order(ct, series):
    for number, path in enumerate(series):
        edit(path, lambda d, n=number: setattr(d, "InstanceNumber", (n * 5) % 7))
        path.rename(path.with_name(f"{(number * 5) % 7}.dcm"))
    assert_same(read_image(series[0].parent), ct)


def test_files_without_suffix_in_subfolders_are_found_and_others_ignored(tmp_path, ct, series):
    for number, path in enumerate(series):
        folder = tmp_path / "cd" / f"S{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"IM{number}")
    (tmp_path / "cd" / "readme.txt").write_text("no image")
    assert_same(read_image(tmp_path / "cd"), ct)


def mirrored_columns(dataset):
    """Store the columns in reverse, saying so in the header: the same patient."""
    row = np.array([float(v) for v in dataset.ImageOrientationPatient[:3]])
    position = np.array([float(v) for v in dataset.ImagePositionPatient])
    far = position + row * float(dataset.PixelSpacing[1]) * (dataset.Columns - 1)
    dataset.ImagePositionPatient = [f"{v:.6f}" for v in far]
    dataset.ImageOrientationPatient = [f"{v:.6f}" for v in -row] + list(dataset.ImageOrientationPatient[3:])
    dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[:, ::-1]).tobytes()


def test_columns_stored_from_the_other_side_are_the_same_patient(ct, series):
    for path in series:
        edit(path, mirrored_columns)
    image = read_image(series[0].parent)
    assert image.grid.is_right_handed
    for value in np.unique(ct.values)[::97]:
        here = {tuple(p) for p in np.round(image.grid.to_ras(np.argwhere(image.values == value)[:, ::-1]), 3)}
        there = {tuple(p) for p in np.round(ct.grid.to_ras(np.argwhere(ct.values == value)[:, ::-1]), 3)}
        assert here == there


def test_slope_and_intercept_of_each_slice_are_used(ct, series):
    for n, path in enumerate(series):
        edit(path, lambda d, n=n: setattr(d, "RescaleSlope", str(n + 1)) or setattr(d, "RescaleIntercept", str(-10 * n)))
    image = read_image(series[0].parent)
    warm = ct.values > -200  # six times colder is padding
    factors = np.arange(1, 7)[:, None, None]
    np.testing.assert_allclose(image.values[warm], (ct.values * factors - 10 * (factors - 1))[warm])


def test_big_endian_files_are_read(ct, series):
    for path in series:
        dataset = pydicom.dcmread(path)
        dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        if int(pydicom.__version__.split(".")[0]) < 3:
            dataset.is_little_endian = False
            save_dataset(dataset, path)
        else:
            pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    assert pydicom.dcmread(series[0]).file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    assert_same(read_image(series[0].parent), ct)


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless", "JPEGLSLossless"])
def test_compressed_series_are_read(tmp_path, syntax):
    if int(pydicom.__version__.split(".")[0]) < 3:
        pytest.skip("pydicom 2 writes no compressed files")
    if syntax == "JPEGLSLossless":
        pytest.importorskip("jpeg_ls")
    values = np.random.default_rng(4).integers(-1000, 3000, (3, 70, 80)).astype(np.float32)
    ct = ImageVolume(VoxelGrid.from_spacing(values.shape, (1, 1, 2)), values, modality="CT")
    paths = write_dicom_series(tmp_path / "c", ct)
    for path in paths:
        edit(path, lambda d: d.compress(getattr(pydicom.uid, syntax)))
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID.is_compressed
    assert_same(read_image(tmp_path / "c"), ct)


def test_jpeg_lossless_written_by_gdcm_is_read(tmp_path):
    values = np.random.default_rng(2).integers(0, 4000, (16, 16)).astype(np.uint16)
    image = SimpleITK.GetImageFromArray(values[None])
    image.SetMetaData("0008|0060", "MR")
    writer = SimpleITK.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(image)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness, dataset.Modality = [1, 1], 2, "MR"
    save_dataset(dataset, tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm").values[0], values)


def test_padding_is_set_to_air_and_counted(ct, series):
    def pad(dataset):
        array = dataset.pixel_array.copy()
        array[:2] = -3024
        dataset.PixelData, dataset.PixelPaddingValue = array.tobytes(), -3024
        dataset["PixelPaddingValue"].VR = "SS"

    for path in series:
        edit(path, pad)
    image = read_image(series[0].parent)
    assert (image.values[:, :2] == -1000).all()
    assert any("288 of 2880 voxels held the file's padding value (-3024 HU)" in n for n in image.notes)


def test_padding_that_looks_like_tissue_is_not_touched(ct, series):
    for path in series:
        edit(path, lambda d: d.add_new(0x00280120, "SS", 40))
    image = read_image(series[0].parent)
    assert_same(image, ct)
    assert "CT number of tissue" in image.notes[0]


def test_uneven_slices_are_resampled_to_even_ones_with_a_note(tmp_path):
    heights = np.array([0.0, 3.19, 6.46, 9.75, 12.94, 16.21])
    grid = VoxelGrid.from_spacing(SHAPE, (1, 1, 3))
    ramp = np.broadcast_to((100 * heights)[:, None, None], SHAPE).astype(np.float32)
    paths = write_dicom_series(tmp_path / "ct", ImageVolume(grid, ramp, modality="CT"))
    for path, height in zip(paths, heights, strict=True):
        edit(path, lambda d, z=height: setattr(d, "ImagePositionPatient", [0, 0, z]))
    image = read_image(tmp_path / "ct")
    assert image.grid.spacing_mm[2] == pytest.approx(16.21 / 5)
    # a linear ramp is interpolated exactly, to the rounding of the stored values
    z = image.grid.to_ras([(0, 0, k) for k in range(6)])[:, 2]
    np.testing.assert_allclose(image.values[:, 0, 0], 100 * z, atol=0.6)
    assert "not evenly spaced" in image.notes[0]


def test_two_slice_thicknesses_in_one_series_are_not_taken_for_missing_slices(tmp_path):
    heights = np.array([0.0, 2, 4, 9, 14, 19])
    paths = write_dicom_series(tmp_path / "ct", ct_image())
    for path, height in zip(paths, heights, strict=True):
        edit(path, lambda d, z=height: setattr(d, "ImagePositionPatient", [0, 0, z]))
    image = read_image(tmp_path / "ct")
    assert image.grid.spacing_mm[2] == pytest.approx(2)
    assert image.grid.shape[0] == 10


def test_a_tilted_gantry_is_straightened(tmp_path):
    """A function of place, linear in y and z, sampled on sheared slices, comes back as the same function."""
    step, shift = 3.0, 0.9
    grid = VoxelGrid.from_spacing(SHAPE, (1, 1, step))
    k, j, _ = np.indices(SHAPE)
    paths = write_dicom_series(
        tmp_path / "ct", ImageVolume(grid, (20.0 * (j + shift * k) + 7 * step * k).astype(np.float32), modality="CT")
    )
    for n, path in enumerate(paths):
        edit(
            path,
            lambda d, n=n: (
                setattr(d, "ImagePositionPatient", [0, shift * n, step * n]),
                setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 1, 0]),
            ),
        )
    image = read_image(tmp_path / "ct")
    assert "sheared" in image.notes[0]
    inside = image.values > -900
    assert inside.mean() > 0.7
    points = image.grid.to_ras(np.argwhere(inside)[:, ::-1])
    np.testing.assert_allclose(image.values[inside], 20 * -points[:, 1] + 7 * points[:, 2], atol=0.1)


@pytest.mark.parametrize("gone", [1, 3, 4])
def test_a_missing_slice_is_named_by_its_place(ct, series, gone):
    heights = [float(pydicom.dcmread(p).ImagePositionPatient[2]) for p in series]
    series[gone].unlink()
    with pytest.raises(SynthDoseError, match=f"missing between {heights[gone - 1]:.2f} and {heights[gone + 1]:.2f} mm"):
        read_image(series[0].parent)


def test_a_first_slice_that_is_missing_shows_in_the_numbers(ct, series):
    assert not read_image(series[0].parent).notes
    first = min(series, key=lambda path: pydicom.dcmread(path).InstanceNumber)
    first.unlink()
    (said,) = read_image(series[0].parent).notes
    assert said.startswith("The slices are numbered 2 to 6: ")
    assert said.endswith("1 of one end are missing.")


def test_every_second_slice_missing_in_part_of_the_series_is_found_by_the_numbers(tmp_path):
    image = ct_image()
    grid = VoxelGrid.from_spacing((12, 20, 24), (1, 1, 2))
    paths = write_dicom_series(tmp_path / "ct", ImageVolume(grid, np.concatenate([image.values] * 2), modality="CT"))
    for n in (7, 9):
        paths[n].unlink()
    with pytest.raises(SynthDoseError, match="slices are missing"):
        read_image(tmp_path / "ct")


def refuse(folder, says, **arguments):
    with pytest.raises(SynthDoseError, match=says) as caught:
        read_image(folder, **arguments)
    assert "\n" not in str(caught.value)


def test_a_slice_twice_is_refused(series):
    shutil.copy(series[2], series[2].with_name("copy.dcm"))
    refuse(series[0].parent, r"there more than once.*CT\.0003\.dcm")


def test_two_series_are_listed_and_can_be_chosen(tmp_path, ct):
    study = DicomStudy()
    write_dicom_series(tmp_path / "all" / "a", ct, study, description="thin\0 bone")
    paths = write_dicom_series(tmp_path / "all" / "b", ct, study, description="soft")
    refuse(tmp_path / "all", r"2 series: CT 'thin bone', 6 files, series [\d.]+; CT 'soft', 6 files")
    uid = str(pydicom.dcmread(paths[0]).SeriesInstanceUID)
    assert read_image(tmp_path / "all", series=uid).metadata["series_description"] == "soft"
    assert_same(read_image(tmp_path / "all" / "a"), ct)
    refuse(tmp_path / "all", "no CT, MR, PET or SPECT series with SeriesInstanceUID 1.2.3", series="1.2.3")


def test_the_modality_chooses_and_a_wrong_one_is_named(tmp_path, ct):
    write_dicom_series(tmp_path / "all" / "ct", ct)
    pet = ImageVolume(ct.grid, np.abs(ct.values), modality="PT", unit="Bq/ml", acquired_at=NOW)
    write_dicom_series(tmp_path / "all" / "pet", pet)
    assert read_image(tmp_path / "all", modality="PT").unit == "Bq/ml"
    refuse(tmp_path / "all", "holds no MR series. It holds: CT", modality="MR")
    refuse(tmp_path / "all", "modality = 'XX' is not known", modality="XX")


def test_an_empty_folder_is_refused(tmp_path):
    refuse(tmp_path, "holds no DICOM file")


def test_mixed_orientations_sizes_and_pixel_spacings_are_refused(series):
    original = series[2].read_bytes()
    edit(series[2], lambda d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1]))
    refuse(series[0].parent, "different orientations")
    series[2].write_bytes(original)
    edit(series[2], lambda d: setattr(d, "PixelSpacing", [2, 2]))
    refuse(series[0].parent, "different pixel sizes")
    series[2].write_bytes(original)
    edit(series[2], lambda d: (setattr(d, "Rows", 10), setattr(d, "PixelData", d.PixelData[: 10 * 24 * 2])))
    refuse(series[0].parent, "different numbers of pixels")


def test_a_scout_view_in_the_series_is_left_out(ct, series):
    shutil.copy(series[0], series[0].with_name("scout.dcm"))

    def scout(dataset):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()

    edit(series[0].with_name("scout.dcm"), scout)
    image = read_image(series[0].parent)
    assert_same(image, ct)
    assert "scout" in image.notes[0]


def test_headers_that_lack_the_place_or_the_pixels_are_refused(series):
    original = series[2].read_bytes()
    edit(series[2], lambda d: d.__delitem__("ImagePositionPatient"))
    refuse(series[0].parent, "does not say where the image is")
    series[2].write_bytes(original)
    edit(series[2], lambda d: setattr(d, "ImagePositionPatient", ["nan", "0", "0"]))
    refuse(series[0].parent, "does not say where the image is")
    series[2].write_bytes(original[: int(len(original) * 0.7)])
    refuse(series[0].parent, "incomplete|damaged")
    series[2].write_bytes(original)
    edit(series[2], lambda d: setattr(d, "RescaleSlope", "0"))
    refuse(series[0].parent, "rescale slope")
    series[2].write_bytes(original)
    for path in series:
        edit(path, lambda d: (setattr(d, "Rows", 60000), setattr(d, "Columns", 60000)))
    refuse(series[0].parent, "declares 3600000000 pixels")


def test_a_colour_image_is_refused(series):
    edit(series[1], lambda d: setattr(d, "SamplesPerPixel", 3))
    refuse(series[0].parent, "colour")


def test_control_characters_of_the_header_do_not_reach_the_user(series):
    for path in series:
        edit(path, lambda d: setattr(d, "SeriesDescription", "a\x1b[31mred\x07\nline"))
    assert read_image(series[0].parent).metadata["series_description"] == "a [31mred line"


def test_what_dicom_says_itself_cannot_be_stated_otherwise(series):
    refuse(series[0].parent, "Leave spacing_mm and orientation out", spacing_mm=(1, 1, 1), orientation="LPS")
    refuse(series[0].parent, "values are in HU, but unit = 'Bq/ml'", unit="Bq/ml")


def test_one_file_is_one_slice_with_a_note(series):
    image = read_image(series[3])
    assert image.grid.shape == (1, 20, 24)
    assert image.grid.spacing_mm[2] == pytest.approx(2.5)
    assert "give the folder" in image.notes[0]


def test_enhanced_multiframe_ct_is_read_in_any_order_of_frames(tmp_path, ct, series):
    """Enhanced CT: place and rescaling in functional groups, shared or per frame."""
    dataset = pydicom.dcmread(series[0])
    order = [3, 0, 5, 1, 4, 2]
    matrix = np.diag([-1, -1, 1, 1]) @ ct.grid.ijk_to_ras
    frames = []
    for k in order:
        place, transform, frame = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [f"{v:.6f}" for v in (matrix @ (0, 0, k, 1))[:3]]
        transform.RescaleSlope, transform.RescaleIntercept = "2", str(-k)
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [transform]
        frames.append(frame)
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = dataset.PixelSpacing, dataset.SliceThickness
    orientation.ImageOrientationPatient = dataset.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(dataset, keyword)
    dataset.NumberOfFrames = 6
    dataset.PixelData = ct.values[order].astype("<i2").tobytes()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    save_dataset(dataset, tmp_path / "enhanced.dcm")
    image = read_image(tmp_path / "enhanced.dcm")
    assert image.grid.matches(ct.grid, 1e-4)
    warm = ct.values > -400  # twice colder is padding
    expected = 2 * ct.values - np.arange(6)[:, None, None]
    np.testing.assert_allclose(image.values[warm], expected[warm])


def test_a_full_or_existing_target_is_not_overwritten(tmp_path, ct):
    write_dicom_series(tmp_path / "a", ct)
    before = sorted(p.name for p in (tmp_path / "a").iterdir())
    with pytest.raises(SynthDoseError, match="already exists"):
        write_dicom_series(tmp_path / "a", ct)
    with pytest.raises(SynthDoseError, match="negative"):
        write_dicom_series(tmp_path / "b", ct, modality="PT")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
