"""Fitting time-activity curves and integrating them, with the uncertainty that the fit leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ..core import SynthDoseError
from .curves import CurveModel, Floats, curve_model
from .least_squares import Fitted, fit_best_start, fit_stack, invert_spd, starts_from_grid
from .time_points import TimeActivity

LN2 = math.log(2.0)
SHORTEST_HALF_LIFE_H = 0.01  # of an uptake or clearance
FASTEST_PHASE = 4  # half-lives that a phase may have behind it at the first scan
LONGEST_HALF_LIFE_H = 1e7  # where the nuclide's is not known
SURPRISING = 0.01  # probability of the scatter, below which sigma is enlarged
ONE_SIGMA = 0.8413447460685429  # standard normal distribution at one standard deviation
REWEIGHTED = 3  # passes with weights from the fitted curve where only relative noise is known


@dataclass(frozen=True, eq=False)
class CurveFit:
    """One model fitted to one region.

    Attributes
    ----------
    data : TimeActivity
    model : str
    parameters, sigmas : dict of str to float
        By the names of `CurveModel.parameter_names`: amplitudes, MBq, and effective half-lives, h; a sigma of 0 belongs to a
        parameter that was fixed or ended on a bound.
    covariance : ndarray, (P, P)
        Of the stacked parameters (a …, ln λ …).
    chi_squared : float
        Weighted squared residuals.
    degrees_of_freedom : int
    noise_known : bool
        Whether the data came with absolute standard deviations. If not, sigmas come from the scatter about the curve.
    aicc : float
        Akaike's criterion for few data; infinite if the data are too few for it.
    tia_MBq_h, tia_sigma_MBq_h : float
        Time-integrated activity from administration to infinity and its standard uncertainty (delta method); NaN if there is
        no way to tell.
    effective_half_life_h, effective_half_life_sigma_h : float
        Of the slowest phase.
    converged : bool
    notes : tuple of str
    """

    data: TimeActivity
    model: str
    parameters: dict[str, float]
    sigmas: dict[str, float]
    covariance: Floats
    chi_squared: float
    degrees_of_freedom: int
    noise_known: bool
    aicc: float
    tia_MBq_h: float
    tia_sigma_MBq_h: float
    effective_half_life_h: float
    effective_half_life_sigma_h: float
    converged: bool
    notes: tuple[str, ...] = ()

    @property
    def interval_68_MBq_h(self) -> tuple[float, float]:
        """Interval that holds the time-integrated activity with 68.3 % probability (Student's t where noise was estimated)."""
        half = self.coverage_factor * self.tia_sigma_MBq_h
        return self.tia_MBq_h - half, self.tia_MBq_h + half

    @property
    def coverage_factor(self) -> float:
        """Standard deviations to 68.3 %: 1 for known noise, otherwise Student's t for the degrees of freedom."""
        if self.noise_known:
            return 1.0
        return float(special.stdtrit(self.degrees_of_freedom, ONE_SIGMA)) if self.degrees_of_freedom > 0 else math.nan

    def activity_MBq(self, times_h: ArrayLike) -> Floats:
        """Fitted activity at times after administration, (m,)."""
        return curve_model(self.model).values(self._stacked(), np.atleast_1d(np.asarray(times_h, np.float64)))[:, 0]

    def band_MBq(self, times_h: ArrayLike) -> Floats:
        """Standard uncertainty of the fitted activity at times after administration, (m,)."""
        _, jacobian = curve_model(self.model).values_and_jacobian(
            self._stacked(), np.atleast_1d(np.asarray(times_h, np.float64))
        )
        slopes = jacobian[:, :, 0]
        return np.sqrt(np.maximum(np.einsum("am,ab,bm->m", slopes, self.covariance, slopes), 0.0))

    def _stacked(self) -> Floats:
        return stack_parameters(curve_model(self.model), self.parameters)[:, None]


def fit_curve(
    data: TimeActivity,
    model: str = "mono",
    *,
    physical_half_life_h: float,
    fixed: Mapping[str, float] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> CurveFit:
    """Fit one model to one region by weighted least squares.

    Parameters
    ----------
    data : TimeActivity
    model : str
        "mono", "bi", "tri", or with an uptake phase "mono-uptake", "bi-uptake".
    physical_half_life_h : float
        Of the nuclide: no phase clears more slowly. `math.inf` for a stable tracer.
    fixed : mapping of parameter name to value, optional
        For example ``{"uptake_half_life_h": 1.0}``.
    bounds : mapping of parameter name to (low, high), optional
        In place of the default ones: amplitudes from 0, half-lives from 0.01 h (a quarter of the
        first time, with several phases) to the physical one.

    Returns
    -------
    CurveFit

    Raises
    ------
    SynthDoseError
        If there are fewer points than free parameters, or a name or number is wrong.

    References
    ----------
    Bolch et al., MIRD Pamphlet No. 21, J. Nucl. Med. 50 (2009) 477-484; Gear et al., EANM practical guidance on uncertainty
    analysis, Eur. J. Nucl. Med. Mol. Imaging 45 (2018) 2456-2474 (propagation from the covariance of the fit).
    """
    shape = curve_model(model)
    held = fixed_parameters(shape, fixed or {})
    free = np.array([n not in held for n in range(shape.size)])
    need_points(data.region, shape, len(data.times_h), int(free.sum()))
    lower, upper = parameter_bounds(shape, data.times_h, physical_half_life_h, bounds or {}, held)
    values = data.activity_MBq[:, None]
    known = data.sigma_MBq is not None
    fitted = fit_weighted(shape, data.times_h, values, data.sigma_MBq, lower, upper, held)
    return _described(data, shape, fitted, free, known, physical_half_life_h)


def fit_weighted(
    shape: CurveModel,
    times_h: Floats,
    values: Floats,
    sigma: Floats | None,
    lower: Floats,
    upper: Floats,
    fixed: dict[int, float],
) -> Fitted:
    """Fit n curves (m, n) whose standard deviations are `sigma` (m,), or else in proportion to the curve."""
    free = np.array([n not in fixed for n in range(shape.size)])
    if sigma is not None:
        weights = np.repeat(1.0 / sigma[:, None] ** 2, values.shape[1], axis=1)
        starts = starts_from_grid(shape, times_h, values, weights, lower, upper, fixed)
        return fit_best_start(shape, times_h, values, weights, starts, lower, upper, free)
    # weights from measured activities favour those that came out low: take them from the curve
    floor = 0.01 * values.max(axis=0)
    weights = 1.0 / np.maximum(values, floor) ** 2
    starts = starts_from_grid(shape, times_h, values, weights, lower, upper, fixed)
    fitted = fit_best_start(shape, times_h, values, weights, starts, lower, upper, free)
    for _ in range(REWEIGHTED):
        weights = 1.0 / np.maximum(shape.values(fitted.parameters, times_h), floor) ** 2
        fitted = fit_stack(shape, times_h, values, weights, fitted.parameters, lower, upper, free)
    return fitted


def integrals(shape: CurveModel, fitted: Fitted, free: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Time integrals, their sigmas (both (n,), for weights that are 1/σ²) and the covariances (P, P, n) of n fits."""
    covariance = invert_spd(fitted.normal_matrix, fitted.at_bound | ~free[:, None])
    gradient = shape.integral_gradient(fitted.parameters)
    variance = np.einsum("an,abn,bn->n", gradient, covariance, gradient)
    return shape.integral(fitted.parameters), np.sqrt(np.maximum(variance, 0.0)), covariance


def _described(
    data: TimeActivity, shape: CurveModel, fitted: Fitted, free: NDArray[np.bool_], known: bool, physical_half_life_h: float
) -> CurveFit:
    tia, sigma, covariance = (a[..., 0] for a in integrals(shape, fitted, free))
    count, used = len(data.times_h), int(free.sum())
    dof = count - used
    chi_squared = float(fitted.cost[0])
    notes = [*data.notes]
    scale = 1.0
    if not known:
        scale = chi_squared / dof if dof > 0 else math.nan
        if dof == 0:
            notes.append(
                f"{data.region}: as many time points as free parameters and no noise given: the uncertainty of the "
                f"{shape.name} fit is not known. Give relative_sigma or fix a parameter."
            )
    elif dof > 0 and (chance := float(special.chdtrc(dof, chi_squared))) < SURPRISING:
        scale = chi_squared / dof
        notes.append(
            f"{data.region}: the activities scatter more about the {shape.name} curve than their noise explains (chi-squared "
            f"{chi_squared:.1f} for {dof} degrees of freedom, probability {chance:.1g}); sigmas were enlarged "
            f"by {scale**0.5:.2f}."
        )
    if not fitted.converged[0]:
        notes.append(f"{data.region}: the {shape.name} fit did not converge; its numbers are the best that was found.")
    covariance = covariance * scale
    parameters = unstack_parameters(shape, fitted.parameters[:, 0])
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    named = [
        s if n < shape.phases else s * parameters[name] for n, (name, s) in enumerate(zip(parameters, spread, strict=True))
    ]
    slowest = shape.phases + int(np.argmin(fitted.parameters[shape.phases : 2 * shape.phases, 0]))
    half_life = LN2 / math.exp(fitted.parameters[slowest, 0])
    if fitted.at_bound[slowest, 0] and half_life > 0.999 * physical_half_life_h:
        notes.append(
            f"{data.region}: the {shape.name} curve clears as slowly as the nuclide decays ({physical_half_life_h:.5g} h, the "
            "bound): its tail is that of physical decay."
        )
    notes += [
        f"{data.region}: {name} of the {shape.name} fit ended on its bound ({parameters[name]:.4g})."
        for n, name in enumerate(parameters)
        if fitted.at_bound[n, 0] and n != slowest
    ]
    return CurveFit(
        data,
        shape.name,
        parameters,
        dict(zip(parameters, (float(s) for s in named), strict=True)),
        covariance,
        chi_squared,
        dof,
        known,
        corrected_akaike(chi_squared, count, used, known),
        float(tia),
        float(sigma * math.sqrt(scale)) if scale == scale else math.nan,
        half_life,
        float(spread[slowest] * half_life),
        bool(fitted.converged[0]),
        tuple(notes),
    )


def corrected_akaike(chi_squared: float, count: int, used: int, noise_known: bool) -> float:
    """AICc of a least-squares fit; infinite where the data are too few for the correction.

    With known noise -2 ln L is χ² and K the number of parameters; otherwise it is N ln(χ²/N) and K counts the noise as well.

    References
    ----------
    Burnham & Anderson, Model Selection and Multimodel Inference, 2nd ed., Springer 2002; Glatting et al., Med. Phys. 34
    (2007) 4285-4292.
    """
    parameters = used if noise_known else used + 1
    if count - parameters - 1 <= 0:
        return math.inf
    fit = chi_squared if noise_known else count * math.log(max(chi_squared, 1e-300) / count)
    return fit + 2 * parameters + 2 * parameters * (parameters + 1) / (count - parameters - 1)


def need_points(region: str, shape: CurveModel, points: int, needed: int) -> None:
    """Raise `SynthDoseError` if there are fewer points than free parameters."""
    if points < needed:
        raise SynthDoseError(
            f"{region}: the model '{shape.name}' has {needed} free parameters, the data have {points} time point(s). Use a "
            "model with fewer, fix parameters (for example an effective half-life), or a method for a single time point."
        )


def parameter_index(shape: CurveModel, name: str) -> int:
    """Place of a parameter; raise `SynthDoseError` naming those there are."""
    if name not in shape.parameter_names:
        raise SynthDoseError(f"The model '{shape.name}' has no parameter '{name}'. It has: {', '.join(shape.parameter_names)}.")
    return shape.parameter_names.index(name)


def fixed_parameters(shape: CurveModel, fixed: Mapping[str, float]) -> dict[int, float]:
    """Stacked values of fixed parameters by their place."""
    result = {}
    for name, value in fixed.items():
        index = parameter_index(shape, name)
        if not (math.isfinite(value) and value > 0):
            raise SynthDoseError(f"The fixed {name} has to be above 0; found {value}.")
        result[index] = float(value) if index < shape.phases else math.log(LN2 / value)
    return result


def parameter_bounds(
    shape: CurveModel,
    times_h: Floats,
    physical_half_life_h: float,
    bounds: Mapping[str, tuple[float, float]],
    fixed: Mapping[int, float],
) -> tuple[Floats, Floats]:
    """Lower and upper bounds of the stacked parameters.

    With several phases none is faster than a quarter of the time to the first scan: it would be 1/16 of its size by then.
    """
    if not physical_half_life_h > 0:
        raise SynthDoseError(f"The physical half-life has to be above 0 h; found {physical_half_life_h}.")
    longest = min(physical_half_life_h, LONGEST_HALF_LIFE_H)
    shortest = SHORTEST_HALF_LIFE_H
    if shape.phases > 1:
        shortest = max(shortest, min(times_h[times_h > 0].min(initial=math.inf), longest) / FASTEST_PHASE)
    lower = np.array([0.0] * shape.phases + [math.log(LN2 / longest)] * (shape.size - shape.phases))
    upper = np.array([math.inf] * shape.phases + [math.log(LN2 / shortest)] * shape.phases)
    if shape.uptake:
        upper = np.append(upper, math.log(LN2 / SHORTEST_HALF_LIFE_H))
    for name, (low, high) in bounds.items():
        index = parameter_index(shape, name)
        if not (low < high and (index < shape.phases or low > 0)):
            raise SynthDoseError(f"The bounds of {name} have to be two increasing numbers; found {low} and {high}.")
        if index < shape.phases:
            lower[index], upper[index] = low, high
        else:
            lower[index] = max(lower[index], math.log(LN2 / min(high, LONGEST_HALF_LIFE_H)))
            upper[index] = math.log(LN2 / low)
    for index, value in fixed.items():
        if value < lower[index] - 1e-4 and index >= shape.phases:
            raise SynthDoseError(
                f"The fixed {shape.parameter_names[index]}, {LN2 / math.exp(value):.5g} h, is longer than the physical "
                f"half-life, {longest:.5g} h: activity cannot leave more slowly than it decays."
            )
        lower[index] = upper[index] = value
    return lower, upper


def stack_parameters(shape: CurveModel, parameters: Mapping[str, float]) -> Floats:
    """(P,) of amplitudes and ln rates from named amplitudes and half-lives."""
    values = np.array([parameters[name] for name in shape.parameter_names], dtype=np.float64)
    values[shape.phases :] = np.log(LN2 / values[shape.phases :])
    return values


def unstack_parameters(shape: CurveModel, stacked: Floats) -> dict[str, float]:
    """Named amplitudes and half-lives from (P,) amplitudes and ln rates."""
    values = [float(v) if n < shape.phases else LN2 / math.exp(v) for n, v in enumerate(stacked)]
    return dict(zip(shape.parameter_names, values, strict=True))
