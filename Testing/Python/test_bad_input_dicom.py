"""Contours, segments and headers as unlucky users and attackers bring them: one clear message, or a result that says so."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, grid, hounsfield, write_patient
from test_io_rtstruct import ball, circle, rtstruct
from test_pipeline_time_points import HALF_LIVES, HEAD, LU177_S, START, concentration, write_dicom_course

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import ImageVolume, LabelMap, SynthDoseError, VoxelGrid, organ_table
from SynthDoseLib.io import DicomStudy, read_image, read_labels, write_dicom_seg, write_dicom_series, write_volume
from SynthDoseLib.io.dicom_files import save_dataset

GRID = VoxelGrid.from_spacing((60, 80, 80), (1, 1, 1))
HEIGHTS = np.arange(-9.5, 10.0)
FORMULA, MARKUP, UPWARDS = "=cmd|'/c calc'!A1", "<script>alert(1)</script>", "../../../evil"


def volume_ml(path: Path, name: str = "roi") -> tuple[float, str]:
    found = read_labels(path, reference=GRID)
    return found.voxel_counts()[name] / 1000, " ".join(found.notes)


def square(low: float, high: float, z: float) -> np.ndarray:
    return np.array([[low, low, z], [high, low, z], [high, high, z], [low, high, z]], dtype=float)


@pytest.mark.parametrize(
    "again", [lambda c: c[::-1], lambda c: np.roll(c, 7, axis=0), lambda c: c + 0.0004], ids=["backwards", "rotated", "shifted"]
)
def test_a_contour_written_again_in_another_way_does_not_cancel_itself(tmp_path, again):
    lines = [line for z in HEIGHTS for line in (circle(15, z), again(circle(15, z)))]
    once, _ = volume_ml(rtstruct(tmp_path / "once.dcm", [lines[::2]]))
    found, said = volume_ml(rtstruct(tmp_path / "rs.dcm", [lines]))
    assert found == once == pytest.approx(np.pi * 15**2 * 20 / 1000, rel=0.02)
    assert "20 contour(s) written twice were left out" in said


def test_contours_that_cross_are_told_of_and_those_that_touch_or_nest_are_not(tmp_path):
    crossing = [line for z in HEIGHTS for line in (square(-10, 5, z), square(0, 15, z))]
    found, said = volume_ml(rtstruct(tmp_path / "crossing.dcm", [crossing]))
    assert found == pytest.approx((2 * 15**2 - 2 * 5**2) * 20 / 1000, rel=0.03)
    assert "contours cross each other on 20 plane(s)" in said
    beside = [line for z in HEIGHTS for line in (square(-10, 0, z), square(0, 10, z) - (0, 10, 0))]
    nested = [line for z in HEIGHTS for line in (square(-20, 20, z), square(-10, 10, z), square(-5, 5, z))]
    for lines, area in ((beside, 200), (nested, 1600 - 400 + 100)):
        found, said = volume_ml(rtstruct(tmp_path / "fine.dcm", [lines]))
        assert found == pytest.approx(area * 20 / 1000, rel=0.03)
        assert "cross" not in said


def test_structures_without_a_closed_contour_are_refused_as_a_plan_and_told_of_beside_others(tmp_path):
    for kind in ("OPEN_PLANAR", "OPEN_NONPLANAR", "POINT"):
        path = rtstruct(tmp_path / "rs.dcm", [ball(10, HEIGHTS)], kind=kind)
        found = read_labels(path, reference=GRID)
        assert found.voxel_counts() == {"roi": 0}
        assert f"of type {kind} were left out" in " ".join(found.notes)


def seg_file(folder: Path, shape: tuple[int, int, int] = (3, 7, 9)) -> tuple[Path, ImageVolume, LabelMap]:
    """A SEG whose frames end within a byte."""
    where = VoxelGrid.from_spacing(shape, (2.0, 2.0, 3.0))
    write_dicom_series(folder / "ct", ImageVolume(where, np.zeros(shape, np.float32), "CT", "HU"))
    ct = read_image(folder / "ct")
    values = np.random.default_rng(3).integers(0, 3, shape).astype(np.uint16)
    labels = LabelMap(where, values, organ_table(["liver", "spleen"]))
    write_dicom_seg(folder / "seg.dcm", labels, ct, deidentify=True)
    return folder / "seg.dcm", ct, labels


@pytest.mark.parametrize("shape", [(3, 7, 9), (5, 5, 5), (1, 3, 3), (2, 1, 11)])
def test_frames_that_end_within_a_byte_are_read_to_the_bit(tmp_path, shape):
    path, ct, labels = seg_file(tmp_path, shape)
    assert pydicom.dcmread(path).BitsAllocated == 1
    np.testing.assert_array_equal(read_labels(path, reference_image=ct).labels, labels.labels)


def fractional_seg(path: Path, ct: ImageVolume, share: np.ndarray) -> Path:
    """One segment, liver, as the probability of each voxel."""
    tissue, liver = (highdicom.sr.CodedConcept(*c) for c in (("85756007", "SCT", "Tissue"), ("10200004", "SCT", "Liver")))
    segment = highdicom.seg.SegmentDescription(1, "liver", tissue, liver, "MANUAL")
    uid = highdicom.UID()
    headers = [pydicom.dcmread(name) for name in ct.source_files]
    dataset = highdicom.seg.Segmentation(
        headers, share, "FRACTIONAL", [segment], uid, 1, uid, 1, "maker", "model", "1", "1", fractional_type="PROBABILITY"
    )
    dataset.save_as(path)
    return path


def test_a_fractional_seg_gives_the_voxels_at_least_half_inside(tmp_path):
    _, ct, _ = seg_file(tmp_path)
    share = np.zeros((3, 7, 9), np.float32)
    share[:, 2:5, 2:6], share[:, 2:5, 6], share[:, 5, 2] = 0.8, 0.4, 128 / 255
    found = read_labels(fractional_seg(tmp_path / "fractional.dcm", ct, share), reference_image=ct)
    np.testing.assert_array_equal(found.labels > 0, share >= 0.5)
    assert "at least half inside" in " ".join(found.notes)


LOCAL = 'engine = "local"\n'


def test_a_run_with_a_fractional_seg_has_its_organ(tmp_path):
    where = grid()
    write_dicom_series(tmp_path / "ct", ImageVolume(where, hounsfield(where), "CT", "HU"))
    share = np.zeros(where.shape, np.float32)
    share[9:15, 9:15, 9:15], share[9:15, 9:15, 15] = 0.9, 0.3
    fractional_seg(tmp_path / "seg.dcm", read_image(tmp_path / "ct"), share)
    text = PLAN.replace('"ct.nrrd"', '"ct"').replace('"labels.seg.nrrd"', '"seg.dcm"').replace("histories = 4000\n", LOCAL)
    assert main(["run", str(write_patient(tmp_path, text)), "--out", str(tmp_path / "out")]) == 0
    assert float(rows(tmp_path / "out" / "organ_doses.csv")["liver"]["volume_ml"]) == pytest.approx(6**3 * 0.125)
    assert "at least half inside" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_run_with_keyhole_contours_and_scans_corrected_to_administration_has_the_activity_of_both(tmp_path):
    """A cylinder with a hole inside the liver; scans multiplied by 2^(t/T) of Lu-177, as their header would say: ADMIN."""
    write_dicom_series(tmp_path / "ct", ImageVolume(grid(), hounsfield(grid()), "CT", "HU"))
    frame = read_image(tmp_path / "ct").metadata["frame_of_reference_uid"]
    heights = grid().to_ras(np.column_stack([np.zeros(24), np.zeros(24), np.arange(24)]))[:, 2]
    lines = []
    for z in heights[np.abs(heights) < 10]:
        outer, inner = circle(15, z, (25, 0)), circle(6, z, (25, 0))
        lines.append(np.concatenate([outer, outer[:1], inner[::-1][-1:], inner[::-1], outer[:1]]))
    rtstruct(tmp_path / "rs.dcm", [lines], frame=frame, names=("Liver",))
    tables = ""
    for hours in (24.0, 96.0):
        values = concentration(hours) * np.float32(2 ** (hours * 3600 / LU177_S))
        write_volume(tmp_path / f"at{hours:.0f}.nrrd", values, grid(), unit="Bq/ml")
        tables += f'[[activity]]\npath = "at{hours:.0f}.nrrd"\nhours_after_administration = {hours}\n'
        tables += 'decay_correction = "ADMIN"\n'
    head = HEAD.replace('"ct.nrrd"', '"ct"').replace('"labels.seg.nrrd"', '"rs.dcm"').replace("histories = 400\n", LOCAL)
    assert main(["run", str(write_patient(tmp_path, head + tables)), "--out", str(tmp_path / "out")]) == 0
    liver = rows(tmp_path / "out" / "organ_doses.csv")["liver"]
    planes = int((np.abs(heights) < 10).sum())
    assert float(liver["volume_ml"]) == pytest.approx(np.pi * (15**2 - 6**2) * 5 * planes / 1000, rel=0.05)
    fitted = rows(tmp_path / "out" / "kinetics.csv")["liver"]
    assert float(fitted["effective_half_life_h"]) == pytest.approx(HALF_LIVES["liver"], rel=1e-3)
    expected = START["liver"] * float(liver["volume_ml"]) * 1e-6 * HALF_LIVES["liver"] / np.log(2)
    assert float(fitted["tia_MBq_s"]) / 3600 == pytest.approx(expected, rel=2e-3)


def cut(dataset):
    dataset.PixelData = dataset.PixelData[:8]


def same_number(dataset):
    dataset.SegmentSequence[1].SegmentNumber = 1


def other_segment(dataset):
    dataset.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 77


def move(dataset, by):
    """Shift the first frame, or take its place away."""
    plane = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    if by is None:
        del plane.ImagePositionPatient
    else:
        plane.ImagePositionPatient = [float(x) + d for x, d in zip(plane.ImagePositionPatient, by, strict=True)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: setattr(d, "Rows", 60000), "does not fit its size"),
        (lambda d: setattr(d, "NumberOfFrames", 30000), "does not fit its size"),
        (lambda d: delattr(d, "SegmentSequence"), "damaged"),
        (cut, "damaged"),
        (same_number, "two segments with the number 1"),
        (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "frames and describes"),
        (other_segment, "belongs to segment 77, which it does not list"),
        (lambda d: move(d, [0, 0, 3e6]), "none is that large"),
        (lambda d: move(d, [0, 0, 1.234]), "regular volume"),
        (lambda d: move(d, [4000, 0, 0]), "regular volume"),
        (lambda d: move(d, None), "cannot be read as DICOM SEG"),
        (lambda d: setattr(d.file_meta, "TransferSyntaxUID", "1.2.3.4.5"), "no decoder for that is installed"),
    ],
)
def test_a_damaged_seg_is_refused_by_the_command(tmp_path, capsys, change, says):
    path, _, _ = seg_file(tmp_path)
    dataset = pydicom.dcmread(path)
    change(dataset)
    save_dataset(dataset, path)
    plan = write_patient(tmp_path, PLAN.replace('"ct.nrrd"', '"ct"').replace('"labels.seg.nrrd"', '"seg.dcm"'))
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == BAD_INPUT
    message = capsys.readouterr().err.split("synthdose: ")[-1].strip()
    assert says in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory) -> Path:
    """A run, not de-identified, of hostile names, a structure of one voxel, an empty one, and two that are the same."""
    folder = tmp_path_factory.mktemp("odd")
    study = DicomStudy(patient_name=MARKUP, patient_id=f"{MARKUP} {FORMULA}")
    write_dicom_series(folder / "ct", ImageVolume(grid(), hounsfield(grid()), "CT", "HU"), study)
    frame = read_image(folder / "ct").metadata["frame_of_reference_uid"]
    heights = grid().to_ras(np.column_stack([np.zeros(24), np.zeros(24), np.arange(24)]))[:, 2]
    near = [z for z in heights if abs(z) < 20]
    big = [np.add(line, (25, 0, 0)) for line in ball(20, near)]
    voxel = grid().to_ras([8, 12, 12])
    tiny = [square(-2.4, 2.4, 0.0) + voxel]
    contours = [big, big, [np.subtract(line, (25, 0, 0)) for line in ball(12, near)], tiny, []]
    rtstruct(folder / "rs.dcm", contours, frame=frame, names=(FORMULA, "CTV", MARKUP, UPWARDS, "-Nothing"))
    plan = PLAN.replace('"ct.nrrd"', '"ct"').replace('"labels.seg.nrrd"', '"rs.dcm"') + "deidentify = false\n"
    plan = plan.replace("[output]\nradiomics = false\nscene = false\n", "[output]\nradiomics = false\nscene = true\n")
    path = write_patient(folder, plan)
    assert main(["run", str(path), "--out", str(folder / "out")]) == 0
    return folder / "out"


def rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return {row["organ"]: row for row in csv.DictReader(stream)}


def test_no_table_holds_a_formula(odd_run):
    for path in odd_run.glob("*.csv"):
        with open(path, newline="", encoding="utf-8") as stream:
            cells = [cell for row in csv.reader(stream) for cell in row]
        started = [cell for cell in cells if cell[:1] in "=@+-" and cell]
        assert all(all(c in "0123456789.e+- " for c in cell) for cell in started), (path.name, started)
    assert "cmd|'/c calc'!A1" in rows(odd_run / "organ_doses.csv")


def test_no_markup_of_a_header_gets_into_the_report(odd_run):
    html = (odd_run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_names_of_structures_are_no_paths(odd_run):
    assert not list(odd_run.parent.parent.rglob("*evil*"))
    assert UPWARDS in rows(odd_run / "organ_doses.csv")


def test_an_empty_structure_one_of_a_single_voxel_and_two_alike_have_what_can_be_known(odd_run):
    doses, curves = rows(odd_run / "organ_doses.csv"), rows(odd_run / "dvh_metrics.csv")
    assert "Nothing" not in curves
    assert doses["Nothing"]["mean_dose_Gy"] == ""
    assert float(doses[UPWARDS]["volume_ml"]) == pytest.approx(0.125)
    assert float(curves[UPWARDS]["max_Gy"]) >= float(curves[UPWARDS]["min_Gy"]) > 0
    assert curves[UPWARDS]["d1cc_Gy"] == ""
    # its voxels went to the one that is the same, its histogram is of its contours
    assert float(doses["CTV"]["volume_ml"]) * float(doses["cmd|'/c calc'!A1"]["volume_ml"]) == 0
    assert float(curves["CTV"]["mean_Gy"]) == pytest.approx(float(curves["cmd|'/c calc'!A1"]["mean_Gy"]), rel=1e-6)
    html = (odd_run / "report.html").read_text(encoding="utf-8")
    assert "has no closed contour; it is empty" in html
    assert "share" in html


def test_a_registration_that_fails_and_a_curve_that_rises_keep_the_result_and_say_so(tmp_path):
    """The second scan is noise and much stronger: it stays where its coordinates put it, and no tail diverges."""
    plan = write_dicom_course(tmp_path)
    plan.write_text(plan.read_text(encoding="utf-8").replace("histories = 400\n", LOCAL), encoding="utf-8")
    path = next((tmp_path / "spect1").iterdir())
    dataset = pydicom.dcmread(path)
    noise = np.random.default_rng(0).integers(0, 60000, dataset.pixel_array.shape)
    dataset.PixelData = noise.astype(np.uint16).tobytes()
    save_dataset(dataset, path)
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == 0
    with open(tmp_path / "out" / "registration.csv", newline="", encoding="utf-8") as stream:
        second = list(csv.DictReader(stream))[1]
    assert (second["method"], second["used"]) == ("rigid", "no")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    warnings = html[html.index("Read this first") : html.index("</ul></div>")]
    assert "registration of Time point 2 failed" in warnings
    assert "It was left where its own coordinates put it" in warnings
    for row in rows(tmp_path / "out" / "kinetics.csv").values():
        assert 0 < float(row["effective_half_life_h"]) <= 159.6  # that of Lu-177
        assert np.isfinite(float(row["tia_MBq_s"]))
    assert "rises at its last time point" in html


def test_scans_out_of_order_give_the_same_result(tmp_path):
    from test_pipeline_time_points import phantom, write_course

    from SynthDoseLib.pipeline import read_plan
    from SynthDoseLib.pipeline.activity import time_integrate

    sums = []
    for name, hours in (("ordered", (4.0, 24.0, 72.0, 120.0)), ("mixed", (120.0, 4.0, 72.0, 24.0))):
        (tmp_path / name).mkdir()
        sums.append(time_integrate(read_plan(write_course(tmp_path / name, hours=hours)), phantom()).tia.tia_MBq_s)
    np.testing.assert_allclose(sums[1], sums[0], rtol=1e-5)


def test_suv_without_what_was_injected_asks_for_it_by_name(tmp_path, capsys):
    from SynthDoseLib.io import read_volume

    plan = write_patient(tmp_path, PLAN.replace('unit = "Bq/ml"', 'unit = "g/ml"').replace("administered_MBq = 1000\n", ""))
    values, where, _ = read_volume(tmp_path / "spect.nrrd")
    write_volume(tmp_path / "spect.nrrd", values, where)
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == BAD_INPUT
    message = capsys.readouterr().err
    assert "[therapy] administered_MBq, [[activity]] patient_weight_kg" in message
    assert not (tmp_path / "out").exists()


def test_a_series_cut_off_within_its_pixels_is_refused(tmp_path, capsys):
    files = write_dicom_series(tmp_path / "ct", ImageVolume(grid(), hounsfield(grid()), "CT", "HU"))
    files[5].write_bytes(files[5].read_bytes()[:-200])
    plan = write_patient(tmp_path, PLAN.replace('"ct.nrrd"', '"ct"'))
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "incomplete" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def spoil(files: list[Path], way: str) -> None:
    """Damage the last slice of a series."""
    last = files[-1]
    if way == "empty":
        last.write_bytes(b"")
    elif way == "zeros":
        last.write_bytes(bytes(last.stat().st_size))
    elif way == "text":
        last.write_text("<html>404</html>")
    elif way == "cut":
        last.write_bytes(last.read_bytes()[:600])
    elif way == "link":
        last.unlink()
        last.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("empty", "(0 bytes)"),
        ("zeros", "(no DICOM file)"),
        ("text", "(no DICOM file)"),
        ("cut", "ends within its header"),
        ("link", "leads nowhere"),
    ],
)
def test_files_of_a_series_that_cannot_be_used_are_named_and_never_passed_over(tmp_path, way, why):
    files = write_dicom_series(tmp_path / "ct", ImageVolume(grid(), hounsfield(grid()), "CT", "HU"))
    (tmp_path / "ct" / "readme.txt").write_text("no slice, and no reason to say anything")
    assert not read_image(tmp_path / "ct").notes
    spoil(files, way)
    image = read_image(tmp_path / "ct")
    assert image.grid.shape[0] == len(files) - 1
    said = [note for note in image.notes if "left out" in note]
    assert len(said) == 1
    assert said[0].startswith(f"1 file that cannot be used was left out: {files[-1].name} ")
    assert why in said[0]
    spoil(files[:10], way)
    with pytest.raises(SynthDoseError, match="slices are missing between") as error:
        read_image(tmp_path / "ct")
    assert f"2 unusable files were left out: {files[9].name}" in str(error.value)


def test_pixels_that_nothing_unpacks_are_refused_with_their_transfer_syntax_and_the_package(tmp_path, monkeypatch):
    files = write_dicom_series(tmp_path / "ct", ImageVolume(grid(), hounsfield(grid()), "CT", "HU"))
    for number, (syntax, package) in enumerate(
        [(pydicom.uid.JPEG2000Lossless, "pylibjpeg-openjpeg"), (pydicom.uid.JPEGLSLossless, "pylibjpeg-libjpeg")]
    ):
        dataset = pydicom.dcmread(files[number])
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = pydicom.encaps.encapsulate([dataset.PixelData])
        dataset["PixelData"].VR = "OB"
        save_dataset(dataset, tmp_path / f"{number}.dcm")
        with pytest.raises(SynthDoseError, match="cannot be decoded; they are damaged"):
            read_image(tmp_path / f"{number}.dcm")
        with monkeypatch.context() as without:
            without.setattr("SynthDoseLib.io.dicom_syntax._is_decodable", lambda syntax: False)
            with pytest.raises(SynthDoseError, match=rf"{syntax}.*no decoder.*pip install pylibjpeg {package}"):
                read_image(tmp_path / f"{number}.dcm")


def test_a_single_bad_contour_point_is_refused_with_the_name_of_its_structure(tmp_path):
    lines = ball(10, HEIGHTS)
    lines[3] = lines[3] * np.nan
    with pytest.raises(SynthDoseError, match="structure 'roi' is damaged"):
        read_labels(rtstruct(tmp_path / "rs.dcm", [lines]), reference=GRID)
