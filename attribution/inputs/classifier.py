"""A sequence classifier with a bidirectional encoder as input attribution sees it: from word embeddings to a class."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attribution.inputs.explained import Embeddings, Explainable
from attribution.inputs.proposals import Proposer, as_proposer
from attribution.rules.sets import RuleSet, rule_set
from interp import compat, running
from interp.encoders import is_encoder
from interp.errors import InputError
from interp.fingerprint import refuse_inference
from interp.inputs import Inputs, as_inputs, is_id
from interp.kernels.batching import budget_of
from interp.rotary import as_new, depends_on_length
from interp.run import Run

_HEAD = "ForSequenceClassification"


def is_classifier(model: Any) -> bool:
    """Whether a model is one of transformers' sequence classifiers, of whatever architecture."""
    return isinstance(model, PreTrainedModel) and any(kind.__name__.endswith(_HEAD) for kind in type(model).__mro__)


@dataclass(frozen=True)
class EncoderAnatomy:
    """Of a classifier what token methods look up in the `Anatomy` of a language model."""

    name: str
    d_vocab: int
    max_positions: int | None
    classes: tuple[str, ...]
    parameter: Callable[[], Tensor]  # the word embeddings: tells device and dtype as they are now

    @property
    def device(self) -> torch.device:
        """Where the word embeddings are."""
        return self.parameter().device

    @property
    def dtype(self) -> torch.dtype:
        """The word embeddings' dtype."""
        return self.parameter().dtype

    @classmethod
    def of(cls, model: Any) -> EncoderAnatomy:
        """Read off a model's configuration and its embeddings."""
        config, words = model.config, model.get_input_embeddings()
        return cls(
            name=str(config.name_or_path or type(model).__name__),
            d_vocab=words.num_embeddings,
            max_positions=_max_positions(model),
            classes=tuple(str(config.id2label.get(i, i)) for i in range(config.num_labels)),
            parameter=lambda: words.weight,
        )


