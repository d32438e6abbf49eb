"""The verb ``synthdose phantom``: its options, and what it does with them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core import Progress, SynthDoseError

if TYPE_CHECKING:
    from .pipeline.phantom_folder import PhantomRequest

PHANTOM_VERB = (
    "phantom",
    "Materials, densities, masses and a quality verdict from an image and its labels; exports for other programs. "
    "With --image-name a whole folder of patients.",
    "synthdose phantom ct/ labels.nii.gz --labels totalsegmentator --out phantom/ --export gate stl\n"
    "  synthdose phantom patients/ --image-name ct.nii.gz --segmentation-name labels.nii.gz --out cohort/",
)
STRICT_FAILED = 1


def add_phantom(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("image", type=Path, help="CT (DICOM folder, NRRD, NIfTI); MR or a label map with --materials labels; "
                        "or a folder of patients")  # fmt: skip
    parser.add_argument(
        "segmentation", type=Path, nargs="?", help="label map, SEG, RTSTRUCT, mesh (STL, VTP) or folder of meshes"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier phantom in this folder")
    parser.add_argument("--labels", default="", help="label table: totalsegmentator, monai-wholebody, or a CSV file")
    parser.add_argument(
        "--unlisted", choices=("refuse", "background"), default="refuse", help="labels that the table does not list"
    )
    parser.add_argument("--modality", default="", help="CT or MR, for formats that do not say")
    parser.add_argument("--hu-offset", type=float, default=0.0, metavar="HU", help="added to every value, e.g. -1024")
    parser.add_argument(
        "--calibration", default="schneider", help="schneider, or a CSV file with columns hu,density_g_cm3[,material]"
    )
    parser.add_argument("--metal-material", default="", help="what metal is made of, e.g. titanium: patches above the "
                        "calibration that exceed 2500 HU; without it they are refused, lower ones are dense bone")  # fmt: skip
    parser.add_argument(
        "--materials", choices=("hu", "labels"), default="hu", help="from CT numbers, or assigned by label (MR)"
    )
    parser.add_argument(
        "--density", choices=("ct", "reference"), default="ct", help="of labelled organs: of the CT, or the reference"
    )
    parser.add_argument("--contrast", choices=("keep", "override"), default="keep", help="organs with contrast agent: "
                        "keep what the CT says, or give them their reference tissue")  # fmt: skip
    parser.add_argument("--override", action="append", default=[], metavar="ORGAN=TISSUE", help="material or density of "
                        "an organ; may be repeated, e.g. --override liver=1.06 --override implant=titanium")  # fmt: skip
    parser.add_argument("--voxel", type=float, metavar="MM", help="edge of cubic voxels; every organ keeps its mass")
    parser.add_argument("--sex", choices=("female", "male"), default="", help="whom the masses are compared with, "
                        "if the image does not say")  # fmt: skip
    parser.add_argument("--age", type=float, metavar="YEARS")
    parser.add_argument("--height", type=float, metavar="M")
    parser.add_argument("--weight", type=float, metavar="KG")
    parser.add_argument("--export", nargs="+", default=[], metavar="FORMAT", help="case, gate, penred, stl, vtp, dicom")
    parser.add_argument(
        "--strict", action="store_true", help="exit 1 if the verdict is 'fail' (the phantom is written all the same)"
    )
    parser.add_argument(
        "--image-name", default="", metavar="NAME", help="a folder of patients: name or pattern of the image in each"
    )
    parser.add_argument("--segmentation-name", default="", metavar="NAME", help="... and of its segmentation")


def run_phantom(arguments: argparse.Namespace, progress: Progress, say: Callable[[str], None]) -> int:
    """Make one phantom, or those of a folder of patients; return the exit status."""
    request = _request(arguments)
    if arguments.image_name:
        from .pipeline.phantom_cohort import make_cohort

        if arguments.segmentation is not None:
            raise SynthDoseError("With --image-name segmentations are found by --segmentation-name in each patient's folder.")
        cohort = make_cohort(
            arguments.image, request, arguments.out, image_name=arguments.image_name,
            segmentation_name=arguments.segmentation_name, progress=progress,
        )  # fmt: skip
        say(cohort.summary())
        return STRICT_FAILED if cohort.failed or (arguments.strict and cohort.verdicts["fail"]) else 0
    if arguments.segmentation_name:
        raise SynthDoseError("--segmentation-name goes with --image-name and a folder of patients.")
    from .pipeline.phantom_folder import write_phantom_folder

    made = write_phantom_folder(request, arguments.out, overwrite=arguments.overwrite, progress=progress)
    say(made.summary())
    return STRICT_FAILED if arguments.strict and made.quality.verdict == "fail" else 0


def _request(arguments: argparse.Namespace) -> PhantomRequest:
    from .pipeline.phantom_folder import PhantomRequest
    from .pipeline.plan import ImagePlan, PatientPlan, PhantomPlan, SegmentationPlan

    segmentation = None
    if arguments.segmentation is not None or arguments.segmentation_name:
        segmentation = SegmentationPlan(
            path=arguments.segmentation or Path(arguments.segmentation_name),
            labels=arguments.labels,
            unlisted=arguments.unlisted,
        )
    phantom = PhantomPlan(
        calibration=arguments.calibration,
        metal_material=arguments.metal_material,
        materials=arguments.materials,
        density=arguments.density,
        contrast=arguments.contrast,
        patient=PatientPlan(arguments.sex, arguments.age, arguments.height, arguments.weight),
        overrides=_overrides(arguments.override),
    )
    image = ImagePlan(arguments.image, modality=arguments.modality, hu_offset=arguments.hu_offset)
    return PhantomRequest(image, segmentation, phantom, arguments.voxel, tuple(arguments.export), arguments.labels)


def _overrides(entries: list[str]) -> dict[str, Any]:
    from .pipeline.plan import OverridePlan

    result: dict[str, Any] = {}
    for entry in entries:
        organ, _, value = entry.rpartition("=")  # names of organs come from files, and may have one too
        if not organ or not value:
            raise SynthDoseError(f"--override takes ORGAN=MATERIAL or ORGAN=DENSITY; found '{entry}'.")
        earlier = result.get(organ, OverridePlan())
        try:
            result[organ] = dataclasses.replace(earlier, density_g_cm3=float(value))
        except ValueError:
            result[organ] = dataclasses.replace(earlier, material=value)
    return result
