"""Base classes for all packages: models that do not change, objects that are closed."""

from abc import ABC, abstractmethod
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A model whose fields cannot be set again."""

    model_config = ConfigDict(frozen=True)


TUNING: dict[str, Any] = {"json_schema_extra": {"tuning": True}}
"""Marks a field that no form shows: programs and deployments can set it all the same."""


def arrange_fields(schema: dict[str, Any]) -> None:
    """Leave tuning out of a model's JSON schema, and number the other fields, by which forms order
    them.
    """
    fields: dict[str, dict[str, Any]] = schema.get("properties", {})
    hidden = {f"^{name}$": fields.pop(name) for name in [*fields] if fields[name].pop("tuning", 0)}
    if hidden:
        schema["patternProperties"] = hidden  # what is not shown is still validated by Prefect
    for position, field in enumerate(fields.values()):
        # Without it, the order would be that of the database, which need not keep ours.
        field.setdefault("position", position)


class FrozenInput(Frozen):
    """What people write: frozen, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=arrange_fields)


class Closing(ABC):
    """A context manager that is closed at the end of its block, however that ends."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
