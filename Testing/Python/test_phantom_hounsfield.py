"""Values that are not Hounsfield units are noticed, whatever made them so; unusual scans that are right are left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from SynthDoseLib.core import ImageVolume, LabelMap, Organ, SynthDoseError, VoxelGrid
from SynthDoseLib.phantom import assess_phantom, build_phantom, synthetic_patient
from SynthDoseLib.phantom.quality_hounsfield import check_hounsfield, landmarks
from SynthDoseLib.physics import get_material, photon_cross_sections

GRID = VoxelGrid.from_spacing((40, 64, 64), (4.0, 4.0, 4.0))


def round_ct(fat: float, muscle: float, *, air: float = -1000.0, lung: float | None = None, noise: float = 15.0) -> ImageVolume:
    """A cylinder of muscle (120 mm) in fat (180 mm), blurred by 2 mm, with grainy noise and perhaps a lung (60 mm) in it."""
    _, j, i = np.ogrid[:40, :64, :64]
    radius = np.hypot(i - 31.5, j - 31.5) * 4.0
    hu = np.where(radius < 60, muscle, np.where(radius < 90, fat, air))
    if lung is not None:
        hu = np.where(radius < 30, lung, hu)
    hu = np.broadcast_to(hu, GRID.shape).astype(np.float64)
    rng = np.random.default_rng(7)
    grain = ndimage.gaussian_filter(rng.standard_normal(GRID.shape), 0.5)
    values = ndimage.gaussian_filter(hu, (0, 0.5, 0.5)) + noise * grain / grain.std()
    return ImageVolume(GRID, np.rint(values).astype(np.float32), "CT", "HU")


def changed(ct: ImageVolume, change) -> ImageVolume:
    return replace(ct, values=change(ct.values).astype(np.float32))


def said(ct: ImageVolume) -> list[str]:
    """Findings about the scale of an image, with its true body."""
    _, j, i = np.ogrid[:40, :64, :64]
    body = np.broadcast_to(np.hypot(i - 31.5, j - 31.5) * 4.0 < 90, GRID.shape)
    return [f"{f.severity}: {f.found}" for f in check_hounsfield(ct, body) if f.severity != "note"]


def ct_number(material: str, energy_keV: float) -> float:
    """CT number of a tissue of ICRP/ICRU at one energy, from XCOM."""
    tissue, energy = get_material(material), energy_keV / 1000
    water = photon_cross_sections(get_material("water"), energy).total
    return float(1000 * (photon_cross_sections(tissue, energy).total * tissue.density_g_cm3 / water - 1))


@pytest.mark.parametrize("energy_keV", [52, 60, 70, 80])  # effective, for 80 to 140 kV
@pytest.mark.parametrize("fat", ["adipose_icrp", "adipose_icru44"])
@pytest.mark.parametrize("contrast_hu", [0, 25])
def test_tissues_at_every_voltage_are_left_alone(energy_keV, fat, contrast_hu):
    muscle = ct_number("muscle_icru44", energy_keV) + contrast_hu
    assert 40 < muscle < 80
    assert said(round_ct(ct_number(fat, energy_keV), muscle)) == []


@pytest.mark.parametrize("slope", [0.5, 0.8, 1.25, 1.3, 2.0])
def test_a_wrong_slope_is_found_and_named(slope):
    (finding,) = said(changed(round_ct(-103.0, 50.0, lung=-850.0), lambda hu: slope * hu))
    assert finding.startswith("fail")
    assert float(finding.split("multiplied by ")[1].split()[0]) == pytest.approx(slope, abs=0.02)


def test_a_slope_shows_where_air_has_been_cut_off():
    ct = changed(round_ct(-103.0, 50.0), lambda hu: np.maximum(1.3 * hu, -1024))
    (finding,) = said(ct)
    assert "multiplied by" in finding  # fat and muscle are 199 HU apart instead of 153
    lungs = changed(round_ct(-95.0, 45.0, lung=-850.0), lambda hu: np.maximum(1.3 * hu, -1024))  # 182 HU apart
    (finding,) = said(lungs)
    assert "exactly -1024 HU" in finding
    assert said(changed(round_ct(-103.0, 50.0, lung=-850.0), lambda hu: np.maximum(hu, -1000))) == []


@pytest.mark.parametrize("noise", [5.0, 60.0])
@pytest.mark.parametrize("floor", [-1024.0, -1050.0])
def test_a_slope_shows_in_the_gas_of_the_body_where_a_floor_hides_the_air(floor, noise):
    """Fat and muscle stay, 1.3 times, where those of other scans are, and bowel gas is too little to be seen as cut off."""
    ct = round_ct(-95.0, 45.0, noise=noise)
    _, j, i = np.ogrid[:40, :64, :64]
    bubble = np.broadcast_to(np.hypot(i - 20, j - 31.5) * 4.0 < 12, GRID.shape)
    ct = changed(ct, lambda hu: np.where(bubble, hu - np.median(hu[bubble]) - 1000, hu))
    assert said(changed(ct, lambda hu: np.maximum(hu, floor))) == []
    (finding,) = said(changed(ct, lambda hu: np.maximum(1.3 * hu, floor)))
    assert finding.startswith("warning")
    assert f"of the gas in the body has exactly {floor:.0f} HU" in finding


@pytest.mark.parametrize("offset", [-1024, -100, 100, 1000, 1024])
def test_a_wrong_intercept_is_found(offset):
    (finding,) = said(changed(round_ct(-103.0, 50.0, lung=-850.0), lambda hu: hu + offset))
    if abs(offset) < 1000:
        assert float(finding.split("shifted by ")[1].split()[0]) == pytest.approx(offset, abs=5)
    else:
        assert finding.startswith("fail")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-160, 240, "exactly -160 HU"), (-1000, 200, "exactly 200 HU"), (0, 255, "exactly 0 HU")],
)
def test_a_window_is_found(low, high, words):
    ct = round_ct(-103.0, 50.0, lung=-850.0)
    bone = ct.values + np.where(np.arange(64) == 32, 700.0, 0.0) * (ct.values > 0)  # a plate with its own noise
    assert said(replace(ct, values=bone.astype(np.float32))) == []
    findings = said(replace(ct, values=np.clip(bone, low, high).astype(np.float32)))
    assert any(words in finding for finding in findings), findings


def test_padding_that_was_taken_for_the_body_is_found():
    ct = round_ct(-103.0, 50.0)
    values = np.where(np.arange(64)[:, None] < 20, np.float32(0), ct.values)
    (finding,) = said(replace(ct, values=values))
    assert "padding" in finding


def test_few_bits_are_a_note():
    ct = changed(round_ct(-103.0, 50.0, lung=-850.0), lambda hu: 16 * np.rint(hu / 16))
    assert said(ct) == []
    body = np.ones(GRID.shape, bool)
    assert any(f.severity == "note" and "steps of 16 HU" in f.found for f in check_hounsfield(ct, body))


@pytest.mark.parametrize(
    ("fat", "muscle", "air", "noise"),
    [
        (0.0, 0.0, -1000.0, 15.0),  # water phantom
        (0.0, 0.0, -1000.0, 100.0),  # the same at a low dose
        (120.0, 120.0, -1000.0, 15.0),  # PMMA, 117 to 128 HU in scanners
        (0.0, 120.0, -1000.0, 10.0),  # PMMA in water
        (-103.0, 50.0, -1000.0, 60.0),  # low dose
        (-103.0, 50.0, -950.0, 15.0),  # wrapped in a vacuum mattress
        (50.0, 50.0, -1000.0, 15.0),  # no fat
        (-103.0, -103.0, -1000.0, 15.0),  # nothing but fat
        (-103.0, 50.0, -2000.0, 0.0),  # no air: the scanner filled it
        (55.0, 160.0, -1000.0, 15.0),  # contrast agent in an organ that fills the picture
        (-103.0, 110.0, -1024.0, 15.0),  # contrast agent everywhere, 60 HU, in a scan that was not cut off
    ],
)
def test_unusual_scans_that_are_right_are_left_alone(fat, muscle, air, noise):
    assert said(round_ct(fat, muscle, air=air, noise=noise)) == []


def test_drawn_images_are_not_judged():
    _, j, i = np.ogrid[:40, :64, :64]
    drawn = np.broadcast_to(np.where(np.hypot(i - 31.5, j - 31.5) < 15, 250.0, -300.0), GRID.shape).astype(np.float32)
    assert said(ImageVolume(GRID, drawn, "CT", "HU")) == []
    # eighty tissues of one value each in slices, most of the body of two of them
    tissues = np.where(np.arange(40)[:, None, None] % 4 == 0, -105.0 + np.arange(64)[:, None] * 5, drawn)
    assert len(np.unique(tissues)) > 60
    assert said(ImageVolume(GRID, tissues.astype(np.float32), "CT", "HU")) == []


@pytest.fixture(scope="module")
def person():
    return synthetic_patient(3, spacing_mm=(5.0, 5.0, 5.0))


def test_the_landmarks_of_a_person(person):
    phantom = build_phantom(person.ct, person.labels)
    marks = landmarks(person.ct, phantom.density_g_cm3 > 0)
    assert marks.air == pytest.approx(-1000, abs=5)
    # what this person's fat and muscle were made of, -103 and 52 HU; liver and blood around 50 share the second peak
    assert marks.peaks == (pytest.approx(-103, abs=6), pytest.approx(50, abs=6))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: 1.3 * hu, "multiplied by 1.3"),
        (lambda hu: np.maximum(1.3 * hu, -1024), ""),
        (lambda hu: hu - 1024, "shifted by -10"),
        (lambda hu: np.clip(hu, -160, 240), "cut off"),
    ],
)
def test_the_verdict_of_a_person_with_wrong_numbers(person, change, words):
    ct = changed(person.ct, change)
    quality = assess_phantom(build_phantom(ct, person.labels), ct)
    found = [f for f in quality.findings if f.check == "ct number" and not f.organ and f.severity != "note"]
    assert quality.verdict == "fail"
    assert any(words in f.found for f in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: hu + 1024, "hu_offset = -1000 or -1024"),
        (lambda hu: np.where(hu < -900, hu + 1000, hu + 1024), "hu_offset"),  # the air keeps some noise below 0
        (np.negative, "turned round"),
    ],
)
def test_images_without_intercept_are_refused_with_the_remedy(person, change, words):
    with pytest.raises(SynthDoseError, match="not in Hounsfield units") as refusal:
        build_phantom(changed(person.ct, change), person.labels)
    assert words in str(refusal.value)


def test_an_mr_image_with_ringing_below_zero_is_refused():
    rng = np.random.default_rng(1)
    values = np.abs(round_ct(300.0, 500.0, air=0.0).values) + rng.normal(0, 4, GRID.shape)
    labels = LabelMap(GRID, np.ones(GRID.shape, np.uint16), (Organ(1, "liver"),))
    with pytest.raises(SynthDoseError, match="MR image"):
        build_phantom(ImageVolume(GRID, values.astype(np.float32)), labels)
