"""What a release says of itself: one version, addresses, and files that machines read."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import interp
from tests.dependencies import lowest

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_version_stands_in_one_place_and_the_others_follow() -> None:
    assert "version" not in PROJECT
    assert read("CITATION.cff")["version"] == interp.__version__
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading is not None
    assert heading[1] == interp.__version__


def test_the_citation_has_what_the_format_asks_for_and_the_addresses_agree() -> None:
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license", "type"} <= citation.keys()
    assert citation["license"] == PROJECT["license"]
    assert citation["keywords"] == PROJECT["keywords"]
    urls = PROJECT["urls"]
    assert urls.keys() == {"Repository", "Documentation", "Changelog", "Issues"}
    assert urls["Repository"] == citation["repository-code"]
    for address in urls.values():
        assert address.startswith(urls["Repository"])
    for name in ("Documentation", "Changelog"):
        assert (ROOT / re.sub(r".*/(tree|blob)/main/", "", urls[name])).exists()


def test_hosted_machines_try_every_python_that_is_declared_and_targets_that_exist() -> None:
    jobs = read(".github/workflows/ci.yml")["jobs"]
    declared = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    assert jobs["test"]["strategy"]["matrix"]["python"] == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    called = {name for step in steps for name in re.findall(r"^make (\w+)", step, re.MULTILINE)}
    assert {"lint", "docs", "test"} <= called
    assert called | set(jobs["nightly"]["strategy"]["matrix"]["target"]) <= targets


def test_every_dependency_has_a_lower_bound_that_is_tried() -> None:
    listed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    assert len(lowest()) == len(listed)
    assert {"hypothesis", "beartype"} <= {line.split("==")[0] for line in lowest()}


def test_hooks_of_commits_are_pinned_to_releases() -> None:
    for repository in read(".pre-commit-config.yaml")["repos"]:
        assert re.fullmatch(r"v\d+\.\d+\.\d+", repository["rev"])


@pytest.mark.slow
def test_a_wheel_holds_the_data_and_no_tests(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(pip, check=True, capture_output=True)
    (wheel,) = tmp_path.glob(f"faithful_circuits-{interp.__version__}-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    packages = ("interp", "attribution", "metrics", "circuits")
    here = {
        str(path.relative_to(ROOT))
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here <= held
    assert {name.split("/")[0] for name in held - here} == {f"faithful_circuits-{interp.__version__}.dist-info"}
