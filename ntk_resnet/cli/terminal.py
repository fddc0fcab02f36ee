"""What all commands share: reading specifications, saving, tables, JSON, progress."""

import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar

import tyro

from ntk_resnet._checks import check_writable

SpecFile = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE.json")]
Folder = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="DIR")]
Source = Annotated[str, tyro.conf.arg(metavar="NAME|FILE")]


def read_spec(path: pathlib.Path):
    """The network that a file holds as JSON."""
    from ntk_resnet.specification.json import from_json

    try:
        return from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"spec file {str(path)!r} is not text.") from None
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"spec file {str(path)!r} cannot be read: {reason}.") from None


def networks(path: pathlib.Path | None, default: dict[str, Any]) -> dict[str, Any]:
    """The network in a file, by the file's name, or the default ones."""
    return default if path is None else {path.stem: read_spec(path)}


def read_data(source: str, progress: Any, networks: Iterable[Any] = ()):
    """The data set of that name, or in that file; for convolutional networks images."""
    from ntk_resnet.data.datasets import load_data

    return load_data(source, images=take_images(networks), progress=progress)


def take_images(networks: Iterable[Any]) -> bool:
    """Whether some of the networks are convolutional."""
    return any(spec.takes_images for spec in networks)


def prepare(out: pathlib.Path | None) -> None:
    """Finds out that a folder is not writable before anything is read or computed.

    It is made when there is something to put into it.
    """
    if out is not None:
        there = (folder for folder in (out, *out.parents) if folder.exists())
        check_writable(next(there))


def save(out: pathlib.Path | None, name: str, result, draw) -> list[str]:
    """Saves a result and its figure; the paths of what is there then."""
    from ntk_resnet.plot import drawing
    from ntk_resnet.records import results as records

    if out is None:
        return []
    records.save(result, out / f"{name}.zarr", csv=True)
    drawing.save(draw(result), out / f"{name}.svg")
    return [str(path) for path in sorted(out.glob(f"{name}.*"))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A command that measures, saves and shows: its options, and these three steps."""

    out: Folder = None
    """Also save the numbers (zarr, CSV) and a figure there."""
    json: bool = False
    """Print the numbers as JSON."""

    name: ClassVar[str]  # of what is saved
    over: ClassVar[tuple[str, ...]]  # a row of the table for each point of these

    def measure(self, progress: Any) -> Any:
        """The result, a Dataset."""
        raise NotImplementedError

    def draw(self, result: Any) -> Any:
        """Its figure."""
        raise NotImplementedError

    def table(self, result: Any) -> tuple[str, dict[str, str]]:
        """Title, and the labels of the variables that are its columns."""
        raise NotImplementedError

    def run(self):
        with progress_bar() as progress:
            result = self.measure(progress)
        saved = save(self.out, self.name, result, self.draw)
        return 0, functools.partial(self.show, result, saved)

    def show(self, result: Any, saved: list[str]) -> None:
        """Prints the table and the paths of what is saved, or all there is as JSON."""
        rows = rows_of(result, self.over)
        if not self.json:
            title, columns = self.table(result)
            print_table(title, columns, rows)
            for path in saved:
                print(path)
            return
        answer = {"rows": rows, "saved": saved, "provenance": result.attrs}
        for name, value in result.variables.items():
            if name not in rows[0]:
                answer[name] = value.values.tolist()
        print_json(answer)


def rows_of(result, over: Sequence[str]) -> list[dict[str, Any]]:
    """The variables over these dimensions as rows, one dictionary a point."""
    names = [n for n, v in result.data_vars.items() if set(v.dims) == set(over)]
    table = result[names].stack(point=over)
    return [
        {dim: table[dim].values[k].item() for dim in over}
        | {name: table[name].values[k].item() for name in names}
        for k in range(table.sizes["point"])
    ]


def print_json(value: Any) -> None:
    """JSON has neither NaN nor infinity: both become null."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    print(json.dumps(plain(value), ensure_ascii=False))


def print_table(title: str, columns: dict[str, str], rows: Iterable[dict]) -> None:
    """The `columns` of `rows`, each under its label."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    rows = list(rows)
    for name, label in columns.items():
        text = bool(rows) and isinstance(rows[0][name], str | bool)
        table.add_column(label, justify="left" if text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in columns))
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:  # a file or a pipe: no reason to squeeze
        console.width = 160
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.5g}"
    return str(value)


@contextlib.contextmanager
def progress_bar() -> Iterator[Any]:
    """A bar with the time left on standard error; in a log file, lines."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _log_lines(console)
        return
    bar = Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.description}", markup=False),
        console=console,
    )
    with bar:
        task = bar.add_task("starting", total=None)

        def progress(done, total, description):
            known = total if math.isfinite(total) else None
            bar.update(task, completed=done, total=known, description=description)

        yield progress


def _log_lines(console):
    start, last, said = time.perf_counter(), "", 0.0

    def progress(done, total, description):
        nonlocal last, said
        seconds = time.perf_counter() - start
        if description != last or seconds > said + 10:
            last, said = description, seconds
            share, left = "", "time left unknown"
            if math.isfinite(total):
                share = f"{done / total:4.0%} "
                if done > 0:
                    left = f"{seconds * (total - done) / done:.0f} s left"
            text = f"{share}{seconds:4.0f} s, {left}: {description}"
            console.print(text, markup=False, soft_wrap=True)

    return progress
