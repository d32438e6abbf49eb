"""The report of one patient: a single HTML file with everything in it."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import DoseMap, ImageVolume, LabelMap, atomic_path, resource_path
from ..dosimetry import ConstraintResult, DoseVolumeHistogram, OrganBudget, OrganDoseRow
from ..kinetics import TimeIntegratedActivity
from ..phantom import PhantomQuality
from ..segmentation import organ_group
from .activity_tables import CurveRow
from .clinical import BedRow
from .engines import EngineRow

CURVES = 12  # more lines in one plot cannot be told apart
CURVE_FRACTION = 0.03  # of the highest mean dose; less lies on the axis
FEW_VOXELS = 8
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NOT_CURVES = frozenset({"rest_of_body", "body"})


@dataclass(frozen=True)
class ReportInput:
    """A file or folder that went in: what it was, its bare name, and the SHA-256 (of one file, or of a list of them)."""

    role: str
    name: str
    sha256: str = ""
    detail: str = ""


@dataclass(frozen=True)
class EnergyBalance:
    """Energies of the simulation, MeV per decay."""

    emitted_MeV: float
    deposited_MeV: float
    escaped_MeV: float

    @property
    def difference(self) -> float:
        """Emitted energy that is neither deposited nor escaped, as a fraction of the emitted."""
        return (self.emitted_MeV - self.deposited_MeV - self.escaped_MeV) / self.emitted_MeV if self.emitted_MeV else math.nan


@dataclass(frozen=True, eq=False)
class ReportContents:
    """What the report shows. Everything is optional: a part without content is left out.

    Attributes
    ----------
    title : str
    patient : str
        Only what may be shown; "De-identified" if empty.
    created_at : datetime, optional
    nuclide, engine, device : str
    administered_MBq, administered_at : optional
    histories, seed : int, optional
    target_sigma : float, optional
        Relative standard error that was asked for.
    target_organs : sequence of str
        Organs that it was asked for.
    facts : mapping of label to text
        More lines for the summary.
    ct : ImageVolume, optional
        Shown under the dose, on any grid.
    dose : DoseMap, optional
        Absolute, Gy.
    labels : LabelMap, optional
        On the grid of `dose`.
    gas : ndarray of bool, (nk, nj, ni) of `dose`, optional
        Voxels whose dose is not shown.
    organ_doses : sequence of OrganDoseRow
    histograms : sequence of DoseVolumeHistogram
    constraints : sequence of (which dose, ConstraintResult)
    bed : sequence of BedRow
    engines : sequence of EngineRow
        Organ doses of several dose engines, the first of them the reference.
    budgets : sequence of OrganBudget
    activity : TimeIntegratedActivity, optional
    courses : sequence of CurveRow
        Time courses of several time points.
    time_activity : sequence of (caption, address)
        Pictures of them, see `time_pictures`.
    quality : PhantomQuality, optional
        Of the phantom: its table and findings are shown with the segmentation.
    outlines : sequence of (caption, address)
        Pictures of the outlines, see `outline_pictures`.
    segmentation_source : str
        Where the organs come from, one sentence.
    radiomics : str
        What was extracted with which settings, or why not.
    inputs : sequence of ReportInput
    warnings : sequence of str
        What the reader has to know before using a number; shown at the top together with those of `activity`.
    notes : mapping of stage to sequence of str
    versions, computer : mapping of name to text
    stage_seconds : mapping of stage to s
    energy : EnergyBalance, optional
    files : mapping of file name to what it holds
        Of the run folder.
    """

    title: str = "Internal dosimetry"
    patient: str = ""
    created_at: datetime | None = None
    nuclide: str = ""
    administered_MBq: float | None = None
    administered_at: datetime | None = None
    engine: str = ""
    device: str = ""
    histories: int | None = None
    seed: int | None = None
    target_sigma: float | None = None
    target_organs: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    ct: ImageVolume | None = None
    dose: DoseMap | None = None
    labels: LabelMap | None = None
    gas: NDArray[np.bool_] | None = None
    organ_doses: Sequence[OrganDoseRow] = ()
    histograms: Sequence[DoseVolumeHistogram] = ()
    constraints: Sequence[tuple[str, ConstraintResult]] = ()
    bed: Sequence[BedRow] = ()
    engines: Sequence[EngineRow] = ()
    budgets: Sequence[OrganBudget] = ()
    activity: TimeIntegratedActivity | None = None
    courses: Sequence[CurveRow] = ()
    time_activity: Sequence[tuple[str, str]] = ()
    quality: PhantomQuality | None = None
    outlines: Sequence[tuple[str, str]] = ()
    segmentation_source: str = ""
    radiomics: str = ""
    inputs: Sequence[ReportInput] = ()
    warnings: Sequence[str] = ()
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    computer: Mapping[str, str] = field(default_factory=dict)
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    energy: EnergyBalance | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def write_report(path: str | os.PathLike[str], contents: ReportContents) -> None:
    """Write the report as one HTML file that needs neither network nor scripts.

    Parameters
    ----------
    path : path-like
        ``report.html``; appears only when it is complete.
    contents : ReportContents
        Texts from patient files are escaped: they cannot add markup.

    Raises
    ------
    SynthDoseError
        If the file cannot be written.
    """
    html = render_report(contents)
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render_report(contents: ReportContents) -> str:
    """Return the report as HTML text; see `write_report`."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(quantity=quantity, organ=_organ, duration=_duration)
    template = environment.from_string(resource_path("report", "report.html").read_text(encoding="utf-8"))
    curves = _curves(contents)
    return template.render(
        c=contents,
        summary=_summary(contents),
        pictures=_pictures(contents, curves),
        organ_bars=_organ_bars(contents.organ_doses),
        curves=curves,
        noise=_voxel_noise(contents),
        warnings=list(dict.fromkeys((*contents.warnings, *(contents.activity.warnings if contents.activity else ())))),
        notes=_notes(contents),
        style=resource_path("report", "report.css").read_text(encoding="utf-8"),
    )


