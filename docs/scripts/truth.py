"""Writes docs/truth-study.md: truth neurons and votes of value vectors in the real SmolLM2-135M.

    python docs/scripts/truth.py
    python docs/scripts/truth.py --small --folder trial   # few questions, writes elsewhere

Takes about ten minutes on one CPU core. What is done is kept in files beside the page until it is whole: a second start
goes on there, inside a part too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import metrics
from attribution import NeuronContrast, contrast_neurons
from interp import Estimate, Result, Task, load_model, tasks
from interp.files import write_text
from interp.kernels.answers import answer_logits
from interp.objectives import get_objective
from interp.tables import markdown_table
from interp.tasks.encoding import Encoder
from interp.tasks.facts.pairs import KINDS
from metrics import NeuronEffects, ValueVotes
from metrics.statistics import share

DOCS = Path(__file__).parent.parent
FORMS = ("completion", "choice")
STRONGEST = 100  # neurons that are scaled
FACTORS = (0.0, 2.0)


@dataclass(frozen=True)
class Sizes:
    """How much is run: questions of each form, midpoints, random sets, prompts of other tasks, draws of labels."""

    questions: dict[str, int]
    steps: int
    n_random: int
    others: int
    draws: int


WHOLE = Sizes({"completion": 240, "choice": 60, "judgement": 120}, 5, 3, 16, 200)
SMALL = Sizes({"completion": 40, "choice": 20, "judgement": 40}, 1, 1, 4, 20)


def main(small: bool, folder: Path) -> None:
    """Measure part by part, and write the page anew after each."""
    study = Study(load_model("smollm2-135m"), SMALL if small else WHOLE, folder)
    parts: list[tuple[str, Callable[[], str]]] = [
        ("What the model knows", study.known),
        ("Votes of value vectors", study.votes),
    ]
    for form in FORMS:
        parts += [
            (f"Truth neurons, {form}", lambda form=form: study.neurons(form)),
            (f"Suppressed and amplified, {form}", lambda form=form: study.effects(form)),
        ]
    parts.insert(-2, ("Truth, or what goes together", study.association))
    text = [INTRODUCTION]
    for title, part in parts:
        text.append(f"\n## {title}\n\n{part()}\n")
        write_text(folder / "truth-study.md", "".join(text))
    write_text(folder / "truth-study.md", "".join(text) + CONCLUSION)
    for kept in folder.glob(".truth-*"):
        kept.unlink()


@dataclass
class Study:
    """The parts of the page; each keeps what it found in files of `folder`."""

    model: Any
    sizes: Sizes
    folder: Path
    made: dict[str, Task] = field(default_factory=dict)

    def known(self) -> str:
        """How often the true answer is likelier, by form and kind."""
        rows = []
        for form, n in self.sizes.questions.items():
            task, each = self.task(form), 4 if form == "judgement" else 2
            kept = self.folder / f".truth-known-{form}.pt"
            if not kept.exists():
                torch.save(self.right(task), kept)
            right, kinds = torch.load(kept, weights_only=True), [KINDS[i // each % len(KINDS)] for i in range(n)]
            by_kind = {kind: share(right[[one == kind for one in kinds]].bool().numpy()) for kind in KINDS}
            rows.append({"form": form, "questions": n, "all": share(right.bool().numpy()), **by_kind})
        return KNOWN + _table(pd.DataFrame(rows))

    def right(self, task: Task) -> torch.Tensor:
        """Whether the model prefers the true answer, question by question."""
        prompts = task.prompts(self.model)
        return get_objective("accuracy")(answer_logits(self.model, prompts), prompts)

    def task(self, form: str) -> Task:
        """All questions of a form, made once."""
        if form not in self.made:
            self.made[form] = tasks.truth(self.sizes.questions[form], model=self.model, form=form)
        return self.made[form]

    def pairs(self, form: str) -> list[tuple[str, tuple[Any, ...]]]:
        """Pairs of questions whose answers are one token, each with its kind."""
        encoder, examples = Encoder(self.model), self.task(form).examples
        pairs = [(KINDS[i // 2 % len(KINDS)], examples[i : i + 2]) for i in range(0, len(examples), 2)]
        return [(kind, pair) for kind, pair in pairs if encoder.is_single(pair[0].correct[0])]

    def halves(self, form: str) -> tuple[Task, Task]:
        """Half of the pairs choose neurons, the others judge them."""
        pairs = self.pairs(form)
        return of_pairs(f"{form}, choosing", pairs[::2]), of_pairs(f"{form}, judging", pairs[1::2])

    def kept(self, name: str, kind: type[Any], make: Callable[[], Result]) -> Any:
        """A result from its file, or made and kept there."""
        path = self.folder / f".truth-{name}.json"
        if not path.exists():
            make().save(path)
        return kind.load(path)

    def votes(self) -> str:
        """Value vectors, likelihood and probe on completions."""
        task = self.task("completion")
        found: ValueVotes = self.kept(
            "votes",
            ValueVotes,
            lambda: metrics.value_votes(
                self.model, task, groups=pairs_of(task), permutations=self.sizes.draws, resamples=1000
            ),
        )
        ways = [
            {"way": way.replace("_", " "), "accuracy": one, "votes ahead by": found.ahead.get(way, "")}
            for way, one in found.accuracy.items()
        ]
        folds = found.folds[["voters", "best_chosen", "best_judged", "votes_judged", "probe_layer", "probe_judged"]]
        return VOTES.format(
            n=len(task),
            ways=_table(pd.DataFrame(ways)),
            null=markdown_table(found.null_frame()),
            folds=markdown_table(folds.rename(columns=lambda name: name.replace("_", " "))),
            draws=self.sizes.draws,
        )

    def contrast(self, form: str, half: Task, name: str) -> NeuronContrast:
        """Neurons that differ on one half of the questions."""
        resume = self.folder / f".truth-{name}-{form}.safetensors"
        return self.kept(
            f"{name}-{form}",
            NeuronContrast,
            lambda: contrast_neurons(self.model, half, steps=self.sizes.steps, groups=pairs_of(half), resume=resume),
        )

    def neurons(self, form: str) -> str:
        """How many neurons differ, and whether those that one half finds differ on the other."""
        choosing, judging = self.halves(form)
        found, other = self.contrast(form, choosing, "choosing"), self.contrast(form, judging, "judging")
        rows = [self.again(found, other, name, mask) for name, mask in (
            ("survivors", found.survivors().mask),
            (f"{STRONGEST} strongest", found.strongest(STRONGEST).mask),
            ("all", found.p <= 1),
        )]  # fmt: skip
        chance = pd.Series(found.by_chance)
        text = NEURONS.format(
            choosing=len(choosing), judging=len(judging), survivors=found.survivors().n_nodes,
            correct=found.survivors("correct").n_nodes, total=sum(found.widths), chance=f"{chance.mean():.1f}",
            most=chance.max(), draws=len(chance), steps=self.sizes.steps,
        )  # fmt: skip
        best = found.top(5).assign(difference=lambda frame: 1000 * frame["difference"])
        return (
            text
            + _table(pd.DataFrame(rows))
            + STRONGEST_ROWS
            + markdown_table(best.rename(columns={"difference": "D x 1000"}))
        )

    def association(self) -> str:
        """Whether neurons found without negations speak for what is true in negations, or for what goes together."""
        pairs = self.pairs("completion")[::2]
        plain, negated = ([one for one in pairs if (one[0] == "negations") is side] for side in (False, True))
        found = self.contrast("completion", of_pairs("completion, plain", plain), "plain")
        other = self.contrast("completion", of_pairs("completion, negated", negated), "negated")
        masks = {"survivors": found.survivors().mask, "100 strongest": found.strongest(100).mask}
        rows = [self.again(found, other, name, mask) for name, mask in masks.items()]
        return ASSOCIATION.format(plain=2 * len(plain), negated=2 * len(negated)) + _table(pd.DataFrame(rows))

    def again(self, found: NeuronContrast, other: NeuronContrast, name: str, mask: torch.Tensor) -> dict[str, Any]:
        """Of the neurons in a mask: how many have the same sign on the other half, and p below 0.05 there."""
        same = (found.values[mask] * other.values[mask]) > 0
        there = same & (other.p[mask] < 0.05)
        pair = torch.stack((found.values[mask], other.values[mask]))
        known = len(same) > 2
        return {
            "neurons": name,
            "count": f"{len(same):,}",
            "same sign": share(same.numpy()) if known else "",
            "and p < .05": share(there.numpy()) if known else "",
            "correlation of D": f"{float(torch.corrcoef(pair)[0, 1]):.2f}" if known else "",
        }

    def effects(self, form: str) -> str:
        """The strongest neurons, for either answer, scaled on the questions that did not choose them."""
        choosing, judging = self.halves(form)
        found = self.contrast(form, choosing, "choosing")
        others = [getattr(tasks, name)(n=self.sizes.others, model=self.model) for name in ("ioi", "agreement")]
        if not found.survivors().n_nodes:
            return "Nothing survived, so there is nothing to scale."
        text = []
        for toward, side in (("correct", "the true answer"), ("both", "either answer")):
            measured: NeuronEffects = self.kept(
                f"effects-{toward}-{form}",
                NeuronEffects,
                lambda toward=toward: metrics.neuron_effects(
                    self.model, judging, found.strongest(STRONGEST, toward), FACTORS,
                    others=others if toward == "correct" else (), n_random=self.sizes.n_random,
                ),
            )  # fmt: skip
            rows = [
                {
                    "task": one.task, "objective": one.objective, "factor": f"{one.factor:g}", "clean": one.clean,
                    "change": one.change, "random": one.random, "p": f"{one.p:.4f}",
                }
                for one in measured.effects
            ]  # fmt: skip
            text.append(
                f"The {STRONGEST} neurons of the largest |t| that speak for {side}:\n\n" + _table(pd.DataFrame(rows))
            )
        return "\n\n".join(text)


def of_pairs(name: str, pairs: list[tuple[str, tuple[Any, ...]]]) -> Task:
    """A task of the questions of some pairs, which stay beside each other."""
    return Task(name, [one for _, pair in pairs for one in pair])


def pairs_of(task: Task) -> list[int]:
    """The pair of each question."""
    return [i // 2 for i in range(len(task))]


def _table(frame: pd.DataFrame) -> str:
    def written(value: Any) -> Any:
        return f"{value.value:z.2f} [{value.low:z.2f}, {value.high:z.2f}]" if isinstance(value, Estimate) else value

    return markdown_table(frame.map(written))


INTRODUCTION = """# Truth neurons and value votes in SmolLM2-135M

