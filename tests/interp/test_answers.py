"""Answers of several tokens, prompts of unequal lengths, texts: against the transformers module and slow runs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import attribute
from interp import ComputationalGraph, Task
from interp.errors import InputError
from interp.kernels.fitting import Fitting
from interp.kernels.soft import soft_values
from interp.objectives import Objective
from interp.setting import Setting
from interp.tasks.encoding import Encoder
from tests import oracle
from tests.oracle import TOLERANCE, error, model_of
from tests.tiny import VOCAB

Pair = tuple[list[int], list[int], list[list[int]], list[list[int]]]


def tokens(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(2, VOCAB, (count,), generator=generator).tolist()


def pairs_of(lengths: Sequence[tuple[int, int]] = ((6, 6), (4, 4), (5, 5)), several: bool = True) -> list[Pair]:
    """Prompts of these clean and corrupted lengths; answers of 2, 3 or 1 tokens, several on one side."""
    draw = torch.Generator().manual_seed(4)
    pairs: list[Pair] = []
    for number, (clean, corrupted) in enumerate(lengths):
        one = tokens(clean, draw)
        other = [*one[:-2], (one[-2] + 9) % VOCAB, one[-1]] if clean == corrupted else tokens(corrupted, draw)
        first = tokens(1, draw)[0]
        correct, incorrect = [[first, *tokens(1 + number % 2, draw)]], [[first + 1, *tokens(number, draw)]]
        if number == 0:
            correct.append(tokens(1, draw))
            incorrect.append([first, *tokens(2, draw)])
        pairs.append((one, other, correct, incorrect) if several else (one, other, [[first]], [[first + 1]]))
    return pairs


def said(model: Any, prompt: list[int], answer: list[int]) -> Tensor:
    """The log-probability of each token of an answer, by the transformers module alone."""
    return _said(model, tuple(prompt), tuple(answer))


@functools.cache
def _said(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tensor:
    logits = model.original_model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    return torch.stack([logits[len(prompt) - 1 + i, token] for i, token in enumerate(answer)])


def by_hand(model: Any, pair: Pair, side: int, name: str) -> Tensor:
    """An objective of one prompt."""
    per_token = name.endswith("per-token")
    correct, incorrect = (
        torch.stack(
            [(each := said(model, pair[side], answer)).sum() / (len(each) if per_token else 1) for answer in some]
        )
        for some in pair[2:]
    )
    if name.startswith("log-probability"):
        return correct.logsumexp(0)
    if name == "probability-difference":
        return correct.exp().sum() - incorrect.exp().sum()
    if name == "accuracy":
        return (correct.max() > incorrect.max()).double()
    return correct.logsumexp(0) - incorrect.logsumexp(0)


NAMES = (
    "logit-difference", "log-probability", "probability-difference", "accuracy", "logit-difference-per-token",
    "log-probability-per-token",
)  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("llama", ((6, 6), (4, 4), (5, 5))),
        ("gpt2", ((6, 4), (4, 4), (3, 5))),
        ("gemma2", ((6, 4), (4, 4), (3, 5))),
    ],
)
def test_the_model_and_the_empty_circuit_say_what_the_module_says(name: str, lengths: Any) -> None:
    model, pairs = model_of(name), pairs_of(lengths)
    setting = Setting(model, Task.from_pairs("t", pairs))
    masks = torch.stack([torch.zeros_like(setting.graph.edge_mask), setting.graph.edge_mask])
    for objective, found in zip(NAMES, setting.measure_all(masks, NAMES), strict=True):
        clean, corrupted = (torch.stack([by_hand(model, pair, side, objective) for pair in pairs]) for side in (0, 1))
        assert error(found.clean, clean) < TOLERANCE, objective
        assert error(found.circuits[1], clean) < TOLERANCE, objective
        if objective != "accuracy" or corrupted.any():
            assert error(found.empty, corrupted) < TOLERANCE, objective
            assert error(found.circuits[0], corrupted) < TOLERANCE, objective


@torch.no_grad()
def test_kl_is_the_mean_over_the_tokens_of_all_answers() -> None:
    model, pairs = model_of("llama"), pairs_of()
    setting = Setting(model, Task.from_pairs("t", pairs), objective="kl")
    expected = []
    for clean, corrupted, correct, incorrect in pairs:
        each = []
        for answer in correct + incorrect:
            p, q = (
                model.original_model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                for prompt in (clean, corrupted)
            )
            each.append(-(p.exp() * (p - q)).sum(-1))
        expected.append(torch.cat(each).mean())
    found = setting.measure(torch.zeros_like(setting.graph.edge_mask)[None])
    assert error(found.circuits[0], torch.stack(expected)) < TOLERANCE
    assert found.clean.abs().max() < 1e-12


def test_answers_of_one_token_are_the_same_in_rows_of_their_own() -> None:
    model = model_of("gpt2")
    task = Task.from_pairs("t", pairs_of(several=False))
    plain, rows = task.prompts(model), Encoder(model).prompts(task.examples, rows=True)
    assert plain.answers is None
    assert rows.answers is not None
    assert (len(rows), rows.n_rows) == (3, 6)
    found = []
    for prompts in (plain, rows):
        setting = Setting(model, task)
        setting.__dict__["prompts"] = prompts
        mask = torch.rand(setting.graph.shape, generator=torch.Generator().manual_seed(0)) < 0.6
        found.append(setting.measure((mask & setting.graph.edge_mask)[None]).circuits)
    assert error(found[1], found[0]) < 1e-12


# ---- edges: brute-force patching of whole runs of the bridge, objectives from plain lists


def aligned(model: Any, prompts: Any) -> oracle.Outputs:
    """What sources give in the corrupted prompts, each run alone, at the clean prompts' positions from the end on."""
    clean = oracle.source_outputs(model, prompts.clean)
    found = {name: value.clone() for name, value in clean.items()}
    lengths = prompts.lengths if prompts.corrupted_lengths is None else prompts.corrupted_lengths
    for row, (own, other) in enumerate(zip(prompts.lengths.tolist(), lengths.tolist(), strict=True)):
        alone = oracle.source_outputs(model, prompts.corrupted[row : row + 1, :other])
        shared = min(own, other)
        for name, value in alone.items():
            found[name][row, own - shared : own] = value[0, other - shared :]
    return found


