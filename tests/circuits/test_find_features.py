"""`find_circuit(level="feature")`: circuits of features: found, judged, saved, run again, refused."""

from __future__ import annotations

import json

import pytest
import torch

import metrics
from attribution import Dictionary, Exact, features
from attribution.edges.gradient import EAPIG
from attribution.edges.mask_ig import MaskIG
from attribution.scores import Scores
from attribution.units.nodes import scores_of_nodes
from circuits import Circuit, NodeCircuit, find_circuit, robustness
from interp import InputError, Run, Setting
from interp.dictionaries.sets import DictionarySet
from interp.node_mask import NodeMask, ragged
from interp.result import Result
from metrics.circuit.controls import random_nodes
from tests.dictionaries import FEATURES, UNEQUAL, random_dictionary, unequal
from tests.oracle import error, mixed_task, model_of
from tests.tiny import D_MODEL, tiny_task

QUIET = {"quiet": True, "seed": 3}
NARROW = UNEQUAL[1]
UNITS = unequal(D_MODEL)
WIDTHS = list(UNEQUAL)


@pytest.fixture(scope="module")
def found(model, task):
    return find_circuit(model, task, level="feature", dictionaries=UNITS, errors="nodes", **QUIET)


def setting_of(ablation="patch", errors="kept"):
    model = model_of("llama")
    return Setting(model, mixed_task(model), ablation, run=Run(quiet=True), features=DictionarySet(UNITS, errors))


def test_a_circuit_of_features_is_judged_on_prompts_that_did_not_choose_it(model, task, found):
    assert isinstance(found, NodeCircuit)
    assert found.node_mask.shape == (3, FEATURES + 1)
    assert not found.node_mask[1, NARROW:-1].any()
    report = found.report
    assert (report.level, report.errors, report.nodes) == ("feature", "nodes", found.n_nodes)
    assert "Errors of dictionaries: nodes of their own" in str(report)
    assert report.fraction == pytest.approx(found.n_nodes / (sum(WIDTHS) + 3))
    _, held_out = task.split(0.5, 3)
    told = {"level": "feature", "dictionaries": UNITS, "errors": "nodes", "quiet": True}
    values = metrics.measure(model, held_out, found.node_mask, **told)
    gap = (values.clean - values.empty).mean()
    assert report.faithfulness == pytest.approx(float((values.circuits[0] - values.empty).mean() / gap), rel=1e-4)
    left = metrics.measure(model, held_out, ~found.node_mask, **told)
    assert report.complement == pytest.approx(float((left.circuits[0] - left.empty).mean() / gap), rel=1e-3)
    assert report.random_faithfulness is not None
    assert report.ladder
    own = metrics.evaluate(model, held_out, found, quiet=True)  # it knows its dictionaries and errors
    assert torch.allclose(own, values.circuits[0], atol=1e-5)


@pytest.mark.parametrize("errors", ["kept", "nodes"])
def test_scores_are_those_of_features_and_of_their_errors(model, task, errors):
    setting = Setting(model, task, run=Run(quiet=True), features=DictionarySet(UNITS, errors))
    ours = scores_of_nodes(setting, EAPIG(), "feature")
    summed = features(model, task, UNITS, method="eap-ig", summed=["prompt", "position"], quiet=True)
    assert torch.allclose(ours.values[:, :FEATURES], summed.values / len(task), atol=1e-6)
    if errors == "nodes":
        assert torch.allclose(ours.values[:, -1], summed.errors / len(task), atol=1e-6)
    assert ours.settings["errors"] == errors
    assert [one["n_features"] for one in ours.settings["dictionaries"]] == WIDTHS


