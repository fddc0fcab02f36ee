"""Times and memory of cases side by side: each in a process of its own, run in turns.

A benchmark is a file with one question. It lists `Case`s, `measure` runs them, and
`publish` prints the records and appends them, one JSON line each, to the results of
this kind of machine. What is measured of a case:

* `compile_s`, compilation; `first_s`, all that the first result takes, with it;
* `median_s`, `spread_s` (interquartile range) of the runs after that, each waited for.
  The cases take turns, so that what else the machine does hits all of them, and `ratio`
  is the median over the rounds of the time relative to the first case's;
* `peak_mb`, the memory of the process when it ends, of which `before_mb` were there
  before the first run; `device_peak_mb` on devices that count theirs; `temporary_mb`,
  what a program compiled ahead of time allocates beside its arguments and results.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import pathlib
import re
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from ntk_resnet.records.provenance import provenance

RESULTS = pathlib.Path(__file__).parent / "results"


class Prepared(NamedTuple):
    """What is timed, and the compilation if it is over: else the first run holds it.

    `after` is called after each run and not timed.
    """

    run: Callable[[], Any]
    compile_s: float | None = None
    after: Callable[[], Any] = lambda: None
    temporary_mb: float | None = None  # of the compiled program, by XLA's account


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to the answer: `prepare(**sizes)` is called in the case's own process."""

    name: str
    prepare: Callable[..., Prepared]  # of a module, so that the process can import it
    sizes: dict[str, Any]  # plain data; part of the record


