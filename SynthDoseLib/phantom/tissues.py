"""What the plan says an organ is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

from SynthDoseLib.core import DENSEST_G_CM3, Material, SynthDoseError
from SynthDoseLib.physics import get_material

OverrideValue: TypeAlias = "str | float | Material | Mapping[str, Any]"
KEYS = ("material", "density_g_cm3")


@dataclass(frozen=True, eq=False)
class Override:
    """Material and density that replace what the CT says; None keeps it."""

    material: Material | None = None
    density_g_cm3: float | None = None

    def describe(self) -> str:
        """Words for the phantom's notes."""
        material = f"material {self.material.name}" if self.material is not None else "material from the CT"
        density = f"{self.density_g_cm3:g} g/cm3" if self.density_g_cm3 is not None else "density from the CT"
        return f"{material}, {density} (override)"


def parse_override(organ: str, value: OverrideValue) -> Override:
    """Understand one entry of ``overrides``: a material (name or `Material`), a density, or a table of both.

    Raises
    ------
    SynthDoseError
        If it is none of these, the material is unknown, a key is, or the density is not one of matter.

    Examples
    --------
    >>> parse_override("lung_left", {"material": "lung", "density_g_cm3": 0.3}).describe()
    'material lung_inflated_icru44, 0.3 g/cm3 (override)'
    """
    if isinstance(value, (str, Material)):
        material = get_material(value) if isinstance(value, str) else value
        return Override(material, material.density_g_cm3)
    if isinstance(value, Real) and not isinstance(value, bool):
        return Override(None, _density(organ, value))
    if isinstance(value, Mapping) and value and set(value) <= set(KEYS):
        base = parse_override(organ, value["material"]) if "material" in value else Override()
        if "density_g_cm3" not in value:
            return base
        if value["density_g_cm3"] == "ct":
            return Override(base.material, None)
        return Override(base.material, _density(organ, value["density_g_cm3"]))
    raise SynthDoseError(
        f"The override of '{organ}' has to be a material name, a density in g/cm3, or a table with the keys "
        f"{' and '.join(KEYS)}; found {value!r}."
    )


def _density(organ: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= DENSEST_G_CM3:
        raise SynthDoseError(
            f"The density of '{organ}' has to be above 0 and at most {DENSEST_G_CM3:g} g/cm3; found {value!r}."
        )
    return float(value)
