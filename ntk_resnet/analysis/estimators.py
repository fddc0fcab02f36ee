r"""Kernel regression and classification in scikit-learn's interface.

The prediction is that of `kernel_ridge`, :math:`f = K_* (K + \lambda \bar d\, I)^{-1}
y`: infinitely wide networks, trained with weight decay or, for `get="nngp"`, Bayesian
ones. Everything is in float64, whatever the dtype of the data; nothing is centred or
scaled (take a `StandardScaler` or a `TransformedTargetRegressor` for that).
"""

import os
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MultiOutputMixin,
    RegressorMixin,
)
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ntk_resnet._checks import check_choice, check_number
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.analysis.regression import check_factorable, cholesky
from ntk_resnet.analysis.solve import solve
from ntk_resnet.kernels.gram.gram import gram
from ntk_resnet.kernels.gram.operator import gram_operator
from ntk_resnet.specification.base import Specification, check_network
from ntk_resnet.specification.networks import FeedForward

_DENSE_ROWS = 10_000
"""Up to here "auto" is Cholesky, which is faster there on a CPU and has more to tell;
its matrix is 0.8 GB, and four times as large at twice the rows."""

_DEFAULT = FeedForward(depth=1, bias_variance=0.1)


class _KernelRidge(BaseEstimator):
    """What both estimators share; `_fit` takes targets as a block of columns."""

    def __init__(
        self,
        spec: Specification | None = None,
        *,
        ridge: float = 1e-3,
        get: str = "ntk",
        normalised: bool = True,
        solver: str = "auto",
        tol: float = 1e-6,
        checkpoint: str | os.PathLike | None = None,
        progress: Progress = quiet,
    ):
        self.spec = spec
        self.ridge = ridge
        self.get = get
        self.normalised = normalised
        self.solver = solver
        self.tol = tol
        self.checkpoint = checkpoint
        self.progress = progress

    def _fit(self, x, targets):
        check_choice("get", self.get, ("ntk", "nngp"))
        check_choice("solver", self.solver, ("auto", "cholesky", "cg"))
        ridge = check_number("ridge", self.ridge)
        small = len(x) <= _DENSE_ROWS
        dense = self.solver == "cholesky" or (self.solver == "auto" and small)
        self.solver_ = "cholesky" if dense else "cg"
        spec = _DEFAULT if self.spec is None else self.spec
        self.spec_ = check_network(spec, convolutional=True)
        self.X_fit_, self._targets = x, targets
        (self._fit_dense if dense else self._fit_matrix_free)(ridge)
        return self

    def _fit_dense(self, ridge):
        check_factorable(len(self.X_fit_))
        matrix = np.require(self._gram(self.X_fit_), requirements="W")
        self.shift_ = ridge * float(matrix.trace()) / len(matrix)
        matrix.flat[:: len(matrix) + 1] += self.shift_
        factor = cholesky(matrix, len(matrix) * np.finfo(float).eps)
        if factor is None:
            raise ValueError(
                f"the kernel matrix is singular to rounding with ridge={self.ridge}: "
                "raise ridge, or remove repeated rows."
            )
        self._factor: Any = factor
        self.residual_, self.iterations_ = 0.0, 0
        self.dual_coef_ = scipy.linalg.cho_solve((factor, True), self._targets)

    def _fit_matrix_free(self, ridge):
        operator = self._operator(self.X_fit_)
        self.shift_ = ridge * float(np.mean(np.asarray(operator.diagonal())))
        self._factor = None
        self.dual_coef_, self.residual_, self.iterations_ = solve(
            operator,
            self._targets,
            shift=self.shift_,
            tol=self.tol,
            checkpoint=self.checkpoint,
            progress=self.progress,
        )

    def _gram(self, x, x2=None):
        matrix = gram(self.spec_, x, x2, self.get, normalised=self.normalised)
        return np.asarray(matrix)

    def _operator(self, x, x2=None):
        return gram_operator(self.spec_, x, x2, self.get, normalised=self.normalised)

    def _outputs(self, x):
        """K_* times the coefficients, in memory linear in the rows."""
        return np.asarray(self._operator(x, self.X_fit_) @ self.dual_coef_)

    def _check_new(self, X):
        check_is_fitted(self, "dual_coef_")
        return self._validated(X, reset=False)

    def _validated(self, *arrays, **how):
        """Rows, or for convolutional networks images; the kernel checks the shape."""
        images = getattr(self.spec, "takes_images", False)  # it may be anything yet
        return validate_data(self, *arrays, dtype=np.float64, allow_nd=images, **how)

    def _dense(self, what):
        check_is_fitted(self, "dual_coef_")
        if self._factor is None:
            raise AttributeError(
                f"{what} needs the factor of the matrix; fit with solver='cholesky'."
            )
        return self._factor

    def _leave_one_out(self):
        r"""The outputs without each row in turn, :math:`y_i - \alpha_i/A^{-1}_{ii}`."""
        factor = self._dense("leave-one-out")
        inverse, _ = scipy.linalg.lapack.dtrtri(factor, lower=1)
        diagonal = np.sum(inverse**2, axis=0)
        coefficients = self.dual_coef_.reshape(self._targets.shape)
        return self._targets - coefficients / diagonal[:, None]


