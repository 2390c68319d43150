from __future__ import annotations

import errno
import os
import signal
import stat
from pathlib import Path

import pytest

from interp.errors import InputError
from interp.files import atomic_path, check_writable, expanded, locked, make_folder, write_bytes, write_text
from tests.processes import ended, fork


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
        pytest.raises(InputError, match=r"nowhere.* does not exist"),
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


def test_a_link_stays_and_the_file_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    target, link, second = tmp_path / "data" / "real.json", tmp_path / "link.json", tmp_path / "second.json"
    target.write_text("old")
    link.symlink_to("data/real.json")
    second.symlink_to(link)
    assert write_text(second, "new") == second
    assert target.read_text() == "new"
    assert link.is_symlink()
    assert second.is_symlink()
    assert list((tmp_path / "data").iterdir()) == [target], "the temporary file lies beside the target"
    target.unlink()
    write_text(link, "made")  # a link to what is not there yet
    assert target.read_text() == "made"


def test_a_pipe_is_written_straight(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # without a reader a writer waits
        write_text(path, "through")
        assert os.read(reader, 100) == b"through"
        os.close(reader)
        assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [link, pipe]


def test_a_device_is_written_straight(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    write_text(link, "nothing")
    assert link.is_symlink()
    write_text(os.devnull, "nothing")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"])
def test_standard_output_goes_on_where_it_stands(tmp_path: Path, name: str) -> None:
    # also where the shell has sent it to a file, which must be neither replaced nor written over
    def work() -> None:
        print("before")
        write_text(name, "written\n")
        print("after")

    with (tmp_path / "out").open("w") as out:
        assert ended(fork(work, stdout=out)) == 0
    assert (tmp_path / "out").read_text() == "before\nwritten\nafter\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_failure_writes_nothing_to_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    def fail() -> None:
        with atomic_path(tmp_path / "pipe") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.read(reader, 100) == b""
    os.close(reader)


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_file_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "scores.json"
    target.write_text("old")
    target.chmod(mode)
    write_text(target, "new")
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "loop").symlink_to("loop")
    cases: dict[object, str] = {
        tmp_path / "folder": "is a folder; give the name of a file in it",
        tmp_path / "file" / "x": "is no folder",
        tmp_path / "no" / "x": "does not exist; make it first",
        tmp_path / "loop": "leads back to itself",
        tmp_path / ("a" * 300): "File name too long",
        "a\0b": "null byte",
        "": "is a folder",
        5: "path=5 cannot be written",
    }
    before = sorted(tmp_path.iterdir())
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            write_text(path, "text")  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(InputError, match=r"resume='.*' is a folder"):
        check_writable(tmp_path, "resume")
    with pytest.raises(InputError, match=r"folder='.*file/x' cannot be made: .*; name another folder"):
        make_folder(tmp_path / "file" / "x")


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    assert write_bytes(tmp_path / ("ü" * 127), b"x").read_bytes() == b"x"


def test_read_only_files_and_folders_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")
    # root may write everywhere, so that permissions cannot be tried out
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(InputError, match=r"the folder .* is read-only; name another"):
        write_text(tmp_path / "new", "text")
    monkeypatch.setattr(os, "access", lambda path, mode: path == tmp_path)
    with pytest.raises(InputError, match="the file is read-only; name another, or change its mode"):
        write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*scores'"), atomic_path(tmp_path / "scores"):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["folder", "file"])
def test_a_lock_keeps_others_out_until_its_holder_dies(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    told, tells = os.pipe()

    def hold() -> None:
        with locked(tmp_path / name):
            os.write(tells, b"held")
            signal.pause()

    holder = fork(hold)
    os.close(tells)
    assert os.read(told, 4) == b"held"
    with pytest.raises(BlockingIOError), locked(tmp_path / name, wait=False):
        pass
    os.kill(holder, signal.SIGKILL)
    assert ended(holder) == -signal.SIGKILL
    with locked(tmp_path / name) as held, pytest.raises(BlockingIOError), locked(tmp_path / name, wait=False):
        assert held
    os.close(told)


def test_no_home_folder_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # nobody of that number
    assert expanded("/tmp/x") == Path("/tmp/x")
    with pytest.raises(InputError, match=r"'~/x' cannot be found: no home folder is known"):
        expanded("~/x")
