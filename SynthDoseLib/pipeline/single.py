"""One station alone, from file to file: the phantom."""

from __future__ import annotations

from pathlib import Path

from ..core import Progress, silent
from ..io import write_segmentation, write_volume
from ..io.folder import write_csv
from .plan import ImagePlan, PhantomPlan, SegmentationPlan
from .run_folder import claim_folder, open_folder, write_json
from .stations import describe_masses, make_phantom, mass_rows, read_ct, report_stage, segment


def phantom_file(
    image: Path, segmentation: Path, out: Path, *, table: str = "", metal_material: str = "", progress: Progress = silent
) -> str:
    """Build a phantom and write its materials, densities, labels and masses to a folder.

    Returns
    -------
    str
        Table of organs, volumes and masses, for people.
    """
    folder = claim_folder(out, overwrite=True)
    report_stage(progress, "read", 0.0)
    ct = read_ct(ImagePlan(image))
    labels = segment(SegmentationPlan(path=segmentation, labels=table), ct, progress=progress)
    phantom = make_phantom(PhantomPlan(metal_material=metal_material), ct, labels)
    open_folder(folder, phantom.grid.size)
    write_volume(folder / "density.nrrd", phantom.density_g_cm3, phantom.grid, unit="g/cm3")
    write_volume(folder / "materials.nrrd", phantom.material_index, phantom.grid)
    write_segmentation(folder / "labels.seg.nrrd", phantom.labels)
    write_csv(folder / "masses.csv", ("organ", "volume_ml", "mass_g", "density_g_cm3"), mass_rows(phantom))
    materials = [
        {"index": n, "name": m.name, "density_g_cm3": m.density_g_cm3, "mass_fractions": dict(m.mass_fractions)}
        for n, m in enumerate(phantom.materials)
    ]
    write_json(folder / "phantom.json", {"schema": 1, "materials": materials, "notes": phantom.notes})
    return "\n".join([describe_masses(phantom), *phantom.notes])
