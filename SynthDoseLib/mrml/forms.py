"""What users type into panels, as values, and values as short texts."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ..core import ProgressReport, SynthDoseError

NUCLIDES = (
    "Lu-177", "Y-90", "I-131", "Tb-161", "Ho-166", "Sm-153", "Re-186", "Re-188", "Cu-67", "Sr-89", "Er-169", "P-32",
    "Ac-225", "Ra-223", "Pb-212", "Bi-213", "At-211",
    "F-18", "Ga-68", "Cu-64", "Zr-89", "I-124", "C-11", "N-13", "O-15", "Rb-82",
    "Tc-99m", "In-111", "I-123", "Ga-67", "Tl-201",
)  # fmt: skip
"""Nuclides of the shipped decay data that are used in patients; the command line knows all of the data."""

FURTHER_NUCLIDES = (
    "H-3", "C-14", "Na-22", "Na-24", "Sc-44", "Sc-47", "Cr-51", "Fe-59", "Co-57", "Co-60", "Cu-61", "Cu-62", "Ge-68", "Br-76",
    "Kr-81", "Kr-81m", "Rb-81", "Sr-82", "Sr-90", "Y-86", "Mo-99", "Tc-99", "Rh-103m", "Pd-103", "Cd-111m", "Sn-117m", "Te-123",
    "Te-123m", "I-125", "Xe-131m", "Xe-133", "Cs-137", "Ba-137m", "Nd-144", "Pm-145", "Sm-145", "Sm-148", "Eu-145", "Eu-149",
    "Gd-149", "Gd-152", "Tb-149", "Tb-152", "Tb-155", "Ho-166m", "Lu-177m", "Os-186", "Ir-192", "Hg-206", "Tl-206", "Tl-207",
    "Tl-208", "Tl-209", "Tl-210", "Pb-209", "Pb-210", "Pb-211", "Pb-214", "Bi-207", "Bi-210", "Bi-211", "Bi-212", "Bi-214",
    "Bi-215", "Po-210", "Po-211", "Po-212", "Po-213", "Po-214", "Po-215", "Po-216", "Po-218", "At-217", "At-218", "At-219",
    "Rn-218", "Rn-219", "Rn-220", "Rn-222", "Fr-221", "Fr-223", "Ra-224", "Ra-226", "Ac-227", "Th-227", "Th-228",
)  # fmt: skip
"""The rest of the decay data, for phantoms, generators and daughters by themselves."""

KINETICS = ("auto", "mono", "mono-uptake", "bi", "bi-uptake", "tri", "trapezoid", "hanscheid", "population", "madsen")
"""Ways from activities to their time integral, as ``[kinetics] method`` of a plan."""

REGISTRATIONS = ("auto", "none", "rigid", "affine", "deformable")

PLAN_WORDS: Mapping[str, str] = {
    "[therapy] nuclide": "Nuclide",
    "[therapy] progeny": "Daughters",
    "[therapy] administered_MBq": "Administered",
    "[therapy] administered_at": "Administered at",
    "[kinetics] method": "Method",
    "[kinetics] registration": "Registration",
    "[kinetics] effective_half_life_h": "Effective half-lives, h",
    "[kinetics] rest_effective_half_life_h": "Half-life elsewhere",
    "[kinetics] calibration_relative_sigma": "Calibration",
    "[segmentation] bundle": "Bundle",
    "[phantom] materials": "Tissues",
    "[dose] histories": "Histories",
    "[dose] relative_sigma": "Precision",
    "[dose] organs": "Organs",
    "[dose] max_seconds": "Time limit",
    "[dose] voxel_mm": "Dose voxels",
    "[dose] seed": "Seed",
    "[dose] compare": "Compare with kernels and local deposition",
    "[dosimetry] previous": "Earlier dose",
}
"""Keys of a plan and the fields of the guided case."""

CASE_WORDS: Mapping[str, str] = {
    "[source] weights": "Source organs",
    "[source] nuclide": "Nuclide",
    "[source] progeny": "Daughters",
    "[source] emission": "Or own emissions",
    "[source] centre_mm_ras": "Centre, mm",
    "[source] direction_ras": "Direction",
    "[source] up_ras": "Up",
    "[source] source_distance_mm": "Focus distance",
    "[run] histories": "Histories",
    "[run] relative_sigma": "Relative sigma",
    "[run] organs": "of the organs",
    "[run] max_seconds": "Longest time",
    "[run] device": "Device",
    "[run] estimator": "Estimator",
    "[run] seed": "Seed",
    "[run] s_values": "Table of S values",
    "[run] compare": "Compare with kernels and local deposition",
}
"""Keys of a case file and the fields of the Monte Carlo panel."""

RESULT_TABLES: Mapping[str, str] = {
    "organ doses": "organTable",
    "uncertainty budget": "budgetTable",
    "quality": "qualityTable",
    "limits": "limitsTable",
    "BED and EQD2": "bedTable",
    "kinetics": "kineticsTable",
    "histogram metrics": "metricsTable",
    "dose engines": "enginesTable",
    "cumulative doses": "cumulativeTable",
    "what the images say": "fieldsTable",
}
"""Tables that the panel can show, and the role by which the dose volume refers to them."""

TAKEN_OVER = "taken over"
"""Last message of a stage that was not calculated, because an earlier run had the same inputs."""

NO_BREAK = "\N{NO-BREAK SPACE}"

WHAT_CHANGED = "what has changed"

BEGIN: Mapping[str, str] = {
    WHAT_CHANGED: "",
    "organs and all after": "segment",
    "phantom and all after": "phantom",
    "activity and all after": "activity",
    "transport and all after": "transport",
    "organ doses and all after": "results",
    "report": "report",
}
"""From where a run calculates anew, and the stage of ``synthdose run --from``."""

PERMISSIONS = ("trusted", "download")
"""Keys of ``[segmentation]`` by which a plan allows that code is run or something is fetched."""

PARTICLES = ("photon", "electron", "positron", "alpha")


def namesFromText(text: str) -> list[str]:
    """Return the names in a text that separates them by commas.

    Examples
    --------
    >>> namesFromText("kidneys, liver ,")
    ['kidneys', 'liver']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def option(name: str, *values: str) -> list[str]:
    """Return an option of the command line with values that a user has typed, or none without them.

    Raises
    ------
    SynthDoseError
        If a value begins with a hyphen: it would be taken for an option.

    Examples
    --------
    >>> option("--organs", "liver", "spleen"), option("--organs")
    (['--organs', 'liver', 'spleen'], [])
    """
    for value in values:
        if value.startswith("-"):
            raise SynthDoseError(f"A name cannot begin with a hyphen; found '{value}'. Give it, or the segment, another name.")
    return [name, *values] if values else []


