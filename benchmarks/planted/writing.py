"""Writing the weights of a GPT-2 by hand: named parts of the residual stream, heads, MLP units, norms.

The residual stream is cut into named blocks. One-hot codes are centred, so that they have no mean for LayerNorm to
take away, and a large constant stands in two coordinates, so that the divisor of LayerNorm is nearly the same
whatever is written: with the right gain a norm is close to the identity.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from circuits.planted.models import empty

CONSTANT = 8.0


def gpt2_config(layers: int, heads: int, width: int, inner: int, vocabulary: int, positions: int) -> dict[str, Any]:
    """The configuration of a small GPT-2 with ReLU and an unembedding of its own."""
    return {
        "model_type": "gpt2",
        "n_layer": layers,
        "n_head": heads,
        "n_embd": width,
        "n_inner": inner,
        "vocab_size": vocabulary,
        "n_positions": positions,
        "activation_function": "relu",
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


class Stream:
    """Named blocks of coordinates of the residual stream; `constant` (two) is always there.

    >>> Stream(token=3, position=2)["position"]
    slice(3, 5, None)
    """

    def __init__(self, **widths: int) -> None:
        self.width, self.blocks = 0, {}
        for name, width in {**widths, "constant": 2}.items():
            self.blocks[name] = slice(self.width, self.width + width)
            self.width += width

    def __getitem__(self, name: str) -> slice:
        return self.blocks[name]

    def size(self, name: str) -> int:
        """Coordinates of a block."""
        return self.blocks[name].stop - self.blocks[name].start

    def reader(self, name: str, matrix: Tensor) -> Tensor:
        """`[width, k]`: read a block through a matrix [size, k]."""
        result = torch.zeros(self.width, matrix.shape[1])
        result[self.blocks[name]] = matrix
        return result

    def writer(self, name: str, matrix: Tensor) -> Tensor:
        """`[k, width]`: write a block through a matrix [k, size]."""
        return self.reader(name, matrix.T).T.contiguous()

    def always(self, vector: Tensor) -> Tensor:
        """`[width, k]`: read a fixed vector [k], whatever the token and position."""
        return self.reader("constant", torch.stack((vector, -vector)) / (2 * CONSTANT))


def one_hot(n: int) -> Tensor:
    """Centred one-hot codes `[n, n]`."""
    return torch.eye(n) - 1 / n


class Writer:
    """A GPT-2 of zeros into which heads and MLP units are written."""

    def __init__(self, config: dict[str, Any], stream: Stream) -> None:
        assert config["n_embd"] == stream.width
        self.module, self.stream, self.config = empty(config), stream, config
        self.d_head = config["n_embd"] // config["n_head"]
        for key, parameter in self.module.named_parameters():
            is_gain = "ln_" in key and key.endswith("weight")
            nn.init.constant_(parameter, 1.0 if is_gain else 0.0)
            parameter.requires_grad_(False)
        self.used = [0] * config["n_layer"]

    def embed(self) -> None:
        """Token and position as centred one-hot codes, and the constant."""
        words, places = self.module.transformer.wte.weight, self.module.transformer.wpe.weight
        words[:, self.stream["token"]] = one_hot(len(words))
        places[:, self.stream["position"]] = one_hot(len(places))
        places[:, self.stream["constant"]] = torch.tensor([CONSTANT, -CONSTANT])

    def head(self, layer: int, head: int, q: Tensor, k: Tensor, v: Tensor, o: Tensor, sharpness: float = 1.0) -> None:
        """A head by its matrices `[width, r]` (o: `[r, width]`), r at most d_head.

        The score of a query and a key is `sharpness` times the product of what they read.
        """
        attention = self.module.transformer.h[layer].attn
        root = math.sqrt(sharpness * math.sqrt(self.d_head))
        for i, matrix in enumerate((q * root, k * root, v)):
            start = i * self.stream.width + head * self.d_head
            attention.c_attn.weight[:, start : start + matrix.shape[1]] = matrix
        start = head * self.d_head
        attention.c_proj.weight[start : start + len(o)] = o

    def units(self, layer: int, read: Tensor, bias: Tensor, write: Tensor) -> None:
        """ReLU units that read through `[width, r]`, add a bias [r], and write through `[r, width]`."""
        mlp, start = self.module.transformer.h[layer].mlp, self.used[layer]
        end = start + len(bias)
        assert end <= self.config["n_inner"], "too many units"
        mlp.c_fc.weight[:, start:end], mlp.c_fc.bias[start:end], mlp.c_proj.weight[start:end] = read, bias, write
        self.used[layer] = end

    def bias(self, layer: int, vector: Tensor) -> None:
        """What an MLP writes always, `[width]`."""
        self.module.transformer.h[layer].mlp.c_proj.bias.copy_(vector)

    def calibrate(self, prompts: Tensor) -> None:
        """Set the gain of every LayerNorm, from the first to the last, to the divisor that it has on average."""
        norms = [norm for block in self.module.transformer.h for norm in (block.ln_1, block.ln_2)]
        for norm in (*norms, self.module.transformer.ln_f):
            seen: list[Tensor] = []
            hook = norm.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
            self.module(prompts)
            hook.remove()
            norm.weight.fill_(float(seen[0][:, -1].std(-1, unbiased=False).mean()))
