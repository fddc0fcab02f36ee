"""Which cases of a test `make test` runs; `make test-all` runs the others too."""

import pytest


def slow_but_for(cases, quick=()):
    """The cases, slow ones but for the quick: some of them, or those it is true for."""
    is_quick = quick if callable(quick) else quick.__contains__
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=[] if is_quick(case) else pytest.mark.slow,
        )
        for case in cases
    ]
