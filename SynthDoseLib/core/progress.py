"""Telling the caller how far a long job is, and letting the caller stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STAGE_TITLES = {
    "patient": "Making the patient",
    "read": "Reading images",
    "segment": "Finding organs",
    "phantom": "Building the phantom",
    "activity": "Activity over time",
    "transport": "Transporting radiation",
    "kernels": "Voxel S-kernels",
    "convolution": "Convolving",
    "engines": "Comparing dose engines",
    "dose rate": "Fitting dose rates",
    "results": "Organ doses",
    "radiomics": "Radiomics",
    "report": "Report",
    "scene": "Slicer scene",
}


@dataclass(frozen=True)
class ProgressReport:
    """One message of a long job.

    Attributes
    ----------
    stage : str
        "read", "segment", "phantom", "transport" … in the words of the design.
    fraction : float
        Of this stage, 0 to 1.
    seconds_left : float or None
        Of this stage; None while it cannot be estimated.
    message : str
        For people.
    """

    stage: str
    fraction: float
    seconds_left: float | None = None
    message: str = ""

    @property
    def title(self) -> str:
        """The stage for people."""
        return STAGE_TITLES.get(self.stage, self.stage)


Progress = Callable[[ProgressReport], None]
"""Called now and then from the working thread. It may raise `Cancelled` to stop the job."""


def silent(_: ProgressReport) -> None:
    """Report nothing."""
