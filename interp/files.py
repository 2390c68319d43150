"""Writing files so that a kill or a full disk leaves the old file whole; locks between processes.

Every file of the project is written through here. Links are followed: the file they lead to is replaced, the link
stays. What is no regular file (a pipe, a device, an open file such as /dev/stdout) is written straight, never replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from interp import ranks
from interp.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, else removed.

    The body writes the temporary file (any library may); an exception or a kill leaves what `path` held before. An
    existing file keeps its permissions; hard links to it keep the old content. For what is no regular file the
    temporary path lies elsewhere, and its bytes are written to `path` in the end. Of several ranks (`interp.ranks`) the
    first writes; on the others the temporary path leads nowhere.

    Raises `InputError` where no file can be written (see `check_writable`), and for a pipe that nobody reads; `OSError`
    that names `path` when the disk is full.
    """
    final = check_writable(path)
    if not ranks.first():
        with tempfile.TemporaryDirectory(prefix="rank-") as folder:
            yield Path(folder, "unused")
        return
    try:
        with _replaced(final) if is_regular(final) else _written_straight(final) as temporary:
            yield temporary
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to `path` through `atomic_path`; returns the path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    r"""Write `text` to `path` as UTF-8 through `atomic_path`; returns the path.

    Half a surrogate pair, as names of files that are not UTF-8 hold it, is written as `\udcff`, which JSON reads back.
    """
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def check_writable(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """The file that is written when `path` is: links are followed. Nothing is written yet.

    Raises `InputError` for a folder, a folder that is missing or cannot be written, and a read-only file.
    """
    named = f"{argument}={str(path)!r}" if isinstance(path, os.PathLike) else f"{argument}={path!r}"
    try:
        final = Path(os.path.realpath(path)) if is_regular(path) else Path(path)
        problem = _problem(final)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{named} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    if problem:
        raise InputError(f"{named} {problem}")
    return final


def _problem(final: Path) -> str | None:
    """Why `final` cannot be written, or None."""
    folder = final.parent
    if not is_regular(final):
        return None if os.access(final, os.W_OK) else "cannot be written: it is read-only; name another"
    if final.is_dir():
        return "is a folder; give the name of a file in it"
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist; make it first"
        return f"cannot be written: the folder {str(folder)!r} {what}"
    if os.path.lexists(final):  # it raises where a name is too long
        if not final.exists():
            return "is a link that leads back to itself; give the name of a file"
        if not os.access(final, os.W_OK):
            return "cannot be written: the file is read-only; name another, or change its mode"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot be written: the folder {str(folder)!r} is read-only; name another"
    return None


def as_path(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """`path` as a `Path`. Raises `InputError` for what names no file."""
    try:
        return Path(path)
    except TypeError:
        raise InputError(f"{argument}={path!r} is no path; give the name of a file") from None


def existing(path: str | os.PathLike[str], what: str) -> tuple[Path, str]:
    """A file that is to be read, and what errors call it. Raises `InputError` where there is no such file."""
    found = as_path(path)
    where = f"{what} {os.fspath(path)!r}"
    if not found.is_file():
        raise InputError(f"{where} does not exist")
    return found, where


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether `path` can be replaced: a regular file, or nothing yet; no pipe, no device, no open file's name."""
    if _descriptor(Path(path)) is not None:
        return False
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def make_folder(path: str | os.PathLike[str], argument: str = "folder") -> Path:
    """Make a folder and those above it, where they are missing. Raises `InputError` where that cannot be done."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{argument}={os.fspath(path)!r} cannot be made: {error.strerror} ({error.filename}); name another folder"
        ) from None
    return Path(path)


def expanded(path: str | os.PathLike[str]) -> Path:
    """`path` with `~` as the home folder. Raises `InputError` where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"{os.fspath(path)!r} cannot be found: no home folder is known here (HOME is not set, and the system does "
            "not know the user); give the whole path, or set HOME"
        ) from None


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file or folder against other threads and processes.

    A process that dies lets go of it. Raises `BlockingIOError` when another holds it and this is not to `wait`. Where
    there are no locks (Windows, some network drives) nothing is held, and False yielded.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            held = False
        yield held
    finally:
        os.close(handle)


@contextlib.contextmanager
def _replaced(final: Path) -> Iterator[Path]:
    old = final.stat() if final.exists() else None
    # the name is cut: with what is added it must not be longer than the file system allows
    temporary = final.with_name(f".{final.name[:40]}.{secrets.token_hex(4)}.tmp")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if old else 0o666))
    mode = stat.S_IMODE((old or temporary.stat()).st_mode)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        if old and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            with contextlib.suppress(OSError):  # only root may give files away
                os.chown(temporary, old.st_uid, old.st_gid)
        temporary.chmod(mode)
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _written_straight(final: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="straight-") as folder:
        temporary = Path(folder, final.name)
        temporary.touch()
        yield temporary
        number = _descriptor(final)
        if number is not None:
            for stream in (sys.stdout, sys.stderr):  # what was printed before comes first
                if stream is not None:
                    stream.flush()
        # an open file goes on where it stands, as opening it anew would not
        with temporary.open("rb") as whole, open(_opened(final) if number is None else os.dup(number), "wb") as sink:
            shutil.copyfileobj(whole, sink)


def _opened(final: Path) -> int:
    """A pipe or device, opened for writing. Raises `InputError` for a pipe without a reader, which would block."""
    try:
        handle = os.open(final, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise InputError(f"path={str(final)!r} is a pipe that nobody reads; start its reader first") from None
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(handle, True)
    return handle


def _descriptor(path: Path) -> int | None:
    """The number of the open file that /dev/stdout, /dev/fd/5 or a link to such a name stands for."""
    for _ in range(40):  # as many links as Linux follows
        folder = os.path.realpath(path.parent)
        if folder in ("/dev/fd", f"/proc/{os.getpid()}/fd") and path.name.isdigit():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = Path(folder, os.readlink(path))
    return None
