"""Task queues on the same Redis, in turn with eventkit: one worker process each, the same JSON."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import redis

from bench import measure
from bench.messages import orders
from bench.ours import Eventkit
from bench.peers_work import RATE

_ROUNDS = 5
_PATIENCE = 120.0


class _Peer(NamedTuple):
    module: str
    worker: Sequence[str]
    setting: str
    killed: str
    environment: dict[str, str]


_CELERY = ("celery", "-A", "bench.peers_celery", "worker", "--concurrency", "1", "--loglevel", "error")
_PEERS = {
    "celery": _Peer(
        *("bench.peers_celery", _CELERY, "prefork, 1 process; acknowledges before the task (default)"),
        *("what runs is lost; what it had fetched comes back after an hour (`visibility_timeout`)", {}),
    ),
    "celery, late": _Peer(
        *("bench.peers_celery", _CELERY, "the same with `task_acks_late` and `task_reject_on_worker_lost`"),
        *("what runs comes back: at once if its child was killed, else after an hour", {"BENCH_LATE": "1"}),
    ),
    "dramatiq": _Peer(
        *("bench.peers_dramatiq", ("dramatiq", "bench.peers_dramatiq", "--processes", "1")),
        "1 process, 8 threads (default)",
        *("what runs comes back after a minute (`heartbeat_timeout`)", {}),
    ),
    "taskiq": _Peer(
        *("bench.peers_taskiq", ("taskiq", "worker", "bench.peers_taskiq:broker", "--workers", "1")),
        "`RedisStreamBroker`, 1 process, 100 tasks at once (default)",
        *("what runs comes back after ten minutes (`idle_timeout`)", {}),
    ),
}  # fmt: skip


def rows(url: str, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ("eventkit", *_PEERS)}
    for _ in range(_ROUNDS):
        found["eventkit"].append(asyncio.run(_ours(url, count)))
        for name, peer in _PEERS.items():
            found[name].append(_theirs(peer, url, count))
    about = {name: (peer.setting, peer.killed) for name, peer in _PEERS.items()}
    about["eventkit"] = ("Streams, 1 process, 100 at once", "what runs comes back after 30 s (`lease`), to any replica")
    for name, rates in found.items():
        setting, killed = about[name]
        consume, publish = (round(measure.median(column)) for column in zip(*rates, strict=True))
        yield name, {"setting": setting, "killed": killed, "consume": consume, "publish": publish}


async def _ours(url: str, count: int) -> tuple[float, float]:
    side = Eventkit("redis")
    await side.open(url, f"peers{time.time_ns():x}")
    try:
        publish = await measure.publish_one(side, count // 4)
        return await measure.consume(side, count), publish
    finally:
        await side.close()


def _theirs(peer: _Peer, url: str, count: int) -> tuple[float, float]:
    environment = {**os.environ, **peer.environment, "BENCH_REDIS": url, "BENCH_COUNT": str(count), "PYTHONPATH": "."}
    with redis.from_url(url) as client:
        client.flushall()
        fill = [sys.executable, "-m", "bench.peers", peer.module, str(count)]
        publish = float(subprocess.run(fill, env=environment, check=True, capture_output=True, text=True).stdout)
        worker = subprocess.Popen(
            [sys.executable, "-m", *peer.worker], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            ends = time.monotonic() + _PATIENCE
            while (rate := client.get(RATE)) is None:
                if time.monotonic() > ends or worker.poll() is not None:
                    raise TimeoutError(f"{peer.module} was not done within {_PATIENCE:g} s")
                time.sleep(0.1)
            return float(rate), publish  # type: ignore[arg-type]
        finally:
            worker.terminate()
            try:
                worker.wait(15)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


async def _fill(module: str, count: int) -> float:
    peer = importlib.import_module(module)
    bodies = [order.model_dump() for order in orders(count)]
    async with peer.sending():
        began = time.perf_counter()
        for body in bodies:
            await peer.send(body)
        return count / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.stdout.write(f"{asyncio.run(_fill(sys.argv[1], int(sys.argv[2])))}\n")
