"""Errors that VTK observers and Qt slots swallow, made visible to tests."""

from __future__ import annotations

import io
import sys
from types import TracebackType
from typing import TextIO


class _Tee(io.TextIOBase):
    """Passes text on and keeps a copy."""

    def __init__(self, target: TextIO) -> None:
        self.target, self.text = target, ""

    def write(self, text: str) -> int:
        self.text += text
        return self.target.write(text)

    def flush(self) -> None:
        self.target.flush()


class observerErrors:
    """Context manager that raises AssertionError if an observer or a slot printed a traceback meanwhile.

    VTK prints exceptions through the interpreter, Qt through ``sys.excepthook``; both end in ``sys.stderr``.
    """

    def __enter__(self) -> observerErrors:
        self._saved = sys.stderr
        self._tee = _Tee(sys.stderr)
        sys.stderr = self._tee  # type: ignore[assignment]
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        sys.stderr = self._saved
        if kind is None and "Traceback (most recent call last)" in self._tee.text:
            raise AssertionError(f"an observer or slot raised:\n{self._tee.text}")
