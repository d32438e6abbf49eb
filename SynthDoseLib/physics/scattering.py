"""Form factors, incoherent scattering functions and atomic relaxation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from SynthDoseLib.core import Material

from .materials import atoms_per_gram
from .tables import load_table


@dataclass(frozen=True)
class FluorescenceLine:
    """One radiative transition: name (IUPAC), energy and probability among the shell's radiative transitions."""

    name: str
    energy_MeV: float
    probability: float


@dataclass(frozen=True)
class AtomicShell:
    """One shell of an element.

    Attributes
    ----------
    name : str
        "K", "L1", "L2" or "L3".
    edge_MeV : float
        Binding energy, MeV.
    jump_ratio : float
        Photoelectric cross section just above over just below the edge; the shell's share of the photoelectric effect just
        above its edge is ``1 - 1 / jump_ratio`` of what is left after the shells above it.
    fluorescence_yield : float
        Radiative fraction of the vacancies.
    lines : tuple of FluorescenceLine
        Their probabilities sum to 1; empty if the yield is 0.
    """

    name: str
    edge_MeV: float
    jump_ratio: float
    fluorescence_yield: float
    lines: tuple[FluorescenceLine, ...]


def form_factor(target: Material | int, x_per_angstrom: ArrayLike) -> NDArray[np.float64]:
    """Atomic form factor for coherent scattering.

    Parameters
    ----------
    target : Material or int
        A material, or the atomic number of an element.
    x_per_angstrom : array_like, any shape
        Momentum transfer sin(theta/2)/wavelength = E sin(theta/2) / 12.398 keV angstrom, 1/angstrom. Above 100 the value at
        100 (practically 0).

    Returns
    -------
    ndarray of float64
        F(x, Z), electrons, for an element; for a material ``sqrt(sum of n_i F_i^2 / sum of n_i)``, the independent-atom
        form factor per atom.

    References
    ----------
    J.H. Hubbell et al., J. Phys. Chem. Ref. Data 4 (1975) 471.

    Examples
    --------
    >>> float(form_factor(8, 0.0))
    8.0
    """
    if isinstance(target, Material):
        return np.sqrt(_atomic_mean(target, x_per_angstrom, "form_factor", 2))
    return _tabulated("form_factor", target, x_per_angstrom)


def incoherent_scattering_function(target: Material | int, x_per_angstrom: ArrayLike) -> NDArray[np.float64]:
    """Incoherent scattering function S(x, Z), electrons per atom (mean over the atoms of a material).

    Parameters and source as `form_factor`; 0 at x = 0 and Z for large x.
    """
    if isinstance(target, Material):
        return _atomic_mean(target, x_per_angstrom, "incoherent_function", 1)
    return _tabulated("incoherent_function", target, x_per_angstrom)


@cache
def atomic_shells(z: int) -> tuple[AtomicShell, ...]:
    """K and L shells of an element with an edge above 1 keV, from the outermost energy down: K first."""
    table = load_table("atoms")
    shells = []
    for column, name in enumerate(table["shell_name"]):
        edge = float(table["shell_edge_MeV"][z - 1, column])
        if edge < 1e-3:
            continue
        rows = np.flatnonzero((table["line_Z"] == z) & (table["line_shell"] == column))
        total = float(table["line_probability"][rows].sum())
        lines = tuple(
            FluorescenceLine(
                str(table["line_name"][n]), float(table["line_energy_MeV"][n]), float(table["line_probability"][n]) / total
            )
            for n in rows
        )
        shells.append(
            AtomicShell(
                str(name),
                edge,
                float(table["shell_jump_ratio"][z - 1, column]),
                float(table["shell_fluorescence_yield"][z - 1, column]) if lines else 0.0,
                lines,
            )
        )
    return tuple(shells)


def shell_fractions(z: int, energies_MeV: ArrayLike) -> NDArray[np.float64]:
    """Share of the photoelectric effect that each of `atomic_shells` takes, (n shells, ...); outer shells take the rest.

    From the jump ratios at the edges, held constant above them.
    """
    energies = np.asarray(energies_MeV, dtype=np.float64)
    shells = atomic_shells(z)
    left = np.ones_like(energies)
    result = np.zeros((len(shells), *energies.shape))
    for row, shell in enumerate(shells):
        if shell.jump_ratio > 1:
            result[row] = np.where(energies >= shell.edge_MeV, left * (1 - 1 / shell.jump_ratio), 0.0)
            left = left - result[row]
    return result


def _tabulated(key: str, z: int, x_per_angstrom: ArrayLike) -> NDArray[np.float64]:
    table = load_table("atoms")
    nodes = table["x_per_angstrom"]
    values = table[key][z - 1].astype(np.float64)
    x = np.asarray(x_per_angstrom, dtype=np.float64)
    # log-log between nodes; below the first positive node both functions are parabolas in x
    low = x < nodes[1]
    inside = np.clip(x, nodes[1], nodes[-1])
    result = np.exp(np.interp(np.log(inside), np.log(nodes[1:]), np.log(np.maximum(values[1:], 1e-300))))
    start = values[0] + (values[1] - values[0]) * (x / nodes[1]) ** 2
    return np.where(low, start, result)


def _atomic_mean(material: Material, x_per_angstrom: ArrayLike, key: str, power: int) -> NDArray[np.float64]:
    numbers, atoms = atoms_per_gram(material)
    terms = [n * _tabulated(key, int(z), x_per_angstrom) ** power for z, n in zip(numbers, atoms, strict=True)]
    result: NDArray[np.float64] = np.sum(terms, axis=0) / atoms.sum()
    return result
