"""From CT numbers to mass density and composition."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from SynthDoseLib.core import Material, SynthDoseError
from SynthDoseLib.physics import get_material
from SynthDoseLib.physics.tables import load_rows


class CalibrationRangeError(SynthDoseError):
    """CT numbers inside the body lie above the highest knot of the calibration."""


@cache
def schneider_tissues() -> tuple[NDArray[np.float64], tuple[Material, ...]]:
    """Lower HU ends and compositions of the 24 tissues of Schneider et al. (2000)."""
    bins, materials = [], []
    for row in load_rows("schneider_tissues.csv"):
        fractions = {key: float(value) for key, value in row.items() if key not in ("hu_from", "name")}
        bins.append(float(row["hu_from"]))
        materials.append(Material(row["name"], 1.0, fractions))
    return np.array(bins), tuple(materials)


@dataclass(frozen=True, eq=False)
class HUCalibration:
    """How one CT protocol's numbers become density and composition.

    Parameters
    ----------
    hu : array_like, (n,)
        Knots, HU, strictly increasing, at least two.
    density_g_cm3 : array_like, (n,)
        Mass density at the knots, positive and not decreasing; linear between knots.
    material_from_hu : array_like, (m,)
        Lower ends of the composition bins, HU, strictly increasing; the last bin is open above, the first one below. Those of
        Schneider et al. (2000) if not given, as the materials.
    materials : tuple of Material, (m,)
        Composition per bin; their own densities are not used.
    name : str
        For the report.

    Raises
    ------
    SynthDoseError
        If a number is not finite, knots do not increase, or densities fall.

    Examples
    --------
    >>> water = get_material("water")
    >>> curve = HUCalibration((-1000, 0, 1000), (0.001, 1.0, 1.6), (-1050,), (water,))
    >>> print(curve.density([-500, 500]))
    [0.5005 1.3   ]
    """

    hu: NDArray[np.float64]
    density_g_cm3: NDArray[np.float64]
    material_from_hu: NDArray[np.float64] = field(default_factory=lambda: schneider_tissues()[0])
    materials: tuple[Material, ...] = field(default_factory=lambda: schneider_tissues()[1])
    name: str = "HU calibration"

    def __post_init__(self) -> None:
        for key in ("hu", "density_g_cm3", "material_from_hu"):
            array = np.array(getattr(self, key), dtype=np.float64)
            if array.ndim != 1 or not np.isfinite(array).all():
                raise SynthDoseError(f"{self.name}: {key} has to be a list of finite numbers; found {getattr(self, key)}.")
            array.setflags(write=False)
            object.__setattr__(self, key, array)
        object.__setattr__(self, "materials", tuple(self.materials))
        if self.hu.size < 2 or self.hu.size != self.density_g_cm3.size:
            raise SynthDoseError(
                f"{self.name}: a curve needs two or more knots, each with a density; found {self.hu.size} CT numbers and "
                f"{self.density_g_cm3.size} densities."
            )
        _require_increasing(self.name, "CT numbers", self.hu, strictly=True)
        _require_increasing(self.name, "densities", self.density_g_cm3, strictly=False)
        if self.density_g_cm3[0] <= 0:
            raise SynthDoseError(f"{self.name}: densities have to be positive; found {self.density_g_cm3[0]:g} g/cm3.")
        if not self.materials or len(self.materials) != self.material_from_hu.size:
            raise SynthDoseError(
                f"{self.name}: every composition bin needs its material; found {self.material_from_hu.size} bins and "
                f"{len(self.materials)} materials."
            )
        _require_increasing(self.name, "composition bins", self.material_from_hu, strictly=True)

    @property
    def lowest_hu(self) -> float:
        """CT number of the first knot: everything below is air of its density."""
        return float(self.hu[0])

    @property
    def highest_hu(self) -> float:
        """CT number of the last knot: nothing is extrapolated above it."""
        return float(self.hu[-1])

    def density(self, ct_number: ArrayLike) -> NDArray[np.float32]:
        """Mass density, g/cm3, float32 of the same shape; below the lowest knot its density.

        Raises
        ------
        CalibrationRangeError
            If a CT number lies above the highest knot.
        """
        values = np.asarray(ct_number, dtype=np.float64)
        above = values > self.highest_hu
        if above.any():
            raise CalibrationRangeError(
                f"{int(above.sum())} of {values.size} CT numbers lie above the highest knot of {self.name}, "
                f"{self.highest_hu:g} HU (up to {values.max():g} HU). Add a knot, or name the metal."
            )
        return np.interp(values, self.hu, self.density_g_cm3).astype(np.float32)

    def material_number(self, ct_number: ArrayLike) -> NDArray[np.uint8]:
        """Place in `materials` of each CT number, same shape."""
        number = np.searchsorted(self.material_from_hu, np.asarray(ct_number, dtype=np.float64), side="right") - 1
        return np.maximum(number, 0).astype(np.uint8)


@cache
def schneider_calibration() -> HUCalibration:
    """Calibration of Schneider et al. (2000): 24 tissues from air to dense bone, -1000 to 1600 HU.

    As published, the density falls from 1.120 g/cm3 at HU 100 (end of the soft-tissue line) to 1.076 at HU 101 (start of the
    skeletal line). A denser voxel must not get lighter, so both lines are joined by a plateau at 1.094 g/cm3 from HU 78 to 131,
    placed so that the integral of density over HU stays the same (the monotonic curve nearest in least squares). It differs
    from the published lines by 2.4 % at most, inside that interval only.

    References
    ----------
    W. Schneider, T. Bortfeld, W. Schlegel, Phys. Med. Biol. 45 (2000) 459-478.

    Examples
    --------
    >>> curve = schneider_calibration()
    >>> len(curve.materials), float(curve.density([14])[0])
    (24, 1.0299999713897705)
    """
    rows = load_rows("schneider_density.csv")
    hu = np.array([float(row["hu"]) for row in rows])
    density = np.array([float(row["density_g_cm3"]) for row in rows])
    hu, density = _bridge_fall(hu, density)
    bins, materials = schneider_tissues()
    return HUCalibration(hu, density, bins, materials, "Schneider 2000")


def read_calibration(path: str | os.PathLike[str]) -> HUCalibration:
    """Read a scanner's calibration from a CSV file.

    Parameters
    ----------
    path : path-like
        Header row and columns ``hu,density_g_cm3`` and, if wanted, ``material``: the name of the composition (as
        `SynthDoseLib.physics.get_material` takes it) from this row's HU up to the next row that names one. Without it the
        compositions are those of Schneider et al. (2000).

    Raises
    ------
    SynthDoseError
        If the file cannot be read, a column is missing or unknown, or the curve is not one (see `HUCalibration`).
    """
    file = Path(path)
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SynthDoseError(f"Cannot read the HU calibration {file}: {error}.") from error
    columns = set(rows[0]) if rows else set()
    required, optional = {"hu", "density_g_cm3"}, {"material"}
    if not required <= columns or columns - required - optional:
        raise SynthDoseError(
            f"The HU calibration {file.name} needs a header row with the columns hu,density_g_cm3 and optionally material; "
            f"found {', '.join(str(c) for c in sorted(columns, key=str)) or 'nothing'}."
        )
    hu = [_number(file, line, row, "hu") for line, row in enumerate(rows, start=2)]
    density = [_number(file, line, row, "density_g_cm3") for line, row in enumerate(rows, start=2)]
    named = [
        (value, row["material"].strip()) for value, row in zip(hu, rows, strict=True) if (row.get("material") or "").strip()
    ]
    if named:
        bins = np.array([value for value, _ in named])
        materials = tuple(get_material(name) for _, name in named)
        return HUCalibration(np.array(hu), np.array(density), bins, materials, file.name)
    return HUCalibration(np.array(hu), np.array(density), name=file.name)


def _number(file: Path, line: int, row: dict[str, Any], column: str) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError):
        raise SynthDoseError(f"{file.name}, line {line}: {column} has to be a number; found '{row[column]}'.") from None


def _require_increasing(name: str, what: str, values: NDArray[np.float64], *, strictly: bool) -> None:
    steps = np.diff(values)
    bad = np.flatnonzero(steps <= 0 if strictly else steps < 0)
    if bad.size:
        first, second = values[bad[0]], values[bad[0] + 1]
        rule = "increase" if strictly else "not decrease"
        raise SynthDoseError(f"{name}: the {what} have to {rule}; found {first:g} followed by {second:g}.")


def _bridge_fall(hu: NDArray[np.float64], density: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Replace the one fall of a curve by a plateau that keeps its integral."""
    fall = int(np.flatnonzero(np.diff(density) < 0)[0])
    rise_before = (density[fall] - density[fall - 1]) / (hu[fall] - hu[fall - 1])
    rise_after = (density[fall + 2] - density[fall + 1]) / (hu[fall + 2] - hu[fall + 1])
    # the two lines end and start half-way through the fall; equal areas: (top - level)^2 / slope = (level - bottom)^2 / slope
    middle = (hu[fall] + hu[fall + 1]) / 2
    top = density[fall] + rise_before * (middle - hu[fall])
    bottom = density[fall + 1] - rise_after * (hu[fall + 1] - middle)
    before, after = 1 / np.sqrt(rise_before), 1 / np.sqrt(rise_after)
    level = (top * before + bottom * after) / (before + after)
    start, end = middle - (top - level) / rise_before, middle + (level - bottom) / rise_after
    return (
        np.concatenate([hu[:fall], [start, end], hu[fall + 2 :]]),
        np.concatenate([density[:fall], [level, level], density[fall + 2 :]]),
    )
