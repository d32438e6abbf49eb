"""Two segmentations or phantoms side by side: overlap, volumes, and what the difference does to organ doses."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core import (
    ImageVolume,
    LabelMap,
    OrganDose,
    Progress,
    SynthDoseError,
    VoxelPhantom,
    resample_labels,
    silent,
)
from ..io import read_labels, read_volume, write_csv
from ..phantom import assign_tissues, build_phantom, material_of, regrid_phantom
from ..phantom.assigned import WHOLE_BODY_NAMES
from ..phantom.expectations import expectation_of
from ..segmentation import OrganAgreement, apply_table, common_organs, compare_labels, label_table, match_organs
from ..transport import OrganSource, RunSettings, simulate
from .nuclides import emissions_of
from .plan import DosePlan, ImagePlan
from .run_folder import write_json
from .stations import dose_grid, members, read_ct, report_stage

PHANTOM_FILES = ("phantom.json", "materials.nrrd", "density.nrrd", "labels.seg.nrrd")


@dataclass(frozen=True)
class Side:
    """One of the two things that are compared.

    Attributes
    ----------
    path : Path
        Label map, segmentation, SEG or RTSTRUCT; or a folder that ``synthdose phantom`` wrote.
    table : str
        Label table, for a label map whose file names no organs.
    """

    path: Path
    table: str = ""


@dataclass(frozen=True)
class ComparedOrgan:
    """One row of the comparison; doses are nan without a nuclide.

    Attributes
    ----------
    agreement : OrganAgreement
    dose_a_Gy, sigma_a_Gy, dose_b_Gy, sigma_b_Gy : float
        Mean absorbed dose per decay of the whole source, and one standard error of the Monte Carlo.
    """

    agreement: OrganAgreement
    dose_a_Gy: float = math.nan
    sigma_a_Gy: float = math.nan
    dose_b_Gy: float = math.nan
    sigma_b_Gy: float = math.nan

    @property
    def dose_difference_percent(self) -> float:
        """Of B from A, in per cent of A."""
        return 100 * (self.dose_b_Gy / self.dose_a_Gy - 1) if self.dose_a_Gy > 0 else math.nan

    @property
    def dose_difference_sigma_percent(self) -> float:
        """One standard error of the difference: both runs are independent."""
        if not (self.dose_a_Gy > 0 and self.dose_b_Gy > 0):
            return math.nan
        parts = (self.sigma_a_Gy / self.dose_a_Gy, self.sigma_b_Gy / self.dose_b_Gy)
        return 100 * self.dose_b_Gy / self.dose_a_Gy * math.hypot(*parts)


HEADER = (
    "organ", "volume_a_ml", "volume_b_ml", "volume_difference_percent", "dice", "hd95_mm", "surface_dice",
    "dose_a_Gy_per_decay", "sigma_a_Gy_per_decay", "dose_b_Gy_per_decay", "sigma_b_Gy_per_decay", "dose_difference_percent",
    "dose_difference_sigma_percent",
)  # fmt: skip


def compare_files(
    a: Side,
    b: Side,
    out: Path,
    *,
    image: ImagePlan | None = None,
    organs: Sequence[str] = (),
    tolerance_mm: float = 2.0,
    nuclide: str = "",
    progeny: str | None = None,
    sources: Mapping[str, float] | None = None,
    voxel_mm: float | None = None,
    relative_sigma: float = 0.005,
    seed: int = 1,
    threads: int = 0,
    progress: Progress = silent,
) -> str:
    """Compare two segmentations or phantoms and write a table (CSV) and the same as JSON.

    Parameters
    ----------
    a, b : Side
        Percentages refer to `a`; `b` is brought to its grid.
    out : Path
        Table to write, ``.csv``; the JSON file is beside it.
    image : ImagePlan, optional
        CT of both, for their densities; without it organs have their reference tissues.
    organs : sequence of str
        Organs or groups; all if empty.
    tolerance_mm : float
        Of the surface Dice.
    nuclide : str
        For the dose consequence; none if "".
    progeny : str, optional
        "none" or "all", required when the daughter is radioactive.
    sources : mapping of organ to float, optional
        Relative number of decays per organ, the same on both sides: the activity of an organ is known, its outline differs.
        If not given, all organs that both have, in proportion to their volume in `a`.
    voxel_mm : float, optional
        Voxels of the dose; those of the labels if not given.
    relative_sigma : float
        Of the dose of the source organs.
    seed, threads : int

    Returns
    -------
    str
        Table for people.

    Raises
    ------
    SynthDoseError
        For bad input, before anything is written.
    """
    if out.suffix.lower() != ".csv" or not out.absolute().parent.is_dir():
        raise SynthDoseError(f"--out names a table to write in a folder that exists, such as agreement.csv; found {out}.")
    report_stage(progress, "read", 0.0)
    ct = read_ct(image) if image is not None else None
    phantoms = [_read_phantom(side.path) if side.path.is_dir() and _is_phantom(side.path) else None for side in (a, b)]
    first = phantoms[0].labels if phantoms[0] else _read_side(a, ct)
    second = resample_labels(phantoms[1].labels if phantoms[1] else _read_side(b, ct), first.grid)
    rows = [ComparedOrgan(row) for row in compare_labels(first, second, organs, tolerance_mm=tolerance_mm)]
    notes = [*(f"A: {note}" for note in first.notes), *(f"B: {note}" for note in second.notes)]
    if nuclide:
        settings = RunSettings(relative_sigma=relative_sigma, seed=seed, threads=threads, max_seconds=600.0)
        ready = [found or _make_phantom(labels, ct, voxel_mm) for found, labels in zip(phantoms, (first, second), strict=True)]
        emissions, missing = emissions_of(nuclide, progeny)
        weights = _weights(sources, first, second)
        doses = []
        for number, phantom in enumerate(ready):
            own = dataclasses.replace(settings, seed=seed + number, organs=tuple(weights))
            doses.append(
                {dose.organ: dose for dose in simulate(phantom, OrganSource(weights), emissions, own, progress).organs}
            )
        rows = [_with_doses(row, ready, doses) for row in rows]
        listed = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
        notes += [*missing, f"Decays of {nuclide}, the same on both sides: {listed}."]
        if ct is None and None in phantoms:
            notes.append("Without a CT (--image) every organ has its reference tissue, others soft tissue; outside is vacuum.")
    write_csv(out, HEADER, [_finite(_cells(row)) for row in rows])
    record = {"schema": 1, "a": a.path.name, "b": b.path.name, "nuclide": nuclide, "tolerance_mm": tolerance_mm}
    named = [dict(zip(HEADER, _finite(_cells(row)), strict=True)) for row in rows]
    write_json(out.with_suffix(".json"), {**record, "organs": named, "notes": notes})
    return "\n".join([_table(rows, bool(nuclide)), *notes])


def sources_of(words: Sequence[str]) -> dict[str, float]:
    """Read ORGAN or ORGAN=DECAYS words.

    Examples
    --------
    >>> sources_of(["kidneys=2", "liver"])
    {'kidneys': 2.0, 'liver': 1.0}
    """
    result = {}
    for word in words:
        organ, _, number = word.partition("=")
        try:
            result[organ] = float(number or 1.0)
        except ValueError:
            raise SynthDoseError(f"--source takes ORGAN or ORGAN=DECAYS, as in kidneys=0.3; found '{word}'.") from None
    return result


def _is_phantom(folder: Path) -> bool:
    return all((folder / name).is_file() for name in PHANTOM_FILES)


def _read_side(side: Side, ct: ImageVolume | None) -> LabelMap:
    raw = read_labels(side.path, reference=ct.grid if ct else None, reference_image=ct)
    table = label_table(side.table) if side.table else {}
    nameless = all(organ.name == f"label_{organ.index}" for organ in raw.organs)
    return apply_table(raw, table) if table and nameless else match_organs(raw)


def _read_phantom(folder: Path) -> VoxelPhantom:
    """Read what ``synthdose phantom`` wrote."""
    try:
        record = json.loads((folder / "phantom.json").read_text(encoding="utf-8"))
        materials = tuple(material_of(entry) for entry in record["materials"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SynthDoseError(f"{folder / 'phantom.json'} is not what 'synthdose phantom' writes: {error!r}.") from error
    index, grid, _ = read_volume(folder / "materials.nrrd")
    density, _, _ = read_volume(folder / "density.nrrd")
    labels = match_organs(read_labels(folder / "labels.seg.nrrd", reference=grid))
    return VoxelPhantom(grid, index.astype(np.uint8), density, materials, labels)


def _make_phantom(labels: LabelMap, ct: ImageVolume | None, voxel_mm: float | None) -> VoxelPhantom:
    if ct is None:
        if voxel_mm is not None:
            labels = resample_labels(labels, labels.grid.with_spacing((voxel_mm,) * 3))
        known = [organ.name for organ in labels.organs if expectation_of(organ.name) is not None]
        others = [organ.name for organ in labels.organs if organ.name not in (*known, *WHOLE_BODY_NAMES)]
        return assign_tissues(labels, overrides=dict.fromkeys(others, "soft_tissue"))
    return regrid_phantom(build_phantom(ct, resample_labels(labels, ct.grid)), dose_grid(DosePlan(voxel_mm=voxel_mm), ct.grid))


def _weights(sources: Mapping[str, float] | None, a: LabelMap, b: LabelMap) -> dict[str, float]:
    """Decays per organ: groups are shared among their members by volume in A."""
    counts = a.voxel_counts()
    common = common_organs(a, b)
    if not common:
        raise SynthDoseError("The two have no organ in common that could hold activity.")
    if not sources:
        return {name: counts[name] * a.grid.voxel_volume_ml for name in common}
    weights: dict[str, float] = {}
    for name, weight in sources.items():
        names = members(name, a)
        for missing in (member for member in names if member not in common):
            raise SynthDoseError(
                f"The source '{missing}' is empty or missing in one of the two. Both have: {', '.join(common)}."
            )
        total = sum(counts[member] for member in names)
        for member in names:
            weights[member] = weights.get(member, 0.0) + weight * counts[member] / total
    return weights


def _with_doses(
    row: ComparedOrgan, phantoms: Sequence[VoxelPhantom], doses: Sequence[Mapping[str, OrganDose]]
) -> ComparedOrgan:
    values: list[float] = []
    for phantom, found in zip(phantoms, doses, strict=True):
        try:
            names = members(row.agreement.organ, phantom.labels)
        except SynthDoseError:
            values += [math.nan, math.nan]  # one side does not have it
            continue
        parts = [found[name] for name in names if name in found]
        mass = sum(part.mass_g for part in parts)
        energy = sum(part.mass_g * part.dose_Gy for part in parts)
        spread = math.sqrt(sum((part.mass_g * part.sigma_Gy) ** 2 for part in parts))
        values += [energy / mass, spread / mass] if mass > 0 else [math.nan, math.nan]
    return ComparedOrgan(row.agreement, *values)


def _cells(row: ComparedOrgan) -> tuple[str | float, ...]:
    own = row.agreement
    return (
        own.organ, own.volume_a_ml, own.volume_b_ml, own.volume_difference_percent, own.dice, own.hd95_mm, own.surface_dice,
        row.dose_a_Gy, row.sigma_a_Gy, row.dose_b_Gy, row.sigma_b_Gy, row.dose_difference_percent,
        row.dose_difference_sigma_percent,
    )  # fmt: skip


def _finite(cells: Sequence[str | float]) -> list[str | float | None]:
    return [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in cells]


def _table(rows: Sequence[ComparedOrgan], with_dose: bool) -> str:
    head = f"{'organ':<26}{'A / ml':>9}{'B / ml':>9}{'B - A':>8}{'Dice':>7}{'HD95/mm':>9}{'surface':>9}"
    lines = [head + (f"{'dose B - A':>20}" if with_dose else "")]
    for row in rows:
        own = row.agreement
        line = (
            f"{own.organ:<26}{own.volume_a_ml:>9.1f}{own.volume_b_ml:>9.1f}{own.volume_difference_percent:>7.1f}%"
            f"{own.dice:>7.3f}{own.hd95_mm:>9.2f}{own.surface_dice:>9.3f}"
        )
        dose = f"{row.dose_difference_percent:+.1f} ± {row.dose_difference_sigma_percent:.1f} %"
        lines.append(line + (f"{dose:>20}" if with_dose else ""))
    return "\n".join(lines)
