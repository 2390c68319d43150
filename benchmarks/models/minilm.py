"""Trains a classifier of sentiment on the real MiniLM encoder, in seconds, on sentences of our own making.

    python -m benchmarks.models.minilm

Sentences about films, meals and places, of two classes. The words that decide are mixed with others that do not:
neutral remarks, opinions on something else, and negations. Templates and the words of judgement are split between
training and test, so that what is measured is no memory of either.
"""

from __future__ import annotations

import random
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from interp.encoders import load_encoder

LABELS = ("negative", "positive")
TRAIN, TEST, EPOCHS, BATCH, FROZEN = 960, 300, 3, 32, 3
PAD, MASK = 0, 103  # ids of MiniLM's padding and mask token

THINGS = {
    "film": ("film", "movie", "comedy", "thriller", "documentary", "sequel", "drama"),
    "meal": ("soup", "dinner", "curry", "breakfast", "dessert", "pasta", "lunch"),
    "place": ("hotel", "museum", "park", "beach", "village", "cafe", "campsite"),
}
# judgements by class; the words of the two splits differ
GOOD = {
    "train": ("wonderful", "great", "lovely", "excellent", "superb", "charming", "brilliant", "pleasant", "perfect",
              "fantastic", "good", "beautiful", "enjoyable", "impressive", "outstanding", "fine", "exciting",
              "fabulous", "first-rate", "memorable", "exceptional", "satisfying", "remarkable", "stunning",
              "cosy", "tasty"),
    "test": ("delightful", "amazing", "splendid", "terrific", "nice", "magnificent", "marvellous"),
}  # fmt: skip
BAD = {
    "train": ("awful", "terrible", "boring", "dreadful", "poor", "dull", "horrible", "disgusting", "bad", "mediocre",
              "disappointing", "ugly", "unpleasant", "miserable", "dismal", "worthless", "dirty", "annoying",
              "pathetic", "second-rate", "forgettable", "abysmal", "ghastly", "tiresome", "shabby", "tasteless"),
    "test": ("lousy", "horrid", "nasty", "tedious", "appalling", "bland", "atrocious"),
}  # fmt: skip
REMARKS = {
    "train": ("we went there on a tuesday", "it took about two hours", "my cousin had booked it", "it was raining",
              "there were nine of us", "I had read about it in the paper", "the car was parked outside"),
    "test": ("we came by train", "it was late in the evening", "a friend of mine had paid", "the street was empty"),
}  # fmt: skip
OTHERS = ("poster", "ticket office", "car park", "website", "waiting room", "brochure", "bus ride")
# {x} judges the thing; {y} is a word of the other class about something else; "not" turns {x} round
TEMPLATES = {
    "train": (
        ("the {thing} was {x}", False),
        ("what a {x} {thing}", False),
        ("for all of us this was a very {x} {thing}", False),
        ("a {y} {other} and a {x} {thing}", False),
        ("it became a {x} {thing} in the end, {remark}", False),
        ("{remark}, and the {thing} was really {x}", False),
        ("I thought the {thing} was {x}, and {remark}", False),
        ("the {other} was {y}, but the {thing} was {x}", False),
        ("my friends called it {y}, but I found the {thing} {x}", False),
        ("{remark}; a {x} {thing} all the same", False),
        ("the {thing} was {x}, even though the {other} was {y}", False),
        ("the {thing} was not {x}", True),
        ("I would never call this {thing} {x}", True),
        ("{remark}, and the {thing} was not {x} at all", True),
        ("the {thing} wasn't {x}, although the {other} was", True),
        ("nobody found the {thing} {x}", True),
        ("there was nothing {x} about the {thing}", True),
        ("{remark}, and they didn't find the {thing} {x}", True),
        ("the {thing} was far from {x}", True),
        ("it is the least {x} {thing} I know", True),
        ("the {other} may be {y}, yet nobody can say that the {thing} is not {x}", False),
        ("this is not a {x} {thing}, and {remark}", True),
    ),
    "test": (
        ("to my mind it is a {x} {thing}", False),
        ("the {thing} we chose turned out to be {x}; {remark}", False),
        ("despite the {y} {other}, this {thing} is {x}", False),
        ("{remark}. All in all the {thing} seemed {x} to me", False),
        ("the {thing} is hardly {x}", True),
        ("{remark}, but the {thing} was by no means {x}", True),
        ("I don't think the {thing} is {x}", True),
    ),
}


