"""Histograms of structures as they were drawn: from the contours of an RTSTRUCT, else from labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, LabelMap, SynthDoseError
from ..dosimetry import DoseVolumeHistogram, contour_histogram, label_histograms
from ..io.dicom_labels import rtstruct_file
from ..io.rtstruct import Structure, plane_distance, read_structures
from .plan import SegmentationPlan


def drawn_structures(plan: SegmentationPlan, labels: LabelMap) -> dict[str, Structure]:
    """Structures of an RTSTRUCT by the names of the labels made of them; empty for any other segmentation.

    Labels are numbered in the order of the structures, whatever names they were given afterwards.
    """
    file = rtstruct_file(plan.path) if plan.path is not None else None
    if file is None:
        return {}
    structures, _ = read_structures(file)
    if plan.organs:
        structures = [s for s in structures if s.name in plan.organs]
    numbered = dict(enumerate(structures, start=1))
    return {organ.name: numbered[organ.index] for organ in labels.organs if organ.index in numbered}


def histograms(
    plan: SegmentationPlan,
    dose: DoseMap,
    labels: LabelMap,
    sigma_Gy: Mapping[str, float],
    gas: NDArray[np.bool_] | None = None,
) -> tuple[tuple[DoseVolumeHistogram, ...], tuple[str, ...]]:
    """Histograms of all organs that have voxels or contours, and what was remarkable.

    A structure has its histogram even where a smaller one that lies in it took all its voxels.

    Parameters
    ----------
    plan : SegmentationPlan
        Where the labels come from.
    dose : DoseMap
    labels : LabelMap
        As segmented, on any grid.
    sigma_Gy : mapping of organ to Gy
        Standard errors of mean doses.
    gas : ndarray of bool, (nk, nj, ni) of `dose`, optional
        Voxels that are left out, because their dose is none to tissue.
    """
    drawn = drawn_structures(plan, labels)
    apart = plane_distance(list(drawn.values())) if drawn else None
    counts = labels.voxel_counts()
    found: dict[str, DoseVolumeHistogram] = {}
    notes = []
    for name, structure in drawn.items():
        if not structure.contours:
            continue
        try:
            slab = structure.slab_mm or apart
            found[name] = contour_histogram(
                dose, structure.contours, name, slab_mm=slab, sigma_Gy=sigma_Gy.get(name, float("nan")), gas=gas
            )
        except SynthDoseError as error:
            instead = "is of its voxels, not of its contours" if counts[name] else "is missing"
            notes.append(f"The histogram of '{name}' {instead}: {error}")
    if found:
        notes.append(
            "Dose-volume histograms of structures drawn as contours are of these, where they overlap as well; masses and mean "
            "doses of the organ table are of voxels."
        )
    # labels as the blocks they are: sources, masses and mean doses are those of whole voxels, too
    rest = [name for name, count in counts.items() if count and name not in found]
    for histogram in label_histograms(dose, labels, organs=rest, smooth=False, sigma_Gy=dict(sigma_Gy), gas=gas):
        found[histogram.organ] = histogram
    return tuple(found[name] for name in counts if name in found), tuple(notes)
