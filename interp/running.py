"""What holds while the library runs a model, whoever calls: no dropout, no ambient state of torch, no foreign hooks.

A function that takes a model is a `door`: the surroundings that torch lets a caller set (inference mode, autocast, a
default device, training mode) are put aside at its entry and put back at its end, also when it raises. What stands
behind a door need not ask. Where hooks or the attention's kind are put on a model, one thread at a time is `alone`
with it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from interp import compat
from interp.streaming.saved import by_origin

P = ParamSpec("P")
R = TypeVar("R")

_guard = threading.Lock()  # of the two tables below
_locks: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()
_quietened: dict[nn.Module, int] = {}  # parts whose training mode is switched off, and by how many
_process = threading.RLock()


class _Doors(threading.local):
    """The models whose doors this thread stands behind, outermost first, and the number of this visit."""

    def __init__(self) -> None:
        self.models: list[Any] = []
        self.visit = 0


_doors = _Doors()
_visits = itertools.count(1)


def door(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a public function: it runs settled, and its model in eval mode.

    That is its argument `model`, or the `.model` of its `setting`, or of the object whose method it is.
    """
    names = list(inspect.signature(function).parameters)
    holder = next((name for name in ("model", "setting", "self") if name in names), None)
    place = 0 if holder is None else names.index(holder)

    @functools.wraps(function)
    def entered(*args: P.args, **kwargs: P.kwargs) -> R:
        held: Any = None
        if holder is not None:
            held = kwargs[holder] if holder in kwargs else args[place] if place < len(args) else None
        model = held if holder == "model" else getattr(held, "model", None)
        known = any(one is model for one in _doors.models)  # its parts are in eval mode until the first door closes
        with settled(), by_origin(), contextlib.nullcontext() if known else evaluated(model), _behind_door(model):
            return function(*args, **kwargs)

    entered.__dict__["is_door"] = True
    return entered


@contextlib.contextmanager
def _behind_door(model: Any) -> Iterator[None]:
    if not _doors.models:
        _doors.visit = next(_visits)
    _doors.models.append(model)
    try:
        yield
    finally:
        _doors.models.pop()


def visit() -> int | None:
    """The number of the call, of all that came from outside, that this thread serves; None: it is outside of all doors.

    What belongs to callers (their models' weights) stays as it is until the call ends, and need be looked at once.
    """
    return _doors.visit if _doors.models else None


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Without what a caller may have set around the call: inference mode, autocast, a default device.

    Gradients are taken where they are wanted, whatever the caller's grad mode. The default dtype is shared by all
    threads and stays: what depends on a dtype names it.
    """
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        accelerator = torch.accelerator.current_accelerator()
        for kind in ("cpu",) if accelerator is None else ("cpu", accelerator.type):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextlib.contextmanager
def evaluated(model: Any) -> Iterator[None]:
    """Without dropout while the block runs; every part is then in the mode it was in.

    Several threads may be inside at once: the last to leave puts the modes back. What is no module is left alone.
    """
    with _guard:
        switched = [part for part in parts_of(model) if part.training or part in _quietened]
        for part in switched:
            _quietened[part] = _quietened.get(part, 0) + 1
            _set_mode(part, False)
    try:
        yield
    finally:
        with _guard:
            for part in switched:
                _quietened[part] -= 1
                if not _quietened[part]:
                    del _quietened[part]
                    _set_mode(part, True)


def _set_mode(part: nn.Module, training: bool) -> None:
    if "training" in part.__dict__:  # past a bridge's `__setattr__`, which takes a hundred times as long
        part.__dict__["training"] = training
    else:
        part.training = training


@contextlib.contextmanager
def alone(model: nn.Module) -> Iterator[None]:
    """One thread at a time for one model (and its shallow copies), for what puts hooks on it or runs it under some."""
    key = getattr(model, "original_model", model)
    with _guard:
        lock = _locks.setdefault(key, threading.RLock())
    with lock:
        yield


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """One thread at a time, whatever the model, for what changes and puts back the state of a whole process."""
    with _process:
        yield


def of_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that sees runs of the thread that made it: another's run of the same model passes by."""
    owner = threading.get_ident()

    @functools.wraps(hook)
    def own(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs) if threading.get_ident() == owner else None

    return own


def parts_of(model: Any) -> list[nn.Module]:
    """All modules of a model, each once; of a TransformerBridge also those of the module that it wraps."""
    seen: dict[nn.Module, None] = {}
    left = [one for one in (model, getattr(model, "original_model", None)) if isinstance(one, nn.Module)]
    while left:  # by hand, because `modules()` takes twice the time
        part = left.pop()
        if part not in seen:
            seen[part] = None
            left += [inner for inner in compat.children_of(part).values() if inner is not None]
    return list(seen)
