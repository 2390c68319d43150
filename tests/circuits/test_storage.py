from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.formats.native import FORMAT
from circuits.report import Report
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.result import Result
from tests.processes import ended, fork

GRAPH = ComputationalGraph(2, 4, 2)


def make(seed: int = 0, graph: ComputationalGraph = GRAPH, dtype: torch.dtype = torch.float32) -> Circuit:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(graph.shape, generator=generator, dtype=dtype) * graph.edge_mask
    scores = Scores(values, graph, method="eap-ig", model="Müller's model", task={"name": "ioi", "n": 8}, seed=seed)
    report = Report(faithfulness=0.9, interval=(0.8, 1.0), per_prompt={"clean": [1.0, 2.0]}, notes=["a note"])
    return Circuit(scores, scores.mask(40), report)


def assert_same(one: Circuit, other: Circuit) -> None:
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.scores.values, other.scores.values)
    assert one.scores.values.dtype == other.scores.values.dtype
    assert one.scores.to_dict() == other.scores.to_dict()
    assert one.graph == other.graph
    assert one.report == other.report
    assert one.provenance == other.provenance


@pytest.mark.parametrize(
    "circuit",
    [
        make(),
        make(dtype=torch.float64),
        make(graph=ComputationalGraph(2, 4, 2, kv="group")),
        make(graph=ComputationalGraph(3, 2, parallel=True)),
        Circuit(Scores(torch.randn(11), GRAPH, method="activation-patching", level="node"), GRAPH.edge_mask),
        Circuit(make().scores, torch.zeros(GRAPH.shape, dtype=torch.bool)),
    ],
    ids=["float32", "float64", "grouped", "parallel", "nodes", "empty"],
)
def test_what_is_saved_is_loaded_again(circuit: Circuit, tmp_path: Path):
    path = circuit.save(tmp_path / "ioi.json")
    assert_same(Circuit.load(path), circuit)
    (tensors,) = tmp_path.glob("ioi-*.safetensors")
    assert sorted(tmp_path.iterdir()) == sorted([path, tensors])


def test_the_json_is_for_people(tmp_path: Path):
    circuit = make()
    text = circuit.save(tmp_path / "ioi.json").read_text(encoding="utf-8")
    document = json.loads(text)
    assert (document["format"], document["version"]) == (FORMAT, 3)
    assert document["provenance"]["model"] == "Müller's model"
    assert "Müller" in text
    assert document["scores"]["graph"] == GRAPH.to_dict()
    assert document["report"]["faithfulness"] == 0.9
    assert list(document["edges"]) == circuit.to_frame()["edge"].tolist()
    for edge, score in document["edges"].items():
        assert circuit.scores.values[GRAPH.edge_index(edge)].item() == pytest.approx(score, rel=1e-8)


def test_a_byte_order_mark_is_read_over_and_half_a_character_is_kept(tmp_path: Path):
    circuit = make()
    circuit.provenance["model"] = "m\udcff"  # a folder whose name is not UTF-8
    path = circuit.save(tmp_path / "ioi.json")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert_same(Circuit.load(path), circuit)
    assert Circuit.load(path).provenance["model"] == "m\udcff"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is damaged: it is not JSON"):
        Circuit.load(path)


