"""The first content of a sandbox: an account with a workspace, a group and a campaign.

The campaign has one run, which is *Published*.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from secrets import token_urlsafe

import polars as pl
from pydantic import BaseModel
from sqlalchemy.orm import Session

from nudgescribe import fields, rfc4180
from nudgescribe.contract import CreateField, Status, WorkspaceField
from nudgescribe.errors import NudgeflowError, first_ten
from sandbox import demo_customers
from sandbox.api.security import hash_password
from sandbox.context import Context
from sandbox.data.models import Account, Campaign, Charged, Field, Group, User, Workspace
from sandbox.data.profiles import Profiles, new_profile_key, profile_key
from sandbox.engine import exports, reruns
from sandbox.settings import Keys
from sandbox.writing.templates import fill_segment, name_fields

MOST_NOT_NUMBERS = 0.05
"""Share of a column's values."""


class SeedRefused(NudgeflowError):
    """A campaign cannot be made of this list."""

    advice = "Correct the list, or its segments; nothing was made."


class Seeded(BaseModel):
    """The credentials of the seeded account, and its ids."""

    email: str
    password: str
    api_key: str
    api_code: str
    profile_key: str
    account_id: str
    workspace_id: str
    customer_group_id: str
    campaign_id: str


def variables(seeded: Seeded, url: str, crm: Path | None) -> Iterator[str]:
    """Yield what `nudgeflow bootstrap` reads, a line each: the account of the service at `url`, its
    campaign, and the CRM that `demo_customers.write_crm` has written.
    """
    given = {"ACCOUNT_BASE_URL": url, "ACCOUNT_ALLOW_HTTP": str(url.startswith("http:")).lower()}
    for name in ("email", "password", "api_key", "api_code", "profile_key"):
        given[f"ACCOUNT_{name.upper()}"] = getattr(seeded, name)
    given |= {"CAMPAIGN_ID": seeded.campaign_id, "WORKSPACE_ID": seeded.workspace_id}
    if crm:
        given["SQL_CRM_URL"] = f"sqlite:///{crm.resolve()}"
        given["SQL_CRM_QUERY"] = demo_customers.QUERY
    for name, value in given.items():
        yield f"NUDGEFLOW_{name}={value}"


def seed(context: Context, customers: int = demo_customers.CUSTOMERS) -> Seeded:
    """Seed the demo company: generated customers, segmented by plan and region."""
    frame = pl.DataFrame(list(demo_customers.customers(customers, demo_customers.PLANS_BEFORE)))
    columns, variables = demo_customers.fields(""), demo_customers.VARIABLES
    return _seed(context, frame, columns, variables, demo_customers.TEMPLATE)


def seed_from_list(context: Context, file: Path, segments: Sequence[str]) -> Seeded:
    """Seed a workspace for the columns of a CSV; run 1 has the first half of its rows.

    The first column is the customer identifier; a column of numbers, with an odd value that is
    none, is a number field. `segments` are the columns that make the segments. Rows that break a
    rule are left out. Raises MalformedCsv, SeedRefused.
    """
    try:
        frame = rfc4180.read(file.read_bytes())
    except OSError as error:
        raise SeedRefused(f"The list {file} cannot be read: {error.strerror}.") from None
    names = name_fields(frame.columns)
    frame.columns = [*names]
    variables = [find_field(wanted, names) for wanted in segments]
    key = frame.columns[0]
    columns = [_field(frame, name, column) for name, column in names.items()]
    values = ", ".join(f"{name} {{{{ {name} }}}}" for name in variables)
    template = f"Dear customer {{{{ {key} }}}},\nthis is for you ({values}).\n"
    first = fields.validate(frame.head(frame.height // 2), [*map(_rule, columns)]).accepted
    if first.is_empty():
        raise SeedRefused("The first half of the list has no customer who keeps the rules.")
    return _seed(context, first, columns, variables, template)


def find_field(wanted: str, columns: Mapping[str, str]) -> str:
    """Return the field of a column that is named with or without blanks around it; `columns` are
    those of the list by their fields. Raises SeedRefused.
    """
    for field, column in columns.items():
        if wanted.strip() in (field, column.strip()):
            return field
    there = first_ten(column.strip() for column in columns.values())
    raise SeedRefused(
        f"The list has no column '{wanted.strip()}' to segment by; its columns are: {there}."
    )


def _field(frame: pl.DataFrame, name: str, column: str) -> CreateField:
    unique = name == frame.columns[0]
    kind = "number" if not unique and _holds_numbers(frame, name) else "string"
    return CreateField(
        workspace_id="", field_name=name, display_name=column, field_type=kind, unique=unique
    )


def _holds_numbers(frame: pl.DataFrame, column: str) -> bool:
    given = frame.filter(pl.col(column).fill_null("") != "").select(column)
    field = CreateField(workspace_id="", field_name=column, field_type="number")
    others = fields.validate(given, [_rule(field)]).errors.height
    return not given.is_empty() and others <= MOST_NOT_NUMBERS * given.height


def _rule(field: CreateField) -> WorkspaceField:
    return WorkspaceField(field_id="", **field.model_dump())


def _seed(
    context: Context,
    frame: pl.DataFrame,
    columns: list[CreateField],
    variables: Sequence[str],
    template: str,
) -> Seeded:
    keys = context.keys
    password, api_key = token_urlsafe(16), token_urlsafe(24)
    with context.store.write() as session:
        account = Account(api_key=api_key, wrapped_key=new_profile_key(keys))
        session.add(account)
        session.flush()
        email = f"{account.id[:8]}@sandbox.example"
        user = User(account_id=account.id, email=email, password_hash=hash_password(password))
        workspace = Workspace(account_id=account.id, name="Marketing")
        session.add_all([user, workspace])
        session.flush()
        for field in columns:
            values = field.model_dump(exclude={"workspace_id", "display_name"})
            name = field.display_name or field.field_name
            session.add(Field(**values, workspace_id=workspace.id, display_name=name))
        group = Group(workspace_id=workspace.id, name="First customers")
        session.add(group)
        session.flush()
        Profiles(session, keys, group.id).upsert(frame)
        campaign = _published_campaign(session, keys, workspace, group, variables, template)
        seeded = Seeded(
            email=email,
            password=password,
            api_key=api_key,
            api_code=keys.api_code,
            profile_key=profile_key(keys, account).decode(),
            account_id=account.id,
            workspace_id=workspace.id,
            customer_group_id=group.id,
            campaign_id=campaign.id,
        )
    exports.run_job(context, seeded.campaign_id, 1)
    return seeded


def _published_campaign(
    session: Session,
    keys: Keys,
    workspace: Workspace,
    group: Group,
    variables: Sequence[str],
    template: str,
) -> Campaign:
    campaign = Campaign(
        workspace_id=workspace.id,
        name="Welcome back",
        status=Status.DRAFT,
        variables=list(variables),
        template=template,
        start_date=date.today(),
        exported_run=1,
        group_id=group.id,
    )
    session.add(campaign)
    session.flush()
    wanted = reruns.segments_of(session, keys, campaign, group.id)
    texts = [(segment, fill_segment(template, segment)) for segment in wanted]
    reruns.add_messages(session, reruns.current_run(session, campaign), texts, reruns.APPROVED)
    session.flush()
    reruns.publish(session, campaign)
    messages = exports.count_messages(session, keys, campaign)
    session.add(Charged(campaign_id=campaign.id, run_number=1, messages=messages))
    return campaign