Made by `docs/scripts/truth.py`. Questions are those of [`tasks.truth`](truth.md): pairs of facts whose answers are
exchanged, so that neither words nor length nor place tell the true from the false. Intervals: 95 %.
"""

KNOWN = """How often the true answer is likelier than the false one (of two: guessing gives .50), by form and kind of
fact. Wilson's intervals.

"""

VOTES = """`metrics.value_votes` on {n} completions, two candidates each; pairs stay together in folds and
resamples.

{ways}

The best of all rules (layer, neuron, largest or smallest) on the questions that chose it, and under {draws} draws of
labels, in which nothing is there to be found:

{null}

Fold by fold: voters chosen inside, the best rule on the questions that chose it and on the others, the majority and the
probe on the others.

{folds}"""

NEURONS = """{choosing} questions chose, {judging} others judge; answers of one token, integrated gradients from all
neurons 0 with {steps} midpoints, one observation a pair. {survivors:,} of {total:,} neurons survive at a false
discovery rate of .05, {correct:,} of them for the true answer. Where the answers of each pair change sides by the toss
of a coin {chance} survive on average, {most} at most ({draws} draws).

Whether neurons that one half finds are found again on the other:

"""

STRONGEST_ROWS = "\n\nThe neurons of the largest |t|; D is in probability:\n\n"

ASSOCIATION = """Of the choosing half, {plain} questions without negations chose, and {negated} negations judge. "The
capital of France is not" is truly continued by " Rome": a neuron for truth has the same sign there, a neuron for what
goes together (France and Paris) the other one.

