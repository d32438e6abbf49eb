"""Picture of uncertainty budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..dosimetry import OrganBudget
from ..dosimetry.budget import COMPONENTS
from .report_pictures import PALETTE, pretty

MOST_ORGANS = 12


def budget_figure(budgets: Sequence[OrganBudget]) -> Figure:
    """Draw a bar per organ as long as its total sigma, %, divided as the components share the variance.

    Parameters
    ----------
    budgets : sequence of OrganBudget
        The twelve organs with the highest dose are shown.
    """
    known = [budget for budget in budgets if math.isfinite(budget.relative_sigma)]
    shown = sorted(known, key=lambda budget: -budget.mean_dose_Gy)[:MOST_ORGANS]
    figure = Figure(figsize=(10.4, 1.4 + 0.36 * max(len(shown), 2)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    place, left = np.arange(len(shown)), np.zeros(len(shown))
    for component, colour in zip(COMPONENTS, PALETTE, strict=False):
        lengths = np.array([_length(budget, component) for budget in shown])
        if lengths.any():
            axes.barh(place, lengths, 0.7, left=left, color=colour, label=component)
        left += lengths
    for y, (end, budget) in enumerate(zip(left, shown, strict=True)):
        lower = "≥ " if budget.not_stated else ""
        axes.annotate(
            f"{lower}{end:.2g} % ({budget.largest})", (end, y), (5, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(place, [pretty(budget.organ) for budget in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max([*left, 1e-3]))
    axes.set_xlabel("total standard uncertainty of the mean dose / %")
    axes.grid(axis="x", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if shown:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _length(budget: OrganBudget, component: str) -> float:
    """Part of the total, %, that a component has by its variance."""
    own = sum(part.relative_sigma or 0.0 for part in budget.parts if part.component == component)
    total = budget.relative_sigma
    return 100 * own**2 / total if total > 0 else 0.0
