"""A cohort of stylised people in a folder: a phantom each, and an index."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..core import Progress, ProgressReport, SynthDoseError, silent
from ..core.provenance import versions
from ..io import atomic_folder, write_segmentation, write_volume
from ..io.folder import prepare_output_folder, write_csv
from ..io.sole_use import holds_anything, sole_use
from ..phantom import PersonPlan, StylisedPerson, growth_z, person_ct, sample_plan, stylised_person, z_to_percentile
from .phantom_exports import check_exports, export_phantom
from .quality_report import grid_and_materials
from .run_folder import require_folder, write_json

INDEX_JSON, INDEX_CSV, PERSON_JSON = "cohort.json", "cohort.csv", "phantom.json"
KIND = "stylised people"
HEADER = (
    "person", "state", "sex", "age_y", "height_cm", "weight_kg", "height_percentile", "weight_percentile", "arms", "breath",
    "seed", "organs", "worst_organ", "worst_deviation", "mass_kg", "seconds", "synthdose", "folder", "message",
)  # fmt: skip
BYTES_PER_VOXEL = 8
MOST_PEOPLE = 100_000


@dataclass(frozen=True)
class PeopleRequest:
    """What `make_people` is asked for.

    Attributes
    ----------
    count : int
    seed : int
        Of the first person; the others follow.
    sex, arms : str
        "" to draw.
    age_y : float, (float, float) or None
    height_cm, weight_kg, percentile, breath : float or None
        As for `sample_plan`.
    variation : float
    voxel_mm : float
    ct : bool
        Whether a CT is written too.
    exports : tuple of str
        Of `phantom_exports.EXPORTS`, a folder each beside the phantom; DICOM SEG refers to the CT of the person.
    """

    count: int
    seed: int = 1
    sex: str = ""
    age_y: float | tuple[float, float] | None = None
    height_cm: float | None = None
    weight_kg: float | None = None
    percentile: float | None = None
    arms: str = ""
    breath: float | None = None
    variation: float = 1.0
    voxel_mm: float = 3.0
    ct: bool = False
    exports: tuple[str, ...] = ()

    def plan(self, number: int) -> PersonPlan:
        """Who person `number` (from 0) is."""
        return sample_plan(
            self.seed + number, sex=self.sex or None, age_y=self.age_y, height_cm=self.height_cm, weight_kg=self.weight_kg,
            percentile=self.percentile, arms=self.arms or None, breath=self.breath, variation=self.variation,
        )  # fmt: skip


@dataclass(frozen=True)
class People:
    """What `make_people` made: the rows of ``cohort.csv``, and how many of them were there before."""

    folder: Path
    rows: tuple[dict[str, Any], ...]
    kept: int

    @property
    def failed(self) -> int:
        """People who could not be built."""
        return sum(row["state"] == "failed" for row in self.rows)

    def summary(self) -> str:
        """One line per person and a last one, for people."""
        lines = []
        for row in self.rows:
            if row["state"] == "failed":
                lines.append(f"{row['person']:<14}failed: {row['message']}")
                continue
            lines.append(
                f"{row['person']:<14}{row['sex']:<8}{row['age_y']:6.1f} y {row['height_cm']:6.1f} cm {row['weight_kg']:6.1f} kg"
                f"  arms {row['arms']:<5} {row['organs']} organs, worst mass {row['worst_deviation']:+.1%} "
                f"({row['worst_organ']})"
            )
        lines.append(
            f"{self.folder / INDEX_CSV}: {len(self.rows) - self.failed} people, {self.failed} failed, {self.kept} kept."
        )
        return "\n".join(lines)


def make_people(request: PeopleRequest, out: Path, *, resume: bool = False, progress: Progress = silent) -> People:
    """Draw people and write a phantom of each, in the layout of ``synthdose phantom``, with an index of the cohort.

    Parameters
    ----------
    request : PeopleRequest
    out : Path
        Receives a folder per person with ``density.nrrd``, ``materials.nrrd``, ``labels.seg.nrrd``, ``masses.csv`` (mass and
        target per organ, and whether the target is estimated), ``phantom.json`` (person, materials, landmarks, provenance),
        ``ct.nrrd`` and exports if asked; and ``cohort.csv`` and ``cohort.json``, rewritten after every person.
    resume : bool
        Go on with an interrupted or smaller cohort of the same request; a finished person is not made again.
    progress : callable

    Returns
    -------
    People
        One who cannot be built does not stop the others.

    Raises
    ------
    SynthDoseError
        If the request makes no sense, all people are impossible, or `out` holds something else.
    """
    if not 1 <= request.count <= MOST_PEOPLE:
        raise SynthDoseError(f"The number of people has to be from 1 to {MOST_PEOPLE}; found {request.count}.")
    if not 1.0 <= request.voxel_mm <= 8.0:
        raise SynthDoseError(f"Voxels have to be from 1 to 8 mm; found {request.voxel_mm:g}.")
    check_exports(request.exports)
    request.plan(0)  # what is impossible for everybody is refused before anything is written
    require_folder(out)
    with sole_use(out, progress) as use:
        _claim(out, request, resume)
        return _make_all(request, out, resume, use.watched(progress))


def _make_all(request: PeopleRequest, out: Path, resume: bool, progress: Progress) -> People:
    rows: list[dict[str, Any]] = []
    kept = 0
    for number in range(request.count):
        name = f"person-{request.seed + number:05d}"
        progress(ProgressReport("people", number / request.count, None, name))
        row: dict[str, Any] = dict.fromkeys(HEADER, "")
        row |= {"person": name, "folder": name, "synthdose": __version__, "seed": request.seed + number}
        try:
            plan = request.plan(number)
            key = {"plan": asdict(plan), "voxel_mm": request.voxel_mm, "ct": request.ct, "synthdose": __version__}
            key |= {"exports": list(request.exports)} if request.exports else {}
            finished = _finished(out / name, key) if resume else None
            if finished is not None:
                kept += 1
                row |= finished
            else:
                row |= _write_person(out / name, plan, request, key)
        except SynthDoseError as error:
            row |= {"state": "failed", "message": str(error)}
        rows.append(row)
        _write_index(out, request, rows)
    progress(ProgressReport("people", 1.0, None, ""))
    return People(out, tuple(rows), kept)


def _claim(out: Path, request: PeopleRequest, resume: bool) -> None:
    earlier = _read(out / INDEX_JSON)
    if holds_anything(out):
        if earlier.get("kind") != KIND:
            raise SynthDoseError(f"{out} holds other files. Choose an empty or new folder, so that nothing of yours is lost.")
        if not resume:
            raise SynthDoseError(f"{out} holds a cohort. Choose another folder, or --resume to go on with it.")
        settings, asked = {"exports": [], **earlier.get("settings", {})}, _settings(request)
        changed = sorted(name for name in asked if name != "count" and settings.get(name) != asked[name])
        if changed:
            raise SynthDoseError(
                f"The cohort in {out} was asked with another {', '.join(changed)}; go on with the same, "
                "or choose another folder."
            )
    prepare_output_folder(out, overwrite=True, needed_MB=request.count * (1.2e8 / request.voxel_mm**3) * BYTES_PER_VOXEL / 4e6)


def _settings(request: PeopleRequest) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(request)))
    return plain


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _finished(folder: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    record = _read(folder / PERSON_JSON).get("cohort", {})
    row = record.get("row")
    return dict(row) if record.get("key") == key and isinstance(row, dict) else None


def _write_person(folder: Path, plan: PersonPlan, request: PeopleRequest, key: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    person = stylised_person(plan, spacing_mm=(request.voxel_mm,) * 3)
    row = _row(person, time.perf_counter() - start)
    phantom = person.phantom()
    made = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions()}
    masses = person.mass_g()
    with atomic_folder(folder) as temporary:
        write_volume(temporary / "density.nrrd", phantom.density_g_cm3, phantom.grid, unit="g/cm3")
        write_volume(temporary / "materials.nrrd", phantom.material_index, phantom.grid)
        write_segmentation(temporary / "labels.seg.nrrd", phantom.labels)
        ct = person_ct(person, plan.seed) if request.ct or "dicom" in request.exports else None
        if ct is not None and request.ct:
            write_volume(temporary / "ct.nrrd", ct.values, ct.grid, unit="HU", notes=ct.notes)
        export_phantom(temporary, request.exports, phantom, ct, phantom.labels)
        counts = phantom.labels.voxel_counts()
        table = []
        for organ, mass in masses.items():
            volume, target = counts[organ] * phantom.grid.voxel_volume_ml, person.targets.get(organ)
            known = (target.mass_g, target.estimated, target.source) if target else (None, True, "what the others leave")
            table.append((organ, volume, mass, mass / volume if volume else 0.0, *known))
        header = ("organ", "volume_ml", "mass_g", "density_g_cm3", "target_g", "estimated", "source")
        write_csv(temporary / "masses.csv", header, table)
        record = {
            "schema": 1,
            "kind": "stylised person",
            "person": asdict(person.plan),
            "landmarks_mm": person.landmarks_mm,
            **grid_and_materials(phantom),
            "organs": [dict(zip(header, line, strict=True)) for line in table],
            "estimated": sorted(organ for organ, target in person.targets.items() if target.estimated),
            "notes": list(phantom.notes),
            "made": made,
            "cohort": {"key": key, "row": row},
            "statement": "Research software, not for clinical use.",
        }
        write_json(temporary / PERSON_JSON, record)
    return row


def _row(person: StylisedPerson, seconds: float) -> dict[str, Any]:
    plan, masses = person.plan, person.mass_g()
    off = {organ: masses[organ] / target.mass_g - 1 for organ, target in person.targets.items() if target.mass_g >= 20}
    worst = max(off, key=lambda organ: abs(off[organ]))
    height, weight = float(plan.height_cm or 0.0), float(plan.weight_kg or 0.0)
    return {
        "state": "finished",
        "sex": plan.sex,
        "age_y": round(plan.age_y, 3),
        "height_cm": round(height, 2),
        "weight_kg": round(weight, 3),
        "height_percentile": round(z_to_percentile(growth_z(plan.sex, plan.age_y, "height", height)), 2),
        "weight_percentile": round(z_to_percentile(growth_z(plan.sex, plan.age_y, "weight", weight)), 2),
        "arms": plan.arms,
        "breath": round(plan.breath, 3),
        "organs": len(person.targets),
        "worst_organ": worst,
        "worst_deviation": round(off[worst], 5),
        "mass_kg": round(person.total_mass_g() / 1000, 3),
        "seconds": round(seconds, 2),
    }


def _write_index(out: Path, request: PeopleRequest, rows: list[dict[str, Any]]) -> None:
    write_csv(out / INDEX_CSV, HEADER, [[row[column] for column in HEADER] for row in rows])
    record = {
        "schema": 1,
        "kind": KIND,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": _settings(request),
        "people": rows,
        "versions": versions(),
        "sources": "ICRP Publications 89 and 110, CDC growth charts 2000; masses.csv says per organ what is estimated",
        "statement": "Research software, not for clinical use.",
    }
    write_json(out / INDEX_JSON, record)
