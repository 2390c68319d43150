"""Tokenising tasks: BOS once, answers of one token, equal lengths, and a sentence for everything else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from interp.errors import InputError
from interp.tasks import Task
from interp.tasks.encoding import Encoder
from tests.interp.tasks.test_tasks_support import BOS, UNK, every_word, model_of, tokenizer

PAIRS = [("the keys", "the key", " are", " is"), ("a cat ran", "a dog ran", " he", " she")]


def words() -> Any:
    return every_word("the keys key a cat dog ran are is he she Mary")


def ids(tokens: Any, *pieces: str) -> list[int]:
    return [tokens.convert_tokens_to_ids(piece) for piece in pieces]


def test_strings_become_ids_with_bos() -> None:
    tokens = words()
    prompts = Task.from_pairs("t", PAIRS).prompts(model_of(tokens))
    assert prompts.clean[0].tolist() == [*ids(tokens, BOS, "the", " keys"), 0]
    assert prompts.clean[1].tolist() == ids(tokens, BOS, "a", " cat", " ran")
    assert prompts.corrupted[0, :3].tolist() == ids(tokens, BOS, "the", " key")
    assert prompts.lengths.tolist() == [3, 4]
    assert prompts.correct.tolist() == [ids(tokens, " are"), ids(tokens, " he")]
    assert prompts.first_difference.tolist() == [2, 2]


def test_bos_is_added_once_or_not_at_all() -> None:
    tokens = words()
    plain = [3, 4]

    def lengths(prepend_bos: bool | None, model: Any) -> list[int]:
        return Task.from_pairs("t", PAIRS, prepend_bos=prepend_bos).prompts(model).lengths.tolist()

    assert lengths(None, model_of(tokens)) == plain
    assert lengths(None, model_of(tokens, prepend=False)) == [2, 3]
    assert lengths(True, model_of(tokens, prepend=False)) == plain
    assert lengths(False, model_of(tokens)) == [2, 3]
    # a prompt that already starts with BOS
    written = Task.from_pairs("t", [(f"{BOS}{clean}", f"{BOS}{other}", *rest) for clean, other, *rest in PAIRS])
    assert written.prompts(model_of(tokens)).lengths.tolist() == plain
    # a tokenizer that adds BOS itself
    tokens.backend_tokenizer.post_processor = processors.TemplateProcessing(f"{BOS} $A", None, [(BOS, 1)])
    assert tokens("the").input_ids[0] == 1
    assert lengths(None, model_of(tokens)) == plain
    # a BOS that was added to the tokenizer, and that the model has no row for
    assert lengths(None, model_of(every_word("the keys key a cat dog ran are is he she", bos_token="<new>"))) == plain
    late = every_word("the keys key a cat dog ran are is he she", bos_token="<new>")
    assert lengths(None, model_of(late, d_vocab=len(late) - 1)) == [2, 3]


def test_bos_asked_for_but_missing() -> None:
    tokens = PreTrainedTokenizerFast(tokenizer_object=words().backend_tokenizer, unk_token=UNK)
    assert Task.from_pairs("t", PAIRS).prompts(model_of(tokens)).lengths.tolist() == [2, 3]
    with pytest.raises(InputError, match="prepend_bos=True, but the tokenizer has no BOS token"):
        Task.from_pairs("t", PAIRS, prepend_bos=True).prompts(model_of(tokens))


def refuse(pair: tuple[Any, ...], message: str, tokens: Any = None) -> None:
    with pytest.raises(InputError, match=message):
        Task.from_pairs("t", [*PAIRS, pair]).prompts(model_of(tokens or words()))


def test_lengths_may_differ() -> None:
    prompts = Task.from_pairs("t", [("the cat ran", "the cat", " is", " are")]).prompts(model_of(words()))
    assert prompts.corrupted_lengths is not None
    assert (prompts.lengths.tolist(), prompts.corrupted_lengths.tolist()) == ([4], [3])
    assert prompts.first_difference.tolist() == [1]


def test_answers_must_be_known() -> None:
    refuse(("the cat", "the dog", " is platypus", " are"), "correct answer ' is platypus' of prompt 2 is not in")
    refuse(("the cat", "the dog", " is", " platypus"), "incorrect answer ' platypus' of prompt 2 is not in the tok")
    # unless the unknown token itself is meant
    meant = Task.from_pairs("t", [("the cat", "the dog", UNK, " is")])
    assert meant.prompts(model_of(words())).correct.tolist() == [[0]]


def test_the_error_tells_which_form_is_a_token() -> None:
    def refuse(text: str, message: str, tokens: Any) -> None:
        with pytest.raises(InputError, match=message):
            Encoder(model_of(tokens)).single(text, 0, "target")

    refuse(" is a", r"target ' is a' of prompt 0 is 2 tokens .* choose another, or use its first token, ' is'", words())
    # digits do not take the space before them
    advice = "it must be one token: '7' is one, if the space goes to the end of the prompts"
    refuse(" 7", rf"is 2 tokens \(' ', '7'\); {advice}", words())
    # words without a space before them are spelled
    known = [" keys", " key", " cat", " dog", " are", " is", " he", " she", " ran", *"aeihst"]
    spelling = tokenizer(*known, letters=" [A-Za-z]+|[A-Za-z]")
    advice = "it must be one token: ' is' is one"
    refuse("is", rf"is 2 tokens \('i', 's'\); {advice}", spelling)


def test_answers_are_taken_literally() -> None:
    tokens = words()
    encoder = Encoder(model_of(tokens))
    assert encoder.pieces("Mary") == ids(tokens, "Mary")
    assert encoder.pieces(" Mary") == ids(tokens, " Mary")
    assert ids(tokens, "Mary") != ids(tokens, " Mary")


def test_tokenizers_that_put_a_space_first() -> None:
    """Of the SentencePiece kind: alone, "Mary" would be read as " Mary"."""
    vocabulary = {piece: number for number, piece in enumerate([UNK, BOS, "\n", "▁", "▁the", "▁Mary", "Mary", "▁\n"])}
    inner = Tokenizer(models.BPE(vocabulary, [], unk_token=UNK, ignore_merges=True))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Split("\n", "isolated")])
    inner.decoder = decoders.Metaspace()
    tokens = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token=UNK, bos_token=BOS)
    assert tokens("Mary", add_special_tokens=False).input_ids == [vocabulary["▁Mary"]]
    encoder = Encoder(model_of(tokens))
    assert encoder.pieces("Mary") == [vocabulary["Mary"]]
    assert encoder.pieces(" Mary") == [vocabulary["▁Mary"]]


def test_token_tasks_need_no_tokenizer_but_the_vocabulary() -> None:
    task = Task.from_tokens("t", [[1, 2]], [[1, 3]], [[4]], [[9]])
    assert task.prompts(model_of(None, d_vocab=10)).clean.tolist() == [[1, 2]]
    assert task.prompts(model_of(words())).clean.tolist() == [[1, 2]]
    with pytest.raises(InputError, match=r"incorrect of prompt 0 holds the token id 9, but .* vocabulary has 9"):
        task.prompts(model_of(None, d_vocab=9))
    with pytest.raises(InputError, match="the model has no tokenizer, and the prompts are strings"):
        Task.from_pairs("t", PAIRS).prompts(model_of(None, d_vocab=10))


def test_the_same_tokens_are_refused() -> None:
    refuse(("the zebra", "the gnu", " is", " are"), "prompt 2: the tokenizer makes the same tokens of 'the zebra'")


def test_tokenised_once_per_tokenizer() -> None:
    tokens, calls = words(), []

    def counting(*args: Any, **settings: Any) -> Any:
        calls.append(args)
        return tokens(*args, **settings)

    counting.bos_token_id, counting.unk_token_id, counting.unk_token = 1, 0, UNK  # type: ignore[attr-defined]
    model = SimpleNamespace(tokenizer=counting, cfg=SimpleNamespace(d_vocab=len(tokens), default_prepend_bos=True))
    task = Task.from_pairs("t", PAIRS)
    first = task.prompts(model)
    done = len(calls)
    again = task.prompts(model)
    assert len(calls) == done
    before = again.clean.tolist()
    again.clean[:, 1] = 0  # the caller's own: it must not change the task
    assert task.prompts(model).clean.tolist() == before == first.clean.tolist()
