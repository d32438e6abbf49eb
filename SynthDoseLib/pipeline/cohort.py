"""Patients to learn from: folders of images and labels, tables that list them, and people made on the spot."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import LabelMap, Organ, Progress, ProgressReport, SynthDoseError, bare_name, silent
from ..io import read_image, read_labels
from ..phantom import ORGAN_GROUPS, sample_person
from ..segmentation import apply_table, label_table, match_organs
from ..segmentation.recipe import REST
from ..segmentation.tissue_maps import tissues_of
from ..segmentation.training import TrainingCase

SYNTHETIC = "synthetic:"
INDEX, PERSON_LABELS = "cohort.csv", "labels.seg.nrrd"  # of `synthdose people`
PEOPLE_SPACING_MM = 3.0
ADULTS, ARMS_UP = 0.85, 0.7  # shares of the people made on the spot
_LABELS = ("label", "seg", "mask")
_ENDINGS = (".nii.gz", ".seg.nrrd", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr")


def read_cohort(
    source: str, *, modality: str, table: str = "", weight: float = 1.0, progress: Progress = silent
) -> list[TrainingCase]:
    """Read the patients of one source.

    Parameters
    ----------
    source : str
        One of

        * a folder with a folder per patient, each holding an image (a file, or a folder of DICOM) and labels (a file whose
          name has ``label``, ``seg`` or ``mask`` in it, or a folder so called);
        * a folder with ``imagesTr`` and ``labelsTr`` (Medical Segmentation Decathlon);
        * a cohort of ``synthdose people``: its folder or its index; images are made of the labels;
        * a table: CSV, or JSON with a list of objects, with the columns ``labels``
          and if there are any ``image``, ``name`` and ``weight``; paths relative to the table. Without an image, images are
          made;
        * ``synthetic:NUMBER`` or ``synthetic:NUMBER:SEED``: people made on the spot.
    modality : str
        "CT" or "MR", for images that do not say.
    table : str
        Label table (see `label_table`), for labels that are only numbers.
    weight : float
        How often these patients are drawn in training; a table's own weights are multiplied by it.
    progress : Progress

    Returns
    -------
    list of TrainingCase

    Raises
    ------
    SynthDoseError
        If there are no patients, or one of them cannot be read.
    """
    if source.startswith(SYNTHETIC):
        return [replace(case, weight=weight) for case in _people(source, progress)]
    path = Path(source)
    if (path / INDEX).is_file():
        path = path / INDEX
    if path.is_dir():
        rows = _decathlon(path) if (path / "imagesTr").is_dir() else _folders(path)
    elif path.is_file():
        rows = _table_rows(path)
    else:
        raise SynthDoseError(f"There is no cohort {source}: neither a folder nor a table, nor synthetic:NUMBER.")
    if not rows:
        raise SynthDoseError(
            f"The cohort {source} has no patients. Expected: a folder per patient with an image and a file of labels "
            "(label, seg or mask in its name), or imagesTr and labelsTr, or a table with a column labels."
        )
    names = [name for name, *_ in rows]
    if len(set(names)) != len(names):
        raise SynthDoseError(f"The cohort {source} names a patient twice: {next(n for n in names if names.count(n) > 1)}.")
    cases = []
    for number, (name, image, labels, own_weight) in enumerate(rows, start=1):
        case = _read_case(name, image, labels, modality, table)
        cases.append(replace(case, weight=weight * own_weight))
        progress(ProgressReport("train", 0.0, None, f"{source}: patient {number} of {len(rows)} read"))
    return cases


Row = tuple[str, Path | None, Path, float]


def _read_case(name: str, image_path: Path | None, labels_path: Path, modality: str, table: str) -> TrainingCase:
    image = read_image(image_path, modality=modality) if image_path is not None else None
    raw = read_labels(labels_path, reference=image.grid if image else None, reference_image=image)
    labels = apply_table(raw, label_table(table)) if table else match_organs(raw)
    if not labels.labels.any():
        raise SynthDoseError(f"The labels of {name} ({labels_path}) are empty. Take the patient out of the cohort.")
    if image is not None:
        return TrainingCase(name, labels, image)
    tissues, names = tissues_of(labels)
    return TrainingCase(name, _whole_organs(labels), tissues=tissues, tissue_names=names)


def _whole_organs(labels: LabelMap) -> LabelMap:
    """Join walls and contents, and the bones, to what segmentations call an organ."""
    group_of = {member: group for group, members in ORGAN_GROUPS.items() for member in members}
    names = list(dict.fromkeys(group_of.get(organ.name, organ.name) for organ in labels.organs))
    table = np.zeros(max(organ.index for organ in labels.organs) + 1, np.uint16)
    for organ in labels.organs:
        table[organ.index] = names.index(group_of.get(organ.name, organ.name)) + 1
    organs = tuple(Organ(number, name) for number, name in enumerate(names, start=1))
    return LabelMap(labels.grid, table[labels.labels], organs, labels.notes)


def _folders(root: Path) -> list[Row]:
    rows: list[Row] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        entries = sorted(path for path in folder.iterdir() if path.is_dir() or path.name.lower().endswith(_ENDINGS))
        labels = [path for path in entries if any(word in path.name.lower() for word in _LABELS)]
        images = [path for path in entries if path not in labels]
        if len(labels) != 1 or len(images) != 1:
            raise SynthDoseError(
                f"The patient folder {folder} has to hold one image and one file of labels (label, seg or mask in its name); "
                f"found {len(images)} and {len(labels)}: {', '.join(p.name for p in entries) or 'nothing readable'}."
            )
        rows.append((folder.name, images[0], labels[0], 1.0))
    return rows


def _decathlon(root: Path) -> list[Row]:
    rows: list[Row] = []
    for image in sorted((root / "imagesTr").glob("[!.]*.nii*")):
        stem = image.name.split(".nii")[0]
        candidates = [root / "labelsTr" / image.name, root / "labelsTr" / f"{stem.removesuffix('_0000')}.nii.gz"]
        labels = next((path for path in candidates if path.is_file()), None)
        if labels is None:
            raise SynthDoseError(f"{image} has no labels {candidates[0]}.")
        rows.append((stem, image, labels, 1.0))
    return rows


def _table_rows(path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, entry in enumerate(_entries(path), start=1):
        labels = entry.get("labels")
        if not labels and entry.get("folder"):
            if entry.get("state", "finished") != "finished":
                continue
            labels = f"{entry['folder']}/{PERSON_LABELS}"
        if not labels:
            raise SynthDoseError(f"Line {number} of the cohort table {path} names no labels. Columns: {', '.join(entry)}.")
        image = entry.get("image")
        text = entry.get("weight")
        try:
            weight = 1.0 if text in (None, "") else float(str(text))
        except ValueError:
            weight = -1.0
        if not 0 <= weight < float("inf"):
            raise SynthDoseError(f"Line {number} of the cohort table {path} has the weight {text!r}; a number from 0 was due.")
        where = path.parent / str(labels)
        name = str(entry.get("name") or entry.get("person") or where.parent.name + "/" + where.name)
        rows.append((name, path.parent / str(image) if image else None, where, weight))
    return rows


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() != ".json":
            yield from csv.DictReader(text.splitlines())
            return
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise SynthDoseError(f"Cannot read the cohort table {path}: {error}. It has to be CSV or JSON in UTF-8.") from error
    if isinstance(content, Mapping):
        content = next((value for value in content.values() if isinstance(value, list)), None)
    if not isinstance(content, list) or not all(isinstance(entry, Mapping) for entry in content):
        raise SynthDoseError(f"The cohort table {path} has to hold a list of objects.")
    yield from content


def _people(source: str, progress: Progress) -> Iterator[TrainingCase]:
    """Stylised people of ``synthetic:NUMBER:SEED``."""
    try:
        number, seed = (int(part) for part in [*source.removeprefix(SYNTHETIC).split(":"), "20000"][:2])
    except ValueError:
        number, seed = 0, 0
    if not 1 <= number <= 10_000 or seed < 0:
        raise SynthDoseError(f"'{source}' has to be synthetic:NUMBER or synthetic:NUMBER:SEED, for example synthetic:64.")
    for own in range(seed, seed + number):
        progress(ProgressReport("train", 0.0, None, f"synthetic person {own - seed + 1} of {number}"))
        yield synthetic_case(own)


def synthetic_case(seed: int) -> TrainingCase:
    """Person `seed` to learn from: labels and tissues at 3 mm from the thighs to the neck or the head; mostly adults."""
    random = np.random.default_rng([seed, 5])
    age = (20.0, 90.0) if random.random() < ADULTS else (5.0, 19.0)
    arms = "up" if random.random() < ARMS_UP else "down"
    person = sample_person(
        seed,
        spacing_mm=(PEOPLE_SPACING_MM,) * 3,
        margin_mm=6.0,
        age_y=age,
        arms=arms,
        variation=float(random.uniform(0.8, 1.5)),
    )
    labels = np.array(person.merged(ORGAN_GROUPS).labels)
    organs = tuple(Organ(number, name) for number, name in enumerate((*ORGAN_GROUPS, REST), start=1))
    labels[(labels == 0) & (person.tissues > 0)] = len(organs)
    crotch, chin, vertex = (person.landmarks_mm[name] for name in ("crotch", "chin", "vertex"))
    top = chin + float(random.uniform(-0.3, 1.0)) * (vertex - chin)
    z = person.grid.to_ras(np.stack([*np.zeros((2, labels.shape[0])), np.arange(labels.shape[0])], axis=-1))[:, 2]
    slices = np.flatnonzero((z > crotch - 0.6 * (chin - crotch) / 2) & (z < top))
    first, count = int(slices[0]), len(slices)
    grid = person.grid.crop((first, 0, 0), (count, *labels.shape[1:]))
    names = tuple(tissue.name for tissue in person.tissue_table)
    part = slice(first, first + count)
    return TrainingCase(
        f"synthetic {seed}",
        LabelMap(grid, np.ascontiguousarray(labels[part]), organs),
        tissues=np.ascontiguousarray(person.tissues[part]),
        tissue_names=names,
    )


def split_cohort(
    cases: Sequence[TrainingCase], share: float, seed: int, *, at_least: int = 1
) -> tuple[list[TrainingCase], list[TrainingCase]]:
    """Hold some patients back to decide when to stop: at random, but the same ones every time.

    Raises
    ------
    SynthDoseError
        If nobody would be left to learn from.
    """
    if share == 0:
        return list(cases), []
    count = max(at_least, round(share * len(cases)))
    if count >= len(cases):
        raise SynthDoseError(
            f"The cohort has {len(cases)} patient(s); {count} would be held out, and nobody would be left to learn from. Give "
            "more patients, or set held_out_share to 0: then nothing tells when to stop."
        )
    order = np.random.default_rng([seed, 99]).permutation(len(cases))
    held = set(order[:count].tolist())
    chosen: Callable[[bool], list[TrainingCase]] = lambda inside: [c for n, c in enumerate(cases) if (n in held) == inside]  # noqa: E731
    return chosen(False), chosen(True)


def cohort_words(sources: Sequence[str | os.PathLike[str]], cases: Sequence[TrainingCase], held_out: int) -> str:
    """What the model card says about the patients."""
    real = sum(case.image is not None for case in cases)
    made = len(cases) - real
    parts = []
    if real:
        parts.append(f"{real} patients with an image and labels")
    if made:
        parts.append(f"{made} synthetic people, of whom images were made with random contrast, resolution and artefacts")
    return f"{' and '.join(parts)} ({', '.join(map(bare_name, sources))}); {held_out} of them held out to choose the weights."
