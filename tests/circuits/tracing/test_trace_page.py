"""What the page of an attribution graph holds: promoted tokens, contexts, labels and measured effects."""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import circuits
from circuits import AttributionGraph, trace
from circuits.tracing.viewer import data as page_data
from circuits.tracing.viewer.contexts import TOP_CONTEXTS, contexts
from circuits.tracing.viewer.labels import labels_by_name
from circuits.tracing.viewer.moved import moved_tokens
from circuits.tracing.viewer.page import SCRIPTS, SHELL
from circuits.viewer.promoted import TOP_TOKENS
from interp.errors import InputError
from interp.inspection import anatomy_of
from tests.oracle import model_of
from tests.tiny import VOCAB

ATTACK = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)> $data'
ASSETS = Path(circuits.__file__).parent / "tracing" / "viewer" / "assets"
PROMPT = [3, 17, 5, 40, 9]


@functools.cache
def traced(name: str = "llama") -> AttributionGraph:
    return trace(model_of(name), torch.tensor(PROMPT), [7, 11], top=20, leave_out=[0], quiet=True)


def embedded(page: str) -> Any:
    return json.loads(page.partition('id="circuit-data">')[2].partition("</script>")[0])


def links_of(data: Any) -> dict[tuple[str, str], float]:
    of = {name: np.frombuffer(base64.b64decode(data["links"][name]), kind) for name, kind in
          (("source", "<u2"), ("target", "<u2"), ("weight", "<f4"))}  # fmt: skip
    names = data["nodes"]["name"]
    return {(names[s], names[t]): w for s, t, w in zip(of["source"], of["target"], of["weight"], strict=True)}


def test_the_page_holds_every_link_and_what_biases_add_up_to():
    graph = traced("gpt2")
    data = embedded(graph.to_html())
    nodes = graph.nodes.set_index("name")
    edges = graph.edges[graph.edges["source"].map(nodes["kind"]) != "bias"]
    links = links_of(data)
    assert len(links) == len(edges) == data["links"]["total"]
    for row in edges.itertuples():
        assert links[row.source, row.target] == pytest.approx(row.weight, rel=1e-6)
    for name, kind, activation, bias in zip(
        *(data["nodes"][column] for column in ("name", "kind", "activation", "bias")), strict=True
    ):
        if kind in ("neuron", "logit"):  # rows add up
            into = sum(weight for (_, target), weight in links.items() if target == name)
            assert into + bias == pytest.approx(activation, rel=1e-4, abs=1e-5)
    assert set(nodes["kind"]) - set(data["nodes"]["kind"]) == {"bias"}


def test_of_large_graphs_the_page_holds_what_pruning_keeps(monkeypatch):
    monkeypatch.setattr(page_data, "EMBEDDED_LIMIT", 10)
    graph = traced()
    data = embedded(graph.to_html())
    small = graph.prune()
    assert data["pruned"]
    assert data["nodes"]["name"] == small.nodes["name"].tolist()
    assert len(links_of(data)) == len(small.edges) < data["links"]["total"]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_promoted_tokens_are_those_of_the_write_vector_by_brute_force(name):
    graph, model = traced(name), model_of(name)
    of = graph.subject
    assert of is not None
    anatomy = anatomy_of(model)
    norm, weight = anatomy.final_norm, anatomy.unembed.weight
    divisor = norm.divisor(of.held.stream[-1:])
    moved = moved_tokens(graph)
    units = graph.nodes[graph.nodes["kind"] == "neuron"]
    assert set(moved) == set(units["name"])
    for row in units.head(4).to_dict("records"):
        column = of.held.block(row["layer"]).mlp.directions(torch.tensor([row["unit"]]))[0] * row["activation"]
        post = of.held.layers[row["layer"]].mlp_post_divisor
        written = of.held.into_stream(row["layer"], column[None], None if post is None else post[row["position"]])[0]
        centred = written - written.mean() if name == "gpt2" else written
        gained = centred / divisor[0] * (1 if norm.gain is None else norm.gain)
        logits = torch.stack([gained @ weight[token] for token in range(VOCAB)])
        logits = (logits - logits.mean()).tolist()
        order = sorted(range(VOCAB), key=lambda token: -logits[token])
        up, down = moved[row["name"]]
        assert [token for token, _ in up] == [str(token) for token in order[:TOP_TOKENS]]
        assert [token for token, _ in down] == [str(token) for token in order[::-1][:TOP_TOKENS]]
        assert [value for _, value in up] == pytest.approx([logits[token] for token in order[:TOP_TOKENS]])


