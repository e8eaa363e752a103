"""The contract over the adapter of docs/write-an-adapter.md, as the author of another adapter would run it."""

from __future__ import annotations

import copy
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from eventkit.adapter import Adapter, Connection, Group
from eventkit.contract import CHECKS, Refused, Vacuous
from eventkit.names import Naming
from examples.sqlite_adapter import SqliteAdapter, SqliteSettings
from tests.contract.test_contract import run
from tests.programs import ROOT

_LEASE = 2.0
_NO_SERVER = "a file has no server that could be ended or cut off"
_NO_PARTITIONS = "a topic has no partitions there"
_ALL_KEPT = "a message stays until all its groups have settled it"

REFUSED = {"C1", "O3"}
"""What its capabilities say it cannot do."""
VACUOUS = {"F23", "L3", "L4", "Q3", "V3", "W3"}
"""What says nothing about a file that only eventkit writes."""


class SqliteFile:
    """A backend of the contract, which is its own broker to break."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.lease = _LEASE
        self._folder = folder
        self.file = folder / "broker.db"
        information = folder / "sqlite_example-1.dist-info"  # as an installed distribution would have it
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: sqlite-example\nVersion: 1\n")
        (information / "entry_points.txt").write_text(
            "[eventkit.adapters]\nsqlite=examples.sqlite_adapter:SqliteAdapter\n"
        )

    def adapter(self, namespace: str, /) -> Adapter:
        return self._adapter(namespace, self.file, self.lease)

    def unreachable(self, namespace: str, /) -> Adapter | None:
        return self._adapter(namespace, self._folder / "no such folder" / "broker.db", self.lease)

    def _adapter(self, namespace: str, file: Path, lease: float) -> Adapter:
        settings = SqliteSettings(lease=timedelta(seconds=lease))
        return SqliteAdapter(Connection(SecretStr(f"sqlite:///{file}"), namespace, "contract", settings))

    def faults(self) -> SqliteFile:
        return self

    def with_lease(self, seconds: float, /) -> SqliteFile:
        same = copy.copy(self)
        same.lease = seconds
        return same

    def environment(self, namespace: str, /) -> Mapping[str, str]:
        return {
            "EVENTKIT_BROKER": "sqlite",
            "EVENTKIT_URL": f"sqlite:///{self.file}",
            "EVENTKIT_NAMESPACE": namespace,
            "EVENTKIT_SQLITE__LEASE": f"PT{self.lease}S",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(self._folder)]),
        }

    def kill(self) -> None:
        raise Vacuous(_NO_SERVER)

    start = restart = cut = kill

    def pause(self, pid: int, /) -> None:
        with closing(sqlite3.connect(self.file, timeout=30.0, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")  # the lock is ours, so not the one's that stops
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def take_away(self, namespace: str, group: Group, /) -> None:
        name = Naming(namespace, longest=250).group(group.name)
        with closing(sqlite3.connect(self.file)) as db:
            db.execute("DELETE FROM groups WHERE name = ?", (name,))
            db.commit()

    def next_release(self, namespace: str, /) -> Adapter:
        return self._adapter(namespace, self.file, 4.0)

    def grow(self, namespace: str, topic: str, /) -> None:
        raise Vacuous(_NO_PARTITIONS)

    def forget(self, namespace: str, topic: str, /) -> None:
        raise Vacuous(_ALL_KEPT)


@pytest.fixture(scope="module")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> SqliteFile:
    return SqliteFile(tmp_path_factory.mktemp("sqlite"))


def test_a_process_stands_still_where_it_holds_no_lock(sqlite_file: SqliteFile, tmp_path: Path) -> None:
    writes = tmp_path / "writes.py"
    writes.write_text(
        "import sqlite3, sys, time\n"
        "db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n"
        "while True:\n"
        "    db.execute('BEGIN IMMEDIATE')\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(0.05)\n"
        "    db.execute('ROLLBACK')\n"
        "    time.sleep(0.005)\n"
    )
    with subprocess.Popen([sys.executable, writes, sqlite_file.file], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            sqlite_file.pause(process.pid)
            with closing(sqlite3.connect(sqlite_file.file, timeout=0, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
        finally:
            process.kill()


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check: str, sqlite_file: SqliteFile) -> None:
    outcome, why = "pass", ""
    try:
        run(CHECKS[check], sqlite_file)
    except Vacuous as reason:
        outcome, why = "vacuous", str(reason)
    except Refused as reason:
        outcome, why = "refused", str(reason)
    expected = "refused" if check in REFUSED else "vacuous" if check in VACUOUS else "pass"
    assert outcome == expected, why