@dataclass(frozen=True)
class ClassifierExplained(Explainable):
    """A classifier, run through its own `forward` from word embeddings on: the logit of a class is explained.

    Positions and token types are the model's own business, special tokens are tokens like all others. The model's mode,
    its hooks and its kind of attention are put back after every run.
    """

    model: Any
    anatomy: EncoderAnatomy
    own_tokenizer: Any = None
    leaks: bool = False  # padding changes what the model says of the tokens before it: no input is padded
    kind = "class"
    takes_rules = False
    baselines = ("zero", "mean", "pad", "mask", "unk")

    @classmethod
    def of(cls, model: Any, tokenizer: Any = None) -> ClassifierExplained:
        """Raises `InputError` unless the model is an encoder with one label an input that reads word embeddings."""
        name, config = type(model).__name__, model.config
        if not is_encoder(config):
            raise InputError(
                f"model={name} is no bidirectional encoder; give a classifier of BERT or RoBERTa type, or a causal "
                "language model from interp.load_model"
            )
        if config.num_labels < 2 or config.problem_type not in (None, "single_label_classification"):
            raise InputError(
                f"model={name} has {config.num_labels} labels and problem_type={config.problem_type!r}; give a "
                "classifier of at least two classes, of which each input has one"
            )
        if "inputs_embeds" not in inspect.signature(model.forward).parameters:
            raise InputError(f"model={name} takes no inputs_embeds, so that its word embeddings cannot be explained")
        if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise InputError(
                f"tokenizer is a {type(tokenizer).__name__}, not a transformers tokenizer; load one with "
                "transformers.AutoTokenizer.from_pretrained"
            )
        refuse_inference(model)
        return cls(model, EncoderAnatomy.of(model), tokenizer)._checked()

    @property
    def tokenizer(self) -> Any:
        """What `of` was given."""
        return self.own_tokenizer

    def encode(self, inputs: Any, attention_mask: Any, prepend_bos: bool | None) -> Inputs:
        """See `as_inputs`. Strings get the tokenizer's special tokens; nothing is truncated."""
        if prepend_bos is not None:
            raise InputError(
                "prepend_bos is for language models; a classifier's tokenizer adds its special tokens itself"
            )
        anatomy = self.anatomy
        return as_inputs(inputs, attention_mask, self._tokenised, anatomy.d_vocab, anatomy.max_positions)

    def _tokenised(self, texts: list[str]) -> list[list[int]]:
        if self.tokenizer is None:
            raise InputError("inputs are strings, and a classifier has no tokenizer; give tokenizer=, or token ids")
        found = self.tokenizer(texts, truncation=False, padding=False, verbose=False)
        return [list(ids) for ids in found["input_ids"]]

    def target_reader(self) -> Callable[[Any, int], int]:
        """Classes by index or by name (`config.id2label`)."""
        classes = self.anatomy.classes

        def read(given: Any, index: int) -> int:
            if classes.count(given) > 1:
                raise InputError(f"target={given!r} is the name of several classes; give one by index")
            found = classes.index(given) if given in classes else given
            if not is_id(found, len(classes)):
                raise InputError(
                    f"target of input {index} must be a class from 0 to {len(classes) - 1} or its name "
                    f"({', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}); got {given!r}"
                )
            return int(found)

        return read

    def readable_target(self, target: int) -> str:
        return self.anatomy.classes[target]

    def batch_size(self, inputs: Inputs, run: Run) -> int:
        """By what autograd keeps of the activations of all layers."""
        budget = budget_of(self.anatomy.device, run.memory)
        config, length = self.model.config, inputs.ids.shape[1]
        mlp = getattr(config, "intermediate_size", 4 * config.hidden_size)
        row = 12 * config.hidden_size + 2 * mlp + 3 * getattr(config, "num_attention_heads", 0) * length
        taken = length * config.num_hidden_layers * row * self.anatomy.parameter().element_size()
        return run.batch_size or min(len(inputs), max(1, budget // taken))

    def embed(self, ids: Int[Tensor, "n pos"]) -> Embeddings:
        """Word embeddings alone: positions and token types are added by the model."""
        with torch.no_grad():
            found: Tensor = self.model.get_input_embeddings()(ids.to(self.anatomy.device))
            return found

    def logits(self, embeddings: Embeddings, lengths: Int[Tensor, " n"]) -> Float[Tensor, "n class"]:
        found = self._run(embeddings.to(self.anatomy.dtype), lengths)
        order = torch.cat([rows for rows, _ in found]).argsort()
        return torch.cat([out.logits for _, out in found])[order]

    def patterns(self, inputs: Inputs) -> list[Float[Tensor, "n query key"]]:
        """Raises `InputError` for a model that does not give its attention, one square a head."""
        embeddings, (n, width) = self.embed(inputs.ids), inputs.ids.shape
        with torch.no_grad(), running.alone(self.model), _attention_told(self.model):
            found = self._run(embeddings, inputs.lengths, output_attentions=True)
        layers = [embeddings.new_zeros(n, width, width) for _ in found[0][1].attentions or ()]
        for rows, out in found:
            length = int(inputs.lengths[rows].max())
            if not layers or any(p is None or p.shape[::2] != (len(rows), length) for p in out.attentions):
                raise InputError(
                    f"model={type(self.model).__name__} does not give its attention patterns token by token"
                )
            for layer, pattern in zip(layers, out.attentions, strict=True):
                layer[rows, :length, :length] = pattern.mean(1)
        return layers

    def _run(
        self, embeddings: Embeddings, lengths: Int[Tensor, " n"], **more: Any
    ) -> list[tuple[Int[Tensor, " row"], Any]]:
        """What the model gives, and for which rows: all at once, or length by length where padding leaks."""
        rows = torch.arange(len(lengths), device=embeddings.device)
        groups = [(rows, embeddings, lengths)]
        if self.leaks:
            own = lengths.to(embeddings.device)
            groups = [(rows[own == n], embeddings[own == n, :n], own[own == n]) for n in own.unique().tolist()]
        takes_mask = "attention_mask" in inspect.signature(self.model.forward).parameters
        found = []
        with running.alone(self.model), running.evaluated(self.model):
            for which, part, real in groups:
                mask = {"attention_mask": _mask(part, real)} if takes_mask else {}
                with as_new(self.model):
                    found.append((which, self.model(inputs_embeds=part, **mask, **more, return_dict=True)))
        return found

    def read_positions(self, lengths: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The first token's: what classification heads pool."""
        return torch.zeros_like(lengths)

    def under(self, rules: str | RuleSet) -> tuple[ClassifierExplained, RuleSet]:
        return self, rule_set(rules)

    def proposer(self, given: Any) -> Proposer:
        """A classifier writes no text: the proposer has to be given."""
        if given is None:
            raise InputError(
                "method='reagent' on a classifier needs proposer=, a masked language model of the same vocabulary or a "
                "function (ids, places, generator) -> ids"
            )
        return as_proposer(given, self)

    @torch.no_grad()
    def _checked(self) -> ClassifierExplained:
        """The same, told whether padding leaks; `InputError` unless word embeddings lead to the logits of their ids."""
        name, device = type(self.model).__name__, self.anatomy.device
        ids = [i for i in range(self.anatomy.d_vocab) if i != self.model.config.pad_token_id]
        row = torch.tensor([ids[:: max(1, len(ids) // 7)][: min(7, self.anatomy.max_positions or 7)]], device="cpu")
        lengths = torch.tensor([row.shape[1], max(1, row.shape[1] // 2)], device="cpu")
        try:
            alone = replace(self, leaks=True).logits(self.embed(row.expand(2, -1)), lengths)
            padded = self.logits(self.embed(row.expand(2, -1)), lengths)
            with running.alone(self.model), running.evaluated(self.model), as_new(self.model):
                theirs = self.model(input_ids=row.to(device), return_dict=True).logits
        except (RuntimeError, ValueError, TypeError, LookupError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"model={name} cannot be run on {row.shape[1]} tokens: {reason}") from error
        half = self.anatomy.dtype in (torch.float16, torch.bfloat16)
        if not torch.allclose(alone[:1], theirs, rtol=1e-4, atol=5e-2 if half else 1e-4):
            raise InputError(
                f"model={name} is not understood: from word embeddings it gives other logits than from the ids "
                "themselves, so that attributions would be wrong"
            )
        rounding = (2e-2 if half else 1e-5) * alone.abs().max()
        apart = _has_tables_for_every_length(self.model)
        return replace(self, leaks=apart or not bool((padded - alone).abs().max() <= rounding))


@contextlib.contextmanager
def _attention_told(model: Any) -> Iterator[None]:
    """With the attention that returns its patterns; then with what it had.

    At the first such run transformers puts hooks, and a mark that it has done so, on a model for good. Both are taken
    off.
    """
    before = compat.attention_of(model.config)
    parts = [(part, set(part.__dict__), set(compat.hooks_of(part))) for part in model.modules()]
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(before)
        for part, attributes, hooks in parts:
            for name in set(part.__dict__) - attributes:
                delattr(part, name)
            for key in set(compat.hooks_of(part)) - hooks:
                del compat.hooks_of(part)[key]


def _mask(embeddings: Embeddings, lengths: Int[Tensor, " n"]) -> Int[Tensor, "n pos"]:
    places = torch.arange(embeddings.shape[1], device=embeddings.device)
    return (places < lengths.to(embeddings.device)[:, None]).long()


def _max_positions(model: Any) -> int | None:
    """How many tokens the learned positions are enough for; RoBERTa's begin behind that of padding."""
    for name, part in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            return part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1)
    if _has_tables_for_every_length(model):
        return None
    return getattr(model.config, "max_position_embeddings", None)


def _has_tables_for_every_length(model: Any) -> bool:
    """Whether rotary tables follow the length of the input (dynamic NTK, LongRoPE)."""
    return any(depends_on_length(part) for part in model.modules())
