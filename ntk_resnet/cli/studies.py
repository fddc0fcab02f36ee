"""The commands that compare networks by depth and width, `report`, and `doctor`.

`run` returns an exit code and what prints the result.
"""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from ntk_resnet.cli import terminal
from ntk_resnet.cli.reproduce import reproduce


@dataclasses.dataclass(frozen=True)
class Report:
    """The studies of Huang et al. 2020 and of your data as pages, with figures and
    data beside them."""

    out: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")] = pathlib.Path("report")
    """Folder for index.html, figures/ and data/; finished parts in it are reused."""
    quick: bool = False
    """Smaller sizes, in about two minutes."""
    data: terminal.Source = "digits"
    """"digits", "mnist", "cifar10", a .npz file with x and y, or a CSV (target last, or
    named y)."""
    json: bool = False
    """Print the ledger as JSON."""

    def run(self):
        from ntk_resnet.studies import catalogue

        studies = [catalogue.study(name) for name in ("huang2020", "digits")]
        return reproduce(self, studies, self.out)


@dataclasses.dataclass(frozen=True)
class Depth(terminal.Command):
    """How the kernel of the data changes with depth."""

    spec: terminal.SpecFile = None
    """A network as nr.to_json writes it; by default the five of the report."""
    depths: tuple[int, ...] = (1, 10, 100, 1000)
    """Numbers of hidden layers or blocks."""
    data: terminal.Source = "digits"
    """As for report; for a convolutional network, images: a name, or a .npz file with x
    of shape (n, height, width, channels)."""
    rows: int | None = None
    """At most so many rows of it are used: by default 300, or 40 images."""

    name = "depth"
    over = ("family", "depth")

    def measure(self, progress):
        from ntk_resnet._checks import check_count
        from ntk_resnet.studies.comparisons import degeneracy_on_data
        from ntk_resnet.studies.families import FAMILIES

        families = terminal.networks(self.spec, FAMILIES)
        rows = 40 if terminal.take_images(families.values()) else 300
        if self.rows is not None:
            rows = check_count("rows", self.rows, least=2)
        data = terminal.read_data(self.data, progress, families.values())
        return degeneracy_on_data(
            data,
            depths=self.depths,
            rows=rows,
            families=families,
            progress=progress,
        )

    def draw(self, result):
        from ntk_resnet.plot import panels

        return panels.degeneracy(result)

    def table(self, result):
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
        title = f"NTK of {result.attrs['rows']} rows of {result.attrs['data']}"
        return title, columns


@dataclasses.dataclass(frozen=True)
class Width(terminal.Command):
    """How far finite networks are from their kernel, by width and by depth."""

    widths: tuple[int, ...] = (64, 128, 256)
    """Hidden widths."""
    seeds: int = 10
    """Networks of each width."""
    depths: tuple[int, ...] = (2, 4, 8, 16)
    """Depths at which the dispersion of the NTK is measured, beside that of a plain
    ReLU network."""
    networks: int = 1000
    """Networks of each of these depths, all 32 wide."""
    spec: terminal.SpecFile = None
    """A network as nr.to_json writes it; by default a ResNet of depth 3."""
    data: terminal.Source = "digits"
    """As for report; 12 rows of it are used."""

    name = "width"
    over = ("width",)

    def measure(self, progress):
        from ntk_resnet._checks import check_count
        from ntk_resnet._inputs import check_depths
        from ntk_resnet.finite.dispersion import dispersion_of_families
        from ntk_resnet.specification.base import check_network
        from ntk_resnet.specification.networks import FeedForward
        from ntk_resnet.studies.huang2020.finite import SPEC, width

        depths = check_depths("depths", self.depths)
        check_count("networks", self.networks, least=2)
        ((name, spec),) = terminal.networks(self.spec, {"residual": SPEC}).items()
        check_network(spec)
        result = width(
            terminal.read_data(self.data, progress),
            widths=self.widths,
            seeds=self.seeds,
            spec=spec,
            progress=progress,
        )
        dispersion = dispersion_of_families(
            {"plain ReLU": FeedForward(depth=1, trained=spec.trained), name: spec},
            depths,
            32,
            self.networks,
            progress=progress,
        )
        dispersion.attrs = {
            f"dispersion_{key}": dispersion.attrs[key]
            for key in ("specs", "width", "seeds")
        }
        return result.merge(dispersion).assign_attrs(dispersion.attrs)

    def draw(self, result):
        from ntk_resnet.plot import panels

        return panels.width_and_dispersion(result)

    def table(self, result):
        columns = {"width": "width"}
        for name in ("ntk", "nngp"):
            columns[f"{name}_error_mean"] = f"{name.upper()} error"
            columns[f"{name}_error_sem"] = "± s.e."
            columns[f"{name}_shift"] = f"{name.upper()} bias"
            columns[f"{name}_shift_sem"] = "± s.e."
        title = f"relative errors of {self.seeds} networks; {_fits_of(result)}"
        return title, columns

    def show(self, result, saved):
        if not self.json:
            _show_dispersion(result, self.networks)
        super().show(result, saved)


def _fits_of(result):
    def said(fit):
        kernels = ("ntk", "nngp")
        both = (f"{k.upper()} {_interval(result, f'{k}_{fit}')}" for k in kernels)
        return ", ".join(both)

    return f"exponents: {said('exponent')}\nbias × width: {said('shift_constant')}"


