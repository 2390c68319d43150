"""Scores of features against autograd on the transformers module itself, and the laws that they obey (float64)."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from attribution import FeatureScores, features
from interp.errors import InputError
from tests.dictionaries import FEATURES, of_all_places, random_dictionary
from tests.dictionaries_hooked import HOOKED, hooked, last_logits
from tests.oracle import model_of
from tests.tiny import D_MODEL, LAYERS, tiny_task


class Oracle:
    """One dictionary at the module, run by hooks: what it sees of a task's prompts, and what becomes of changes."""

    def __init__(self, model: Any, case: tuple[str, str, str], one: Any, task: Any) -> None:
        self.model, self.case, self.one = model, case, one
        prompts = task.prompts(model)
        self.clean, self.corrupted = prompts.clean, prompts.corrupted
        self.correct, self.incorrect = prompts.correct[:, :1], prompts.incorrect[:, :1]
        with torch.no_grad():
            (self.read, self.f, self.error), (_, self.f_other, self.error_other) = map(
                self.see, (self.clean, self.corrupted)
            )

    def see(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen: list[Tensor] = []

        def look(read: Tensor, out: Tensor) -> Tensor:
            f = self.one.encode(read)
            seen.extend((read, f, out - self.one.decode(f, read)))
            return out

        with hooked(self.model.original_model.model, *self.case, look):
            last_logits(self.model, tokens)
        return seen[0], seen[1], seen[2]

    def objective(self, f: Tensor, error: Tensor) -> Tensor:
        out = self.one.decode(f, self.read) + error
        with hooked(self.model.original_model.model, *self.case, lambda read, written: out):
            logits = last_logits(self.model, self.clean)
        return (logits.gather(1, self.correct) - logits.gather(1, self.incorrect))[:, 0]

    def gradients(self, f: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        leaves = f.clone().requires_grad_(), error.clone().requires_grad_()
        found = torch.autograd.grad(self.objective(*leaves).sum(), leaves)
        return found[0], found[1]


@pytest.fixture(scope="module", params=HOOKED, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: Any) -> tuple[Any, Any, Any, Oracle]:
    name, place, *modules = request.param
    model = model_of(name)
    one = random_dictionary(place, D_MODEL, skip=place == "transcoder")
    task = tiny_task(model)
    return model, task, one, Oracle(model, (place, *modules), one, task)


@pytest.mark.parametrize("ablation", ["patch", "zero"])
def test_scores_at_the_clean_prompts_are_autograds(case: Any, ablation: str) -> None:
    model, task, one, oracle = case
    found = features(model, task, one, method="eap", ablation=ablation, quiet=True)
    by_feature, by_error = oracle.gradients(oracle.f, oracle.error)
    f, error = (0.0, 0.0) if ablation == "zero" else (oracle.f_other, oracle.error_other)
    torch.testing.assert_close(found.values[:, 0], (oracle.f - f) * by_feature, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.errors[:, 0], ((oracle.error - error) * by_error).sum(-1), rtol=1e-8, atol=1e-10)
    assert found.activations is not None
    torch.testing.assert_close(found.activations[:, 0][found.mask], oracle.f[found.mask])


def test_scores_along_the_places_own_way_are_autograds(case: Any) -> None:
    model, task, one, oracle = case
    found = features(model, task, one, steps=3, quadrature="midpoint", quiet=True)
    totals = torch.zeros_like(oracle.f), torch.zeros_like(oracle.error)
    for alpha in (1 / 6, 3 / 6, 5 / 6):
        moved = (
            x * alpha + y * (1 - alpha) for x, y in ((oracle.f, oracle.f_other), (oracle.error, oracle.error_other))
        )
        for total, gradient in zip(totals, oracle.gradients(*moved), strict=True):
            total += gradient / 3
    torch.testing.assert_close(found.values[:, 0], (oracle.f - oracle.f_other) * totals[0], rtol=1e-8, atol=1e-10)
    errors = ((oracle.error - oracle.error_other) * totals[1]).sum(-1)
    torch.testing.assert_close(found.errors[:, 0], errors, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("ablation", ["patch", "mean", "mean-positional"])
def test_patched_features_are_what_the_module_makes_of_them(case: Any, ablation: str) -> None:
    model, task, one, oracle = case
    feature = int((oracle.f - oracle.f_other).abs().sum((0, 1)).argmax())
    only = [(0, feature), (0, 4, feature), (0, 2, -1), (0, -1)]
    found = features(model, task, one, method="exact", only=only, ablation=ablation, quiet=True).top(None)
    f, error = oracle.f_other, oracle.error_other
    if ablation != "patch":
        over = (0, 1) if ablation == "mean" else (0,)
        f, error = (x.mean(over, keepdim=True).expand_as(x) for x in (oracle.f, oracle.error))
    with torch.no_grad():
        clean = oracle.objective(oracle.f, oracle.error)
        for _, *place in only:
            position, p = (slice(None), place[0]) if len(place) == 1 else place
            changed, left = oracle.f.clone(), oracle.error.clone()
            if p < 0:
                left[:, position] = error[:, position]
            else:
                changed[:, position, p] = f[:, position, p]
            at = -1 if len(place) == 1 else position
            rows = found[(found["position"] == at) & (found["feature"] == p)].sort_values("prompt")
            want = clean - oracle.objective(changed, left)
            torch.testing.assert_close(torch.tensor(rows["score"].to_numpy()), want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_what_everything_runs_through_adds_up_to_the_whole_effect(name: str) -> None:
    model = model_of(name)
    task, last = tiny_task(model), {"layer": LAYERS - 1}
    places = [random_dictionary("embedding", D_MODEL), random_dictionary("residual", D_MODEL, **last)]
    found = features(model, task, places, steps=64, quadrature="gauss-legendre", quiet=True)
    prompts = task.prompts(model)
    with torch.no_grad():
        clean, other = (last_logits(model, tokens) for tokens in (prompts.clean, prompts.corrupted))
    change = clean - other
    whole = (change.gather(1, prompts.correct) - change.gather(1, prompts.incorrect))[:, 0]
    for index in range(2):
        total = found.values[:, index].sum((1, 2)) + found.errors[:, index].sum(1)
        torch.testing.assert_close(total, whole, rtol=0, atol=(1e-2, 1e-6)[index])  # the embedding's way bends more


def test_all_ways_of_holding_scores_agree(tmp_path: Any) -> None:
    model, places = model_of("gemma2"), of_all_places(D_MODEL)
    task = tiny_task(model, n=4, ragged=True)
    whole = features(model, task, places, method="eap-ig", steps=2, quiet=True)
    assert whole.values is not None
    assert whole.values.shape == (4, len(places), 7, FEATURES)
    kept = features(model, task, places, method="eap-ig", steps=2, keep=30, batch_size=2, quiet=True)
    columns = ["prompt", "dictionary", "layer", "site", "position", "feature", "activation", "score"]
    assert kept.top(30).columns.tolist() == columns
    pd.testing.assert_frame_equal(kept.top(30), whole.top(30), rtol=1e-9)
    summed = features(model, task, places, method="eap-ig", steps=2, summed=("prompt", "position"), quiet=True)
    torch.testing.assert_close(summed.values, whole.sum("prompt", "position").values)
    torch.testing.assert_close(summed.errors, whole.sum("prompt", "position").errors)
    assert summed.top(3).columns.tolist() == ["dictionary", "layer", "site", "feature", "score"]
    assert whole.top_errors(2).columns.tolist() == ["prompt", "dictionary", "layer", "site", "position", "score"]
    path = whole.save(tmp_path / "features.json")
    again = FeatureScores.load(path)
    assert torch.equal(again.values, whole.values)
    assert again.places == whole.places
    assert "features ever active" in repr(again)
    assert len(whole.figure(5).data[0].y) == 5
    turned = features(model, task, places[::-1], method="eap-ig", steps=2, quiet=True)
    torch.testing.assert_close(turned.values.flip(1), whole.values)


def test_prompts_are_scored_as_they_are_and_dead_features_score_nothing() -> None:
    model = model_of("llama")
    tokens = tiny_task(model).prompts(model).clean
    bias = torch.zeros(FEATURES, dtype=torch.float64)
    bias[3] = -1e6
    one = random_dictionary("residual", D_MODEL, b_enc=bias)
    found = features(model, tokens, one, target=5, method="eap", quiet=True)
    with torch.no_grad():
        logits = last_logits(model, tokens)
    torch.testing.assert_close(found.explained, logits[:, 5])
    assert not found.active[0][3]
    assert not found.values[..., 3].any()
    assert f"{int(found.active[0].sum())} of 20 features ever active" in repr(found)
    dead = features(model, tokens, one, target=5, method="exact", only=[(0, 3), (0, 1)], quiet=True).top(None)
    assert (dead[dead["feature"] == 3]["score"] == 0).all()
    assert (dead[dead["feature"] == 1]["score"] != 0).any()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "exact"}, "only must list features as"),
    ({"method": "exact", "only": [(0, 99)]}, "features of dictionary 0 are 0 to 19, -1 its error"),
    ({"method": "exact", "only": [(2, 1)]}, "dictionaries up to 0"),
    ({"method": "exact", "only": [(0, 1)], "keep": 3}, "keep and summed are for gradients"),
    ({"only": [(0, 1)]}, "only goes with method='exact'"),
    ({"method": "eap-ig-activations", "credit": "all"}, "credit='own'"),
    ({"method": "no-such"}, "is unknown"),
    ({"method": "mask-ig"}, "has no meaning for features"),
    ({"keep": 3, "summed": "prompt"}, "give one of the two"),
    ({"keep": 10**6}, "is more than there are"),
    ({"summed": "feature"}, "summed='feature' is unknown"),
    ({"stepz": 3}, "did you mean 'steps'"),
]


@pytest.mark.parametrize(("keywords", "message"), REFUSED)
def test_what_has_no_meaning_is_refused(keywords: dict[str, Any], message: str) -> None:
    model = model_of("llama")
    with pytest.raises(InputError, match=message):
        features(model, tiny_task(model), random_dictionary("residual", D_MODEL), quiet=True, **keywords)
