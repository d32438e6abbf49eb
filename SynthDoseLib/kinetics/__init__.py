"""From measured activity to decays: time-activity curves, their integrals, and time-integrated activity per voxel."""

from .average import ModelAverage, fit_models
from .convert import activity_from_counts, activity_from_suv
from .curves import MODELS, CurveModel, curve_model
from .fit import CurveFit, fit_curve
from .integrate import from_map, time_integrated_activity
from .organs import OrganSource, from_organs
from .shared import fit_shared
from .single_time import SingleTimeIntegral, hanscheid, madsen, population_half_life
from .time_points import TimeActivity, time_activity
from .trapezoid import TrapezoidIntegral, integrate_trapezoid
from .values import ActivityRow, TimeIntegratedActivity
from .voxelwise import VoxelFit, fit_voxels

__all__ = [
    "MODELS",
    "ActivityRow",
    "CurveFit",
    "CurveModel",
    "ModelAverage",
    "OrganSource",
    "SingleTimeIntegral",
    "TimeActivity",
    "TimeIntegratedActivity",
    "TrapezoidIntegral",
    "VoxelFit",
    "activity_from_counts",
    "activity_from_suv",
    "curve_model",
    "fit_curve",
    "fit_models",
    "fit_shared",
    "fit_voxels",
    "from_map",
    "from_organs",
    "hanscheid",
    "integrate_trapezoid",
    "madsen",
    "population_half_life",
    "time_activity",
    "time_integrated_activity",
]
