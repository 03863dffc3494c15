"""The Nudgescribe client: one typed method per endpoint, synchronous."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from io import SEEK_END, BytesIO
from tempfile import TemporaryFile
from threading import Lock
from typing import Any, BinaryIO, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from nudgescribe import contract, errors, reach, telemetry
from nudgescribe.auth import Credentials, TokenAuth
from nudgescribe.bases import Closing
from nudgescribe.contract import Answer, CsvPage, MalformedRecord, Profile, Request
from nudgescribe.envelope import read_answer, text_paths
from nudgescribe.lazy import arrow_json, fernet, pa
from nudgescribe.links import Links, is_framed
from nudgescribe.retry import RetryPolicy
from nudgescribe.transport import DeadlineExceeded, open_transport, own_address

A = TypeVar("A", bound=Answer)

Limit = Callable[[], AbstractContextManager[object]]
"""Returns a context that is held while a connection is in use; entering it may wait."""

_UNPACKING = Lock()
_ANSWER = "answer"
_BEFORE, _AFTER = b'{"%s": ' % _ANSWER.encode(), b"}"
"""Make an object of an answer that may be a bare string, for Arrow reads only objects."""
logger = logging.getLogger(__name__)
_PROFILE: TypeAdapter[Profile] = TypeAdapter(Profile)


@dataclass(frozen=True)
class Customer:
    """A customer as the service holds it, decrypted."""

    customer_id: str
    profile: Profile

    def __repr__(self) -> str:
        return "Customer(...)"


class Listed(list[A]):
    """Records of an answer, and the `malformed` ones that do not fit the contract."""

    def __init__(self, records: Iterable[A], malformed: Iterable[MalformedRecord]) -> None:
        super().__init__(records)
        self.malformed = tuple(malformed)

    def check(self, what: str, wanted: Iterable[str]) -> None:
        """Raise ContractMismatch if a malformed record has one of these texts, such as an id."""
        texts = {*wanted}
        for record in self.malformed:
            if texts & record.texts:
                raise errors.malformed(what, record)


class NudgescribeClient(Closing):
    """Calls Nudgescribe for one account. A context manager; threads may share it.

    Every method raises errors of `nudgescribe.errors`. `retry` repeats reads, and a call that
    changes something only after a refusal that says when. `calls` limits the calls at once,
    `downloads` the downloads by link. `timeout` is for each wait; the body of a call may take
    `call_seconds`, that of a page `page_seconds`. `client_ip` is the address in the service's audit
    log, by default this machine's. Raises ValueError if it is no address.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        client_ip: str | None = None,
        timeout: httpx.Timeout | float = 60.0,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        calls: Limit = nullcontext,
        downloads: Limit = nullcontext,
        call_seconds: float = 300.0,
        page_seconds: float = 900.0,
    ) -> None:
        self._retry = retry or RetryPolicy()
        self._calls = calls
        self._downloads = downloads
        self._profile_key = credentials.profile_key
        self._http = httpx.Client(
            base_url=base_url,
            auth=TokenAuth(base_url, credentials),
            headers={**credentials.headers, contract.CLIENT_IP_HEADER: _checked(client_ip)},
            timeout=timeout,
            transport=telemetry.observed(
                transport or open_transport(base_url, call_seconds), base_url
            ),
        )
        self._page_seconds = page_seconds
        self._links = Links(self._http.timeout, page_seconds)
        self._links_work = True

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        self._links.close()

    # ---- workspace fields ---------------------------------------------------------------------

    def create_field(self, field: contract.CreateField) -> contract.WorkspaceField:
        """Create a field of a workspace, and return it. Raises BadRequest if the name is taken."""
        return self._change("PUT", contract.FIELDS, field, contract.WorkspaceField)

    def list_fields(self, workspace_id: str) -> list[contract.WorkspaceField]:
        """Return a workspace's fields, in the order of their creation."""
        body = contract.WorkspaceRequest(workspace_id=workspace_id)
        return self._read(contract.FIELDS, body, contract.FieldList).fields

    def update_field(self, field: contract.UpdateField) -> contract.WorkspaceField:
        """Change a field, and return it; customers keep their values."""
        return self._change("PATCH", contract.FIELDS, field, contract.WorkspaceField)

    def delete_field(self, field_id: str) -> None:
        """Delete a field, and with it the value of every customer in it."""
        body = contract.DeleteField(field_id=field_id)
        self._change("DELETE", contract.FIELDS, body, contract.Deleted)

    # ---- customer groups ----------------------------------------------------------------------

    def create_group(
        self, workspace_id: str, name: str, description: str | None = None
    ) -> contract.CustomerGroup:
        """Create an empty customer group, and return it. Raises BadRequest if the name is taken."""
        body = contract.CreateGroup(workspace_id=workspace_id, name=name, description=description)
        return self._change("PUT", contract.GROUPS, body, contract.CustomerGroup)

    def list_groups(self, workspace_id: str) -> Listed[contract.CustomerGroup]:
        """Return a workspace's customer groups with their sizes."""
        body = contract.WorkspaceRequest(workspace_id=workspace_id)
        answer = self._read(contract.GROUPS, body, contract.GroupList)
        return Listed(answer.groups, answer.malformed)

    def update_group(self, group: contract.UpdateGroup) -> contract.CustomerGroup:
        """Rename or describe a group, and return it. Raises BadRequest if the name is taken."""
        return self._change("PATCH", contract.GROUPS, group, contract.CustomerGroup)

    def delete_group(self, customer_group_id: str) -> None:
        """Delete a customer group with its customers."""
        body = contract.DeleteGroup(customer_group_id=customer_group_id)
        self._change("DELETE", contract.GROUPS, body, contract.Deleted)

    # ---- customers ----------------------------------------------------------------------------

    def upload_customers(
        self, workspace_id: str, customer_group_id: str, csv: bytes, *, validate_only: bool = False
    ) -> contract.UploadResult:
        """Upsert the customers of a UTF-8 CSV with a header row (RFC 4180), or only check them."""
        form = contract.UploadForm(
            workspace_id=workspace_id,
            customer_group_id=customer_group_id,
            validate_only=validate_only,
        )
        file = ("customers.csv", BytesIO(csv), "text/csv")  # httpx sends a file in chunks
        request = self._http.build_request(
            "POST",
            contract.CUSTOMERS_CHECK,
            data=form.model_dump(mode="json"),
            files={contract.UPLOAD_FILE: file},
        )
        return self._retry.once(lambda: self._send(request, contract.UploadResult))

    def upload_customer(
        self,
        workspace_id: str,
        customer_group_id: str,
        customer: Profile,
        *,
        validate_only: bool = False,
    ) -> contract.UploadResult:
        """Upsert one customer, or only check it; return the result, as for a list of one row."""
        body = contract.UploadCustomer(
            workspace_id=workspace_id,
            customer_group_id=customer_group_id,
            customer=customer,
            validate_only=validate_only,
        )
        return self._change("POST", contract.CUSTOMERS_CHECK, body, contract.UploadResult)

    def count_customers(
        self, workspace_id: str, customer_group_id: str
    ) -> contract.CustomerPageCount:
        """Count a group's customers and its pages."""
        body = contract.GroupRequest(workspace_id=workspace_id, customer_group_id=customer_group_id)
        return self._read(contract.CUSTOMERS_PAGES, body, contract.CustomerPageCount)

    def customers(self, workspace_id: str, customer_group_id: str) -> Iterator[Customer]:
        """Yield a group's customers, fetched by page and decrypted with the account's profile key.

        Raises AuthError without a key, or with another one than the account's.
        """
        if self._profile_key is None:
            raise errors.AuthError("Customer profiles are encrypted and no profile key is set.")
        try:
            cipher = fernet.Fernet(self._profile_key)
        except ValueError:
            raise errors.AuthError("The account's profile key is cut off, or none.") from None
        for page in self._customer_pages(workspace_id, customer_group_id):
            for customer in page.customers:
                yield Customer(customer.customer_id, _decrypted(cipher, customer.profile))

    def customer_ids(self, workspace_id: str, customer_group_id: str) -> Iterator[list[str]]:
        """Yield the identifiers of a group's customers, a page at a time; no key is needed."""
        for page in self._customer_pages(workspace_id, customer_group_id):
            yield [customer.customer_id for customer in page.customers]

    def _customer_pages(
        self, workspace_id: str, customer_group_id: str
    ) -> Iterator[contract.CustomerPage]:
        page, num_pages = 0, 1
        while page < num_pages:
            body = contract.CustomerPageRequest(
                workspace_id=workspace_id, customer_group_id=customer_group_id, page=page
            )
            answer = self._read(contract.CUSTOMERS, body, contract.CustomerPage)
            yield answer
            page, num_pages = page + 1, answer.num_pages

    def delete_customers(
        self, workspace_id: str, customer_group_id: str, customer_ids: list[str]
    ) -> int:
        """Delete customers of a group; return how many there were of them."""
        body = contract.DeleteCustomers(
            workspace_id=workspace_id,
            customer_group_id=customer_group_id,
            customer_ids=customer_ids,
        )
        return self._change("DELETE", contract.CUSTOMERS, body, contract.Deleted).deleted

    # ---- campaigns and messages ---------------------------------------------------------------

    def campaigns(
        self, published_from: datetime | None = None, published_to: datetime | None = None
    ) -> Listed[contract.WorkspaceCampaigns]:
        """Return the campaigns by workspace; `malformed` has the malformed ones of all."""
        body = contract.CampaignListRequest(
            published_from=published_from, published_to=published_to
        )
        answer = self._read(contract.CAMPAIGNS, body, contract.CampaignList)
        malformed = (record for workspace in answer.workspaces for record in workspace.malformed)
        return Listed(answer.workspaces, [*answer.malformed, *malformed])

    def publish(self, campaign_id: str) -> contract.Job:
        """Queue the export of a campaign that is *Ready to publish*; it becomes *Published*."""
        body = contract.CampaignRequest(campaign_id=campaign_id)
        return self._change("POST", contract.PUBLISH, body, contract.Job)

    def count_message_pages(self, campaign_id: str, run_number: int | None = None) -> int:
        """Count the files of an export: of the current run's, or of the past run `run_number`."""
        body = contract.RunRequest(campaign_id=campaign_id, run_number=run_number)
        return self._read(contract.MESSAGES_PAGES, body, contract.PageCount).num_files

    def fetch_csv(self, campaign_id: str, file_num: int, run_number: int | None = None) -> str:
        """Return a page's CSV as text; of the current run, or of the past run `run_number`."""
        body = _fetch(campaign_id, file_num, "utf8", run_number)
        return self._read(contract.MESSAGES_FETCH, body, CsvPage).content

    def fetch_rows(
        self, campaign_id: str, file_num: int, run_number: int | None = None
    ) -> list[contract.MessageRow]:
        """Return at most the first 1000 rows of a page: a sample."""
        body = _fetch(campaign_id, file_num, "json", run_number)
        return self._read(contract.MESSAGES_FETCH, body, contract.JsonPage).messages

    def fetch_link(self, campaign_id: str, file_num: int) -> contract.PageLink:
        """Return a signed link to a page of the current run: a secret for about an hour."""
        body = _fetch(campaign_id, file_num, "url", None)
        return self._read(contract.MESSAGES_FETCH, body, contract.PageLink)

    def download_page(
        self, campaign_id: str, file_num: int, target: BinaryIO, run_number: int | None = None
    ) -> int:
        """Write a page's CSV to `target`, byte for byte, and return its size in bytes.

        Follows a link, a new one for each try. Pages of a past run have none and are fetched as
        text, and so is every page after a link that failed in all tries.
        """
        if run_number is None and self._links_work:
            try:
                return self._retry.run(lambda: self._follow_link(campaign_id, file_num, target))
            except errors.LinkFailed as error:
                if self._links_work:
                    logger.warning("%s Pages are fetched as text from here on.", error.problem)
                self._links_work = False
        body = _fetch(campaign_id, file_num, "utf8", run_number)
        return self._retry.run(lambda: self._save_text(body, target))

    def page_written_at(self, campaign_id: str, file_num: int) -> datetime | None:
        """Return when a page of the current run was written, by the service's object store; None if
        it does not say, or its links do not work.
        """

        def read() -> datetime | None:
            url, where = self._link_of(campaign_id, file_num)
            with self._downloads():
                return self._links.written_at(url, where)

        try:
            return self._retry.run(read) if self._links_work else None
        except (errors.LinkFailed, errors.NotFound):
            return None

    def _follow_link(self, campaign_id: str, file_num: int, target: BinaryIO) -> int:
        url, where = self._link_of(campaign_id, file_num)
        _empty(target)
        with self._downloads():
            size = self._links.download(url, target, where)
        telemetry.downloaded(size, "link")
        return size

    def _link_of(self, campaign_id: str, file_num: int) -> tuple[str, str]:
        """Return a link to a page, and what errors call it."""
        body = _fetch(campaign_id, file_num, "url", None)
        link = self._send(self._request("POST", contract.MESSAGES_FETCH, body), contract.PageLink)
        return link.url, f"The link of page {file_num} of campaign {campaign_id}"

    def _save_text(self, body: Request, target: BinaryIO) -> int:
        request = self._request("POST", contract.MESSAGES_FETCH, body)
        with TemporaryFile() as answer:
            answer.write(_BEFORE)
            self._stream(request, answer)
            answer.write(_AFTER)
            _empty(target)
            # One at a time: an answer in memory is several times as large as its page.
            with _UNPACKING:
                size = target.write(_content(answer))
        telemetry.downloaded(size, "text")
        return size

    # ---- reruns -------------------------------------------------------------------------------

    def initiate_rerun(self, campaign_id: str, customer_group_id: str) -> contract.RerunStarted:
        """Begin a rerun of a campaign on another customer group, and return its run.

        Raises NotFound, NotPublished, UnpublishedMessages; BadRequest if it is on this group.
        """
        body = contract.InitiateRerun(
            campaign_id=campaign_id, new_customer_group_id=customer_group_id
        )
        return self._change("POST", contract.RERUN_INITIATE, body, contract.RerunStarted)

    def rerun_history(self, campaign_id: str) -> list[contract.Run]:
        """Return a campaign's runs, newest first. Raises NotFound."""
        body = contract.CampaignRequest(campaign_id=campaign_id)
        return self._read(contract.RERUN_HISTORY, body, contract.RunHistory).runs

    def rerun_messages(
        self, campaign_id: str, run_number: int | None = None
    ) -> list[contract.SegmentMessage]:
        """Return the current run's active messages, or all of run `run_number`, archived too."""
        body = contract.RunRequest(campaign_id=campaign_id, run_number=run_number)
        return self._read(contract.RERUN_MESSAGES, body, contract.SegmentMessageList).messages

    # ---- sending ------------------------------------------------------------------------------

    def _read(self, path: str, body: Request, answer: type[A]) -> A:
        return self._retry.run(lambda: self._send(self._request("POST", path, body), answer))

    def _change(self, method: str, path: str, body: Request, answer: type[A]) -> A:
        return self._retry.once(lambda: self._send(self._request(method, path, body), answer))

    def _request(self, method: str, path: str, body: Request) -> httpx.Request:
        content = body.model_dump_json(exclude_none=True)
        headers = {"content-type": "application/json"}
        return self._http.build_request(method, path, content=content, headers=headers)

    def _send(self, request: httpx.Request, answer: type[A]) -> A:
        with self._calls(), _connection_of(request):
            response = self._http.send(request)
        if response.is_error:
            raise errors.from_response(response)
        try:
            return read_answer(answer, response.content)
        except ValidationError as error:
            if not is_framed(response.headers):
                what = f"The answer of {request.method} {request.url.path}"
                raise errors.ConnectionFailed(f"{what} may have been cut off.") from None
            raise errors.mismatch(request.url.path, error) from None

    def _stream(self, request: httpx.Request, target: BinaryIO) -> None:
        """Write the body of a good answer to `target`."""
        request.extensions["deadline"] = self._page_seconds
        with self._calls(), _connection_of(request):
            response = self._http.send(request, stream=True)
            with closing(response):
                if response.is_error:
                    response.read()
                    raise errors.from_response(response)
                for block in response.iter_bytes():
                    target.write(block)


