"""Quality verdict on healthy and damaged synthetic people, and a batch of patients with one command.

python -m Testing.Benchmarks.phantoms [--people 12] [--damaged 4] [--batch 10] [--out FILE]

Every person has another build, other organ masses, tumours, noise and a couch. Each damage is put into the labels or the CT
numbers of a healthy one; it counts as found if a finding of the right check about the right organ (or the whole) is a warning
or a failure, or if the image is refused.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.cli import main as synthdose
from SynthDoseLib.core import ImageVolume, LabelMap, SynthDoseError, VoxelGrid, VoxelPhantom
from SynthDoseLib.io import write_segmentation, write_volume
from SynthDoseLib.phantom import PhantomQuality, SyntheticPatient, assess_phantom, build_phantom, synthetic_patient

from .results import RESULTS, write_section

HEADING = "Phantoms: quality verdict and batch"
SPACING_MM = (4.0, 4.0, 4.0)
Damaged = tuple[VoxelPhantom, ImageVolume | None]
Labels = NDArray[np.uint16]
Floats = NDArray[np.float32]


def with_labels(phantom: VoxelPhantom, labels: Labels) -> VoxelPhantom:
    """The same phantom with other labels."""
    return replace(phantom, labels=LabelMap(phantom.grid, labels, phantom.labels.organs))


def ball(phantom: VoxelPhantom, organ: str, radius_mm: float) -> NDArray[np.bool_]:
    """Voxels of an organ around the one that lies deepest inside."""
    mask = phantom.labels.mask(organ)
    depth = ndimage.distance_transform_edt(mask, sampling=phantom.grid.spacing_mm[::-1])
    middle = np.unravel_index(int(depth.argmax()), mask.shape)
    steps = [(np.arange(n) - m) * s for n, m, s in zip(mask.shape, middle, phantom.grid.spacing_mm[::-1], strict=True)]
    distance = np.sqrt(steps[0][:, None, None] ** 2 + steps[1][None, :, None] ** 2 + steps[2][None, None, :] ** 2)
    return (distance <= radius_mm) & mask


def swapped(phantom: VoxelPhantom, ct: ImageVolume) -> Damaged:
    """Kidneys with each other's names."""
    labels = phantom.labels.labels.copy()
    for one, other in (("kidney_right", "kidney_left"), ("kidney_left", "kidney_right")):
        labels[phantom.labels.mask(one)] = phantom.labels.organ(other).index
    return with_labels(phantom, labels), ct


def mirrored(phantom: VoxelPhantom, ct: ImageVolume) -> Damaged:
    """The whole image the other way round."""
    grid = VoxelGrid(phantom.grid.shape, np.diag([-1.0, 1.0, 1.0, 1.0]) @ phantom.grid.ijk_to_ras)
    labels = LabelMap(grid, phantom.labels.labels, phantom.labels.organs)
    made = VoxelPhantom(grid, phantom.material_index, phantom.density_g_cm3, phantom.materials, labels)
    return made, replace(ct, grid=grid)


def holed(phantom: VoxelPhantom, ct: ImageVolume) -> Damaged:
    """A cavity of 8 mm radius in the liver."""
    labels = phantom.labels.labels.copy()
    labels[ball(phantom, "liver", 8.0)] = 0
    return with_labels(phantom, labels), ct


def islanded(phantom: VoxelPhantom, ct: ImageVolume) -> Damaged:
    """A piece of spleen of 8 mm radius in the bladder."""
    labels = phantom.labels.labels.copy()
    labels[ball(phantom, "urinary_bladder", 8.0)] = phantom.labels.organ("spleen").index
    return with_labels(phantom, labels), ct


def missing(phantom: VoxelPhantom, ct: ImageVolume) -> Damaged:
    """No left kidney, neither voxels nor entry."""
    gone, rest = phantom.labels.organ("kidney_left"), phantom.labels.organ("rest_of_body").index
    labels = np.where(phantom.labels.labels == gone.index, np.uint16(rest), phantom.labels.labels)
    organs = tuple(organ for organ in phantom.labels.organs if organ.name != "kidney_left")
    return replace(phantom, labels=LabelMap(phantom.grid, labels, organs)), ct


