"""An example of every result that the packages return: made on a tiny model where that is quick, else made up."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import attribution
import circuits
import metrics
from attribution.concepts import explain, tcav
from attribution.contrast.result import NeuronContrast
from attribution.heads.edges_result import AttentionEdges
from attribution.heads.retrieval_result import RetrievalScores
from attribution.routing.usage_result import ExpertUsage
from attribution.sparse.edges import FeatureEdges
from circuits.mechanism_result import Mechanisms
from circuits.sweeping.result import SweepResult
from interp.conditions import Conditions
from interp.interval import Estimate
from interp.inversion import Injectivity, Inversion
from interp.result import Result
from interp.tasks.check import TaskCheck
from metrics.circuit.missed import Missed
from metrics.concepts import concept_faithfulness
from metrics.dictionaries.quality_result import DictionaryQuality
from metrics.dictionaries.shared import SharedFeatures
from metrics.neurons.effects_result import Effect, NeuronEffects
from metrics.votes.result import ValueVotes
from tests.circuits.viewer.test_compare_page import made_up
from tests.dictionaries import random_dictionary
from tests.metrics.test_explanation_results import MADE as EXPLANATIONS
from tests.planted_concepts import images, network, true_heads
from tests.tiny import shared, tiny_task

QUICK: dict[str, Any] = {"resamples": 20, "quiet": True}
ONE = Estimate(0.5, 0.4, 0.6)
UNDER = Conditions("patch", "logit-difference", model="tiny", task_name="ioi", method="eap")
ASKED: dict[str, Any] = {"model": "tiny", "seconds": 1.0}


@functools.cache
def given() -> tuple[Any, Any, attribution.Scores]:
    """A model, its task, and scores of its edges."""
    model = shared("gpt2")
    task = tiny_task(model)
    return model, task, attribution.attribute(model, task, "eap", quiet=True)


def concepts() -> Result:
    one = explain(network(), true_heads(), images(), 2, quiet=True)
    return concept_faithfulness(network(), true_heads(), images(), [one], n_random=0, quiet=True)


@functools.cache
def traced() -> circuits.AttributionGraph:
    return circuits.trace(shared("gpt2"), [3, 17, 5, 40], [7, 11], top=12, quiet=True)


def values(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def nodes(level: str = "neuron", least: float = 0.0) -> circuits.NodeCircuit:
    graph = given()[2].graph
    found = values(graph.n_layers, 6)
    scores = attribution.Scores(found, graph, method="eap", level=level, model="tiny", task={"name": "ioi"})
    return circuits.NodeCircuit(scores, found > least)


def features() -> attribution.FeatureScores:
    model, task, _ = given()
    return attribution.features(model, task, [random_dictionary("residual", 16)], method="eap", quiet=True)


def feature_edges() -> FeatureEdges:
    row = {
        "prompt": 0, "into_dictionary": 0, "into_position": 3, "into_feature": 7, "dictionary": 0, "layer": 0,
        "site": "mlp_out", "position": 2,
    }  # fmt: skip
    rows = [{**row, "feature": 5, "activation": 1.0, "score": 2.0}, {**row, "feature": -1, "score": -1.0}]
    return FeatureEdges(pd.DataFrame(rows), [(1, "residual")], [["a"]], ["b"], "eap", "", "patch", "tiny", 1.0)


def edges_of_attention() -> AttentionEdges:
    told = {"form": "linear", "pooled": "mean", "n_prompts": 3, "task": "ioi", "objective": "logit-difference"}
    return AttentionEdges(values=values(3, 2, 2, 2, 2), ports=["q", "k", "v"], spans=["S1", "IO"], **told, **ASKED)


def usage() -> ExpertUsage:
    places = torch.zeros(4, 3, dtype=torch.long)
    return ExpertUsage(weights=values(4, 2, 3).abs(), places=places, layers=[0, 1], counted="all", **ASKED)


def contrast() -> NeuronContrast:
    p = torch.full((2, 4), 0.01, dtype=torch.float64)
    told = {"n_questions": 9, "n_groups": 9, "by_chance": [1], "alpha": 0.05, "objective": "log-probability"}
    made = {"values": values(2, 4), "statistic": values(2, 4), "p": p, "q": p, "widths": [4, 4]}
    return NeuronContrast(**made, **told, method="relp", **ASKED)


def quality() -> DictionaryQuality:
    names = ("cross_entropy", "rise", "rise_of_mean", "recovered", "explained", "active", "dead", "dense", "fake")
    often = torch.tensor([0.5, 0.1, 0.01])
    told = {"threshold": 0.1, "n_tokens": 40, "dictionary": "mine"}
    return DictionaryQuality(**dict.fromkeys(names, ONE), frequency=often, random_frequency=often / 2, **told, **ASKED)


def shared_features() -> SharedFeatures:
    return SharedFeatures(
        ratio=ONE, nearest=ONE, cosine=np.array([0.9, 0.2]), pairs=np.array([[0, 1], [1, 0]]), threshold=0.7
    )


def missed() -> Missed:
    frame = pd.DataFrame({"edge": ["m0->m1", "m0->logits"], "effect": [0.1, 0.0], "bound": [0.3, 0.2]})
    return Missed(frame, 0.3, 4.0, 20, 0.5, 1.0, 0.95, UNDER)


def effects() -> NeuronEffects:
    made = [Effect("ioi", "logit-difference", factor, ONE, ONE, ONE, ONE, 0.1) for factor in (0.0, 2.0)]
    return NeuronEffects(made, 5, 3, **ASKED)


def votes() -> ValueVotes:
    right = {"votes": np.array([True, False]), "probe": np.array([True, True])}
    return ValueVotes(
        {"votes": ONE, "probe": ONE}, {"probe": ONE}, right, pd.DataFrame(), pd.DataFrame(), 0.9, np.array([0.5]), 0.1,
        n_rules=10, n_candidates=2, **ASKED,
    )  # fmt: skip


def mechanisms() -> Mechanisms:
    prompts = pd.DataFrame({"prompt": [0, 1, 2], "cluster": [0, 1, 0], "clean": ["a", "b", "c"]})
    cosines = torch.tensor([[1.0, -0.2, 0.8], [-0.2, 1.0, 0.1], [0.8, 0.1, 1.0]])
    asked = {"task": "ioi", "model": "tiny", "method": "eap"}
    return Mechanisms(prompts, (None, None), pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), cosines, asked)


def robustness() -> circuits.Robustness:
    row = {"n": 3, "faithfulness": 0.9, "low": 0.8, "high": 1.0, "random": 0.0, "random_low": 0.0, "random_high": 0.1}
    rows = [{"varied": "as found", "setting": "", **row}, {"varied": "ablation", "setting": "mean", **row}]
    return circuits.Robustness(pd.DataFrame(rows), UNDER)


def sweep() -> SweepResult:
    row = {"model": "tiny", "task": "ioi", "seed": 0, "size": 5, "fraction": 0.1, "kl": 0.1, "seconds": 1.0}
    ends = {f"{of}{end}": 0.5 for of in ("faithfulness", "random") for end in ("", "_low", "_high")}
    frame = pd.DataFrame([{**row, **ends, "method": method} for method in ("eap", "relp")])
    return SweepResult(frame, pd.DataFrame(), pd.DataFrame(), {})


def inversion() -> Inversion:
    told = {"lengths": [2], "known": [], "layer": 1, "tolerance": 1e-6, "order": "gradient"}
    row = {"prompt": 0, "token": 5, "distance": 1e-9, "runner_up": 0.1, "tried": 3, "seconds": 0.1}
    rows = [{**row, "position": place} for place in range(2)]
    return Inversion.of(rows, [], texts=lambda ids: ["x" for _ in ids], **{**told, **ASKED})


def injectivity() -> Injectivity:
    nearest = torch.tensor([[0.1, 0.2, 0.3]])
    return Injectivity(nearest=nearest, neighbour=torch.tensor([[1, 0, 1]]), layers=(1,), tolerance=1e-6, **ASKED)


def edges(scores: attribution.Scores, n: int) -> circuits.Circuit:
    return circuits.Circuit(scores, scores.mask(n))


def tokens(model: Any, task: Any, scores: Any) -> Result:
    return attribution.tokens(model, task.prompts(model).clean, method="attnlrp", quiet=True)


def agreement(model: Any, task: Any, scores: Any) -> Result:
    asked: dict[str, Any] = {"methods": ["eap", "relp"], "sample": 9, "drop": (0,), "top": (3,)}
    return circuits.agreement(model, task, **asked, **QUICK)


def of_task(made: Callable[[Any, Any, Any], Result]) -> Callable[[], Result]:
    return lambda: made(*given())


EXAMPLES: dict[str, Callable[[], Any]] = {
    # circuits and what judges them
    "Circuit": of_task(lambda m, t, s: edges(s, 60)),
    "CircuitComparison": of_task(lambda m, t, s: edges(s, 60).compare(edges(s, 40))),
    "NodeCircuit": nodes,
    "NodeComparison": lambda: nodes().compare(nodes(least=0.5)),
    "Curve": of_task(lambda m, t, s: metrics.faithfulness_curve(m, t, s, n_random=1, **QUICK)),
    "OutputAgreement": of_task(lambda m, t, s: metrics.output_agreement(m, t, s.mask(60), n_random=2, **QUICK)),
    "RecursiveCurve": of_task(lambda m, t, s: metrics.recursive_curve(m, t, s, (0.5, 1.0), n_random=1, **QUICK)),
    "CircuitTests": of_task(lambda m, t, s: metrics.circuit_tests(
        m, t, s.mask(60), tests=["equivalence", "independence"], n_random=3, quiet=True
    )),
    "CircuitSaCo": of_task(lambda m, t, s: metrics.circuit_saco(m, t, s, **QUICK)),
    "Completeness": of_task(lambda m, t, s: metrics.completeness(m, t, s.mask(60), sets=2, **QUICK)),
    "Minimality": of_task(lambda m, t, s: metrics.minimality(m, t, s.mask(60), sets=1, sample=4, quiet=True)),
    "PromptFaithfulness": of_task(lambda m, t, s: metrics.prompt_faithfulness(m, t, s.mask(60), **QUICK)),
    "Missed": missed,
    "Stability": of_task(lambda m, t, s: circuits.stability(m, tiny_task(m, n=4), edges=30, resamples=3, quiet=True)),
    "AgreementTable": of_task(agreement),
    "MethodComparison": made_up,
    "Robustness": robustness,
    "Mechanisms": mechanisms,
    "SweepResult": sweep,
    "TaskCheck": lambda: TaskCheck("ioi", "logit-difference", 16, 3.8, -4.7, 2.0, 1.0, 0.1, 15, (), (), "tiny"),
    # scores
    "Scores": lambda: given()[2],
    "ComponentScores": of_task(lambda m, t, s: attribution.component_scores(m, t, quiet=True)),
    "NeuronScores": of_task(lambda m, t, s: attribution.neurons(m, t, quiet=True)),
    "FeatureScores": features,
    "FeatureEdges": feature_edges,
    "NeuronContrast": contrast,
    "ExpertUsage": usage,
    "AttentionEdges": edges_of_attention,
    "AttentionScores": of_task(lambda m, t, s: attribution.attention_scores(m, torch.tensor([3, 17, 5, 40]), "a1.h1")),
    "RetrievalScores": lambda: RetrievalScores(
        by_prompt=values(3, 2, 4).abs(), recall=torch.ones(3), min_recall=None, steps=9, **ASKED
    ),
    "TokenAttributions": of_task(tokens),
    "Relevance": of_task(lambda m, t, s: attribution.relevance(m, t.prompts(m).clean[:1], quiet=True)),
    "Decomposition": of_task(lambda m, t, s: attribution.decompose(m, t.prompts(m).clean[:1], matrices=True)),
    # attribution graphs
    "AttributionGraph": traced,
    "GraphComparison": lambda: traced().compare(traced()),
    "Intervention": lambda: traced().intervene({traced().nodes.query("kind == 'neuron'")["name"].iloc[0]: 0.0}),
    # dictionaries, neurons, inversion
    "DictionaryQuality": quality,
    "SharedFeatures": shared_features,
    "NeuronEffects": effects,
    "ValueVotes": votes,
    "Inversion": inversion,
    "Injectivity": injectivity,
    # concepts
    "ConceptHeads": true_heads,
    "ConceptExplanation": lambda: explain(network(), true_heads(), images(), 2, quiet=True),
    "TCAVScores": lambda: tcav(network(), "2", images(), epochs=1, quiet=True),
    "ConceptFaithfulness": concepts,
    # explanations
    "SaCo": EXPLANATIONS["saco"],
    "Curves": EXPLANATIONS["curves"],
    "Erasure": EXPLANATIONS["erasure"],
    "PerSample": EXPLANATIONS["flips"],
    "NormalisedAOPC": EXPLANATIONS["normalised"],
    "ExplanationReport": EXPLANATIONS["report"],
    "RoarResult": EXPLANATIONS["roar"],
    "ErasureCurve": EXPLANATIONS["erasure curve"],
    "MaskedFineTuning": EXPLANATIONS["fine-tuning"],
    "InDistribution": EXPLANATIONS["in distribution"],
    "Randomisation": EXPLANATIONS["randomisation"],
}  # fmt: skip