def quantity(value: float | None, digits: int = 3) -> str:
    """Write a number for people with `digits` significant digits, with a power of ten only where that reads better.

    Examples
    --------
    >>> quantity(1234.5), quantity(0.012345), quantity(None), quantity(1.5e-9), quantity(0)
    ('1230', '0.0123', '–', '1.50·10⁻⁹', '0')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    exponent = int(power)  # after rounding: 0.9996 is 1.00
    if -4 <= exponent < 6:
        rounded = round(value, digits - 1 - exponent)
        return f"{rounded:.{max(0, digits - 1 - exponent)}f}"
    return f"{mantissa}·10{str(exponent).translate(_RAISED)}"


def _organ(name: str) -> str:
    return name.replace("_", " ")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def _summary(c: ReportContents) -> list[tuple[str, str]]:
    """Cards at the top: label and text."""
    cards: list[tuple[str, str]] = []
    if c.nuclide:
        cards.append(("Nuclide", c.nuclide))
    if c.administered_MBq is not None:
        cards.append(("Administered", f"{quantity(c.administered_MBq, 4)} MBq"))
    if c.administered_at is not None:
        cards.append(("Administered at", c.administered_at.strftime("%Y-%m-%d %H:%M")))
    if c.activity is not None:
        cards.append(("Decays in the body", quantity(c.activity.decays, 4)))
    if c.engine:
        cards.append(("Dose engine", f"{c.engine}, {c.device}" if c.device else c.engine))
    if c.histories is not None:
        cards.append(("Histories", f"{c.histories:,}".replace(",", " ")))
    reached = _reached(c)
    if reached:
        name, relative = max(reached.items(), key=lambda item: item[1])
        wanted = f" (asked for {c.target_sigma:.2%})" if c.target_sigma else ""
        cards.append(("Largest organ standard error", f"{relative:.2%} in {_organ(name)}{wanted}"))
    cards += [(label, text) for label, text in c.facts.items()]
    return cards


def _notes(c: ReportContents) -> dict[str, list[str]]:
    """Notes per stage that are not shown elsewhere in the report."""
    shown = {*c.warnings, *(c.activity.notes if c.activity is not None else ())}
    kept = {stage: [note for note in notes if note not in shown] for stage, notes in c.notes.items()}
    return {stage: notes for stage, notes in kept.items() if notes}


def _reached(c: ReportContents) -> dict[str, float]:
    """Relative standard error per organ that it was asked for, or of every organ that has a tenth of the highest dose."""
    rows = [r for r in c.organ_doses if r.mean_dose_Gy > 0 and math.isfinite(r.sigma_Gy)]
    wanted = [r for r in rows if r.organ in _asked(c)]
    if not wanted:
        highest = max((r.mean_dose_Gy for r in rows), default=0.0)
        wanted = [r for r in rows if r.mean_dose_Gy >= 0.1 * highest]
    return {r.organ: r.sigma_Gy / r.mean_dose_Gy for r in wanted}


def _curves(c: ReportContents) -> list[DoseVolumeHistogram]:
    """The histograms worth a line: organs that were asked for, then those with the highest mean doses."""
    asked = _asked(c)
    means = {h.organ: float(h.sorted_dose_Gy.mean()) for h in c.histograms}
    means |= {row.organ: row.mean_dose_Gy for row in c.organ_doses if row.mass_g > 0}  # gas in an organ has volume, no mass
    worth = [h for h in c.histograms if h.organ not in NOT_CURVES and h.sorted_dose_Gy.size >= FEW_VOXELS]
    least = CURVE_FRACTION * max((means[h.organ] for h in worth), default=0.0)
    chosen = [h for h in worth if h.organ in asked or means[h.organ] >= least]
    chosen = sorted(chosen, key=lambda h: (h.organ not in asked, -means[h.organ]))[:CURVES]
    return sorted(chosen, key=lambda h: -means[h.organ])


def _asked(c: ReportContents) -> list[str]:
    """Organs with voxels that the run was asked for, groups taken apart."""
    counts = c.labels.voxel_counts() if c.labels is not None else {}
    return [name for wanted in c.target_organs for name in (wanted, *organ_group(wanted)) if counts.get(name)]


def _hottest(c: ReportContents) -> str | None:
    """Organ with the highest mean dose that is large enough to look at."""
    from .report_pictures import NOT_ORGANS, hottest_organ

    if c.labels is None or c.dose is None:
        return None
    counts = c.labels.voxel_counts()
    rows = [
        r for r in c.organ_doses if counts.get(r.organ, 0) >= FEW_VOXELS and r.organ not in NOT_ORGANS and r.mean_dose_Gy > 0
    ]
    return max(rows, key=lambda r: r.mean_dose_Gy).organ if rows else hottest_organ(c.dose, c.labels)


def _organ_bars(rows: Sequence[OrganDoseRow]) -> list[dict[str, Any]]:
    """Rows of the organ table, highest mean dose first, with the length of their bar, % of the highest."""
    highest = max((r.mean_dose_Gy for r in rows if math.isfinite(r.mean_dose_Gy)), default=0.0)
    bars = []
    for row in sorted(rows, key=lambda r: -r.mean_dose_Gy if math.isfinite(r.mean_dose_Gy) else math.inf):
        known = math.isfinite(row.mean_dose_Gy) and highest > 0
        relative = row.known_sigma_Gy / row.mean_dose_Gy if known and row.mean_dose_Gy > 0 else math.nan
        bars.append({"row": row, "length": f"{100 * row.mean_dose_Gy / highest if known else 0:.1f}", "relative": relative})
    return bars


def _voxel_noise(c: ReportContents) -> float | None:
    """Median relative standard error of voxels with more than a tenth of the scale; None without errors."""
    if c.dose is None or not c.dose.sigma_Gy.any():
        return None
    from .report_pictures import body_mask, display_maximum_Gy

    high = c.dose.dose_Gy > 0.1 * display_maximum_Gy(c.dose, c.labels, _hottest(c), c.gas)
    high &= body_mask(c.dose.grid, c.labels, c.gas)
    return float(np.median(c.dose.sigma_Gy[high] / c.dose.dose_Gy[high])) if high.any() else None


@dataclass
class _Pictures:
    """Pictures as data addresses, "" where there is nothing to show; of the dose several, with what is in the middle.

    `smoothing_mm` is the full width at half maximum of the filter that the shown dose went through, 0 for none.
    """

    dose: list[tuple[str, str]] = field(default_factory=list)
    sigma: str = ""
    activity: str = ""
    dvh: str = ""
    engines: str = ""
    budgets: str = ""
    smoothing_mm: float = 0.0


def _pictures(c: ReportContents, curves: Sequence[DoseVolumeHistogram]) -> _Pictures:
    from . import report_pictures as draw

    def address(figure: Any) -> str:
        return "data:image/png;base64," + base64.b64encode(draw.figure_png(figure)).decode()

    names = [h.organ for h in curves] or [r.organ for r in c.organ_doses if r.organ not in NOT_CURVES][:CURVES]
    colours = draw.organ_colours(names)
    outlines = {name: colours[name] for name in names}
    pictures = _Pictures()
    hottest = _hottest(c)
    top = draw.display_maximum_Gy(c.dose, c.labels, hottest, c.gas) if c.dose is not None else None
    if c.dose is not None and c.ct is not None:
        shown, pictures.smoothing_mm = draw.smoothed_for_display(c.dose, c.labels, _voxel_noise(c) or 0.0, gas=c.gas)
        shown_top = draw.display_maximum_Gy(shown, c.labels, hottest, c.gas)
        for organ in _middles(c):
            point = draw.picture_centre(c.dose, c.labels, organ)
            figure = draw.dose_over_ct_figure(
                c.ct, shown, c.labels, point_ras_mm=point, outlines=outlines, maximum_Gy=shown_top, gas=c.gas
            )
            pictures.dose.append((organ or "dose maximum", address(figure)))
    if c.dose is not None and c.dose.sigma_Gy.any():
        point = draw.picture_centre(c.dose, c.labels, hottest)
        figure = draw.sigma_figure(c.dose, c.labels, point_ras_mm=point, outlines=outlines, maximum_Gy=top, gas=c.gas)
        pictures.sigma = address(figure)
    if c.activity is not None:
        body = c.labels.labels > 0 if c.labels is not None and c.labels.grid.matches(c.activity.grid) else None
        pictures.activity = address(draw.activity_figure(c.activity.tia_MBq_s, c.activity.grid, body))
    if curves:
        pictures.dvh = address(draw.dvh_figure(curves, colours))
    if c.engines:
        from .engine_picture import engines_figure

        pictures.engines = address(engines_figure(c.engines))
    if c.budgets:
        from .budget_picture import budget_figure

        pictures.budgets = address(budget_figure(c.budgets))
    return pictures


def _middles(c: ReportContents) -> list[str | None]:
    """Organs to put in the middle of a picture: the hottest one, and the first that the run was asked for, if another."""
    hottest, asked = _hottest(c), _asked(c)
    return [hottest] if not asked or hottest in asked else [hottest, asked[0]]
