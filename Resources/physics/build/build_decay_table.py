"""Build decay.npz from icrp107-database (emissions) and radioactivedecay (half-lives, progeny).

Run with: python Resources/physics/build/build_decay_table.py
"""

from __future__ import annotations

import json
from pathlib import Path

import icrp107_database
import numpy as np
import radioactivedecay
from numpy.typing import NDArray
from scipy.optimize import brentq
from table_writer import write_table

from SynthDoseLib.core import SYMBOLS

ELECTRON_MEV = 0.51099895

# what nuclear medicine, its generators, impurities and calibration sources use; progeny are added by following the chains
WANTED = """F-18 C-11 N-13 O-15 Ga-68 Ga-67 Cu-64 Cu-67 Zr-89 Y-90 Y-86 Tc-99m In-111 I-123 I-124 I-125 I-131 Lu-177 Ho-166
Re-186 Re-188 Sm-153 Sr-89 P-32 Tb-161 Rb-82 Tl-201 Xe-133 Ra-223 Ac-225 Bi-213 Pb-212 At-211 Th-227 Mo-99 Ge-68 Sr-82 Sr-90
Ra-224 Th-228 Ac-227 Kr-81m Rb-81 Er-169 Sn-117m Sc-44 Sc-47 Tb-149 Tb-152 Tb-155 Lu-177m Cu-61 Cu-62 Br-76 Ho-166m Cr-51 Fe-59
Co-57 Co-60 Cs-137 Ir-192 Pd-103 Na-22 Na-24 H-3 C-14 Ra-226""".split()
KINDS = ("gamma", "X", "annihilation", "IE", "auger", "alpha", "alpha recoil")
LABELS = ("gamma", "x-ray", "annihilation", "conversion electron", "auger electron", "alpha", "alpha recoil")
BETA = ("beta-", "beta+")


def emissions(nuclide: str) -> dict[str, list[list[float]]]:
    """Read the emissions of one nuclide; the file holds JSON inside a JSON string."""
    folder = Path(icrp107_database.__file__).parent / "icrp107"
    content = json.loads((folder / f"{nuclide}.json").read_text())
    return (json.loads(content) if isinstance(content, str) else content)["emissions"]


def with_progeny(names: list[str]) -> list[str]:
    """Follow every chain to stable nuclides."""
    result: list[str] = []
    queue = list(names)
    while queue:
        name = queue.pop(0)
        if name in result or radioactivedecay.Nuclide(name).half_life() == np.inf:
            continue
        result.append(name)
        queue += [daughter for daughter in radioactivedecay.Nuclide(name).progeny() if daughter != "SF"]
    return result


def allowed_shape(energy: NDArray[np.float64], endpoint: float, daughter_z: int) -> NDArray[np.float64]:
    """Allowed beta spectrum, not normalised; `daughter_z` is negative for beta+."""
    total = energy / ELECTRON_MEV + 1
    momentum = np.sqrt(np.maximum(total**2 - 1, 1e-12))
    strength = daughter_z / 137.036
    eta = 2 * np.pi * strength * total / momentum
    with np.errstate(over="ignore"):  # a slow positron is kept out of the nucleus: the factor goes to 0
        barrier = eta / -np.expm1(-eta)
    fermi = barrier * momentum ** (2 * (np.sqrt(1 - strength**2) - 1))
    return np.where(energy < endpoint, momentum * total * (endpoint - energy) ** 2 * fermi, 0.0)


