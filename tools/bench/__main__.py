"""`make bench`: measures the relay and the producer against their limits and peers, in one run.

Exit codes: 0 measured, 1 something stalled or could not be measured, 2 wrong usage. Whether the
goals are met is shown and changes no exit code: it depends on the machine.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Final

import psycopg
from amqp.exceptions import AMQPError
from redis.exceptions import RedisError
from rich.console import Console

from bench.experiments import Brokers, Experiment, catalogue
from bench.instruments import conditions, cpu
from bench.lab import Lab, Unbelievable, opened
from bench.report import plot, tables
from bench.report.figures import UNITS, Figures
from bench.report.results import Report, read_json, write_json
from bench.scale import SCALES, Scale
from servers import ServerMissing, StartFailed

#: What ends one measurement and not the others.
FAILURES: Final = (Unbelievable, psycopg.Error, AMQPError, RedisError, OSError)
#: Columns of a table; a terminal may be wider.
WIDTH: Final = 120
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = _CHECKOUT / "docs"
#: On a disk: a flush to memory would cost nothing.
FOLDER: Final = _CHECKOUT / ".bench"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    scale: Scale = SCALES[arguments.scale]
    if arguments.repeats:
        scale = replace(scale, repeats=arguments.repeats, heavy_repeats=arguments.repeats)
    if arguments.list:
        print("\n".join(each.name for each in catalogue(scale, Brokers())))
        return 0
    console = Console()
    console.width = max(console.width, WIDTH)
    try:
        with opened(scale, arguments.folder) as lab:
            has = Brokers(rabbitmq=lab.rabbitmq is not None, valkey=lab.valkey is not None)
            experiments = _chosen(catalogue(scale, has), arguments.only)
            found = _begun(lab, arguments)
            _measure(lab, experiments, console, arguments.folder, found)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has been stopped")
        return 130
    except (ServerMissing, StartFailed) as error:
        print(error, file=sys.stderr)
        return 1
    _publish(found, console, arguments.folder, to_docs=arguments.docs)
    return 1 if found.failures or found.stalls else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    scale = parser.add_mutually_exclusive_group()
    for name in SCALES:
        scale.add_argument(f"--{name}", dest="scale", action="store_const", const=name)
    parser.set_defaults(scale="quick")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="experiments named like that")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep what an earlier run measured and this one does not",
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="rounds")
    parser.add_argument("--list", action="store_true", help="name the experiments")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where reports go, and servers meanwhile"
    )
    parser.add_argument("--docs", action="store_true", help="also write docs/performance.md")
    return parser


def _chosen(experiments: list[Experiment], only: list[str] | None) -> list[Experiment]:
    if not only:
        return experiments
    return [each for each in experiments if any(text in each.name for text in only)]


def _begun(lab: Lab, arguments: argparse.Namespace) -> Report:
    """A report without figures, or with those of the run before."""
    here = conditions.conditions(lab)
    if not arguments.keep:
        return Report(here, Figures())
    again = ", ".join(arguments.only or ["all"])
    here = {**here, "measured in a later run": f"what is named like: {again}"}
    return read_json(arguments.folder / "results.json", here)


def _measure(
    lab: Lab, experiments: list[Experiment], console: Console, folder: Path, found: Report
) -> None:
    """Let the experiments take turns, round by round; what is found is kept after each round."""
    for round_ in range(lab.scale.repeats):
        for experiment in experiments:
            if experiment.heavy and round_ >= lab.scale.heavy_repeats:
                continue
            try:
                results = _one(lab, experiment)
            except FAILURES as error:
                found.failures.append(f"{experiment.name}: {error}")
                console.print(found.failures[-1], style="red", highlight=False)
                continue
            for name, values in results.items():
                stall = found.add(round_, name, values)
                shown = "  ".join(f"{what} {v:,.1f} {UNITS[what]}" for what, v in values.items())
                place = f"{round_ + 1}/{lab.scale.repeats}"
                line = f"{place}  {name:<52} {'STALLED  ' if stall else ''}{shown}"
                console.print(line, style="red" if stall else "", highlight=False, soft_wrap=True)
        write_json(found, folder / "results.json")


def _one(lab: Lab, experiment: Experiment) -> dict[str, dict[str, float]]:
    """Measure once, and how busy others kept the machine meanwhile: that decides what it is worth.

    Preparations count too, as for the time.
    """
    began, before = monotonic(), cpu.foreign()
    results = experiment.measure(lab)
    others = max(0.0, cpu.foreign() - before) / (monotonic() - began)
    return {name: {**values, "others": others} for name, values in results.items()}


def _publish(found: Report, console: Console, folder: Path, *, to_docs: bool) -> None:
    tables.show(found, console)
    plot.draw(found.figures, folder / "performance.png")
    console.print(f"every value: {folder}/results.json, plot: {folder}/performance.png")
    if to_docs:
        plot.draw(found.figures, DOCS / "performance.png")
        tables.write_page(found, DOCS / "performance.md", "performance.png")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
