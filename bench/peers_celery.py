"""Celery as its documentation sets it up; BENCH_LATE=1: acknowledged after the task."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

from celery import Celery

from bench.peers_work import URL, work

app = Celery("bench", broker=URL)
app.conf.task_ignore_result = True
app.conf.task_acks_late = os.environ.get("BENCH_LATE") == "1"
app.conf.task_reject_on_worker_lost = app.conf.task_acks_late


@app.task(name="place")
def place(order: dict[str, Any]) -> None:
    work(order)


async def send(order: dict[str, Any]) -> None:
    place.delay(order)


sending = nullcontext
