"""From dose per voxel to what a physicist reads: organ doses and dose-volume histograms."""

from .blood import BloodMarrowDose, Remainder, activity_outside, marrow_dose_from_blood, marrow_energy_J, marrow_to_blood_ratio
from .budget import BoundaryChange, Contribution, OrganBudget, boundary_change, volume_sigma, write_budget_csv
from .constraints import Constraint, ConstraintResult, check_constraints, constraint_table
from .contours import ContourBody
from .cycles import cumulative_dose
from .effective import EffectiveDose, Tissue, effective_dose, equivalent_dose, tissue_weights
from .gamma import GammaIndex, gamma_index
from .histogram import (
    DoseVolumeHistogram,
    dose_volume_histogram,
    dose_volume_histograms,
    write_dvh_csv,
    write_dvh_metrics_csv,
)
from .marrow import (
    MarrowDoses,
    active_marrow_distribution,
    bones_of,
    marrow_cellularity,
    marrow_doses,
    read_marrow_distribution,
)
from .microspheres import PartitionDoses, dose_per_activity, lung_dose, lung_shunt_fraction, partition_model
from .organs import OrganDoseRow, noise_notes, organ_dose_table, with_total_sigma, write_organ_doses_csv
from .radiobiology import (
    DoseRate,
    Radiobiology,
    bed,
    bed_map,
    bed_of_cycles,
    bed_sigma,
    eqd2,
    eqd2_sigma,
    lea_catcheside,
    radiobiology_table,
    rbe_weighted_dose,
)
from .s_values import AbsorbedFraction, SValue, absorbed_fractions_of, organ_doses_by_s_values
from .scale import absolute_dose, absolute_organ_doses
from .spongiosa import (
    Spongiosa,
    absorbed_fractions,
    marrow_enhancement,
    photon_ratio,
    stopping_ratio,
    trabecula_thickness_cm,
)
from .structures import contour_histogram, label_histogram, label_histograms

__all__ = [
    "AbsorbedFraction",
    "BloodMarrowDose",
    "BoundaryChange",
    "Constraint",
    "ConstraintResult",
    "ContourBody",
    "Contribution",
    "DoseRate",
    "DoseVolumeHistogram",
    "EffectiveDose",
    "GammaIndex",
    "MarrowDoses",
    "OrganBudget",
    "OrganDoseRow",
    "PartitionDoses",
    "Radiobiology",
    "Remainder",
    "SValue",
    "Spongiosa",
    "Tissue",
    "absolute_dose",
    "absolute_organ_doses",
    "absorbed_fractions",
    "absorbed_fractions_of",
    "active_marrow_distribution",
    "activity_outside",
    "bed",
    "bed_map",
    "bed_of_cycles",
    "bed_sigma",
    "bones_of",
    "boundary_change",
    "check_constraints",
    "constraint_table",
    "contour_histogram",
    "cumulative_dose",
    "dose_per_activity",
    "dose_volume_histogram",
    "dose_volume_histograms",
    "effective_dose",
    "eqd2",
    "eqd2_sigma",
    "equivalent_dose",
    "gamma_index",
    "label_histogram",
    "label_histograms",
    "lea_catcheside",
    "lung_dose",
    "lung_shunt_fraction",
    "marrow_cellularity",
    "marrow_dose_from_blood",
    "marrow_doses",
    "marrow_energy_J",
    "marrow_enhancement",
    "marrow_to_blood_ratio",
    "noise_notes",
    "organ_dose_table",
    "organ_doses_by_s_values",
    "partition_model",
    "photon_ratio",
    "radiobiology_table",
    "rbe_weighted_dose",
    "read_marrow_distribution",
    "stopping_ratio",
    "tissue_weights",
    "trabecula_thickness_cm",
    "volume_sigma",
    "with_total_sigma",
    "write_budget_csv",
    "write_dvh_csv",
    "write_dvh_metrics_csv",
    "write_organ_doses_csv",
]
