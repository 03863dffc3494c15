"""The base of the blocks: flows, tasks and machines pass a saved block on as a reference."""

import logging
from abc import ABC
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Self, cast
from uuid import UUID

from prefect.blocks.core import Block, UnknownBlockType, schema_extra
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError, PrefectHTTPStatusError
from prefect.logging import get_logger, get_run_logger
from prefect.utilities.dispatch import get_registry_for_type
from pydantic import (
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from blocks.documentation import Documented
from blocks.packages import problems
from nudgescribe.bases import number_fields
from nudgescribe.errors import MOST_NAMED, NudgeflowError, describe_invalid, first_ten

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]

_FlowRun = tuple[UUID | None, int] | None
"""Its id, and how often it has begun."""

MAIN = "main"
"""The name that bootstrap saves blocks under, and that the deployments refer to."""
NOT_SAVED = "not-saved"


class BlockNotFound(NudgeflowError):
    """There is no saved block of this name or id."""

    advice = "Look at the saved blocks in the Prefect UI, or save it with `prefect block create`."


class BlockInvalid(NudgeflowError):
    """A saved block has values that are not valid."""

    advice = "Nothing was changed. Correct the block in the Prefect UI, then start again."


class BlockTypeMissing(NudgeflowError):
    """A saved block is of a type that no package has which is installed here."""

    advice = (
        "Install the package that has it, or correct it, on every machine that flow runs work on, "
        "then retry."
    )


class BlockNotSaved(NudgeflowError):
    """A block has no reference, for it is not saved."""

    advice = "Save it under a name first: other flow runs load it by reference."


def _describe(schema: dict[str, Any], block: type[Block]) -> None:
    schema_extra(schema, block)
    number_fields(schema)


# An error about a field would show the values of all, passwords as well.
FORM = ConfigDict(hide_input_in_errors=True, json_schema_extra=_describe)
"""How the form of a block is drawn; one with other bases of Prefect's has to say so itself."""


