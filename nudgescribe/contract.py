"""The Nudgescribe API as models: its paths, fields and texts, each written here only.

Nudgescribe does not publish all names; the others are this project's reading of its pages. Where a
real account differs, one line in `nudgescribe.names` changes the client and the sandbox.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sized
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import partial
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self, cast, get_args, get_origin

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from nudgescribe.bases import Frozen
from nudgescribe.names import spelled_in, spellings, wire_name

# ---- paths ------------------------------------------------------------------------------------

AUTH = "/v1/auth"
FIELDS = "/v1/cpf"
GROUPS = "/v1/cg"
CUSTOMERS = "/v1/customer"
CUSTOMERS_CHECK = "/v1/customer/check"
CUSTOMERS_PAGES = "/v1/customer/pages"
CAMPAIGNS = "/v1/campaign/all"
PUBLISH = "/v1/messages/publish"
MESSAGES_PAGES = "/v1/messages/pages"
MESSAGES_FETCH = "/v1/messages/fetch"
RERUN_INITIATE = "/v1/campaign/rerun/initiate"
RERUN_HISTORY = "/v1/campaign/rerun/history"
RERUN_MESSAGES = "/v1/campaign/rerun/messages"

# ---- headers and texts ------------------------------------------------------------------------

API_KEY_HEADER = "x-api-key"
AUTH_CONTEXT_HEADER = "x-auth-context"
CLIENT_IP_HEADER = "x-ip"
UPLOAD_FILE = "file"


def is_client_ip(value: object) -> bool:
    """Return whether a value is an IPv4 or IPv6 address as text, without a zone: zones, such as
    %eth0, mean something on one machine only.
    """
    try:
        return isinstance(value, str) and "%" not in value and bool(ip_address(value))
    except ValueError:
        return False


class Text(StrEnum):
    """The error texts of the service, with their full stops."""

    UNAUTHORIZED = "Unauthorized"
    AUTH_ERROR = "auth error"
    MISSING = "Missing required fields."
    MISSING_RERUN = "Missing required fields"
    INVALID_WORKSPACE = "Invalid Workspace"
    GROUP_EXISTS = "Customer group already exists."
    CAMPAIGN_NOT_FOUND = "Campaign not found."
    CAMPAIGN_DETAILS_NOT_FOUND = "Campaign/details not found."
    FILE_NOT_FOUND = "File not found."
    INVALID_EXPORT = "Invalid export option."
    UNPARSABLE = "Failed to parse."
    NOT_READY_TO_PUBLISH = "Campaign is not ready to publish."
    NO_LINK_FOR_PAST_RUN = "Pre-signed URL export is not available for historical runs."
    CAMPAIGN_NOT_FOUND_RERUN = "Campaign not found"
    GROUP_NOT_FOUND = "Customer group not found"
    NOT_PUBLISHED = "Only Published campaigns can be rerun"
    UNPUBLISHED_MESSAGES = "All campaign messages must be published before initiating a rerun"
    CURRENT_RUN = "Current run cannot be archived"
    QUOTA = "Usage limit reached."
    TOO_LARGE = "The body is too large."
    INVALID_IP = "Invalid x-ip header."
    NOT_JSON = "Content-Type must be application/json."


class Status(StrEnum):
    """The states of a campaign and of its runs, in order. Only a run can be *Failed*."""

    DRAFT = "Draft"
    PROCESSING = "Processing"
    READY_FOR_REVIEW = "Ready for review"
    READY_TO_PUBLISH = "Ready to publish"
    PUBLISHED = "Published"
    FAILED = "Failed"


class Phase(StrEnum):
    """The steps of a rerun, in order."""

    COPYING = "Copying"
    GENERATING = "Generating"
    ARCHIVING = "Archiving"
    FINALISING = "Finalising"


MOST_FIELDS = 10_000
"""The most fields of a request and of a customer."""


def _limit_fields(values: object) -> object:
    # Counted before they are validated: the error about a field is larger than the field.
    if isinstance(values, Sized) and len(values) > MOST_FIELDS:
        raise ValueError(f"more than {MOST_FIELDS:,} fields")
    return values


class _Wire(Frozen):
    model_config = ConfigDict(strict=True, validate_by_name=True, serialize_by_alias=True)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # For each model: Pydantic tells a generator the field alone.
        cls.model_config["alias_generator"] = cls._aliases(partial(wire_name, cls.__name__))

    @classmethod
    def _aliases(cls, name: Callable[[str], str]) -> AliasGenerator:
        return AliasGenerator(alias=name)


class Request(_Wire):
    """Refuses unknown fields, other types, infinity, NaN, and texts with a NUL or a surrogate.

    Errors do not quote what they refuse, which may be a customer's.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _limit(cls, values: object) -> object:
        return _limit_fields(values)

    @model_validator(mode="after")
    def _refuse_broken_text(self) -> Self:
        for value in self.__dict__.values():
            texts = cast("list[object]", value) if isinstance(value, list) else [value]
            for text in texts:
                if isinstance(text, str) and _is_broken(text):
                    raise ValueError("a text holds a NUL or half a character")
        return self


