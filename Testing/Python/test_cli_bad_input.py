"""What a user does wrong: exit 2, one clear message, nothing half-written."""

import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, body_mask, grid, hounsfield, labels, write_patient

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import ImageVolume, LabelMap, VoxelGrid, organ_table
from SynthDoseLib.io import read_volume, write_dicom_series, write_segmentation, write_volume


def refused(plan: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Run a plan that has to be refused; return its message."""
    out = plan.parent / "out"
    status = main(["run", str(plan), "--out", str(out), *options])
    message = capsys.readouterr().err.split("synthdose: ")[-1].strip()
    assert status == BAD_INPUT, message
    assert not out.exists() or options
    assert "Traceback" not in message
    return message


def with_change(folder: Path, old: str, new: str) -> Path:
    assert old in PLAN
    return write_patient(folder, PLAN.replace(old, new, 1))


def dicom_ct(folder: Path, where: VoxelGrid) -> list[Path]:
    image = ImageVolume(where, hounsfield(where), modality="CT", unit="HU", metadata={"patient_id": "TEST"})
    write_dicom_series(folder, image)
    return sorted(folder.iterdir())


def test_no_image(tmp_path, capsys):
    assert "nothing.nrrd" in refused(with_change(tmp_path, "ct.nrrd", "nothing.nrrd"), capsys)


def test_an_empty_folder_holds_no_ct(tmp_path, capsys):
    (tmp_path / "ct").mkdir()
    assert "ct" in refused(with_change(tmp_path, "ct.nrrd", "ct"), capsys)


def test_two_series_in_one_folder(tmp_path, capsys):
    dicom_ct(tmp_path / "one", grid())
    dicom_ct(tmp_path / "two", grid())
    both = tmp_path / "ct"
    both.mkdir()
    for name in ("one", "two"):
        for file in (tmp_path / name).iterdir():
            shutil.copy(file, both / f"{name}{file.name}")
    assert "series" in refused(with_change(tmp_path, "ct.nrrd", "ct"), capsys)


def test_a_missing_slice(tmp_path, capsys):
    dicom_ct(tmp_path / "ct", grid())[10].unlink()
    assert "missing" in refused(with_change(tmp_path, "ct.nrrd", "ct"), capsys).lower()


def test_a_sheared_image(tmp_path, capsys):
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[0, 2] = 1.5
    nibabel.save(nibabel.Nifti1Image(hounsfield(grid()).transpose(2, 1, 0), affine), tmp_path / "ct.nii.gz")
    assert "orthogonal" in refused(with_change(tmp_path, "ct.nrrd", "ct.nii.gz"), capsys).lower()


def test_an_activity_image_of_another_place(tmp_path, capsys):
    plan = write_patient(tmp_path)
    far = VoxelGrid.from_spacing((10, 10, 10), (5.0,) * 3, (900, 900, 900))
    write_volume(tmp_path / "spect.nrrd", np.ones(far.shape, np.float32), far, unit="Bq/ml")
    assert "do not overlap" in refused(plan, capsys)


def test_a_label_map_of_another_place(tmp_path, capsys):
    plan = write_patient(tmp_path)
    far = VoxelGrid.from_spacing((10, 10, 10), (5.0,) * 3, (900, 900, 900))
    write_segmentation(tmp_path / "labels.seg.nrrd", LabelMap(far, np.ones(far.shape, np.uint16), organ_table(["liver"])))
    assert "does not overlap" in refused(plan, capsys)


@pytest.mark.parametrize("organ", ["pancreas", "heart"])
def test_an_organ_that_is_empty_or_not_there(tmp_path, capsys, organ):
    plan = with_change(tmp_path, "histories = 4000", f'relative_sigma = 0.1\norgans = ["{organ}"]')
    assert organ in refused(plan, capsys)


def test_an_unknown_nuclide_is_told_its_neighbours(tmp_path, capsys):
    message = refused(with_change(tmp_path, "Lu-177", "Lu-178"), capsys)
    assert "Lu-177" in message
    assert "Y-90" in message


@pytest.mark.parametrize("value", [-5.0, np.nan])
def test_negative_or_missing_activity(tmp_path, capsys, value):
    plan = write_patient(tmp_path)
    values, where, unit = read_volume(tmp_path / "spect.nrrd")
    values = values.copy()
    values[12, 12, 12] = value
    write_volume(tmp_path / "spect.nrrd", values, where, unit=unit)
    message = refused(plan, capsys)
    assert ("negative" if value < 0 else "finite") in message or "not a number" in message


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_nifti_file_that_holds_no_number_somewhere(tmp_path, capsys, suffix, value):
    """ITK reads such a voxel as 0: it has to be seen before."""
    plan = with_change(tmp_path, "spect.nrrd", f"spect.{suffix}")
    values, where, _ = read_volume(tmp_path / "spect.nrrd")
    values = values.copy()
    values[12, 12, 12] = value
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), where.ijk_to_ras), tmp_path / f"spect.{suffix}")
    assert "1 of 13824 values are not finite" in refused(plan, capsys)


def test_metal_without_a_material(tmp_path, capsys):
    plan = write_patient(tmp_path)
    values, where, unit = read_volume(tmp_path / "ct.nrrd")
    values = values.copy()
    values[11:13, 11:13, 11:13] = 8000
    write_volume(tmp_path / "ct.nrrd", values, where, unit=unit)
    message = refused(plan, capsys)
    assert "8 " in message
    assert "metal" in message


def test_a_misspelt_key(tmp_path, capsys):
    message = refused(with_change(tmp_path, "histories = 4000", "historys = 4000"), capsys)
    assert "'historys'" in message
    assert "Did you mean 'histories'" in message


def test_no_plan(tmp_path, capsys):
    assert "Cannot read the plan" in refused(tmp_path / "plan.toml", capsys)


def test_an_unreadable_bundle(tmp_path, capsys):
    (tmp_path / "bundle").mkdir()
    plan = with_change(tmp_path, 'path = "labels.seg.nrrd"', 'bundle = "bundle"')
    assert "bundle" in refused(plan, capsys)


def test_a_bundle_whose_weights_are_garbage(tmp_path, capsys):
    from SynthDoseLib.core import resource_path

    shutil.copytree(resource_path("segmentation", "synthetic_torso_ct"), tmp_path / "bundle")
    weights = next(p for p in (tmp_path / "bundle" / "models").iterdir())
    weights.write_bytes(b"\x80\x04garbage")
    plan = with_change(tmp_path, 'path = "labels.seg.nrrd"', 'bundle = "bundle"')
    assert weights.name in refused(plan, capsys)


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    plan = write_patient(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["run", str(plan), "--out", str(tmp_path / "file" / "out")]) == BAD_INPUT
    assert "file" in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(tmp_path, capsys):
    plan = write_patient(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("precious")
    assert main(["run", str(plan), "--out", str(tmp_path / "thesis"), "--overwrite"]) == BAD_INPUT
    assert "other files" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter1.txt"]


def test_a_full_disk(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    plan = write_patient(tmp_path)
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "free" in capsys.readouterr().err


def test_missing_times_are_asked_for_by_name(tmp_path, capsys):
    message = refused(with_change(tmp_path, "acquired_at = 2024-02-01T10:00:00", ""), capsys)
    assert "acquired_at" in message


@pytest.mark.parametrize("axes", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_a_flipped_image_is_never_mirrored(tmp_path, axes):
    """The liver stays on the patient's right, whichever way the file counts."""
    plan = with_change(tmp_path, "ct.nrrd", "ct.nii.gz")
    where = grid()
    values = hounsfield(where)
    values[body_mask(where) & (labels(where).labels == 1)] = 60
    flipped = values.transpose(2, 1, 0)[tuple(slice(None, None, step) for step in axes)]
    affine = where.ijk_to_ras.copy()
    affine[:3, 3] = where.to_ras([0 if step > 0 else n - 1 for step, n in zip(axes, where.shape[::-1], strict=True)])
    affine[:3, :3] = affine[:3, :3] * np.asarray(axes)
    nibabel.save(nibabel.Nifti1Image(flipped, affine), tmp_path / "ct.nii.gz")
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == 0
    density, found, _ = read_volume(tmp_path / "out" / "density.nrrd")
    i, j, k = found.to_ijk((25, 0, 0)).round().astype(int)
    assert density[k, j, i] > 1.03
    i, j, k = found.to_ijk((-25, 0, 0)).round().astype(int)
    assert density[k, j, i] < 1.03
    dose, found, _ = read_volume(tmp_path / "out" / "dose_Gy.nrrd")
    centre = np.average(np.argwhere(dose > 0)[:, ::-1], axis=0, weights=dose[dose > 0])
    assert found.to_ras(centre)[0] > 15