def _interval(result, name):
    value, low, high = (float(result[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _show_dispersion(result, networks):
    columns = {
        "family": "network",
        "depth": "depth",
        "dispersion": "E NTK² / (E NTK)²",
        "dispersion_sem": "± s.e.",
        "predicted_dispersion": "predicted",
        "ntk_mean": "mean / closed form",
        "ntk_mean_sem": "± s.e.",
    }
    title = f"dispersion of the NTK of {networks} networks of width 32"
    rows = terminal.rows_of(result, ["family", "depth"])
    terminal.print_table(title, columns, rows)


@dataclasses.dataclass(frozen=True)
class Train(terminal.Command):
    """Trained networks beside the prediction of their infinite width."""

    widths: tuple[int, ...] = (32, 64, 128)
    """Hidden widths."""
    seeds: int = 6
    """Networks of each width."""
    spec: terminal.SpecFile = None
    """A network as nr.to_json writes it; by default a ResNet of depth 3."""
    data: terminal.Source = "digits"
    """As for report; the targets are its classes, or the real target."""
    rows: int = 16
    """Rows for training; as many others for testing."""
    loss: Literal["mse", "logistic", "softmax"] = "mse"
    """logistic tells the first class from the others."""
    learning_rate: float | None = None
    """Of gradient descent; by default 1/32 of its limit of stability."""
    batch_size: int | None = None
    """Rows of a step; by default all."""
    checkpoint: terminal.Folder = None
    """Keep the state there; a run that was ended goes on from it."""

    name = "train"
    over = ("width",)

    def measure(self, progress):
        from ntk_resnet import finite
        from ntk_resnet._checks import check_count
        from ntk_resnet.data.datasets import split
        from ntk_resnet.specification.base import check_network
        from ntk_resnet.studies.huang2020.finite import SPEC

        default = {"residual": SPEC}
        (spec,) = terminal.networks(self.spec, default).values()
        check_network(spec)
        data = terminal.read_data(self.data, progress)
        if check_count("rows", self.rows) > len(data) // 2:
            raise ValueError(
                f"rows must be at most half of the {len(data)} of {data.name}, got "
                f"{self.rows}; as many are for testing."
            )
        train, test = split(data, train=self.rows, test=self.rows, seed=0)
        return finite.train_study(
            spec,
            data.x[train],
            self._targets(data)[train],
            self.widths,
            self.seeds,
            x_test=data.x[test],
            loss=self.loss,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            checkpoint=self.checkpoint,
            progress=progress,
        )

    def draw(self, result):
        from ntk_resnet.plot import panels

        return panels.training(result)

    def table(self, result):
        return _title_of(result), {
            "width": "width",
            "final_loss": "final loss",
            "predicted_final_loss": "predicted",
            "largest_output_error": "largest difference to the prediction",
            "largest_own_kernel_error": "to the linearised network",
            "final_ntk_drift": "change of the NTK",
            "final_weights_distance": "change of the weights",
        }

    def show(self, result, saved):
        super().show(_by_width(result), saved)

    def _targets(self, data):
        """What the loss asks for."""
        import numpy as np

        from ntk_resnet.data.datasets import targets

        if self.loss == "mse":
            return targets(data)
        if data.classes is None:
            raise ValueError(
                f"loss {self.loss} needs classes, {data.name} has real targets; use "
                "--loss mse."
            )
        if self.loss == "logistic":
            return np.where(data.y == 0, 1.0, -1.0)
        return np.eye(len(data.classes))[data.y]


def _by_width(result):
    """The result with means over networks, at the end and of the largest errors."""
    last, means = result.isel(time=-1), {}
    for name in ("loss", "predicted_loss", "ntk_drift", "weights_distance"):
        where = (
            name.replace("loss", "final_loss") if "loss" in name else f"final_{name}"
        )
        means[where] = last[name].mean("seed")
    for name in ("output_error", "own_kernel_error"):
        means[f"largest_{name}"] = result[f"max_{name}"].max("time").mean("seed")
    return result.assign(means)


def _title_of(result):
    exponents = ", ".join(
        f"{label} {_interval(result, f'{name}_exponent')}"
        for name, label in (
            ("max_output_error", "prediction"),
            ("max_own_kernel_error", "linearised"),
            ("drift", "change of the NTK"),
        )
    )
    title = f"{result.sizes['seed']} networks a width; exponents: {exponents}"
    warning = result.attrs.get("warning")
    return f"{title}\nwarning: {warning}" if warning else title


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Versions, devices, and whether the parts this package stands on work."""

    json: bool = False
    """Print the findings as JSON."""

    def run(self):
        from ntk_resnet.cli import doctor
        from ntk_resnet.records.provenance import provenance

        findings = doctor.examine()
        code = 0 if all(finding.works for finding in findings) else 1

        def show():
            rows = [finding._asdict() for finding in findings]
            where = provenance()
            if self.json:
                found = {"works": code == 0, "checks": rows}
                return terminal.print_json(found | {"provenance": where})
            for key, value in where.items():
                print(f"{key:16} {value}")
            columns = {"check": "check", "works": "works", "detail": "detail"}
            terminal.print_table("", columns, rows)

        return code, show
