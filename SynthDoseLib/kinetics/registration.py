"""Registration of time points: rigid, affine, deformable (SimpleITK)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import ImageVolume, Progress, ProgressReport, SynthDoseError, VoxelGrid, resample_mean, silent
from .registration_quality import RegistrationQuality, assess
from .transforms import SpatialTransform, from_sitk, rotation_degrees, sampled, to_sitk

METHODS = ("none", "rigid", "affine", "deformable")
WORKING_MM = 4.0  # finest voxels used for matching: their position is found to a tenth of them
DEFORMABLE_MM = 6.0
DEMONS = ((12.0, 60), (6.0, 40))  # voxels, mm, and iterations, coarse to fine
SMOOTH_MM = 10.0  # standard deviation that the displacements are smoothed with
SAMPLES = 60_000
LEAST_JACOBIAN, MOST_JACOBIAN = 0.3, 3.0
LEAST_STRUCTURE_ML = 20.0  # of activity: how a ball of 3 cm is turned cannot be seen
WORSE = 0.002  # of normalised mutual information, that noise of the estimate may cost


@dataclass(frozen=True, eq=False)
class Registration:
    """What was found for one time point.

    Attributes
    ----------
    transform : SpatialTransform
        From the reference to the other image; the identity if `accepted` is False.
    method : str
        "same frame of reference", "none", "rigid", "affine", "deformable" or "given".
    quality : RegistrationQuality or None
        Of what was tried; None where nothing was compared.
    accepted : bool
        Whether the result was good enough to be used.
    notes, warnings : tuple of str
    """

    transform: SpatialTransform
    method: str
    quality: RegistrationQuality | None
    accepted: bool
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def same_frame(fixed: ImageVolume, moving: ImageVolume) -> bool:
    """Whether two images share their DICOM frame of reference."""
    frames = [str(image.metadata.get("frame_of_reference_uid") or "") for image in (fixed, moving)]
    return bool(frames[0]) and frames[0] == frames[1]


def register(
    fixed: ImageVolume,
    moving: ImageVolume,
    *,
    method: str = "rigid",
    given: SpatialTransform | None = None,
    what: str = "the image",
    seed: int = 1,
    progress: Progress = silent,
) -> Registration:
    """Find where the points of a reference image are in another one of the same modality.

    Images of one frame of reference are not moved. Otherwise mutual information is maximised (Mattes), first over
    rotations and shifts, then, if asked, over affine matrices; "deformable" adds the displacements of diffeomorphic demons.

    Parameters
    ----------
    fixed, moving : ImageVolume
        Both CT, or both activity.
    method : {"none", "rigid", "affine", "deformable"}
    given : SpatialTransform, optional
        Used as it is, in place of a search.
    what : str
        How notes call the moving image.
    seed : int
        Of the random sample of voxels.
    progress : callable

    Returns
    -------
    Registration
        If an image shows too little to go by, or the search fails, or makes it worse, or folds space, the identity, with a
        warning that says so.

    Raises
    ------
    SynthDoseError
        If the images are of different kinds or the method is not known.

    References
    ----------
    Mattes et al., IEEE Trans. Med. Imaging 22 (2003) 120-128; Vercauteren et al., NeuroImage 45 (2009) S61-S72; both as
    implemented in ITK.
    """
    if method not in METHODS:
        raise SynthDoseError(f"There is no registration '{method}'. Allowed: {', '.join(METHODS)}.")
    kind = "CT" if fixed.modality == "CT" else "activity"
    if (moving.modality == "CT") != (kind == "CT"):
        raise SynthDoseError(
            f"A {fixed.modality or 'reference'} image cannot be registered with a {moving.modality or 'other'} image."
        )
    if given is not None:
        quality = _assessed(fixed, moving, given, kind)
        return Registration(given, "given", quality, True, (f"{what}: the given transform was used ({quality.summary()}).",))
    if same_frame(fixed, moving):
        note = f"{what} shares the frame of reference of the reference image: it was not moved."
        return Registration(SpatialTransform(), "same frame of reference", None, True, (note,))
    if method == "none":
        return Registration(SpatialTransform(), "none", None, True, (f"{what} was not registered, as the plan says.",))
    for name, image in (("the reference image", fixed), (what, moving)):
        lacking = _featureless(image, kind)
        if lacking:
            return _refused(method, None, f"{name} {lacking}", what)
    try:
        found = _search(fixed, moving, method, kind, seed, progress)
    except RuntimeError as error:  # ITK: images without overlap, and whatever else it gives up on
        return _refused(method, None, f"the search stopped ({str(error).strip().splitlines()[-1][:140]})", what)
    quality = _assessed(fixed, moving, found, kind)
    reason = _unfit(quality)
    if reason:
        return _refused(method, quality, reason, what)
    moved = f"{quality.mean_displacement_mm:.1f} mm in the mean, turned by {rotation_degrees(found):.2f} degrees"
    return Registration(
        found, method, quality, True, (f"{what} was registered ({method}, moved {moved}): {quality.summary()}.",)
    )


def _refused(method: str, quality: RegistrationQuality | None, reason: str, what: str) -> Registration:
    numbers = f" ({quality.summary()})" if quality else ""
    text = (
        f"The {method} registration of {what} failed: {reason}{numbers}. It was left where its own coordinates put it; give a "
        "transform, or check that both images show the same patient."
    )
    return Registration(SpatialTransform(), method, quality, False, (text,), (text,))


def _featureless(image: ImageVolume, kind: str) -> str:
    """Why an image does not tell how the body lies; "" if it may.

    The volume of an activity's structure is (sum of v)^2 / (sum of v^2), v the root that is matched: that of a uniform region.
    """
    values, grid = _coarser(image, DEFORMABLE_MM, kind)
    above = (values - values.min()).astype(np.float64)
    if not above.any():
        return "shows one value everywhere"
    volume_ml = float(above.sum() ** 2 / (above**2).sum()) * grid.voxel_volume_ml
    if kind != "CT" and volume_ml < LEAST_STRUCTURE_ML:
        return f"holds its activity in {volume_ml:.2g} ml, which does not tell how the body lies"
    return ""


def _unfit(quality: RegistrationQuality) -> str:
    """Why a result is not used; "" if it is."""
    if quality.folded_fraction > 0 or quality.smallest_jacobian < LEAST_JACOBIAN or quality.largest_jacobian > MOST_JACOBIAN:
        return f"it changes volumes locally by {quality.smallest_jacobian:.2f} to {quality.largest_jacobian:.2f}"
    if quality.nmi_after < quality.nmi_before - WORSE:
        return "the images match worse than before"
    if quality.body_dice_after < min(0.5, quality.body_dice_before):
        return "the bodies hardly overlap"
    return ""


def _assessed(fixed: ImageVolume, moving: ImageVolume, transform: SpatialTransform, kind: str) -> RegistrationQuality:
    a, a_grid = _coarser(fixed, DEFORMABLE_MM, kind)
    b, b_grid = _coarser(moving, DEFORMABLE_MM, kind)
    return assess(a, a_grid, b, b_grid, transform, kind)


def _coarser(image: ImageVolume, least_mm: float, kind: str) -> tuple[NDArray[np.float32], VoxelGrid]:
    """Image with voxels of at least `least_mm`, its values spread for matching: CT cut to tissue, activity as its root."""
    spacing = tuple(max(s, least_mm) for s in image.grid.spacing_mm)
    grid = image.grid.with_spacing((spacing[0], spacing[1], spacing[2]))
    values = resample_mean(image.values, image.grid, grid, fill=-1000.0 if kind == "CT" else 0.0)
    values = np.clip(values, -1000.0, 500.0) if kind == "CT" else np.sqrt(np.maximum(values, 0.0))
    return values.astype(np.float32), grid


def _search(fixed: ImageVolume, moving: ImageVolume, method: str, kind: str, seed: int, progress: Progress) -> SpatialTransform:
    import SimpleITK

    a_values, a_grid = _coarser(fixed, WORKING_MM, kind)
    b_values, b_grid = _coarser(moving, WORKING_MM, kind)
    a, b = to_sitk(a_values, a_grid), to_sitk(b_values, b_grid)
    progress(ProgressReport("register", 0.05, None, "rigid"))
    start = _best_start(a, b, seed, a.GetNumberOfPixels())
    rigid = _linear(a, b, SimpleITK.Euler3DTransform(start), seed)
    found: Any = rigid
    if method in ("affine", "deformable"):
        progress(ProgressReport("register", 0.4, None, "affine"))
        affine = SimpleITK.AffineTransform(3)
        affine.SetMatrix(rigid.GetMatrix())
        affine.SetTranslation(rigid.GetTranslation())
        affine.SetCenter(rigid.GetCenter())
        found = _linear(a, b, affine, seed)
    if method == "deformable":
        progress(ProgressReport("register", 0.6, None, "deformable"))
        return _deformable(fixed, moving, from_sitk(found, a_grid), kind)
    return from_sitk(found, a_grid)


def _best_start(a: Any, b: Any, seed: int, pixels: int) -> Any:
    """Best of: coordinates as they are, centres of the grids, centres of mass."""
    import SimpleITK

    centre = a.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in a.GetSize()])
    identity = SimpleITK.Euler3DTransform()
    identity.SetCenter(centre)
    starts = [identity]
    # moments of CT numbers need weights that are not negative
    lifted = [
        SimpleITK.Cast(image, SimpleITK.sitkFloat32) - SimpleITK.GetArrayViewFromImage(image).min().item() for image in (a, b)
    ]
    for rule in (SimpleITK.CenteredTransformInitializerFilter.GEOMETRY, SimpleITK.CenteredTransformInitializerFilter.MOMENTS):
        starts.append(
            SimpleITK.Euler3DTransform(SimpleITK.CenteredTransformInitializer(*lifted, SimpleITK.Euler3DTransform(), rule))
        )
    method = _matcher(seed, pixels)
    scores = []
    for start in starts:
        method.SetInitialTransform(start)
        try:
            scores.append(method.MetricEvaluate(a, b))
        except RuntimeError:  # no overlap
            scores.append(math.inf)
    best = int(np.argmin(scores))
    # coordinates are kept unless another start is clearly better
    return starts[best] if scores[best] < scores[0] - 0.02 * abs(scores[0]) or not math.isfinite(scores[0]) else starts[0]


def _matcher(seed: int, pixels: int) -> Any:
    import SimpleITK

    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=40)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, SAMPLES / pixels), seed)
    method.SetInterpolator(SimpleITK.sitkLinear)
    return method


def _linear(a: Any, b: Any, transform: Any, seed: int) -> Any:
    """Rigid or affine transform of the best match, coarse to fine."""
    method = _matcher(seed, a.GetNumberOfPixels())
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-3, numberOfIterations=200, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([3, 2, 1])
    method.SetSmoothingSigmasPerLevel([6.0, 3.0, 1.5])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(a, b)
    return transform


def _deformable(fixed: ImageVolume, moving: ImageVolume, linear: SpatialTransform, kind: str) -> SpatialTransform:
    """Diffeomorphic demons on top of a linear transform, coarse to fine: y = M (x + u(x))."""
    import SimpleITK

    field: Any = None
    grid = fixed.grid
    for size_mm, iterations in DEMONS:
        values, grid = _coarser(fixed, size_mm, kind)
        other, other_grid = _coarser(moving, size_mm, kind)
        a = to_sitk(values, grid)
        b = to_sitk(sampled(other, other_grid, linear, grid, fill=float(other.min())), grid)
        if kind != "CT":  # the same organ holds another activity at another time
            b = SimpleITK.HistogramMatching(
                b, a, numberOfHistogramLevels=256, numberOfMatchPoints=12, thresholdAtMeanIntensity=True
            )
        demons = SimpleITK.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations([SMOOTH_MM / s for s in grid.spacing_mm])
        if field is None:
            field = demons.Execute(a, b)
        else:
            field = demons.Execute(
                a, b, SimpleITK.Resample(field, a, SimpleITK.Transform(), SimpleITK.sitkLinear, 0.0, field.GetPixelID())
            )
    shift = SimpleITK.GetArrayFromImage(field) * np.array([-1.0, -1.0, 1.0])
    return SpatialTransform(linear.matrix_ras, shift.astype(np.float32), grid)