def beta_spectra(name: str, data: dict[str, list[list[float]]]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return (energy, density) of beta- and of beta+; a composite of both is parted by allowed shapes."""
    spectrum = np.array(data["b-spectra"]).reshape(-1, 2)
    energy, density = spectrum.T
    nothing = np.empty(0)
    if not (data["beta-"] and data["beta+"]):
        return [(energy, density), (nothing, nothing)] if data["beta-"] else [(nothing, nothing), (energy, density)]
    z = SYMBOLS.index(name.split("-")[0]) + 1
    fine = np.linspace(0, energy[-1], 4001)
    parts = []
    for key, daughter in (("beta-", z + 1), ("beta+", -(z - 1))):
        fraction = sum(row[1] for row in data[key])
        mean = sum(row[0] * row[1] for row in data[key]) / fraction

        def excess(endpoint: float, daughter: int = daughter, mean: float = mean) -> float:
            shape = allowed_shape(fine, endpoint, daughter)
            return float(np.sum(shape * fine) / np.sum(shape)) - mean

        endpoint = brentq(excess, mean, energy[-1] * 1.1)
        shape = allowed_shape(fine, endpoint, daughter)
        parts.append(fraction / np.trapezoid(shape, fine) * allowed_shape(energy, endpoint, daughter))
    share = parts[0] / np.maximum(parts[0] + parts[1], 1e-300)
    return [(energy, density * share), (energy, density * (1 - share))]


def main() -> None:
    """Collect all nuclides in flat arrays with offsets."""
    names = with_progeny(WANTED)
    line_energy, line_yield, line_kind, line_offset = [], [], [], [0]
    spectrum_energy, spectrum_density, spectrum_offset, beta_yield = [], [], [0], []
    progeny, progeny_branching, progeny_offset, half_life = [], [], [0], []
    for name in names:
        entry = radioactivedecay.Nuclide(name)
        half_life.append(entry.half_life("s"))
        for daughter, fraction in zip(entry.progeny(), entry.branching_fractions(), strict=True):
            if daughter != "SF":
                progeny.append(daughter)
                progeny_branching.append(fraction)
        progeny_offset.append(len(progeny))
        data = emissions(name)
        unknown = {key for key, rows in data.items() if rows} - {*KINDS, *BETA, "b-spectra"}
        if unknown:
            raise SystemExit(f"{name}: emissions of kind {unknown} would be lost")
        for kind, key in enumerate(KINDS):
            for energy, fraction in data[key]:
                line_energy.append(energy)
                line_yield.append(fraction)
                line_kind.append(kind)
        line_offset.append(len(line_energy))
        beta_yield.append([sum(row[1] for row in data[key]) for key in BETA])
        for energy, density in beta_spectra(name, data):
            spectrum_energy += list(energy)
            spectrum_density += list(density)
            spectrum_offset.append(len(spectrum_energy))
    write_table(
        "decay",
        {
            "nuclide": np.array(names),
            "half_life_s": np.array(half_life),
            "progeny_offset": np.array(progeny_offset, np.int32),
            "progeny": np.array(progeny),
            "progeny_branching": np.array(progeny_branching),
            "line_offset": np.array(line_offset, np.int32),
            "line_energy_MeV": np.array(line_energy),
            "line_yield": np.array(line_yield),
            "line_kind": np.array(line_kind, np.int8),
            "kind": np.array(LABELS),
            "beta_yield": np.array(beta_yield),
            "spectrum_offset": np.array(spectrum_offset, np.int32),
            "spectrum_energy_MeV": np.array(spectrum_energy),
            "spectrum_per_MeV": np.array(spectrum_density),
        },
        {
            "columns": {
                "half_life_s": "s",
                "progeny, progeny_branching": "daughters (also stable) and fraction of decays; rows progeny_offset[n]:[n+1]",
                "line_*": "energy MeV, number per decay, index into kind; rows line_offset[n]:[n+1]",
                "beta_yield": "[nuclide, (beta-, beta+)], number per decay",
                "spectrum_*": "beta spectra: MeV, number per MeV per decay; rows spectrum_offset[2n]:[2n+1] beta-, "
                "[2n+1]:[2n+2] beta+",
            },
            "source": "ICRP Publication 107, Nuclear Decay Data for Dosimetric Calculations, Ann. ICRP 38 (3), 2008",
            "edition": "emissions: PyPI icrp107-database 0.0.3; half-lives and progeny: PyPI radioactivedecay 0.6.1",
            "licence": "ICRP-07 notice, LICENSE.ICRP-07.txt: educational, research and not-for-profit use",
            "changes": f"{len(names)} of 1252 nuclides; spontaneous fission branches left out; the composite spectrum of "
            "Cu-64 parted into beta- and beta+ by allowed shapes (Fermi function)",
            "checks": "Testing/Python/test_physics_decay.py: mean energies of ICRP-107's index, DDEP half-lives, closed chains",
        },
    )


if __name__ == "__main__":
    main()
