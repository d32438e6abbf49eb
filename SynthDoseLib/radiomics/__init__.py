"""Image features per organ, by pyradiomics (an optional package)."""

from .features import FeatureRow, FeatureTable, RadiomicsSettings, extract_features, write_features_csv
from .ibsi import IbsiRow, check_ibsi, compare_with_ibsi
from .parameters import extract_with_parameters, read_parameters

__all__ = [
    "FeatureRow",
    "FeatureTable",
    "IbsiRow",
    "RadiomicsSettings",
    "check_ibsi",
    "compare_with_ibsi",
    "extract_features",
    "extract_with_parameters",
    "read_parameters",
    "write_features_csv",
]
