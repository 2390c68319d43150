"""Recursive ROAR: on data whose important features are known, interrupted and resumed, in processes, and refused."""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from interp.errors import InputError
from metrics.explanation.roar import recursive_roar
from metrics.explanation.roar_data import Fill, Split, counts, expand, mask_top, remover, splits_of
from metrics.explanation.roar_plan import roar_plan
from metrics.explanation.roar_run import macro_f1

FEATURES = 10
WEIGHTS = torch.tensor([3.0, 2.0, 1.5, *[0.0] * (FEATURES - 3)], dtype=torch.float64)
Data = dict[str, Any]


def toy(n: int = 240) -> Data:
    """Labels that three of ten features decide."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, FEATURES, generator=generator, dtype=torch.float64)
    labels = (inputs @ WEIGHTS > 0).long()
    return {
        name: (inputs[part], labels[part])
        for name, part in (("train", slice(120)), ("validation", slice(120, 140)), ("test", slice(140, None)))
    }


class Linear:
    """Least squares on the classes, with noise in the weights that the seed decides."""

    def __init__(self, inputs: Tensor, labels: Tensor, seed: int) -> None:
        x = torch.cat((inputs, torch.ones(len(inputs), 1)), 1)
        gram = x.T @ x + 1e-3 * torch.eye(x.shape[1], dtype=x.dtype)
        self.weights = torch.linalg.solve(gram, x.T @ torch.nn.functional.one_hot(labels, 2).to(x.dtype))
        self.weights += 0.02 * torch.randn(self.weights.shape, generator=torch.Generator().manual_seed(seed))

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weights[:-1] + self.weights[-1]


def fit(train: Any, validation: Any, seed: int) -> Linear:
    return Linear(*train, seed)


def true(model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
    return WEIGHTS.expand(inputs.shape)


def inverted(model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
    return -WEIGHTS.expand(inputs.shape)


def by_weight(model: Linear, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
    return (model.weights[:-1, 1] - model.weights[:-1, 0]).abs().expand(inputs.shape)


def noise(model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
    return torch.rand(inputs.shape, generator=torch.Generator().manual_seed(seed))


class Interrupted(Exception):
    pass


def fit_at_most(n: int, path: Path) -> Callable[..., Linear]:
    """Trains n times, then raises; counts in a file."""

    def limited(train: Any, validation: Any, seed: int) -> Linear:
        done = len(path.read_text()) if path.exists() else 0
        if done >= n:
            raise Interrupted
        path.write_text("x" * (done + 1))
        return fit(train, validation, seed)

    limited.__module__, limited.__qualname__ = fit.__module__, fit.__qualname__  # as if edited and started again
    return limited


def run(data: Data | None = None, train: Any = fit, explain: Any = None, **settings: Any) -> Any:
    explain = {"true": true, "by weight": by_weight} if explain is None else explain
    return recursive_roar(train, data or toy(), explain, **{"seeds": 2, "ratios": (0.3, 0.6, 1.0), **settings})


# what it finds


def test_true_importance_is_faithful_and_inverted_is_not() -> None:
    result = run(explain={"true": true, "inverted": inverted, "noise": noise, "by weight": by_weight}, seeds=4,
                 ratios=[i / 10 for i in range(1, 11)])  # fmt: skip
    assert result.racu["true"].low > 0.3
    assert result.racu["by weight"].low > 0.3
    assert result.racu["inverted"].high < -0.3
    assert abs(result.racu["noise"].value) < 0.25
    faithful = result.to_frame().set_index("measure")["faithful"]
    assert faithful["true"]
    assert not faithful["inverted"]


def test_curves_are_accuracies_of_models_trained_by_hand() -> None:
    data, result = toy(), run(seeds=[3], explain={"true": true}, ratios=(0.2, 0.5, 1.0))
    curve = result.curves[result.curves["measure"] == "true"].set_index("ratio")["performance"]
    mean = data["train"][0].mean(0)
    for ratio, masked in ((0.0, 0), (0.2, 2), (0.5, 5), (1.0, 10)):
        order = torch.tensor([0, 1, 2, *range(3, 10)])[:masked]
        if masked == 5:
            continue  # which of the features of weight 0 fall is decided by their ties
        sets = {name: (x.clone(), y) for name, (x, y) in data.items()}
        for x, _ in sets.values():
            x[:, order] = mean[order]
        scores = fit(sets["train"], sets["validation"], 3)(sets["test"][0])
        assert curve[ratio] == pytest.approx(float((scores.argmax(1) == data["test"][1]).double().mean()))
    assert list(curve.index) == [0.0, 0.2, 0.5, 1.0]
    random = result.curves[result.curves["measure"] == "random"].set_index("ratio")["performance"]
    assert random[0.0] == curve[0.0]  # one model for all
    assert random[1.0] == curve[1.0] == result.everything[3]


class Spy:
    """Trains nothing; remembers what it was given, and which model was explained on what."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Tensor]] = []
        self.explained: list[tuple[int, Tensor, int]] = []

    def train(self, train: Any, validation: Any, seed: int) -> Any:
        number = len(self.trained)
        self.trained.append({"train": train[0] == 0, "validation": validation[0] == 0})

        def model(inputs: Tensor) -> Tensor:
            self.trained[number]["test"] = inputs == 0
            return torch.nn.functional.one_hot(torch.arange(len(inputs)) % 2, 2).double()

        model.number = number  # type: ignore[attr-defined]
        return model

    def explain(self, model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
        self.explained.append((model.number, inputs == 0, seed))
        # what was masked would come last if it were asked for again: it must stay masked all the same
        return torch.where(inputs == 0, -100.0, inputs * (-1) ** model.number)


def spied(**settings: Any) -> Spy:
    spy = Spy()
    run(train=spy.train, explain={"spy": spy.explain}, mask=0.0, seeds=1, ratios=(0.2, 0.5, 0.7), **settings)
    return spy


def test_each_step_is_explained_by_the_model_of_the_step_before() -> None:
    spy = spied()
    # 0 unmasked, 1 everything, 2 3 4 random, 5 6 7 the measure
    assert len(spy.trained) == 8
    assert [number for number, _, _ in spy.explained] == [0, 0, 0, 5, 5, 5, 6, 6, 6]
    assert len({seed for _, _, seed in spy.explained}) == 9
    for name in ("train", "validation", "test"):
        shares = [float(masks[name].double().mean()) for masks in spy.trained]
        assert shares == pytest.approx([0, 1, 0.2, 0.5, 0.7, 0.2, 0.5, 0.7])
        for first in (2, 5):
            for before, after in ((first, first + 1), (first + 1, first + 2)):
                assert (spy.trained[after][name] | ~spy.trained[before][name]).all()  # stays masked
    assert torch.equal(spy.explained[3][1], spy.trained[5]["train"])  # explained on what it was trained on
    inputs = toy()["train"][0]
    kept = inputs.masked_fill(spy.trained[5]["train"], torch.inf)
    order = kept.argsort(1)  # model 5 is odd: its importance is the smallest input that is left
    newly = spy.trained[6]["train"] & ~spy.trained[5]["train"]
    assert newly.gather(1, order[:, :3]).all()


def test_plain_roar_explains_the_first_model_alone() -> None:
    spy = spied(recursive=False)
    assert [number for number, _, _ in spy.explained] == [0, 0, 0]
    for step, masked in ((5, 2), (6, 5), (7, 7)):
        inputs = toy()["train"][0]
        expected = torch.zeros_like(inputs, dtype=torch.bool).scatter(1, inputs.topk(masked, 1).indices, True)
        assert torch.equal(spy.trained[step]["train"], expected)


def test_padding_is_never_masked() -> None:
    spy, data = Spy(), toy()
    for name, (inputs, labels) in data.items():
        maskable = torch.arange(FEATURES).expand(inputs.shape) < 3 + torch.arange(len(inputs))[:, None] % 8
        data[name] = (inputs, labels, maskable)
    run(data, spy.train, {"spy": spy.explain}, mask=0.0, seeds=1, ratios=(0.5, 1.0))
    maskable = data["train"][2]
    assert all(not (masks["train"] & ~maskable).any() for masks in spy.trained)
    assert torch.equal(spy.trained[1]["train"], maskable)
    expected = torch.floor(0.5 * maskable.sum(1) + 0.5).long()
    assert all(torch.equal(spy.trained[i]["train"].sum(1), expected) for i in (2, 3))


def test_numbers_of_tokens_instead_of_shares() -> None:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 9, (90, 6), generator=generator)
    labels = (ids[:, 2] > 4).long()
    data = {name: (ids[part], labels[part]) for name, part in zip(("train", "validation", "test"),
            (slice(40), slice(40, 50), slice(50, None)), strict=True)}  # fmt: skip

    def learn(train: Any, validation: Any, seed: int) -> Any:
        model = Linear(train[0].double(), train[1], seed)
        return lambda inputs: model(inputs.double())

    def position(model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
        return torch.tensor([0, 0, 1, 0, 0, 0]).expand(inputs.shape)

    result = recursive_roar(learn, data, position, ratios=[1, 2, 4], seeds=2, mask=0)
    assert result.table().columns.tolist() == [0, 1, 2, 4]
    assert result.racu["position"].value > 0.5
    assert set(result.everything) == {0, 1}
    assert result.figure().layout.xaxis.title.text == "elements masked"


# how much there is to do


def test_the_plan_counts_the_trainings() -> None:
    spy = Spy()
    explain = {"a": spy.explain, "b": spy.explain}
    plan = roar_plan(explain, ratios=(0.5, 0.8, 1.0), seeds=[4, 9])
    run(train=spy.train, explain=explain, mask=0.0, seeds=[4, 9], ratios=(0.5, 0.8, 1.0))
    assert plan.trainings == len(spy.trained) == 2 * (2 + 3 * 2)
    assert str(plan).startswith("16 trainings: 2 seeds x (unmasked")
    assert roar_plan(spy.explain, ratios=[1, 2], seeds=1).trainings == 6
    arrays = roar_plan(spy.explain, ratios=np.arange(1, 11) / 10, seeds=np.arange(3))
    assert (arrays.ratios, arrays.seeds) == (tuple(i / 10 for i in range(1, 11)), (0, 1, 2))
    assert roar_plan(spy.explain, ratios=np.array([1, 2])).steps == (1, 2)


def test_the_plan_is_told_before_and_during(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "metrics.explanation.roar"):
        run(seeds=1, explain={"true": true})
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("6 trainings: 1 seeds")
    assert lines[1].startswith("1 of 6 trainings done, about ")
    assert lines[-1] == "6 of 6 trainings done, about 0 s to go"


# killed and resumed


def test_resumed_run_is_the_run_it_would_have_been(tmp_path: Path) -> None:
    whole = run()
    count, folder = tmp_path / "count", tmp_path / "run"
    for most in (1, 5, 6, 11):
        with pytest.raises(Interrupted):
            run(train=fit_at_most(most, count), folder=folder)
    resumed = run(train=fit_at_most(100, count), folder=folder)
    pd.testing.assert_frame_equal(resumed.curves, whole.curves)
    assert resumed.racu == whole.racu
    assert len(count.read_text()) == roar_plan({"a": fit, "b": fit}, (0.3, 0.6, 1.0), 2).trainings  # none twice
    again = run(train=fit_at_most(0, tmp_path / "nothing"), folder=folder)
    assert again.racu == whole.racu


def test_an_explainer_that_raises_half_way(tmp_path: Path) -> None:
    calls = [0]

    @functools.wraps(by_weight)
    def fragile(*arguments: Any) -> Tensor:
        calls[0] += 1
        if calls[0] == 8:
            raise Interrupted
        return by_weight(*arguments)

    with pytest.raises(Interrupted):
        run(explain={"by weight": fragile}, folder=tmp_path)
    assert run(explain={"by weight": fragile}, folder=tmp_path).racu == run(explain={"by weight": by_weight}).racu


def fit_and_die(train: Any, validation: Any, seed: int) -> Linear:
    """Kills its own process in the middle of the work, as a machine that is switched off would."""
    path = Path(os.environ["ROAR_COUNT"])
    done = len(path.read_text()) if path.exists() else 0
    if done == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    path.write_text("x" * (done + 1))
    return fit(train, validation, seed)


@pytest.mark.slow
def test_a_killed_process_is_resumed_to_the_same_result(tmp_path: Path) -> None:
    folder, count = tmp_path / "run", tmp_path / "count"
    script = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parents[3])!r}]\n"
        f"from tests.metrics.explanation import test_roar as t\n"
        f"t.fit_and_die.__qualname__ = 'fit'\n"
        f"t.run(train=t.fit_and_die, folder={str(folder)!r})\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "ROAR_COUNT": str(count)}, capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(list(folder.rglob("seed-*/**/*.json"))) == 9
    whole, resumed = run(), run(folder=folder)
    pd.testing.assert_frame_equal(resumed.curves, whole.curves)
    assert resumed.racu == whole.racu


