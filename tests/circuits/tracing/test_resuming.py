"""Traces that are cut off and go on, and what they will take."""

from __future__ import annotations

import pytest
import torch

from attribution.tracing.effects import Tracer
from circuits import trace, trace_cost
from circuits.tracing import resuming
from interp.errors import InputError
from tests.oracle import error, model_of

IDS = [4, 17, 9, 30, 2, 41, 8]


def cut_off(monkeypatch, after):
    """Units' rows are made `after` times, and then no more; the numbers of rows made."""
    made, own = [], Tracer.on_units

    def on_units(self, places, magnitudes, advance):
        if after is not None and len(made) >= after:
            raise KeyboardInterrupt
        made.append(len(places))
        return own(self, places, magnitudes, advance)

    monkeypatch.setattr(Tracer, "on_units", on_units)
    return made


def test_a_trace_that_was_cut_off_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(resuming, "_AT_ONCE", 5)
    path, asked = tmp_path / "rows.safetensors", {"target": 7, "top": 40, "quiet": True}
    plain = trace(model_of("gpt2"), IDS, **asked)
    with monkeypatch.context() as patched:
        cut_off(patched, 5)
        with pytest.raises(KeyboardInterrupt):
            trace(model_of("gpt2"), IDS, **asked, resume=path)
    with monkeypatch.context() as patched:
        made = cut_off(patched, None)
        graph = trace(model_of("gpt2"), IDS, **asked, resume=path)
    assert sum(made) < 20
    assert graph.nodes["name"].tolist() == plain.nodes["name"].tolist()
    assert error(graph.adjacency, plain.adjacency) < 1e-10
    assert error(graph.magnitude, plain.magnitude) < 1e-10
    with monkeypatch.context() as patched:  # all of it is there, and more may be shown
        made = cut_off(patched, None)
        again = trace(model_of("gpt2"), IDS, **asked, resume=path)
        assert not made
        assert torch.equal(again.adjacency, graph.adjacency)
        more = trace(model_of("gpt2"), IDS, 7, top=44, quiet=True, resume=path)
    assert len(more.nodes) > 40
    assert [file.name for file in tmp_path.iterdir()] == ["rows.safetensors"]


@pytest.mark.parametrize(
    "other",
    [
        {"name": "qwen3"},
        {"ids": [*IDS[:-1], 9]},
        {"target": 8},
        {"leave_out": [0]},
        {"units": "heads"},
        {"centred": True},
    ],
    ids=str,
)
def test_a_file_of_another_trace_is_refused(other, tmp_path):
    path = tmp_path / "rows.safetensors"
    trace(model_of("gpt2"), IDS, 7, top=5, quiet=True, resume=path)
    before = path.read_bytes()
    asked = {"name": "gpt2", "ids": IDS, "target": 7, **other}
    name, ids = asked.pop("name"), asked.pop("ids")
    with pytest.raises(InputError, match="another trace"):
        trace(model_of(name), ids, top=5, quiet=True, resume=path, **asked)
    assert path.read_bytes() == before


def test_files_that_are_none_are_refused(tmp_path):
    broken = tmp_path / "rows.safetensors"
    broken.write_text("no tensors")
    for path, told in ((broken, "damaged"), (tmp_path, "folder"), (tmp_path / "none" / "rows", "does not exist")):
        with pytest.raises(InputError, match=told):
            trace(model_of("llama"), IDS, 7, top=5, quiet=True, resume=path)


@pytest.mark.parametrize("units", ["neurons", "heads"])
def test_what_a_trace_takes_is_told_before(units):
    few, many = (trace_cost(model_of("llama"), IDS, [7, 3], units, top=top) for top in (5, 20))
    assert (few.rows, many.rows) == (7, 22)
    assert few.candidates == many.candidates > 20
    assert 0 < few.operations < many.operations
    assert few.bytes < many.bytes
    assert few.seconds > 0
    assert "22 rows" in str(many)
    with pytest.raises(InputError, match="more than the"):
        trace_cost(model_of("llama"), IDS, top=10**5)
    with pytest.raises(InputError, match="keyword of trace_cost"):
        trace_cost(model_of("llama"), IDS, tops=3)
