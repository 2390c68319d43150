"""From a loaded model to its checked anatomy: the way in for everything that runs a model's parts."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from torch import nn

from interp.anatomy import Anatomy
from interp.architectures import read_anatomy
from interp.errors import refused
from interp.fingerprint import Place, fingerprint, read_of, refuse_inference
from interp.running import alone, door
from interp.validation import check_anatomy


@dataclass(frozen=True)
class _Checked:
    anatomy: Anatomy
    read: frozenset[Place]
    fingerprint: tuple[Any, ...]


# beside the models and not on them: what stands on a model is copied with it, and would tell of the original
_checked: weakref.WeakKeyDictionary[nn.Module, _Checked] = weakref.WeakKeyDictionary()


def anatomy_of(model: Any) -> Anatomy:
    """The anatomy of a TransformerBridge, read and checked at first use, and again when the model is another.

    It is another when its modules, their dtypes or devices, torch's hooks on them, its configuration, or weights that
    the anatomy does not read have changed (see `interp.fingerprint`). A copy of a model is a model of its own.

    Raises `InputError` when the model is no TransformerBridge of a pre-norm causal language model, when its parts
    do not reproduce its own logits, or when it carries hooks, which circuits would ignore.
    """
    if not isinstance(model, nn.Module):
        return read_anatomy(model)  # says what it is
    with alone(model):
        known = _checked.get(model)
        if known is None or known.fingerprint != fingerprint(model, known.read):
            known = _checked[model] = _check(model)
        return known.anatomy


def trust(model: Any) -> None:
    """Take a model that has just been loaded for checked, because one like it was; a change is checked as ever."""
    anatomy = read_anatomy(model)
    read = read_of(anatomy, model)
    _checked[model] = _Checked(anatomy, read, fingerprint(model, read))


@door
def _check(model: Any) -> _Checked:
    anatomy = read_anatomy(model)
    read = read_of(anatomy, model)
    refuse_inference(model)
    fingerprint(model, read)  # refuses hooks before it is run
    kind = type(model.original_model).__name__
    with refused(f"model={kind} is not understood: its parts cannot be run as this graph has them"):
        check_anatomy(anatomy, model)
    # afterwards, because the first run of some models leaves things on them
    return _Checked(anatomy, read, fingerprint(model, read))
