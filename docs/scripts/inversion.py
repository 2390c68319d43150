"""Prints the tables of docs/inversion.md: prompts of SmolLM2 from its hidden states, and how far states lie apart.

    python docs/scripts/inversion.py [--folder FOLDER] [--small]

Takes about an hour on one core. Every row is kept in the folder, and a second start goes on with what is missing;
`--small` inverts two prompts of six tokens at two layers.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from interp import Result, load_model
from interp.inversion import GradientOrder, Inversion, Order, RandomOrder, hidden_states, injectivity, invert
from interp.tables import markdown_table
from interp.tasks.encoding import Encoder

ROOT = Path(__file__).parent.parent.parent
PROMPTS, TOKENS, SEED = 100, 20, 0
LAYERS = {1: 100, 15: 20, 30: 20}  # prompts that are inverted
BRUTE = 5  # tokens that are found by trying all in random order
HALF = 2  # prompts of the model in bfloat16
PART = 5  # prompts that are kept together


def main() -> None:
    """Rows as they come, then the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("inversion"))
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    layers, brute, tokens = ({1: 2, 2: 1}, 1, 6) if given.small else (LAYERS, BRUTE, TOKENS)
    exact, half = load_model("smollm2-135m"), load_model("smollm2-135m", dtype="bfloat16")
    prompts = windows(exact, 10 if given.small else PROMPTS, tokens)

    def kept(name: str, make: Callable[..., Result], *of: Any) -> Any:
        path = given.folder / f"{name}-{tokens}.json"
        if not path.exists():
            make(*of).save(path)
        return Result.load(path)

    def table(name: str, model: Any, source: Any, own: list[list[int]], layer: int, order: Order) -> dict[str, Any]:
        parts = range(0, len(own), PART)
        found = [
            kept(f"{name}-{layer}-{at}", inverted, model, source, own[at : at + PART], layer, order) for at in parts
        ]
        print(f"{name}, layer {layer}: {sum(sum(one.complete) for one in found)} of {len(own)}", flush=True)
        return row(name, type(order).__name__, found)

    gradient, chance, few, last = GradientOrder(), RandomOrder(SEED, batch=1024), prompts[:HALF], max(layers)
    rows = [table("float32", exact, exact, prompts[:n], layer, gradient) for layer, n in layers.items()]
    rows += [table("random order", exact, exact, [prompts[0][: brute + 1]], layer, chance) for layer in layers]
    rows += [table("bfloat16", half, half, few, layer, gradient) for layer in layers if layer != last]
    rows += [table("states rounded", exact, half, few, layer, gradient) for layer in layers if layer != last]
    print(markdown_table(pd.DataFrame(rows)))
    apart = kept("injectivity", injectivity, exact, prompts)
    print(markdown_table(apart.to_frame()[lambda frame: frame["layer"].isin([0, 1, 5, 10, 15, 20, 25, 29, 30])]))


def windows(model: Any, n: int, tokens: int) -> list[list[int]]:
    """Pieces of the documentation, from words' beginnings on, with BOS in front."""
    encoder, drawn = Encoder(model), random.Random(SEED)
    words = " ".join((ROOT / name).read_text(encoding="utf-8") for name in ("LICENSE", "CONTRIBUTING.md")).split()
    found: dict[tuple[int, ...], None] = {}
    while len(found) < n:
        start = drawn.randrange(len(words) - tokens)
        found[tuple(encoder.texts([" ".join(words[start : start + tokens])])[0][:tokens])] = None
    return [list(ids) for ids in found]


def inverted(model: Any, source: Any, prompts: list[list[int]], layer: int, order: Order) -> Inversion:
    """Prompts from the states that `source` has of them, BOS known."""
    states = [hidden_states(source, torch.tensor([ids]), layer)[0] for ids in prompts]
    return invert(model, states, layer, order=order, known=[prompts[0][0]])


def row(name: str, order: str, parts: list[Inversion]) -> dict[str, Any]:
    """A row of the table."""
    found = pd.concat([one.found for one in parts])
    complete = [whole for one in parts for whole in one.complete]
    margin = (found["runner_up"] / found["distance"].clip(lower=1e-12)).min()
    return {
        "layer": parts[0].layer,
        "what": name,
        "order": order,
        "recovered": f"{sum(complete)} of {len(complete)}",
        "tokens": len(found),
        "tried, median": found["tried"].median(),
        "tried, mean": found["tried"].mean(),
        "tried, most": found["tried"].max(),
        "seconds a token": found["seconds"].mean(),
        "largest distance": f"{found['distance'].max():.1e}",
        "smallest runner-up": f"{found['runner_up'].min():.1e}",
        "smallest margin": f"{margin:.3g}",
    }


if __name__ == "__main__":
    main()
