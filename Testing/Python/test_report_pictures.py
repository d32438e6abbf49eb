import dataclasses
import re
from datetime import datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from SynthDoseLib.core import (
    DoseMap,
    ImageVolume,
    LabelMap,
    Material,
    SynthDoseError,
    VoxelGrid,
    VoxelPhantom,
    organ_table,
    resource_path,
)
from SynthDoseLib.dosimetry import DoseVolumeHistogram, dose_volume_histograms, organ_dose_table
from SynthDoseLib.kinetics import OrganSource, from_organs
from SynthDoseLib.phantom import assess_phantom
from SynthDoseLib.pipeline.report import EnergyBalance, ReportContents, ReportInput, quantity, render_report, write_report
from SynthDoseLib.pipeline.report_pictures import (
    PLANES,
    display_maximum_Gy,
    dose_over_ct_figure,
    dvh_figure,
    figure_png,
    hottest_organ,
    organ_colours,
    picture_centre,
    plane_view,
    smoothed_for_display,
)

BALL = np.array([40.0, -25.0, 30.0])  # patient right, back, top


def turned(angle_degree):
    """An LPS-ordered scan turned about the long axis and tilted: i to L, j to P, k to S before the turn."""
    c, s = np.cos(np.radians(angle_degree)), np.sin(np.radians(angle_degree))
    about_s = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_r = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return about_s @ about_r @ np.diag([-1.0, -1.0, 1.0])


def case(angle=0.0, spacing=(4.0, 4.0, 6.0)):
    """A hot ball in an elliptic body on a possibly oblique grid."""
    grid = VoxelGrid.from_spacing((36, 50, 60), spacing, directions=turned(angle))
    k, j, i = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([i, j, k], -1))
    body = (ras[..., 0] / 90) ** 2 + (ras[..., 1] / 70) ** 2 < 1
    ball = np.linalg.norm(ras - BALL, axis=-1) < 14
    labels = LabelMap(grid, np.where(ball, 1, np.where(body, 2, 0)), organ_table(["lesion", "rest_of_body", "spleen"]))
    dose = np.where(ball, 10.0, np.where(body, 0.5, 90.0))  # dose to the air outside has to be ignored
    phantom = VoxelPhantom(
        grid,
        np.zeros(grid.shape, np.uint8),
        np.where(body, 1.0, 0.0).astype(np.float32),
        (Material("water", 1.0, {"H": 0.1119, "O": 0.8881}),),
        labels,
    )
    ct = ImageVolume(grid, np.where(body, 30.0, -1000.0), "CT", "HU")
    return ct, DoseMap(grid, dose, 0.02 * dose), labels, phantom


@pytest.mark.parametrize("angle", [0.0, 15.0, -40.0])
def test_every_plane_shows_the_ball_where_the_patient_has_it(angle):
    _, _, labels, _ = case(angle)
    ball = labels.mask("lesion").astype(np.float32)
    for name in PLANES:
        view = plane_view(name, labels.grid, BALL)
        picture = view.sample(ball, labels.grid)
        rows, columns = picture.shape
        row, column = (np.argwhere(picture > 0.5).mean(axis=0) + 0.5) / (rows, columns)
        left = {"axial": 40, "coronal": 40, "sagittal": -25}[name] > 0  # right of the patient, or front, is on the left
        top = {"axial": -25, "coronal": 30, "sagittal": 30}[name] > 0
        assert (column < 0.5) == left
        assert (row < 0.5) == top
        # distances on the page are distances in the patient
        area = (picture > 0.5).sum() * view.grid.spacing_mm[0] ** 2
        assert area == pytest.approx(np.pi * 14**2, rel=0.12)
        assert view.grid.spacing_mm[0] == view.grid.spacing_mm[1]


def test_letters_name_the_sides_that_the_axes_point_to():
    grid = case()[2].grid
    direction = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    for name in PLANES:
        view = plane_view(name, grid, BALL)
        right, down = view.grid.directions[:, 0], view.grid.directions[:, 1]
        assert np.allclose(right, direction[view.left_right[1]])
        assert np.allclose(right, np.negative(direction[view.left_right[0]]))
        assert np.allclose(down, direction[view.top_bottom[1]])
        assert np.allclose(down, np.negative(direction[view.top_bottom[0]]))


