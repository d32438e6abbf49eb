"""Uncertainty budgets: against sampling of the measurement equation, boundaries against spheres, and a whole run."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, special

sys.path.insert(0, str(Path(__file__).parent))
from small_patient import PLAN, grid, hounsfield, labels, write_patient

from SynthDoseLib.cli import BAD_INPUT, main
from SynthDoseLib.core import Emission, SynthDoseError, VoxelPhantom
from SynthDoseLib.core.materials import Material
from SynthDoseLib.dosimetry import BoundaryChange, Contribution, OrganBudget, OrganDoseRow, boundary_change, volume_sigma
from SynthDoseLib.dosimetry.budget import COMPONENTS, combined, displacement_sigma, write_budget_csv
from SynthDoseLib.kinetics import fit_recovery
from SynthDoseLib.pipeline import read_plan
from SynthDoseLib.pipeline.activity import time_integrate
from SynthDoseLib.pipeline.budget import organ_budgets
from SynthDoseLib.pipeline.budget_picture import budget_figure


def sphere(radius: float, size: int) -> np.ndarray:
    """Voxels of a sphere, part of each inside by 5 x 5 x 5 points."""
    fine = (np.arange(5 * size) + 0.5) / 5 - size / 2
    inside = fine[:, None, None] ** 2 + fine[:, None] ** 2 + fine**2 < radius**2
    return inside.reshape(size, 5, size, 5, size, 5).mean(axis=(1, 3, 5))


@pytest.mark.parametrize("own_share", [1.0, 0.6])
def test_total_is_the_scatter_of_the_sampled_measurement_equation(own_share):
    """D = Q (f C(V)/R(V) tau/m(V) + (1 - f) others), every factor drawn from its own normal distribution."""
    random = np.random.default_rng(4)
    count, mean = 400_000, 2.0
    u = {"calibration": 0.02, "recovery": 0.015, "V": 0.03, "fit": 0.025, "registration": 0.01, "Monte Carlo": 0.004}
    counts, recovery, mass, elsewhere = 0.6, 0.25, 1.0, 0.02  # exponents of the volume; relative sigma of the other organs

    def draw(sigma):
        return 1 + sigma * random.standard_normal(count)

    volume = draw(u["V"])
    own = volume**counts / (volume**recovery * draw(u["recovery"])) * draw(u["fit"]) * draw(u["registration"]) / volume**mass
    doses = mean * draw(u["calibration"]) * (own_share * own + (1 - own_share) * draw(elsewhere)) * draw(u["Monte Carlo"])
    change = BoundaryChange(u["V"], counts * u["V"], mass * u["V"])
    parts = (
        Contribution("calibration", u["calibration"]),
        Contribution("recovery", own_share * u["recovery"]),
        Contribution("volume", volume_sigma(change, recovery_exponent=recovery, own_share=own_share)),
        Contribution("fit", combined(u["fit"], elsewhere, own_share)),
        Contribution("registration", own_share * u["registration"]),
        Contribution("Monte Carlo", u["Monte Carlo"]),
    )
    budget = OrganBudget("liver", mean, parts, own_share)
    # four standard errors of a standard deviation, and terms of second order in the sigmas
    assert budget.total_sigma_Gy == pytest.approx(doses.std(), rel=4 / math.sqrt(2 * count) + 2 * u["V"] ** 2)
    # volume counted three times without its correlation would be far outside
    thrice = math.hypot(counts, recovery, mass) * u["V"] * own_share
    assert math.hypot(budget.total_sigma_Gy, thrice * mean) > 1.1 * doses.std()


@pytest.mark.parametrize("radius", [3.0, 5.2, 9.0])
def test_half_a_voxel_changes_a_sphere_by_its_surface(radius):
    mask = sphere(radius, 2 * int(radius) + 8) >= 0.5
    equal = (mask.sum() * 3 / (4 * math.pi)) ** (1 / 3)
    change = boundary_change(mask, np.ones(mask.shape), np.full(mask.shape, 1.05))
    assert change.volume == pytest.approx(0.5 * 3 / equal, rel=0.02)  # half a voxel by surface over volume
    assert change.activity == pytest.approx(change.volume)
    assert volume_sigma(change) == pytest.approx(0, abs=1e-12)  # activity that goes on: the concentration is the same
    cold = boundary_change(mask, mask, np.ones(mask.shape))
    assert cold.activity == pytest.approx(cold.volume / 2)  # nothing is gained outwards, all is lost inwards
    known = BoundaryChange(cold.volume, 0.0, cold.mass)  # an activity that was given does not know of the boundary
    assert volume_sigma(known) == pytest.approx(cold.volume)


def test_activity_at_the_boundary_of_a_blurred_sphere_follows_gear_2018():
    radius, blur = 8.0, 2.5
    share = sphere(radius, 34)
    image = ndimage.gaussian_filter(share, blur, truncate=5)
    mask = share >= 0.5
    change = boundary_change(mask, image, np.ones(mask.shape))
    fade = 1 - math.exp(-2 * radius**2 / blur**2)
    phi = special.erf(math.sqrt(2) * radius / blur) - 2 * blur / (radius * math.sqrt(2 * math.pi)) * fade
    recovery = image[mask].sum() / share.sum()
    assert change.activity / change.volume == pytest.approx(phi / (2 * recovery), rel=0.03)


def test_an_ensemble_replaces_half_a_voxel():
    change = BoundaryChange(volume=0.1, activity=0.04, mass=0.1)
    assert volume_sigma(change, volume_relative_sigma=0.05) == pytest.approx(0.03)
    assert volume_sigma(change, recovery_exponent=0.2, own_share=0.5) == pytest.approx(0.04)


def test_displacement_in_a_gradient():
    k, _, i = np.indices((12, 12, 12))
    mask = np.zeros((12, 12, 12), bool)
    mask[4:8, 4:8, 4:8] = True
    activity = 1 + 0.1 * (i - 5.5) + 0.2 * (k - 5.5)
    assert displacement_sigma(mask, activity, (0.5, 0.5, 0.5)) == pytest.approx(math.hypot(0.05, 0.1))


def test_what_is_not_known_is_not_zero(tmp_path):
    parts = (Contribution("calibration", None, "no phantom scan"), Contribution("fit", 0.03), Contribution("volume", 0.04))
    budget = OrganBudget("liver", 10.0, parts)
    assert (budget.relative_sigma, budget.largest, budget.not_stated) == (pytest.approx(0.05), "volume", ("calibration",))
    write_budget_csv(tmp_path / "b.csv", [budget, OrganBudget("spleen", 1.0, (Contribution("fit", None),))])
    lines = list(csv.DictReader((tmp_path / "b.csv").read_text(encoding="utf-8").splitlines()))
    assert (lines[0]["relative_sigma"], lines[0]["status"], lines[0]["basis"]) == ("", "not stated", "no phantom scan")
    assert (lines[3]["component"], lines[3]["total_sigma_Gy"], lines[2]["largest"]) == ("total", "0.5", "yes")
    assert (lines[5]["total_sigma_Gy"], lines[5]["status"]) == ("", "not stated")
    assert combined(None, 0.1, 0.5) is None
    assert combined(None, 0.1, 0.0) == pytest.approx(0.1)
    assert len(budget_figure([budget]).axes[0].patches) == 2
    with pytest.raises(SynthDoseError, match="relative sigma of fit"):
        Contribution("fit", math.nan)


KNOWN = """[kinetics]
calibration_relative_sigma = 0.03
registration_sigma_mm = 2.0
effective_half_life_h = { liver = 60.0 }
half_life_sigma_h = { liver = 6.0 }
"""


def budget_of(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with open(folder / "uncertainty_budget.csv", newline="", encoding="utf-8") as stream:
        return {(row["organ"], row["component"]): row for row in csv.DictReader(stream)}


def test_a_run_writes_budgets(tmp_path):
    # the share of its dose that the liver gives itself is to be sure to 1 %
    plan = write_patient(tmp_path, PLAN.replace("[kinetics]\n", KNOWN).replace("histories = 4000", "histories = 40000"))
    assert main(["run", str(plan), "--out", str(tmp_path / "out")]) == 0
    found = budget_of(tmp_path / "out")
    assert {organ for organ, _ in found} == {"liver", "spleen"}
    liver = {component: found["liver", component] for component in (*COMPONENTS, "total")}
    assert float(liver["calibration"]["relative_sigma"]) == 0.03
    # A 2^(t/T) T/ln 2 through one image 24 h after administration, T = 60 h ± 6 h; nearly all dose is the liver's own
    assert float(liver["fit"]["relative_sigma"]) == pytest.approx((1 - math.log(2) * 24 / 60) * 0.1, rel=0.06)
    # a sharp sphere in cold water: mass as the volume, activity by half of that; half a voxel of 5 mm by surface over volume
    radius = 5.0 * (labels(grid()).mask("liver").sum() * 3 / (4 * math.pi)) ** (1 / 3)
    assert float(liver["volume"]["relative_sigma"]) == pytest.approx(0.5 * 2.5 * 3 / radius, rel=0.04)
    assert (liver["recovery"]["status"], liver["recovery"]["relative_sigma"]) == ("not stated", "")
    numbers = [float(row["relative_sigma"]) for name, row in liver.items() if name != "total" and row["relative_sigma"]]
    mean = float(liver["total"]["mean_dose_Gy"])
    assert float(liver["total"]["total_sigma_Gy"]) == pytest.approx(mean * math.hypot(*numbers), rel=1e-4)
    assert liver["volume"]["largest"] == "yes"
    with open(tmp_path / "out" / "organ_doses.csv", newline="", encoding="utf-8") as stream:
        row = next(row for row in csv.DictReader(stream) if row["organ"] == "liver")
    assert float(row["total_sigma_Gy"]) == pytest.approx(float(liver["total"]["total_sigma_Gy"]), rel=1e-4)
    assert float(row["sigma_Gy"]) == pytest.approx(float(liver["Monte Carlo"]["component_sigma_Gy"]), rel=1e-4)
    # the band: all doses one total sigma lower or higher
    relative = float(liver["total"]["relative_sigma"])
    with open(tmp_path / "out" / "dvh.csv", newline="", encoding="utf-8") as stream:
        rows = [{k: float(v) for k, v in r.items() if k != "organ"} for r in csv.DictReader(stream) if r["organ"] == "liver"]
    doses, fractions, low, high = (np.array([r[k] for r in rows]) for k in rows[0])
    for share in (0.8, 0.5, 0.2):
        middle, lower, upper = (float(np.interp(-share, -curve, doses)) for curve in (fractions, low, high))
        step = doses[1] - doses[0]  # of the table, between whose rows a straight line is drawn
        assert (lower, upper) == pytest.approx(((1 - relative) * middle, (1 + relative) * middle), abs=step)
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Uncertainty budget" in html
    assert "not stated" in html


def test_an_unknown_organ_in_the_volume_uncertainties_is_refused(tmp_path, capsys):
    extra = "[dosimetry.volume_relative_sigma]\nlivre = 0.05\n"
    assert main(["run", str(write_patient(tmp_path, PLAN + extra)), "--out", str(tmp_path / "out")]) == BAD_INPUT
    assert "livre" in capsys.readouterr().err


def test_recovery_and_its_slope_by_volume(tmp_path):
    alpha, beta = 8.0, 0.9
    volumes = np.array([1.0, 4.0, 16.0, 60.0, 200.0])
    values = 1 - 1 / (1 + (volumes / alpha) ** beta)
    lines = [f"{v},{r},0.02" for v, r in zip(volumes, values, strict=True)]
    (tmp_path / "recovery.csv").write_text("volume_ml,recovery,sigma\n" + "\n".join(lines) + "\n", encoding="utf-8")
    scan = '[[activity]]\npath = "spect.nrrd"\nhours_after_administration = {}\n'
    head = PLAN[: PLAN.index("[[activity]]")].replace("administered_at = 2024-01-31T10:00:00\n", "")
    tail = '[kinetics]\nrecovery = "recovery.csv"\nmethod = "mono"\n[dose]\nhistories = 10\n'
    plan = read_plan(write_patient(tmp_path, head + scan.format(24) + scan.format(25) + scan.format(26) + tail))
    where, organs = grid(), labels(grid())
    water = Material("water", 1.0, {"H": 0.112, "O": 0.888})
    density = np.where(hounsfield(where) > -500, 1.0, 0.001).astype(np.float32)
    phantom = VoxelPhantom(where, np.zeros(where.shape, np.uint8), density, (water,), organs)
    found = time_integrate(plan, phantom)
    volume = float(organs.mask("liver").sum()) * where.voxel_volume_ml
    tia = next(row for row in found.tia.organs if row.organ == "liver")
    electrons = Emission("electron", 1.0, np.array([0.1, 0.1]), np.array([1.0]))
    dose = tia.tia_MBq_s * 1e6 * 0.1 * 1.602176634e-10 / volume  # all of it by electrons that stay
    row = OrganDoseRow("liver", volume, volume, dose, 0.01 * dose, *(0.0,) * 5)
    curve = fit_recovery(volumes, values, np.full(5, 0.02))
    (budget,) = organ_budgets(plan, phantom, found, [row], {}, [electrons], curve)
    known = {part.component: part for part in budget.parts}
    assert budget.own_share == pytest.approx(1)
    # R = x/(1 + x) with x = (V/alpha)^beta: d ln R/d ln V = beta/(1 + x)
    assert f"recovery {beta / (1 + (volume / alpha) ** beta):.2f}" in known["volume"].basis
    # a cold surrounding: the relative sigma of the activity is that of the coefficient
    coefficient, sigma = curve.at(volume)
    assert known["recovery"].relative_sigma == pytest.approx(sigma / coefficient, rel=0.01)
    assert known["Monte Carlo"].relative_sigma == pytest.approx(0.01)
    assert known["calibration"].relative_sigma is None
