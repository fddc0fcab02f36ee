"""The gallery shows every public figure, and its scripts make its pictures."""

import pathlib
import re
import runpy

import pytest

import ntk_resnet as nr

GALLERY = pathlib.Path(nr.__file__).parent.parent / "docs" / "gallery"
SCRIPTS = sorted(GALLERY.glob("plot_*.py"))


def test_the_page_shows_each_picture_with_its_script():
    page = (GALLERY / "index.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[.+\]\((\w+)\.png\)\n\n```{literalinclude} (\S+)\n", page)
    assert sorted(shown) == [(s.stem.removeprefix("plot_"), s.name) for s in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_each_script_ends_with_its_picture(script):
    last = script.read_text(encoding="utf-8").splitlines()[-1]
    assert last.startswith("nr.plot.save(")
    assert last.endswith(f'"{script.stem.removeprefix("plot_")}.png")')


def test_every_public_figure_is_in_the_gallery():
    text = "".join(script.read_text(encoding="utf-8") for script in SCRIPTS)
    tools = {"new_axes", "save", "figure_legend"}
    assert set(re.findall(r"nr\.plot\.(\w+)\(", text)) - tools == {
        "degeneracy", "dispersion", "kernel_distance", "kernels", "learning_curve",
        "mercer", "spectral_distribution", "spectrum", "training", "width",
    }  # fmt: skip


def test_pictures_are_made_in_the_folder_asked_for(tmp_path):
    make = runpy.run_path(str(GALLERY / "make.py"))
    profiles = GALLERY / "plot_profiles.py"
    make["main"].__globals__["scripts"] = lambda: [profiles]
    (picture,) = make["main"](tmp_path / "out")
    assert picture == tmp_path / "out" / "profiles.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
