"""Reloading: services started anew whenever a file of theirs changes, for the time of writing them."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType

from eventkit.errors import SettingsError
from eventkit.processes.worker import Worker

log = logging.getLogger("eventkit")

_DRAIN = 5.0
"""Seconds that a change waits for what runs: less than a deploy would, for a person waits."""
_LOOK = 300
"""Milliseconds after which it is seen that the services have ended by themselves."""


def run_reloading(folder: Path, files: Sequence[Path], start: Callable[[], Worker]) -> int:
    """Run what `start` makes; again after each change of a Python file below `folder`, or of one of `files`.

    Services that end by themselves, such as for a mistake in the code, wait for the next change. Returns at SIGTERM or
    SIGINT, after they have drained. SettingsError where watchfiles is not installed.
    """
    try:
        from watchfiles import Change, PythonFilter, watch
    except ImportError as error:
        raise SettingsError(
            "--reload needs watchfiles, which is not installed: pip install 'faststream-eventkit[reload]'"
        ) from error
    python = PythonFilter()
    others = {str(file.resolve()) for file in files}

    def counts(change: Change, path: str) -> bool:
        return path in others or python(change, path)

    stop = threading.Event()
    worker = start()

    def told(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            worker.kill()
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        said = False
        folders = {folder.resolve(), *(Path(file).parent for file in others)}
        changes = watch(
            *folders, watch_filter=counts, stop_event=stop, rust_timeout=_LOOK, yield_on_timeout=True, step=30
        )
        for changed in changes:
            if changed:
                log.info("%s changed: starting again", _names(folder, (path for _, path in changed)))
                _end(worker)
                worker, said = start(), False
            elif not said and worker.poll() is not None:
                said = True
                log.warning("the services have ended (exit code %d): waiting for the next change", worker.poll())
    finally:
        worker.drain()
        worker.wait()
        worker.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _end(worker: Worker) -> None:
    worker.drain()
    if not worker.wait(_DRAIN):
        log.warning("what runs did not end within %g s: it is cut off, and delivered again", _DRAIN)
        worker.kill()
        worker.wait()
    worker.close()


def _names(folder: Path, paths: Iterable[str]) -> str:
    here = folder.resolve()
    names = sorted(str(path.relative_to(here)) if path.is_relative_to(here) else str(path) for path in map(Path, paths))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
