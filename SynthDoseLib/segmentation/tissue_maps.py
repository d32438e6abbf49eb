"""From labelled organs to a map of tissues that a random scanner can look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..core import LabelMap, SynthDoseError
from .recipe import REST
from .tables import organ_group

_TISSUES: dict[str, tuple[str, ...]] = {  # tissue of `LOOKS`: organs, or groups of them
    "lung": ("lungs",),
    "liver": ("liver",),
    "spleen": ("spleen",),
    "kidney": ("kidneys",),
    "pancreas": ("pancreas",),
    "myocardium": ("heart_wall", "heart_myocardium"),
    "blood": ("heart", "heart_contents", "aorta", "inferior_vena_cava", "superior_vena_cava", "pulmonary_artery",
              "portal_vein_and_splenic_vein"),
    "bowel": ("colon", "small_bowel", "duodenum"),
    "contents": ("small_bowel_contents", "stomach_contents", "duodenum_contents"),
    "stool": ("colon_contents",),
    "wall": ("stomach_wall", "colon_wall", "small_bowel_wall", "urinary_bladder_wall", "gallbladder_wall", "esophagus",
             "duodenum_wall", "trachea", "trachea_wall"),
    "stomach": ("stomach",),
    "urine": ("urinary_bladder", "urinary_bladder_contents"),
    "bile": ("gallbladder", "gallbladder_contents"),
    "thyroid": ("thyroid_gland",),
    "adrenal": ("adrenal_gland_right", "adrenal_gland_left"),
    "brain": ("brain",),
    "nerve": ("spinal_cord",),
    "gland": ("prostate", "uterus"),
    "breast": ("breast_right", "breast_left"),
    "cartilage": ("costal_cartilages", "intervertebral_discs"),
    "fat": ("subcutaneous_fat", "torso_fat", "fat"),
    "skin": ("skin",),
    "muscle": ("skeletal_muscle", "muscle", REST, "body", "soft_tissue"),
}  # fmt: skip
_OUTER = ("skin", "subcutaneous_fat", "fat", REST, "body", "soft_tissue")
SUBCUTANEOUS_MM = 18.0


def tissues_of(labels: LabelMap) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Give every labelled organ its tissue.

    Bone gets a shell of cortical bone, one voxel thick; the outer 18 mm of a rest of the body that is one label become fat;
    what is enclosed and has no label is gas.

    Parameters
    ----------
    labels : LabelMap
        The whole body: the labels have to include skin, fat or the rest of the body.

    Returns
    -------
    tissues : ndarray of uint8, (nk, nj, ni)
        Place in the names; 0 is the air around the patient.
    names : tuple of str

    Raises
    ------
    SynthDoseError
        If nothing says where the body ends.
    """
    known = {organ.name: organ.index for organ in labels.organs}
    if not any(name in known for name in _OUTER):
        raise SynthDoseError(
            "Images can be made of labels only if these show the whole body: one of "
            f"{', '.join(_OUTER)} has to be among them. Found: {', '.join(known) or 'no labels'}."
        )
    bones = {name for name in known if name in organ_group("skeleton") or name.endswith("_spine") or "_bones" in name}
    names = ["air", *_TISSUES, "soft", "gas", "spongiosa", "cortical"]
    place = {name: number for number, name in enumerate(names)}
    tissue_of = {
        member: tissue for tissue, organs in _TISSUES.items() for organ in organs for member in (organ, *organ_group(organ))
    }
    table = np.zeros(max(known.values()) + 1, np.uint8)
    for name, index in known.items():
        table[index] = place["spongiosa" if name in bones else tissue_of.get(name, "soft")]
    tissues = table[labels.labels]
    _line_rest_with_fat(tissues, labels, known, place)
    bone = tissues == place["spongiosa"]
    tissues[bone & ~ndimage.binary_erosion(bone)] = place["cortical"]
    enclosed = ndimage.binary_fill_holes(tissues > 0) & (tissues == 0)
    tissues[enclosed] = place["gas"]
    return tissues, tuple(names)


def _line_rest_with_fat(tissues: NDArray[np.uint8], labels: LabelMap, known: dict[str, int], place: dict[str, int]) -> None:
    rest = [known[name] for name in (REST, "body", "soft_tissue") if name in known]
    if not rest or any(name in known for name in ("subcutaneous_fat", "fat")):
        return
    depth = ndimage.distance_transform_edt(np.pad(tissues > 0, ((0, 0), (1, 1), (1, 1))), sampling=labels.grid.spacing_mm[::-1])
    outer = depth[:, 1:-1, 1:-1] < SUBCUTANEOUS_MM
    tissues[outer & np.isin(labels.labels, rest)] = place["fat"]