def differences_said(logits: Tensor, pairs: list[Pair]) -> Tensor:
    """[copies * row, pos, vocab] -> [copies, n]: the difference of log-probabilities, rows in the order of answers."""
    n_rows = sum(len(correct) + len(incorrect) for *_, correct, incorrect in pairs)
    copies, row, values = logits.unflatten(0, (-1, n_rows)).log_softmax(-1), 0, []
    for clean, _, *sides in pairs:
        both = []
        for side in sides:
            sums = []
            for answer in side:
                at = len(clean) - 1
                sums.append(sum(copies[:, row, at + i, token] for i, token in enumerate(answer)))
                row += 1
            both.append(torch.stack(sums).logsumexp(0))
        values.append(both[0] - both[1])
    return torch.stack(values, 1)


@torch.no_grad()
@pytest.mark.parametrize(("name", "lengths"), [("gpt2", ((4, 4), (3, 3))), ("llama", ((5, 3), (3, 4), (4, 4)))])
def test_exact_scores_are_those_of_brute_force_patching(name: str, lengths: Any) -> None:
    model, pairs = oracle.expanded(name), pairs_of(lengths)
    task = Task.from_pairs("t", pairs)
    prompts, scores = task.prompts(model), attribute(model, task, "exact", quiet=True)
    edges = list(scores.graph.edges(scores.graph.edge_mask))[::5]
    other, clean = aligned(model, prompts), oracle.source_outputs(model, prompts.clean)
    logits, kept = oracle.run(model, prompts.clean, keep=oracle.norm_inputs(model))
    reads = []
    for source, target in (edge.split("->") for edge in edges):
        point = oracle.norm_input(model, *oracle.place_of(target)[:2])
        reads.append((target, kept[point] - (clean[source] - other[source])))
    patched = differences_said(oracle.reading(model, prompts.clean, {}, reads), pairs)
    expected = (differences_said(logits, pairs) - patched).mean(1)
    found = torch.stack([scores.values[scores.graph.edge_index(edge)] for edge in edges])
    assert error(found, expected) < TOLERANCE


