"""The case files of ../shared/reference/cases beside their expected values, and the profiles that go with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from SynthDoseLib.core import LabelMap, Organ
from SynthDoseLib.pipeline.case import Case, read_case
from SynthDoseLib.transport import SimulationResult, simulate

from .comparison import Comparison, compare
from .precision import Effort, precise_run

SHARED = Path(__file__).resolve().parents[3] / "shared"
REFERENCE = SHARED / "reference"
CASES = (
    "a_electron_1MeV_voxels", "b_photon_0.662MeV_voxels", "c_Svalue_3mm_Y-90_soft", "d_slabs_electron_2MeV",
    "d_slabs_gamma_0.5MeV", "e_6MV_10x10_slabs", "f_patient_Lu-177_kidneys",
)  # fmt: skip
BEAM = "e_6MV_10x10_slabs"
KERNEL = "a_electron_1MeV_voxels"
PENRED_WATER_EV = 68.999  # as its material file has it, from the gases of its elements; ICRU Report 37 and the engine: 75 eV
SLABS = ("d_slabs_electron_2MeV", "d_slabs_gamma_0.5MeV")
EGS_LEAST_SIGMA = 0.3  # voxels of EGSnrc above are on their way to being zeroed


def load_case(name: str) -> Case:
    """Read a case file."""
    return read_case(REFERENCE / "cases" / name / "CASE.toml")


def expected(name: str) -> list[dict[str, Any]]:
    """Quantities of ``expected.json``."""
    found: list[dict[str, Any]] = json.loads((REFERENCE / "cases" / name / "expected.json").read_text("utf-8"))["quantities"]
    return found


def compare_case(
    name: str, *, share: float = 1.0, threads: int = 0, estimator: str = "auto"
) -> tuple[list[Comparison], SimulationResult]:
    """Run a case file with `share` of its own histories and compare every organ."""
    case = load_case(name)
    histories = int(share * (case.settings.histories or 0))
    settings = replace(case.settings, histories=histories, threads=threads, estimator=estimator)
    result = simulate(case.phantom, case.source, case.emissions, settings)
    return _organs(name, case, result, 1.0), result


def compare_precisely(name: str, effort: Effort) -> tuple[list[Comparison], SimulationResult]:
    """Run a case file with as many histories as its tolerances need and compare every organ.

    The shells of the electron kernel are judged with the mean excitation energy that PenRed has for water, as the kernels are;
    what the engine's own makes of them is shown.
    """
    case = load_case(name)
    wanted = {quantity["organ"]: quantity["tolerance"] for quantity in expected(name) if quantity["judged"]}
    if name == BEAM:
        case = _with_surface(case)
        wanted["surface voxel"] = 0.05
    result = precise_run(case.phantom, case.source, case.emissions, wanted, effort, seed=case.settings.seed)
    rows = _organs(name, case, result, effort.share)
    if name == BEAM:
        rows.append(_surface(result, effort))
    if name == KERNEL:
        shown = [replace(row, quantity=f"{row.quantity}, 75 eV", judged=False) for row in rows]
        (water,) = case.phantom.materials
        phantom = replace(case.phantom, materials=(replace(water, mean_excitation_eV=PENRED_WATER_EV),))
        same = precise_run(phantom, case.source, case.emissions, wanted, effort, seed=case.settings.seed)
        rows = [replace(row, quantity=f"{row.quantity}, 69 eV as in PenRed") for row in _organs(name, case, same, effort.share)]
        rows += shown
    return rows, result


def _organs(name: str, case: Case, result: SimulationResult, share: float) -> list[Comparison]:
    organs = {organ.organ: organ for organ in result.organs}
    rows = []
    for quantity in expected(name):
        own = organs[quantity["organ"]]
        reference = quantity["dose_Gy"], quantity["sigma_Gy"]
        second = _egs_mean(name, case, quantity["organ"])
        row = compare(
            name, quantity["organ"], (own.dose_Gy, own.sigma_Gy), reference, quantity["tolerance"], judged=quantity["judged"],
            share=share, second=second,
        )  # fmt: skip
        rows.append(row)
    return rows


def _egs_mean(name: str, case: Case, organ: str) -> tuple[float, float] | None:
    """Mean dose of EGSnrc in a box, None where it zeroed voxels."""
    if name not in SLABS:
        return None
    data = np.load(REFERENCE / f"{name}_EGSnrc.npz")
    mask = case.phantom.labels.mask(organ).transpose(2, 1, 0)  # the reference's order of axes
    dose, sigma = data["dose"][mask].astype(np.float64), data["sigma"][mask].astype(np.float64)
    if (sigma > EGS_LEAST_SIGMA * dose).mean() > 0.02 or (dose <= 0).any():
        return None
    return float(dose.mean()), float(np.sqrt((sigma**2).sum()) / dose.size)


def _with_surface(case: Case) -> Case:
    """Add the organ "surface voxel": the first layer over the middle 4 x 4 cm of the field."""
    phantom = case.phantom
    labels = phantom.labels.labels.copy()
    number = int(labels.max()) + 1
    labels[0, 26:34, 26:34] = number
    organs = (*phantom.labels.organs, Organ(number, "surface voxel"))
    return replace(case, phantom=replace(phantom, labels=LabelMap(phantom.grid, labels, organs)))


def _surface(result: SimulationResult, effort: Effort) -> Comparison:
    data = np.load(REFERENCE / f"{BEAM}.npz")
    own = next(organ for organ in result.organs if organ.organ == "surface voxel")
    reference = float(data["depth_dose"][0]), float(data["depth_sigma"][0])
    return compare(BEAM, "surface voxel, 0-0.5 cm", (own.dose_Gy, own.sigma_Gy), reference, 0.05, share=effort.share)
