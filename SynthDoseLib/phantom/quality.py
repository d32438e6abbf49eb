"""The quality verdict of a phantom: what was found, what is expected, what to do, per organ and overall."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from SynthDoseLib.core import ImageVolume, SynthDoseError, VoxelPhantom

from .expectations import MEMBERS, PatientFacts, expected_mass_g
from .quality_hounsfield import check_hounsfield
from .quality_organ import check_long_organs, check_organ, check_total_mass, measure_organ
from .quality_place import check_body, check_missing, check_order, check_overlaps, check_sides, check_split
from .quality_values import FAIL, NOTE, WARNING, Finding, MeasuredOrgan, worst

NOT_ORGANS = ("rest_of_body", "body")
PASS = "pass"
SCALE_ORGANS = ("liver", "kidney_right", "kidney_left", "spleen", "pancreas", "heart", "brain")
SCALE_LIMITS = {WARNING: (0.62, 1.62), FAIL: (0.42, 2.4)}  # median mass over reference; adults keep within 0.7 to 1.4


@dataclass(frozen=True)
class OrganQuality:
    """One organ and its verdict.

    Attributes
    ----------
    organ : str
    verdict : str
        "pass", "warning" or "fail".
    voxels : int
    volume_ml, mass_g, density_g_cm3 : float
        The density is the mean, 0 for an empty organ.
    mean_HU, sd_HU : float or None
        None without a CT.
    reference_mass_g, lowest_mass_g, highest_mass_g : float or None
        None where no reference applies.
    pieces : int
        Connected parts.
    cut : tuple of str
        Sides of the image that cut it: "R", "L", "A", "P", "S", "I".
    findings : tuple of Finding
    """

    organ: str
    verdict: str
    voxels: int
    volume_ml: float
    mass_g: float
    density_g_cm3: float
    mean_HU: float | None
    sd_HU: float | None
    reference_mass_g: float | None
    lowest_mass_g: float | None
    highest_mass_g: float | None
    pieces: int
    cut: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class PhantomQuality:
    """Verdict on a phantom.

    Attributes
    ----------
    verdict : str
        "pass", "warning" or "fail": the worst finding's.
    organs : tuple of OrganQuality
        In the order of the label table.
    findings : tuple of Finding
        All of them, the gravest first.
    person : PatientFacts
        Whom the masses were compared with.
    """

    verdict: str
    organs: tuple[OrganQuality, ...]
    findings: tuple[Finding, ...]
    person: PatientFacts

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``phantom.json``; findings stand once, with the name of their organ."""
        organs = [{key: value for key, value in asdict(organ).items() if key != "findings"} for organ in self.organs]
        return {
            "verdict": self.verdict,
            "person": asdict(self.person),
            "organs": organs,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def describe(self) -> str:
        """Verdict and findings as lines, for people."""
        counts = [f"{sum(f.severity == s for f in self.findings)} {s}" for s in (FAIL, WARNING, NOTE)]
        lines = [f"Quality: {self.verdict} ({', '.join(counts)})"]
        return "\n".join([*lines, *(f"  {finding.sentence()}" for finding in self.joined)])

    @property
    def joined(self) -> tuple[Finding, ...]:
        """The findings, with what is said of several organs in the same words said once of all."""
        together: dict[Finding, list[str]] = {}
        for finding in self.findings:
            together.setdefault(replace(finding, organ=""), []).append(finding.organ)
        return tuple(replace(finding, organ=", ".join(organs)) for finding, organs in together.items())


def assess_phantom(
    phantom: VoxelPhantom, ct: ImageVolume | None = None, *, person: PatientFacts | None = None
) -> PhantomQuality:
    """Judge a phantom before its doses are believed.

    Parameters
    ----------
    phantom : VoxelPhantom
    ct : ImageVolume, optional
        HU, on the grid of the phantom: without it CT numbers are not judged.
    person : PatientFacts, optional
        Whom the organ masses are compared with; read from the metadata of `ct` if not given.

    Returns
    -------
    PhantomQuality
        Per organ: mass against the reference, density, CT number, holes, islands, size in voxels, cut by the image's border.
        Overall: sides, order along the body, missing organs, organs split over two labels, overlaps that the label reader
        resolved, holes in the body, truncated body, separate arms, voxel size, whether the image is in Hounsfield units. A
        healthy organ outside the limits is possible: the verdict asks for a look.

    Raises
    ------
    SynthDoseError
        If the CT is on another grid.
    """
    if ct is not None and not ct.grid.matches(phantom.grid):
        raise SynthDoseError("The CT is on another grid than the phantom.")
    facts = person or (person_of(ct) if ct is not None else PatientFacts())
    boxes = ndimage.find_objects(np.asarray(phantom.labels.labels, dtype=np.int32))
    measured = [
        measure_organ(phantom, organ, boxes[organ.index - 1] if organ.index <= len(boxes) else None, ct)
        for organ in phantom.labels.organs
    ]
    organs = [row for row in measured if row.name not in NOT_ORGANS]
    found: list[Finding] = []
    for row in organs:
        found += check_organ(row, facts)
    found += check_long_organs(organs)
    found += _check_assembled(organs, facts)
    found += _check_voxel_size(organs, facts)
    found += check_sides(organs, phantom)
    found += check_order(organs)
    found += check_missing(organs)
    found += check_overlaps(phantom.labels.notes)
    found += check_split(phantom.labels.notes, organs)
    found += check_body(phantom, ct)
    if ct is not None:
        found += check_hounsfield(ct, phantom.density_g_cm3 > 0)
    found += check_total_mass(phantom, facts)
    return _verdict(measured, found, facts)


def person_of(image: ImageVolume) -> PatientFacts:
    """What the metadata of an image says about the patient; values that are none of a person are left out.

    Examples
    --------
    >>> from SynthDoseLib.core import VoxelGrid
    >>> grid = VoxelGrid.from_spacing((1, 1, 1), (1.0, 1.0, 1.0))
    >>> person_of(ImageVolume(grid, np.zeros((1, 1, 1)), metadata={"patient_sex": "F", "patient_age_years": 5}))
    PatientFacts(sex='female', age_y=5.0, height_m=None, weight_kg=None)
    """
    metadata = image.metadata
    sex = {"M": "male", "F": "female"}.get(str(metadata.get("patient_sex", "")).upper(), "")
    known: dict[str, Any] = {}
    for name, key in (("age_y", "patient_age_years"), ("height_m", "patient_height_m"), ("weight_kg", "patient_weight_kg")):
        try:
            known[name] = float(metadata[key])
            PatientFacts(**{name: known[name]})
        except (KeyError, TypeError, ValueError, SynthDoseError):
            known.pop(name, None)
    return PatientFacts(sex, **known)


def _check_assembled(organs: Iterable[MeasuredOrgan], person: PatientFacts) -> list[Finding]:
    """Masses of organs that are labelled in parts, if all parts are there and none is cut."""
    by_name = {row.name: row for row in organs if row.voxels}
    found = []
    for whole, members in MEMBERS.items():
        parts = [by_name[name] for name in members if name in by_name]
        expected = expected_mass_g(whole, person)
        if len(parts) < len(members) or expected is None or any(part.cut for part in parts):
            continue
        mass = sum(part.mass_g for part in parts)
        if not expected.low_g <= mass <= expected.high_g:
            found.append(
                Finding(
                    WARNING,
                    "mass",
                    members[0],
                    f"{whole} in {len(parts)} parts weighs {mass:.0f} g",
                    f"{expected.low_g:.0f} to {expected.high_g:.0f} g (reference {expected.reference_g:.0f} g)",
                    f"Look at the outlines of {', '.join(members)}.",
                )
            )
    return found


def _check_voxel_size(organs: Iterable[MeasuredOrgan], person: PatientFacts) -> list[Finding]:
    """All organs too large or too small together: the voxel size is wrong, or the patient is a child."""
    ratios = []
    for row in organs:
        expected = expected_mass_g(row.name, person)
        if row.name in SCALE_ORGANS and expected is not None and row.voxels and not row.cut:
            ratios.append(row.mass_g / expected.reference_g)
    if len(ratios) < 3:
        return []
    median = float(np.median(ratios))
    for severity in (FAIL, WARNING):
        low, high = SCALE_LIMITS[severity]
        if not low <= median <= high:
            return [
                Finding(
                    severity,
                    "scale",
                    "",
                    f"{len(ratios)} organs weigh {median:.2g} times their reference (median)",
                    f"{low:g} to {high:g} times",
                    "Check the voxel size of image and labels, and sex, age and height of the patient.",
                )
            ]
    return []


def _verdict(measured: Iterable[MeasuredOrgan], found: list[Finding], person: PatientFacts) -> PhantomQuality:
    gravity = {FAIL: 0, WARNING: 1, NOTE: 2}
    ordered = sorted(found, key=lambda f: (gravity[f.severity], f.organ))
    rows = []
    for row in measured:
        own = tuple(finding for finding in ordered if finding.organ == row.name)
        expected = expected_mass_g(row.name, person)
        rows.append(
            OrganQuality(
                organ=row.name,
                verdict=worst(own),
                voxels=row.voxels,
                volume_ml=row.volume_ml,
                mass_g=row.mass_g,
                density_g_cm3=row.density_g_cm3,
                mean_HU=row.mean_HU,
                sd_HU=row.sd_HU,
                reference_mass_g=None if expected is None else expected.reference_g,
                lowest_mass_g=None if expected is None else expected.low_g,
                highest_mass_g=None if expected is None else expected.high_g,
                pieces=len(row.piece_voxels),
                cut=row.cut,
                findings=own,
            )
        )
    return PhantomQuality(worst(ordered), tuple(rows), tuple(ordered), person)
