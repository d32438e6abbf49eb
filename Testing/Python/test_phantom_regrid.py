"""Voxels of another size: mass per organ stays, whatever the size; and tissues without CT numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from SynthDoseLib.core import ImageVolume, LabelMap, Material, Organ, SynthDoseError, VoxelGrid, VoxelPhantom
from SynthDoseLib.phantom import assess_phantom, assign_tissues, build_phantom, regrid_phantom
from SynthDoseLib.physics import get_material

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
WATER, BONE = get_material("water"), get_material("bone")


def nested_spheres(spacing_mm=(2.0, 2.0, 2.0)):
    """A wall of 3 mm around contents, a small organ, and a body of fat: densities 1.05, 1.0, 1.8 and 0.92 g/cm3."""
    shape = tuple(int(100 / s) for s in spacing_mm[::-1])
    grid = VoxelGrid.from_spacing(shape, spacing_mm)
    k, j, i = np.indices(shape)
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    radius, small = np.linalg.norm(ras, axis=-1), np.linalg.norm(ras - (30, 0, 0), axis=-1)
    labels = np.select([small < 5, radius < 17, radius < 20, radius < 45], [3, 1, 2, 4], 0)
    density = np.array([0, 1.0, 1.05, 1.8, 0.92], np.float32)[labels]
    organs = (Organ(1, "contents"), Organ(2, "wall"), Organ(3, "small"), Organ(4, "rest_of_body"))
    label_map = LabelMap(grid, labels.astype(np.uint16), organs)
    return VoxelPhantom(grid, (labels == 3).astype(np.uint8), density, (WATER, BONE), label_map)


@pytest.mark.parametrize("spacing", [(4.0, 4.0, 4.0), (3.0, 3.0, 5.0), (2.7, 2.7, 2.7), (1.3, 2.0, 6.0)])
def test_every_organ_keeps_its_mass_and_its_volume(spacing):
    phantom = nested_spheres()
    coarse = regrid_phantom(phantom, phantom.grid.with_spacing(spacing))
    before, after = phantom.mass_g(), coarse.mass_g()
    for organ, mass in before.items():
        assert after[organ] == pytest.approx(mass, rel=1e-5)
    # and what the voxels of the first grid stand for: spheres, to 3 % at 2 mm
    assert after["contents"] == pytest.approx(4 / 3 * np.pi * 1.7**3, rel=0.03)
    counts, voxel_ml = coarse.labels.voxel_counts(), coarse.grid.voxel_volume_ml
    for organ, count in phantom.labels.voxel_counts().items():
        volume = count * phantom.grid.voxel_volume_ml
        assert counts[organ] * voxel_ml == pytest.approx(volume, rel=0.01, abs=1.5 * voxel_ml)
    body = (coarse.density_g_cm3 > 0).sum() * voxel_ml
    assert body == pytest.approx((phantom.density_g_cm3 > 0).sum() * phantom.grid.voxel_volume_ml, rel=0.005)
    small = coarse.labels.mask("small")
    assert all(coarse.materials[n].mass_fractions == BONE.mass_fractions for n in np.unique(coarse.material_index[small]))


def test_the_same_voxels_and_finer_ones():
    phantom = nested_spheres()
    assert regrid_phantom(phantom, phantom.grid) is phantom
    fine = regrid_phantom(phantom, phantom.grid.with_spacing((1.0, 1.0, 1.0)))
    assert (fine.labels.labels[::2, ::2, ::2] == phantom.labels.labels).all()
    assert fine.density_g_cm3[::2, ::2, ::2] == pytest.approx(phantom.density_g_cm3)


def test_an_organ_smaller_than_half_a_voxel_is_told():
    phantom = nested_spheres()
    coarse = regrid_phantom(phantom, phantom.grid.with_spacing((20.0, 20.0, 20.0)))
    assert coarse.labels.voxel_counts()["small"] == 0
    assert any("vanished: small" in note for note in coarse.notes)


def test_turned_axes_and_another_place_are_refused():
    phantom = nested_spheres((5.0, 5.0, 5.0))
    turned = VoxelGrid.from_spacing((20, 20, 20), (5.0, 5.0, 5.0), directions=np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]))
    with pytest.raises(SynthDoseError, match="parallel"):
        regrid_phantom(phantom, turned)
    with pytest.raises(SynthDoseError, match="Nothing of the phantom"):
        regrid_phantom(phantom, VoxelGrid.from_spacing((5, 5, 5), (5.0, 5.0, 5.0), origin_ras_mm=(900, 900, 900)))


@needs_shared
def test_a_real_torso_keeps_its_organ_masses():
    from SynthDoseLib.io import read_image
    from SynthDoseLib.pipeline.plan import SegmentationPlan
    from SynthDoseLib.pipeline.stations import read_segmentation

    folder = SHARED / "ct_torso_totalseg"
    ct = read_image(folder / "example_ct.nii.gz")
    plan = SegmentationPlan(path=folder / "example_seg_fast_force_split.nii.gz", labels="totalsegmentator")
    phantom = build_phantom(ct, read_segmentation(plan, ct), metal="titanium_grade5")
    coarse = regrid_phantom(phantom, phantom.grid.with_spacing((5.0, 5.0, 5.0)))
    after = coarse.mass_g()
    for organ, mass in phantom.mass_g().items():
        assert after[organ] == pytest.approx(mass, rel=0.005)
    total = phantom.density_g_cm3.sum(dtype=float) * phantom.grid.voxel_volume_ml
    assert coarse.density_g_cm3.sum(dtype=float) * coarse.grid.voxel_volume_ml == pytest.approx(total, rel=1e-4)


def mr_patient():
    """A body of two brightnesses in dark air, with liver, lung and a bone that is as dark as air."""
    grid = VoxelGrid.from_spacing((16, 40, 50), (5.0, 5.0, 5.0))
    k, j, i = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    body = (ras[..., 0] / 100) ** 2 + (ras[..., 1] / 70) ** 2 < 1
    inner = (ras[..., 0] / 85) ** 2 + (ras[..., 1] / 55) ** 2 < 1
    rng = np.random.default_rng(1)
    values = np.abs(rng.normal(0, 6, grid.shape)) + np.where(body, 400, 0) - np.where(inner, 200, 0)
    labels = np.zeros(grid.shape, np.uint16)
    for index, x in enumerate((45, -45, 0), start=1):
        labels[np.hypot(ras[..., 0] - x, ras[..., 1]) < 20] = index
    values[labels > 1] = 5
    organs = (Organ(1, "liver"), Organ(2, "lung_left"), Organ(3, "vertebrae_L1"))
    image = ImageVolume(grid, values.astype(np.float32), "MR")
    return image, LabelMap(grid, labels, organs), body


def test_an_mr_image_gets_its_tissues_from_the_labels():
    image, labels, body = mr_patient()
    phantom = assign_tissues(labels, image=image, overrides={"vertebrae_L1": {"material": "bone", "density_g_cm3": 1.3}})
    inside = phantom.density_g_cm3 > 0
    assert (inside == body).mean() > 0.995
    assert np.unique(phantom.density_g_cm3[phantom.labels.mask("liver")]) == pytest.approx([1.05])  # ICRP 110
    assert np.unique(phantom.density_g_cm3[phantom.labels.mask("lung_left")]) == pytest.approx([0.382])
    bone = phantom.labels.mask("vertebrae_L1")
    assert np.unique(phantom.density_g_cm3[bone]) == pytest.approx([1.3])
    assert phantom.materials[phantom.material_index[bone][0]].mass_fractions == pytest.approx(BONE.mass_fractions)
    assert phantom.density_g_cm3[phantom.labels.mask("rest_of_body")].mean() == pytest.approx(1.0)
    assert not [f for f in assess_phantom(phantom).findings if f.check in ("ct number", "body") and f.severity != "note"]
    with pytest.raises(SynthDoseError, match='materials = "labels"'):
        build_phantom(image, labels)


def test_labels_alone_are_a_phantom_of_what_they_enclose():
    _, labels, _ = mr_patient()
    ring = np.array(labels.labels)
    ring[:, 14:26, 18:32] = 0
    ring[:, 14:26, 18] = ring[:, 14:26, 31] = ring[:, 14, 18:32] = ring[:, 25, 18:32] = 3
    phantom = assign_tissues(LabelMap(labels.grid, ring, labels.organs))
    assert phantom.labels.mask("rest_of_body")[8, 20, 25]
    assert phantom.density_g_cm3[8, 20, 25] == pytest.approx(1.0)
    assert phantom.density_g_cm3[0, 0, 0] == 0


def test_what_cannot_be_assigned_is_refused():
    image, labels, _ = mr_patient()
    unknown = LabelMap(labels.grid, labels.labels, (Organ(1, "label_1"), *labels.organs[1:]))
    with pytest.raises(SynthDoseError, match=r"No tissue is known for label_1.*--override label_1=soft_tissue"):
        assign_tissues(unknown, image=image)
    with pytest.raises(SynthDoseError, match="needs a material"):
        assign_tissues(unknown, image=image, overrides={"label_1": 1.0})
    assert assign_tissues(unknown, image=image, overrides={"label_1": "muscle"}).mass_g()["label_1"] > 0
    flat = ImageVolume(image.grid, np.full(image.grid.shape, 7.0, np.float32), "MR")
    with pytest.raises(SynthDoseError, match="shows no body"):
        assign_tissues(labels, image=flat)
    one = VoxelGrid.from_spacing((1, 40, 50), (5.0, 5.0, 5.0))
    with pytest.raises(SynthDoseError, match="single slice"):
        assign_tissues(LabelMap(one, labels.labels[:1], labels.organs))


def test_reference_densities_spare_what_is_not_labelled_and_gas():
    grid = VoxelGrid.from_spacing((10, 40, 40), (4.0, 4.0, 4.0))
    _, j, i = np.ogrid[:10, :40, :40]
    distance = np.broadcast_to(np.hypot(i - 19.5, j - 19.5), grid.shape)
    hu = np.where(distance < 16, 100.0, -1000.0)
    labels = np.select([distance < 6, distance < 9], [1, 2], 0).astype(np.uint16)
    hu[distance < 3] = -990  # gas in the colon
    ct = ImageVolume(grid, hu.astype(np.float32), "CT", "HU")
    label_map = LabelMap(grid, labels, (Organ(1, "colon"), Organ(2, "liver")))
    phantom = build_phantom(ct, label_map, density="reference")
    kept = build_phantom(ct, label_map)
    assert np.unique(phantom.density_g_cm3[phantom.labels.mask("liver")]) == pytest.approx([1.05])
    assert phantom.density_g_cm3[5, 20, 20] == kept.density_g_cm3[5, 20, 20] < 0.05
    assert phantom.density_g_cm3[5, 20, 24] == pytest.approx(1.04)
    rest = kept.labels.mask("rest_of_body")
    assert (phantom.density_g_cm3[rest] == kept.density_g_cm3[rest]).all()
    with pytest.raises(SynthDoseError, match="density is 'book'"):
        build_phantom(ct, label_map, density="book")
    with pytest.raises(SynthDoseError, match="contrast is 'maybe'"):
        build_phantom(ct, label_map, contrast="maybe")


def test_materials_of_one_name_and_another_composition_stay_apart():
    other = Material("water", 1.0, {"H": 0.2, "O": 0.8})
    grid = VoxelGrid.from_spacing((4, 4, 4), (5.0, 5.0, 5.0))
    labels = LabelMap(grid, np.repeat([1, 2], 32).reshape(4, 4, 4).astype(np.uint16), (Organ(1, "liver"), Organ(2, "spleen")))
    phantom = assign_tissues(labels, overrides={"liver": WATER, "spleen": other})
    assert len(phantom.materials) == 2
