"""Predicted and measured learning curves: `python benchmarks/learning_curve.py`.

Kernel ridge regression on the sphere, predicted from the Mercer spectrum, and on the
digits, predicted from the Gram matrix of all of them; beside it what regressions on
random points make of it, with the standard error of their mean. On the sphere the
target has several degrees, or one that is soon learned: there the theory, which takes
harmonics for Gaussian features, is known to be too low.

Plain networks train their readout too, residual ones their blocks alone: the defaults.
"""

import sys

import jax
from harness import note, options, save

import ntk_resnet as nr
from ntk_resnet.analysis.learning_trials import (
    learning_curve_on_data,
    learning_curve_on_sphere,
)
from ntk_resnet.data.datasets import targets

FAMILIES = {
    "plain, L = 1": nr.FeedForward(depth=1),
    "plain, L = 10": nr.FeedForward(depth=10),
    "plain, L = 100": nr.FeedForward(depth=100),
    "residual, γ = 1/2": nr.ResNet(depth=100, branch_scale=nr.DepthScale(0.5)),
    "residual, γ = 1": nr.ResNet(depth=100, branch_scale=nr.DepthScale(1.0)),
}
TARGET = {1: 0.5, 2: 0.3, 3: 0.2}


def on_sphere(spec, smoke):
    sizes, trials = ([20, 40], 2) if smoke else ([50, 100, 200, 400, 800], 40)
    settings = {"dim": 10, "ridge": 1e-3, "noise": 0.05, "trials": trials}
    found = learning_curve_on_sphere(
        spec, sizes=sizes, target=TARGET, max_degree=40, **settings
    )
    return found, settings


def on_one_degree(spec, smoke):
    """Where the kernel has learned all of the target, and only a remainder is left."""
    sizes, trials = ([20, 40], 2) if smoke else ([100, 200, 400, 800], 25)
    settings = {"dim": 5, "ridge": 1e-3, "noise": 0.0, "trials": trials}
    found = learning_curve_on_sphere(
        spec, sizes=sizes, target={1: 1.0}, max_degree=100, **settings
    )
    return found, settings


def on_digits(spec, smoke):
    data = nr.load_data("digits")
    x, y = data.x, targets(data)
    sizes, trials = ([50, 100, 200, 400, 800, 1600], 10)
    if smoke:
        x, y, sizes, trials = x[:100], y[:100], [20, 40], 2
    settings = {"ridge": 1e-2, "trials": trials}
    return learning_curve_on_data(spec, x, y, sizes, **settings), settings


def show(where, name, found, settings, folder):
    """Prints and saves one line for each number of training points."""
    for n in found.n.values.tolist():
        row = found.sel(n=n)
        test, error = float(row.measured_test_mse), float(row.measured_test_mse_error)
        predicted = float(row.test_mse)
        values = {
            "predicted_test": predicted,
            "measured_test": test,
            "error": error,
            "off_percent": 100 * (predicted / test - 1),
            "off_errors": (predicted - test) / error,
            "predicted_train": float(row.train_mse),
            "measured_train": float(row.measured_train_mse),
        }
        print(
            f"{where:18} {name:18} n = {n:4}: predicted {predicted:.3g}, measured "
            f"{test:.3g} ± {error:.1g}: {values['off_percent']:+6.1f} %, "
            f"{values['off_errors']:+5.1f} standard errors; train "
            f"{values['predicted_train']:.2e}, {values['measured_train']:.2e}",
            flush=True,
        )
        sizes = {"where": where, "n": n} | settings
        save(note("learning curve", name, sizes, **values), folder)


_PLACES = (
    ("sphere", on_sphere),
    ("sphere, one degree", on_one_degree),
    ("digits", on_digits),
)


def main(argv: list[str] | None = None) -> int:
    chosen = options(__doc__).parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    for where, curve in _PLACES:
        for name, spec in list(FAMILIES.items())[: 1 if chosen.smoke else None]:
            found, settings = curve(spec, chosen.smoke)
            show(where, name, found, settings, chosen.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
