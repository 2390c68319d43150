"""Planted models: an ordinary small transformers model, a task, and the edges that compute its answer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Bool
from safetensors import safe_open
from torch import Tensor, nn

from circuits.planted.programs import PROGRAMS
from interp import numbers
from interp.errors import choose
from interp.files import write_bytes
from interp.graph import ComputationalGraph
from interp.models import load_model
from interp.selection import live_sources
from interp.tasks.task import Task

FOLDER = Path(__file__).parent


@dataclass(frozen=True, eq=False, repr=False)
class Planted:
    """A model with a known circuit.

    Attributes:
        name: of the model and of its program.
        model: a TransformerBridge of float32 weights, as `interp.load_model` returns it.
        task: prompts in which everything that the circuit reads differs from the counterfactual.
        mask: bool `[source, target]`, the edges that compute the answer.
        description: what is computed, where, and what else the model does.
        made: `written` (every weight by hand) or `trained` (under interchange interventions).
        measured: what its maker measured; for trained models interchange accuracy and strictness.
        node_mask: bool `[layer, d_mlp]`, the neurons that compute the answer; None where they are not known.
    """

    name: str
    model: Any
    task: Task
    mask: Bool[Tensor, "source target"]
    description: str
    made: str
    measured: dict[str, float] = field(default_factory=dict)
    node_mask: Bool[Tensor, "layer d_mlp"] | None = None

    @property
    def graph(self) -> ComputationalGraph:
        """The model's computational graph."""
        return ComputationalGraph.of(self.model)

    @property
    def edges(self) -> tuple[str, ...]:
        """Names of the true edges."""
        return tuple(self.graph.edges(self.mask))

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the heads and MLPs in the circuit."""
        alive = live_sources(self.mask, self.graph).tolist()
        return tuple(name for name, lives in zip(self.graph.sources, alive, strict=True) if lives and name != "input")

    @numbers.checked(n=numbers.COUNT)
    def draw(self, n: int = 64, seed: int = 0) -> Task:
        """Other prompts of the same task."""
        return PROGRAMS[self.name].task(n, seed)

    def __repr__(self) -> str:
        return f"Planted({self.name!r}, {self.made}, {len(self.edges)} of {self.graph.n_edges} edges)"


def names() -> tuple[str, ...]:
    """Names of the planted models.

    >>> "induction" in names()
    True
    """
    return tuple(PROGRAMS)


@numbers.checked(n=numbers.COUNT)
def load(name: str, n: int = 64, seed: int = 0) -> Planted:
    """A planted model with a task of `n` prompts drawn with `seed`. Needs no network and unpickles nothing.

    Raises `InputError` for an unknown name.

    >>> planted = load("induction", n=8)
    >>> "a0.h0->a1.h1<k>" in planted.edges
    True
    """
    program = PROGRAMS[choose("name", name, PROGRAMS)]
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
        about = json.loads(file.metadata()["about"])
    module = empty(about["config"])
    module.load_state_dict(tensors)
    model = load_model(module, device="cpu")
    graph = ComputationalGraph.of(model)
    mask = torch.zeros_like(graph.edge_mask)
    for edge in about["edges"]:
        mask[graph.edge_index(edge)] = True
    neurons = None
    if about.get("neurons"):
        neurons = torch.zeros(graph.n_layers, model.cfg.d_mlp, dtype=torch.bool, device="cpu")
        neurons[tuple(torch.tensor(about["neurons"], device="cpu").T)] = True
    task = program.task(n, seed)
    return Planted(name, model, task, mask, about["description"], about["made"], about["measured"], neurons)


def save(
    folder: str | os.PathLike[str],
    name: str,
    module: nn.Module,
    config: dict[str, Any],
    edges: Sequence[str],
    description: str,
    made: str,
    measured: dict[str, float] | None = None,
    neurons: Sequence[tuple[int, int]] = (),
) -> Path:
    """Write a planted model's file into a folder: weights, and in the metadata what `load` needs.

    `neurons`: the true ones as (layer, neuron), where they are known.
    """
    about = {
        "config": config,
        "edges": list(edges),
        "description": description,
        "made": made,
        "measured": measured or {},
        "neurons": [list(place) for place in neurons],
    }
    tensors = {key: value.detach().float().contiguous() for key, value in module.state_dict().items()}
    return write_bytes(
        Path(folder) / f"{name}.safetensors", safetensors.torch.save(tensors, metadata={"about": json.dumps(about)})
    )


def empty(config: dict[str, Any]) -> nn.Module:
    """A module of a transformers configuration (with its `model_type`), in eval mode, its weights not yet set."""
    from transformers import AutoConfig, AutoModelForCausalLM

    known = AutoConfig.for_model(**config)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        module: nn.Module = AutoModelForCausalLM.from_config(known, attn_implementation="eager", dtype=torch.float32)
    return module.eval()
