"""Prints the tables of docs/retrieval-heads.md: heads of SmolLM2 that copy, and contexts that contradict memory.

    python docs/scripts/retrieval.py [--small]

Takes about five minutes on one core; `--small` asks fewer questions under fewer conditions. Rows are printed as they
come.
"""

from __future__ import annotations

import argparse
import contextlib
import random
from collections.abc import Iterator
from typing import Any

import torch

from attribution import DeCoRe, masked_heads, needle_prompts, retrieval_heads
from interp import load_model
from interp.tables import markdown_table
from metrics.statistics import share

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo",
    "Russia": "Moscow", "England": "London", "Greece": "Athens", "Austria": "Vienna", "Portugal": "Lisbon",
    "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw", "Hungary": "Budapest",
    "Turkey": "Ankara", "Cuba": "Havana", "Peru": "Lima", "Kenya": "Nairobi",
}  # fmt: skip
PROMPT = (
    "In this story the capital of {country} is {other}. Everybody who lives in {country} has been to {other}. "
    "In this story, the capital of {country} is"
)
NEEDLES, LENGTH, STEPS, HEADS, TOKENS, SEED = 6, 60, 12, 10, 3, 0


def main() -> None:
    """The map of scores, then exact match under each way of answering."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    model = load_model("smollm2-135m")
    needles = needle_prompts(model, n=NEEDLES, length=LENGTH, seed=1)[: 2 if small else None]
    found = retrieval_heads(model, needles, steps=STEPS)
    print(repr(found), "\n", markdown_table(found.top(HEADS)), flush=True)
    top, others = found.heads(HEADS), found.random_heads(HEADS, SEED)
    questions = asked(6 if small else len(CAPITALS))
    ids, mask = padded(model, [text for text, _, _ in questions])
    for name, around, processors in ways(model, top, others, mask, small):
        with around:
            made = model.original_model.generate(
                ids, attention_mask=mask, logits_processor=processors, max_new_tokens=TOKENS, do_sample=False,
                pad_token_id=0, eos_token_id=None,
            )  # fmt: skip
        said = [text.strip() for text in model.tokenizer.batch_decode(made[:, ids.shape[1] :])]
        cells = [
            str(share([text.startswith(question[side]) for text, question in zip(said, questions, strict=True)]))
            for side in (1, 2)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def asked(n: int) -> list[tuple[str, str, str]]:
    """Prompts, the answer of the context, and the answer of memory."""
    drawn = random.Random(SEED)
    countries = list(CAPITALS)[:n]
    found = []
    for country in countries:
        other = drawn.choice([CAPITALS[one] for one in countries if one != country])
        found.append((PROMPT.format(country=country, other=other), other, CAPITALS[country]))
    return found


def padded(model: Any, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, padded on the left, where generation wants it."""
    rows = [model.to_tokens(text)[0] for text in texts]
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :], mask[i, longest - len(row) :] = row, 1
    return ids, mask


def ways(
    model: Any, top: list[str], others: list[str], mask: torch.Tensor, small: bool
) -> Iterator[tuple[str, contextlib.AbstractContextManager[Any], list[Any]]]:
    """Ways of answering: a name, what is put around generation, and processors."""
    plain = contextlib.nullcontext()
    yield "the model", plain, []
    yield f"{HEADS} retrieval heads masked", masked_heads(model, top), []
    yield f"{HEADS} random heads of the same layers masked", masked_heads(model, others), []
    yield "DeCoRe, entropy", plain, [DeCoRe(model, top, attention_mask=mask)]
    if not small:
        yield "DeCoRe with the random heads", plain, [DeCoRe(model, others, attention_mask=mask)]
        yield "DeCoRe, 0.5", plain, [DeCoRe(model, top, 0.5, attention_mask=mask)]
        yield "DeCoRe, entropy, prefix masked", plain, [DeCoRe(model, top, prefix="masked", attention_mask=mask)]


if __name__ == "__main__":
    main()
