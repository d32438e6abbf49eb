"""Images to labelled organs: label tables, tissue by CT number, and MONAI bundles (PyTorch loads only when one runs)."""

from .tables import (
    CanonicalOrgan,
    apply_table,
    canonical_organs,
    find_organ,
    group_mask,
    label_table,
    match_organs,
    merge,
    organ_group,
    organ_groups,
)

__all__ = [
    "CanonicalOrgan",
    "apply_table",
    "canonical_organs",
    "find_organ",
    "group_mask",
    "label_table",
    "match_organs",
    "merge",
    "organ_group",
    "organ_groups",
]