def test_contexts_are_the_strongest_tokens_of_a_loop_over_prompts():
    graph, model = traced(), model_of("llama")
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(2, VOCAB, (6, 7), generator=generator)
    hidden: list[dict[int, torch.Tensor]] = []
    for prompt in prompts:
        seen: dict[int, torch.Tensor] = {}
        hooks = [
            layer.mlp.down_proj.register_forward_pre_hook(
                lambda module, inputs, at=at, seen=seen: seen.__setitem__(at, inputs[0][0])
            )
            for at, layer in enumerate(model.original_model.model.layers)
        ]
        with torch.no_grad():
            model.original_model(prompt[None])
        for hook in hooks:
            hook.remove()
        hidden.append(seen)
    found = contexts(graph, prompts)
    units = graph.nodes[graph.nodes["kind"] == "neuron"]
    assert set(found) == set(units["name"])
    assert (units["activation"] < 0).any()
    for row in units.to_dict("records"):
        sign = 1 if row["activation"] > 0 else -1
        all_values = [
            (float(hidden[p][row["layer"]][t, row["unit"]]), p, t) for p in range(6) for t in range(1, 7)
        ]  # position 0 is left out, as in the graph
        best = sorted((one for one in all_values if one[0] * sign > 0), key=lambda one: -one[0] * sign)
        ours = found[row["name"]]
        assert [(one.prompt, one.position) for one in ours] == [(p, t) for _, p, t in best[:TOP_CONTEXTS]]
        assert [one.activation for one in ours] == pytest.approx([value for value, _, _ in best[:TOP_CONTEXTS]])
        for one in ours:
            tokens = [str(int(token)) for token in prompts[one.prompt]]
            assert one.token == tokens[one.position]
            assert [*one.before, one.token, *one.after] == tokens[max(0, one.position - 8) : one.position + 5]


def some_units(graph: AttributionGraph) -> list[dict[str, Any]]:
    return graph.nodes[graph.nodes["kind"] == "neuron"].head(2).to_dict("records")


def test_labels_come_from_files_as_public_explanations_do(tmp_path):
    graph = traced()
    first, second = some_units(graph)
    rows = [
        (f"{one['layer']}-transcoder-16k", one["unit"], f"of {one['name']}, \u201cquoted\u201d")
        for one in (first, second)
    ]
    (tmp_path / "labels.csv").write_text(
        "modelId,layer,index,description\n" + "".join(f'x,{a},{b},"{c}"\n' for a, b, c in [*rows, (0, 9999, "other")]),
        encoding="utf-8",
    )
    records = [{"layer": a, "feature": str(b), "label": c} for a, b, c in rows]
    (tmp_path / "labels.json").write_text(json.dumps(records), encoding="utf-8")
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    expected = {}
    for one, (_, _, text) in zip((first, second), rows, strict=True):
        same = graph.nodes.query(f"kind == 'neuron' and layer == {one['layer']} and unit == {one['unit']}")
        expected |= dict.fromkeys(same["name"], text)
    for ending in ("csv", "json", "jsonl"):
        assert labels_by_name(tmp_path / f"labels.{ending}", graph.nodes) == expected
    by_place = {(first["layer"], first["unit"]): rows[0][2], (second["layer"], second["unit"]): rows[1][2]}
    assert labels_by_name(by_place, graph.nodes) == expected
    assert labels_by_name({first["name"]: "mine", **by_place}, graph.nodes)[first["name"]] == "mine"
    assert embedded(graph.to_html(labels=tmp_path / "labels.csv"))["labels"] == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "layer,index\n1,2\n", "record 1 has no label or description or explanation; its columns"),
        ("a.csv", "place,index,label\n1,2,x\n", "has no layer"),
        ("a.json", '[{"layer": "none", "unit": 1, "label": "x"}]', "in the place of a number"),
        ("a.json", "[1]", "a record has layer, unit and label"),
        ("a.json", "{", "damaged"),
        ("a.json", "{}", "no list of records"),
        ("a.json", "[]", "holds no labels"),
    ],
)  # fmt: skip
def test_files_without_labels_are_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        traced().to_html(labels=tmp_path / name)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"labels": {"m0.n1": "x"}}, "no node of this graph"),
        ({"labels": {3: "x"}}, r"give a node's name, or \(layer, unit\)"),
        ({"labels": 3}, "must be a mapping or the path"),
        ({"labels": "missing.csv"}, "does not exist"),
        ({"measured": "all"}, "measured must be a table of graph.check"),
        ({"prompt": "x"}, "did you mean 'prompts'"),
    ],
)
def test_what_the_page_cannot_be_told_is_refused(known, message):
    with pytest.raises(InputError, match=message):
        traced().to_html(**known)


