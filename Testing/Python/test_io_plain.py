"""NRRD, NIfTI, MetaImage and Interfile: every voxel at its place, and what is refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from SynthDoseLib.core import SynthDoseError, VoxelGrid
from SynthDoseLib.io import read_image, read_labels, read_volume, write_volume

SHAPE = (3, 4, 5)
VALUES = np.arange(60, dtype=np.float32).reshape(SHAPE)
OBLIQUE = np.array([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])


def nrrd(
    path: Path, *, space: str = "left-posterior-superior", directions: str = "(2,0,0) (0,3,0) (0,0,4)", data=VALUES, **more
):
    fields = {
        "type": {"f": "float", "i": "int", "u": "uchar"}[data.dtype.kind],
        "dimension": data.ndim,
        "space": space,
        "sizes": " ".join(str(n) for n in data.shape[::-1]),
        "space directions": directions,
        "endian": "little",
        "encoding": "raw",
        "space origin": "(10,20,30)",
        **more,
    }
    header = "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in fields.items() if value is not None) + "\n"
    path.write_bytes(header.encode() + data.astype(data.dtype.newbyteorder("<")).tobytes())
    return path


def position_of(image, value):
    k, j, i = np.argwhere(image.values == value)[0]
    return image.grid.to_ras((i, j, k))


@pytest.mark.parametrize(
    ("space", "sign"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
    ],
)
def test_the_space_of_an_nrrd_is_obeyed(tmp_path, space, sign):
    image = read_image(nrrd(tmp_path / "a.nrrd", space=space))
    assert image.grid.is_right_handed
    # value 59 is the voxel (i, j, k) = (4, 3, 2) of the file
    np.testing.assert_allclose(position_of(image, 59), np.multiply((10 + 8, 20 + 9, 30 + 8), sign))
    np.testing.assert_allclose(position_of(image, 0), np.multiply((10, 20, 30), sign))


def test_left_handed_axes_are_reordered_and_nothing_moves(tmp_path):
    image = read_image(nrrd(tmp_path / "a.nrrd", directions="(2,0,0) (0,3,0) (0,0,-4)"))
    assert image.grid.is_right_handed
    np.testing.assert_allclose(position_of(image, 59), (-18, -29, 22))
    np.testing.assert_allclose(position_of(image, 0), (-10, -20, 30))
    assert "left-handed" in image.notes[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"space": None}, "no 'space' field"),
        ({"space": None, "directions": None, "space origin": None, "spacings": "2 3 4"}, "no 'space' field"),
        ({"space": "3D-right-handed"}, "3D-right-handed"),
        ({"space": "scanner-xyz"}, "scanner-xyz"),
        ({"directions": "(2,0,0) (0,3,0) (1,0,4)"}, "not orthogonal"),
        ({"sizes": "5 4 100000"}, "incomplete"),
        ({"sizes": "100000 100000 100000"}, "incomplete"),
        ({"data file": "../../secret.raw", "encoding": "raw"}, "bare name"),
        ({"data file": "/etc/passwd"}, "bare name"),
        ({"data file": "LIST"}, "bare name"),
        ({"data file": "not_there.raw"}, "not in"),
    ],
)
def test_an_nrrd_that_cannot_be_placed_or_trusted_is_refused(tmp_path, change, says):
    with pytest.raises(SynthDoseError, match=says):
        read_image(nrrd(tmp_path / "a.nrrd", **change))


def test_a_file_that_does_not_say_takes_what_the_user_states_and_says_so(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", space=None, directions=None, **{"space origin": None})
    with pytest.raises(SynthDoseError, match=r"orientation .* and spacing_mm"):
        read_image(path)
    image = read_image(path, spacing_mm=(2, 3, 4), orientation="LAS")
    # LAS is left-handed: columns are reversed to RAS; voxel (4, 3, 2) of the file is farthest left, front and up
    assert image.grid.is_right_handed
    np.testing.assert_allclose(position_of(image, 59), (-4, 4.5, 4))
    assert "stated by the user" in " ".join(image.notes)


def test_stating_what_the_file_says_otherwise_is_refused(tmp_path):
    path = nrrd(tmp_path / "a.nrrd")
    with pytest.raises(SynthDoseError, match="says that its orientation is LPS"):
        read_image(path, orientation="RAS")
    with pytest.raises(SynthDoseError, match="says that its spacing"):
        read_image(path, spacing_mm=(1, 1, 1))
    assert read_image(path, orientation="LPS", spacing_mm=(2, 3, 4)).grid.spacing_mm == (2, 3, 4)


@pytest.mark.parametrize("orientation", ["LLS", "XYZ", "LP", ""])
def test_a_misspelt_orientation_is_refused(tmp_path, orientation):
    path = nrrd(tmp_path / "a.nrrd", space=None, directions=None, spacings="2 3 4", **{"space origin": None})
    with pytest.raises(SynthDoseError, match="three letters"):
        read_image(path, orientation=orientation)


def test_values_that_are_not_finite_are_refused_with_their_number(tmp_path):
    data = VALUES.copy()
    data[0, 0, :2] = np.nan, np.inf
    with pytest.raises(SynthDoseError, match="2 of 60 values"):
        read_image(nrrd(tmp_path / "a.nrrd", data=data))


def test_complex_images_are_refused(tmp_path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.complex64)), tmp_path / "c.nii")
    with pytest.raises(SynthDoseError, match="complex"):
        read_image(tmp_path / "c.nii")


def test_colour_series_in_time_and_flat_images_are_refused(tmp_path):
    colour = SimpleITK.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(colour, tmp_path / "rgb.nrrd")
    with pytest.raises(SynthDoseError, match="3 values per voxel"):
        read_image(tmp_path / "rgb.nrrd")
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.zeros((6, 3, 4, 5), np.float32), isVector=False), tmp_path / "4d.nii.gz"
    )
    with pytest.raises(SynthDoseError, match="6 volumes"):
        read_image(tmp_path / "4d.nii.gz")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((4, 5), np.float32)), tmp_path / "2d.nii")
    with pytest.raises(SynthDoseError, match="flat"):
        read_image(tmp_path / "2d.nii")


@pytest.fixture
def grid():
    return VoxelGrid.from_spacing(SHAPE, (1.1, 2.3, 3.7), origin_ras_mm=(12, -34, 56), directions=OBLIQUE)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
def test_an_oblique_grid_survives_every_format(tmp_path, grid, suffix):
    path = tmp_path / f"v{suffix}"
    write_volume(path, VALUES, grid, unit="Gy")
    image = read_image(path)
    # NIfTI keeps geometry in float32
    assert image.grid.matches(grid, 1e-4)
    np.testing.assert_array_equal(image.values, VALUES)
    assert image.unit == ("" if ".nii" in suffix else "Gy")


def test_nifti_geometry_agrees_with_nibabel(tmp_path, grid):
    nibabel = pytest.importorskip("nibabel")
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0]) @ grid.ijk_to_ras  # left-handed
    nibabel.save(nibabel.Nifti1Image(VALUES.transpose(2, 1, 0), matrix), tmp_path / "n.nii.gz")
    image = read_image(tmp_path / "n.nii.gz")
    assert image.grid.is_right_handed
    for ijk in [(0, 0, 0), (4, 3, 2), (1, 2, 0)]:
        expected = matrix @ (*ijk, 1)
        np.testing.assert_allclose(position_of(image, VALUES[ijk[::-1]]), expected[:3], atol=1e-4)


def nifti_with(path: Path, change) -> Path:
    write_volume(path, VALUES, VoxelGrid.from_spacing(SHAPE, (1, 2, 3)))
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def test_a_nifti_without_orientation_needs_it_stated(tmp_path):
    path = nifti_with(tmp_path / "n.nii", lambda data: struct.pack_into("<hh", data, 252, 0, 0))
    with pytest.raises(SynthDoseError, match="qform and sform codes are 0"):
        read_image(path)
    assert read_image(path, orientation="RAS").grid.spacing_mm == pytest.approx((1, 2, 3))


def test_a_nifti_whose_two_orientations_disagree_is_refused(tmp_path):
    def mirror(data):
        struct.pack_into("<4f", data, 280, -1, 0, 0, 2)  # srow_x

    with pytest.raises(SynthDoseError, match=r"qform and sform\) put the image"):
        read_image(nifti_with(tmp_path / "n.nii", mirror))


@pytest.mark.parametrize("signs", [(-1, 1, 1), (1, 1, -1), (-1, -1, -1)])
def test_a_left_handed_nifti_that_says_so_twice_is_read(tmp_path, grid, signs):
    nibabel = pytest.importorskip("nibabel")
    matrix = np.diag([*signs, 1.0]) @ grid.ijk_to_ras
    written = nibabel.Nifti1Image(VALUES.transpose(2, 1, 0), matrix)
    written.set_qform(matrix, 1)
    written.set_sform(matrix, 1)
    nibabel.save(written, tmp_path / "n.nii.gz")
    image = read_image(tmp_path / "n.nii.gz")
    assert image.grid.is_right_handed
    np.testing.assert_allclose(position_of(image, 59), (matrix @ (4, 3, 2, 1))[:3], atol=1e-3)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slope_and_intercept_of_a_nifti_are_obeyed(tmp_path, suffix):
    nibabel = pytest.importorskip("nibabel")
    written = nibabel.Nifti1Image(VALUES.astype(np.int16).transpose(2, 1, 0), np.diag([1.0, 2, 3, 1]))
    written.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(written, tmp_path / f"n{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"n{suffix}").values, 2 * VALUES - 1024)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_2_is_read_as_nifti_1_is(tmp_path, grid, suffix, order):
    nibabel = pytest.importorskip("nibabel")
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0]) @ grid.ijk_to_ras
    stored = VALUES.astype(np.int16).transpose(2, 1, 0)
    for kind in (1, 2):
        header = getattr(nibabel, f"Nifti{kind}Header")(endianness=order)
        header.set_data_dtype(np.int16)
        written = getattr(nibabel, f"Nifti{kind}Image")(stored, matrix, header=header)
        written.header.set_slope_inter(2.0, -1024.0)
        nibabel.save(written, tmp_path / f"n{kind}{suffix}")
    one, two = (read_image(tmp_path / f"n{kind}{suffix}") for kind in (1, 2))
    np.testing.assert_array_equal(two.values, one.values)
    np.testing.assert_allclose(two.grid.ijk_to_ras, one.grid.ijk_to_ras, atol=1e-5)
    np.testing.assert_allclose(position_of(two, 2 * 59 - 1024), (matrix @ (4, 3, 2, 1))[:3], atol=1e-3)


def test_labels_and_damage_in_nifti_2(tmp_path, grid):
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "n.nii.gz"
    nibabel.save(nibabel.Nifti2Image(VALUES.astype(np.uint8).transpose(2, 1, 0), grid.ijk_to_ras), path)
    assert len(read_labels(path).organs) == VALUES.size - 1
    whole = gzip.decompress(path.read_bytes())
    for damaged in (gzip.compress(whole)[:-20], gzip.compress(whole[:-5]), whole[:300]):
        path.write_bytes(damaged)
        with pytest.raises(SynthDoseError, match=rf"{path}.*(incomplete|damaged|pair)"):
            read_image(path)
    header = bytearray(whole)
    struct.pack_into("<q", header, 24, 10**12)  # voxels along the first axis
    path.write_bytes(gzip.compress(bytes(header)))
    with pytest.raises(SynthDoseError, match="more than 32767"):
        read_image(path)
    header[:] = whole
    struct.pack_into("<q", header, 168, 2**62)  # where the voxels begin
    path.write_bytes(gzip.compress(bytes(header)))
    with pytest.raises(SynthDoseError, match="header is damaged"):
        read_image(path)
    header[:] = whole
    struct.pack_into("<d", header, 112, 1e200)  # voxel size
    path.write_bytes(gzip.compress(bytes(header)))
    with pytest.raises(SynthDoseError, match="header is damaged"):
        read_image(path)


def test_a_nifti_whose_voxel_sizes_disagree_is_refused(tmp_path):
    def other_size(data):
        struct.pack_into("<hh", data, 252, 0, 1)
        struct.pack_into("<12f", data, 280, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0)  # pixdim says 1, 2, 3

    with pytest.raises(SynthDoseError, match="sform and pixdim are not the same"):
        read_image(nifti_with(tmp_path / "n.nii", other_size))


def test_a_sheared_nifti_is_refused(tmp_path):
    def shear(data):
        struct.pack_into("<hh", data, 252, 0, 1)
        struct.pack_into("<12f", data, 280, 1, 0, 0.5, 0, 0, 2, 0, 0, 0, 0, 3, 0)

    with pytest.raises(SynthDoseError, match="sheared"):
        read_image(nifti_with(tmp_path / "n.nii", shear))


def test_truncated_files_are_refused_not_filled_with_zeros(tmp_path):
    grid = VoxelGrid.from_spacing((30, 40, 50), (1, 1, 1))
    values = np.random.default_rng(0).integers(0, 30000, grid.shape).astype(np.int16)
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha"):
        path = tmp_path / f"v{suffix}"
        write_volume(path, values, grid)
        whole = path.read_bytes()
        for part in (0.3, 0.9):
            path.write_bytes(whole[: int(part * len(whole))])
            with pytest.raises(SynthDoseError, match=r"incomplete|damaged"):
                read_image(path)


def test_a_gzip_file_with_a_damaged_block_is_refused(tmp_path):
    path = tmp_path / "v.nii.gz"
    write_volume(path, np.random.default_rng(0).random((20, 30, 40)), VoxelGrid.from_spacing((20, 30, 40), (1, 1, 1)))
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # the checksum at the end
    path.write_bytes(data)
    with pytest.raises(SynthDoseError, match=r"incomplete|damaged"):
        read_image(path)
    path.write_bytes(gzip.compress(b"no image"))
    with pytest.raises(SynthDoseError, match=r"archive|not an image|damaged"):
        read_image(path)


def test_a_ct_in_a_plain_file_has_its_padding_set_to_air(tmp_path):
    data = VALUES.copy()
    data[0, 0] = -3024
    data[0, 1, 0] = -1207  # interpolation below air is no padding
    image = read_image(nrrd(tmp_path / "a.nrrd", data=data), modality="CT")
    assert image.unit == "HU"
    assert (np.sort(image.values.ravel())[:6] == [-1207, -1000, -1000, -1000, -1000, -1000]).all()
    assert "5 of 60 voxels held padding" in image.notes[0]


def test_detached_headers_beside_their_data_are_read(tmp_path):
    nrrd(tmp_path / "a.nhdr", **{"data file": "a.raw"})
    text, _, data = (tmp_path / "a.nhdr").read_bytes().partition(b"\n\n")
    (tmp_path / "a.nhdr").write_bytes(text + b"\n\n")
    (tmp_path / "a.raw").write_bytes(data)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nhdr").values.ravel(), VALUES.ravel())
    (tmp_path / "a.raw").write_bytes(data[:-4])
    with pytest.raises(SynthDoseError, match=r"incomplete|damaged"):
        read_image(tmp_path / "a.nhdr")


def test_metaimage_headers_do_not_lead_elsewhere(tmp_path):
    write_volume(tmp_path / "v.mha", VALUES, VoxelGrid.from_spacing(SHAPE, (1, 1, 1)))
    text = (tmp_path / "v.mha").read_bytes().split(b"ElementDataFile")[0]
    (tmp_path / "v.mhd").write_bytes(text + b"ElementDataFile = ../v.raw\n")
    with pytest.raises(SynthDoseError, match="bare name"):
        read_image(tmp_path / "v.mhd")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"hello", "not an image format"),
        ("a.zip", b"PK\3\4", "archive"),
        ("a.tar.xz", b"\xfd7zXZ", "archive"),
        ("a.nii.gz", b"\x1f\x8b\x08\x00rubbish", "damaged"),
        ("a.i33", b"\0" * 40, "raw data"),
        ("a.nrrd", b"", "0 bytes"),
    ],
)
def test_what_is_no_image_is_refused_with_what_is_read(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SynthDoseError, match=says):
        read_image(tmp_path / name)
    with pytest.raises(SynthDoseError):
        read_labels(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SynthDoseError, match=r"nowhere does not exist"):
        read_image(tmp_path / "nowhere")


INTERFILE = """!INTERFILE :=
!name of data file := a.i33
imagedata byte order := {order}
!matrix size [1] := 5
!matrix size [2] := 4
!number of slices := 3
!number format := {number_format}
!number of bytes per pixel := {size}
scaling factor (mm/pixel) [1] := 2
scaling factor (mm/pixel) [2] := 2
slice thickness (pixels) := 4.4
!data offset in bytes := {offset}
!END OF INTERFILE :=
"""


def interfile(folder, dtype="<u2", number_format="unsigned integer", offset=0, order=None, extra="", data=None):
    dtype = np.dtype(dtype)
    order = order or ("BIGENDIAN" if dtype.byteorder == ">" else "LITTLEENDIAN")
    text = INTERFILE.format(order=order, number_format=number_format, size=dtype.itemsize, offset=offset)
    (folder / "a.h33").write_text(text.replace("!END OF INTERFILE", extra + "!END OF INTERFILE"))
    (folder / "a.i33").write_bytes(b"x" * offset + (VALUES.astype(dtype).tobytes() if data is None else data))
    return folder / "a.h33"


@pytest.mark.parametrize(
    ("dtype", "number_format"),
    [
        ("<u2", "unsigned integer"),
        (">i4", "signed integer"),
        ("<f4", "short float"),
        (">f8", "long float"),
        ("u1", "unsigned integer"),
    ],
)
def test_interfile_types_and_byte_orders(tmp_path, dtype, number_format):
    path = interfile(tmp_path, dtype, number_format, offset=7)
    image = read_image(path, spacing_mm=(2, 2, 4.4), orientation="LPS")
    np.testing.assert_array_equal(image.values, VALUES)
    # the middle is at the origin, and columns increase to the left
    np.testing.assert_allclose(position_of(image, 0), (4, 3, -4.4))


def test_interfile_asks_for_what_it_does_not_say_and_tells_both_readings_of_its_slice_thickness(tmp_path):
    with pytest.raises(
        SynthDoseError, match=r"8\.8 mm if in pixels .*4\.4 mm if it was written in mm.*orientation.*spacing_mm"
    ):
        read_image(interfile(tmp_path))
    with pytest.raises(SynthDoseError, match="State orientation"):
        read_image(interfile(tmp_path), spacing_mm=(2, 2, 4.4))


def test_interfile_density_becomes_hounsfield_with_the_offset(tmp_path):
    image = read_image(interfile(tmp_path), spacing_mm=(2, 2, 4.4), orientation="LPS", hu_offset=-1000, modality="CT")
    assert (image.unit, image.modality) == ("HU", "CT")
    assert image.values.min() == -1000
    assert image.values.max() == -941


@pytest.mark.parametrize(
    ("arguments", "edit", "says"),
    [
        ({"data": b"\0" * 50}, None, "holds 50"),
        ({}, ("a.i33", "../a.i33"), "bare name"),
        ({}, ("a.i33", "b.i33"), "not in"),
        ({}, ("a.i33", "C:secret"), "bare name"),
        ({"number_format": "bit"}, None, "is not read"),
        ({}, ("[1] := 5", "[1] := -5"), "whole number"),
        ({}, ("[1] := 5", "[1] := 5000000"), "holds 120"),
        ({"order": "MIDDLE"}, None, "neither"),
        ({"extra": "total number of images := 12\n"}, None, "number of slices"),
        ({"extra": "data compression := gzip\n"}, None, "compress"),
    ],
)
def test_a_wrong_interfile_is_refused(tmp_path, arguments, edit, says):
    path = interfile(tmp_path, **arguments)
    if edit:
        path.write_text(path.read_text().replace(*edit))
    with pytest.raises(SynthDoseError, match=says):
        read_image(path, spacing_mm=(2, 2, 4.4), orientation="LPS")


def test_volumes_keep_their_type_and_place(tmp_path, grid):
    write_volume(tmp_path / "m.nrrd", VALUES.astype(np.uint8), grid)
    values, again, unit = read_volume(tmp_path / "m.nrrd")
    assert values.dtype == np.uint8
    assert again.matches(grid, 1e-9)
    assert unit == ""


def test_writing_where_it_is_not_possible_says_why_and_leaves_nothing(tmp_path, grid):
    with pytest.raises(SynthDoseError, match="does not exist"):
        write_volume(tmp_path / "no" / "v.nrrd", VALUES, grid)
    (tmp_path / "v.nrrd").mkdir()
    with pytest.raises(SynthDoseError, match="Cannot write"):
        write_volume(tmp_path / "v.nrrd", VALUES, grid)
    with pytest.raises(SynthDoseError, match="shape"):
        write_volume(tmp_path / "w.nrrd", VALUES[:2], grid)
    assert [p.name for p in tmp_path.iterdir()] == ["v.nrrd"]
