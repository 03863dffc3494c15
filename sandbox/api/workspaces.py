"""Content endpoints: a workspace's fields and its customer groups."""

import re

from fastapi import APIRouter, HTTPException, Request
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nudgescribe import contract, fields
from nudgescribe.contract import Text
from sandbox.api.security import CONTENT_HEADERS, BearerRoute
from sandbox.context import account_of, context_of
from sandbox.data.lookup import field_on_wire, fields_of, find_group, find_workspace
from sandbox.data.models import Field, Group, ProfileChunk, Workspace
from sandbox.data.profiles import Profiles, count_customers
from sandbox.errors import NOT_FOUND

router = APIRouter(
    route_class=BearerRoute,
    dependencies=CONTENT_HEADERS,
    responses=NOT_FOUND,
    tags=["Workspace fields"],
)
group_router = APIRouter(
    route_class=BearerRoute,
    dependencies=CONTENT_HEADERS,
    responses=NOT_FOUND,
    tags=["Customer groups"],
)

COLUMN_PATTERN = re.compile(r"\*|\^.*\$", re.DOTALL)
"""Names that polars reads as a pattern of columns, so that no column can have one."""


@router.put(contract.FIELDS)
def create_workspace_field(body: contract.CreateField, request: Request) -> contract.WorkspaceField:
    """Create a field of a workspace."""
    _check_format(body.field_type, body.field_format)
    if COLUMN_PATTERN.fullmatch(body.field_name):
        raise HTTPException(400, "Wrong type or value: field_name.")
    with context_of(request).store.write() as session:
        find_workspace(session, account_of(request), body.workspace_id)
        existing = fields_of(session, body.workspace_id)
        if any(field.field_name == body.field_name for field in existing):
            raise HTTPException(400, "Field already exists.")
        if body.unique and any(field.unique for field in existing):
            raise HTTPException(400, "The workspace already has its unique field.")
        field = Field(**body.model_dump())
        field.display_name = body.display_name or body.field_name
        session.add(field)
        session.flush()
        return field_on_wire(field)


@router.post(contract.FIELDS)
def list_workspace_fields(body: contract.WorkspaceRequest, request: Request) -> contract.FieldList:
    """List a workspace's fields."""
    with context_of(request).store.read() as session:
        find_workspace(session, account_of(request), body.workspace_id)
        return contract.FieldList(fields=fields_of(session, body.workspace_id))


@router.patch(contract.FIELDS)
def update_workspace_field(body: contract.UpdateField, request: Request) -> contract.WorkspaceField:
    """Change a field; customers keep their values."""
    with context_of(request).store.write() as session:
        field = _find_field(session, account_of(request), body.field_id)
        for name, value in body.model_dump(exclude={"field_id"}, exclude_none=True).items():
            setattr(field, name, value)
        _check_format(field.field_type, field.field_format)
        return field_on_wire(field)


@router.delete(contract.FIELDS)
def delete_workspace_field(body: contract.DeleteField, request: Request) -> contract.Deleted:
    """Delete a field and the values that customers have for it."""
    with context_of(request).store.write() as session:
        field = _find_field(session, account_of(request), body.field_id)
        if field.unique:
            raise HTTPException(400, "The unique field of a workspace cannot be deleted.")
        groups = select(Group.id).where(Group.workspace_id == field.workspace_id)
        for group_id in session.scalars(groups).all():
            Profiles(session, context_of(request).keys, group_id).drop_column(field.field_name)
        session.delete(field)
    return contract.Deleted(deleted=1)


@group_router.put(contract.GROUPS)
def create_customer_group(body: contract.CreateGroup, request: Request) -> contract.CustomerGroup:
    """Create an empty customer group."""
    with context_of(request).store.write() as session:
        find_workspace(session, account_of(request), body.workspace_id)
        group = Group(**body.model_dump())
        session.add(group)
        _flush_group(session)
        return _group_on_wire(group, 0)


@group_router.post(contract.GROUPS)
def list_customer_groups(body: contract.WorkspaceRequest, request: Request) -> contract.GroupList:
    """List a workspace's customer groups with their sizes."""
    with context_of(request).store.read() as session:
        find_workspace(session, account_of(request), body.workspace_id)
        counts = (
            select(ProfileChunk.group_id, func.sum(ProfileChunk.size).label("size"))
            .group_by(ProfileChunk.group_id)
            .subquery()
        )
        rows = session.execute(
            select(Group, func.coalesce(counts.c.size, 0))
            .outerjoin(counts, counts.c.group_id == Group.id)
            .where(Group.workspace_id == body.workspace_id)
            .order_by(Group.created_at)
        )
        return contract.GroupList(groups=[_group_on_wire(group, size) for group, size in rows])


@group_router.patch(contract.GROUPS)
def update_customer_group(body: contract.UpdateGroup, request: Request) -> contract.CustomerGroup:
    """Rename or describe a customer group; it keeps its customers."""
    with context_of(request).store.write() as session:
        group = find_group(session, account_of(request), body.customer_group_id)
        group.name = body.name or group.name
        group.description = body.description or group.description
        _flush_group(session)
        return _group_on_wire(group, count_customers(session, group.id))


@group_router.delete(contract.GROUPS)
def delete_customer_group(body: contract.DeleteGroup, request: Request) -> contract.Deleted:
    """Delete a customer group with its customers."""
    with context_of(request).store.write() as session:
        group = find_group(session, account_of(request), body.customer_group_id)
        session.execute(delete(Group).where(Group.id == group.id))
    return contract.Deleted(deleted=1)


def _find_field(session: Session, account_id: str, field_id: str) -> Field:
    """Return a field of the account. Raises HTTPException, 404."""
    query = select(Field).join(Workspace).where(Workspace.account_id == account_id)
    field = session.scalar(query.where(Field.id == field_id))
    if field is None:
        raise HTTPException(404, "Field not found.")
    return field


def _check_format(field_type: str, field_format: str | None) -> None:
    """Check that the type allows the format. Raises HTTPException, 400."""
    if problem := fields.format_problem(field_type, field_format):
        raise HTTPException(400, f"{problem}.")


def _flush_group(session: Session) -> None:
    """Flush a group. Raises HTTPException, 400, if its workspace has another of that name."""
    try:
        session.flush()
    except IntegrityError:
        raise HTTPException(400, Text.GROUP_EXISTS) from None


def _group_on_wire(group: Group, size: int) -> contract.CustomerGroup:
    return contract.CustomerGroup(
        customer_group_id=group.id,
        workspace_id=group.workspace_id,
        name=group.name,
        description=group.description,
        customer_count=size,
        created_at=group.created_at,
        updated_at=group.updated_at,
    )