def linesFromText(text: str) -> list[str]:
    """Return the lines of a text that are not empty.

    Examples
    --------
    >>> linesFromText("first bundle\\n\\n second ")
    ['first bundle', 'second']
    """
    return [line.strip() for line in text.splitlines() if line.strip()]


def widthsFromText(text: str) -> list[float]:
    """Return widths of filters, mm, that are separated by commas.

    Raises
    ------
    SynthDoseError
        If one is not a positive number.

    Examples
    --------
    >>> widthsFromText("2, 4.5"), widthsFromText("")
    ([2.0, 4.5], [])
    """
    try:
        widths = [float(word) for word in namesFromText(text)]
    except ValueError:
        widths = [math.nan]
    if not all(math.isfinite(width) and width > 0 for width in widths):
        raise SynthDoseError(f"LoG filters: found '{text}'. Write widths above 0, in mm, separated by commas, as in '2, 4'.")
    return widths


def halfLivesFromText(text: str) -> dict[str, float]:
    """Return effective half-lives, h, by organ from lines ``organ = hours``; a line without hours is left out.

    Raises
    ------
    SynthDoseError
        If a line has another form, or hours are not positive.

    Examples
    --------
    >>> halfLivesFromText("kidneys = 50\\nliver =")
    {'kidneys': 50.0}
    """
    found: dict[str, float] = {}
    for line in filter(str.strip, text.splitlines()):
        name, separator, hours = (part.strip() for part in line.partition("="))
        if separator and name and not hours:
            continue
        try:
            value = float(hours)
        except ValueError:
            value = 0.0
        if not (separator and name and math.isfinite(value) and value > 0):
            raise SynthDoseError(
                f"Effective half-life: found '{line.strip()}'. Write one organ per line with its hours, as in 'kidneys = 50'."
            )
        found[name] = value
    return found


def withOrganLines(text: str, organs: Iterable[str], hours: float = 0.0) -> str:
    """Return `text` with a line ``organ = hours`` for every organ that it does not name yet; hours are left open if 0.

    Examples
    --------
    >>> withOrganLines("liver = 70", ["liver", "spleen"], 60.0)
    'liver = 70\\nspleen = 60'
    """
    lines = list(filter(str.strip, text.splitlines()))
    named = {line.partition("=")[0].strip() for line in lines}
    value = f"{hours:g}" if hours > 0 else ""
    return "\n".join([*lines, *(f"{organ} = {value}" for organ in organs if organ not in named)])


