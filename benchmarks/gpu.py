"""All that a GPU changes, in one table: floor ratios and memory in float32 and bfloat16, and a model of 8B in bfloat16.

`python -m benchmarks gpu [FILE]` writes the table (CSV). Without CUDA it runs on the CPU, says so, and takes a model of
two layers of that width.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch

from attribution import attribute
from benchmarks import circuits, half, scoring
from benchmarks.common import Ratio, load, random_task
from benchmarks.streamed import PROMPTS, TOKENS, config_of
from circuits.cost import measured
from interp import load_model

COLUMNS = ["model", "dtype", "what", "seconds", "floor", "ratio", "memory_gb"]
FILE = "bench-gpu.csv"


def device() -> torch.device:
    """Where the benchmarks run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def timed(name: str, dtype: str, what: str, ratio: Ratio) -> tuple[Any, ...]:
    """A row of the table."""
    return name, dtype, what, min(ratio.ours), min(ratio.floor), ratio.median, math.nan


def small(dtype: str) -> Iterator[tuple[Any, ...]]:
    """SmolLM2-135M beside its floors, and the memory of one scoring."""
    name = "SmolLM2-135M"
    model, plain = load(dtype)
    for what, ratio, _ in (*scoring.rows(model, plain), *circuits.rows(model, plain)):
        yield timed(name, dtype, what, ratio)
    task = random_task(16, 256, model.cfg.d_vocab)
    with measured(device()) as cost:
        attribute(model, task, "eap", quiet=True)
    yield name, dtype, "eap, 16 prompts of 256 tokens", cost.seconds, math.nan, math.nan, cost.memory / 1e9


def large(layers: int | None) -> Iterator[tuple[Any, ...]]:
    """A random model in the shape of Llama 3.1 8B, loaded in bfloat16."""
    from transformers import LlamaForCausalLM

    config = config_of("8b", layers)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # eight billion weights in float32 would take 32 GB first
    try:
        with device():
            module = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model, name = load_model(module), f"Llama 8B shape, {config.num_hidden_layers} layers"
    held = sum(one.nbytes for one in module.parameters()) / 1e9
    yield name, "bfloat16", "weights", math.nan, math.nan, math.nan, held
    for method in ("eap", "eap-ig"):
        task = random_task(PROMPTS, TOKENS, config.vocab_size)
        attribute(model, task, method, quiet=True)  # what is loaded once
        with measured(device()) as cost:
            attribute(model, task, method, quiet=True)
        yield name, "bfloat16", method, cost.seconds, math.nan, math.nan, cost.memory / 1e9


def main(arguments: list[str] | None = None) -> None:
    """Print the rows as they come, and write the table."""
    file = (arguments or [FILE])[0]
    on_gpu, started, found = device().type == "cuda", time.perf_counter(), []
    print(
        torch.cuda.get_device_name() if on_gpu else "There is no CUDA here: the same on the CPU, and two layers of 8B"
    )
    for rows in (small("float32"), small("bfloat16"), large(None if on_gpu else 2)):
        for row in rows:
            found.append(row)
            print("  ".join(f"{one:.3f}" if isinstance(one, float) else one for one in row), flush=True)
    pd.DataFrame(found, columns=COLUMNS).to_csv(file, index=False)
    half.main()
    print(f"{len(found)} rows in {file} after {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