class NTKRegressor(MultiOutputMixin, RegressorMixin, _KernelRidge):
    r"""Kernel ridge regression with the kernel of an infinitely wide network.

    .. math::
        f(x) = k(x, X)\,(K + \lambda \bar d\, I)^{-1} y, \qquad
        \bar d = \tfrac1n \operatorname{tr} K

    As a Gaussian process it has the covariance k and noise of variance
    :math:`\lambda \bar d` (Rasmussen and Williams 2006, chapters 2 and 5). With
    `get="nngp"` that is the Bayesian network of infinite width. With `get="ntk"` the
    mean is that of trained networks, but the variance is that of a process whose
    covariance is the NTK, not the spread of networks from random initialisations (Lee
    et al. 2019, equation 16).

    Args:
        spec: the network, a convolutional one for images; `None`:
            `FeedForward(depth=1, bias_variance=0.1)`, which unlike networks without
            bias is defined for rows of zeros and sees norms.
        ridge: lambda >= 0, relative to the mean of the diagonal, as `diag_reg` in
            neural-tangents.
        get: `"ntk"` or `"nngp"`.
        normalised: divide the kernel by its diagonals, as all of `ntk_resnet` does by
            default: the prior variance is 1 at any depth, and for networks without bias
            only the direction of an input counts. `False` is the raw kernel, that of
            neural-tangents: outputs of such networks grow with the norm of the input.
            For rows of one norm the predictions are the same.
        solver: `"cholesky"` of the matrix, `"cg"` (`solve`), which keeps no matrix, or
            `"auto"`: the first up to 10,000 rows (by name up to 16,384).
        tol: relative residual, for `"cg"`.
        checkpoint, progress: as in `solve`, for `"cg"`.

    Attributes:
        dual_coef_: the coefficients, `(n,)` or `(n, k)`.
        shift_: lambda times the mean of the diagonal.
        residual_, iterations_: of `"cg"`; 0 for the direct solver.
        solver_, spec_: those used.
        X_fit_: the training inputs.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Raises:
        ValueError: bad inputs, rows of zeros where the kernel is undefined, a matrix
            that is singular to rounding.
        RuntimeError: `"cg"` does not reach `tol`; the text says how far it came.

    Accuracy: as `kernel_ridge` and as the residual of `solve`
    (`tests/analysis/test_estimators.py`).
    """

    def fit(self, X, y):
        """Fits to inputs `(n, d)` or images `(n, H, W, C)`, and targets `(n,)` or
        `(n, k)`."""
        X, y = self._validated(X, y, multi_output=True, y_numeric=True)
        self._fit(X, np.asarray(y, np.float64).reshape(len(y), -1))
        self._single = y.ndim == 1
        self.dual_coef_ = self._shaped(self.dual_coef_)
        return self

    def predict(self, X, return_std: bool = False):
        """Predictions `(m,)` or `(m, k)`; with `return_std` the standard deviation too.

        That is of the function at X, without the noise, in the same shape. It needs
        `"cholesky"` and a matrix of test by training rows.
        """
        X = self._check_new(X)
        if return_std:
            self._dense("return_std")
        mean = self._outputs(X)
        if not return_std:
            return mean
        half = scipy.linalg.solve_triangular(
            self._factor, self._gram(X, self.X_fit_).T, lower=True, overwrite_b=True
        )
        prior = np.asarray(self._operator(X).diagonal())
        std = np.sqrt(np.maximum(prior - np.sum(half**2, axis=0), 0))
        return mean, std if self._single else np.repeat(std[:, None], mean.shape[1], 1)

    @property
    def loo_prediction_(self) -> Float[np.ndarray, "..."]:
        """The prediction for each row from all others, with this noise; dense only."""
        return self._shaped(self._leave_one_out())

    @property
    def loo_error_(self) -> float:
        """Mean square of what `loo_prediction_` misses; dense only."""
        return float(np.mean((self._leave_one_out() - self._targets) ** 2))

    @property
    def log_marginal_likelihood_(self) -> float:
        """ln p(y) of the Gaussian process, summed over outputs; dense only."""
        factor = self._dense("log_marginal_likelihood_")
        n, outputs = self._targets.shape
        fit = np.vdot(self._targets, self.dual_coef_)
        each = 2 * np.log(np.diag(factor)).sum() + n * np.log(2 * np.pi)
        return float(-(fit + outputs * each) / 2)

    def _shaped(self, columns):
        return columns[:, 0] if self._single else columns


