"""Uncertainty budget of organ doses: what each step contributes, and all of them together.

The dose of an organ is taken apart as

    D = Q [C(V)/R(V) · τ/m(V) · S + B],

with calibration Q, activity C found inside the drawn boundary, recovery R, volume V, time integral τ, mass m and energy S per
decay; the organ's own activity gives the share f of the dose, B comes from elsewhere and does not know of its boundary. The
boundary moves C, R and m at once, so that volume is one component with what is left after they compensate,

    f (γC - γR - γm) u(V)/V,    γX = d ln X/d ln V,

and not three. Components are independent of each other and add in quadrature.

References
----------
Gear et al., Eur. J. Nucl. Med. Mol. Imaging 45 (2018) 2456-2474.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..core import SynthDoseError, atomic_path

COMPONENTS = ("calibration", "recovery", "volume", "fit", "registration", "Monte Carlo")
NOT_STATED, STATED = "not stated", "stated"
TOTAL = "total"
FLAT = 1e-9  # a slope of the blurred region that has no direction
NEGLIGIBLE_SHARE = 0.01  # a part of the dose that small needs no uncertainty of its own


@dataclass(frozen=True)
class Contribution:
    """One component of a budget.

    Attributes
    ----------
    component : str
        One of `COMPONENTS`.
    relative_sigma : float or None
        Standard uncertainty of the dose by this component alone, as a fraction; None if it is not stated.
    basis : str
        Where the number comes from, or why there is none.
    """

    component: str
    relative_sigma: float | None
    basis: str = ""

    def __post_init__(self) -> None:
        if self.component not in COMPONENTS:
            raise SynthDoseError(f"A budget has no component '{self.component}'. Components: {', '.join(COMPONENTS)}.")
        value = self.relative_sigma
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise SynthDoseError(f"The relative sigma of {self.component} has to be 0 or more, or None; found {value}.")


@dataclass(frozen=True)
class OrganBudget:
    """All components of one organ; those that are not stated are not in the total, which is then a lower bound.

    Attributes
    ----------
    organ : str
    mean_dose_Gy : float
    parts : tuple of Contribution
    own_share : float
        Share of the dose that the organ's own activity gives.
    """

    organ: str
    mean_dose_Gy: float
    parts: tuple[Contribution, ...]
    own_share: float = 1.0

    @property
    def relative_sigma(self) -> float:
        """Of all stated components together, as a fraction; nan if none is stated."""
        stated = [part.relative_sigma for part in self.parts if part.relative_sigma is not None]
        return math.sqrt(sum(value**2 for value in stated)) if stated else math.nan

    @property
    def total_sigma_Gy(self) -> float:
        """Standard uncertainty of the mean dose by all stated components."""
        return self.relative_sigma * self.mean_dose_Gy

    @property
    def largest(self) -> str:
        """Name of the largest stated component, "" if none is stated."""
        stated = [(part.relative_sigma, part.component) for part in self.parts if part.relative_sigma is not None]
        return max(stated)[1] if stated else ""

    @property
    def not_stated(self) -> tuple[str, ...]:
        """Components that nothing is known about."""
        return tuple(part.component for part in self.parts if part.relative_sigma is None)


@dataclass(frozen=True)
class BoundaryChange:
    """What moving the boundary of a region outwards adds to it, and inwards takes away: relative, of first order.

    Attributes
    ----------
    volume, activity, mass : float
    """

    volume: float
    activity: float
    mass: float


def boundary_layer(mask: ArrayLike) -> NDArray[np.float64]:
    """Area of the boundary of a region by voxel, in faces of a voxel, half of it inside and half outside.

    Every face between inside and outside counts by the cosine between it and the boundary, whose direction is that of the
    gradient of the region blurred by one voxel: a slanting plane of steps has the area of the plane.

    Parameters
    ----------
    mask : array_like of bool, (nk, nj, ni)
        With a margin where the image goes on; the edge of the array is no boundary.
    """
    inside = np.asarray(mask, bool)
    blurred = inside.astype(np.float64)
    slopes = [
        ndimage.gaussian_filter(blurred, 1.0, order=[int(n == axis) for n in range(3)], mode="nearest") for axis in range(3)
    ]
    layer = np.zeros(inside.shape)
    for axis in range(3):
        low, high = (tuple(cut if n == axis else slice(None) for n in range(3)) for cut in (slice(-1), slice(1, None)))
        faces = inside[low] != inside[high]
        across = [slope[low][faces] + slope[high][faces] for slope in slopes]
        length = np.sqrt(sum(component**2 for component in across))
        cosine = np.divide(np.abs(across[axis]), length, out=np.ones_like(length), where=length > FLAT)
        layer[low][faces] += cosine / 2
        layer[high][faces] += cosine / 2
    return layer


def boundary_change(mask: ArrayLike, activity: ArrayLike, density: ArrayLike, shift_voxels: float = 0.5) -> BoundaryChange:
    """Dilate and erode a region: what its volume, the activity in it and its mass gain or lose, to first order of the shift.

    Parameters
    ----------
    mask : array_like of bool, (nk, nj, ni)
        One region, see `boundary_layer`.
    activity, density : array_like, (nk, nj, ni)
        Per voxel; activity as measured, before recovery is corrected.
    shift_voxels : float
        How far; 0.5 is half a voxel along each axis.

    Raises
    ------
    SynthDoseError
        If the region is empty or the shift is not above 0.

    Examples
    --------
    >>> mask = np.zeros((1, 1, 12), bool)
    >>> mask[..., 2:10] = True
    >>> boundary_change(mask, mask, np.ones(mask.shape))  # 8 voxels become 9 or 7; no activity lies beyond
    BoundaryChange(volume=0.125, activity=0.0625, mass=0.125)
    """
    inside = np.asarray(mask, bool)
    if not inside.any() or not (math.isfinite(shift_voxels) and shift_voxels > 0):
        raise SynthDoseError(f"A boundary needs a region with voxels and a shift above 0; found {shift_voxels} voxels.")
    layer = shift_voxels * boundary_layer(inside)

    def change(values: NDArray[np.float64]) -> float:
        total = float(values[inside].sum())
        return float((layer * values).sum()) / total if total > 0 else 0.0

    numbers = [np.asarray(values, np.float64) for values in (activity, density)]
    return BoundaryChange(change(np.ones(inside.shape)), *(change(values) for values in numbers))


def displacement_sigma(mask: ArrayLike, activity: ArrayLike, sigma_voxels: Sequence[float]) -> float:
    """Relative standard uncertainty of the activity in a region that lies beside its image.

    The image is moved by one standard uncertainty both ways along each axis; root mean square of both ways, axes in quadrature.

    Parameters
    ----------
    mask : array_like of bool, (nk, nj, ni)
    activity : array_like, (nk, nj, ni)
        With a margin around the region.
    sigma_voxels : sequence of 3 float
        Along k, j, i.
    """
    inside, values = np.asarray(mask, bool), np.asarray(activity, np.float64)
    now = float(values[inside].sum())
    if now <= 0:
        return 0.0
    total = 0.0
    for axis, sigma in enumerate(sigma_voxels):
        shift = np.zeros(3)
        shift[axis] = sigma
        moved = [float(ndimage.shift(values, way * shift, order=1, mode="nearest")[inside].sum()) for way in (1, -1)]
        total += sum((m / now - 1) ** 2 for m in moved) / 2
    return math.sqrt(total)


def volume_sigma(
    change: BoundaryChange,
    *,
    recovery_exponent: float = 0.0,
    own_share: float = 1.0,
    volume_relative_sigma: float | None = None,
) -> float:
    """Relative standard uncertainty of the dose by that of the boundary, with what it does to activity, recovery and mass.

    Parameters
    ----------
    change : BoundaryChange
        By one standard uncertainty of the boundary.
    recovery_exponent : float
        d ln R/d ln V of the recovery coefficient that was applied.
    own_share : float
    volume_relative_sigma : float, optional
        Of an ensemble of segmentations, in place of that of `change`.

    Examples
    --------
    An image that is even beyond the boundary gives the same concentration, and dose, wherever the boundary is drawn:

    >>> volume_sigma(BoundaryChange(volume=0.1, activity=0.1, mass=0.1))
    0.0
    """
    scale = 1.0 if volume_relative_sigma is None or change.volume == 0 else volume_relative_sigma / change.volume
    return own_share * scale * abs(change.activity - recovery_exponent * change.volume - change.mass)


def combined(own: float | None, others: float | None, own_share: float) -> float | None:
    """Relative sigma of a dose by own activity and that of other organs, which err independently; None if not known."""
    parts = [(own, own_share), (others, 1.0 - own_share)]
    needed = [(value, share) for value, share in parts if share > NEGLIGIBLE_SHARE]
    if any(value is None for value, _ in needed):
        return None
    return math.sqrt(sum((value * share) ** 2 for value, share in needed if value is not None))


BUDGET_HEADER = (
    "organ", "component", "relative_sigma", "component_sigma_Gy", "status", "largest", "mean_dose_Gy", "total_sigma_Gy",
    "basis",
)  # fmt: skip


def write_budget_csv(path: str | os.PathLike[str], budgets: Sequence[OrganBudget]) -> None:
    """Write one line per organ and component and one of their total; a component that is not stated has no number."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(BUDGET_HEADER)
        for budget in budgets:
            doses = [_number(budget.mean_dose_Gy), _number(budget.total_sigma_Gy)]
            for part in budget.parts:
                known = part.relative_sigma is not None
                sigma = part.relative_sigma if part.relative_sigma is not None else math.nan
                numbers = [_number(sigma), _number(sigma * budget.mean_dose_Gy)]
                largest = "yes" if part.component == budget.largest else ""
                status = STATED if known else NOT_STATED
                writer.writerow([budget.organ, part.component, *numbers, status, largest, *doses, part.basis])
            missing = budget.not_stated
            basis = f"lower bound, not stated: {', '.join(missing)}" if missing else "all components, in quadrature"
            numbers = [_number(budget.relative_sigma), doses[1]]
            writer.writerow([budget.organ, TOTAL, *numbers, STATED if doses[1] else NOT_STATED, "", *doses, basis])


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
