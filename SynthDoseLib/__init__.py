"""SynthDose: patient images to organ doses. Research software, not for clinical use."""

__version__ = "0.1.0"
