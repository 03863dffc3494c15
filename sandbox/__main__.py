"""`python -m sandbox serve` runs the service, `python -m sandbox seed` fills it for a start."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

import uvicorn

from sandbox import seed
from sandbox.context import open_context
from sandbox.service import create_app
from sandbox.settings import ChatEndpoint, Settings

CHAT_KEY = "NUDGEFLOW_SANDBOX_CHAT_KEY"

parser = ArgumentParser(prog="python -m sandbox", description=__doc__)
commands = parser.add_subparsers(required=True)

place = ArgumentParser(add_help=False)
place.add_argument("--data", type=Path, required=True, help="folder that holds everything else")
place.add_argument("--database", help="SQLAlchemy URL; default SQLite in the folder")
place.add_argument("--exports", help="fsspec URL for exported pages; default in the folder")
place.add_argument("--rows-per-file", type=int, default=50_000, help="rows of an exported page")

serve = commands.add_parser("serve", parents=[place], help="run the service on this machine")
serve.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1; 0.0.0.0 in a container")
serve.add_argument("--port", type=int, default=7878, help="default 7878")
serve.add_argument("--phase-seconds", type=float, default=0.0, help="least time of a rerun's phase")
serve.add_argument("--approve-after", type=float, help="seconds until a run approves itself")
serve.add_argument(
    "--chat-url", help=f"OpenAI-compatible endpoint that writes messages; its key: ${CHAT_KEY}"
)
serve.add_argument("--chat-model", default="", help="the model to ask there")

plant = commands.add_parser(
    "seed", parents=[place], help="make an account with a Published campaign, print it"
)
plant.add_argument("--list", type=Path, help="a CSV to make the workspace from")
plant.add_argument("--segments", default="", help="the columns of the list to segment by: a,b")


def run_serve(options: Namespace) -> None:
    chat = None
    if options.chat_url:
        key = os.environ.get(CHAT_KEY, "")
        chat = ChatEndpoint(url=options.chat_url, model=options.chat_model, key=key)
    settings = Settings(
        data=options.data,
        database=options.database,
        exports=options.exports,
        rows_per_file=options.rows_per_file,
        phase_seconds=options.phase_seconds,
        approve_after=options.approve_after,
        chat=chat,
    )
    uvicorn.run(create_app(settings), host=options.host, port=options.port, log_level="warning")


def run_seed(options: Namespace) -> None:
    settings = Settings(
        data=options.data,
        database=options.database,
        exports=options.exports,
        rows_per_file=options.rows_per_file,
    )
    context = open_context(settings)
    if options.list:
        made = seed.seed_from_list(context, options.list, options.segments.split(","))
    else:
        made = seed.seed(context)
    context.store.close()
    print(made.model_dump_json())


serve.set_defaults(run=run_serve)
plant.set_defaults(run=run_seed)


def main(arguments: list[str] | None = None) -> None:
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
