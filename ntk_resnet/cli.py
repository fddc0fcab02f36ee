"""`ntk-resnet`: arguments, tables and exit codes; the work is done by the library.

Heavy imports wait until a command runs, so that `--help` is quick. Commands compute in
float64: they switch JAX's 64-bit mode on. Results go to standard output (with `--json`
a single JSON object and nothing else), progress and errors to standard error.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

import tyro

_File = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE.json")]
_Folder = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="DIR")]
_Source = Annotated[str, tyro.conf.arg(metavar="NAME|FILE")]


@dataclasses.dataclass(frozen=True)
class Report:
    """The depth study as a web page, with figures and data beside it."""

    out: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")] = pathlib.Path("report")
    """Folder for index.html, figures/ and data/; finished parts in it are reused."""
    quick: bool = False
    """A smaller study, in about a minute."""
    data: _Source = "digits"
    """"digits", or a .npz file with x and y, or a CSV (target last, or named y)."""
    json: bool = False
    """Print the verdicts as JSON."""


@dataclasses.dataclass(frozen=True)
class Depth:
    """How the kernel of the data changes with depth."""

    spec: _File = None
    """A network as nr.to_json writes it; by default the five of the report."""
    depths: tuple[int, ...] = (1, 10, 100, 1000)
    """Numbers of hidden layers or blocks."""
    data: _Source = "digits"
    """As for report; at most 300 rows of it are used."""
    out: _Folder = None
    """Also save the numbers (zarr, CSV) and a figure there."""
    json: bool = False
    """Print the numbers as JSON."""


@dataclasses.dataclass(frozen=True)
class Width:
    """How fast the kernels of finite networks approach the closed forms."""

    widths: tuple[int, ...] = (64, 128, 256)
    """Hidden widths."""
    seeds: int = 10
    """Networks of each width."""
    spec: _File = None
    """A network as nr.to_json writes it; by default a ResNet of depth 3."""
    data: _Source = "digits"
    """As for report; 12 rows of it are used."""
    out: _Folder = None
    """Also save the numbers (zarr, CSV) and a figure there."""
    json: bool = False
    """Print the numbers as JSON."""


@dataclasses.dataclass(frozen=True)
class Gram:
    """The kernel matrix of the data, written tile by tile; run again to go on."""

    spec: Annotated[pathlib.Path, tyro.conf.arg(metavar="FILE.json")]
    """The network, as nr.to_json writes it."""
    store: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")]
    """Where to write it: a zarr store. One of the same matrix is completed."""
    data: _Source = "digits"
    """As for report; all rows are used."""
    get: Literal["ntk", "nngp", "ntk_gap", "nngp_gap"] = "ntk"
    """The normalised kernel, or one minus it."""
    dtype: Literal["float32", "float64"] = "float64"
    """Of the matrix, and of the computation."""
    json: bool = False
    """Print what was written as JSON."""


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Versions, devices, and whether the parts this package stands on work."""

    json: bool = False
    """Print the findings as JSON."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    0: done; 1: `doctor` found something broken; 2: an argument or a file cannot be
    used, or the output cannot be written (one line on standard error says why); 130:
    interrupted, what was finished is kept.
    """
    commands: dict[str, Any] = {
        "report": Report,
        "depth": Depth,
        "width": Width,
        "gram": Gram,
        "doctor": Doctor,
    }
    runners: dict[type, Any] = {
        Report: _report,
        Depth: _depth,
        Width: _width,
        Gram: _gram,
        Doctor: _doctor,
    }
    chosen = tyro.extras.subcommand_cli_from_dict(
        commands,
        args=args,
        prog="ntk-resnet",
        description="Neural tangent kernels of residual and plain networks.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # whatever a library might print
            _use_float64()
            code, show = runners[type(chosen)](chosen)
        show()
        return code
    except KeyboardInterrupt:
        print("ntk-resnet: interrupted; finished parts are kept.", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError) as error:
        print(f"ntk-resnet: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _use_float64() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)


# ----------------------------------------------------------------------------- commands
# Each returns an exit code and what prints the result.


def _report(chosen: Report):
    from ntk_resnet import report
    from ntk_resnet.data import load_data
    from ntk_resnet.studies import depth_claims, depth_study

    start = time.perf_counter()
    data = load_data(chosen.data)
    sizes = depth_study.QUICK if chosen.quick else depth_study.FULL
    with _progress() as progress:
        results = depth_study.run(chosen.out / "data", data, sizes, progress)
    claims = depth_claims.judge(results)
    page = report.write(chosen.out, results, claims)
    rows = _records(claims)
    seconds = round(time.perf_counter() - start, 1)

    def show():
        if chosen.json:
            answer = {"page": str(page), "seconds": seconds, "claims": rows}
            return _print_json(answer | {"provenance": claims.attrs})
        columns = {"claim": "claim", "statement": "prediction"}
        columns |= {"prediction": "predicted", "measured": "measured", "holds": "holds"}
        _print_table(f"the depth study on {data.name}", columns, rows)
        print(f"{page}  ({seconds:.0f} s)")

    return 0, show


def _depth(chosen: Depth):
    from ntk_resnet import figures
    from ntk_resnet.data import load_data
    from ntk_resnet.studies import depth_measurements as measure

    families = measure.FAMILIES
    if chosen.spec is not None:
        families = {chosen.spec.stem: _read_spec(chosen.spec)}
    data = load_data(chosen.data)
    _prepare(chosen.out)
    with _progress() as progress:
        result = measure.degeneracy_on_data(
            data, depths=chosen.depths, rows=300, families=families, progress=progress
        )
    saved = _save(chosen.out, "depth", result, figures.plot_degeneracy)
    columns = {
        "family": "network",
        "depth": "depth",
        "ntk_mean": "mean NTK",
        "predicted_ntk": "predicted",
        "distance": "distance to 1/4",
        "nngp_gap": "NNGP gap",
        "predicted_nngp_gap": "predicted",
        "condition_number": "condition number",
        "effective_rank": "effective rank",
    }
    title = f"NTK of {result.attrs['rows']} rows of {data.name}"
    return 0, _shower(chosen, result, columns, title, saved)


def _width(chosen: Width):
    from ntk_resnet import figures
    from ntk_resnet.data import load_data
    from ntk_resnet.studies import depth_measurements as measure

    spec = measure.WIDTH_SPEC if chosen.spec is None else _read_spec(chosen.spec)
    data = load_data(chosen.data)
    _prepare(chosen.out)
    with _progress() as progress:
        result = measure.agreement_with_width(
            data,
            widths=chosen.widths,
            seeds=chosen.seeds,
            spec=spec,
            progress=progress,
        )
    saved = _save(chosen.out, "width", result, figures.plot_width)
    columns = {
        "width": "width",
        "ntk_error_mean": "NTK error",
        "ntk_error_sem": "± s.e.",
    }
    columns |= {"nngp_error_mean": "NNGP error", "nngp_error_sem": "± s.e."}
    exponents = ", ".join(
        f"{name.upper()} {float(result[f'{name}_exponent']):.3f} "
        f"[{float(result[f'{name}_exponent_low']):.3f}, "
        f"{float(result[f'{name}_exponent_high']):.3f}]"
        for name in ("ntk", "nngp")
    )
    title = f"relative errors of {chosen.seeds} networks; exponents: {exponents}"
    return 0, _shower(chosen, result, columns, title, saved)


def _gram(chosen: Gram):
    import ntk_resnet as nr

    spec = _read_spec(chosen.spec)
    x = nr.load_data(chosen.data).x.astype(chosen.dtype)
    start = time.perf_counter()
    with _progress() as progress:
        matrix = nr.gram(spec, x, get=chosen.get, store=chosen.store, progress=progress)
    seconds = round(time.perf_counter() - start, 2)
    found = {"store": str(chosen.store), "rows": len(matrix), "get": chosen.get}
    found |= {"dtype": str(matrix.dtype), "engine": matrix.attrs["engine"]}
    found |= {"tile": matrix.attrs["tile"], "seconds": seconds}

    def show():
        if chosen.json:
            return _print_json(found | {"provenance": matrix.attrs})
        _print_table("", {name: name for name in found}, [found])

    return 0, show


def _doctor(chosen: Doctor):
    from ntk_resnet import records
    from ntk_resnet.studies import checkup

    findings = checkup.examine()
    code = 0 if all(finding.works for finding in findings) else 1

    def show():
        rows = [finding._asdict() for finding in findings]
        if chosen.json:
            found = {"works": code == 0, "checks": rows}
            return _print_json(found | {"provenance": records.provenance()})
        for key, value in records.provenance().items():
            print(f"{key:16} {value}")
        _print_table("", {"check": "check", "works": "works", "detail": "detail"}, rows)

    return code, show


# --------------------------------------------------------------------------- in and out


def _read_spec(path: pathlib.Path):
    from ntk_resnet.architectures import from_json

    try:
        return from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"spec file {str(path)!r} is not text.") from None
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"spec file {str(path)!r} cannot be read: {reason}.") from None


