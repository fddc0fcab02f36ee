"""`ntk-resnet`: arguments and exit codes; the work is done by the library.

Heavy imports wait until a command runs, so that `--help` is quick. Commands compute in
float64: they switch JAX's 64-bit mode on. Results go to standard output (with `--json`
a single JSON object and nothing else), progress and errors to standard error.
"""

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from ntk_resnet.cli import kernels, reproduce, studies, terminal

COMMANDS: dict[str, Any] = {
    "reproduce": reproduce.Reproduce,
    "report": studies.Report,
    "depth": studies.Depth,
    "width": studies.Width,
    "train": studies.Train,
    "gram": kernels.Gram,
    "spectrum": kernels.Spectrum,
    "mercer": kernels.Mercer,
    "learning-curve": kernels.LearningCurve,
    "regress": kernels.Regress,
    "doctor": studies.Doctor,
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    0: done; 1: a claim fails, or `doctor` found something broken; 2: an argument or a
    file cannot be used, or the output cannot be written (one line on standard error
    says why); 130: interrupted, what was finished is kept.
    """
    chosen = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        args=args,
        prog="ntk-resnet",
        description="Neural tangent kernels of residual and plain networks.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # whatever a library might print
            for name in ("out", "store", "checkpoint"):
                terminal.prepare(getattr(chosen, name, None))
            _use_float64()
            code, show = chosen.run()
        show()
        return code
    except KeyboardInterrupt:
        print("ntk-resnet: interrupted; finished parts are kept.", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        print(f"ntk-resnet: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _use_float64() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)


if __name__ == "__main__":
    sys.exit(main())
