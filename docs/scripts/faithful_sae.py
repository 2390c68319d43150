"""Writes docs/faithful-sae.md: dictionaries of SmolLM2-135M from its own text, beside those from other text.

    python docs/scripts/faithful_sae.py
    python docs/scripts/faithful_sae.py --small --folder trial   # little text, writes elsewhere

Takes about ten minutes on one CPU core. What is done is kept in files beside the page until it is whole: a second start
goes on there, inside a part too.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import metrics
from attribution import EAPIG, Dictionary
from attribution.units.nodes import scores_of_nodes
from interp import Estimate, GeneratedText, Interval, Run, Setting, load_model, sample_text, tasks
from interp.dictionaries import capture_activations, train_dictionary
from interp.dictionaries.sets import DictionarySet
from interp.files import write_text
from interp.generated import packed_rows
from interp.tables import markdown_table
from metrics import DictionaryQuality
from metrics.circuit.evaluate import faithfulness_in
from metrics.circuit.node_scores import NodeScores

DOCS = Path(__file__).parent.parent
PACKAGES = ("networkx", "numpy", "pandas", "scipy")  # whose docstrings are read
SOURCES, SEEDS = ("own text", "docstrings and licences"), (0, 1)
LAYER, ACTIVE, ROW = 15, 32, 64
CIRCUITS = (10, 100)  # features


@dataclass(frozen=True)
class Sizes:
    """Texts and their tokens, rows that are held out, features, steps and samples of training, prompts of circuits."""

    texts: int
    length: int
    held_out: int
    features: int
    steps: int
    batch: int
    prompts: int


WHOLE = Sizes(48, 96, 8, 768, 300, 128, 16)
SMALL = Sizes(6, 64, 2, 64, 20, 64, 4)


def main(small: bool, folder: Path) -> None:
    """Sample, train and measure, and write the page."""
    study = Study(load_model("smollm2-135m"), SMALL if small else WHOLE, folder)
    write_text(folder / "faithful-sae.md", study.page())
    for kept in folder.glob(".sae-*"):
        kept.unlink()


@dataclass
class Study:
    """The parts of the page; what each found is kept in files of `folder`."""

    model: Any
    sizes: Sizes
    folder: Path

    def page(self) -> str:
        """All of it."""
        sizes, text = self.sizes, self.own_text()
        rows = self.rows(text)
        dictionaries = {
            (source, seed): self.trained(source, seed, rows[source][0]) for source in SOURCES for seed in SEEDS
        }
        return PAGE.format(
            layer=LAYER, features=f"{sizes.features:,}", active=ACTIVE, steps=sizes.steps, batch=sizes.batch, row=ROW,
            texts=sizes.texts, length=sizes.length, packages=", ".join(PACKAGES), prompts=sizes.prompts // 2,
            train=f"{rows[SOURCES[0]][0][:, 1:].numel():,}", held=f"{rows[SOURCES[0]][1][:, 1:].numel():,}",
            sampled=markdown_table(text.to_frame()),
            quality=_table(self.quality(dictionaries, {source: held for source, (_, held) in rows.items()})),
            shared=_table(shared(dictionaries)), circuits=_table(self.circuits(dictionaries)),
        )  # fmt: skip

    def own_text(self) -> GeneratedText:
        """What the model writes by itself."""
        return sample_text(
            self.model, self.sizes.texts, self.sizes.length, resume=self.folder / ".sae-text.safetensors", quiet=True
        )

    def rows(self, text: GeneratedText) -> dict[str, tuple[Tensor, Tensor]]:
        """Of each source equally many rows to train on and to measure on."""
        first, most = int(text.ids[0, 0]), self.sizes.length
        found, wanted = [], text.n_tokens
        for one in other_text():
            ids = self.model.tokenizer(one, truncation=True, max_length=most)["input_ids"]
            found.append([first, *ids])
            if (wanted := wanted - len(ids)) < 0:
                break
        both = [packed_rows(texts, ROW) for texts in (text.texts(), found)]
        count = min(map(len, both))
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0), device="cpu")
        split = [rows[order].split([count - self.sizes.held_out, self.sizes.held_out]) for rows in both]
        return dict(zip(SOURCES, split, strict=True))

    def trained(self, source: str, seed: int, rows: Tensor) -> Dictionary:
        """A dictionary of the residual stream, of what is behind rows' first tokens."""
        kept = self.folder / f".sae-activations-{SOURCES.index(source)}.pt"
        if not kept.exists():
            read = [
                capture_activations(self.model, one, LAYER, "residual")[0].view(*one.shape, -1)
                for one in rows.split(16)
            ]
            torch.save(torch.cat(read)[:, 1:].flatten(0, 1), kept)
        sizes, resume = self.sizes, self.folder / f".sae-{SOURCES.index(source)}-{seed}.safetensors"
        return train_dictionary(
            torch.load(kept, weights_only=True), LAYER, "residual", sizes.features, ACTIVE, steps=sizes.steps,
            batch_size=sizes.batch, seed=seed, resume=resume, quiet=True,
        )  # fmt: skip

    def quality(self, dictionaries: dict[tuple[str, int], Dictionary], held: dict[str, Tensor]) -> pd.DataFrame:
        """Each dictionary on the rows that neither source trained on."""
        table = []
        for ((source, seed), one), on in itertools.product(dictionaries.items(), SOURCES):
            kept = self.folder / f".sae-quality-{SOURCES.index(source)}-{seed}-{SOURCES.index(on)}.json"
            if not kept.exists():
                metrics.dictionary_quality(self.model, one, held[on], quiet=True).save(kept)
            found = DictionaryQuality.load(kept)
            print(source, seed, on, found, flush=True)
            table.append(
                {
                    "trained on": source, "seed": seed, "measured on": on, "CE": found.cross_entropy,
                    "rise": found.rise, "with the mean": found.rise_of_mean, "explained": found.explained,
                    "dead": found.dead, "dense": found.dense, "fake": found.fake,
                }
            )  # fmt: skip
        return pd.DataFrame(table)

    def circuits(self, dictionaries: dict[tuple[str, int], Dictionary]) -> pd.DataFrame:
        """Faithfulness on held-out prompts of the features of largest signed score, errors ablated like the others."""
        task = tasks.agreement(n=self.sizes.prompts, seed=0, model=self.model)
        scoring, held_out = Setting(self.model, task, run=Run(quiet=True)).split(0.5, 0)
        table = []
        for (source, seed), one in dictionaries.items():
            units = DictionarySet([one], "ablated")
            there = scoring.under(features=units)
            scores = NodeScores(scores_of_nodes(there, EAPIG(), "feature").values, "feature").among(there)
            counts = [min(count, scores.count) for count in (*CIRCUITS, scores.count)]
            values = held_out.under(features=units).measure([scores.top(count, 1.0) for count in counts])
            names = [*(f"{count} features" for count in CIRCUITS), "all, no errors"]
            found = dict(zip(names, faithfulness_in(values, Interval()), strict=True))
            table.append({"trained on": source, "seed": seed, **found})
            print(table[-1], flush=True)
        return pd.DataFrame(table)


