"""The shipped bundles on people and scans they have not seen: Dice, HD95 and surface Dice per organ.

python -m Testing.Benchmarks.segmentation [--ct BUNDLE] [--mr BUNDLE] [--patients 3] [--pictures FOLDER] [--card]

Truth is known for the synthetic patients only. On the real scans the figures are agreement with the labels that
TotalSegmentator made, inside the field of view; the body is compared with thresholding, after a look at the pictures.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from SynthDoseLib.core import ImageVolume, LabelMap
from SynthDoseLib.io import read_image, read_labels
from SynthDoseLib.phantom import find_body, synthetic_patient
from SynthDoseLib.pipeline.cohort import PEOPLE_SPACING_MM, synthetic_case
from SynthDoseLib.segmentation import apply_table, label_table, organ_group, read_bundle, segment_with_bundle, shipped_bundles
from SynthDoseLib.segmentation.bundle_writer import replace_measurements
from SynthDoseLib.segmentation.randomised import random_scan
from SynthDoseLib.segmentation.recipe import read_recipe
from SynthDoseLib.segmentation.training_transforms import RandomScand

from .results import RESULTS, write_section

HEADING = "Segmentation: the shipped bundles on unseen people and scans"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"
UNSEEN = 101  # seed of the first synthetic patient; the people of the training have others
SURFACE_TOLERANCE_MM = 3.0
MR_PER_CT = 3  # random MR differ more from each other than random CT
GROUPS = ("lungs", "kidneys")
MEASURED = {
    "CT": (
        "`python -m Testing.Benchmarks.segmentation --card`. Synthetic patients (`synthetic_patient`, seeds from 101, CT of "
        "3 mm): mean over the patients, truth known. Real scans (the examples of TotalSegmentator, 3 mm; the CT goes from the "
        "lower chest to the pelvis): agreement with TotalSegmentator's labels, which are no truth; body against thresholding. "
        "No real image was used in training or to choose anything."
    ),
    "MR": (
        "`python -m Testing.Benchmarks.segmentation --card`. Nine synthetic people (seeds from 101, one random MR each, 3 mm, "
        "of the kind that the training has): mean over the people, truth known. Real scan (the example of TotalSegmentator: a "
        "slab of 6 cm through the upper abdomen, 3 mm, in which fat alone is bright): agreement with TotalSegmentator's "
        "labels, which are no truth; body against thresholding. No weight was learned from a real image. This one had been "
        "looked at, though: to understand why an earlier network failed on it (fat images became 15 % of the random sequences "
        "then), and to leave out the organs that were wrong on it. So it is no independent test."
    ),
}


@dataclass(frozen=True)
class Agreement:
    """How well a segmentation agrees with another.

    Attributes
    ----------
    dice, surface_dice : float
        0 to 1; the surfaces may differ by 3 mm.
    hd95_mm : float
        95th percentile of the distances between the surfaces, mm.
    found_ml, true_ml : float
    """

    dice: float
    hd95_mm: float
    surface_dice: float
    found_ml: float
    true_ml: float


def agreement(found: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Sequence[float]) -> Agreement:
    """Compare two masks (nk, nj, ni) by MONAI's metrics; HD95 is NaN if one of them is empty."""
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    voxel_ml = float(np.prod(spacing_mm)) / 1000
    volumes = float(found.sum()) * voxel_ml, float(truth.sum()) * voxel_ml
    if not found.any() or not truth.any():
        return Agreement(0.0, float("nan"), 0.0, *volumes)
    box = tuple(slice(max(0, int(place.min()) - 1), int(place.max()) + 2) for place in np.nonzero(found | truth))
    pair = [torch.from_numpy(mask[box].astype(np.float32))[None, None] for mask in (found, truth)]
    spacing = tuple(spacing_mm[::-1])
    dice = float(compute_dice(*pair))
    distance = float(compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing))
    surface = float(
        compute_surface_dice(*pair, class_thresholds=[SURFACE_TOLERANCE_MM], include_background=True, spacing=spacing)
    )
    return Agreement(dice, distance, surface, *volumes)


