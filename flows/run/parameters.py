"""Parameters of flows that name saved blocks: errors tell which blocks there are."""

from collections.abc import Iterator
from typing import Any, ParamSpec, TypeVar, cast, get_args, get_type_hints

from prefect import Flow
from prefect.exceptions import ParameterTypeError

from blocks.saved import SavedBlock, load_reference

P = ParamSpec("P")
R = TypeVar("R")


def tells_of_blocks(flow: Flow[P, R]) -> Flow[P, R]:
    """Let a flow fail with BlockNotFound, BlockInvalid or BlockTypeMissing where a parameter refers
    to a block that cannot be loaded. Prefect's own error does not say which one, nor why.
    """
    flow.__class__ = _TellingFlow
    return flow


class _TellingFlow(Flow[P, R]):
    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            return super().validate_parameters(parameters)
        except ParameterTypeError as error:
            if error.__cause__ is None:
                raise
            kinds = get_type_hints(self.fn)
            for name, value in parameters.items():
                for reference in _references(value):
                    load_reference(_kind(kinds.get(name)), reference)
            raise


def _references(value: object) -> Iterator[object]:
    """Yield the references in a parameter, at any depth."""
    if isinstance(value, dict):
        items = cast("dict[str, object]", value)
        if "$ref" in items:
            yield items["$ref"]
            return
        value = [*items.values()]
    if isinstance(value, list):
        for each in cast("list[object]", value):
            yield from _references(each)


def _kind(annotation: object) -> type[SavedBlock]:
    """Return the block that an annotation is for; any, if it is for none."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, SavedBlock):
            return each
    return SavedBlock
