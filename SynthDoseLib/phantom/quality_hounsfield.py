"""Are a CT's numbers Hounsfield units? Air, fat and soft tissue where they belong, nothing clipped, no steps, no padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import ImageVolume

from .body import PADDING_HU
from .metal import METAL_HU
from .quality_organ import AIRY_HU
from .quality_values import FAIL, NOTE, WARNING, Finding

# The scale is defined by vacuum, -1000 HU (air is 1 HU above), and water, 0 HU (IAEA, Diagnostic Radiology Physics, 2014).
AIR_HU, SOFT_TISSUE_HU, FAT_HU = -1000.0, 50.0, -105.0
# Muscle, liver, blood and brain (ICRP 110) have 43 to 64 HU at effective energies of 50 to 75 keV by XCOM, more with contrast
# agent, less with oedema; adipose tissue (ICRU 37, 44) -72 to -140, least at a low voltage. Water phantoms have 0, PMMA 120.
FITTING_HU = 40.0
SLOPE_GRAVE, OFFSET_GRAVE_HU = (0.85, 1.15), 150.0
AIR_LIMITS_HU, FOAM_HU = (-1070.0, -880.0), 60.0  # foam and mattresses around the patient are up to 100 HU above air
FAT_LIMITS_HU, SOFT_LIMITS_HU, MUSCLE_LIMITS_HU = (-150.0, -50.0), (-30.0, 125.0), (10.0, 110.0)
APART_LIMITS_HU = (100.0, 185.0)  # from fat to muscle: 115 to 187 by the same tables, XCOM at 75 and 50 keV
BLOCK_MM = 5.0
CALM_SHARE = 0.5  # blocks that differ least from their neighbours: no edges, no lung
BIN_HU, SMOOTH_BINS, RANGE_HU = 4.0, 3.0, 400.0
BETWEEN_HU = -30.0
LEAST_BLOCKS, LEAST_PROMINENCE, LEAST_PEAK = 300, 0.03, 0.1
SHIFTED_HU, SHIFTED_SHARE = (500.0, 1500.0), 0.2  # bone of so many HU is 5 % of a body
FLOORS_HU = (-1000.0, -1024.0)  # where scanners and converters cut off on purpose
SPIKE_SHARE, FLOOR_SHARE = 0.1, 0.03  # gas in bowel and throat is 1 % of a trunk, lungs are 10 %
# the floor of a right scale lies below its gas: even noise of 100 HU leaves 60 % of that above -1024 HU
GAS_HU, CUT_GAS_LIMITS_HU, CUT_GAS_SHARE = -900.0, (-1100.0, -1010.0), 0.6
CUT_BONE_SHARE, BONE_HU = 0.02, 150.0
FEW_VALUES, FEW_SHARE = 12, 0.6  # so few in so much of the body: tissues drawn with one value each
ALIKE_SHARE = 0.7  # of neighbours with exactly one value; noise of 1 HU leaves 0.3
COARSE_STEP_HU, STEP_RANGE_HU = 5.0, 200.0
SAMPLE = 1_000_000


@dataclass(frozen=True)
class CTLandmarks:
    """CT numbers that every scan of a person has in common, HU.

    Attributes
    ----------
    air : float or None
        Commonest value outside the body; None if the image shows none.
    air_is_cut : bool
        Air has one single value: the numbers below were cut off there.
    peaks : tuple of float
        Peaks of the histogram of the body's even parts between -400 and 400 HU, ascending: fat and soft tissues.
    tallest : float or None
        The commonest of them.
    """

    air: float | None = None
    air_is_cut: bool = False
    peaks: tuple[float, ...] = ()
    tallest: float | None = None

    @property
    def fat(self) -> float | None:
        """Highest peak below water, where one of soft tissue is above it."""
        below = [peak for peak in self.peaks if peak < BETWEEN_HU]
        return below[-1] if below else None

    @property
    def soft_tissue(self) -> float | None:
        """Lowest peak above fat: the one with the least contrast agent."""
        above = [peak for peak in self.peaks if peak >= BETWEEN_HU]
        return above[0] if above else None

    def describe(self) -> str:
        """Words for a finding."""
        air = "" if self.air is None else f"air at {self.air:.0f} HU; "
        body = ", ".join(f"{peak:.0f}" for peak in self.peaks) or "no tissue between -400 and 400"
        return f"{air}peaks of the body at {body} HU"


def check_hounsfield(ct: ImageVolume, body: NDArray[np.bool_]) -> list[Finding]:
    """Judge whether the values of a CT can be Hounsfield units.

    Parameters
    ----------
    ct : ImageVolume
        With finite values.
    body : ndarray of bool, (nk, nj, ni)

    Returns
    -------
    list of Finding
        About a rescale slope or intercept that was lost or applied twice, values that were clipped or coarsened, and padding
        that was taken for the body. Images of a few values (drawn, not scanned) are not judged.
    """
    inside = ct.values[body]
    if not inside.size or np.ptp(inside) == 0:
        return []
    values, counts = np.unique(_sample(inside), return_counts=True)
    if _is_drawn(ct, body, values, counts):
        return []
    step = _step_hu(values)
    # what has been cut off moves the landmarks: they are judged where nothing was
    found = _check_shift(inside) or _check_clipping(ct, values, counts, step) or _check_landmarks(ct, body)
    found = found or _check_gas(inside, float(ct.values.min()))
    return found + _check_steps(step)


def _is_drawn(ct: ImageVolume, body: NDArray[np.bool_], values: NDArray[np.float32], counts: NDArray[np.int64]) -> bool:
    """Whether tissues have one value each, without noise, apart from what may have been cut off."""
    if len(values) <= 4 * FEW_VALUES and np.sort(counts)[-FEW_VALUES:].sum() > FEW_SHARE * counts.sum():
        return True
    every = slice(None, None, max(1, ct.grid.size // SAMPLE))
    one, next_one, both = ct.values[every, :, :-1], ct.values[every, :, 1:], body[every, :, :-1] & body[every, :, 1:]
    between = both & (one > ct.values.min()) & (one < ct.values.max())
    return bool(np.count_nonzero(between & (one == next_one)) > ALIKE_SHARE * np.count_nonzero(between))


def _check_clipping(ct: ImageVolume, values: NDArray[np.float32], counts: NDArray[np.int64], step: float) -> list[Finding]:
    """One value that much of the body has: a lower or an upper limit, or padding."""
    found = []
    total, lowest, highest = int(counts.sum()), float(ct.values.min()), float(ct.values.max())
    common = int(counts.argmax())
    share, value = float(counts[common] / total), float(values[common])
    floored = float(counts[0] / total) if values[0] == lowest else 0.0
    if share > SPIKE_SHARE * max(1.0, step / 2) or floored > FLOOR_SHARE:
        share, value = (floored, lowest) if floored > FLOOR_SHARE else (share, value)
        what = (
            "all below has been cut off there, so that air and lung are of one density"
            if value == lowest
            else "no tissue is that even; padding around the image was taken for the body"
        )
        found.append(
            Finding(
                FAIL if value > AIRY_HU else WARNING,
                "ct number",
                "",
                f"{share:.0%} of the body has exactly {value:g} HU: {what}",
                "another value in every voxel, as noise makes it",
                "Export the CT again with all of its values (no window, no 8 bits), padded with -1000 HU; check its slope.",
            )
        )
    bone = int(counts[values > BONE_HU].sum())
    cut = int(counts[-1]) if values[-1] == highest else 0
    if BONE_HU < highest < METAL_HU and cut > max(1.0, CUT_BONE_SHARE * bone):
        found.append(
            Finding(
                WARNING, "ct number", "",
                f"{cut / bone:.0%} of what is above {BONE_HU:g} HU has exactly {highest:g} HU, the largest value of the image: "
                "all above has been cut off there", "bone up to 1000 HU and more",
                "Export the CT again, with all of its values (no window, no 8 bits): dense bone is too light.",
            )
        )  # fmt: skip
    return found


def _check_gas(inside: NDArray[np.float32], lowest: float) -> list[Finding]:
    """Gas in the body that is all cut off below where gas belongs: what was there was lower still."""
    if not CUT_GAS_LIMITS_HU[0] < lowest < CUT_GAS_LIMITS_HU[1]:
        return []
    gas = inside[inside < GAS_HU]
    if gas.size < LEAST_BLOCKS or (share := float(np.mean(gas == lowest))) < CUT_GAS_SHARE:
        return []
    return [
        Finding(
            WARNING, "ct number", "",
            f"{share:.0%} of the gas in the body has exactly {lowest:g} HU: it was lower and has been cut off there, as if all "
            f"values had been multiplied by more than {lowest / AIR_HU:.2f}",
            f"gas around {AIR_HU:.0f} HU, with its noise",
            "Check rescale slope and intercept of the image; densities follow them.",
        )
    ]  # fmt: skip


def _step_hu(values: NDArray[np.float32]) -> float:
    """Distance of neighbouring values around water."""
    near = values[np.abs(values) < STEP_RANGE_HU]
    return float(np.median(np.diff(near))) if near.size > FEW_VALUES else 0.0


def _check_steps(step: float) -> list[Finding]:
    if step < COARSE_STEP_HU:
        return []
    return [
        Finding(
            NOTE, "ct number", "", f"CT numbers come in steps of {step:.3g} HU", "steps of 1 HU",
            "The image was stored with few bits; densities are as coarse.",
        )
    ]  # fmt: skip


def _check_shift(inside: NDArray[np.float32]) -> list[Finding]:
    """Much of the body as dense as bone: an intercept is missing."""
    low, high = SHIFTED_HU
    share = float(np.mean((inside > low) & (inside < high)))
    if share <= SHIFTED_SHARE:
        return []
    return [
        Finding(
            FAIL, "ct number", "", f"{share:.0%} of the body is between {low:g} and {high:g} HU, which only dense bone is",
            "most of a body between -150 and 150 HU",
            "Apply the rescale intercept of the image: [image] hu_offset = -1000 or -1024.",
        )
    ]  # fmt: skip


def _check_landmarks(ct: ImageVolume, body: NDArray[np.bool_]) -> list[Finding]:
    """Slope and offset of the scale, from air, fat and soft tissue."""
    marks = landmarks(ct, body)
    if not (wrong := _misplaced(marks)):
        return []
    slope, offset = _rescaling(marks)
    grave = not SLOPE_GRAVE[0] <= slope <= SLOPE_GRAVE[1] or abs(offset) > OFFSET_GRAVE_HU
    guess = [f"multiplied by {slope:.2f}"] if slope != 1.0 else []
    guess += [f"shifted by {offset:+.0f} HU"] if offset else []
    seems = f": as if all had been {' and '.join(guess)}" if guess else f": {wrong}"
    return [
        Finding(
            FAIL if grave else WARNING, "ct number", "", f"{marks.describe()}{seems}",
            f"air at {AIR_HU:.0f}, fat around {FAT_HU:.0f}, soft tissue around {SOFT_TISSUE_HU:.0f} HU (contrast agent: more)",
            "Check rescale slope and intercept of the image ([image] hu_offset adds an intercept); densities follow them.",
        )
    ]  # fmt: skip


def _misplaced(marks: CTLandmarks) -> str:
    """What lies where it cannot; "" if nothing does."""
    known_air = None if marks.air_is_cut else marks.air
    if marks.air is not None and not AIR_LIMITS_HU[0] <= marks.air <= AIR_LIMITS_HU[1]:
        return "the air is not that of a CT"
    if marks.tallest is None:
        return ""
    tissue = any(low <= marks.tallest <= high for low, high in (FAT_LIMITS_HU, SOFT_LIMITS_HU))
    plain = any(low <= peak <= high for peak in marks.peaks for low, high in (FAT_LIMITS_HU, MUSCLE_LIMITS_HU))
    enhanced = plain and marks.tallest > SOFT_LIMITS_HU[1]  # a liver full of contrast agent, say, beside muscle
    if not (tissue or enhanced) or marks.peaks[0] < FAT_LIMITS_HU[0]:
        return "neither fat nor soft tissue"
    if known_air is not None:
        moved = abs(known_air - AIR_HU) > FOAM_HU
        return "" if not moved or 2 * _misfit(marks, *_rescaling(marks)) > _misfit(marks) else "the air moved with the body"
    fat, soft = marks.fat, marks.soft_tissue
    if fat is None or soft is None or APART_LIMITS_HU[0] <= soft - fat <= APART_LIMITS_HU[1]:
        return ""
    return f"fat and soft tissue are {soft - fat:.0f} HU apart"


def _rescaling(marks: CTLandmarks) -> tuple[float, float]:
    """Slope or offset that may have turned Hounsfield units into the image's values; 1 and 0 if they cannot be told."""
    candidates = [(1.0, 0.0)]
    if marks.air is not None and not marks.air_is_cut:
        candidates = [(1.0, marks.air - AIR_HU)]
        slope = marks.air / AIR_HU
        if slope > 0 and marks.peaks and _misfit(marks, slope) < FITTING_HU * len(marks.peaks):
            candidates.append((slope, 0.0))
    elif marks.fat is not None and marks.soft_tissue is not None:
        candidates.append(((marks.soft_tissue - marks.fat) / (SOFT_TISSUE_HU - FAT_HU), 0.0))
    return min(candidates, key=lambda candidate: _misfit(marks, *candidate))


