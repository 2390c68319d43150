"""Writes docs/dictionary-circuits.md: a dictionary trained on one MLP of SmolLM2-135M beside the same MLP's neurons.

    python docs/scripts/dictionary_circuits.py
    python docs/scripts/dictionary_circuits.py --prompts 8 --tokens 640 --steps 20 --folder trial   # writes elsewhere

Takes about six minutes of one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence, Set
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor

from attribution import EAPIG, Dictionary
from attribution.units.nodes import scores_of_nodes
from interp import Interval, Run, Setting, Task, load_model, tasks
from interp.dictionaries import capture_activations, train_dictionary
from interp.dictionaries.sets import DictionarySet
from interp.files import write_text
from interp.interval import Estimate
from interp.kernels.evaluate import CircuitValues
from interp.node_mask import NodeMask
from metrics.circuit.evaluate import faithfulness_in
from metrics.circuit.node_scores import NodeScores

DOCS = Path(__file__).parent.parent
TASKS = ("agreement", "capitals")
OTHERS = ("ioi", "multiple_choice")  # whose words no training saw
PROMPTS, TOKENS, STEPS = 64, 65_536, 2_000
DRAWN = 280  # prompts of each task whose words are read; there are 296 of capitals
FEATURES, ACTIVE, ROW = 1_536, 32, 64  # as many features as neurons; active at once; tokens in a row
SIZES = (3, 10, 30, 100, 300)


def main(prompts: int, tokens: int, steps: int, folder: Path) -> None:
    """Choose the layer, train, measure, and write the page."""
    began = time.process_time()
    model = load_model("smollm2-135m")
    pairs = {name: _split(model, name, prompts) for name in TASKS}
    scores = {name: scores_of_nodes(scoring, EAPIG(), "neuron").values for name, (scoring, _) in pairs.items()}
    layer = busiest(list(scores.values()))
    measured = {text for halves in pairs.values() for half in halves for text in texts_of(half.task)}
    rows = text_of(model, tokens, measured)
    read = read_at(model, rows, layer)
    fresh = max(1, len(rows) // 8)
    seen = read[:-fresh, 1:].flatten(0, 1)  # a row's first token has norms of its own in many layers
    dictionary = train_dictionary(seen, layer, "mlp", FEATURES, ACTIVE, steps=steps)
    left = unexplained(dictionary, read[-fresh:])
    others = in_rows(model, "\n".join(prompts_of(model, OTHERS)))
    unseen = ~torch.isin(others, rows[:-fresh, 1:])
    left |= {"new": new_left(dictionary, read_at(model, others, layer), unseen), "count": int(unseen[:, 1:].sum())}
    own = read_at(model, in_rows(model, "\n".join(sorted(measured))), layer)
    left |= {"own": unexplained(dictionary, own)["left"], "distinct": len(rows[:-fresh, 1:].unique())}
    print(f"layer {layer}: {len(seen):,} tokens; of fresh ones is left {left}", flush=True)
    tables = {}
    for name, (scoring, held_out) in pairs.items():
        tables[name] = compared(scoring, held_out, scores[name], dictionary, SIZES)
        print(name, tables[name], flush=True)
    about = {"layer": layer, "tokens": len(seen), "steps": steps, "prompts": prompts // 2, **left}
    about["minutes"] = (time.process_time() - began) / 60
    write_text(folder / "dictionary-circuits.md", page(about, tables))


def _split(model: Any, name: str, prompts: int) -> tuple[Setting, Setting]:
    task = getattr(tasks, name)(n=prompts, seed=0, model=model)
    return Setting(model, task, run=Run(quiet=True)).split(0.5, 0)


def busiest(scores: Sequence[Tensor]) -> int:
    """The layer whose neurons have the largest share of what helps, on average over tasks."""
    helps = [one.clamp(min=0).sum(1) for one in scores]
    return int(torch.stack([one / one.sum() for one in helps]).mean(0).argmax())


def texts_of(task: Task) -> list[str]:
    """Clean and corrupted prompts of a task."""
    return [text for one in task.examples for text in (one.clean, one.corrupted)]


def text_of(model: Any, count: int, kept_out: Set[str]) -> Tensor:
    """Rows of tokens, mixed: other prompts of the tasks, Python's help on its topics, and this documentation."""
    own = "\n".join(text for text in prompts_of(model, TASKS) if text not in kept_out)
    manual = "\n".join(topics[name] for name in sorted(topics))
    pages = "\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md")))
    prompts = in_rows(model, own)[: count // 3 // ROW]
    most = (count // ROW - len(prompts)) // 2
    rows = torch.cat((prompts, in_rows(model, manual)[:most], in_rows(model, pages)[:most]))
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0), device="cpu")]


def prompts_of(model: Any, names: Sequence[str]) -> list[str]:
    """Other prompts of some tasks, each once, mixed."""
    texts = sorted({text for name in names for text in texts_of(getattr(tasks, name)(n=DRAWN, seed=1, model=model))})
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0), device="cpu")
    return [texts[i] for i in order.tolist()]


