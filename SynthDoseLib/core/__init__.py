"""Values that the stages exchange, and what all of them need; knows no other package of ours."""

from .emissions import PARTICLES, Emission
from .errors import Cancelled, MissingPackageError, SynthDoseError
from .files import atomic_path, bare_name, copy_with_sha256, resource_path, sha256_of, user_path
from .grid import VoxelGrid, inner_point
from .materials import DENSEST_G_CM3, SYMBOLS, Material, atomic_number
from .particles import ParticleList
from .progress import Progress, ProgressReport, silent
from .provenance import computer, versions
from .resample import overlap_fraction, resample, resample_labels, resample_mean, voxels_inside
from .volumes import DoseMap, ImageVolume, LabelMap, Organ, OrganDose, VoxelPhantom, gas_voxels, label_counts, organ_table

__all__ = [
    "DENSEST_G_CM3",
    "PARTICLES",
    "SYMBOLS",
    "Cancelled",
    "DoseMap",
    "Emission",
    "ImageVolume",
    "LabelMap",
    "Material",
    "MissingPackageError",
    "Organ",
    "OrganDose",
    "ParticleList",
    "Progress",
    "ProgressReport",
    "SynthDoseError",
    "VoxelGrid",
    "VoxelPhantom",
    "atomic_number",
    "atomic_path",
    "bare_name",
    "computer",
    "copy_with_sha256",
    "gas_voxels",
    "inner_point",
    "label_counts",
    "organ_table",
    "overlap_fraction",
    "resample",
    "resample_labels",
    "resample_mean",
    "resource_path",
    "sha256_of",
    "silent",
    "user_path",
    "versions",
    "voxels_inside",
]
