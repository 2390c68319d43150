"""What is made of token scores: a sentence, a data frame, a heat map and bars; nothing of a prompt becomes code."""

from __future__ import annotations

import errno
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution import TokenAttributions, tokens
from interp.errors import InputError
from interp.models import load_model
from tests.oracle import model_of
from tests.tiny import tiny_module, word_tokenizer

EVIL = "<script>alert(1)</script>"
ODD = ['"quoted"', "'single'", "a & b", "<b>bold</b>", "&lt;", EVIL]


def result(words: list[list[str]] | None = None, values: list[list[float]] | None = None, **more: Any) -> Any:
    """Two inputs of three and two tokens, or what is given."""
    words = [["The", " cat", " sat"], [" on", "\n"]] if words is None else words
    values = [[1.0, -2.0, 0.5], [0.25, 0.0]] if values is None else values
    width = max(map(len, words))
    padded = torch.tensor([[*row, *[0.0] * (width - len(row))] for row in values], dtype=torch.float64)
    mask = torch.tensor([[i < len(row) for i in range(width)] for row in words])
    settings: dict[str, Any] = {
        "target_tokens": [" down"] * len(words), "method": "attnlrp", "model": "tiny", "seconds": 1.25,
        "logits": torch.tensor([-1.0, 0.5, 1.0][: len(words)], dtype=torch.float64), **more,
    }  # fmt: skip
    ids = 10 + torch.arange(mask.numel()).view_as(mask) * mask
    return TokenAttributions(padded, mask, ids, words, torch.tensor([[7, -1]] * len(words)), **settings)


