"""From a loaded model to its checked anatomy: the way in for everything that runs a model's parts."""

from __future__ import annotations

from typing import Any

from interp.anatomy import Anatomy
from interp.architectures import read_anatomy
from interp.errors import refused
from interp.validation import check_anatomy, refuse_hooks

_ATTRIBUTE = "_faithful_circuits_anatomy"


def anatomy_of(model: Any) -> Anatomy:
    """The anatomy of a TransformerBridge, read and checked at first use, remembered on the model afterwards.

    Raises `InputError` when the model is no TransformerBridge of a pre-norm causal language model, when its parts
    do not reproduce its own logits, or when it carries hooks, which circuits would ignore.
    """
    anatomy: Anatomy | None = getattr(model, "__dict__", {}).get(_ATTRIBUTE)
    if anatomy is None:
        anatomy = read_anatomy(model)
        refuse_hooks(model)
        kind = type(model.original_model).__name__
        with refused(f"model={kind} is not understood: its parts cannot be run as this graph has them"):
            check_anatomy(anatomy, model)
        model.__dict__[_ATTRIBUTE] = anatomy
    refuse_hooks(model)
    return anatomy
