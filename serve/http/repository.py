"""Which models and versions are served, and how they change while requests go on.

A new or changed version is opened, verified, warmed up beside the old one, and then takes its
place; requests that are under way finish on the one that they began with. What cannot be opened is
refused with a reason, once, and the old version stays.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.command import LockstepError, printable
from serve.http import metrics
from serve.http.batcher import Plan
from serve.http.catalogue import (
    Catalogue,
    Policy,
    RepositoryError,
    Signature,
    catalogue,
    model_name,
    signature,
    split_source,
)
from serve.http.served import Opened, Served

_log = logging.getLogger("lockstep")


class UnknownModelError(RepositoryError):
    """No such model, or no such version of it."""


@dataclass(frozen=True)
class _Refused:
    signature: Signature | None
    reason: str


class Repository:
    """The models that are served.

    Args:
        sources: the places on the command line.
        open_file: opens a model; called in a thread; a plan is given where an earlier version has
            one that fits.
        serve: makes a version that answers; called in the event loop.
        unloaded: names of models that are not served until somebody loads them.
    """

    def __init__(
        self,
        sources: Sequence[str],
        policy: Policy,
        open_file: Callable[[Path, Plan | None], Opened],
        serve: Callable[[str, int, Opened], Served],
        unloaded: Iterable[str] = (),
    ) -> None:
        self._sources = sources
        self._policy = policy
        self._open_file = open_file
        self._serve = serve
        self._serving: dict[str, dict[int, Served]] = {}
        self._signatures: dict[tuple[str, int], Signature | None] = {}
        self._seen: dict[Path, Signature | None] = {}
        self._refused: dict[tuple[str, int], _Refused] = {}
        self._unloaded = set(unloaded)
        self._lock = asyncio.Lock()
        self._opener = ThreadPoolExecutor(1, "open")

    # Looking up.

    @property
    def names(self) -> list[str]:
        """Models that are served."""
        return list(self._serving)

    @property
    def is_ready(self) -> bool:
        return bool(self._serving)

    def find(self, name: str | None = None, version: str | None = None) -> Served:
        """The version that answers: of the only model if none is named, and then the newest.

        Raises:
            UnknownModelError: there is none, or none is named and there are several.
        """
        if name is None:
            name = self._only()
        versions = self._serving.get(name)
        if not versions:
            known = ", ".join(self._serving) or "none"
            raise UnknownModelError(f"unknown model {name!r:.80}; served are: {known:.400}")
        if version is None:
            return versions[max(versions)]
        for number, served in versions.items():
            if str(number) == version:
                return served
        numbers = ", ".join(map(str, sorted(versions)))
        raise UnknownModelError(
            f"unknown version {version!r:.40} of model {name}; served are: {numbers:.400}"
        )

    def _only(self) -> str:
        if len(self._serving) != 1:
            raise UnknownModelError(
                f"several models are served: say which: {', '.join(self._serving):.400}"
                if self._serving
                else "no model is served"
            )
        return next(iter(self._serving))

    def versions(self, name: str) -> list[Served]:
        """All versions of a model that answer, oldest first."""
        return [served for _, served in sorted(self._serving.get(name, {}).items())]

    def all(self) -> list[Served]:
        return [served for name in self._serving for served in self.versions(name)]

    def index(self) -> list[dict[str, str]]:
        """Everything there is, with its state and, where it does not answer, the reason."""
        entries = []
        for name, versions in self._catalogue().items():
            serving = self._serving.get(name, {})
            for version in sorted({*versions, *serving}):
                ready = version in serving
                reason = "" if ready else self._reason(name, version)
                state = "READY" if ready else "UNAVAILABLE"
                entries.append(
                    {"name": name, "version": str(version), "state": state, "reason": reason}
                )
        return entries

    def _reason(self, name: str, version: int) -> str:
        if name in self._unloaded:
            return "unloaded"
        refused = self._refused.get((name, version))
        return refused.reason if refused else "not chosen by the version policy"

    # Changing.

    async def start(self) -> None:
        """Open everything for the first time.

        Raises:
            RepositoryError: nothing can be served, or a file that was named cannot.
        """
        found = catalogue(self._sources)
        async with self._lock:
            refusals = await self._sync(found, settled=False)
        wanted = [name for name in found if name not in self._unloaded]
        missing = [name for name in wanted if name not in self._serving]
        named = {name or model_name(path) for name, path in map(split_source, self._sources)}
        if missing and (not self._serving or named & set(missing)):
            reasons = [
                self._reason(name, version) for name in missing for version in sorted(found[name])
            ]
            raise RepositoryError("; ".join(reasons))
        _log_all(refusals)

    async def poll(self) -> None:
        """Take up what is new or changed, once it no longer changes."""
        async with self._lock:
            _log_all(await self._sync(self._catalogue(), settled=True))

    async def load(self, name: str) -> None:
        """Open a model, or what is new of it, at once.

        Raises:
            UnknownModelError: there is no such model.
            RepositoryError: it cannot be opened; what was served still is.
        """
        found = self._catalogue()
        if name not in found:
            raise UnknownModelError(f"unknown model {name!r:.80}; there are: {_names(found)}")
        async with self._lock:
            self._unloaded.discard(name)
            _log_all(await self._sync({name: found[name]}, settled=False))
            newest = self._policy.candidates(found[name])[:1]
            refused = self._refused.get((name, newest[0])) if newest else None
            if refused:
                raise RepositoryError(refused.reason)
            if name not in self._serving:
                raise RepositoryError(f"model {name} has no version that the version policy wants")

    async def unload(self, name: str) -> None:
        """Serve a model no more, until it is loaded again.

        Raises:
            UnknownModelError: it is not served.
        """
        async with self._lock:
            if name not in self._serving:
                raise UnknownModelError(f"model {name!r:.80} is not loaded")
            self._unloaded.add(name)
            self._keep(name, ())

    def close(self) -> None:
        self._opener.shutdown(wait=False)
        for name in list(self._serving):
            self._keep(name, ())

    def _catalogue(self) -> Catalogue:
        """What there is; a place that is gone for a moment takes nothing away."""
        found: dict[str, Mapping[int, Path]] = {name: {} for name in self._serving}
        for source in self._sources:
            with contextlib.suppress(RepositoryError, OSError):
                for name, files in catalogue([source]).items():
                    found[name] = found.get(name) or files
        return found

    async def _sync(self, found: Catalogue, *, settled: bool) -> list[str]:
        """Open what the policy wants, newest first, until it has enough; then drop the rest.

        To be called with the lock.

        Args:
            settled: leave alone a file that changed since it was last looked at.

        Returns:
            What was refused, and why.
        """
        before = dict(self._refused)
        for name, files in found.items():
            if name in self._unloaded:
                continue
            kept: list[int] = []
            for version in self._policy.candidates(files):
                if len(kept) == self._policy.newest:
                    break
                if await self._serves(name, version, files[version], settled):
                    kept.append(version)
            if kept:
                self._keep(name, kept)
        return [
            f"refused {name} version {version}: {refused.reason}"
            for (name, version), refused in self._refused.items()
            if before.get((name, version)) is not refused
        ]

    async def _serves(self, name: str, version: int, path: Path, settled: bool) -> bool:
        """Whether this version answers, after an attempt to open it if it is new or changed."""
        current = signature(path)
        key = (name, version)
        is_open = version in self._serving.get(name, {})
        refused = self._refused.get(key)
        if is_open and self._signatures[key] == current:
            return True
        before, self._seen[path] = self._seen.get(path), current
        if current is None or (settled and before != current):
            return is_open
        if settled and refused and refused.signature == current:
            return is_open
        started = time.perf_counter()
        try:
            opened = await asyncio.get_running_loop().run_in_executor(
                self._opener, self._open_file, path, self._plan(name)
            )
        except (LockstepError, OSError, MemoryError) as error:
            reason = printable(f"{error}" or type(error).__name__)
            self._refused[key] = _Refused(current, reason)
            metrics.loads.labels(name, str(version), "refused").inc()
            return is_open
        self._refused.pop(key, None)
        served = self._serve(name, version, opened)
        old = self._serving.setdefault(name, {}).get(version)
        self._serving[name][version], self._signatures[key] = served, current
        if old:
            old.retire()
        metrics.loads.labels(name, str(version), "loaded").inc()
        _log.info(
            "loaded %s version %d in %.2f s: %s", name, version, time.perf_counter() - started,
            _described(served, opened),
        )  # fmt: skip
        return True

    def _plan(self, name: str) -> Plan | None:
        versions = self.versions(name)
        return versions[-1].plan if versions else None

    def _keep(self, name: str, versions: Sequence[int]) -> None:
        serving = self._serving[name]
        for version in [version for version in serving if version not in versions]:
            serving.pop(version).retire()
            self._signatures.pop((name, version), None)
            _log.info("retired %s version %d", name, version)
        if not serving:
            del self._serving[name]


def _log_all(refusals: Sequence[str]) -> None:
    for text in refusals:
        _log.error("%s", text)


def _names(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))[:400] or "none"


def _described(served: Served, opened: Opened) -> str:
    plan = served.plan
    batching = f"batches of up to {plan.batch}" if plan.batch > 1 else "no batching"
    where = "in the event loop" if plan.inline else f"{plan.callers} at a time"
    text = (
        f"{batching}, {plan.threads} thread{'s' * (plan.threads > 1)} a call, {where}, "
        f"{1 / plan.seconds_per_image:,.0f} images/s, queue of {served.max_queue}"
    )
    if opened.trials:
        tried = ", ".join(
            f"{trial.callers}x{trial.threads} threads batch {trial.batch}: "
            f"{trial.throughput:,.0f}/s"
            for trial in opened.trials
        )
        text += f" (tried {tried})"
    return text
