"""Jobs that the page asks for, and the processes that do them.

submit -> queued -> running -> done | failed | paused; a paused job, or a fit that was stopped, can
be resumed: what it needs lies in its folder. A worker that dies takes its job's process with it and
nothing else. An owner is one tab of a browser; when no page of an owner is there, its jobs are
paused, and later forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.studio.desk import Wire
from inr import errors
from inr.errors import InrError, UsageError

ALIVE = ("queued", "running")

STATES = ("fit.snapshot", "compare.json")
"""Files of a job's folder from which a task goes on."""

EVENTS_KEPT = 2000
POLL_SECONDS = 0.05
WATCH_SECONDS = 0.5
"""A watcher wakes at least so often."""

STILLBORN = 3
"""Processes in a row that end before they are ready; after them there is no further one."""


@dataclass(frozen=True)
class Bounds:
    """What the service lets its visitors use.

    Args:
        queued: Jobs that wait at most, of all visitors together.
        queued_each: The same of one visitor.
        kept_each: Finished jobs of a visitor whose files are kept; the oldest goes first.
        grace: Seconds without any page of a visitor until its jobs are paused: a reload is faster.
        keep: Seconds without any page until all of a visitor's files are deleted.
        patience: Seconds that a job has to stop before its process is ended.
    """

    queued: int = 32
    queued_each: int = 4
    kept_each: int = 8
    grace: float = 4.0
    keep: float = 3600.0
    patience: float = 10.0


@dataclass(eq=False)
class Job:
    """One piece of work of a visitor.

    Attributes:
        state: "queued", "running", "paused", "done" or "failed".
        phase: What a running task says that it is doing.
        frame: Sections that the page shows, as the task last sent them.
        frames: How many frames it has sent.
        progress: The last event of that name.
        history: [step, seconds, psnr, loss] of a fit, over all its resumed parts.
        events: All other events.
        result: What the task returned.
        error: Why it failed, or did not go on: one line.
        version: Grows with every piece of news.
    """

    owner: str
    task: str
    spec: dict[str, Any]
    folder: Path
    lane: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: str = "queued"
    phase: str = ""
    frame: list[dict[str, Any]] | None = None
    frames: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    history: list[list[Any]] = field(default_factory=list)
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    result: dict[str, Any] | None = None
    error: str | None = None
    error_kind: str = ""
    position: int = 0
    version: int = 0
    look: dict[str, Any] = field(default_factory=dict)
    asked: str | None = None
    asked_at: float = 0.0
    orphaned: bool = False

    @property
    def resumable(self) -> bool:
        """Whether it can go on from where it is."""
        stopped = self.state == "done" and (self.result or {}).get("ended") == "stopped"
        return self.state == "paused" or (stopped and self.kept)

    @property
    def kept(self) -> bool:
        """Whether its task left what it can go on from."""
        return any((self.folder / name).exists() for name in STATES)


