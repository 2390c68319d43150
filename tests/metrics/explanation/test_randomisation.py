"""Model-parameter randomisation: what must change changes, what cannot does not, and the model stays whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from interp.errors import InputError
from metrics.explanation.randomisation import normal, permuted, randomisation


@pytest.fixture
def net() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return net.eval()


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(12, 10, generator=torch.Generator().manual_seed(1))


def gradient_x_input(model: Any, inputs: Tensor, target: Tensor) -> Tensor:
    inputs = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(inputs).gather(1, target[:, None]).sum(), inputs)
    return (gradient * inputs).detach()


def size(model: Any, inputs: Tensor, target: Tensor) -> Tensor:
    return inputs.abs()


EXPLAIN = {"gradient x input": gradient_x_input, "|x|": size}


def test_gradients_change_and_the_input_does_not(net: nn.Module, inputs: Tensor) -> None:
    found = randomisation(net, inputs, EXPLAIN, resamples=200)
    assert found.layers == ("4", "2", "0")
    gradient, control = (found.final(name) for name in EXPLAIN)
    assert abs(gradient[0].value) < 0.25
    assert control[0].value == pytest.approx(1)
    assert found.reading["|x|"].startswith("fails")
    # the sizes of gradient x input follow those of the input: the reading counts them
    assert found.reading["gradient x input"].startswith("in part")
    assert (
        randomisation(net, inputs, lambda m, x, y: gradient_x_input(m, x, y) / x, resamples=200)
        .reading["<lambda>"]
        .startswith("passes")
    )
    frame = found.to_frame()
    assert len(frame) == 2 * 2 * 3
    assert (frame["spearman_low"] <= frame["spearman"] + 1e-9).all()


def test_by_the_definition(net: nn.Module, inputs: Tensor) -> None:
    """One draw, against layers replaced by hand and scipy's correlation."""
    found = randomisation(net, inputs, gradient_x_input, draws=1, seed=5, resamples=10)
    target = net(inputs).argmax(1)
    before = gradient_x_input(net, inputs, target)
    for mode in ("cascading", "independent"):
        generator = torch.Generator().manual_seed(5)
        trained = {name: value.clone() for name, value in net.state_dict().items()}
        weights = dict(trained)
        for stage, layer in enumerate(("4", "2", "0")):
            if mode == "independent":
                weights = dict(trained)
            for part in ("weight", "bias"):
                own = trained[f"{layer}.{part}"].double()
                drawn = torch.randn(own.shape, generator=generator, dtype=torch.float64)
                weights[f"{layer}.{part}"] = (own.mean() + own.std(correction=0) * drawn).float()
            other = nn.Sequential(
                *[type(m)(m.in_features, m.out_features) if isinstance(m, nn.Linear) else m for m in net]
            )
            other.load_state_dict(weights)
            after = gradient_x_input(other, inputs, target)
            for i, change in enumerate((lambda x: x, torch.abs)):
                expected = [spearmanr(a, b).statistic for a, b in zip(change(before), change(after), strict=True)]
                np.testing.assert_allclose(found.values["gradient_x_input", mode][stage, i], expected, atol=1e-6)


def test_the_model_is_never_touched(net: nn.Module, inputs: Tensor) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seen: list[Any] = []

    def watch(model: Any, inputs: Tensor, target: Tensor) -> Tensor:
        seen.append(model)
        return gradient_x_input(model, inputs, target)

    randomisation(net, inputs, watch, draws=2, resamples=10)
    assert all(model is not net for model in seen)
    assert len(seen) == 1 + 2 * 2 * 3
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in net.parameters())


def test_decided_by_its_seed(net: nn.Module, inputs: Tensor) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, same, other = (
        randomisation(net, inputs, gradient_x_input, draws=1, seed=seed, resamples=10).to_frame() for seed in (3, 3, 4)
    )
    assert one.equals(same)
    assert not one.equals(other)
    assert torch.equal(state, torch.get_rng_state())


