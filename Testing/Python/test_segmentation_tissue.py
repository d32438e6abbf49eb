"""Tissue segmentation by CT number: exact on geometry, close to others' labels on patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.core import Cancelled, ImageVolume, SynthDoseError, VoxelGrid
from SynthDoseLib.segmentation import TISSUES, group_mask, label_table, organ_group, segment_tissue

SHARED = Path(__file__).resolve().parents[3] / "shared"
IMAGES = SHARED / "data" / "images"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")


def slab(shape=(40, 60, 80), spacing=(3.0, 3.0, 3.0), seed=0):
    """Elliptic body of fat around soft tissue, two lungs, a spine, a gas bubble, a couch; HU with noise."""
    grid = VoxelGrid.from_spacing(shape, spacing)
    nk, nj, ni = shape
    k, j, i = np.meshgrid(np.arange(nk), np.arange(nj), np.arange(ni), indexing="ij")
    x, y = (i - (ni - 1) / 2) * spacing[0], (j - (nj - 1) / 2) * spacing[1]
    truth = {
        "body": (x / 100) ** 2 + (y / 70) ** 2 < 1,
        "muscle": (x / 80) ** 2 + (y / 52) ** 2 < 1,
        "lungs": ((np.abs(x) - 42) / 26) ** 2 + (y / 36) ** 2 < 1,
        "bone": x**2 + (y - 40) ** 2 < 11**2,
        "gas": (x**2 + (y + 15) ** 2 + ((k - nk / 2) * spacing[2]) ** 2) < 15**2,
    }
    hu = np.full(shape, -1000.0, np.float32)
    for name, value in (("body", -100), ("muscle", 40), ("lungs", -780), ("bone", 450), ("gas", -995)):
        hu[truth[name]] = value
    hu[(np.abs(y - 80) < 3) & (np.abs(x) < 110)] = 100  # couch shell below the back
    hu += np.random.default_rng(seed).normal(0, 12, shape).astype(np.float32)
    return ImageVolume(grid, hu, modality="CT", unit="HU"), truth


def dice(first, second) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def test_tissues_of_a_known_body_are_found_and_the_couch_is_not():
    ct, truth = slab()
    labels = segment_tissue(ct)
    assert tuple(organ.name for organ in labels.organs) == TISSUES
    assert dice(labels.labels > 0, truth["body"]) > 0.99
    assert dice(labels.mask("lungs"), truth["lungs"]) > 0.97
    assert dice(labels.mask("bone"), truth["bone"]) > 0.95
    fat = truth["body"] & ~truth["muscle"]
    assert dice(labels.mask("fat"), fat) > 0.93
    assert not labels.mask("lungs")[truth["gas"]].any()


def test_orientation_and_handedness_of_the_axes_do_not_matter():
    ct, _ = slab()
    plain = segment_tissue(ct)
    turned_grid = VoxelGrid.from_spacing(
        (60, 40, 80), (3.0, 3.0, 3.0), origin_ras_mm=ct.grid.to_ras((0, 0, 0)), directions=[[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    )
    turned = segment_tissue(ImageVolume(turned_grid, ct.values.transpose(1, 0, 2), modality="CT", unit="HU"))
    assert dice(turned.labels.transpose(1, 0, 2) == 2, plain.labels == 2) > 0.99
    assert dice(turned.labels.transpose(1, 0, 2) == 5, plain.labels == 5) > 0.98


def test_padding_outside_the_reconstructed_circle_is_air():
    ct, truth = slab()
    values = ct.values.copy()
    values[:, :4], values[:, :, :4] = -3024, -3024
    labels = segment_tissue(ImageVolume(ct.grid, values, modality="CT", unit="HU"))
    assert dice(labels.labels > 0, truth["body"]) > 0.99


def test_limbs_cut_by_the_field_of_view_are_bodies():
    ct, truth = slab()
    cut = ImageVolume(ct.grid.crop((0, 0, 12), (40, 60, 56)), ct.values[:, :, 12:68], modality="CT", unit="HU")
    assert dice(segment_tissue(cut).labels > 0, truth["body"][:, :, 12:68]) > 0.97


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ct: ImageVolume(ct.grid, ct.values, modality="MR"), "needs a CT; this image is MR"),
        (lambda ct: ImageVolume(ct.grid, ct.values + 1000, modality="CT"), "hu_offset"),
        (lambda ct: ImageVolume(ct.grid, np.full_like(ct.values, -1000), modality="CT"), "no HU|No body"),
        (lambda ct: ImageVolume(ct.grid, np.where(ct.values > 300, np.nan, ct.values), modality="CT"), "not numbers"),
    ],
)
def test_images_that_are_no_ct_in_hu_are_refused(change, message):
    with pytest.raises(SynthDoseError, match=message):
        segment_tissue(change(slab()[0]))


def test_a_callback_can_stop_it():
    def stop(report):
        if report.fraction > 0.2:
            raise Cancelled

    with pytest.raises(Cancelled):
        segment_tissue(slab()[0], progress=stop)


def nifti(path: Path) -> ImageVolume:
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    values = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    return ImageVolume(VoxelGrid(values.shape, np.diag([-1, -1, 1, 1]) @ matrix), values, modality="CT", unit="HU")


@needs_shared
def test_tissues_of_a_patient_agree_with_totalsegmentator():
    folder = IMAGES / "ct_torso_totalseg"
    labels = segment_tissue(nifti(folder / "example_ct.nii.gz"))
    other = nifti(folder / "example_seg_fast_force_split.nii.gz").values.astype(int)
    table = label_table("totalsegmentator")
    members = {group: [i for i, o in table.items() if o.name in organ_group(group)] for group in ("lungs", "skeleton")}
    # TotalSegmentator labels not every bone and draws smooth outlines: agreement, not identity
    assert dice(labels.mask("lungs"), np.isin(other, members["lungs"])) > 0.9
    assert dice(labels.mask("bone"), np.isin(other, members["skeleton"])) > 0.82
    assert (labels.labels[other > 0] > 0).mean() > 0.999


@needs_shared
def test_a_thigh_has_no_lungs_and_its_bone_is_the_femur():
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(IMAGES / "petctmr_sts001_ibsi" / "CT" / "image")))
    image = reader.Execute()
    values = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    ct = ImageVolume(VoxelGrid.from_spacing(values.shape, image.GetSpacing()), values, modality="CT", unit="HU")
    labels = segment_tissue(ct)
    volume = {name: count * ct.grid.voxel_volume_ml for name, count in labels.voxel_counts().items()}
    assert volume["lungs"] == 0
    assert 200 < volume["bone"] < 450
    assert volume["soft_tissue"] > 3000


def test_lungs_and_skeleton_of_a_synthetic_patient():
    from SynthDoseLib.phantom import synthetic_patient

    person = synthetic_patient(3, spacing_mm=(4.0, 4.0, 4.0))
    labels = segment_tissue(person.ct)
    assert dice(labels.mask("lungs"), group_mask(person.organ_labels, "lungs")) > 0.97
    assert dice(labels.mask("bone"), group_mask(person.organ_labels, "skeleton")) > 0.9
