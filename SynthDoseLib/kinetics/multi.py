"""Time-integrated activity per organ and voxel from several activity images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..core import ImageVolume, LabelMap, SynthDoseError, resample_labels
from .average import CANDIDATES, ModelAverage, fit_models
from .curves import curve_model
from .fit import LN2, CurveFit
from .gas import FWHM_MM, without_gas
from .noise import region_noise_MBq
from .recovery import RecoveryCurve
from .regrid import Covered, checked, onto_phantom
from .shared import fit_shared
from .single_time import SingleTimeIntegral, hanscheid, madsen, population_half_life
from .spill import recovered, region_volumes
from .time_points import TimeActivity, time_activity
from .trapezoid import TrapezoidIntegral, integrate_trapezoid
from .values import REST, ActivityRow, Findings, TimeIntegratedActivity, organ_sums, require_positive, residence_time_h
from .voxelwise import VoxelFit, fit_voxels

METHODS = ("auto", "trapezoid", "hanscheid", "population", "madsen")
SINGLE = ("hanscheid", "population", "madsen")
MOST_TIME_POINTS = 10
AGREE = 0.1  # between the sum of the voxels' integrals and the organ's own
RegionIntegral = CurveFit | ModelAverage | TrapezoidIntegral | SingleTimeIntegral


@dataclass(frozen=True)
class TimeCourseOptions:
    """How activities become integrals.

    Attributes
    ----------
    method : str
        "auto" (exponentials by AICc), the name of one model, "trapezoid", or for one time point "hanscheid", "population",
        "madsen".
    models : tuple of str
        Candidates of "auto".
    average : bool
        Average the models by their Akaike weights; otherwise take the best.
    relative_sigma : float or None
        Scatter of a region's activity from scan to scan beyond the noise of its image; None: not known, taken from the scatter
        about the curve.
    noise_fwhm_mm : float or None
        Grain of the images' noise (see `region_noise_MBq`); None leaves the noise of the image out.
    fixed : mapping of parameter name to value
    shared : tuple of str
        Parameters that the regions of `shared_regions` have in common; needs one model as `method`.
    shared_regions : tuple of str
    start, tail : str
        Of the trapezoidal rule.
    half_life_h, half_life_sigma_h : mapping of region to h
        Of a population, for methods with one time point.
    voxelwise : bool
        Fit every voxel as well; the map then follows the voxels' own integrals within each region.
    voxel_model : str
    recovery : RecoveryCurve or None
        Of form "sphere": blur is undone between all regions at once; otherwise region by region.
    blur_relative_sigma : float
        How much the width of the blur differs within the field of view from that of a "sphere" curve.
    calibration_relative_sigma : float
        Common to all regions and times.
    """

    method: str = "auto"
    models: tuple[str, ...] = CANDIDATES
    average: bool = True
    relative_sigma: float | None = 0.05
    noise_fwhm_mm: float | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    shared_regions: tuple[str, ...] = ()
    start: str = "constant"
    tail: str = "physical"
    half_life_h: Mapping[str, float] = field(default_factory=dict)
    half_life_sigma_h: Mapping[str, float] = field(default_factory=dict)
    voxelwise: bool = False
    voxel_model: str = "mono"
    recovery: RecoveryCurve | None = None
    blur_relative_sigma: float = 0.1
    calibration_relative_sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            curve_model(self.method)  # raises, naming the models
        if self.shared and self.method in METHODS:
            raise SynthDoseError('Shared parameters need one model: give method = "mono", "mono-uptake" …, in place of "auto".')


@dataclass(frozen=True, eq=False)
class RegionCurve:
    """Time course of one region.

    Attributes
    ----------
    region : str
    volume_ml : float
    integral : CurveFit, ModelAverage, TrapezoidIntegral or SingleTimeIntegral
        With the data it was made from, recovery corrected.
    recovery, recovery_sigma : float
        Coefficient used, 1 ± 0 if none was.
    parts : dict of str to float
        Relative standard uncertainties of the time-integrated activity by origin: "fit" (noise and curve), "recovery",
        "calibration".
    """

    region: str
    volume_ml: float
    integral: RegionIntegral
    recovery: float
    recovery_sigma: float
    parts: dict[str, float]

    @property
    def total_sigma_MBq_h(self) -> float:
        """Standard uncertainty of the time-integrated activity, all parts together."""
        return self.integral.tia_MBq_h * math.sqrt(sum(part**2 for part in self.parts.values()))


@dataclass(frozen=True, eq=False)
class TimeCourse:
    """What `integrate_time_points` found.

    Attributes
    ----------
    tia : TimeIntegratedActivity
    times_h : tuple of float
    curves : tuple of RegionCurve
    voxels : VoxelFit or None
    """

    tia: TimeIntegratedActivity
    times_h: tuple[float, ...]
    curves: tuple[RegionCurve, ...]
    voxels: VoxelFit | None


def integrate_time_points(
    images: Sequence[ImageVolume],
    hours: Sequence[float],
    labels: LabelMap,
    *,
    physical_half_life_s: float,
    options: TimeCourseOptions | None = None,
    body: NDArray[np.bool_] | None = None,
    tissue: NDArray[np.float32] | None = None,
    administered_MBq: float | None = None,
    negative: str = "refuse",
) -> TimeCourse:
    """Fit the activity of every region over time, integrate it, and spread it over the voxels.

    Within a region the map follows the time-weighted sum of the images (trapezoidal weights with a physical tail), or with
    ``voxelwise`` the voxels' own fits; its sum is that of the region's curve.

    Parameters
    ----------
    images : sequence of 1 to 10 ImageVolume
        Bq/ml, registered to the phantom, each on its own grid.
    hours : sequence of float
        Start of each acquisition after administration, in any order.
    labels : LabelMap
        On the grid of the phantom.
    physical_half_life_s : float
    options : TimeCourseOptions, optional
    body, tissue, administered_MBq, negative
        As for `time_integrated_activity`; a recovery correction, too, then finds no activity in gas.

    Returns
    -------
    TimeCourse

    Raises
    ------
    SynthDoseError
        If images, times and method do not fit together; see also `time_integrated_activity`.
    """
    options = options or TimeCourseOptions()
    physical_h = require_positive("physical_half_life_s", physical_half_life_s, "s") / 3600.0
    if administered_MBq is not None:
        require_positive("administered_MBq", administered_MBq, "MBq")
    if not 1 <= len(images) <= MOST_TIME_POINTS or len(images) != len(hours):
        raise SynthDoseError(
            f"Time courses are made of 1 to {MOST_TIME_POINTS} images, each with its time; found {len(images)} images and "
            f"{len(hours)} times."
        )
    if options.method in SINGLE and len(images) > 1:
        raise SynthDoseError(f'The method "{options.method}" uses one time point; the plan has {len(images)}. Use "auto".')
    order = np.argsort(hours, kind="stable")
    images, times = [images[n] for n in order], [float(hours[n]) for n in order]
    time_activity("the images", times, np.ones(len(times)))  # raises for equal times and those before administration
    findings = Findings()
    if (order != np.arange(order.size)).any():
        findings.say("The time points were not in order of time and were sorted.")
    fwhm_mm = FWHM_MM if options.recovery is None else options.recovery.parameters.get("fwhm_mm", FWHM_MM)
    covered = Covered()
    maps = [
        _on_phantom(image, labels, body, tissue, fwhm_mm, negative, findings, n, covered)
        for n, image in enumerate(images, start=1)
    ]
    volume_ml = labels.grid.voxel_volume_ml
    volumes = region_volumes(labels)
    solid = without_gas(labels, tissue)
    measured = [organ_sums(m * np.float32(volume_ml * 1e-6), labels) for m in maps]
    regions = [r for r in measured[0] if any(sums.get(r, 0.0) > 0 for sums in measured)]
    found = recovered(images, measured, regions, solid, options.recovery, options.blur_relative_sigma, findings)
    corrected, recovery = found.activity_MBq, found.factors
    regions = [r for r in regions if any(sums[r] > 0 for sums in corrected)]
    noise, seen = found.noise_MBq, _noise(images, solid, regions, options)
    if seen is not None:  # before recovery was corrected
        noise = [{r: sigma / recovery[r][0] for r, sigma in sums.items()} for sums in seen]
    data = [
        time_activity(
            region,
            times,
            [corrected[n][region] for n in range(len(times))],
            _sigma(noise, region, options),
            relative_sigma=options.relative_sigma,
        )
        for region in regions
    ]
    integrals = _integrals(data, physical_h, options)
    curves = []
    for region, integral in zip(regions, integrals, strict=True):
        coefficient, coefficient_sigma, effect = recovery[region]
        fit_part = integral.tia_sigma_MBq_h / integral.tia_MBq_h if integral.tia_MBq_h > 0 else math.nan
        parts = {"fit": fit_part, "recovery": effect, "calibration": options.calibration_relative_sigma}
        parts = {name: part for name, part in parts.items() if part > 0}
        curves.append(RegionCurve(region, volumes[region], integral, coefficient, coefficient_sigma, parts))
        for note in integral.notes:
            findings.say(note)
    voxels = None
    shape = _time_weighted(maps, times, physical_h)
    if options.voxelwise:
        voxels = fit_voxels(times, maps, physical_half_life_h=physical_h, model=options.voxel_model, mask=np.asarray(shape > 0))
        shape = np.maximum(voxels.tia_h, np.float32(0))
        findings.notes += voxels.notes
    tia = _spread(shape, labels, curves, findings, voxels is not None)
    rows = tuple(_row(curve, administered_MBq, corrected[0][curve.region]) for curve in curves)
    _remarks(rows, times, options, physical_h, administered_MBq, findings)
    unique, warned = tuple(dict.fromkeys(findings.notes)), tuple(dict.fromkeys(findings.warnings))
    return TimeCourse(TimeIntegratedActivity(labels.grid, tia, rows, unique, warned), tuple(times), tuple(curves), voxels)


def _on_phantom(
    image: ImageVolume,
    labels: LabelMap,
    body: NDArray[np.bool_] | None,
    tissue: NDArray[np.float32] | None,
    fwhm_mm: float,
    negative: str,
    findings: Findings,
    number: int,
    covered: Covered,
) -> NDArray[np.float32]:
    if image.unit != "Bq/ml":
        raise SynthDoseError(
            f"The activity image of time point {number} is in '{image.unit or 'unknown units'}', needed is Bq/ml. For counts "
            "give the calibration (sensitivity and duration), for SUV the injected activity, its time and the weight; or state "
            'unit = "Bq/ml".'
        )
    own = Findings()
    values = checked(image.values, "activity", "Bq/ml", negative, own)
    result = onto_phantom(values, image.grid, labels, body, own, tissue, fwhm_mm, covered)
    findings.notes += [f"Time point {number}: {note}" for note in own.notes]
    findings.warnings += [f"Time point {number}: {note}" for note in own.warnings]
    return result


def _noise(
    images: Sequence[ImageVolume], labels: LabelMap, regions: Sequence[str], options: TimeCourseOptions
) -> list[dict[str, float]] | None:
    """Standard deviation of every region's activity from the noise of each image, MBq."""
    if options.noise_fwhm_mm is None:
        return None
    index = {organ.name: organ.index for organ in labels.organs}
    found = []
    for image in images:
        own = resample_labels(labels, image.grid).labels
        masks = {region: own == index.get(region, 0) for region in regions}
        sigmas = {r: region_noise_MBq(image, m, noise_fwhm_mm=options.noise_fwhm_mm) for r, m in masks.items() if m.any()}
        found.append({region: sigma for region, sigma in sigmas.items() if sigma > 0})
    return found


