"""RESULTS.md: one section per command, replaced when the command runs again; with command, date and hardware."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "# Measured results\n\nEach section is written by its command; run it again to replace it.\n"


def processor() -> str:
    """Model of the processor, as far as the system tells."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return f"{found[1].strip() if found else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def write_section(heading: str, command: str, body: str, path: Path = RESULTS) -> None:
    """Put `body` (Markdown) under ``## heading``, in place of what stood there."""
    stamp = f"`{command}`, {date.today().isoformat()}, {processor()}, {platform.system()}, Python {platform.python_version()}"
    section = f"## {heading}\n\n{stamp}\n\n{body.strip()}\n"
    text = path.read_text(encoding="utf-8") if path.exists() else TITLE
    pattern = re.compile(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found = pattern.search(text)
    text = text[: found.start()] + section + "\n" + text[found.end() :] if found else text.rstrip() + "\n\n" + section
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
