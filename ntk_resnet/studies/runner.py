"""Runs studies: each measurement once, saved as soon as it is there, then judged.

A measurement whose saved result was made by the same code, versions, settings and data
is loaded instead of computed, so that a second run is instant and a killed one goes on.
"""

import contextlib
import functools
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import load_data
from ntk_resnet.records import results as records
from ntk_resnet.records.cache import cache_folder
from ntk_resnet.records.code import function_digest, recipe
from ntk_resnet.records.content import digest, write_file
from ntk_resnet.studies.ledger import Entry, judge, not_run
from ntk_resnet.studies.study import Measurement, NotRun, Results, Study


class Run(NamedTuple):
    """What became of a study."""

    study: Study
    size: str
    """"quick" or "full"."""
    results: Results
    entries: list[Entry]


def run(
    studies: Sequence[Study],
    *,
    quick: bool = False,
    claims: Sequence[str] = (),
    source: Any = "digits",
    folder: pathlib.Path | None = None,
    progress: Progress = quiet,
) -> list[Run]:
    """Measures what is not yet there, and judges all claims.

    Args:
        studies: each once.
        quick: in their smaller sizes.
        claims: names of those to judge, of one study; all if none are named.
        source: of the data, as for `load_data`.
        folder: for the results, `folder/<study>/<quick or full>/<measurement>.zarr` and
            CSV; by default among what is cached.
        progress: its total is in seconds, infinite where it is not known how long
            something takes: that is known of what was measured here before.

    Raises:
        ValueError: a claim or the data are none that there are.
        OSError: the folder is not writable.
    """
    size = "quick" if quick else "full"
    home = folder or _cached("studies")
    jobs = []
    for one in studies:
        names = dict.fromkeys(claim.of for claim in one.wanted(claims))
        for name in names if claims else one.measurements:
            part = one.measurements[name]
            job = _Job(one, name, part, part.settings(quick), source, size)
            place = home and home / one.name / size / f"{name}.zarr"
            jobs.append((job, place))
    found = _results(jobs, progress)
    runs = []
    for one in studies:
        own = {job.name: value for job, value in found if job.study is one}
        made = {k: value for k, value in own.items() if not isinstance(value, NotRun)}
        runs.append(Run(one, size, made, _entries(one, claims, own)))
    return runs


def _entries(study, claims, found):
    lines = []
    for claim in study.wanted(claims):
        value = found[claim.of]
        if isinstance(value, NotRun):
            lines.append(not_run(study.name, claim, str(value)))
        else:
            lines.append(judge(study.name, claim, value, value.attrs["seconds"]))
    return lines


# ------------------------------------------------------------------------------ results


class _Job(NamedTuple):
    """A measurement to be made, or to be found."""

    study: Study
    name: str
    part: Measurement
    settings: dict[str, Any]
    source: Any
    size: str

    @property
    def key(self):
        return f"{self.study.name} {self.name} {self.size}"

    def recipe(self):
        about: dict[str, Any] = {"study": self.study.name, "measurement": self.name}
        about |= {"settings": self.settings}
        if self.part.data:
            data = _data(self.source, self.part.data == "images")
            about |= {"data": data.name, "data_sha256": digest(data.x, data.y)}
        about |= {"function": function_digest(self.part.measure)}
        return recipe(about)

    def compute(self, progress):
        images = self.part.data == "images"
        inputs = (_data(self.source, images),) if self.part.data else ()
        return self.part.measure(*inputs, **self.settings, progress=progress)


@functools.lru_cache(2)
def _data(source, images):
    return load_data(source, images=images)


def _results(jobs, progress):
    """Each job with its result, or with the `NotRun` that says why there is none."""
    recipes = [job.recipe() for job, _ in jobs]
    found = [
        place and records.load_made_by(wanted, place)
        for wanted, (_, place) in zip(recipes, jobs, strict=True)
    ]
    missing = [k for k, value in enumerate(found) if value is None]
    known = _durations()
    shares = [max(known.get(jobs[k][0].key, math.nan), 0.1) for k in missing]
    total, done = math.fsum(shares), 0.0
    if math.isnan(total):  # something was never measured here
        shares, total = [1.0] * len(missing), math.inf
    for k, share in zip(missing, shares, strict=True):
        job, place = jobs[k]
        text = f"{job.study.name}, {job.name}"
        progress(done, total, text)
        report = part_of(progress, done, share, total, f"{text}: ")
        try:
            value = records.made_by(recipes[k], functools.partial(job.compute, report))
        except NotRun as why:
            found[k] = why
        else:
            found[k] = _kept(value, place)
            _remember(job.key, value.attrs["seconds"])
        done += share
    progress(1, 1, "all measured")
    return [(job, value) for (job, _), value in zip(jobs, found, strict=True)]


def _kept(value, place):
    if place is None:
        return value
    records.save(value, place, csv=True)
    return records.load(place)


# ---------------------------------------------------------------------------- durations


def _cached(name):
    home = cache_folder()
    return home and home / name


def _durations() -> dict[str, float]:
    """Seconds that measurements took on this machine, by their keys."""
    path = _cached("durations.json")
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text())) if path else {}
    return {}


def _remember(key, seconds):
    path = _cached("durations.json")
    if path is not None:
        with contextlib.suppress(OSError):  # it need not be writable
            write_file(path, json.dumps(_durations() | {key: seconds}))