def test_further_seeds_and_explainers_join(tmp_path: Path) -> None:
    count = tmp_path / "count"
    run(explain={"true": true}, seeds=1, folder=tmp_path / "run")
    both = run(train=fit_at_most(100, count), seeds=2, folder=tmp_path / "run")
    assert both.racu == run().racu
    assert len(count.read_text()) == 1 + 2 + 8  # the unmasked model once more, to be explained by the new measure


@pytest.mark.slow
def test_trainings_in_processes(tmp_path: Path) -> None:
    together, alone = run(train=lambda *given: fit(*given), workers=2, folder=tmp_path), run()
    pd.testing.assert_frame_equal(together.curves, alone.curves)
    assert together.racu == alone.racu


@pytest.mark.slow
def test_what_cannot_be_sent_to_a_process() -> None:
    lock = threading.Lock()
    with pytest.raises(InputError, match=r"workers=2 sends what is handed in to other processes.*use workers=1"):
        run(train=lambda train, validation, seed: lock, workers=2)


@pytest.mark.slow
def test_an_error_in_a_process_comes_back(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"explain\['half'\] on train must give scores of shape \(120, 10\)"):
        run(explain={"half": half}, workers=2)


def half(model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
    return inputs[:, :5]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ratios": (0.3, 1.0)}, "other ratios"),
        ({"recursive": False}, "other recursive"),
        ({"mask": 0.0}, "other mask"),
        ({"performance": "macro-f1"}, "other performance"),
        ({"settings": {"epochs": 3}}, "other settings"),
        ({"explain": {"true": noise}}, r"other explain\['true'\]"),
        ({"data": toy(200)}, "other data"),
    ],
)
def test_another_runs_folder_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    run(folder=tmp_path, settings={"epochs": 2}, seeds=1)
    with pytest.raises(InputError, match=f"belongs to another run .*{message}"):
        run(**{"folder": tmp_path, "settings": {"epochs": 2}, "seeds": 1, **changed})


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds something else"):
        run(folder=tmp_path)
    folder = tmp_path / "run"
    run(folder=folder, seeds=1)
    (folder / "seed-0" / "everything.json").write_text("{")
    with pytest.raises(InputError, match=r"everything.json', which is damaged; remove it"):
        run(folder=folder, seeds=1)
    (folder / "seed-0" / "everything.json").unlink()
    record, masks = (folder / "seed-0" / "by-true" / name for name in ("step-1.json", "masks-1.safetensors"))
    record.unlink()
    masks.write_bytes(masks.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"masks-1\.safetensors' is missing or damaged"):
        run(folder=folder, seeds=1)
    (folder / "run.json").write_text("{")
    with pytest.raises(InputError, match="undamaged"):
        run(folder=folder, seeds=1)


