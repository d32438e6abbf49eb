"""Build tissues.csv, schneider_tissues.csv and schneider_density.csv from compilations of published compositions.

Run with: python Resources/physics/build/build_tissue_tables.py DATA (with tissues/*.json and anatomy/icrp110_organs.json)
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from table_writer import write_text_table

from SynthDoseLib.core import SYMBOLS

RENAMED = {
    "air_dry_nearsealevel": "air",
    "water_liquid": "water",
    "water_icru90": "water_icru90",
    "polymethylmethacrylate__lucite___perspex___plexiglas_": "pmma",
    "tissue_soft_icrufour-component": "soft_tissue_icru_four_component",
    "tissue_soft_icrp": "soft_tissue_icrp",
    "a-150tissue-equivalentplastic": "a150_plastic",
    "b-100bone-equivalentplastic": "b100_plastic",
    "tissue-equivalentgas__a-150gas_": "a150_gas",
    "lung_inflated_icru_1986": "lung_inflated_icru44",
    "lungtissue_icru_1986": "lung_tissue_icru44",
    "lungtissue_icrp": "lung_tissue_icrp",
    "adiposetissue_icru_1986": "adipose_icru44",
    "adiposetissue_icrp": "adipose_icrp",
    "breasttissue_icru_1986": "breast_icru44",
    "brain_grey_whitematter_icru_1986": "brain_icru44",
    "cellnucleus_icru_1986": "cell_nucleus_icru44",
    "cellnucleus_typical": "cell_nucleus_typical",
    "eyelens_icrp": "eye_lens_icrp",
    "eyelens_icru_1986": "eye_lens_icru44",
    "gitract_intestine_icru_1986": "gi_tract_icru44",
    "heart_blood-filled_icru_1986": "heart_blood_filled_icru44",
    "blood_whole_icru_1986": "blood_icru44",
    "redmarrow_skeletal_icru_1986": "red_marrow_icru44",
    "yellowmarrow_skeletal_icru_1986": "yellow_marrow_icru44",
    "spongiosa_skeletal_icru_1986": "spongiosa_icru44",
    "cartilage_skeletal_icru_1986": "cartilage_icru44",
    "muscle_skeletal_icru_1986": "muscle_icru44",
    "muscle_skeletal_icrp": "muscle_icrp",
    "muscle_striated_icru": "muscle_striated_icru",
}
# implants: nominal compositions of the standards, mid-range, rounded
METALS: dict[str, tuple[str, float, dict[str, float]]] = {
    "titanium_grade5": ("Ti-6Al-4V, ASTM F136 nominal", 4.43, {"Ti": 0.90, "Al": 0.06, "V": 0.04}),
    "stainless_steel_316l": (
        "ASTM F138 nominal",
        8.0,
        {"Fe": 0.635, "Cr": 0.18, "Ni": 0.14, "Mo": 0.025, "Mn": 0.02},
    ),
    "cobalt_chromium": ("Co-28Cr-6Mo, ASTM F75 nominal", 8.3, {"Co": 0.66, "Cr": 0.28, "Mo": 0.06}),
}


def rows(data: Path) -> list[tuple[str, str, float, float | None, dict[str, float]]]:
    """Collect (name, source, density, mean excitation energy or None, mass fractions)."""
    result = []
    for key, entry in _json(data / "tissues" / "tissues_icru_icrp.json")["materials"].items():
        name = RENAMED.get(key, key.replace("_icru_1986", "_icru44"))
        fractions = {SYMBOLS[int(z) - 1]: w for z, w in entry["w_by_Z"].items()}
        source = "ICRU 44/46" if name.endswith("icru44") else "ICRU 90" if name.endswith("icru90") else "ICRU 37"
        result.append((name, source, round(entry["density_g_cm3"], 7), round(entry["I_eV"], 3), fractions))
    media = _json(data / "tissues" / "icrp110_media.json")
    organs = _json(data / "anatomy" / "icrp110_organs.json")
    for sex in ("AM", "AF"):
        density = {}
        for organ in organs[sex]["organs"].values():
            density.setdefault(str(organ["medium"]), organ["density_g_cm3"])
        for number, medium in media[sex]["media"].items():
            words = medium["name"].split(" (")[0].replace(", ...", "")
            name = f"icrp110_{sex.lower()}_" + re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
            if number not in density:
                continue
            fractions = {element: w / 100 for element, w in medium["w_percent"].items()}
            result.append((name, "ICRP 110", density[number], None, fractions))
    for name, (source, rho, composition) in METALS.items():
        result.append((name, source, rho, None, composition))
    return result


def main(data: Path) -> None:
    """Write the three tables."""
    table = rows(data)
    elements = sorted({e for row in table for e in row[4]}, key=SYMBOLS.index)
    lines = [",".join(["name", "source", "density_g_cm3", "mean_excitation_eV", *elements])]
    for name, source, density, excitation, fractions in table:
        cells = [f"{fractions[e]:.6g}" if e in fractions else "0" for e in elements]
        lines.append(",".join([name, f'"{source}"', f"{density:.7g}", "" if excitation is None else f"{excitation}", *cells]))
    common = {"licence": "published numbers; no text or drawing copied"}
    write_text_table(
        "tissues.csv",
        "\n".join(lines) + "\n",
        {
            "columns": "mass fraction per element symbol; density g/cm3; mean excitation energy eV (empty: additivity)",
            "source": "ICRU Reports 37, 44, 46, 90; ICRP Publication 110 (adult male am, adult female af); ASTM for implants",
            "edition": "compiled 2026-11-21 from EGSnrc density files' header numbers and the ICRP 110 data disc V1.2",
            "changes": "renamed; a medium of ICRP 110 has the density of the first organ that lists it",
            "checks": "Testing/Python/test_physics_materials.py: sums, published compositions",
            **common,
        },
    )
    schneider = _json(data / "tissues" / "schneider2000_hu.json")
    tissues = [m for m in schneider["materials"] if m["HU_from"] < 1640]
    elements = sorted({e for m in tissues for e in m["w_percent"]}, key=SYMBOLS.index)
    lines = [",".join(["hu_from", "name", *elements])]
    for medium in tissues:
        name = re.sub(r"[^a-z0-9]+", "_", medium["name"].lower().replace("tissus", "_tissue").replace("tetissue", "te_tissue"))
        cells = [f"{medium['w_percent'].get(e, 0) / 100:.6g}" for e in elements]
        lines.append(",".join([str(medium["HU_from"]), f"schneider_{name}", *cells]))
    about = {
        "source": "W. Schneider, T. Bortfeld, W. Schlegel, Phys. Med. Biol. 45 (2000) 459-478",
        "edition": "numbers as tabulated with GATE/opengate 10.1.1, compiled 2026-11-21",
        "checks": "Testing/Python/test_phantom_builder_calibration.py",
        **common,
    }
    write_text_table(
        "schneider_tissues.csv",
        "\n".join(lines) + "\n",
        {
            "columns": "composition from hu_from up to the next row; mass fractions",
            "changes": "the dental amalgam and implant rows, which are not of the paper, left out: metal is named, not guessed",
            **about,
        },
    )
    points = [f"{hu:g},{rho:g}" for hu, rho in schneider["density_points_HU_gcm3"] if hu <= 1600]
    write_text_table(
        "schneider_density.csv",
        "hu,density_g_cm3\n" + "\n".join(points) + "\n",
        {
            "columns": "CT number HU, mass density g/cm3, as published (falls from HU 100 to 101)",
            "changes": "to HU 1600",
            **about,
        },
    )


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
