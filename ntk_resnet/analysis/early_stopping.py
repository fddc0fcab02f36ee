"""When to stop training: errors along gradient flow with a constant kernel."""

import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float, Num

from ntk_resnet._inputs import check_array
from ntk_resnet.analysis.regression import gradient_flow
from ntk_resnet.analysis.spectrum import spectrum
from ntk_resnet.records.provenance import provenance


def early_stopping(
    k_train: Float[ArrayLike, "n n"],
    k_test: Float[ArrayLike, "m n"],
    y_train: Num[ArrayLike, " n"] | Num[ArrayLike, "n k"],
    y_test: Num[ArrayLike, " m"] | Num[ArrayLike, "m k"],
    times: Num[ArrayLike, " t"] | None = None,
) -> xr.Dataset:
    r"""Train and test error along gradient flow, in closed form, and when to stop.

    Args:
        k_train, k_test, y_train: as in `gradient_flow`, whose units of time and start
            at 0 hold.
        y_test: targets of the test rows.
        times: >= 0, `(t,)`; by default 0, then 200 from a hundredth of the shortest
            time scale :math:`nk/\lambda` of an eigenvalue to a hundred times the
            longest, and infinity.

    Returns:
        A dataset over `time` with `train_mse` and `test_mse`, means over rows and
        outputs, and the scalars `best_time`, the first of the times at which the test
        error is smallest, and `best_test_mse`.

    Raises:
        ValueError: as in `gradient_flow`, or targets that do not fit.
    """
    fitted = np.asarray(check_array("y_train", y_train)).astype(float)
    wanted = np.asarray(check_array("y_test", y_test)).astype(float)
    if wanted.size == 0:
        raise ValueError("y_test is empty; pass targets for one row or more.")
    if times is None:
        found = spectrum(np.asarray(k_train))
        rates = found.eigenvalue.values.astype(float) / max(fitted.size, 1)
        rates = rates[rates > float(found.error_bound) / max(fitted.size, 1)]
        times = np.geomspace(0.01 / rates[0], 100 / rates[-1], 200)
        times = np.concatenate([[0.0], times, [np.inf]])
    times = np.atleast_1d(np.asarray(times, float))
    if times.size == 0:
        raise ValueError("times is empty; name at least one.")
    path = gradient_flow(k_train, k_test, fitted, times)
    if wanted.shape != (path.test.shape[1], *fitted.shape[1:]):
        raise ValueError(
            f"y_test has shape {wanted.shape}; pass one row of targets for each of the "
            f"{path.test.shape[1]} rows of k_test, as in y_train."
        )
    errors = {
        "train_mse": np.mean(
            (path.train - fitted.reshape(path.train.shape[1:])) ** 2, (1, 2)
        ),
        "test_mse": np.mean(
            (path.test - wanted.reshape(path.test.shape[1:])) ** 2, (1, 2)
        ),
    }
    best = int(np.argmin(errors["test_mse"]))
    return xr.Dataset(
        {
            "train_mse": ("time", errors["train_mse"], {"long_name": "training error"}),
            "test_mse": ("time", errors["test_mse"], {"long_name": "test error"}),
            "best_time": times[best],
            "best_test_mse": errors["test_mse"][best],
        },
        coords={"time": ("time", times, {"units": "learning rate"})},
        attrs=provenance(n=len(fitted), test=len(wanted)),
    )
