"""What the checks of a phantom pass on: findings, and an organ as it was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .expectations import OrganExpectation

FAIL, WARNING, NOTE = "fail", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing found about a phantom.

    Attributes
    ----------
    severity : str
        "fail": doses of it must not be used as they are; "warning": look before using it; "note": good to know.
    check : str
        Which check: "mass", "hole", "island", "overlap", "ct number", "density", "side", "order", "missing", "field of view",
        "size", "scale", "body", "split".
    organ : str
        "" for the whole phantom.
    found, expected, action : str
    """

    severity: str
    check: str
    organ: str
    found: str
    expected: str
    action: str

    def sentence(self) -> str:
        """All of it in one line."""
        who = f"{self.organ}: " if self.organ else ""
        wanted = f" (expected: {self.expected})" if self.expected else ""
        return f"{self.severity}, {self.check}: {who}{self.found}{wanted}. {self.action}".rstrip()


@dataclass(frozen=True, eq=False)
class MeasuredOrgan:
    """An organ of a phantom in numbers.

    Attributes
    ----------
    name : str
    expectation : OrganExpectation or None
    voxels : int
    volume_ml, mass_g, density_g_cm3 : float
    density_is_uniform : bool
        It was assigned, not taken from CT numbers.
    mean_HU, sd_HU, airy_share : float or None
        `airy_share`: share of voxels below -300 HU. None without a CT.
    piece_voxels : tuple of int
        Size of the connected parts (26 neighbours), largest first.
    island_ras_mm : ndarray of float64, (3,), or None
        Middle of the largest part but the main one.
    island_distance_mm : float
        From there to the organ's middle.
    hole_voxels : tuple of int
        Size of the enclosed cavities without a label, largest first.
    hole_ras_mm : ndarray of float64, (3,), or None
        Middle of the largest one.
    centre_ras_mm : ndarray of float64, (3,), or None
        None for an empty organ.
    cut : tuple of str
        Sides of the image that it touches.
    """

    name: str
    expectation: OrganExpectation | None
    voxels: int
    volume_ml: float = 0.0
    mass_g: float = 0.0
    density_g_cm3: float = 0.0
    density_is_uniform: bool = False
    mean_HU: float | None = None
    sd_HU: float | None = None
    airy_share: float | None = None
    piece_voxels: tuple[int, ...] = ()
    island_ras_mm: NDArray[np.float64] | None = None
    island_distance_mm: float = 0.0
    hole_voxels: tuple[int, ...] = ()
    hole_ras_mm: NDArray[np.float64] | None = None
    centre_ras_mm: NDArray[np.float64] | None = None
    cut: tuple[str, ...] = ()


def worst(findings: Iterable[Finding]) -> str:
    """Verdict that follows from findings: "fail", "warning" or "pass"."""
    severities = {finding.severity for finding in findings}
    return next((severity for severity in (FAIL, WARNING) if severity in severities), "pass")


def place(point_ras_mm: NDArray[np.float64]) -> str:
    """A point for people: ``RAS 12, -30, 105 mm``."""
    return "RAS " + ", ".join(f"{value:.0f}" for value in point_ras_mm) + " mm"
