"""Which event loop `eventkit run` has."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from eventkit.errors import SettingsError
from eventkit.processes import loop
from tests.programs import EVENTKIT, Program

_SERVICE = """
import asyncio
from contextlib import asynccontextmanager

import eventkit

class Sold(eventkit.Event, topic="sales"):
    item: str

@asynccontextmanager
async def lifespan():
    print("runs on", type(asyncio.get_running_loop()).__module__, flush=True)
    yield

service = eventkit.Service("shop", lifespan=lambda: lifespan())

@service.handler
async def sold(event: Sold) -> None: ...
"""


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop needs Unix")
@pytest.mark.parametrize(("wanted", "module"), [("", "asyncio"), ("uvloop", "uvloop")])
def test_a_service_runs_on_the_loop_that_is_asked_for_and_drains(tmp_path: Path, wanted: str, module: str) -> None:
    pytest.importorskip("uvloop")
    (tmp_path / "shop.py").write_text(_SERVICE)
    with Program(*EVENTKIT, "run", cwd=tmp_path, env={"EVENTKIT_LOOP": wanted}) as program:
        program.wait_for(rf"runs on {module}")
        program.wait_for(r"shop +topic sales +Sold\n")
        program.tell(signal.SIGTERM)
        assert program.wait(20) == 0


def test_uvloop_that_is_not_there_is_an_error_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "find_spec", lambda name: None)
    assert loop.factory("asyncio") is None
    with pytest.raises(SettingsError, match=r"faststream-eventkit\[speed\]"):
        loop.factory("uvloop")
