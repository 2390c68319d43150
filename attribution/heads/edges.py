"""`attention_edges`: how much of each head's effect passes from span to span, through its values, keys and queries."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Int
from torch import Tensor

from attribution.edges.gradient import EAP
from attribution.gradients import BatchScorer, GradientScorer
from attribution.heads.crossing import PORTS, by_span, crossings
from attribution.heads.edges_result import AttentionEdges
from attribution.heads.recorded import AttentionRecorder, LayerAttention, ProjectionRecorder
from attribution.heads.spans import names_of, placed_spans
from attribution.over_prompts import mean_over_prompts
from interp import numbers
from interp.errors import InputError, choose
from interp.kernels.batching import Batch, Plan, budget_of, bytes_per_position
from interp.kernels.forward import run_blocks
from interp.keywords import check_keywords
from interp.run import RunKeywords
from interp.running import door
from interp.setting import GivenObjective, Setting
from interp.spans import Placed
from interp.tasks.refusals import refuse_unequal
from interp.tasks.task import Task

FORMS = ("linear", "peap")
POOLED = ("sum", "mean", "absolute", "largest")
_PAIRS = 8  # matrices [head, query, key] that are held of the layer at hand


class AttentionEdgeKeywords(RunKeywords, total=False):
    """The keywords of `attention_edges`."""

    objective: GivenObjective


@numbers.checked()
@door
def attention_edges(
    model: Any,
    task: Task,
    spans: str | Mapping[str, Any] | Sequence[int] | None = None,
    form: str = "linear",
    *,
    pooled: str = "sum",
    **keywords: Unpack[AttentionEdgeKeywords],
) -> AttentionEdges:
    """How much of each head's effect passes from span s to span t, through its values, its keys and its queries.

    Edges of the residual stream join equal positions; what crosses positions is attention. From the clean run, with
    the corrupted one in the place of a value, key or query:

        v  =  sum of  A_ts (v_s - v_s') . dM/dz_t            the pattern held
        k  =  sum of  dM/ds_ts ds_ts(k_s - k_s')             the pattern's change, to first order
        q  =  sum of  dM/ds_ts ds_ts(q_t - q_t')             likewise

    over s and t in the two spans, z_t being what the head gives and s_ts its score in front of the softmax. Positive
    where the clean one helps; means over prompts. Summed over t, v is (v_s - v_s') . dM/dv_s and k is (k_s - k_s') .
    dM/dk_s, summed over s, q is (q_t - q_t') . dM/dq_t: the scores of the head's ports by position. Where answers have
    several tokens a prompt's rows, one for each answer, are summed; all have the prompt's spans.

    Args:
        model: what `interp.load_model` returns.
        task: clean and corrupted prompts, position by position.
        spans: as `positions=` of `attribute`: None or `all`: every position from the earliest first difference on;
            `spans`: those of the task; positions. Or a mapping from names to a position, a pair `(start, stop)`, or a
            list with one of these for each prompt, negative ones counted from its end. What is in none is `rest`.
        form: `linear`, or `peap`: k and q finite, one score of the softmax replaced at a time (position-aware edge
            attribution patching, Haklay et al. 2025, arXiv:2502.04577; their sign is the other one).
        pooled: over the pairs of two spans: `sum`, `mean` (of pairs whose key is not behind the query), `absolute`
            (the sum of absolute values) or `largest` (absolute value), row by row.
        **keywords: `objective`; `batch_size`, `memory`, `quiet` (`interp.run.Run`).

    Returns:
        `AttentionEdges`: `.values` float [port, layer, head, span s, span t], `.ports`, `.spans`, `.top(20)`,
        `.to_frame()`, `.figure()`.

    Cost: a forward and a backward pass of the clean and a forward pass of the corrupted prompts.

    Raises:
        InputError: unknown forms; spans that overlap or are not there; objectives that are NaN or have no gradient.
    """
    check_keywords("attention_edges", keywords, AttentionEdgeKeywords)
    choose("form", form, FORMS)
    choose("pooled", pooled, POOLED)
    if not isinstance(task, Task):
        raise InputError(f"task is a {type(task).__name__}; give a Task: edges compare its clean and corrupted prompts")
    setting, started = Setting.of(model, task, keywords), time.perf_counter()
    EAP().check(setting)
    refuse_unequal(setting.prompts, "attention edges")
    found = _Edges(setting, placed_spans(spans, setting), form, pooled)
    return AttentionEdges(
        values=found.run(),
        ports=list(PORTS),
        spans=found.names,
        form=form,
        pooled=pooled,
        n_prompts=len(setting),
        task=task.name,
        objective=setting.goal.name,
        model=setting.anatomy.name,
        seconds=time.perf_counter() - started,
    )


class _Edges:
    """What is added up over the batches of a setting."""

    def __init__(self, setting: Setting, placed: Placed, form: str, pooled: str) -> None:
        self.setting, self.placed, self.form, self.pooled = setting, placed, form, pooled
        self.names = names_of(placed)
        self.path = EAP().path(setting.graph.n_layers)

    def run(self) -> Tensor:
        """Means over prompts, [port, layer, head, span s, span t], on the CPU."""
        setting, anatomy, n = self.setting, self.setting.anatomy, len(self.names)
        shape = (len(PORTS), anatomy.n_layers, anatomy.n_heads, n, n)
        with setting.run.progress(f"attention edges ({self.form})", len(setting)) as bar, torch.inference_mode(False):
            return mean_over_prompts(
                setting, self._size(), lambda batch: self._of(batch, shape), bar.advance, skip_prefix=False
            )

    def _size(self) -> int:
        """Prompts that fit into the budget at once."""
        setting, anatomy, length = self.setting, self.setting.anatomy, self.setting.prompts.longest
        pairs = _PAIRS * anatomy.n_heads * length * setting.prompts.clean.shape[1] * anatomy.parameter().element_size()
        one = length * 2 * bytes_per_position(anatomy, gradient=True) + pairs
        budget = budget_of(anatomy.device, setting.run.memory)
        return setting.run.batch_size or min(len(setting), max(1, budget // one))

    def _index(self, batch: Batch) -> Int[Tensor, "row pos"]:
        """The number of each position's span; -1 at padding."""
        spans = self.placed.rows(batch.indices, 0, batch.prompts.clean.shape[1])
        return spans.where.view(batch.n_rows, -1).masked_fill(~batch.prompts.mask.cpu(), -1)

    def _of(self, batch: Batch, shape: tuple[int, ...]) -> Tensor:
        """Sums over the prompts of a batch."""
        planned = Plan(len(batch), 1, False)
        runs, corrupted = BatchScorer(GradientScorer(self.setting, self.path, planned), batch), ProjectionRecorder()
        with torch.no_grad():
            run_blocks(runs.frame, runs.embed_corrupted(), corrupted)
        index = self._index(batch).to(runs.embedding.device)
        found = torch.zeros(shape, dtype=torch.float64, device="cpu")

        def hear(clean: LayerAttention) -> None:
            pairs = crossings(clean, corrupted.kept[clean.layer], self.form)
            for number, port in enumerate(PORTS):
                pooled = by_span(pairs[port], index, len(self.names), self.pooled)
                found[number, clean.layer] = pooled.sum(0).double().cpu()

        runs.differentiate(list(self.path.groups[0]), AttentionRecorder(runs, hear, lambda layer: True))
        return found
