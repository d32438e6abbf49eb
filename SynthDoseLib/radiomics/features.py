"""Extraction of pyradiomics features, one organ at a time, with settings that are stated beside the numbers."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import (
    ImageVolume,
    LabelMap,
    MissingPackageError,
    Progress,
    ProgressReport,
    SynthDoseError,
    atomic_path,
    resample_mean,
    silent,
)
from .install import INSTALL
from .interpolation import interpolate_as_ibsi

CLASSES = ("firstorder", "shape", "glcm", "glrlm", "glszm", "gldm", "ngtdm")
_WAVELET_VOXELS = 8  # reach of a level of coif1, with room to spare
NOT_ORGANS = frozenset({"rest_of_body", "body"})


@dataclass(frozen=True)
class RadiomicsSettings:
    """How features are computed.

    Attributes
    ----------
    bin_width : float or None
        Width of a grey level, in the unit of the image.
    bin_count : int or None
        Number of grey levels, if no width is given. Without either: 25 HU for a CT, 32 levels otherwise.
    spacing_mm : float, tuple of 3 float, or None
        Edge of the cubic voxels to which the neighbourhood of each organ is resampled, so that features of different
        scans can be compared, or edges along i, j, k with 0 for that of the image; None keeps the voxels of the image.
    interpolation : str
        "mean" averages over the new voxel, which is kind to noise; "linear" does as IBSI asks (see `interpolate_as_ibsi`).
    resegment : tuple of 2 float, optional
        Voxels with values outside are taken out of the organ, as IBSI's re-segmentation; not for shape features.
    in_slices : bool
        Texture along the image's slices only (IBSI's 2.5D), for slices that are much thicker than their pixels.
    classes : tuple of str
        Families of features, some of `CLASSES`.
    minimum_voxels : int
        Smaller organs (after resampling) are left out and named in the notes.
    maximum_surface_voxels : int
        Organs with more voxels at their surface (a whole skeleton) get no shape features, whose diameters compare all pairs
        of surface points and would take minutes; they are named in the notes.
    log_sigma_mm : tuple of float
        Widths of Laplacian of Gaussian filters, mm: features of each filtered image as well, but for shape.
    wavelet : bool
        Features of the eight decompositions by the wavelet coif1 as well.
    """

    bin_width: float | None = None
    bin_count: int | None = None
    spacing_mm: float | tuple[float, float, float] | None = 3.0
    interpolation: str = "mean"
    resegment: tuple[float, float] | None = None
    in_slices: bool = False
    classes: tuple[str, ...] = CLASSES
    minimum_voxels: int = 16
    maximum_surface_voxels: int = 20_000
    log_sigma_mm: tuple[float, ...] = ()
    wavelet: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.classes) - set(CLASSES))
        if unknown or not self.classes:
            raise SynthDoseError(
                f"Unknown families of features: {', '.join(unknown) or 'none given'}. Known: {', '.join(CLASSES)}."
            )
        if self.interpolation not in ("mean", "linear"):
            raise SynthDoseError(f"interpolation has to be mean or linear; found {self.interpolation}.")
        if self.resegment is not None and not self.resegment[0] < self.resegment[1]:
            raise SynthDoseError(f"resegment takes a lower and a higher value; found {list(self.resegment)}.")
        if isinstance(self.spacing_mm, tuple) and not all(math.isfinite(edge) and edge >= 0 for edge in self.spacing_mm):
            raise SynthDoseError(f"spacing_mm takes edges of 0 (the image's) or more; found {list(self.spacing_mm)}.")
        for name in ("bin_width", "spacing_mm", "bin_count", "minimum_voxels", "maximum_surface_voxels"):
            value = getattr(self, name)
            if isinstance(value, tuple):
                continue
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SynthDoseError(f"{name} has to be a number above 0; found {value}.")
        if any(not (math.isfinite(sigma) and sigma > 0) for sigma in self.log_sigma_mm):
            raise SynthDoseError(f"log_sigma_mm has to hold numbers above 0; found {list(self.log_sigma_mm)}.")

    def edges_mm(self, own: tuple[float, float, float]) -> tuple[float, float, float]:
        """Edges of the voxels that features are computed on, along i, j, k, for an image with edges `own`."""
        if isinstance(self.spacing_mm, tuple):
            i, j, k = (wanted or kept for wanted, kept in zip(self.spacing_mm, own, strict=True))
            return i, j, k
        return (self.spacing_mm,) * 3 if self.spacing_mm else own

    @property
    def margin_mm(self) -> float:
        """How far around an organ filters look, mm; voxels of the neighbourhood come on top."""
        return 4.0 * max(self.log_sigma_mm, default=0.0)


@dataclass(frozen=True)
class FeatureRow:
    """One feature of one organ in one image; the names of the fields are the header of ``radiomics.csv``."""

    organ: str
    image: str
    feature: str
    value: float
    filter: str = "original"


@dataclass(frozen=True)
class FeatureTable:
    """Features and what to know about them.

    Attributes
    ----------
    rows : tuple of FeatureRow
    notes : tuple of str
        The settings, and which organs were left out for which reason.
    """

    rows: tuple[FeatureRow, ...]
    notes: tuple[str, ...]


def extract_features(
    image: ImageVolume,
    labels: LabelMap,
    *,
    organs: Iterable[str] | None = None,
    settings: RadiomicsSettings | None = None,
    progress: Progress = silent,
) -> FeatureTable:
    """Compute the features of every organ.

    Parameters
    ----------
    image : ImageVolume
        CT, or any other image; its modality (or unit) names it in the rows.
    labels : LabelMap
        On the grid of `image`.
    organs : iterable of str, optional
        All but the body and its rest if not given.
    settings : RadiomicsSettings, optional
    progress : callable
        May raise `Cancelled`.

    Returns
    -------
    FeatureTable
        Features that are not defined for an organ (division by zero in a flat one) are left out.

    Raises
    ------
    SynthDoseError
        If the grids differ or an organ is unknown.
    MissingPackageError
        If pyradiomics is not installed.

    References
    ----------
    van Griethuysen et al., Cancer Res. 77 (2017) e104-e107; Zwanenburg et al., Radiology 295 (2020) 328-338.
    """
    settings = settings or RadiomicsSettings()
    radiomics = load_pyradiomics()
    if not image.grid.matches(labels.grid):
        raise SynthDoseError("Image and label map are on different grids. Resample the labels to the grid of the image first.")
    names = [o.name for o in labels.organs if o.name not in NOT_ORGANS] if organs is None else list(organs)
    bins = _bins(settings, image)
    boxes = ndimage.find_objects(np.asarray(labels.labels, dtype=np.int32))
    rows: list[FeatureRow] = []
    skipped: list[str] = []
    shapeless: list[str] = []
    title = image.modality or image.unit or "image"
    with quiet_pyradiomics(radiomics):
        special: dict[str, Any] = {"resegmentRange": list(settings.resegment)} if settings.resegment else {}
        if settings.in_slices:
            special |= {"force2D": True, "force2Ddimension": 0}
        extractor = radiomics.featureextractor.RadiomicsFeatureExtractor(additionalInfo=False, label=1, **bins, **special)
        if settings.log_sigma_mm:
            extractor.enableImageTypeByName("LoG", customArgs={"sigma": list(settings.log_sigma_mm)})
        if settings.wavelet:
            extractor.enableImageTypeByName("Wavelet")
        for number, name in enumerate(names):
            progress(ProgressReport("radiomics", number / max(1, len(names)), None, name))
            index = labels.organ(name).index
            box = boxes[index - 1] if index <= len(boxes) else None
            try:
                if box is None:
                    raise ValueError("empty")
                values, mask, spacing = _neighbourhood(image, labels, index, box, settings)
                families = settings.classes
                if "shape" in families and _surface(mask) > settings.maximum_surface_voxels:
                    families = tuple(family for family in families if family != "shape")
                    shapeless.append(name)
                found = _features(extractor, families, values, mask, spacing, settings.minimum_voxels)
            except ValueError as error:  # how pyradiomics refuses a region
                skipped.append(f"{name} ({str(error).splitlines()[0]})")
                continue
            rows += [FeatureRow(name, title, feature, value, filtered) for (filtered, feature), value in found.items()]
    progress(ProgressReport("radiomics", 1.0))
    notes = [_describe(bins, settings, image, radiomics.__version__)]
    if shapeless:
        notes.append(f"No shape features of {', '.join(shapeless)}: the surface is too large for them.")
    if skipped:
        notes.append(f"No features of: {', '.join(skipped)}.")
    return FeatureTable(tuple(rows), tuple(notes))


def _bins(settings: RadiomicsSettings, image: ImageVolume) -> dict[str, float]:
    if settings.bin_width:
        return {"binWidth": settings.bin_width}
    if settings.bin_count is None and image.modality == "CT":
        return {"binWidth": 25.0}
    return {"binCount": settings.bin_count or 32}


def write_features_csv(path: str | os.PathLike[str], table: FeatureTable | Iterable[FeatureRow]) -> None:
    """Write rows ``organ,image,feature,value,filter``."""
    rows = table.rows if isinstance(table, FeatureTable) else table
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["organ", "image", "feature", "value", "filter"])
        writer.writerows([row.organ, row.image, row.feature, f"{row.value:.8g}", row.filter] for row in rows)


def load_pyradiomics() -> ModuleType:
    """Import pyradiomics, or say how to get it."""
    try:
        import radiomics
        import radiomics.featureextractor
    except ImportError:
        raise MissingPackageError("pyradiomics", "Radiomics", INSTALL) from None
    return radiomics


@contextmanager
def quiet_pyradiomics(radiomics: ModuleType) -> Iterator[None]:
    """Keep pyradiomics from writing to stderr, and numpy from warning of undefined features, which are left out."""
    logger = logging.getLogger("radiomics")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        logger.setLevel(level)
        logger.propagate = propagate


def _surface(mask: NDArray[np.bool_]) -> int:
    """Number of voxels of an organ that touch what is not the organ."""
    return int(np.count_nonzero(mask)) - int(np.count_nonzero(ndimage.binary_erosion(mask)))


def _features(
    extractor: Any,
    families: tuple[str, ...],
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    minimum_voxels: int,
) -> dict[tuple[str, str], float]:
    """Features by filter and name; `ValueError` says why there are none."""
    import SimpleITK

    voxels = int(np.count_nonzero(mask))
    if voxels < minimum_voxels:
        raise ValueError(f"{voxels} voxels, needed are {minimum_voxels}")
    extractor.disableAllFeatures()
    for family in families:
        extractor.enableFeatureClassByName(family)
    pictures = []
    for array in (values.astype(np.float64), mask.astype(np.uint8)):
        picture = SimpleITK.GetImageFromArray(array)
        picture.SetSpacing(spacing_mm)
        pictures.append(picture)
    return finite_features(extractor.execute(*pictures))


def finite_features(found: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Split the names of pyradiomics into filter and feature; values that are no finite numbers are left out."""
    numbers = {}
    for key, value in found.items():
        filtered, _, feature = str(key).partition("_")
        if feature and filtered != "diagnostics" and np.ndim(value) == 0:
            numbers[filtered, feature] = float(np.asarray(value))
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def _neighbourhood(
    image: ImageVolume, labels: LabelMap, index: int, box: tuple[slice, ...], settings: RadiomicsSettings
) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[float, float, float]]:
    """Cut out an organ with a margin and bring it to cubic voxels; an organ's voxel is one that is at least half filled."""
    own, edges = image.grid.spacing_mm, settings.edges_mm(image.grid.spacing_mm)
    sizes = np.maximum(own, edges)[::-1]
    near = (_WAVELET_VOXELS if settings.wavelet else 2) * np.maximum(1.0, sizes / own[::-1])
    margins = np.ceil(near + settings.margin_mm / np.asarray(own[::-1])).astype(int)
    lower = [max(0, s.start - m) for s, m in zip(box, margins, strict=True)]
    upper = [min(n, s.stop + m) for s, n, m in zip(box, labels.grid.shape, margins, strict=True)]
    region = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
    values, inside = image.values[region], labels.labels[region] == index
    if np.allclose(own, edges, rtol=1e-3):
        return values, inside, own
    if settings.interpolation == "linear":
        whole = labels.labels == index
        kji = np.asarray(own[::-1]), np.asarray(edges[::-1])
        return *interpolate_as_ibsi(image.values, whole, *kji, region, image.modality == "CT"), edges
    grid = image.grid.crop((lower[0], lower[1], lower[2]), (inside.shape[0], inside.shape[1], inside.shape[2]))
    cubes = grid.with_spacing(edges)
    filled = resample_mean(inside.astype(np.float32), grid, cubes)
    lowest = float(values.min())
    return resample_mean(values, grid, cubes, fill=lowest), filled >= 0.5, cubes.spacing_mm


