"""The part of a plan that says how organ doses are judged."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..core import SynthDoseError
from .toml_tables import nearest

SEXES = ("mean", "male", "female")
MARROW_SOURCES = ("equilibrium", "uniform", "marrow", "bone", "surface")


@dataclass(frozen=True)
class PreviousPlan:
    """``[[dosimetry.previous]]``: an earlier or external dose, as a map (`path`) or as mean doses of organs, times `factor`.

    `transform` takes RAS mm of the map to those of this CT, row by row.
    """

    path: Path | None = None
    transform: tuple[float, ...] = ()
    factor: float = 1.0
    organ_mean_Gy: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = "[[dosimetry.previous]]"
        if (self.path is None) == (not self.organ_mean_Gy):
            raise SynthDoseError(f"{where} needs either path (a dose map) or organ_mean_Gy (mean doses of organs).")
        if not 0 < self.factor < float("inf"):
            raise SynthDoseError(f"{where} factor has to be positive; found {self.factor}.")
        for organ, mean in self.organ_mean_Gy.items():
            if not 0 <= mean < float("inf"):
                raise SynthDoseError(f"{where} organ_mean_Gy of {organ} has to be 0 or more; found {mean}.")
        if len(self.transform) not in (0, 16) or (self.transform and self.path is None):
            raise SynthDoseError(
                f"{where} transform of {self.path.name if self.path else 'a dose map'} needs 16 numbers (4 rows of 4); "
                f"found {len(self.transform)}."
            )


@dataclass(frozen=True)
class WholeBodyPlan:
    """``[dosimetry.whole_body]``: what the body holds at `hours`, as fractions of the administered activity without decay.

    Counts of a probe or of whole-body images over those before the first voiding, decay-corrected. Without any, the body is
    taken to hold all that was administered.
    """

    hours: tuple[float, ...] = ()
    fraction: tuple[float, ...] = ()
    relative_sigma: float = 0.05

    def __post_init__(self) -> None:
        where = "[dosimetry.whole_body]"
        _same_length(where, "hours", self.hours, "fraction", self.fraction)
        if any(not 0 < value <= 1.1 for value in self.fraction):
            raise SynthDoseError(f"{where} fraction lies between 0 and 1; found {list(self.fraction)}.")
        if not 0 < self.relative_sigma < 1:
            raise SynthDoseError(f"{where} relative_sigma has to be above 0 and below 1; found {self.relative_sigma}.")


@dataclass(frozen=True)
class BloodPlan:
    """``[dosimetry.blood]``: samples of whole blood, not decay-corrected, for the dose to red marrow."""

    hours: tuple[float, ...]
    MBq_ml: tuple[float, ...]
    hematocrit: float | None = None
    ratio: float | None = None
    relative_sigma: float = 0.05
    remainder_MBq_s: float | None = None
    remainder_s_value_Gy_MBq_s: float | None = None

    def __post_init__(self) -> None:
        where = "[dosimetry.blood]"
        _same_length(where, "hours", self.hours, "MBq_ml", self.MBq_ml)
        if len(self.hours) < 2:
            raise SynthDoseError(f"{where} needs two or more samples; found {len(self.hours)}.")
        if (self.hematocrit is None) == (self.ratio is None):
            raise SynthDoseError(f"{where} needs either hematocrit or ratio (activity concentration of marrow over blood).")
        if not 0 < self.relative_sigma < 1:
            raise SynthDoseError(f"{where} relative_sigma has to be above 0 and below 1; found {self.relative_sigma}.")
        if (self.remainder_MBq_s is None) != (self.remainder_s_value_Gy_MBq_s is None):
            raise SynthDoseError(f"{where} needs remainder_MBq_s and remainder_s_value_Gy_MBq_s together, or neither.")


@dataclass(frozen=True)
class LungShuntPlan:
    """``[dosimetry.lung_shunt]``: of microspheres, as a fraction or as counts without background, and the lungs' mass."""

    fraction: float | None = None
    fraction_sigma: float = 0.0
    lung_counts: float | None = None
    liver_counts: float | None = None
    lung_mass_g: float = 1000.0

    def __post_init__(self) -> None:
        where = "[dosimetry.lung_shunt]"
        counts = [self.lung_counts, self.liver_counts]
        given = sum(count is not None for count in counts)
        if given != (2 if self.fraction is None else 0):
            raise SynthDoseError(f"{where} needs either fraction, or both lung_counts and liver_counts.")
        if self.fraction is not None and not 0 <= self.fraction < 1:
            raise SynthDoseError(f"{where} fraction lies between 0 and 1; found {self.fraction}.")
        if not (0 < self.lung_mass_g < float("inf") and 0 <= self.fraction_sigma < 1):
            raise SynthDoseError(f"{where} lung_mass_g has to be positive, fraction_sigma from 0 to below 1.")


