"""The study of planted experts, in small: its prompts, where routers are told to go, and all parts of its page."""

from __future__ import annotations

import pytest
import torch

from docs.scripts.experts import (
    ASKED,
    CONTEXT,
    CONTEXT_ASKED,
    DOCS,
    EXPERTS,
    MEMORY,
    MEMORY_ASKED,
    OBJECT,
    SMALL,
    SUBJECT,
    planted,
    prompts,
    study,
)


def test_prompts_and_planted_routes_are_as_told() -> None:
    ids = prompts(torch.tensor([[3, 4], [0, 1]]), torch.tensor([CONTEXT_ASKED, ASKED]))
    assert ids.tolist() == [[0, OBJECT + 3, CONTEXT_ASKED, SUBJECT + 4], [0, OBJECT, ASKED, SUBJECT + 1]]
    routes = planted(torch.tensor([CONTEXT_ASKED, MEMORY_ASKED, ASKED]))
    assert routes.argmax(1).tolist() == [CONTEXT, MEMORY, MEMORY]
    torch.testing.assert_close(routes.sum(1), torch.ones(3))
    assert (routes > 0).sum().item() == 6
    assert routes.shape == (3, EXPERTS)


@pytest.mark.slow
def test_the_study_runs_in_small() -> None:
    page = study(SMALL)
    for title in ("Are they what they were told to be", "Found by tuned routers", "Tuning the experts"):
        assert f"## {title}" in page
    assert page.count("random, seed") == SMALL.random
    headings = [line for line in page.splitlines() if line.startswith("#")]
    kept = (DOCS / "experts-study.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in kept if line.startswith("#")] == headings
