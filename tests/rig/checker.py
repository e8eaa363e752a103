"""Counts what was acknowledged against what was handled, as Jepsen does.

A message that was acknowledged must be handled by each group that reads it, or be a dead letter if that is what becomes
of it. One that was sent and never acknowledged may have arrived, or not: nothing is said about it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.rig.journal import Entry
from tests.rig.work import ATTEMPTS, AUDIT, COMMAND, FOLLOWED, LETTERS, SERVICE, sends_on


class About(NamedTuple):
    """One message, as one group sees it."""

    group: str
    what: str
    key: str
    number: int


class _Began(NamedTuple):
    """A message of an ordered key that began."""

    number: int
    when: float
    suspect: bool


@dataclass
class Count:
    """What a run has shown."""

    acknowledged: int = 0
    unknown: int = 0
    """Sent, and never acknowledged."""
    handled: int = 0
    """By a group, or given up on by it as it should be."""
    lost: list[About] = field(default_factory=list)
    duplicated: int = 0
    """Handled, or written as a dead letter, once more than needed."""
    out_of_order: list[str] = field(default_factory=list)
    """Of one key, in one life of a replica, where order is promised."""
    overtaken: int = 0
    """The same while processes and brokers failed, where the order across replicas is not promised; of suspects, which
    have none; and of repeats."""
    wrong_letters: list[str] = field(default_factory=list)
    overtried: list[str] = field(default_factory=list)
    """Attempts past the policy's last."""

    @property
    def good(self) -> bool:
        return not (self.lost or self.out_of_order or self.wrong_letters or self.overtried)


class Checker:
    """Is told all that was written, in the order of each process."""

    def __init__(self) -> None:
        self.acked: dict[tuple[str, str, int], float] = {}
        """When each was sent, of those that were acknowledged."""
        self._sent: dict[tuple[str, str, int], float] = {}
        self._ended: Counter[About] = Counter()
        self._began: dict[str, dict[tuple[str, str], list[_Began]]] = defaultdict(lambda: defaultdict(list))
        """By life, group and key: the ordered ones, each where it began for the first time there."""
        self._first_end: dict[About, float] = {}
        self._seen: dict[str, set[About]] = defaultdict(set)
        self._overtried: list[str] = []
        self._missing: set[About] = set()
        self.handled = 0
        """How often a handler has ended."""
        self.words: dict[str, dict[str, str]] = defaultdict(dict)
        """By word (`ready`, `red`, ...) and life: what was said with it."""

    def take(self, news: Iterable[Entry]) -> None:
        for life, when, word, rest in news:
            if word in ("sent", "acked", "refused"):
                what, key, number = rest[0], rest[1], int(rest[2])
                if word == "sent":
                    self._sent[what, key, number] = when
                elif word == "acked":
                    self.acked[what, key, number] = self._sent[what, key, number]
                    self._missing.update(need for need in _needs(what, key, number) if not self._ended[need])
            elif word in ("began", "ended"):
                about = About(rest[0], rest[1], rest[2], int(rest[3]))
                if word == "ended":
                    self._ended[about] += 1
                    self.handled += 1
                    self._first_end[about] = min(when, self._first_end.get(about, when))
                    self._missing.discard(about)
                else:
                    self._take_began(life, about, int(rest[4]), _Began(about.number, when, rest[5] == "suspect"))
            else:
                self.words[word][life] = " ".join(rest)

    def _take_began(self, life: str, about: About, attempt: int, began: _Began) -> None:
        if attempt > ATTEMPTS:
            self._overtried.append(f"{about} on attempt {attempt} in {life}")
        if about.what == "ordered" and about not in self._seen[life]:
            self._seen[life].add(about)
            self._began[life][about.group, about.key].append(began)

    def missing(self, letters: Collection[About] = ()) -> set[About]:
        """What was acknowledged and is not handled yet; those that end as dead letters only with `letters`."""
        given_up = {about for about in self._missing if about.what in LETTERS and about.group == SERVICE}
        return (self._missing - given_up) | (given_up - set(letters) if letters else set())

    def waiting_letters(self) -> set[About]:
        """Those that are to be dead letters."""
        return {About(SERVICE, *known) for known in self.acked if known[0] in LETTERS}

    def count(self, letters: Iterable[About], calm: float, across_replicas: bool) -> Count:
        """`letters`: all that the groups have. `calm`: when all failures had ended. `across_replicas`: does the
        broker keep a key's order whatever happens to replicas?"""
        found = Count(acknowledged=len(self.acked), unknown=len(self._sent) - len(self.acked))
        given_up = Counter(letters)
        needed = {need for known in self.acked for need in _needs(*known)}
        right = {about for about in given_up if about.group == SERVICE and about.what in LETTERS}
        found.wrong_letters = sorted(map(str, set(given_up) - right))
        found.lost = sorted(about for about in needed if not self._ended[about] and about not in right)
        found.handled = len(needed) - len(found.lost)
        found.duplicated = sum(count - 1 for counter in (self._ended, given_up) for count in counter.values())
        found.overtried = self._overtried
        for text, promised in self._inversions(calm, across_replicas):
            if promised:
                found.out_of_order.append(text)
            else:
                found.overtaken += 1
        return found

    def _inversions(self, calm: float, across_replicas: bool) -> Iterator[tuple[str, bool]]:
        """Each message that began after a later one of its key, of those that were acknowledged; was order promised?

        Not while things failed, where replicas do not keep it; never of suspects; nor of what some replica had handled
        before, in order, and that only came again.
        """
        for life, by_key in self._began.items():
            for (group, key), all_ in by_key.items():
                highest = -1
                for number, when, suspect in all_:
                    sent = self.acked.get(("ordered", key, number))
                    if sent is None:
                        continue
                    if number < highest:
                        again = self._first_end.get(About(group, "ordered", key, number), when) < when
                        promised = (sent >= calm or across_replicas) and not suspect and not again
                        yield f"{group} {key}: {number} after {highest} in {life}", promised
                    highest = max(highest, number)


def _needs(what: str, key: str, number: int) -> list[About]:
    if what == COMMAND:
        return [About(SERVICE, what, key, number)]
    needs = [About(SERVICE, what, key, number), About(AUDIT, what, key, number)]
    return [*needs, About(AUDIT, FOLLOWED, key, number)] if sends_on(what, number) else needs