def test_a_folder_at_work_in_another_process_is_refused(tmp_path: Path) -> None:
    def again(train: Any, validation: Any, seed: int) -> Linear:
        with pytest.raises(InputError, match="is at work in another process"):
            run(folder=tmp_path, seeds=1)
        return fit(train, validation, seed)

    run(train=again, folder=tmp_path, seeds=1)
    (tmp_path / "run.json").unlink()
    (tmp_path / "seed-0").rename(tmp_path.parent / "seed-0")
    run(folder=tmp_path, seeds=1)  # as one that another process has made and not yet claimed


def test_no_temporary_files_stay(tmp_path: Path) -> None:
    run(folder=tmp_path, seeds=1)
    assert {path.suffix for path in tmp_path.rglob("[!.]*") if path.is_file()} == {".json", ".safetensors"}
    assert list(tmp_path.rglob(".*")) == [tmp_path / ".lock"]
    record = json.loads((tmp_path / "seed-0" / "unmasked.json").read_text())
    assert record["performance"] > 0.9
    assert record["seconds"] >= 0


# how models are asked, and how elements are removed


def test_a_model_of_scikit_learn_and_macro_f1() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    def learn(train: Any, validation: Any, seed: int) -> Any:
        return LogisticRegression().fit(*train)

    def importance(model: Any, inputs: Tensor, labels: Tensor, seed: int) -> Any:
        return np.abs(np.broadcast_to(model.coef_[0], inputs.shape)) * np.ones(inputs.shape)

    data = toy()
    result = recursive_roar(
        learn, data, importance, seeds=1, ratios=(0.3, 1.0), performance="macro-f1",
        predict=lambda model, inputs: model.predict_proba(inputs), batch_size=7,
    )  # fmt: skip
    expected = f1_score(data["test"][1], learn(data["train"], None, 0).predict(data["test"][0]), average="macro")
    assert result.curves["performance"][0] == pytest.approx(expected)
    assert result.racu["importance"].value > 0.3


