"""Names that people or programs gave to units: from a mapping, or from a file as public explanations come."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from interp.errors import InputError, short
from interp.files import existing

UNIT_COLUMNS = ("unit", "feature", "neuron", "index")
TEXT_COLUMNS = ("label", "description", "explanation")
_LEADING = re.compile(r"\s*(\d+)")  # "5-gemmascope-transcoder-16k" is layer 5

Labels = dict[tuple[int, int], str]


def labels_by_name(labels: Any, nodes: pd.DataFrame) -> dict[str, str]:
    """The labels of the nodes that have one, by node name.

    `labels`: a mapping of a node's name, or of `(layer, unit)` for all positions, to text; or the path of a CSV, JSON
    or JSONL file with the columns layer, one of unit, feature, neuron and index, and one of label, description and
    explanation. Of several labels of one unit the first counts; units that are not in the graph are passed over.

    Raises `InputError` for other keys, missing and damaged files, and columns that are not there.
    """
    if isinstance(labels, Mapping):
        by_name = {key: str(text) for key, text in labels.items() if isinstance(key, str)}
        by_unit = dict(_unit(key, text) for key, text in labels.items() if not isinstance(key, str))
        if unknown := [name for name in by_name if name not in set(nodes["name"])]:
            raise InputError(f"labels names {unknown[0]!r}, which is no node of this graph; see graph.nodes['name']")
    elif isinstance(labels, str | os.PathLike):
        by_name, by_unit = {}, read_labels(labels)
    else:
        raise InputError(f"labels must be a mapping or the path of a file; got {short(labels)}")
    units = nodes[nodes["unit"].ge(0) & nodes["kind"].isin(["neuron", "feature"])]
    found = {
        str(row["name"]): by_unit[key]
        for row in units.to_dict("records")
        if (key := (int(row["layer"]), int(row["unit"]))) in by_unit
    }
    return found | by_name


def _unit(key: Any, text: Any) -> tuple[tuple[int, int], str]:
    if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, int) for part in key)):
        raise InputError(f"labels has the key {short(key)}; give a node's name, or (layer, unit)")
    return key, str(text)


def read_labels(path: str | os.PathLike[str]) -> Labels:
    """Labels by layer and unit. Raises `InputError` for a missing or damaged file."""
    file, where = existing(path, "labels file")
    found: Labels = {}
    try:
        for number, record in enumerate(_records(file), 1):
            key, text = _read(record, f"{where}, record {number}")
            if text:
                found.setdefault(key, text)
    except (ValueError, RecursionError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is damaged, or no CSV, JSON or JSONL: {error}") from None
    if not found:
        raise InputError(f"{where} holds no labels; it needs records of layer, unit and label")
    return found


def _records(file: Path) -> Iterator[Mapping[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    match file.suffix.lower():
        case ".csv":
            yield from csv.DictReader(text.splitlines())
        case ".jsonl":
            yield from (json.loads(line) for line in text.splitlines() if line.strip())
        case _:
            content = json.loads(text)
            if not isinstance(content, list):
                raise ValueError("its JSON is no list of records")
            yield from content


def _read(record: Any, where: str) -> tuple[tuple[int, int], str]:
    if not isinstance(record, Mapping):
        raise InputError(f"{where} is {short(record)}; a record has layer, unit and label")
    place = [_whole(_first(record, columns, where), where) for columns in (("layer",), UNIT_COLUMNS)]
    return (place[0], place[1]), str(_first(record, TEXT_COLUMNS, where) or "").strip()


def _first(record: Mapping[str, Any], columns: Iterable[str], where: str) -> Any:
    for column in columns:
        if column in record:
            return record[column]
    raise InputError(f"{where} has no {' or '.join(columns)}; its columns are {', '.join(map(str, record))}")


def _whole(value: Any, where: str) -> int:
    found = _LEADING.match(str(value))
    if found is None:
        raise InputError(f"{where} has {short(value)} in the place of a number")
    return int(found[1])
