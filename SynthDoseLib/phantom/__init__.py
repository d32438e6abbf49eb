"""People as voxels: from CT and labels, or stylised and synthetic ones made by the library."""

from .assigned import assign_tissues
from .body import fill_air, find_body
from .builder import REST_OF_BODY, OrganMass, add_box, build_phantom, organ_masses
from .calibration import (
    CalibrationRangeError,
    HUCalibration,
    read_calibration,
    schneider_calibration,
)
from .expectations import OrganExpectation, PatientFacts, expectation_of, expected_mass_g
from .exports import density_classes, material_entries, material_of, write_gate, write_penred
from .people import stylised_person
from .people_growth import growth_value, growth_z, percentile_to_z, z_to_percentile
from .people_images import person_ct
from .people_person import ORGAN_GROUPS, PersonPlan, StylisedPerson
from .people_reference import TargetMass, reference_height_cm, reference_mass
from .people_sampling import require_possible, sample_person, sample_plan
from .people_tissues import PersonTissue, person_tissues
from .quality import OrganQuality, PhantomQuality, assess_phantom, person_of
from .quality_values import Finding
from .regrid import regrid_phantom
from .synthetic import RegionActivity, SyntheticPatient, synthetic_patient

__all__ = [
    "ORGAN_GROUPS",
    "REST_OF_BODY",
    "CalibrationRangeError",
    "Finding",
    "HUCalibration",
    "OrganExpectation",
    "OrganMass",
    "OrganQuality",
    "PatientFacts",
    "PersonPlan",
    "PersonTissue",
    "PhantomQuality",
    "RegionActivity",
    "StylisedPerson",
    "SyntheticPatient",
    "TargetMass",
    "add_box",
    "assess_phantom",
    "assign_tissues",
    "build_phantom",
    "density_classes",
    "expectation_of",
    "expected_mass_g",
    "fill_air",
    "find_body",
    "growth_value",
    "growth_z",
    "material_entries",
    "material_of",
    "organ_masses",
    "percentile_to_z",
    "person_ct",
    "person_of",
    "person_tissues",
    "read_calibration",
    "reference_height_cm",
    "reference_mass",
    "regrid_phantom",
    "require_possible",
    "sample_person",
    "sample_plan",
    "schneider_calibration",
    "stylised_person",
    "synthetic_patient",
    "write_gate",
    "write_penred",
    "z_to_percentile",
]