def test_a_bare_name_gets_a_suffix_and_other_suffixes_stay(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert make().save("ioi") == Path("ioi.json")
    assert_same(Circuit.load("ioi"), Circuit.load("ioi.json"))
    assert make().save("other.circuit") == Path("other.circuit")
    Circuit.load("other.circuit")
    with pytest.raises(InputError, match=r"the folder .* does not exist"):
        make().save("nowhere/ioi.json")


def test_a_link_is_followed(tmp_path: Path):
    (tmp_path / "data").mkdir()
    link, target = tmp_path / "link.json", tmp_path / "data" / "real.json"
    link.symlink_to(target)
    for seed in (0, 1):
        assert make(seed).save(link) == link
        assert link.is_symlink()
        assert_same(Circuit.load(link), Circuit.load(target))
        assert Circuit.load(link).provenance["seed"] == seed
    assert list(tmp_path.glob("*.safetensors")) == []
    assert len(list((tmp_path / "data").iterdir())) == 2


@pytest.mark.parametrize("path", [os.devnull, "/dev/stdout"])
def test_a_circuit_is_two_files_and_fits_in_no_device(path: str):
    with pytest.raises(InputError, match="is no plain file; a circuit is two files side by side"):
        make().save(path)


def test_saving_again_removes_the_tensors_of_before_and_nothing_else(tmp_path: Path):
    path = tmp_path / "ioi.json"
    bystanders = [tmp_path / name for name in ("ioi-00000000.safetensors", "ioi-final.safetensors", "x.safetensors")]
    for bystander in bystanders:
        bystander.write_bytes(b"mine")
    make(0).save(path)
    (first,) = set(tmp_path.glob("*.safetensors")) - set(bystanders)
    make(0).save(path)  # the same content keeps its file
    assert first.exists()
    make(1).save(path)
    assert not first.exists()
    assert all(bystander.read_bytes() == b"mine" for bystander in bystanders)
    assert_same(Circuit.load(path), Circuit.load(path))
    assert Circuit.load(path).provenance["seed"] == 1


def test_an_old_json_that_names_a_foreign_file_does_not_get_it_removed(tmp_path: Path):
    path = tmp_path / "ioi.json"
    victim = tmp_path / "precious.safetensors"
    victim.write_bytes(b"mine")
    path.write_text(json.dumps({"tensors": {"file": "precious.safetensors"}}))
    make().save(path)
    assert victim.read_bytes() == b"mine"
    path.write_text("not a circuit")
    make().save(path)
    Circuit.load(path)


@pytest.mark.parametrize(("method", "tensors_fit"), [("write_bytes", False), ("write_bytes", True), ("replace", True)])
@pytest.mark.parametrize("there_before", [True, False])
def test_a_full_disk_leaves_the_old_circuit(tmp_path: Path, monkeypatch, method, tensors_fit, there_before):
    path = tmp_path / "ioi.json"
    if there_before:
        make(0).save(path)
    before = sorted(tmp_path.iterdir())
    real = getattr(Path, method)

    def full(self, *arguments, **options):
        if tensors_fit and "safetensors" in self.name:
            return real(self, *arguments, **options)  # the JSON does not
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, method, full)
    with pytest.raises(OSError, match="No space left"):
        make(1).save(path)
    monkeypatch.undo()
    assert sorted(tmp_path.iterdir()) == before, "nothing half-written stays"
    if there_before:
        assert Circuit.load(path).provenance["seed"] == 0


