"""Examples from what users have: pairs of strings, data frames, CSV and JSON files, token tensors."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp import numbers
from interp.errors import InputError, choose
from interp.tasks.chat import is_chat
from interp.tasks.counterparts import ALIGNMENTS
from interp.tasks.examples import Example, listed, read_example, read_text
from interp.tasks.spans import read_mapping, read_spans

PROMPT_COLUMNS = ("clean", "corrupted")
ANSWER_COLUMNS = ("correct", "incorrect")


def examples_from_pairs(pairs: Iterable[Sequence[Any]]) -> list[Example]:
    """Examples from `(clean, corrupted, correct, incorrect)`."""
    if isinstance(pairs, pd.DataFrame | Mapping | str) or not isinstance(pairs, Iterable):
        raise InputError(
            f"pairs is a {type(pairs).__name__}; it must be a list of (clean, corrupted, correct, incorrect); "
            "tables are read by Task.from_frame"
        )
    examples = []
    for index, row in enumerate(pairs):
        pair = listed(row)
        if len(pair) != 4:
            hint = "; objects with these keys are read by Task.from_frame" if isinstance(row, Mapping) else ""
            raise InputError(
                f"pairs[{index}] is {str(row)[:60]!r}; it must hold four things: clean, corrupted, correct, "
                f"incorrect{hint}"
            )
        for field, answers in zip(ANSWER_COLUMNS, pair[2:], strict=True):
            _refuse_numbers(index, field, pair[0], answers)
        examples.append(read_example(index, *pair))
    return examples


def examples_from_frame(table: Any) -> list[Example]:
    """Examples from the rows of a data frame, or of what can be made one (see `as_frame`)."""
    frame = as_frame(table)
    columns = {name: name for name in PROMPT_COLUMNS}
    for name in ANSWER_COLUMNS:
        columns[name] = f"{name}_idx" if name not in frame and f"{name}_idx" in frame else name
    missing = [column for column in columns.values() if column not in frame]
    # an objective may do without incorrect answers; the task asks for them where it does not
    if set(missing) - {"incorrect"}:
        raise InputError(
            f"the table lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has "
            f"{', '.join(map(str, frame.columns)) or 'none'}"
        )
    twice = [column for column in columns.values() if (frame.columns == column).sum() > 1]
    if twice:
        raise InputError(f"the table has the column {twice[0]} more than once; rename or drop one")
    examples = []
    for index in range(len(frame)):
        row = {field: frame[column].iloc[index] if column in frame else None for field, column in columns.items()}
        row["corrupted"] = None if _is_nothing(row["corrupted"]) else row["corrupted"]
        spans = read_mapping(index, frame["spans"].iloc[index] if "spans" in frame else None)
        scored: Any = frame["scored"].iloc[index] if "scored" in frame else None
        if not _is_nothing(scored):
            scored = scored if isinstance(scored, str) else tuple(scored)
            examples.append(read_text(index, row["clean"], row["corrupted"], scored, spans))
            continue
        for field in ANSWER_COLUMNS:
            row[field] = _cell(index, field, row[field], ids=columns[field] != field)
            if columns[field] == field:
                _refuse_numbers(index, field, row["clean"], row[field])
        example = read_example(index, **row, spans=spans)
        there = read_mapping(index, frame["corrupted_spans"].iloc[index]) if "corrupted_spans" in frame else None
        if there:
            align = choose("align", frame["align"].iloc[index] if "align" in frame else "end", ALIGNMENTS)
            example = replace(example, corrupted_spans=read_spans(index, example.corrupted, there), align=align)
        examples.append(example)
    return examples


def read_csv(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A CSV file as text, with nothing interpreted: `7`, `NA` and ` Mary` stay what they are."""
    _must_exist(path)
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"path={str(path)!r} cannot be read as CSV: {str(error).strip()}") from error


