"""From activity at one time, or time-integrated activity that is known, to decays per voxel."""

from .convert import activity_from_counts, activity_from_suv
from .integrate import from_map, time_integrated_activity
from .organs import OrganSource, from_organs
from .values import ActivityRow, TimeIntegratedActivity

__all__ = [
    "ActivityRow",
    "OrganSource",
    "TimeIntegratedActivity",
    "activity_from_counts",
    "activity_from_suv",
    "from_map",
    "from_organs",
    "time_integrated_activity",
]
