"""Scores by position: they add up to the plain scores, span by span they are those of the rows of that span."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import metrics
from attribution import Scores, attribute, spans
from attribution.edges.gradient import EAPIG
from attribution.edges.mask_ig import MaskIG
from circuits import planted
from interp import Fitting
from interp.errors import InputError
from interp.kernels import contract
from interp.kernels.soft import soft_values
from interp.setting import Setting
from interp.span_mask import SpanMask
from interp.tasks.task import Task
from metrics.circuit.evaluate import faithfulness, measure
from tests.tiny import shared, tiny_task

METHODS = ["eap", "eap-ig", "eap-ig-activations", "clean-corrupted", "relp", "gim", "attnlrp", "cp-lrp", "decompx"]
ABLATIONS = ["patch", "zero", "zero-token", "mean", "mean-positional"]


def _with_spans(task: Task) -> Task:
    """A span at the front, one that stands elsewhere in each prompt, and a rest."""
    tokens = [example.clean for example in task.examples]
    spans = [{"front": (0, 2), "middle": (2 + i % 2, 4)} for i in range(len(tokens))]
    return Task(task.name, task.examples, objective=task.objective, spans=spans)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_spans_add_up(architecture, ablation):
    model = shared(architecture)
    task = _with_spans(tiny_task(model, ragged=True))
    for method in METHODS:
        # under other ablations the rows are others and all else is the same: two methods show it
        if ablation != "patch" and method not in ("relp", "eap-ig-activations"):
            continue
        steps = {"steps": 2} if method.startswith("eap-ig") else {}
        plain = attribute(model, task, method, ablation=ablation, **steps).values
        for positions in ("all", "spans") if ablation == "patch" else ([2, 4],):
            scores = attribute(model, task, method, ablation=ablation, positions=positions, **steps)
            assert scores.values.shape == (len(scores.spans), *plain.shape)
            assert (scores.values.sum(0) - plain).abs().max() <= 1e-12 * plain.abs().max(), (method, positions)


@pytest.mark.parametrize("ablation", ["patch", "mean"])
def test_scores_inside_a_circuit_add_up(ablation):
    model = shared("llama")
    task = _with_spans(tiny_task(model, ragged=True))
    for method, told in (("eap", {}), ("mask-ig", {"steps": 2})):
        told |= {"ablation": ablation, "inside": attribute(model, task, "eap").mask(60, selection="connected")}
        plain = attribute(model, task, method, **told)
        scores = attribute(model, task, method, positions="spans", **told)
        assert scores.spans == ("front", "middle", "rest")
        assert (scores.edge_values - plain.values).abs().max() <= 1e-12 * plain.values.abs().max()
        assert scores.gap is plain.gap or scores.gap == pytest.approx(plain.gap, abs=1e-12)
        assert scores.settings["edges_inside"] == plain.settings["edges_inside"] == int(told["inside"].sum())
        # the same edges at every span are the same circuit
        repeated = SpanMask(told["inside"].repeat(3, 1, 1), scores.spans)
        again = attribute(model, task, method, **{**told, "inside": repeated})
        torch.testing.assert_close(again.values, scores.values, rtol=1e-10, atol=1e-14)
        if method == "eap":
            told |= {"level": "node"}
            of_nodes = [attribute(model, task, "eap", **{**told, "inside": one}) for one in (told["inside"], repeated)]
            torch.testing.assert_close(of_nodes[0].values, of_nodes[1].values, rtol=1e-10, atol=1e-14)
            assert of_nodes[1].spans is None
    # with all weights at 1 the gradient is that of edge attribution patching, span by span
    full = MaskIG(steps=1, quadrature="right", positions="spans")
    eap = attribute(model, task, "eap", positions="spans", ablation=ablation).values
    assert (attribute(model, task, full, ablation=ablation).values - eap).abs().max() <= 1e-10 * eap.abs().max()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_inside_a_circuit_by_position_scores_are_slopes_of_its_weights(architecture):
    """The oracle: how the objective moves when one edge at one span gets a little more, or less, of its weight."""
    model, step = shared(architecture), 1e-5
    task = _with_spans(tiny_task(model, ragged=True))
    mask = attribute(model, task, "eap", positions="spans").mask(90)
    assert 20 < mask.n_edges <= 90
    scores = attribute(model, task, "eap", inside=mask)
    assert scores.spans == mask.spans
    assert scores.settings["edges_inside"] == mask.n_edges
    setting = Setting(model, task)
    outside = torch.where(mask.mask, 0.0, scores.values.abs())
    strongest = [int(some.flatten().argmax()) for some in (torch.where(mask.mask, scores.values.abs(), 0.0), outside)]
    weights = mask.mask.double().repeat(4, 1, 1, 1)
    for number, place in enumerate(strongest):
        for side in (0, 1):
            weights[2 * number + side].view(-1)[place] += step * (1 - 2 * side)
    values = soft_values(
        setting.anatomy, setting.graph, setting.prompts, weights, setting.ablator, setting.goal,
        placed=setting.placed(mask.spans),
    ).values.mean(1)  # fmt: skip
    slopes = (values[0::2] - values[1::2]) / (2 * step)
    torch.testing.assert_close(scores.values.flatten()[strongest], slopes, rtol=1e-6, atol=1e-9)
    assert slopes.abs().min() > 0


def test_shares_of_a_circuit_by_position_add_up_to_what_it_does():
    model = shared("llama")
    task = _with_spans(tiny_task(model))
    mask = attribute(model, task, "eap", positions="spans").mask(60)
    shares = attribute(model, task, "mask-ig", inside=mask, steps=12)
    values = metrics.measure(model, task, mask)
    assert shares.whole == pytest.approx(float((values.circuits[0] - values.empty).mean()), rel=1e-9)
    assert float(shares.values[mask.mask].sum()) == pytest.approx(shares.whole - shares.gap, rel=1e-9)
    assert abs(shares.gap) < 1e-2 * float(shares.values.abs().max())


def test_own_credit_and_small_batches():
    model = shared("llama")
    task = tiny_task(model, n=5, ragged=True)
    told = {"steps": 2, "credit": "own", "positions": "all"}
    whole = attribute(model, task, "eap-ig-activations", **told)
    parts = attribute(model, task, "eap-ig-activations", batch_size=2, checkpointed=True, **told)
    plain = attribute(model, task, "eap-ig-activations", steps=2, credit="own")
    torch.testing.assert_close(whole.values, parts.values, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(whole.edge_values, plain.values, rtol=1e-10, atol=1e-12)


def test_a_position_is_its_own_row():
    """The logits are read at the last position alone, and the input's difference is at the changed token alone."""
    model = shared("llama")
    clean = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 11, 12]])
    corrupted = clean.clone()
    corrupted[:, 2] = torch.tensor([20, 21])
    task = Task.from_tokens("t", clean, corrupted, [[1], [2]], [[3], [4]])
    scores = attribute(model, task, "eap", positions="all")
    assert scores.spans == (2, 3, 4)
    assert scores.values[:-1, :, -1].abs().max() == 0
    assert scores.values[1:, 0].abs().max() == 0
    assert scores.values[0, 0].abs().max() > 0
    zero = attribute(model, task, "eap", positions="all", ablation="zero")
    assert zero.spans == (0, 1, 2, 3, 4)


