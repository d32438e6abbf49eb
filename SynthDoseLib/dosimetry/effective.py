"""Effective dose from organ doses, with the tissues that are there."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..core import SynthDoseError
from .tables import dosimetry_rows, number

RADIATION_WEIGHTS: Mapping[str, float] = {"photon": 1.0, "electron": 1.0, "positron": 1.0, "alpha": 20.0}  # ICRP 103
SEXES = ("male", "female")


@dataclass(frozen=True)
class Tissue:
    """A tissue of ICRP 103: its weight (for a remainder tissue that of the whole remainder) and organs that stand for it."""

    name: str
    weight: float
    remainder: bool
    sex: str
    organs: tuple[str, ...]


@dataclass(frozen=True)
class EffectiveDose:
    """Sum of weighted equivalent doses over the tissues whose dose is known.

    Attributes
    ----------
    value_Sv, sigma_Sv : float
        Of the tissues present; nothing is put in for missing ones.
    weight_present : float
        Sum of the weights of tissues present, 1 if all are.
    present, missing : tuple of str
    notes : tuple of str
    """

    value_Sv: float
    sigma_Sv: float
    weight_present: float
    present: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def tissue_weights(path: str | os.PathLike[str] | None = None) -> tuple[Tissue, ...]:
    """Tissues and weights of ICRP Publication 103, or of a user's table with the same columns.

    Examples
    --------
    >>> own = [t.weight for t in tissue_weights() if not t.remainder]
    >>> f"{sum(own) + 0.12:.2f}"
    '1.00'
    """
    columns = ("tissue", "weight", "group", "sex", "organs")
    return tuple(
        Tissue(
            row["tissue"],
            number(row, "weight", "tissue_weights"),
            row["group"] == "remainder",
            row["sex"],
            tuple(row["organs"].split(";")),
        )
        for row in dosimetry_rows("tissue_weights", columns, path)
    )


def equivalent_dose(components_Gy: Mapping[str, float], weights: Mapping[str, float] = RADIATION_WEIGHTS) -> float:
    """Equivalent dose, Sv: absorbed doses by emitted particle times their radiation weighting factors (ICRP 103).

    Examples
    --------
    >>> equivalent_dose({"photon": 0.1, "electron": 0.2, "alpha": 0.05})
    1.3
    """
    unknown = sorted(set(components_Gy) - set(weights))
    if unknown:
        raise SynthDoseError(f"There is no radiation weighting factor for '{unknown[0]}'. Known: {', '.join(weights)}.")
    return sum(weights[name] * dose for name, dose in components_Gy.items())


def effective_dose(
    male_Sv: Mapping[str, float | tuple[float, float]] | None = None,
    female_Sv: Mapping[str, float | tuple[float, float]] | None = None,
    *,
    tissues: tuple[Tissue, ...] | None = None,
) -> EffectiveDose:
    """Effective dose of the tissues present.

    Each tissue's equivalent dose is averaged over the sexes and weighted; the remainder is the arithmetic mean of its tissues
    (13 in each sex), here of those present. With one sex only, its doses stand for both, and the result says so.

    Parameters
    ----------
    male_Sv, female_Sv : mapping of organ to equivalent dose, or to (dose, standard uncertainty), Sv
        Names of the organ table ("lungs", "urinary_bladder", "red_marrow" …).
    tissues : tuple of Tissue, optional
        `tissue_weights` if not given.

    Returns
    -------
    EffectiveDose
        Uncertainties of tissues are taken as independent.

    Raises
    ------
    SynthDoseError
        If no dose is given, or no tissue is known.

    References
    ----------
    ICRP Publication 103 (2007).

    Examples
    --------
    >>> found = effective_dose({"lungs": 0.01, "liver": 0.02})
    >>> f"{found.value_Sv:.4f} {found.weight_present:.2f}"
    '0.0020 0.16'
    """
    given = {name: doses for name, doses in zip(SEXES, (male_Sv, female_Sv), strict=True) if doses}
    if not given:
        raise SynthDoseError("Effective dose needs organ doses of a male, a female, or both.")
    table = tissue_weights() if tissues is None else tissues
    value, variance, weight_present = 0.0, 0.0, 0.0
    present: list[str] = []
    missing: list[str] = []
    rests: dict[str, list[tuple[float, float]]] = {name: [] for name in given}
    remainder_weight = next((t.weight for t in table if t.remainder), 0.0)
    for tissue in table:
        found = {name: _dose_of(tissue, doses) for name, doses in given.items() if tissue.sex in ("both", name)}
        known = {name: dose for name, dose in found.items() if dose is not None}
        if not found:
            continue
        if len(known) < len(found):
            missing.append(tissue.name)
            continue
        present.append(tissue.name)
        if tissue.remainder:
            for name, dose in known.items():
                rests[name].append(dose)
            continue
        mean, sigma = _average(list(known.values()))
        value += tissue.weight * mean
        variance += (tissue.weight * sigma) ** 2
        weight_present += tissue.weight
    if all(rests.values()):
        means = [_average(doses) for doses in rests.values()]
        mean, sigma = _average(means)
        value += remainder_weight * mean
        variance += (remainder_weight * sigma) ** 2
        weight_present += remainder_weight
    if not present:
        raise SynthDoseError(
            f"None of the organs {', '.join(next(iter(given.values())))} is a tissue of the effective dose "
            f"({', '.join(t.name for t in table)})."
        )
    return EffectiveDose(
        value,
        math.sqrt(variance),
        weight_present,
        tuple(present),
        tuple(missing),
        _notes(given, missing, weight_present, rests),
    )


def _dose_of(tissue: Tissue, doses: Mapping[str, float | tuple[float, float]]) -> tuple[float, float] | None:
    for organ in tissue.organs:
        if organ in doses:
            dose = doses[organ]
            pair = dose if isinstance(dose, tuple) else (dose, 0.0)
            if math.isfinite(pair[0]):
                return float(pair[0]), 0.0 if math.isnan(pair[1]) else float(pair[1])
    return None


def _average(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    count = len(pairs)
    return sum(p[0] for p in pairs) / count, math.sqrt(sum(p[1] ** 2 for p in pairs)) / count


def _notes(
    given: Mapping[str, object], missing: list[str], weight: float, rests: Mapping[str, list[tuple[float, float]]]
) -> tuple[str, ...]:
    notes = []
    if missing:
        notes.append(
            f"Effective dose counts the tissues present, with {weight:.0%} of the weight; not known: {', '.join(missing)}."
        )
    count = min(len(doses) for doses in rests.values())
    if count < 13:
        notes.append(f"The remainder is the mean of {count} of its 13 tissues.")
    if len(given) == 1:
        notes.append(
            f"Doses of one {next(iter(given))} body stand for both sexes: a patient's weighted dose, not the sex-averaged "
            "effective dose of reference persons."
        )
    notes.append("Effective dose is meant for populations and low doses; it does not tell the risk of a patient in therapy.")
    return tuple(notes)
