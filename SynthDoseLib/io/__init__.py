"""Reading and writing: images, labels, DICOM, results. LPS appears only here; everything handed out is RAS."""

from .activity_fields import ActivityField, activity_fields
from .dicom_images import NativeSlices, read_native_slices
from .dicom_seg import write_dicom_seg
from .dicom_write import DicomStudy, write_dicom_series
from .folder import atomic_folder, prepare_output_folder, write_csv
from .images import read_image
from .labels import read_labels
from .phase_space import read_phase_space
from .rtdose import read_rtdose, write_rtdose
from .rtstruct_write import write_rtstruct
from .seg_nrrd import write_segmentation
from .volumes import read_volume, write_volume

__all__ = [
    "ActivityField",
    "DicomStudy",
    "NativeSlices",
    "activity_fields",
    "atomic_folder",
    "prepare_output_folder",
    "read_image",
    "read_labels",
    "read_native_slices",
    "read_phase_space",
    "read_rtdose",
    "read_volume",
    "write_csv",
    "write_dicom_seg",
    "write_dicom_series",
    "write_rtdose",
    "write_rtstruct",
    "write_segmentation",
    "write_volume",
]