def _sigma(noise: list[dict[str, float]] | None, region: str, options: TimeCourseOptions) -> list[float] | None:
    """Noise of a region at every time; None where it is not known."""
    if noise is None or (options.relative_sigma is None and any(region not in found for found in noise)):
        return None
    return [found.get(region, 0.0) for found in noise]


def _integrals(data: Sequence[TimeActivity], physical_h: float, options: TimeCourseOptions) -> list[RegionIntegral]:
    found: dict[str, RegionIntegral] = {}
    if options.shared:
        wanted = options.shared_regions or tuple(d.region for d in data)
        missing = sorted(set(wanted) - {d.region for d in data})
        if missing:
            raise SynthDoseError(
                f"Parameters are to be shared by {', '.join(missing)}, which hold no activity or do not exist."
            )
        together = [d for d in data if d.region in wanted]
        fits = fit_shared(together, options.method, shared=options.shared, physical_half_life_h=physical_h, fixed=options.fixed)
        found |= {fit.data.region: fit for fit in fits}
    for d in data:
        if d.region not in found:
            found[d.region] = _integral(d, physical_h, options)
    return [found[d.region] for d in data]


def _integral(data: TimeActivity, physical_h: float, options: TimeCourseOptions) -> RegionIntegral:
    if options.method == "trapezoid":
        return integrate_trapezoid(data, physical_half_life_h=physical_h, start=options.start, tail=options.tail)
    if options.method == "hanscheid":
        half_life, spread = options.half_life_h.get(data.region), options.half_life_sigma_h.get(data.region)
        return hanscheid(data, half_life_h=half_life, half_life_sigma_h=spread)
    if options.method in SINGLE:
        half_life = options.half_life_h.get(data.region, options.half_life_h.get(REST, physical_h))
        spread = options.half_life_sigma_h.get(data.region, options.half_life_sigma_h.get(REST))
        if options.method == "population":
            return population_half_life(data, half_life, spread)
        return madsen(data, LN2 / half_life, None if spread is None else LN2 / half_life * spread / half_life)
    models = options.models if options.method == "auto" else (options.method,)
    if options.method == "auto" and data.activity_MBq[-1] == 0:
        return integrate_trapezoid(data, physical_half_life_h=physical_h, start=options.start)
    return fit_models(data, models, physical_half_life_h=physical_h, fixed=options.fixed, average=options.average)