@pytest.mark.parametrize("lengths", [((6, 6), (4, 4), (5, 5)), ((6, 4), (4, 4), (3, 5))], ids=["equal", "unequal"])
def test_gradients_are_finite_differences_and_those_of_attribution_patching(lengths: Any) -> None:
    setting = Setting(model_of("gpt2"), Task.from_pairs("t", pairs_of(lengths)))
    graph, draw = setting.graph, torch.Generator().manual_seed(1)
    direction = torch.randn(graph.shape, generator=draw, dtype=torch.float64) * graph.edge_mask
    weights = torch.rand(graph.shape, generator=draw, dtype=torch.float64) * graph.edge_mask
    step = 1e-5

    def soft(*each: Tensor) -> Any:
        return soft_values(setting.anatomy, graph, setting.prompts, torch.stack(each), setting.ablator, setting.goal)

    around = soft(weights - step * direction, weights + step * direction).values.mean(1)
    slope = (soft(weights).gradients[0] * direction).sum()
    assert abs(float((around[1] - around[0]) / (2 * step) - slope)) < 1e-6 * abs(float(slope))
    at_clean = soft(graph.edge_mask.double()).gradients[0]
    assert error(attribute(setting.model, setting.task, "eap", quiet=True).values, at_clean) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "gptj"])
def test_circuits_of_unequal_lengths_are_slow_runs_aligned_at_the_end(name: str) -> None:
    model, slow = model_of(name), oracle.expanded(name)
    task = Task.from_pairs("t", pairs_of(((6, 4), (4, 4), (3, 5)), several=False))
    graph, prompts = ComputationalGraph.of(model), task.prompts(model)
    draw = torch.Generator().manual_seed(2)
    masks = torch.stack([graph.edge_mask & (torch.rand(graph.shape, generator=draw) < p) for p in (0.1, 0.5, 0.9)])
    other = aligned(slow, prompts)
    expected = oracle.circuit_values(slow, prompts, [(set(graph.edges(mask)), other) for mask in masks])
    found = Setting(model, task).measure(masks)
    assert error(found.circuits, expected) < TOLERANCE
    one_by_one = torch.stack([Setting(model, task.select([i])).measure(masks).circuits[:, 0] for i in range(3)], 1)
    assert error(found.circuits, one_by_one) < TOLERANCE


@pytest.mark.parametrize(
    "method", ["eap", "eap-ig", "eap-ig-activations", "relp", "information-flow", "clean-corrupted"]
)
def test_batches_change_no_score(method: str) -> None:
    model, task = model_of("llama"), Task.from_pairs("t", pairs_of(((6, 4), (4, 4), (3, 5))))
    whole = attribute(model, task, method, quiet=True).values
    assert error(attribute(model, task, method, batch_size=1, quiet=True).values, whole) < TOLERANCE


def test_eap_ig_along_embeddings_adds_up_for_unequal_lengths() -> None:
    """Scores of the input's edges sum to what the objective loses on the way from clean to corrupted embeddings."""
    model, task = model_of("gpt2"), Task.from_pairs("t", pairs_of(((6, 4), (4, 4), (3, 5))))
    scores = attribute(model, task, "eap-ig", steps=64, quiet=True)
    prompts = task.prompts(model)
    clean, other = oracle.source_outputs(model, prompts.clean)["input"], aligned(model, prompts)["input"]
    logits = [
        oracle.run(model, prompts.clean, {"blocks.0.hook_in": lambda x, v=value: v})[0] for value in (clean, other)
    ]
    values = [differences_said(one, pairs_of(((6, 4), (4, 4), (3, 5)))).mean() for one in logits]
    assert float(scores.values[0].sum()) == pytest.approx(float(values[0] - values[1]), rel=0.02)


# ---- ablations that need no counterpart


@pytest.mark.parametrize("ablation", ["zero", "mean", "mean-positional", "optimal"])
def test_other_ablations_need_no_corrupted_prompts(ablation: str) -> None:
    model, pairs = model_of("llama"), pairs_of(((6, 4), (4, 4), (3, 5)))
    bare = Task.from_pairs("t", [(clean, None, *answers) for clean, _, *answers in pairs])
    constants = Fitting(steps=1) if ablation == "optimal" else None
    tasks = Task.from_pairs("t", pairs), bare
    settings = [Setting(model, task, ablation, constants=constants) for task in tasks]
    empty, full = (torch.zeros_like(settings[0].graph.edge_mask), settings[0].graph.edge_mask)
    first, second = (setting.measure(torch.stack([empty, full])) for setting in settings)
    assert torch.equal(first.circuits, second.circuits)
    assert error(second.circuits[1], second.clean) < TOLERANCE
    under = {"ablation": ablation, "constants": settings[0].fitted, "quiet": True}
    scores = [attribute(model, task, "eap", **under).values for task in tasks]
    assert torch.equal(scores[0], scores[1])