@pytest.mark.parametrize(("ablation", "errors"), [("patch", "nodes"), ("mean", "kept")])
def test_exact_scores_are_those_of_patching_one_at_a_time_and_weights_add_up(ablation, errors):
    setting = setting_of(ablation, errors)
    exact = scores_of_nodes(setting, Exact(), "feature").values
    chosen = [(0, 3), (0, 7), (1, 2), (2, 5)] + [(i, -1) for i in range(3) if errors == "nodes"]
    told = {"method": "exact", "only": chosen, "ablation": ablation, "quiet": True}
    theirs = features(setting.model, setting.task, UNITS, **told).kept
    means = theirs.groupby(["dictionary", "feature"])["score"].mean()
    assert error(torch.stack([exact[place] for place in chosen]), torch.tensor([means[one] for one in chosen])) < 1e-9
    smooth = [random_dictionary("residual", D_MODEL, threshold=None), *UNITS[2:]]  # what jumps has no gradient there
    setting = setting.under(features=DictionarySet(smooth, errors))
    along = scores_of_nodes(setting, MaskIG(steps=40), "feature").values
    values = setting.measure([NodeMask(setting.nodes("feature").full, "feature")])
    assert float(along.sum()) == pytest.approx(float((values.circuits[0] - values.empty).mean()), rel=5e-3)


def test_the_smallest_circuit_counts_features_that_exist(model, task, found):
    places = ragged(WIDTHS, None, True).flatten().nonzero()[:, 0]
    order = places[found.scores.values.flatten()[places].argsort(descending=True, stable=True)]
    assert torch.equal(found.node_mask.flatten().nonzero()[:, 0], order[: found.n_nodes].sort().values)
    frame = found.scores.top(None)
    assert len(frame) == sum(WIDTHS) + 3
    assert list(frame) == ["node", "dictionary", "layer", "site", "feature", "score"]
    assert {"residual0.error", "attention1.f12", "transcoder2.f19"} <= set(frame["node"])
    assert set(frame.loc[frame["node"] == "residual0.error", "feature"]) == {-1}
    assert tuple(found.to_frame()["node"]) == found.nodes
    everything = find_circuit(model, task, level="feature", dictionaries=UNITS, nodes=sum(WIDTHS), **QUIET)
    assert everything.report.faithfulness == pytest.approx(1, abs=1e-4)
    assert f"{sum(WIDTHS):,} of {sum(WIDTHS):,} features" in repr(everything)
    with pytest.raises(InputError, match=f"there are {sum(WIDTHS)} features"):
        find_circuit(model, task, level="feature", dictionaries=UNITS, nodes=sum(WIDTHS) + 1, **QUIET)


def test_a_dictionary_of_16384_features_is_that_of_the_few_that_are_ever_active():
    model, few, width = model_of("llama"), random_dictionary("transcoder", D_MODEL), 16_384
    at = torch.randperm(width, generator=torch.Generator().manual_seed(0))[:FEATURES].sort().values

    def spread(own, others):
        return torch.full((width, *own.shape[1:]), others, dtype=own.dtype).index_copy(0, at, own)

    many = Dictionary.from_tensors(
        few.layer, "transcoder", spread(few.W_enc, 0.1), spread(few.b_enc, -100.0), spread(few.W_dec, 1.0), few.b_dec
    )
    task = tiny_task(model, 6)
    settings = [Setting(model, task, run=Run(quiet=True), features=DictionarySet([one], "kept")) for one in (few, many)]
    own, scores = (scores_of_nodes(one, EAPIG(), "feature").values[0] for one in settings)
    assert error(scores, torch.zeros(width, dtype=own.dtype).index_copy(0, at, own)) < 1e-12
    best = features(model, task, [many], method="eap-ig", keep=5, quiet=True).kept
    assert set(best["feature"]) <= set(at.tolist())
    small, large = (
        find_circuit(model, task, level="feature", dictionaries=[one], nodes=5, selection="top-n", **QUIET)
        for one in (few, many)
    )
    assert torch.equal(large.node_mask[0].nonzero()[:, 0], at[small.node_mask[0].nonzero()[:, 0]])
    assert large.report.faithfulness == pytest.approx(small.report.faithfulness, rel=1e-9)
    assert large.report.fraction == 5 / width