def truncated(phantom: VoxelPhantom, ct: ImageVolume) -> Damaged:
    """The scan ends in the middle of the liver."""
    end = int(np.argwhere(phantom.labels.mask("liver"))[:, 0].mean())
    grid = phantom.grid.crop((0, 0, 0), (end, *phantom.grid.shape[1:]))
    labels = LabelMap(grid, phantom.labels.labels[:end], phantom.labels.organs)
    made = VoxelPhantom(grid, phantom.material_index[:end], phantom.density_g_cm3[:end], phantom.materials, labels)
    return made, replace(ct, grid=grid, values=ct.values[:end])


def scaled(phantom: VoxelPhantom, ct: ImageVolume) -> Damaged:
    """Voxels said to be 1.3 times as wide as they are."""
    matrix = phantom.grid.ijk_to_ras.copy()
    matrix[:3, :3] *= 1.3
    grid = VoxelGrid(phantom.grid.shape, matrix)
    labels = LabelMap(grid, phantom.labels.labels, phantom.labels.organs)
    made = VoxelPhantom(grid, phantom.material_index, phantom.density_g_cm3, phantom.materials, labels)
    return made, replace(ct, grid=grid)


def shifted(phantom: VoxelPhantom, ct: ImageVolume) -> Damaged:
    """Labels 6 cm beside the image."""
    return with_labels(phantom, np.roll(phantom.labels.labels, 15, axis=2)), ct


def pierced(phantom: VoxelPhantom, ct: ImageVolume) -> Damaged:
    """Vacuum of 14 mm radius in the liver."""
    density = phantom.density_g_cm3.copy()
    density[ball(phantom, "liver", 14.0)] = 0
    return replace(phantom, density_g_cm3=density), ct


def renumbered(patient: SyntheticPatient, change: Callable[[Floats], Floats]) -> Damaged:
    """The phantom that comes of other CT numbers."""
    ct = replace(patient.ct, values=change(patient.ct.values))
    return build_phantom(ct, patient.labels), ct


def rescaled(patient: SyntheticPatient) -> Damaged:
    """CT numbers times 1.3: a wrong rescale slope."""
    return renumbered(patient, lambda hu: hu * np.float32(1.3))


def rescaled_and_cut(patient: SyntheticPatient) -> Damaged:
    """The same, with what is below -1024 HU cut off."""
    return renumbered(patient, lambda hu: np.maximum(hu * np.float32(1.3), np.float32(-1024)))


def halved(patient: SyntheticPatient) -> Damaged:
    """CT numbers times 0.5."""
    return renumbered(patient, lambda hu: hu * np.float32(0.5))


def offset(patient: SyntheticPatient) -> Damaged:
    """CT numbers plus 1024: no rescale intercept."""
    return renumbered(patient, lambda hu: hu + np.float32(1024))


def offset_twice(patient: SyntheticPatient) -> Damaged:
    """CT numbers less 1024: the intercept applied twice."""
    return renumbered(patient, lambda hu: hu - np.float32(1024))


def offset_slightly(patient: SyntheticPatient) -> Damaged:
    """CT numbers plus 100."""
    return renumbered(patient, lambda hu: hu + np.float32(100))


def from_zero(patient: SyntheticPatient) -> Damaged:
    """CT numbers from 0: no sign."""
    return renumbered(patient, lambda hu: np.maximum(hu, np.float32(0)))


def clipped(patient: SyntheticPatient) -> Damaged:
    """CT numbers cut to a window of -160 to 240 HU, as 8-bit exports are."""
    return renumbered(patient, lambda hu: np.clip(hu, np.float32(-160), np.float32(240)))


def turned_round(patient: SyntheticPatient) -> Damaged:
    """CT numbers with the other sign."""
    return renumbered(patient, np.negative)


DAMAGES: tuple[tuple[Callable[[VoxelPhantom, ImageVolume], Damaged], str, tuple[str, ...]], ...] = (
    (swapped, "side", ("kidney_right",)),
    (mirrored, "side", ("",)),
    (holed, "hole", ("liver",)),
    (islanded, "island", ("spleen",)),
    (missing, "missing", ("kidney_left",)),
    (truncated, "field of view", ("liver",)),
    (scaled, "scale", ("",)),
    (shifted, "ct number", ("lung_left", "lung_right")),
    (pierced, "body", ("",)),
)
NUMBERS: tuple[Callable[[SyntheticPatient], Damaged], ...] = (
    rescaled, rescaled_and_cut, halved, offset, offset_twice, offset_slightly, from_zero, clipped, turned_round,
)  # fmt: skip


def says(quality: PhantomQuality, check: str, organs: tuple[str, ...]) -> bool:
    """Whether a warning or failure of a check is about one of the organs ("" is the whole)."""
    return any(f.check == check and f.organ in organs and f.severity != "note" for f in quality.findings)


