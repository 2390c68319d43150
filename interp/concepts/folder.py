"""`load_concepts`: a folder of images and a CSV of which concepts are in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from interp import numbers
from interp.concepts.images import ConceptImages
from interp.errors import InputError, short
from interp.files import as_path, existing

FILE, CLASS = "image", "class"
_TRUE, _FALSE = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}


@numbers.checked(size=numbers.COUNT, mean=numbers.ANY, std=numbers.POSITIVE)
def load_concepts(
    folder: str | os.PathLike[str],
    table: str | os.PathLike[str],
    *,
    size: int | None = None,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> ConceptImages:
    """Read images of one folder and their concepts, as torchvision's networks take them.

    Args:
        folder: where the images are, in any format that pillow reads.
        table: a CSV with a column `image` (names of files in the folder), one of 0 and 1 for each concept and, if
            known, `class` (whole numbers from 0).
        size: images are scaled so that their shorter side has so many pixels, and the centre is cut out; None: as they
            are, and then they must be of one size.
        mean, std: of each channel, taken off and divided by, behind the scaling to [0, 1]. Networks trained on
            ImageNet take (.485, .456, .406) and (.229, .224, .225). One number: grey images.

    Returns:
        `ConceptImages`: float32 [n, channel, height, width] in the order of the table.

    Raises:
        InputError: a folder, file or column that is missing, what is no image, images of different sizes without
            `size`, a cell that is neither 0 nor 1.
    """
    if len(mean) != len(std) or len(mean) not in (1, 3):
        raise InputError(f"mean={short(mean)} and std={short(std)} must be 3 numbers each, or 1 each for grey images")
    where = as_path(folder, "folder")
    if not where.is_dir():
        raise InputError(f"folder={short(str(folder))} is no folder; give the one that holds the images")
    frame = _frame(table)
    names = [str(name) for name in frame if name not in (FILE, CLASS)]
    concepts = torch.tensor([[_flag(frame, at, name) for name in names] for at in range(len(frame))], device="cpu")
    pixels = [_image(where, name, size, len(mean)) for name in frame[FILE]]
    for name, one in zip(frame[FILE], pixels, strict=True):
        if one.shape != pixels[0].shape:
            sizes = " and ".join("x".join(map(str, shape[1:])) for shape in (pixels[0].shape, one.shape))
            raise InputError(f"images are of different sizes ({sizes}, {name}); give size=224, for instance")
    stacked = torch.stack(pixels)
    offset, unit = (torch.tensor(values, dtype=torch.float32, device="cpu")[:, None, None] for values in (mean, std))
    return ConceptImages((stacked - offset) / unit, concepts, tuple(names), _classes(frame))


def _frame(table: Any) -> pd.DataFrame:
    file, where = existing(table, "table")
    try:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{where} is no CSV: {reason}") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    if FILE not in frame:
        raise InputError(f"{where} has no column {FILE!r} with names of files; it has {', '.join(frame.columns)}")
    if not set(frame) - {FILE, CLASS}:
        raise InputError(f"{where} has no column for a concept; add one of 0 and 1")
    if frame.empty:
        raise InputError(f"{where} names no image")
    twice = frame[FILE][frame[FILE].duplicated()]
    if len(twice):
        raise InputError(f"{where} names {twice.iloc[0]!r} twice")
    return frame


def _flag(frame: pd.DataFrame, at: int, name: str) -> bool:
    cell = str(frame[name].iloc[at]).strip().lower()
    if cell not in _TRUE | _FALSE:
        raise InputError(f"concept {name!r} of {frame[FILE].iloc[at]!r} is {short(cell)}; write 0 or 1")
    return cell in _TRUE


def _classes(frame: pd.DataFrame) -> Tensor | None:
    if CLASS not in frame:
        return None
    for name, cell in zip(frame[FILE], frame[CLASS], strict=True):
        if not str(cell).strip().isdigit():
            raise InputError(f"the class of {name!r} is {short(cell)}; write a whole number from 0")
    return torch.tensor([int(cell) for cell in frame[CLASS]], device="cpu")


def _image(folder: Path, name: str, size: int | None, channels: int) -> Tensor:
    """Float32 [channel, height, width] from 0 to 1."""
    path = folder / name
    if not path.is_file():
        raise InputError(f"image {name!r} is not in the folder {str(folder)!r}")
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB" if channels == 3 else "L")
    except OSError as error:
        raise InputError(f"image {name!r} cannot be read: {short(str(error))}") from None
    if size is not None:
        scale = size / min(picture.size)
        # a side that rounds to less would leave a black line
        wide, high = (max(size, round(side * scale)) for side in picture.size)
        left, top = (wide - size) // 2, (high - size) // 2
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    values = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    return values[None] if channels == 1 else values.permute(2, 0, 1)
