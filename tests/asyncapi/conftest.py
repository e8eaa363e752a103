"""The official validators: installed once, by npm, into a folder that is not committed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest

PACKAGES = {"@asyncapi/specs": "6.11.1", "@asyncapi/parser": "3.6.6"}
FOLDER = Path(__file__).parents[2] / "build" / "asyncapi-validators"
SCRIPT = Path(__file__).with_name("validators.mjs")

Parse = Callable[[Sequence[dict[str, Any]]], "Future[list[dict[str, Any]]]"]


@pytest.fixture(scope="session")
def validators() -> Path:
    """The folder that holds @asyncapi/specs and @asyncapi/parser. Skips where there is no Node; fails under CI."""
    wanted = json.dumps({"private": True, "dependencies": PACKAGES})
    manifest = FOLDER / "package.json"
    done = FOLDER / "installed"
    if not done.exists() or done.read_text() != wanted:
        if shutil.which("npm") is None or shutil.which("node") is None:
            _missing("Node and npm are not installed")
        FOLDER.mkdir(parents=True, exist_ok=True)
        manifest.write_text(wanted)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        try:
            found = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            _missing("npm did not install them within 5 minutes")
        if found.returncode:
            _missing(f"npm could not install them: {found.stderr.strip()[-300:]}")
        done.write_text(wanted)
    return FOLDER


def _missing(why: str) -> None:
    text = f"AsyncAPI's official validators ({', '.join(PACKAGES)}) are missing: {why}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="session")
def official(validators: Path) -> Callable[[str], jsonschema.Draft7Validator]:
    """The official JSON Schema of a version of AsyncAPI."""
    known: dict[str, jsonschema.Draft7Validator] = {}

    def get(version: str) -> jsonschema.Draft7Validator:
        if version not in known:
            file = validators / "node_modules/@asyncapi/specs/schemas" / f"{version}.json"
            known[version] = jsonschema.Draft7Validator(json.loads(file.read_text(encoding="utf-8")))
        return known[version]

    return get


@pytest.fixture(scope="session")
def parse(validators: Path) -> Iterator[Parse]:
    """What @asyncapi/parser will say to documents. One process of Node, which is slow, so that tests can do other
    things meanwhile."""
    script = validators / SCRIPT.name
    shutil.copy(SCRIPT, script)  # beside node_modules, where its import is looked for

    with subprocess.Popen(["node", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdin is not None
        assert node.stdout is not None

        def ask(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            assert node.stdin is not None
            assert node.stdout is not None
            node.stdin.writelines(json.dumps(document) + "\n" for document in documents)
            node.stdin.flush()
            return [json.loads(node.stdout.readline()) for _ in documents]

        with ThreadPoolExecutor(1) as waiting:
            yield lambda documents: waiting.submit(ask, documents)
        node.stdin.close()
        node.wait(timeout=30)