def test_predicted_and_measured_effects_are_those_of_check():
    graph = traced()
    table = graph.check(5, resamples=50)
    data = embedded(graph.to_html(measured=table))["measured"]
    points = table.points
    assert [point[0] for point in data["points"]] == points["label"].tolist()
    assert [point[1] for point in data["points"]] == pytest.approx(points["score"].tolist(), rel=1e-5)
    assert [point[2] for point in data["points"]] == pytest.approx(points["reference"].tolist(), rel=1e-5)
    frame = table.to_frame().query("dropped == 0")
    assert [row[2] for row in data["agreement"]] == pytest.approx(frame["pearson"].tolist(), abs=6e-3)
    asked = embedded(graph.to_html(measured=5))["measured"]
    assert asked["points"] == data["points"]


def test_graphs_of_files_have_a_page_without_a_model(tmp_path):
    graph = traced()
    graph.save(tmp_path / "graph")
    again = AttributionGraph.load(tmp_path / "graph")
    data = embedded(again.to_html(tmp_path / "page.html"))
    assert links_of(data) == links_of(embedded(graph.to_html()))
    assert data["moved"] == {}
    assert embedded((tmp_path / "page.html").read_text(encoding="utf-8")) == data
    read = AttributionGraph.from_json(graph.to_json(tmp_path / "graph.json"))
    data = embedded(read.to_html())
    assert data["pruned"]
    assert data["scores"] == {"replacement": None, "completeness": None}
    assert len(links_of(data)) == len(graph.prune().edges)
    with pytest.raises(InputError, match="holds no model"):
        read.to_html(prompts=["x"])


def test_every_script_and_style_is_in_the_page():
    own = {name.partition(":")[2] for name in (*SCRIPTS, *SHELL.styles, *SHELL.help, SHELL.stage) if ":" in name}
    assert {path.name for path in ASSETS.iterdir()} == own
    page = traced().to_html()
    for name in own:
        assert (ASSETS / name).read_text(encoding="utf-8") in page
    assert len(page) < 200_000


def test_markup_in_tokens_and_labels_cannot_leave_the_data(monkeypatch):
    graph = traced()
    name = some_units(graph)[0]["name"]
    monkeypatch.setattr("circuits.viewer.promoted.token_texts", lambda tokenizer, ids: [ATTACK for _ in ids])
    attacked = AttributionGraph(
        **{key: getattr(graph, key) for key in graph.__dataclass_fields__ if key not in ("tokens", "model", "subject")},
        tokens=[ATTACK for _ in graph.tokens],
        model=ATTACK,
    ).about(graph.subject)
    page = attacked.to_html(labels={name: ATTACK})
    assert page.count("<script") == page.count("</script>") == 2
    assert ATTACK not in page
    assert embedded(page)["labels"] == {name: ATTACK}
    assert embedded(page)["moved"][name][0][0][0] == ATTACK
