"""`python -m sandbox serve` runs the service, `python -m sandbox seed` fills it for a start."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import uvicorn

from sandbox import seed
from sandbox.service import create_app
from sandbox.settings import Settings

parser = ArgumentParser(prog="python -m sandbox", description=__doc__)
commands = parser.add_subparsers(required=True)

serve = commands.add_parser("serve", help="run the service on this machine")
serve.add_argument("--data", type=Path, required=True, help="folder that holds everything")
serve.add_argument("--port", type=int, default=7878, help="default 7878")
serve.add_argument("--rows-per-file", type=int, default=50_000, help="rows of an exported page")
serve.add_argument("--phase-seconds", type=float, default=0.0, help="least time of a rerun's phase")
serve.add_argument("--approve-after", type=float, help="seconds until a run approves itself")

plant = commands.add_parser("seed", help="make an account with a Published campaign, print it")
plant.add_argument("--data", type=Path, required=True, help="folder that holds everything")
plant.add_argument("--list", type=Path, help="a CSV to make the workspace from")
plant.add_argument("--segments", default="", help="the columns of the list to segment by: a,b")


def run_serve(options: Namespace) -> None:
    settings = Settings(
        data=options.data,
        rows_per_file=options.rows_per_file,
        phase_seconds=options.phase_seconds,
        approve_after=options.approve_after,
    )
    uvicorn.run(create_app(settings), host="127.0.0.1", port=options.port, log_level="warning")


def run_seed(options: Namespace) -> None:
    settings = Settings(data=options.data)
    if options.list:
        made = seed.seed_from_list(settings, options.list, options.segments.split(","))
    else:
        made = seed.seed(settings)
    print(made.model_dump_json())


serve.set_defaults(run=run_serve)
plant.set_defaults(run=run_seed)


def main(arguments: list[str] | None = None) -> None:
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