class Service:
    """Runs jobs: one process for each device, and one for short calls.

    Args:
        root: A folder of this service alone, in which every job has one of its own.
        devices: Where fits run, "cpu" or "cuda:N" each, one at a time on each.
        bounds: What visitors may use.
        debug: Whether workers print tracebacks.
    """

    def __init__(
        self,
        root: Path,
        devices: Sequence[str] = ("cpu",),
        bounds: Bounds = Bounds(),
        *,
        debug: bool = False,
    ) -> None:
        self.root = root
        self.bounds = bounds
        self.debug = debug
        self._lock = threading.RLock()
        self._queue: list[Job] = []
        self._jobs: dict[str, Job] = {}
        self._present: Counter[str] = Counter()
        self._seen: dict[str, float] = {}
        self._broken: dict[str, str] = {}
        self._closed = False
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        threads = max(1, (os.cpu_count() or 2) // 2)
        self._workers = [_Worker(self, "fit", device, 0) for device in devices]
        self._workers.append(_Worker(self, "side", "cpu", threads))
        threading.Thread(target=self._keep_house, daemon=True, name="studio-house").start()

    # ------------------------------------------------------------------ what pages ask for

    def submit(self, owner: str, task: str, spec: Mapping[str, Any], *, lane: str = "fit") -> Job:
        """Queue a job.

        Raises:
            UsageError: there are too many already.
        """
        with self._lock:
            mine = [job for job in self._queue if job.owner == owner]
            if len(mine) >= self.bounds.queued_each:
                raise UsageError(f"{len(mine)} jobs of yours are waiting: stop one first")
            if len(self._queue) >= self.bounds.queued:
                raise UsageError(f"{len(self._queue)} jobs are waiting: come back in a while")
            if lane in self._broken:
                raise InrError(f"{task}: {self._broken[lane]}; see what the terminal says")
            self._seen[owner] = time.monotonic()
            job = Job(owner, task, dict(spec), Path(), lane)
            job.folder = self.folder(owner) / job.id
            job.folder.mkdir(mode=0o700)
            self._jobs[job.id] = job
            self._queue.append(job)
            self._forget_oldest(owner)
            self._dispatch()
            return job

    async def call(
        self, owner: str, task: str, spec: Mapping[str, Any], seconds: float = 30.0
    ) -> dict[str, Any]:
        """Run a short task beside the fits, and return what it returns.

        Raises:
            InrError: what the task raised, or it took longer than `seconds`.
        """
        job = self.submit(owner, task, spec, lane="side")
        end = time.monotonic() + seconds
        try:
            while job.state in ALIVE:
                begin = time.monotonic()
                if begin > end:
                    self._kill(job, f"took longer than {seconds:g} s, and was ended")
                queued = job.state == "queued"
                await asyncio.sleep(0.01)
                if queued:  # others' tasks are not its own time
                    end += time.monotonic() - begin
            if job.result is None:
                raise _error(job)
            return job.result
        finally:
            self.forget(job)

    def stop(self, job: Job) -> None:
        """End a job; what it has is kept, and made into a file where it is a fit."""
        with self._lock:
            if job.state == "queued":
                self._queue.remove(job)
                self._settle(job, "failed", "stopped before it began")
            elif job.state == "running":
                self._ask(job, "stop")
            elif job.state == "paused":
                job.asked = "stop"
                self._requeue(job)

    def pause(self, job: Job) -> None:
        """Let a job rest, and its device be free."""
        with self._lock:
            if job.state == "queued":
                self._queue.remove(job)
                self._settle(job, "paused")
            elif job.state == "running":
                self._ask(job, "pause")

    def resume(self, job: Job) -> None:
        """Queue a job again that was paused, or stopped.

        Raises:
            UsageError: there is nothing to go on with.
        """
        with self._lock:
            if not job.resumable:
                raise UsageError("there is no paused fit: start one")
            job.asked = None
            self._seen[job.owner] = time.monotonic()
            self._requeue(job)

    def look(self, job: Job, look: Mapping[str, Any]) -> None:
        """Set a job's live controls."""
        with self._lock:
            job.look = job.look | dict(look)
            worker = self._worker_of(job)
            if worker is not None:
                worker.send({"do": "look", "job": job.id, "look": job.look})

    def forget(self, job: Job) -> None:
        """Drop a job and its files; one that runs is ended."""
        with self._lock:
            if job.state == "queued":
                self._queue.remove(job)
            elif job.state == "running":
                self._kill(job, "was given up")
            self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    def jobs(self, owner: str, task: str | None = None) -> list[Job]:
        """A visitor's jobs, the latest last."""
        with self._lock:
            return [
                job
                for job in self._jobs.values()
                if job.owner == owner and task in (None, job.task)
            ]

    def find(self, owner: str, job_id: str) -> Job:
        """A visitor's own job.

        Raises:
            UsageError: there is none, or it is another's.
        """
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None or job.owner != owner:
            raise UsageError("there is no such job any more: start it again")
        return job

    def folder(self, owner: str) -> Path:
        """A folder for a visitor's own files."""
        name = hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()
        path = self.root / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    async def watch(self, job: Job) -> AsyncIterator[Job]:
        """Wake at a job's news, until it neither waits nor runs; the last state is yielded too."""
        seen = -1
        last = 0.0
        while True:
            now = time.monotonic()
            alive = job.state in ALIVE
            if job.version != seen or now - last >= WATCH_SECONDS or not alive:
                seen, last = job.version, now
                yield job
            if not alive:
                return
            await asyncio.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def present(self, owner: str) -> Iterator[None]:
        """While this lasts, a page of the visitor is there."""
        with self._lock:
            self._present[owner] += 1
            for job in self._jobs.values():
                if job.owner == owner and job.orphaned:
                    job.orphaned = False
        try:
            yield
        finally:
            with self._lock:
                self._present[owner] -= 1
                self._seen[owner] = time.monotonic()

    def touch(self, owner: str) -> None:
        """A page of the visitor is open, though no job is followed in it: its files stay."""
        with self._lock:
            if owner in self._seen:
                self._seen[owner] = time.monotonic()

    def processes(self) -> list[int]:
        """Process ids of the workers."""
        with self._lock:
            return [worker.process.pid for worker in self._workers]

    def busy(self) -> int:
        """Devices that fits run on now."""
        with self._lock:
            return sum(w.job is not None for w in self._workers if w.lane == "fit")

    def close(self) -> None:
        """End all workers and delete all files."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.end()
        shutil.rmtree(self.root, ignore_errors=True)

    # ------------------------------------------------------------------ what workers say

    def heard(self, worker: _Worker, message: dict[str, Any]) -> None:
        """Take a worker's message."""
        with self._lock:
            if worker not in self._workers:
                return
            name = message.pop("event")
            if name == "ready":
                worker.ready = True
                self._dispatch()
                return
            job = worker.job
            if job is None or message.pop("job") != job.id:
                return
            if name == "frame":
                job.frame = message["sections"]
                job.frames += 1
            elif name == "phase":
                job.phase = message["phase"]
            elif name == "progress":
                job.progress = message
                if message.get("psnr") is not None:
                    keys = ("step", "seconds", "psnr", "loss")
                    job.history.append([message[key] for key in keys])
            elif name in ("done", "failed"):
                self._ended(worker, job, name, message)
            else:
                job.events.append({"event": name} | message)
            job.version += 1

    def lost(self, worker: _Worker) -> None:
        """A worker has gone: its job waits for a resume, and another process takes its place."""
        code = worker.process.wait()
        with self._lock:
            if worker not in self._workers or self._closed:
                return
            job = worker.job
            place = self._workers.index(worker)
            failures = 0 if worker.ready or worker.ended else worker.failures + 1
            if failures >= STILLBORN:
                worker.job = None
                self._broken[worker.lane] = f"its process cannot start ({_cause(code)})"
                for waiting in [job for job in self._queue if job.lane == worker.lane]:
                    self._queue.remove(waiting)
                    self._settle(waiting, "failed", self._broken[worker.lane])
                return
            made = _Worker(self, worker.lane, worker.device, worker.threads)
            made.failures = failures
            self._workers[place] = made
            if job is not None and job.state == "running":
                why = (
                    f"its process ended unexpectedly ({_cause(code)}); try a smaller input or a "
                    "smaller field"
                )
                self._settle(job, "paused" if job.kept else "failed", why)
            self._dispatch()

    # ------------------------------------------------------------------ within

    def _dispatch(self) -> None:
        """Give waiting jobs to idle workers."""
        for worker in self._workers:
            if not worker.ready or worker.job is not None:
                continue
            job = next((job for job in self._queue if job.lane == worker.lane), None)
            if job is None:
                continue
            self._queue.remove(job)
            job.state, job.phase, job.error = "running", "starting", None
            job.asked_at = time.monotonic()
            job.version += 1
            worker.job = job
            worker.send(
                {
                    "do": "run",
                    "job": job.id,
                    "task": job.task,
                    "spec": job.spec,
                    "folder": str(job.folder),
                    "look": job.look,
                    "asked": job.asked,
                    "debug": self.debug,
                }
            )
        places: Counter[str] = Counter()
        for job in self._queue:
            if job.position != places[job.lane]:
                job.position = places[job.lane]
                job.version += 1
            places[job.lane] += 1

    def _requeue(self, job: Job) -> None:
        job.state, job.position = "queued", -1
        job.result = None
        job.version += 1
        self._queue.append(job)
        self._dispatch()

    def _ask(self, job: Job, what: str) -> None:
        if job.asked != "stop":  # which is more
            job.asked, job.asked_at = what, time.monotonic()
        worker = self._worker_of(job)
        if worker is not None:
            worker.send({"do": "ask", "job": job.id, "what": job.asked})

    def _ended(self, worker: _Worker, job: Job, name: str, message: dict[str, Any]) -> None:
        worker.job = None
        if name == "failed":
            job.error_kind = message["kind"]
            self._settle(job, "failed", message["error"])
        else:
            job.result = message["result"]
            self._settle(job, "paused" if message["result"].get("paused") else "done")
        self._dispatch()

    def _settle(self, job: Job, state: str, error: str | None = None) -> None:
        job.state, job.error, job.asked, job.phase = state, error, None, ""
        job.version += 1
        self._dispatch()

    def _kill(self, job: Job, reason: str) -> None:
        """End the process that runs a job, or take it out of the queue."""
        with self._lock:
            worker = self._worker_of(job)
            if worker is not None:
                worker.job, worker.ready = None, False
                worker.end()
                self._settle(job, "paused" if job.kept else "failed", reason)
            elif job in self._queue:
                self._queue.remove(job)
                self._settle(job, "failed", reason)

    def _worker_of(self, job: Job) -> _Worker | None:
        return next((worker for worker in self._workers if worker.job is job), None)

    def _forget_oldest(self, owner: str) -> None:
        mine = self.jobs(owner)
        settled = [job for job in mine if job.state not in ALIVE and job.lane == "fit"]
        for job in settled[: max(0, len(settled) - self.bounds.kept_each)]:
            self.forget(job)

    def _keep_house(self) -> None:
        """See to jobs whose page has gone, or which do not stop."""
        while not self._closed:
            time.sleep(0.25)
            with self._lock:
                now = time.monotonic()
                for job in list(self._jobs.values()):
                    self._attend(job, now)
                gone = [
                    owner
                    for owner, seen in self._seen.items()
                    if self._present[owner] <= 0 and now - seen > self.bounds.keep
                ]
                for owner in gone:
                    for job in self.jobs(owner):
                        self.forget(job)
                    shutil.rmtree(self.folder(owner), ignore_errors=True)
                    del self._seen[owner]
                    del self._present[owner]

    def _attend(self, job: Job, now: float) -> None:
        if job.state not in ALIVE or job.lane == "side":
            return
        absent = self._present[job.owner] <= 0 and now - self._seen[job.owner] > self.bounds.grace
        if absent and not job.orphaned:
            job.orphaned = True
            self.pause(job)
        # a file that is being written is worth waiting for, while somebody does
        if job.state == "running" and job.asked and (job.orphaned or job.phase != "coding"):
            patience = 3.0 if job.orphaned else self.bounds.patience
            if now - job.asked_at > patience:
                self._kill(job, f"did not stop within {patience:g} s, and was ended")


class _Worker:
    """A child process, and a thread that listens to it."""

    def __init__(self, service: Service, lane: str, device: str, threads: int) -> None:
        self.lane = lane
        self.device = device
        self.threads = threads
        self.ready = False
        self.ended = False
        self.failures = 0
        self.job: Job | None = None
        ours, theirs = socket.socketpair()
        with theirs:
            # torch's threads wait for each other by spinning, see `apps.cli.main`
            environment = {"GOMP_SPINCOUNT": "2000"} | os.environ
            number = str(theirs.fileno())
            self.process = subprocess.Popen(  # noqa: S603 (ourselves)
                [sys.executable, "-m", "apps.studio.worker", number, lane, device, str(threads)],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        self.wire = Wire(ours)
        threading.Thread(target=self._listen, args=(service,), daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; of a worker that has gone, `lost` tells."""
        with contextlib.suppress(OSError):
            self.wire.send(message)

    def end(self) -> None:
        """End the process at once."""
        self.ended = True
        with contextlib.suppress(OSError):
            self.process.kill()

    def _listen(self, service: Service) -> None:
        while (message := self.wire.receive()) is not None:
            service.heard(self, message)
        with contextlib.suppress(OSError):  # it may live on without its wire
            self.process.kill()
        self.wire.close()
        service.lost(self)


def _error(job: Job) -> InrError:
    """What a failed job's task raised."""
    known = getattr(errors, job.error_kind, InrError)
    return known(job.error or "failed") if issubclass(known, InrError) else InrError(job.error)


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
