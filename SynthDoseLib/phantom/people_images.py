"""What a CT scanner shows of a stylised person."""

from __future__ import annotations

import numpy as np

from SynthDoseLib.core import ImageVolume, SynthDoseError

from .people_person import StylisedPerson
from .synthetic_images import ct_image


def person_ct(person: StylisedPerson, seed: int, *, noise_hu: float = 12.0, blur_fwhm_mm: float = 2.5) -> ImageVolume:
    """Make a CT of a person: texture of the tissues, partial volume and noise with the grain of a reconstruction.

    Parameters
    ----------
    person : StylisedPerson
    seed : int
        Of texture and noise.
    noise_hu : float
        Standard deviation of the noise in a uniform region, HU.
    blur_fwhm_mm : float
        Resolution, mm: it mixes the tissues that share a voxel.

    Returns
    -------
    ImageVolume
        Whole HU from -1024 up, on the person's grid, with age, sex, height and weight as a scanner would write them.
    """
    if noise_hu < 0 or blur_fwhm_mm < 0:
        raise SynthDoseError(f"Noise and resolution cannot be negative; found {noise_hu} HU and {blur_fwhm_mm} mm.")
    image = ct_image(
        person.tissues,
        person.tissue_table,
        person.grid.spacing_mm,
        np.random.default_rng([seed, 5077]),
        noise_hu=noise_hu,
        blur_fwhm_mm=blur_fwhm_mm,
    )
    plan = person.plan
    metadata = {
        "patient_id": f"STYLISED-{plan.seed:05d}",
        "patient_name": f"Stylised^Person {plan.seed:05d}",
        "patient_age_years": round(plan.age_y, 3),
        "patient_sex": "F" if plan.sex == "female" else "M",
        "patient_weight_kg": round(float(plan.weight_kg or 0.0), 2),
        "patient_height_m": round(float(plan.height_cm or 0.0) / 100, 3),
        "series_description": "CT of a stylised person",
    }
    notes = ("This image is computed from a stylised person: it shows nobody.",)
    return ImageVolume(person.grid, image, modality="CT", unit="HU", metadata=metadata, notes=notes)
