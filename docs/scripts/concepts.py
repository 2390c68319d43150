"""Prints the tables of docs/concept-explanations.md and draws its picture: digits explained by concepts.

    python docs/scripts/concepts.py [--folder FOLDER] [--small]

Takes two CPU minutes on one core. What is found of each network is kept in the folder, and a second start goes on
with what is missing; `--small` takes one network, few images and two sizes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pictures import draw
from sklearn.metrics import roc_auc_score

from attribution.concepts import TCAVScores, explain_all, tcav, train_heads
from interp.concepts import ConceptExplanation, ConceptHeads, ConceptImages, digit_network, load_digits, read_concepts
from interp.tables import markdown_table
from metrics.concepts import ConceptFaithfulness, concept_faithfulness

DOCS = Path(__file__).parent.parent
LAYER = "pooled"
SHOWN = 4  # concepts of the explanations that are listed


@dataclass(frozen=True)
class Sizes:
    """How much is run: seeds of networks and splits, numbers of concepts, images, epochs, random draws."""

    seeds: tuple[int, ...]
    concepts: tuple[int, ...]
    images: int
    epochs: int
    n_random: int


WHOLE = Sizes((0, 1), (1, 2, 4, 8, 21), 1797, 30, 2)
SMALL = Sizes((0,), (1, 4), 300, 3, 1)


def main(folder: Path, sizes: Sizes) -> None:
    """Each network in turn, then the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [Network(seed, sizes, folder).judged() for seed in sizes.seeds]
    for measure in ("agreement", "explained", "saco", "random_saco"):
        print(f"\n{measure}, seed {sizes.seeds[0]}\n\n{markdown_table(by_size(found[0], measure))}")
    for measure in ("agreement", "explained", "saco"):
        print(f"\n{measure}, least and most of all seeds\n\n{markdown_table(spread(found, measure))}", flush=True)
    print(f"\ndisagreement, seed {sizes.seeds[0]}\n\n{markdown_table(apart(found[0]))}")
    if sizes is WHOLE:
        draw(found[0].figure().update_layout(width=1200), DOCS / "concept-explanations.png")


@dataclass(frozen=True)
class Network:
    """A network of one seed and what is asked of it."""

    seed: int
    sizes: Sizes
    folder: Path

    def judged(self) -> ConceptFaithfulness:
        """Faithfulness of all explanations; kept."""
        path = self.folder / f"judged-{self.seed}.json"
        if not path.exists():
            self._measured().save(path)
        return ConceptFaithfulness.load(path)

    def _measured(self) -> ConceptFaithfulness:
        train, test = load_digits().select(slice(0, self.sizes.images)).split(0.7, seed=self.seed)
        network = digit_network(train, epochs=self.sizes.epochs, seed=self.seed)
        heads = train_heads(network, LAYER, train, quiet=True)
        accuracy = (network(test.images).argmax(1) == test.classes).double().mean()
        print(f"seed {self.seed}: accuracy {accuracy:.3f} on {len(test)} held-out images; {heads.headline()}")
        print(markdown_table(quality(network, heads, test)) if self.seed == 0 else "", flush=True)
        every: list[Any] = explain_all(
            network, heads, train, self.sizes.concepts, n_random=self.sizes.n_random, seed=self.seed, quiet=True
        )
        beside = {LAYER: tcav(network, LAYER, train, quiet=True)}
        beside["second"] = tcav(network, "second", train, epochs=10, quiet=True)  # 2,048 features
        listed(every, beside)
        return concept_faithfulness(network, heads, test, [*every, beside[LAYER]], seed=self.seed, quiet=True)


def quality(network: torch.nn.Module, heads: ConceptHeads, test: ConceptImages) -> pd.DataFrame:
    """How well concepts are read on held-out images."""
    reading = read_concepts(network, heads, test, quiet=True)
    share = test.concepts.double().mean(0)
    scores = [
        roc_auc_score(truth.numpy(), own.numpy()) if 0 < truth.sum() < len(truth) else float("nan")
        for truth, own in zip(test.concepts.T, reading.concepts.T, strict=True)
    ]
    return pd.DataFrame({"concept": list(heads.names), "share of images": share.tolist(), "AUROC": scores})


def listed(every: list[ConceptExplanation], beside: dict[str, TCAVScores]) -> None:
    """The concepts that small explanations use, and how TCAV's shares are spread."""
    rows = [
        {"explanation": one.method, "concepts": ", ".join(sorted(one.used))}
        for one in every
        if one.size == SHOWN and not one.control
    ]
    print(markdown_table(pd.DataFrame(rows)))
    for layer, one in beside.items():
        print(f"{layer}: {one.headline()}", flush=True)


def by_size(found: ConceptFaithfulness, measure: str) -> pd.DataFrame:
    """A row a method, a column a number of concepts: values with intervals; the mean of several controls, without."""
    rows = []
    for name, own in found.to_frame().groupby("method", sort=False):
        row = {"explanation": name}
        for size, cells in own.groupby("size"):
            low, high = (cells[f"{measure}_{end}"].iloc[0] for end in ("low", "high"))
            value = f"{cells[measure].mean():.2f}"
            row[str(size)] = value if len(cells) > 1 else f"{value} [{low:.2f}, {high:.2f}]"
        rows.append(row)
    return pd.DataFrame(rows)


def spread(found: list[ConceptFaithfulness], measure: str) -> pd.DataFrame:
    """The least and the most over networks, of what is no control."""
    frame = pd.concat([one.to_frame() for one in found])
    frame = frame[~frame["control"]]
    cells = frame.groupby(["method", "size"], sort=False)[measure].agg(["min", "max"])
    text = cells.apply(lambda row: f"{row['min']:.2f} to {row['max']:.2f}", axis=1)
    return text.unstack().reset_index().rename(columns=str)


def apart(found: ConceptFaithfulness) -> pd.DataFrame:
    """Correlations of saliences of explanations with as many concepts as are listed."""
    frame = found.disagreement()
    own = frame[frame["size"] == SHOWN]
    text = [
        f"{row.correlation:.2f} [{row.correlation_low:.2f}, {row.correlation_high:.2f}]" for row in own.itertuples()
    ]
    return own[["one", "other"]].assign(correlation=text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("concepts"))
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    main(given.folder, SMALL if given.small else WHOLE)
