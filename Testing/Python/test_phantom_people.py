"""Stylised people: masses as asked from newborn to adult, organs at their places, charts as published."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from SynthDoseLib.cli import main
from SynthDoseLib.core import SynthDoseError, resource_path
from SynthDoseLib.phantom import (
    ORGAN_GROUPS,
    PersonPlan,
    StylisedPerson,
    growth_value,
    growth_z,
    people_reference,
    percentile_to_z,
    person_ct,
    reference_mass,
    sample_person,
    sample_plan,
    stylised_person,
)
from SynthDoseLib.phantom.people_canvas import BodyFrame, Canvas
from SynthDoseLib.phantom.people_shapes import ellipsoid
from SynthDoseLib.pipeline.people import PeopleRequest, make_people

# voxels so small that the lightest organs (ovaries, 0.3 g at birth) are still several of them
PEOPLE = {
    "newborn": (PersonPlan("female", 0), 2.5),
    "1 year": (PersonPlan("male", 1), 3.0),
    "5 years": (PersonPlan("female", 5), 4.0),
    "10 years": (PersonPlan("male", 10), 4.0),
    "15 years": (PersonPlan("female", 15), 5.0),
    "man": (PersonPlan("male", 30), 5.0),
    "woman": (PersonPlan("female", 30), 5.0),
}


@pytest.fixture(scope="module", params=PEOPLE)
def person(request: pytest.FixtureRequest) -> StylisedPerson:
    plan, spacing = PEOPLE[request.param]
    return stylised_person(plan, spacing_mm=(spacing, spacing, spacing))


def test_organs_weigh_what_was_asked(person):
    masses = person.mass_g()
    assert set(masses) == {*person.targets, "torso_fat"}  # inner fat fills what is left
    assert len(masses) >= 70
    grams_per_voxel = person.grid.voxel_volume_ml * 1.05
    for organ, target in person.targets.items():
        # the acceptance is 2 %, 10 % below 20 g and for walls; half a voxel of each layer is what the grid allows
        allowed = max(0.02 * target.mass_g, 0.10 * target.mass_g if target.mass_g < 20 else 0.0, 1.5 * 1.8 * grams_per_voxel)
        assert abs(masses[organ] - target.mass_g) <= allowed, organ


def test_whole_body_has_weight_and_height_of_the_tables(person):
    assert person.total_mass_g() == pytest.approx(1000 * person.plan.weight_kg, rel=0.005)
    tall = np.flatnonzero((person.tissues > 0).any(axis=(1, 2))).size * person.grid.spacing_mm[2]
    assert tall == pytest.approx(10 * person.plan.height_cm, rel=0.015, abs=2 * person.grid.spacing_mm[2])


def test_a_seed_is_one_person():
    first, again = (sample_person(11, spacing_mm=(6, 6, 6), age_y=8.0) for _ in range(2))
    np.testing.assert_array_equal(first.labels.labels, again.labels.labels)
    assert sample_plan(11) != sample_plan(12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"age_y": 30.0, "height_cm": 90.0}, "from .* to .* cm can be built"),
        ({"age_y": 5.0, "height_cm": 110.0, "weight_kg": 80.0}, "body-mass index"),
        ({"age_y": -1.0}, "0 to 100 years"),
        ({"sex": "boy"}, "female or male"),
        ({"percentile": 100.0}, r"0\.01 to 99\.99"),
    ],
)
def test_impossible_people_are_refused(arguments, message):
    with pytest.raises(SynthDoseError, match=message):
        sample_plan(1, **arguments)


def test_every_voxel_of_the_body_belongs_to_one_tissue_and_at_most_one_organ(person):
    """No overlaps by construction: what could go wrong is a label outside the body, or an organ without its tissue."""
    labels, tissues = person.labels.labels, person.tissues
    assert (tissues[labels > 0] > 0).all()
    unlabelled = {person.tissue_table[n].name for n in np.unique(tissues[labels == 0])}
    assert unlabelled <= {"surrounding_air", "csf", "air", "gas", "esophagus", "blood", "fat"}
    inside = {organ.name: np.unique(tissues[labels == organ.index]) for organ in person.labels.organs}
    tissue_of = {"liver": {"liver"}, "spleen": {"spleen"}, "stomach_wall": {"stomach_wall"}, "heart_contents": {"blood"}}
    for organ, expected in tissue_of.items():
        assert {person.tissue_table[n].name for n in inside[organ]} == expected


def centre(person: StylisedPerson, name: str) -> np.ndarray:
    """Middle of an organ, RAS mm."""
    kji = np.argwhere(person.labels.mask(name))
    assert len(kji), name
    return person.grid.to_ras(kji[:, ::-1]).mean(axis=0)


def test_left_is_left_and_organs_are_stacked(person):
    for organ in person.labels.organs:
        if organ.name.endswith(("_left", "_right")):
            side = centre(person, organ.name)[0]
            assert side > 0 if organ.name.endswith("_right") else side < 0, organ.name  # RAS: right is positive
    assert centre(person, "liver")[0] > 0 > centre(person, "spleen")[0]
    order = ("brain", "thyroid_gland", "heart_wall", "liver", "small_bowel_wall", "urinary_bladder_wall", "foot_bones_left")
    heights = [centre(person, name)[2] for name in order]
    assert heights == sorted(heights, reverse=True)
    for front, back in (("sternum", "thoracic_spine"), ("stomach_wall", "kidney_left"), ("patella_left", "tibia_left")):
        assert centre(person, front)[1] > centre(person, back)[1], (front, back)


PIECES = {
    "duodenum": ("duodenum_wall", "duodenum_contents"),
    **{organ: ORGAN_GROUPS[organ] for organ in (
        "stomach", "colon", "urinary_bladder", "gallbladder", "liver", "spleen", "pancreas", "kidney_left", "kidney_right",
        "lung_left", "lung_right", "aorta", "thyroid_gland", "adrenal_gland_right")},
}  # fmt: skip


def broken_organs(person: StylisedPerson) -> dict[str, int]:
    """Organs whose voxels do not all hang together by their faces, and into how many parts they fall."""
    parts = {}
    for organ, members in PIECES.items():
        inside = np.isin(person.labels.labels, [person.labels.organ(member).index for member in members])
        parts[organ] = ndimage.label(inside)[1]
    return {organ: number for organ, number in parts.items() if number != 1}


def test_organs_are_in_one_piece(person):
    assert broken_organs(person) == {}


@pytest.mark.parametrize("seed", [2, 4, 6])
def test_organs_of_people_who_differ_are_in_one_piece(seed):
    person = sample_person(seed, variation=1.5, spacing_mm=(5.0, 5.0, 5.0))
    assert broken_organs(person) == {}
    duodenum, rest = (
        sum(person.targets[f"{organ}_{part}"].mass_g for part in ("wall", "contents")) for organ in ("duodenum", "small_bowel")
    )
    assert 0.05 < duodenum / rest < 0.11


def test_lungs_rest_on_the_diaphragm_above_liver_and_spleen(person):
    """Along every line upwards, no lung is found below the liver or the spleen."""
    for lung, below in (("lung_right", "liver"), ("lung_left", "spleen")):
        air, organ = person.labels.mask(lung), person.labels.mask(below)
        lines = air.any(axis=0) & organ.any(axis=0)
        assert lines.sum() > 10
        lowest_lung = np.argmax(air, axis=0)[lines]
        highest_organ = organ.shape[0] - 1 - np.argmax(organ[::-1], axis=0)[lines]
        assert (lowest_lung > highest_organ).mean() > 0.95


def test_brain_lies_inside_the_skull(person):
    brain, bone = person.labels.mask("brain"), person.labels.mask("skull")
    slices = np.flatnonzero(brain.any(axis=(1, 2)))
    slices = slices[len(slices) // 2 :]  # the base is open
    enclosed = np.stack([ndimage.binary_fill_holes(bone[k]) for k in slices])
    assert (enclosed & brain[slices]).sum() > 0.97 * brain[slices].sum()


def test_damaged_table_of_masses_is_refused(tmp_path, monkeypatch):
    original = resource_path("anatomy", "people_masses.json").read_text(encoding="utf-8")
    (tmp_path / "people_masses.json").write_text(original, encoding="utf-8")
    (tmp_path / "people_masses.csv").write_text("organ,sex,age_y,mass_g,source\nliver,both,0,1,\n", encoding="utf-8")
    monkeypatch.setattr(people_reference, "resource_path", lambda *parts: tmp_path / parts[-1])
    with pytest.raises(SynthDoseError, match=r"people_masses\.csv was changed"):
        people_reference.anatomy_rows("people_masses")


def test_wall_closes_where_a_neighbour_dents_the_organ():
    frame = BodyFrame([(-100, -100), (100, 100)], [(-100, 1), (100, 1)], [(-100, 1), (100, 1)])
    axis = np.arange(-30.0, 31.0, 2.0)
    canvas = Canvas(
        frame, (axis[::-1], axis[::-1], axis), {"air": (0, 0.0), "liver": (1, 1.0), "urine": (2, 1.0), "wall": (3, 1.0)}
    )
    box = ((-30.0, 30.0),) * 3
    canvas.fill(box, lambda x, y, z: np.broadcast_to(x > 12, canvas.shape), "liver", "liver")
    ball = ellipsoid((0, 0, 0), (20, 20, 20))
    layers = [canvas.layer("contents", "urine", 17.0), canvas.layer("wall", "wall", 12.0)]
    canvas.claim(box, ball, layers, shell=True)
    contents = canvas.labels == canvas.label_of("contents")
    around = ndimage.binary_dilation(contents) & ~contents
    assert (canvas.labels[around] == canvas.label_of("wall")).all()
    assert contents.sum() * canvas.voxel_volume_ml == pytest.approx(17.0, abs=0.01)


@pytest.mark.parametrize(("plan", "estimated"), [(PersonPlan("male", 30), False), (PersonPlan("male", 5), True)])
def test_what_no_table_gives_is_marked(plan, estimated):
    person = stylised_person(plan, spacing_mm=(6, 6, 6))
    assert not person.targets["liver"].estimated  # ICRP 89 has it for all ages
    assert person.targets["pancreas"].estimated == person.targets["brain"].estimated == estimated
    assert person.targets["femur_left"].estimated == estimated
    assert all(target.source for target in person.targets.values())


@pytest.mark.parametrize(
    ("organ", "sex", "age_y", "mass_g"),
    # ICRP Publication 89, reference values
    [("liver", "male", 0, 130), ("liver", "female", 1, 330), ("spleen", "male", 5, 50), ("kidneys", "female", 10, 180),
     ("lungs", "male", 15, 900), ("skeletal_muscle", "female", 40, 17500), ("total_body", "male", 0, 3500),
     ("ovaries", "female", 10, 3.5), ("thyroid_gland", "male", 40, 20), ("heart_wall", "female", 40, 250)],
)  # fmt: skip
def test_reference_masses_are_the_published_ones(organ, sex, age_y, mass_g):
    found = reference_mass(organ, sex, age_y)
    assert found.mass_g == pytest.approx(mass_g, abs=0.05)
    assert not found.estimated


def test_growth_charts_give_the_published_percentiles():
    # CDC 2000, boys: 25th percentile of length at 1.5 and 10.5 months, medians of stature and weight at 10 and 20 years
    p25 = percentile_to_z(25)
    assert growth_value("male", 1.5 / 12, "height", p25) == pytest.approx(54.97910441, rel=1e-5)
    assert growth_value("male", 10.5 / 12, "height", p25) == pytest.approx(71.80064815, rel=1e-5)
    assert growth_value("male", 20, "height", 0) == pytest.approx(176.8492322, rel=1e-6)
    assert growth_value("female", 20, "weight", 0) == pytest.approx(58.21897289, rel=1e-6)
    assert growth_value("male", 120.5 / 12, "height", 0) == pytest.approx(138.8234114, rel=1e-3)


def test_thinned_charts_stay_near_the_full_ones():
    path = Path(__file__).parents[3] / "shared" / "data" / "anatomy" / "growth_lms.csv"
    if not path.exists():
        pytest.skip("the full growth charts in ../shared are not here")
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    rows = [row for row in csv.DictReader(lines) if row["source"] == "CDC2000" and row["quantity"] != "bmi"]
    assert len(rows) > 800
    for row in rows:
        quantity = {"stature": "height", "weight": "weight"}[row["quantity"]]
        power, middle, spread = (float(row[name]) for name in "LMS")
        for z in (-2, 0, 2):
            expected = middle * (1 + power * spread * z) ** (1 / power)
            found = growth_value({"M": "male", "F": "female"}[row["sex"]], float(row["age_y"]), quantity, z)
            assert found == pytest.approx(expected, rel=0.004), row


@pytest.mark.parametrize("sex", ["female", "male"])
def test_height_and_weight_grow_with_age_and_percentile(sex):
    for quantity in ("height", "weight"):
        for z in (-1.5, 0.0, 1.5):
            lying = [growth_value(sex, age, quantity, z) for age in np.arange(0, 2, 0.25)]
            standing = [growth_value(sex, age, quantity, z) for age in np.arange(2, 17, 0.5)]
            assert lying == sorted(lying)
            assert standing == sorted(standing)
        for age in (0.0, 3.0, 12.0, 40.0):
            by_percentile = [growth_value(sex, age, quantity, percentile_to_z(p)) for p in (3, 25, 50, 75, 97)]
            assert by_percentile == sorted(by_percentile)
            z = growth_z(sex, age, quantity, by_percentile[3])
            assert z == pytest.approx(percentile_to_z(75), abs=1e-9)


def test_any_height_and_weight_that_people_have_can_be_built():
    for sex, age, height, weight in (
        ("male", 40.0, 198.0, 130.0),
        ("female", 50.0, 150.0, 41.0),
        ("female", 12.0, 140.0, 60.0),
    ):
        person = stylised_person(PersonPlan(sex, age, height, weight), spacing_mm=(6, 6, 6))
        assert person.total_mass_g() == pytest.approx(1000 * weight, rel=0.005)
        tall = np.flatnonzero((person.tissues > 0).any(axis=(1, 2))).size * 6.0
        assert tall == pytest.approx(10 * height, abs=20)


def test_arms_and_breath_move():
    down, up = (stylised_person(PersonPlan("female", 30, arms=arms), spacing_mm=(6, 6, 6)) for arms in ("down", "up"))
    assert centre(up, "hand_bones_left")[2] > centre(up, "brain")[2] > centre(down, "hand_bones_left")[2] + 300
    deep = stylised_person(PersonPlan("female", 30, breath=1.0), spacing_mm=(6, 6, 6))
    volume = [p.labels.mask("lung_left").sum() for p in (down, deep)]
    assert volume[1] > 1.3 * volume[0]
    assert centre(deep, "liver")[2] < centre(down, "liver")[2] - 8  # the diaphragm pushes the liver down
    assert deep.mass_g()["lung_left"] == pytest.approx(down.mass_g()["lung_left"], rel=0.01)


def test_phantom_has_the_same_masses_and_reference_compositions():
    person = stylised_person(PersonPlan("male", 30), spacing_mm=(6, 6, 6))
    phantom = person.phantom()
    masses = person.mass_g()
    for organ, mass in phantom.mass_g().items():
        assert mass == pytest.approx(masses[organ], rel=1e-4), organ
    names = {material.name: material for material in phantom.materials}
    assert names["cortical_bone"].mass_fractions["Ca"] > 0.2  # ICRP 110, mineral bone
    assert names["fat"].mass_fractions["C"] > 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sex": "boy"}, "sex"),
        ({"age_y": 101.0}, "age_y has to be from 0 to 100; found 101"),
        ({"age_y": float("nan")}, "age_y"),
        ({"arms": "crossed"}, "down or up; found 'crossed'"),
        ({"variation": 9.0}, "variation has to be from 0 to 1.5"),
        ({"breath": 1.1}, "breath has to be from 0 to 1;"),
        ({"seed": -1}, "seed has to be 0 or more"),
    ],
)
def test_plans_of_nobody_are_refused_before_anything_is_built(wrong, message):
    with pytest.raises(SynthDoseError, match=message):
        PersonPlan(**wrong)


def test_ct_shows_the_tissues():
    person = stylised_person(PersonPlan("male", 30), spacing_mm=(5, 5, 5))
    image = person_ct(person, 1, noise_hu=10)
    liver = ndimage.binary_erosion(person.labels.mask("liver"), iterations=2)
    assert image.values[liver].mean() == pytest.approx(57, abs=2)
    assert image.values[person.tissues == 0].mean() < -950
    assert (image.metadata["patient_weight_kg"], image.metadata["patient_age_years"]) == (73, 30)


def test_cohort_is_written_with_index_and_goes_on(tmp_path):
    request = PeopleRequest(2, seed=5, age_y=(3.0, 9.0), voxel_mm=8.0, ct=True)
    first = make_people(request, tmp_path / "cohort")
    assert (first.failed, first.kept) == (0, 0)
    folder = tmp_path / "cohort" / "person-00005"
    assert {entry.name for entry in folder.iterdir()} >= {
        "density.nrrd", "materials.nrrd", "labels.seg.nrrd", "masses.csv", "phantom.json", "ct.nrrd",
    }  # fmt: skip
    record = json.loads((folder / "phantom.json").read_text(encoding="utf-8"))
    assert 3 <= record["person"]["age_y"] <= 9
    assert "brain" in record["estimated"]
    assert "liver" not in record["estimated"]
    with pytest.raises(SynthDoseError, match="--resume"):
        make_people(request, tmp_path / "cohort")
    again = make_people(dataclasses.replace(request, count=3), tmp_path / "cohort", resume=True)
    assert (len(again.rows), again.kept) == (3, 2)
    assert again.rows[:2] == first.rows
    with open(tmp_path / "cohort" / "cohort.csv", encoding="utf-8", newline="") as stream:
        assert [row["person"] for row in csv.DictReader(stream)] == ["person-00005", "person-00006", "person-00007"]
    with pytest.raises(SynthDoseError, match="another age_y"):
        make_people(dataclasses.replace(request, age_y=40.0), tmp_path / "cohort", resume=True)


def test_cohort_leaves_other_folders_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(SynthDoseError, match="other files"):
        make_people(PeopleRequest(1, voxel_mm=8.0), tmp_path)
    assert main(["people", "--count", "1", "--height", "170", "--out", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