class SavedBlock(Documented, Block, ABC):
    """A block that flows and tasks take as a parameter; Prefect offers no abstract one.

    If it is saved, the stored parameters of flow runs and pickles for other machines hold a
    reference to it and none of its secrets. If not, it is pickled with all it holds.
    """

    model_config = FORM

    _resolved: bool = PrivateAttr(default=True)

    @property
    def logger(self) -> Logger:
        """Return the logger of the flow or task run; outside of runs, one of the block's own."""
        try:
            return get_run_logger()
        except MissingContextError:
            return get_logger(type(self).__name__)

    @property
    def block_name(self) -> str:
        """Return the name it is saved under, to show to people."""
        return self._block_document_name or NOT_SAVED

    @property
    def block_slug(self) -> str:
        """Return its type and name, such as `sql-crm/main`."""
        return f"{self.get_block_type_slug()}/{self.block_name}"

    def to_reference(self) -> dict[str, Any]:
        """Return the reference for a flow run's parameters. Raises BlockNotSaved."""
        if self._block_document_id is None:
            raise BlockNotSaved(f"This {type(self).__name__} block is not saved.")
        return {"$ref": {"block_document_id": str(self._block_document_id)}}

    def resolve(self) -> Self:
        """Return the block itself; if it was unpickled, load it once per process and flow run,
        and anew if that was suspended or retried.

        Unpickling does not load it, since the event loop of a cluster's scheduler unpickles, too.

        Raises BlockNotFound.
        """
        if self._resolved:
            return self
        assert self._block_document_id is not None
        return cast(Self, _load_once(type(self), self._block_document_id, _flow_run()))

    def __reduce__(self) -> Any:
        if self._block_document_id is None:
            return super().__reduce__()
        return _unresolved, (type(self), self._block_document_id, self._block_document_name)

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out cached values: they may hold the secrets that fields only refer to."""
        state = super().__getstate__()
        fields = type(self).model_fields
        made = {name: each for name, each in state["__dict__"].items() if name in fields}
        return {**state, "__dict__": made}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field; the block is another one than the saved one then, until it is saved."""
        if name in type(self).model_fields:
            self._block_document_id = None
        super().__setattr__(name, value)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the block; one with other values is not the saved one."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            copied._block_document_id = None
        return copied

    @classmethod
    def _from_reference(cls, document_id: UUID, name: str | None) -> Self:
        block = cls.model_construct()
        vars(block).clear()  # so that nobody reads default values from it
        block._block_document_id = document_id
        block._block_document_name = name
        block._resolved = False
        return block

    @model_serializer(mode="wrap")
    def ser_model(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        """Serialize a saved block to JSON as a reference, except while it is being saved."""
        saving = "include_secrets" in cast(dict[str, Any], info.context or {})
        if self._block_document_id is None or saving or info.mode != "json":
            return super().ser_model(handler, info)
        return self.to_reference()

    @classmethod
    def from_name(cls, name: str) -> Block:
        """Load what version 0.1 stored as a parameter: a name. Raises BlockNotFound."""
        return load_by_name(name, cls)

    @model_validator(mode="wrap")
    @classmethod
    def _load_reference(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Load the block of a stored parameter: a reference, or a name as in version 0.1."""
        if isinstance(value, str):
            value = cls.from_name(value)
        elif isinstance(value, dict) and "$ref" in value:
            value = load_reference(cls, cast(Any, value)["$ref"])
        return validate(value)


def slug_reference(slug: str) -> dict[str, Any]:
    """Return the reference to a block named `type-slug/name`, for a flow run's parameters."""
    return {"$ref": {"block_document_slug": slug}}


def load_by_name(name: str, kind: type[Block]) -> Block:
    """Load a saved block by its name, or by `type-slug/name`.

    Raises BlockNotFound, BlockInvalid, BlockTypeMissing.
    """
    try:
        block = Block.load(name) if "/" in name else kind.load(name)
    except UnknownBlockType as error:
        raise _type_missing(error) from None
    except RuntimeError as error:
        raise _invalid(f"{kind.__name__} block '{name}'", error) from None
    except ValueError:
        saved = describe_saved(kind, name)
        raise BlockNotFound(f"There is no saved {kind.__name__} block '{name}'. {saved}") from None
    return cast(Block, block)


def describe_saved(kind: type[Block], name: str = "") -> str:
    """Return which blocks are saved that could stand where one of a kind does, and which of them
    `name` may be meant for.
    """
    try:
        saved = list_saved(kind)
    except Exception:
        return "Prefect does not say which are saved."
    if not saved:
        return "None is saved."
    names = {each if "/" in name else each.partition("/")[2]: each for each in reversed(saved)}
    likely = [names[each] for each in get_close_matches(name, names, 1)]
    if len(saved) > MOST_NAMED:
        saved = [*likely, *(each for each in saved if each not in likely)]
    meant = f" Is {likely[0]} meant?" if likely else ""
    return f"Saved are: {first_ten(saved)}.{meant}"


def list_saved(kind: type[Block]) -> list[str]:
    """Return the saved blocks of a kind, each as `type/name`; for a source, those of all sources.

    Raises what Prefect's client does.
    """
    role = kind
    for each in kind.__mro__:
        if each is SavedBlock:
            break
        role = each if issubclass(each, SavedBlock) else role
    types = get_registry_for_type(Block) or {}
    wanted = {slug for slug, each in types.items() if issubclass(each, role)}
    with get_client(sync_client=True) as client:
        return sorted(f"{slug}/{name}" for slug in wanted for name in _names(client, slug))


def _names(client: SyncPrefectClient, slug: str) -> list[str]:
    try:
        there = client.read_block_documents_by_type(slug, include_secrets=False)
    except PrefectHTTPStatusError as error:
        if error.response.status_code == 404:  # the type is not registered
            return []
        raise
    return [each.name for each in there if each.name]


def load_reference(kind: type[SavedBlock], reference: Any) -> SavedBlock:
    """Load a saved block by a reference's id or slug; `kind` is what is expected there.

    Raises BlockNotFound, BlockInvalid, BlockTypeMissing.
    """
    try:
        return cast(SavedBlock, Block.load_from_ref(reference))  # a slug has its type in it
    except UnknownBlockType as error:
        raise _type_missing(error) from None
    except RuntimeError as error:
        raise _invalid(f"{kind.__name__} block {reference}", error) from None
    except ValueError:
        raise _not_found(kind, reference) from None


def _not_found(kind: type[Block], reference: object) -> BlockNotFound:
    match reference:
        case {"block_document_slug": str(slug)}:
            if kind is SavedBlock:
                types = get_registry_for_type(Block) or {}
                kind = types.get(slug.partition("/")[0], kind)
            return BlockNotFound(f"There is no saved block {slug}. {describe_saved(kind, slug)}")
        case _:
            saved = describe_saved(kind)
            return BlockNotFound(f"The saved {kind.__name__} block {reference} is gone. {saved}")


def _type_missing(error: UnknownBlockType) -> BlockTypeMissing:
    """Return an error that also tells which packages' sources could not be used."""
    said = str(error).partition(". ")[0]
    return BlockTypeMissing(f"{said}. {problems()}".rstrip())


def _invalid(block: str, error: RuntimeError) -> Exception:
    """Return what to raise for an error of `Block.load`, which does not say what is wrong."""
    if not isinstance(error.__cause__, ValidationError):
        return error
    problems = (
        f"{'.'.join(map(str, each['loc']))} {describe_invalid(each)}"
        for each in error.__cause__.errors(
            include_input=False, include_context=False, include_url=False
        )
    )
    return BlockInvalid(f"The saved {block} is not valid: {first_ten(problems, '; ')}.")


@lru_cache(maxsize=64)
def _load_once(kind: type[SavedBlock], document_id: UUID, flow_run: _FlowRun) -> SavedBlock:
    return load_reference(kind, document_id)


def _unresolved(kind: type[SavedBlock], document_id: UUID, name: str | None) -> SavedBlock:
    return kind._from_reference(document_id, name)  # pyright: ignore[reportPrivateUsage]


def _flow_run() -> _FlowRun:
    if task := TaskRunContext.get():
        return task.task_run.flow_run_id, task.task_run.flow_run_run_count
    flow = FlowRunContext.get()
    return (flow.flow_run.id, flow.flow_run.run_count) if flow and flow.flow_run else None