def _describe(bins: dict[str, float], settings: RadiomicsSettings, image: ImageVolume, version: str) -> str:
    grey = f"grey levels {bins['binWidth']:g} {image.unit} wide" if "binWidth" in bins else f"{bins['binCount']:g} grey levels"
    edges = settings.edges_mm(image.grid.spacing_mm)
    voxels = "the image's own voxels"
    if not np.allclose(edges, image.grid.spacing_mm, rtol=1e-3):
        cubic = max(edges) - min(edges) < 1e-6
        voxels = f"cubic voxels of {edges[0]:g} mm" if cubic else f"voxels of {' x '.join(f'{edge:.4g}' for edge in edges)} mm"
        voxels += " (IBSI's interpolation)" if settings.interpolation == "linear" else ""
    if settings.resegment:
        voxels += f", re-segmented to {settings.resegment[0]:g} to {settings.resegment[1]:g}"
    if settings.in_slices:
        voxels += ", texture in slices"
    filters = [f"Laplacian of Gaussian {sigma:g} mm" for sigma in settings.log_sigma_mm]
    filters += ["wavelet coif1"] if settings.wavelet else []
    filtered = f"filters: {', '.join(filters)}" if filters else "no filter"
    return f"Features ({', '.join(settings.classes)}) by pyradiomics {version.lstrip('v')}, {grey}, {voxels}, {filtered}."
