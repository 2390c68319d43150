"""Examples from what users have: pairs of strings, data frames, CSV and JSON files, token tensors."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.errors import InputError
from interp.tasks.examples import Example, read_example

PROMPT_COLUMNS = ("clean", "corrupted")
ANSWER_COLUMNS = ("correct", "incorrect")


def examples_from_pairs(pairs: Iterable[Sequence[Any]]) -> list[Example]:
    """Examples from `(clean, corrupted, correct, incorrect)`."""
    examples = []
    for index, pair in enumerate(pairs):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 4:
            raise InputError(
                f"pairs[{index}] is {str(pair)[:60]!r}; it must hold four things: clean, corrupted, correct, incorrect"
            )
        for field, answers in zip(ANSWER_COLUMNS, pair[2:], strict=True):
            _refuse_numbers(index, field, pair[0], answers)
        examples.append(read_example(index, *pair))
    return examples


def examples_from_frame(frame: pd.DataFrame) -> list[Example]:
    """Examples from the rows of a data frame."""
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
    examples = []
    for index in range(len(frame)):
        row = {field: frame[column].iloc[index] if column in frame else None for field, column in columns.items()}
        for field in ANSWER_COLUMNS:
            row[field] = _cell(index, field, row[field], ids=columns[field] != field)
            if columns[field] == field:
                _refuse_numbers(index, field, row["clean"], row[field])
        examples.append(read_example(index, **row))
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
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"path={str(path)!r} cannot be read as JSON: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(
            f"path={str(path)!r} must hold a list of objects with the keys {', '.join(PROMPT_COLUMNS + ANSWER_COLUMNS)}"
        )
    for index, record in enumerate(records):
        # a data frame would fill in what single objects lack
        missing = [key for key in ("clean", "corrupted") if key not in record]
        missing += [] if {"correct", "correct_idx"} & set(record) else ["correct"]
        if missing:
            raise InputError(f"object {index} of {str(path)!r} lacks {', '.join(missing)}")
    return pd.DataFrame(records, dtype=object)


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
    examples = []
    for index, row in enumerate(zip(one, other, right, wrong, strict=True)):
        if len(row[0]) != len(row[1]):
            raise InputError(
                f"prompt {index} has {len(row[0])} clean and {len(row[1])} corrupted tokens (padding not counted); "
                "they must be equally many, so that every position of one run has its counterpart in the other"
            )
        examples.append(read_example(index, *row))
    return examples


def _must_exist(path: str | os.PathLike[str]) -> None:
    if not Path(path).is_file():
        raise InputError(f"path={str(path)!r}: there is no such file")


def _cell(index: int, field: str, value: Any, ids: bool) -> Any:
    """What an answer's cell holds: a list may be written as text, token ids as digits, nothing as nothing."""
    if isinstance(value, float) and np.isnan(value):
        value = None
    if isinstance(value, str):
        value = _written_list(value) if value.lstrip().startswith("[") else (value or None)
    if not ids or value is None:
        return value
    try:
        return [int(entry) for entry in (value if isinstance(value, list | tuple | np.ndarray) else [value])]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{field}_idx of prompt {index} is {value!r}; it must be a token id or a list of them"
        ) from error


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
    entries = answers if isinstance(answers, list | tuple | np.ndarray) else [answers]
    for entry in entries:
        if isinstance(prompt, str) and entry is not None and not isinstance(entry, str):
            raise InputError(
                f"{field} of prompt {index} is the {type(entry).__name__} {entry!r} beside a string prompt; write it "
                f"as a string, or put token ids into a data frame's column {field}_idx"
            )


def _array(name: str, value: Any) -> Any:
    """A numpy array of integers, or the lists themselves where rows differ in length."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy() if value.dtype != torch.bfloat16 else value.float().numpy()
    try:
        return np.asarray(value)
    except ValueError:
        return value


def _real_tokens(name: str, tokens: Any, mask_name: str, mask: Any) -> list[list[int]]:
    array = _array(name, tokens)
    if not isinstance(array, np.ndarray):
        if mask is not None:
            raise InputError(f"{name} has rows of different length; with {mask_name} it must be [n, pos]")
        return [list(row) for row in array]
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} is {array.dtype} of shape {list(array.shape)}; it must hold token ids, int [n, pos]")
    if mask is None:
        return array.tolist()
    kept = _array(mask_name, mask)
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
    array = _array(name, answers)
    if isinstance(array, np.ndarray) and array.ndim == 2 and np.issubdtype(array.dtype, np.integer):
        rows: list[Any] = [[token for token in row if token != -1] for row in array.tolist()]
    else:
        rows = list(array) if isinstance(array, np.ndarray) and array.ndim == 1 else list(answers)
    if len(rows) != n:
        raise InputError(f"{name} has {len(rows)} entries for {n} prompts; it needs one per prompt")
    return rows
