"""The depth study behind the report: what is measured, how large, saved part by part.

A part whose saved result was made by the same code, from the same data and with the
same settings is loaded instead of computed, so a killed run goes on where it stopped.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import xarray as xr

from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import Data, load_data
from ntk_resnet.records import results as records
from ntk_resnet.records.content import digest
from ntk_resnet.studies import depth_measurements as measures
from ntk_resnet.studies import finite_measurements, image_measurements, image_rates
from ntk_resnet.studies import spectrum_measurements as spectra


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large a study is. `FULL` and `QUICK` are the two that the report uses."""

    angles: int = 181
    depths: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000)
    rows: int = 300  # of the Gram matrices
    train: int = 300  # rows of the regressions
    test: int = 300
    splits: int = 10
    teacher_rows: int = 500  # 0: without the known target
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    width_seeds: int = 20
    dispersion_depths: tuple[int, ...] = (2, 4, 6, 8)
    networks: int = 10_000  # of each of these depths
    train_widths: tuple[int, ...] = (32, 64, 128, 256)
    train_seeds: int = 8
    longest: int = 100_000  # depth, of plain networks at a few angles
    spectrum_rows: int = 1000
    degrees: int = 120  # on the sphere in three dimensions
    curve_sizes: tuple[int, ...] = (20, 50, 100, 200, 400)
    curve_trials: int = 20
    ridges: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    image_depths: tuple[int, ...] = (1, 3, 10, 30, 100)
    images: int = 48  # of 8 x 8 pixels
    image_longest: int = 10_000  # depth, of plain networks on a few of 4 x 4 pixels
    image_specs: int = 4  # convolutional networks held against finite ones
    image_networks: int = 256  # finite ones of each, of 128 channels


FULL = Sizes()
QUICK = Sizes(
    angles=61,
    rows=120,
    train=120,
    test=120,
    splits=5,
    teacher_rows=0,
    widths=(32, 64, 128),
    width_seeds=24,
    networks=2000,
    train_widths=(32, 64, 128),
    train_seeds=6,
    spectrum_rows=300,
    curve_sizes=(20, 50, 100, 200),
    curve_trials=8,
    image_depths=(1, 3, 10),
    images=24,
    image_specs=1,
    image_networks=64,
)


@dataclasses.dataclass(frozen=True)
class Part:
    """One measurement of the study."""

    weight: int  # expected share of the time
    measure: Callable[..., xr.Dataset]
    settings: dict[str, Any]
    data: Data | None = None

    def compute(self, progress: Progress = quiet) -> xr.Dataset:
        """Runs the measurement."""
        inputs = () if self.data is None else (self.data,)
        return self.measure(*inputs, **self.settings, progress=progress)

    def configuration(self) -> dict[str, Any]:
        """What decides the result, besides the code, as plain data."""
        networks = measures.FAMILIES | spectra.NETWORKS
        families = measures.specs_as_data(networks)
        if self.measure in (
            image_measurements.convolutional_kernels,
            image_rates.image_rates,
        ):
            families = measures.specs_as_data(image_measurements.FAMILIES)
        elif self.measure is finite_measurements.agreement_on_images:
            families = measures.specs_as_data(finite_measurements.IMAGE_SPECS)
        result: dict[str, Any] = {
            "measure": self.measure.__name__,
            "families": families,
        }
        result |= {"settings": self.settings, "ridge": measures.RIDGE}
        if self.data is not None:
            result["data"] = self.data.name
            result["data_sha256"] = digest(self.data.x, self.data.y)
        return result


def parts(data: Data, sizes: Sizes) -> dict[str, Part]:
    """The study as named parts, in the order in which they run."""
    depths: dict[str, Any] = {"depths": sizes.depths}
    on_data = {"train": sizes.train, "test": sizes.test, "splits": sizes.splits}
    widths = {"widths": sizes.widths, "seeds": sizes.width_seeds}
    trained = {"widths": sizes.train_widths, "seeds": sizes.train_seeds}
    named = {
        "paper": Part(3, measures.paper_kernels, {"cosines": sizes.angles}),
        "kernels": Part(
            10, measures.kernels_by_angle, depths | {"angles": sizes.angles}
        ),
        "rates": Part(7, measures.rates, {"longest": sizes.longest}),
        "degeneracy": Part(
            10, measures.degeneracy_on_data, depths | {"rows": sizes.rows}, data
        ),
        "regression": Part(30, measures.regression_on_data, depths | on_data, data),
    }
    if rows := sizes.teacher_rows:
        shares = {"train": 2 * rows // 5, "test": rows - 2 * rows // 5}
        settings = depths | on_data | shares
        known = measures.teacher(rows)
        named["teacher"] = Part(25, measures.regression_on_data, settings, known)
    rows_of_spectra = {"rows": sizes.spectrum_rows}
    on_sphere = {"dim": 3, "max_degree": sizes.degrees}
    trials = {"sizes": sizes.curve_sizes, "trials": sizes.curve_trials}
    named["spectra"] = Part(8, spectra.spectra_on_data, rows_of_spectra, data)
    named["mercer"] = Part(12, spectra.mercer_spectra, on_sphere)
    named["curves"] = Part(12, spectra.learning_curves, trials)
    named["ridge"] = Part(
        3, spectra.regression_by_ridge, {"ridges": sizes.ridges}, data
    )
    named["data_curves"] = Part(8, spectra.learning_curves, trials, data)
    images = {"depths": sizes.image_depths, "rows": sizes.images}
    images |= {"splits": sizes.splits}
    digits = load_data("digits", images=True)
    named["images"] = Part(60, image_measurements.convolutional_kernels, images, digits)
    deep = {"longest": sizes.image_longest}
    named["image_rates"] = Part(20, image_rates.image_rates, deep, digits)
    finite = {"specs": sizes.image_specs, "networks": sizes.image_networks}
    named["image_networks"] = Part(
        20, finite_measurements.agreement_on_images, finite, digits
    )
    named["width"] = Part(10, finite_measurements.agreement_with_width, widths, data)
    shallow = {"depths": sizes.dispersion_depths, "networks": sizes.networks}
    named["dispersion"] = Part(8, finite_measurements.dispersion, shallow)
    named["training"] = Part(20, finite_measurements.training, trained, data)
    return named


def run(
    out: pathlib.Path,
    data: Data,
    sizes: Sizes,
    progress: Progress = quiet,
) -> dict[str, xr.Dataset]:
    """Computes all parts, saving each in `out` as zarr and CSV as soon as it is there.

    Args:
        out: folder for the results.
        data: the real data.
        sizes: `FULL`, `QUICK` or the caller's own.
        progress: called with (done, total, description).

    Returns:
        The results by name of the part.

    Raises:
        OSError: `out` is not writable (said before anything is computed).
    """
    records.check_writable(out)
    named = parts(data, sizes)
    total, done = sum(part.weight for part in named.values()), 0
    results = {}
    for name, part in named.items():
        report = part_of(progress, done, part.weight, total)
        results[name] = records.resume(
            out / f"{name}.zarr",
            part.configuration(),
            functools.partial(part.compute, report),
        )
        done += part.weight
        progress(done, total, f"{name} done")
    return results
