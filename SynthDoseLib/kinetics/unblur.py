"""Activity concentrations of regions from a blurred image: all at once, with the width of the blur found in the image itself.

The image is modelled as regions of even concentration, blurred by a Gaussian whose width changes smoothly from place to
place, with a share of scatter spread widely. A region's equation is a weighted sum of its own voxels (with equal weights it is
the geometric transfer matrix); voxels where the model is unsure, because a little more or less blur or a slightly different
boundary would change them, count less. The core of a cool organ beside a hot one so decides what it holds.

References
----------
Rousset, Ma & Evans, J. Nucl. Med. 39 (1998) 904-911 (geometric transfer matrix).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from ..core import ImageVolume, LabelMap, SynthDoseError, VoxelGrid, resample
from .noise import FWHM_TO_SIGMA
from .values import REST

Floats = NDArray[np.float32]
Box = tuple[slice, slice, slice]
LEAST_OWN = 0.1  # share of its activity that a region has to keep to be solved for; smaller ones stay as measured
REACH = 4.0  # standard deviations of the blur that are followed
STEP = 0.15  # of the width, between the three widths that others are interpolated from
WIDEST = 0.4  # relative change of the width that is followed
PARTS = 3  # samples per axis and voxel for the share that a region has in it
BLOCK_MM = 20.0  # grid of the scatter
SCATTER_SIGMA_MM = 58.0  # sqrt(2/3) of 7.1 cm, the mean free path of 0.2 MeV photons in water: steps of that mean, per axis
SCATTER_RELATIVE_SIGMA = 0.3  # of what scatter adds to a region: how far it goes is known from its mean free path only
UNEVEN = 0.05  # of its concentration, by which a region is taken to be uneven from voxel to voxel
EDGE_VOXELS = 0.25  # of the image, by which a boundary may be off
FIELD_MM = 150.0  # over which the width changes by its prior sigma
ROUGH = 1 / 3  # of the prior sigma of the width, that a polynomial does not follow at one place
ROUNDS = 3
MEDIAN_TO_SIGMA = 1.4826  # median of absolute deviations to standard deviation of a normal distribution


@dataclass(frozen=True, eq=False)
class Unblurred:
    """What `unblurred_activity` found.

    Attributes
    ----------
    activity_MBq : ndarray, (T, n)
        Per image and region, inside the field of view.
    noise_MBq : ndarray, (T, n)
        Standard deviation by what the model leaves unexplained.
    effect : ndarray, (n,)
        Relative standard uncertainty by width of the blur and scatter, common to all images.
    fwhm_mm : ndarray, (n,)
        Width of the blur at each region, mean over its voxels.
    fwhm_sigma : float
        Relative standard uncertainty of the width at one place.
    lost : tuple of str
        Regions too small to be solved for, left as measured.
    """

    activity_MBq: NDArray[np.float64]
    noise_MBq: NDArray[np.float64]
    effect: NDArray[np.float64]
    fwhm_mm: NDArray[np.float64]
    fwhm_sigma: float
    lost: tuple[str, ...]


def region_shares(labels: LabelMap, regions: Sequence[str], grid: VoxelGrid) -> list[tuple[Box, Floats]]:
    """Box and share of its voxels per region, on another grid; `rest_of_body` is that label, or the voxels without one.

    A region outside the grid has the box of all others with no share in it.

    Raises
    ------
    SynthDoseError
        If all regions lie outside.
    """
    index = {organ.name: organ.index for organ in labels.organs}
    values = [index.get(region, 0) for region in regions]
    table = np.full(max(index.values(), default=0) + 1, 0, np.uint16)
    table[values] = np.arange(1, len(values) + 1)
    place = table[labels.labels]
    if 0 in values and REST not in index:
        place[labels.labels == 0] = values.index(0) + 1
    samples = []
    for offset in np.ndindex(PARTS, PARTS, PARTS):
        matrix = grid.ijk_to_ras.copy()
        matrix[:3, 3] = grid.to_ras((np.asarray(offset) + 0.5) / PARTS - 0.5)
        samples.append(resample(place, labels.grid, VoxelGrid(grid.shape, matrix), linear=False))
    boxes: list[Box | None] = [None] * len(values)
    for sample in samples:
        for n, found in enumerate(ndimage.find_objects(sample, max_label=len(values))):
            old = boxes[n]
            if found is not None:
                boxes[n] = found if old is None else _around(old, found)
    inside = [box for box in boxes if box is not None]
    if not inside:
        raise SynthDoseError(f"No voxel of the activity image lies in: {', '.join(regions)}.")
    result = []
    for n, found in enumerate(boxes):
        box = inside[0] if found is None else found
        share = np.zeros(tuple(s.stop - s.start for s in box), np.float32)
        for sample in samples:
            share += sample[box] == n + 1
        result.append((box, np.asarray(share / len(samples), np.float32)))
    return result


def _around(first: Box, second: Box) -> Box:
    a, b, c = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(first, second, strict=True))
    return a, b, c


class BlurredRegions:
    """Images of all regions at unit concentration on the grid of an activity image, for any smooth width of the blur.

    Parameters
    ----------
    labels : LabelMap
    regions : sequence of str
    grid : VoxelGrid
        Of the activity image.
    fwhm_mm : float
        Resolution, without what the voxels of the image add.
    retained : float
        Share that is not scattered far away.
    """

    def __init__(self, labels: LabelMap, regions: Sequence[str], grid: VoxelGrid, fwhm_mm: float, retained: float) -> None:
        self.regions, self.fwhm_mm, self.retained = tuple(regions), fwhm_mm, retained
        shares = region_shares(labels, regions, grid)
        whole = shares[0][0]
        for box, _ in shares:
            whole = _around(whole, box)
        spacing = np.asarray(grid.spacing_mm[::-1])
        sigma = fwhm_mm * FWHM_TO_SIGMA / spacing
        margin = np.ceil(REACH * (1 + STEP) * sigma).astype(int) + 1
        start = [max(0, s.start - m) for s, m in zip(whole, margin, strict=True)]
        stop = [min(n, s.stop + m) for s, m, n in zip(whole, margin, grid.shape, strict=True)]
        self.crop: Box = (slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2]))
        self.shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        self.grid = grid.crop((start[0], start[1], start[2]), (self.shape[0], self.shape[1], self.shape[2]))
        self.spacing_mm = spacing
        self.own: list[tuple[Box, Floats]] = []
        self.images: list[tuple[Box, Floats, Floats, Floats]] = []  # box; image, slope and bend with the relative width
        for box, share in shares:
            here = [slice(s.start - a, s.stop - a) for s, a in zip(box, start, strict=True)]
            wide = [slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(here, margin, self.shape, strict=True)]
            sharp = np.pad(share, [(s.start - w.start, w.stop - s.stop) for s, w in zip(here, wide, strict=True)])
            less, same, more = (
                ndimage.gaussian_filter(sharp, sigma * factor, mode="constant", truncate=REACH)
                for factor in (1 - STEP, 1.0, 1 + STEP)
            )
            self.own.append(((here[0], here[1], here[2]), share))
            slope, bend = (more - less) / np.float32(2 * STEP), (more + less - 2 * same) / np.float32(2 * STEP**2)
            self.images.append(((wide[0], wide[1], wide[2]), same, slope, bend))
        self.block = tuple(max(1, round(BLOCK_MM / s)) for s in spacing)
        coarse_mm = np.asarray(self.block) * spacing
        self.scatter = [
            ndimage.gaussian_filter(self._coarse(n) / math.prod(self.block), SCATTER_SIGMA_MM / coarse_mm, mode="constant")
            for n in range(len(shares))
        ]
        self.voxels = np.array([float(share.sum(dtype=np.float64)) for _, share in shares])
        self.voxel_ml = grid.voxel_volume_ml

    def _coarse(self, region: int, weight: Floats | None = None) -> NDArray[np.float64]:
        """Sum of a region's shares (times weights, in its box) in the blocks of the scatter."""
        box, share = self.own[region]
        full = np.zeros(tuple(math.ceil(n / b) * b for n, b in zip(self.shape, self.block, strict=True)), np.float32)
        full[box] = share if weight is None else share * weight
        a, b, c = self.block
        k, j, i = full.shape
        return np.asarray(full.reshape(k // a, a, j // b, b, i // c, c).sum(axis=(1, 3, 5), dtype=np.float64))

    def model(self, concentration: NDArray[np.float64], width: Floats) -> tuple[Floats, Floats]:
        """Image of these concentrations at relative widths 1 + `width`, and its slope with the width."""
        image, slopes = np.zeros(self.shape, np.float32), np.zeros(self.shape, np.float32)
        scatter = sum(c * s for c, s in zip(concentration, self.scatter, strict=True))
        for value, (box, same, slope, bend) in zip(concentration, self.images, strict=True):
            d, factor = width[box], np.float32(self.retained * value)
            image[box] += factor * (same + d * (slope + d * bend))
            slopes[box] += factor * (slope + 2 * d * bend)
        spread = np.asarray(scatter, np.float32)
        for axis, size in enumerate(self.block):
            spread = np.repeat(spread, size, axis=axis)
        k, j, i = self.shape
        return image + np.float32(1 - self.retained) * spread[:k, :j, :i], slopes

    def equations(
        self, weights: Sequence[Floats], width: Floats
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Weighted sums of what every region (columns) gives to the voxels of every region (rows), at unit concentration.

        Of its blurred image, of the slope of that with the width, and of its scatter if all were scattered.
        """
        size = len(self.own)
        matrix, slopes = np.zeros((size, size)), np.zeros((size, size))
        for column, (box, same, slope, bend) in enumerate(self.images):
            d = width[box]
            now, change = same + d * (slope + d * bend), slope + 2 * d * bend
            for row, ((own, share), weight) in enumerate(zip(self.own, weights, strict=True)):
                both = [slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(own, box, strict=True)]
                if any(s.stop <= s.start for s in both):
                    continue
                here = tuple(slice(s.start - p.start, s.stop - p.start) for s, p in zip(both, own, strict=True))
                there = tuple(slice(s.start - q.start, s.stop - q.start) for s, q in zip(both, box, strict=True))
                w = (share[here] * weight[here]).astype(np.float64)
                matrix[row, column] = float((w * now[there]).sum())
                slopes[row, column] = float((w * change[there]).sum())
        scattered = np.array(
            [[float((row * s).sum()) for s in self.scatter] for row in map(self._coarse, range(size), weights)]
        )
        return self.retained * matrix + (1 - self.retained) * scattered, self.retained * slopes, scattered


def unblurred_activity(
    images: Sequence[ImageVolume],
    labels: LabelMap,
    regions: Sequence[str],
    *,
    fwhm_mm: float,
    retained: float = 1.0,
    width_sigma: float = 0.1,
    retained_sigma: float = 0.0,
) -> Unblurred:
    """Activity per region and image without blur and scatter.

    Parameters
    ----------
    images : sequence of ImageVolume
        Bq/ml, registered to `labels`, each on its own grid.
    labels : LabelMap
    regions : sequence of str
        Names of labels with voxels, or `rest_of_body`.
    fwhm_mm, retained : float
        Of a recovery curve of form "sphere" or "sphere+scatter": width with what the voxels add, share not scattered far away.
    width_sigma : float
        Relative standard deviation of the width within the field of view, and of its mean: what is known before the images.
    retained_sigma : float
        Standard uncertainty of `retained`.

    Raises
    ------
    SynthDoseError
        If a region lies outside an image.
    """
    setups: list[tuple[VoxelGrid, BlurredRegions]] = []
    problems = []
    for image in images:
        known = next((blurred for grid, blurred in setups if grid.matches(image.grid)), None)
        if known is None:
            # a voxel averages twice: when it is filled, and when a region is read from it
            voxel = 2 * float(np.mean(np.square(image.grid.spacing_mm))) / 12 / FWHM_TO_SIGMA**2
            width = math.sqrt(max(fwhm_mm**2 - voxel, 0.25 * fwhm_mm**2))
            known = BlurredRegions(labels, regions, image.grid, width, retained)
            setups.append((image.grid, known))
        problems.append(_Problem(known, np.asarray(image.values[known.crop], np.float32), width_sigma))
    terms = np.zeros(problems[0].basis.shape[0])
    for _ in range(ROUNDS):
        normal, right = np.eye(terms.size), np.zeros(terms.size)
        for problem in problems:
            problem.solve(terms)
            problem.weigh(terms)
            n, r = problem.width_equations(terms)
            normal, right = normal + n, right + r
        terms = np.linalg.solve(normal, right)
    for problem in problems:
        problem.solve(terms)
    first = problems[0]
    effect, local = _effect(problems, width_sigma, retained_sigma)
    change = first.width(terms)
    means = [float((change[box] * share).sum()) / max(float(share.sum()), 1e-30) for box, share in first.blurred.own]
    lost = tuple(r for r, small in zip(first.blurred.regions, first.small, strict=True) if small)
    ml = [p.blurred.voxels * p.blurred.voxel_ml * 1e-6 for p in problems]
    return Unblurred(
        np.array([p.concentration * v for p, v in zip(problems, ml, strict=True)]),
        np.array([p.noise * v for p, v in zip(problems, ml, strict=True)]),
        effect,
        first.blurred.fwhm_mm * (1 + np.array(means)),
        local,
        lost,
    )


class _Problem:
    """One image: its concentrations at a given width of the blur, and what it says about that width."""

    def __init__(self, blurred: BlurredRegions, seen: Floats, width_sigma: float) -> None:
        self.blurred, self.seen, self.width_sigma = blurred, seen, width_sigma
        self.weights: list[Floats] = [np.ones(share.shape, np.float32) for _, share in blurred.own]
        self.variance: list[Floats] = []
        self.spread = np.zeros(len(blurred.own))
        self.small = np.zeros(len(blurred.own), bool)
        self.leftover: list[float] = []  # relative change of width that each region would still like
        k, j, i = np.meshgrid(*(np.arange(n) for n in blurred.shape), indexing="ij", sparse=True)
        ras = [blurred.grid.ijk_to_ras[a, :3] @ np.array([i, j, k], dtype=object) for a in range(3)]
        middle = blurred.grid.to_ras((np.asarray(blurred.shape[::-1]) - 1) / 2)
        x, y, z = ((np.asarray(r, np.float32) - np.float32(m)) / np.float32(FIELD_MM) for r, m in zip(ras, middle, strict=True))
        one = np.ones(blurred.shape, np.float32)
        self.basis = np.stack([width_sigma * (one * term) for term in (one, x, y, z, x * x, y * y, z * z, x * y, x * z, y * z)])

    def width(self, terms: NDArray[np.float64]) -> Floats:
        """Relative change of the width in every voxel."""
        return np.clip(np.tensordot(terms.astype(np.float32), self.basis, axes=1), -WIDEST, WIDEST)

    def solve(self, terms: NDArray[np.float64]) -> None:
        """Find concentrations that give the weighted sums seen, none below 0."""
        width = self.width(terms)
        matrices = self.blurred.equations(self.weights, width)
        rows = [(share * w).astype(np.float64) for (_, share), w in zip(self.blurred.own, self.weights, strict=True)]
        totals = np.array([max(float(row.sum()), 1e-30) for row in rows])
        sums = np.array([float((row * self.seen[box]).sum()) for row, (box, _) in zip(rows, self.blurred.own, strict=True)])
        self.matrix, self.slopes, self.scattered = (found / totals[:, None] for found in matrices)
        mean = sums / totals
        self.small |= np.diag(self.matrix) < LEAST_OWN
        self.concentration = self._from(self.matrix, mean)
        self.mean = mean

    def _from(self, matrix: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
        result = mean.copy()
        kept, small = np.flatnonzero(~self.small), np.flatnonzero(self.small)
        seen = np.maximum(mean[kept] - matrix[np.ix_(kept, small)] @ mean[small], 0)
        scale = 1 / np.maximum(seen, max(float(mean.max()), 1e-300) * 1e-4)  # all regions equally well in relative terms
        result[kept] = optimize.nnls(matrix[np.ix_(kept, kept)] * scale[:, None], seen * scale)[0]
        return result

    def weigh(self, terms: NDArray[np.float64]) -> None:
        """Weights of voxels by how far the model may be off there: width, boundaries, unevenness, noise."""
        image, slopes = self.blurred.model(self.concentration, self.width(terms))
        gradient = sum((np.square(np.gradient(image, axis=axis)) for axis in range(3)), np.zeros_like(image))
        unsure = (slopes * np.float32(self.width_sigma)) ** 2 + np.float32(EDGE_VOXELS**2) * gradient
        self.image, self.image_slopes = image, slopes
        self.variance, self.weights = [], []
        for n, (box, share) in enumerate(self.blurred.own):
            own = share >= min(0.5, float(share.max()))
            # noise is what is left where the model is surest
            sure = unsure[box][own] <= np.median(unsure[box][own])
            noise = float(np.median(np.abs((self.seen - image)[box][own][sure]))) * MEDIAN_TO_SIGMA
            # noise averages out over the voxels, what the model gets wrong does not
            floor = noise**2 / max(float(own.sum()), 1.0) + (UNEVEN * float(self.concentration[n])) ** 2
            variance = unsure[box] + np.float32(max(floor, 1e-12 * float(self.mean.max()) ** 2))
            self.variance.append(variance)
            weight = 1 / variance
            self.weights.append(np.asarray(weight / weight[own].mean(), np.float32))
            self.spread[n] = noise

    def grain_voxels(self) -> float:
        """Voxels that noise errs together in, by how alike what is left in neighbours is, inside the regions."""
        together, alone = np.zeros(3), 0.0
        for n, (box, share) in enumerate(self.blurred.own):
            if self.spread[n] <= 0:
                continue
            core = share >= 1
            left = np.where(core, np.clip((self.seen - self.image)[box] / np.float32(self.spread[n]), -4, 4), np.float32(0))
            alone += float((left**2).sum(dtype=np.float64)) / max(int(core.sum()), 1)
            for axis in range(3):
                first, second = (tuple(s if x == axis else slice(None) for x in range(3)) for s in (slice(1, None), slice(-1)))
                pairs = int((core[first] & core[second]).sum())
                together[axis] += float((left[first] * left[second]).sum(dtype=np.float64)) / max(pairs, 1)
        alike = np.clip(together / max(alone, 1e-30), 1e-6, 0.95)
        # a Gaussian grain of s voxels makes neighbours alike by exp(-1/(4 s^2)); (4 pi s^2)^(1/2) per axis err together
        return float(np.maximum(np.sqrt(-np.pi / np.log(alike)), 1.0).prod())

    @property
    def noise(self) -> NDArray[np.float64]:
        """Standard deviation of the concentrations by noise."""
        found, grain = [], self.grain_voxels()
        for n, ((_, share), weight) in enumerate(zip(self.blurred.own, self.weights, strict=True)):
            w = (share * weight).astype(np.float64)
            independent = max(1.0, w.sum() ** 2 / max((w**2).sum(), 1e-300) / grain)
            found.append(self.spread[n] / math.sqrt(independent) / max(float(self.matrix[n, n]), LEAST_OWN))
        return np.array(found)

    def width_equations(self, terms: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Normal equations for the terms of the width, all of the residual that a change of width explains."""
        size = terms.size
        normal, right = np.zeros((size, size)), np.zeros(size)
        sigma = self.blurred.fwhm_mm * FWHM_TO_SIGMA / self.blurred.spacing_mm
        alike = max(1.0, float((4 * math.pi) ** 1.5 * sigma.prod()))  # voxels that real unevenness, blurred, errs together in
        self.leftover = []
        for (box, share), variance in zip(self.blurred.own, self.variance, strict=True):
            use = share > 0.5
            if not use.any():
                continue
            slope = self.image_slopes[box][use]
            known = variance[use] - (slope * np.float32(self.width_sigma)) ** 2
            weight = 1 / np.maximum(known, 1e-30) / np.float32(alike)
            design = np.stack([b[box][use] for b in self.basis]) * slope
            left = (self.seen - self.image)[box][use]
            told = float((weight * slope**2).sum(dtype=np.float64))
            if told * self.width_sigma**2 > 1:
                self.leftover.append(float((weight * slope * left).sum(dtype=np.float64)) / told)
            left = left + design.T @ terms.astype(np.float32)
            normal += (design * weight) @ design.T
            right += (design * weight) @ left
        return normal, right


def _effect(problems: Sequence[_Problem], width_sigma: float, retained_sigma: float) -> tuple[NDArray[np.float64], float]:
    """Relative uncertainty per region by width and scatter, the largest over the images, and that of the width at one place."""
    left = np.array([x for problem in problems for x in problem.leftover])
    typical = MEDIAN_TO_SIGMA * float(np.median(np.abs(left))) if left.size else width_sigma
    local = min(math.hypot(typical, ROUGH * width_sigma), width_sigma)
    worst = np.zeros(len(problems[0].blurred.own))
    for problem in problems:
        kept = np.flatnonzero(~problem.small)
        inverse = np.linalg.pinv(problem.matrix[np.ix_(kept, kept)])
        shown = problem.concentration[kept]
        # the blur of every region errs by itself (columns) and changes all of them; smooth errors change all together
        by_region = inverse @ (problem.slopes[np.ix_(kept, kept)] * shown)
        variance = (by_region**2).sum(axis=1) * local**2
        scattered = np.abs(inverse @ (problem.scattered[np.ix_(kept, kept)] @ shown))
        retained = problem.blurred.retained
        variance += scattered**2 * (((1 - retained) * SCATTER_RELATIVE_SIGMA) ** 2 + retained_sigma**2)
        relative = np.zeros(worst.size)
        relative[kept] = np.sqrt(variance) / np.maximum(shown, 1e-300)
        worst = np.maximum(worst, np.minimum(relative, 1.0))
    return worst, local
