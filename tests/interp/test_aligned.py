"""Corrupted prompts aligned span by span: circuits and scores against slow runs with counterparts written by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from attribution import attribute
from interp import ComputationalGraph
from interp.errors import InputError
from interp.setting import Setting
from interp.tasks.notes import notes
from interp.tasks.task import Task
from tests import oracle
from tests.oracle import TOLERANCE, error

CLEAN = [[0, 5, 6, 7, 9], [0, 4, 5, 6, 9]]
CORRUPTED = [[0, 5, 5, 8, 7, 9], [0, 4, 3, 9]]  # a word more in the first span, one less in the second
SPANS = [{"a": (1, 3), "b": (3, 4)}, {"a": (1, 2), "b": (2, 4)}]
THERE = [{"a": (1, 4), "b": (4, 5)}, {"a": (1, 2), "b": (2, 3)}]
# of each clean position the corrupted ones that stand for it
COUNTERPARTS = {
    "end": [[[0], [2], [3], [4], [5]], [[0], [1], [], [2], [3]]],
    "mean": [[[0], [1, 2, 3], [1, 2, 3], [4], [5]], [[0], [1], [2], [2], [3]]],
}


def _task(align="end", answers=([[[8]], [[7]]], [[[11]], [[12]]])):
    task = Task.from_tokens("t", CLEAN, CORRUPTED, *answers, spans=SPANS)
    return task.aligned(THERE, align)


def _other(model, prompts, align):
    """What sources give in the corrupted prompts, each run alone, where clean positions stand."""
    found = {name: value.clone() for name, value in oracle.source_outputs(model, prompts.clean).items()}
    for row, tokens in enumerate(CORRUPTED):
        alone = oracle.source_outputs(model, torch.tensor([tokens]))
        for position, there in enumerate(COUNTERPARTS[align][row]):
            for name, value in alone.items():
                if there:
                    found[name][row, position] = value[0, there].mean(0)
    return found


@torch.no_grad()
@pytest.mark.parametrize("align", ["end", "mean"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_circuits_and_exact_scores_are_slow_runs(name, align):
    model, slow, task = oracle.model_of(name), oracle.expanded(name), _task(align)
    graph, prompts = ComputationalGraph.of(model), task.prompts(model)
    draw = torch.Generator().manual_seed(2)
    masks = torch.stack([graph.edge_mask & (torch.rand(graph.shape, generator=draw) < p) for p in (0.1, 0.5, 0.9)])
    other = _other(slow, prompts, align)
    found = Setting(model, task).measure(masks)
    expected = oracle.circuit_values(slow, prompts, [(set(graph.edges(mask)), other) for mask in masks])
    assert error(found.circuits, expected) < TOLERANCE

    full = Setting(model, task).measure(graph.edge_mask[None])
    assert error(full.circuits[0], full.clean) < 1e-12
    said = [oracle.run(slow, torch.tensor([tokens]))[0][0, -1] for tokens in CORRUPTED]
    empty = torch.stack([logits[a] - logits[b] for logits, a, b in zip(said, (8, 7), (11, 12), strict=True)])
    assert error(full.empty, empty) < TOLERANCE

    edges = list(graph.edges())[::7]
    clean = oracle.source_outputs(slow, prompts.clean)
    cases = [(edge, clean[edge.split("->")[0]] - other[edge.split("->")[0]]) for edge in edges]
    scores = attribute(model, task, "exact", edges=edges, quiet=True)
    patched = oracle.edges_moved(slow, prompts, cases)
    values = torch.stack([scores.values[graph.edge_index(edge)] for edge in edges])
    assert error(values, (full.clean - patched).mean(1)) < TOLERANCE


def test_an_inserted_word_is_no_difference_outside_of_its_span():
    model = oracle.model_of("gpt2")
    short, long = [0, 5, 6, 7, 9], [0, 5, 5, 6, 7, 9]
    task = Task.from_tokens("t", [short], [long], [[8]], [[11]], spans={"a": (1, 2)}).aligned({"a": (1, 3)})
    prompts = task.prompts(model)
    assert prompts.counterparts.tolist() == [[[0, 1], [2, 3], [3, 4], [4, 5], [5, 6]]]
    assert prompts.first_difference.tolist() == [1]
    scores = attribute(model, task, "eap", positions="all", quiet=True)
    assert scores.spans == (1, 2, 3, 4)
    turned = prompts.turned()
    assert turned.counterparts.tolist() == [[[0, 1], [0, 0], [1, 2], [2, 3], [3, 4], [4, 5]]]
    assert prompts.select([0]).counterparts.equal(prompts.counterparts)


def test_answers_of_several_tokens_have_rows_that_are_aligned():
    model = oracle.model_of("gpt2")
    prompts = _task(answers=([[[8, 3]], [[7]]], [[[11]], [[12, 4, 2]]])).prompts(model)
    assert prompts.n_rows == 4
    behind = prompts.counterparts[:, 5:].tolist()  # the answers' own tokens; padding has none
    none = [0, 0]
    assert behind == [[[6, 7], none], [none, none], [none, none], [[4, 5], [5, 6]]]
    scores = attribute(model, _task(answers=([[[8, 3]], [[7]]], [[[11]], [[12, 4, 2]]])), "eap", quiet=True)
    assert scores.values.abs().max() > 0


def test_filed_noted_and_hashed(tmp_path):
    model = oracle.model_of("gpt2")
    task = _task("mean")
    again = Task.from_frame(task.to_frame())
    assert again.prompts(model).counterparts.equal(task.prompts(model).counterparts)
    assert task.to_dict()["sha256"] != _task("end").to_dict()["sha256"]
    assert (
        "aligned span by span, each from its end, with the mean over a corrupted span at 2 positions"
        in (notes(task.prompts(model))[0])
    )
    assert "at their ends" in notes(Task.from_tokens("t", CLEAN, CORRUPTED, [[8], [7]], [[1], [2]]).prompts(model))[0]


def test_equal_spans_are_position_by_position():
    model = SimpleNamespace(tokenizer=None, cfg=SimpleNamespace(d_vocab=20))
    task = Task.from_tokens("t", [[0, 5, 6]], [[0, 7, 6]], [[8]], [[9]], spans={"a": (1, 2)}).aligned({"a": (1, 2)})
    assert task.prompts(model).corrupted_lengths is None


@pytest.mark.parametrize(
    ("spans", "align", "words"),
    [
        ([{"a": (1, 4)}, {"a": (1, 2)}], "end", "prompt 0 has the spans ['a', 'b'] and its corrupted version ['a']"),
        ([{"b": (1, 4), "a": (4, 5)}, THERE[1]], "end", "in the same order"),
        (THERE, "start", "align='start'"),
        ([{"a": (1, 4), "b": (4, 5)}, {"a": (1, 2), "b": (2, 9)}], "end", "out of the prompt"),
    ],
)
def test_refused(spans, align, words):
    model = oracle.model_of("gpt2")
    with pytest.raises(InputError) as raised:
        Task.from_tokens("t", CLEAN, CORRUPTED, [[8], [7]], [[1], [2]], spans=SPANS).aligned(spans, align).prompts(
            model
        )
    assert words in str(raised.value)


def test_refused_where_logits_are_read():
    model = oracle.model_of("gpt2")
    task = Task.from_tokens("t", [[0, 5, 6]], [[0, 5, 5, 6]], [[8]], [[9]], spans={"a": (1, 3)})
    with pytest.raises(InputError, match="logits of prompt 0 are read at position 2"):
        task.aligned({"a": (1, 4)}, "mean").prompts(model)
    assert task.aligned({"a": (1, 4)}).prompts(model).counterparts.tolist() == [[[0, 1], [2, 3], [3, 4]]]
    with pytest.raises(InputError, match="prompt 0 has no spans"):
        Task.from_tokens("t", [[0, 5]], [[0, 6]], [[8]], [[9]]).aligned({"a": (0, 1)})
