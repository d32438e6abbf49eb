"""The stylised adult: masses as asked, organs where a physician looks for them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.phantom import StylisedAdult, reference_masses, stylised_adult, stylised_reference

SEXES = ("female", "male")


@pytest.fixture(scope="module", params=SEXES)
def reference_adult(request: pytest.FixtureRequest) -> StylisedAdult:
    return stylised_adult(request.param, variation=0)


def centre(adult: StylisedAdult, name: str) -> np.ndarray:
    """Middle of an organ, RAS mm."""
    kji = np.argwhere(adult.labels.mask(name))
    assert len(kji), name
    return adult.grid.to_ras(kji[:, ::-1]).mean(axis=0)


def test_reference_masses_are_the_published_ones():
    male, female = reference_masses("male"), reference_masses("female")
    # ICRP Publication 89, adult reference values
    assert (male["liver"], female["liver"]) == (1800, 1400)
    assert (male["spleen"], female["spleen"]) == (150, 130)
    assert male["kidney_left"] + male["kidney_right"] == pytest.approx(310)
    assert female["lung_left"] + female["lung_right"] == pytest.approx(950)
    assert (male["brain"], female["brain"]) == (1450, 1300)
    assert "uterus" not in male
    assert "prostate" not in female


def test_damaged_table_of_masses_is_refused(tmp_path, monkeypatch):
    original = stylised_reference.resource_path("anatomy", "reference_masses.json").read_text(encoding="utf-8")
    (tmp_path / "reference_masses.json").write_text(original, encoding="utf-8")
    (tmp_path / "reference_masses.csv").write_text("organ,male_g,female_g,source,note\nliver,1,1,,\n", encoding="utf-8")
    monkeypatch.setattr(stylised_reference, "resource_path", lambda *parts: tmp_path / parts[-1])
    reference_masses.cache_clear()
    with pytest.raises(SynthDoseError, match=r"reference_masses\.csv"):
        reference_masses("male")
    reference_masses.cache_clear()


@pytest.mark.parametrize(
    ("tissue", "density_g_cm3"),
    # ICRP Publication 110: densities of the organs of the reference phantoms; lung: inflated, ICRU Report 44
    [("liver", 1.05), ("spleen", 1.04), ("kidney", 1.05), ("pancreas", 1.05), ("blood", 1.06), ("muscle", 1.05),
     ("urine", 1.04), ("brain", 1.05), ("fat", 0.95), ("bowel", 1.04), ("lung", 0.26)],
)  # fmt: skip
def test_tissues_are_as_dense_as_published(tissue, density_g_cm3):
    assert stylised_reference.density_of(tissue) == pytest.approx(density_g_cm3, rel=0.03)


def test_bone_is_as_dense_as_the_adult_skeleton():
    share = stylised_reference.CORTICAL_SHARE
    mean = share * stylised_reference.density_of("cortical") + (1 - share) * stylised_reference.density_of("spongiosa")
    assert mean == pytest.approx(1.3, rel=0.05)  # ICRP Publication 89: 1.3 g/cm3


@pytest.mark.parametrize("sex", SEXES)
@pytest.mark.parametrize("seed", [0, 1, 2026])
def test_organs_weigh_what_was_asked(sex, seed):
    adult = stylised_adult(sex, seed=seed)
    masses = adult.mass_g()
    assert set(masses) == set(adult.target_mass_g)
    for organ, asked in adult.target_mass_g.items():
        assert masses[organ] == pytest.approx(asked, rel=0.05 if asked < 20 else 0.02), organ


def test_without_variation_the_targets_are_the_reference_masses(reference_adult):
    masses = reference_masses(reference_adult.sex)
    for organ in ("liver", "spleen", "kidney_left", "lung_right", "heart", "pancreas", "urinary_bladder", "stomach"):
        assert reference_adult.target_mass_g[organ] == pytest.approx(masses[organ])
    duodenum, rest = reference_adult.target_mass_g["duodenum"], reference_adult.target_mass_g["small_bowel"]
    assert duodenum + rest == pytest.approx(masses["small_bowel"])


def test_mass_is_voxels_times_density(reference_adult):
    for organ, tissue in (("liver", "liver"), ("spleen", "spleen"), ("lung_left", "lung")):
        volume_ml = reference_adult.labels.mask(organ).sum() * 0.027
        mass = volume_ml * stylised_reference.density_of(tissue)
        assert mass == pytest.approx(reference_adult.target_mass_g[organ], rel=1e-3)


def test_at_least_fifteen_organs_and_a_skeleton_all_inside_the_body(reference_adult):
    counts = reference_adult.labels.voxel_counts()
    assert counts.pop("skeleton") > 0
    assert len(counts) >= 15
    assert min(counts.values()) > 0
    labelled = reference_adult.labels.labels > 0
    assert (reference_adult.tissues[labelled] > 0).all()  # 0 is the air around the body
    assert (reference_adult.density_g_cm3[~labelled & (reference_adult.tissues == 0)] == 0).all()


def test_organs_lie_on_their_sides(reference_adult):
    at = {organ.name: centre(reference_adult, organ.name) for organ in reference_adult.labels.organs}
    for name in ("liver", "gallbladder", "kidney_right", "lung_right", "adrenal_gland_right"):
        assert at[name][0] > 20, name  # RAS: right is positive
    for name in ("spleen", "stomach", "kidney_left", "lung_left", "adrenal_gland_left"):
        assert at[name][0] < -20, name
    assert at["heart"][0] < -5
    assert abs(at["spinal_cord"][0]) < 10
    assert abs(at["urinary_bladder"][0]) < 10


def test_organs_are_stacked_as_in_a_person(reference_adult):
    at = {organ.name: centre(reference_adult, organ.name) for organ in reference_adult.labels.organs}
    assert at["kidney_left"][2] > at["kidney_right"][2]
    assert at["lung_left"][2] > at["heart"][2] - 60
    order = ("thyroid_gland", "heart", "liver", "kidney_right", "small_bowel", "urinary_bladder")
    heights = [at[name][2] for name in order]
    assert heights == sorted(heights, reverse=True)
    for front, back in (("stomach", "spleen"), ("urinary_bladder", "skeleton"), ("heart", "aorta"), ("liver", "kidney_right")):
        assert at[front][1] > at[back][1], (front, back)
    pelvic = "uterus" if reference_adult.sex == "female" else "prostate"
    assert at[pelvic][1] < at["urinary_bladder"][1]
    masses = reference_adult.mass_g()
    assert masses["lung_left"] < masses["lung_right"]


@pytest.mark.parametrize(
    "name", ["liver", "kidney_left", "kidney_right", "spleen", "heart", "lung_left", "lung_right", "urinary_bladder", "stomach"]
)
def test_organ_is_in_one_piece(reference_adult, name):
    parts, number = ndimage.label(reference_adult.labels.mask(name), np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    assert sizes.max() > 0.98 * sizes.sum(), (name, number)


def test_lungs_rest_on_the_diaphragm_above_liver_and_spleen(reference_adult):
    """Along every line upwards, no lung is found below the liver or the spleen."""
    for lung, below in (("lung_right", "liver"), ("lung_left", "spleen")):
        air, organ = reference_adult.labels.mask(lung), reference_adult.labels.mask(below)
        lines = air.any(axis=0) & organ.any(axis=0)
        assert lines.sum() > 50
        lowest_lung = np.argmax(air, axis=0)[lines]
        highest_organ = organ.shape[0] - 1 - np.argmax(organ[::-1], axis=0)[lines]
        assert (lowest_lung > highest_organ).mean() > 0.97


def test_head_to_thigh_has_a_brain_inside_a_skull():
    adult = stylised_adult("female", spacing_mm=(4, 4, 4), variation=0, field_of_view="head_to_thigh")
    brain, bone = adult.labels.mask("brain"), adult.labels.mask("skeleton")
    assert adult.mass_g()["brain"] == pytest.approx(1300, rel=0.02)
    slices = np.flatnonzero(brain.any(axis=(1, 2)))[3:-3]
    enclosed = np.stack([ndimage.binary_fill_holes(bone[k]) for k in slices])
    assert (enclosed & brain[slices]).sum() > 0.97 * brain[slices].sum()
    assert (
        adult.target_mass_g["skeleton"] > stylised_adult("female", spacing_mm=(6, 6, 6), variation=0).target_mass_g["skeleton"]
    )


def test_a_seed_is_one_person_on_every_grid():
    first, again = stylised_adult("male", seed=5, spacing_mm=(6, 6, 6)), stylised_adult("male", seed=5, spacing_mm=(6, 6, 6))
    np.testing.assert_array_equal(first.labels.labels, again.labels.labels)
    finer, other = stylised_adult("male", seed=5, spacing_mm=(5, 5, 4)), stylised_adult("male", seed=6, spacing_mm=(6, 6, 6))
    assert finer.target_mass_g["liver"] == first.target_mass_g["liver"]
    assert finer.height_m == first.height_m
    assert np.abs(centre(finer, "liver") - centre(first, "liver")).max() < 2.0
    assert other.target_mass_g["liver"] != first.target_mass_g["liver"]


def test_grid_is_axial_and_right_handed():
    adult = stylised_adult("male", spacing_mm=(6, 5, 4), variation=0)
    assert adult.grid.spacing_mm == pytest.approx((6, 5, 4))
    np.testing.assert_allclose(adult.grid.directions, np.diag([-1, -1, 1]))  # left, back, head: as DICOM's axial images
    assert adult.grid.is_right_handed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sex": "boy"}, "female or male"),
        ({"sex": "male", "spacing_mm": (9, 3, 3)}, "0.5 to 8 mm"),
        ({"sex": "male", "spacing_mm": (3, 3)}, "0.5 to 8 mm"),
        ({"sex": "male", "variation": 2}, "1.5"),
        ({"sex": "male", "seed": -1}, "0 or more"),
        ({"sex": "male", "field_of_view": "foot"}, "torso, head_to_thigh"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(SynthDoseError, match=message):
        stylised_adult(**arguments)