def _is_broken(text: str) -> bool:
    # JSON can escape one surrogate of a pair.
    return "\0" in text or any("\ud800" <= each <= "\udfff" for each in text)


class Answer(_Wire):
    """Ignores unknown fields; the types of known ones are checked. Names may be in camel case."""

    @classmethod
    def _aliases(cls, name: Callable[[str], str]) -> AliasGenerator:
        def in_answers(field: str) -> AliasChoices:
            return AliasChoices(*spellings(name(field)))

        return AliasGenerator(alias=name, validation_alias=in_answers, serialization_alias=name)


class MalformedRecord(Frozen):
    """A record that does not fit the contract: its `id` if it has one, all texts in it, and which
    `fields` are wrong.
    """

    id: str
    texts: frozenset[str]
    fields: tuple[str, ...]


class Listing(Answer):
    """An answer with a list of records. Those that do not fit the contract are set aside in
    `malformed`, and fail no call that needs another record.
    """

    _malformed: tuple[MalformedRecord, ...] = PrivateAttr(default=())

    @property
    def malformed(self) -> tuple[MalformedRecord, ...]:
        """Return the records that do not fit the contract."""
        return self._malformed

    @model_validator(mode="wrap")
    @classmethod
    def _set_malformed_aside(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, dict):
            return validate(value)
        body = cast("dict[str, Any]", value)
        name, kind = next(_list_fields(cls))
        name = spelled_in(body, name)
        records = body.get(name)
        if not isinstance(records, list):
            return validate(body)
        fitting, malformed = list[Answer](), list[MalformedRecord]()
        for record in cast("list[object]", records):
            try:
                fitting.append(kind.model_validate(record))
            except ValidationError as error:
                malformed.append(_describe_malformed(kind, record, error))
        answer = validate({**body, name: fitting})
        answer._malformed = tuple(malformed)
        return answer


def _list_fields(model: type[Answer]) -> Iterator[tuple[str, type[Answer]]]:
    """Yield the names on the wire of a model's lists, with the model of their records."""
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is list:
            yield field.alias or name, get_args(field.annotation)[0]


def _describe_malformed(
    kind: type[Answer], record: object, error: ValidationError
) -> MalformedRecord:
    first, field = next(iter(kind.model_fields.items()))
    named = cast("dict[str, object]", record if isinstance(record, dict) else {})
    id_ = named.get(spelled_in(named, field.alias or first))
    return MalformedRecord(
        id=id_ if isinstance(id_, str) else "",
        texts=frozenset(_texts(cast("object", record))),
        fields=tuple(wrong_fields(error)),
    )


def wrong_fields(error: ValidationError) -> Iterator[str]:
    """Yield the fields that do not fit a model, and not their values."""
    for each in error.errors(include_input=False, include_context=False, include_url=False):
        yield f"{'.'.join(map(str, each['loc'])) or 'body'} ({each['type']})"


def _texts(record: object) -> Iterator[str]:
    match record:
        case str():
            yield record
        case dict():
            for value in cast("dict[str, object]", record).values():
                yield from _texts(value)
        case list():
            for value in cast("list[object]", record):
                yield from _texts(value)
        case _:
            pass


def _is_iso_8601(value: object) -> object:
    # JSON has no times, so these are not read strictly, and a number would count as seconds.
    if not isinstance(value, datetime) and not re.match(r"\d{4}-\d\d-\d\dT", str(value)):
        raise ValueError("not an ISO 8601 time")
    return value