def _misfit(marks: CTLandmarks, slope: float = 1.0, offset: float = 0.0) -> float:
    """How far the body's peaks are from fat and muscle, HU in all, once slope and offset are undone."""
    undone = [(peak - offset) / slope for peak in marks.peaks]
    return sum(min(abs(hu - SOFT_TISSUE_HU), abs(hu - FAT_HU)) for hu in undone)


def landmarks(ct: ImageVolume, body: NDArray[np.bool_]) -> CTLandmarks:
    """Find the CT numbers of air, fat and soft tissue without labels."""
    air, cut = _air(ct.values[~body])
    means, full = _block_means(ct, body)
    change = np.zeros(means.shape, np.float32)
    for axis in range(3):
        step = np.abs(np.diff(means, axis=axis))
        for window in (slice(None, -1), slice(1, None)):
            part = tuple(window if n == axis else slice(None) for n in range(3))
            np.maximum(change[part], step, out=change[part])
    near = full & (np.abs(means) < RANGE_HU)
    if int(near.sum()) < LEAST_BLOCKS:
        return CTLandmarks(air, cut)
    calm = means[near & (change <= np.quantile(change[near], CALM_SHARE))]
    edges = np.arange(-RANGE_HU, RANGE_HU + BIN_HU / 2, BIN_HU)
    heights = ndimage.gaussian_filter1d(np.histogram(calm, edges)[0].astype(np.float64), SMOOTH_BINS, mode="constant")
    from scipy import signal  # takes as long to load as the rest of SciPy together

    places, _ = signal.find_peaks(heights, prominence=LEAST_PROMINENCE * heights.max(), height=LEAST_PEAK * heights.max())
    peaks = tuple(float(edges[n] + BIN_HU / 2) for n in places)
    tallest = max(zip(heights[places], peaks, strict=True), default=(0.0, None))[1]
    return CTLandmarks(air, cut, peaks, tallest)


