"""The slow reference for scores and circuits: whole runs of the bridge, steered by hooks and nothing else.

No line of `interp.kernels` is used, nor any formula of theirs. What a target reads is written into the input of
its norm, what then comes out of its own projection (or MLP) is carried over into an otherwise untouched run, and
gradients are autograd's with respect to what was written. Sources, targets and edges go by their names.

The bridge has one key and one value per key-value head; `expanded` gives the equal model with one per query head.
Several copies of the prompts may be run at once, stacked along the batch, one for each thing to be tried.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.models import load_model
from interp.tasks.prompts import Prompts
from interp.tasks.task import Task
from tests.tiny import ARCHITECTURES, VARIANTS, shared, stay_in_float64, tiny_module

MODELS = (*ARCHITECTURES, *VARIANTS)
TOLERANCE = 1e-10  # relative to the largest value: all is float64, and measured errors are below 1e-13

Edits = Mapping[str, Callable[[Tensor], Tensor]]  # what is done to the tensor that passes a hook point
LETTERS = {letter: f"attn.{letter}.hook_out" for letter in "qkv"}  # hook points in a block, [batch, pos, head, d_head]
Outputs = dict[str, Tensor]  # by source: what it adds to the residual stream, [batch, pos, d_model]


model_of = shared  # whoever changes a model makes another


@functools.cache
def expanded(name: str) -> Any:
    """The same model with the keys and values of its groups repeated: one key-value head per query head."""
    module = tiny_module(name)
    config: Any = module.config
    heads, groups = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    if groups in (None, heads):
        return model_of(name)
    state = {
        key: value.unflatten(0, (groups, -1)).repeat_interleave(heads // groups, 0).flatten(0, 1)
        if re.search(r"[kv]_proj\.(weight|bias)$", key)
        else value
        for key, value in module.state_dict().items()
    }
    twin = tiny_module(name, num_key_value_heads=heads)
    twin.load_state_dict(state)
    model = load_model(twin)
    stay_in_float64(model)
    return model


def mixed_task(model: Any, chosen: Sequence[int] = (0, 1, 2)) -> Task:
    """Prompts of 7, 5 and 6 tokens whose versions differ at 1 2 4, at 4 (the last), and at 3 5 (the last)."""
    generator = torch.Generator().manual_seed(5)
    clean, changes, correct, incorrect, masks = [], [], [], [], []
    for length, places in ((7, (1, 2, 4)), (5, (4,)), (6, (3, 5))):
        tokens = torch.randint(2, model.cfg.d_vocab, (11,), generator=generator).tolist()
        clean.append(tokens[:7])
        changes.append([(t + 17) % model.cfg.d_vocab if i in places else t for i, t in enumerate(tokens[:7])])
        correct.append(tokens[7 : 9 if length == 7 else 8])
        incorrect.append(tokens[9 : 11 if length == 5 else 10])
        masks.append([i < length for i in range(7)])
    everything = Task.from_tokens("mixed", clean, changes, correct, incorrect, attention_mask=masks)
    return everything.select(chosen)


class _Seen(Exception):
    """All that a run was made for has come by."""


def passing(model: Any, tokens: Tensor, edits: Edits | None, keep: Iterable[str]) -> dict[str, Tensor]:
    """What passes the hook points in `keep` (behind the edits), in a run that goes no further than the last of them."""
    kept: dict[str, Tensor] = {}
    with contextlib.suppress(_Seen):
        run(model, tokens, edits, keep, kept)
    return kept


def run(
    model: Any,
    tokens: Tensor,
    edits: Edits | None = None,
    keep: Iterable[str] = (),
    into: dict[str, Tensor] | None = None,
) -> tuple[Tensor, Any]:
    """One run of the bridge: its logits, and what passed the hook points in `keep` (behind the edits).

    With `into` it ends, as `_Seen`, when they all have passed.
    """
    kept: dict[str, Tensor] = {} if into is None else into
    wanted = set(keep)

    def edit(x: Tensor, hook: Any, change: Callable[[Tensor], Tensor]) -> Tensor:
        return change(x)

    def record(x: Tensor, hook: Any, name: str) -> Tensor:
        kept[name] = x
        if into is not None and kept.keys() == wanted:
            raise _Seen
        return x  # else what was kept would be a view off the path of gradients

    hooks = [(name, functools.partial(edit, change=change)) for name, change in (edits or {}).items()]
    hooks += [(name, functools.partial(record, name=name)) for name in wanted]
    return model.run_with_hooks(tokens, fwd_hooks=hooks), kept


def write(value: Tensor) -> Callable[[Tensor], Tensor]:
    """An edit that puts `value` in the place of what comes by, once for each stacked copy of the prompts."""
    return lambda x: value.repeat(len(x) // len(value), *[1] * (value.ndim - 1))


def logit_difference(logits: Tensor, prompts: Prompts) -> Tensor:
    """[copies * n, pos, vocab] -> [copies, n]: mean correct less mean incorrect logit at the last real position."""
    copies = logits.unflatten(0, (-1, len(prompts)))
    values = []
    for i, length in enumerate(prompts.lengths.tolist()):
        last = copies[:, i, length - 1]
        correct, incorrect = ([id for id in ids[i].tolist() if id >= 0] for ids in (prompts.correct, prompts.incorrect))
        values.append(last[:, correct].mean(1) - last[:, incorrect].mean(1))
    return torch.stack(values, 1)


def error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest of their values (which must not be all zero)."""
    assert ours.shape == theirs.shape
    largest = float(theirs.abs().max())
    assert largest > 1e-6
    return float((ours - theirs).abs().max()) / largest


