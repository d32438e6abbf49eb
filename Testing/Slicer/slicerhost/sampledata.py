"""The module Sample Data as far as other modules register with it; refuses what Slicer's own refuses (5.10 and 5.12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer


class SampleDataSource:
    """An entry: lists of equal length, or one text each, of what is to be downloaded."""

    def __init__(
        self,
        sampleName: str = "",
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Callable[[Any], Any] | None = None,
        thumbnailFileName: str = "",
    ) -> None:
        if isinstance(uris, str):
            uris, fileNames, nodeNames = [uris], [fileNames], [nodeNames]
        self.sampleName, self.thumbnailFileName, self.customDownloader = sampleName, thumbnailFileName, customDownloader
        self.uris, self.fileNames, self.nodeNames = uris, fileNames, nodeNames
        if not len(uris) == len(fileNames) == len(nodeNames):
            raise ValueError("All fields of sample data source must have the same length")

    def click(self) -> Any:
        """What the button of the entry does."""
        return self.customDownloader(self) if self.customDownloader is not None else None


class SampleDataLogic:
    """Keeps the entries in ``slicer.modules.sampleDataSources``, by category."""

    @staticmethod
    def registerCustomSampleDataSource(category: str = "Custom", **entry: Any) -> None:
        source = SampleDataSource(**entry)
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        slicer.modules.sampleDataSources.setdefault(category, []).append(source)
