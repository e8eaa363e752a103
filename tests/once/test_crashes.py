"""A process that dies between any two steps: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.once import crashing
from tests.once.databases import Database, work


def published(file: Path) -> Counter[str]:
    return Counter(file.read_text().split()) if file.exists() else Counter()


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_a_handler_that_dies(database: Database, plain: bool, tmp_path: Path) -> None:
    for point in crashing.HANDLING:
        file = tmp_path / point
        crashing.crash(crashing.handle, database, plain, point, point, file)
        late = crashing.HANDLING.index(point) >= crashing.HANDLING.index("committed")
        done = database.count(work, work.c.order_id == point)
        assert done == int(late), f"{point}: the work is there if, and only if, the mark is"
        assert database.handled() == database.work(), point
        out = published(file)
        assert out.total() == int(point in ("published", "sent", "told")), point

        asyncio.run(crashing.handle(database, plain, None, point, file))
        assert database.count(work, work.c.order_id == point) == 1, f"{point}: done once"
        out = published(file)
        assert len(out) == 1, f"{point}: not lost, and no second message"
        assert out.total() == (2 if point in ("published", "sent") else 1), f"{point}: with the same id"
        assert database.waiting() == 0, point
    assert database.work() == len(crashing.HANDLING)


def test_who_puts_something_into_the_outbox_and_dies(database: Database, tmp_path: Path) -> None:
    for point in crashing.PUTTING:
        crashing.crash(crashing.put, database, point, [point], tmp_path / "out")
    assert (database.work(), database.waiting()) == (1, 1)
    asyncio.run(crashing.publish(database, None, tmp_path / "out"))
    assert published(tmp_path / "out") == {"committed": 1}


def test_a_relay_that_dies(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "out"
    for point in crashing.RELAYING:
        orders = [f"{point}{n}" for n in range(3)]
        crashing.crash(crashing.put, database, "committed", orders, file)
        crashing.crash(crashing.publish, database, point, file)
        assert database.waiting() == (0 if point == "settled" else 3), point
        asyncio.run(crashing.publish(database, None, file))  # it takes over, when the other's lease is over
        found = {id_: count for id_, count in published(file).items() if id_.startswith(point)}
        again = 2 if point in ("published", "removed") else 1
        assert found == dict.fromkeys(orders, again), f"{point}: none lost, and again only with the same id"
        assert database.waiting() == 0
