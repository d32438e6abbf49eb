"""The plan of one patient: what the TOML file says, checked before the first voxel is touched."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..core import SynthDoseError
from .activity_plan import ActivityPlan, KineticsPlan, OrganActivityPlan, check_time_points, check_used
from .clinical_plan import DosimetryPlan
from .engine_plan import KERNEL_TISSUES, check_engines
from .run_folder import RESOLVED
from .toml_tables import nearest, read_table, read_toml

SCHEMA = 1


@dataclass(frozen=True)
class ImagePlan:
    """``[image]``: the CT or MR; the optional keys are for formats that do not say."""

    path: Path
    series: str = ""
    modality: str = ""
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str = ""
    hu_offset: float = 0.0


@dataclass(frozen=True)
class BoxPlan:
    """``[[segmentation.box]]``: a region given by two corners, RAS mm, for a source where nothing is segmented."""

    name: str
    lower_ras_mm: tuple[float, float, float]
    upper_ras_mm: tuple[float, float, float]


@dataclass(frozen=True)
class SegmentationPlan:
    """``[segmentation]``: exactly one of `path`, `bundle` and `method`; `uncertainty` is a number of inferences, `ensemble`
    further bundles of the same organs."""

    path: Path | None = None
    labels: str = ""
    unlisted: str = "refuse"
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str = ""
    bundle: str = ""
    ensemble: tuple[str, ...] = ()
    download: bool = False
    trusted: bool = False
    overrides: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    uncertainty: int = 0
    clean: bool = True
    memory_GB: float | None = None
    method: str = ""
    organs: tuple[str, ...] = ()
    box: tuple[BoxPlan, ...] = ()


@dataclass(frozen=True)
class OverridePlan:
    """``[phantom.overrides.ORGAN]``: a named material, a density, or both, in place of what the HU say."""

    material: str = ""
    density_g_cm3: float | None = None


@dataclass(frozen=True)
class PatientPlan:
    """``[phantom.patient]``: whom the organ masses are compared with, in place of what the image says."""

    sex: str = ""
    age_y: float | None = None
    height_m: float | None = None
    weight_kg: float | None = None


@dataclass(frozen=True)
class PhantomPlan:
    """``[phantom]``; see `phantom.build_phantom` for `density` and `contrast`, `phantom.assign_tissues` for `materials`."""

    calibration: str = "schneider"
    metal_material: str = ""
    materials: str = "hu"
    density: str = "ct"
    contrast: str = "keep"
    patient: PatientPlan = PatientPlan()
    overrides: Mapping[str, OverridePlan] = field(default_factory=dict)


@dataclass(frozen=True)
class TherapyPlan:
    """``[therapy]``"""

    nuclide: str
    administered_MBq: float | None = None
    administered_at: datetime | None = None
    progeny: str | Mapping[str, float] | None = None
    progeny_max_half_life_d: float = 10.0


@dataclass(frozen=True)
class DosePlan:
    """``[dose]``; for `compare`, `kernel_tissues`, `density_scaling` and `local_photons` see `engines.EngineOptions`."""

    engine: str = "monte-carlo"
    compare: tuple[str, ...] = ()
    kernel_tissues: str = "lung-soft-bone"
    density_scaling: bool = True
    local_photons: bool = False
    dose_rate_route: bool = False
    relative_sigma: float | None = None
    organs: tuple[str, ...] = ()
    histories: int | None = None
    max_seconds: float | None = None
    voxel_mm: float | None = None
    seed: int = 1
    device: str = "auto"
    threads: int = 0
    estimator: str = "auto"


@dataclass(frozen=True)
class OutputPlan:
    """``[output]``"""

    radiomics: bool = True
    dicom: bool = True
    scene: bool = True
    deidentify: bool = True
    title: str = ""


@dataclass(frozen=True)
class RunPlan:
    """Everything that decides the result of one patient.

    Paths are absolute or relative to the working folder once `read_plan` has returned it.
    """

    image: ImagePlan
    segmentation: SegmentationPlan
    therapy: TherapyPlan
    schema: int = SCHEMA
    activity: tuple[ActivityPlan, ...] = ()
    organ_activity: tuple[OrganActivityPlan, ...] = ()
    phantom: PhantomPlan = PhantomPlan()
    kinetics: KineticsPlan = field(default_factory=KineticsPlan)
    dose: DosePlan = DosePlan()
    dosimetry: DosimetryPlan = field(default_factory=DosimetryPlan)
    output: OutputPlan = OutputPlan()

    def __post_init__(self) -> None:
        check_segmentation(self.segmentation)
        check_phantom(self.phantom)
        _check_activity(self)
        _check_therapy(self)
        _check_dose(self.dose)


def read_plan(path: str | Path, data_folder: str | Path | None = None) -> RunPlan:
    """Read and check a plan file.

    Parameters
    ----------
    path : path-like
        TOML file.
    data_folder : path-like, optional
        What relative paths in the plan refer to; the plan's own folder if not given.

    Raises
    ------
    SynthDoseError
        If the file cannot be read, is not TOML, or a key or value is not valid.
    """
    path = Path(path)
    values = read_toml(path, "plan")
    return plan_from_values(values, Path(data_folder) if data_folder else path.parent)


def plan_from_values(values: Mapping[str, Any], data_folder: Path) -> RunPlan:
    """Build a plan from the tables of a TOML file; see `read_plan`."""
    schema = values.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise SynthDoseError(f"The plan has schema {schema!r}; this version of SynthDose reads schema {SCHEMA}.")
    required = ("image", "segmentation", "therapy")
    known = [f.name for f in dataclasses.fields(RunPlan)]
    for key in values:
        if key not in known:
            raise SynthDoseError(f"The plan has an unknown table '{key}'.{nearest(key, known)} Valid: {', '.join(known)}.")
    for key in required:
        if key not in values:
            raise SynthDoseError(f"The plan lacks the table [{key}]. 'synthdose run --template' prints a complete plan.")
    return _with_base(read_table(RunPlan, values, "The plan"), data_folder)


def resolved_text(plan: RunPlan) -> str:
    """TOML of a plan with all its defaults: what it takes to repeat the run."""
    import tomlkit  # a fresh Slicer lacks it, and 'synthdose check' has to say so

    return f"{RESOLVED}\n{tomlkit.dumps(_to_toml(dataclasses.asdict(plan)))}"


def with_absolute_paths(plan: RunPlan) -> RunPlan:
    """The same plan, independent of the working folder."""
    return _with_base(plan, Path.cwd())


def plan_hash(plan: RunPlan) -> str:
    """SHA-256 of `resolved_text`, by which a run is known to be of the same plan."""
    return hashlib.sha256(resolved_text(with_absolute_paths(plan)).encode()).hexdigest()


def write_plan(plan: RunPlan, path: Path, *, as_named: bool = False) -> None:
    """Write `resolved_text` to a file, with absolute paths, or (`as_named`) with those of the plan."""
    path.write_text(resolved_text(plan if as_named else with_absolute_paths(plan)), encoding="utf-8")


def _to_toml(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _to_toml(item) for key, item in value.items() if item is not None and item not in ((), {})}
    if isinstance(value, tuple | list):
        return [_to_toml(item) for item in value]
    return value.as_posix() if isinstance(value, Path) else value


def _with_base(plan: RunPlan, base: Path) -> RunPlan:
    def table(entry: Any) -> Any:
        changes = {
            f.name: base / getattr(entry, f.name) for f in dataclasses.fields(entry) if isinstance(getattr(entry, f.name), Path)
        }
        return dataclasses.replace(entry, **changes)

    segmentation, phantom = table(plan.segmentation), plan.phantom
    if segmentation.labels.endswith(".csv"):
        segmentation = dataclasses.replace(segmentation, labels=str(base / segmentation.labels))
    if segmentation.bundle and (base / segmentation.bundle).exists():
        segmentation = dataclasses.replace(segmentation, bundle=str(base / segmentation.bundle))
    members = tuple(str(base / member) if (base / member).exists() else member for member in segmentation.ensemble)
    segmentation = dataclasses.replace(segmentation, ensemble=members)
    if phantom.calibration.endswith(".csv"):
        phantom = dataclasses.replace(phantom, calibration=str(base / phantom.calibration))
    return dataclasses.replace(
        plan,
        image=table(plan.image),
        segmentation=segmentation,
        phantom=phantom,
        activity=tuple(table(entry) for entry in plan.activity),
        kinetics=table(plan.kinetics),
        dosimetry=dataclasses.replace(table(plan.dosimetry), previous=tuple(table(entry) for entry in plan.dosimetry.previous)),
    )


def _one_of(where: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SynthDoseError(f"{where} is '{value}'.{nearest(value, allowed)} Allowed: {', '.join(allowed)}.")


def _positive(where: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise SynthDoseError(f"{where} has to be positive; found {value}.")


def check_segmentation(segmentation: SegmentationPlan) -> None:
    given = [name for name in ("path", "bundle", "method") if getattr(segmentation, name)]
    if len(given) != 1:
        raise SynthDoseError(
            f"[segmentation] needs exactly one of path, bundle and method; found {', '.join(given) or 'none of them'}."
        )
    if segmentation.method:
        _one_of("[segmentation] method", segmentation.method, ("tissue",))
    if not segmentation.bundle:
        for key in ("ensemble", "trusted", "overrides", "uncertainty", "memory_GB", "download"):
            if getattr(segmentation, key):
                raise SynthDoseError(f"[segmentation] {key} needs a bundle; found {given[0]}.")
    if segmentation.method and segmentation.organs:
        raise SynthDoseError("[segmentation] organs needs a bundle or a path: tissues by HU are all given.")
    if segmentation.uncertainty and not 2 <= segmentation.uncertainty <= 100:
        raise SynthDoseError(
            f"[segmentation] uncertainty is a number of inferences, 0 (none) or 2 to 100; found {segmentation.uncertainty}."
        )
    _positive("[segmentation] memory_GB", segmentation.memory_GB)
    _one_of("[segmentation] unlisted", segmentation.unlisted, ("refuse", "background"))


def check_phantom(phantom: PhantomPlan) -> None:
    """Raise `SynthDoseError` unless the words of ``[phantom]`` are known and go together."""
    _one_of("[phantom] materials", phantom.materials, ("hu", "labels"))
    _one_of("[phantom] density", phantom.density, ("ct", "reference"))
    _one_of("[phantom] contrast", phantom.contrast, ("keep", "override"))
    if phantom.patient.sex:
        _one_of("[phantom.patient] sex", phantom.patient.sex, ("female", "male"))
    if phantom.materials == "labels":
        given = [
            key
            for key, default in (("calibration", "schneider"), ("metal_material", ""), ("density", "ct"), ("contrast", "keep"))
            if getattr(phantom, key) != default
        ]
        if given:
            raise SynthDoseError(f'[phantom] {given[0]} is about CT numbers, which materials = "labels" does not use.')


def _check_activity(plan: RunPlan) -> None:
    if bool(plan.activity) == bool(plan.organ_activity):
        raise SynthDoseError("The plan needs either [[activity]] or [[organ_activity]], to say where the nuclide is.")
    check_time_points(plan.activity)
    check_used(plan.kinetics, plan.activity)
    for row in plan.organ_activity:
        given = [n for n in ("tia_MBq_s", "residence_time_h", "activity_MBq") if getattr(row, n) is not None]
        if len(given) != 1:
            raise SynthDoseError(
                f"[[organ_activity]] {row.organ} needs exactly one of tia_MBq_s, residence_time_h and activity_MBq; "
                f"found {', '.join(given) or 'none'}."
            )
        value = getattr(row, given[0])
        if not (math.isfinite(value) and value >= 0):
            raise SynthDoseError(f"[[organ_activity]] {row.organ} {given[0]} has to be 0 or more; found {value}.")
        if given[0] == "residence_time_h" and plan.therapy.administered_MBq is None:
            raise SynthDoseError("[[organ_activity]] residence_time_h needs [therapy] administered_MBq.")


def _check_therapy(plan: RunPlan) -> None:
    _positive("[therapy] administered_MBq", plan.therapy.administered_MBq)
    _positive("[therapy] progeny_max_half_life_d", plan.therapy.progeny_max_half_life_d)
    if isinstance(plan.therapy.progeny, str):
        _one_of("[therapy] progeny", plan.therapy.progeny, ("none", "all"))


def _check_dose(dose: DosePlan) -> None:
    check_engines(dose.engine, dose.compare)
    _one_of("[dose] kernel_tissues", dose.kernel_tissues, KERNEL_TISSUES)
    _one_of("[dose] device", dose.device, ("cpu", "cuda", "auto"))
    _one_of("[dose] estimator", dose.estimator, ("auto", "analog"))
    for name in ("relative_sigma", "histories", "max_seconds", "voxel_mm"):
        _positive(f"[dose] {name}", getattr(dose, name))
    if dose.threads < 0 or dose.seed < 0:
        raise SynthDoseError(f"[dose] threads and seed have to be 0 or more; found {dose.threads} and {dose.seed}.")
    if "monte-carlo" not in (dose.engine, *dose.compare):
        return
    if dose.relative_sigma is None and dose.histories is None and dose.max_seconds is None:
        raise SynthDoseError("[dose] needs a stop: relative_sigma (with organs), histories, or max_seconds.")
    if dose.relative_sigma is not None and not dose.organs:
        raise SynthDoseError('[dose] relative_sigma needs organs: the names whose mean dose has to reach it, as in ["liver"].')
