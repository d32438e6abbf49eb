"""Y-90 microspheres: lung shunt, mean doses and the partition model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..core import SynthDoseError
from ..physics import decay_emissions, get_nuclide

MEV_J = 1.602176634e-13
LUNG_MASS_G = 1000.0  # usual in radioembolisation; give the patient's own where it is known


@dataclass(frozen=True)
class PartitionDoses:
    """Mean doses of the compartments, Gy; the activity of each, MBq; and what was assumed."""

    tumour_Gy: float
    normal_liver_Gy: float
    lung_Gy: float
    tumour_MBq: float
    normal_liver_MBq: float
    lung_MBq: float
    notes: tuple[str, ...]


def dose_per_activity(nuclide: str = "Y-90") -> float:
    """Mean dose by charged particles of a permanent deposit, Gy kg/MBq, from mean energy and half-life of the decay data.

    Examples
    --------
    >>> f"{dose_per_activity() * 1000:.1f} Gy kg/GBq"
    '49.8 Gy kg/GBq'
    """
    energy = sum(e.yield_per_decay * e.mean_energy_MeV for e in decay_emissions(nuclide) if e.particle != "photon")
    return 1e6 * get_nuclide(nuclide).half_life_s / math.log(2) * energy * MEV_J


def lung_shunt_fraction(lung_counts: float, liver_counts: float, *, background_corrected: bool = True) -> tuple[float, float]:
    """Lung shunt fraction lungs / (lungs + liver) and its standard uncertainty by counting statistics.

    Parameters
    ----------
    lung_counts, liver_counts : float
        Geometric means of both views, or counts of attenuation-corrected SPECT, background taken off.
    background_corrected : bool
        False refuses: the background of the lungs alone can make a shunt of several per cent.

    Examples
    --------
    >>> fraction, sigma = lung_shunt_fraction(9000.0, 91000.0)
    >>> f"{fraction:.2f}"
    '0.09'
    """
    if not background_corrected:
        raise SynthDoseError("Take the background off the counts of lungs and liver first.")
    total = lung_counts + liver_counts
    if not (lung_counts >= 0 and liver_counts >= 0 and total > 0 and math.isfinite(total)):
        raise SynthDoseError(f"Counts have to be 0 or more, and not both 0; found {lung_counts} and {liver_counts}.")
    fraction = lung_counts / total
    return fraction, math.sqrt(fraction * (1 - fraction) / total)


def lung_dose(activity_MBq: float, shunt_fraction: float, *, lung_mass_g: float = LUNG_MASS_G, nuclide: str = "Y-90") -> float:
    """Mean lung dose, Gy, of a permanent deposit of the shunted activity (MIRD).

    Examples
    --------
    >>> f"{lung_dose(2000.0, 0.1):.1f}"
    '10.0'
    """
    _require_fraction(shunt_fraction)
    _require_positive(activity_MBq=activity_MBq, lung_mass_g=lung_mass_g)
    return dose_per_activity(nuclide) * activity_MBq * shunt_fraction / (lung_mass_g / 1000.0)


def partition_model(
    activity_MBq: float,
    shunt_fraction: float,
    tumour_to_normal: float,
    tumour_mass_g: float,
    normal_liver_mass_g: float,
    *,
    lung_mass_g: float = LUNG_MASS_G,
    residual_fraction: float = 0.0,
    nuclide: str = "Y-90",
) -> PartitionDoses:
    """Mean doses of tumour, normal liver and lungs by the partition model.

    Parameters
    ----------
    activity_MBq : float
        Prepared.
    shunt_fraction : float
        To the lungs.
    tumour_to_normal : float
        Ratio of activity concentrations.
    tumour_mass_g, normal_liver_mass_g, lung_mass_g : float
        Of what is treated; liver without tumour.
    residual_fraction : float
        Of the activity that stays in vial and catheter.
    nuclide : str

    References
    ----------
    S. Ho et al., Eur. J. Nucl. Med. 23 (1996) 947.

    Examples
    --------
    >>> found = partition_model(2000.0, 0.05, 5.0, 200.0, 1300.0)
    >>> f"{found.tumour_Gy:.0f} {found.normal_liver_Gy:.0f} {found.lung_Gy:.1f}"
    '206 41 5.0'
    """
    _require_fraction(shunt_fraction)
    _require_fraction(residual_fraction, "residual fraction")
    _require_positive(
        activity_MBq=activity_MBq, tumour_to_normal=tumour_to_normal, tumour_mass_g=tumour_mass_g,
        normal_liver_mass_g=normal_liver_mass_g, lung_mass_g=lung_mass_g,
    )  # fmt: skip
    given = activity_MBq * (1 - residual_fraction)
    in_liver = given * (1 - shunt_fraction)
    normal = in_liver * normal_liver_mass_g / (normal_liver_mass_g + tumour_to_normal * tumour_mass_g)
    tumour, lung = in_liver - normal, given * shunt_fraction
    factor = dose_per_activity(nuclide) * 1000.0  # per g
    notes = (
        "Partition model: microspheres stay where they are, each compartment is uniform, all beta energy stays in it.",
        f"Lungs of {lung_mass_g:g} g; shunts measured with Tc-99m MAA on planar images are mostly too high.",
    )
    return PartitionDoses(
        factor * tumour / tumour_mass_g, factor * normal / normal_liver_mass_g, factor * lung / lung_mass_g,
        tumour, normal, lung, notes,
    )  # fmt: skip


def _require_fraction(value: float, name: str = "lung shunt fraction") -> None:
    if not 0 <= value < 1:
        raise SynthDoseError(f"The {name} lies between 0 and 1; found {value}.")


def _require_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise SynthDoseError(f"{name} has to be above 0; found {value}.")