def shared(dictionaries: dict[tuple[str, int], Dictionary]) -> pd.DataFrame:
    """What two seeds of one source share, and two sources of one seed."""
    first, second = SEEDS
    pairs = {f"two seeds, {source}": ((source, first), (source, second)) for source in SOURCES}
    pairs["two sources, one seed"] = ((SOURCES[0], first), (SOURCES[1], first))
    found = {name: metrics.shared_features(*(dictionaries[one] for one in pair)) for name, pair in pairs.items()}
    return pd.DataFrame(
        [{"pair": name, "one to one": one.ratio, "nearest": one.nearest} for name, one in found.items()]
    )


def other_text() -> Iterator[str]:
    """Docstrings and paragraphs of licences of installed packages, each once, in an order drawn by seed 0."""
    drawn, seen = random.Random(0), set()
    listed = [one for name in PACKAGES for one in metadata.files(name) or []]
    files = [Path(str(one.locate())) for one in listed if one.suffix == ".py" or "licen" in one.name.lower()]
    for file in drawn.sample(sorted(files), len(files)):
        for text in texts_of(file):
            if len(text) > 200 and text not in seen:
                seen.add(text)
                yield text


def texts_of(file: Path) -> list[str]:
    """The docstrings of a Python file, or the paragraphs of another."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix != ".py":
        return [" ".join(part.split()) for part in text.split("\n\n")]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


def _table(frame: pd.DataFrame) -> str:
    def written(value: Any) -> Any:
        return f"{value.value:z.2f} [{value.low:z.2f}, {value.high:z.2f}]" if isinstance(value, Estimate) else value

    return markdown_table(frame.map(written))


PAGE = """# Dictionaries from a model's own text

Made by `docs/scripts/faithful_sae.py` on SmolLM2-135M. A TopK autoencoder of the residual stream behind layer {layer},
{features} features of which {active} are active at once, is trained on text that the model sampled from its first token
alone ("FaithfulSAE", arXiv:2506.17673), and on equally many tokens of the docstrings and licences of installed packages
({packages}); two seeds of each, {steps} steps of {batch} tokens. **This is small**: {train} tokens train and {held} of
each source measure, where the paper trains on hundreds of millions; read it as what dictionaries of little text do.

Intervals, 95 %: of cross-entropies and variance over rows of held-out text, of shares of features Wilson's over
features, of faithfulness over prompts. They do not say how much other seeds or other text would differ: there are two
seeds.

## What was sampled

{texts} texts of at most {length} tokens, temperature 1; what is left out is short (fewer than 16 tokens), repeats
itself (more than half of its 4-grams) or is equal to an earlier text. `ended`: the share that ended by itself;
`repeated`: the mean share of 4-grams that stood earlier in their text.

{sampled}

## Quality

`metrics.dictionary_quality` on rows of {row} tokens, the first of each not counted. CE: the model's own cross-entropy,
in nats; rise: with the reconstruction in the place of the residual stream; with the mean: with its mean there, what a
dictionary without features does. Dense: active at more than a tenth of tokens; fake: so on random tokens.

{quality}

## Shared features

Decoder rows of two dictionaries matched one to one (the Hungarian method), and by nearest neighbour: the share of
cosines of at least .7.

{shared}

## Feature circuits

Agreement, {prompts} prompts score (`eap-ig`), {prompts} others judge; 1: the model, 0: the residual stream of the
corrupted prompt behind that layer. Features outside of a circuit are ablated, and so is what the dictionary leaves.

{circuits}
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="little text and few steps")
    parser.add_argument("--folder", type=Path, default=DOCS)
    torch.set_num_threads(1)
    main(**vars(parser.parse_args()))