def compiled(function: Callable[..., Any], *args: Any) -> Prepared:
    """The jitted function at these arguments, compiled ahead of time."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    taken = time.perf_counter() - start
    temporary = program.memory_analysis().temp_size_in_bytes / 1e6
    return Prepared(lambda: program(*args), taken, temporary_mb=temporary)


def measure(
    question: str, cases: Sequence[Case], *, repeats: int = 7
) -> list[dict[str, Any]]:
    """One record a case; `repeats` rounds (two or more) in which every case runs once.

    Raises:
        RuntimeError: a case failed; the text holds its traceback.
    """
    # The processes share the accelerator: none may take all its memory in advance.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    workers: list[_Worker] = []
    firsts = []
    try:
        for case in cases:
            workers.append(_Worker(case))
            firsts.append(workers[-1].result())
        rounds = [[worker.ask("run") for worker in workers] for _ in range(repeats)]
        ends = [worker.ask("end") for worker in workers]
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
    found = []
    for at, (case, first, end) in enumerate(zip(cases, firsts, ends, strict=True)):
        runs = [times[at] for times in rounds]
        low, median, high = statistics.quantiles(runs, n=4, method="inclusive")
        compile_s = first["compile_s"]
        whole = first["run_s"] + (compile_s or 0.0)
        times = {
            "compile_s": max(0.0, whole - median) if compile_s is None else compile_s,
            "first_s": whole,
            "median_s": median,
            "spread_s": high - low,
            "repeats": repeats,
            "ratio": statistics.median(times[at] / times[0] for times in rounds),
            "ratio_to": cases[0].name,
        }
        found.append(_record(question, case.name, case.sizes, times | end))
    return found


def note(question: str, name: str, sizes: dict[str, Any], **values: Any) -> dict:
    """The record of a case that is not timed, found in this process."""
    return _record(question, name, sizes, values | _machine(_cores()))


def _record(question, name, sizes, values):
    rounded = {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in values.items()
    }
    return {"question": question, "case": name, "sizes": sizes, **rounded}


# ------------------------------------------------------------------- a case's process


class _Worker:
    """A case in a fresh process, which waits until it is asked."""

    def __init__(self, case: Case):
        self.case = case
        # Not forked: that would slow a first run by the copies of its pages.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, case), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process ends the pipe

    def result(self) -> Any:
        try:
            found = self.pipe.recv()
        except EOFError:
            self.process.join()
            found = _Failure(f"it ended with exit code {self.process.exitcode}.")
        if isinstance(found, _Failure):
            raise RuntimeError(
                f"the case {self.case.name!r} {self.case.sizes} failed: {found.why}"
            )
        return found

    def ask(self, what: str) -> Any:
        self.pipe.send(what)
        return self.result()


class _Failure(NamedTuple):
    why: str


def _serve(pipe, case: Case) -> None:
    try:
        _answer(pipe, case)
    except Exception:
        pipe.send(_Failure(traceback.format_exc()))


def _answer(pipe, case: Case) -> None:
    jax.config.update("jax_enable_x64", True)
    cores = _cores()  # a case may do with fewer
    prepared = case.prepare(**case.sizes)
    jax.devices()  # that JAX starts is no part of anybody's first result
    before = _peak_mb()
    pipe.send({"run_s": _timed(prepared), "compile_s": prepared.compile_s})
    while pipe.recv() == "run":
        pipe.send(_timed(prepared))
    memory = {"before_mb": before, "peak_mb": _peak_mb()}
    if prepared.temporary_mb is not None:
        memory["temporary_mb"] = prepared.temporary_mb
    device = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in device:
        memory["device_peak_mb"] = device["peak_bytes_in_use"] / 1e6
    pipe.send(memory | _machine(cores))


def _timed(prepared):
    start = time.perf_counter()
    jax.block_until_ready(prepared.run())
    taken = time.perf_counter() - start
    prepared.after()
    return taken


def _peak_mb() -> float:
    """The most memory this process has held, in 10^6 bytes."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # Linux hands `ru_maxrss` on from the parent to a new process
        kilobytes = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if kilobytes:
            return int(kilobytes[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e6


def _cores() -> int | None:
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count()


def _machine(cores: int | None) -> dict[str, Any]:
    """Provenance; `machine` names the kind of device and the number of cores."""
    kind = re.sub(r"\W+", "-", jax.devices()[0].device_kind.lower()).strip("-")
    return {"machine": f"{kind}-{cores}-cores", **provenance()}


# -------------------------------------------------------------------- command and files


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for tests")
    parser.add_argument(
        "--save",
        nargs="?",
        const=RESULTS,
        type=pathlib.Path,
        metavar="FOLDER",
        help="append the records to FOLDER/<machine>.jsonl (default: results/)",
    )
    return parser


def run_questions(
    description: str | None,
    questions: dict[str, Callable[[argparse.Namespace], Any]],
    argv: Sequence[str] | None,
) -> int:
    """The command of a benchmark with several questions: those named, or all."""
    parser = options(description)
    parser.add_argument(
        "questions", nargs="*", metavar="question", default=list(questions)
    )
    chosen = parser.parse_args(argv)
    if unknown := set(chosen.questions) - set(questions):
        parser.error(
            f"unknown: {', '.join(unknown)}; choose from {', '.join(questions)}"
        )
    for name in chosen.questions:
        questions[name](chosen)
    return 0


def publish(found: Sequence[dict[str, Any]], folder: pathlib.Path | None) -> None:
    """Prints one line a record, and saves them if there is a folder."""
    for record in found:
        print(
            f"{record['question']:8} {record['case']:44} "
            f"first {seconds(record['first_s'])}  then {seconds(record['median_s'])} "
            f"(spread {seconds(record['spread_s'])})  {record['ratio']:8.3g} x  "
            f"{record['peak_mb']:6.0f} MB",
            flush=True,
        )
        save(record, folder)


def save(record: dict[str, Any], folder: pathlib.Path | None) -> None:
    """Appends the record to the file of its machine in `folder`, if there is one."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{record['machine']}.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")


def latest(folder: pathlib.Path = RESULTS) -> list[dict[str, Any]]:
    """The saved records, of equal cases on equal machines the last one only."""
    found: dict[str, dict] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for record in map(json.loads, path.read_text().splitlines()):
            names = ("machine", "question", "case", "sizes")
            key = json.dumps([record[name] for name in names], sort_keys=True)
            found.pop(key, None)
            found[key] = record
    return list(found.values())


def seconds(value: float) -> str:
    """A time to three digits, in s, ms or µs."""
    unit, factor = next(
        ((u, f) for u, f in (("s", 1), ("ms", 1e3)) if value * f >= 1), ("µs", 1e6)
    )
    return f"{value * factor:.3g} {unit}"
