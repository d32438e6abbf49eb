"""People as voxels: from CT and labels, or stylised and synthetic ones made by the library."""

from .body import fill_air, find_body
from .builder import REST_OF_BODY, OrganMass, add_box, build_phantom, organ_masses
from .calibration import (
    CalibrationRangeError,
    HUCalibration,
    read_calibration,
    schneider_calibration,
)
from .stylised import FIELDS_OF_VIEW, StylisedAdult, stylised_adult
from .stylised_reference import TISSUES, Tissue, reference_masses
from .synthetic import TRAINING_ORGANS, RegionActivity, SyntheticPatient, TrainingPair, synthetic_patient, training_pair

__all__ = [
    "FIELDS_OF_VIEW",
    "REST_OF_BODY",
    "TISSUES",
    "TRAINING_ORGANS",
    "CalibrationRangeError",
    "HUCalibration",
    "OrganMass",
    "RegionActivity",
    "StylisedAdult",
    "SyntheticPatient",
    "Tissue",
    "TrainingPair",
    "add_box",
    "build_phantom",
    "fill_air",
    "find_body",
    "organ_masses",
    "read_calibration",
    "reference_masses",
    "schneider_calibration",
    "stylised_adult",
    "synthetic_patient",
    "training_pair",
]
