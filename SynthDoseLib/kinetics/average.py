"""Several models for one region: choice by Akaike's criterion, and the average over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ..core import SynthDoseError
from .curves import Floats, curve_model
from .fit import SURPRISING, CurveFit, fit_curve, fixed_parameters
from .time_points import TimeActivity

CANDIDATES = ("mono", "mono-uptake", "bi", "bi-uptake", "tri")
LEAST_WEIGHT = 0.01  # of a model that is worth naming
MOST_RELATIVE_SIGMA = 0.5  # of a parameter that the data are said to know


@dataclass(frozen=True, eq=False)
class ModelAverage:
    """Fits of several models and their average by Akaike weights.

    Attributes
    ----------
    fits : tuple of CurveFit
        Those that carry weight, the best first.
    weights : tuple of float
        Their sum is 1.
    rejected : dict of str to str
        Models that were tried and carry no weight, and why.
    notes : tuple of str
    """

    fits: tuple[CurveFit, ...]
    weights: tuple[float, ...]
    rejected: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> CurveFit:
        """Fit with the largest weight."""
        return self.fits[0]

    @property
    def data(self) -> TimeActivity:
        """What was fitted."""
        return self.best.data

    @property
    def model(self) -> str:
        """Name of the best model, or of those averaged with their weights."""
        if self.weights[0] > 1 - LEAST_WEIGHT:
            return self.best.model
        shown = [(f.model, w) for f, w in zip(self.fits, self.weights, strict=True) if w >= LEAST_WEIGHT]
        return " + ".join(f"{weight:.0%} {model}" for model, weight in shown)

    @property
    def tia_MBq_h(self) -> float:
        """Weighted mean of the time-integrated activities."""
        return self._mean("tia_MBq_h")

    @property
    def tia_sigma_MBq_h(self) -> float:
        """Standard uncertainty of that mean, with the spread between the models.

        References
        ----------
        Buckland, Burnham & Augustin, Biometrics 53 (1997) 603-618: Σ wᵢ √(σᵢ² + (xᵢ - x̄)²).
        """
        return self._sigma("tia_MBq_h", "tia_sigma_MBq_h")

    @property
    def effective_half_life_h(self) -> float:
        """Weighted mean of the half-lives of the slowest phases."""
        return self._mean("effective_half_life_h")

    @property
    def effective_half_life_sigma_h(self) -> float:
        """As `tia_sigma_MBq_h`, for the half-life."""
        return self._sigma("effective_half_life_h", "effective_half_life_sigma_h")

    @property
    def degrees_of_freedom(self) -> int:
        """Of the best model."""
        return self.best.degrees_of_freedom

    @property
    def coverage_factor(self) -> float:
        """Of the best model; see `CurveFit.coverage_factor`."""
        return self.best.coverage_factor

    @property
    def interval_68_MBq_h(self) -> tuple[float, float]:
        """Interval for the time-integrated activity; see `CurveFit.interval_68_MBq_h`."""
        half = self.coverage_factor * self.tia_sigma_MBq_h
        return self.tia_MBq_h - half, self.tia_MBq_h + half

    def activity_MBq(self, times_h: ArrayLike) -> Floats:
        """Averaged activity at times after administration, (m,)."""
        return np.sum([w * f.activity_MBq(times_h) for f, w in zip(self.fits, self.weights, strict=True)], axis=0)

    def band_MBq(self, times_h: ArrayLike) -> Floats:
        """Standard uncertainty of the averaged activity, with the spread between the models, (m,)."""
        mean = self.activity_MBq(times_h)
        parts = [
            w * np.hypot(f.band_MBq(times_h), f.activity_MBq(times_h) - mean)
            for f, w in zip(self.fits, self.weights, strict=True)
        ]
        return np.sum(parts, axis=0)

    def _mean(self, name: str) -> float:
        return sum(w * getattr(f, name) for f, w in zip(self.fits, self.weights, strict=True))

    def _sigma(self, name: str, sigma: str) -> float:
        mean = self._mean(name)
        pairs = zip(self.fits, self.weights, strict=True)
        return sum(w * math.hypot(getattr(f, sigma), getattr(f, name) - mean) for f, w in pairs)


def fit_models(
    data: TimeActivity,
    models: Sequence[str] = CANDIDATES,
    *,
    physical_half_life_h: float,
    fixed: Mapping[str, float] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    average: bool = True,
) -> ModelAverage:
    """Fit every model that the data can bear and weigh them by AICc.

    A model carries weight if it has a finite AICc (enough points), converged, and knows each of its free parameters better
    than to 50 %. If none does, the one with the fewest parameters is taken and a note says so.

    Parameters
    ----------
    data : TimeActivity
    models : sequence of str
        Names of `curve_model`.
    physical_half_life_h : float
    fixed, bounds : mapping, optional
        As for `fit_curve`; each holds for those models that have the parameter.
    average : bool
        Otherwise the model with the lowest AICc gets all the weight.

    Raises
    ------
    SynthDoseError
        If the points are too few for any of the models, or an argument is wrong.

    References
    ----------
    Kletting et al., Med. Phys. 40 (2013) 102504 (NUKFIT: models weighted by AICc, those of uncertain parameters left out).
    """
    if not models:
        raise SynthDoseError(f"No time-activity model is given. Models: {', '.join(CANDIDATES)}.")
    fits: list[CurveFit] = []
    rejected: dict[str, str] = {}
    for name in models:
        shape = curve_model(name)
        own = {key: value for key, value in (fixed or {}).items() if key in shape.parameter_names}
        limits = {key: value for key, value in (bounds or {}).items() if key in shape.parameter_names}
        needed = shape.size - len(fixed_parameters(shape, own))
        if needed > len(data.times_h):
            rejected[name] = f"{needed} free parameters, {len(data.times_h)} time points"
            continue
        fits.append(fit_curve(data, name, physical_half_life_h=physical_half_life_h, fixed=own, bounds=limits))
    if not fits:
        simplest = min(models, key=lambda name: curve_model(name).size)
        fit_curve(data, simplest, physical_half_life_h=physical_half_life_h, fixed=None, bounds=None)  # raises: too few points
    usable = []
    for fit in fits:
        reason = _unusable(fit)
        if reason:
            rejected[fit.model] = reason
        else:
            usable.append(fit)
    notes: list[str] = []
    scores = {fit.model: fit.aicc for fit in usable}
    simplest_fit = min(fits, key=lambda f: (not f.converged, len(f.parameters), f.chi_squared))
    if all(map(_contradicted, usable or [simplest_fit])) and (larger := [f for f in fits if _worth_more_parameters(f)]):
        # more phases are needed than AICc can judge by so few points: Akaike's criterion without its correction
        scores = {f.model: _akaike(f) for f in (*usable, *larger)}
        usable += larger
        rejected = {name: why for name, why in rejected.items() if name not in scores}
        notes.append(
            f"{data.region}: the simpler models contradict the data (chi-squared), and {len(data.times_h)} time points are "
            "too few for the correction of AICc; the models were weighed by Akaike's criterion without it."
        )
    if not usable:
        rejected.pop(simplest_fit.model, None)
        notes.append(
            f"{data.region}: {len(data.times_h)} time points do not tell the models apart; the one with the fewest parameters, "
            f"{simplest_fit.model}, was taken."
        )
        return ModelAverage((simplest_fit,), (1.0,), rejected, (*simplest_fit.notes, *notes))
    usable.sort(key=lambda f: scores[f.model])
    lowest = scores[usable[0].model]
    relative = np.exp(-0.5 * (np.array([scores[f.model] for f in usable]) - lowest))
    if not average:
        relative = np.where(np.arange(len(usable)) == 0, 1.0, 0.0)
    weights = tuple(float(w) for w in relative / relative.sum())
    said = dict.fromkeys(note for f, w in zip(usable, weights, strict=True) if w >= LEAST_WEIGHT for note in f.notes)
    return ModelAverage(tuple(usable), weights, rejected, (*said, *notes))


def _contradicted(fit: CurveFit) -> bool:
    """Whether the data rule a model out: known noise, and more scatter than it explains."""
    left = fit.degrees_of_freedom
    return fit.noise_known and left > 0 and float(special.chdtrc(left, fit.chi_squared)) < SURPRISING


def _worth_more_parameters(fit: CurveFit) -> bool:
    """Whether a model that AICc cannot judge fits: known noise, parameters known, data not against it."""
    known = fit.noise_known and not math.isfinite(fit.aicc) and fit.converged
    return known and not _contradicted(fit) and not _poorly_known(fit)


def _akaike(fit: CurveFit) -> float:
    """Akaike's criterion for known noise, without the correction for few data."""
    return fit.chi_squared + 2 * (len(fit.data.times_h) - fit.degrees_of_freedom)


def _unusable(fit: CurveFit) -> str:
    """Why a fit carries no weight; "" if it does."""
    if not math.isfinite(fit.aicc):
        return "too few time points for AICc"
    if not fit.converged:
        return "did not converge"
    return _poorly_known(fit)


def _poorly_known(fit: CurveFit) -> str:
    """Which parameter the data do not determine; "" if they determine all."""
    shape = curve_model(fit.model)
    for n, (name, value) in enumerate(fit.parameters.items()):
        if fit.sigmas[name] > MOST_RELATIVE_SIGMA * value:
            return f"{name} is known to {fit.sigmas[name] / value:.0%} only" if value > 0 else f"{name} is 0"
        if n < shape.phases and value == 0:
            return f"{name} is 0"
    return ""
