"""Pictures of one prompt: attention against transformers, direct effects and the logit lens against the model."""

from __future__ import annotations

import numpy as np
import pytest

from circuits import viewer
from circuits.viewer.linked import linked_views
from interp.errors import InputError
from tests.tiny import shared, tiny_module, tiny_task


def test_attention_is_that_of_transformers_on_both_prompts_and_the_difference():
    model, module = shared("llama"), tiny_module("llama")
    task = tiny_task(model)
    prompts = task.select([1]).prompts(model)
    clean, corrupted = (
        module(tokens, output_attentions=True).attentions[2][0, 3].detach().numpy()
        for tokens in (prompts.clean, prompts.corrupted)
    )
    figure = viewer.attention_figure(model, task, "a2.h3", example=1)
    for trace, expected in zip(figure.data, (clean, corrupted, clean - corrupted), strict=True):
        drawn = np.array(trace.z, dtype=float)
        assert np.isnan(drawn[np.triu_indices(len(drawn), 1)]).all()  # nobody looks ahead
        assert np.abs(np.nan_to_num(drawn) - expected).max() < 1.1 / 255
    assert "tiny" in figure.layout.title.text
    assert "attention of a2.h3, prompt 1" in figure.layout.title.text
    assert len(figure.layout.xaxis.ticktext) == len(clean)


def test_what_is_no_head_or_no_prompt_is_refused():
    model = shared("llama")
    with pytest.raises(InputError, match=r"head='a9.h0' is no head of the model; its heads go from a0\.h0 to a2\.h3"):
        viewer.attention_figure(model, tiny_task(model), "a9.h0")
    with pytest.raises(InputError, match="example=9 is no prompt"):
        viewer.answer_figure(model, tiny_task(model), example=9)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_bars_and_lens_end_at_the_difference_of_logits(name):
    model = shared(name)
    task = tiny_task(model)
    views = linked_views(model, task, ["m1"], example=1)
    attention, others, lens = viewer.answer_figure(model, task, example=1).data
    assert lens.y[-1] == pytest.approx(views.logits, rel=1e-6)
    assert sum(attention.y) + sum(others.y) + views.rest == pytest.approx(views.logits, rel=1e-6)


def test_the_lens_is_what_transformers_makes_of_its_hidden_states():
    model, module = shared("llama"), tiny_module("llama")
    task = tiny_task(model)
    prompts = task.select([0]).prompts(model)
    states = module(prompts.clean, output_hidden_states=True).hidden_states
    lens = viewer.answer_figure(model, task).data[2].y
    correct, incorrect = (ids[0][ids[0] >= 0] for ids in (prompts.correct, prompts.incorrect))
    for told, state in zip(lens, states[:-1], strict=False):  # the last one is behind the norm
        logits = module.lm_head(module.model.norm(state))[0, -1].detach()
        assert told == pytest.approx(float(logits[correct].mean() - logits[incorrect].mean()), rel=1e-5)
    assert len(lens) == len(states)