def _time_weighted(maps: Sequence[NDArray[np.float32]], times: Sequence[float], physical_h: float) -> NDArray[np.float32]:
    """Trapezoidal sum of the images with a physical tail: how decays are shared among the voxels of a region."""
    t = np.array([0.0, *times])
    weights = np.zeros(len(times))
    weights[0] += t[1] - t[0]
    for n in range(1, len(times)):
        weights[n - 1] += (t[n + 1] - t[n]) / 2
        weights[n] += (t[n + 1] - t[n]) / 2
    weights[-1] += physical_h / LN2
    total = np.zeros(maps[0].shape, np.float32)
    for weight, image in zip(weights, maps, strict=True):
        total += np.float32(weight) * image
    return total


def _spread(
    shape: NDArray[np.float32], labels: LabelMap, curves: Sequence[RegionCurve], findings: Findings, voxelwise: bool
) -> NDArray[np.float32]:
    """Time-integrated activity per voxel, MBq s: `shape` scaled in every region to the region's integral."""
    sums = organ_sums(shape, labels)
    size = max((o.index for o in labels.organs), default=0) + 1
    scale = np.zeros(size)
    index = {organ.name: organ.index for organ in labels.organs}
    apart = []
    for curve in curves:
        wanted = curve.integral.tia_MBq_h * 3600.0
        here = sums.get(curve.region, 0.0)
        if here <= 0:
            continue
        scale[index.get(curve.region, 0)] = wanted / here
        own = here * labels.grid.voxel_volume_ml * 1e-6 * 3600.0
        if voxelwise and curve.recovery == 1.0 and abs(own / wanted - 1) > AGREE:
            apart.append(f"{curve.region} {own / wanted - 1:+.0%}")
        if curve.region == REST and REST in index:
            scale[0] = scale[index[REST]]
    if apart:
        findings.warn(
            "The sum of the voxels' own integrals differs from the integral of the whole region, to which it was scaled, "
            f"by more than {AGREE:.0%}: {', '.join(apart)}."
        )
    return np.asarray(shape * scale[labels.labels], np.float32)


