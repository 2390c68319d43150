"""`DictionarySet`: dictionaries whose features are nodes, and what becomes of the errors that they leave."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from jaxtyping import Bool
from torch import Tensor

from interp.anatomy import Anatomy
from interp.conditions import conditions_of
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.sites import check_dictionaries, listed
from interp.errors import InputError, choose
from interp.node_mask import Spans, ragged

Errors = Literal["kept", "ablated", "nodes"]
ERRORS: tuple[str, ...] = get_args(Errors)


class FeatureKeywords(TypedDict, total=False):
    """What features are of, and what becomes of errors; what a circuit of features remembers itself."""

    dictionaries: Any
    errors: Errors | None


@dataclass(frozen=True, eq=False)
class DictionarySet:
    """Dictionaries of different places, whose features are the nodes of level `feature`.

    Attributes:
        dictionaries: in the order of a mask's first axis.
        errors: what becomes of what they leave of their outputs: `kept` (as it is in the run), `ablated` like features
            outside of a circuit, or `nodes`: each dictionary's error is a node behind its features, last on the last
            axis.

    Raises `InputError` for what is no dictionary, and for unknown `errors`.
    """

    dictionaries: tuple[Dictionary, ...]
    errors: str = "kept"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dictionaries", tuple(listed(self.dictionaries)))
        choose("errors", self.errors, ERRORS)

    @classmethod
    def of(cls, keywords: Mapping[str, Any], circuit: Any = None) -> DictionarySet | None:
        """From a function's keywords; what these do not say is as the circuit (or the scores) was found.

        None where there are no dictionaries. Raises `InputError` for others than those that a circuit was found with.
        """
        record = conditions_of(circuit)
        given, errors = keywords.get("dictionaries"), keywords.get("errors")
        if given is None:
            given = getattr(circuit, "dictionaries", None)
        if given is None:
            if errors is not None:
                raise InputError(f"errors={errors!r} is what becomes of dictionaries' errors: give dictionaries= too")
            return None
        found = cls(given, record.errors or "kept" if errors is None else errors)
        found.check_digests(record.dictionaries)
        return found

    def check_digests(self, known: Sequence[str] | None) -> None:
        """Raise `InputError` unless these are the dictionaries that were recorded, where any were."""
        if known is None or tuple(known) == self.digests:
            return
        if len(known) != len(self.digests):
            what = f"{len(self.digests)} of them, and the features are of {len(known)}"
        elif set(known) == set(self.digests):
            what = "another order"
        else:
            number = next(i for i, pair in enumerate(zip(known, self.digests, strict=True)) if pair[0] != pair[1])
            what = f"number {number}, {self.dictionaries[number]!r}, is another"
        raise InputError(f"dictionaries are not those that the features are of: {what}; give the same in their order")

    @functools.cached_property
    def digests(self) -> tuple[str, ...]:
        """A sha256 digest of each dictionary."""
        return tuple(one.digest for one in self.dictionaries)

    def on(self, anatomy: Anatomy) -> list[Dictionary]:
        """As a model is run with them; raises `InputError` for dictionaries of another model or two of one place."""
        return check_dictionaries(self.dictionaries, anatomy)

    def full(self, spans: Spans = None) -> Bool[Tensor, "*axes"]:
        """True where there is a node: dictionaries may be of unequal width."""
        return ragged([one.n_features for one in self.dictionaries], spans, self.errors == "nodes")

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it: places, widths and digests, and what becomes of errors."""
        return {
            "errors": self.errors,
            "dictionaries": [
                {"layer": one.layer, "site": one.site, "n_features": one.n_features, "sha256": digest}
                for one, digest in zip(self.dictionaries, self.digests, strict=True)
            ],
        }
