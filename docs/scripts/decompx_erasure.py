"""Writes docs/decompx-erasure.md: DecompX against other token methods by erasure, on a real encoder classifier.

    python -m docs.scripts.decompx_erasure

Trains a sentiment classifier on MiniLM (`benchmarks/models/minilm.py`) and explains its predictions on held-out
sentences. Takes a few minutes on two CPU cores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import attribution
from benchmarks.models.minilm import train
from interp.files import write_text
from metrics.explanation.baselines import Delete, Token
from metrics.explanation.erasure import Erasure, erasure

DOCS = Path(__file__).parent.parent
N = 100
METHODS: dict[str, dict[str, Any]] = {
    "decompx": {},
    "gradient-x-input": {},
    "integrated-gradients": {"steps": 32},
    "occlusion": {"window": 1, "baseline": "mask"},
    "attention-rollout": {},
    "random": {},
}


def main() -> None:
    """Explain, erase, and write the page."""
    model, tokenizer, texts, labels = train(seed=0)
    texts, labels = texts[:N], labels[:N]
    found = {
        name: attribution.tokens(model, texts, method=name, tokenizer=tokenizer, **settings)
        for name, settings in METHODS.items()
    }
    first = found["decompx"]
    real = first.mask & ~torch.isin(first.ids, torch.tensor(tokenizer.all_special_ids))
    correct = float((first.target[:, 0] == torch.as_tensor(labels)).float().mean())

    def predict(ids: Tensor) -> Tensor:
        with torch.no_grad():
            mask = (ids != tokenizer.pad_token_id).long()
            return model(input_ids=ids, attention_mask=mask).logits.softmax(-1)

    ids = first.ids.masked_fill(~first.mask, tokenizer.pad_token_id)
    tables = {}
    for how, rule in {"masked": Token(tokenizer.mask_token_id), "deleted": Delete(tokenizer.pad_token_id)}.items():
        tables[how] = {
            name: erasure(predict, ids, each.values, real=real, target=first.target[:, 0], baseline=rule, quiet=True)
            for name, each in found.items()
        }
    seconds = {name: each.seconds for name, each in found.items()}
    write_text(DOCS / "decompx-erasure.md", page(tables, seconds, correct))


def page(tables: dict[str, dict[str, Erasure]], seconds: dict[str, float], correct: float) -> str:
    """The page: one table for each way to erase."""
    parts = [
        "# DecompX against other token methods, by erasure\n",
        "Made by `docs/scripts/decompx_erasure.py`: a sentiment classifier trained on the real MiniLM encoder, "
        f"{N} held-out sentences whose words of judgement were not in the training set ({correct:.0%} right). What "
        "is explained is the predicted class. Comprehensiveness: how far its probability falls without the most "
        "important 1, 5, 10, 20 and 50 % of the tokens (at least one; higher is better). Sufficiency: how far it "
        "falls with these alone (lower is better). Special tokens are neither scored nor erased. 95 % bootstrap "
        "intervals over sentences. Both measures run the model on text unlike what it was trained on: read them as a "
        "comparison, no more.\n",
    ]
    for how, table in tables.items():
        lines = ["| method | comprehensiveness | sufficiency | seconds |", "| --- | --- | --- | --- |"]
        for name, result in table.items():
            both = f"{result['comprehensiveness']} | {result['sufficiency']}"
            lines.append(f"| {name} | {both} | {seconds[name]:.1f} |")
        parts += [f"## Tokens {how}\n", "\n".join(lines) + "\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
