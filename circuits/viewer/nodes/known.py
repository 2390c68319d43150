"""What a model says of the nodes of a circuit: the tokens that they promote, and what they do on one prompt.

What a neuron or a feature writes is a direction, whatever the prompt:

    logits = W_U (gain * centred(w)), less their mean over the vocabulary, in standard deviations over it

A head's output and an MLP's depend on the prompt: theirs are the direct effects of `circuits.viewer.linked`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.node_circuit import NodeCircuit
from circuits.viewer.data import check_model
from circuits.viewer.linked import check_example, linked_views
from circuits.viewer.nodes.standing import GRID_LEVELS
from circuits.viewer.promoted import Moved, in_spreads, promoted, through_final_norm
from interp.anatomy import Anatomy
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.means import mean_parts
from interp.dictionaries.sets import DictionarySet
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.neurons import directions, mean_activations, past_norm
from interp.parts import working
from interp.running import door
from interp.tasks.prompts import Prompts
from interp.tasks.task import Task
from interp.token_text import token_texts

MOST = 600  # nodes, those of largest |score|: a page has room for so many tokens
ACTIVATIONS = 100_000  # numbers of them in a page, of as many of the strongest nodes as that is
Runs = tuple[list[float], list[float]]  # clean and corrupted, by position


@dataclass(frozen=True)
class Known:
    """What is known of nodes by name (positions put aside): promoted and suppressed tokens, and one prompt.

    `direct`: of heads and MLPs, on the answer's logits. `activations`: of neurons and features, at each position.
    """

    moved: dict[str, tuple[Moved, Moved]] = field(default_factory=dict)
    direct: dict[str, float] = field(default_factory=dict)
    activations: dict[str, Runs] = field(default_factory=dict)
    example: int = 0
    clean: list[str] = field(default_factory=list)
    corrupted: list[str] = field(default_factory=list)


def known(circuit: NodeCircuit, model: Any = None, task: Task | None = None, example: int = 0) -> Known:
    """Everything that can be told with what is given. Raises `InputError` for a model that does not fit.

    Cost: of heads and MLPs a forward pass of one prompt; of neurons and features two where there is a task, else none.
    """
    if model is None:
        if task is not None:
            raise InputError("task is given without a model: the page runs one of its prompts; give model= too")
        return Known()
    check_model(model, circuit)
    if circuit.level == "expert":
        raise InputError("what an expert writes depends on the prompt; the page has its score alone: leave out model")
    if circuit.level not in GRID_LEVELS:
        return _of_units(model, circuit, task, example)
    if task is None:
        raise InputError("what heads and MLPs write depends on the prompt; give task= beside model=")
    views = linked_views(model, task, _first(circuit)["node"].tolist(), example)
    moved = {name: (effect.promotes, effect.suppresses) for name, effect in views.effects.items()}
    direct = {name: effect.direct for name, effect in views.effects.items()}
    return Known(moved, direct, {}, example, views.clean, views.corrupted)


def _first(circuit: NodeCircuit) -> pd.DataFrame:
    """The nodes of largest |score|, each once, whatever its position."""
    return circuit.to_frame().drop_duplicates("node").head(MOST)


@door
@torch.no_grad()
def _of_units(model: Any, circuit: NodeCircuit, task: Task | None, example: int) -> Known:
    anatomy, frame = anatomy_of(model), _first(circuit)
    dictionaries = _dictionaries(circuit, anatomy)
    if dictionaries is None:
        units = list(zip(frame["layer"].tolist(), frame["neuron"].tolist(), strict=True))
        counts = [block.mlp.width for block in anatomy.blocks]
        if any(number >= counts[layer] for layer, number in units):
            raise InputError("model has fewer neurons than the circuit; give the model it was found in")
    else:
        frame = frame[frame["feature"] >= 0]  # errors write whatever is missing
        units = list(zip(frame["dictionary"].tolist(), frame["feature"].tolist(), strict=True))
    names = frame["node"].tolist()
    moved = dict(zip(names, _promoted(model, anatomy, _written(anatomy, dictionaries, units)), strict=True))
    if task is None or not names:
        return Known(moved)
    prompts = check_example(task, example).prompts(model).until_answer().to(anatomy.device)
    turned = prompts.turned()
    units = units[: ACTIVATIONS // (2 * prompts.clean.shape[1])]
    runs = [_activations(anatomy, dictionaries, one, units).T.tolist() for one in (prompts, turned)]
    return Known(
        moved=moved,
        activations=dict(zip(names, zip(*runs, strict=True), strict=False)),
        example=example,
        clean=_texts(model, prompts.clean),
        corrupted=_texts(model, prompts.corrupted),
    )


def _dictionaries(circuit: NodeCircuit, anatomy: Anatomy) -> list[Dictionary] | None:
    """What features are of; None of neurons."""
    if circuit.level != "feature":
        return None
    found = DictionarySet.of({}, circuit)
    if found is None:
        raise InputError(
            "this circuit does not hold the dictionaries that its features are of; give circuit.with_dictionaries(...)"
        )
    return found.on(anatomy)


def _written(
    anatomy: Anatomy, dictionaries: list[Dictionary] | None, units: list[tuple[int, int]]
) -> list[Float[Tensor, " d_model"]]:
    """The direction in the residual stream that each unit writes along."""
    if dictionaries is None:
        return [directions(anatomy.blocks[layer], torch.tensor([one], device="cpu"))[0] for layer, one in units]
    found = []
    for index, feature in units:
        one = dictionaries[index]
        vector = one.W_dec[feature]
        behind = one.site in ("mlp", "transcoder") and one.writes == "mlp_out"
        found.append(past_norm(anatomy.blocks[one.layer], vector) if behind else vector)
    return found


def _promoted(model: Any, anatomy: Anatomy, written: list[Float[Tensor, " d_model"]]) -> list[tuple[Moved, Moved]]:
    if not written:
        return []
    vectors = torch.stack(written).to(working(anatomy.parameter()[:0]))
    # any one scale would do: logits are told in standard deviations
    through = through_final_norm(anatomy, vectors, vectors[:1])
    return promoted(model, anatomy, in_spreads(anatomy, through))


def _activations(
    anatomy: Anatomy, dictionaries: list[Dictionary] | None, prompts: Prompts, units: list[tuple[int, int]]
) -> Float[Tensor, "pos unit"]:
    """Of the one clean prompt, whose mean at a position is what is there."""
    if dictionaries is None:
        rows = mean_activations(anatomy, prompts, positional=True)
    else:
        rows = [part.features for part in mean_parts(anatomy, prompts, dictionaries, positional=True)]
    return torch.stack([rows[row][:, unit] for row, unit in units], 1)


def _texts(model: Any, ids: Int[Tensor, "1 pos"]) -> list[str]:
    return token_texts(getattr(model, "tokenizer", None), ids[0].tolist())
