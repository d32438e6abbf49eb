"""What organs are called: canonical names, codes and colours, the label tables of known segmenters, and users' tables."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core import LabelMap, Organ, SynthDoseError, resource_path, sha256_of

TABLES: dict[str, str] = {
    "totalsegmentator": "totalsegmentator_total.csv",
    "totalsegmentator-mr": "totalsegmentator_total_mr.csv",
    "monai-wholebody": "monai_wholebody.csv",
}
"""Label tables that ship, by the name a plan uses."""

_SIDES = {"l": "left", "lt": "left", "left": "left", "sin": "left", "sinistra": "left"}
_SIDES |= {"r": "right", "rt": "right", "right": "right", "dx": "right", "dextra": "right"}
_FMA = re.compile(r"FMA[:_ ]?(\d+)", re.IGNORECASE)
_FILLERS = {"the", "of", "structure", "entire", "and", "organ", "seg", "segment", "segmentation", "mask", "roi"}


@dataclass(frozen=True)
class CanonicalOrgan:
    """One organ the library knows by name.

    Attributes
    ----------
    name : str
        Lower case with underscores, TotalSegmentator's spelling where it has the class.
    snomed_code, snomed_meaning : str
        SNOMED CT code and its meaning, as used in DICOM; the same for both sides of a paired organ. "" if unknown.
    side : str
        "left", "right" or "".
    other_snomed_codes : tuple of str
        Codes that mean this organ and include the side.
    groups : tuple of str
        Groups it is a member of.
    aliases : tuple of str
        Other names, without the side.
    colour : tuple of 3 float
        RGB, 0 to 1.
    """

    name: str
    snomed_code: str
    snomed_meaning: str
    side: str
    other_snomed_codes: tuple[str, ...]
    groups: tuple[str, ...]
    aliases: tuple[str, ...]
    colour: tuple[float, float, float]

    def entry(self, index: int) -> Organ:
        """Return it as the entry `index` of a label table."""
        return Organ(index, self.name, self.snomed_code, self.colour)


@cache
def canonical_organs() -> Mapping[str, CanonicalOrgan]:
    """Organs the library knows, by canonical name.

    Examples
    --------
    >>> canonical_organs()["kidney_left"].snomed_code
    '64033007'
    """
    organs = {}
    for row in read_shipped_table("organs.csv"):
        several = {key: tuple(x for x in row[key].split(";") if x) for key in ("other_snomed_codes", "groups", "aliases")}
        colour = (float(row["red"]), float(row["green"]), float(row["blue"]))
        organs[row["name"]] = CanonicalOrgan(
            row["name"], row["snomed_code"], row["snomed_meaning"], row["side"], **several, colour=colour
        )
    return organs


def organ_group(name: str) -> tuple[str, ...]:
    """Canonical names that `name` stands for: the members of a group, or the organ itself.

    Parameters
    ----------
    name : str
        "kidneys", "lungs", "lung_left", "ribs", "vertebrae", "skeleton", "heart", … or any organ, known or not.

    Returns
    -------
    tuple of str
        Which of them exist is a matter of the label map at hand. A group's own name is among them, because some
        segmenters give it as one label.

    Examples
    --------
    >>> organ_group("kidneys")
    ('kidney_right', 'kidney_left', 'kidneys')
    >>> organ_group("tumour_1")
    ('tumour_1',)
    """
    members = tuple(organ.name for organ in canonical_organs().values() if name in organ.groups)
    return members if name in members else (*members, name)


def organ_groups() -> tuple[str, ...]:
    """Names of all groups, in alphabetical order."""
    return tuple(sorted({group for organ in canonical_organs().values() for group in organ.groups}))


def group_mask(labels: LabelMap, name: str) -> NDArray[np.bool_]:
    """Boolean array (nk, nj, ni) of an organ or a group.

    Raises
    ------
    SynthDoseError
        If the label map has neither `name` nor any member of it.
    """
    members = set(organ_group(name))
    indices = [organ.index for organ in labels.organs if organ.name in members]
    if not indices:
        raise SynthDoseError(
            f"There is no organ or group '{name}'. Organs: {', '.join(o.name for o in labels.organs) or 'none'}. "
            f"Groups: {', '.join(organ_groups())}."
        )
    return np.asarray(np.isin(labels.labels, indices))


def find_organ(name: str, snomed_code: str = "") -> CanonicalOrgan | None:
    """Find the known organ that a name or a code of another program means; None if there is none.

    Case, separators, word order and the usual words for left and right do not matter; names of the Foundational Model of
    Anatomy and its numbers ("FMA7205") are known too. The name decides where it is known; the code of a paired organ needs
    the side from the name, unless the code includes it.

    Examples
    --------
    >>> [find_organ(name).name for name in ("Left Kidney", "Kidney_L", "SpinalCord", "T12 vertebra", "RIB 3 lt")]
    ['kidney_left', 'kidney_left', 'spinal_cord', 'vertebrae_T12', 'rib_left_3']
    >>> find_organ("Niere links", "18639004").name
    'kidney_left'
    """
    for text in (name, snomed_code):
        number = _FMA.fullmatch(text.strip())
        if number is not None:
            return _organs_by_fma().get(number[1])
    words = _words(name)
    known = _organs_by_words().get(_key(words))
    if known is not None:
        return known
    if not snomed_code:
        return None
    candidates = _organs_by_code().get(snomed_code, ())
    if len(candidates) > 1:
        # the code of both sides: only the name can tell which, and without a side it stays open
        side = next((_SIDES[word] for word in words if word in _SIDES), None)
        candidates = tuple(organ for organ in candidates if organ.side == side)
    return candidates[0] if len(candidates) == 1 else None


def label_table(name_or_path: str | os.PathLike[str]) -> dict[int, Organ]:
    """Read a label table: one that ships, or a user's CSV file.

    Parameters
    ----------
    name_or_path : str or path-like
        "totalsegmentator", "totalsegmentator-mr", "monai-wholebody", or a CSV file with the header
        ``index,name`` and optionally ``snomed_code``.

    Returns
    -------
    dict of int to Organ
        Entries by index; names are the table's own until `apply_table` makes them canonical.

    Raises
    ------
    SynthDoseError
        If there is no such table or file, a column is missing, or an index is not a whole number above 0, too large or
        given twice; also a name given twice.
    """
    text = os.fspath(name_or_path)
    if text.lower() in TABLES:
        return _parse_rows(read_shipped_table(TABLES[text.lower()]), text)
    path = Path(text)
    if not path.is_file():
        raise SynthDoseError(
            f"'{text}' is neither a known label table ({', '.join(TABLES)}) nor a file. A file has the header "
            "index,name[,snomed_code] and one organ per row."
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SynthDoseError(f"Cannot read the label table {path}: {error}. It has to be a CSV file in UTF-8.") from error
    return _parse_rows(rows, str(path))


def apply_table(raw: LabelMap, table: Mapping[int, Organ]) -> LabelMap:
    """Name the labels of `raw` by `table`, with canonical names and codes where the organ is known.

    Parameters
    ----------
    raw : LabelMap
        Its indices count, its names do not.
    table : mapping of int to Organ
        From `label_table`.

    Returns
    -------
    LabelMap
        Same array; organs that occur in it, plus those the table lists and `raw` lists too. An entry that is no known
        organ keeps the table's name, and a note lists such names. Index 0 stays background.

    Raises
    ------
    SynthDoseError
        If the map holds values that the table does not list.
    """
    occurring = [int(i) for i in np.flatnonzero(np.bincount(raw.labels.ravel())) if i]
    unknown = [index for index in occurring if index not in table]
    if unknown:
        raise SynthDoseError(
            f"The label map holds {len(unknown)} values that the label table does not list: {_shorten(unknown)}. Add them to "
            "the table, or choose the table that belongs to this map."
        )
    listed = {organ.index for organ in raw.organs} & set(table)
    entries = [table[index] for index in sorted({*occurring, *listed})]
    named = LabelMap(raw.grid, raw.labels, tuple(entries), raw.notes)
    return match_organs(named)


def match_organs(labels: LabelMap) -> LabelMap:
    """Give organs their canonical names, codes and colours, found by name or SNOMED CT code.

    Parameters
    ----------
    labels : LabelMap
        As other programs name them ("Left Kidney", "Kidney_L", "SpinalCord", "Liver" …).

    Returns
    -------
    LabelMap
        Same array. An organ that is not known, or that another label already is, keeps its name; a note says which.
    """
    taken: set[str] = set()
    # a label that already has a canonical name keeps it, whatever else would like it
    exact = {organ.name for organ in labels.organs if organ.name in canonical_organs()}
    renamed, unknown, doubles = [], [], []
    for organ in labels.organs:
        known = find_organ(organ.name, organ.snomed_code)
        if known is None:
            unknown.append(organ.name)
            renamed.append(organ)
        elif known.name in taken or (known.name in exact and organ.name != known.name):
            doubles.append(f"{organ.name} ({known.name})")
            renamed.append(organ)
        else:
            taken.add(known.name)
            renamed.append(known.entry(organ.index))
    notes = list(labels.notes)
    if unknown:
        notes.append(f"Labels that are no known organ keep their names: {_shorten(unknown)}.")
    if doubles:
        notes.append(
            f"An organ is split over two labels: {_shorten(doubles)} in brackets is another label's already. The second keeps "
            "its name and gets doses of its own; give both one index if they are one organ."
        )
    return replace(labels, organs=tuple(renamed), notes=tuple(notes))


def merge(labels: LabelMap, groups: Mapping[str, Iterable[str]]) -> LabelMap:
    """Join organs into one label each.

    Parameters
    ----------
    labels : LabelMap
    groups : mapping of str to iterable of str
        New name to the names it swallows, for example ``{"kidneys": organ_group("kidneys")}``; members the map does not
        have are passed over.

    Returns
    -------
    LabelMap
        The new organ has the index of its first member in the table.

    Raises
    ------
    SynthDoseError
        If a new organ would have no member, or two new organs share one.
    """
    new_index = np.arange(max((organ.index for organ in labels.organs), default=0) + 1, dtype=np.uint16)
    entries = {organ.index: organ for organ in labels.organs}
    swallowed: dict[str, str] = {}
    for name, wanted in groups.items():
        names = set(wanted)
        members = [organ for organ in labels.organs if organ.name in names]
        if not members:
            raise SynthDoseError(f"Nothing to merge into '{name}': the label map has none of {', '.join(sorted(names))}.")
        for organ in members:
            if organ.name in swallowed:
                raise SynthDoseError(f"'{organ.name}' cannot be merged into both '{swallowed[organ.name]}' and '{name}'.")
            swallowed[organ.name] = name
            new_index[organ.index] = members[0].index
            del entries[organ.index]
        known = canonical_organs().get(name)
        first = members[0].index
        entries[first] = known.entry(first) if known else replace(members[0], name=name, snomed_code="")
    organs = tuple(entries[index] for index in sorted(entries))
    return LabelMap(labels.grid, new_index[labels.labels], organs, labels.notes)


@cache
def _shipped_hashes() -> dict[str, str]:
    sidecar = json.loads(resource_path("terminologies", "terminologies.json").read_text(encoding="utf-8"))
    return {entry["file"]: entry["sha256"] for entry in sidecar["files"]}


def read_shipped_table(file: str) -> list[dict[str, str]]:
    """Rows of a table of ``Resources/terminologies``, whose hash is that of the sidecar."""
    path = resource_path("terminologies", file)
    if sha256_of(path) != _shipped_hashes().get(file):
        raise SynthDoseError(f"Resources/terminologies/{file} is not the file that was shipped. Install SynthDose again.")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _parse_rows(rows: list[dict[str, str]], source: str) -> dict[int, Organ]:
    table: dict[int, Organ] = {}
    names: dict[str, int] = {}
    if rows and not {"index", "name"} <= set(rows[0]):
        found = ", ".join(str(key) for key in rows[0])
        raise SynthDoseError(
            f"The label table {source} needs the columns index and name (snomed_code optional); found {found}."
        )
    for line, row in enumerate(rows, start=2):
        name = (row["name"] or "").strip()
        try:
            index = int(row["index"])
        except (TypeError, ValueError):
            raise SynthDoseError(f"Line {line} of the label table {source}: '{row['index']}' is not a whole number.") from None
        if index == 0:
            continue  # background, listed by some programs
        if not 0 < index <= np.iinfo(np.uint16).max or not name:
            raise SynthDoseError(f"Line {line} of the label table {source} needs an index from 1 to 65535 and a name.")
        if index in table or name in names:
            raise SynthDoseError(f"Line {line} of the label table {source} repeats the index {index} or the name '{name}'.")
        code = (row.get("snomed_code") or "").strip()
        table[index] = Organ(index, name, code)
        names[name] = index
    if not table:
        raise SynthDoseError(f"The label table {source} lists no organs.")
    return table


def _words(name: str) -> list[str]:
    """Lower-case words of a name: split at separators and where a small letter meets a capital."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def _key(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({_SIDES.get(word, word) for word in words if word not in _FILLERS}))


