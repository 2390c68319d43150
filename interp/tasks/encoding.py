"""From strings to token ids, for one tokenizer: prompts with BOS once, answers as they stand behind a prompt."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.tasks.chat import Message, templated
from interp.tasks.counterparts import check_read, of_spans, padded
from interp.tasks.examples import Answer, Answers, Example, Text, readable, shown
from interp.tasks.prompts import Prompts
from interp.tasks.rows import Ids, Rows
from interp.tasks.token_spans import corrupted_token_spans, token_spans, with_reads
from interp.token_text import token_texts


class Encoder:
    """The tokenizer of a model, as tasks use it.

    Args:
        model: anything with `tokenizer` and `cfg.d_vocab`; a `TransformerBridge` has both. The tokenizer may be
            None as long as only token ids are encoded.
        prepend_bos: put the BOS token before every string prompt; None for the model's own habit
            (`cfg.default_prepend_bos`, if the tokenizer has a BOS token that the model knows).

    Raises `InputError` if `prepend_bos=True` and there is no such token.
    """

    def __init__(self, model: Any, prepend_bos: bool | None = None) -> None:
        self.tokenizer: Any = getattr(model, "tokenizer", None)
        self.d_vocab = int(model.cfg.d_vocab)
        bos = getattr(self.tokenizer, "bos_token_id", None)
        usable = bos is not None and bos < self.d_vocab
        if prepend_bos is None:
            prepend_bos = usable and bool(getattr(model.cfg, "default_prepend_bos", True))
        elif prepend_bos and self.tokenizer is not None and not usable:
            raise InputError("prepend_bos=True, but the tokenizer has no BOS token that the model knows")
        self.bos: int | None = bos if prepend_bos else None
        self._answers: dict[str, list[int]] = {}

    def prompts(self, examples: Sequence[Example], rows: bool = False) -> Prompts:
        """Tokenise examples; with `rows` each answer is given a row of its own, as where one has several tokens.

        Raises `InputError` naming the prompt for whatever cannot be right.
        """
        clean = self.texts([example.clean for example in examples])
        paired = examples[0].corrupted is not None
        corrupted = self.texts(
            [example.clean if example.corrupted is None else example.corrupted for example in examples]
        )
        for index, (one, other, example) in enumerate(zip(clean, corrupted, examples, strict=True)):
            if paired and one == other:
                raise InputError(
                    f"prompt {index}: the tokenizer makes the same tokens of {shown(example.clean)!r} and "
                    f"{shown(example.corrupted)!r}; the corrupted prompt must differ from the clean one"
                )
        correct = [self.answers(example.correct, index, "correct") for index, example in enumerate(examples)]
        incorrect = [self.answers(example.incorrect, index, "incorrect") for index, example in enumerate(examples)]
        flat = [[[token for answer in row for token in answer] for row in side] for side in (correct, incorrect)]
        for name, sides in zip(("clean", "corrupted", "correct", "incorrect"), (clean, corrupted, *flat), strict=True):
            self._check_vocabulary(name, sides)
        for index, (right, wrong) in enumerate(zip(correct, incorrect, strict=True)):
            if both := set(right) & set(wrong):
                same = "token" if len(min(both)) == 1 else "tokens"
                raise InputError(
                    f"prompt {index}: to the tokenizer a correct and an incorrect answer are the same {same}, "
                    f"{self._named(min(both))}; reword one of them, or leave it out"
                )
        if rows or self.in_rows(examples):
            made = Rows.of(with_reads(examples, self), clean, corrupted, correct, incorrect)
            return made.prompts(paired, self._aligned(examples, made.clean, made.corrupted, made.reads))
        reads = [(index, [len(tokens) - 1]) for index, tokens in enumerate(clean)]
        aligned = self._aligned(examples, clean, corrupted, reads)
        return Prompts.from_lists(clean, corrupted, flat[0], flat[1], paired=paired, aligned=aligned)

    def _aligned(
        self,
        examples: Sequence[Example],
        clean: Sequence[Ids],
        corrupted: Sequence[Ids],
        reads: Sequence[tuple[int, Sequence[int]]],
    ) -> Int[Tensor, "row pos 2"] | None:
        """Counterparts by spans, of rows that `reads` gives the prompt's number and where logits are read.

        None where no example is aligned.
        """
        if not any(example.corrupted_spans for example in examples):
            return None
        own, others = token_spans(examples, self).of, corrupted_token_spans(examples, self).of
        found = []
        for (index, positions), one, other in zip(reads, clean, corrupted, strict=True):
            sides = (own[index], len(one)), (others[index], len(other))
            found.append(of_spans(index, *sides, examples[index].align))
            for position in positions:
                check_read(index, found[-1], len(other), position)
        return padded(found)

    def in_rows(self, examples: Sequence[Example]) -> bool:
        """Whether an answer has several tokens, or tokens of the prompts themselves are scored."""
        return any(
            example.scored is not None
            or any(len(ids) > 1 for ids in self.answers((*example.correct, *example.incorrect), index, "an"))
            for index, example in enumerate(examples)
        )

    def texts(self, texts: Sequence[Text]) -> list[list[int]]:
        """Token ids of prompts: strings get BOS (once), messages what the tokenizer's template makes of them."""
        strings = [text for text in texts if isinstance(text, str)]
        encoded = iter(self._encode(strings))
        rows = []
        for text in texts:
            if isinstance(text, str):
                ids = next(encoded)
                rows.append([self.bos, *ids] if self.bos is not None and ids[:1] != [self.bos] else ids)
            elif isinstance(text[0], Message):
                rows.append(self._encode([templated(self.tokenizer, text)])[0])
            else:
                rows.append([token for token in text if isinstance(token, int)])
        return rows

    def added_bos(self, text: Text, ids: Sequence[int]) -> int:
        """How many tokens `texts` has put before those of the text itself: 1 or 0."""
        if not isinstance(text, str) or self.bos is None:
            return 0
        return len(ids) - len(self._encode([text])[0])

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text, without BOS, begins and ends in it, in characters.

        By the tokenizer's own offsets where it gives them, else by how much text the first tokens make.
        """
        if getattr(self.tokenizer, "is_fast", False):
            found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            return [(int(start), int(stop)) for start, stop in found["offset_mapping"]]
        ids = self._encode([text])[0]
        whole = [self.tokenizer.decode(ids[:n], clean_up_tokenization_spaces=False) for n in range(len(ids) + 1)]
        shift = len(text) - len(whole[-1])  # a space that the tokenizer puts before everything, and takes away again
        ends = [max(0, len(part) + shift) for part in whole]
        ends[0] = 0
        return list(itertools.pairwise(ends))

    def answers(self, answers: Answers, index: int, field: str) -> list[tuple[int, ...]]:
        """Distinct token ids of the answers to prompt `index`: `"Yes"` and `"yes"` may be one.

        Raises `InputError` for one that the tokenizer lacks.
        """
        ids = [self._answer(answer, index, field) for answer in answers]
        return list(dict.fromkeys(ids))

    def pieces(self, text: str) -> list[int]:
        """Token ids of `text` as it would stand behind other text.

        Tokenizers of the SentencePiece kind put a space before everything they are given alone; what follows
        a line break is free of it. Where the line break itself is merged or lost, `text` is encoded alone.
        """
        if text not in self._answers:
            alone, line, behind = self._encode([text, "\n", f"\n{text}"])
            lost = behind[: len(line)] != line or len(behind) == len(line)
            self._answers[text] = alone if lost else behind[len(line) :]
        return self._answers[text]

    def is_single(self, text: str) -> bool:
        """Whether `text` is one token that the tokenizer really has."""
        ids = self.pieces(text)
        return len(ids) == 1 and not self._is_unknown(ids[0], text) and ids[0] < self.d_vocab

    def objection(self, example: Example, single: Iterable[str] = ()) -> str | None:
        """Why an example cannot be used with this tokenizer, or None if it can.

        `single` lists further strings that must be single tokens, so that words which are exchanged for one
        another sit at the same position.
        """
        for text in (*example.correct, *example.incorrect, *single):
            if isinstance(text, str) and not self.is_single(text):
                return "a word is not a single token"
        assert example.corrupted is not None
        clean, corrupted = self.texts([example.clean, example.corrupted])
        if len(clean) != len(corrupted):
            return "clean and corrupted differ in length"
        if clean == corrupted:
            return "clean and corrupted are the same tokens"
        if set(self.answers(example.correct, 0, "correct")) & set(self.answers(example.incorrect, 0, "incorrect")):
            return "the correct and the incorrect answer are the same token"
        return None

    def single(self, text: str, index: int, field: str) -> int:
        """The id of a text that has to be one token. Raises `InputError` for one that is not."""
        ids = self.pieces(text)
        if len(ids) != 1:
            pieces = ", ".join(map(repr, token_texts(self.tokenizer, ids)))
            raise InputError(
                f"{field} {text!r} of prompt {index} is {len(ids)} tokens ({pieces}); it must be one "
                f"token{self._advice(text)}"
            )
        return self._answer(text, index, field)[0]

    def _advice(self, text: str) -> str:
        """What would work instead of a text of several tokens."""
        if text.startswith(" ") and text.strip() and self.is_single(text[1:]):
            return f": {text[1:]!r} is one, if the space goes to the end of the prompts"
        if not text.startswith(" ") and self.is_single(f" {text}"):
            return f": {f' {text}'!r} is one"
        first = token_texts(self.tokenizer, self.pieces(text)[:1])
        usable = first and first[0].strip() and self.is_single(first[0])
        return f": choose another, or use its first token, {first[0]!r}" if usable else ": choose another"

    def _answer(self, answer: Answer, index: int, field: str) -> tuple[int, ...]:
        if not isinstance(answer, str):
            return (answer,) if isinstance(answer, int) else answer
        ids = self.pieces(answer)
        if not ids or any(self._is_unknown(token, answer) for token in ids):
            raise InputError(
                f"{field} answer {answer!r} of prompt {index} is not in the tokenizer's vocabulary; use one that is"
            )
        return tuple(ids)

    def _named(self, tokens: tuple[int, ...]) -> str:
        text = ", ".join(map(str, tokens))
        return text if self.tokenizer is None else f"{self.tokenizer.decode(list(tokens))!r} (id {text})"

    def _is_unknown(self, token: int, text: str) -> bool:
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        return token == unknown and text.strip() != self.tokenizer.unk_token

    def _check_vocabulary(self, name: str, rows: list[list[int]]) -> None:
        for index, row in enumerate(rows):
            if row and max(row) >= self.d_vocab:
                raise InputError(
                    f"{name} of prompt {index} holds the token id {max(row)}, but the model's vocabulary has "
                    f"{self.d_vocab} tokens"
                )

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        if self.tokenizer is None:
            raise InputError(
                "the model has no tokenizer, and the prompts are strings: load the model with tokenizer=, or make "
                "the task from token ids with Task.from_tokens"
            )
        for text in texts:
            readable("a text", text)
        # BOS is added by `texts`, so that tokenizers which add it themselves do not add it twice
        return [list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