def test_positions_are_counted_apart(model):
    task = tiny_task(model, n=8)
    told = {"level": "feature", "dictionaries": UNITS, "errors": "nodes", "positions": [2, 4, 6]}
    circuit = find_circuit(model, task, nodes=20, **told, **QUIET)
    assert circuit.node_mask.shape == (3, 3, FEATURES + 1)
    assert circuit.n_nodes == 20
    assert set(circuit.to_frame()["position"]) <= {2, 4, 6}
    setting = Setting(model, task, run=Run(quiet=True), features=DictionarySet(UNITS, "nodes"))
    apart = scores_of_nodes(setting, EAPIG(), "feature", tuple(range(task.prompts(model).clean.shape[1])))
    whole = scores_of_nodes(setting, EAPIG(), "feature")
    assert torch.allclose(apart.values.sum(1), whole.values, atol=1e-5)


def test_random_features_are_of_the_same_dictionaries_and_near_in_norm_and_errors_stay():
    setting = setting_of(errors="nodes")
    full, norms = setting.nodes("feature").full, setting.node_norms("feature")
    mask = torch.zeros_like(full)
    mask[0, :5] = mask[1, :4] = mask[:2, -1] = True
    drawn = random_nodes(setting, [NodeMask(mask, "feature")], 3, 0)
    for one in drawn:
        assert torch.equal(one.mask.sum(1), mask.sum(1))
        assert torch.equal(one.mask[:, -1], mask[:, -1])
        assert not (one.mask & mask)[:, :-1].any()
        assert not (one.mask & ~full).any()
    assert not torch.equal(drawn[0].mask, drawn[1].mask)
    one = torch.zeros_like(full)
    feature = int(norms[0, :FEATURES].argmax())
    one[0, feature] = True
    nearest = (norms[0, :FEATURES] - norms[0, feature]).abs().argsort()[1:9]
    picked = {int(found.mask[0].nonzero()) for found in random_nodes(setting, [NodeMask(one, "feature")], 6, 1)}
    assert picked <= set(nearest.tolist())


