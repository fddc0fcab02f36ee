"""Figures of several panels, that commands and studies share.

Each takes a result, over `family` where it compares networks, and returns its axes as
an array.
"""

from typing import Any

import numpy as np
import xarray as xr

from ntk_resnet.plot import depth, drawing, finite, spectra
from ntk_resnet.plot.drawing import PAPER
from ntk_resnet.plot.families import looks


def degeneracy(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Four measures of a Gram matrix against depth, with the predicted asymptotes.

    Distance to the constant kernel 1/4, gap of the NNGP kernel, condition number and
    effective rank, all but the last on logarithmic axes. The axes are `(2, 2)`.
    """
    names = ("distance", "nngp_gap", "condition_number", "effective_rank")
    with drawing.style():
        axes = drawing.given(axes, 2, 2, height=2.5)
        for ax, name in zip(axes.flat, names, strict=True):
            depth.degeneracy(found, name, ax=ax, legend=False)
        drawing.figure_legend(axes)
    return axes


def spectrum(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Leading eigenvalues, what they hold of the target, and the distribution of all.

    Eigenvalues are over the number of rows. The axes are `(1, 3)`.
    """
    relative = found.assign(eigenvalue=found.eigenvalue / found.attrs["rows"])
    captured = found.rename(captured="cumulative_alignment")
    with drawing.style():
        axes = drawing.given(axes, 1, 3, height=2.7)
        first, second, third = axes.flat
        spectra.spectrum(relative, ax=first, legend=False)
        first.set_ylabel("eigenvalue λᵢ / n")
        spectra.spectrum(captured, "alignment", ax=second, legend=False)
        spectra.spectral_distribution(found, ax=third, legend=False)
        third.set_xlabel("eigenvalue λ / n")
        drawing.figure_legend(first)
    return axes


def mercer(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Eigenvalues on the sphere by degree, and over those of the Laplace kernel.

    The axes are `(1, 2)`.
    """
    laplace = found[["laplace_log10_eigenvalue"]]
    laplace = laplace.rename(laplace_log10_eigenvalue="log10_eigenvalue")
    with drawing.style():
        axes = drawing.given(axes, 1, 2, height=3.0)
        left, right = axes.flat
        spectra.mercer(found, ax=left, legend=False)
        spectra.mercer(found, relative_to=laplace, ax=right, legend=False)
        left.set_ylabel(f"log₁₀ μₖ, eigenvalue μₖ of the {found.attrs['get'].upper()}")
        right.set_ylabel("log₁₀ (μₖ / that of the Laplace kernel)")
        drawing.figure_legend(axes)
    return axes


def ridge(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Test and leave-one-out error against the ridge; `(1, 1)`."""
    with drawing.style():
        axes = drawing.given(axes, 1, 1, height=2.9)
        ax, at = axes[0, 0], found.ridge.values
        (look,) = looks(["γ = 1/2"]).values()
        ax.plot(at, found.test_error.values, **look, label="test rows")
        hollow = look | {"markerfacecolor": PAPER, "linestyle": ":"}
        ax.plot(at, found.loo_error.values, **hollow, label="leave-one-out")
        ax.set_xscale("log" if (at > 0).all() else "symlog")
        ax.set_xlabel("ridge λ, relative to the mean diagonal")
        classify = bool(found.attrs["classes"])
        ax.set_ylabel(
            "share misclassified" if classify else "error / variance of targets"
        )
        ax.set_ylim(bottom=0)
        drawing.legend(ax)
    return axes


def width_and_dispersion(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Error against width, and beside it dispersion against depth over width.

    Of `width_study`, merged with what `dispersion_of_families` returns. The axes are
    `(1, 2)`.
    """
    axes = drawing.given(axes, 1, 2, height=2.9)
    finite.width(found.drop_dims("family"), ax=axes[0, 0])
    finite.dispersion(found.drop_dims("seed"), ax=axes[0, 1])
    return axes


def training(found: xr.Dataset, *, axes: Any = None) -> np.ndarray:
    """Outputs, loss, kernel drift while training, and errors by width; `(2, 2)`."""
    axes = drawing.given(axes, 2, 2, height=2.7)
    panels = ("outputs", "loss", "ntk_drift", "errors")
    for ax, quantity in zip(axes.flat, panels, strict=True):
        finite.training(found, quantity, ax=ax)
    return axes