def _checked(client_ip: str | None) -> str:
    """Return an address as it is, by default this machine's. Raises ValueError."""
    address = own_address() if client_ip is None else client_ip
    if not contract.is_client_ip(address):
        raise ValueError("client_ip is no IPv4 or IPv6 address, without a zone such as %eth0")
    return address


@contextmanager
def _connection_of(request: httpx.Request) -> Generator[None]:
    what = f"{request.method} {request.url.path}"
    try:
        yield
    except DeadlineExceeded as error:
        raise errors.ConnectionFailed(f"{what} got no whole answer {error}.") from None
    except httpx.RequestError as error:
        reason = reach.describe(error, request.url)
        raise errors.ConnectionFailed(f"{what} got no answer: {reason}.") from None


def _fetch(
    campaign_id: str, file_num: int, export_type: contract.ExportType, run_number: int | None
) -> contract.FetchRequest:
    return contract.FetchRequest(
        campaign_id=campaign_id,
        file_num=file_num,
        export_type=export_type,
        run_number=run_number,
    )


def _decrypted(cipher: fernet.Fernet, token: str) -> Mapping[str, str | int | float | None]:
    try:
        return _PROFILE.validate_json(cipher.decrypt(token))
    except fernet.InvalidToken:
        raise errors.AuthError("A customer profile does not open with this profile key.") from None
    except ValidationError as error:
        raise errors.mismatch(contract.CUSTOMERS, error) from None


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _content(answer: BinaryIO) -> memoryview:
    """Return the text in a page's JSON, as UTF-8.

    Read by Arrow: a Python text with one emoji in it takes four bytes a character.
    """
    for path in text_paths(CsvPage):
        text = _text_at(answer, path)
        if text is not None:
            return memoryview(text.as_buffer())
    raise errors.ContractMismatch(f"The answer of {contract.MESSAGES_FETCH} holds no content.")


def _text_at(answer: BinaryIO, path: Sequence[str]) -> pa.StringScalar | None:
    """Return the text at a path of names, None if there is none. All else is skipped unread."""
    kind: pa.DataType = pa.string()
    for name in reversed(path):
        kind = pa.struct({name: kind})
    size = answer.seek(0, SEEK_END)
    answer.seek(0)
    try:
        values: Any = arrow_json.read_json(
            answer,
            read_options=arrow_json.ReadOptions(block_size=size + 1),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=pa.schema({_ANSWER: kind}),
                newlines_in_values=True,
                unexpected_field_behavior="ignore",
            ),
        )[_ANSWER].combine_chunks()
    except pa.ArrowInvalid:
        return None
    for name in path:
        values = values.field(name)
    return None if len(values) != 1 or values.null_count else values[0]
