"""From measured activity to decays: time-activity curves, their integrals, and time-integrated activity per voxel."""

from .average import ModelAverage, fit_models
from .calibration import Calibration, CalibrationScan, fit_calibration, phantom_scan
from .convert import activity_from_counts, decay_during, to_scan_time
from .curves import MODELS, CurveModel, curve_model
from .fit import CurveFit, fit_curve
from .gas import out_of_gas, tissue_share
from .integrate import from_map, time_integrated_activity
from .multi import RegionCurve, TimeCourse, TimeCourseOptions, integrate_time_points
from .organs import OrganSource, from_organs
from .recovery import RecoveryCurve, blurred_sphere, fit_recovery, recovery_note
from .registration import Registration, register, same_frame
from .registration_quality import RegistrationQuality, checkerboard, difference
from .retention import retention_warnings
from .shared import fit_shared
from .single_time import SingleTimeIntegral, hanscheid, madsen, population_half_life
from .suv import SUV_UNITS, activity_from_suv, lean_body_mass_kg, suv_factor_Bq_ml, suv_from_activity
from .time_points import TimeActivity, time_activity
from .transforms import SpatialTransform, from_to_parent, moved_image, moved_labels, read_transform
from .trapezoid import TrapezoidIntegral, integrate_trapezoid
from .values import ActivityRow, TimeIntegratedActivity
from .voxelwise import VoxelFit, fit_voxels

__all__ = [
    "MODELS",
    "SUV_UNITS",
    "ActivityRow",
    "Calibration",
    "CalibrationScan",
    "CurveFit",
    "CurveModel",
    "ModelAverage",
    "OrganSource",
    "RecoveryCurve",
    "RegionCurve",
    "Registration",
    "RegistrationQuality",
    "SingleTimeIntegral",
    "SpatialTransform",
    "TimeActivity",
    "TimeCourse",
    "TimeCourseOptions",
    "TimeIntegratedActivity",
    "TrapezoidIntegral",
    "VoxelFit",
    "activity_from_counts",
    "activity_from_suv",
    "blurred_sphere",
    "checkerboard",
    "curve_model",
    "decay_during",
    "difference",
    "fit_calibration",
    "fit_curve",
    "fit_models",
    "fit_recovery",
    "fit_shared",
    "fit_voxels",
    "from_map",
    "from_organs",
    "from_to_parent",
    "hanscheid",
    "integrate_time_points",
    "integrate_trapezoid",
    "lean_body_mass_kg",
    "madsen",
    "moved_image",
    "moved_labels",
    "out_of_gas",
    "phantom_scan",
    "population_half_life",
    "read_transform",
    "recovery_note",
    "register",
    "retention_warnings",
    "same_frame",
    "suv_factor_Bq_ml",
    "suv_from_activity",
    "time_activity",
    "time_integrated_activity",
    "tissue_share",
    "to_scan_time",
]
