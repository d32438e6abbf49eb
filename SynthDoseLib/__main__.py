"""``python -m SynthDoseLib``: the same as the command ``synthdose``."""

from .cli import program

if __name__ == "__main__":
    raise SystemExit(program())
