"""People as voxels: from CT and labels, or stylised and synthetic ones made by the library."""

from .body import fill_air, find_body
from .builder import REST_OF_BODY, OrganMass, add_box, build_phantom, organ_masses
from .calibration import (
    CalibrationRangeError,
    HUCalibration,
    read_calibration,
    schneider_calibration,
)
from .people import stylised_person
from .people_growth import growth_value, growth_z, percentile_to_z, z_to_percentile
from .people_images import person_ct
from .people_person import ORGAN_GROUPS, PersonPlan, StylisedPerson
from .people_reference import TargetMass, reference_height_cm, reference_mass
from .people_sampling import require_possible, sample_person, sample_plan
from .people_tissues import PersonTissue, person_tissues
from .stylised import FIELDS_OF_VIEW, StylisedAdult, stylised_adult
from .stylised_reference import TISSUES, Tissue, reference_masses
from .synthetic import TRAINING_ORGANS, RegionActivity, SyntheticPatient, TrainingPair, synthetic_patient, training_pair

__all__ = [
    "FIELDS_OF_VIEW",
    "ORGAN_GROUPS",
    "REST_OF_BODY",
    "TISSUES",
    "TRAINING_ORGANS",
    "CalibrationRangeError",
    "HUCalibration",
    "OrganMass",
    "PersonPlan",
    "PersonTissue",
    "RegionActivity",
    "StylisedAdult",
    "StylisedPerson",
    "SyntheticPatient",
    "TargetMass",
    "Tissue",
    "TrainingPair",
    "add_box",
    "build_phantom",
    "fill_air",
    "find_body",
    "growth_value",
    "growth_z",
    "organ_masses",
    "percentile_to_z",
    "person_ct",
    "person_tissues",
    "read_calibration",
    "reference_height_cm",
    "reference_mass",
    "reference_masses",
    "require_possible",
    "sample_person",
    "sample_plan",
    "schneider_calibration",
    "stylised_adult",
    "stylised_person",
    "synthetic_patient",
    "training_pair",
    "z_to_percentile",
]
