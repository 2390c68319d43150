"""Two classifiers of stories, trained from scratch in a minute: a small transformer, and an LSTM with attention.

    python -m benchmarks.models.story_models

Both hand out their embeddings and take them back (`embed`, `classify`), so that gradients can be taken there.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

from benchmarks.models.stories import IDS, KINDS, PAD, PLACES, VOCABULARY, short_cuts, stories

Set = tuple[Tensor, Tensor]
LONGEST, MOST = 64, 8  # tokens and sentences, at most
STOP = IDS["."]


class StoryTransformer(nn.Module):
    """Pre-norm transformer encoder over sentences; the answer is read at the question.

    A sentence is the sum of its word vectors, each scaled by a learned vector for its place in the sentence, as in
    memory networks (Sukhbaatar et al. 2015). Word by word the same encoder did not learn whom the question names.
    """

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY), width)
        self.roles = nn.Parameter(torch.ones(LONGEST, width) + torch.randn(LONGEST, width) * 0.1)
        self.sentences = nn.Parameter(torch.randn(MOST, width) * 0.1)
        block = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, len(PLACES))

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings [n, pos, d] of the words."""
        return self.words(ids)

    def classify(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Logits [n, place]; ids tell which positions are padding, and where sentences end."""
        real = ids != PAD
        # counted from the end, where all stories have their question: it is sentence 0
        sentence = (ids == STOP).flip(1).cumsum(1).flip(1)
        member = nn.functional.one_hot(sentence, MOST).to(embeddings) * real[:, :, None]
        place = ((member.cumsum(1) * member).sum(2).long() - 1).clamp(min=0)
        told = member.transpose(1, 2) @ (embeddings * self.roles[place])
        empty = member.sum(1) == 0
        return self.head(self.blocks(told + self.sentences, src_key_padding_mask=empty)[:, 0])

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [n, place] of ids [n, pos]."""
        return self.classify(self.embed(ids), ids)


class StoryLSTM(nn.Module):
    """Bidirectional LSTM whose states are averaged by dot-product attention (Luong et al. 2015)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY), width)
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.keys, self.query = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.head = nn.Linear(4 * width, len(PLACES))

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings [n, pos, d] of the words; padding is zero."""
        return self.words(ids) * (ids != PAD)[:, :, None]

    def attend(self, embeddings: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """States [n, pos, 2 d], and the attention [n, pos] that the question mark pays to them."""
        states, _ = self.lstm(embeddings)
        energy = (self.keys(states) * self.query(states[:, -1:])).sum(2) / len(self.keys.bias) ** 0.5
        return states, energy.masked_fill(ids == PAD, -torch.inf).softmax(1)

    def classify(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Logits [n, place]; ids tell which positions are padding."""
        states, attention = self.attend(embeddings, ids)
        read = (attention[:, :, None] * states).sum(1)
        return self.head(torch.cat((read, states[:, -1]), 1))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [n, place] of ids [n, pos]."""
        return self.classify(self.embed(ids), ids)


StoryModel = StoryTransformer | StoryLSTM


def train_stories(
    kind: type[StoryModel],
    train: Set,
    validation: Set,
    seed: int,
    *,
    epochs: int = 20,
    batch_size: int = 64,
    rate: float = 2e-3,
) -> StoryModel:
    """Train with AdamW under a one-cycle schedule; keep the weights of the best epoch on the validation set.

    The seed decides the model, and torch's global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind()
    generator = torch.Generator().manual_seed(seed)
    ids, labels = train
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * -(-len(ids) // batch_size))
    best, kept = -1.0, {}
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(len(ids), generator=generator).split(batch_size):
            loss = nn.functional.cross_entropy(model(ids[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        model.eval()
        right = float(correct(model, *validation).double().mean())
        if right > best:
            best, kept = right, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    return model.eval()


@torch.no_grad()
def correct(model: StoryModel, ids: Tensor, labels: Tensor) -> Tensor:
    """Which stories [n] are answered correctly."""
    return torch.cat([model(part) for part in ids.split(512)]).argmax(1) == labels


MODELS: dict[str, type[StoryModel]] = {"transformer": StoryTransformer, "LSTM with attention": StoryLSTM}


def main() -> None:
    """Train the models named; print accuracy on stories not seen, by seed, and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--kind", choices=KINDS, default="one")
    parser.add_argument("--stories", type=int, default=20000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    train, validation, test = (stories(n, i + 1, (chosen.kind,)) for i, n in enumerate((chosen.stories, 400, 1000)))
    for cut, share in short_cuts(test).items():
        print(f"{cut}: {share:.3f}")
    for name in chosen.models:
        for seed in range(chosen.seeds):
            started = time.perf_counter()
            model = train_stories(MODELS[name], train[:2], validation[:2], seed, epochs=chosen.epochs, rate=3e-3)
            seconds = time.perf_counter() - started
            right = [float(correct(model, *part[:2]).double().mean()) for part in (validation, test)]
            print(f"{name}, seed {seed}: validation {right[0]:.3f}, test {right[1]:.3f}; {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
