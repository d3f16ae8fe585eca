"""``landscape overlap``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from landscape.analyses.overlap import Settings
from landscape.joint import JointSettings

from ..console import Console, Reporter
from ..options import Debug, Given, Group, Json, Quiet, with_options


@with_options(Group(Settings, "The overlap"), Group(JointSettings, "The run"))
def command(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Result files with ratios runs: of several checkpoints in one, or one of each.",
            metavar="FILE...",
        ),
    ],
    given: Given,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help="Use this ratios run, again and again for several; the start of its id will do. Default: "
            "the latest of each checkpoint in each file.",
            metavar="ID",
            rich_help_panel="The overlap",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare a ratio class at several saved steps: are the same parameters in it, beyond chance?

    For A, the class at one step, and B, the class at another: |A∩B| beside |A||B|/n, what independent sets of
    these sizes have in common, its share of A, the lift (the first over the second; 1 is chance), Jaccard's
    index and Cohen's κ; and the parameters that stay in the class at all steps from one to another.

    A share alone says little: of 6e6 of 11.2e6 parameters, 3.6e6 to 3.9e6 are found again by chance alone in
    a later set that holds 60 to 65 % of all.

    Examples:
      landscape overlap landscape-results/*.h5
      landscape overlap a.h5 b.h5 c.h5 --class ckpt3
      landscape overlap a.h5 b.h5 --class ckpt2 --with ckpt3
      landscape overlap all.h5 --run ratios-5f0c --run ratios-77ab
    """
    from landscape.joint import combine, read_sources, stored_path

    from ..views import print_result, run_object

    console = Console("overlap", json=json, quiet=quiet)
    settings, where = given.build(Settings, {}), given.build(JointSettings, {})
    sources = read_sources("overlap", files, run or ())
    for note in sources.notes:
        console.note(note)
    with Reporter(console) as reporter:
        line = shlex.join(["landscape", *context.obj])
        result = combine("overlap", sources.results, settings, where, observer=reporter, command=line)
    print_result(console, result)
    path = stored_path("overlap", sources.results, where)
    if result.provenance is not None:
        console.out(f"stored in {shlex.quote(str(path))} as run {result.provenance.id}")
        console.out(f"to see it: landscape plot {shlex.quote(str(path))} {result.provenance.id}")
    console.emit([run_object(result, path)])
