"""Print docs/reference.md: flows with their options, blocks and errors, read from the code."""

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

from blocks.storage.errors import Damaged
from deployments.server import block_types
from nudgescribe.errors import NudgeflowError, counted

ROOT = Path(__file__).parents[1]
PACKAGES = ("nudgescribe", "blocks", "tasks", "flows")

Schema = dict[str, Any]


def main() -> None:
    """Print the document."""
    print(reference())


def reference() -> str:
    """Return the document; a model that several flows take is described under the first one."""
    flows = (section for flow in _flows() for section in _flow_sections(flow))
    return "\n".join(
        [
            "# Reference\n\nMade by `make documents` from the code.\n\n## Flows\n",
            *dict.fromkeys(flows),
            "## Blocks\n",
            *(section for block in block_types() for section in _block_sections(block)),
            "## Errors\n\nWhat a flow run says, and what to do about it.\n",
            *_error_table(),
        ]
    )


def _flows() -> list[Flow[..., Any]]:
    """Return the flows of the deployments in prefect.yaml, each once."""
    deployments: list[Schema] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    flows: dict[str, Flow[..., Any]] = {}
    for deployment in deployments:
        module, _, name = str(deployment["entrypoint"]).rpartition(".")
        flows[name] = getattr(import_module(module), name)
    return list(flows.values())


def _flow_sections(flow: Flow[..., Any]) -> Iterator[str]:
    text, _, _ = (inspect.getdoc(flow.fn) or "").partition("\n\nArgs:")
    schema = parameter_schema(flow.fn)
    yield f"### {flow.name}\n\n{text}\n"
    if schema.properties:
        yield _table(schema.properties, set(schema.required or []))
    for name, model in (schema.definitions or {}).items():
        # Blocks have a section of their own.
        if "properties" in model and "block_type_slug" not in model:
            table = _table({**model["properties"], **_hidden(model)}, _required(model))
            yield f"#### {name}\n\n{_summary(model)}\n\n{table}"


def _block_sections(block: type[Block]) -> Iterator[str]:
    schema = block.model_json_schema()
    summary = inspect.cleandoc(block.__doc__ or "").partition("\n\n")[0]
    yield f"### {block.__name__} (`{block.get_block_type_slug()}`)\n\n{summary}\n"
    yield _table(schema["properties"], _required(schema))


def _hidden(schema: Schema) -> dict[str, Schema]:
    """Return the fields that no form shows, by name."""
    patterns: dict[str, Schema] = schema.get("patternProperties", {})
    return {
        pattern.strip("^$"): {**field, "description": f"{field['description']} Not in the form."}
        for pattern, field in patterns.items()
    }


def _required(schema: Schema) -> set[str]:
    return set(cast(list[str], schema.get("required", [])))


def _summary(schema: Schema) -> str:
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


def _error_table() -> Iterator[str]:
    messages = _messages()
    yield "| error | message | what to do |\n|---|---|---|"
    for kind in sorted(set(_error_types(NudgeflowError)), key=lambda kind: kind.__name__):
        found = [*messages[kind.__name__]]
        if issubclass(kind, Damaged):
            found.append(kind.at("…").problem)
        texts = "<br>".join(_cell(text) for text in found)
        yield f"| `{kind.__name__}` | {texts} | {_cell(kind.advice)} |"


def _error_types(base: type[NudgeflowError]) -> Iterator[type[NudgeflowError]]:
    """Yield the errors of PACKAGES that advise what to do; one with two bases comes twice."""
    for kind in base.__subclasses__():
        if kind.advice and kind.__module__.partition(".")[0] in PACKAGES:
            yield kind
        yield from _error_types(kind)


def _messages() -> dict[str, dict[str, None]]:
    """Return the messages in the code by error, in order, … for what is only known at run time."""
    messages: dict[str, dict[str, None]] = defaultdict(dict)
    for module in _modules():
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            kind = getattr(module, node.func.id, None)
            raised = isinstance(kind, type) and issubclass(kind, NudgeflowError)
            if raised and (text := _text(node.args[0])):
                messages[node.func.id][text] = None
    return messages


def _modules() -> Iterator[ModuleType]:
    for package in map(import_module, PACKAGES):
        for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield import_module(each.name)


def _text(node: ast.expr) -> str:
    """Return a string expression as text, … for what it formats; empty if it is none."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        match node.value:
            case ast.Call(func=ast.Name(id="counted"), args=[_, *words]):
                return counted(2, *map(ast.literal_eval, words)).replace("2", "…")
            case _:
                return "…"
    return ""


if __name__ == "__main__":
    main()
