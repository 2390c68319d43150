"""Names of MIB: its models, its tasks, which it pairs, and the sizes of its circuits."""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import InputError
from interp.selection import LADDER_FRACTIONS


@dataclass(frozen=True)
class MibModel:
    """A model of the benchmark: its id on the Hugging Face hub, and the shape of its graph."""

    hub: str
    layers: int
    heads: int


MODELS = {
    "gpt2": MibModel("openai-community/gpt2", 12, 12),
    "qwen2.5": MibModel("Qwen/Qwen2.5-0.5B", 24, 14),
    "gemma2": MibModel("google/gemma-2-2b", 26, 8),
    "llama3": MibModel("meta-llama/Llama-3.1-8B", 32, 32),
}
# task and model as the leaderboard pairs them; InterpBench's circuit is known, so that it is scored by AUROC
COLUMNS = (
    *(f"ioi_{model}" for model in (*MODELS, "interpbench")),
    *(f"mcqa_{model}" for model in ("qwen2.5", "gemma2", "llama3")),
    "arithmetic-addition_llama3",
    "arithmetic-subtraction_llama3",
    "arc-easy_gemma2",
    "arc-easy_llama3",
    "arc-challenge_llama3",
)
TASKS = tuple(dict.fromkeys(column.split("_")[0] for column in COLUMNS))
# built-in tasks of the same kind, made anew and not MIB's prompts: name and settings
BUILT_IN = {
    "ioi": ("ioi", {}),
    "mcqa": ("multiple_choice", {}),
    "arithmetic-addition": ("arithmetic", {"operation": "addition"}),
    "arithmetic-subtraction": ("arithmetic", {"operation": "subtraction"}),
}
SIZES = LADDER_FRACTIONS[:-1]  # the largest is the whole model


def entry_name(task: str, model: str) -> str:
    """The folder of a task and a model, as MIB reads it: task, underscore, model; no other underscore in the task.

    >>> entry_name("arc_easy", "llama3"), entry_name("ioi", "org/some_model")
    ('arc-easy_llama3', 'ioi_some-model')
    """
    names = [name.split("/")[-1].replace("_", "-") for name in (task, model)]
    for argument, given, name in zip(("task", "model"), (task, model), names, strict=True):
        if not name or name.startswith("."):
            raise InputError(f"{argument}={given!r} cannot name a folder; give a name such as 'ioi' or 'gpt2'")
    return "_".join(names)


def circuit_file(fraction: float) -> str:
    """Name of the file of one of nine circuits: its size in percent of all edges.

    >>> [circuit_file(fraction) for fraction in SIZES[:3]]
    ['0.1.json', '0.2.json', '0.5.json']
    """
    return f"{fraction * 100:g}.json"
