"""Lookup within an account; another account's id answers like an unknown one."""

from fastapi import HTTPException
from sqlalchemy import select
from sqlalchemy.orm import Session

from nudgescribe.contract import Text, WorkspaceField
from sandbox.data.models import Campaign, Field, Group, Workspace


def find_workspace(session: Session, account_id: str, workspace_id: str) -> Workspace:
    """Return a workspace of the account. Raises HTTPException, 401 as Nudgescribe's pages say."""
    workspace = session.get(Workspace, workspace_id)
    if workspace is None or workspace.account_id != account_id:
        raise HTTPException(401, Text.INVALID_WORKSPACE)
    return workspace


def find_group(
    session: Session, account_id: str, group_id: str, workspace_id: str | None = None
) -> Group:
    """Return a group of the account, in one workspace if given. Raises HTTPException, 404."""
    query = select(Group).join(Workspace).where(Workspace.account_id == account_id)
    group = session.scalar(query.where(Group.id == group_id))
    if group is None or workspace_id not in (None, group.workspace_id):
        raise HTTPException(404, Text.GROUP_NOT_FOUND)
    return group


def find_campaign(session: Session, account_id: str, campaign_id: str, text: Text) -> Campaign:
    """Return a campaign of the account. Raises HTTPException, 404 with this text."""
    query = select(Campaign).join(Workspace).where(Workspace.account_id == account_id)
    campaign = session.scalar(query.where(Campaign.id == campaign_id))
    if campaign is None:
        raise HTTPException(404, text)
    return campaign


def account_id_of(session: Session, campaign: Campaign) -> str:
    """Return the id of the account that a campaign belongs to."""
    return session.get_one(Workspace, campaign.workspace_id).account_id


def fields_of(session: Session, workspace_id: str) -> list[WorkspaceField]:
    """Return a workspace's fields in the order of their creation."""
    fields = session.scalars(
        select(Field).where(Field.workspace_id == workspace_id).order_by(Field.number)
    )
    return [field_on_wire(field) for field in fields]


def field_on_wire(field: Field) -> WorkspaceField:
    """Return a field as the wire has it."""
    return WorkspaceField.model_validate(
        {
            "field_id": field.id,
            "workspace_id": field.workspace_id,
            "field_name": field.field_name,
            "display_name": field.display_name,
            "field_type": field.field_type,
            "field_format": field.field_format,
            "required": field.required,
            "unique": field.unique,
        }
    )
