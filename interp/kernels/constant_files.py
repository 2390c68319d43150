"""Constants of `ablation="optimal"` among the tensors of a file of scores or of a circuit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from interp.errors import InputError
from interp.kernels.constants import Constants, FittedConstants
from interp.kernels.unit_constants import UnitConstants

_PREFIX = "constants."
_OF_SOURCES = (*Constants.parts, "losses", "weights")
_OF_UNITS = ("units", "losses", "weights")
_OF_FEATURES = ("errors", "dictionaries")  # beside those
TENSORS = frozenset(_PREFIX + name for name in (*_OF_SOURCES, *_OF_UNITS, *_OF_FEATURES))


def tensors_of(constants: FittedConstants | None) -> dict[str, Tensor]:
    """Constants as a file of tensors holds them beside others; nothing where there are none."""
    if constants is None:
        return {}
    found = {name: one for name in (*constants.parts, "losses") if (one := getattr(constants, name)) is not None}
    found["weights"] = torch.tensor(constants.weights, dtype=torch.float64, device="cpu")
    if isinstance(constants, UnitConstants) and constants.dictionaries:
        digests = [list(bytes.fromhex(one)) for one in constants.dictionaries]
        found["dictionaries"] = torch.tensor(digests, dtype=torch.uint8, device="cpu")
    return {_PREFIX + name: one.detach().cpu().contiguous() for name, one in found.items()}


def constants_in(tensors: Mapping[str, Tensor], model: str) -> FittedConstants | None:
    """Those that `tensors_of` put into a file, of a model by name; None where there are none.

    Raises `InputError` where some are missing or do not belong together.
    """
    known = {name.removeprefix(_PREFIX): one for name, one in tensors.items() if name in TENSORS}
    if not known:
        return None
    wanted = _OF_UNITS if "units" in known else _OF_SOURCES
    if any(name not in known for name in wanted) or ("errors" in known) != ("dictionaries" in known):
        raise InputError(f"constants of {model!r} are {', '.join(wanted)}; some of them are missing")
    told = (known["losses"], model, tuple(known["weights"].tolist()))
    if "units" not in known:
        embedding, heads, mlps = (known[name] for name in Constants.parts)
        return Constants(embedding, heads, mlps, *told)
    digests = tuple(bytes(one.tolist()).hex() for one in known.get("dictionaries", ()))
    return UnitConstants(known["units"], known.get("errors"), *told, digests)