def test_the_hottest_organ_sets_place_and_scale_not_the_air():
    _, dose, labels, _ = case()
    assert hottest_organ(dose, labels) == "lesion"
    assert np.linalg.norm(picture_centre(dose, labels) - BALL) < 6
    assert display_maximum_Gy(dose, labels) == pytest.approx(10.0)
    no_labels = picture_centre(dose)
    assert np.isfinite(no_labels).all()


def test_dose_of_the_air_does_not_colour_the_picture():
    ct, dose, labels, _ = case(angle=15.0)
    figure = dose_over_ct_figure(ct, dose, labels)
    for axes in figure.axes[:3]:
        overlay = axes.images[1]
        shown = np.asarray(overlay.get_array())[np.asarray(overlay.get_alpha()) > 0]
        assert shown.max() <= 10.0 + 1e-3
    assert figure_png(figure).startswith(b"\x89PNG")


def test_a_noisy_dose_is_smoothed_for_the_picture_only_and_keeps_its_mean():
    _, dose, labels, _ = case()
    same, width_mm = smoothed_for_display(dose, labels, relative_noise=0.02)
    assert same is dose
    assert width_mm == 0.0
    body = labels.labels > 0
    noise = np.random.default_rng(5).normal(1.0, 0.5, dose.grid.shape)
    noisy = DoseMap(dose.grid, np.where(body, 2.0 * noise, 90.0), np.where(body, 1.0, 0.0))
    shown, width_mm = smoothed_for_display(noisy, labels, relative_noise=0.5)
    assert 4.0 < width_mm < 15.0
    assert shown.dose_Gy[body].std() < 0.2 * noisy.dose_Gy[body].std()
    assert shown.dose_Gy[body].mean() == pytest.approx(2.0, rel=0.01)  # nothing of the 90 Gy outside came in


def test_more_than_ten_organs_differ_in_line_style():
    colours = organ_colours([f"vertebrae_{n}" for n in range(24)])
    assert len(set(colours.values())) == 24


def test_a_name_that_looks_like_a_formula_is_drawn_as_text():
    _, dose, labels, _ = case()
    odd = LabelMap(labels.grid, labels.labels, organ_table(["$\\frac{a", "rest_of_body", "spleen"]))
    histograms = dose_volume_histograms(dose, odd)
    assert figure_png(dvh_figure(histograms)).startswith(b"\x89PNG")


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def full_contents(angle=0.0):
    ct, dose, labels, phantom = case(angle)
    rows = organ_dose_table(dose, phantom, {"lesion": 0.1})
    tia = from_organs([OrganSource("lesion", activity_MBq=10.0)], labels, physical_half_life_s=574300, administered_MBq=100)
    hostile = "<script>alert(1)</script>"
    return ReportContents(
        title=f"Case {hostile}",
        patient=f"ID {hostile}",
        created_at=datetime(2024, 2, 3, 4, 5),
        nuclide="Lu-177",
        administered_MBq=100.0,
        administered_at=datetime(2024, 2, 1, 9, 0),
        engine="monte-carlo",
        device="cpu",
        histories=1234567,
        seed=5,
        target_sigma=0.01,
        target_organs=("lesion",),
        facts={"Progeny": "none"},
        ct=ct,
        dose=dose,
        labels=labels,
        organ_doses=rows,
        histograms=dose_volume_histograms(dose, labels, sigma_Gy={"lesion": 0.1}),
        activity=tia,
        quality=assess_phantom(phantom, ct),
        radiomics="Features by pyradiomics.",
        inputs=(ReportInput("CT", f'"><img src=x onerror=1>{hostile}', "ab" * 32),),
        warnings=(f"Read {hostile}.",),
        notes={"image": ("One note.",), "phantom": ()},
        versions={"SynthDose": "0.1"},
        computer={"system": "Linux"},
        stage_seconds={"transport": 130.0},
        energy=EnergyBalance(0.147, 0.12, 0.027),
        files={"dose_Gy.nrrd": "absorbed dose"},
    )


