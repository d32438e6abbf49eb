"""What a plan may say about dose engines other than the Monte Carlo."""

from __future__ import annotations

from dataclasses import dataclass

from ..core import SynthDoseError
from .toml_tables import nearest

ENGINES = ("monte-carlo", "kernel", "local")
KERNEL_TISSUES = ("soft", "lung-soft-bone")


@dataclass(frozen=True)
class EngineOptions:
    """How kernels and local deposition are used.

    Parameters
    ----------
    kernel_tissues : str
        "soft": one kernel of soft tissue; "lung-soft-bone": three, each for the voxels of its density that receive dose.
    density_scaling : bool
        Whether the energy that charged particles leave in a voxel goes to the voxel's own mass (photons: never scaled).
    local_photons : bool
        Whether local deposition keeps photons too.
    kernel_sigma : float
        Relative standard error of the kernels where a plan gives no relative_sigma.

    Raises
    ------
    SynthDoseError
        If `kernel_tissues` is not known.
    """

    kernel_tissues: str = "lung-soft-bone"
    density_scaling: bool = True
    local_photons: bool = False
    kernel_sigma: float = 0.005

    def __post_init__(self) -> None:
        require_one_of("kernel_tissues", self.kernel_tissues, KERNEL_TISSUES)


def require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `SynthDoseError` naming the nearest allowed word."""
    if value not in allowed:
        raise SynthDoseError(f"[dose] {name} is '{value}'.{nearest(value, allowed)} Allowed: {', '.join(allowed)}.")


def check_engines(engine: str, compare: tuple[str, ...]) -> None:
    """Check ``[dose] engine`` and ``compare``."""
    require_one_of("engine", engine, ENGINES)
    for name in compare:
        require_one_of("compare", name, ENGINES)
    if engine in compare or len(set(compare)) != len(compare):
        raise SynthDoseError(
            f"[dose] compare names the engines to compare with engine = '{engine}', each once; found {', '.join(compare)}."
        )
