"""A circuit from a file, with the model and the prompts that it is to be judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.cli.inputs import DEFAULT_PROMPTS, built_in, check_names, load, read_task
from circuits.cli.output import CommandError, Notes

if TYPE_CHECKING:
    from circuits.circuit import Circuit
    from circuits.node_circuit import NodeCircuit
    from interp.selection import Selection
    from interp.tasks import Task


@dataclass(frozen=True)
class Case:
    """What is judged, on what. `notes` say what a reader must know to trust the figures."""

    circuit: Circuit | NodeCircuit
    model: Any
    task: Task
    seed: int
    ablation: str
    notes: list[str]

    @property
    def level(self) -> str:
        """What the circuit is made of: `edge`, or `neuron`, `expert`, `head`, `node`, `feature`."""
        return str(getattr(self.circuit, "level", "edge"))


def edge_circuit(path: str | Path) -> Circuit:
    """A circuit of edges from a file; refuses one of nodes in a sentence."""
    from circuits.circuit import Circuit

    found = Circuit.load(path)
    if not isinstance(found, Circuit):
        raise CommandError(f"{str(path)!r} holds a circuit of {found.level}s; this command takes circuits of edges")
    return found


def any_circuit(path: Path, dictionaries: Path | None) -> Circuit | NodeCircuit:
    """A circuit from a file, of features with those dictionaries of a folder that it was found with."""
    from circuits.circuit import Circuit
    from interp.dictionaries import Dictionary

    found: Circuit | NodeCircuit = Circuit.load(path)
    if isinstance(found, Circuit) or found.level != "feature":
        if dictionaries is not None:
            level = "edge" if isinstance(found, Circuit) else found.level
            raise CommandError(f"--dictionaries is for circuits of features; {str(path)!r} holds one of {level}s")
        return found
    if dictionaries is None:
        raise CommandError(
            f"{str(path)!r} holds a circuit of features, and of their dictionaries the digests alone: give "
            "--dictionaries, the folder that they are in"
        )
    there = {one.digest: one for one in Dictionary.load_all(dictionaries)}
    known = found.setting.dictionaries or tuple(there)
    return found.with_dictionaries([there[digest] for digest in known if digest in there] or list(there.values()))


def reopen(
    path: Path,
    *,
    model: str | None,
    task: str | None,
    task_file: Path | None,
    n: int | None,
    seed: int | None,
    ablation: str | None,
    objective: str | None,
    device: str | None,
    dtype: str | None,
    dictionaries: Path | None,
    notes: Notes,
) -> Case:
    """Load a circuit, its model, and prompts: by default fresh ones of the task that it was found on."""
    from interp import objectives, tasks

    if task is not None and task_file is not None:
        raise CommandError("give either --task or --task-file, not both")
    circuit = any_circuit(path, dictionaries)
    origin = circuit.provenance["task"] if isinstance(circuit.provenance["task"], dict) else {}
    name, source = task or origin.get("name"), model or circuit.provenance["model"]
    if not source:
        raise CommandError(f"{str(path)!r} does not say which model it is of: give --model")
    if task_file is None and (name is None or (task is None and name not in tasks.names())):
        raise CommandError(
            f"{str(path)!r} was found on task {name!r}, which is not built in: give --task-file or --task"
        )
    ablation = ablation or circuit.setting.ablation or "patch"
    if objective is None and circuit.setting.objective is not None:
        objective = str(circuit.setting.objective)
        if objective not in objectives.names():
            raise CommandError(
                f"{str(path)!r} was found under the objective {objective!r}, a function that is not built in: give "
                f"--objective ({', '.join(objectives.names())})"
            )
    seed = (origin.get("seed") or 0) + 1 if seed is None else seed
    check_names(task=None if task_file else name, ablation=ablation, objective=objective)
    prompts = whole = None if task_file is None else read_task(task_file, None, objective)
    if task_file is not None and n is not None:
        prompts = read_task(task_file, n, objective)
    loaded = load(source, device, dtype, notes)
    if prompts is None:
        assert name is not None
        same = name.replace("-", "_") == origin.get("name")
        parameters = origin.get("parameters") if same else None
        prompts = built_in(name, n or origin.get("n") or DEFAULT_PROMPTS, seed, loaded, parameters)
        if same:
            whole = _as_found(origin, loaded)
    prompts = prompts if objective is None else prompts.with_objective(objective)
    remarks = _seen_before(circuit, whole, prompts)
    if source != circuit.provenance["model"]:
        remarks.append(f"The circuit was found in {circuit.provenance['model'] or 'an unnamed model'}.")
    return Case(circuit, loaded, prompts, seed, ablation, remarks)


def selection_of(provenance: Mapping[str, Any]) -> Selection:
    """The selection that a circuit was chosen by, as its file names it; older files know `absolute` alone."""
    from interp.selection import SELECTIONS
    from metrics.circuit import balance  # noqa: F401  (registers `balanced`)

    name = provenance.get("selection", "top-n")
    older = {} if name == "balanced" else {"absolute": provenance.get("absolute", True)}
    return SELECTIONS.make(name, provenance.get("selection_settings", older))


def _as_found(origin: dict[str, Any], model: Any) -> Task | None:
    """The built-in task with the prompts that a circuit was found on, if they can be made again."""
    from interp.errors import InputError

    try:
        return built_in(origin["name"], origin["n"], origin["seed"], model, origin.get("parameters"))
    except (InputError, KeyError):
        return None


def _seen_before(circuit: Circuit | NodeCircuit, whole: Task | None, prompts: Task) -> list[str]:
    """A warning if some of the prompts chose the circuit."""
    origin, scoring = circuit.provenance["task"], circuit.scores.task
    if whole is None or not isinstance(origin, dict) or whole.to_dict()["sha256"] != origin.get("sha256"):
        return []  # other prompts altogether
    chose, n = whole, scoring.get("n", 0)
    if 0 < n < len(whole):
        chose, _ = whole.split(n / len(whole), circuit.provenance["seed"] or 0)
    if chose.to_dict()["sha256"] != scoring.get("sha256"):
        return ["It cannot be told which prompts chose the circuit; these may be among them."]
    known = {example.clean for example in chose.examples}
    seen = sum(example.clean in known for example in prompts.examples)
    if not seen:
        return []
    return [
        f"{seen} of the {len(prompts)} prompts chose the circuit, so the faithfulness is too rosy: use another seed, "
        "or other prompts."
    ]
