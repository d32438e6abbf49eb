"""Who a patient is, as the headers of the input say it, and texts without it."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from ..core import LabelMap, SynthDoseError, resource_path
from .dicom_files import is_dicom_file, lenient, read_dataset
from .text import unique_names

REMOVED = "anon"
FIRST_DAY = date(2000, 1, 1)
"""What the first day of a de-identified course becomes; times between events are kept."""

_NUMBERED = (
    "PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "IssuerOfPatientID", "MedicalRecordLocator",
    "PatientTelephoneNumbers", "ClinicalTrialSubjectID", "InsurancePlanIdentification",
)  # fmt: skip
_PLACES = (
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "PatientAddress",
    "CountryOfResidence", "RegionOfResidence", "ClinicalTrialSiteName", "CurrentPatientLocation",
)  # fmt: skip
_BIRTHS = ("PatientBirthDate", "PatientMotherBirthDate")
_DAYS = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate", "StructureSetDate")
# of names and places of people who are none, and of hospitals: their words say nothing of a patient
_GENERAL = frozenset(
    "anonymous anonymized anonymised anon deidentified removed unknown none test phantom patient synthetic synthdose dummy "
    "hospital university clinic klinik klinikum center centre medical medicine general institute institution department "
    "radiology nuclear imaging research school college city saint the and und der die das for von van dos the del los las "
    "case data dose scan study series image male female left right".split()
)
_INTERFILE = re.compile(r"^[;!\s]*(patient name|patient id|patient dob|institution|institution name)\s*:=(.*)$", re.I | re.M)
_MOMENT = re.compile(r"(?<!\d)(\d{4})-(\d\d)-(\d\d)(?!\d)")
_ENOUGH_TO_STAND_INSIDE = 6  # letters of a name that is also found within a longer word
_HEADERS_PER_FOLDER = 2


@dataclass(frozen=True)
class Identity:
    """Words that say who a patient is, and when the patient was seen.

    Attributes
    ----------
    names : tuple of tuple of str
        Names of persons, in their components.
    numbers : tuple of str
        Identifiers of patient, visit and study.
    places : tuple of str
        Words of institutions and addresses.
    births, days : tuple of date
        Dates of birth; dates of scans.
    paths : mapping of str to str
        Names of input files and folders, and what stands for them.

    Examples
    --------
    >>> who = Identity(names=(("Doe", "Jane"),), numbers=("MRN-4711007",))
    >>> who.clean("GTV_doe, 4711007"), who.clean("doe_liver", name=True)
    ('GTV_anon, anon', 'anon_liver')
    """

    names: tuple[tuple[str, ...], ...] = ()
    numbers: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    births: tuple[date, ...] = ()
    days: tuple[date, ...] = ()
    paths: Mapping[str, str] | None = None

    def clean(self, text: str, *, name: bool = False) -> str:
        """Return `text` without what says who the patient is, its dates moved to `FIRST_DAY`.

        Parameters
        ----------
        text : str
        name : bool
            Whether it is the name of an organ or file, where short words and numbers are removed, too; in sentences of this
            program they may be just words and numbers.
        """
        for path, alias in sorted((self.paths or {}).items(), key=lambda item: -len(item[0])):
            text = re.sub(rf"(?<![^\W_]){re.escape(path)}(?![^\W_])", alias.replace("\\", ""), text)
        for pattern in self._patterns[1 if name else 0]:
            text = pattern.sub(REMOVED, text)
        return _MOMENT.sub(self._moved, text)

    def moved(self, moment: datetime) -> datetime:
        """A time of the course on its de-identified calendar."""
        return moment + self._shift

    @cached_property
    def _shift(self) -> timedelta:
        return FIRST_DAY - min(self.days) if self.days else timedelta(0)

    def _moved(self, match: re.Match[str]) -> str:
        try:
            return (date(*(int(part) for part in match.groups())) + self._shift).isoformat()
        except (ValueError, OverflowError):
            return REMOVED

    @cached_property
    def _patterns(self) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
        """Patterns for sentences, and for names."""
        words = {word for parts in self.names for word in parts} | set(self.places)
        kept = known_words() | _GENERAL
        words = {word for word in words if len(word) > 2 and word.lower() not in kept}
        joined = [r"[\W_]*".join(map(re.escape, order)) for p in self.names if len(p) > 1 for order in (p[:2], p[1::-1])]
        days = [text for day in (*self.births, *self.days) for text in _spellings(day)]
        everywhere = [_whole(text) for text in (*joined, *map(re.escape, days))]
        everywhere += [_word(word) for word in words]
        numbers = {part for number in self.numbers for part in (number, *re.findall(r"\d+", number)) if re.search(r"\d", part)}
        long = [_whole(re.escape(part)) for part in numbers if len(part) > 5]
        short = [_whole(re.escape(part)) for part in numbers if 3 < len(part) <= 5]
        sentences = [re.compile(pattern) for pattern in (*everywhere, *long)]
        return sentences, [re.compile(p, re.I) for p in (*everywhere, *(_loose(w) for w in words), *long, *short)]


@cache
def known_words() -> frozenset[str]:
    """Words of the names of organs, which stay even if somebody is called so."""
    with open(resource_path("terminologies", "organs.csv"), newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    text = " ".join(row[column] for row in rows for column in ("name", "groups", "aliases", "snomed_meaning"))
    return frozenset(re.split(r"[\W_]+", text.lower())) | frozenset("body rest tumour tumor lesion gtv ctv ptv".split())


def _whole(pattern: str) -> str:
    """Not within a longer word or number, nor a part of a UID."""
    return rf"(?i:(?<![^\W_])(?<!\d\.){pattern}(?![^\W_])(?!\.\d))"


def _word(word: str) -> str:
    """A word of a name in a sentence: however it is written if it is long, else with a capital only ("Long", not "long")."""
    if len(word) >= _ENOUGH_TO_STAND_INSIDE:
        return f"(?i:{re.escape(word)})"
    if len(word) == _ENOUGH_TO_STAND_INSIDE - 1:
        return _whole(re.escape(word))
    plain = re.escape(word)
    written = rf"(?<![^\W_])(?:{re.escape(word.capitalize())}|{re.escape(word.upper())})(?![^\W_])"
    return rf"{written}|(?i:(?<=_){plain}(?![^\W_])|(?<![^\W_]){plain}(?=_))"


def _loose(word: str) -> str:
    return _whole(re.escape(word)) if len(word) < _ENOUGH_TO_STAND_INSIDE - 1 else re.escape(word)


def _spellings(day: date) -> tuple[str, ...]:
    """How people write a date, but for the one with hyphens, which is moved and not removed."""
    y, m, d = f"{day.year:04d}", f"{day.month:02d}", f"{day.day:02d}"
    written = [f"{y}{m}{d}", f"{d}{m}{y}"]
    for mark in "./_":
        written += [mark.join(order) for order in ((y, m, d), (d, m, y), (m, d, y))]
    return (*written, f"{d}-{m}-{y}", f"{m}-{d}-{y}")


def identity_of(paths: Iterable[str | os.PathLike[str]], days: Iterable[date] = ()) -> Identity:
    """Collect who the patient is from the headers of the input.

    Parameters
    ----------
    paths : iterable of path-like
        Files and folders, DICOM, Interfile or others, which say nothing; missing ones are left out.
    days : iterable of date
        More days of the course, as a plan gives them.
    """
    sources = [Path(path) for path in paths]
    found = Identity(days=tuple(days))
    for path in sources:
        for file in _samples(path):
            try:
                found = _joined(found, _of_header(read_dataset(file, pixels=False)) if is_dicom_file(file) else _of_text(file))
            except (SynthDoseError, OSError):
                continue  # what cannot be read now is refused with its own message when it is used
    aliases: dict[str, str] = {}
    for number, path in enumerate(dict.fromkeys(sources), start=1):
        alias = f"input-{number}{''.join(path.suffixes[-2:]) if path.is_file() else ''}"
        aliases[path.absolute().as_posix()] = aliases[str(path)] = alias
        if path.suffix and path.is_file():
            aliases[path.name] = alias
    return replace(found, paths=aliases)


def identity_of_headers(headers: Iterable[Dataset]) -> Identity:
    """Who the patient of a series is."""
    found = Identity()
    for header in list(headers)[:_HEADERS_PER_FOLDER]:
        found = _joined(found, _of_header(header))
    return found


def without_identity(labels: LabelMap, identity: Identity) -> LabelMap:
    """The same labels with names that say nothing of the patient, still all different."""
    cleaned = unique_names([identity.clean(organ.name, name=True) for organ in labels.organs])
    if cleaned == [organ.name for organ in labels.organs]:
        return labels
    organs = tuple(replace(organ, name=name) for organ, name in zip(labels.organs, cleaned, strict=True))
    notes = [identity.clean(note, name=True) for note in labels.notes]
    return LabelMap(labels.grid, labels.labels, organs, (*notes, "The patient's identity was taken out of names of organs."))


def _samples(path: Path) -> Sequence[Path]:
    """A file, or the first ones of every folder: files of a series agree on whom they show."""
    if path.is_file():
        return [path]
    files: list[Path] = []
    for folder, _, names in os.walk(path):
        candidates = (Path(folder) / name for name in sorted(names) if not name.startswith("."))
        files += islice((file for file in candidates if file.is_file() and is_dicom_file(file)), _HEADERS_PER_FOLDER)
    return files


def _joined(one: Identity, other: Identity) -> Identity:
    def both(name: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys((*getattr(one, name), *getattr(other, name))))

    return Identity(both("names"), both("numbers"), both("places"), both("births"), both("days"))


def _of_header(header: Dataset) -> Identity:
    names: list[tuple[str, ...]] = []
    numbers: list[str] = []
    places: list[str] = []
    births: list[date] = []
    days: list[date] = []
    with lenient():
        for element in header.iterall():
            if element.VR == "SQ" or not element.value:
                continue
            values = [str(v) for v in element.value] if element.VM > 1 else [str(element.value)]
            if element.VR == "PN":
                names += [_words(value) for value in values]
            elif element.keyword in _NUMBERED:
                numbers += values
            elif element.keyword in _PLACES:
                places += [word for value in values for word in _words(value)]
            elif element.VR in ("DA", "DT") and element.keyword in (*_BIRTHS, *_DAYS):
                (births if element.keyword in _BIRTHS else days).extend(day for v in values if (day := _day(v)))
    return Identity(tuple(n for n in names if n), tuple(numbers), tuple(places), tuple(births), tuple(days))


def _of_text(path: Path) -> Identity:
    """Of an Interfile header, which is text with who the patient is."""
    with open(path, "rb") as stream:
        head = stream.read(16384)
    if b"INTERFILE" not in head[:512].upper():
        return Identity()
    said = [(key.lower(), value.strip()) for key, value in _INTERFILE.findall(head.decode("latin-1"))]
    return Identity(
        tuple(_words(value) for key, value in said if key == "patient name" and value),
        tuple(value for key, value in said if key == "patient id" and value),
        tuple(word for key, value in said if key.startswith("institution") for word in _words(value)),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\W_]+", text) if word and not word.isdigit())


def _day(text: str) -> date | None:
    try:
        return datetime.strptime(text[:8], "%Y%m%d").date()
    except ValueError:
        return None
