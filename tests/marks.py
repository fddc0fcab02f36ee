"""Which cases of a test `make test` runs; `make test-all` runs the others too."""

import pytest


def slow_but_for(cases, quick):
    """The cases, slow ones but for those for which `quick(case)` is true."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=[] if quick(case) else pytest.mark.slow,
        )
        for case in cases
    ]