def test_macro_f1_is_that_of_scikit_learn_and_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.metrics import f1_score

    generator = torch.Generator().manual_seed(0)
    for classes in (2, 5):  # some are never predicted, others never a label
        labels = torch.randint(classes, (12,), generator=generator)
        scores = torch.randn(12, classes + 2, generator=generator)
        with monkeypatch.context() as without:
            for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"] + ["sklearn"]:
                without.setitem(sys.modules, name, None)
            found = macro_f1(scores, labels)
        predicted = scores.argmax(1)
        assert found == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0), abs=1e-12)
    assert macro_f1(torch.eye(3), torch.arange(3)) == 1.0


def test_counts_round_halves_up_and_end_at_all() -> None:
    maskable = torch.arange(6).expand(3, 6) < torch.tensor([6, 5, 1])[:, None]
    assert counts(maskable, 0.3).tolist() == [2, 2, 0]
    assert counts(maskable, 1.0).tolist() == [6, 5, 1]
    assert counts(maskable, 2).tolist() == [2, 2, 1]


def test_mask_top_by_hand() -> None:
    scores = torch.tensor([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5]])
    maskable = torch.tensor([[False, True, True, True, True], [True] * 5])
    removed = torch.tensor([[False, False, False, False, True], [False] * 5])
    masked = mask_top(scores, maskable, removed, 2, seed=0)
    assert masked.tolist() == [[False, True, False, False, True], [False, False, False, True, True]]