def in_rows(model: Any, text: str) -> Tensor:
    """A text's tokens, [row, token]."""
    tokens = torch.tensor(model.tokenizer(text)["input_ids"], device="cpu")
    return tokens[: len(tokens) // ROW * ROW].view(-1, ROW)


def read_at(model: Any, rows: Tensor, layer: int) -> Tensor:
    """What the MLP of a layer gives at each token, [row, token, d_model]."""
    return torch.cat([capture_activations(model, one, layer, "mlp")[0] for one in rows.split(32)]).view(*rows.shape, -1)


def unexplained(dictionary: Dictionary, read: Tensor) -> dict[str, float]:
    """What the dictionary leaves of rows of tokens, [row, token, d_model], in shares.

    `whole`: of the variance, the rows' first tokens included; `left`: without these; `median`: of these others' single
    squared distances from their mean, the median.
    """
    rest, spread = _squares(dictionary, read)
    others, own = _squares(dictionary, read[:, 1:])
    return {
        "whole": float(rest.sum() / spread.sum()),
        "left": float(others.sum() / own.sum()),
        "median": float((others / own).median()),
    }


def new_left(dictionary: Dictionary, read: Tensor, new: Tensor) -> float:
    """The share of the variance that it leaves of those tokens that are `new`, [row, token], no row's first."""
    rest, spread = _squares(dictionary, read[:, 1:])
    return float(rest[new[:, 1:]].sum() / spread[new[:, 1:]].sum())


def _squares(dictionary: Dictionary, read: Tensor) -> tuple[Tensor, Tensor]:
    """By token what is left, and its distance from the mean, both squared."""
    rest = read - dictionary.decode(dictionary.encode(read))
    return rest.float().square().sum(-1), (read - read.mean((0, 1))).float().square().sum(-1)


def compared(
    scoring: Setting, held_out: Setting, neurons: Tensor, dictionary: Dictionary, sizes: Sequence[int]
) -> dict[str, dict[str, Estimate]]:
    """Faithfulness on the held-out prompts by size: the layer's neurons, and features, of largest signed score.

    All else is live: 1 is the model, 0 the model whose MLP at that layer does what it does in the corrupted prompt.
    """
    layer = dictionary.layer
    ranked = neurons[layer]
    everything = torch.ones_like(neurons, dtype=torch.bool)
    masks = []
    for size in (0, *sizes):
        mask = everything.clone()
        mask[layer] = False
        mask[layer, ranked.argsort(descending=True, stable=True)[:size]] = True
        masks.append(NodeMask(mask, "neuron"))
    values = held_out.measure(masks)
    found = {"neurons": _by_size(CircuitValues(values.clean, values.circuits[0], values.circuits[1:]), sizes)}
    units = DictionarySet([dictionary], "ablated")
    of_features = scoring.under(features=units), held_out.under(features=units)
    scores = NodeScores(scores_of_nodes(of_features[0], EAPIG(), "feature").values, "feature").among(of_features[0])
    values = of_features[1].measure([scores.top(size, 1.0) for size in (*sizes, scores.count)])
    found["features"] = _by_size(values.only(slice(len(sizes))), sizes)
    found["all features"] = _by_size(values.only(slice(len(sizes), None)), [scores.count])
    return found


def _by_size(values: CircuitValues, sizes: Sequence[int]) -> dict[str, Estimate]:
    return {f"{size:,}": one for size, one in zip(sizes, faithfulness_in(values, Interval()), strict=True)}


def page(about: dict[str, Any], tables: dict[str, dict[str, dict[str, Estimate]]]) -> str:
    """What was measured."""
    parts = [INTRODUCTION.format(**about)]
    for name, rows in tables.items():
        parts.append(f"\n## {name}\n\n| size | neurons | features |\n| --- | --- | --- |")
        for size, one in rows["neurons"].items():
            parts.append(f"| {size} | {_cell(one)} | {_cell(rows['features'][size])} |")
        ((count, whole),) = rows["all features"].items()
        parts.append(f"\nAll {count} features, without what they leave: {_cell(whole)}.")
    return "\n".join(parts) + "\n"


def _cell(value: Estimate) -> str:
    return f"{value.value:z.2f} [{value.low:z.2f}, {value.high:z.2f}]"


INTRODUCTION = f"""# A dictionary beside the neurons of the same layer

Made by `docs/scripts/dictionary_circuits.py` on SmolLM2-135M in {{minutes:.0f}} minutes of one core. The MLP of layer
{{layer}} is the one whose neurons have the largest share of the scores that help, on average over both tasks. A TopK
dictionary of its output, of {FEATURES:,} features, as many as the layer has neurons, of which {ACTIVE} are active at
once, was trained for {{steps:,}} steps on {{tokens:,}} tokens, {{distinct:,}} different ones among them, in rows of
{ROW} without the first token of each: other prompts of both tasks, with none of those measured here, Python's help on
its topics, and this documentation.

Of the variance of what the MLP gives it leaves {{left:.3f}} of fresh tokens of that text (with the first token of each
row {{whole:.3f}}; of the median token {{median:.3f}} of the squared distance from the mean), {{own:.3f}} of the prompts
that are measured here, and {{new:.2f}} of {{count:,}} tokens of other tasks' prompts that training had none of. This
layer stands near the embedding: what is new to the dictionary is above all a new word.

Faithfulness: 1 is the model; 0 the model in which this one MLP writes what it writes in the corrupted prompt. Circuits
are the neurons, or features, of largest signed score (`eap-ig`) on {{prompts}} prompts; all others of the layer are
ablated, of features also what the dictionary leaves, and everything else is live. Figures are of {{prompts}} other
prompts, with 95 % bootstrap intervals over prompts. A dictionary of so little text is a small one: read the page as
what such a dictionary does, not as what dictionaries do."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--folder", type=Path, default=DOCS)
    torch.set_num_threads(1)
    main(**vars(parser.parse_args()))
