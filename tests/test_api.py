"""The public interface is what tests/api.txt says, and every part of it is explained."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

from tests import api

_CLIENTS = ("aiokafka", "aio_pika", "aiormq", "nats", "redis", "faststream", "testcontainers", "pytest", "sqlalchemy")


def test_the_public_interface_is_the_one_that_was_agreed_on() -> None:
    agreed = api.FILE.read_text(encoding="utf-8").splitlines()
    found = api.lines()
    gone = [line for line in agreed if line not in found]
    new = [line for line in found if line not in agreed]
    assert (gone, new) == ([], []), (
        "the public interface is another one: where that is meant, run `python -m tests.api` and say so in CHANGELOG.md"
    )


@pytest.mark.parametrize("module", api.MODULES)
def test_every_public_class_and_function_is_explained(module: str) -> None:
    found = importlib.import_module(module)
    names = getattr(found, "__all__", [name for name in vars(found) if not name.startswith("_")])
    ours = {name: thing for name in names if _is_ours(thing := getattr(found, name))}
    silent = [name for name, thing in ours.items() if not inspect.getdoc(thing)]
    assert silent == []


def test_eventkit_imports_no_client_of_a_broker() -> None:
    code = f"import sys, eventkit, eventkit.memory; print([name for name in {_CLIENTS} if name in sys.modules])"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert made.stdout.strip() == "[]"


def _is_ours(thing: object) -> bool:
    return (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("eventkit")
