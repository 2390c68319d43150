"""RelP, AttnLRP and CP-LRP on the real SmolLM2-135M against the method authors' own code (tests/golden/README.md)."""

from __future__ import annotations

import pytest
import torch

import attribution
from attribution import component_scores
from interp import Task

pytestmark = pytest.mark.real

PROMPTS = ("ioi0", "ioi1", "long0")
KINDS = ("resid_pre", "attn_out", "mlp_out")


def ioi(golden, rows):
    """Of the 16 prompts that the RelP file shares with the EAP file, these."""
    tensors, metadata = golden("eap_smollm2_ioi16")
    answers = ([metadata[key][row] for row in range(16)[rows]] for key in ("correct", "incorrect"))
    return Task.from_tokens("ioi16", tensors["clean_tokens"][rows], tensors["corrupted_tokens"][rows], *answers)


@pytest.mark.parametrize(
    ("key", "method", "rules", "rows"),
    [
        ("attribution_patching", "attribution-patching", None, slice(16)),
        ("relp", "relp", None, slice(16)),
        ("relp_ah", "eap", "relp-ah", slice(16)),
        ("exact", "exact", None, slice(1)),  # over a thousand runs for each prompt
        pytest.param("exact", "exact", None, slice(16), marks=pytest.mark.nightly),
    ],
)
def test_scores_of_components_are_the_references_to_a_thousandth_of_the_largest(
    smollm2, golden, key, method, rules, rows
):
    tensors = golden("relp_smollm2_ioi16")[0]
    kinds = KINDS if key == "exact" else (*KINDS, "z")
    found = component_scores(smollm2, ioi(golden, rows), method, kinds=kinds, rules=rules, quiet=True)
    for kind in kinds:
        expected = tensors[f"{key}.{kind}"][rows]
        # components in front of the first difference have a score of zero on both sides
        assert found.values[kind].shape == expected.shape
        assert (found.values[kind] - expected).abs().max() < 1e-3 * expected.abs().max(), kind


@pytest.mark.parametrize("prompt", PROMPTS)
def test_attnlrp_of_tokens_and_of_every_layer_is_the_references(smollm2, golden, prompt):
    tensors, metadata = golden("attnlrp_smollm2")
    tokens, about = tensors[f"{prompt}.tokens"], metadata[prompt]
    found = attribution.tokens(smollm2, tokens, method="attnlrp", quiet=True)
    expected = tensors[f"{prompt}.relevance"]
    assert found.target[0].tolist() == [about["target"], -1]
    assert float(found.logits[0]) == pytest.approx(about["logit"], rel=1e-4)
    assert (found.values[0] - expected).abs().max() < 1e-3 * expected.abs().max()
    assert float(found.conservation[0]) == pytest.approx(about["sum_over_logit"], abs=1e-3)
    layers = attribution.relevance(smollm2, tokens, rules="attnlrp", at="blocks.*.hook_out", quiet=True)
    ours = torch.stack([layers.per(hook, "position")[0] for hook in layers.values])
    theirs = tensors[f"{prompt}.relevance_layer_out"]
    assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_with_queries_and_keys_held_relevance_is_conserved_through_all_layers(smollm2, golden, prompt):
    tokens = golden("attnlrp_smollm2")[0][f"{prompt}.tokens"]
    found = attribution.tokens(smollm2, tokens, method="cp-lrp", quiet=True)
    assert float(found.conservation[0]) == pytest.approx(1, abs=1e-5)
    layers = attribution.relevance(smollm2, tokens, rules="cp-lrp", at="blocks.*.hook_out", quiet=True)
    assert layers.conservation()["ratio"].to_numpy() == pytest.approx(1, abs=1e-5)