def test_optimal_constants_padding_and_order():
    """Spans are those of each prompt, wherever it stands and however it is padded."""
    model = shared("gpt2")
    task = _with_spans(tiny_task(model, ragged=True))
    told = {"ablation": "optimal", "constants": Fitting(steps=2), "positions": "spans", "quiet": True}
    scores = attribute(model, task, "eap", **told)
    plain = attribute(model, task, "eap", **{**told, "positions": None, "constants": scores.constants})
    torch.testing.assert_close(scores.values.sum(0), plain.values, rtol=1e-10, atol=1e-13)
    prompts, padded = task.prompts(model), torch.zeros(3, 9, dtype=torch.long)
    mask, corrupted = torch.zeros_like(padded), torch.zeros_like(padded)
    for row, length in enumerate(prompts.lengths.tolist()):
        here = slice(9 - length, 9) if row % 2 else slice(1, 1 + length)
        padded[row, here], corrupted[row, here], mask[row, here] = (
            *(one[row, :length] for one in (prompts.clean, prompts.corrupted)),
            1,
        )
    answers = [side.tolist() for side in (prompts.correct, prompts.incorrect)]
    moved = Task.from_tokens("moved", padded, corrupted, *answers, attention_mask=mask)
    moved = Task("moved", moved.examples, spans=[{"front": (0, 2), "middle": (2 + i % 2, 4)} for i in range(3)])
    expected = attribute(model, task, "relp", positions="spans", quiet=True).values
    for other in (moved, task.select([2, 0, 1])):
        found = attribute(model, other, "relp", positions="spans", quiet=True).values
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


class _Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that anything makes."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor):
                self.most = max(self.most, one.numel())
        return out


def test_memory_is_that_of_rows_and_not_of_scores_by_prompt(monkeypatch):
    monkeypatch.setattr(contract, "CHUNK_BYTES", 1 << 16)  # so that its buffers are not the largest
    model = shared("llama")
    task = tiny_task(model, n=24, length=9)
    with _Largest() as summed:
        attribute(model, task, "eap", quiet=True)
    with _Largest() as apart:
        found = attribute(model, task, "eap", positions="all", quiet=True).values
    assert apart.most <= max(summed.most, found.numel())
    assert 2 * apart.most < 24 * found.numel()  # scores of every prompt at every position