def _prepare(out: pathlib.Path | None) -> None:
    """Finds out that a folder is not writable before anything is computed."""
    from ntk_resnet import records

    if out is not None:
        records.check_writable(out)


def _save(out: pathlib.Path | None, name: str, result, draw) -> list[str]:
    from ntk_resnet import figures, records

    if out is None:
        return []
    records.save(result, out / f"{name}.zarr", csv=True)
    figures.save(draw(result), out / f"{name}.svg")
    return [str(path) for path in sorted(out.glob(f"{name}.*"))]


def _shower(chosen, result, columns, title, saved):
    rows = _records(result)

    def show():
        if chosen.json:
            answer = {"rows": rows, "saved": saved, "provenance": result.attrs}
            scalars = {k: v.item() for k, v in result.data_vars.items() if not v.dims}
            return _print_json(scalars | answer)
        _print_table(title, columns, rows)
        for path in saved:
            print(path)

    return show


def _records(result) -> list[dict[str, Any]]:
    """Variables over the leading dimensions as rows, one dictionary a point."""
    dims = [dim for dim in ("claim", "family", "depth", "width") if dim in result.dims]
    names = [n for n, v in result.data_vars.items() if set(v.dims) == set(dims)]
    table = result[names].stack(point=dims)
    return [
        {dim: table[dim].values[k].item() for dim in dims}
        | {name: table[name].values[k].item() for name in names}
        for k in range(table.sizes["point"])
    ]


def _print_json(value: Any) -> None:
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


def _print_table(title: str, columns: dict[str, str], rows: Iterable[dict]) -> None:
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
def _progress() -> Iterator[Any]:
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
            bar.update(task, completed=done, total=total, description=description)

        yield progress


def _log_lines(console):
    start, last, said = time.perf_counter(), "", 0.0

    def progress(done, total, description):
        nonlocal last, said
        seconds = time.perf_counter() - start
        if description != last or seconds > said + 10:
            last, said = description, seconds
            console.print(
                f"{done / total:4.0%} {seconds:4.0f} s  {description}", markup=False
            )

    return progress