def stagesText(reports: Iterable[ProgressReport]) -> str:
    """Return the stages of a run in a line: done, taken over from an earlier run, or under way.

    Examples
    --------
    >>> stagesText([ProgressReport("read", 1.0), ProgressReport("phantom", 1.0, None, "taken over"),
    ...     ProgressReport("transport", 0.5)]).replace(NO_BREAK, " ")
    '✓ Reading images · ↺ Building the phantom (taken over) · ▶ Transporting radiation 50 %'
    """
    texts = []
    for report in reports:
        if report.fraction < 1:
            texts.append(f"▶ {report.title} {100 * report.fraction:.0f} %")
        else:
            over = report.message == TAKEN_OVER
            texts.append(f"↺ {report.title} ({TAKEN_OVER})" if over else f"✓ {report.title}")
    return " · ".join(text.replace(" ", NO_BREAK) for text in texts)


def durationText(seconds: float) -> str:
    """Return a time for people.

    Examples
    --------
    >>> durationText(42.4), durationText(600)
    ('42 s', '10 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def weightsFromText(text: str) -> dict[str, float]:
    """Return relative decays by organ from lines ``organ = weight``; a line without a weight counts 1.

    Raises
    ------
    SynthDoseError
        If a weight is not a positive number, or there is no line.

    Examples
    --------
    >>> weightsFromText("kidneys = 3\\nliver")
    {'kidneys': 3.0, 'liver': 1.0}
    """
    found: dict[str, float] = {}
    for line in filter(str.strip, text.splitlines()):
        name, separator, weight = (part.strip() for part in line.partition("="))
        try:
            value = float(weight) if separator and weight else 1.0
        except ValueError:
            value = 0.0
        if not (name and math.isfinite(value) and value > 0):
            raise SynthDoseError(f"Source organs: found '{line.strip()}'. Write one organ per line, as in 'kidneys = 3'.")
        found[name] = value
    if not found:
        raise SynthDoseError("Source organs: there is none. Write one organ per line, as in 'kidneys = 3'.")
    return found


def emissionsFromText(text: str) -> list[dict[str, Any]]:
    """Return emissions of a case from lines ``particle energy_MeV yield_per_decay``; a missing yield is 1.

    Raises
    ------
    SynthDoseError
        If a line has another form.

    Examples
    --------
    >>> emissionsFromText("photon 0.1405 0.885")
    [{'particle': 'photon', 'energy_MeV': 0.1405, 'yield_per_decay': 0.885}]
    """
    found = []
    for line in filter(str.strip, text.splitlines()):
        words = line.split()
        try:
            particle, energy, share = words[0], float(words[1]), float(words[2]) if len(words) > 2 else 1.0
            good = particle in PARTICLES and len(words) <= 3
        except (IndexError, ValueError):
            good = False
        if not good:
            raise SynthDoseError(
                f"Emissions: found '{line.strip()}'. Write particle ({', '.join(PARTICLES)}), energy in MeV and yield per "
                "decay, as in 'photon 0.1405 0.885'."
            )
        found.append({"particle": particle, "energy_MeV": energy, "yield_per_decay": share})
    return found


def vectorFromText(text: str, name: str, size: int = 3) -> list[float]:
    """Return numbers that are separated by commas or spaces.

    Raises
    ------
    SynthDoseError
        If there are not `size` finite numbers.

    Examples
    --------
    >>> vectorFromText("0, 0, -1", "Direction")
    [0.0, 0.0, -1.0]
    """
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) != size or not all(map(math.isfinite, values)):
        raise SynthDoseError(f"{name}: found '{text}'. Write {size} numbers, as in '{', '.join(['0'] * (size - 1) + ['-1'])}'.")
    return values


def momentFromText(text: str, name: str) -> datetime:
    """Return a date and time.

    Raises
    ------
    SynthDoseError
        If the text is not one.

    Examples
    --------
    >>> momentFromText("2024-01-31 10:00", "Administered at").hour
    10
    """
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise SynthDoseError(f"{name}: found '{text}'. Write a date and time, as in 2024-01-31 10:00.") from None


def withFurtherKeys(values: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return the tables of a plan with those of a TOML text over them, table by table.

    Raises
    ------
    SynthDoseError
        If the text is not TOML, or allows what only the user may allow: the text may have come with a scene.

    Examples
    --------
    >>> withFurtherKeys({"dose": {"seed": 1}}, "[dose]\\nthreads = 2")
    {'dose': {'seed': 1, 'threads': 2}}
    """
    try:
        further = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SynthDoseError(
            f"Further keys of the plan are not TOML: {error}. Write a table such as [dose] and keys below it."
        ) from error
    segmentation = further.get("segmentation")
    for key in PERMISSIONS:
        if isinstance(segmentation, Mapping) and segmentation.get(key):
            raise SynthDoseError(
                f"Further keys of the plan: [segmentation] {key} is not taken from a scene. Find the organs in the module "
                "SynthDose Segmentation, which asks for it, or write a plan file for 'synthdose run'."
            )
    return _merged(values, further)


def _merged(values: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for key, value in further.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
