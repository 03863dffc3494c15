"""Finding things of the caller's account; another account's id answers like an unknown one."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from nudgescribe.contract import Text, WorkspaceField
from sandbox.data.models import Campaign, Field, Group, Workspace
from sandbox.errors import Refusal


def find_workspace(session: Session, account_id: str, workspace_id: str) -> Workspace:
    workspace = session.get(Workspace, workspace_id)
    if workspace is None or workspace.account_id != account_id:
        raise Refusal(401, Text.INVALID_WORKSPACE)
    return workspace


def find_group(
    session: Session, account_id: str, group_id: str, within: str | None = None
) -> Group:
    """A group of the account; of the workspace `within`, if one is given."""
    query = select(Group).join(Workspace).where(Workspace.account_id == account_id)
    group = session.scalar(query.where(Group.id == group_id))
    if group is None or within not in (None, group.workspace_id):
        raise Refusal(404, Text.GROUP_NOT_FOUND)
    return group


def find_campaign(session: Session, account_id: str, campaign_id: str, text: Text) -> Campaign:
    query = select(Campaign).join(Workspace).where(Workspace.account_id == account_id)
    campaign = session.scalar(query.where(Campaign.id == campaign_id))
    if campaign is None:
        raise Refusal(404, text)
    return campaign


def fields_of(session: Session, workspace_id: str) -> list[WorkspaceField]:
    fields = session.scalars(
        select(Field).where(Field.workspace_id == workspace_id).order_by(Field.number)
    )
    return [field_on_wire(field) for field in fields]


def field_on_wire(field: Field) -> WorkspaceField:
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
