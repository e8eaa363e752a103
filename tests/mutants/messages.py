"""Breaks of what a message is on its way through the core, and of the handlers it comes to: shown in memory."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_WIRE, _BUS, _PUBLISHING = "eventkit/wire.py", "eventkit/bus.py", "eventkit/publishing.py"
_OUTCOMES, _OUTGOING, _HANDLING = "eventkit/outcomes.py", "eventkit/outgoing.py", "eventkit/handling.py"
_MEMORY, _LETTERS, _SERVICE = "eventkit/memory/adapter.py", "eventkit/dead_letters.py", "eventkit/service.py"

MESSAGES = (
    # published
    Mutant(
        "lose the correlation that the caller gave",
        _WIRE,
        "    correlation = about.correlation_id or id_\n",
        "    correlation = id_\n",
        "D1",
    ),
    Mutant(
        "call a refusal unknown",
        _BUS,
        "        failure = Failure(0, message, error, unknown=not permanent(error))\n",
        "        failure = Failure(0, message, error, unknown=True)\n",
        "D2",
    ),
    Mutant(
        "keep nothing for a group that nobody reads",
        "eventkit/memory/store.py",
        "            self.ready.append(stored)\n        self.wake()\n",
        "            if self.consumers:\n                self.ready.append(stored)\n        self.wake()\n",
        "D3",
    ),
    Mutant(
        "memory: what is given back may meet what another thread publishes",
        "eventkit/memory/store.py",
        "        with self._changing:  # a thread that looks for a place in it must not see it change\n",
        "        if True:\n",
        "tests/unit/test_memory.py::test_what_is_given_back_while_another_thread_publishes_is_kept_in_its_place",
        fails_with="RuntimeError",
    ),
    Mutant(
        "publish again what was confirmed",
        _PUBLISHING,
        "                return (await self._hand_over((message,)))[0]\n",
        "                await self._hand_over((message,))\n",
        "R1",
    ),
    Mutant(
        "call what has no owner passing trouble",
        _PUBLISHING,
        "_PERMANENT = (InvalidMessage, NoOwner, NotProvisioned)\n",
        "_PERMANENT = (InvalidMessage, NotProvisioned)\n",
        "R3",
    ),
    Mutant(
        "an answer for a caller that was cancelled ends the answers of the others",
        _PUBLISHING,
        "            if not future.done():  # its caller may have been cancelled\n",
        "            if True:\n",
        "L8",
        fails_with="TimeoutError",
    ),
    Mutant(
        "name a failure by its place in a chunk",
        "eventkit/many.py",
        "        self._chunk.append((self.count, event, message))\n",
        "        self._chunk.append((len(self._chunk), event, message))\n",
        "S5",
    ),
    Mutant(
        "send an event to an inbox",
        _BUS,
        '        if not isinstance(command, Command):\n            raise _wrong_verb("send", command)\n',
        "",
        "R4",
    ),
    Mutant(
        "a start that hides why the broker cannot be reached",
        _BUS,
        '                "is it running, and are EVENTKIT_URL and the credentials right?"\n            ) from error\n',
        '                "is it running, and are EVENTKIT_URL and the credentials right?"\n            ) from None\n',
        "L1",
        "redis",
    ),
    # declared and found
    Mutant(
        "another group of a service is the service's own",
        _SERVICE,
        '            name = self.name if handler.group is None else f"{self.name}.{handler.group}"\n',
        "            name = self.name\n",
        "D9",
    ),
    Mutant(
        "take a second handler of a type",
        _SERVICE,
        "            if first is not None and first is not handler:\n",
        "            if first is handler:\n",
        "R5",
    ),
    Mutant(
        "find a handler by the type alone",
        _OUTCOMES,
        "            or entry.address != message.address\n",
        "",
        "R6",
    ),
    Mutant(
        "take another namespace for ours that begins alike",
        "eventkit/names.py",
        '            if not name.startswith(f"{self.namespace}."):\n',
        "            if not name.startswith(self.namespace):\n",
        "C2",
        "redis",
    ),
    Mutant(
        "make what was only to be looked for",
        _MEMORY,
        '            if how is Provision.CREATE and not (isinstance(item, Address) and item.kind == "inbox"):\n',
        '            if not (isinstance(item, Address) and item.kind == "inbox"):\n',
        "R10",
    ),
    Mutant(
        "start with the earliest from now on",
        _MEMORY,
        '                if item.start == "earliest" and not known:\n',
        '                if item.start == "earliest" and known:\n',
        "C1",
    ),
    # read and written
    Mutant(
        "a content type in capitals is no JSON",
        _WIRE,
        '    media = content_type.partition(";")[0].strip().lower()\n',
        '    media = content_type.partition(";")[0].strip()\n',
        "W1",
    ),
    Mutant(
        "take an envelope for the event in it",
        _WIRE,
        "    if not content_type.lower().lstrip().startswith(_STRUCTURED) and not _is_envelope(message):\n",
        "    if not content_type.lower().lstrip().startswith(_STRUCTURED):\n",
        "W4",
    ),
    Mutant(
        "write what reads back as something else",
        _WIRE,
        "                changed = faith.check(message)\n",
        "                changed = None\n",
        "W5",
    ),
    Mutant(
        "a reserved header in capitals is the user's own",
        "eventkit/headers.py",
        "        if lowered in _RESERVED or lowered.startswith(_RESERVED_PREFIXES):\n",
        "        if lowered in _RESERVED or name.startswith(_RESERVED_PREFIXES):\n",
        "W6",
    ),
    Mutant(
        "true is written as Python writes it",
        "eventkit/headers.py",
        '        return "true" if value else "false"\n',
        "        return str(value)\n",
        "W3",
        "rabbit",
    ),
    Mutant(
        "send on without the trace",
        _OUTGOING,
        "        trace = {name: parent[name] for name in (h.TRACEPARENT, h.TRACESTATE) if name in parent}\n",
        "        trace: dict[str, str] = {}\n",
        "M4",
    ),
    Mutant(
        "let handlers change the headers of their message",
        _HANDLING,
        "    return delivery._replace(message=message._replace(headers=MappingProxyType(message.headers)))\n",
        "    return delivery._replace(message=message)\n",
        "M5",
    ),
    # handled
    Mutant(
        "the newest of a key goes first",
        "eventkit/lanes.py",
        "                ready.append(behind.popleft())\n",
        "                ready.append(behind.pop())\n",
        "O1",
    ),
    Mutant(
        "in_order waits on the broker",
        "eventkit/failures.py",
        "        if entry.retry.in_order and h.SUSPECT not in delivery.message.headers:\n",
        "        if entry.retry.in_order and h.SUSPECT in delivery.message.headers:\n",
        "O4",
    ),
    Mutant(
        "a failing key keeps its worker while it waits",
        "eventkit/consuming.py",
        "            return self._sleeps(how.seconds) if isinstance(how, Wait) else how\n",
        "            if isinstance(how, Wait):\n"
        "                await sleep(self._clock, how.seconds)\n"
        "                return 0.0\n"
        "            return how\n",
        "O4",
    ),
    Mutant(
        "deliver more than there is room for",
        "eventkit/memory/consumer.py",
        "            room = 0 if self._paused else self._in_flight - len(self.held)\n",
        "            room = 0 if self._paused else self._in_flight\n",
        "S3",
    ),
    Mutant(
        "never tear down dependencies",
        _HANDLING,
        "        async with AsyncExitStack() as stack:\n",
        "        if (stack := AsyncExitStack()) is not None:\n",
        "H3",
    ),
    Mutant(
        "insist on what can never be sent",
        _OUTGOING,
        '                    messages[place].address.kind != "reply" or isinstance(error, MessageTooLarge)\n',
        '                    messages[place].address.kind == "dead"\n',
        "H4",
    ),
    Mutant(
        "no limit of time",
        _HANDLING,
        "        return self._limited() if entry.timeout is not None else self._surrounded()\n",
        "        return self._surrounded()\n",
        "H5",
    ),
    # failed
    Mutant(
        "not hear of the delay that a handler names",
        "eventkit/retry.py",
        "        if isinstance(error, RetryLater):\n",
        "        if error is None:\n",
        "F20",
    ),
    Mutant(
        "what waits untried begins its attempts anew",
        "eventkit/copies.py",
        "{h.WAITED: str(waited)}, None)",
        '{h.WAITED: str(waited), h.ATTEMPT: "1"}, None)',
        "R7",
    ),
    Mutant(
        "what a stop cuts off is an attempt",
        "eventkit/consuming.py",
        "            if self._outcomes.aborting:\n                how = self._suspects.given_back(item)\n",
        "            if self._outcomes.aborting:\n"
        "                how = await self._outcomes.quarantined(item, 'it did not end in time')\n",
        "F2",
    ),
    Mutant(
        "remove a letter whose copy was refused",
        _LETTERS,
        "                confirmed.append(letter)\n            else:\n",
        "                pass\n            confirmed.append(letter)\n            if error is not None:\n",
        "F18",
    ),
    Mutant(
        "no room for what failure adds",
        _MEMORY,
        '        limit = _MESSAGE_BYTES + (_HEADROOM if address.kind in ("retry", "dead") else 0)\n',
        "        limit = _MESSAGE_BYTES\n",
        "F19",
    ),
    Mutant(
        "what was given back again and again is condemned",
        "eventkit/suspects.py",
        "            self._wait(delivery, Suspicion(0, 0, trial=0))\n            return\n",
        "            self._task(delivery, self._quarantine(delivery))\n            return\n",
        "F21",
    ),
    # started and stopped
    Mutant(
        "a stopped service counts on",
        "eventkit/running.py",
        "        self._consuming = {}\n\n    @property",
        "\n    @property",
        "L7",
    ),
    Mutant(
        "forget to look who reads before a group is removed",
        _MEMORY,
        "            if queue.consumers:\n                raise GroupInUse(name, len(queue.consumers))\n",
        "",
        "L13",
    ),
    Mutant(
        "show what was not confirmed to those who follow",
        _MEMORY,
        "for arrived in self._store.followers.get(self._name(message.address), ()) if answer is None else ():",
        "for arrived in [one for those in self._store.followers.values() for one in those] if answer is None else ():",
        "L11",
    ),
    Mutant(
        "what a reader holds is ready",
        _MEMORY,
        "            in_flight=len(held),\n",
        "            in_flight=0,\n",
        "L12",
    ),
)
"""In the order of a message's life."""
