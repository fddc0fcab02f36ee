"""The commands that ask one question of one kernel, or of the study's five.

`run` returns an exit code and what prints the result.
"""

import dataclasses
import pathlib
import time
from typing import Annotated, Literal

import tyro

from ntk_resnet.cli import terminal


@dataclasses.dataclass(frozen=True)
class Gram:
    """The kernel matrix of the data, written tile by tile; run again to go on."""

    spec: Annotated[pathlib.Path, tyro.conf.arg(metavar="FILE.json")]
    """The network, as nr.to_json writes it."""
    store: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")]
    """Where to write it: a zarr store. One of the same matrix is completed."""
    data: terminal.Source = "digits"
    """As for depth; all rows are used."""
    get: Literal["ntk", "nngp", "ntk_gap", "nngp_gap"] = "ntk"
    """The normalised kernel, or one minus it."""
    dtype: Literal["float32", "float64"] = "float64"
    """Of the matrix, and of the computation."""
    json: bool = False
    """Print what was written as JSON."""

    def run(self):
        from ntk_resnet.kernels.gram.gram import fill
        from ntk_resnet.kernels.gram.make_plan import make_plan

        spec = terminal.read_spec(self.spec)
        start = time.perf_counter()
        with terminal.progress_bar() as progress:
            data = terminal.read_data(self.data, progress, [spec])
            x = data.x.astype(self.dtype)
            plan = make_plan(spec, x, get=self.get, store=self.store)
            matrix = fill(plan, self.store, progress)
        seconds = round(time.perf_counter() - start, 2)
        found = {"store": str(self.store), "rows": len(matrix), "get": self.get}
        found |= {"dtype": str(matrix.dtype), "engine": matrix.attrs["engine"]}
        found |= {"tile": matrix.attrs["tile"], "tile_bytes": plan.tile_bytes}
        found |= {"seconds": seconds}

        def show():
            if self.json:
                return terminal.print_json(found | {"provenance": matrix.attrs})
            terminal.print_table("", {name: name for name in found}, [found])

        return 0, show


@dataclasses.dataclass(frozen=True)
class Spectrum(terminal.Command):
    """Eigenvalues of the kernel matrix of the data."""

    spec: terminal.SpecFile = None
    """A network as nr.to_json writes it; by default five, plain and residual."""
    rows: int = 1000
    """Rows of the data; of more than 5000 the matrix is never in memory."""
    data: terminal.Source = "digits"
    """As for depth."""

    name = "spectrum"
    over = ("family",)

    def measure(self, progress):
        from ntk_resnet.studies import comparisons as measure

        networks = terminal.networks(self.spec, measure.NETWORKS)
        data = terminal.read_data(self.data, progress, networks.values())
        return measure.spectra_on_data(
            data, rows=self.rows, networks=networks, progress=progress
        )

    def draw(self, result):
        from ntk_resnet.plot import panels

        return panels.spectrum(result)

    def table(self, result):
        columns = {
            "family": "network",
            "condition_number": "condition number",
            "predicted_condition_number": "predicted at large depth",
            "effective_rank": "effective rank",
            "log_determinant": "ln det (ridge 0.001)",
        }
        title = f"NTK of {result.attrs['rows']} rows of {result.attrs['data']}"
        return title, columns


@dataclasses.dataclass(frozen=True)
class Mercer(terminal.Command):
    """Eigenvalues of a kernel on the sphere, by degree."""

    spec: terminal.SpecFile = None
    """A network as nr.to_json writes it; by default five, plain and residual."""
    dim: int = 3
    """Of the space: 2 is the circle."""
    max_degree: int = 120
    """The largest degree."""
    get: Literal["ntk", "nngp"] = "ntk"
    """Which kernel."""

    name = "mercer"
    over = ("family",)

    def measure(self, progress):
        from ntk_resnet.studies import comparisons as measure

        networks = terminal.networks(self.spec, measure.NETWORKS)
        return measure.mercer_spectra(
            dim=self.dim,
            max_degree=self.max_degree,
            get=self.get,
            networks=networks,
            progress=progress,
        )

    def draw(self, result):
        from ntk_resnet.plot import panels

        return panels.mercer(result)

    def table(self, result):
        from ntk_resnet.report import tables

        title = f"{self.get.upper()} on the sphere in {self.dim} dimensions"
        return title, tables.MERCER


@dataclasses.dataclass(frozen=True)
class LearningCurve(terminal.Command):
    """Error by the number of examples, predicted from the spectrum and measured."""

    spec: terminal.SpecFile = None
    """A network as nr.to_json writes it; by default five, plain and residual."""
    data: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE")] = None
    """As for depth; by default a known target on a sphere."""
    dim: int = 5
    """Of the space around the sphere."""
    sizes: tuple[int, ...] = (20, 50, 100, 200, 400)
    """Numbers of training points."""
    trials: int = 10
    """Random repetitions."""
    ridge: float = 1e-3
    """Relative to the mean diagonal."""

    name = "learning_curve"
    over = ("family", "n")

    def measure(self, progress):
        from ntk_resnet.studies import comparisons as measure

        networks = terminal.networks(self.spec, measure.NETWORKS)
        data = None
        if self.data is not None:
            data = terminal.read_data(self.data, progress, networks.values())
        return measure.learning_curves(
            data,
            sizes=self.sizes,
            trials=self.trials,
            dim=self.dim,
            ridge=self.ridge,
            networks=networks,
            progress=progress,
        )

    def draw(self, result):
        from ntk_resnet import plot

        return plot.learning_curve(result)

    def table(self, result):
        columns = {
            "family": "network",
            "n": "n",
            "test_mse": "predicted test MSE",
            "measured_test_mse": "measured",
            "measured_test_mse_error": "± s.e.",
            "train_mse": "predicted train MSE",
            "measured_train_mse": "measured",
            "measured_train_mse_error": "± s.e.",
        }
        title = f"regression with the NTK on {result.attrs['data']}"
        return title, columns


@dataclasses.dataclass(frozen=True)
class Regress(terminal.Command):
    """Regression or classification of the data with a kernel, over several ridges."""

    spec: terminal.SpecFile = None
    """A network as nr.to_json writes it; by default a ResNet of depth 1000, γ = 1/2."""
    ridges: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Relative to the mean diagonal."""
    test: float = 0.2
    """The share of the rows to test on."""
    data: terminal.Source = "digits"
    """As for depth; all rows are used."""

    name = "regress"
    over = ("ridge",)

    def measure(self, progress):
        from ntk_resnet.studies import comparisons as measure

        spec = measure.DEEP if self.spec is None else terminal.read_spec(self.spec)
        data = terminal.read_data(self.data, progress, [spec])
        return measure.regression_by_ridge(
            data, spec, ridges=self.ridges, test=self.test, progress=progress
        )

    def draw(self, result):
        from ntk_resnet.plot import panels

        return panels.ridge(result)

    def table(self, result):
        classify = bool(result.attrs["classes"])
        columns = {
            "ridge": "ridge",
            "test_error": "misclassified" if classify else "test MSE / variance",
            "loo_error": "leave-one-out",
            "log_marginal_likelihood": "ln marginal likelihood",
            "residual": "residual",
            "seconds": "seconds",
        }
        title = "{train} rows of {data} for training, {test} for testing, {solver}"
        title = title.format_map(result.attrs)
        return title, columns
