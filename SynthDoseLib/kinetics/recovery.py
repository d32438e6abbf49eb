"""Recovery coefficients by the volume of an object: fitted to phantom inserts, applied to organs and lesions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from ..core import SynthDoseError
from .fit import SURPRISING
from .values import require_positive

Floats = NDArray[np.float64]
LEAST_RECOVERY = 0.05  # below it a correction multiplies noise and spill-in by more than twenty
PARAMETERS = {"logistic": ("alpha_ml", "beta"), "sphere": ("fwhm_mm",), "sphere+scatter": ("fwhm_mm", "retained")}
"""Forms of the curve, and what their parameters are called."""
_BOUNDS = {"alpha_ml": (1e-4, 1e4), "beta": (0.05, 20.0), "fwhm_mm": (0.1, 200.0), "retained": (0.5, 1.05)}
_FWHM = 2 * math.sqrt(2 * math.log(2))  # full width at half maximum of a Gaussian of standard deviation 1


@dataclass(frozen=True, eq=False)
class RecoveryCurve:
    """Recovery coefficient by volume: mean concentration found in an object over the true one, without surroundings.

    "logistic" is R(V) = 1 - 1/(1 + (V/α)^β); "sphere" is that of a sphere blurred by a Gaussian of one width;
    "sphere+scatter" is the same times the share that is not spread far away (uncorrected scatter, septal penetration).

    Attributes
    ----------
    form : str
    parameters : dict of str to float
        By the names in `PARAMETERS`.
    covariance : ndarray, (P, P)
        Of the logarithms of the parameters.
    smallest_ml, largest_ml : float
        Volumes that were measured.
    chi_squared : float
    degrees_of_freedom : int
    notes : tuple of str
    """

    form: str
    parameters: dict[str, float]
    covariance: Floats
    smallest_ml: float
    largest_ml: float
    chi_squared: float
    degrees_of_freedom: int
    notes: tuple[str, ...] = ()

    def at(self, volume_ml: float, volume_sigma_ml: float = 0.0) -> tuple[float, float]:
        """Recovery coefficient of a volume and its standard uncertainty (of the fit and of the volume).

        Raises
        ------
        SynthDoseError
            If the volume is not above 0, or recovers less than 5 %.
        """
        require_positive("volume_ml", volume_ml, "ml")
        logs = np.log(list(self.parameters.values()))
        volume = np.array([volume_ml])
        recovery = float(_recovery(self.form, logs, volume)[0])
        if recovery < LEAST_RECOVERY:
            raise SynthDoseError(
                f"A region of {volume_ml:.3g} ml recovers {recovery:.1%} of its activity; less than {LEAST_RECOVERY:.0%} "
                "is not corrected. Leave it out of the recovery correction."
            )
        step = 1e-4
        moved = step * np.eye(logs.size)
        gradient = np.array(
            [(_recovery(self.form, logs + m, volume) - _recovery(self.form, logs - m, volume))[0] / (2 * step) for m in moved]
        )
        larger, smaller = (float(_recovery(self.form, logs, volume * math.exp(sign * step))[0]) for sign in (1, -1))
        by_volume = (larger - smaller) / (2 * step) * volume_sigma_ml / volume_ml
        return recovery, math.hypot(math.sqrt(max(float(gradient @ self.covariance @ gradient), 0.0)), by_volume)


def _recovery(form: str, logs: Floats, volume_ml: Floats) -> Floats:
    if form == "logistic":
        ratio = np.exp(np.clip(np.exp(logs[1]) * (np.log(volume_ml) - logs[0]), -500, 500))
        return np.asarray(ratio / (1 + ratio))
    retained = math.exp(float(logs[1])) if form == "sphere+scatter" else 1.0
    return retained * blurred_sphere(volume_ml, math.exp(float(logs[0])))


def blurred_sphere(volume_ml: ArrayLike, fwhm_mm: float) -> Floats:
    """Mean over a sphere of its own image when a Gaussian of `fwhm_mm` blurs it.

    It is the overlap of two spheres at a distance s, 1 - 3 s/(4 R) + s³/(16 R³), averaged over the distances by which the
    Gaussian displaces activity.

    Examples
    --------
    >>> print(blurred_sphere([0.5, 26.5, 1e6], 9.0).round(3))
    [0.252 0.756 0.993]
    """
    radius_mm = 10 * np.cbrt(3 * np.asarray(volume_ml, np.float64) / (4 * math.pi))
    x = radius_mm * _FWHM / fwhm_mm
    b = 2 * x
    fade = np.exp(-(b**2) / 2)
    second = math.sqrt(math.pi / 2) * special.erf(b / math.sqrt(2)) - b * fade
    third = 2 - (b**2 + 2) * fade
    fifth = 8 - (b**4 + 4 * b**2 + 8) * fade
    return np.asarray(math.sqrt(2 / math.pi) * (second - 0.75 * third / x + fifth / (16 * x**3)))


def fit_recovery(
    volume_ml: ArrayLike, recovery: ArrayLike, sigma: ArrayLike | None = None, *, form: str = "logistic"
) -> RecoveryCurve:
    """Fit recovery coefficients of phantom inserts.

    Parameters
    ----------
    volume_ml, recovery : array_like, (m,)
        Of spheres or other inserts, 3 or more; measured over true concentration.
    sigma : array_like, (m,), optional
        Standard deviations of the coefficients; taken from the scatter about the curve if not given.
    form : {"logistic", "sphere", "sphere+scatter"}

    Raises
    ------
    SynthDoseError
        If there are too few, a number makes no sense, or the curve cannot be fitted.

    References
    ----------
    Gear et al., Eur. J. Nucl. Med. Mol. Imaging 45 (2018) 2456-2474 (the logistic function of volume).
    """
    if form not in PARAMETERS:
        raise SynthDoseError(f"There is no recovery curve '{form}'. Forms: {', '.join(PARAMETERS)}.")
    volumes, values = np.array(volume_ml, np.float64).ravel(), np.array(recovery, np.float64).ravel()
    sigmas = np.ones(values.size) if sigma is None else np.array(sigma, np.float64).ravel()
    if not (volumes.size == values.size == sigmas.size) or volumes.size < 3:
        raise SynthDoseError(
            f"A recovery curve needs 3 or more volumes, each with its coefficient; found {volumes.size} volumes, {values.size} "
            "coefficients."
        )
    if not (np.isfinite([*volumes, *values, *sigmas]).all() and min(volumes.min(), values.min(), sigmas.min()) > 0):
        raise SynthDoseError("Volumes, recovery coefficients and their sigmas have to be above 0.")
    if values.max() > 1.5:
        raise SynthDoseError(
            f"Recovery coefficients are about 1 at most; found {values.max():.3g}. Give fractions, not per cent."
        )
    half_ml = float(np.exp(np.interp(0.5, np.sort(values), np.log(volumes)[np.argsort(values)])))
    names = PARAMETERS[form]
    low, high = (np.log([_BOUNDS[name][side] for name in names]) for side in (0, 1))
    guess = {"alpha_ml": half_ml, "beta": 1.0, "fwhm_mm": 9.0 * np.cbrt(half_ml / 2.6), "retained": 0.98}
    found = optimize.least_squares(
        lambda logs: (_recovery(form, logs, volumes) - values) / sigmas,
        np.clip(np.log([guess[name] for name in names]), low + 0.01, high - 0.01),
        bounds=(low, high),
        x_scale="jac",
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    left, chi_squared = values.size - len(names), float(2 * found.cost)
    normal = found.jac.T @ found.jac
    at_bound = bool(((found.x < low + 1e-3) | (found.x > high - 1e-3)).any())
    if not found.success or at_bound or np.linalg.cond(normal) > 1e10 or values.min() > 0.97:
        raise SynthDoseError(
            "The recovery coefficients do not determine a curve: they have to span small and large volumes (recovered by "
            "less and by more than about 0.6)."
        )
    scale, notes = 1.0, []
    if sigma is None:
        scale = chi_squared / left
    elif float(special.chdtrc(left, chi_squared)) < SURPRISING:
        scale = chi_squared / left
        notes.append(
            f"The recovery coefficients scatter about their curve by more than their sigmas (chi-squared {chi_squared:.1f} "
            f"for {left} degrees of freedom): its uncertainty was enlarged by {scale**0.5:.2f}."
        )
    return RecoveryCurve(
        form,
        {name: math.exp(float(x)) for name, x in zip(names, found.x, strict=True)},
        np.linalg.inv(normal) * scale,
        float(volumes.min()),
        float(volumes.max()),
        chi_squared,
        left,
        tuple(notes),
    )


def recovery_note(curve: RecoveryCurve, region: str, volume_ml: float) -> str:
    """What was done to a region, and whether its volume was outside those measured."""
    recovery, sigma = curve.at(volume_ml)
    text = f"{region} ({volume_ml:.3g} ml): activity divided by its recovery coefficient, {recovery:.3f} ± {sigma:.3f}"
    if volume_ml < curve.smallest_ml or volume_ml > curve.largest_ml:
        text += f", extrapolated from volumes of {curve.smallest_ml:.3g} to {curve.largest_ml:.3g} ml"
    return f"{text}."
