"""People as voxels: from CT and labels, or stylised and synthetic ones made by the library."""

from .stylised import FIELDS_OF_VIEW, StylisedAdult, stylised_adult
from .stylised_reference import TISSUES, Tissue, reference_masses
from .synthetic import TRAINING_ORGANS, RegionActivity, SyntheticPatient, TrainingPair, synthetic_patient, training_pair

__all__ = [
    "FIELDS_OF_VIEW",
    "TISSUES",
    "TRAINING_ORGANS",
    "RegionActivity",
    "StylisedAdult",
    "SyntheticPatient",
    "Tissue",
    "TrainingPair",
    "reference_masses",
    "stylised_adult",
    "synthetic_patient",
    "training_pair",
]
