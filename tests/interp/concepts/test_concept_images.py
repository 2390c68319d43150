"""Images with concepts: folders with tables, digits, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from interp import InputError
from interp.concepts import ConceptImages, digit_network, load_concepts, load_digits
from interp.concepts.digits import CONCEPTS
from tests.planted_concepts import NAMES, images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small pictures, one of another size, and a table."""
    for at, (name, shape) in enumerate({"a.png": (4, 6), "b.png": (4, 6), "c.png": (8, 8)}.items()):
        pixels = np.arange(shape[0] * shape[1] * 3, dtype=np.uint8).reshape(*shape, 3) + at
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "t.csv").write_text("image,class,striped,red\na.png,2,1,no\nb.png,0,0,TRUE\n", encoding="utf-8")
    return tmp_path


def test_a_folder_and_a_table_become_images_with_concepts(folder: Path) -> None:
    found = load_concepts(folder, folder / "t.csv", mean=(0.5, 0.25, 0), std=(1, 2, 4))
    assert found.names == ("striped", "red")
    assert found.concepts.tolist() == [[True, False], [False, True]]
    assert found.classes is not None
    assert found.classes.tolist() == [2, 0]
    assert found.images.shape == (2, 3, 4, 6)
    pixel = np.asarray(Image.open(folder / "b.png"))[1, 2] / 255  # row 1, column 2
    by_hand = [(pixel[0] - 0.5) / 1, (pixel[1] - 0.25) / 2, pixel[2] / 4]
    assert found.images[1, :, 1, 2].tolist() == pytest.approx(by_hand, abs=1e-6)
    assert repr(found) == "ConceptImages: 2 images of 3x4x6, 2 concepts"


def test_other_sizes_are_scaled_and_cut_and_grey_images_have_one_channel(folder: Path) -> None:
    (folder / "t.csv").write_text("image,red\nc.png,1\na.png,0\n", encoding="utf-8")
    found = load_concepts(folder, folder / "t.csv", size=4, mean=[0.0], std=[1.0])
    assert found.images.shape == (2, 1, 4, 4)
    assert found.classes is None
    grey = np.asarray(Image.open(folder / "a.png").convert("L"), dtype=np.float32)[:, 1:5] / 255  # its centre
    np.testing.assert_allclose(found.images[1, 0].numpy(), grey, atol=1e-6)


