"""Scores of components: against the bridge with one component patched at one position, and against its gradients."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.autograd import grad

from attribution import ComponentScores, applied, component_scores, rule_set
from attribution.rules import Epsilon
from interp.errors import InputError
from interp.kernels.ablation import ABLATIONS
from tests import oracle
from tests.oracle import MODELS, TOLERANCE, error, logit_difference, mixed_task, run
from tests.tiny import mostly_slow

KINDS = ("resid_pre", "attn_out", "mlp_out")
COUPLED = ("gemma2", "gemma3")  # a norm behind attention: heads share its divisor
RULES = ("relp", "gim", "attnlrp", "cp-lrp")


def scores(name, method="attribution-patching", task=None, **settings):
    model = oracle.model_of(name)
    return component_scores(model, task or mixed_task(model), method, quiet=True, **settings)


reference = functools.cache(scores)


def same(found, expected):
    """Two dictionaries of scores agree, kind by kind."""
    assert found.keys() == expected.keys()
    for kind, values in expected.items():
        assert error(found[kind], values) < TOLERANCE, kind


# ---- the bridge


def point(model, kind, layer):
    """The hook point of a component."""
    return f"blocks.{layer}.hook_in" if kind == "resid_pre" else oracle.sub_layer(model, kind.split("_")[0], layer)


def places(model):
    return {(kind, layer): point(model, kind, layer) for kind in KINDS for layer in range(len(model.blocks))}


def seen_mask(prompts, ablation="patch"):
    """Real positions, from the first difference on where the corrupted run is another prompt."""
    mask = torch.zeros_like(prompts.clean, dtype=torch.bool)
    for row, length in enumerate(prompts.lengths.tolist()):
        differ = (prompts.clean[row] != prompts.corrupted[row]).nonzero()[0, 0] if ablation == "patch" else 0
        mask[row, differ:length] = True
    return mask


def changes(model, prompts, ablation="patch"):
    """By kind and layer: clean less corrupted value, [n, pos, d_model]."""
    if ablation == "patch":  # simply what the other run has there
        _, clean = run(model, prompts.clean, keep=places(model).values())
        _, other = run(model, prompts.corrupted, keep=places(model).values())
        return {key: clean[at] - other[at] for key, at in places(model).items()}
    delta = oracle.differences(model, prompts, ablation)  # sums over sources; output biases are never ablated
    result, before = {}, [delta["input"]]
    for layer in range(len(model.blocks)):
        heads = [x for name, x in delta.items() if name.startswith(f"a{layer}.")]
        result["resid_pre", layer] = torch.stack(before).sum(0)
        result["attn_out", layer], result["mlp_out", layer] = torch.stack(heads).sum(0), delta[f"m{layer}"]
        before += [*heads, delta[f"m{layer}"]]
    return result


@torch.no_grad()
def patched_one_by_one(name, ablation="patch", objective=logit_difference):
    """By kind [n, layer, pos]: what the objective loses when one component is changed at one position.

    All at once: copy i of the prompts is the one in which the i-th component and position are changed.
    """
    model = oracle.model_of(name)
    prompts = mixed_task(model).prompts(model)
    delta, clean = changes(model, prompts, ablation), objective(model(prompts.clean), prompts)[0]
    (n, width), layers = prompts.clean.shape, len(model.blocks)

    def change(x, less, first):
        x = x.clone().unflatten(0, (-1, n))
        for position in range(width):
            x[first + position, :, position] -= less[:, position]
        return x.flatten(0, 1)

    edits = {
        at: functools.partial(change, less=delta[key], first=i * width)
        for i, (key, at) in enumerate(places(model).items())
    }
    logits = run(model, prompts.clean.repeat(len(edits) * width, 1), edits)[0]
    lost = (clean - objective(logits, prompts)).view(len(KINDS), layers, width, n).permute(0, 3, 1, 2)
    return dict(zip(KINDS, lost * seen_mask(prompts, ablation)[:, None], strict=True))


def gradients(model, prompts, tokens, base=None, cap=None):
    """By kind and layer, and by ("z", layer): the gradient of the objective in a run of `tokens`."""
    leaves = {}

    def add(x, key):
        leaves[key] = torch.zeros_like(x).requires_grad_()
        return x + leaves[key]

    at = {**places(model), **{("z", i): f"blocks.{i}.attn.o.hook_in" for i in range(len(model.blocks))}}
    edits = {place: functools.partial(add, key=key) for key, place in at.items()}
    for place, write in (base or {}).items():
        edits[place] = lambda x, write=write, own=edits[place]: own(write(x))
    logits = run(model, tokens, edits)[0]
    if cap is not None:  # the identity rule on the soft cap: undo it, and put its slope back as a constant
        inner = torch.atanh(logits / cap) * cap
        logits = inner * (logits / inner).detach()
    value = logit_difference(logits, prompts).sum()
    found = grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def times(model, prompts, delta, gradient, ablation="patch"):
    """By kind [n, layer, pos]: differences times gradients."""
    layers, mask = range(len(model.blocks)), seen_mask(prompts, ablation)[:, None]
    return {
        kind: torch.stack([(delta[kind, i] * gradient[kind, i]).sum(-1) for i in layers], 1) * mask for kind in KINDS
    }


@functools.cache
def setting(name):
    model = oracle.model_of(name)
    prompts = mixed_task(model).prompts(model)
    return model, prompts, changes(model, prompts)


@functools.cache
def gradients_of(name, version="clean"):
    """`gradients` in the plain run of a version of the prompts."""
    model, prompts, _ = setting(name)
    return gradients(model, prompts, getattr(prompts, version))


@functools.cache
def gradients_between(name, alpha):
    """`gradients` in the run whose embedding is `alpha` clean and the rest corrupted."""
    model, prompts, _ = setting(name)
    ends = [oracle.source_outputs(model, tokens) for tokens in (prompts.clean, prompts.corrupted)]
    return gradients(model, prompts, prompts.clean, oracle.input_edits(*ends, alpha))


# ---- exact


@pytest.mark.parametrize("name", MODELS)
def test_exact_scores_are_what_the_bridge_does_when_one_place_is_patched(name):
    found = scores(name, "exact")
    same(found.values, patched_one_by_one(name))
    assert all(values.dtype == torch.float64 for values in found.values.values())


@pytest.mark.parametrize("ablation", ABLATIONS[1:])
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gptj"])
def test_exact_scores_under_other_ablations(name, ablation):
    same(scores(name, "exact", ablation=ablation).values, patched_one_by_one(name, ablation))


def test_exact_scores_of_another_objective():
    def log_probability(logits, prompts):
        copies = logits.unflatten(0, (-1, len(prompts)))
        last = copies[:, torch.arange(len(prompts)), prompts.lengths - 1].log_softmax(-1)
        ids = [[i for i in row if i >= 0] for row in prompts.correct.tolist()]
        return torch.stack([last[:, row, chosen].logsumexp(-1) for row, chosen in enumerate(ids)], 1)

    expected = patched_one_by_one("llama", objective=log_probability)
    same(scores("llama", "exact", objective="log-probability").values, expected)


def test_activation_patching_is_another_name_for_exact():
    same(scores("qwen2", "activation-patching").values, scores("qwen2", "exact").values)


def test_what_enters_the_first_layer_is_the_input():
    # at a position behind which nothing else differs, patching the input is patching the token
    model = oracle.model_of("gpt2")
    task = mixed_task(model, (1,))  # its versions differ at the last position alone
    prompts = task.prompts(model)
    lost = logit_difference(model(prompts.clean), prompts) - logit_difference(model(prompts.corrupted), prompts)
    values = scores("gpt2", "exact", task).values["resid_pre"]
    assert values[0, :, -1].tolist() == pytest.approx([float(lost)] * 3, rel=1e-9)


# ---- gradients


@pytest.mark.parametrize("method", ["attribution-patching", "eap"])
@pytest.mark.parametrize("name", MODELS)
def test_scores_are_autograds_gradient_times_the_difference(name, method):
    model, prompts, delta = setting(name)
    same(scores(name, method).values, times(model, prompts, delta, gradients_of(name)))


@pytest.mark.parametrize("ablation", ABLATIONS[1:])
@pytest.mark.parametrize("name", ["gpt2", "gemma3", "mixtral"])
def test_other_ablations_take_the_same_gradient(name, ablation):
    model, prompts, _ = setting(name)
    gradient = gradients_of(name)
    expected = times(model, prompts, changes(model, prompts, ablation), gradient, ablation)
    same(scores(name, ablation=ablation).values, expected)


@pytest.mark.parametrize("name", MODELS)
def test_head_scores_are_the_gradient_times_the_difference_of_heads(name):
    model, prompts, _ = setting(name)
    found = scores(name, kinds=("z",)).values["z"]
    gradient, mask = gradients_of(name), seen_mask(prompts)[:, None, :, None]
    points = [f"blocks.{i}.attn.o.hook_in" for i in range(3)]
    heads = oracle.differences(model, prompts)
    in_stream = [
        torch.stack([(heads[f"a{i}.h{h}"] * gradient["attn_out", i]).sum(-1) for h in range(4)], -1) for i in range(3)
    ]
    assert error(found, torch.stack(in_stream, 1) * mask) < TOLERANCE
    if name not in COUPLED:  # with them a change of z also moves the divisor, which belongs to the run
        clean, other = (run(model, tokens, keep=points)[1] for tokens in (prompts.clean, prompts.corrupted))
        in_front = [((clean[at] - other[at]) * gradient["z", i]).sum(-1) for i, at in enumerate(points)]
        assert error(found, torch.stack(in_front, 1) * mask) < TOLERANCE


@pytest.mark.parametrize("ablation", ["patch", "zero"])
@pytest.mark.parametrize("name", mostly_slow(MODELS, {"gpt2", "gemma2", "mixtral"}.__contains__))
def test_heads_add_up_to_what_attention_adds(name, ablation):
    # gradient methods are linear in the difference; exact patching is not, and has no kind z
    found = scores(name, kinds=("z", "attn_out"), ablation=ablation).values
    assert error(found["z"].sum(-1), found["attn_out"]) < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "gptj", "llama"])
def test_what_enters_a_layer_adds_up_from_what_was_added_before_it(name):
    # the last residual stream is the input and all that was added to it: so are differences, under any gradient
    _, prompts, delta = setting(name)
    added = sum(delta[kind, i] for kind in ("attn_out", "mlp_out") for i in range(2)) + delta["resid_pre", 0]
    gradient = gradients_of(name)["resid_pre", 2]
    expected = (added * gradient).sum(-1) * seen_mask(prompts)
    assert error(scores(name).values["resid_pre"][:, 2], expected) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_clean_corrupted_averages_the_gradients_at_both_ends(name):
    model, prompts, delta = setting(name)
    ends = [gradients_of(name, version) for version in ("clean", "corrupted")]
    mean = {key: (ends[0][key] + ends[1][key]) / 2 for key in ends[0]}
    same(scores(name, "clean-corrupted").values, times(model, prompts, delta, mean))


@pytest.mark.parametrize(
    ("settings", "points"),
    [({"steps": 2}, (0.0, 0.5)), ({"steps": 2, "quadrature": "right"}, (0.5, 1.0)), ({"steps": 1}, (0.0,))],
    ids=["left", "right", "one"],
)
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neox", "mixtral"])
def test_integrated_gradients_average_over_interpolated_inputs(name, settings, points):
    model, prompts, delta = setting(name)
    runs = [gradients_between(name, alpha) for alpha in points]
    mean = {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}
    same(scores(name, "eap-ig", **settings).values, times(model, prompts, delta, mean))


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", MODELS)
def test_methods_with_rules_take_the_gradient_under_these_rules(name, rules):
    if rules == "gim" and name in ("gptj", "opt"):
        pytest.skip("hooks cannot reach the softmax")
    model, prompts, delta = setting(name)
    capped = name == "gemma2" and "activation" in rule_set(rules).by_operation
    with applied(model, rules):
        gradient = gradients(model, prompts, prompts.clean, cap=3.0 if capped else None)
    expected = times(model, prompts, delta, gradient)
    same(scores(name, rules).values, expected)
    same(scores(name, "attribution-patching", rules=rules).values, expected)


def test_rules_along_a_path():
    model, prompts, delta = setting("llama")
    rules = rule_set("relp").plus(Epsilon(0.1))
    ends = [oracle.source_outputs(model, tokens) for tokens in (prompts.clean, prompts.corrupted)]
    with applied(model, rules):
        runs = [gradients(model, prompts, prompts.clean, oracle.input_edits(*ends, alpha)) for alpha in (0.0, 0.5)]
    mean = {key: (runs[0][key] + runs[1][key]) / 2 for key in runs[0]}
    same(scores("llama", "eap-ig", rules=rules, steps=2).values, times(model, prompts, delta, mean))


# ---- what must not change them


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 2}, {"memory": 1 << 20}], ids=str)
@pytest.mark.parametrize("method", ["exact", "attribution-patching", "eap-ig"])
@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_batches_and_memory_change_nothing(name, method, settings):
    same(scores(name, method, **settings).values, reference(name, method).values)


@pytest.mark.parametrize("method", ["exact", "relp"])
def test_padding_and_order_change_nothing(method):
    task = mixed_task(oracle.model_of("llama"))
    whole = reference("llama", method).values
    order = [2, 0, 1]
    moved = scores("llama", method, task.select(order)).values
    same(moved, {kind: values[order] for kind, values in whole.items()})
    for row, length in enumerate((7, 5, 6)):
        alone = scores("llama", method, task.select([row])).values
        same(alone, {kind: values[[row], :, :length] for kind, values in whole.items()})
        assert all(not values[row, :, length:].any() for values in whole.values())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(("method", "ablation"), [("exact", "mean"), ("relp", "patch"), ("eap", "mean")])
def test_grad_modes_change_nothing(method, ablation, mode):
    expected = reference("gpt2", method, ablation=ablation).values
    with mode():
        same(scores("gpt2", method, ablation=ablation).values, expected)


def test_the_model_is_left_alone():
    model = oracle.model_of("gpt2")
    expected = scores("gpt2").values
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert not any(values.requires_grad for values in expected.values())


def test_objectives_of_a_users_own():
    def third(logits, prompts, clean):
        return 3 * logits[:, 3] - 3 * logits[:, 4]

    def once(logits, prompts, clean):
        return logits[:, 3] - logits[:, 4]

    for method in ("exact", "relp"):
        one = scores("qwen3", method, objective=once).values
        same(scores("qwen3", method, objective=third).values, {kind: 3 * values for kind, values in one.items()})


def test_divergence_from_the_clean_run_is_never_negative():
    values = scores("gpt2", "exact", objective="kl").values
    assert all(float(each.min()) > -1e-12 and float(each.max()) > 1e-4 for each in values.values())


# ---- what is given back


def test_the_mask_says_where_scores_can_be():
    model = oracle.model_of("gpt2")
    prompts = mixed_task(model).prompts(model)
    for ablation in ("patch", "zero"):
        found = scores("gpt2", "exact", ablation=ablation)
        assert torch.equal(found.mask, seen_mask(prompts, ablation))
        for values in found.values.values():
            assert not values[~found.mask[:, None].expand_as(values)].any()


def test_a_frame_holds_every_score_where_the_mask_is_true():
    found = scores("llama", kinds=("mlp_out", "z"))
    frame = found.to_frame()
    assert list(found.values) == ["mlp_out", "z"]
    assert frame.columns.tolist() == ["kind", "prompt", "layer", "position", "score", "head"]
    places = int(found.mask.sum()) * 3
    assert frame["kind"].value_counts().to_dict() == {"z": 4 * places, "mlp_out": places}
    for row in frame.sample(40, random_state=0).itertuples():
        where = (row.prompt, row.layer, row.position)
        assert bool(found.mask[row.prompt, row.position])
        value = found.values[row.kind][(*where, int(row.head))] if row.kind == "z" else found.values[row.kind][where]
        assert row.score == float(value)
    assert frame[frame["kind"] == "mlp_out"]["head"].isna().all()
    total = float(found.values["mlp_out"].sum() + found.values["z"].sum())
    assert frame["score"].sum() == pytest.approx(total, rel=1e-12)
    plain = scores("llama", "exact").to_frame()
    assert plain.columns.tolist() == ["kind", "prompt", "layer", "position", "score"]
    assert not plain.duplicated(["kind", "prompt", "layer", "position"]).any()


def test_a_representation_says_method_and_sizes():
    found = scores("gpt2", "relp", kinds=("attn_out", "z"))
    assert isinstance(found, ComponentScores)
    assert repr(found).startswith("ComponentScores: relp: attn_out (3, 3, 7), z (3, 3, 7, 4), ")
    assert found.method == "relp"
    assert found.seconds > 0


@pytest.mark.parametrize("method", ["exact", "eap"])
def test_kinds_may_be_one_name_or_repeated_but_not_none_at_all(method):
    one = scores("gpt2", method, kinds="attn_out")
    same(one.values, scores("gpt2", method, kinds=("attn_out", "attn_out")).values)
    with pytest.raises(InputError, match="kinds"):
        scores("gpt2", method, kinds=())


# ---- errors


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("eap", {"kinds": ("attn_outs",)}, "kinds='attn_outs' is unknown; did you mean 'attn_out'"),
        ("exact", {"kinds": ("z",)}, "kinds='z' is unknown"),
        ("activation-patching", {"kinds": ("attn_out", "z")}, "kinds='z' is unknown"),
        ("eap-ig-activations", {}, "method='eap-ig-activations' scores edges alone"),
        ("rellp", {}, "method='rellp' is unknown; did you mean 'relp'"),
        ("eap", {"objective": "accuracy"}, "objective='accuracy' has no gradient; use it to evaluate"),
        ("relp", {"objective": "kl"}, "objective='kl' has a gradient of zero at the clean run"),
        ("eap", {"objective": "logit"}, "objective='logit' is unknown"),
        ("eap-ig", {"ablation": "zero"}, "method='eap-ig' follows a path between two prompts"),
        ("clean-corrupted", {"ablation": "mean"}, "method='clean-corrupted' follows a path between two prompts"),
        ("eap", {"ablation": "none"}, "ablation='none' is unknown"),
        ("exact", {"rules": "relp"}, "rules is no setting of method='exact'"),
        ("relp", {"rules": "gim"}, "rules is no setting of method='relp'"),
        ("eap", {"rules": "rlp"}, "rules='rlp' is unknown"),
        ("eap-ig", {"steps": 0}, "steps=0"),
        ("eap-ig", {"quadrature": "simpson"}, "quadrature='simpson' is unknown"),
        ("exact", {"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ("eap", {"memory": 5}, "memory=5 must be a whole number of at least 1048576"),
    ],
    ids=str,
)
def test_what_cannot_be_right_is_refused(method, settings, message):
    with pytest.raises(InputError, match=message):
        scores("gpt2", method, **settings)


def test_objectives_that_need_a_path_or_no_gradient_have_one():
    assert scores("gpt2", "eap-ig", objective="kl").values["resid_pre"].any()
    thirds = scores("gpt2", "exact", objective="accuracy").values["resid_pre"]
    assert torch.equal(thirds, thirds.round())  # per prompt: right or wrong


def test_a_nan_objective_is_refused_and_the_prompt_named():
    def broken(logits, prompts, clean):
        return torch.full((len(prompts),), float("nan"), dtype=logits.dtype) + 0 * logits[:, 0]

    for method in ("exact", "eap"):
        with pytest.raises(InputError, match="objective='broken' is NaN on prompt"):
            scores("gpt2", method, objective=broken)