def noticed(damage: Callable[[SyntheticPatient], Damaged], patient: SyntheticPatient) -> str:
    """How wrong CT numbers of a person are noticed: "refused", "found", or "" if not."""
    try:
        quality = assess_phantom(*damage(patient))
    except SynthDoseError:
        return "refused"
    return "found" if says(quality, "ct number", ("",)) else ""


def person(seed: int) -> SyntheticPatient:
    """One of the people."""
    return synthetic_patient(seed, spacing_mm=SPACING_MM, tumours=seed % 5)


def verdicts(people: int, damaged: int) -> list[str]:
    """Tables of false alarms and of damages found."""
    alarms: Counter[str] = Counter()
    clean, found, refused = 0, Counter[str](), Counter[str]()
    for seed in range(100, 100 + people):
        patient = person(seed)
        phantom = build_phantom(patient.ct, patient.labels)
        findings = [f for f in assess_phantom(phantom, patient.ct).findings if f.severity != "note"]
        clean += not findings
        alarms.update(f"{f.severity}, {f.check}, {f.organ or 'all'}" for f in findings)
        if seed - 100 < damaged:
            for damage, check, organs in DAMAGES:
                found[damage.__name__] += says(assess_phantom(*damage(phantom, patient.ct)), check, organs)
            for wrong in NUMBERS:
                outcome = noticed(wrong, patient)
                found[wrong.__name__] += bool(outcome)
                refused[wrong.__name__] += outcome == "refused"
    lines = [f"{people} healthy people: {clean} without warning; {sum(alarms.values())} warnings in all."]
    if alarms:
        lines += ["", "| false alarm | people |", "|---|---|", *(f"| {what} | {n} |" for what, n in alarms.most_common())]
    lines += ["", "| damage | found |", "|---|---|"]
    for damage in (*(row[0] for row in DAMAGES), *NUMBERS):
        name = damage.__name__
        how = f", {refused[name]} of them refused before" if refused[name] else ""
        lines.append(f"| {name}: {(damage.__doc__ or '').rstrip('.')} | {found[name]} of {damaged}{how} |")
    return lines


def batch(number: int) -> list[str]:
    """Table of a batch with one command: time per patient and stage, memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "patients").mkdir()
        voxels = []
        for seed in range(200, 200 + number):
            patient, place = person(seed), folder / "patients" / f"p{seed}"
            place.mkdir()
            voxels.append(patient.ct.grid.size)
            write_volume(place / "ct.nrrd", patient.ct.values, patient.ct.grid, unit="HU")
            write_segmentation(place / "labels.seg.nrrd", patient.labels)
        arguments = ["--image-name", "ct.nrrd", "--segmentation-name", "labels.seg.nrrd", "--out", str(folder / "cohort")]
        if synthdose(["phantom", str(folder / "patients"), *arguments]):
            return ["The batch failed."]
        with open(folder / "cohort" / "cohort.csv", newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        made = [json.loads((folder / "cohort" / row["folder"] / "phantom.json").read_text())["made"] for row in rows]
    stages: dict[str, list[float]] = {}
    for record in made:
        for stage, seconds in record["seconds"].items():
            stages.setdefault(stage, []).append(seconds)
    total = [float(row["seconds"]) for row in rows]
    lines = [
        "`synthdose phantom patients/ --image-name ct.nrrd --segmentation-name labels.seg.nrrd --out cohort/`: "
        f"{number} patients of {np.mean(voxels) / 1e6:.2g} million voxels of {SPACING_MM[0]:g} mm, {np.mean(total):.1f} s each "
        f"(wall time), peak memory {max(int(row['peak_MB'] or 0) for row in rows)} MB; "
        f"verdicts {dict(Counter(row['verdict'] for row in rows))}.",
        "",
        "| stage | mean s | largest s |",
        "|---|---|---|",
    ]
    return lines + [f"| {stage} | {np.mean(values):.2f} | {max(values):.2f} |" for stage, values in stages.items()]


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description="Quality verdict on synthetic people, and a batch.")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--damaged", type=int, default=4)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    lines = [*verdicts(arguments.people, arguments.damaged), "", *batch(arguments.batch)]
    body = "\n".join(lines)
    sys.stdout.write(body + "\n")
    write_section(HEADING, "python -m Testing.Benchmarks.phantoms", body, arguments.out)


if __name__ == "__main__":
    main()
