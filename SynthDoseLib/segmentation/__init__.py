"""Images to labelled organs: label tables, tissue by CT number, and MONAI bundles (PyTorch loads only when one runs)."""

from .agreement import OrganAgreement, common_organs, compare_labels
from .bundle import BundleOptions, SegmentedImage, segment_image, segment_with_bundle
from .bundle_folder import bundle_store, downloaded_bundles, find_bundle, read_bundle, shipped_bundles
from .cleaning import clean_labels, cut_organs, inspect_labels, organ_shapes
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
from .uncertainty import OrganVolume, relative_volume_sigmas, volume_interval
from .zoo import BundleOffer, fetch_bundle, look_up_bundle

__all__ = [
    "TISSUES",
    "BundleOffer",
    "BundleOptions",
    "CanonicalOrgan",
    "OrganAgreement",
    "OrganVolume",
    "SegmentedImage",
    "apply_table",
    "bundle_store",
    "canonical_organs",
    "clean_labels",
    "common_organs",
    "compare_labels",
    "cut_organs",
    "downloaded_bundles",
    "fetch_bundle",
    "find_bundle",
    "find_organ",
    "group_mask",
    "inspect_labels",
    "label_table",
    "look_up_bundle",
    "match_organs",
    "merge",
    "organ_group",
    "organ_groups",
    "organ_shapes",
    "read_bundle",
    "relative_volume_sigmas",
    "segment_image",
    "segment_tissue",
    "segment_with_bundle",
    "shipped_bundles",
    "volume_interval",
]