# ---- where things are


def norm_input(model: Any, kind: str, layer: int) -> str:
    """The hook point of what the targets of a layer read, in front of their norm."""
    if kind == "logits":
        return "ln_final.hook_in"
    two_norms = hasattr(model.blocks[layer], "ln2")  # GPT-J feeds attention and MLP from one
    return f"blocks.{layer}.ln{2 if kind == 'mlp' and two_norms else 1}.hook_in"


def norm_inputs(model: Any) -> list[str]:
    points = [norm_input(model, kind, i) for i in range(len(model.blocks)) for kind in ("attention", "mlp")]
    return [*dict.fromkeys(points), "ln_final.hook_in"]


def sub_layer(model: Any, part: str, layer: int) -> str:
    """The hook point of what attention ("attn") or the MLP ("mlp") adds to the residual stream."""
    post = {"attn": "ln1_post", "mlp": "ln2_post"}[part]
    return f"blocks.{layer}.{post if hasattr(model.blocks[layer], post) else part}.hook_out"


def output_points(model: Any) -> list[str]:
    """All hook points that `outputs` wants kept."""
    points = ["blocks.0.hook_in"]
    for i, block in enumerate(model.blocks):
        points += [f"blocks.{i}.attn.o.hook_in", sub_layer(model, "mlp", i)]
        points += [f"blocks.{i}.ln1_post.{end}" for end in ("hook_in", "hook_out") if hasattr(block, "ln1_post")]
    return points


def place_of(target: str) -> tuple[str, int, str, int]:
    """Kind, layer, letter and head of a target: "a1.h2<q>" -> ("attention", 1, "q", 2)."""
    if target == "logits":
        return "logits", -1, "", -1
    if target.startswith("m"):
        return "mlp", int(target[1:]), "", -1
    found = re.fullmatch(r"a(\d+)\.h(\d+)<([qkv])>", target)
    assert found is not None
    return "attention", int(found[1]), found[3], int(found[2])


# ---- what sources give


def head_outputs(model: Any, layer: int, kept: Mapping[str, Tensor]) -> Outputs:
    """What each head of a layer adds to the residual stream.

    The output projection of that head's z alone, less what the projection gives for nothing at all (its bias).
    A norm behind attention multiplies every coordinate by a factor that the run decides: heads share it.
    """
    block = model.blocks[layer]
    z = kept[f"blocks.{layer}.attn.o.hook_in"]
    project, nothing = block.attn.o.original_component, torch.zeros_like(z)
    factor: Tensor | float = 1.0
    if hasattr(block, "ln1_post"):
        summed = kept[f"blocks.{layer}.ln1_post.hook_in"]
        factor = torch.where(summed == 0, 0.0, kept[f"blocks.{layer}.ln1_post.hook_out"] / summed)  # 0: no head speaks
    result = {}
    for head in range(z.shape[2]):
        alone = nothing.clone()
        alone[:, :, head] = z[:, :, head]
        result[f"a{layer}.h{head}"] = (project(alone.flatten(2)) - project(nothing.flatten(2))) * factor
    return result


def outputs(model: Any, kept: Mapping[str, Tensor]) -> Outputs:
    """What every source adds to the residual stream of a run, sources in order."""
    result = {"input": kept["blocks.0.hook_in"]}
    for layer in range(len(model.blocks)):
        result |= head_outputs(model, layer, kept)
        result[f"m{layer}"] = kept[sub_layer(model, "mlp", layer)]
    return result


