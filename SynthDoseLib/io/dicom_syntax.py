"""Transfer syntaxes: how the pixels of a DICOM file are packed, and whether a decoder for that is installed."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from ..core import SynthDoseError
from .text import clean_text

# DICOM PS3.5, Annex A.4: JPEG, JPEG-LS, JPEG 2000, RLE, high-throughput JPEG 2000
_PACKAGES = {
    "1.2.840.10008.1.2.4.5": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.7": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.8": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.9": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.20": "pylibjpeg pylibjpeg-openjpeg",
}


def is_compressed(dataset: Dataset) -> bool:
    """Whether the pixels take less space in the file than in memory; also where the packing is not known."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        return False
    try:
        return bool(syntax.is_compressed)
    except ValueError:  # of a maker's own, or none at all
        return True


def is_deflated(dataset: Dataset) -> bool:
    """Whether the whole file is packed."""
    return dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian


def syntax_name(dataset: Dataset) -> str:
    """Name and number of the transfer syntax, for people."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        return "unknown transfer syntax"
    name = clean_text(syntax.name)
    return name if name == clean_text(syntax) else f"{name}, {clean_text(syntax)}"


def require_decoder(dataset: Dataset, path: Path) -> None:
    """Raise `SynthDoseError`, with the package to install, if pixels are packed in a way that nothing here unpacks."""
    if not is_compressed(dataset):
        return
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if _is_decodable(syntax):
        return
    package = next((packages for start, packages in _PACKAGES.items() if str(syntax).startswith(start)), "")
    remedy = f"Install one: pip install {package}; or export" if package else "There is none here: export"
    raise SynthDoseError(
        f"{path}: its pixels are compressed ({syntax_name(dataset)}), and no decoder for that is installed. {remedy} the "
        "images uncompressed (Explicit VR Little Endian)."
    )


def _is_decodable(syntax: UID) -> bool:
    if int(pydicom.__version__.split(".")[0]) < 3:
        handlers = pydicom.config.pixel_data_handlers
        return any(handler.is_available() and handler.supports_transfer_syntax(syntax) for handler in handlers)
    from pydicom.pixels import get_decoder

    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False
