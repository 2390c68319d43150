"""Gradient methods against exact patching: the sample of edges, the reference, and the table that comes of it."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch

import metrics
from attribution import attribute, component_scores
from attribution.edges.method import Method
from circuits import agreement
from circuits.approximation import stratified_edges
from interp import ComputationalGraph
from interp.errors import InputError
from interp.models import load_model
from metrics.agreement_table import AgreementTable
from tests import oracle
from tests.oracle import TOLERANCE, error, mixed_task
from tests.tiny import shared, stay_in_float64, tiny_module

QUICK = {"sample": 60, "resamples": 30, "quiet": True}
KINDS = ("resid_pre", "attn_out", "mlp_out")
STATISTICS = ("pearson", "spearman", "sign", "top_10", "top_50")


def compare(name="gpt2", methods=("eap",), level="edge", model=None, **settings):
    model = model or oracle.model_of(name)
    return agreement(model, mixed_task(model), methods, level, **{**QUICK, **settings})


def columns(*names):
    return [column for name in names for column in (name, f"{name}_low", f"{name}_high")]


# ---- the sample of edges


def kind_of(edge):
    """Which kind of source writes to which kind of target."""
    source, target = edge.split("->")
    source = {"i": "input", "m": "mlp", "a": "head"}[source[0]]
    found = re.search(r"<(.)>", target)
    return source, found[1] if found else {"m": "mlp", "l": "logits"}[target[0]]


def drawn(graph, mask):
    return [graph.edge_name(*edge) for edge in mask.nonzero().tolist()]


def random_values(graph, seed=0, n=1):
    generator = torch.Generator().manual_seed(seed)
    return {str(i): torch.randn(graph.shape, generator=generator) * graph.edge_mask for i in range(n)}


GRAPHS = [
    ComputationalGraph(3, 4),
    ComputationalGraph(3, 4, parallel=True),
    ComputationalGraph(4, 4, 2, kv="group"),
    ComputationalGraph(6, 6),
]


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: f"{graph.n_edges} edges")
@pytest.mark.parametrize("n", [3, 50, 120])
def test_a_sample_is_of_its_size_and_of_real_edges(graph, n):
    mask = stratified_edges(graph, random_values(graph, n=2), n, 0)
    assert mask.dtype == torch.bool
    assert mask.shape == graph.shape
    assert int(mask.sum()) == n  # a mask cannot hold an edge twice
    assert not (mask & ~graph.edge_mask).any()


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: f"{graph.n_edges} edges")
@pytest.mark.parametrize("n", [40, 90, 150])
def test_every_stratum_gives_as_many_as_it_can(graph, n):
    values = random_values(graph, seed=n)["0"]
    chosen = set(drawn(graph, stratified_edges(graph, {"a": values, "b": -3 * values}, n, 1)))
    everything = sorted(graph.edges(), key=lambda edge: -abs(float(values[graph.edge_index(edge)])))
    size = len(everything)
    bands = {edge: 0 if i < size / 100 else 1 if i < size / 10 else 2 for i, edge in enumerate(everything)}
    held = Counter((kind_of(edge), bands[edge]) for edge in everything)
    given = Counter((kind_of(edge), bands[edge]) for edge in chosen)
    assert len({kind for kind, _ in held}) == 15
    largest = max(given.values())
    for stratum, available in held.items():  # whoever gives less than the largest share, or one less, is used up
        assert given[stratum] == available or given[stratum] >= largest - 1, stratum


def test_a_sample_of_all_edges_is_all_edges():
    graph = GRAPHS[0]
    assert torch.equal(stratified_edges(graph, random_values(graph), graph.n_edges, 5), graph.edge_mask)
    almost = stratified_edges(graph, random_values(graph), graph.n_edges - 1, 5)
    assert int((graph.edge_mask & ~almost).sum()) == 1


def test_a_seed_decides_the_sample_and_no_method_does():
    graph = GRAPHS[1]
    values = random_values(graph, n=2)
    first = stratified_edges(graph, values, 60, 3)
    state = torch.get_rng_state()
    assert torch.equal(stratified_edges(graph, values, 60, 3), first)
    assert torch.equal(stratified_edges(graph, dict(reversed(values.items())), 60, 3), first)
    assert torch.equal(stratified_edges(graph, {k: -7 * v for k, v in values.items()}, 60, 3), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(stratified_edges(graph, values, 60, 4), first)


def test_large_edges_are_more_in_the_sample_than_among_all():
    graph = GRAPHS[3]
    values = random_values(graph)["0"]
    mask = stratified_edges(graph, {"a": values}, 150, 0)
    large = values.abs() >= values[graph.edge_mask].abs().quantile(0.9)
    assert int((mask & large).sum()) / 150 > 0.3  # a tenth of all edges


@pytest.mark.parametrize("n", [0, 2, 263, -1, 10.0, True, "60", None])
def test_a_sample_that_cannot_be_drawn_is_refused(n):
    graph = GRAPHS[0]
    assert graph.n_edges == 262
    with pytest.raises(InputError, match=r"sample=.* must be a whole number from 3 to 262"):
        stratified_edges(graph, random_values(graph), n, 0)


# ---- edges


@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj", "gemma2", "mixtral"])
def test_the_reference_is_what_happens_when_an_edge_is_patched(name):
    model = oracle.model_of(name)
    table = compare(name, methods=("eap", "relp"))
    points, task, graph = table.points, mixed_task(model), ComputationalGraph.of(model)
    assert points.columns.tolist() == ["label", "reference", "eap", "relp"]
    assert len(points) == len(set(points["label"])) == 60
    labels = points["label"].tolist()
    exact = attribute(model, task, "exact", edges=labels, quiet=True).values
    at = [graph.edge_index(edge) for edge in labels]
    assert points["reference"].tolist() == [float(exact[edge]) for edge in at]
    some = labels[::6]  # of the bridge alone
    expected = oracle.edge_effects(oracle.expanded(name), task.prompts(model), some, ("patch",))[0]
    assert error(torch.tensor(points["reference"][::6].tolist(), dtype=torch.float64), expected) < TOLERANCE
    for method in ("eap", "relp"):
        values = attribute(model, task, method, quiet=True).values
        assert points[method].tolist() == [float(values[edge]) for edge in at]


def test_the_table_is_that_of_the_points():
    table = compare(methods=("eap", "eap-ig"), top=(5,), drop=(0, 2), confidence=0.8, seed=3)
    assert isinstance(table, AgreementTable)
    assert table.to_frame().columns.tolist() == [
        "method",
        "dropped",
        "n",
        *columns("pearson", "spearman", "sign", "top_5"),
    ]
    assert table.to_frame()[["method", "dropped", "n"]].values.tolist() == [
        ["eap", 0, 60], ["eap-ig", 0, 60], ["eap", 2, 58], ["eap-ig", 2, 58],
    ]  # fmt: skip
    points = table.points
    again = metrics.agreement(
        points["reference"], {m: points[m] for m in ("eap", "eap-ig")},
        top=(5,), drop=(0, 2), resamples=30, confidence=0.8, seed=3,
    )  # fmt: skip
    assert table.to_frame().equals(again.to_frame())
    assert table.to_frame()["pearson"][0] == pytest.approx(points["reference"].corr(points["eap"]), abs=1e-12)


def test_methods_may_have_names_and_settings_of_their_own():
    given = {"along the path": {"method": "eap-ig", "rules": "relp", "steps": 2}, "gim": {}, "plain": {"method": "eap"}}
    before = {name: dict(settings) for name, settings in given.items()}
    table = compare("llama", methods=given)
    assert given == before
    model = oracle.model_of("llama")
    graph = ComputationalGraph.of(model)
    values = attribute(model, mixed_task(model), "eap-ig", rules="relp", steps=2, quiet=True).values
    expected = [float(values[graph.edge_index(edge)]) for edge in table.points["label"]]
    assert table.points["along the path"].tolist() == expected
    assert table.to_frame()["method"].tolist()[:3] == ["along the path", "gim", "plain"]


def test_one_method_by_name_and_the_default_ones():
    assert compare(methods="relp", drop=(0,)).to_frame()["method"].tolist() == ["relp"]
    model = oracle.model_of("gpt2")
    table = agreement(model, mixed_task(model), **QUICK)
    assert table.to_frame()["method"].tolist() == ["eap", "eap-ig", "relp"] * 3
    assert table.to_frame().columns.tolist() == ["method", "dropped", "n", *columns(*STATISTICS)]
    assert table.to_frame()["dropped"].tolist() == [0] * 3 + [1] * 3 + [5] * 3


def test_ablation_and_objective_hold_for_all():
    model = oracle.model_of("gpt2")
    table = compare(ablation="mean", objective="log-probability", batch_size=1, memory=1 << 20)
    settings = {"ablation": "mean", "objective": "log-probability", "quiet": True}
    labels, graph = table.points["label"].tolist(), ComputationalGraph.of(model)
    exact = attribute(model, mixed_task(model), "exact", edges=labels, **settings).values
    ours = torch.tensor(table.points["reference"].tolist(), dtype=torch.float64)
    assert error(ours, torch.stack([exact[graph.edge_index(edge)] for edge in labels])) < TOLERANCE


def test_a_seed_decides_the_whole_table():
    first = compare(seed=4)
    assert compare(seed=4).to_frame().equals(first.to_frame())
    assert compare(seed=4).points.equals(first.points)
    assert set(compare(seed=5).points["label"]) != set(first.points["label"])


def test_a_method_that_is_the_reference_agrees_wholly(monkeypatch):
    model = oracle.model_of("gpt2")
    exact = attribute(model, mixed_task(model), "exact", quiet=True)

    monkeypatch.setattr(Method, "scores", lambda method, setting: exact)
    table = compare(methods=("eap", "relp"), sample=None, drop=(0, 1, 5))
    assert len(table.points) == 262  # all, where there are fewer than 600
    assert len(table.to_frame()) == 6
    for column in columns(*STATISTICS):
        assert table.to_frame()[column].tolist() == pytest.approx([1.0] * 6, abs=1e-12), column


# ---- a linear model, for which gradients tell everything


def linear_model():
    """GPT-2 whose norms hardly divide, with linear activations, patterns that see nothing: linear to 1e-14."""
    module = tiny_module("gpt2", activation_function="linear", layer_norm_epsilon=1e16)
    for name, parameter in module.named_parameters():
        if re.search(r"ln_.*weight", name):
            parameter.data *= 1e8  # undoes the divisor
        if "c_attn" in name:
            parameter.data[..., :16] = 0  # no queries: every pattern is uniform
        parameter.data *= 0.5 if "weight" in name and "ln" not in name else 1
    model = load_model(module)
    stay_in_float64(model)
    return model


def test_on_a_linear_model_gradients_are_exact():
    model = linear_model()
    task = mixed_task(model)
    exact = attribute(model, task, "exact", quiet=True).values
    for method in ("eap", "eap-ig", "relp", "clean-corrupted"):
        assert error(attribute(model, task, method, quiet=True).values, exact) < 1e-8, method
    places = component_scores(model, task, "exact", quiet=True).values
    for method in ("attribution-patching", "eap-ig", "relp"):
        found = component_scores(model, task, method, quiet=True).values
        assert all(error(found[kind], places[kind]) < 1e-8 for kind in KINDS), method
    for level in ("edge", "node"):
        table = compare(model=model, methods=("eap", "relp"), level=level, sample=262, top=(10,), drop=(0, 5))
        assert table.to_frame()["pearson"].tolist() == pytest.approx([1.0] * len(table.to_frame()), abs=1e-8)
        assert table.to_frame()["top_10"].tolist() == [1.0] * len(table.to_frame())


# ---- nodes


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "gptj"])
def test_at_nodes_every_component_of_every_prompt_is_a_point(name):
    model = oracle.model_of(name)
    task = mixed_task(model)
    table = compare(name, methods={"eap": {}, "mine": {"method": "relp"}}, level="node", top=(3,), drop=(0, 1), seed=2)
    assert table.to_frame().columns.tolist() == [
        "component", "method", "dropped", "n", *columns("pearson", "spearman", "sign", "top_3"),
    ]  # fmt: skip
    assert table.to_frame()["component"].tolist() == [kind for kind in KINDS for _ in range(4)]
    assert table.to_frame()["method"].tolist() == ["eap", "mine"] * 6
    exact, relp = (component_scores(model, task, method, quiet=True) for method in ("exact", "relp"))
    points = table.points
    for kind in KINDS:
        part = points[points["component"] == kind]
        wanted = {f"layer {i}, position {p}, prompt {n}" for n, p in exact.mask.nonzero().tolist() for i in range(3)}
        assert len(part) == len(wanted)
        assert set(part["label"]) == wanted
        for row in part.itertuples():
            layer, position, prompt = map(int, re.findall(r"\d+", row.label))
            assert row.cluster == prompt
            assert row.reference == float(exact.values[kind][prompt, layer, position])
            assert row.mine == float(relp.values[kind][prompt, layer, position])
        again = metrics.agreement(
            part["reference"], {"eap": part["eap"], "mine": part["mine"]},
            clusters=part["cluster"], top=(3,), drop=(0, 1), resamples=30, seed=2,
        )  # fmt: skip
        frame = table.to_frame()
        rows = frame[frame["component"] == kind].drop(columns="component").reset_index(drop=True)
        assert rows.equals(again.to_frame())  # whole prompts are drawn


def test_nodes_under_zero_ablation_count_all_real_positions():
    table = compare(methods=("attribution-patching",), level="node", ablation="zero")
    assert table.to_frame()["n"].tolist()[:1] == [3 * (7 + 5 + 6)]


# ---- resuming


def test_exact_scores_are_resumed(tmp_path, monkeypatch):
    file = tmp_path / "exact"
    first = compare(resume=file)
    assert file.exists()
    assert compare(resume=file).points.equals(first.points)

    def refuse(*_):
        raise AssertionError("nothing was left to do")

    monkeypatch.setattr("attribution.exact.Patcher.edges_into", refuse)
    assert compare(resume=file).to_frame().equals(first.to_frame())
    with pytest.raises(InputError, match="belongs to another run"):
        compare(resume=file, seed=9)  # another sample


def test_quiet_is_quiet(capfd):
    for level in ("edge", "node"):
        compare(level=level)
    assert capfd.readouterr() == ("", "")


# ---- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ()}, "methods names no method"),
        ({"methods": {}}, "methods names no method"),
        ({"methods": "exact"}, "methods names 'exact', which patches"),
        ({"methods": {"mine": {"method": "activation-patching"}}}, "methods names 'mine', which patches"),
        ({"methods": ("eap", "eap_ig")}, "'eap_ig' is unknown; did you mean 'eap-ig'"),
        ({"methods": {"mine": {}}}, "'mine' is unknown"),
        ({"methods": {"mine": {"method": "relp", "rules": "gim"}}}, "rules is no setting of method='relp'"),
        ({"level": "nodes"}, "level='nodes' is unknown; did you mean 'node'"),
        ({"level": "node", "resume": "x"}, "resume is for level='edge'"),
        ({"level": "node", "methods": ("eap-ig-activations",)}, "scores edges alone"),
        ({"sample": 263}, "sample=263 must be a whole number from 3 to 262"),
        ({"ablation": "zero", "methods": ("eap-ig",)}, "follows a path between two prompts"),
        ({"objective": "accuracy"}, "has no gradient"),
        ({"objective": "kl"}, "has a gradient of zero at the clean run"),
        ({"resamples": 0}, "resamples=0"),
        ({"drop": (58,)}, "leaves fewer than 3"),
        ({"top": (0,)}, r"top\[0\]=0"),
        ({"confidence": 1.0}, "confidence=1.0"),
    ],
    ids=str,
)
def test_what_cannot_be_right_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        compare(**settings)


def test_a_method_of_nodes_is_compared_by_its_edges_or_refused():
    # attribution patching is what eap is called for nodes; it is a gradient method that has edges too
    try:
        table = compare(methods=("attribution-patching", "eap"))
    except InputError:
        return
    assert table.points["attribution-patching"].equals(table.points["eap"].rename("attribution-patching"))


@pytest.mark.parametrize("level", ["edge", "node"])
@pytest.mark.parametrize(
    "settings", [{"ablation": "zero"}, {"quiet": True}, {"level": "node"}, {"kv": "group"}, {"nonsense": 1}], ids=str
)
def test_settings_that_are_not_a_methods_own_are_refused(level, settings):
    with pytest.raises(InputError):
        compare("llama", methods={"mine": {"method": "eap", **settings}}, level=level)


@pytest.mark.parametrize("name", ["reference", "label", "cluster"])
def test_a_name_that_the_points_have_already_is_refused(name):
    with pytest.raises(InputError, match=name):
        compare(methods={name: {"method": "eap"}}, level="node" if name == "cluster" else "edge")


def test_a_single_prompt_has_no_interval_over_prompts():
    model = oracle.model_of("gpt2")
    with pytest.raises(InputError, match="prompt"):
        agreement(model, mixed_task(model, (0,)), ("eap",), "node", **QUICK)


def test_other_tiny_models_have_fewer_edges():
    model = shared("gpt2", n_layer=1, n_head=2)
    table = agreement(model, mixed_task(model), ("eap",), resamples=30, quiet=True)  # the default sample
    assert len(table.points) == ComputationalGraph.of(model).n_edges == 13
    with pytest.raises(InputError, match="from 3 to 13"):
        compare(model=model, sample=14)
