"""The quality verdict: every damage is found, healthy people are not accused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from SynthDoseLib.cli import main
from SynthDoseLib.core import ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid, VoxelPhantom
from SynthDoseLib.io import write_segmentation, write_volume
from SynthDoseLib.phantom import (
    ORGAN_GROUPS,
    PatientFacts,
    PersonPlan,
    assess_phantom,
    build_phantom,
    expectation_of,
    expected_mass_g,
    person_ct,
    sample_person,
    stylised_person,
    synthetic_patient,
)
from SynthDoseLib.segmentation import match_organs

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")


@pytest.fixture(scope="module")
def person():
    return synthetic_patient(2, spacing_mm=(5.0, 5.0, 5.0), tumours=2)


@pytest.fixture(scope="module")
def healthy(person):
    return build_phantom(person.ct, person.labels)


def judged(phantom, ct=None, labels=None, **person):
    """Verdict on a phantom with other labels."""
    if labels is not None:
        phantom = replace(phantom, labels=LabelMap(phantom.grid, labels, phantom.labels.organs))
    return assess_phantom(phantom, ct, person=PatientFacts(**person) if person else None)


def found(quality, check, organ=None):
    return [f for f in quality.findings if f.check == check and f.severity != "note" and organ in (None, f.organ)]


def ball(phantom, organ, radius_mm):
    """Voxels around the one of an organ that lies deepest inside."""
    from scipy import ndimage

    mask = phantom.labels.mask(organ)
    depth = ndimage.distance_transform_edt(mask, sampling=phantom.grid.spacing_mm[::-1])
    middle = np.unravel_index(int(depth.argmax()), mask.shape)
    kji = np.indices(mask.shape)
    distance = np.sqrt(sum(((kji[n] - middle[n]) * phantom.grid.spacing_mm[2 - n]) ** 2 for n in range(3)))
    return (distance <= radius_mm) & mask


@pytest.mark.parametrize("seed", range(5))
def test_healthy_people_are_not_accused(seed):
    patient = synthetic_patient(seed, spacing_mm=(5.0, 5.0, 5.0), tumours=seed % 3)
    quality = assess_phantom(build_phantom(patient.ct, patient.labels), patient.ct)
    accused = [f.sentence() for f in quality.findings if f.severity != "note"]
    assert accused == []


def test_whole_people_with_their_parts_named_apart_are_not_accused():
    person = stylised_person(PersonPlan("female", 30.0), spacing_mm=(5.0, 5.0, 5.0))
    ct = person_ct(person, 1)
    quality = assess_phantom(build_phantom(ct, person.labels), ct)
    assert quality.verdict == "pass", [finding.sentence() for finding in quality.findings if finding.severity != "note"]


def test_the_person_comes_from_the_image_and_masses_from_icrp_89():
    assert expected_mass_g("liver", PatientFacts("male")).reference_g == 1800
    both = expected_mass_g("liver", PatientFacts())
    assert (both.low_g, both.high_g) == pytest.approx((1400 * 0.5, 1800 * 1.9))
    # a person of 1.76 m and one of 10 % more: the square of the height
    assert expected_mass_g("spleen", PatientFacts("male", height_m=1.936)).reference_g == pytest.approx(150 * 1.21)
    assert expected_mass_g("kidney_left", PatientFacts("female")).reference_g == pytest.approx(137.5)
    # children, ICRP 89: liver of 570 g at 5 years, kidneys of 25 g for both at birth; half-way from 5 to 10 years in between
    assert expected_mass_g("liver", PatientFacts("male", 5)).reference_g == pytest.approx(570)
    assert expected_mass_g("kidneys", PatientFacts("female", 0)).reference_g == pytest.approx(25)
    assert expected_mass_g("spleen", PatientFacts("female", 7.5)).reference_g == pytest.approx(65)
    assert expected_mass_g("prostate", PatientFacts("female")) is None
    assert expected_mass_g("tumour_1", PatientFacts()) is None
    assert expectation_of("rib_left_7").pattern == "rib_*"
    with pytest.raises(SynthDoseError, match="height_m"):
        PatientFacts(height_m=176.0)


def test_swapped_kidneys(healthy):
    labels = healthy.labels.labels.copy()
    right, left = healthy.labels.mask("kidney_right"), healthy.labels.mask("kidney_left")
    labels[right], labels[left] = healthy.labels.organ("kidney_left").index, healthy.labels.organ("kidney_right").index
    (finding,) = found(judged(healthy, labels=labels), "side")
    assert finding.severity == "fail"
    assert "kidney_right lies left of kidney_left" in finding.found


def mirrored(volume, grid):
    """The same voxels, put into the patient the other way round."""
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0]) @ grid.ijk_to_ras
    return volume, VoxelGrid(grid.shape, matrix)


def test_a_mirrored_image_is_told_from_swapped_labels(healthy):
    _, grid = mirrored(None, healthy.grid)
    labels = LabelMap(grid, healthy.labels.labels, healthy.labels.organs)
    phantom = VoxelPhantom(grid, healthy.material_index, healthy.density_g_cm3, healthy.materials, labels)
    findings = found(assess_phantom(phantom), "side")
    assert [f.organ for f in findings] == [""]
    assert "mirrored" in findings[0].action
    assert not found(assess_phantom(healthy), "side")


@pytest.mark.parametrize(("axis", "words"), [(2, "upside down"), (1, "in front")])
def test_an_image_that_is_turned_over(healthy, axis, words):
    turn = np.eye(4)
    turn[axis, axis] = -1
    turn[0, 0] = -1  # keeps the handedness, as a wrong patient position does
    grid = VoxelGrid(healthy.grid.shape, turn @ healthy.grid.ijk_to_ras)
    labels = LabelMap(grid, healthy.labels.labels, healthy.labels.organs)
    phantom = VoxelPhantom(grid, healthy.material_index, healthy.density_g_cm3, healthy.materials, labels)
    assert any(words in f.found for f in found(assess_phantom(phantom), "order"))


def test_a_hole_an_island_and_a_hole_that_is_a_tumour(healthy):
    labels = healthy.labels.labels.copy()
    labels[ball(healthy, "spleen", 9.0)] = 0
    quality = judged(healthy, labels=labels)
    (finding,) = found(quality, "hole")
    assert finding.organ == "spleen"
    assert "cavity" in finding.found
    labels = healthy.labels.labels.copy()
    labels[ball(healthy, "spleen", 9.0)] = healthy.labels.organ("tumour_1").index
    assert not found(judged(healthy, labels=labels), "hole")
    labels = healthy.labels.labels.copy()
    far = ball(healthy, "urinary_bladder", 9.0)
    labels[far] = healthy.labels.organ("spleen").index
    (finding,) = found(judged(healthy, labels=labels), "island", "spleen")
    assert "1 separate part" in finding.found


def test_a_lobe_with_the_label_of_the_other_lung(healthy):
    labels = healthy.labels.labels.copy()
    left = healthy.labels.mask("lung_left")
    lower = left & (np.arange(labels.shape[0]) < np.median(np.nonzero(left)[0]))[:, None, None]
    labels[lower] = healthy.labels.organ("lung_right").index
    (finding,) = found(judged(healthy, labels=labels), "side")
    assert finding.organ == "lung_right"
    share = lower.sum() / (lower.sum() + healthy.labels.mask("lung_right").sum())
    assert f"({share:.0%}) lies on the other side" in finding.found
    assert not found(judged(healthy), "side")


def test_an_organ_in_two_labels(healthy):
    labels = healthy.labels.labels.copy()
    liver = healthy.labels.mask("liver")
    half = liver & (np.arange(labels.shape[2]) < np.median(np.nonzero(liver)[2]))
    number = max(organ.index for organ in healthy.labels.organs) + 1
    labels[half] = number
    organs = (*healthy.labels.organs, Organ(number, "LIVER"))
    split = replace(healthy, labels=match_organs(LabelMap(healthy.grid, labels, organs)))
    (finding,) = found(assess_phantom(split), "split")
    assert finding.organ == "liver"
    masses = split.mass_g()
    assert f"{masses['liver']:.3g} g and {masses['LIVER']:.3g} g" in finding.found
    assert not found(judged(healthy), "split")


def test_a_missing_kidney_and_an_organ_without_voxels(healthy):
    index = healthy.labels.organ("kidney_left").index
    labels = np.where(healthy.labels.labels == index, healthy.labels.organ("rest_of_body").index, healthy.labels.labels)
    (finding,) = found(judged(healthy, labels=labels), "missing")
    assert finding.organ == "kidney_left"
    assert "without a voxel" in finding.found
    organs = tuple(o for o in healthy.labels.organs if o.name != "kidney_left")
    gone = replace(healthy, labels=LabelMap(healthy.grid, labels, organs))
    (finding,) = found(assess_phantom(gone), "missing")
    assert (finding.organ, finding.severity) == ("kidney_left", "warning")
    # somebody who labels two organs only does not want to hear about all others
    few = tuple(o for o in healthy.labels.organs if o.name in ("liver", "urinary_bladder"))
    values = np.where(np.isin(healthy.labels.labels, [o.index for o in few]), healthy.labels.labels, 0)
    assert not found(assess_phantom(replace(healthy, labels=LabelMap(healthy.grid, values, few))), "missing")


def cropped(phantom, ct, window):
    corner = tuple(s.start or 0 for s in window)
    part = phantom.density_g_cm3[window]
    grid = phantom.grid.crop(corner, part.shape)
    labels = LabelMap(grid, phantom.labels.labels[window], phantom.labels.organs)
    small = VoxelPhantom(grid, phantom.material_index[window], part, phantom.materials, labels)
    return small, replace(ct, grid=grid, values=ct.values[window])


def test_cut_organs_and_a_truncated_body(healthy, person):
    middle = int(np.argwhere(healthy.labels.mask("liver"))[:, 0].mean())
    low, ct = cropped(healthy, person.ct, (slice(0, middle), slice(None), slice(None)))
    findings = found(assess_phantom(low, ct), "field of view")
    assert "liver" in {f.organ for f in findings}
    assert not found(assess_phantom(low, ct), "mass", "liver")  # a part has no reference
    columns = np.flatnonzero((healthy.density_g_cm3 > 0).any(axis=(0, 1)))
    thin, ct = cropped(healthy, person.ct, (slice(None), slice(None), slice(int(columns[0]) + 8, None)))
    assert any("cut off at the side" in f.found for f in found(assess_phantom(thin, ct), "field of view"))
    # what the scanner did not see is padded with -3024
    values = np.array(person.ct.values)
    values[:, :, : int(columns[0]) + 8] = -3024
    padded = replace(person.ct, values=values)
    assert any(
        "cut off at the side" in f.found
        for f in found(assess_phantom(build_phantom(padded, person.labels), padded), "field of view")
    )


def scaled(phantom, factor):
    matrix = phantom.grid.ijk_to_ras.copy()
    matrix[:3, :3] *= factor
    grid = VoxelGrid(phantom.grid.shape, matrix)
    labels = LabelMap(grid, phantom.labels.labels, phantom.labels.organs)
    return VoxelPhantom(grid, phantom.material_index, phantom.density_g_cm3, phantom.materials, labels)


@pytest.mark.parametrize(
    ("factor", "severity"), [(1.3, "warning"), (0.8, "warning"), (1.5, "fail"), (0.6, "fail"), (10.0, "fail")]
)
def test_a_wrong_voxel_size(healthy, factor, severity):
    assert [f.severity for f in found(judged(scaled(healthy, factor), sex="male"), "scale")][:1] == [severity]
    assert not found(judged(healthy, sex="male"), "scale")


def test_a_child_is_compared_with_children():
    child = sample_person(3, sex="female", age_y=5.0, spacing_mm=(6.0, 6.0, 6.0))
    phantom = replace(child.phantom(), labels=child.merged(ORGAN_GROUPS))
    said = assess_phantom(phantom, person=PatientFacts("female", age_y=5.0))
    assert not found(said, "scale")
    assert not found(said, "mass")
    assert found(assess_phantom(phantom, person=PatientFacts("female")), "scale")


def test_findings_of_many_organs_are_said_once(healthy):
    values = np.where(np.isin(healthy.labels.labels, [healthy.labels.organ(n).index for n in ("liver", "spleen")]), 0, 1)
    quality = judged(healthy, labels=(healthy.labels.labels * values).astype(np.uint16))
    assert {f.organ for f in found(quality, "missing")} == {"liver", "spleen"}
    assert sum("listed, but without a voxel" in line for line in quality.describe().splitlines()) == 1
    assert "liver, spleen: listed" in quality.describe()
    nothing = judged(healthy, labels=np.zeros_like(healthy.labels.labels))
    assert nothing.verdict == "fail"
    assert any("no label has a voxel" in f.found for f in nothing.findings)


def test_an_organ_with_a_name_that_nobody_knows(healthy):
    organs = tuple(replace(organ, name="structure_4") if organ.name == "liver" else organ for organ in healthy.labels.organs)
    (finding,) = found(assess_phantom(replace(healthy, labels=replace(healthy.labels, organs=organs))), "missing")
    assert finding.organ == "liver"
    assert "structure_4" in finding.action


def test_a_slab_of_few_slices(healthy):
    grid = healthy.grid.crop((60, 0, 0), (4, *healthy.grid.shape[1:]))
    labels = LabelMap(grid, healthy.labels.labels[60:64], healthy.labels.organs)
    slab = VoxelPhantom(grid, healthy.material_index[60:64], healthy.density_g_cm3[60:64], healthy.materials, labels)
    assert any("20 mm long" in f.found for f in found(assess_phantom(slab), "field of view", ""))


def test_a_phantom_heavier_than_its_patient(healthy):
    mass_kg = float(healthy.density_g_cm3.sum(dtype=float)) * healthy.grid.voxel_volume_ml / 1000
    assert found(judged(healthy, weight_kg=mass_kg / 1.2), "scale")
    assert not found(judged(healthy, weight_kg=mass_kg / 1.05), "scale")


def test_labels_beside_their_organs(healthy, person):
    shifted = np.roll(person.labels.labels, 15, axis=2)  # 6 cm
    labels = LabelMap(person.labels.grid, shifted, person.labels.organs)
    quality = assess_phantom(build_phantom(person.ct, labels), person.ct)
    assert quality.verdict == "fail"
    assert {"lung_left", "lung_right"} & {f.organ for f in found(quality, "ct number")}
    assert {"liver", "spleen", "kidney_left"} & {f.organ for f in found(quality, "ct number")}


def test_contrast_agent_is_told_and_overridden(person):
    kidneys = person.labels.mask("kidney_left") | person.labels.mask("kidney_right")
    ct = replace(person.ct, values=person.ct.values + np.where(kidneys, np.float32(160), np.float32(0)))
    kept = build_phantom(ct, person.labels)
    findings = found(assess_phantom(kept, ct), "ct number")
    assert {f.organ for f in findings} == {"kidney_left", "kidney_right"}
    assert all("contrast agent" in f.found for f in findings)
    replaced = build_phantom(ct, person.labels, contrast="override")
    assert not found(assess_phantom(replaced, ct), "ct number")
    # ICRP 110: kidneys of 1.05 g/cm3
    volume = replaced.labels.voxel_counts()["kidney_left"] * replaced.grid.voxel_volume_ml
    assert replaced.mass_g()["kidney_left"] == pytest.approx(1.05 * volume, rel=1e-4)
    assert any("kidney_left" in note and "contrast agent" in note for note in replaced.notes)
    assert replaced.mass_g()["liver"] == kept.mass_g()["liver"]


def test_holes_in_the_body_are_found(healthy):
    density = healthy.density_g_cm3.copy()
    density[ball(healthy, "liver", 14.0)] = 0
    (finding,) = found(assess_phantom(replace(healthy, density_g_cm3=density)), "body")
    assert finding.severity == "fail"
    assert "vacuum" in finding.found


def test_overlaps_that_the_reader_resolved_are_repeated(healthy):
    notes = (
        "'liver' and 'colon' share 900 voxels (24.3 ml): they were given to 'colon', the smaller one, and taken from 'liver'.",
        "'body' and 'liver' share 60000 voxels (1620 ml): they were given to 'liver', the smaller one, and taken from 'body'.",
    )
    labels = replace(healthy.labels, notes=notes)
    quality = assess_phantom(replace(healthy, labels=labels))
    assert [f.severity for f in quality.findings if f.check == "overlap"] == ["warning", "note"]


def test_arms_beside_the_trunk_are_mentioned():
    grid = VoxelGrid.from_spacing((12, 60, 120), (4.0, 4.0, 5.0))
    _, j, i = np.ogrid[:12, :60, :120]
    trunk = ((i - 59.5) / 35) ** 2 + ((j - 29.5) / 24) ** 2 < 1
    arm = ((i - 109) ** 2 + (j - 29.5) ** 2 < 81) | ((i - 10) ** 2 + (j - 29.5) ** 2 < 81)
    hu = np.broadcast_to(np.where(trunk | arm, 30.0, -1000.0), grid.shape).astype(np.float32)
    values = np.broadcast_to(np.where(((i - 59.5) ** 2 + (j - 29.5) ** 2 < 100), 1, 0), grid.shape).astype(np.uint16)
    ct, labels = ImageVolume(grid, hu, "CT", "HU"), LabelMap(grid, values, (Organ(1, "tumour"),))
    phantom = build_phantom(ct, labels)
    assert (phantom.density_g_cm3 > 0)[:, arm[0]].all()
    assert any("arms" in f.found and "12 slices" in f.found for f in assess_phantom(phantom, ct).findings)


def patient_files(folder, person, labels=None):
    write_volume(folder / "ct.nrrd", person.ct.values, person.ct.grid, unit="HU")
    write_segmentation(folder / "labels.seg.nrrd", labels or person.labels)
    return str(folder / "ct.nrrd"), str(folder / "labels.seg.nrrd")


def test_the_verdict_is_written_for_programs_and_people(tmp_path, person, capsys):
    labels = np.array(person.labels.labels)
    right, left = person.labels.mask("kidney_right"), person.labels.mask("kidney_left")
    labels[right], labels[left] = person.labels.organ("kidney_left").index, person.labels.organ("kidney_right").index
    files = patient_files(tmp_path, person, replace(person.labels, labels=labels))
    out = tmp_path / "phantom"
    assert main(["phantom", *files, "--out", str(out), "--sex", "male", "--modality", "CT"]) == 0
    assert "Quality: fail" in capsys.readouterr().out
    record = json.loads((out / "phantom.json").read_text(encoding="utf-8"))
    assert (record["schema"], record["verdict"], record["person"]["sex"]) == (1, "fail", "male")
    assert any(f["check"] == "side" and f["severity"] == "fail" for f in record["findings"])
    organ = next(row for row in record["organs"] if row["organ"] == "kidney_left")
    assert organ["verdict"] == "fail" or any(f["organ"] == "kidney_right" for f in record["findings"])
    assert len(record["made"]["inputs"]["image"]["sha256"]) == 64
    page = (out / "quality.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 2
    assert "kidney right lies left" in page.replace("_", " ")
    assert main(["phantom", *files, "--out", str(out)]) == 2  # nothing of an earlier phantom is lost
    assert main(["phantom", *files, "--out", str(out), "--overwrite", "--strict"]) == 1


@needs_shared
def test_a_real_torso_is_judged_by_what_is_wrong_with_it():
    from SynthDoseLib.io import read_image
    from SynthDoseLib.pipeline.plan import SegmentationPlan
    from SynthDoseLib.pipeline.stations import read_segmentation

    folder = SHARED / "ct_torso_totalseg"
    ct = read_image(folder / "example_ct.nii.gz")
    plan = SegmentationPlan(path=folder / "example_seg_fast_force_split.nii.gz", labels="totalsegmentator")
    phantom = build_phantom(ct, read_segmentation(plan, ct), metal="titanium_grade5")
    quality = assess_phantom(phantom, ct)
    # seen by eye: the image ends in the dome of the liver and shows neither flank; the pancreas is in four parts of 19 ml
    assert {f.organ for f in found(quality, "field of view")} >= {"liver", "spleen", "stomach", "prostate", ""}
    assert {f.organ for f in found(quality, "island")} == {"pancreas"}
    assert {f.organ for f in found(quality, "mass")} == {"pancreas"}
    assert not found(quality, "side")
    assert not found(quality, "order")
    assert not found(quality, "missing")
    assert not found(quality, "ct number")
    assert not found(quality, "body")