def test_layers_by_name_and_elements_that_do_not_count(net: nn.Module, inputs: Tensor) -> None:
    real = torch.ones(12, 10, dtype=torch.bool)
    real[:, 5:] = False
    found = randomisation(
        net, inputs, lambda m, x, y: gradient_x_input(m, x, y).masked_fill(~real, torch.nan), layers=["0", "4"],
        mode="cascading", real=real, draws=1, resamples=10,
    )  # fmt: skip
    assert found.layers == ("4", "0")
    alone = randomisation(
        net, inputs, lambda m, x, y: gradient_x_input(m, x, y)[:, :5], layers=["0", "4"], mode="cascading", draws=1,
        resamples=10,
    )  # fmt: skip
    np.testing.assert_allclose(found.values["<lambda>", "cascading"], alone.values["<lambda>", "cascading"], atol=1e-12)


def test_redraws_keep_what_they_promise() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.arange(2000.0).reshape(40, 50)
    drawn = normal(values, generator)
    assert float(drawn.mean()) == pytest.approx(float(values.mean()), rel=0.05)
    assert float(drawn.std()) == pytest.approx(float(values.std()), rel=0.05)
    mixed = permuted(values, generator)
    assert not torch.equal(mixed, values)
    assert torch.equal(mixed.flatten().sort().values, values.flatten())
    assert torch.equal(normal(torch.ones(3), generator), torch.ones(3).double())


def test_constant_explanations_of_random_models_have_no_value(net: nn.Module, inputs: Tensor) -> None:
    trained = net[4].weight.clone()

    def only_trained(model: Any, inputs: Tensor, target: Tensor) -> Tensor:
        return inputs * float(torch.equal(model[4].weight, trained))

    found = randomisation(net, inputs, only_trained, mode="cascading", resamples=10)
    assert found.reading["only_trained"].startswith("no value")
    assert found.to_frame()["n"].tolist() == [0, 0, 0]


def test_what_people_see(net: nn.Module, inputs: Tensor) -> None:
    found = randomisation(net, inputs, {"<b>": size}, resamples=10, redraw="permuted")
    assert "<b>: fails" in repr(found)
    assert "<b>&lt;b&gt;</b>" in found._repr_html_()
    assert len(found.figure().data) == 2 * 2
    alone = randomisation(net, inputs, size, mode="independent", resamples=10)
    assert "whichever layer" in alone.reading["size"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"explain": lambda m, x, y: x * torch.nan}, "values that are NaN or infinite"),
        ({"explain": {"a": lambda m, x, y: x[:3]}}, r"explain\['a'\] must return attributions \[12, ...\]"),
        ({"explain": {"flat": lambda m, x, y: x * 0}}, r"explain\['flat'\] is constant in every sample"),
        ({"explain": {"text": lambda m, x, y: "no"}}, r"explain\['text'\] must return numbers"),
        ({"explain": {}}, "explain must be a function"),
        ({"mode": "cascade"}, "did you mean 'cascading'"),
        ({"layers": ["9"]}, "layer='9' is unknown"),
        ({"layers": ["1"]}, "no parameters in its layers"),
        ({"redraw": "norm"}, "did you mean 'normal'"),
        ({"draws": 0}, "draws=0"),
        ({"model": torch.sin}, "must be a torch module"),
        ({"model": nn.Flatten(0).eval()}, "no parameters in its layers"),
        ({"real": torch.ones(3, 3, dtype=torch.bool)}, "real must be bool"),
    ],
)
def test_refuses(net: nn.Module, inputs: Tensor, change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"model": net, "explain": size, "inputs": inputs, **change}
    with pytest.raises(InputError, match=message):
        randomisation(**arguments)


def test_an_explainer_that_writes_into_what_it_gets_changes_nothing(net: nn.Module, inputs: Tensor) -> None:
    def writes(model: Any, inputs: Tensor, target: Tensor) -> Tensor:
        found = gradient_x_input(model, inputs, target)
        inputs.zero_()
        return found

    before = inputs.clone()
    found = randomisation(net, inputs, {"it": writes}, draws=1, resamples=50)
    assert torch.equal(inputs, before)
    expected = randomisation(net, inputs, {"it": gradient_x_input}, draws=1, resamples=50)
    np.testing.assert_allclose(found.values["it", "cascading"], expected.values["it", "cascading"])
