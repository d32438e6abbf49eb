"""Exports that other codes open, and organ surfaces there and back."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import grid as small_grid
from small_patient import hounsfield
from small_patient import labels as small_labels

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import Emission, ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid
from SynthDoseLib.io import read_labels, read_volume, write_segmentation, write_volume
from SynthDoseLib.phantom import build_phantom, density_classes, write_gate, write_penred
from SynthDoseLib.phantom.meshes import SurfaceMesh, mesh_mask, organ_mesh, read_mesh, write_mesh
from SynthDoseLib.pipeline.phantom_exports import export_phantom
from SynthDoseLib.transport import OrganSource, RunSettings, simulate

PENRED = Path(__file__).parents[1] / "Benchmarks" / "penred_process.py"


@pytest.fixture(scope="module")
def image():
    where = small_grid()
    return ImageVolume(where, hounsfield(where), "CT", "HU")


@pytest.fixture(scope="module")
def phantom(image):
    """A water cylinder with two organs, the upper half of it 20 % denser."""
    made = build_phantom(image, small_labels(image.grid))
    density = made.density_g_cm3.copy()
    density[12:] *= 1.2
    return replace(made, density_g_cm3=density)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def ellipsoid(spacing_mm, half_mm=(22.0, 16.0, 30.0), oblique=False):
    """Mask of an ellipsoid, its grid, and its volume, ml."""
    c, s = np.cos(0.4), np.sin(0.4)
    axes = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) if oblique else np.diag([-1.0, -1.0, 1.0])
    shape = tuple(int(90 / x) for x in spacing_mm[::-1])
    where = VoxelGrid.from_spacing(shape, spacing_mm, origin_ras_mm=(10.0, -20.0, 30.0), directions=axes)
    middle = where.to_ras((np.asarray(shape[::-1]) - 1) / 2)
    k, j, i = np.indices(shape)
    ras = where.to_ras(np.stack([i, j, k], axis=-1)) - middle
    return ((ras / half_mm) ** 2).sum(axis=-1) < 1, where, 4 / 3 * np.pi * np.prod(half_mm) / 1000


@pytest.mark.parametrize("suffix", [".stl", ".vtp"])
@pytest.mark.parametrize(("spacing", "oblique"), [((2.0, 2.0, 2.0), False), ((1.5, 1.5, 4.0), True)])
def test_surfaces_are_closed_outward_and_keep_the_volume(tmp_path, suffix, spacing, oblique):
    mask, where, exact_ml = ellipsoid(spacing, oblique=oblique)
    mesh = organ_mesh(mask, where)
    assert mesh.edge_faults() == (0, 0, 0)
    assert mesh.volume_ml == pytest.approx(mask.sum() * where.voxel_volume_ml, rel=0.01)
    assert mesh.volume_ml == pytest.approx(exact_ml, rel=0.02)
    path = tmp_path / f"organ{suffix}"
    write_mesh(path, mesh)
    back = read_mesh(path)
    assert back.volume_ml == pytest.approx(mesh.volume_ml, rel=1e-4)
    assert back.points_ras_mm.mean(axis=0) == pytest.approx(mesh.points_ras_mm.mean(axis=0), abs=0.2)
    again = mesh_mask(back, where)
    assert 2 * (again & mask).sum() / (again.sum() + mask.sum()) > 0.985
    assert again.sum() == pytest.approx(mask.sum(), rel=0.01)


def test_an_organ_at_the_border_and_a_single_voxel_have_closed_surfaces():
    where = VoxelGrid.from_spacing((6, 6, 6), (2.0, 2.0, 2.0))
    for mask in (np.ones(where.shape, bool), np.arange(216).reshape(where.shape) == 0):
        mesh = organ_mesh(mask, where)
        assert mesh.edge_faults() == (0, 0, 0)
        assert mesh.volume_ml == pytest.approx(mask.sum() * 0.008, rel=0.01)
    with pytest.raises(SynthDoseError, match="empty"):
        organ_mesh(np.zeros(where.shape, bool), where)


def cube(*, without=0, doubled=0, inner_wall=False, size=20.0):
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], float) * size
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = [t for a, b, c, d in faces for t in ((a, b, c), (a, c, d))]
    triangles = triangles[without:] + triangles[:doubled]
    if inner_wall:
        triangles += [(0, 1, 7), (0, 7, 6)]
    return SurfaceMesh(corners, np.array(triangles, np.int64))


def test_meshes_are_repaired_or_refused(tmp_path):
    path = tmp_path / "liver.stl"
    write_mesh(path, cube())
    assert abs(read_mesh(path).volume_ml) == pytest.approx(8.0)
    write_mesh(path, SurfaceMesh(cube().points_ras_mm, cube().triangles[:, ::-1]))
    assert read_mesh(path).volume_ml == pytest.approx(8.0)  # inside out: turned
    write_mesh(path, cube(doubled=3))
    mesh = read_mesh(path)
    assert mesh.volume_ml == pytest.approx(8.0)
    assert any("twice" in note for note in mesh.notes)
    write_mesh(path, cube(without=2))
    with pytest.raises(SynthDoseError, match=r"liver\.stl is not closed: 4 edges"):
        read_mesh(path)
    write_mesh(path, cube(inner_wall=True))
    with pytest.raises(SynthDoseError, match=r"not closed|not manifold"):
        read_mesh(path)
    path.write_bytes(b"no mesh at all")
    with pytest.raises(SynthDoseError, match="no triangles"):
        read_mesh(path)
    with pytest.raises(SynthDoseError, match="no mesh that can be read"):
        read_mesh(tmp_path / "liver.xyz")


def test_a_small_hole_is_filled_and_said(tmp_path):
    mask, where, _ = ellipsoid((2.0, 2.0, 2.0))
    mesh = organ_mesh(mask, where)
    write_mesh(tmp_path / "holed.vtp", SurfaceMesh(mesh.points_ras_mm, mesh.triangles[1:]))
    mended = read_mesh(tmp_path / "holed.vtp")
    assert any("filled" in note for note in mended.notes)
    assert mended.volume_ml == pytest.approx(mesh.volume_ml, rel=0.005)


def test_a_folder_of_meshes_is_a_segmentation(tmp_path, image, phantom, capsys, monkeypatch):
    monkeypatch.setattr("SynthDoseLib.pipeline.quality_report.outline_pictures", lambda *_: [])
    export_phantom(tmp_path, ["stl"], phantom, image, small_labels(image.grid))
    (tmp_path / "stl" / "body.stl").unlink()
    write_volume(tmp_path / "ct.nrrd", image.values, image.grid, unit="HU")
    out = tmp_path / "again"
    arguments = ["phantom", str(tmp_path / "ct.nrrd"), str(tmp_path / "stl"), "--modality", "CT", "--out", str(out)]
    assert main(arguments) == 0
    again = {row["organ"]: float(row["volume_ml"]) for row in table(out / "masses.csv")}
    for name, count in phantom.labels.voxel_counts().items():
        if count and name != "rest_of_body":
            assert again[name] == pytest.approx(count * phantom.grid.voxel_volume_ml, rel=0.05)
    write_mesh(tmp_path / "stl" / "liver.stl", cube(without=2))
    assert main([*arguments, "--overwrite"]) == BAD_INPUT
    assert "liver.stl is not closed" in capsys.readouterr().err
    write_mesh(tmp_path / "stl" / "liver.stl", replace(cube(), points_ras_mm=cube().points_ras_mm + 5000))
    assert main([*arguments, "--overwrite"]) == BAD_INPUT
    assert "lies outside the image" in capsys.readouterr().err
    assert (out / "phantom.json").is_file()  # what was there is still there


def read_mhd(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    header = dict(line.split(" = ") for line in path.read_text(encoding="ascii").splitlines())
    kind = {"MET_SHORT": "<i2", "MET_USHORT": "<u2"}[header["ElementType"]]
    shape = [int(n) for n in header["DimSize"].split()][::-1]
    return np.fromfile(path.parent / header["ElementDataFile"], kind).reshape(shape), header


def test_gate_gets_index_image_materials_and_ranges_that_fit_together(tmp_path, phantom):
    write_gate(tmp_path, phantom)
    index, header = read_mhd(tmp_path / "phantom.mhd")
    assert [float(s) for s in header["ElementSpacing"].split()] == pytest.approx(phantom.grid.spacing_mm)
    values, where, _ = read_volume(tmp_path / "phantom.mhd")  # ITK reads it, at the same place
    assert where.matches(phantom.grid)
    assert (values == index).all()
    ranges = [line.split() for line in (tmp_path / "index_to_material.txt").read_text().splitlines()]
    assert all(float(a[1]) == float(b[0]) for a, b in pairwise(ranges))
    text = (tmp_path / "materials.db").read_text()
    density = {m[1]: float(m[2]) for m in re.finditer(r"^(\w+): d=(\S+) g/cm3", text, re.MULTILINE)}
    shares = {
        block.split(":")[0]: [float(x) for x in re.findall(r"f=(\S+)", block)]
        for block in text.split("[Materials]")[1].split("\n\n")
    }
    of_index = np.array([density[name] for _, _, name in ranges])
    for low, high, name in ranges:
        assert float(low) < int((float(low) + float(high)) / 2) < float(high)
        if name != "Vacuum":
            assert sum(next(v for k, v in shares.items() if k.strip() == name)) == pytest.approx(1, abs=1e-6)
    body = phantom.density_g_cm3 > 0
    assert np.abs(of_index[index][body] / phantom.density_g_cm3[body] - 1).max() < 0.0101
    organs, _ = read_mhd(tmp_path / "organs.mhd")
    rows = table(tmp_path / "organs.csv")
    for row in rows:
        mass = of_index[index][organs == int(row["index"])].sum() * phantom.grid.voxel_volume_ml
        assert mass == pytest.approx(float(row["mass_g"]), rel=0.005, abs=1e-9)
    classes = density_classes(phantom)
    mass = sum(n * d for n, d in zip(np.bincount(classes.index.ravel())[1:], classes.density_g_cm3, strict=True))
    assert mass == pytest.approx(phantom.density_g_cm3.sum(dtype=float), rel=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("pyPenred") is None, reason="pyPenred is not installed")
def test_penred_runs_the_export_and_gives_the_organ_doses_of_our_engine(tmp_path, phantom):
    folder = tmp_path / "export"
    folder.mkdir()
    write_penred(folder, phantom)
    materials = json.loads((folder / "materials.json").read_text())["materials"]
    liver = [m["number"] for m in materials if m["organ"] == "liver"]
    organs, _ = read_mhd(folder / "organs.mhd")
    places = np.argwhere(organs == phantom.labels.organ("liver").index)[:, ::-1]
    size_cm = np.asarray(phantom.grid.spacing_mm) / 10
    low, high = places.min(axis=0) * size_cm, (places.max(axis=0) + 1) * size_cm
    assert len(liver) == 1  # a source-material is one material
    job = {
        "voxels": str(folder / "voxels.dat"), "folder": str(tmp_path), "materials_folder": str(tmp_path),
        "result": str(tmp_path / "result.npz"), "shape": list(phantom.grid.shape[::-1]), "voxel_cm": size_cm.tolist(),
        "materials": [{**m, "key": f"m{m['number']}"} for m in materials], "particle": "gamma",
        "spectrum_eV": [[1.4e5 - 1, 1.0], [1.4e5 + 1, -1.0]], "centre_cm": ((low + high) / 2).tolist(),
        "size_cm": (high - low).tolist(), "direction": None, "source_material": liver[0], "histories": 60_000, "seed": 5,
        "c1_c2": 0.1, "wcc_eV": 2e4, "wcr_eV": 2e4, "cuts_eV": {"electron": 5e4, "positron": 5e4, "gamma": 2e3},
    }  # fmt: skip
    subprocess.run([sys.executable, str(PENRED)], input=json.dumps(job), text=True, check=True, capture_output=True)
    with np.load(tmp_path / "result.npz") as result:
        energy, sigma = result["energy_eV"], result["energy_sigma"]
    emission = Emission.line("photon", 0.14, 1.0)
    own = simulate(
        phantom, OrganSource({"liver": 1.0}), [emission], RunSettings(histories=60_000, seed=3, device="cpu", threads=1)
    )
    for organ in ("liver", "spleen", "rest_of_body"):
        numbers = [m["number"] - 1 for m in materials if m["organ"] == organ]
        mass_g = phantom.mass_g()[organ]
        theirs = energy[numbers].sum() * 1.602176634e-16 / mass_g
        error = np.sqrt((sigma[numbers] ** 2).sum()) * 1.602176634e-16 / mass_g
        ours = next(row for row in own.organs if row.organ == organ)
        assert abs(ours.dose_Gy - theirs) <= max(0.02 * theirs, 3 * np.hypot(error, ours.sigma_Gy)), organ


def test_the_case_runs_as_it_is(tmp_path, phantom, image):
    export_phantom(tmp_path, ["case"], phantom, image, phantom.labels)
    case = tmp_path / "case" / "case.toml"
    case.write_text(case.read_text().replace("histories = 100000", "histories = 2000\nthreads = 1\ndevice = 'cpu'"))
    assert main(["simulate", str(case), "--out", str(tmp_path / "dose")]) == 0
    rows = {row["organ"]: row for row in table(tmp_path / "dose" / "organs.csv")}
    for organ, mass in phantom.mass_g().items():
        if mass:
            assert float(rows[organ]["mass_g"]) == pytest.approx(mass, rel=1e-5)
    # Lu-177 electrons, 147 keV per decay (ICRP 107), stay in the liver but for 1 %; photons add at most 4 %
    assert float(rows["liver"]["dose_Gy"]) == pytest.approx(0.147 * 1.602e-10 / phantom.mass_g()["liver"], rel=0.06)


def test_dicom_seg_holds_the_labels(tmp_path, phantom, image):
    labels = small_labels(image.grid)
    export_phantom(tmp_path, ["dicom"], phantom, image, labels)
    back = read_labels(tmp_path / "dicom" / "seg.dcm", reference=image.grid)
    for organ in ("liver", "spleen"):
        assert (back.mask(organ) == labels.mask(organ)).all()
    (tmp_path / "more").mkdir()
    with pytest.raises(SynthDoseError, match="DICOM SEG needs the image"):
        export_phantom(tmp_path / "more", ["dicom"], phantom, None, labels)


def test_an_unknown_export_is_refused_before_anything_is_written(tmp_path, image, capsys):
    write_volume(tmp_path / "ct.nrrd", image.values, image.grid, unit="HU")
    write_segmentation(
        tmp_path / "l.seg.nrrd", LabelMap(image.grid, np.ones(image.grid.shape, np.uint16), (Organ(1, "liver"),))
    )
    out = tmp_path / "out"
    assert (
        main(["phantom", str(tmp_path / "ct.nrrd"), str(tmp_path / "l.seg.nrrd"), "--out", str(out), "--export", "gates"])
        == BAD_INPUT
    )
    assert "Did you mean 'gate'?" in capsys.readouterr().err
    assert not out.exists()
