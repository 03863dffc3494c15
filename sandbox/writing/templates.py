"""Message templates: plain text with `{{ field }}` placeholders, and nothing else of Jinja2.

A segment's text has the segment's own values filled in and keeps the customers' placeholders; the
export fills those column by column. Loops, filters and arithmetic are refused: even in Jinja2's
sandboxed environment a template could keep the service busy for ever.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from keyword import iskeyword

import polars as pl
from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nudgescribe import segments
from nudgescribe.contract import MESSAGE_COLUMNS, Segment

_CONSTANTS = ("true", "false", "none")
"""What a template takes for a value and not for a field, beside Python's own words."""
_environment = ImmutableSandboxedEnvironment(keep_trailing_newline=True)


class BadTemplate(ValueError):
    """The text is no template; the error says why without repeating it."""


@dataclass(frozen=True)
class Placeholder:
    """What stands in a template for the value of a field."""

    field: str


Token = str | Placeholder


def name_fields(columns: Sequence[str]) -> dict[str, str]:
    """Return a field for each column, named so that a template can have it; such names stay."""
    fields: dict[str, str] = {}
    for number, column in enumerate(columns, 1):
        words = "".join(each if f"_{each}".isidentifier() else " " for each in column).split()
        name = "_".join(words)
        if not name.isidentifier() or iskeyword(name) or name.lower() in _CONSTANTS:
            name = f"column_{number}_{name}".rstrip("_")
        while name in fields or (name != column and name in columns):
            name = f"{name}_{number}"
        fields[name] = column
    return fields


def parse(text: str) -> list[Token]:
    """Return a template's literals and placeholders in order. Raises BadTemplate."""
    try:
        body = _environment.parse(text).body
    except TemplateSyntaxError as error:
        raise BadTemplate(f"Line {error.lineno} of the template is not valid Jinja2.") from None
    except RecursionError:
        raise BadTemplate("The template is nested too deeply.") from None
    return [_token(output) for node in body for output in _outputs(node)]


def check(text: str, fields: Collection[str]) -> None:
    """Check that a template has placeholders of these fields alone. Raises BadTemplate."""
    unknown = {token.field for token in parse(text) if isinstance(token, Placeholder)} - {*fields}
    if unknown:
        names = f"{len(unknown)} placeholders of the template"
        raise BadTemplate(f"{names} do not name a field of the workspace.")


def fill_segment(template: str, segment: Segment) -> str:
    """Return a template with the segment's values filled in; other placeholders stay.

    Raises BadTemplate.
    """

    def fill(token: Token) -> str:
        if isinstance(token, str):
            return _literal(token)
        value = segment.get(token.field)
        return f"{{{{ {token.field} }}}}" if value is None else _literal(value)

    return "".join(map(fill, parse(template)))


class MessageRenderer:
    """Renderer of one run's messages from its segments' texts, column by column."""

    def __init__(self, variables: Sequence[str], texts: Sequence[tuple[Segment, str]]) -> None:
        columns = segments.columns(variables)
        rows = [{**segment, _SEGMENT: number} for number, (segment, _) in enumerate(texts)]
        schema = {**dict.fromkeys(variables, pl.String()), _SEGMENT: pl.UInt32()}
        self._segments = pl.DataFrame(rows, schema=schema)
        self._columns = columns
        self._variables = list(variables)
        self._templates = [parse(text) for _, text in texts]

    def select(self, customers: pl.DataFrame) -> pl.DataFrame:
        """Return the customers of the run's segments, in order, with the number of their segment.

        A customer whose segment is not of the run joined the group after the run began.
        """
        numbered = customers.select(self._columns).join(
            self._segments, on=self._variables, how="left", maintain_order="left"
        )
        return customers.with_columns(numbered[_SEGMENT]).filter(pl.col(_SEGMENT).is_not_null())

    def render(self, selected: pl.DataFrame, key: str) -> pl.DataFrame:
        """Return a message for each selected customer, in the columns of an export.

        `key` names the column of the customer identifier.
        """
        customer_id, message = MESSAGE_COLUMNS
        rendered = [
            frame.select(
                pl.col(_ROW),
                pl.col(key).alias(customer_id),
                _render(self._templates[int(frame[_SEGMENT][0])], frame.columns).alias(message),
            )
            for frame in selected.with_row_index(_ROW).partition_by(_SEGMENT)
        ]
        return pl.concat(rendered).sort(_ROW).drop(_ROW)


# No field is named so: a name holds no NUL.
_SEGMENT, _ROW = "\0segment", "\0row"


def _outputs(node: nodes.Node) -> Sequence[nodes.Node]:
    if not isinstance(node, nodes.Output):
        raise BadTemplate("The template holds a statement; only {{ field }} is filled in.")
    return node.nodes


def _token(node: nodes.Node) -> Token:
    match node:
        case nodes.TemplateData(data=text) | nodes.Const(value=str(text)):
            return text
        case nodes.Name(name=field):
            return Placeholder(field)
        case _:
            raise BadTemplate("The template holds an expression; only {{ field }} is filled in.")


def _literal(text: str) -> str:
    # A string in Jinja2 keeps its braces and line ends; plain text would not.
    if "{" in text or "\r" in text:
        return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"
    return text


def _render(template: Sequence[Token], columns: Collection[str]) -> pl.Expr:
    texts = [pl.lit("")]
    for token in template:
        if isinstance(token, str):
            texts.append(pl.lit(token))
        elif token.field in columns:  # a field that has been deleted is blank
            texts.append(pl.col(token.field).fill_null(""))
    return pl.concat_str(texts)
