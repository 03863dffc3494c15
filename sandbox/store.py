"""What the service remembers: its tables, and sessions that read or write them."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from sqlalchemy import (
    JSON,
    Connection,
    Dialect,
    ForeignKey,
    String,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


def new_id() -> str:
    return str(uuid4())


def now() -> datetime:
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """SQLite forgets time zones; all our times are UTC."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return value.isoformat() if value else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        return datetime.fromisoformat(value) if value else None


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {datetime: UtcDateTime, dict[str, Any]: JSON, list[str]: JSON}


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    api_key: Mapped[str] = mapped_column(unique=True)
    profile_key: Mapped[str]


class User(Base):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    role_code: Mapped[str] = mapped_column(default="admin")


class Workspace(Base):
    __tablename__ = "workspaces"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]


class Field(Base):
    __tablename__ = "fields"
    __table_args__ = (UniqueConstraint("workspace_id", "field_name"),)
    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    field_name: Mapped[str]
    display_name: Mapped[str]
    field_type: Mapped[str]
    field_format: Mapped[str | None]
    required: Mapped[bool]
    unique: Mapped[bool]


class Group(Base):
    __tablename__ = "groups"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str]
    description: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class Customer(Base):
    """A customer of one group; `profile` is a JSON object of field name -> text."""

    __tablename__ = "customers"
    __table_args__ = (UniqueConstraint("group_id", "customer_id"),)
    number: Mapped[int] = mapped_column(primary_key=True)
    group_id: Mapped[str] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"))
    customer_id: Mapped[str]
    profile: Mapped[str]


class Campaign(Base):
    """`template` is the text messages are written from, `variables` the fields it segments by."""

    __tablename__ = "campaigns"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str]
    status: Mapped[str]
    current_run: Mapped[int] = mapped_column(default=1)
    variables: Mapped[list[str]]
    template: Mapped[str]
    start_date: Mapped[date | None]
    end_date: Mapped[date | None]
    published_at: Mapped[datetime | None]


class Run(Base):
    """`comparison` holds the segment lists of the wire's `SegmentLists`."""

    __tablename__ = "runs"
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    run_number: Mapped[int] = mapped_column(primary_key=True)
    previous_run: Mapped[int | None]
    status: Mapped[str]
    phase: Mapped[str | None]
    group_id: Mapped[str]
    group_name: Mapped[str]
    segment_count: Mapped[int]
    comparison: Mapped[dict[str, Any] | None]
    job_uid: Mapped[str | None]
    initiated_by: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(default=now)
    completed_at: Mapped[datetime | None]
    error: Mapped[str | None]


class Message(Base):
    """The text of one segment in one run; `segment_key` is the segment's canonical form."""

    __tablename__ = "messages"
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    run_number: Mapped[int] = mapped_column(primary_key=True)
    segment_key: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, default=new_id)
    segment: Mapped[dict[str, Any]]
    text: Mapped[str]
    review_status: Mapped[str]
    approval_stage: Mapped[str]
    archived: Mapped[bool] = mapped_column(default=False)


class Job(Base):
    """Background work: `kind` is *rerun* or *export*, `state` queued, running, done or failed."""

    __tablename__ = "jobs"
    number: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(unique=True, default=new_id)
    kind: Mapped[str]
    campaign_id: Mapped[str]
    run_number: Mapped[int]
    state: Mapped[str] = mapped_column(default="queued")


class Store:
    """The database of one sandbox."""

    def __init__(self, file: Path) -> None:
        self._engine = create_engine(f"sqlite:///{file}", hide_parameters=True)
        self._writing = self._engine.execution_options(writing=True)
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        Base.metadata.create_all(self._writing)

    @contextmanager
    def read(self) -> Generator[Session, None, None]:
        with Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self) -> Generator[Session, None, None]:
        """One transaction; it holds the database's only write lock from its first line."""
        with Session(self._writing) as session, session.begin():
            yield session

    def close(self) -> None:
        self._engine.dispose()


def _configure(connection: Any, record: object) -> None:
    connection.isolation_level = None  # leave BEGIN to us
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "busy_timeout=30000",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A read that turns into a write can fail at once in SQLite; a write announces itself instead.
    immediate = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
