"""Pictures of activity over time, and of registered time points."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..core import ImageVolume, VoxelGrid, resample
from ..kinetics import RegionCurve, checkerboard, difference
from ..segmentation import organ_group
from .activity import ActivityResult
from .report_pictures import NOT_ORGANS, PAGE_INCH, PALETTE, figure_png, pretty

CAPTION = (
    "Measured activity with one standard deviation, fitted curve and its band of one standard uncertainty. Decays to infinity "
    "are the area under the curve."
)
SEARCHED = ("rigid", "affine", "deformable", "given")
PANELS = 9
COLUMNS = 3
FEWEST_ML = 1.0


def shown_curves(curves: Sequence[RegionCurve], asked: Sequence[str] = ()) -> list[RegionCurve]:
    """Curves worth a panel: those asked for, then the largest time-integrated activities; the rest of the body last."""
    ranked = sorted(curves, key=lambda c: (c.region not in asked, c.region in NOT_ORGANS, -c.integral.tia_MBq_h))
    return [c for c in ranked if c.volume_ml >= FEWEST_ML or c.region in asked][:PANELS]


def time_pictures(found: ActivityResult, asked: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Captions and data addresses of the pictures of a run; none for one time point with given half-lives."""
    if found.course is None:
        return []
    members = [name for wanted in asked for name in (wanted, *organ_group(wanted))]
    pictures = [(CAPTION, _address(time_activity_figure(found.course.curves, members)))]
    moved = [n for n, p in enumerate(found.points) if p.registration and p.registration.method in SEARCHED]
    if moved:
        base = next((n for n in range(len(found.points)) if n not in moved), 0)
        figure = registration_figure(
            found.points[base].image,
            [found.points[n].image for n in moved],
            [f"time point {n + 1}" for n in moved],
            found.tia.grid,
        )
        caption = f"Registered time points against time point {base + 1}, coronal plane through the middle."
        pictures.append((caption, _address(figure)))
    return pictures


def _address(figure: Figure) -> str:
    return "data:image/png;base64," + base64.b64encode(figure_png(figure)).decode()


def time_activity_figure(curves: Sequence[RegionCurve], asked: Sequence[str] = ()) -> Figure:
    """Measured activities with one standard deviation, and the fitted curve with its standard uncertainty, per region."""
    shown = shown_curves(curves, asked)
    rows = math.ceil(len(shown) / COLUMNS)
    figure = Figure(figsize=(PAGE_INCH, 2.6 * max(rows, 1)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(max(rows, 1), COLUMNS, squeeze=False)
    for number, axes in enumerate(panels.ravel()):
        if number >= len(shown):
            axes.set_axis_off()
            continue
        _curve_panel(axes, shown[number], PALETTE[number % len(PALETTE)])
        axes.set_xlabel("h after administration" if number >= len(shown) - COLUMNS else "")
        axes.set_ylabel("MBq" if number % COLUMNS == 0 else "")
    return figure


def _curve_panel(axes: Any, curve: RegionCurve, colour: str) -> None:
    data, integral = curve.integral.data, curve.integral
    end = float(data.times_h[-1]) * 1.35 + 1
    times = np.unique(np.concatenate([np.linspace(0, end, 240), np.geomspace(0.05, end, 80)]))
    with np.errstate(all="ignore"):
        fitted, band = integral.activity_MBq(times), integral.band_MBq(times)
    if np.isfinite(fitted).all():
        axes.plot(times, fitted, color=colour, linewidth=1.6)
        if np.isfinite(band).all():
            axes.fill_between(times, np.maximum(fitted - band, 0), fitted + band, color=colour, alpha=0.22, linewidth=0)
    axes.errorbar(data.times_h, data.activity_MBq, yerr=data.sigma_MBq, fmt="o", color="#1c2530", markersize=4, capsize=2)
    axes.set_xlim(0, end)
    axes.set_ylim(bottom=0)
    axes.set_title(f"{pretty(curve.region)}: {integral.model}", fontsize=9)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)


def registration_figure(reference: ImageVolume, others: Sequence[ImageVolume], names: Sequence[str], grid: VoxelGrid) -> Figure:
    """Coronal planes of registered activity images: each as a checkerboard with the reference, and its difference from it.

    Every image is scaled to its own 99.5th percentile, as the activity falls from scan to scan; square roots are shown.
    """
    middle = grid.to_ras((np.asarray(grid.shape[::-1]) - 1) / 2)
    plane = _coronal(grid, middle)
    base = _scaled(reference, plane)
    figure = Figure(figsize=(PAGE_INCH, 3.4 * max(len(others), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(max(len(others), 1), 3, squeeze=False)
    for row, (image, name) in enumerate(zip(others, names, strict=True)):
        other = _scaled(image, plane)
        for axes, picture, title, colours, limits in (
            (panels[row, 0], other, name, "magma", (0, 1)),
            (panels[row, 1], checkerboard(base, other), f"{name} and reference in turn", "magma", (0, 1)),
            (panels[row, 2], difference(other, base), f"{name} minus reference (each scaled)", "RdBu_r", (-1, 1)),
        ):
            axes.imshow(picture, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="bilinear")
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
    return figure


def _coronal(grid: VoxelGrid, through: np.ndarray[Any, Any]) -> VoxelGrid:
    """Plane of one slice along the patient's right-left and head-feet axes over the extent of a grid."""
    corners = grid.to_ras([[a, b, c] for a in (0, grid.shape[2]) for b in (0, grid.shape[1]) for c in (0, grid.shape[0])])
    lower, upper = corners.min(axis=0), corners.max(axis=0)
    pixel = max(min(grid.spacing_mm), float((upper - lower).max()) / 400)
    shape = (1, max(2, int((upper[2] - lower[2]) / pixel)), max(2, int((upper[0] - lower[0]) / pixel)))
    directions = np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])  # columns to the patient's left, rows to the feet
    return VoxelGrid.from_spacing(shape, (pixel,) * 3, (upper[0], through[1], upper[2]), directions)


def _scaled(image: ImageVolume, plane: VoxelGrid) -> np.ndarray[Any, Any]:
    values = np.maximum(resample(image.values, image.grid, plane)[0], 0)
    top = float(np.percentile(image.values[image.values > 0], 99.5)) if (image.values > 0).any() else 1.0
    return np.sqrt(np.clip(values / top, 0, 1))