class Page(HTMLParser):
    """What a browser would see: tags, texts of the coloured words, and their styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.hovers: list[str] = []
        self.titles: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag
        if tag == "span":
            given = dict(attrs)
            assert set(given) == {"style", "title"}
            self.words.append("")
            self.styles.append(given["style"] or "")
            self.hovers.append(given["title"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside == "span":
            self.words[-1] += data
        if self._inside == "title":
            self.titles.append(data)


def as_plotly_shows(label: str) -> str:
    """Plotly reads its labels as a little HTML, and knows these entities, numbers, and no more."""
    assert "<" not in label  # would be a tag
    known = re.sub(r"&(?!(amp|lt|gt|#\d+|#x[0-9a-fA-F]+);)", "&amp;", label)
    return html.unescape(known)


# ---- what it says


def test_the_sentence_counts_what_is_there() -> None:
    text = repr(result())
    for part in ("TokenAttributions: attnlrp: 2", "2 inputs", "5 tokens", "tiny", "1.25 s"):
        assert part in text
    assert "of the explained" not in text
    assert "converge" not in text


def test_conservation_is_the_sum_over_what_it_should_be() -> None:
    assert result().conservation is None
    conserving = result(conserves=True)
    assert conserving.conservation.tolist() == pytest.approx([0.5, 0.5])  # -0.5 of -1, and 0.25 of 0.5
    assert "0.500, 0.500" in repr(conserving)
    from_a_baseline = result(baseline_logits=torch.tensor([0.0, 0.25], dtype=torch.float64))
    assert from_a_baseline.conservation.tolist() == pytest.approx([0.5, 1.0])
    assert "0.500, 1.000" in repr(from_a_baseline)


def test_runs_that_did_not_converge_are_said() -> None:
    assert "1 did not converge" in repr(result(converged=torch.tensor([True, False])))
    assert "converge" not in repr(result(converged=torch.tensor([True, True])))


def test_what_tokens_gives_keeps_to_it() -> None:
    rows = [[3, 9, 27, 14], [30, 2]]
    found = tokens(model_of("llama"), rows, [7, 8], "cp-lrp", quiet=True)
    assert found.conservation is not None
    assert found.conservation.tolist() == pytest.approx([1.0, 1.0])
    assert "1.000, 1.000" in repr(found)
    assert "2 inputs, 6 tokens" in repr(found)
    for method in ("random", "occlusion", "attention-rollout"):
        assert tokens(model_of("llama"), rows, 7, method, quiet=True).conservation is None
    against = tokens(model_of("llama"), rows, (7, 8), "integrated-gradients", quiet=True, steps=3)
    assert against.target_tokens == ["7 - 8"] * 2
    assert against.conservation is not None
    assert against.settings == {"baseline": "zero", "steps": 3}
    assert against.seconds > 0
    assert repr(against).count("llama") + repr(against).count("Llama") == 1


# ---- data frame


def test_the_frame_has_one_row_a_token() -> None:
    frame = result().to_frame()
    assert list(frame.columns) == ["input", "position", "token", "id", "score", "target"]
    assert frame["input"].tolist() == [0, 0, 0, 1, 1]
    assert frame["position"].tolist() == [0, 1, 2, 0, 1]
    assert frame["token"].tolist() == ["The", " cat", " sat", " on", "\n"]  # as they are
    assert frame["id"].tolist() == [10, 11, 12, 13, 14]
    assert frame["score"].tolist() == [1.0, -2.0, 0.5, 0.25, 0.0]
    assert set(frame["target"]) == {" down"}


# ---- heat map


def test_a_heat_map_shows_every_token_in_its_colour() -> None:
    page = Page(result()._repr_html_())
    assert page.words == ["The", " cat", " sat", " on", "⏎"]
    assert [float(hover) for hover in page.hovers] == pytest.approx([1.0, -2.0, 0.5, 0.25, 0.0])
    colours = [re.search(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\)", style) for style in page.styles]
    red, green, blue, strength = zip(*[[float(x) for x in found.groups()] for found in colours if found], strict=True)
    assert [b > r for r, b in zip(red, blue, strict=True)][:4] == [True, False, True, True]
    assert green[0] == green[2] == green[3]
    # scaled to the largest of its own input
    assert strength[1] == strength[3] == max(strength)
    assert strength[0] == pytest.approx(strength[1] / 2, abs=1e-3)
    assert strength[2] == pytest.approx(strength[1] / 4, abs=1e-3)
    assert strength[4] == 0
    assert page.text.count("attnlrp") == 2
    assert page.text.count("down") == 2
    assert "-1.000" in page.text


def test_long_prompts_go_on_in_the_next_line_and_keep_their_spaces() -> None:
    for style in Page(result()._repr_html_()).styles:
        assert re.search(r"white-space: ?(pre-wrap|break-spaces)", style)


def test_line_breaks_tabs_and_nothing_at_all_are_visible() -> None:
    words = ["\n", "\t", "", "a\n\n\tb", "\r\n", "\r"]
    page = Page(result([words], [[1.0] * 6])._repr_html_())
    assert page.words[:4] == ["⏎", "⇥", "∅", "a⏎⏎⇥b"]
    assert all(word.strip() and not set(word) & set("\n\r\t") for word in page.words)
    labels = result([words], [[1.0] * 6]).figure().layout.xaxis.ticktext
    assert [as_plotly_shows(label) for label in labels] == page.words
    page = Page(result(target_tokens=["\n", ""])._repr_html_())
    assert "⏎" in page.text
    assert "∅" in page.text


def test_values_of_zero_have_no_colour_and_do_not_divide() -> None:
    page = Page(result([["a", "b"]], [[0.0, 0.0]])._repr_html_())
    assert all(re.search(r",0\.000\)", style) for style in page.styles)


@pytest.mark.parametrize("odd", ODD)
def test_a_page_never_runs_what_a_prompt_holds(odd: str, tmp_path: Path) -> None:
    found = result([["a", odd]], [[1.0, -1.0]], target_tokens=[f"{odd} - {odd}"], model=odd, method=odd)
    path = found.to_html(tmp_path / "map.html")
    for text in (found._repr_html_(), path.read_text(encoding="utf-8")):
        page = Page(text)
        assert "script" not in page.tags
        assert page.tags.count("b") == 1  # our own, around the method
        assert page.words == ["a", odd]
        assert f"{odd} - {odd}" in page.text
    assert "".join(page.titles) == f"{odd}: {odd}"


def test_a_page_of_its_own(tmp_path: Path) -> None:
    found = result()
    path = found.to_html(str(tmp_path / "map.html"))
    assert path == tmp_path / "map.html"
    text = path.read_bytes().decode("utf-8")
    assert text.startswith("<!doctype html>")
    assert '<meta charset="utf-8">' in text
    assert found._repr_html_() in text
    assert "://" not in text  # nothing is fetched
    assert list(tmp_path.iterdir()) == [path]


def test_a_tokenizers_own_words_are_shown() -> None:
    model = load_model(tiny_module("gpt2", torch.float32), tokenizer=word_tokenizer())
    found = tokens(model, [[2, 4, 3, 6]], ("<bos>", "<eos>"), "random", quiet=True)
    page = Page(found._repr_html_())
    assert page.words == ["<bos>", "a", "<b:s>", "c"]
    assert "<bos> - <eos>" in page.text
    assert [as_plotly_shows(label) for label in found.figure().layout.xaxis.ticktext] == page.words


def test_a_full_disk_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = result().to_html(tmp_path / "map.html")
    before = path.read_bytes()

    def full(self: Path, *given: Any, **more: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        result([["other"]], [[1.0]]).to_html(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_bad_paths_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.* does not exist"):
        result().to_html(tmp_path / "nowhere" / "map.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        result().to_html(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# ---- bars


def test_bars_are_the_values_of_each_input() -> None:
    figure = result().figure()
    assert len(figure.data) == 2
    assert list(figure.data[0].y) == [1.0, -2.0, 0.5]
    assert list(figure.data[1].y) == [0.25, 0.0]
    assert list(figure.layout.xaxis.ticktext) == ["The", "·cat", "·sat"]
    assert list(figure.layout.xaxis2.ticktext) == ["·on", "⏎"]
    first = figure.data[0].marker.color
    assert first[0] == first[2] != first[1]
    titles = [note.text for note in figure.layout.annotations]
    assert len(titles) == 2
    assert "down" in titles[0]
    assert "-1.000" in titles[0]
    assert "attnlrp" in figure.layout.title.text


@pytest.mark.parametrize("odd", ODD)
def test_bars_show_what_a_prompt_holds_as_it_is(odd: str) -> None:
    found = result([["a", odd]], [[1.0, -1.0]], target_tokens=[f"{odd} - x"], method=odd)
    figure = found.figure()
    assert [as_plotly_shows(label) for label in figure.layout.xaxis.ticktext] == ["a", odd]
    assert [as_plotly_shows(text) for text in figure.data[0].hovertext] == ["a", odd]
    assert f"{odd} - x" in as_plotly_shows(figure.layout.annotations[0].text)
    assert odd in as_plotly_shows(figure.layout.title.text.replace("<br>", " "))
    assert EVIL not in figure.to_html(include_plotlyjs=False)
