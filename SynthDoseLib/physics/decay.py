"""Decay data of ICRP Publication 107: half-lives, emissions and chains."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from SynthDoseLib.core import SYMBOLS, Emission, SynthDoseError

from .tables import about_table, load_table

SECONDS_PER_DAY = 86400.0
BETA_BINS = 256
PARTICLE_OF_KIND = {
    "gamma": "photon",
    "x-ray": "photon",
    "annihilation": "photon",
    "conversion electron": "electron",
    "auger electron": "electron",
    "alpha": "alpha",
    "alpha recoil": "alpha",
}


@dataclass(frozen=True, eq=False)
class Nuclide:
    """A radionuclide.

    Attributes
    ----------
    name : str
        As in "Lu-177", "Tc-99m".
    half_life_s : float
    emissions : tuple of Emission
        One per kind ("beta-", "beta+", "gamma", "x-ray", "conversion electron", "auger electron", "alpha", "alpha recoil");
        line spectra keep every line as an empty bin. Annihilation quanta are left out where positrons are listed: these
        annihilate in the engine. Recoil nuclei are given as alphas of their energy, for local deposition.
    progeny : tuple of (str, float)
        Daughters, also stable ones, and fraction of the decays that lead to each.
    """

    name: str
    half_life_s: float
    emissions: tuple[Emission, ...]
    progeny: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class DecayChain:
    """What decays along with a parent.

    Attributes
    ----------
    parent : str
    decays : tuple of (str, float)
        Nuclide and its decays, integrated to infinity, per decay of the parent; the parent first, with 1.
    left_out : tuple of (str, float, float)
        Radioactive progeny that are not followed because they live too long: name, half-life, s, atoms per decay of the parent.
        What they decay to is left out with them.
    """

    parent: str
    decays: tuple[tuple[str, float], ...]
    left_out: tuple[tuple[str, float, float], ...]

    def note(self) -> str:
        """One sentence for the report; empty if nothing is left out."""
        if not self.left_out:
            return ""
        parts = [f"{name} (half-life {_duration(seconds)}, {atoms:.3g} per decay)" for name, seconds, atoms in self.left_out]
        return f"Long-lived progeny of {self.parent} left out: {', '.join(parts)}."


def decay_data_edition() -> str:
    """Source and edition of the decay data, for the report."""
    about = about_table("decay")
    return f"{about['source']}; {about['edition']}"


def nuclides() -> tuple[str, ...]:
    """Names of the radionuclides with decay data, by element and mass."""
    names = [str(name) for name in load_table("decay")["nuclide"]]
    return tuple(sorted(names, key=lambda name: (SYMBOLS.index(name.split("-")[0]), name)))


def nuclide_name(name: str) -> str:
    """Bring "Lu177", "lu-177", "177Lu" or "Tc 99m" into the form of the tables, "Lu-177".

    Raises
    ------
    SynthDoseError
        If there are no decay data for it: with the nearest names and all that are known.
    """
    text = re.sub(r"[\s_\-^]", "", name)
    match = re.fullmatch(r"([A-Za-z]{1,2})(\d{1,3})([mn]?)", text, re.IGNORECASE)
    reverse = re.fullmatch(r"(\d{1,3})([mn]?)([A-Za-z]{1,2})", text, re.IGNORECASE)
    candidates = []
    if match:
        candidates.append(f"{match[1].capitalize()}-{match[2]}{match[3].lower()}")
    if reverse:
        candidates.append(f"{reverse[3].capitalize()}-{reverse[1]}{reverse[2].lower()}")
        # "99mTc" reads as m + Tc, "82Mn" would not: try the letter as part of the symbol as well
        candidates.append(f"{(reverse[2] + reverse[3]).capitalize()}-{reverse[1]}")
    known = nuclides()
    for candidate in candidates:
        if candidate in known:
            return candidate
    wanted = candidates[0] if candidates else name
    nearest = difflib.get_close_matches(wanted, known, n=4, cutoff=0.6)
    same = [k for k in known if k.split("-")[0] == wanted.split("-")[0]]
    suggestions = ", ".join(dict.fromkeys([*same, *nearest]))
    raise SynthDoseError(
        f"There are no decay data for the nuclide '{name}'."
        + (f" Nearest: {suggestions}." if suggestions else "")
        + f" Known: {', '.join(known)}."
    )


@cache
def get_nuclide(name: str) -> Nuclide:
    """Return the radionuclide called `name`.

    Parameters
    ----------
    name : str
        "Lu-177", "Lu177", "lu-177" or "177Lu".

    Raises
    ------
    SynthDoseError
        If it is not known.

    References
    ----------
    ICRP Publication 107, Ann. ICRP 38 (3), 2008.

    Examples
    --------
    >>> lu = get_nuclide("177Lu")
    >>> lu.name, round(lu.half_life_s / 86400, 3), [e.label for e in lu.emissions]
    ('Lu-177', 6.647, ['beta-', 'gamma', 'x-ray', 'conversion electron', 'auger electron'])
    """
    canonical = nuclide_name(name)
    if canonical != name:
        return get_nuclide(canonical)
    table = load_table("decay")
    row = int(np.flatnonzero(table["nuclide"] == name)[0])
    emissions = _beta_emissions(row)
    has_positrons = bool(table["beta_yield"][row, 1] > 0)
    lines = slice(int(table["line_offset"][row]), int(table["line_offset"][row + 1]))
    kinds = table["line_kind"][lines]
    for number, kind in enumerate(table["kind"]):
        here = kinds == number
        if not here.any() or (kind == "annihilation" and has_positrons):
            continue
        emissions.append(
            line_emission(
                PARTICLE_OF_KIND[str(kind)], table["line_energy_MeV"][lines][here], table["line_yield"][lines][here], str(kind)
            )
        )
    daughters = slice(int(table["progeny_offset"][row]), int(table["progeny_offset"][row + 1]))
    progeny = tuple(
        (str(d), float(b)) for d, b in zip(table["progeny"][daughters], table["progeny_branching"][daughters], strict=True)
    )
    return Nuclide(name, float(table["half_life_s"][row]), tuple(emissions), progeny)


def line_emission(particle: str, energies_MeV: NDArray[np.float64], yields: NDArray[np.float64], label: str = "") -> Emission:
    """Pack lines into one emission: each line is an empty bin, the bins between lines have probability 0."""
    order = np.argsort(energies_MeV)
    edges = np.repeat(energies_MeV[order], 2)
    probability = np.zeros(edges.size - 1)
    probability[::2] = yields[order]
    return Emission(particle, float(yields.sum()), edges, probability, label)


def radioactive_progeny(name: str) -> tuple[str, ...]:
    """Daughters of a nuclide that are themselves radioactive (and have decay data)."""
    known = set(nuclides())
    return tuple(daughter for daughter, _ in get_nuclide(name).progeny if daughter in known)


def decay_chain(name: str, progeny: str | Mapping[str, float] = "all", *, progeny_max_half_life_d: float = 10.0) -> DecayChain:
    """Work out the decays of the progeny per decay of the parent, integrated to infinity.

    Every atom of a progeny that forms decays in the end, so the number is the sum over paths of the product of branching
    fractions (Bateman's equations integrated over all time).

    Parameters
    ----------
    name : str
        Parent.
    progeny : "none", "all" or mapping of str to float
        "all": every member of the chain. A mapping takes the named members only, each with the fraction (0 to 1) of its
        decays that happen where the parent decays.
    progeny_max_half_life_d : float
        Progeny that live longer, days, are left out together with what they decay to.

    Returns
    -------
    DecayChain

    Raises
    ------
    SynthDoseError
        If a name is unknown or not in the chain, or a fraction is not between 0 and 1.

    Examples
    --------
    >>> dict(decay_chain("Bi-212").decays)["Tl-208"]
    0.3594
    """
    parent = get_nuclide(name).name
    known = set(nuclides())
    decays: dict[str, float] = {}
    left_out: dict[str, float] = {}

    def follow(member: str, atoms: float) -> None:
        decays[member] = decays.get(member, 0.0) + atoms
        for daughter, fraction in get_nuclide(member).progeny:
            if daughter not in known:
                continue
            if get_nuclide(daughter).half_life_s > progeny_max_half_life_d * SECONDS_PER_DAY:
                left_out[daughter] = left_out.get(daughter, 0.0) + atoms * fraction
            else:
                follow(daughter, atoms * fraction)

    follow(parent, 1.0)
    missing = tuple((member, get_nuclide(member).half_life_s, atoms) for member, atoms in left_out.items())
    if isinstance(progeny, Mapping):
        chosen = {nuclide_name(member): float(value) for member, value in progeny.items()}
        members = [member for member in decays if member != parent]
        strangers = [member for member in chosen if member not in members]
        if strangers:
            raise SynthDoseError(
                f"{', '.join(strangers)} is not among the progeny of {parent} that are followed "
                f"({', '.join(members) or 'none'}). Raise progeny_max_half_life_d for long-lived ones."
            )
        bad = {member: value for member, value in chosen.items() if not 0 <= value <= 1}
        if bad:
            raise SynthDoseError(f"Progeny fractions have to be between 0 and 1; found {bad}.")
        return DecayChain(parent, ((parent, 1.0), *((m, decays[m] * f) for m, f in chosen.items())), missing)
    if progeny == "none":
        return DecayChain(parent, ((parent, 1.0),), ())
    if progeny == "all":
        return DecayChain(parent, tuple(decays.items()), missing)
    raise SynthDoseError(f"progeny is 'none', 'all' or a table of nuclide = fraction; found {progeny!r}.")


def decay_emissions(
    name: str, progeny: str | Mapping[str, float] = "none", *, progeny_max_half_life_d: float = 10.0
) -> tuple[Emission, ...]:
    """Emissions per decay of the parent, with those of its progeny if asked for.

    Parameters and errors as `decay_chain`; use that to learn what is left out.

    Returns
    -------
    tuple of Emission
        Per nuclide and kind; labels of progeny name the nuclide ("Tl-208 gamma"). Yields are per decay of the parent.
    """
    chain = decay_chain(name, progeny, progeny_max_half_life_d=progeny_max_half_life_d)
    result = []
    for member, decays in chain.decays:
        for e in get_nuclide(member).emissions:
            label = e.label if member == chain.parent else f"{member} {e.label}"
            result.append(Emission(e.particle, e.yield_per_decay * decays, e.edges_MeV, e.probability, label))
    return tuple(result)


def _beta_emissions(row: int) -> list[Emission]:
    table = load_table("decay")
    result = []
    for sign, (particle, label) in enumerate((("electron", "beta-"), ("positron", "beta+"))):
        part = slice(int(table["spectrum_offset"][2 * row + sign]), int(table["spectrum_offset"][2 * row + sign + 1]))
        energy, density = table["spectrum_energy_MeV"][part], table["spectrum_per_MeV"][part]
        if energy.size == 0:
            continue
        edges = np.linspace(0.0, energy[-1], BETA_BINS + 1)
        cumulative = PchipInterpolator(energy, density).antiderivative()(edges)
        probability = np.maximum(np.diff(cumulative), 0.0)
        result.append(Emission(particle, float(table["beta_yield"][row, sign]), edges, probability, label))
    return result


def _duration(seconds: float) -> str:
    for unit, length in (("y", 365.2422 * SECONDS_PER_DAY), ("d", SECONDS_PER_DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
