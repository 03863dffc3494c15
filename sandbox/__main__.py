"""The sandbox's commands: serve it, seed it with a first account, print its OpenAPI document."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from sandbox import extra

if not extra.is_installed():
    sys.exit(extra.MISSING)

import uvicorn

from nudgescribe.errors import NudgeflowError
from sandbox import demo_customers, seed
from sandbox.context import open_context
from sandbox.service import create_app
from sandbox.settings import ChatEndpoint, Envelope, Settings

CHAT_KEY = "NUDGEFLOW_SANDBOX_CHAT_KEY"

parser = ArgumentParser(prog="python -m sandbox", description=__doc__)
commands = parser.add_subparsers(required=True)

storage = ArgumentParser(add_help=False)
storage.add_argument("--data", type=Path, required=True, help="folder of all that has no own URL")
storage.add_argument("--database", help="SQLAlchemy URL; default SQLite in the folder")
storage.add_argument("--exports", help="fsspec URL for exported pages; default in the folder")
storage.add_argument("--rows-per-file", type=int, default=50_000, help="rows per exported page")

serve_parser = commands.add_parser(
    "serve", parents=[storage], help="run the service on this machine"
)
serve_parser.add_argument(
    "--host", default="127.0.0.1", help="default 127.0.0.1; 0.0.0.0 in a container"
)
serve_parser.add_argument("--port", type=int, default=7878, help="default 7878")
serve_parser.add_argument(
    "--phase-seconds", type=float, default=0.0, help="least time of a rerun's phase"
)
serve_parser.add_argument(
    "--approve-after", type=float, help="seconds until a run that is awaiting review is approved"
)
serve_parser.add_argument(
    "--chat-url",
    help="OpenAI-compatible endpoint that writes messages of campaigns that name no other; "
    f"its key: ${CHAT_KEY}",
)
serve_parser.add_argument("--chat-model", default="", help="the model to ask there")
serve_parser.add_argument(
    "--envelope",
    choices=get_args(Envelope),
    default="object",
    help="form of the answers: object, as the contract has them (default); data, inside an "
    "object's data; bare, a lone text or array without its object; camel, names in camel case",
)

seed_parser = commands.add_parser(
    "seed", parents=[storage], help="make an account with a Published campaign, print it"
)
seed_parser.add_argument(
    "--list",
    type=Path,
    help="a CSV to make the workspace from; my-column becomes the field my_column",
)
seed_parser.add_argument("--segments", default="", help="columns to segment the list by: a,b")
seed_parser.add_argument(
    "--crm", type=Path, help="write the demo's CRM of today into this SQLite database"
)
seed_parser.add_argument(
    "--variables",
    metavar="URL",
    help="print it as NUDGEFLOW_* variables, for a service at this URL; default one JSON object",
)

openapi_parser = commands.add_parser("openapi", help="print the OpenAPI document")


def run_serve(options: Namespace) -> None:
    """Serve until stopped."""
    chat = None
    if options.chat_url:
        key = os.environ.get(CHAT_KEY, "")
        chat = ChatEndpoint(url=options.chat_url, model=options.chat_model, key=key)
    settings = _settings(
        options,
        phase_seconds=options.phase_seconds,
        approve_after=options.approve_after,
        chat=chat,
        envelope=options.envelope,
    )
    uvicorn.run(create_app(settings), host=options.host, port=options.port, log_level="warning")


def run_seed(options: Namespace) -> None:
    """Seed an account and print its credentials and ids, as one JSON object or as variables."""
    if options.segments and not options.list:
        sys.exit("--segments is about a list: name that with --list, or leave it out.")
    context = open_context(_settings(options))
    try:
        if options.list:
            segments = [name.strip() for name in options.segments.split(",") if name.strip()]
            seeded = seed.seed_from_list(context, options.list, segments)
        else:
            seeded = seed.seed(context)
        if options.crm:
            demo_customers.write_crm(options.crm)
    except (NudgeflowError, OSError) as error:
        sys.exit(str(error))
    finally:
        context.store.close()
    if options.variables:
        print(*seed.variables(seeded, options.variables, options.crm), sep="\n")
    else:
        print(seeded.model_dump_json())


def run_openapi(options: Namespace) -> None:
    """Print the OpenAPI document."""
    with TemporaryDirectory() as folder:
        app = create_app(Settings(data=Path(folder)))
        print(json.dumps(app.openapi(), indent=2, ensure_ascii=False))
        app.state.context.store.close()


def _settings(options: Namespace, **more: Any) -> Settings:
    return Settings(
        data=options.data,
        database=options.database,
        exports=options.exports,
        rows_per_file=options.rows_per_file,
        **more,
    )


serve_parser.set_defaults(run=run_serve)
seed_parser.set_defaults(run=run_seed)
openapi_parser.set_defaults(run=run_openapi)


def main(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments name."""
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