def test_patching_without_corrupted_prompts_is_refused() -> None:
    bare = Task.from_pairs("t", [(clean, None, *answers) for clean, _, *answers in pairs_of()])
    for use in (lambda: attribute(model_of("gpt2"), bare, "eap"), lambda: Setting(model_of("gpt2"), bare).meter):
        with pytest.raises(
            InputError, match=r"ablation='patch' puts in .* the task has none; .* ablation='mean' or 'zero'"
        ):
            use()


# ---- what somebody's own objective sees


@torch.no_grad()
def test_an_objective_of_ones_own_sees_the_last_position_or_the_answer() -> None:
    model, pairs = model_of("llama"), pairs_of()
    setting = Setting(model, Task.from_pairs("t", pairs))
    empty = torch.zeros_like(setting.graph.edge_mask)[None]

    def last(logits: Tensor, prompts: Any, clean: Tensor | None) -> Tensor:
        assert logits.shape == (len(prompts), VOCAB)
        return logits.gather(1, prompts.correct[:, :1])[:, 0]

    def whole(logits: Tensor, prompts: Any, clean: Tensor | None) -> Tensor:
        answer = prompts.answer
        assert logits.shape == (*answer.shape, VOCAB)
        each = logits.log_softmax(-1).gather(2, answer.clamp(min=0)[..., None])[..., 0]
        return torch.where(answer >= 0, each, 0.0).sum(1)

    found = setting.measure_all(empty, [last, Objective("whole", whole, positions="answer")])
    for side, name in ((0, "clean"), (1, "empty")):
        logits = [model.original_model(torch.tensor([pair[side]])).logits[0, -1, pair[2][0][0]] for pair in pairs]
        assert error(getattr(found[0], name), torch.stack(logits)) < TOLERANCE
        sums = [said(model, pair[side], pair[2][0]).sum() for pair in pairs]
        assert error(getattr(found[1], name), torch.stack(sums)) < TOLERANCE
    with pytest.raises(InputError, match="positions='all' is unknown"):
        Objective("mine", last, positions="all")  # type: ignore[arg-type]


# ---- texts


@torch.no_grad()
@pytest.mark.parametrize("positions", [None, slice(2, None), slice(1, -2), 3, -2, "middle"])
def test_texts_are_scored_at_their_own_next_tokens(positions: Any) -> None:
    model, draw = model_of("gpt2"), torch.Generator().manual_seed(3)
    texts, others = [tokens(n, draw) for n in (7, 5)], [tokens(n, draw) for n in (7, 6)]
    task = Task.from_texts("passages", texts, others, positions=positions, spans={"front": (0, 1), "middle": (2, 5)})
    positions = slice(2, 5) if positions == "middle" else positions
    setting = Setting(model, task)
    found = setting.measure(torch.zeros_like(setting.graph.edge_mask)[None])
    for own, name in ((texts, "clean"), (others, "empty")):
        expected = []
        for text, run in zip(texts, own, strict=True):
            logits = model.original_model(torch.tensor([run])).logits[0, len(run) - len(text) :].log_softmax(-1)
            at = [
                i for i in (range(len(text)) if positions is None else _at(positions, len(text))) if i + 1 < len(text)
            ]
            expected.append(torch.stack([logits[i, text[i + 1]] for i in at]).mean())
        assert error(getattr(found, name), torch.stack(expected)) < TOLERANCE
    assert attribute(model, task, "eap", quiet=True).values.any()


def _at(positions: Any, length: int) -> range:
    every = range(length)
    if isinstance(positions, int):
        return every[positions : positions + 1]
    return every if positions is None else every[positions]


def test_a_continuation_is_an_answer() -> None:
    model = model_of("gpt2")
    first = Task.from_texts("t", [([5, 6, 7], "x")]).examples[0]
    assert (first.correct, first.scored) == (("x",), None)
    with pytest.raises(
        InputError, match=r"text 0 is read from position 0 on, and its corrupted version, .*slice\(2, None\)"
    ):
        Task.from_texts("t", [[5, 6, 7, 8, 9]], [[5, 6, 7]]).prompts(model)
    with pytest.raises(InputError, match=r"prompt 0 has 3 tokens, and positions=\[2, 3\] leaves none"):
        Task.from_texts("t", [[5, 6, 7]], positions=2).prompts(model)
