"""Errors that VTK observers and Qt slots swallow, made visible to tests."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType


class observerErrors:
    """Context manager that raises AssertionError if an observer or a slot raised meanwhile.

    VTK and Qt both end in ``sys.excepthook``. Watching ``sys.stderr`` would not do: pytest replaces it between the set-up and
    the call of a test.
    """

    def __enter__(self) -> observerErrors:
        self._saved = sys.excepthook
        self._found: list[str] = []
        sys.excepthook = self._record
        return self

    def _record(self, kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        self._found.append("".join(traceback.format_exception(kind, value, trace)))
        sys.__excepthook__(kind, value, trace)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        sys.excepthook = self._saved
        if kind is None and self._found:
            raise AssertionError("an observer or slot raised:\n" + "\n".join(self._found))
