"""The Nudgescribe client: one typed method per endpoint, synchronous, shared among threads."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from cryptography.fernet import Fernet, InvalidToken
from pydantic import TypeAdapter, ValidationError

from nudgescribe import contract, errors
from nudgescribe.auth import Credentials, TokenAuth
from nudgescribe.contract import Answer, Profile, Request
from nudgescribe.retry import RetryPolicy

A = TypeVar("A", bound=Answer)

_PROFILE: TypeAdapter[Profile] = TypeAdapter(Profile)


@dataclass(frozen=True)
class Customer:
    """A customer as the service holds it, decrypted."""

    customer_id: str
    profile: Profile

    def __repr__(self) -> str:
        return "Customer(...)"


class NudgescribeClient:
    """Calls one account. Reads are retried by `retry`; a call that changes something never is.

    Every method raises one of the errors of `nudgescribe.errors`. Usable as a context manager.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        client_ip: str = "127.0.0.1",
        timeout: httpx.Timeout | float = 60.0,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retry = retry or RetryPolicy()
        self._profile_key = credentials.profile_key
        self._http = httpx.Client(
            base_url=base_url,
            auth=TokenAuth(base_url, credentials),
            headers={**credentials.headers, contract.CLIENT_IP_HEADER: client_ip},
            timeout=timeout,
            transport=transport,
        )
        # Signed links lead to the object store, which must not see the account's headers.
        self._links = httpx.Client(
            headers={"accept-encoding": "identity"}, timeout=timeout, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        self._links.close()

    # ---- workspace fields ---------------------------------------------------------------------

    def create_field(self, field: contract.CreateField) -> contract.WorkspaceField:
        return self._change("PUT", contract.FIELDS, field, contract.WorkspaceField)

    def list_fields(self, workspace_id: str) -> list[contract.WorkspaceField]:
        body = contract.WorkspaceRequest(workspace_id=workspace_id)
        return self._read(contract.FIELDS, body, contract.FieldList).fields

    def update_field(self, field: contract.UpdateField) -> contract.WorkspaceField:
        return self._change("PATCH", contract.FIELDS, field, contract.WorkspaceField)

    def delete_field(self, field_id: str) -> None:
        """Deletes the field and every customer's value under it."""
        body = contract.DeleteField(field_id=field_id)
        self._change("DELETE", contract.FIELDS, body, contract.Deleted)

    # ---- customer groups ----------------------------------------------------------------------

    def create_group(
        self, workspace_id: str, name: str, description: str | None = None
    ) -> contract.CustomerGroup:
        body = contract.CreateGroup(workspace_id=workspace_id, name=name, description=description)
        return self._change("PUT", contract.GROUPS, body, contract.CustomerGroup)

    def list_groups(self, workspace_id: str) -> list[contract.CustomerGroup]:
        body = contract.WorkspaceRequest(workspace_id=workspace_id)
        return self._read(contract.GROUPS, body, contract.GroupList).groups

    def update_group(self, group: contract.UpdateGroup) -> contract.CustomerGroup:
        return self._change("PATCH", contract.GROUPS, group, contract.CustomerGroup)

    def delete_group(self, customer_group_id: str) -> None:
        body = contract.DeleteGroup(customer_group_id=customer_group_id)
        self._change("DELETE", contract.GROUPS, body, contract.Deleted)

    # ---- customers ----------------------------------------------------------------------------

    def upload_customers(
        self, workspace_id: str, customer_group_id: str, csv: bytes, *, validate_only: bool = False
    ) -> contract.UploadResult:
        """Checks and upserts a UTF-8 CSV with a header row (RFC 4180)."""
        form = contract.UploadForm(
            workspace_id=workspace_id,
            customer_group_id=customer_group_id,
            validate_only=validate_only,
        )
        request = self._http.build_request(
            "POST",
            contract.CUSTOMERS_CHECK,
            data=form.model_dump(mode="json"),
            files={contract.UPLOAD_FILE: ("customers.csv", csv, "text/csv")},
        )
        return self._send(request, contract.UploadResult)

    def upload_customer(
        self,
        workspace_id: str,
        customer_group_id: str,
        customer: Profile,
        *,
        validate_only: bool = False,
    ) -> contract.UploadResult:
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
        body = contract.GroupRequest(workspace_id=workspace_id, customer_group_id=customer_group_id)
        return self._read(contract.CUSTOMERS_PAGES, body, contract.CustomerPageCount)

    def customers(self, workspace_id: str, customer_group_id: str) -> Iterator[Customer]:
        """All customers of a group, page by page, decrypted with the account's profile key."""
        if self._profile_key is None:
            raise errors.AuthError("Customer profiles are encrypted and no profile key is set.")
        cipher = Fernet(self._profile_key)
        page, num_pages = 0, 1
        while page < num_pages:
            body = contract.CustomerPageRequest(
                workspace_id=workspace_id, customer_group_id=customer_group_id, page=page
            )
            answer = self._read(contract.CUSTOMERS, body, contract.CustomerPage)
            for customer in answer.customers:
                yield Customer(customer.customer_id, _decrypted(cipher, customer.profile))
            page, num_pages = page + 1, answer.num_pages

    def delete_customers(
        self, workspace_id: str, customer_group_id: str, customer_ids: list[str]
    ) -> int:
        """How many were deleted."""
        body = contract.DeleteCustomers(
            workspace_id=workspace_id,
            customer_group_id=customer_group_id,
            customer_ids=customer_ids,
        )
        return self._change("DELETE", contract.CUSTOMERS, body, contract.Deleted).deleted

    # ---- campaigns and messages ---------------------------------------------------------------

    def campaigns(
        self, published_from: datetime | None = None, published_to: datetime | None = None
    ) -> list[contract.WorkspaceCampaigns]:
        body = contract.CampaignListRequest(
            published_from=published_from, published_to=published_to
        )
        return self._read(contract.CAMPAIGNS, body, contract.CampaignList).workspaces

    def publish(self, campaign_id: str) -> contract.Job:
        """Queues the export; from *Ready to publish* the campaign goes to *Published*."""
        body = contract.CampaignRequest(campaign_id=campaign_id)
        return self._change("POST", contract.PUBLISH, body, contract.Job)

    def count_message_pages(self, campaign_id: str, run_number: int | None = None) -> int:
        """Files of the current run's export, or of a past run's when `run_number` is given."""
        body = contract.RunRequest(campaign_id=campaign_id, run_number=run_number)
        return self._read(contract.MESSAGES_PAGES, body, contract.PageCount).num_files

    def fetch_csv(self, campaign_id: str, file_num: int, run_number: int | None = None) -> str:
        body = _fetch(campaign_id, file_num, "utf8", run_number)
        return self._read(contract.MESSAGES_FETCH, body, contract.CsvPage).content

    def fetch_rows(
        self, campaign_id: str, file_num: int, run_number: int | None = None
    ) -> list[contract.MessageRow]:
        """The first 1000 rows of a page at most: for samples, not for bulk."""
        body = _fetch(campaign_id, file_num, "json", run_number)
        return self._read(contract.MESSAGES_FETCH, body, contract.JsonPage).messages

    def fetch_link(self, campaign_id: str, file_num: int) -> contract.PageLink:
        """A signed link to a page of the current run, valid for about an hour. Keep it secret."""
        body = _fetch(campaign_id, file_num, "url", None)
        return self._read(contract.MESSAGES_FETCH, body, contract.PageLink)

    def download_page(
        self, campaign_id: str, file_num: int, target: Path, run_number: int | None = None
    ) -> int:
        """Writes a page's CSV to `target`, byte for byte, and returns its size in bytes.

        A past run has no links, its pages come as text. Each try asks for a fresh link.
        """
        if run_number is not None:
            text = self.fetch_csv(campaign_id, file_num, run_number)
            return target.write_bytes(text.encode())
        return self._retry.run(lambda: self._follow_link(campaign_id, file_num, target))

    def _follow_link(self, campaign_id: str, file_num: int, target: Path) -> int:
        body = _fetch(campaign_id, file_num, "url", None)
        link = self._change("POST", contract.MESSAGES_FETCH, body, contract.PageLink)
        where = f"The link of page {file_num} of campaign {campaign_id}"
        try:
            with (
                self._links.stream("GET", link.url) as response,
                target.open("wb") as file,
            ):
                if response.is_error:
                    raise errors.ServerError(f"{where} answered {response.status_code}.")
                for block in response.iter_bytes():
                    file.write(block)
                return file.tell()
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise errors.ConnectionFailed(f"{where} broke: {type(error).__name__}.") from None

    # ---- reruns -------------------------------------------------------------------------------

    def initiate_rerun(self, campaign_id: str, customer_group_id: str) -> contract.RerunStarted:
        body = contract.InitiateRerun(
            campaign_id=campaign_id, new_customer_group_id=customer_group_id
        )
        return self._change("POST", contract.RERUN_INITIATE, body, contract.RerunStarted)

    def rerun_history(self, campaign_id: str) -> list[contract.Run]:
        """Newest first."""
        body = contract.CampaignRequest(campaign_id=campaign_id)
        return self._read(contract.RERUN_HISTORY, body, contract.RunHistory).runs

    def rerun_messages(
        self, campaign_id: str, run_number: int | None = None
    ) -> list[contract.SegmentMessage]:
        """The current run's active messages, or a run's with its archived ones."""
        body = contract.RunRequest(campaign_id=campaign_id, run_number=run_number)
        return self._read(contract.RERUN_MESSAGES, body, contract.SegmentMessageList).messages

    # ---- sending ------------------------------------------------------------------------------

    def _read(self, path: str, body: Request, answer: type[A]) -> A:
        return self._retry.run(lambda: self._change("POST", path, body, answer))

    def _change(self, method: str, path: str, body: Request, answer: type[A]) -> A:
        content = body.model_dump_json(exclude_none=True)
        headers = {"content-type": "application/json"}
        request = self._http.build_request(method, path, content=content, headers=headers)
        return self._send(request, answer)

    def _send(self, request: httpx.Request, answer: type[A]) -> A:
        call = f"{request.method} {request.url.path}"
        try:
            response = self._http.send(request)
        except httpx.RequestError as error:
            problem = f"{call} got no answer: {type(error).__name__}."
            raise errors.ConnectionFailed(problem) from None
        if response.is_error:
            raise errors.from_response(response)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise errors.mismatch(request.url.path, error) from None


def _fetch(
    campaign_id: str, file_num: int, export_type: contract.ExportType, run_number: int | None
) -> contract.FetchRequest:
    return contract.FetchRequest(
        campaign_id=campaign_id,
        file_num=file_num,
        export_type=export_type,
        run_number=run_number,
    )


def _decrypted(cipher: Fernet, token: str) -> Mapping[str, str | int | float | None]:
    try:
        return _PROFILE.validate_json(cipher.decrypt(token))
    except InvalidToken:
        raise errors.AuthError("A customer profile does not open with this profile key.") from None
    except ValidationError as error:
        raise errors.mismatch(contract.CUSTOMERS, error) from None


def _without_query(record: logging.LogRecord) -> bool:
    # httpx logs whole URLs; a signed link's query is its key.
    if isinstance(record.args, tuple):
        record.args = tuple(
            each.copy_with(query=None) if isinstance(each, httpx.URL) else each
            for each in record.args
        )
    return True


logging.getLogger("httpx").addFilter(_without_query)
