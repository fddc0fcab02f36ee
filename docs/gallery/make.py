"""The pictures of the gallery: `python docs/gallery/make.py [FOLDER]`."""

import contextlib
import os
import pathlib
import runpy
import sys

HERE = pathlib.Path(__file__).resolve().parent


def scripts() -> list[pathlib.Path]:
    """One a picture: `plot_width.py` saves `width.png` in the current folder."""
    return sorted(HERE.glob("plot_*.py"))


def main(outdir: str | os.PathLike = HERE) -> list[pathlib.Path]:
    """Runs all scripts, in one process, and returns the pictures in `outdir`."""
    outdir = pathlib.Path(outdir).resolve()
    outdir.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(outdir):
        for script in scripts():
            runpy.run_path(str(script))
    return [outdir / f"{s.stem.removeprefix('plot_')}.png" for s in scripts()]


if __name__ == "__main__":
    main(*sys.argv[1:])
