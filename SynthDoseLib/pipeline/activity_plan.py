"""The part of a plan that says where the nuclide is and how it clears."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ..core import SynthDoseError
from ..kinetics.average import CANDIDATES
from ..kinetics.curves import MODELS
from ..kinetics.multi import METHODS, MOST_TIME_POINTS, SINGLE
from ..kinetics.recovery import PARAMETERS
from ..kinetics.suv import SUV_UNITS
from ..kinetics.trapezoid import STARTS, TAILS
from .toml_tables import nearest

UNITS = ("Bq/ml", "counts", "g/ml", "MBq*s", "MBq*s/ml")
REGISTRATIONS = ("auto", "none", "rigid", "affine", "deformable")
CORRECTIONS = ("START", "ADMIN", "NONE")
MOST_HOURS = 1e5  # ten years: more is another unit
IN_GAS = ("move", "keep")


@dataclass(frozen=True)
class ActivityPlan:
    """``[[activity]]``: an image of one time point, or a map of time-integrated activity.

    `transform_ras` (16 numbers, row by row) and `transform` (a file of ITK or Slicer) move this image onto the CT of the plan.
    """

    path: Path | None = None
    tia_MBq_s: Path | None = None
    series: str = ""
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str = ""
    unit: str = ""
    acquired_at: datetime | None = None
    hours_after_administration: float | None = None
    sensitivity_cps_per_MBq: float | None = None
    duration_s: float | None = None
    patient_weight_kg: float | None = None
    patient_height_m: float | None = None
    patient_sex: str = ""
    suv: str = ""
    decay_correction: str = ""
    negative: str = "refuse"
    ct: Path | None = None
    registration: str = ""
    transform: Path | None = None
    transform_ras: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (self.path is None) == (self.tia_MBq_s is None):
            raise SynthDoseError("[[activity]] needs exactly one of path (an activity image) and tia_MBq_s (a map).")
        _one_of("[[activity]] negative", self.negative, ("refuse", "zero"))
        for name in ("sensitivity_cps_per_MBq", "duration_s", "patient_weight_kg", "patient_height_m"):
            _positive(f"[[activity]] {name}", getattr(self, name))
        hours = self.hours_after_administration
        if hours is not None and (self.acquired_at or not 0 <= hours <= MOST_HOURS):
            raise SynthDoseError(
                f"[[activity]] hours_after_administration has to be 0 or more (up to {MOST_HOURS:g}), in place of acquired_at; "
                f"found {hours}."
            )
        for name, allowed in (
            ("unit", UNITS),
            ("suv", tuple(SUV_UNITS)),
            ("decay_correction", CORRECTIONS),
            ("registration", REGISTRATIONS),
            ("patient_sex", ("M", "F")),
        ):
            if getattr(self, name):
                _one_of(f"[[activity]] {name}", getattr(self, name), allowed)
        if len(self.transform_ras) not in (0, 16) or (self.transform_ras and self.transform):
            raise SynthDoseError(
                "[[activity]] transform_ras needs 16 numbers (4 rows of 4), in place of transform; found "
                f"{len(self.transform_ras)}{' and a file' if self.transform else ''}."
            )


@dataclass(frozen=True)
class OrganActivityPlan:
    """``[[organ_activity]]``: uniform activity of one organ, by one of three quantities."""

    organ: str
    tia_MBq_s: float | None = None
    residence_time_h: float | None = None
    activity_MBq: float | None = None
    hours_after_administration: float = 0.0
    effective_half_life_h: float | None = None


@dataclass(frozen=True)
class KineticsPlan:
    """``[kinetics]``: half-lives per organ for one time point; how several of them are fitted and registered.

    `activity_in_gas` is "move", into the tissue around (see `kinetics.gas`), or "keep", for a gas or aerosol that was inhaled.
    """

    rest_effective_half_life_h: float | None = None
    effective_half_life_h: Mapping[str, float] = field(default_factory=dict)
    biological_half_life_h: Mapping[str, float] = field(default_factory=dict)
    half_life_sigma_h: Mapping[str, float] = field(default_factory=dict)
    method: str = "auto"
    models: tuple[str, ...] = CANDIDATES
    average: bool = True
    relative_sigma: float = 0.05
    noise_fwhm_mm: float | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    shared_organs: tuple[str, ...] = ()
    start: str = "constant"
    tail: str = "physical"
    voxelwise: bool = False
    voxel_model: str = "mono"
    registration: str = "auto"
    recovery: Path | None = None
    recovery_form: str = "logistic"
    blur_relative_sigma: float = 0.1
    calibration_relative_sigma: float = 0.0
    registration_sigma_mm: float | None = None
    activity_in_gas: str = "move"

    def __post_init__(self) -> None:
        _positive("[kinetics] rest_effective_half_life_h", self.rest_effective_half_life_h)
        for name in ("effective_half_life_h", "biological_half_life_h", "half_life_sigma_h", "fixed"):
            for organ, value in getattr(self, name).items():
                _positive(f"[kinetics.{name}] {organ}", value)
        _one_of("[kinetics] method", self.method, (*METHODS, *MODELS))
        for model in self.models:
            _one_of("[kinetics] models", model, tuple(MODELS))
        _one_of("[kinetics] voxel_model", self.voxel_model, tuple(MODELS))
        _one_of("[kinetics] start", self.start, STARTS)
        _one_of("[kinetics] tail", self.tail, TAILS)
        _one_of("[kinetics] registration", self.registration, REGISTRATIONS)
        _one_of("[kinetics] activity_in_gas", self.activity_in_gas, IN_GAS)
        _one_of("[kinetics] recovery_form", self.recovery_form, tuple(PARAMETERS))
        _positive("[kinetics] noise_fwhm_mm", self.noise_fwhm_mm)
        _positive("[kinetics] registration_sigma_mm", self.registration_sigma_mm)
        for name in ("relative_sigma", "calibration_relative_sigma", "blur_relative_sigma"):
            if not 0 <= getattr(self, name) < 1:
                raise SynthDoseError(f"[kinetics] {name} has to be from 0 to below 1; found {getattr(self, name)}.")


def check_time_points(activity: Sequence[ActivityPlan]) -> None:
    """Refuse what several [[activity]] tables cannot be together."""
    if len(activity) > 1 and any(entry.tia_MBq_s for entry in activity):
        raise SynthDoseError(
            "A map of time-integrated activity (tia_MBq_s) stands alone; remove the other [[activity]] tables."
        )
    if len(activity) > MOST_TIME_POINTS:
        raise SynthDoseError(f"The plan has {len(activity)} [[activity]] tables; {MOST_TIME_POINTS} time points are allowed.")


def check_used(kinetics: KineticsPlan, activity: Sequence[ActivityPlan]) -> None:
    """Refuse what only fitted time courses use where nothing is fitted: one image with given half-lives, a map, or numbers."""
    if needs_curves(kinetics, activity):
        return
    unused = ["recovery"] if kinetics.recovery is not None else []
    unused += ["voxelwise"] if kinetics.voxelwise else []
    unused += [f'method = "{kinetics.method}"'] if kinetics.method not in ("auto", "mono") else []
    if unused:
        raise SynthDoseError(
            f"[kinetics] {unused[0]} needs several [[activity]] images, and would do nothing here. For one with recovery, "
            'write method = "population" (half-lives as given) or "hanscheid"; otherwise remove it.'
        )


def needs_curves(kinetics: KineticsPlan, activity: Sequence[ActivityPlan]) -> bool:
    """Whether activity is integrated by time courses, not by one scan with given half-lives."""
    return len(activity) > 1 or kinetics.method in SINGLE


def _one_of(where: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise SynthDoseError(f"{where} is '{value}'.{nearest(value, allowed)} Allowed: {', '.join(allowed)}.")


def _positive(where: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise SynthDoseError(f"{where} has to be positive; found {value}.")
