"""Task: prompts with counterfactuals and answers, and the objective that a circuit for them has to preserve."""

from __future__ import annotations

import html
import logging
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from interp import numbers
from interp.errors import InputError
from interp.objectives import Objective, ObjectiveFunction, get_objective
from interp.plain import plain
from interp.running import door
from interp.tasks import loaders
from interp.tasks.check import TaskCheck, check_task
from interp.tasks.encoding import Encoder
from interp.tasks.examples import Example, check_contrast, check_examples, digest
from interp.tasks.notes import notes
from interp.tasks.prompts import Prompts
from interp.tasks.shown import shown_rows
from interp.tasks.texts import examples_from_texts
from interp.tasks.token_spans import TokenSpans, aligned_by, token_spans, with_spans, without_padding

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

log = logging.getLogger(__name__)

DEFAULT_OBJECTIVE = "logit-difference"


class Task:
    """A behaviour of a model, given by prompts, their corrupted versions, and answers to the clean ones.

    Tasks do not change: `select`, `split` and `with_objective` make new ones. Strings are tokenised when a model
    first asks for `prompts`.

    Args:
        name: what tables and files call it.
        examples: the prompts; `Task.from_pairs` and its sisters make them from what users have.
        objective: a name of `interp.objectives.names()`, an `Objective`, or a function
            `f(logits, prompts, clean_logits) -> [n]`.
        description: one sentence for people.
        prepend_bos: put BOS before string prompts (never twice); None for the model's own habit.
        seed: the seed it was generated from.
        dropped: how many candidate prompts the builder dropped.
        parameters: the builder's further settings, JSON-able.
        spans: names for parts of the clean prompts, for what tells positions apart (`attribute(positions="spans")`):
            a mapping of names to (start, stop), slices of the prompt's own tokens, from 0 without the BOS that is put
            before it (negative ones count from the end, a stop of None is the end); or a regular expression with
            named groups, `(?P<subject>...)`, searched in the clean text. One for all prompts, or a list of one for
            each. The examples keep them.

    Answers may have several tokens, and corrupted prompts other lengths than the clean ones: `interp.tasks.notes` and
    `check` tell what is made of them, `shown` shows it.

    Raises `InputError` without prompts, for an unknown objective, where the objective needs incorrect answers and a
    prompt has none, and where some prompts have corrupted versions and others have none.

    >>> task = Task.from_pairs("sums", [("2 + 2 =", "2 + 3 =", " 4", " 5"), ("3 + 4 =", "3 + 2 =", " 7", " 5")])
    >>> len(task), task.objective
    (2, 'logit-difference')
    """

    @numbers.checked(dropped=numbers.FROM_ZERO)
    def __init__(
        self,
        name: str,
        examples: Iterable[Example],
        *,
        objective: str | Objective | ObjectiveFunction = DEFAULT_OBJECTIVE,
        description: str = "",
        prepend_bos: bool | None = None,
        seed: int | None = None,
        dropped: int = 0,
        parameters: Mapping[str, Any] | None = None,
        spans: Any = None,
    ) -> None:
        self.name = name
        self.examples = tuple(examples if spans is None else with_spans([*examples], spans))
        # a function is kept as the Objective that wraps it: one thing for engines to ask
        self.objective: str | Objective = objective if isinstance(objective, str) else get_objective(objective)
        self.description = description
        self.prepend_bos = prepend_bos
        self.seed = seed
        self.dropped = dropped
        self.parameters = dict(parameters or {})
        # by tokenizer, which is kept too: its id is not given to another while it is the key
        self._tokenised: dict[tuple[int, int | None, int], tuple[Any, Prompts]] = {}
        self._among = self.examples  # those it was selected from: they decide whether answers get rows of their own
        check_examples(name, self.examples)
        if get_objective(objective).needs_incorrect:
            check_contrast(self.examples, str(self.objective))

    @classmethod
    def from_pairs(cls, name: str, pairs: Iterable[Sequence[Any]], **settings: Any) -> Task:
        """A task from `(clean, corrupted, correct, incorrect)` strings; answers may be lists of strings.

        A prompt may also be the messages of a chat, `[{"role": "user", "content": ...}]`, which the tokenizer's
        template makes a text of. An answer is taken literally: write `" Mary"` with its space. One of several tokens
        is scored by the sum of their log-probabilities, teacher-forced. Corrupted prompts of other lengths are aligned
        at their ends; None where none is needed (zero and mean ablation). `settings` are those of `Task`. Raises
        `InputError` naming the prompt for whatever is not of that form.

        >>> task = Task.from_pairs("mine", [("The keys", "The key", [" are", " were"], [" is", " was"])])
        >>> task.to_frame().columns.tolist()
        ['clean', 'corrupted', 'correct', 'incorrect']
        """
        return cls(name, loaders.examples_from_pairs(pairs), **settings)

    @classmethod
    def from_texts(
        cls,
        name: str,
        texts: Iterable[Any],
        corrupted: Iterable[Any] | None = None,
        positions: int | slice | str | None = None,
        objective: str | Objective | ObjectiveFunction = "log-probability-per-token",
        **settings: Any,
    ) -> Task:
        """A task of predicting texts themselves: by default the mean log-probability of their next tokens.

        Args:
            name: what tables and files call it.
            texts: strings or token ids, all of whose tokens but the first are scored; or `(context, continuation)`, of
                which the continuation is, behind a context of any form a prompt may have.
            corrupted: a corrupted version of each text (context); None for zero and mean ablation alone.
            positions: where logits are read, each for the text's own next token: a position of the tokenised text (with
                BOS, where the model has one), a slice of them, or the name of one of the task's spans; None: all.
            objective: as of `Task`; one that contrasts answers has none to contrast.
            **settings: further ones of `Task`, such as `spans`.

        Raises `InputError` for texts that are not of that form; at `prompts` where `positions` leaves none of a text.

        >>> Task.from_texts("counting", ["one two three four"], positions=slice(2, None)).examples[0].scored
        (2, None)
        """
        return cls(name, examples_from_texts(texts, corrupted, positions), objective=objective, **settings)

    @classmethod
    def from_frame(cls, frame: Any, name: str = "frame", **settings: Any) -> Task:
        """A task from a table with the columns clean, corrupted, correct, incorrect.

        A table is a data frame (of pandas, polars, pyarrow or datasets), a dict of columns or a list of dicts.
        Instead of the answers the columns correct_idx and incorrect_idx may hold token ids. A cell may hold a
        list, also written as text: `[" is", " was"]`. Raises `InputError` that names missing columns.

        >>> frame = pd.DataFrame({"clean": ["a b"], "corrupted": ["a c"], "correct": [" d"], "incorrect": [" e"]})
        >>> len(Task.from_frame(frame))
        1
        """
        return cls(name, loaders.examples_from_frame(frame), **settings)

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], name: str | None = None, **settings: Any) -> Task:
        """A task from a CSV file with the columns of `from_frame`; its name is that of the file by default.

        Spaces count: the answer `" Mary"` keeps its space, and `"NA"` is a word. Raises `InputError` if the
        file is missing or is no such table.
        """
        frame = loaders.read_csv(path)
        return cls.from_frame(frame, name=name or loaders.stem(path), **settings)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str], name: str | None = None, **settings: Any) -> Task:
        """A task from a JSON file: a list of objects with the keys of `from_frame`.

        Raises `InputError` if the file is missing, is not JSON, or lacks keys.
        """
        frame = loaders.read_json(path)
        return cls.from_frame(frame, name=name or loaders.stem(path), **settings)

    @classmethod
    def from_tokens(
        cls,
        name: str,
        clean: ArrayLike | Tensor,
        corrupted: ArrayLike | Tensor,
        correct: Any,
        incorrect: Any = None,
        attention_mask: ArrayLike | Tensor | None = None,
        corrupted_attention_mask: ArrayLike | Tensor | None = None,
        **settings: Any,
    ) -> Task:
        """A task from token ids; no tokenizer is needed, and no BOS is added.

        Args:
            name: what tables and files call it.
            clean: int [n, pos].
            corrupted: int [n, pos].
            correct: a list of token ids per prompt, or int [n]; an answer of several tokens is a list in that list.
            incorrect: the same; None if there are none.
            attention_mask: [n, pos], nonzero at real tokens; padding may lie anywhere. It is removed and the rest
                padded on the right, which is exact for causal models that count positions over real tokens.
            corrupted_attention_mask: the same for `corrupted`; None if it is that of `clean`.
            **settings: those of `Task`; `spans` are slices of the rows as they are given, padding counted.

        Raises `InputError` for shapes or types that do not fit.

        >>> task = Task.from_tokens("mine", [[0, 5, 6]], [[0, 5, 7]], [[8]], [[9]], attention_mask=[[0, 1, 1]])
        >>> task.examples[0].clean
        (5, 6)
        """
        examples = loaders.examples_from_tokens(
            clean, corrupted, correct, incorrect, attention_mask, corrupted_attention_mask
        )
        examples = with_spans(examples, settings.pop("spans", None))
        if attention_mask is not None:
            examples = without_padding(examples, loaders.plain_array("attention_mask", attention_mask))
        return cls(name, examples, **settings)

    def __len__(self) -> int:
        return len(self.examples)

    def select(self, indices: Iterable[int] | Tensor) -> Task:
        """The prompts at `indices`, in that order, or where a mask is true.

        Raises `InputError` for an index out of range, and when nothing is selected.

        >>> task = Task.from_pairs("t", [("a", "b", "c", "d"), ("e", "f", "g", "h")])
        >>> task.select([1]).examples[0].clean
        'e'
        """
        array = np.asarray(indices.cpu() if isinstance(indices, Tensor) else list(indices))
        if array.dtype == bool:
            if array.shape != (len(self),):
                raise InputError(f"indices is a mask of {len(array)} entries for {len(self)} prompts")
            array = np.flatnonzero(array)
        chosen = numbers.many("indices", array.tolist())
        for index in chosen:
            if not -len(self) <= index < len(self):
                raise InputError(f"indices holds {index}, but the task {self.name!r} has {len(self)} prompts")
        return self._copy(examples=[self.examples[index] for index in chosen])

    @numbers.checked(fraction=numbers.BETWEEN)
    def split(self, fraction: float = 0.5, seed: int = 0) -> tuple[Task, Task]:
        """Two disjoint tasks that hold all prompts, shuffled by `seed`; the first has `fraction` of them.

        Raises `InputError` with fewer than two prompts, or a fraction that is not between 0 and 1.

        >>> task = Task.from_pairs("t", [(f"{i}", f"{i} {i}", "c", "d") for i in range(10)])
        >>> [len(part) for part in task.split(0.3)]
        [3, 7]
        """
        if len(self) < 2:
            raise InputError(f"the task {self.name!r} has one prompt; splitting needs at least two")
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        cut = min(max(round(fraction * len(self)), 1), len(self) - 1)
        return self.select(order[:cut]), self.select(order[cut:])

    def aligned(self, corrupted_spans: Any, align: Literal["end", "mean"] = "end") -> Task:
        """The same prompts, with corrupted positions standing for clean ones span by span, not from the end.

        A span has the corrupted one of the same name as its counterpart, and what is between two spans what is between
        these there. Of equal lengths both are aligned one to one; of others at their ends, or with `align="mean"` a
        span's positions all get the mean over the corrupted span (between spans: at their ends).

        Args:
            corrupted_spans: the spans of the corrupted prompts, as `spans` are given for the clean ones: a mapping or a
                regular expression, one for all or a list of one for each.
            align: `end` or `mean`.

        Raises `InputError` for a task without spans; `prompts` does, naming the prompt, for a span that one side lacks,
        spans in another order, and where logits are not read at the same distance from both ends.

        >>> task = Task.from_tokens("t", [[0, 5, 6]], [[0, 5, 5, 6]], [[8]], [[9]], spans={"name": (1, 2)})
        >>> task.aligned({"name": (1, 3)}).examples[0].align
        'end'
        """
        return self._copy(examples=aligned_by(self.examples, corrupted_spans, align))

    def with_objective(self, objective: str | Objective | ObjectiveFunction) -> Task:
        """The same prompts with another objective. Raises `InputError` as the constructor does.

        >>> Task.from_pairs("t", [("a", "b", "c", "d")]).with_objective("kl").objective
        'kl'
        """
        return self._copy(objective=objective)

    @door
    def prompts(self, model: Any) -> Prompts:
        """The tokenised prompts, right-padded, on the CPU; tokenised once for each tokenizer, and yours to change.

        `model` needs `tokenizer` (only if there are strings) and `cfg.d_vocab`. Raises `InputError`, naming the
        prompt, for answers that the tokenizer lacks, equal answers of both sides, messages that it has no template for,
        and token ids outside the model's vocabulary.
        """
        encoder = Encoder(model, self.prepend_bos)
        key = (id(encoder.tokenizer), encoder.bos, encoder.d_vocab)
        if key not in self._tokenised:
            rows = self._among is not self.examples and encoder.in_rows(self._among)
            made = encoder.prompts(self.examples, rows)
            self._tokenised[key] = (encoder.tokenizer, made)
            for note in notes(made) if self._among is self.examples else ():  # of a selection it has been told
                log.warning("task %s: %s", self.name, note)
        return self._tokenised[key][1].copy()

    @door
    def spans(self, model: Any) -> TokenSpans:
        """The spans of each prompt as positions of `prompts(model)`, and all their names in order of appearance.

        Raises `InputError`, naming the prompt, for spans out of it and for two that share a token.
        """
        return token_spans(self.examples, Encoder(model, self.prepend_bos))

    @door
    def check(self, model: Any) -> TaskCheck:
        """How well the model does on the clean and on the corrupted prompts; see `check_task`.

        Warns if there is no behaviour to explain. Cost: two forward passes.
        """
        return check_task(self, model)

    @door
    def shown(self, model: Any) -> pd.DataFrame:
        """What was made of the prompts: a row for each answer that is scored, with the tokens as the model reads them.

        Columns: prompt (its number), answer (`correct` or `incorrect`), clean, corrupted (lists of tokens, up to where
        the answer begins; of a scored text all of it), positions (where logits are read), predicted (the tokens that
        are predicted there). Raises `InputError` as `prompts` does.
        """
        return shown_rows(self.prompts(model), getattr(model, "tokenizer", None))

    def to_frame(self) -> pd.DataFrame:
        """One row per prompt: clean, corrupted, correct, incorrect; of texts `scored`, and `spans` if there are any.

        `from_frame` reads it.
        """
        return pd.DataFrame([example.record() for example in self.examples])

    def to_dict(self) -> dict[str, Any]:
        """Where the prompts come from, JSON-able: name, n, seed, objective, parameters, sha256 of the contents."""
        return {
            "name": self.name,
            "n": len(self),
            "seed": self.seed,
            "objective": str(self.objective),
            "parameters": plain(self.parameters),
            "sha256": digest(self.examples, self.prepend_bos),
        }

    def _copy(self, **changes: Any) -> Task:
        settings = {
            name: getattr(self, name)
            for name in ("examples", "objective", "description", "prepend_bos", "seed", "dropped", "parameters")
        }
        made = Task(self.name, **(settings | changes))
        made._among = self._among
        return made

    def __getstate__(self) -> dict[str, Any]:
        # not the tokenizers: they are large, and where the task goes they would not be the ones in use
        return self.__dict__ | {"_tokenised": {}}

    def __repr__(self) -> str:
        parts = [repr(self.name), f"n={len(self)}", f"objective={str(self.objective)!r}"]
        if self.seed is not None:
            parts.append(f"seed={self.seed}")
        if self.dropped:
            parts.append(f"dropped={self.dropped}")
        return f"Task({', '.join(parts)})"

    def _repr_html_(self) -> str:
        table = self.to_frame().head(5).to_html(index=False, escape=True)
        more = f"<p>and {len(self) - 5} more</p>" if len(self) > 5 else ""
        return f"<p><code>{html.escape(repr(self))}</code> {html.escape(self.description)}</p>{table}{more}"