class NTKClassifier(ClassifierMixin, _KernelRidge):
    """Classification by kernel ridge regression on targets 1 (of the class) and -1.

    One column a class; two classes share one. The class with the largest output wins,
    which for more than two does not depend on how the targets are coded. Outputs are no
    probabilities. Arguments and attributes as in `NTKRegressor`, and `classes_`. For
    several labels a row take scikit-learn's `MultiOutputClassifier`.
    """

    def fit(self, X, y):
        """Fits to inputs `(n, d)` or images `(n, H, W, C)`, and labels `(n,)`.

        Raises:
            ValueError: as in `NTKRegressor`, or all labels are of one class.
        """
        X, y = self._validated(X, y)
        check_classification_targets(y)
        labels = LabelBinarizer(pos_label=1, neg_label=-1)
        targets = labels.fit_transform(y).astype(np.float64)
        self.classes_ = labels.classes_
        if len(self.classes_) < 2:
            raise ValueError(
                "a classifier needs two classes, but y has only one class: "
                f"{self.classes_[0]!r}."
            )
        return self._fit(X, targets)

    def decision_function(self, X) -> Float[np.ndarray, "..."]:
        """Outputs `(m, classes)`; of two classes `(m,)`, positive for the second."""
        outputs = self._outputs(self._check_new(X))
        return outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict(self, X):
        """The class of each row."""
        return self._named(self._outputs(self._check_new(X)))

    @property
    def loo_prediction_(self) -> np.ndarray:
        """The class of each row as predicted from all others; dense only."""
        return self._named(self._leave_one_out())

    @property
    def loo_error_(self) -> float:
        """The share of rows that `loo_prediction_` misses; dense only."""
        given = self._named(self._targets)
        return 1 - float(accuracy_score(given, self.loo_prediction_))

    def _named(self, outputs):
        if len(self.classes_) == 2:
            return self.classes_[(outputs[:, 0] > 0).astype(int)]
        return self.classes_[outputs.argmax(axis=1)]