def unused_names(plan: DosimetryPlan, drawn: Container[str], judged: Container[str]) -> list[str]:
    """Notes on organs that a plan names and a patient lacks: without a histogram (`drawn`), in no table (`judged`)."""
    unused = [("eud_exponent", name) for name in plan.eud_exponent if name not in drawn]
    unused += [("effective_half_life_h", name) for name in plan.effective_half_life_h if name not in judged]
    return [f"[dosimetry.{key}] names {name}, which has no dose of its own here: it was not used." for key, name in unused]


def _same_length(where: str, first: str, a: tuple[float, ...], second: str, b: tuple[float, ...]) -> None:
    if len(a) != len(b):
        raise SynthDoseError(f"{where} needs as many {first} as {second}; found {len(a)} and {len(b)}.")


@dataclass(frozen=True)
class DosimetryPlan:
    """``[dosimetry]``: limits, radiobiology, red marrow, uncertainty of boundaries, earlier cycles."""

    constraints: Path | None = None
    radiobiology: Path | None = None
    sex: str = "mean"
    marrow_source: str = "equilibrium"
    marrow_distribution: Path | None = None
    rbe_alpha: float | None = None
    effective_half_life_h: Mapping[str, float] = field(default_factory=dict)
    volumes_at_Gy: tuple[float, ...] = ()
    eud_exponent: Mapping[str, float] = field(default_factory=dict)
    boundary_sigma_voxels: float = 0.5
    volume_relative_sigma: Mapping[str, float] = field(default_factory=dict)
    previous: tuple[PreviousPlan, ...] = ()
    whole_body: WholeBodyPlan | None = None
    blood: BloodPlan | None = None
    lung_shunt: LungShuntPlan | None = None

    def __post_init__(self) -> None:
        for key, value, allowed in (("sex", self.sex, SEXES), ("marrow_source", self.marrow_source, MARROW_SOURCES)):
            if value not in allowed:
                raise SynthDoseError(f"[dosimetry] {key} is '{value}'.{nearest(value, allowed)} Allowed: {', '.join(allowed)}.")
        if self.rbe_alpha is not None and not 0 < self.rbe_alpha < float("inf"):
            raise SynthDoseError(f"[dosimetry] rbe_alpha has to be positive; found {self.rbe_alpha}.")
        for organ, hours in self.effective_half_life_h.items():
            if not 0 < hours < float("inf"):
                raise SynthDoseError(f"[dosimetry.effective_half_life_h] {organ} has to be positive; found {hours}.")
        if any(not 0 <= level < float("inf") for level in self.volumes_at_Gy):
            raise SynthDoseError(f"[dosimetry] volumes_at_Gy have to be 0 or more; found {list(self.volumes_at_Gy)}.")
        for organ, exponent in self.eud_exponent.items():
            if exponent == 0 or not abs(exponent) < float("inf"):
                raise SynthDoseError(f"[dosimetry.eud_exponent] {organ} has to be finite and not 0; found {exponent}.")
        if not 0 < self.boundary_sigma_voxels <= 3:
            raise SynthDoseError(
                f"[dosimetry] boundary_sigma_voxels has to be above 0 and at most 3; found {self.boundary_sigma_voxels}."
            )
        for organ, sigma in self.volume_relative_sigma.items():
            if not 0 <= sigma < 1:
                raise SynthDoseError(f"[dosimetry.volume_relative_sigma] {organ} has to be from 0 to below 1; found {sigma}.")
