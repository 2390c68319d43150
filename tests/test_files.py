from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from interp.files import atomic_path, write_text


def test_writes_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    assert write_text(target, "old") == target
    with atomic_path(str(target)) as temporary:
        assert temporary.parent == tmp_path
        assert temporary != target
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_text_is_utf8(tmp_path: Path) -> None:
    assert write_text(tmp_path / "a", "Δ → ü").read_bytes() == "Δ → ü".encode()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("existed", [False, True])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, error: BaseException | type[BaseException], existed: bool
) -> None:
    target = tmp_path / "circuit.json"
    if existed:
        target.write_text("old")

    def save() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error) if isinstance(error, BaseException) else error):
        save()
    assert [path.read_text() for path in tmp_path.iterdir()] == (["old"] if existed else [])


def test_a_body_may_replace_the_temporary_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as temporary:
        other = tmp_path / "made-elsewhere"
        other.write_text("whole")
        other.replace(temporary)
    assert (tmp_path / "a").read_text() == "whole"


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"nowhere.* does not exist"),
        atomic_path(tmp_path / "nowhere" / "circuit.json"),
    ):
        pass


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "text")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask
