"""`truth`: questions with a true and a false answer; `statements`: true and false sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from interp import numbers
from interp.errors import InputError, choose
from interp.tasks.examples import Example
from interp.tasks.facts.pairs import KINDS, Pair, draw_pairs
from interp.tasks.generate import encoder_of
from interp.tasks.task import Task

Form = Literal["completion", "choice", "judgement"]
FORMS = ("completion", "choice", "judgement")
_ABOUT = "the true answer, not a false one"


@dataclass(frozen=True)
class Statement:
    """A sentence that is true or false; statements with one `pair` are of the same two facts."""

    text: str
    true: bool
    kind: str
    pair: int


@numbers.checked(n=numbers.COUNT)
def statements(n: int = 400, seed: int = 0, *, kinds: Sequence[str] | None = None) -> list[Statement]:
    """True and false sentences: "The capital of France is Rome.", "A rose is not a kind of metal."

    Four in a row are of one pair of facts: each fact with its own answer and with the other's. So half of all are true,
    and each word stands as often in a true sentence as in a false one: neither words nor length tell.

    Args:
        n: how many, a multiple of 4.
        seed: what pairs are drawn from.
        kinds: some of capitals, arithmetic, categories, opposites, negations, which take turns; None: all.

    Raises `InputError` for other kinds and numbers, and for more than there are: of all kinds 640.

    >>> found = statements(4, kinds=["opposites"])
    >>> [one.true for one in found], found[0].text.startswith("The opposite of")
    ([True, False, True, False], True)
    """
    _refuse_uneven(n, 4, "statements")
    return [
        Statement(f"{fact.stem} {answer}.", answer == true, pair.kind, number)
        for number, pair in enumerate(draw_pairs(n // 4, seed, _kinds(kinds), lambda one, other: True))
        for fact, true, false in pair.asked()
        for answer in (true, false)
    ]


@numbers.checked(n=numbers.COUNT)
def truth(
    n: int = 64,
    seed: int = 0,
    model: Any = None,
    *,
    form: Form = "completion",
    kinds: Sequence[str] | None = None,
) -> Task:
    """Questions with a true answer (correct) and a false one (incorrect), balanced for words, length and place.

    Facts come in pairs of one kind whose answers are exchanged (Paris is true of France and false of Italy, Rome the
    other way round), so that each word is as often the true answer as the false one. No fact is in two pairs. Forms:

    - `completion`: "The capital of France is" is continued by " Paris", not " Rome"; two questions to a pair, the
      corrupted prompt being the other;
    - `choice`: the question with both answers behind A and B, continued by the letter; both questions of a pair list
      the same two in the same order, so that A and B are true equally often; corrupted, the two are exchanged;
    - `judgement`: "The capital of France is Rome. Is this true or false? It is" is continued by " false"; four
      statements to a pair, and "false or true?" in every second one of a kind; corrupted, it is the other answer.

    Args:
        n: number of questions: a multiple of 2, of `judgement` of 4. Those of a pair stand beside each other; keep them
            together where questions are split (`groups=` of `metrics.value_votes`).
        seed: what pairs are drawn from; fewer questions are the first of more.
        model: whose tokenizer both answers of a pair are to be equally many tokens of.
        form: `completion`, `choice` or `judgement`.
        kinds: some of capitals, arithmetic, categories, opposites, negations, which take turns; None: all.

    Raises `InputError` for unknown forms and kinds, and where there are no `n` questions.

    >>> one, other = truth(2).examples
    >>> one.correct == other.incorrect
    True
    """
    choose("form", form, FORMS)
    each = 4 if form == "judgement" else 2
    _refuse_uneven(n, each, f"questions of form={form!r}")
    chosen, encoder = _kinds(kinds), encoder_of(model)

    def fit(one: str, other: str) -> bool:
        return encoder is None or len({len(encoder.pieces(f" {answer}")) for answer in (one, other)}) == 1

    write = {"completion": _completions, "choice": _choices, "judgement": _judgements}[form]
    pairs = draw_pairs(n // each, seed, chosen, fit)
    examples = [example for number, pair in enumerate(pairs) for example in write(pair, number // len(chosen))]
    return Task("truth", examples, description=_ABOUT, seed=seed, parameters={"form": form, "kinds": list(chosen)})


def _kinds(kinds: Sequence[str] | None) -> tuple[str, ...]:
    given = KINDS if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in given:
        choose("kinds", kind, KINDS)
    if not given or len(set(given)) < len(given):
        raise InputError(f"kinds={list(given)} must name at least one kind, and none twice; None means all")
    return given


def _refuse_uneven(n: int, each: int, what: str) -> None:
    if n % each:
        raise InputError(f"n={n} {what} cannot be balanced; give a multiple of {each}, such as {n + each - n % each}")


def _completions(pair: Pair, turn: int) -> list[Example]:
    stems = [pair.first.stem, pair.second.stem]
    return [
        Example(fact.stem, stem, (f" {true}",), (f" {false}",))
        for (fact, true, false), stem in zip(pair.asked(), reversed(stems), strict=True)
    ]


def _choices(pair: Pair, turn: int) -> list[Example]:
    listed = pair.first.answer, pair.second.answer
    found = []
    for fact, true, _ in pair.asked():
        right = listed.index(true)
        letters = (" A",), (" B",)
        found.append(
            Example(
                _choice(fact.question, listed), _choice(fact.question, listed[::-1]), letters[right], letters[1 - right]
            )
        )
    return found


def _choice(question: str, listed: tuple[str, ...]) -> str:
    lines = [f"{letter}: {answer}" for letter, answer in zip("AB", listed, strict=True)]
    return "\n".join([f"Question: {question}", *lines, "Answer:"])


def _judgements(pair: Pair, turn: int) -> list[Example]:
    order = "false or true" if turn % 2 else "true or false"
    ask: Callable[[str], str] = f"{{}}. Is this {order}? It is".format
    found = []
    for fact, *answers in pair.asked():
        for own, other, words in zip(answers, answers[::-1], ((" true", " false"), (" false", " true")), strict=True):
            found.append(Example(ask(f"{fact.stem} {own}"), ask(f"{fact.stem} {other}"), (words[0],), (words[1],)))
    return found
