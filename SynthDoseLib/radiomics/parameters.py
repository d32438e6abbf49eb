"""Extraction by a parameter file of pyradiomics, for those who have one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core import ImageVolume, LabelMap, MissingPackageError, Progress, ProgressReport, SynthDoseError, silent
from .features import INSTALL, NOT_ORGANS, FeatureRow, FeatureTable, finite_features, load_pyradiomics, quiet_pyradiomics

LARGEST_FILE = 100_000
"""Bytes: a parameter file has some hundred; YAML can be made to grow when it is read."""


def read_parameters(path: str | Path) -> dict[str, Any]:
    """Read a parameter file of pyradiomics (YAML or JSON); nothing in it is executed.

    Raises
    ------
    SynthDoseError
        If the file cannot be read, is not a table, or is larger than `LARGEST_FILE`.
    MissingPackageError
        If pyradiomics, which brings the reader, is not installed.
    """
    path = Path(path)
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError:
        raise MissingPackageError("pyradiomics", "A parameter file of pyradiomics", INSTALL) from None
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise SynthDoseError(f"{path} has {path.stat().st_size} bytes; a parameter file has at most {LARGEST_FILE}.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SynthDoseError(f"Cannot read the parameter file {path}: {error}.") from error
    if "&" in text and "*" in text:
        raise SynthDoseError(f"{path} has YAML anchors and aliases, which pyradiomics does not need. Write the values out.")
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise SynthDoseError(f"{path} is neither YAML nor JSON: {str(error).splitlines()[0]}.") from error
    if not isinstance(values, Mapping):
        raise SynthDoseError(f"{path} has to hold the tables setting, imageType and featureClass of pyradiomics.")
    return {str(key): value for key, value in values.items()}


def extract_with_parameters(
    image: ImageVolume,
    labels: LabelMap,
    parameters: Mapping[str, Any],
    *,
    organs: Iterable[str] | None = None,
    progress: Progress = silent,
) -> FeatureTable:
    """Compute the features of every organ as a parameter file says.

    Parameters
    ----------
    image : ImageVolume
    labels : LabelMap
        On the grid of `image`.
    parameters : mapping
        Tables ``setting``, ``imageType`` and ``featureClass`` of pyradiomics, which checks them.
    organs : iterable of str, optional
        All but the body and its rest if not given.
    progress : callable
        May raise `Cancelled`.

    Returns
    -------
    FeatureTable

    Raises
    ------
    SynthDoseError
        If the grids differ, an organ is unknown, or pyradiomics refuses the parameters.
    MissingPackageError
        If pyradiomics is not installed.
    """

    radiomics = load_pyradiomics()
    if not image.grid.matches(labels.grid):
        raise SynthDoseError("Image and label map are on different grids. Resample the labels to the grid of the image first.")
    names = [o.name for o in labels.organs if o.name not in NOT_ORGANS] if organs is None else list(organs)
    settings = dict(parameters.get("setting") or {})
    given = {**parameters, "setting": {key: value for key, value in settings.items() if key not in ("label", "label_channel")}}
    rows: list[FeatureRow] = []
    skipped: list[str] = []
    title = image.modality or image.unit or "image"
    with quiet_pyradiomics(radiomics):
        try:
            extractor = radiomics.featureextractor.RadiomicsFeatureExtractor(given, additionalInfo=False)
        except Exception as error:  # of its validator: many kinds
            raise SynthDoseError(f"pyradiomics refuses the parameters: {' '.join(str(error).split())[:400]}") from error
        picture = _picture(image.values.astype(np.float64), image)
        for number, name in enumerate(names):
            progress(ProgressReport("radiomics", number / max(1, len(names)), None, name))
            try:
                found = extractor.execute(picture, _picture(labels.mask(name).astype(np.uint8), image), label=1)
            except ValueError as error:  # how pyradiomics refuses a region
                skipped.append(f"{name} ({str(error).splitlines()[0]})")
                continue
            rows += [FeatureRow(name, title, feature, value, kind) for (kind, feature), value in finite_features(found).items()]
    progress(ProgressReport("radiomics", 1.0))
    notes = [f"Features by pyradiomics {radiomics.__version__.lstrip('v')} with a parameter file."]
    if skipped:
        notes.append(f"No features of: {', '.join(skipped)}.")
    return FeatureTable(tuple(rows), tuple(notes))


def _picture(values: np.ndarray[Any, Any], image: ImageVolume) -> Any:
    """An ITK image with the geometry of a volume, LPS."""
    import SimpleITK

    picture = SimpleITK.GetImageFromArray(values)
    matrix = np.diag([-1.0, -1.0, 1.0]) @ image.grid.ijk_to_ras[:3]
    spacing = np.linalg.norm(matrix[:, :3], axis=0)
    picture.SetSpacing(spacing.tolist())
    picture.SetDirection((matrix[:, :3] / spacing).ravel().tolist())
    picture.SetOrigin(matrix[:, 3].tolist())
    return picture
