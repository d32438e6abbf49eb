"""Radiomics from file to file, and the check against IBSI's reference values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..core import Progress, SynthDoseError, computer, sha256_of, silent, versions
from ..io import write_csv
from ..radiomics import (
    FeatureRow,
    FeatureTable,
    IbsiRow,
    RadiomicsSettings,
    check_ibsi,
    extract_features,
    extract_with_parameters,
    read_parameters,
    write_features_csv,
)
from .plan import ImagePlan, SegmentationPlan
from .run_folder import write_json
from .stations import find_organs, read_any_image, report_stage


def radiomics_file(
    image: ImagePlan,
    segmentation: Path,
    out: Path,
    *,
    settings: RadiomicsSettings | None = None,
    parameters: Path | None = None,
    table: str = "",
    organs: Sequence[str] = (),
    further: Sequence[ImagePlan] = (),
    progress: Progress = silent,
) -> str:
    """Extract the features of an image's organs and write them, with a ``.json`` of how they were made beside the table.

    Parameters
    ----------
    image : ImagePlan
        CT, MR, PET, or a dose map.
    segmentation : path
        Label map, SEG, RTSTRUCT or Slicer segmentation; brought to the grid of the image.
    out : path
        ``.csv`` to write: ``organ,image,feature,value,filter``.
    settings : RadiomicsSettings, optional
    parameters : path, optional
        Parameter file of pyradiomics, in place of `settings`.
    table : str
        Label table of a label map without names.
    organs : sequence of str
        All if empty.
    further : sequence of ImagePlan
        More images of the same organs, such as a dose map; their rows follow. A stated grey-level width holds for `image` only.

    Returns
    -------
    str
        What was extracted and how, for people.

    Raises
    ------
    SynthDoseError
        If an input is not usable; nothing is written.
    MissingPackageError
        If pyradiomics is not installed.
    """
    if out.suffix != ".csv":
        raise SynthDoseError(f"--out has to end with .csv; found {out.name}.")
    if not out.absolute().parent.is_dir():
        raise SynthDoseError(f"The folder {out.absolute().parent} does not exist. Make it first.")
    given = read_parameters(parameters) if parameters is not None else None
    report_stage(progress, "read", 0.0)
    chosen, settings = organs or None, settings or RadiomicsSettings()
    rows: list[FeatureRow] = []
    notes: list[str] = []
    for number, plan in enumerate((image, *further), start=1):
        volume = read_any_image(plan)
        labels = find_organs(SegmentationPlan(path=segmentation, labels=table), volume, progress=progress).labels
        if given is not None:
            features = extract_with_parameters(volume, labels, given, organs=chosen, progress=progress)
        else:
            own = settings if number == 1 else dataclasses.replace(settings, bin_width=None)
            features = extract_features(volume, labels, organs=chosen, settings=own, progress=progress)
        taken = {row.image for row in rows}
        rows += [
            dataclasses.replace(row, image=f"{row.image} {number}") if row.image in taken else row for row in features.rows
        ]
        notes += [*labels.notes, *features.notes]
    if not rows:
        raise SynthDoseError(f"There is no organ with features. {' '.join(notes)}")
    write_features_csv(out, FeatureTable(tuple(rows), tuple(notes)))
    files = [*(plan.path for plan in (image, *further)), segmentation]
    record = {
        "schema": 1,
        "image": image.path.name,
        "further_images": [plan.path.name for plan in further],
        "segmentation": segmentation.name,
        "sha256": {file.name: sha256_of(file) for file in files if file.is_file()},
        "settings": given if given is not None else dataclasses.asdict(settings),
        "versions": versions(),
        "computer": computer(),
        "notes": notes,
    }
    write_json(out.with_suffix(".json"), record)
    found = sorted({row.organ for row in rows})
    return "\n".join([f"{len(rows)} features of {len(found)} organs: {', '.join(found)}.", *dict.fromkeys(notes)])


def ibsi_report(out: Path | None = None) -> tuple[str, bool]:
    """Features of IBSI's digital phantom beside their reference values, and whether all agree; also as a table to `out`."""
    rows = check_ibsi()
    if out is not None:
        write_csv(out, [field.name for field in dataclasses.fields(IbsiRow)], [dataclasses.astuple(row) for row in rows])
    wrong = [row for row in rows if not row.agrees]
    lines = [f"{len(rows) - len(wrong)} of {len(rows)} features of IBSI's digital phantom agree with the reference values."]
    lines += [f"  {row.ibsi} ({row.pyradiomics}): {row.value:.4g}, expected {row.reference:g}" for row in wrong]
    return "\n".join(lines), not wrong