def _is_iso_8601_date(value: object) -> object:
    # Not read strictly, a date may be a time at midnight.
    if not isinstance(value, date) and not re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)):
        raise ValueError("not an ISO 8601 date")
    return value


def _in_utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_is_iso_8601)]
UtcTime = Annotated[
    datetime, Field(strict=False), BeforeValidator(_is_iso_8601), AfterValidator(_in_utc)
]
"""A time of an answer; without a zone it is UTC."""
Date = Annotated[date, Field(strict=False), BeforeValidator(_is_iso_8601_date)]


def _none_if_odd(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    try:
        return validate(value)
    except ValidationError:
        return None


IF_IT_FITS = WrapValidator(_none_if_odd)
"""Marks a field of an answer that no refresh needs: a value that does not fit becomes None."""


class ErrorBody(Answer):
    """The body of an error: its text."""

    message: Annotated[str, Field(examples=["Campaign not found."])]


Secret = Annotated[str, Field(repr=False)]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""The number of a page, a file or a run."""
PageNumber = Annotated[Number, Field(description="A page or a file, counted from 0.", examples=[0])]
RunNumber = Annotated[Number, Field(description="A run, counted from 1.", examples=[2])]
LONGEST_GROUP_NAME = 200
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_GROUP_NAME)]
FieldName = Annotated[
    Name, Field(description="A field's name, as it heads a column of a file.", examples=["plan"])
]
GroupName = Annotated[
    Name, Field(description="Unique in its workspace.", examples=["Spring customers"])
]
Segment = Mapping[str, str]
"""A distinct combination of a campaign's variables: variable -> value, "" for no value."""

# Ids are opaque texts; those of the sandbox look like these.
WorkspaceId = Annotated[
    str,
    Field(description="The id of a workspace.", examples=["0b9c1d36-7a52-4d0e-9f3b-5f0c6e7a1d20"]),
]
FieldId = Annotated[
    str,
    Field(description="The id of a field.", examples=["41f7a2c8-3e6d-4b19-8a05-d2c4e6f80b13"]),
]
GroupId = Annotated[
    str,
    Field(
        description="The id of a customer group.", examples=["9d2e5b71-6c48-4f3a-b0e9-1a7c3f5d8e42"]
    ),
]
CampaignId = Annotated[
    str,
    Field(description="The id of a campaign.", examples=["c3a84f60-2b1d-4e97-8d5c-7e9f0a1b2c35"]),
]

# ---- authentication ---------------------------------------------------------------------------


class AuthContext(_Wire):
    """The content of the `x-auth-context` header, with these names exactly.

    The service judges the code and the token first, whatever `api_access` is: if it is no flag, it
    is None.
    """

    api_access: Annotated[bool | None, IF_IT_FITS] = None
    api_code: Secret


class Claims(_Wire):
    """The claims of a JWT of Nudgescribe, with these names exactly. `exp` and `iat`: seconds since
    1970.
    """

    user_id: str
    account_id: str
    role_code: str
    type: Literal["access", "refresh"]
    exp: int
    iat: int


class SignIn(Request):
    """What a user signs in with, beside the API key."""

    email: Annotated[str, Field(examples=["ada@example.com"])]
    password: Annotated[Secret, Field(examples=["correct horse battery staple"])]


class Tokens(Answer):
    """`expires_in`: seconds until the access token expires."""

    access_token: Secret
    refresh_token: Secret
    token_type: str
    expires_in: int


# ---- workspace fields -------------------------------------------------------------------------

FieldType = Annotated[
    Literal["string", "number", "char", "Date", "currency"],
    Field(
        description="The type of a field's values; Date and currency need a format.",
        examples=["string"],
    ),
]
FieldFormat = Annotated[
    str,
    Field(
        description="How dates are written, or the ISO 4217 code of a currency.",
        examples=["yyyy-MM-dd", "EUR"],
    ),
]


class WorkspaceField(Answer):
    """A field of a workspace's customers, with its type and rules."""

    field_id: FieldId
    workspace_id: WorkspaceId
    field_name: str
    display_name: Annotated[str | None, IF_IT_FITS] = None
    field_type: FieldType
    field_format: FieldFormat | None = None
    required: bool = False
    unique: bool = False


class CreateField(Request):
    """A new field; its `display_name` is by default its `field_name`."""

    workspace_id: WorkspaceId
    field_name: FieldName
    display_name: str | None = None
    field_type: FieldType
    field_format: FieldFormat | None = None
    required: bool = False
    unique: bool = False


class UpdateField(Request):
    """A field with what changes; None leaves a value as it is."""

    field_id: FieldId
    display_name: str | None = None
    field_format: FieldFormat | None = None
    required: bool | None = None


class DeleteField(Request):
    """The field to delete."""

    field_id: FieldId


class WorkspaceRequest(Request):
    """A workspace whose fields or groups are listed."""

    workspace_id: WorkspaceId


class FieldList(Answer):
    """The fields of a workspace."""

    fields: list[WorkspaceField]


class Deleted(Answer):
    """The number of things deleted."""

    deleted: int


# ---- customer groups --------------------------------------------------------------------------


class CustomerGroup(Answer):
    """A customer group; `customer_count` is None where the service does not count."""

    customer_group_id: GroupId
    workspace_id: WorkspaceId
    name: str
    description: str | None = None
    customer_count: int | None = None
    created_at: Annotated[UtcTime | None, IF_IT_FITS] = None
    updated_at: Annotated[UtcTime | None, IF_IT_FITS] = None


class CreateGroup(Request):
    """A new customer group, which is empty."""

    workspace_id: WorkspaceId
    name: GroupName
    description: str | None = None


class UpdateGroup(Request):
    """A customer group with what changes; None leaves a value as it is."""

    customer_group_id: GroupId
    name: GroupName | None = None
    description: str | None = None


class DeleteGroup(Request):
    """The customer group to delete."""

    customer_group_id: GroupId


class GroupList(Listing):
    """The customer groups of a workspace."""

    groups: list[CustomerGroup]


# ---- customers --------------------------------------------------------------------------------

Profile = Mapping[str, str | int | float | None]


class GroupRequest(Request):
    """A customer group, with its workspace."""

    workspace_id: WorkspaceId
    customer_group_id: GroupId


class UploadForm(GroupRequest):
    """The form fields beside the file. Form values are text, also that of the flag."""

    validate_only: Annotated[bool, Field(strict=False)] = False


class UploadCustomer(GroupRequest):
    """One customer to upsert, or only to check; values by field name."""

    customer: Annotated[
        Profile,
        Field(repr=False, examples=[{"customer_id": "0007", "plan": "student", "visits": 3}]),
        BeforeValidator(_limit_fields),
    ]
    validate_only: bool = False


class RowError(Answer):
    """`row` is a row's number from 1, not counting the header."""

    row: int
    field: str
    code: str
    message: Secret


class UploadResult(Answer):
    """`errors` has at most 100 rows, `rejected` counts all. A queued upload has no counts yet."""

    job_uid: str
    status: str
    total: int
    accepted: int
    rejected: int
    errors: list[RowError]


UPLOAD_COMPLETED = "completed"
UPLOAD_QUEUED = "queued"


class CustomerPageCount(Answer):
    """The number of a group's pages, `page_size` in customers, and all customers in `total`."""

    num_pages: int
    page_size: int
    total: int


class CustomerPageRequest(GroupRequest):
    """One page of a group's customers; pages count from 0."""

    page: PageNumber


class EncryptedCustomer(Answer):
    """`profile` is a Fernet token of the profile as a JSON object."""

    customer_id: Secret
    profile: Secret


class CustomerPage(Answer):
    """One page of a group's customers, and the number of pages."""

    customers: list[EncryptedCustomer]
    page: int
    num_pages: int


class DeleteCustomers(GroupRequest):
    """The customers to delete from a group, by their identifiers."""

    customer_ids: Annotated[list[str], FailFast(), Field(repr=False, examples=[["0007", "0042"]])]


# ---- campaigns and messages -------------------------------------------------------------------


class CampaignListRequest(Request):
    """The earliest and latest publication of the campaigns to list; None for any."""

    published_from: Annotated[Time | None, Field(examples=["2026-11-01T00:00:00Z"])] = None
    published_to: Annotated[Time | None, Field(examples=["2026-11-30T23:59:59Z"])] = None


class Campaign(Answer):
    """A campaign: `current_run` is the run it is on, `customer_group_id` that run's group."""

    campaign_id: CampaignId
    name: str
    status: str
    stage: Annotated[str | None, IF_IT_FITS] = None
    start_date: Annotated[Date | None, IF_IT_FITS] = None
    end_date: Annotated[Date | None, IF_IT_FITS] = None
    customer_group_id: GroupId | None = None
    current_run: int | None = None
    published_at: Annotated[UtcTime | None, IF_IT_FITS] = None


class WorkspaceCampaigns(Listing):
    """A workspace with its campaigns."""

    workspace_id: WorkspaceId
    name: Annotated[str | None, IF_IT_FITS] = None
    campaigns: list[Campaign]


class CampaignList(Listing):
    """The campaigns of an account, by workspace."""

    workspaces: list[WorkspaceCampaigns]


class CampaignRequest(Request):
    """The campaign that a call is about."""

    campaign_id: CampaignId


class Job(Answer):
    """A job that the service has queued."""

    job_uid: str
    status: str


class RunRequest(CampaignRequest):
    """A past run of a campaign; without `run_number` its current run."""

    run_number: RunNumber | None = None


class PageCount(Answer):
    """The number of an export's files."""

    num_files: int


ExportType = Literal["utf8", "json", "url"]


class FetchRequest(RunRequest):
    """One file of an export, counted from 0, and the `ExportType` to fetch it as."""

    file_num: PageNumber
    export_type: Annotated[
        str,
        Field(
            description="The CSV's text, its first rows, or a link to it.",
            examples=["json"],
            json_schema_extra={"enum": [*get_args(ExportType)]},
        ),
    ]


class MessageRow(Answer):
    """One row of an export."""

    customer_id: Secret
    message: Secret


MESSAGE_COLUMNS = tuple(field.alias or name for name, field in MessageRow.model_fields.items())
"""The header of an export's CSV, in this order."""


class CsvPage(Answer):
    """A page of an export as the text of its CSV."""

    content: Secret


class JsonPage(Answer):
    """The first rows of a page, at most 1000."""

    messages: Annotated[list[MessageRow], Field(repr=False)]


class PageLink(Answer):
    """A signed link to a page, and when it expires."""

    url: Secret
    expires_at: Annotated[UtcTime | None, IF_IT_FITS] = None


# ---- reruns -----------------------------------------------------------------------------------


class InitiateRerun(CampaignRequest):
    """A campaign, and the customer group to re-run it on."""

    new_customer_group_id: GroupId


class ComparisonSummary(Answer):
    """The numbers of a run's segments, compared with those of the run before."""

    matched: int
    new: int
    orphaned: int


class Run(Answer):
    """`status` is one of `Status`, or one that the service has added since."""

    run_number: int
    status: str
    phase: Annotated[str | None, IF_IT_FITS] = None
    customer_group_id: GroupId | None = None
    customer_group_name: Annotated[str | None, IF_IT_FITS] = None
    segment_count: int | None = None
    comparison_summary: Annotated[ComparisonSummary | None, IF_IT_FITS] = None
    job_uid: str | None = None
    initiated_by: Annotated[str | None, IF_IT_FITS] = None
    started_at: Annotated[UtcTime | None, IF_IT_FITS] = None
    completed_at: Annotated[UtcTime | None, IF_IT_FITS] = None
    error: Annotated[str | None, IF_IT_FITS] = None


class SegmentLists(Answer):
    """The segments of a run, compared with those of the run before."""

    matched_segments: list[Segment]
    new_segments: list[Segment]
    orphaned_segments: list[Segment]


class RerunStarted(Answer):
    """The run that has begun, and its segments."""

    run: Run
    comparison: SegmentLists


class RunHistory(Answer):
    """Newest first. A record that is no run may be the newest one, so the others tell nothing."""

    runs: list[Run]


class SegmentMessage(Answer):
    """The message of one segment in one run."""

    message_id: str
    run_number: int
    segment: Segment
    message: Secret
    review_status: Annotated[str | None, IF_IT_FITS] = None
    approval_stage: Annotated[str | None, IF_IT_FITS] = None
    archived: bool


class SegmentMessageList(Answer):
    """The messages of a run."""

    messages: list[SegmentMessage]
