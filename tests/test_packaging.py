"""The wheel, as its users get it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.programs import ROOT, environment

LIMIT = 300.0
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"] if importlib.util.find_spec("pip") else []
"""Empty where this environment was made by uv and has none."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is published, so that building leaves nothing behind here."""
    copy = tmp_path_factory.mktemp("source") / "project"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("eventkit", "adapters"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    if PIP:
        run(*PIP, "wheel", "--no-deps", "--wheel-dir", str(source / "dist"), str(source))
    else:
        run("uv", "build", "--quiet", "--wheel", "--out-dir", str(source / "dist"), str(source))
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment that has the wheel, without extras."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=LIMIT)
    found = folder / "bin" / "python"
    if PIP:
        run(*PIP, "--python", str(found), "install", str(wheel))
    else:
        run("uv", "pip", "install", "--quiet", "--python", str(found), str(wheel))
    return found


def run(*command: str, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=cwd, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wheel_alone_runs_in_memory_and_says_what_is_missing(python: Path, wheel: Path, tmp_path: Path) -> None:
    script = ROOT / "tests" / "packaging" / "installed.py"
    run(str(python), str(script), str(wheel), cwd=tmp_path)


def test_the_type_checkers_of_its_users_find_what_is_wrong(python: Path, tmp_path: Path) -> None:
    script = ROOT / "tests" / "packaging" / "outside.py"
    checkers = ("mypy", *(["pyright"] if importlib.util.find_spec("pyright") else []))
    run(sys.executable, str(script), str(python), *checkers, cwd=tmp_path)


def test_the_wheel_holds_its_licence_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bench/", "examples/"))]


def test_its_page_on_an_index_links_to_nothing_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    prose = re.sub(r"```.*?```", "", metadata, flags=re.DOTALL)
    links = re.findall(r"\]\(([^)]+)\)", prose)
    assert "Description-Content-Type: text/markdown" in metadata
    assert "https://pypi.org/project/eventkit/" in links, "the page has its text and its links"
    assert not [link for link in links if not re.match(r"https://|#", link)]
    assert "<img" not in prose
