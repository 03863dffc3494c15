"""Base classes for all packages: models that do not change, objects that are closed."""

from abc import ABC, abstractmethod
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A model whose fields cannot be set again."""

    model_config = ConfigDict(frozen=True)


def number_fields(schema: dict[str, Any]) -> None:
    """Number the fields of a model's JSON schema, by which forms order them."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        # Without it, the order would be that of the database, which need not keep ours.
        field.setdefault("position", position)


class FrozenInput(Frozen):
    """What people write: frozen, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=number_fields)


class Closing(ABC):
    """A context manager that is closed at the end of its block, however that ends."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
