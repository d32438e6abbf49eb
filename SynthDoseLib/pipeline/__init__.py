"""One patient, end to end: plan, run, report."""

from .plan import RunPlan, read_plan

__all__ = ["RunPlan", "read_plan"]