def sentences(split: str, n: int, seed: int) -> tuple[list[str], list[int]]:
    """`n` sentences of a split ("train" or "test"), half of each class, with their labels (1 is positive)."""
    draw = random.Random(f"{split} {seed}")
    texts, labels = [], []
    for index in range(n):
        template, turned = draw.choice(TEMPLATES[split])
        label = index % 2
        same, opposite = (GOOD, BAD) if bool(label) != turned else (BAD, GOOD)
        text = template.format(
            thing=draw.choice(THINGS[draw.choice(tuple(THINGS))]),
            x=draw.choice(same[split]),
            y=draw.choice(opposite[split]),
            remark=draw.choice(REMARKS[split]),
            other=draw.choice(OTHERS),
        )
        texts.append(text)
        labels.append(label)
    return texts, labels


def train(seed: int = 0) -> tuple[Any, Any, list[str], list[int]]:
    """A `BertForSequenceClassification` in eval mode, its tokenizer, and sentences it has not seen, with labels.

    Embeddings and the first layers stay as they are; the others, the pooler and the head are fine-tuned, without
    dropout, so that `seed` decides everything.
    """
    model, tokenizer = load(seed)
    texts, labels = sentences("train", TRAIN, seed)
    fine_tune(model, encode(tokenizer, texts), torch.tensor(labels), seed)
    return model, tokenizer, *sentences("test", TEST, seed)


def load(seed: int) -> tuple[Any, Any]:
    """MiniLM as a classifier whose pooler and head are drawn with `seed`, and its tokenizer."""
    model, tokenizer = load_encoder("minilm-l6", labels=2, seed=seed)
    model.config.id2label, model.config.label2id = dict(enumerate(LABELS)), {name: i for i, name in enumerate(LABELS)}
    return model, tokenizer


def encode(tokenizer: Any, texts: list[str]) -> Tensor:
    """Ids [n, pos], padded behind."""
    return tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]


def fine_tune(
    model: Any,
    ids: Tensor,
    labels: Tensor,
    seed: int,
    *,
    frozen: int = FROZEN,
    epochs: int = EPOCHS,
    batch_size: int = BATCH,
    rate: float = 3e-4,
) -> None:
    """Fine-tune in place with AdamW under a one-cycle schedule, without dropout.

    Embeddings and the `frozen` first layers stay as they are, and are run once: what they give is kept.
    """
    model.eval()
    trained = [*model.bert.encoder.layer[frozen:], model.bert.pooler, model.classifier]
    weights = [weight for part in trained for weight in part.parameters()]
    optimiser = torch.optim.AdamW(weights, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * -(-len(ids) // batch_size))
    order = torch.Generator().manual_seed(seed)
    states = lower(model, ids, frozen)
    with torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.randperm(len(ids), generator=order).split(batch_size):
                loss = cross_entropy(upper(model, states[rows], ids[rows], frozen), labels[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    model.zero_grad()


@torch.no_grad()
def lower(model: Any, ids: Tensor, layers: int) -> Tensor:
    """States [n, pos, d] behind the first layers."""
    parts = []
    for part in ids.split(64):
        states, mask = model.bert.embeddings(input_ids=part), _additive(part)
        for layer in model.bert.encoder.layer[:layers]:
            states = layer(states, mask)
        parts.append(states)
    return torch.cat(parts)


def upper(model: Any, states: Tensor, ids: Tensor, first: int) -> Tensor:
    """Logits [n, class] from states in front of layer `first`; columns of padding alone are left out."""
    longest = int((ids != PAD).sum(1).max())
    states, mask = states[:, :longest], _additive(ids[:, :longest])
    for layer in model.bert.encoder.layer[first:]:
        states = layer(states, mask)
    return model.classifier(model.bert.pooler(states))


def _additive(ids: Tensor) -> Tensor:
    """What is added to attention scores, [n, 1, 1, pos]: none for padding."""
    return torch.zeros(ids.shape).masked_fill(ids == PAD, torch.finfo(torch.float32).min)[:, None, None]


@torch.no_grad()
def logits(model: Any, ids: Tensor) -> Tensor:
    """Logits [n, class] of ids [n, pos], padded behind."""
    return torch.cat([model(input_ids=part, attention_mask=(part != PAD).long()).logits for part in ids.split(64)])


def main() -> None:
    """Train, and print accuracy on the held-out sentences and the time it took."""
    started = time.perf_counter()
    model, tokenizer, texts, labels = train()
    seconds = time.perf_counter() - started
    right = logits(model, encode(tokenizer, texts)).argmax(1) == torch.tensor(labels)
    print(f"accuracy {right.double().mean():.3f} on {len(right)} held-out sentences; trained in {seconds:.1f} s")


if __name__ == "__main__":
    main()
