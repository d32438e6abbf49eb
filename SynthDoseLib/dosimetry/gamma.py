"""The gamma index of two dose maps, by pymedphys."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, MissingPackageError, SynthDoseError

MOST_GAMMA = 2.0  # the search for agreement ends here: what fails has failed
MOST_POINTS = 20_000
_INTERPOLATION = 5  # steps that the distance is divided into; voxels of nuclear medicine are no smaller than it
_MEMORY_BYTES = 2**29


@dataclass(frozen=True, eq=False)
class GammaIndex:
    """How well two dose maps agree.

    Attributes
    ----------
    values : ndarray of float32, (nk, nj, ni)
        nan below the cut-off and where it was not computed; at most MOST_GAMMA.
    pass_rate : float
        Share of the points with gamma of 1 or less.
    points : int
        That were judged.
    dose_percent, distance_mm, cutoff_percent : float
    """

    values: NDArray[np.float32]
    pass_rate: float
    points: int
    dose_percent: float
    distance_mm: float
    cutoff_percent: float


def gamma_index(
    reference: DoseMap,
    evaluated: DoseMap,
    *,
    dose_percent: float = 3.0,
    distance_mm: float = 3.0,
    cutoff_percent: float = 10.0,
    local: bool = False,
    points: int = MOST_POINTS,
    gas: NDArray[np.bool_] | None = None,
) -> GammaIndex:
    """Gamma index of a dose against a reference on the same grid.

    Parameters
    ----------
    reference, evaluated : DoseMap
        The largest reference dose is what the percentages are of (the 99.9th percentile of doses above 0, so that one noisy
        voxel does not decide).
    dose_percent, distance_mm : float
        Criteria.
    cutoff_percent : float
        Reference voxels below are not judged.
    local : bool
        Whether `dose_percent` is of the local reference dose.
    points : int
        Of more reference voxels than that, every n-th is judged.
    gas : ndarray of bool, (nk, nj, ni), optional
        Voxels that are not judged and do not count for the largest dose, because their dose is none to tissue.

    Returns
    -------
    GammaIndex

    Raises
    ------
    SynthDoseError
        If the grids differ, a criterion is not positive, or there is no dose.
    MissingPackageError
        Without pymedphys.

    References
    ----------
    Low et al., Med. Phys. 25 (1998) 656; Biggs et al., J. Open Source Softw. 7 (2022) 4555 (pymedphys).
    """
    if not reference.grid.matches(evaluated.grid):
        raise SynthDoseError("The gamma index compares doses on one grid; these have two. Resample one of them first.")
    if not min(dose_percent, distance_mm) > 0 or not 0 <= cutoff_percent < 100 or points < 1:
        raise SynthDoseError("The gamma index needs a dose difference and distance above 0, and a cut-off of 0 to below 100 %.")
    dose = reference.dose_Gy.astype(np.float64) if gas is None else np.where(gas, 0.0, reference.dose_Gy)
    if not (dose > 0).any():
        raise SynthDoseError("The reference has no dose anywhere: there is nothing to compare with.")
    try:
        from pymedphys import gamma
    except ImportError as error:
        raise MissingPackageError("pymedphys", "The gamma index") from error
    highest = float(np.quantile(dose[dose > 0], 0.999))
    # every n-th voxel above the cut-off keeps its dose, the others fall below it and are passed over
    judged = np.flatnonzero(dose.ravel() >= cutoff_percent / 100 * highest)
    chosen = judged[:: max(1, -(-judged.size // points))]
    wanted = np.full(dose.size, -1.0)
    wanted[chosen] = dose.ravel()[chosen] / highest
    axes = tuple(np.arange(n) * s for n, s in zip(dose.shape, reference.grid.spacing_mm[::-1], strict=True))
    level = logging.getLogger().level
    found = gamma(
        axes, wanted.reshape(dose.shape), axes, evaluated.dose_Gy.astype(np.float64) / highest, dose_percent, distance_mm,
        lower_percent_dose_cutoff=cutoff_percent * (1 - 1e-9), interp_fraction=_INTERPOLATION, max_gamma=MOST_GAMMA,
        local_gamma=local, global_normalisation=1.0, ram_available=_MEMORY_BYTES,
    )  # fmt: skip
    logging.getLogger().setLevel(level)
    values = np.full(dose.size, np.nan, np.float32)
    values[chosen] = np.asarray(found).ravel()[chosen]
    known = values[chosen]
    passed = float(np.mean(known <= 1.0))
    return GammaIndex(values.reshape(dose.shape), passed, int(chosen.size), dose_percent, distance_mm, cutoff_percent)