"""

CONCLUSION = """
## What this shows, and what it does not

- SmolLM2-135M completes capitals, opposites and most categories truly, guesses at sums, and takes no notice of "not":
  of the negations it gets none right. Asked by letter, or whether a sentence is true, it is right on exactly half, as
  one is who always says the same. What papers of truth neurons ask of larger models, a choice between letters, cannot
  be asked of this one; with 30 questions nothing survives there, as it should.
- On completions one neuron in eight differs between true and false answers, none do by chance, and what one half of the
  questions finds the other finds again. That is no small set: differences are spread over the whole model.
- They are not neurons for truth. On negations most have the other sign: they speak for the word that goes together with
  the subject, be it true or false. With questions of positive facts alone nobody would have seen it.
- A hundred of them, for the true answer, are worth about a seventh of the difference of log-probabilities, ten times
  what random neurons of the same layers and norms are; accuracy stays. So does agreement. On `ioi` doubling them costs
  little, which is not clearly more than what random ones cost. The hundred largest |t| whatever their side do no more
  than random ones: two sides cancel.
- Value votes do better than guessing, and no better than the candidates' log-likelihood or the linear probe: no
  difference from the votes is clear of 0. The best of all rules is right more often than by chance; but chance alone,
  among so many rules, looks like six in ten.
- Not measured: models that answer by letter, 20 midpoints (5 here), neurons at single positions, other seeds of the
  questions. Pairs are the observations; of these there are few.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few questions and points")
    parser.add_argument("--folder", type=Path, default=DOCS)
    torch.set_num_threads(1)
    main(**vars(parser.parse_args()))