def _air(outside: NDArray[np.float32]) -> tuple[float | None, bool]:
    """Commonest value outside the body, and whether air is cut off there."""
    values, counts = np.unique(np.rint(_sample(outside)), return_counts=True)
    # padding is one value far below air that nothing lies under
    seen = (values > PADDING_HU) | (counts <= counts.sum() / 1000) | (values != values.min(initial=0.0))
    values, counts = values[seen], counts[seen]
    if counts.sum() < LEAST_BLOCKS:
        return None, False
    edges = np.arange(values[0] - BIN_HU, values[-1] + 2 * BIN_HU, BIN_HU)
    heights, _ = np.histogram(values, edges, weights=counts)
    common = int(counts.argmax())
    cut = counts[common] > SPIKE_SHARE * counts.sum() and float(values[common]) in FLOORS_HU
    return float(edges[int(heights.argmax())] + BIN_HU / 2), bool(cut)


def _sample(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every so many of the values, a million at least: enough for shares, and quick to sort."""
    return values[:: max(1, values.size // SAMPLE)]


def _block_means(ct: ImageVolume, body: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Means over blocks of about 5 mm, which have little noise, and which of them lie in the body altogether."""
    edge = [max(1, round(BLOCK_MM / spacing)) for spacing in ct.grid.spacing_mm[::-1]]
    blocks = [max(1, n // e) for n, e in zip(ct.grid.shape, edge, strict=True)]
    edge = [min(e, n) for e, n in zip(edge, ct.grid.shape, strict=True)]
    means, full = np.empty(blocks, np.float32), np.empty(blocks, bool)
    split = (edge[0], blocks[1], edge[1], blocks[2], edge[2])
    for k in range(blocks[0]):  # slab by slab: the image can be large
        part = (slice(k * edge[0], (k + 1) * edge[0]), slice(blocks[1] * edge[1]), slice(blocks[2] * edge[2]))
        means[k] = ct.values[part].reshape(split).mean(axis=(0, 2, 4), dtype=np.float64)
        full[k] = body[part].reshape(split).all(axis=(0, 2, 4))
    return means, full