def test_a_failure_while_saving_the_same_circuit_keeps_its_tensors(tmp_path: Path, monkeypatch):
    path = make(0).save(tmp_path / "ioi.json")

    real = Path.write_bytes

    def full(self, *arguments, **options):
        if "safetensors" in self.name:
            return real(self, *arguments, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        make(0).save(path)
    monkeypatch.undo()
    Circuit.load(path)


@pytest.mark.parametrize("step", [1, 2])
def test_a_kill_in_the_middle_of_saving_leaves_the_old_circuit(tmp_path: Path, step: int):
    path = make(0).save(tmp_path / "ioi.json")
    real, calls = os.replace, itertools.count(1)

    def replace(*arguments, **options):
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    def save():
        os.replace = replace
        make(1).save(path)

    assert ended(fork(save)) == -signal.SIGKILL
    assert_same(Circuit.load(path), Circuit.load(path))
    assert Circuit.load(path).provenance["seed"] == 0
    make(2).save(path)  # what the kill left is in nobody's way
    assert Circuit.load(path).provenance["seed"] == 2


def edited(path: Path, **changes) -> Path:
    document = json.loads(path.read_text())
    document.update(changes)
    other = path.with_name("edited.json")
    other.write_text(json.dumps(document))
    return other


def test_damaged_and_newer_files_are_refused_in_a_sentence(tmp_path: Path):
    circuit = make()
    path = circuit.save(tmp_path / "ioi.json")
    document = json.loads(path.read_text())
    text = path.read_text()
    with pytest.raises(InputError, match=r"circuit file '.*none.json' does not exist"):
        Circuit.load(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    for content in (b"", text[:-20].encode(), b"\xff\xfe"):
        broken.write_bytes(content)
        with pytest.raises(InputError, match="is damaged: it is not JSON"):
            Circuit.load(broken)
    renamed = dict(list(document["edges"].items())[1:])
    graph = document["scores"] | {"graph": {"n_layers": 2, "n_heads": 4, "rings": 3}}
    smaller = document["scores"] | {"graph": ComputationalGraph(2, 3).to_dict()}
    cases = [
        ({"format": "else"}, "does not say that it is 'faithful-circuits/circuit'"),
        ({"version": 4}, "has format version 4, and this installation reads up to 3: upgrade faithful-circuits"),
        ({"version": None}, "its format version is None"),
        ({"report": 3}, "is damaged: report: Input should be a valid dictionary"),
        ({"report": {"faithfulness": "high"}}, "is damaged: faithfulness: Input should be a valid number"),
        ({"surprise": 1}, "is damaged: surprise"),
        ({"scores": graph}, "is damaged: graph.rings"),
        ({"scores": smaller}, "must be a tensor of shape"),
        ({"edges": renamed}, "its list of edges differs from its mask"),
        ({"tensors": {}}, "cannot be the name of its tensors file"),
        ({"tensors": document["tensors"] | {"file": "../x.safetensors"}}, "cannot be the name of its tensors file"),
        ({"tensors": document["tensors"] | {"file": "x.safetensors"}}, "cannot be loaded without 'x.safetensors'"),
        ({"tensors": document["tensors"] | {"sha256": "0"}}, "is damaged, or not the file it was saved with"),
    ]
    for changes, message in cases:
        with pytest.raises(InputError, match=message):
            Circuit.load(edited(path, **changes))
    with pytest.raises(InputError, match=r"read it with Circuit\.from_eap_ig_json"):
        Circuit.load(circuit.to_eap_ig_json(tmp_path / "graph.json"))


def test_damaged_tensors_are_refused_in_a_sentence(tmp_path: Path):
    path = make().save(tmp_path / "ioi.json")
    (tensors,) = tmp_path.glob("*.safetensors")
    good = tensors.read_bytes()
    flipped = bytearray(good)
    flipped[-3] ^= 1
    for damaged in (b"", good[:-1], bytes(flipped)):
        tensors.write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged, or not the file it was saved with"):
            Circuit.load(path)
    save_file({"mask": torch.zeros(2)}, tensors)
    with pytest.raises(InputError, match="is damaged, or not the file"):
        Circuit.load(path)
    tensors.unlink()
    with pytest.raises(InputError, match=r"cannot be loaded without .* which must lie beside it"):
        Circuit.load(path)


def test_a_circuit_moves_with_its_two_files(tmp_path: Path):
    folder = tmp_path / "a"
    folder.mkdir()
    path = make().save(folder / "ioi.json")
    moved = Path(shutil.copytree(folder, tmp_path / "b")) / "ioi.json"
    os.remove(path)
    assert Circuit.load(moved).n_edges == make().n_edges


@pytest.mark.parametrize("path", ["", None, 5, b"circuit.json"])
def test_what_names_no_file_is_refused_in_a_sentence(path):
    for call in (lambda: make().save(path), lambda: Circuit.load(path), lambda: Scores.load(path),
                 lambda: Result.load(path), lambda: Circuit.from_eap_ig_json(path)):  # fmt: skip
        with pytest.raises(InputError, match=r"is no path|is a folder|does not exist"):
            call()


WRITERS = {
    "circuit": lambda circuit, path: circuit.save(path),
    "scores": lambda circuit, path: circuit.scores.save(path),
    "eap-ig": lambda circuit, path: circuit.to_eap_ig_json(path),
    "graphml": lambda circuit, path: circuit.to_graphml(path),
    "html": lambda circuit, path: circuit.to_html(path),
}


def test_a_name_too_long_for_two_files_is_refused_and_a_long_one_is_not(tmp_path: Path):
    fits = make().save(tmp_path / ("x" * 234 + ".json"))
    assert Circuit.load(fits).n_edges == make().n_edges
    fits.unlink()
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"too long a name: .* adds 16 characters; shorten it"):
        make().save(tmp_path / ("x" * 235 + ".json"))
    for write in WRITERS.values():
        with pytest.raises(InputError, match="File name too long"):
            write(make(), tmp_path / ("x" * 251 + ".json"))
    assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.parametrize("name", [name for name in WRITERS if name != "circuit"])
def test_a_pipe_that_nobody_reads_is_refused_and_does_not_block(name: str, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe' is a pipe that nobody reads; start its reader first"):
        WRITERS[name](make(), tmp_path / "pipe")


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_takes_no_more_is_said_with_the_file_and_nothing_is_left(name: str, tmp_path: Path):
    resource = pytest.importorskip("resource")
    circuit = make()
    WRITERS[name](circuit, tmp_path / "warm.json")  # what is imported late may write files of its own
    before = set(tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))
        with pytest.raises(OSError, match=r"File too large: '.*full") as caught:
            WRITERS[name](circuit, tmp_path / "full.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert set(tmp_path.iterdir()) == before
