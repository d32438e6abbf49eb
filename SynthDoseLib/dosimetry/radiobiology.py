"""Biologically effective dose for dose rates that fade: protraction, BED, EQD2, and alpha particles with their RBE."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core import DoseMap, SynthDoseError
from .tables import dosimetry_rows, number

LN2 = math.log(2.0)


@dataclass(frozen=True)
class Radiobiology:
    """Linear-quadratic parameters of an organ.

    Attributes
    ----------
    organ : str
    alpha_beta_Gy : float
    repair_half_life_h : float
        nan if not known.
    reference : str
    alpha_beta_sigma_Gy, repair_half_life_sigma_h : float
        Standard uncertainties; nan if not stated.
    """

    organ: str
    alpha_beta_Gy: float
    repair_half_life_h: float
    reference: str = ""
    alpha_beta_sigma_Gy: float = math.nan
    repair_half_life_sigma_h: float = math.nan

    @property
    def states_uncertainty(self) -> bool:
        """Whether the uncertainty of one of them is known."""
        return math.isfinite(self.alpha_beta_sigma_Gy) or math.isfinite(self.repair_half_life_sigma_h)


@dataclass(frozen=True)
class DoseRate:
    """A dose rate that is a sum of exponentials of time after administration.

    Attributes
    ----------
    amplitudes_Gy_h : tuple of float
        A negative one describes uptake; the sum has to be 0 or more at all times.
    half_lives_h : tuple of float
        Effective, one per amplitude.

    Raises
    ------
    SynthDoseError
        If there is none, a half-life is not positive, or the total dose is not above 0.

    Examples
    --------
    >>> rate = DoseRate.fading(20.0, effective_half_life_h=50.0)
    >>> round(rate.dose_Gy, 6), round(rate.protraction(2.8), 4)
    (20.0, 0.053)
    """

    amplitudes_Gy_h: tuple[float, ...]
    half_lives_h: tuple[float, ...]

    def __post_init__(self) -> None:
        amplitudes = tuple(float(a) for a in self.amplitudes_Gy_h)
        halves = tuple(float(t) for t in self.half_lives_h)
        object.__setattr__(self, "amplitudes_Gy_h", amplitudes)
        object.__setattr__(self, "half_lives_h", halves)
        if not amplitudes or len(amplitudes) != len(halves):
            raise SynthDoseError(
                f"A dose rate needs as many amplitudes as half-lives; found {len(amplitudes)} and {len(halves)}."
            )
        if not (np.isfinite(amplitudes).all() and np.isfinite(halves).all() and min(halves) > 0):
            raise SynthDoseError(f"Amplitudes have to be finite and half-lives positive; found {amplitudes} Gy/h, {halves} h.")
        if self.dose_Gy <= 0 or sum(amplitudes) < -1e-9 * max(abs(a) for a in amplitudes):
            raise SynthDoseError(
                f"The dose rate {amplitudes} Gy/h with half-lives {halves} h is negative, or its dose is not above 0."
            )

    @classmethod
    def fading(cls, dose_Gy: float, effective_half_life_h: float, uptake_half_life_h: float | None = None) -> DoseRate:
        """Dose rate of a given total dose that fades with one half-life, after an uptake if its half-life is given."""
        if not dose_Gy > 0:
            raise SynthDoseError(f"The dose has to be above 0; found {dose_Gy} Gy.")
        if uptake_half_life_h is None:
            return cls((dose_Gy * LN2 / effective_half_life_h,), (effective_half_life_h,))
        if not 0 < uptake_half_life_h < effective_half_life_h:
            raise SynthDoseError(
                f"Uptake has to be faster than clearance; found {uptake_half_life_h} h against {effective_half_life_h} h."
            )
        amplitude = dose_Gy * LN2 / (effective_half_life_h - uptake_half_life_h)
        return cls((amplitude, -amplitude), (effective_half_life_h, uptake_half_life_h))

    @property
    def dose_Gy(self) -> float:
        """Dose from 0 to infinity."""
        return sum(a * t for a, t in zip(self.amplitudes_Gy_h, self.half_lives_h, strict=True)) / LN2

    def at(self, time_h: ArrayLike) -> NDArray[np.float64]:
        """Dose rate, Gy/h."""
        time = np.asarray(time_h, dtype=np.float64)
        pairs = zip(self.amplitudes_Gy_h, self.half_lives_h, strict=True)
        return np.asarray(sum(a * np.exp(-LN2 * time / t) for a, t in pairs))

    def protraction(self, repair_half_life_h: float) -> float:
        """Lea-Catcheside factor G for repair with one half-life.

        ``G = 2 / D^2 sum_ij a_i a_j / ((l_i + l_j) (l_i + mu))``: for one exponential ``T_rep / (T_rep + T_eff)``, from 1
        (all at once) to 0 (slow against repair).

        References
        ----------
        R.G. Dale, Br. J. Radiol. 58 (1985) 515; D.E. Lea, D.G. Catcheside, J. Genet. 44 (1942) 216.
        """
        mu = _repair_rate(repair_half_life_h)
        a = np.array(self.amplitudes_Gy_h)
        rate = LN2 / np.array(self.half_lives_h)
        double = (a[:, None] * a[None, :] / ((rate[:, None] + rate[None, :]) * (rate[:, None] + mu))).sum()
        return float(2 * double / self.dose_Gy**2)


def lea_catcheside(
    times_h: ArrayLike, rates_Gy_h: ArrayLike, repair_half_life_h: float, *, tail_half_life_h: float | None = None
) -> float:
    """Lea-Catcheside factor G of any dose rate, by integration of the double integral.

    ``G = 2 / D^2 int R(t) int_0^t R(w) exp(-mu (t - w)) dw dt``. Between the given times the dose rate is a straight line,
    for which the inner integral is exact; the outer one is by Gauss-Legendre.

    Parameters
    ----------
    times_h, rates_Gy_h : array_like, (n,)
        Increasing times, and dose rates, 0 or more.
    repair_half_life_h : float
    tail_half_life_h : float, optional
        The dose rate fades with it after the last time; 0 from there on if not given.

    Raises
    ------
    SynthDoseError
        If times do not increase, rates are negative, or there is no dose.

    Examples
    --------
    >>> round(lea_catcheside([0.0, 1.0], [5.0, 5.0], 1e9), 6)  # no repair
    1.0
    """
    times = np.asarray(times_h, dtype=np.float64).ravel()
    rates = np.asarray(rates_Gy_h, dtype=np.float64).ravel()
    mu = _repair_rate(repair_half_life_h)
    if times.size != rates.size or times.size < 2 or not (np.diff(times) > 0).all():
        raise SynthDoseError("Dose rates are needed at two or more increasing times, one rate per time.")
    if not np.isfinite(rates).all() or rates.min() < 0 or rates.max() <= 0:
        raise SynthDoseError("Dose rates have to be finite and not negative, and not all 0.")
    # no step longer than a repair time, so that few points per step are enough
    pieces = np.maximum(1, np.ceil(np.diff(times) * mu)).astype(int).clip(max=100_000)
    fine = np.concatenate([np.linspace(t, u, n, endpoint=False) for t, u, n in zip(times, times[1:], pieces, strict=False)])
    fine = np.append(fine, times[-1])
    rate = np.interp(fine, times, rates)
    points, weights = np.polynomial.legendre.leggauss(8)
    width = np.diff(fine)
    slope = np.diff(rate) / width
    ends = _unrepaired_gain(width, rate[:-1], slope, mu)
    left = np.zeros(fine.size)  # damage that can still interact, at the start of every step
    for n, decay in enumerate(np.exp(-mu * width)):
        left[n + 1] = left[n] * decay + ends[n]
    inside = width[:, None] * (points + 1) / 2
    damage = left[:-1, None] * np.exp(-mu * inside) + _unrepaired_gain(inside, rate[:-1, None], slope[:, None], mu)
    double = float((((rate[:-1, None] + slope[:, None] * inside) * damage) @ (weights / 2)) @ width)
    dose = float(np.trapezoid(rate, fine))
    if tail_half_life_h is not None:
        fade = LN2 / tail_half_life_h
        double += rate[-1] * left[-1] / (fade + mu) + rate[-1] ** 2 / (2 * fade * (fade + mu))
        dose += rate[-1] / fade
    return 2 * double / dose**2


def bed(dose_Gy: ArrayLike, alpha_beta_Gy: float, protraction: ArrayLike) -> NDArray[np.float64]:
    """Biologically effective dose ``D (1 + G D / (alpha/beta))``, Gy, of a dose with Lea-Catcheside factor `protraction`.

    Parameters
    ----------
    dose_Gy : array_like
    alpha_beta_Gy : float
    protraction : array_like
        G, 0 to 1; broadcast against the dose.

    Examples
    --------
    >>> float(bed(20.0, 2.0, 0.1))
    40.0
    """
    factor = np.asarray(protraction, dtype=np.float64)
    if not (alpha_beta_Gy > 0 and np.isfinite(factor).all() and factor.min() >= 0 and factor.max() <= 1 + 1e-9):
        raise SynthDoseError(f"alpha/beta has to be above 0 and G between 0 and 1; found {alpha_beta_Gy} Gy and {factor}.")
    dose = np.asarray(dose_Gy, dtype=np.float64)
    return np.asarray(dose * (1 + factor * dose / alpha_beta_Gy))


def bed_sigma(
    dose_Gy: ArrayLike,
    sigma_Gy: ArrayLike,
    alpha_beta_Gy: float,
    protraction: ArrayLike,
    *,
    alpha_beta_sigma_Gy: float = 0.0,
    protraction_sigma: float = 0.0,
) -> NDArray[np.float64]:
    """Standard uncertainty of `bed`, Gy, from that of the dose and, if given, those of alpha/beta and G, to first order.

    The parts are ``(1 + 2 G D / (alpha/beta)) sigma``, ``G D^2 / (alpha/beta)^2`` times that of alpha/beta, and
    ``D^2 / (alpha/beta)`` times that of G.
    """
    dose, factor = np.asarray(dose_Gy, dtype=np.float64), np.asarray(protraction, dtype=np.float64)
    by_dose = (1 + 2 * factor * dose / alpha_beta_Gy) * np.asarray(sigma_Gy, dtype=np.float64)
    by_ratio = factor * (dose / alpha_beta_Gy) ** 2 * alpha_beta_sigma_Gy
    by_repair = dose**2 / alpha_beta_Gy * protraction_sigma
    return np.asarray(np.sqrt(by_dose**2 + by_ratio**2 + by_repair**2))


def eqd2_sigma(
    dose_Gy: ArrayLike,
    sigma_Gy: ArrayLike,
    alpha_beta_Gy: float,
    protraction: ArrayLike,
    *,
    alpha_beta_sigma_Gy: float = 0.0,
    protraction_sigma: float = 0.0,
    fraction_Gy: float = 2.0,
) -> NDArray[np.float64]:
    """Standard uncertainty of `eqd2`, Gy: as `bed_sigma`, with alpha/beta in the BED and in its division.

    The part of alpha/beta is ``D (d - G D) / (alpha/beta + d)^2`` times its own, with d the fraction: less than in the BED.
    """
    dose, factor = np.asarray(dose_Gy, dtype=np.float64), np.asarray(protraction, dtype=np.float64)
    of_bed = bed_sigma(dose, sigma_Gy, alpha_beta_Gy, factor, protraction_sigma=protraction_sigma)
    by_ratio = dose * (fraction_Gy - factor * dose) / (alpha_beta_Gy + fraction_Gy) ** 2 * alpha_beta_sigma_Gy
    return np.asarray(np.hypot(of_bed / (1 + fraction_Gy / alpha_beta_Gy), by_ratio))


def eqd2(bed_Gy: ArrayLike, alpha_beta_Gy: float, fraction_Gy: float = 2.0) -> NDArray[np.float64]:
    """Dose in fractions of 2 Gy with the same effect: ``BED / (1 + 2 / (alpha/beta))``, Gy.

    Examples
    --------
    >>> float(eqd2(40.0, 2.0))
    20.0
    """
    if not (alpha_beta_Gy > 0 and fraction_Gy > 0):
        raise SynthDoseError(f"alpha/beta and the fraction have to be above 0; found {alpha_beta_Gy} and {fraction_Gy} Gy.")
    return np.asarray(np.asarray(bed_Gy, dtype=np.float64) / (1 + fraction_Gy / alpha_beta_Gy))


def bed_map(dose: DoseMap, alpha_beta_Gy: float, protraction: ArrayLike) -> DoseMap:
    """BED per voxel with its standard error; `protraction` is one G or one per voxel."""
    if dose.per:
        raise SynthDoseError(f"BED needs an absolute dose; this one is per {dose.per}.")
    value = bed(dose.dose_Gy, alpha_beta_Gy, protraction)
    sigma = bed_sigma(dose.dose_Gy, dose.sigma_Gy, alpha_beta_Gy, protraction)
    return DoseMap(dose.grid, value.astype(np.float32), sigma.astype(np.float32))


def bed_of_cycles(rates: Sequence[DoseRate], parameters: Radiobiology) -> float:
    """BED of several cycles, Gy: the sum, for cycles further apart than repair takes.

    Raises
    ------
    SynthDoseError
        If the repair half-life of the organ is not known.
    """
    require_repair(parameters)
    doses = [rate.dose_Gy for rate in rates]
    factors = [rate.protraction(parameters.repair_half_life_h) for rate in rates]
    return float(sum(bed(d, parameters.alpha_beta_Gy, g) for d, g in zip(doses, factors, strict=True)))


def require_repair(parameters: Radiobiology) -> None:
    """Refuse an organ without a repair half-life."""
    if not math.isfinite(parameters.repair_half_life_h):
        raise SynthDoseError(
            f"No repair half-life is known for '{parameters.organ}'. Add one, with its source, to a table of your own "
            "(organ,alpha_beta_Gy,repair_half_life_h,reference)."
        )


def radiobiology_table(path: str | os.PathLike[str] | None = None) -> dict[str, Radiobiology]:
    """Parameters per organ or group from the table that ships, or from a user's with the same columns.

    Two more columns, alpha_beta_sigma_Gy and repair_half_life_sigma_h, may state standard uncertainties.

    Examples
    --------
    >>> radiobiology_table()["kidneys"].alpha_beta_Gy
    2.6
    """
    name = "radiobiology"
    result = {}
    for row in dosimetry_rows(name, ("organ", "alpha_beta_Gy", "repair_half_life_h", "reference"), path):
        repair, ratio_sigma, repair_sigma = (
            number(row, column, name) if row.get(column) else math.nan
            for column in ("repair_half_life_h", "alpha_beta_sigma_Gy", "repair_half_life_sigma_h")
        )
        ratio = number(row, "alpha_beta_Gy", name)
        entry = Radiobiology(row["organ"], ratio, repair, row["reference"], ratio_sigma, repair_sigma)
        if not ratio > 0 or repair <= 0:
            raise SynthDoseError(f"Table {name}, row '{entry.organ}': alpha/beta and the repair half-life have to be above 0.")
        if ratio_sigma < 0 or repair_sigma < 0:
            raise SynthDoseError(f"Table {name}, row '{entry.organ}': standard uncertainties have to be 0 or more.")
        result[entry.organ] = entry
    return result


def rbe_weighted_dose(components_Gy: Mapping[str, ArrayLike], rbe: Mapping[str, float]) -> NDArray[np.float64]:
    """RBE-weighted dose, Gy(RBE): each component's absorbed dose times its relative biological effectiveness.

    Parameters
    ----------
    components_Gy : mapping of component ("photon", "electron", "positron", "alpha") to absorbed dose, Gy
        Numbers or arrays of one shape.
    rbe : mapping of component to RBE
        Components that are not named count with 1, except alpha particles, for which it has to be given.

    Returns
    -------
    ndarray of float64
        Gy(RBE), not Gy: never to be mixed with absorbed doses.

    Raises
    ------
    SynthDoseError
        If an RBE is missing, below 0, or names no component.

    Examples
    --------
    >>> float(rbe_weighted_dose({"alpha": 0.5, "electron": 1.0}, {"alpha": 5.0}))
    3.5
    """
    unknown = sorted(set(rbe) - set(components_Gy))
    if unknown:
        raise SynthDoseError(f"An RBE is given for '{unknown[0]}', which is no component. Found: {', '.join(components_Gy)}.")
    if "alpha" in components_Gy and "alpha" not in rbe:
        raise SynthDoseError("Give the RBE of alpha particles for the effect in question (5 is usual for cell killing).")
    if any(not (math.isfinite(value) and value > 0) for value in rbe.values()):
        raise SynthDoseError(f"An RBE has to be above 0; found {dict(rbe)}.")
    parts = [rbe.get(name, 1.0) * np.asarray(dose, dtype=np.float64) for name, dose in components_Gy.items()]
    if not parts:
        raise SynthDoseError("There is no component to weight.")
    return np.asarray(sum(parts[1:], parts[0]))


def _repair_rate(repair_half_life_h: float) -> float:
    if not (math.isfinite(repair_half_life_h) and repair_half_life_h > 0):
        raise SynthDoseError(f"The repair half-life has to be above 0; found {repair_half_life_h} h.")
    return LN2 / repair_half_life_h


def _unrepaired_gain(
    width: NDArray[np.float64], rate: NDArray[np.float64], slope: NDArray[np.float64], mu: float
) -> NDArray[np.float64]:
    """Inner integral over a stretch `width` in which the rate is a straight line."""
    x = mu * width
    small = x < 1e-4
    safe = np.where(small, 1.0, x)
    first = np.where(small, width * (1 - x / 2), -np.expm1(-x) / mu)
    second = np.where(small, width**2 / 2 * (1 - x / 3), (safe + np.expm1(-safe)) / mu**2)
    return rate * first + slope * second