def source_outputs(model: Any, tokens: Tensor) -> Outputs:
    """`outputs` of a plain run."""
    return dict(_remembered(model, tuple(map(tuple, tokens.tolist()))))


@functools.lru_cache(maxsize=64)
@torch.no_grad()
def _remembered(model: Any, tokens: tuple[tuple[int, ...], ...]) -> Outputs:
    return outputs(model, run(model, torch.tensor(tokens), keep=output_points(model))[1])


def places(model: Any, like: Tensor) -> Tensor:
    """The learned positions of right-padded prompts, as the model's own module gives them."""
    module, every = model.pos_embed.original_component, torch.arange(like.shape[1])
    found = module(every) if type(module) is torch.nn.Embedding else module(None, position_ids=every[None])
    return found.expand_as(like)


def ablated_outputs(model: Any, prompts: Prompts, ablation: str) -> Outputs:
    """What every source gives when it is corrupted; means are over real positions of the clean prompts."""
    if ablation == "patch":
        return source_outputs(model, prompts.corrupted)
    clean, real = source_outputs(model, prompts.clean), prompts.mask[..., None]
    if ablation.startswith("zero"):
        nothing = {name: torch.zeros_like(x) for name, x in clean.items()}
        return nothing | ({"input": places(model, clean["input"])} if ablation == "zero-token" else {})
    over = 0 if ablation == "mean-positional" else (0, 1)
    return {
        name: ((x * real).sum(over, keepdim=True) / real.sum(over, keepdim=True)).expand_as(x)
        for name, x in clean.items()
    }


def differences(model: Any, prompts: Prompts, ablation: str = "patch") -> Outputs:
    """Clean less corrupted output of every source."""
    clean, other = source_outputs(model, prompts.clean), ablated_outputs(model, prompts, ablation)
    return {name: clean[name] - other[name] for name in clean}


# ---- runs in which one target reads something else


