"""Garbage collection of what is kept outside history: blobs, claims, cached results.

Marked are the values that runs refer to, and what those values refer to in turn. Whatever looks
like the name of a blob counts as a reference, so nothing is missed because a form was not known.
What is not marked and older than a bound goes. The bound covers what a worker has stored and
history does not say yet; a value that is stored or taken from the cache again counts as new.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from planloom.activities.storage.backends import PART_SUFFIX, Backend, Entry
from planloom.activities.storage.cache import ResultCache
from planloom.activities.storage.claims import ClaimStore
from planloom.planner.contract.garbage import Amount, GarbageReport

_NAME = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_PACKED = re.compile(rb"eJ[A-Za-z0-9+/]{16,}={0,2}")
"""Base64 of something that zlib has compressed: the state of a run that was continued as new."""
PACKED_MAX_BYTES = 512_000_000
ID_CHARS = 64

REFERRED = "a run refers to it"
YOUNG = "it is too new"
CACHED = "it is a cached result"
OF_A_RUN = "it belongs to a run that the server keeps"


@dataclass(slots=True)
class Retained:
    """What a server keeps: its runs, and the names of blobs in their histories."""

    workflows: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def names_in(content: bytes) -> set[str]:
    """All that looks like the name of a blob, also in a compressed state."""
    found = {name.decode() for name in _NAME.findall(content)}
    for packed in _PACKED.findall(content):
        try:
            unpacked = zlib.decompressobj().decompress(base64.b64decode(packed), PACKED_MAX_BYTES)
        except (binascii.Error, zlib.error, ValueError):
            continue  # a text that only looks like it
        found |= names_in(unpacked)
    return found


class Garbage:
    """One collection over a store and the cache in it. Make it before the server is asked:
    what is stored later is not seen, and so it stays."""

    def __init__(self, backend: Backend, cache: ResultCache, *, before: float) -> None:
        self._backend = backend
        self._claims = backend.within("claims")
        self._cache = cache
        self._before = before
        listed = list(backend.entries())
        self._parts = [each for each in listed if each.name.endswith(PART_SUFFIX)]
        self._blobs = {each.name: each for each in listed if _is_blob(each.name)}
        self._acts: dict[str, list[Entry]] = {}
        for each in self._claims.entries():
            self._acts.setdefault(each.name[:ID_CHARS], []).append(each)

    def collect(self, retained: Retained, report: GarbageReport) -> GarbageReport:
        """Find what nothing needs, and unless it is a dry run, remove it; the report is filled in.

        Raises:
            Exception: the store cannot be read.
        """
        # All is read first: a value that cannot be read ends it, and then nothing was removed.
        needed, doomed = self._acts_by_need(retained, report)
        referred = self._with_what_they_name({*retained.names, *self._named_by(needed)})
        missing = len(referred - set(self._blobs))
        results = self._cache.entries()
        old = [each for each in results if each.modified < self._before]
        cached = self._made_of(each for each in results if each.modified >= self._before)
        young = {e.name for e in self._blobs.values() if e.modified >= self._before}
        # What is too new is not in history yet; what it is made of is needed like itself.
        young |= self._with_what_they_name(young) & set(self._blobs)
        self._remove_acts(doomed, report)
        cached |= self._made_of(self._used_since(old, report))
        for entry in self._blobs.values():
            if entry.name in referred:
                _add(report.kept, f"blob: {REFERRED}", entry)
            elif entry.name in cached:
                _add(report.kept, f"blob: {CACHED}", entry)
            elif entry.name in young or not self._goes(self._backend, entry, report):
                _add(report.kept, f"blob: {YOUNG}", entry)
            else:
                _add(report.removed, "blobs", entry)
        for entry in self._parts:
            if entry.modified < self._before and self._goes(self._backend, entry, report):
                _add(report.removed, "unfinished writes", entry)
        return report.model_copy(update={"missing": missing})

    def _acts_by_need(
        self, retained: Retained, report: GarbageReport
    ) -> tuple[list[Entry], list[list[Entry]]]:
        """Claims that stay, and those that go, each whole."""
        store, needed, doomed = ClaimStore(self._claims), list[Entry](), list[list[Entry]]()
        for entries in self._acts.values():
            is_used = any(_is_of_a_run(store, e.name, retained) for e in entries)
            is_young = max(e.modified for e in entries) >= self._before
            if not (is_used or is_young):
                doomed.append(entries)
                continue
            needed += entries
            for entry in entries:
                _add(report.kept, f"claim: {OF_A_RUN if is_used else YOUNG}", entry)
        return needed, doomed

    def _remove_acts(self, doomed: Iterable[list[Entry]], report: GarbageReport) -> None:
        for entries in doomed:
            # The result last: without its claim it still says what was done.
            for entry in sorted(entries, key=lambda e: e.name.endswith(".result")):
                if self._goes(self._claims, entry, report):
                    _add(report.removed, "claims", entry)

    def _used_since(self, old: Iterable[Entry], report: GarbageReport) -> list[Entry]:
        """Cached results that were used while this looked; the other old ones go."""
        used = []
        for entry in old:
            if report.is_dry_run or self._cache.delete_older(entry.name, self._before):
                _add(report.removed, "cached results", entry)
            else:
                used.append(entry)
        return used

    def _made_of(self, results: Iterable[Entry]) -> set[str]:
        """The blobs of cached results, with what those name."""
        outputs = (self._cache.output(each.name) for each in results)
        return self._with_what_they_name({o.blob for o in outputs if o is not None and o.blob})

    def _named_by(self, entries: Iterable[Entry]) -> set[str]:
        contents = (self._claims.get(e.name) for e in entries if e.name.endswith(".result"))
        return {name for content in contents for name in names_in(content or b"")}

    def _with_what_they_name(self, names: Collection[str]) -> set[str]:
        found, left = set(names), [name for name in names if name in self._blobs]
        while left:
            for name in names_in(self._backend.get(left.pop()) or b"") - found:
                if name in self._blobs:  # a hash in a document names no blob
                    found.add(name)
                    left.append(name)
        return found

    def _goes(self, backend: Backend, entry: Entry, report: GarbageReport) -> bool:
        if entry.modified >= self._before:
            return False
        return report.is_dry_run or backend.delete_older(entry.name, self._before)


def _is_of_a_run(store: ClaimStore, name: str, retained: Retained) -> bool:
    if not name.endswith(".claim"):
        return False
    try:
        workflow, run = store.user(name)
    except ValueError:
        return True  # nobody can tell
    return workflow in retained.workflows or run in retained.runs


def _is_blob(name: str) -> bool:
    return _NAME.fullmatch(name.encode()) is not None


def _add(counts: dict[str, Amount], what: str, entry: Entry) -> None:
    counts[what] = counts.get(what, Amount()).plus(entry.size)
