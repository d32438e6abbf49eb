"""The verb ``synthdose people``: its options, and what it does with them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from .core import Progress, SynthDoseError

PEOPLE_VERB = (
    "people",
    "Sample stylised people from newborn to adult and write a phantom of each, with an index of the cohort.",
    "synthdose people --count 10 --age 5-10 --seed 1 --voxel 3 --out cohort/",
)


def add_people(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb; what is not given is drawn from the seed."""
    parser.add_argument("--count", type=int, required=True, help="how many people")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write: one folder per person, cohort.csv, cohort.json"
    )
    parser.add_argument("--sex", choices=("female", "male"), default="")
    parser.add_argument("--age", metavar="YEARS", help="0 (newborn) to 100, or a range such as 5-10")
    parser.add_argument("--height", type=float, metavar="M", help="metres; length of those below 2 years")
    parser.add_argument("--weight", type=float, metavar="KG")
    parser.add_argument("--percentile", type=float, help="of height and weight for age and sex, for those not given")
    parser.add_argument("--arms", choices=("down", "up"), default="", help="pose of the arms")
    parser.add_argument("--breath", type=float, help="0 (expiration) to 1 (deep inspiration)")
    parser.add_argument(
        "--variation", type=float, default=1.0, help="of organs: 0 reference person, 1 usual (default), up to 1.5"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first person (default 1); the others follow")
    parser.add_argument(
        "--voxel", type=float, default=3.0, metavar="MM", help="edge of the cubic voxels, 1 to 8 mm (default 3)"
    )
    parser.add_argument("--ct", action="store_true", help="write a CT of each person too")
    parser.add_argument(
        "--export",
        nargs="+",
        default=[],
        metavar="FORMAT",
        help="of each person: case, gate, penred, stl, vtp, dicom (with a CT)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted or smaller cohort")


def run_people(arguments: argparse.Namespace, progress: Progress) -> tuple[str, int]:
    """Make the cohort; return what to say, and how many could not be built."""
    from .pipeline.people import PeopleRequest, make_people

    if arguments.height is not None and not 0.2 <= arguments.height <= 2.6:
        raise SynthDoseError(f"--height is in metres, from 0.2 to 2.6; found {arguments.height:g}.")
    request = PeopleRequest(
        arguments.count, arguments.seed, arguments.sex, _ages(arguments.age),
        None if arguments.height is None else 100 * arguments.height, arguments.weight, arguments.percentile, arguments.arms,
        arguments.breath, arguments.variation, arguments.voxel, arguments.ct, tuple(arguments.export),
    )  # fmt: skip
    made = make_people(request, arguments.out, resume=arguments.resume, progress=progress)
    return made.summary(), made.failed


def _ages(text: str | None) -> float | tuple[float, float] | None:
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:-\s*(\d+(?:\.\d+)?)\s*)?", text)
    if not found:
        raise SynthDoseError(f"--age is a number of years or a range such as 5-10; found '{text}'.")
    return float(found[1]) if found[2] is None else (float(found[1]), float(found[2]))
