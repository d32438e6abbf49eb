"""Time-activity curves: sums of exponentials, with or without an uptake phase, and their integrals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import SynthDoseError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CurveModel:
    """A(t) = Σᵢ aᵢ (exp(-λᵢ t) - u exp(-λᵤ t)), with u = 1 for a model with uptake (A is 0 at administration) and 0 otherwise.

    Parameters are stacked as (a₁ … a_C, ln λ₁ … ln λ_C[, ln λᵤ]); all rates are effective ones (decay included), per hour.

    Attributes
    ----------
    name : str
    phases : int
        Number of clearing exponentials C.
    uptake : bool

    Examples
    --------
    >>> model = curve_model("mono")
    >>> parameters = np.array([[100.0], [np.log(np.log(2) / 50)]])  # 100 MBq that halve in 50 h
    >>> print(model.values(parameters, np.array([0.0, 50.0, 100.0]))[:, 0], model.integral(parameters).round(1))
    [100.  50.  25.] [7213.5]
    """

    name: str
    phases: int
    uptake: bool

    @property
    def size(self) -> int:
        """Number of parameters."""
        return 2 * self.phases + self.uptake

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Amplitudes in the unit of the activity, half-lives in hours: what the stacked parameters mean to a reader."""
        amplitudes = tuple(f"amplitude_{n}" for n in range(1, self.phases + 1))
        half_lives = tuple(f"half_life_{n}_h" for n in range(1, self.phases + 1))
        return (*amplitudes, *half_lives, *(("uptake_half_life_h",) if self.uptake else ()))

    def basis(self, parameters: Floats, times_h: Floats) -> tuple[Floats, Floats | None]:
        """Return exp(-λᵢ t), (C, m, n), and exp(-λᵤ t), (m, n) or None."""
        rates = np.exp(parameters[self.phases :])
        decays = np.exp(-rates[: self.phases, None, :] * times_h[None, :, None])
        return decays, np.exp(-rates[-1] * times_h[:, None]) if self.uptake else None

    def values(self, parameters: Floats, times_h: Floats) -> Floats:
        """Activity at `times_h` (m,) of n curves with `parameters` (P, n): (m, n)."""
        decays, rise = self.basis(parameters, times_h)
        amplitudes = parameters[: self.phases]
        total: Floats = (amplitudes[:, None, :] * decays).sum(axis=0)
        return total if rise is None else total - amplitudes.sum(axis=0) * rise

    def values_and_jacobian(self, parameters: Floats, times_h: Floats) -> tuple[Floats, Floats]:
        """Activities (m, n) and their derivatives by every parameter (P, m, n)."""
        decays, rise = self.basis(parameters, times_h)
        amplitudes, rates = parameters[: self.phases], np.exp(parameters[self.phases :])
        jacobian = np.empty((self.size, len(times_h), parameters.shape[1]))
        jacobian[: self.phases] = decays if rise is None else decays - rise
        slopes = jacobian[self.phases : 2 * self.phases]
        np.multiply(decays, -(amplitudes * rates[: self.phases])[:, None, :], out=slopes)
        slopes *= times_h[None, :, None]
        if rise is not None:
            jacobian[-1] = amplitudes.sum(axis=0) * rates[-1] * times_h[:, None] * rise
        return (amplitudes[:, None, :] * jacobian[: self.phases]).sum(axis=0), jacobian

    def integral(self, parameters: Floats) -> Floats:
        """Time integral from administration to infinity, activity times h, (n,)."""
        amplitudes, rates = parameters[: self.phases], np.exp(parameters[self.phases :])
        total: Floats = (amplitudes / rates[: self.phases]).sum(axis=0)
        return total - amplitudes.sum(axis=0) / rates[-1] if self.uptake else total

    def integral_gradient(self, parameters: Floats) -> Floats:
        """Derivatives of `integral` by every parameter, (P, n)."""
        amplitudes, rates = parameters[: self.phases], np.exp(parameters[self.phases :])
        gradient = np.empty_like(parameters, dtype=np.float64)
        gradient[: self.phases] = 1 / rates[: self.phases]
        gradient[self.phases : 2 * self.phases] = -amplitudes / rates[: self.phases]
        if self.uptake:
            gradient[: self.phases] -= 1 / rates[-1]
            gradient[-1] = amplitudes.sum(axis=0) / rates[-1]
        return gradient


MODELS = {
    model.name: model
    for model in (
        CurveModel("mono", 1, uptake=False),
        CurveModel("mono-uptake", 1, uptake=True),
        CurveModel("bi", 2, uptake=False),
        CurveModel("bi-uptake", 2, uptake=True),
        CurveModel("tri", 3, uptake=False),
    )
}
"""Models by name: clearing exponentials, with "-uptake" the rise from 0 at administration."""


def curve_model(name: str) -> CurveModel:
    """Return the model called `name`; raise `SynthDoseError` naming those there are."""
    if name not in MODELS:
        raise SynthDoseError(f"There is no time-activity model '{name}'. Models: {', '.join(MODELS)}.")
    return MODELS[name]
