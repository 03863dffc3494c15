"""Prints docs/reference.md: flows, options, blocks and errors, from the models themselves."""

import ast
import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import yaml
from prefect import Flow
from prefect.blocks.core import Block
from prefect.utilities.callables import parameter_schema

from deployments.server import block_types
from nudgescribe.errors import NudgeflowError

ROOT = Path(__file__).parents[1]
PACKAGES = ("nudgescribe", "blocks", "tasks", "flows")

Schema = dict[str, Any]


def main() -> None:
    print(reference())


def reference() -> str:
    """The document. A model that several flows take is described with the first of them."""
    flows = (section for flow in _flows() for section in _flow(flow))
    return "\n".join(
        [
            "# Reference\n\nMade by `make documents` from the code.\n\n## Flows\n",
            *dict.fromkeys(flows),
            "## Blocks\n",
            *(section for block in block_types() for section in _block(block)),
            "## Errors\n\nWhat a flow run says, and what to do about it.\n",
            *_errors(),
        ]
    )


def _flows() -> list[Flow[..., Any]]:
    """Those that have a deployment, each once."""
    listed: list[Schema] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    found: dict[str, Flow[..., Any]] = {}
    for deployment in listed:
        module, _, name = str(deployment["entrypoint"]).rpartition(".")
        found[name] = getattr(import_module(module), name)
    return list(found.values())


def _flow(flow: Flow[..., Any]) -> Iterator[str]:
    text, _, _ = (inspect.getdoc(flow.fn) or "").partition("\n\nArgs:")
    schema = parameter_schema(flow.fn)
    yield f"### {flow.name}\n\n{text}\n"
    if schema.properties:
        yield _table(schema.properties, set(schema.required or []))
    for name, model in (schema.definitions or {}).items():
        if "properties" in model:
            table = _table(model["properties"], _required(model))
            yield f"#### {name}\n\n{_first(model)}\n\n{table}"


def _block(block: type[Block]) -> Iterator[str]:
    schema = block.model_json_schema()
    what = inspect.cleandoc(block.__doc__ or "").partition("\n\n")[0]
    yield f"### {block.get_block_type_slug()}\n\n{what}\n"
    yield _table(schema["properties"], _required(schema))


def _required(schema: Schema) -> set[str]:
    return set(cast(list[str], schema.get("required", [])))


def _first(schema: Schema) -> str:
    return str(schema.get("description", "")).partition("\n\n")[0].replace("\n", " ")


def _table(properties: dict[str, Schema], required: set[str]) -> str:
    rows = [
        f"| `{name}` | {_type(field)} | {'' if name in required else _default(field)} | "
        f"{_cell(str(field.get('description', '')))} |"
        for name, field in properties.items()
    ]
    return "\n".join(["| name | type | default | |", "|---|---|---|---|", *rows, ""])


def _type(field: Schema) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "enum" in field or "const" in field:
        choices = cast(list[Any], field.get("enum", [field.get("const")]))
        return ", ".join(f"`{each}`" for each in choices)
    if "anyOf" in field or "allOf" in field:
        kinds = cast(list[Schema], field.get("anyOf") or field["allOf"])
        return " or ".join(_type(each) for each in kinds if each.get("type") != "null")
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return "secret" if field.get("writeOnly") else str(field.get("type", "any"))


def _default(field: Schema) -> str:
    default = field.get("default")
    if default in (None, "", [], {}):
        return ""
    return f"`{default}`" if not isinstance(default, dict) else "see there"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _errors() -> Iterator[str]:
    """Every message in the code, with … for what is only known when it happens."""
    messages: dict[str, dict[str, None]] = defaultdict(dict)
    for module in _modules():
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            kind = getattr(module, node.func.id, None)
            ours = isinstance(kind, type) and issubclass(kind, NudgeflowError)
            if ours and (text := _template(node.args[0])):
                messages[node.func.id][text] = None
    yield "| error | message | what to do |\n|---|---|---|"
    kinds = {kind.__name__: kind for kind in _kinds(NudgeflowError)}
    for name in sorted(kinds):
        told = "<br>".join(_cell(text) for text in messages[name])
        yield f"| `{name}` | {told} | {_cell(kinds[name].advice)} |"


def _kinds(base: type[NudgeflowError]) -> Iterator[type[NudgeflowError]]:
    """Those of the packages with something to advise."""
    for kind in base.__subclasses__():
        if kind.advice and kind.__module__.partition(".")[0] in PACKAGES:
            yield kind
        yield from _kinds(kind)


def _modules() -> Iterator[ModuleType]:
    for package in map(import_module, PACKAGES):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield import_module(found.name)


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    return "…" if isinstance(node, ast.FormattedValue) else ""


if __name__ == "__main__":
    main()
