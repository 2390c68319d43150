"""`Stream`: the weights of one model, part by part, the next one read in the background."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from interp.errors import InputError
from interp.streaming import saved
from interp.streaming.memory import Pool
from interp.streaming.order import Order
from interp.streaming.reading import Reader
from interp.streaming.weights import Share, Weight

Values = dict[Weight | Share, Tensor]
Part = tuple[Weight | Share, ...]


class Stream:
    """Holds the part in use and the one that is likely to be next; a part that is neither is dropped.

    Runs come to the first `n_run` of the parts, in order or back; others are read when they are asked for.

    Attributes:
        device, dtype: what weights are given as.
        asleep: nothing is read; who asks for a weight gets zeros of its shape that take no memory.
        reading: seconds in which files were read and cast, beside everything else.
        waiting: seconds of these in which a run waited for them.
    """

    def __init__(self, parts: Sequence[Part], n_run: int, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.asleep = False
        self.reading = self.waiting = 0.0
        self._parts, self._n_run = list(parts), n_run
        self._part_of = {weight: number for number, part in enumerate(parts) for weight in part}
        self._reader, self._rows, self._pool = Reader(device), Reader(device), Pool(device)
        self._order = Order()
        self._lock = threading.RLock()
        self._held: dict[int, Future[Values]] = {}
        self._background = ThreadPoolExecutor(1, thread_name_prefix="weights")
        saved.streams.add(self)

    @property
    def n_parts(self) -> int:
        """How many parts the model has."""
        return len(self._parts)

    @property
    def held_bytes(self) -> int:
        """The most that is held at a time: a part and the one after it."""
        parts = [sum(one.shape.numel() for one in part if isinstance(one, Weight)) for part in self._parts]
        return self.dtype.itemsize * max(a + b for a, b in itertools.pairwise(parts[: self._n_run]))

    @property
    def n_all(self) -> int:
        """Elements of all weights."""
        return sum(one.shape.numel() for part in self._parts for one in part if isinstance(one, Weight))

    def n_stored(self, first: str = "") -> int:
        """Elements of the parts that runs come to, of those alone whose weights' names hold `first`."""
        run = [one for part in self._parts[: self._n_run] for one in part if isinstance(one, Weight)]
        return sum(one.shape.numel() for one in run if first in one.name)

    @property
    def n_bytes(self) -> int:
        """How many bytes were read from the files so far."""
        return self._reader.n_bytes + self._rows.n_bytes

    def get(self, weight: Weight | Share) -> Tensor:
        """The values of a weight; raises `InputError` where they can no longer be read."""
        number = self._part_of[weight]
        with self._lock:
            future = self._held.get(number)
            if future is None or number != self._current():
                future = self._turn_to(number)
        if not future.done():
            started = time.perf_counter()
            future.exception()
            self.waiting += time.perf_counter() - started
        if future.exception() is not None:
            with self._lock:
                self._held.pop(number, None)  # asked for again, it is tried again
        values = future.result()[weight]
        if self.device.type == "cuda":
            values.record_stream(torch.cuda.current_stream(self.device))
        return values

    def add(self, share: Share) -> None:
        """From now on give a share of a weight as well."""
        with self._lock:
            number = self._part_of[share] = self._part_of[share.of]
            self._parts[number] = (*self._parts[number], share)
            if number in self._held:
                self._drop(number)

    def release(self) -> None:
        """Give back the memory of all that is held; what is asked for later is read again."""
        with self._lock:
            for number in list(self._held):
                self._drop(number)
            self._pool = Pool(self.device)

    def rows(self, weight: Weight, rows: list[int]) -> Tensor:
        """Some rows of a matrix, read by themselves."""
        if weight.held is not None:
            return weight.held()[rows].to(self.device)
        with self._lock:
            return self._rows.rows(weight.stored[0], rows, self.dtype)

    def _current(self) -> int | None:
        return next(reversed(self._held), None) if self._held else None

    def _turn_to(self, number: int) -> Future[Values]:
        """Make a part the one in use; begin to read what is likely to follow."""
        self._order.visit(number)
        following = self._order.next()
        if following is not None and following not in range(self._n_run):
            following = 0 if following > number else None  # from the top another run begins at the bottom
        for other in [one for one in self._held if one not in (number, following)]:
            self._drop(other)
        future = self._held.pop(number, None) or self._begin(number)
        if following is not None and following != number and following not in self._held:
            self._held[following] = self._begin(following)
        self._held[number] = future  # last: the part in use
        return future

    def _begin(self, number: int) -> Future[Values]:
        return self._background.submit(self._load, number)

    def _drop(self, number: int) -> None:
        future = self._held.pop(number)
        if not future.cancel():
            future.add_done_callback(_forget)

    def _load(self, number: int) -> Values:
        started = time.perf_counter()
        part = self._parts[number]
        wholes = {one.of if isinstance(one, Share) else one: None for one in part}
        plain = [one for one in wholes if one.build is None and one.held is None]
        if not all(one.exists for one in wholes):
            raise InputError("this model was made of a configuration alone and has no weights")
        values: Values = {}
        with self._reader.copying():
            places = self._pool.tensors([one.shape for one in plain], self.dtype)
            for weight, place in zip(plain, places, strict=True):
                self._reader.read(weight.stored[0], place)
                values[weight] = place
            values.update({weight: self._built(weight) for weight in wholes if weight.build is not None})
            values.update({one: one.held().to(self.device) for one in wholes if one.held is not None})
            for one in part:
                if isinstance(one, Share):
                    values[one] = one.take(values[one.of])
        for one in part:
            saved.know(values[one], self, one)
        self.reading += time.perf_counter() - started
        return values

    def _built(self, weight: Weight) -> Tensor:
        pieces = []
        for stored in weight.stored:
            piece = torch.empty(stored.shape, dtype=self.dtype, device=self.device)
            self._reader.read(stored, piece)
            pieces.append(piece)
        assert weight.build is not None
        return weight.build(pieces).contiguous()


def _forget(future: Future[Values]) -> None:
    if not future.cancelled() and future.exception() is None:
        for value in future.result().values():
            saved.forget(value)