def test_ties_fall_at_random_and_by_the_seed() -> None:
    scores, free = torch.zeros(400, 8), torch.ones(400, 8, dtype=torch.bool)
    masked = mask_top(scores, free, ~free, 4, seed=1)
    assert torch.equal(masked, mask_top(scores, free, ~free, 4, seed=1))
    assert (masked.sum(1) == 4).all()
    assert (masked.sum(0) > 150).all()  # no place is preferred; 200 are expected
    later = mask_top(scores, free, ~free, 6, seed=1)
    assert (later | ~masked).all()  # one order: random masking is nested


def test_images_lose_all_channels_of_a_pixel() -> None:
    images = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    split = splits_of({name: (images, torch.zeros(4, dtype=torch.int64)) for name in ("train", "validation", "test")})
    assert split["train"].maskable.shape == (4, 5, 6)
    removed = torch.zeros(4, 5, 6, dtype=torch.bool)
    removed[:, 2, 3] = True
    after = remover("mean", split["train"])(images, removed)
    torch.testing.assert_close(after[1, :, 2, 3], images.mean(0)[:, 2, 3])
    assert torch.equal(after.masked_fill(removed[:, None], 0), images.masked_fill(removed[:, None], 0))


def test_elements_of_embedded_tokens() -> None:
    removed = torch.tensor([[True, False]])
    assert expand(removed, torch.zeros(1, 2, 7)).shape == (1, 2, 1)
    after = Fill(torch.tensor(9.0))(torch.zeros(1, 2, 3), removed)
    assert after.tolist() == [[[9, 9, 9], [0, 0, 0]]]


def test_ways_to_remove() -> None:
    ids = torch.tensor([[5, 6, 7]])
    split = Split(ids, torch.tensor([0]), torch.ones_like(ids, dtype=torch.bool))
    removed = torch.tensor([[True, False, True]])
    assert remover(2, split)(ids, removed).tolist() == [[2, 6, 2]]
    assert remover(torch.tensor([1, 2, 3]), split)(ids, removed).tolist() == [[1, 6, 3]]
    assert remover(lambda inputs, gone: inputs * ~gone, split)(ids, removed).tolist() == [[0, 6, 0]]
    for mask, message in (
        ("mean", "cannot be taken of token ids; give the id"),
        ("blur", "mask='blur' is unknown"),
        (0.5, "must be a whole number"),
        (torch.zeros(2), "must be 'mean', a number, an array"),
        (None, "must be 'mean', a number"),
    ):
        with pytest.raises(InputError, match=message):
            remover(mask, split)


# the result


