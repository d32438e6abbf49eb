"""Metal in a CT, told apart from dense bone and teeth that lie above the calibration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import Material, VoxelGrid
from .calibration import CalibrationRangeError, HUCalibration

# Cortical bone of a noisy or low-voltage CT reaches about 2500 HU; titanium has 5000 and more, or the 3071 of 12 bits.
METAL_HU = 2500.0


def find_metal(
    grid: VoxelGrid,
    here: NDArray[np.int64],
    values: NDArray[np.float32],
    curve: HUCalibration,
    metal: Material | None,
    notes: list[str],
) -> NDArray[np.bool_]:
    """Which voxels of the body are metal: patches above the calibration's highest knot that exceed 2500 HU somewhere.

    Patches that stay below are dense bone or teeth, to be given the density of the highest knot, unless a metal is named and no
    patch is above: then all are that metal.

    Parameters
    ----------
    grid : VoxelGrid
        Of the CT.
    here : ndarray of int64, (n,)
        Flat positions of the body's voxels.
    values : ndarray of float32, (n,)
        Their CT numbers, HU.
    curve : HUCalibration
    metal : Material, optional
        What metal is made of.
    notes : list of str
        Receives what was found.

    Returns
    -------
    ndarray of bool, (n,)

    Raises
    ------
    CalibrationRangeError
        If there is metal and none is named.
    """
    below = int((values < curve.lowest_hu).sum())
    if below:
        notes.append(
            f"{below} voxels of the body are below the lowest knot of {curve.name} ({curve.lowest_hu:g} HU, down to "
            f"{float(values.min()):g} HU) and were taken as air."
        )
    above = values > curve.highest_hu
    if not above.any():
        return above
    found = _patches_with(values > max(METAL_HU, curve.highest_hu), above, here, grid)
    if metal is not None and not found.any():
        found = above
    if metal is None and found.any():
        worst = int(here[values.argmax()])
        kji = np.unravel_index(worst, grid.shape)
        ras = grid.to_ras(kji[::-1]).round(0).astype(int).tolist()
        raise CalibrationRangeError(
            f"{_amount(found, grid)} are above the highest knot of {curve.name}, {curve.highest_hu:g} HU: "
            f"up to {float(values.max()):g} HU, at RAS {ras} mm. Name the metal they are made of "
            '([phantom] metal_material = "titanium_grade5", "stainless_steel_316l", "gold" …) or add a knot to the calibration.'
        )
    if metal is not None:
        notes.append(
            f"{_amount(found, grid)} above {curve.highest_hu:g} HU (up to {float(values[found].max()):g} HU) are "
            f"{metal.name} of {metal.density_g_cm3:g} g/cm3."
        )
    dense = above & ~found
    if dense.any():
        notes.append(
            f"{_amount(dense, grid)} above the highest knot of {curve.name}, {curve.highest_hu:g} HU (up to "
            f"{float(values[dense].max()):g} HU), were taken as its densest tissue, {float(curve.density_g_cm3[-1]):.3g} "
            "g/cm3: dense bone or teeth. If they are metal, name it ([phantom] metal_material)."
        )
    return found


def _patches_with(
    core: NDArray[np.bool_], candidates: NDArray[np.bool_], here: NDArray[np.int64], grid: VoxelGrid
) -> NDArray[np.bool_]:
    """The candidates that are connected, also over corners, with a voxel of the core."""
    if not core.any():
        return core
    image = np.zeros(grid.shape, bool)
    image.ravel()[here] = candidates
    seeds = np.zeros(grid.shape, bool)
    seeds.ravel()[here] = core
    return np.asarray(ndimage.binary_propagation(seeds, np.ones((3, 3, 3), bool), mask=image)).ravel()[here]


def _amount(voxels: NDArray[np.bool_], grid: VoxelGrid) -> str:
    count = int(voxels.sum())
    return f"{count} voxels of the body ({count * grid.voxel_volume_ml:.1f} ml)"
