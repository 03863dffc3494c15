"""Messages: a segment's text from the campaign's template, a customer's from the segment's."""

import re
from collections.abc import Mapping

from jinja2.sandbox import SandboxedEnvironment

from nudgescribe.contract import Segment

_PLACE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_environment = SandboxedEnvironment(keep_trailing_newline=True, autoescape=False)


def compose(template: str, segment: Segment) -> str:
    """The segment's text: its own variables filled in, the customer's left as `{{ name }}`."""

    def fill(place: re.Match[str]) -> str:
        value = segment.get(place[1])
        return place[0] if value is None else _as_literal(value)

    return _PLACE.sub(fill, template)


def personalise(
    texts: Mapping[str, str], customers: list[tuple[str, dict[str, str | None]]]
) -> list[str]:
    """One message per (segment key, profile), from the text of the segment."""
    templates = {key: _environment.from_string(text) for key, text in texts.items()}
    return [
        templates[key].render({name: value or "" for name, value in profile.items()})
        for key, profile in customers
    ]


def _as_literal(value: str) -> str:
    # A value is data: braces in it must not be read as a template.
    return value.replace("{", "{{ '{' }}")