def reading(model: Any, tokens: Tensor, base: Edits, reads: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Logits of stacked copies: in copy i, target i alone reads `reads[i]` where its norm's input was.

    `base` are the edits that make the run they depart from.
    """
    stacked, n = tokens.repeat(len(reads), 1), len(tokens)
    copies = [slice(i * n, (i + 1) * n) for i in range(len(reads))]
    inputs: dict[str, list[tuple[Any, Tensor]]] = {}  # by hook point: where what is put
    given: dict[str, list[Any]] = {}  # by hook point: where what a target made of it is carried over
    for (target, value), copy in zip(reads, copies, strict=True):
        kind, layer, letter, head = place_of(target)
        inputs.setdefault(norm_input(model, kind, layer), []).append((copy, value))
        if kind == "mlp":
            given.setdefault(f"blocks.{layer}.mlp.hook_out", []).append(copy)
        elif kind == "attention":
            given.setdefault(f"blocks.{layer}.{LETTERS[letter]}", []).append((copy, slice(None), head))
    final = {point: put(inputs.pop(point)) for point in ["ln_final.hook_in"] if point in inputs}
    read = {point: put(values) for point, values in inputs.items()}
    would = passing(model, stacked, {**base, **read}, given) if given else {}
    carried = {point: put([(at, would[point][at]) for at in where]) for point, where in given.items()}
    return run(model, stacked, {**carried, **base, **final})[0]


def put(values: Sequence[tuple[Any, Tensor]]) -> Callable[[Tensor], Tensor]:
    """An edit that puts each value at its index and leaves the rest as it comes by."""

    def edit(x: Tensor) -> Tensor:
        result = x.clone()
        for at, value in values:
            result[at] = value
        return result

    return edit


@torch.no_grad()
def edges_moved(model: Any, prompts: Prompts, cases: Sequence[tuple[str, Tensor]]) -> Tensor:
    """[case, n]: the objective of the clean run in which one edge alone gives so much less to its target.

    A case is an edge by name and what its source's output is lowered by, [n, pos, d_model].
    """
    _, clean = run(model, prompts.clean, keep=norm_inputs(model))
    targets = [edge.split("->")[1] for edge, _ in cases]
    reads = [
        (target, clean[norm_input(model, *place_of(target)[:2])] - less)
        for target, (_, less) in zip(targets, cases, strict=True)
    ]
    return logit_difference(reading(model, prompts.clean, {}, reads), prompts)


@torch.no_grad()
def edge_effects(model: Any, prompts: Prompts, edges: Sequence[str], ablations: Sequence[str]) -> Tensor:
    """[ablation, edge]: how much the mean objective falls when that edge alone is corrupted."""
    deltas = [differences(model, prompts, ablation) for ablation in ablations]
    cases = [(edge, delta[edge.split("->")[0]]) for delta in deltas for edge in edges]
    clean = logit_difference(model(prompts.clean), prompts)
    return (clean - edges_moved(model, prompts, cases)).mean(1).unflatten(0, (len(ablations), len(edges)))


@torch.no_grad()
def node_effects(model: Any, prompts: Prompts, ablations: Sequence[str]) -> Tensor:
    """[ablation, source]: how much the mean objective falls when that source is corrupted for all its readers."""
    deltas = [differences(model, prompts, ablation) for ablation in ablations]
    cases = [(source, delta[source]) for delta in deltas for source in delta]
    lowered: dict[str, Tensor] = {}  # by hook point: what its output is lowered by, all cases stacked
    for i, (source, less) in enumerate(cases):
        point = "blocks.0.hook_in"
        if source != "input":
            layer = int(source[1:].split(".")[0])
            point = sub_layer(model, "mlp" if source.startswith("m") else "attn", layer)
        lowered.setdefault(point, torch.zeros(len(cases), *less.shape, dtype=less.dtype))[i] = less
    edits = {point: lambda x, less=less: x - less.flatten(0, 1) for point, less in lowered.items()}
    patched = logit_difference(run(model, prompts.clean.repeat(len(cases), 1), edits)[0], prompts)
    clean = logit_difference(model(prompts.clean), prompts)
    return (clean - patched).mean(1).unflatten(0, (len(ablations), -1))


# ---- gradients


def input_gradients(model: Any, prompts: Prompts, base: Edits, targets: Sequence[str]) -> dict[str, Tensor]:
    """By target: the gradient [n, pos, d_model] of the objective, summed over prompts, at what it alone reads."""
    with torch.no_grad():
        _, kept = run(model, prompts.clean, base, keep=norm_inputs(model))
    leaves = [kept[norm_input(model, *place_of(target)[:2])].clone().requires_grad_() for target in targets]
    value = logit_difference(reading(model, prompts.clean, base, list(zip(targets, leaves, strict=True))), prompts)
    if not value.requires_grad:  # the run's edits stand between these targets and the logits
        return {target: torch.zeros_like(leaf) for target, leaf in zip(targets, leaves, strict=True)}
    gradients = torch.autograd.grad(value.sum(), leaves, allow_unused=True, materialize_grads=True)
    return dict(zip(targets, gradients, strict=True))


def output_gradients(model: Any, prompts: Prompts) -> dict[str, Tensor]:
    """By source: the gradient [n, pos, d_model] of the objective, summed over prompts, at what the source adds."""
    points = {"blocks.0.hook_in": ["input"]}
    for layer in range(len(model.blocks)):
        heads = [name for name in source_outputs(model, prompts.clean[:1]) if name.startswith(f"a{layer}.")]
        points[sub_layer(model, "attn", layer)] = heads  # they are added to each other, then to the stream
        points[sub_layer(model, "mlp", layer)] = [f"m{layer}"]
    leaves: dict[str, Tensor] = {}

    def add(x: Tensor, point: str) -> Tensor:
        leaves[point] = torch.zeros_like(x).requires_grad_()
        return x + leaves[point]

    logits, _ = run(model, prompts.clean, {point: functools.partial(add, point=point) for point in points})
    logit_difference(logits, prompts).sum().backward()
    return {source: leaves[point].grad for point, sources in points.items() for source in sources}


def input_edits(clean: Outputs, corrupted: Outputs, alpha: float) -> Edits:
    """The run whose embedding is `alpha` clean and the rest corrupted."""
    return {"blocks.0.hook_in": write(alpha * clean["input"] + (1 - alpha) * corrupted["input"])}


def site_edits(model: Any, prompts: Prompts, corrupted: Outputs, site: str, alpha: float) -> tuple[Edits, list[str]]:
    """The clean run with one sub-layer's output set between clean and corrupted; and the sources it consists of.

    `site` is "input", "a{layer}" (all its heads, and the output bias, which is never corrupted) or "m{layer}".
    """
    clean = source_outputs(model, prompts.clean)
    if site == "input":
        return input_edits(clean, corrupted, alpha), ["input"]
    sources = [name for name in clean if name == site or name.startswith(f"{site}.")]
    point = sub_layer(model, "mlp" if site.startswith("m") else "attn", int(site[1:]))
    with torch.no_grad():
        output = run(model, prompts.clean, keep=[point])[1][point]
    change = sum(clean[name] - corrupted[name] for name in sources)
    return {point: write(output - (1 - alpha) * change)}, sources


# ---- circuits


@torch.no_grad()
def circuit_values(
    model: Any, prompts: Prompts, circuits: Sequence[tuple[set[str] | Mapping[str, Any], Outputs]]
) -> Tensor:
    """[circuit, n]: the objective when every target reads current sources through the edges that a circuit holds.

    A circuit is its edges by name, with what corrupted sources give (`ablated_outputs`). Targets are worked off in
    order; each reads the sum over sources of (current if the edge is in the circuit, else corrupted), and the
    output biases of attention, which belong to no head. Edges may have weights (numbers, or `[n, pos]`): so much of the
    current source is read, and the rest corrupted.
    """
    return logit_difference(circuit_logits(model, prompts, circuits), prompts)


@torch.no_grad()
def circuit_logits(
    model: Any, prompts: Prompts, circuits: Sequence[tuple[set[str] | Mapping[str, Any], Outputs]]
) -> Tensor:
    """[circuits * row, pos, vocab]: the logits of the same."""
    n, count = len(prompts.clean), len(circuits)
    tokens = prompts.clean.repeat(count, 1)
    inner = [f"blocks.{i}.{point}" for i in range(len(model.blocks)) for point in ("hook_in", *LETTERS.values())]
    _, clean = run(model, prompts.clean, keep=["blocks.0.hook_in", *norm_inputs(model), *inner])
    # by source: [circuit, n, pos, d_model]
    current = {"input": torch.stack([clean["blocks.0.hook_in"]] * count)}

    corrupted = {source: torch.stack([other[source] for _, other in circuits]) for source in circuits[0][1]}

    def weights(edge: str) -> Tensor:
        found = [edges.get(edge, 0.0) if isinstance(edges, Mapping) else float(edge in edges) for edges, _ in circuits]
        spread = [torch.as_tensor(one, dtype=torch.float64).expand(prompts.clean.shape) for one in found]
        return torch.stack(spread)[..., None]

    def read(target: str, sources: Iterable[str]) -> Tensor:
        result = torch.zeros_like(current["input"])
        for source in sources:
            if source.startswith("bias"):
                result += current[source]
            else:
                weight = weights(f"{source}->{target}")
                result += weight * current[source] + (1 - weight) * corrupted[source]
        return result.flatten(0, 1)

    for layer, block in enumerate(model.blocks):
        before = list(current)
        points = {letter: f"blocks.{layer}.{name}" for letter, name in LETTERS.items()}
        targets = [(letter, head) for letter, point in points.items() for head in range(clean[point].shape[2])]
        reads = torch.cat([read(f"a{layer}.h{head}<{letter}>", before) for letter, head in targets])
        changed = {norm_input(model, "attention", layer): write(reads)}
        would = passing(model, tokens.repeat(len(targets), 1), changed, points.values())
        edits = {
            point: write(
                torch.stack(
                    [
                        would[point].unflatten(0, (len(targets), -1))[i, :, :, head]
                        for i, (of, head) in enumerate(targets)
                        if of == letter
                    ],
                    2,
                )
            )
            for letter, point in points.items()
        }
        now = passing(model, tokens, edits, [p for p in output_points(model) if p.startswith(f"blocks.{layer}.")])
        current |= {name: x.unflatten(0, (count, n)) for name, x in head_outputs(model, layer, now).items()}
        bias = getattr(block.attn.o.original_component, "bias", None)
        current[f"bias{layer}"] = torch.zeros_like(current["input"]) + (0 if bias is None else bias)
        side_by_side = torch.equal(clean[norm_input(model, "mlp", layer)], clean[f"blocks.{layer}.hook_in"])
        point = sub_layer(model, "mlp", layer)
        seen = before if side_by_side else list(current)
        changed = {norm_input(model, "mlp", layer): write(read(f"m{layer}", seen))}
        current[f"m{layer}"] = passing(model, tokens, changed, [point])[point].unflatten(0, (count, n))
    return run(model, tokens, {"ln_final.hook_in": write(read("logits", list(current)))})[0]
