"""Picture of dose engines side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from .engines import EngineRow
from .report_pictures import NOT_ORGANS, PALETTE, pretty

MOST_ORGANS = 12
WIDE = 20.0  # highest over lowest dose, above which bars from 0 would hide the lower ones
NAMES = {"monte-carlo": "Monte Carlo", "kernel": "kernels", "local": "local"}


def engines_figure(rows: Sequence[EngineRow]) -> Figure:
    """Draw organ doses by engine, and what the engines differ from the first; lines of ± 2 standard errors.

    Doses are bars from 0, or, where they span a factor of more than 20, dots on a logarithmic axis.

    Parameters
    ----------
    rows : sequence of EngineRow
        The twelve organs with the highest dose of the first engine are shown.
    """
    engines = list(dict.fromkeys(row.engine for row in rows))
    table = {(row.organ, row.engine): row for row in rows}
    first = [row for row in rows if row.engine == engines[0] and row.dose_Gy > 0 and row.organ not in NOT_ORGANS]
    organs = [row.organ for row in sorted(first, key=lambda row: -row.dose_Gy)[:MOST_ORGANS]]
    figure = Figure(figsize=(10.4, 1.4 + 0.36 * max(len(organs), 2)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    doses = [table[organ, engine].dose_Gy for organ in organs for engine in engines]
    wide = bool(doses) and min(doses) > 0 and max(doses) > WIDE * min(doses)
    place, height = np.arange(len(organs)), 0.8 / len(engines)
    for n, engine in enumerate(engines):
        own = [table[organ, engine] for organ in organs]
        at = place + (n - (len(engines) - 1) / 2) * height
        label, colour = NAMES.get(engine, engine), PALETTE[n]
        error = [2 * row.sigma_Gy if math.isfinite(row.sigma_Gy) else 0.0 for row in own]
        found = [row.dose_Gy for row in own]
        if wide:
            left.errorbar(found, at, xerr=error, fmt="o", markersize=4, color=colour, label=label, elinewidth=0.8)
        else:
            left.barh(at, found, 0.9 * height, xerr=error, color=colour, label=label, error_kw={"lw": 0.8})
        if n:
            right.barh(at, [row.difference_percent for row in own], 0.9 * height, color=colour)
    left.set_yticks(place, [pretty(organ) for organ in organs])
    left.invert_yaxis()
    left.set(xlabel="absorbed dose / Gy", xscale="log" if wide else "linear")
    if wide:
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.xaxis.set_minor_formatter(NullFormatter())
    right.set(xlabel=f"difference from {NAMES.get(engines[0], engines[0])} / %")
    right.axvline(0, color="#444", linewidth=0.8)
    for axes in (left, right):
        axes.grid(axis="x", color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8, loc="lower right")  # the lowest doses are at the bottom
    return figure
