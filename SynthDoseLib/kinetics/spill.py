"""Activity that blur moved between regions, brought back with a recovery curve."""

from __future__ import annotations

import math

import numpy as np

from ..core import LabelMap, SynthDoseError
from .recovery import RecoveryCurve, recovery_note
from .transfer import LEAST_OWN, transfer_matrix
from .values import REST, Findings


def region_volumes(labels: LabelMap) -> dict[str, float]:
    """Volume per region, ml; unlabelled voxels count as the rest of the body where they hold activity."""
    counts = labels.voxel_counts()
    if REST not in counts:
        counts = {**counts, REST: int(np.count_nonzero(labels.labels == 0))}
    return {name: count * labels.grid.voxel_volume_ml for name, count in counts.items()}


def recovered(
    measured: list[dict[str, float]],
    regions: list[str],
    labels: LabelMap,
    curve: RecoveryCurve | None,
    variation: float,
    findings: Findings,
) -> tuple[list[dict[str, float]], dict[str, tuple[float, float, float]]]:
    """Activities without blur, and per region the recovery, its sigma, and what that does to the activity (relative)."""
    result = [dict(sums) for sums in measured]
    factors = {region: (1.0, 0.0, 0.0) for region in regions}
    if curve is None:
        return result, factors
    findings.notes += curve.notes
    if curve.form != "logistic":
        return _unblurred(measured, regions, labels, curve, variation, findings)
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
    return result, factors


def _unblurred(
    measured: list[dict[str, float]],
    regions: list[str],
    labels: LabelMap,
    curve: RecoveryCurve,
    variation: float,
    findings: Findings,
) -> tuple[list[dict[str, float]], dict[str, tuple[float, float, float]]]:
    """As `recovered`, for all regions at once with the width of the blur."""
    fwhm = curve.parameters["fwhm_mm"]
    spread = max(math.hypot(math.sqrt(float(curve.covariance[0, 0])), variation), 1e-3)
    retained = curve.parameters.get("retained", 1.0)
    matrix = transfer_matrix(labels, regions, fwhm, retained)
    wider = transfer_matrix(labels, regions, fwhm * math.exp(spread), retained)
    result, changes = [], []
    for sums in measured:
        values = np.array([sums.get(region, 0.0) for region in regions])
        true, other = matrix.solve(values), wider.solve(values)
        result.append({**sums, **dict(zip(regions, (float(v) for v in true), strict=True))})
        changes.append(np.abs(other / np.maximum(true, 1e-300) - 1))
    effect = np.max(changes, axis=0)
    total = [np.array([sums.get(region, 0.0) for region in regions]) for sums in measured]
    share = sum(total) / np.maximum(sum(np.array([s[r] for r in regions]) for s in result), 1e-300)
    findings.say(
        f"Blur was undone between all regions at once (geometric transfer matrix, Gaussian of {fwhm:.2f} mm full width at half "
        f"maximum from the recovery curve, {spread:.0%} uncertain within the field of view): every region is taken to be "
        "uniform."
    )
    lost = [r for r, own in zip(regions, np.diag(matrix.shares), strict=True) if own < LEAST_OWN]
    if lost:
        findings.warn(f"Too small for a recovery correction, left as measured: {', '.join(lost)}.")
    pairs = list(zip(result, measured, strict=True))
    empty = [r for r in regions if any(after[r] == 0 and before.get(r, 0) > 0 for after, before in pairs)]
    if empty:
        findings.warn(
            f"All activity seen in {', '.join(empty)} at one or more times can come from its neighbours by blur; none was "
            "left there."
        )
    factors = {
        region: (float(share[n]), float(share[n] * min(effect[n], 1.0)), float(min(effect[n], 1.0)))
        for n, region in enumerate(regions)
    }
    return result, factors
