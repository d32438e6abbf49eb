"""Images to labelled organs: label tables, tissue by CT number, and MONAI bundles (PyTorch loads only when one runs)."""

from .bundle import segment_with_bundle
from .bundle_folder import bundle_store, find_bundle, read_bundle, shipped_bundles
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
from .tissue import TISSUES, segment_tissue
from .zoo import fetch_bundle

__all__ = [
    "TISSUES",
    "CanonicalOrgan",
    "apply_table",
    "bundle_store",
    "canonical_organs",
    "fetch_bundle",
    "find_bundle",
    "find_organ",
    "group_mask",
    "label_table",
    "match_organs",
    "merge",
    "organ_group",
    "organ_groups",
    "read_bundle",
    "segment_tissue",
    "segment_with_bundle",
    "shipped_bundles",
]
