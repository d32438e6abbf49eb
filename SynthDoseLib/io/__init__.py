"""Reading and writing: images, labels, DICOM, results. LPS appears only here; everything handed out is RAS."""

from .images import read_image
from .labels import read_labels
from .seg_nrrd import write_segmentation
from .volumes import read_volume, write_volume

__all__ = ["read_image", "read_labels", "read_volume", "write_segmentation", "write_volume"]
