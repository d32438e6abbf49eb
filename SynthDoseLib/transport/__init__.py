"""Dose engines: the voxel Monte Carlo."""

__all__: list[str] = []
