"""Tasks and inputs from whatever holds prompts: tables of other libraries, gaps, broken text; answers are token ids."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from attribution import tokens
from interp.errors import InputError
from interp.files import write_text
from interp.objectives import get_objective
from interp.tasks import Prompts, Task
from interp.tasks.encoding import Encoder
from interp.tasks.task import Task as TaskClass
from tests import oracle

ROWS = [
    {"clean": "a b", "corrupted": "a c", "correct": " d", "incorrect": " e"},
    {"clean": "f b", "corrupted": "f c", "correct": [" d", " x"], "incorrect": " e"},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
FRAME = pd.DataFrame(ROWS)
EXPECTED = Task.from_frame(FRAME).examples


class Polars:
    """As polars has it: no pyarrow, no pandas."""

    columns = tuple(COLUMNS)

    def to_dicts(self):
        return ROWS

    def to_pandas(self):
        raise ModuleNotFoundError("pyarrow is required")


class Dataset:
    """As datasets and pyarrow have it."""

    column_names = tuple(COLUMNS)

    def to_pandas(self):
        return FRAME


@pytest.mark.parametrize(
    "table",
    [
        COLUMNS, ROWS, tuple(ROWS), iter(ROWS), Polars(), Dataset(), FRAME.astype({"clean": "string"}),
        FRAME.set_index(pd.Index([7, 7])), {name: pd.Series(column) for name, column in COLUMNS.items()},
        {name: np.array(column, dtype=object) for name, column in COLUMNS.items()},
        FRAME.assign(correct=[np.array([" d"]), pd.Series([" d", " x"])]),
        FRAME.assign(correct=['[" d"]', "[' d', ' x']"]),
    ],
    ids=["dict", "records", "tuple", "iterator", "polars", "datasets", "strings", "index", "series", "arrays",
         "answers", "written"],
)  # fmt: skip
def test_tables_of_every_library(table):
    examples = Task.from_frame(table).examples
    assert examples == EXPECTED
    assert all(type(answer) is str for example in examples for answer in example.correct)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "frame is a NoneType; it must be a data frame, a dict of columns or a list of dicts"),
        ("prompts.csv", "frame is a str"),
        ([("a", "b", "c", "d")], "frame is a list; it must be"),
        ([{"clean": "a b"}], "object 0 of the list lacks corrupted, correct"),
        ({**COLUMNS, "clean": "a b"}, r"frame\['clean'\] is a str; it must be a list"),
        ({"train": Dataset(), "test": Dataset()}, r"frame\['train'\] is a Dataset; it must be a list"),
        ({**COLUMNS, "clean": ["a b"]}, "must be equally long; they have {'clean': 1, "),
        (pd.concat([FRAME, FRAME], axis=1), "the column clean more than once"),
        (FRAME.assign(clean=[pd.NA, "f b"]), "clean of prompt 0 is (nan|<NA>), a "),
        (FRAME.assign(correct=[pd.NA, " d"]), "prompt 0 has no correct answer"),
        (FRAME.assign(correct=[[" d", pd.NA], " d"]), "correct of prompt 0 holds '<NA>', a NAType"),
        (FRAME.assign(correct=[{" d"}, " d"]), "correct of prompt 0 holds .* a set; an answer is a string"),
        (FRAME.assign(correct=[5, " d"]), "the int 5 beside a string prompt"),
        ({**COLUMNS, "clean": ["a \ud800", "f b"]}, r"clean of prompt 0 holds the lone surrogate '\\ud800'"),
        ({**COLUMNS, "correct": ["\udcff", " d"]}, r"correct of prompt 0 holds the lone surrogate '\\udcff'"),
    ],
)
def test_tables_that_cannot_be_right_get_a_sentence(table, message):
    with pytest.raises(InputError, match=message) as caught:
        Task.from_frame(table)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("nothing", [None, pd.NA, pd.NaT, float("nan"), ""])
def test_a_gap_is_no_answer(nothing):
    task = Task.from_frame(FRAME.assign(incorrect=[nothing, " e"]), objective="log-probability")
    assert [example.incorrect for example in task.examples] == [(), (" e",)]


def test_token_ids_in_columns():
    def ids(*cells, objective="kl"):
        frame = pd.DataFrame({"clean": ["a b"] * len(cells), "corrupted": "a c", "correct_idx": cells})
        return [example.correct for example in Task.from_frame(frame, objective=objective).examples]

    assert ids(1, np.int64(2)) == [(1,), (2,)]
    assert ids(1.0, "2", [3, np.int8(4)], pd.Series([5]), "[6, 7]") == [(1,), (2,), (3, 4), (5,), (6, 7)]
    for bad in (1.5, True, np.bool_(True), "x", [1, None], [1.5]):
        with pytest.raises(InputError, match=r"correct_idx of prompt 0 is .* must be a token id"):
            ids(bad, [3])


@pytest.mark.parametrize(
    "pairs", [np.array([list(row.values()) for row in ROWS[:1]]), [FRAME.iloc[0]], [list(ROWS[0].values())]]
)
def test_rows_of_pairs_may_be_arrays_and_series(pairs):
    assert Task.from_pairs("t", pairs).examples == EXPECTED[:1]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (FRAME, "pairs is a DataFrame; .* tables are read by Task.from_frame"),
        (None, "pairs is a NoneType"),
        (ROWS, "objects with these keys are read by Task.from_frame"),
        ([(b"a b", b"a c", " d", " e")], "clean of prompt 0 is b'a b', a bytes"),
        ([("a b", "a c", b"d", " e")], "correct of prompt 0 holds .* a bytes; an answer is a string"),
    ],
)
def test_pairs_that_cannot_be_right_get_a_sentence(pairs, message):
    with pytest.raises(InputError, match=message):
        Task.from_pairs("t", pairs)


def test_examples_are_examples():
    with pytest.raises(InputError, match=r"examples holds a tuple; Task\.from_pairs"):
        TaskClass("t", [("a", "b", "c", "d")])


def test_files_of_windows(tmp_path):
    for name, text in (("t.json", json.dumps(ROWS[:1])), ("t.csv", pd.DataFrame(ROWS[:1]).to_csv(index=False))):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert Task.from_json(tmp_path / "t.json").examples == Task.from_csv(tmp_path / "t.csv").examples == EXPECTED[:1]
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot be read as JSON"):
        Task.from_json(tmp_path / "deep.json")


def test_provenance_can_be_written():
    task = Task("t", EXPECTED, seed=np.int64(3), parameters={"k": np.int64(4), "r": np.float32(0.5)})
    assert json.loads(json.dumps(task.to_dict()))["parameters"] == {"k": 4, "r": 0.5}
    assert type(task.seed) is int


def test_half_a_character_is_written_so_that_json_reads_it_back(tmp_path):
    # names of files that are not UTF-8 have them, and a model is called by its folder
    write_text(tmp_path / "a.json", json.dumps({"model": "m\udcff"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"model": "m\udcff"}


# answers


@pytest.fixture(scope="module")
def lower():
    """gpt2, tiny, with a tokenizer that lowers its text: Yes, yes and " yes" are one token."""
    words = ["[UNK]", "yes", "no", "maybe", "sky", "sea", "blue", "is", "the"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = oracle.model_of("gpt2")

    class Lower:
        cfg = model.cfg

    Lower.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    return Lower()


def test_an_answer_counts_once(lower):
    task = Task.from_pairs("t", [("the sky is blue", "the sea is blue", ["Yes", "yes", " yes"], ["no"])])
    prompts = task.prompts(lower)
    assert prompts.correct.tolist() == [[1]]
    logits = torch.randn(1, lower.cfg.d_vocab, generator=torch.Generator().manual_seed(0))
    value = get_objective("log-probability")(logits, prompts)
    assert value.item() == pytest.approx(logits.log_softmax(1)[0, 1].item(), rel=1e-5)
    probability = get_objective("probability-difference")(logits, prompts)
    assert probability.item() == pytest.approx((logits.softmax(1)[0, 1] - logits.softmax(1)[0, 2]).item(), abs=1e-6)


def test_one_token_on_both_sides_is_refused(lower):
    task = Task.from_pairs("t", [("the sky is blue", "the sea is blue", ["Yes", "maybe"], ["no", "YES"])])
    with pytest.raises(InputError, match=r"prompt 0: .* are the same token, 'yes' \(id 1\)"):
        task.prompts(lower)
    with pytest.raises(InputError, match="prompt 0 has the answer 5 among the correct and among the incorrect"):
        Task.from_tokens("t", [[1, 2]], [[1, 3]], [[5]], [[5, 6]])
    with pytest.raises(InputError, match="the token id 5 twice among its correct and incorrect answers"):
        Prompts.from_lists([[1, 2]], [[1, 3]], [[5, 7]], [[6, 5]])


def test_prompts_hold_distinct_ids():
    prompts = Prompts.from_lists([[1, 2]], [[1, 3]], [[5, 7, 5]], [[6]])
    assert prompts.correct.tolist() == [[5, 7]]
    with pytest.raises(InputError, match="the token id 5 twice among its correct answers"):
        Prompts(prompts.clean, prompts.corrupted, prompts.lengths, torch.tensor([[5, 5]]), prompts.incorrect)


def test_built_in_prompts_are_distinct_tokens(lower, monkeypatch):
    from random import Random

    from interp.tasks import generate
    from interp.tasks.examples import Example

    texts = iter(["the sky is", "The sky is", "the SKY is", "the blue is"] * 5000)

    def draw(rng: Random, number: int) -> generate.Candidate:
        return generate.Candidate(Example(next(texts), "the sea is", ("yes",), ("no",)))

    made = generate.build(generate.About("t", "d"), draw, 2, 0, lower)
    assert [example.clean for example in made.examples] == ["the sky is", "the blue is"]
    assert len({tuple(row) for row in Encoder(lower).texts([example.clean for example in made.examples])}) == 2


# inputs of `attribution.tokens`

IDS = [[5, 6, 7], [5, 8, 9]]


@pytest.mark.parametrize(
    "inputs",
    [
        np.array(IDS), torch.tensor(IDS).int(), pd.DataFrame(IDS), [np.array(row) for row in IDS],
        [[np.int64(i) for i in row] for row in IDS], [torch.tensor(row) for row in IDS], (tuple(IDS[0]), IDS[1]),
    ],
)  # fmt: skip
def test_ids_of_every_library(inputs):
    model = oracle.model_of("gpt2")
    found = tokens(model, inputs, target=[np.int64(5), torch.tensor(6)], method="gradient-x-input", quiet=True)
    same = tokens(model, IDS, target=[5, 6], method="gradient-x-input", quiet=True)
    assert found.ids.tolist() == IDS
    assert found.target.tolist() == [[5, -1], [6, -1]]
    torch.testing.assert_close(found.values, same.values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": {"input_ids": IDS}}, "give its 'input_ids'"),
        ({"inputs": {"a": 1}}, "inputs must be strings or token ids"),
        ({"inputs": b"a b"}, "inputs must be strings or token ids"),
        ({"inputs": torch.tensor(IDS).bfloat16()}, "must be whole numbers"),
        ({"inputs": ["a \ud800"]}, r"input 0 holds the lone surrogate '\\ud800'"),
        ({"target": [np.float64(5.0), 5]}, "must be a token id"),
        ({"target": True}, "must be a token id"),
        ({"method": "occlusion", "baseline": 1.5}, "baseline=1.5 is no token id"),
        ({"method": "occlusion", "window": 1.0}, "window=1.0 must be a whole number"),
        ({"method": "random", "seed": -1}, "seed=-1 must be a whole number"),
    ],
)
def test_inputs_and_targets_that_cannot_be_right(settings, message):
    with pytest.raises(InputError, match=message):
        tokens(oracle.model_of("gpt2"), **({"inputs": IDS, "method": "gradient-x-input", "quiet": True} | settings))
