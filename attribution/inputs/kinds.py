"""Which kind a model is: here alone it is decided."""

from __future__ import annotations

from typing import Any

from attribution.inputs.classifier import ClassifierExplained, is_classifier
from attribution.inputs.explained import Explainable, Explained
from interp.errors import InputError
from interp.wrappers import refuse_wrapped, uncompiled


def explained_of(model: Any, tokenizer: Any = None) -> Explainable:
    """The model as token methods see it.

    Raises `InputError` for a model of neither kind, and for a tokenizer beside a model that brings its own.
    """
    model = uncompiled(model)
    if is_classifier(model):
        refuse_wrapped(model, "model")
        return ClassifierExplained.of(model, tokenizer)
    if tokenizer is not None:
        raise InputError(
            "tokenizer goes with a sequence classifier; a language model gets its own in interp.load_model"
        )
    return Explained.of(model)