def test_float32():
    model = shared("llama", torch.float32)
    task = tiny_task(model)
    plain, scores = (attribute(model, task, "eap", positions=p).values for p in (None, "all"))
    assert scores.dtype == torch.float32
    assert (scores.sum(0) - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_table_and_file(tmp_path):
    model = shared("llama")
    task = _with_spans(tiny_task(model))
    scores = attribute(model, task, "eap", positions="spans")
    assert scores.spans == ("front", "middle", "rest")
    frame = scores.to_frame()
    assert frame.columns.tolist() == ["edge", "source", "target", "span", "score"]
    assert len(frame) == 3 * scores.graph.n_edges
    row = frame.iloc[0]
    at = scores.graph.edge_index(row["edge"])
    assert float(scores.values[scores.spans.index(row["span"])][at]) == row["score"] != 0
    again = Scores.load(scores.save(tmp_path / "scores"))
    assert again.spans == scores.spans
    assert again.values.equal(scores.values)
    assert "at 3 spans" in repr(again)
    assert "front" in again._repr_html_()


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ("every", "positions='every' is none of"),
        ([99], "names position 99; the longest prompt has"),
        ([-1], "spans"),
        ([2, 2], "none of them twice"),
        (["verb"], "names the span 'verb'; the task's spans are none"),
        ("spans", "the task has none"),
        (True, "the task has none"),
        (7, "positions=7"),
    ],
)
def test_refused(positions, words):
    model = shared("llama")
    with pytest.raises(InputError, match=words):
        attribute(model, tiny_task(model), "eap", positions=positions)


def test_refused_beside_others(monkeypatch):
    model = shared("llama")
    task = tiny_task(model)
    with pytest.raises(
        InputError, match=r"at all positions at once; methods that tell positions apart: 'eap'.*'eap-ig'.*'exact'"
    ):
        attribute(model, task, "acdc", positions="all")
    with pytest.raises(InputError, match="level='node' and positions="):
        attribute(model, task, "eap", level="node", positions="all")
    inside = attribute(model, task, "eap", positions="all").mask(9)
    with pytest.raises(InputError, match=r"inside is a circuit at the spans \[1, 2, .*\[1\] means others"):
        attribute(model, task, "eap", inside=inside, positions=[1])
    monkeypatch.setattr(spans, "_half_of_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"4 spans apart.* take 0\.00 GiB"):
        attribute(model, task, EAPIG(positions=[1, 2, 3]))


def test_the_planted_induction_circuit_is_found_by_position():
    known = planted.load("induction", n=32)
    task, truth = planted.by_position(known)
    values = measure(known.model, task, truth, quiet=True)
    assert faithfulness(values)[0].value == pytest.approx(1, abs=5e-3)  # softmaxes leak
    # at other positions the same edges do nothing
    elsewhere = SpanMask(truth.mask[[1, 2, 3, 0]], truth.spans)
    assert faithfulness(measure(known.model, task, elsewhere, quiet=True))[0].value < 0.2
    scores = attribute(known.model, task, "eap-ig", positions="spans", quiet=True)
    assert scores.spans == truth.spans
    assert metrics.auroc(scores, truth) > 0.95
    exact = attribute(known.model, task, "exact", positions="spans", quiet=True)
    assert exact.spans == truth.spans
    assert metrics.auroc(exact, truth) == 1.0
    assert metrics.auroc(scores.values.flip(0), truth, known.graph) < metrics.auroc(scores, truth)
    with pytest.raises(InputError, match="that of 'induction' is known"):
        planted.by_position(planted.load("boolean", n=4))
    with pytest.raises(InputError, match="truth of shape"):
        metrics.auroc(scores, known.mask)


@pytest.mark.parametrize("ablation", ["patch", "mean"])
def test_exact_at_a_span_is_the_circuit_that_lacks_the_edge_there(ablation):
    model = shared("llama")
    task = _with_spans(tiny_task(model, ragged=True))
    edges = ["input->a0.h1<k>", "m0->a1.h1<v>", "a0.h0->m1", "m1->logits", "a0.h1->m0"]
    told = {"ablation": ablation, "quiet": True}
    scores = attribute(model, task, "exact", positions="spans", edges=edges, batch_size=2, **told)
    full = scores.graph.edge_mask.repeat(3, 1, 1)
    masks = torch.stack([full] * 16)
    for number, edge in enumerate(edges):
        for span in range(3):
            masks[1 + 3 * number + span, span][scores.graph.edge_index(edge)] = False
    values = metrics.measure(model, task, masks, spans=scores.spans, **told).circuits.mean(1)
    expected = (values[0] - values[1:]).view(5, 3)
    found = torch.stack([scores.values[:, *scores.graph.edge_index(edge)] for edge in edges])
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert int((scores.values != 0).sum()) <= 15


def test_exact_at_a_span_of_everything_is_exact():
    model = shared("gpt2")
    task = tiny_task(model)
    plain = attribute(model, task, "exact", sample=12, quiet=True)
    scores = attribute(model, task, "exact", sample=12, positions=["rest"], quiet=True)
    torch.testing.assert_close(scores.values[0], plain.values, rtol=1e-10, atol=1e-13)
