"""Message texts: Jinja2's `{{ field }}` places in plain text, and nothing else of Jinja2.

A segment's text has the segment's own values filled in and leaves the customers' places open;
those are filled column by column at the export. Loops, filters and arithmetic are refused: even in
Jinja2's sandboxed environment a text could keep the service busy for ever.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl
from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nudgescribe import segments
from nudgescribe.contract import MESSAGE_COLUMNS, Segment

_environment = ImmutableSandboxedEnvironment(keep_trailing_newline=True)


class BadTemplate(ValueError):
    """A text that is no template; says why without repeating it."""


@dataclass(frozen=True)
class Place:
    """Where the value of a field goes."""

    field: str


Part = str | Place


def parse(text: str) -> list[Part]:
    """A text's literal parts and places in order. Raises BadTemplate."""
    try:
        body = _environment.parse(text).body
    except TemplateSyntaxError as error:
        raise BadTemplate(f"Line {error.lineno} of the template is not valid Jinja2.") from None
    except RecursionError:
        raise BadTemplate("The template is nested too deeply.") from None
    output = [part for node in body for part in _outputs(node)]
    return [_part(node) for node in output]


def check(text: str, fields: Collection[str]) -> None:
    """Raises BadTemplate if a text has anything but places of these fields."""
    unknown = {part.field for part in parse(text) if isinstance(part, Place)} - {*fields}
    if unknown:
        raise BadTemplate(f"{len(unknown)} places of the template are no fields of the workspace.")


def compose(template: str, segment: Segment) -> str:
    """The segment's text: its own variables filled in, the customer's left as `{{ name }}`."""

    def fill(part: Part) -> str:
        if isinstance(part, str):
            return _literal(part)
        value = segment.get(part.field)
        return f"{{{{ {part.field} }}}}" if value is None else _literal(value)

    return "".join(map(fill, parse(template)))


class Messages:
    """The texts of one run, made ready for the columns of its customers."""

    def __init__(self, variables: Sequence[str], texts: Sequence[tuple[Segment, str]]) -> None:
        columns = segments.columns(variables)
        rows = [{**segment, _SEGMENT: number} for number, (segment, _) in enumerate(texts)]
        schema = {**dict.fromkeys(variables, pl.String()), _SEGMENT: pl.UInt32()}
        self._known = pl.DataFrame(rows, schema=schema)
        self._columns = columns
        self._variables = list(variables)
        self._parts = [parse(text) for _, text in texts]

    def select(self, customers: pl.DataFrame) -> pl.DataFrame:
        """The customers who have a message, in order; who joined a segment after the run began has
        none.
        """
        own = customers.select(self._columns).join(
            self._known, on=self._variables, how="left", maintain_order="left"
        )
        return customers.with_columns(own[_SEGMENT]).filter(pl.col(_SEGMENT).is_not_null())

    def write(self, selected: pl.DataFrame, key: str) -> pl.DataFrame:
        """One message for each of the selected customers, in the columns of an export."""
        customer_id, message = MESSAGE_COLUMNS
        written = [
            part.select(
                pl.col(_ROW),
                pl.col(key).alias(customer_id),
                _filled(self._parts[int(part[_SEGMENT][0])], part.columns).alias(message),
            )
            for part in selected.with_row_index(_ROW).partition_by(_SEGMENT)
        ]
        return pl.concat(written).sort(_ROW).drop(_ROW)


# No field is named so: a name holds no NUL.
_SEGMENT, _ROW = "\0segment", "\0row"


def _outputs(node: nodes.Node) -> Sequence[nodes.Node]:
    if not isinstance(node, nodes.Output):
        raise BadTemplate("The template holds a statement; only {{ field }} places are filled.")
    return node.nodes


def _part(node: nodes.Node) -> Part:
    match node:
        case nodes.TemplateData(data=text) | nodes.Const(value=str(text)):
            return text
        case nodes.Name(name=field):
            return Place(field)
        case _:
            raise BadTemplate(
                "The template holds an expression; only {{ field }} places are filled."
            )


def _literal(text: str) -> str:
    # A value is data: as a string of Jinja2 it is neither read as a template nor are its line
    # ends changed.
    if "{" in text or "\r" in text:
        return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"
    return text


def _filled(parts: Sequence[Part], columns: Collection[str]) -> pl.Expr:
    texts = [pl.lit("")]
    for part in parts:
        if isinstance(part, str):
            texts.append(pl.lit(part))
        elif part.field in columns:  # a field that has been deleted is blank
            texts.append(pl.col(part.field).fill_null(""))
    return pl.concat_str(texts)
