"""The quality verdict of a phantom for people and for programs: page, pictures with outlines, ``phantom.json``."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core import ImageVolume, VoxelPhantom, atomic_path, inner_point, resource_path
from ..phantom import PhantomQuality, expectation_of, material_entries
from . import report_pictures as draw
from .run_folder import write_json

PHANTOM_JSON = "phantom.json"
QUALITY_PAGE = "quality.html"
OUTLINED = len(draw.PALETTE)  # a colour each: more lines cannot be told apart
CLOSE_VIEWS = 2


def grid_and_materials(phantom: VoxelPhantom) -> dict[str, Any]:
    """The entries ``grid`` and ``materials`` of every ``phantom.json``."""
    return {
        "grid": {
            "shape_kji": list(phantom.grid.shape),
            "spacing_mm": list(phantom.grid.spacing_mm),
            "ijk_to_ras": phantom.grid.ijk_to_ras.tolist(),
        },
        "materials": material_entries(phantom.materials),
    }


def phantom_record(phantom: VoxelPhantom, quality: PhantomQuality) -> dict[str, Any]:
    """What a program wants to know about a phantom: verdict, organs, findings, materials, grid, notes, as plain values."""
    return {
        "schema": 1,
        **quality.as_dict(),
        **grid_and_materials(phantom),
        "notes": list(dict.fromkeys((*phantom.notes, *phantom.labels.notes))),
    }


def write_phantom_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write `phantom_record`, with whatever was added to it."""
    write_json(path, {**record, "statement": "Research software, not for clinical use."})


def outline_pictures(
    phantom: VoxelPhantom, quality: PhantomQuality, image: ImageVolume | None, close_views: int = CLOSE_VIEWS
) -> list[tuple[str, str]]:
    """Draw the outlines over the image (or the densities): through the middle of the body and of the worst organs.

    Returns
    -------
    list of (caption, address)
        Addresses are PNG pictures as ``data:`` URLs.
    """
    gravity = {"fail": 0, "warning": 1, "pass": 2}
    organs = [row for row in quality.organs if row.voxels and row.organ not in draw.NOT_ORGANS]
    compact = {row.organ: (found := expectation_of(row.organ)) is not None and found.compact for row in organs}
    ranked = sorted(organs, key=lambda row: (gravity[row.verdict], not compact[row.organ], -row.volume_ml))
    colours = draw.organ_colours([row.organ for row in ranked[:OUTLINED]])
    body = np.argwhere(phantom.density_g_cm3 > 0)[:, ::-1]
    points = [("the middle of the body", phantom.grid.to_ras(body.mean(axis=0)))] if body.size else []
    for row in [row for row in ranked if row.verdict != "pass"][:close_views]:
        points.append((draw.pretty(row.organ), inner_point(phantom.labels.mask(row.organ), phantom.grid)))
    return [(f"Through {where}.", _address(phantom, image, point, colours)) for where, point in points]


def _address(phantom: VoxelPhantom, image: ImageVolume | None, point: Any, colours: Mapping[str, tuple[str, str]]) -> str:
    if image is None:
        values, grid, unit, (black, white, around) = phantom.density_g_cm3, phantom.grid, "density / g/cm³", (0.0, 1.6, 0.0)
    else:
        values, grid, (black, white, around) = image.values, image.grid, draw.grey_window(image)
        unit = "CT number / HU" if image.modality in ("", "CT") else image.modality

    def panel(axes: Any, view: draw.PlaneView) -> Any:
        shown = view.sample(values, grid, fill=around)
        return axes.imshow(shown, cmap="gray", vmin=black, vmax=white, extent=view.extent, interpolation="bilinear")

    figure = draw.three_planes(phantom.grid, phantom.labels, point, colours, panel, unit, "both")
    return "data:image/png;base64," + base64.b64encode(draw.figure_png(figure, dpi=100)).decode()


def render_quality(
    title: str,
    phantom: VoxelPhantom,
    quality: PhantomQuality,
    pictures: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> str:
    """Return the page of the verdict as HTML that needs neither network nor scripts."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=_number, organ=lambda name: str(name).replace("_", " "))
    template = environment.from_string(resource_path("report", "quality.html").read_text(encoding="utf-8"))
    style = resource_path("report", "report.css").read_text(encoding="utf-8")
    return template.render(title=title, q=quality, phantom=phantom, pictures=pictures, notes=notes, style=style)


def write_quality_page(
    path: Path, title: str, phantom: VoxelPhantom, quality: PhantomQuality, image: ImageVolume | None
) -> None:
    """Write ``quality.html``: verdict, findings, table of organs, pictures."""
    notes = list(dict.fromkeys((*phantom.notes, *phantom.labels.notes)))
    html = render_quality(title, phantom, quality, outline_pictures(phantom, quality, image), notes)
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