def test_the_report_is_one_file_that_loads_nothing_and_runs_nothing(tmp_path):
    write_report(tmp_path / "report.html", full_contents(angle=15.0))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert all(value.startswith("data:image/png;base64,") for name, value in page.attributes if name in ("src", "href"))
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search(r"https?://|url\(|@import", text)
    assert "&lt;script&gt;" in text
    assert "not for clinical use" in page.text
    for expected in ("1 234 567", "1.00% in lesion", "asked for 1.00%", "2 min 10 s", "04:05", "transport", "One note."):
        assert expected in page.text
    assert "spleen" in page.text
    assert "listed, but without a voxel" in page.text
    assert len(text) < 3_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_organ_that_was_asked_for_gets_a_picture_of_its_own():
    contents = full_contents()
    contents = dataclasses.replace(contents, target_organs=("rest_of_body",), activity=None, histograms=())
    page = Page(render_report(contents))
    assert page.tags.count("img") == 3
    assert "Through the middle of: lesion." in page.text
    assert "Through the middle of: rest of body." in page.text


def test_the_caption_says_that_a_picture_is_smoothed():
    contents = full_contents()
    noisy = DoseMap(contents.dose.grid, contents.dose.dose_Gy, 0.5 * contents.dose.dose_Gy)
    text = Page(render_report(dataclasses.replace(contents, dose=noisy))).text
    assert "Smoothed for display" in text
    assert "standard error of 50 %" in text
    assert "Smoothed for display" not in Page(render_report(contents)).text


def test_what_is_not_there_is_left_out():
    page = Page(render_report(ReportContents()))
    assert "not for clinical use" in page.text
    assert "h2" not in page.tags
    assert "img" not in page.tags
    assert "De-identified" in page.text


def test_a_single_slice_without_dose_labels_or_errors_still_makes_a_report():
    grid = VoxelGrid.from_spacing((1, 20, 30), (2.0, 2.0, 5.0))
    flat = np.zeros(grid.shape)
    ct = ImageVolume(grid, flat, "CT", "HU")
    empty = LabelMap(grid, flat, organ_table(["liver"]))
    whole = LabelMap(grid, flat + 1, organ_table(["liver"]))
    assert Page(render_report(ReportContents(ct=ct, dose=DoseMap(grid, flat, flat), labels=empty))).tags.count("img") == 1
    assert Page(render_report(ReportContents(ct=ct, dose=DoseMap(grid, flat + 1, flat + 0.1)))).tags.count("img") == 2
    dose = DoseMap(grid, flat + 1, flat)
    contents = ReportContents(ct=ct, dose=dose, labels=whole, histograms=dose_volume_histograms(dose, whole))
    assert Page(render_report(contents)).tags.count("img") == 2


def test_numbers_are_readable():
    assert quantity(0.00012345) == "0.000123"
    assert quantity(999.96, 4) == "1000"
    assert quantity(0.9999, 2) == "1.0"
    assert quantity(float("nan")) == "–"
    assert quantity(-2.5e-12, 2) == "-2.5·10⁻¹²"


def test_a_report_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(SynthDoseError, match="Cannot write"):
        write_report(tmp_path / "absent" / "report.html", ReportContents())
    assert not list(tmp_path.iterdir())


def test_the_band_of_a_histogram_is_the_total_uncertainty_where_it_is_known():
    """A band is one shape per organ: its width at half volume is twice the stated share of the dose there."""
    doses = np.linspace(8.0, 12.0, 400)
    for known, relative in ((0.2, 0.2), (np.nan, 0.05 / 10)):
        histogram = DoseVolumeHistogram("liver", 10.0, doses, mean_sigma_Gy=0.05, total_relative_sigma=known)
        [band] = dvh_figure([histogram]).axes[0].collections
        corners = band.get_paths()[0].vertices
        near = corners[np.abs(corners[:, 1] - 50) < 1.5]
        assert np.ptp(near[:, 0]) == pytest.approx(2 * relative * 10.0, rel=0.08, abs=0.15)


def test_the_report_is_made_for_paper_too(tmp_path):
    """Heads of tables repeat, pictures fit a page and nothing is cut by a scroll bar."""
    css = resource_path("report", "report.css").read_text(encoding="utf-8")
    paper = css[css.index("@media print") :]
    rules = ("size: A4", "display: table-header-group", "max-height: 215mm", "overflow: visible", "counter(page)")
    for rule in (*rules, "break-inside: avoid"):
        assert rule in paper
    assert paper.count("{") == paper.count("}")