def compare(found: LabelMap, truth: LabelMap, body: NDArray[np.bool_] | None) -> dict[str, Agreement]:
    """Agreement per organ that both bundle and truth know, and of the body (every label) with an outline."""
    result = {}
    names = [organ.name for organ in found.organs if organ.name != "rest_of_body"]
    for organ in (*names, *(group for group in GROUPS if any(name in organ_group(group) for name in names))):
        masks = [_mask(labels, organ) for labels in (found, truth)]
        if masks[1].any():
            result[organ] = agreement(masks[0], masks[1], found.grid.spacing_mm)
    if body is not None:
        result["body"] = agreement(found.labels > 0, body, found.grid.spacing_mm)
    return result


def _mask(labels: LabelMap, organ: str) -> NDArray[np.bool_]:
    members = set(organ_group(organ))
    return np.asarray(np.isin(labels.labels, [entry.index for entry in labels.organs if entry.name in members]))


def synthetic_rows(bundle: str, patients: int) -> dict[str, list[Agreement]]:
    """Agreement with the truth of synthetic patients, per organ."""
    rows: dict[str, list[Agreement]] = {}
    for seed in range(UNSEEN, UNSEEN + patients):
        patient = synthetic_patient(seed)
        found = segment_with_bundle(patient.ct, bundle)
        body = np.asarray(patient.person.tissues > 0)
        for organ, numbers in compare(found, patient.organ_labels, body).items():
            rows.setdefault(organ, []).append(numbers)
        print(f"synthetic patient {seed}", file=sys.stderr)
    return rows


def synthetic_mr_rows(bundle: str, patients: int) -> dict[str, list[Agreement]]:
    """Agreement with the truth of random MR scans of synthetic people, per organ."""
    rows: dict[str, list[Agreement]] = {}
    for seed in range(UNSEEN, UNSEEN + patients):
        image, truth = synthetic_mr(seed)
        found = segment_with_bundle(image, bundle)
        for organ, numbers in compare(found, truth, truth.labels > 0).items():
            rows.setdefault(organ, []).append(numbers)
        print(f"synthetic MR {seed}", file=sys.stderr)
    return rows


def real_scan(path: Path, labels: Path, table: str, modality: str) -> tuple[ImageVolume, LabelMap]:
    """A scan and TotalSegmentator's labels of it."""
    image = read_image(path, modality=modality)
    return image, apply_table(read_labels(labels, reference=image.grid), label_table(table))


def outline_of_mr(image: ImageVolume) -> NDArray[np.bool_]:
    """Body of an MR image whose air is dark: what is brighter than an eighth of the bright, slice by slice without holes."""
    smooth = ndimage.gaussian_filter(image.values.astype(np.float64), 0.7)
    bright = smooth > np.percentile(smooth, 99) / 8
    pieces, _ = ndimage.label(np.stack([ndimage.binary_fill_holes(ndimage.binary_closing(plane)) for plane in bright]))
    return np.asarray(pieces == np.bincount(pieces[pieces > 0]).argmax())


def synthetic_mr(seed: int) -> tuple[ImageVolume, LabelMap]:
    """A random MR scan of 3 mm of a person of the kind that the training has, and what it shows."""
    person = synthetic_case(seed)
    settings = next(step for step in read_recipe("torso_mr").chain("randomisation") if isinstance(step, RandomScand)).scan
    assert person.tissues is not None
    tissues, classes = (
        torch.from_numpy(np.ascontiguousarray(values.transpose(2, 1, 0)).astype(np.uint8))
        for values in (person.tissues, person.labels.labels)
    )
    image, seen_classes, seen = random_scan(
        tissues, classes, person.tissue_names, PEOPLE_SPACING_MM, settings, np.random.default_rng([seed, 7])
    )
    box = tuple(slice(int(found.min()), int(found.max()) + 1) for found in np.nonzero(seen.numpy().transpose(2, 1, 0)))
    lower, shape = tuple(part.start for part in box), tuple(part.stop - part.start for part in box)
    grid = person.labels.grid.crop((lower[0], lower[1], lower[2]), (shape[0], shape[1], shape[2]))
    values, labels = (array.numpy().transpose(2, 1, 0)[box] for array in (image * seen, seen_classes))
    return (
        ImageVolume(grid, np.ascontiguousarray(values), "MR"),
        LabelMap(grid, np.ascontiguousarray(labels).astype(np.uint16), person.labels.organs),
    )


