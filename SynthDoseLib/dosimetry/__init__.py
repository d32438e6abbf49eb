"""From dose per voxel to what a physicist reads: organ doses and dose-volume histograms."""

from .histogram import DoseVolumeHistogram, dose_volume_histogram, dose_volume_histograms, write_dvh_csv
from .organs import OrganDoseRow, noise_notes, organ_dose_table, write_organ_doses_csv
from .scale import absolute_dose, absolute_organ_doses

__all__ = [
    "DoseVolumeHistogram",
    "OrganDoseRow",
    "absolute_dose",
    "absolute_organ_doses",
    "dose_volume_histogram",
    "dose_volume_histograms",
    "noise_notes",
    "organ_dose_table",
    "write_dvh_csv",
    "write_organ_doses_csv",
]
