"""From dose per voxel to what a physicist reads: organ doses and dose-volume histograms."""

from .contours import ContourBody
from .histogram import DoseVolumeHistogram, dose_volume_histogram, dose_volume_histograms, write_dvh_csv
from .marrow import MarrowDoses, active_marrow_distribution, bones_of, marrow_cellularity, marrow_doses
from .organs import OrganDoseRow, noise_notes, organ_dose_table, write_organ_doses_csv
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
    "ContourBody",
    "DoseVolumeHistogram",
    "MarrowDoses",
    "OrganDoseRow",
    "Spongiosa",
    "absolute_dose",
    "absolute_organ_doses",
    "absorbed_fractions",
    "active_marrow_distribution",
    "bones_of",
    "contour_histogram",
    "dose_volume_histogram",
    "dose_volume_histograms",
    "label_histogram",
    "label_histograms",
    "marrow_cellularity",
    "marrow_doses",
    "marrow_enhancement",
    "noise_notes",
    "organ_dose_table",
    "photon_ratio",
    "stopping_ratio",
    "trabecula_thickness_cm",
    "write_dvh_csv",
    "write_organ_doses_csv",
]