def test_result() -> None:
    result = run()
    assert list(result.curves.columns) == ["measure", "seed", "ratio", "performance"]
    assert len(result.curves) == 3 * 2 * 4
    summary = result.summary()
    part = result.curves[(result.curves["measure"] == "true") & (result.curves["ratio"] == 0.3)]["performance"]
    row = summary[(summary["measure"] == "true") & (summary["ratio"] == 0.3)].iloc[0]
    assert row["performance"] == pytest.approx(part.mean())
    # two seeds say little: the interval is far wider than their range, and stays inside what accuracy can be
    assert 0 <= row["low"] < part.min() <= part.max() < row["high"] <= 1
    assert result.racu["true"].value == pytest.approx(result.racu_by_seed["true"].mean())
    assert "RACU" in repr(result)
    assert "Recursive ROAR, 2 seeds" in repr(result)
    assert "<table" in result._repr_html_()
    figure = result.figure()
    assert [trace.name.split("<")[0] for trace in figure.data] == ["random", "true", "by weight"]
    assert figure.layout.xaxis.title.text == "share masked"
    assert "ROAR, 1 seed," in repr(run(recursive=False, seeds=1))


def test_data_that_masking_does_not_harm_has_no_racu() -> None:
    data = {name: (inputs, torch.zeros(len(inputs), dtype=torch.int64)) for name, (inputs, _) in toy().items()}
    result = run(data, train=Constant)
    assert np.isnan(result.racu["true"].value)
    assert not result.to_frame()["faithful"].any()


class Constant:
    def __init__(self, train: Any, validation: Any, seed: int) -> None:
        self.weights = torch.linspace(0, 1, 2 * (FEATURES + 1)).reshape(-1, 2) ** 2

    def __call__(self, inputs: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(inputs), 2)


# what is refused


def returning(value: Any) -> Callable[..., Any]:
    return lambda *arguments: value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratios": []}, "ratios="),
        ({"ratios": [0.5, 0.2]}, "must ascend"),
        ({"ratios": [0.5, 1.5]}, "must lie above 0 and up to 1"),
        ({"ratios": [1.0]}, "one of them below"),
        ({"ratios": [0, 1]}, "must be at least 1"),
        ({"ratios": ["a"]}, "must be shares"),
        ({"ratios": 0.5}, "must be shares"),
        ({"seeds": 0}, "seeds=0 must be how many"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"workers": 0}, "workers=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"performance": "acuracy"}, "did you mean 'accuracy'"),
        ({"performance": returning(float("nan"))}, "performance must return a finite number"),
        ({"explain": {}}, "explain is empty"),
        ({"explain": {"random": true}}, "which is the baseline"),
        ({"explain": {"a": 3}}, "must be a callable"),
        ({"explain": returning(torch.zeros(3))}, r"on train must give scores of shape \(120, 10\)"),
        ({"explain": lambda m, x, y, s: x * torch.nan}, "1200 scores that are NaN"),
        ({"explain": lambda m, x, y, s: torch.ones_like(x)}, "the same score: there is no order"),
        ({"predict": lambda model, x: x[:, 0]}, r"must give class scores \[100, class\] for 100 inputs"),
        ({"mask": lambda inputs, removed: inputs[:, :2]}, "mask must return inputs of shape"),
        ({"mask": "blur"}, "mask='blur' is unknown"),
        ({"settings": {"a": object()}}, "settings must be what JSON can hold"),
    ],
)
def test_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(**settings)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], "data must map 'train'"),
        ({"train": (1, 2), "test": (1, 2), "valid": 1}, "did you mean 'validation'"),
        ({"train": toy()["train"]}, "data lacks 'validation' and 'test'"),
        ({**toy(), "test": toy()["test"][0]}, r"data\['test'\] must be \(inputs, labels\)"),
        ({**toy(), "test": (torch.zeros(3), torch.zeros(3))}, r"inputs must be \[n, \.\.\.\]"),
        ({**toy(), "test": (torch.zeros(3, 10), torch.zeros(3))}, "labels must be 3 whole numbers"),
        ({**toy(), "test": (torch.zeros(3, 10), torch.zeros(2, dtype=torch.int64))}, "labels must be 3 whole numbers"),
        ({**toy(), "test": (torch.full((3, 10), torch.nan), torch.zeros(3, dtype=torch.int64))}, "NaN or infinite"),
        ({**toy(), "test": (torch.zeros(3, 9), torch.zeros(3, dtype=torch.int64))}, "inputs differ in shape"),
        (
            {**toy(), "test": (*toy()["test"], torch.ones(100, 9, dtype=torch.bool))},
            "maskable must be bool, one for each element",
        ),
        ({**toy(), "test": (*toy()["test"], torch.ones(100, 10))}, "maskable must be bool"),
        (
            {**toy(), "test": (*toy()["test"], torch.zeros(100, 10, dtype=torch.bool))},
            "allows nothing to be masked in some inputs",
        ),
    ],
)
def test_refuses_data(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(data)
