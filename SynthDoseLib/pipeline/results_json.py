"""The numbers of a run in one JSON file, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..dosimetry import DoseVolumeHistogram, OrganBudget
from ..kinetics import TimeIntegratedActivity
from .clinical import Clinical
from .plan import SCHEMA, RunPlan
from .run_folder import write_json

RESULTS_JSON = "results.json"
PERCENT = (98, 95, 50, 5, 2)


def write_results(
    path: Path, plan: RunPlan, tia: TimeIntegratedActivity, clinical: Clinical, budgets: Sequence[OrganBudget]
) -> None:
    """Write organ doses, indices of histograms, limits, BED, effective dose and uncertainties; what is not known is null."""
    write_json(
        path,
        {
            "schema": SCHEMA,
            "nuclide": plan.therapy.nuclide,
            "administered_MBq": plan.therapy.administered_MBq,
            "decays": tia.decays,
            "activity": [asdict(row) for row in tia.organs],
            "organ_doses": [asdict(row) for row in clinical.rows],
            "histograms": [_indices(histogram) for histogram in clinical.histograms],
            "constraints": [{"dose": which, **asdict(result)} for which, result in clinical.constraints],
            "bed": [asdict(row) for row in clinical.bed],
            "effective_dose": clinical.record().get("effective_dose"),
            "uncertainty": [
                {
                    "organ": budget.organ,
                    "mean_dose_Gy": budget.mean_dose_Gy,
                    "total_sigma_Gy": budget.total_sigma_Gy,
                    "largest": budget.largest,
                    "parts": [asdict(part) for part in budget.parts],
                }
                for budget in budgets
            ],
            "statement": "Research software, not for clinical use.",
        },
    )


def _indices(histogram: DoseVolumeHistogram) -> dict[str, Any]:
    doses = histogram.dose_at([percent / 100 for percent in PERCENT]).tolist()
    return {
        "organ": histogram.organ,
        "volume_ml": histogram.volume_ml,
        "mean_Gy": histogram.mean_Gy,
        "min_Gy": histogram.min_Gy,
        "max_Gy": histogram.max_Gy,
        **{f"d{percent}_Gy": dose for percent, dose in zip(PERCENT, doses, strict=True)},
    }
