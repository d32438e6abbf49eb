"""``python -m SynthDoseLib``: the same as the command ``synthdose``."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
