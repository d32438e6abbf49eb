"""Several bundles of the same organs, whose probabilities are averaged."""

from __future__ import annotations

import numpy as np

from ..core import LabelMap, SynthDoseError, VoxelGrid
from .bundle_folder import Bundle
from .tables import match_organs


def canonical_names(bundle: Bundle) -> list[str]:
    """Names of a bundle's organs in the order of its channels, canonical where the organ is known."""
    nothing = VoxelGrid.from_spacing((1, 1, 1), (1.0, 1.0, 1.0))
    labels = LabelMap(nothing, np.zeros(nothing.shape, np.uint16), bundle.organs)
    return [organ.name for organ in match_organs(labels).organs]


def channel_order(first: Bundle, member: Bundle) -> list[int] | None:
    """Channels of a member of an ensemble in the order of the first one's organs; None if that is their order.

    Raises
    ------
    SynthDoseError
        If the two do not segment the same organs, or only one of them lets organs overlap.
    """
    ours, theirs = canonical_names(first), canonical_names(member)
    if set(ours) != set(theirs):
        lacking = ", ".join(sorted(set(ours) ^ set(theirs)))
        raise SynthDoseError(
            f"The bundles {first.name} and {member.name} cannot be averaged: they do not segment the same organs ({lacking})."
        )
    if first.regions != member.regions or first.background != member.background:
        raise SynthDoseError(
            f"The bundles {first.name} and {member.name} cannot be averaged: organs overlap in the one and not in the other."
        )
    if ours == theirs:
        return None
    before = int(first.background)
    return [*range(before), *(before + theirs.index(name) for name in ours)]
