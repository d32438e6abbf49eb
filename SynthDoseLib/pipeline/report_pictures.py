"""Pictures of a result: dose over CT in three planes, its uncertainty, activity, dose-volume histograms.

All planes are planes of the patient (RAS), resampled from whatever grid the data are on, so letters and lengths are right
for oblique grids too. Axial and coronal pictures follow the radiological convention: patient right on the left side.
Figures are drawn on their own canvas (no pyplot), so they are safe in threads and beside other users of matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from ..core import DoseMap, ImageVolume, LabelMap, VoxelGrid, inner_point, resample
from ..dosimetry import DoseVolumeHistogram

NOT_ORGANS = frozenset({"rest_of_body", "body", "soft_tissue", "fat"})
PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#117733", "#999933", "#332288", "#e34948",
    "#6b4f3a",
)  # fmt: skip
"""After Okabe & Ito and Tol: most are told apart by colour-blind readers."""
DARK, LIGHT = "#0c0f13", "#e8ecf0"
PIXELS = 420
CT_WINDOW_HU = (-160.0, 240.0)
PAGE_INCH = 11.2
LOW_DOSE = 0.25  # of the highest dose of an organ; below it curves are squeezed to the axis

_PLANES: dict[str, tuple[tuple[float, ...], tuple[float, ...], str, str]] = {
    # to the right on the page, downwards on the page, letters at the left and right, letters at the top and bottom
    "axial": ((-1, 0, 0), (0, -1, 0), "RL", "AP"),
    "coronal": ((-1, 0, 0), (0, 0, -1), "RL", "SI"),
    "sagittal": ((0, -1, 0), (0, 0, -1), "AP", "SI"),
}
PLANES = tuple(_PLANES)


@dataclass(frozen=True, eq=False)
class PlaneView:
    """A plane of the patient as a grid of one slice, and the letters at its sides.

    Attributes
    ----------
    grid : VoxelGrid
        Shape (1, rows, columns); rows run down the page, columns to the right.
    name : str
        "axial", "coronal" or "sagittal".
    left_right, top_bottom : str
        Two letters of R L A P S I each.
    """

    grid: VoxelGrid
    name: str
    left_right: str
    top_bottom: str

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height, mm."""
        _, rows, columns = self.grid.shape
        return columns * self.grid.spacing_mm[0], rows * self.grid.spacing_mm[1]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top for matplotlib, mm from the upper left corner."""
        width, height = self.size_mm
        return 0.0, width, height, 0.0

    def sample(self, values: NDArray[Any], grid: VoxelGrid, *, fill: float = 0.0, linear: bool = True) -> NDArray[Any]:
        """Values of a volume in this plane, (rows, columns)."""
        return np.asarray(resample(values, grid, self.grid, fill=fill, linear=linear)[0])


def plane_view(name: str, grid: VoxelGrid, point_ras_mm: ArrayLike, shown: NDArray[np.bool_] | None = None) -> PlaneView:
    """Return the plane of the patient called `name` through a point.

    Parameters
    ----------
    name : {"axial", "coronal", "sagittal"}
    grid : VoxelGrid
        Of the data; the plane covers it.
    point_ras_mm : array_like, (3,)
    shown : ndarray of bool, (nk, nj, ni) of `grid`, optional
        The plane covers only these voxels and a margin.
    """
    right, down, left_right, top_bottom = _PLANES[name]
    corners = grid.to_ras(_corners(grid, shown))
    lower, upper = corners.min(axis=0), corners.max(axis=0)
    u, v = np.asarray(right, float), np.asarray(down, float)
    width, height = float(np.abs(u) @ (upper - lower)), float(np.abs(v) @ (upper - lower))
    pixel = max(width / PIXELS, height / PIXELS, min(grid.spacing_mm) / 4)
    columns, rows = max(2, int(np.ceil(width / pixel))), max(2, int(np.ceil(height / pixel)))
    start = np.where(u + v < 0, upper, lower)  # both axes run towards L, P or I: from the upper RAS corner
    normal = np.cross(u, v)
    origin = np.where(np.abs(normal) > 0.5, np.asarray(point_ras_mm, float), start) + (u + v) * pixel / 2
    directions = np.stack([u, v, normal], axis=1)
    plane = VoxelGrid.from_spacing((1, rows, columns), (pixel, pixel, pixel), origin, directions)
    return PlaneView(plane, name, left_right, top_bottom)


def _corners(grid: VoxelGrid, shown: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Corners in i, j, k of the box around the voxels shown, with a margin of about 1 cm."""
    low, high = np.zeros(3), np.asarray(grid.shape, float)
    if shown is not None and shown.any():
        for axis in range(3):
            there = np.flatnonzero(shown.any(axis=tuple(a for a in range(3) if a != axis)))
            margin = 10.0 / grid.spacing_mm[2 - axis]
            low[axis], high[axis] = max(0.0, there[0] - margin), min(grid.shape[axis], there[-1] + 1 + margin)
    ends = np.stack([low, high])[:, ::-1] - 0.5
    return np.array([[ends[a, 0], ends[b, 1], ends[c, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])


def hottest_organ(dose: DoseMap, labels: LabelMap, *, voxels: int = 8) -> str | None:
    """Name of the organ of at least `voxels` voxels with the highest mean dose; None if there is none."""
    flat = labels.labels.ravel()
    counts = np.bincount(flat, minlength=max((o.index for o in labels.organs), default=0) + 1)
    sums = np.bincount(flat, weights=dose.dose_Gy.ravel(), minlength=counts.size)
    means = {
        o.name: sums[o.index] / counts[o.index] for o in labels.organs if o.name not in NOT_ORGANS and counts[o.index] >= voxels
    }
    return max(means, key=lambda name: means[name]) if means else None


def picture_centre(dose: DoseMap, labels: LabelMap | None = None, organ: str | None = None) -> NDArray[np.float64]:
    """Point, RAS mm, worth looking at: the middle of `organ`, or of the one with the highest mean dose, or the dose maximum."""
    if organ is None and labels is not None:
        organ = hottest_organ(dose, labels)
    if organ is None or labels is None:
        k, j, i = np.unravel_index(int(np.argmax(dose.dose_Gy)), dose.grid.shape)
        return dose.grid.to_ras((i, j, k))
    return inner_point(labels.mask(organ), dose.grid)


def display_maximum_Gy(
    dose: DoseMap, labels: LabelMap | None = None, organ: str | None = None, gas: NDArray[np.bool_] | None = None
) -> float:
    """Upper end of the colour scale: what 2 % of `organ` (or the hottest) exceed, so that one noisy voxel does not set it.

    Voxels of `gas` do not count.
    """
    if organ is None and labels is not None:
        organ = hottest_organ(dose, labels)
    chosen = labels.mask(organ) if organ is not None and labels is not None else dose.dose_Gy > 0
    values = dose.dose_Gy[chosen if gas is None else chosen & ~gas]
    highest = float(np.quantile(values, 0.98 if organ is not None else 0.999)) if values.size else 0.0
    return highest if highest > 0 else max(float(dose.dose_Gy.max()), 1e-30)


def smoothed_for_display(
    dose: DoseMap,
    labels: LabelMap | None,
    relative_noise: float,
    *,
    wanted: float = 0.08,
    gas: NDArray[np.bool_] | None = None,
) -> tuple[DoseMap, float]:
    """Smooth a noisy dose just enough to see its shape, and return with it the width (FWHM, mm) to state in the caption.

    Parameters
    ----------
    dose : DoseMap
    labels : LabelMap, optional
        If it knows the body, dose outside is not mixed in.
    relative_noise : float
        Typical standard error of a voxel relative to its dose; a dose with less than twice `wanted` is left as it is.
    wanted : float
        Noise to aim for; the filter is never wider than 1.5 voxels (one standard deviation), so it may not be reached.
    gas : ndarray of bool, (nk, nj, ni) of `dose`, optional
        Its dose is not mixed in either.

    Returns
    -------
    DoseMap
        For pictures only; its standard errors are those of `dose`.
    float
        0 if nothing was done.
    """
    if relative_noise < 2 * wanted:
        return dose, 0.0
    # a Gaussian of s voxels averages about (4 pi)^1.5 s^3 voxels of independent noise
    width = min(1.5, ((relative_noise / wanted) ** 2 / (4 * np.pi) ** 1.5) ** (1 / 3))
    width_mm = width * (1000.0 * dose.grid.voxel_volume_ml) ** (1 / 3)
    per_axis = [width_mm / spacing for spacing in dose.grid.spacing_mm[::-1]]
    body = body_mask(dose.grid, labels, gas)
    share = gaussian_filter(body.astype(np.float32), per_axis)
    mixed = gaussian_filter(np.where(body, dose.dose_Gy, np.float32(0)), per_axis)
    smooth = np.where(body, mixed / np.maximum(share, 1e-3), dose.dose_Gy)
    return DoseMap(dose.grid, smooth, dose.sigma_Gy, dose.per), 2.3548 * width_mm


def body_mask(grid: VoxelGrid, labels: LabelMap | None, gas: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Voxels of the body, if the labels tell (they have its rest), otherwise all voxels; in any case without those of `gas`."""
    known = labels is not None and any(organ.name in ("rest_of_body", "body") for organ in labels.organs)
    inside = np.asarray(labels.labels > 0) if labels is not None and known else np.ones(grid.shape, bool)
    return inside if gas is None else inside & ~gas


def organ_colours(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and line style per organ, the same in every picture; styles change when the colours are used up."""
    styles = ("-", "--", ":", "-.")
    return {
        name: (PALETTE[n % len(PALETTE)], styles[n // len(PALETTE) % len(styles)])
        for n, name in enumerate(dict.fromkeys(names))
    }


def grey_window(image: ImageVolume) -> tuple[float, float, float]:
    """Values of an image that are black, white, and outside its grid: soft tissue of a CT, nearly all of other images."""
    if image.modality in ("", "CT"):
        return *CT_WINDOW_HU, -1000.0
    low, high = (float(x) for x in np.quantile(image.values, (0.01, 0.995)))
    return low, max(high, low + 1e-6), low


def dose_over_ct_figure(
    ct: ImageVolume,
    dose: DoseMap,
    labels: LabelMap | None = None,
    *,
    point_ras_mm: ArrayLike | None = None,
    outlines: Mapping[str, tuple[str, str]] | None = None,
    maximum_Gy: float | None = None,
    gas: NDArray[np.bool_] | None = None,
) -> Figure:
    """Draw absorbed dose over the CT in three planes of the patient.

    Parameters
    ----------
    ct : ImageVolume
        On any grid; or an MR, if tissues were assigned by label.
    dose : DoseMap
        Absolute, Gy.
    labels : LabelMap, optional
        On the grid of `dose`; frames the pictures, chooses the point, and is outlined.
    point_ras_mm : array_like, (3,), optional
        `picture_centre` if not given.
    outlines : mapping of organ to (colour, line style), optional
        Organs to outline; none if not given.
    maximum_Gy : float, optional
        Upper end of the colour scale; `display_maximum_Gy` if not given.
    gas : ndarray of bool, (nk, nj, ni) of `dose`, optional
        Where nothing is drawn.
    """
    top = maximum_Gy or display_maximum_Gy(dose, labels, gas=gas)
    levels = [level for level in MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(0, top) if 0 < level < top]

    body = body_mask(dose.grid, labels, gas)
    black, white, around = grey_window(ct)
    weight, weighted = body.astype(np.float32), np.where(body, dose.dose_Gy, np.float32(0))

    def draw(axes: Any, view: PlaneView) -> Any:
        share = view.sample(weight, dose.grid)
        inside = share >= 0.5  # dose to air in and around the body means nothing and is kept out of the interpolation
        grey = view.sample(ct.values, ct.grid, fill=around)
        axes.imshow(grey, cmap="gray", vmin=black, vmax=white, extent=view.extent, interpolation="bilinear")
        value = view.sample(weighted, dose.grid) / np.maximum(share, 0.5)
        alpha = np.where(inside, np.clip((value / top - 0.02) / 0.15, 0.0, 1.0) * 0.62, 0.0)  # low dose fades into the CT
        shown = axes.imshow(value, cmap="turbo", vmin=0, vmax=top, alpha=alpha, extent=view.extent, interpolation="bilinear")
        if levels and float(value.max()) > levels[0]:
            axes.contour(
                *_mesh(view), np.where(inside, value, np.nan), levels=levels, cmap="turbo", vmin=0, vmax=top, linewidths=0.7
            )
        return shown

    figure = three_planes(
        dose.grid, labels, _point(dose, labels, point_ras_mm), outlines or {}, draw, "absorbed dose / Gy", "max"
    )
    for level in levels:
        figure.axes[-1].axhline(level, color=DARK, linewidth=0.8)
    return figure


def sigma_figure(
    dose: DoseMap,
    labels: LabelMap | None = None,
    *,
    point_ras_mm: ArrayLike | None = None,
    outlines: Mapping[str, tuple[str, str]] | None = None,
    maximum_Gy: float | None = None,
    gas: NDArray[np.bool_] | None = None,
) -> Figure:
    """Draw one standard error relative to the dose, %, in three planes; gas and doses below 1 % of `maximum_Gy` stay blank."""
    top = maximum_Gy or display_maximum_Gy(dose, labels, gas=gas)
    relative = np.full(dose.grid.shape, np.nan, np.float32)
    enough = (dose.dose_Gy > 0.01 * top) & body_mask(dose.grid, labels, gas)
    relative[enough] = 100.0 * dose.sigma_Gy[enough] / dose.dose_Gy[enough]
    highest = float(np.nanquantile(relative, 0.9)) if enough.any() else 1.0

    def draw(axes: Any, view: PlaneView) -> Any:
        value = view.sample(relative, dose.grid, fill=np.nan, linear=False)
        return axes.imshow(value, cmap="viridis", vmin=0, vmax=max(highest, 1e-6), extent=view.extent, interpolation="nearest")

    point = _point(dose, labels, point_ras_mm)
    return three_planes(dose.grid, labels, point, outlines or {}, draw, "standard error / % of dose", "max")


def activity_figure(tia_MBq_s: NDArray[np.float32], grid: VoxelGrid, shown: NDArray[np.bool_] | None = None) -> Figure:
    """Draw time-integrated activity summed through the patient: front view and view from the right, square-root scale."""
    corners = grid.to_ras(_corners(grid, shown))
    lower, upper = corners.min(axis=0), corners.max(axis=0)
    pixel = max(float((upper - lower).max()) / 160, min(grid.spacing_mm))
    columns = np.maximum(2, np.ceil((upper - lower) / pixel)).astype(int)
    patient = VoxelGrid.from_spacing(
        (int(columns[2]), int(columns[1]), int(columns[0])), (pixel,) * 3, upper - pixel / 2, np.diag([-1.0, -1.0, -1.0])
    )
    values = resample(np.asarray(tia_MBq_s), grid, patient)  # axes k, j, i run towards I, P, L
    views = ((values.sum(axis=1), "front", "RL"), (values.sum(axis=2), "right side", "AP"))
    height, widths = float(upper[2] - lower[2]), [float(upper[0] - lower[0]), float(upper[1] - lower[1])]
    tall = min(4.6, 5.2 * height / sum(widths))
    figure = Figure(figsize=(tall * sum(widths) / height + 0.2, tall + 0.25), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (picture, title, letters) in zip(figure.subplots(1, 2, width_ratios=widths), views, strict=True):
        rows, cells = picture.shape
        axes.imshow(np.sqrt(picture), cmap="gray_r", extent=(0, cells * pixel, rows * pixel, 0), interpolation="bilinear")
        axes.set_axis_off()
        axes.set_title(title, fontsize=8, color="#444")
        _letters(axes, letters, "SI", "#345", None)
    return figure


def dvh_figure(histograms: Sequence[DoseVolumeHistogram], colours: Mapping[str, tuple[str, str]] | None = None) -> Figure:
    """Draw cumulative dose-volume histograms; bands are one standard uncertainty of the organ's dose, where known.

    Organs of low dose beside others of much higher dose get a panel of their own.
    """
    colours = colours or organ_colours([h.organ for h in histograms])
    ends = {h.organ: float(h.dose_at(0.002)) for h in histograms}
    low = [h for h in histograms if ends[h.organ] < LOW_DOSE * max(ends.values())]
    groups = [histograms] if len(low) < 2 else [[h for h in histograms if h not in low], low]
    figure = Figure(figsize=(8.6 if len(groups) == 1 else PAGE_INCH, 4.3), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for panel, (axes, group) in enumerate(zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True)):
        for histogram in group:
            colour, style = colours.get(histogram.organ, ("#777777", "-"))
            dose, fraction = histogram.curve(400)
            axes.plot(dose, 100 * fraction, color=colour, linestyle=style, linewidth=1.6, label=pretty(histogram.organ))
            shift = histogram.band_relative_sigma
            if np.isfinite(shift):
                below, above = dose * max(0.0, 1 - shift), dose * (1 + shift)
                axes.fill_betweenx(100 * fraction, below, above, color=colour, alpha=0.15, lw=0)
        axes.set(xlabel="absorbed dose / Gy", ylim=(0, 101))
        axes.set_ylabel("" if panel else "volume receiving at least this dose / %")
        # a few hot voxels must not squeeze the curves: the axis ends where every organ has less than 0.2 % of its volume left
        axes.set_xlim(left=0, right=1.03 * max((ends[h.organ] for h in group), default=1.0) or 1.0)
        axes.grid(color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper right", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)
    return figure


def figure_png(figure: Figure, dpi: int = 130) -> bytes:
    """Return a figure as a PNG file in memory, without the time and program name."""
    stream = io.BytesIO()
    figure.set_dpi(dpi)
    canvas: Any = figure.canvas
    canvas.print_png(stream, metadata={"Software": None})  # savefig draws everything twice: once only to lay it out
    return stream.getvalue()


def pretty(name: str) -> str:
    """Organ name for people: ``kidney_left`` becomes ``kidney left``; dollar signs are kept from being read as formulas."""
    return name.replace("_", " ").replace("$", r"\$")


def _point(dose: DoseMap, labels: LabelMap | None, point_ras_mm: ArrayLike | None) -> NDArray[np.float64]:
    return picture_centre(dose, labels) if point_ras_mm is None else np.asarray(point_ras_mm, dtype=np.float64)


def _mesh(view: PlaneView) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positions of the pixel centres, mm from the upper left corner."""
    _, rows, columns = view.grid.shape
    step = view.grid.spacing_mm[0]
    return (np.arange(columns) + 0.5) * step, (np.arange(rows) + 0.5) * step


def three_planes(
    grid: VoxelGrid,
    labels: LabelMap | None,
    point: NDArray[np.float64],
    outlines: Mapping[str, tuple[str, str]],
    draw: Any,
    quantity: str,
    extend: str,
) -> Figure:
    """Draw three planes of the patient through a point; `draw` fills one panel (axes, view) and returns what it drew."""
    body = labels.labels > 0 if labels is not None else None
    views = [plane_view(name, grid, point, body) for name in PLANES]
    figure, panels = _layout(views)
    handles: dict[str, Any] = {}
    shown: Any = None
    for axes, view in zip(panels, views, strict=True):
        shown = draw(axes, view)
        _outline(axes, view, labels, outlines, handles)
        _crosshair(axes, view, point)
        _letters(axes, view.left_right, view.top_bottom, LIGHT, DARK)
        _scale_bar(axes, view)
        axes.set(xlim=view.extent[:2], ylim=view.extent[2:], facecolor="black")
        axes.set_axis_off()
        axes.set_title(f"{view.name}  ·  {_place(view.name, point)} mm", fontsize=9, color=LIGHT)
    bar: Any = figure.colorbar(shown, ax=panels, extend=extend, fraction=0.03, pad=0.012, aspect=28)
    bar.solids.set_alpha(1.0)
    bar.set_label(quantity, color=LIGHT, fontsize=9)
    bar.ax.tick_params(colors=LIGHT, labelsize=8)
    bar.outline.set_visible(False)
    if handles:
        figure.legend(
            handles.values(), [pretty(name) for name in handles], loc="outside lower center", ncols=min(len(handles), 7),
            frameon=False, fontsize=8, labelcolor=LIGHT, handlelength=1.6,
        )  # fmt: skip
    return figure


def _place(name: str, point: NDArray[np.float64]) -> str:
    """Where a plane is: the letter of the side of the origin, and the distance from it, mm."""
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[name]
    return f"{('RL', 'AP', 'SI')[axis][int(point[axis] < 0)]} {abs(point[axis]):.0f}"


def _layout(views: Sequence[PlaneView]) -> tuple[Figure, list[Any]]:
    """Return a figure with three panels: in one row, or, for a short scan, a large axial one beside the other two."""
    axial, coronal, sagittal = (view.size_mm[0] / view.size_mm[1] for view in views)
    height = min(5.6, PAGE_INCH / (axial + coronal + sagittal))
    stacked = height < 2.7
    if stacked:
        beside = PAGE_INCH / (1 + axial * (1 / coronal + 1 / sagittal))  # width of the right column at equal heights
        height = (PAGE_INCH - beside) / axial
    width = PAGE_INCH if stacked else height * (axial + coronal + sagittal)
    figure = Figure(figsize=(width + 1.15, height + 0.85), facecolor=DARK, layout="constrained")
    FigureCanvasAgg(figure)
    layout: Any = figure.get_layout_engine()
    layout.set(h_pad=0.09, w_pad=0.05)
    if stacked:
        mosaic: Any = [["axial", "coronal"], ["axial", "sagittal"]]
        ratios: dict[str, Any] = {"width_ratios": [PAGE_INCH - beside, beside], "height_ratios": [1 / coronal, 1 / sagittal]}
        by_name = figure.subplot_mosaic(mosaic, **ratios)
        return figure, [by_name[view.name] for view in views]
    return figure, list(figure.subplots(1, 3, width_ratios=[axial, coronal, sagittal]))


def _outline(
    axes: Any, view: PlaneView, labels: LabelMap | None, outlines: Mapping[str, tuple[str, str]], handles: dict[str, Any]
) -> None:
    if labels is None or not outlines:
        return
    from matplotlib.lines import Line2D

    plane = view.sample(np.asarray(labels.labels), labels.grid, linear=False)
    blur = 0.5 * min(labels.grid.spacing_mm) / view.grid.spacing_mm[0]  # half a voxel: rounds the steps, keeps the place
    for organ in labels.organs:
        inside = plane == organ.index
        if organ.name not in outlines or not inside.any() or inside.all():
            continue
        colour, style = outlines[organ.name]
        smooth = gaussian_filter(inside.astype(float), blur)
        lines = axes.contour(*_mesh(view), smooth, levels=[0.5], colors=[colour], linewidths=1.2, linestyles=[style])
        lines.set_path_effects([withStroke(linewidth=2.4, foreground="white", alpha=0.75)])
        sample = Line2D([], [], color=colour, linewidth=2.0, linestyle=style, path_effects=lines.get_path_effects())
        handles.setdefault(organ.name, sample)


def _crosshair(axes: Any, view: PlaneView, point: NDArray[np.float64]) -> None:
    column, row, _ = (view.grid.to_ijk(point) + 0.5) * view.grid.spacing_mm[0]
    style = {"color": LIGHT, "linewidth": 0.5, "alpha": 0.35}
    axes.axvline(column, **style)
    axes.axhline(row, **style)


def _letters(axes: Any, left_right: str, top_bottom: str, colour: str, edge: str | None) -> None:
    effects = [withStroke(linewidth=2, foreground=edge)] if edge else []
    for x, y, letter in (
        (0.02, 0.5, left_right[0]),
        (0.98, 0.5, left_right[1]),
        (0.5, 0.97, top_bottom[0]),
        (0.5, 0.03, top_bottom[1]),
    ):
        axes.text(
            x, y, letter, transform=axes.transAxes, color=colour, fontsize=10, fontweight="bold", ha="center", va="center",
            path_effects=effects,
        )  # fmt: skip


def _scale_bar(axes: Any, view: PlaneView) -> None:
    width, height = view.size_mm
    length = next((mm for mm in (100, 50, 20, 10, 5, 2, 1) if mm < 0.4 * width), 1)
    x, y = 0.03 * width, 0.95 * height
    axes.plot([x, x + length], [y, y], color=LIGHT, linewidth=2, solid_capstyle="butt")
    axes.text(x, y - 0.015 * height, f"{length} mm", color=LIGHT, fontsize=7, va="bottom")
