"""Edges between features against brute-force autograd on the transformers module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import feature_edges, features
from interp.errors import InputError
from tests.dictionaries import random_dictionary
from tests.dictionaries_hooked import last_logits
from tests.oracle import model_of
from tests.tiny import D_MODEL, tiny_task

MODULES = ["layers.0", "layers.1.self_attn", "layers.1.mlp", "layers.1"]


def of_four_places() -> list[Any]:
    return [
        random_dictionary("residual", D_MODEL),
        random_dictionary("attention", D_MODEL),
        random_dictionary("transcoder", D_MODEL, skip=True, layer=1),
        random_dictionary("residual", D_MODEL, layer=1),
    ]


def gradient_at(
    model: Any, tokens: Tensor, first: int, last: int, end: tuple[int, int], one: Any
) -> tuple[Tensor, ...]:
    """What the first place writes, and the gradient of a later feature there; places between them are constants."""
    seen: dict[str, Tensor] = {}

    def hook(index: int) -> Any:
        def change(part: Any, arguments: Any, output: Any) -> Any:
            out = output[0] if isinstance(output, tuple) else output
            if index == first:
                out = seen["leaf"] = out.detach().requires_grad_()
            elif index == last:
                read = arguments[0] if one.site == "transcoder" else out
                seen["value"] = one.encode(read)[:, end[0], end[1]].sum()
            elif first < index < last:
                out = out.detach()
            return (out, *output[1:]) if isinstance(output, tuple) else out

        return change

    body = model.original_model.model
    handles = [body.get_submodule(name).register_forward_hook(hook(i)) for i, name in enumerate(MODULES)]
    try:
        last_logits(model, tokens)
    finally:
        for handle in handles:
            handle.remove()
    (gradient,) = torch.autograd.grad(seen["value"], seen["leaf"], allow_unused=True)
    return seen["leaf"].detach(), torch.zeros_like(seen["leaf"]) if gradient is None else gradient


def test_edges_are_brute_force_autograds() -> None:
    model, places = model_of("llama"), of_four_places()
    task = tiny_task(model)
    prompts = task.prompts(model)
    scores = features(model, task, places, method="eap", quiet=True)
    assert scores.values is not None
    assert scores.activations is not None
    active = scores.activations.abs().sum(0) * scores.values.abs().sum(0)
    ends = [(d, 5, int(active[d, 5].argmax())) for d in (1, 2, 3)] + [(3, 6, int(active[3, 6].argmax()))]
    found = feature_edges(model, task, places, ends, keep=10**5, method="eap", quiet=True).edges
    by_end = found.groupby(["into_dictionary", "into_position", "into_feature"])
    assert set(by_end.groups) == set(ends)
    checked = 0
    for end in ends:
        last, position, feature = end
        # dM/dd: the score over the change of the feature
        one = places[last]
        down = _gradients_of_features(model, task, places, last)[:, position, feature]
        for first in range(last):
            _, gradient = gradient_at(model, prompts.clean, first, last, (position, feature), one)
            source = places[first]
            f, error = _parts(model, prompts.clean, first, source)
            f_other, error_other = _parts(model, prompts.corrupted, first, source)
            want = (f - f_other) * (gradient @ source.W_dec.T) * down[:, None, None]
            left = ((error - error_other) * gradient).sum(-1) * down[:, None]
            rows = by_end.get_group(end)
            rows = rows[rows["dictionary"] == first]
            got = torch.zeros(*want.shape[:2], want.shape[2] + 1, dtype=torch.float64)
            at = [torch.tensor(rows[column].to_numpy()) for column in ("prompt", "position", "feature")]
            got[at[0], at[1], at[2]] = torch.tensor(rows["score"].to_numpy())  # -1 is the last column
            both = torch.cat((want, left[..., None]), -1)
            torch.testing.assert_close(got, both, rtol=1e-8, atol=1e-12)
            checked += int((both != 0).sum())
    assert checked > 200


def _hear(model: Any, tokens: Tensor, index: int) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []

    def hear(part: Any, arguments: Any, output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        seen.extend((arguments[0] if arguments else out, out))

    handle = model.original_model.model.get_submodule(MODULES[index]).register_forward_hook(hear)
    with torch.no_grad():
        last_logits(model, tokens)
    handle.remove()
    return seen[0], seen[1]


def _parts(model: Any, tokens: Tensor, index: int, one: Any) -> tuple[Tensor, Tensor]:
    read, written = _hear(model, tokens, index)
    read = read if one.site == "transcoder" else written
    f = one.encode(read)
    return f, written - one.decode(f, read)


def _gradients_of_features(model: Any, task: Any, places: list[Any], index: int) -> Tensor:
    """dM/df at the clean prompts, by autograd."""
    prompts = task.prompts(model)
    leaf: list[Tensor] = []

    def change(part: Any, arguments: Any, output: Any) -> Any:
        out = (output[0] if isinstance(output, tuple) else output).detach().requires_grad_()
        leaf.append(out)
        return (out, *output[1:]) if isinstance(output, tuple) else out

    handle = model.original_model.model.get_submodule(MODULES[index]).register_forward_hook(change)
    logits = last_logits(model, prompts.clean)
    handle.remove()
    value = logits.gather(1, prompts.correct[:, :1]) - logits.gather(1, prompts.incorrect[:, :1])
    (gradient,) = torch.autograd.grad(value.sum(), leaf[0])
    return gradient @ places[index].W_dec.T


def test_few_edges_are_the_largest_and_ends_are_checked(tmp_path: Any) -> None:
    model, places = model_of("llama"), of_four_places()
    task = tiny_task(model)
    ends = [(3, 6, p) for p in range(6)]
    whole = feature_edges(model, task, places, ends, keep=10**5, quiet=True).edges
    few = feature_edges(model, task, places, ends, keep=5, batch_size=2, quiet=True)
    assert few.edges["score"].tolist() == pytest.approx(whole["score"].head(5).tolist())
    path = few.save(tmp_path / "edges.json")
    assert type(few).load(path).edges.equals(few.edges)
    assert "5 edges into" in repr(few)
    for into, message in (
        ([(3, -1, 2)], "into holds"),
        ([(3, 2)], "features at one position each"),
        ([(3, 2, -1)], "errors have no edges"),
        ([], "into must list features"),
    ):
        with pytest.raises(InputError, match=message):
            feature_edges(model, task, places, into, quiet=True)
    with pytest.raises(InputError, match="takes no gradients"):
        feature_edges(model, task, places, ends, method="exact", quiet=True)
