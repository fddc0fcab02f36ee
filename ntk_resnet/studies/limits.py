"""Kernels of residual networks of many small blocks: an equation in time."""

import numpy as np
from scipy.integrate import solve_ivp


def limits(block: str, times, angles) -> np.ndarray:
    r"""The normalised NTK at each T as depth grows and all scales vanish, `(T, angle)`.

    .. math::
        \dot u = k(u) - u, \quad \dot S = (s(u) - 1) S + g(u), \quad
        \bar\Omega^{(T)} = S_T / (n T),

    with the kernel k and the slope s of a branch, and the gradients g with respect to
    its n matrices, by a Runge-Kutta method of order 8 to about 1e-12.

    Args:
        block: `"two layers"`, `"pre-activation"` or `"full pre-activation"`.
        times: T > 0, the sum of the squared scales: 1 for those of L^(-1/2).
        angles: between inputs, in [0, pi].
    """
    matrices = _BRANCHES[block][1]
    times = np.asarray(times, float)
    gradients = _solved(block, times, angles)[:, 1]
    return gradients / (matrices * times[:, None])


def features(block: str, times, angles) -> np.ndarray:
    """The cosines of features at each T, `(T, angle)`: u of `limits`."""
    return _solved(block, times, angles)[:, 0]


def _solved(block, times, angles):
    """u and S at each T, `(T, 2, angle)`."""
    branch = _BRANCHES[block][0]

    def slope(_, state):
        u, s = np.split(state, 2)
        kernel, back, gradients = branch(u)
        return np.concatenate([kernel - u, (back - 1) * s + gradients])

    start = np.concatenate([np.cos(angles), np.zeros(len(angles))])
    wanted, place = np.unique(np.asarray(times, float), return_inverse=True)
    solved = solve_ivp(
        slope,
        (0, wanted[-1]),
        start,
        method="DOP853",
        t_eval=wanted,
        rtol=1e-12,
        atol=1e-13,
    )
    return solved.y.T.reshape(len(wanted), 2, len(angles))[place]


def _arc_cosine(u):
    theta = np.arccos(np.clip(u, -1, 1))
    kappa0 = 1 - theta / np.pi
    return kappa0, u * kappa0 + np.sin(theta) / np.pi


def _two_layers(u):
    kappa0, kappa1 = _arc_cosine(u)
    return kappa1, kappa0, kappa1 + u * kappa0


def _preactivation(u):
    kappa0, kappa1 = _arc_cosine(u)
    return kappa1, kappa0, kappa1


def _full_preactivation(u):
    kappa0, kappa1 = _arc_cosine(u)
    inner0, inner1 = _arc_cosine(kappa1)
    return inner1, kappa0 * inner0, inner1 + kappa1 * inner0


_BRANCHES = {
    "two layers": (_two_layers, 2),
    "pre-activation": (_preactivation, 1),
    "full pre-activation": (_full_preactivation, 2),
}
