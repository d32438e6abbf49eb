"""Which organ empties how fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..core import SynthDoseError
from .values import REST, require_positive

LONGER_TOLERANCE = 1e-4  # half-lives are typed in with four or five digits


@dataclass(frozen=True)
class HalfLife:
    """Effective half-life, h, and where it comes from (the words of `ActivityRow.half_life_source`)."""

    hours: float
    source: str


def effective_half_life(organ: str, hours: float, physical_h: float) -> float:
    """Check an effective half-life against the physical one and return it, h."""
    require_positive(f"The effective half-life of {organ}", hours, "h")
    if hours > physical_h * (1 + LONGER_TOLERANCE):
        raise SynthDoseError(
            f"The effective half-life of {organ}, {hours:g} h, is longer than the physical half-life, {physical_h:.6g} h: "
            "activity cannot leave more slowly than it decays. Check the unit (hours) and the nuclide, or give it as a "
            "biological half-life."
        )
    return min(float(hours), physical_h)


def from_biological(organ: str, biological_h: float, physical_h: float) -> float:
    """Effective half-life, h: the rates of decay and of biological clearance add."""
    require_positive(f"The biological half-life of {organ}", biological_h, "h")
    return 1.0 / (1.0 / biological_h + 1.0 / physical_h)


def resolve(
    organs: Iterable[str],
    physical_h: float,
    effective_h: Mapping[str, float],
    biological_h: Mapping[str, float],
    rest_h: float | None,
    groups: Mapping[str, Sequence[str]],
) -> dict[str, HalfLife]:
    """Give every organ and `rest_of_body` its effective half-life; organs not named follow the rest of the body.

    A value for a group holds for its members; a value for a member itself wins.
    """
    names = tuple(organs)
    both = sorted(set(effective_h) & set(biological_h))
    if both:
        raise SynthDoseError(f"Both an effective and a biological half-life are given for {', '.join(both)}. Give one of them.")
    named: dict[str, HalfLife] = {}
    given = [(name, HalfLife(effective_half_life(name, hours, physical_h), "given")) for name, hours in effective_h.items()]
    given += [(name, HalfLife(from_biological(name, h, physical_h), "biological")) for name, h in biological_h.items()]
    for name, half_life in sorted(given, key=lambda item: item[0] not in groups):  # groups first, their members overrule them
        members = [name] if name in names or name == REST else [m for m in groups.get(name, ()) if m in names]
        if not members:
            raise SynthDoseError(
                f"A half-life is given for '{name}', which is not in the segmentation. Organs: {', '.join(names) or 'none'}"
                f"{'; groups: ' + ', '.join(groups) if groups else ''}."
            )
        named.update(dict.fromkeys(members, half_life))
    if rest_h is not None:
        rest = HalfLife(effective_half_life(REST, rest_h, physical_h), "given")
        if REST in named and abs(named[REST].hours - rest.hours) > 1e-9:
            raise SynthDoseError(
                f"Two half-lives are given for the rest of the body: {named[REST].hours:g} h and {rest_h:g} h. Give one."
            )
        named[REST] = rest
    rest = named.setdefault(REST, HalfLife(physical_h, "physical"))
    follow = HalfLife(rest.hours, "physical" if rest.source == "physical" else "rest of body")
    return {name: named.get(name, follow) for name in (*names, REST)}
