"""Activity that blur moved between regions, brought back with a recovery curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core import ImageVolume, LabelMap, SynthDoseError
from .recovery import RecoveryCurve, recovery_note
from .unblur import unblurred_activity
from .values import REST, Findings


def region_volumes(labels: LabelMap) -> dict[str, float]:
    """Volume per region, ml; unlabelled voxels count as the rest of the body where they hold activity."""
    counts = labels.voxel_counts()
    if REST not in counts:
        counts = {**counts, REST: int(np.count_nonzero(labels.labels == 0))}
    return {name: count * labels.grid.voxel_volume_ml for name, count in counts.items()}


@dataclass(frozen=True)
class Recovered:
    """What `recovered` found.

    Attributes
    ----------
    activity_MBq : list of dict of region to float
        Per image, without blur.
    factors : dict of region to (float, float, float)
        Recovery, its sigma, and what that does to the activity (relative).
    noise_MBq : list of dict of region to float, or None
        Per image; None where only the sums of regions were used.
    """

    activity_MBq: list[dict[str, float]]
    factors: dict[str, tuple[float, float, float]]
    noise_MBq: list[dict[str, float]] | None = None


def recovered(
    images: Sequence[ImageVolume],
    measured: list[dict[str, float]],
    regions: list[str],
    labels: LabelMap,
    curve: RecoveryCurve | None,
    variation: float,
    findings: Findings,
) -> Recovered:
    """Activities without blur, from the sums per region as `measured` in `images`."""
    result = [dict(sums) for sums in measured]
    factors = {region: (1.0, 0.0, 0.0) for region in regions}
    if curve is None:
        return Recovered(result, factors)
    findings.notes += curve.notes
    if curve.form != "logistic":
        return _unblurred(images, measured, regions, labels, curve, variation, findings)
    volumes = region_volumes(labels)
    skipped = []
    for region in regions:
        if region == REST:
            continue
        try:
            coefficient, sigma = curve.at(volumes[region])
        except SynthDoseError:
            skipped.append(region)
            continue
        effect = 0.0
        for sums, before in zip(result, measured, strict=True):
            # the mean concentration of a region is R C + (1 - R) B with the concentration B of the rest of the body
            background = before.get(REST, 0.0) / volumes[REST] * volumes[region] if volumes.get(REST) else 0.0
            after = max((before[region] - (1 - coefficient) * background) / coefficient, 0.0)
            if after > 0:
                effect = max(effect, abs(after - background) / after * sigma / coefficient)
            sums[region] = after
        factors[region] = (coefficient, sigma, effect)
        findings.say(recovery_note(curve, region, volumes[region]))
    if skipped:
        findings.warn(f"Too small for a recovery correction, left as measured: {', '.join(skipped)}.")
    findings.say(
        "Recovery was corrected organ by organ, against the concentration of the rest of the body; what spills from one "
        "organ into another, and from organs into the rest of the body, was left there."
    )
    return Recovered(result, factors)


def _unblurred(
    images: Sequence[ImageVolume],
    measured: list[dict[str, float]],
    regions: list[str],
    labels: LabelMap,
    curve: RecoveryCurve,
    variation: float,
    findings: Findings,
) -> Recovered:
    """As `recovered`, for all regions at once, with a blur that the images themselves narrow down."""
    fwhm, retained = curve.parameters["fwhm_mm"], min(curve.parameters.get("retained", 1.0), 1.0)
    spread = max(math.hypot(math.sqrt(float(curve.covariance[0, 0])), variation), 1e-3)
    scatter_sigma = retained * math.sqrt(float(curve.covariance[1, 1])) if "retained" in curve.parameters else 0.0
    found = unblurred_activity(
        images, labels, regions, fwhm_mm=fwhm, retained=retained, width_sigma=spread, retained_sigma=scatter_sigma
    )
    result, noise = [], []
    for sums, activity, sigma in zip(measured, found.activity_MBq, found.noise_MBq, strict=True):
        solved = {r: float(v) for r, v in zip(regions, activity, strict=True) if r not in found.lost}
        result.append({**sums, **solved})
        noise.append({r: float(v) for r, v in zip(regions, sigma, strict=True) if v > 0})
    low, high = found.fwhm_mm.min(), found.fwhm_mm.max()
    findings.say(
        "Blur was undone between all regions at once (geometric transfer matrix with weighted voxels): every region is taken "
        f"to be uniform. The recovery curve has a Gaussian of {fwhm:.2f} mm full width at half maximum; without what voxels "
        f"add the images have {low:.1f} to {high:.1f} mm at the regions, {found.fwhm_sigma:.1%} uncertain at one place."
    )
    if found.lost:
        findings.warn(f"Too small for a recovery correction, left as measured: {', '.join(found.lost)}.")
    pairs = list(zip(result, measured, strict=True))
    empty = [r for r in regions if any(after[r] == 0 and before.get(r, 0) > 0 for after, before in pairs)]
    if empty:
        findings.warn(
            f"All activity seen in {', '.join(empty)} at one or more times can come from its neighbours by blur; none was "
            "left there."
        )
    factors = {}
    for n, region in enumerate(regions):
        after, before = (sum(sums.get(region, 0.0) for sums in side) for side in (result, measured))
        share = before / after if after > 0 else 1.0
        factors[region] = (share, share * float(found.effect[n]), float(found.effect[n]))
    return Recovered(result, factors, noise)