def _row(curve: RegionCurve, administered_MBq: float | None, first_MBq: float) -> ActivityRow:
    total = curve.integral.tia_MBq_h * 3600.0
    sigma = curve.total_sigma_MBq_h * 3600.0
    half_life = curve.integral.effective_half_life_h
    return ActivityRow(
        curve.region,
        first_MBq,
        half_life if math.isfinite(half_life) else None,
        "fitted" if isinstance(curve.integral, CurveFit | ModelAverage) else curve.integral.model,
        total,
        residence_time_h(total, administered_MBq),
        sigma if math.isfinite(sigma) and sigma > 0 else None,
        curve.integral.model,
        dict(curve.parts),
    )


def _remarks(
    rows: Sequence[ActivityRow],
    times: Sequence[float],
    options: TimeCourseOptions,
    physical_h: float,
    administered_MBq: float | None,
    findings: Findings,
) -> None:
    shown = ", ".join(f"{t:.4g}" for t in times)
    findings.say(
        f"Activity was measured {shown} h after administration; every region was integrated by itself "
        f"({'exponential models weighed by AICc' if options.method == 'auto' else options.method}), never clearing more "
        f"slowly than the nuclide decays ({physical_h:.5g} h)."
    )
    if options.relative_sigma is not None:
        findings.say(
            f"A region's activity was taken to scatter by {options.relative_sigma:.3g} of itself from scan to scan "
            "(relative_sigma)."
        )
    if options.recovery is None:
        findings.say(
            "Blur of the activity images (spill-out and spill-in) is not corrected: small organs and lesions show too little "
            "activity, and their neighbours too much. A recovery curve corrects for it."
        )
    if administered_MBq is not None:
        whole = sum(row.tia_MBq_s for row in rows)
        most = administered_MBq * physical_h * 3600 / LN2
        text = f"The decays in the images are {whole / most:.1%} of all that the administered activity can make."
        if whole > most:
            findings.warn(f"{text} More than all of them: check calibration and times.")
        else:
            findings.say(text)
