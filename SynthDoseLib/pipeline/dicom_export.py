"""A finished run as DICOM: RTDOSE, RTSTRUCT and SEG, also when its CT came from another format."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..core import DoseMap, ImageVolume, Progress, SynthDoseError, gas_voxels, silent
from ..io import read_image, read_labels, read_volume, write_dicom_seg, write_dicom_series, write_rtdose, write_rtstruct
from ..io.folder import prepare_output_folder
from .stations import report_stage


def export_run(
    run: Path, out: Path, *, ct: Path | None = None, series: str = "", deidentify: bool = True, progress: Progress = silent
) -> Path:
    """Write dose and organs of a run folder as DICOM.

    Parameters
    ----------
    run : Path
        Run folder with ``dose_Gy.nrrd``, ``sigma_Gy.nrrd``, ``labels.seg.nrrd``, ``density.nrrd`` and ``ct.nrrd``. RTDOSE
        holds 0 in the gas of the body.
    out : Path
        New or empty folder; gets ``rtdose.dcm``, ``rtstruct.dcm`` and ``seg.dcm``.
    ct : Path, optional
        DICOM of the CT: its study and frame of reference are referred to. Without it the CT of the run is written as a
        DICOM series to ``out/ct`` and referred to.
    series : str
        Series Instance UID, if the folder `ct` holds several.
    deidentify : bool
        Whether to leave out who the patient is.
    progress : callable

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    SynthDoseError
        If the run is not finished, or a file cannot be read or written.
    """
    for name in ("dose_Gy.nrrd", "sigma_Gy.nrrd", "labels.seg.nrrd", "density.nrrd", "ct.nrrd"):
        if not (run / name).is_file():
            raise SynthDoseError(f"{run} has no {name}: it is not the folder of a finished run.")
    report_stage(progress, "read", 0.0)
    values, grid, _ = read_volume(run / "dose_Gy.nrrd")
    dose = DoseMap(grid, values, read_volume(run / "sigma_Gy.nrrd")[0])
    reference = read_image(ct, series=series or None) if ct is not None else None
    prepare_output_folder(out, overwrite=False)
    report_stage(progress, "results", 0.0)
    if reference is None:
        hu, ct_grid, unit = read_volume(run / "ct.nrrd")
        image = ImageVolume(ct_grid, hu, modality="CT", unit=unit or "HU")
        write_dicom_series(out / "ct", dataclasses.replace(image, metadata={"series_description": "CT of a SynthDose run"}))
        reference = read_image(out / "ct")
    density, place, _ = read_volume(run / "density.nrrd")
    if not place.matches(grid):
        raise SynthDoseError(f"{run}: density.nrrd and dose_Gy.nrrd are not on one grid; they are not of one run.")
    gas = gas_voxels(density, read_labels(run / "labels.seg.nrrd", reference=grid))
    write_rtdose(out / "rtdose.dcm", dose, reference, deidentify=deidentify, gas=gas)
    report_stage(progress, "results", 0.3)
    labels = read_labels(run / "labels.seg.nrrd", reference=reference.grid)
    write_dicom_seg(out / "seg.dcm", labels, reference, deidentify=deidentify)
    report_stage(progress, "results", 0.6)
    write_rtstruct(out / "rtstruct.dcm", labels, reference, deidentify=deidentify)
    report_stage(progress, "results", 1.0)
    return out
