"""RTDOSE as others read ours and as ours reads that of others; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pydicom.dicomio
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from SynthDoseLib.core import DoseMap, ImageVolume, SynthDoseError, VoxelGrid
from SynthDoseLib.io import read_image, read_rtdose, write_dicom_series, write_rtdose
from SynthDoseLib.io.dicom_files import save_dataset

TURN = np.radians(20)
OBLIQUE = np.array([[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1]])
GRID = VoxelGrid.from_spacing((6, 9, 8), (2.0, 3.0, 2.5), (5, 6, 7))
TURNED = VoxelGrid.from_spacing((6, 9, 8), (2.0, 3.0, 2.5), (5, 6, 7), OBLIQUE @ OBLIQUE.T[[2, 0, 1]])
SHARED = Path(__file__).parents[3] / "shared" / "data" / "images" / "rt"


def pattern(grid: VoxelGrid, scale: float = 1.0) -> np.ndarray:
    """A smooth dose by position, so that a misplaced plane shows: scale x (10 + x/10 + y/20 + z/5) Gy."""
    k, j, i = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    return (scale * (10 + ras[..., 0] / 10 + ras[..., 1] / 20 + ras[..., 2] / 5)).astype(np.float32)


def written(folder: Path, grid: VoxelGrid = GRID, values: np.ndarray | None = None) -> Path:
    """An RTDOSE of ours."""
    write_dicom_series(folder / "ct", ImageVolume(grid, np.zeros(grid.shape, np.float32), "CT", "HU"))
    values = pattern(grid) if values is None else values
    write_rtdose(folder / "rd.dcm", DoseMap(grid, values, values * 0), read_image(folder / "ct"), deidentify=True)
    return folder / "rd.dcm"


def edited(path: Path, change: Callable[[Dataset], None]) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    save_dataset(dataset, path)
    return path


def assert_in_place(path: Path, grid: VoxelGrid = GRID) -> None:
    """Every voxel that is read has the dose of its place."""
    image = read_rtdose(path)
    np.testing.assert_allclose(image.values, pattern(image.grid), rtol=1e-5)
    corners = np.array([[0, 0, 0], np.array(grid.shape[::-1]) - 1])
    ours = image.grid.to_ras(np.array([[0, 0, 0], np.array(image.grid.shape[::-1]) - 1]))
    np.testing.assert_allclose(np.sort(ours, axis=0), np.sort(grid.to_ras(corners), axis=0), atol=1e-3)


@pytest.mark.parametrize("grid", [GRID, TURNED], ids=["straight", "oblique"])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 3e4])
def test_others_read_the_same_dose_to_a_ten_thousandth(tmp_path, monkeypatch, grid, scale):
    """Diagnostic and radioembolisation doses, with six decades within one map."""
    values = pattern(grid, scale)
    values[0, 0] *= 1e-5
    path = written(tmp_path, grid, values)
    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array * float(dataset.DoseGridScaling)
    np.testing.assert_allclose(stored, values, rtol=1e-4)
    again = read_rtdose(path)
    assert again.grid.matches(grid, 1e-3)
    np.testing.assert_allclose(again.values, values, rtol=1e-4)
    if grid is TURNED:
        return  # dicompyler-core knows no oblique planes
    monkeypatch.setattr(pydicom.dicomio, "read_file", pydicom.dcmread, raising=False)
    parser = pytest.importorskip("dicompylercore.dicomparser", reason="dicompyler-core is not installed")
    other = parser.DicomParser(str(path))
    said = other.GetDoseData()
    assert (said["doseunits"], said["dosetype"], said["frames"]) == ("GY", "PHYSICAL", grid.shape[0])
    for k in (0, grid.shape[0] - 1):
        plane = other.ds.pixel_array[k] * float(said["dosegridscaling"])
        np.testing.assert_allclose(plane, values[k], rtol=1e-4)


def test_it_has_the_attributes_that_slicer_rt_loads_a_dose_by(tmp_path):
    dataset = pydicom.dcmread(written(tmp_path))
    for keyword in ("DoseUnits", "DoseType", "DoseSummationType", "DoseGridScaling", "GridFrameOffsetVector", "PixelSpacing",
                    "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "StudyInstanceUID"):  # fmt: skip
        assert dataset.get(keyword) not in (None, ""), keyword
    assert dataset.FrameIncrementPointer == 0x3004000C
    assert dataset.FrameOfReferenceUID == read_image(tmp_path / "ct").metadata["frame_of_reference_uid"]


def from_the_head(dataset: Dataset) -> None:
    """The same planes from the head down: negative offsets."""
    dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[::-1]).tobytes()
    offsets = [float(v) for v in dataset.GridFrameOffsetVector]
    dataset.ImagePositionPatient[2] += offsets[-1]
    dataset.GridFrameOffsetVector = [-v for v in offsets]


def along_z(dataset: Dataset) -> None:
    dataset.GridFrameOffsetVector = [float(v) + float(dataset.ImagePositionPatient[2]) for v in dataset.GridFrameOffsetVector]


def without_offsets(dataset: Dataset) -> None:
    del dataset.GridFrameOffsetVector, dataset.FrameIncrementPointer


def shuffled(dataset: Dataset) -> None:
    order = [0, 3, 5, 1, 4, 2]
    dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[order]).tobytes()
    dataset.GridFrameOffsetVector = [dataset.GridFrameOffsetVector[n] for n in order]


def one_plane_less(dataset: Dataset) -> None:
    """Planes 0, 1, 2, 3, 5: the dose is linear, so that interpolation restores the one left out."""
    kept = [0, 1, 2, 3, 5]
    dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[kept]).tobytes()
    dataset.GridFrameOffsetVector = [dataset.GridFrameOffsetVector[n] for n in kept]
    dataset.NumberOfFrames = len(kept)


def cgy(dataset: Dataset) -> None:
    dataset.DoseUnits, dataset.DoseGridScaling = "CGY", f"{float(dataset.DoseGridScaling) * 100:.9e}"


@pytest.mark.parametrize("change", [from_the_head, along_z, without_offsets, shuffled, one_plane_less, cgy])
def test_planes_are_where_other_systems_say_they_are(tmp_path, change):
    assert_in_place(edited(written(tmp_path), change))


def test_what_was_guessed_or_interpolated_is_told(tmp_path):
    path = edited(written(tmp_path), without_offsets)
    assert "put 2.5 mm apart" in " ".join(read_rtdose(path).notes)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert "not evenly spaced" in " ".join(read_rtdose(edited(written(tmp_path / "a"), one_plane_less)).notes)

    def single(dataset: Dataset) -> None:
        dataset.PixelData, dataset.NumberOfFrames = dataset.pixel_array[0].tobytes(), 1
        del dataset.SliceThickness

    assert "one plane of unknown thickness" in " ".join(read_rtdose(edited(written(tmp_path / "b"), single)).notes)


@pytest.mark.parametrize("how", ["big endian", "rle", "no preamble", "16 bit"])
def test_other_encodings_hold_the_same_dose(tmp_path, how):
    path = written(tmp_path)
    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array
    if how == "big endian":
        dataset.PixelData = stored.astype(">u4").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        if int(pydicom.__version__.split(".")[0]) < 3:
            dataset.is_little_endian, dataset.is_implicit_VR = False, False
        else:
            dataset._read_little = False
            dataset = _as_big_endian(dataset)
    elif how in ("16 bit", "rle"):
        factor = float(dataset.DoseGridScaling) * 65540
        dataset.PixelData = (stored / 65540).round().astype("<u2").tobytes()
        dataset.DoseGridScaling, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = f"{factor:.9e}", 16, 16, 15
        if how == "rle":
            dataset.compress(pydicom.uid.RLELossless, encoding_plugin="pydicom")
    save_dataset(dataset, path)
    if how == "no preamble":
        data = path.read_bytes()
        path.write_bytes(data[132:])
    image = read_rtdose(path)
    np.testing.assert_allclose(image.values, pattern(GRID), rtol=1e-4)


def _as_big_endian(dataset: Dataset) -> Dataset:
    """The same elements, to be written in the other byte order."""
    new = Dataset()
    new.update({element.tag: element for element in dataset})
    new.file_meta = dataset.file_meta
    return new


def scaled(value: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        dataset.DoseGridScaling = value

    return change


def kind(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def cut(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:100]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (kind("DoseUnits", "RELATIVE"), "a percentage of a dose that it does not say. Export it in Gy"),
        (kind("DoseUnits", ""), "dose in ''; absolute dose in GY is needed"),
        (scaled("0"), r"DoseGridScaling, .* is 0; it has to be above 0"),
        (scaled("-1e-9"), "above 0"),
        (kind("PixelSpacing", ["0", "2"]), "pixel spacing 0 x 2 mm"),
        (kind("ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"]), "not at right angles"),
        (kind("GridFrameOffsetVector", [0.0, 2.5]), "6 planes, 2 plane positions"),
        (kind("GridFrameOffsetVector", [0.0, 2.5, 2.5, 5.0, 7.5, 10.0]), "two of its planes are at the same place"),
        (kind("GridFrameOffsetVector", [90.0, 92.5, 95.0, 97.5, 100.0, 102.5]), "contradicts itself"),
        (kind("NumberOfFrames", 60000), "declares .* pixels"),
        (kind("Rows", 65000), "declares .* pixels"),
        (cut, "incomplete"),
        (kind("Modality", "CT"), "is no RTDOSE"),
        (lambda dataset: delattr(dataset, "ImagePositionPatient"), "does not say where its dose is"),
        (lambda dataset: delattr(dataset, "PixelData"), "incomplete"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(tmp_path, change, says):
    path = edited(written(tmp_path), change)
    with pytest.raises(SynthDoseError, match=says) as refusal:
        read_rtdose(path)
    assert "\n" not in str(refusal.value)


def test_scaling_that_is_no_number_is_refused(tmp_path):
    path = written(tmp_path)
    data = path.read_bytes()
    scaling = str(pydicom.dcmread(path)["DoseGridScaling"].value).encode()
    assert data.count(scaling) == 1
    path.write_bytes(data.replace(scaling, b"NaN".ljust(len(scaling))))
    with pytest.raises(SynthDoseError, match=r"above 0|damaged"):
        read_rtdose(path)


def test_a_folder_with_one_dose_will_do(tmp_path):
    written(tmp_path)
    assert read_rtdose(tmp_path).grid.matches(GRID, 1e-4)
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "rd.dcm").read_bytes())
    with pytest.raises(SynthDoseError, match=r"found 2 \(copy.dcm, rd.dcm\)"):
        read_rtdose(tmp_path)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/images/rt")
def test_doses_of_planning_systems_say_what_they_are():
    proton = read_rtdose(SHARED / "dcpt_plan06")
    assert (proton.metadata["dose_type"], proton.metadata["dose_summation_type"]) == ("EFFECTIVE", "BEAM")
    assert "times the RBE" in proton.notes[-2]
    assert "dose of one beam" in proton.notes[-1]
    for name in ("rtdose.dcm", "rtdose_1frame.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm"):
        with pytest.raises(SynthDoseError, match="RELATIVE"):
            read_rtdose(SHARED / "pydicom_small" / name)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/images/rt")
def test_encodings_of_pydicoms_own_dose_agree(tmp_path):
    """The same dose big endian, RLE and plain; its relative units are called Gy for the purpose."""
    images = []
    for name in ("rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm"):
        dataset = pydicom.dcmread(SHARED / "pydicom_small" / name)
        dataset.DoseUnits = "GY"
        dataset.save_as(tmp_path / name)
        images.append(read_rtdose(tmp_path / name))
    for other in images[1:]:
        assert other.grid.matches(images[0].grid)
        np.testing.assert_array_equal(other.values, images[0].values)