def read_json(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A JSON list of objects."""
    _must_exist(path)
    try:
        # Windows writes a byte order mark
        records = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"path={str(path)!r} cannot be read as JSON: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(
            f"path={str(path)!r} must hold a list of objects with the keys {', '.join(PROMPT_COLUMNS + ANSWER_COLUMNS)}"
        )
    return _of_records(records, f"path={str(path)!r}")


def as_frame(table: Any) -> pd.DataFrame:
    """A data frame, one of another library (polars, datasets, pyarrow), a dict of columns or a list of dicts."""
    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, Mapping):
        return _of_columns(table)
    if hasattr(table, "to_dicts"):  # polars, whose to_pandas needs pyarrow
        return _of_records(table.to_dicts(), "the table")
    if hasattr(table, "to_pandas"):
        return _of_columns(table.to_pandas())
    if isinstance(table, Iterable) and not isinstance(table, str):
        records = list(table)
        if all(isinstance(record, Mapping) for record in records):
            return _of_records(records, "the list")
    raise InputError(
        f"frame is a {type(table).__name__}; it must be a data frame, a dict of columns or a list of dicts with the "
        f"keys {', '.join(PROMPT_COLUMNS + ANSWER_COLUMNS)}"
    )


def _of_columns(table: Mapping[str, Any]) -> pd.DataFrame:
    """A data frame from columns: lists, arrays or series of one length."""
    columns = {name: table[name] for name in table}
    for name, column in columns.items():
        table_itself = hasattr(column, "columns") or hasattr(column, "column_names")  # splits of datasets
        if table_itself or isinstance(column, str | Mapping) or not isinstance(column, Iterable):
            raise InputError(
                f"frame[{name!r}] is a {type(column).__name__}; it must be a list with an entry for each prompt"
            )
    lists = {name: list(column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in lists.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns of frame must be equally long; they have {lengths}")
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in lists.items()})


def _of_records(records: Sequence[Mapping[str, Any]], where: str) -> pd.DataFrame:
    for index, record in enumerate(records):
        # a data frame would fill in what single objects lack
        missing = [key for key in ("clean", "corrupted") if key not in record]
        missing += [] if {"correct", "correct_idx"} & set(record) else ["correct"]
        if missing:
            raise InputError(f"object {index} of {where} lacks {', '.join(missing)}")
    return pd.DataFrame(list(records), dtype=object)


def stem(path: str | os.PathLike[str]) -> str:
    """The file's name without its suffix."""
    return Path(path).stem


def examples_from_tokens(
    clean: Any,
    corrupted: Any,
    correct: Any,
    incorrect: Any,
    attention_mask: Any,
    corrupted_attention_mask: Any,
) -> list[Example]:
    """Examples from token ids [n, pos], without the positions that the masks leave out."""
    if corrupted_attention_mask is None:
        corrupted_attention_mask = attention_mask
    one = _real_tokens("clean", clean, "attention_mask", attention_mask)
    other = _real_tokens("corrupted", corrupted, "corrupted_attention_mask", corrupted_attention_mask)
    right = _answers("correct", correct, len(one))
    wrong = _answers("incorrect", incorrect, len(one))
    if len(one) != len(other):
        raise InputError(f"clean has {len(one)} prompts and corrupted {len(other)}; they must be equally many")
    return [read_example(index, *row) for index, row in enumerate(zip(one, other, right, wrong, strict=True))]


def _must_exist(path: str | os.PathLike[str]) -> None:
    if not Path(path).is_file():
        raise InputError(f"path={str(path)!r}: there is no such file")


def _cell(index: int, field: str, value: Any, ids: bool) -> Any:
    """What an answer's cell holds: a list may be written as text, token ids as digits, nothing as nothing."""
    if _is_nothing(value):
        value = None
    if isinstance(value, str):
        value = _written_list(value) if value.lstrip().startswith("[") else (value or None)
    if not ids or value is None:
        return value
    found = [_written_id(entry) for entry in listed(value)]
    if None in found:
        raise InputError(f"{field}_idx of prompt {index} is {value!r}; it must be a token id or a list of them")
    return found


def _is_nothing(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _written_id(entry: Any) -> int | None:
    """A token id, also as digits, or as a float: a column with a gap has made floats of its numbers."""
    if isinstance(entry, str):
        return int(entry) if entry.strip().isdecimal() else None
    found = numbers.read(entry)
    return None if found is None or found != found or found % 1 else int(found)


def _written_list(text: str) -> Any:
    """The list that a text writes, as JSON or as python prints it; else the text: an answer may be a bracket."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _refuse_numbers(index: int, field: str, prompt: Any, answers: Any) -> None:
    """A number beside a string prompt may be meant as a text or as a token id: the user has to say."""
    for entry in listed(answers):
        if not (isinstance(prompt, str) or is_chat(prompt)) or isinstance(entry, str):
            continue
        if numbers.read(entry) is None and not isinstance(entry, bool):
            raise InputError(
                f"{field} of prompt {index} holds {str(entry)[:60]!r}, a {type(entry).__name__}; "
                "an answer is a string, several are a list of strings"
            )
        raise InputError(
            f"{field} of prompt {index} is the {type(entry).__name__} {entry!r} beside a string prompt; write it "
            f"as a string, or put token ids into a data frame's column {field}_idx"
        )


def plain_array(name: str, value: Any) -> Any:
    """A numpy array of integers, or the lists themselves where rows differ in length."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy() if value.dtype != torch.bfloat16 else value.float().numpy()
    try:
        return np.asarray(value)
    except ValueError:
        return value


def _real_tokens(name: str, tokens: Any, mask_name: str, mask: Any) -> list[list[int]]:
    array = plain_array(name, tokens)
    if not isinstance(array, np.ndarray):
        if mask is not None:
            raise InputError(f"{name} has rows of different length; with {mask_name} it must be [n, pos]")
        return [list(row) for row in array]
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} is {array.dtype} of shape {list(array.shape)}; it must hold token ids, int [n, pos]")
    if mask is None:
        rows: list[list[int]] = array.tolist()
        return rows
    kept = plain_array(mask_name, mask)
    if not isinstance(kept, np.ndarray) or kept.shape != array.shape:
        shape = list(kept.shape) if isinstance(kept, np.ndarray) else "ragged"
        raise InputError(f"{mask_name} has the shape {shape}, {name} {list(array.shape)}; they must be equal")
    if not np.isin(kept, (0, 1)).all():
        raise InputError(f"{mask_name} must hold only 0 (padding) and 1 (a real token)")
    kept = kept.astype(bool)
    if not kept.any(1).all():
        raise InputError(f"{mask_name} leaves no token of prompt {int(np.argmin(kept.any(1)))}")
    return [row[keep].tolist() for row, keep in zip(array, kept, strict=True)]


def _answers(name: str, answers: Any, n: int) -> list[Any]:
    """Token ids per prompt; -1 in an array is padding."""
    if answers is None:
        return [()] * n
    array = plain_array(name, answers)
    if isinstance(array, np.ndarray) and array.ndim == 2 and np.issubdtype(array.dtype, np.integer):
        rows: list[Any] = [[token for token in row if token != -1] for row in array.tolist()]
    else:
        rows = list(array) if isinstance(array, np.ndarray) and array.ndim == 1 else listed(answers)
    if len(rows) != n:
        raise InputError(f"{name} has {len(rows)} entries for {n} prompts; it needs one per prompt")
    return rows