@cache
def _organs_by_words() -> Mapping[tuple[str, ...], CanonicalOrgan]:
    found: dict[tuple[str, ...], CanonicalOrgan] = {}
    organs = canonical_organs().values()
    for organ in organs:
        found[_key(_words(organ.name))] = organ
    for organ in organs:
        for alias in organ.aliases:
            found.setdefault(_key([*_words(alias), *([organ.side] if organ.side else [])]), organ)
    for row in read_shipped_table("fma.csv"):
        found.setdefault(_key(_words(row["name"])), canonical_organs()[row["organ"]])
    return found


@cache
def _organs_by_fma() -> Mapping[str, CanonicalOrgan]:
    rows = read_shipped_table("fma.csv")
    return {row["fma_id"]: canonical_organs()[row["organ"]] for row in rows if row["fma_id"]}


@cache
def _organs_by_code() -> Mapping[str, tuple[CanonicalOrgan, ...]]:
    found: dict[str, list[CanonicalOrgan]] = {}
    for organ in canonical_organs().values():
        for code in filter(None, (organ.snomed_code, *organ.other_snomed_codes)):
            found.setdefault(code, []).append(organ)
    return {code: tuple(organs) for code, organs in found.items()}


def _shorten(items: Iterable[object], limit: int = 12) -> str:
    texts = [str(item) for item in items]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if len(texts) > limit else "")
