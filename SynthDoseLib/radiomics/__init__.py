"""Image features per organ, by pyradiomics (an optional package)."""

from .features import FeatureRow, FeatureTable, RadiomicsSettings, extract_features, write_features_csv

__all__ = ["FeatureRow", "FeatureTable", "RadiomicsSettings", "extract_features", "write_features_csv"]
