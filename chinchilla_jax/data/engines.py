"""Engines that run a stage over its tasks: in this process, on the cores of this machine, or on Apache Beam."""

import contextlib
import json
import logging
import multiprocessing
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from chinchilla_jax import locks
from chinchilla_jax.data import fs
from chinchilla_jax.data.stages import encoding, job, merging, near, reading, sharding
from chinchilla_jax.errors import UserError

SHARE = 8 << 20  # bytes of text that are worth the start of a worker
RETRIES = 2  # times that tasks are tried again after a worker died
LOOK = 5.0  # seconds between two looks at which tasks of a pipeline have ended
AHEAD = 2  # tasks a worker that wait in its queue

Done = Callable[[dict], None]

STAGES: dict[str, Callable[[job.Job, dict], dict]] = {
    "read": reading.run,
    "merge": merging.run,
    "near": near.run,
    "settle": near.settle,
    "encode": encoding.run,
    "shard": sharding.run,
}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_task(root: str, version: str, stage: str, task: dict) -> dict:
    """Run a task, unless its result is there already; gives the result."""
    path = result_path(root, stage, task)
    if fs.exists(path):
        return json.loads(fs.read(path))
    found = STAGES[stage](job.load(root, version), task)
    fs.write(path, json.dumps(found).encode())
    return found


def result_path(root: str, stage: str, task: dict) -> str:
    """Where the result of a task lies."""
    return fs.join(root, stage, f"{task['name']}.json")


class Local:
    """Processes of this machine; a corpus of `size` bytes that is small is worked on without any."""

    def __init__(self, workers: int, size: int):
        self._workers = min(workers or cores(), size // SHARE)
        self._pool: ProcessPoolExecutor | None = None

    def map(self, root: str, version: str, stage: str, tasks: list[dict], done: Done) -> list[dict]:
        """The results of all tasks, in their order; `done(task)` is called as each ends."""
        found: dict[int, dict] = {}
        for attempt in range(RETRIES + 1):
            try:
                for number, result in self._pass(root, version, stage, tasks, set(found)):
                    found[number] = result
                    done(tasks[number])
                break
            except BrokenProcessPool as error:
                self.close()
                if attempt == RETRIES:
                    raise UserError(
                        f"a worker that prepares text ({stage}) died {RETRIES + 1} times, most likely killed for want "
                        "of memory; lower --data.workers"
                    ) from error
        return [found[number] for number in range(len(tasks))]

    def _pass(
        self, root: str, version: str, stage: str, tasks: list[dict], had: set[int]
    ) -> Iterator[tuple[int, dict]]:
        left = [number for number in range(len(tasks)) if number not in had]
        if self._workers <= 1 or len(left) <= 1:
            yield from ((number, run_task(root, version, stage, tasks[number])) for number in left)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._workers, multiprocessing.get_context("spawn"), _start)
        waiting, queue = {}, iter(left)
        while True:
            for number in queue:
                waiting[self._pool.submit(run_task, root, version, stage, tasks[number])] = number
                if len(waiting) >= self._workers * AHEAD:
                    break
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _start() -> None:
    """In a worker: Ctrl-C is the parent's to handle, and a killed parent must not leave its workers behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


class Beam:
    """A pipeline of Apache Beam for each stage, whose workers reach the job's folder under the same path.

    A worker that fails is retried by the runner. `options` are those of Beam, as `runner=FlinkRunner job_name=x`.
    """

    def __init__(self, options: str):
        try:
            import apache_beam
        except ImportError as error:
            raise UserError(
                '--data.engine beam needs another package; in a clone, make env EXTRA=beam or pip install ".[beam]"'
            ) from error
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        self._beam = apache_beam
        try:
            words = shlex.split(options)
        except ValueError as error:
            raise UserError(f"--data.beam-options {options}: {error}; quote the words as in a shell") from error
        self._options = [word if word.startswith("--") else f"--{word}" for word in words]
        self._options.append("--default_sdk_harness_log_level=WARNING")

    def map(self, root: str, version: str, stage: str, tasks: list[dict], done: Done) -> list[dict]:
        """The results of all tasks, in their order; `done(task)` is called within `LOOK` seconds after each ends."""
        waiting = {f"{task['name']}.json": task for task in tasks}

        def look() -> None:
            with contextlib.suppress(OSError):  # reading the results will say it
                for name in fs.names(fs.join(root, stage)) & waiting.keys():
                    done(waiting.pop(name))

        look()
        if waiting:
            with locks.repeated(LOOK, look, "progress"):
                self._run(root, version, stage, list(waiting.values()))
            look()
        return [json.loads(fs.read(result_path(root, stage, task))) for task in tasks]

    def _run(self, root: str, version: str, stage: str, tasks: list[dict]) -> None:
        beam = self._beam
        try:
            options = beam.options.pipeline_options.PipelineOptions(self._options)
            with beam.Pipeline(options=options) as pipeline:
                _ = (
                    pipeline
                    | "tasks" >> beam.Create([json.dumps(task) for task in tasks])
                    | "spread" >> beam.Reshuffle()
                    | stage >> beam.Map(run_quietly, root, version, stage)
                )
        except (RuntimeError, OSError, ValueError) as error:
            last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise UserError(f"Apache Beam ended in stage {stage}: {last}; see --data.beam-options") from error
        failures = [fs.join(root, stage, f"{task['name']}.error") for task in tasks]
        for path in filter(fs.exists, failures):
            raise UserError(json.loads(fs.read(path)))

    def close(self) -> None:
        """Nothing is left open."""


def run_quietly(task: str, root: str, version: str, stage: str) -> None:
    """Run a task; what is the user's mistake is written down in place of a result, since a retry would not help."""
    found = json.loads(task)
    try:
        run_task(root, version, stage, found)
    except UserError as error:
        content = json.dumps(str(error)).encode()
        fs.write(fs.join(root, stage, f"{found['name']}.error"), content)


Engine = Local | Beam


@contextlib.contextmanager
def engine(kind: str, options: str, workers: int, size: int) -> Iterator[Engine]:
    """The engine for a corpus of `size` bytes."""
    made = Beam(options) if kind == "beam" else Local(workers, size)
    try:
        yield made
    finally:
        made.close()
