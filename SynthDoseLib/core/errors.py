"""What the library raises when it cannot do what it was asked."""


class SynthDoseError(Exception):
    """The input is bad. The message says what was found, what is allowed and what to do next."""


class MissingPackageError(SynthDoseError):
    """An optional package is not installed; the message says how to get it."""

    def __init__(self, package: str, purpose: str, install: str | None = None) -> None:
        command = install or f"pip install {package}"
        super().__init__(f"{purpose} needs the package '{package}', which is not installed. Install it with: {command}")
        self.package = package


class Cancelled(Exception):
    """The user stopped the work; what is finished is kept."""