def test_its_file_holds_digests_and_runs_again_with_the_same_dictionaries_alone(model, task, found, tmp_path):
    path = found.save(tmp_path / "features.json")
    again = Circuit.load(path)
    assert torch.equal(again.node_mask, found.node_mask)
    assert again.report == found.report
    assert again.nodes == found.nodes
    assert again.setting.to_dict() == found.setting.to_dict()
    assert again.dictionaries is None
    assert set(json.loads(path.read_text())["setting"]["dictionaries"]) == {one.digest for one in UNITS}
    with pytest.raises(InputError, match="needs dictionaries="):
        metrics.evaluate(model, task, again, quiet=True)
    for given, message in (([*UNITS[1:], UNITS[0]], "another order"), (UNITS[:2], "2 of them"),
                           ([*UNITS[:2], random_dictionary("mlp", D_MODEL)], "number 2")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            metrics.evaluate(model, task, again, dictionaries=given, quiet=True)
    own = metrics.evaluate(model, task, found, quiet=True)
    assert torch.equal(metrics.evaluate(model, task, again, dictionaries=UNITS, quiet=True), own)
    few = {"n_random": 0, "dictionaries": UNITS, "ablations": (), "objectives": (), "quiet": True}
    assert robustness(model, task, again, **few).frame["circuit"].item() == pytest.approx(float(own.mean()), rel=1e-6)
    tested = again.test(model, task, tests=["equivalence"], dictionaries=UNITS, quiet=True)
    assert tested["equivalence"].p == found.test(model, task, tests=["equivalence"], quiet=True)["equivalence"].p
    whole = again.with_dictionaries(UNITS)
    assert torch.equal(metrics.evaluate(model, task, whole, quiet=True), own)
    kept = Scores.load(found.scores.save(tmp_path / "scores.safetensors"))
    curve = metrics.faithfulness_curve(model, task, kept, dictionaries=UNITS, quiet=True)
    assert curve.setting.errors == "nodes"


def test_metrics_take_it(model, task, found, tmp_path):
    curve = metrics.faithfulness_curve(model, task, found.scores, n_random=1, complement=True, quiet=True)
    assert (curve.level, curve.edges[-1]) == ("feature", sum(WIDTHS) + 3)
    assert curve.faithfulness[-1] == pytest.approx(1, abs=1e-4)
    assert curve.complement[-1].value == pytest.approx(0, abs=1e-4)
    again = Result.load(curve.save(tmp_path / "curve.json"))
    assert (again.level, again.setting.to_dict()) == ("feature", curve.setting.to_dict())
    bare = metrics.faithfulness_curve(
        model, task, found.scores.values, level="feature", dictionaries=UNITS, errors="nodes", quiet=True
    )
    assert bare.faithfulness == pytest.approx(curve.faithfulness, abs=1e-5)
    assert metrics.prompt_faithfulness(model, task, found, quiet=True).mean.value > 0
    under = robustness(model, task, found, n_random=1, ablations=("zero",), quiet=True).to_frame()
    assert {"as found", "ablation", "objective"} <= set(under["varied"])
    mask = found.scores.mask(7)
    assert mask.n_nodes == 7
    told = {"dictionaries": UNITS, "errors": "nodes", "quiet": True}
    assert metrics.evaluate(model, task, mask, **told).shape == (16,)
    stack = torch.stack([mask.mask, ~mask.mask])
    assert metrics.evaluate(model, task, stack, level="feature", **told).shape == (2, 16)


def test_errors_that_are_ablated_are_lost_to_the_circuit(model, task):
    whole = {"level": "feature", "dictionaries": UNITS, "nodes": sum(WIDTHS)}
    lost = find_circuit(model, task, method="eap", errors="ablated", ablation="zero", **whole, **QUIET)
    assert lost.report.errors == "ablated"
    assert abs(lost.report.faithfulness - 1) > 1e-3
    kept = metrics.measure(model, task, lost, errors="kept", quiet=True)  # told otherwise
    assert torch.allclose(kept.circuits[0], kept.clean, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"level": "feature"}, "needs dictionaries"),
        ({"level": "feature", "errors": "kept"}, "give dictionaries= too"),
        ({"level": "feature", "dictionaries": UNITS, "errors": "lost"}, "errors='lost'"),
        ({"level": "feature", "dictionaries": "sae"}, "must be a Dictionary"),
        ({"level": "feature", "dictionaries": random_dictionary("residual", 5)}, "belongs to another model"),
        ({"level": "feature", "dictionaries": UNITS, "method": "edge-pruning"}, "no meaning for features"),
        ({"level": "feature", "dictionaries": UNITS, "positions": [99]}, "position 99"),
        ({"level": "neuron", "dictionaries": UNITS}, "dictionaries are for features"),
        ({"dictionaries": UNITS}, "give level='feature' too"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(model, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        find_circuit(model, tiny_task(model, n=8), **settings, **QUIET)


def test_dictionaries_beside_what_is_of_no_features_are_refused(model, task, found):
    graph = found.graph
    with pytest.raises(InputError, match="this is of edges"):
        metrics.evaluate(model, task, graph.edge_mask, dictionaries=UNITS, quiet=True)
    with pytest.raises(InputError, match="this is of edges"):
        metrics.faithfulness_curve(model, task, graph.edge_mask.float(), dictionaries=UNITS, quiet=True)
    heads = find_circuit(model, task, level="head", nodes=2, **QUIET)
    with pytest.raises(InputError, match="this is a circuit of heads"):
        heads.with_dictionaries(UNITS)