@pytest.mark.parametrize(
    ("table", "settings", "words"),
    [
        ("image,red\na.png,1\nd.png,0\n", {}, "image 'd.png' is not in the folder"),
        ("image,red\na.png,1\nt.csv,0\n", {}, "image 't.csv' cannot be read"),
        ("image,red\na.png,1\nc.png,0\n", {}, r"different sizes \(4x6 and 8x8, c.png\); give size=224"),
        ("image,red\na.png,1\na.png,0\n", {}, "names 'a.png' twice"),
        ("image,red\na.png,0.5\n", {}, "concept 'red' of 'a.png' is '0.5'; write 0 or 1"),
        ("image,red\na.png,\n", {}, "concept 'red' of 'a.png' is ''; write 0 or 1"),
        ("image,red,class\na.png,1,cat\n", {}, "class of 'a.png' is 'cat'"),
        ("file,red\na.png,1\n", {}, "has no column 'image' with names of files; it has file, red"),
        ("image,class\na.png,1\n", {}, "has no column for a concept"),
        ("image,red\n", {}, "names no image"),
        ("", {}, "is no CSV: No columns"),
        ("image,red\na.png,1\n", {"mean": [0, 0]}, r"mean=\[0.0, 0.0\] and std=.* must be 3 numbers each"),
        ("image,red\na.png,1\n", {"std": [0, 1, 1]}, r"std\[0\]=0 must be"),
        ("image,red\na.png,1\n", {"size": 0}, "size=0 must be"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(folder: Path, table: str, settings: Any, words: str) -> None:
    (folder / "t.csv").write_text(table, encoding="utf-8")
    with pytest.raises(InputError, match=words) as caught:
        load_concepts(folder, folder / "t.csv", **settings)
    assert "\n" not in str(caught.value)


def test_folders_and_tables_that_are_missing_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"table '.*none.csv' does not exist"):
        load_concepts(folder, folder / "none.csv")
    with pytest.raises(InputError, match="is no folder; give the one that holds the images"):
        load_concepts(folder / "a.png", folder / "t.csv")
    with pytest.raises(InputError, match="folder=None is no path"):
        load_concepts(None, folder / "t.csv")  # type: ignore[arg-type]


def drawn(*rows: str) -> np.ndarray:
    """An image of 8 rows: `#` is ink."""
    return np.array([[float(place == "#") for place in row.ljust(8, ".")] for row in (*rows, *[""] * (8 - len(rows)))])


ZERO = drawn(".######", ".#....#", ".#....#", ".#....#", ".#....#", ".#....#", ".#....#", ".######")
EIGHT = drawn("..####", "..#..#", "..#..#", "..####", "..#..#", "..#..#", "..#..#", "..####")
SLOPE = drawn("#", ".#", "..#", "...#", "....#", ".....#", "......#", ".......#")


@pytest.mark.parametrize(
    ("image", "there", "lacking"),
    [
        (ZERO, ["a loop", "a bar at the top", "a bar at the bottom", "a stem at the left", "a stem at the right",
                "much ink"],
         ["two loops", "a loop above", "a loop below", "a bar in the middle", "a stem in the middle",
          "a stroke that rises", "ink in the centre"]),
        (EIGHT, ["a loop", "two loops", "a loop above", "a loop below", "a bar in the middle", "left like right"],
         ["a stroke that falls"]),
        (SLOPE, ["a stroke that falls", "the same upside down", "ink at the top left", "ink at the bottom right"],
         ["a loop", "a stroke that rises", "left like right", "top like bottom", "ink at the top right", "much ink"]),
        (SLOPE[:, ::-1], ["a stroke that rises", "ink at the top right", "ink at the bottom left"],
         ["a stroke that falls", "ink at the top left", "ink at the bottom right"]),
    ],
)  # fmt: skip
def test_concepts_of_drawn_digits(image: np.ndarray, there: list[str], lacking: list[str]) -> None:
    assert [name for name in there if not CONCEPTS[name](image)] == []
    assert [name for name in lacking if CONCEPTS[name](image)] == []


def test_digits_have_concepts_that_vary_and_fit_the_digits() -> None:
    data = load_digits()
    assert len(data) == 1797
    assert data.images.dtype == torch.float32
    share = data.concepts.double().mean(0)
    assert ((share > 0.05) & (share < 0.7)).all()
    assert data.classes is not None
    loops = data.concepts[:, 0].double()
    assert loops[data.classes == 0].mean() > 0.95 > 0.05 > loops[data.classes == 1].mean()
    few = data.select(slice(0, 400))
    network = digit_network(few, epochs=5)
    right = network(few.images).argmax(1) == few.classes
    assert right.double().mean() > 0.2  # of 10 classes, after a second
    one, again, other = (digit_network(few, epochs=1, seed=seed).classes.weight for seed in (0, 0, 1))
    assert torch.equal(one, again)  # type: ignore[arg-type]
    assert not torch.equal(one, other)  # type: ignore[arg-type]


def test_without_scikit_learn_the_digits_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match=r"pip install 'faithful-circuits\[concepts\]'"):
        load_digits()


def test_parts_are_disjoint_and_the_seed_decides() -> None:
    first, second = images().split(0.25, seed=4)
    assert (len(first), len(second)) == (30, 90)
    together = torch.cat((first.images, second.images)).flatten(1)
    assert len(together.unique(dim=0)) == 120
    assert torch.equal(images().split(0.25, seed=4)[0].images, first.images)
    few = images().only(["c3", "c0"])
    assert few.names == ("c3", "c0")
    assert torch.equal(few.concepts, images().concepts[:, [3, 0]])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"images": torch.zeros(2, 3, 4)}, r"images must be floats \[n, channel, height, width\]; got"),
        ({"images": [1]}, "images must be floats .* got a list"),
        ({"images": torch.full((2, 1, 2, 2), float("nan"))}, "NaN or infinite"),
        ({"concepts": torch.zeros(2, 2)}, r"concepts must be bool \[n, concept\]; got torch.float32"),
        ({"concepts": torch.ones(2, 3).bool()}, r"concepts must be \[2, 2\], for 2 images and 2 names"),
        ({"names": ("a", "a")}, r"names must be different words, one for each concept; got \['a', 'a'\]"),
        ({"classes": torch.zeros(3).long()}, "classes must be 2 integers"),
    ],
)
def test_images_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    fitting = {"images": torch.zeros(2, 1, 2, 2), "concepts": torch.ones(2, 2).bool(), "names": ("a", "b")}
    with pytest.raises(InputError, match=words):
        ConceptImages(**fitting | given)


def test_names_and_shares_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="names='c99' is unknown"):
        images().only(["c99"])
    with pytest.raises(InputError, match=r"share=0.001 leaves one part of 120 images empty"):
        images().split(0.001)
    with pytest.raises(InputError, match="images have no classes"):
        digit_network(ConceptImages(images().images, images().concepts, NAMES))