def unlabelled_ct(folder: Path) -> ImageVolume:
    """The liver CT of ../shared that has no labels."""
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(next(folder.glob("*.tar.xz"))) as archive:
            archive.extractall(scratch, filter="data")
        return read_image(Path(scratch), modality="CT")


def table_of(rows: Mapping[str, Sequence[Agreement]]) -> str:
    """Markdown table of means over patients."""
    lines = ["| organ | Dice | HD95 / mm | surface Dice (3 mm) | found / ml | truth / ml |", "|---|---|---|---|---|---|"]
    for organ, numbers in rows.items():
        values = np.array([[n.dice, n.hd95_mm, n.surface_dice, n.found_ml, n.true_ml] for n in numbers])
        known = [float(np.nanmean(column)) if not np.isnan(column).all() else float("nan") for column in values.T]
        lines.append(f"| {organ} | {known[0]:.3f} | {known[1]:.1f} | {known[2]:.3f} | {known[3]:.0f} | {known[4]:.0f} |")
    return "\n".join(lines)


def draw_outlines(
    image: ImageVolume, labels: LabelMap, path: Path, window: tuple[float, float], others: LabelMap | None
) -> None:
    """Slices with the outlines of the bundle's organs, and dotted those of the other labels, for the eye."""
    count, rows = 12, 3
    figure = Figure(figsize=(20, 15), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    levels = np.linspace(0.06, 0.94, count) * (image.grid.shape[0] - 1)
    axes = figure.subplots(rows, count // rows).ravel()
    upright = image.grid.directions[1, 1] > 0
    for axis, level in zip(axes, levels.astype(int), strict=True):
        axis.imshow(image.values[level], cmap="gray", vmin=window[0], vmax=window[1], origin="lower" if upright else "upper")
        for organ in labels.organs:
            inside = labels.labels[level] > 0 if organ.name == "rest_of_body" else labels.labels[level] == organ.index
            if inside.any():
                axis.contour(inside, [0.5], colors=[organ.colour or (1, 1, 0)], linewidths=1.0)
        for organ in others.organs if others is not None else ():
            inside = others.labels[level] == organ.index
            if inside.any():
                axis.contour(inside, [0.5], colors="white", linewidths=0.4, linestyles="dotted")
        axis.axis("off")
    figure.savefig(path, dpi=70)


def _unshipped(bundle: str) -> str:
    """What a bundle that does not ship was trained on, after the heading."""
    description = read_bundle(bundle)
    if bundle in shipped_bundles():
        return ""
    metadata = json.loads((description.folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    card = (description.folder / "docs" / "README.md").read_text(encoding="utf-8")
    steps = re.search(r"\d+ steps of one window in \d+ min", card)
    return f"\n\nThis network does not ship. {metadata.get('data_source', '')} {steps[0] if steps else ''}".rstrip() + "."


def _metrics(title: str, rows: Mapping[str, Sequence[Agreement]]) -> dict[str, float]:
    return {f"{title}: Dice {organ}": float(np.mean([n.dice for n in numbers])) for organ, numbers in rows.items()}


def _timed(function: Callable[[], LabelMap]) -> tuple[LabelMap, float]:
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(prog="python -m Testing.Benchmarks.segmentation", description=__doc__)
    parser.add_argument("--ct", default="synthetic_torso_ct")
    parser.add_argument("--mr", default="synthetic_torso_mr")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of the real scans (skipped if absent)")
    parser.add_argument("--patients", type=int, default=3, help="synthetic patients (default 3; of MR three times as many)")
    parser.add_argument("--card", action="store_true", help="put the numbers into the model cards of the bundles")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the outlines")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    parts: list[str] = []
    metrics: dict[str, dict[str, float]] = {options.ct: {}, options.mr: {}}
    if options.ct and options.patients:
        rows = synthetic_rows(options.ct, options.patients)
        metrics[options.ct] |= _metrics("synthetic patients", rows)
        title = f"### {read_bundle(options.ct).name}: synthetic patients (seeds from {UNSEEN}), truth known, CT of 3 mm"
        parts.append(f"{title}\n\n{table_of(rows)}")
    if options.mr and options.patients:
        rows = synthetic_mr_rows(options.mr, MR_PER_CT * options.patients)
        metrics[options.mr] |= _metrics("synthetic people", rows)
        title = f"### {read_bundle(options.mr).name}: random MR of synthetic people (seeds from {UNSEEN}), truth known, 3 mm"
        parts.append(f"{title}\n\n{table_of(rows)}")
    torso = options.shared / "ct_torso_totalseg"
    scans = (
        ("real CT (lower chest to pelvis, 3 mm)", options.ct, "example_ct.nii.gz", "example_seg_fast_force_split.nii.gz",
         "totalsegmentator", "CT", (-160.0, 240.0)),
        ("real MR (abdomen, 20 slices of 3 mm)", options.mr, "example_mr_sm.nii.gz", "example_seg_mr.nii.gz",
         "totalsegmentator-mr", "MR", (0.0, 600.0)),
    )  # fmt: skip
    for title, bundle, scan, labels, table, modality, window in scans:
        if not bundle or not (torso / scan).is_file():
            continue
        image, theirs = real_scan(torso / scan, torso / labels, table, modality)
        found, seconds = _timed(lambda image=image, bundle=bundle: segment_with_bundle(image, bundle))
        body = find_body(image) if modality == "CT" else outline_of_mr(image)
        numbers = {organ: [value] for organ, value in compare(found, theirs, body).items()}
        heading = f"### {read_bundle(bundle).name}: {title}, against TotalSegmentator's labels, {seconds:.0f} s"
        parts.append(f"{heading}{_unshipped(bundle)}\n\n{table_of(numbers)}")
        metrics[bundle] |= _metrics(f"real {modality}", numbers)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            draw_outlines(image, found, options.pictures / f"{modality.lower()}_{scan.split('.')[0]}.png", window, theirs)
    liver = options.shared / "ct_chest_abdomen_crlm1004"
    if options.ct and liver.is_dir():
        image = unlabelled_ct(liver)
        found, seconds = _timed(lambda: segment_with_bundle(image, options.ct))
        numbers = {"body": [agreement(found.labels > 0, find_body(image), image.grid.spacing_mm)]}
        volumes = ", ".join(
            f"{organ.name} {count * image.grid.voxel_volume_ml:.0f} ml"
            for organ, count in ((organ, found.voxel_counts()[organ.name]) for organ in found.organs)
            if count
        )
        heading = "### real CT without labels (chest and abdomen, 41 slices of 5 mm): body against thresholding"
        parts.append(f"{heading}, {seconds:.0f} s\n\n{table_of(numbers)}\n\nFound: {volumes}.")
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            draw_outlines(image, found, options.pictures / "ct_crlm1004.png", (-160.0, 240.0), None)
    if options.card:
        for bundle, known in metrics.items():
            if bundle and known:
                replace_measurements(read_bundle(bundle).folder, MEASURED[read_bundle(bundle).modality], known)
    command = "python -m Testing.Benchmarks.segmentation"
    write_section(HEADING, command, "\n\n".join(parts), options.out)
    print("\n\n".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
