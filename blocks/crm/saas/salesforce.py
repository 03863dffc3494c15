"""Customer lists from Salesforce."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from tempfile import TemporaryFile
from typing import Annotated, Any, BinaryIO, ClassVar

import httpx
from pydantic import BaseModel, Field, SecretStr

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.list_file import to_batches
from blocks.crm.saas.http import Api, code_of, shown
from blocks.crm.source import CrmSource
from blocks.crm.text import plain
from blocks.documentation import documentation_url
from blocks.secrets import HINT, read_secret
from blocks.urls import SecureUrl, check_base_url, is_loopback
from nudgescribe import rfc4180
from nudgescribe.lazy import pa, pc
from nudgescribe.retry import PollPolicy, RetryPolicy, poll

_NUMBERS = ("double", "currency", "percent")
_JAVA_NUMBER = r"^-?\d+\.\d+E-?\d+$|^-?\d+\.0$"
"""A number as Java writes it, if that is not our form: 8.0E7, 5.0."""
_POSITION = re.compile(r"Row:(\d+):Column:(\d+)")


class _Token(BaseModel):
    token: Annotated[str, Field(alias="access_token", pattern=r"^[!-~]+$")]
    instance: str = Field(alias="instance_url")


class _QueryJob(BaseModel):
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{15,18}$")]
    state: Annotated[str, Field(pattern=r"^[A-Za-z]{1,20}$")]
    source: Annotated[str, Field(alias="object", pattern=r"^\w{0,80}$")] = ""
    rows: int | None = Field(default=None, alias="numberRecordsProcessed")
    error: str | None = Field(default=None, alias="errorMessage")


class _Field(BaseModel):
    name: str
    type: str
    parent: str | None = Field(default=None, alias="relationshipName")
    parents: list[str] = Field(default=[], alias="referenceTo")


class _Description(BaseModel):
    fields: list[_Field]


class _Session(httpx.Auth):
    """Adds the token; when it has expired, signs in and sends the call once more."""

    def __init__(self, token: str, sign_in: Callable[[], _Token]) -> None:
        self._token = token
        self._sign_in = sign_in

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == 401:
            self._token = self._sign_in().token
            request.headers["authorization"] = f"Bearer {self._token}"
            yield request


class SalesforceCrm(CrmSource):
    """
    The customer list is the result of a SOQL query, run as a Bulk API 2.0 job.

    Example:
        ```python
        from blocks import SalesforceCrm

        crm = SalesforceCrm.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Salesforce CRM"
    _documentation_url = documentation_url("customer-lists")

    login_url: SecureUrl = Field(description="My Domain, https://….my.salesforce.com.")
    client_id: str = Field(
        description="The app's consumer key; it needs the client credentials flow."
    )
    client_secret: SecretStr = Field(description=f"The app's consumer secret. {HINT}")
    query: str = Field(
        description="The SOQL query whose rows are the customers and whose columns are the fields."
    )
    api_version: str = Field(
        default="v62.0", pattern=r"^v[0-9]+\.0$", description="Version of Salesforce's API."
    )
    deadline_minutes: float = Field(
        default=60, gt=0, description="How long to wait for the query, in minutes."
    )
    page_rows: int = Field(default=50_000, gt=0, description="Rows per page of the results.")
    retry: ClassVar[RetryPolicy] = RetryPolicy()
    poll_policy: ClassVar[PollPolicy] = PollPolicy()

    def batches(self, needed: frozenset[str] | None) -> Iterator[pa.RecordBatch]:
        """Run the query as a job and yield its rows, as `CrmSource.batches` does.

        An empty value is null. Raises SourceError also if the job is not complete after
        `deadline_minutes`.
        """
        rows = 0
        with self._signed_in() as api, self._job(api) as job:
            done = self._wait(api, job)
            announced = done.rows or 0
            is_number = cache(
                partial(self._is_number, cache(partial(self._fields, api)), done.source)
            )
            for table in self._tables(api, job):
                rows += table.num_rows
                yield from to_batches(_plain_numbers(table, is_number))
        if rows != announced:
            raise SourceUnavailable(
                f"Query job {job} gave {rows} rows where {announced} were announced."
            )

    @contextmanager
    def _signed_in(self) -> Generator[Api]:
        with Api("Salesforce", self.login_url) as login_api:
            sign_in = partial(self.retry.run, partial(self._sign_in, login_api))
            first = sign_in()
            instance = _trusted(first.instance, self.login_url)
            session = _Session(first.token, sign_in)
            with Api("Salesforce", instance, auth=session, explain=_limit) as api:
                yield api

    def _sign_in(self, login_api: Api) -> _Token:
        who = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": read_secret(self.client_secret, f"{self.block_slug}, client_secret"),
        }
        return login_api.fetch(_Token, "POST", "/services/oauth2/token", "the sign-in", data=who)

    @contextmanager
    def _job(self, api: Api) -> Generator[str]:
        """Create a query job and yield its id; at the end abort it if need be, and delete it."""
        query = {
            "operation": "query",
            "query": self.query,
            "contentType": "CSV",
            "columnDelimiter": "COMMA",
            "lineEnding": "LF",
        }
        # Sent once: a job whose id was lost with the answer could not be stopped.
        job = api.fetch(_QueryJob, "POST", self._path(), "the query", json=query).id
        try:
            yield job
        except BaseException:
            with suppress(SourceError):  # it may have ended by itself
                self._call(api, "PATCH", job, json={"state": "Aborted"})
            raise
        finally:
            try:
                self._call(api, "DELETE", job)
            except SourceError as error:
                self.logger.warning(
                    "Salesforce keeps the results of query job %s for a week: %s",
                    job,
                    error.problem,
                )

    def _wait(self, api: Api, job: str) -> _QueryJob:
        """Wait until a job is complete and return what it tells of itself."""
        state = ""
        read = partial(api.fetch, _QueryJob, "GET", self._path(job), f"query job {job}")
        for seen in poll(read, self.deadline_minutes * 60, self.poll_policy):
            if seen.state != state:
                state = seen.state
                self.logger.info("Query job %s: %s", job, state)
            if state == "JobComplete":
                return seen
            if state in ("Failed", "Aborted"):
                raise SourceError(f"Query job {job} ended as {state}{_reason(seen.error or '')}.")
        raise SourceError(
            f"Query job {job} was not complete after {self.deadline_minutes:g} minutes, "
            f"last seen: {state}. Ask for less, or raise deadline_minutes."
        )

    def _fields(self, api: Api, source: str) -> list[_Field]:
        """Return the fields of a kind of object."""
        path = f"/services/data/{self.api_version}/sobjects/{source}/describe"
        about = f"the fields of {source}"
        read = partial(api.fetch, _Description, "GET", path, about)
        return self.retry.run(read).fields

    def _is_number(self, fields: Callable[[str], list[_Field]], source: str, column: str) -> bool:
        """Return whether a column of the query, such as Account.Sales__c, is a field of numbers."""
        *parents, name = column.lower().split(".")
        sources = {source}
        for parent in parents:
            found = (each for one in sources for each in fields(one))
            sources = {
                above
                for each in found
                if (each.parent or "").lower() == parent
                for above in each.parents
            }
        found = (each for one in sources for each in fields(one))
        return any(each.name.lower() == name and each.type in _NUMBERS for each in found)

    def _tables(self, api: Api, job: str) -> Iterator[pa.Table]:
        """Yield the rows, at least one table; "" as null, for Salesforce has no empty text."""
        columns: list[str] | None = None
        locator: str | None = None
        while True:
            with TemporaryFile() as file:
                following = self.retry.run(partial(self._save_page, api, job, locator, file))
                for block in rfc4180.blocks(file):
                    names = block.table.schema.names
                    if names != (columns := columns or names):
                        raise SourceError(f"The pages of query job {job} differ in their columns.")
                    yield pa.table([_nulls(each) for each in block.table.columns], names)
            if not following:
                return
            if following == locator:
                raise SourceError(f"The pages of query job {job} lead in a circle.")
            locator = following

    def _save_page(self, api: Api, job: str, locator: str | None, file: BinaryIO) -> str | None:
        """Write a page to `file`, check that it is whole, and return the locator of the next."""
        file.seek(0)
        file.truncate()
        params = {"maxRecords": self.page_rows, **({"locator": locator} if locator else {})}
        about = f"the results of query job {job}"
        headers = api.download(f"{self._path(job)}/results", about, file, params)
        file.seek(0)
        try:
            rows = sum(block.table.num_rows for block in rfc4180.blocks(file))
        except rfc4180.MalformedCsv:
            # Its text names columns, which in a page that was cut off may be values.
            raise SourceUnavailable(f"A page of {about} is cut off or no CSV.") from None
        if headers.get("sforce-numberofrecords") != str(rows):
            raise SourceUnavailable(f"A page of {about} has {rows} rows, not the number announced.")
        file.seek(0)
        following = headers.get("sforce-locator", "null")
        return None if following == "null" else following

    def _call(self, api: Api, method: str, job: str, **options: Any) -> None:
        path, about = self._path(job), f"query job {job}"
        self.retry.run(lambda: api.send(method, path, about, **options))

    def _path(self, job: str = "") -> str:
        return f"/services/data/{self.api_version}/jobs/query/{job}".rstrip("/")


def _plain_numbers(table: pa.Table, is_number: Callable[[str], bool]) -> pa.Table:
    """Return a table with numbers as other sources write them."""
    columns = list(table.columns)
    for place, name in enumerate(table.schema.names):
        odd = pc.match_substring_regex(columns[place], _JAVA_NUMBER)
        if pc.any(odd).as_py() and is_number(name):
            texts = columns[place].combine_chunks()
            odd = odd.combine_chunks()
            written = pa.array(map(plain, texts.filter(odd).to_pylist()), texts.type)
            columns[place] = pc.replace_with_mask(texts, odd.fill_null(False), written)
    return pa.table(columns, table.schema.names)


def _nulls(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _trusted(instance: str, login_url: str) -> str:
    """Return the URL of an account's instance, if its token may be sent there."""
    try:
        url, home = httpx.URL(check_base_url(instance)), httpx.URL(login_url)
    except ValueError:
        raise SourceError("Salesforce names an instance that is no plain URL.") from None
    ours = url.host == home.host or url.host.endswith(".salesforce.com")
    if (url.scheme == "https" and ours) or (is_loopback(url.host) and is_loopback(home.host)):
        return str(url)
    raise SourceError("Salesforce names an instance outside of salesforce.com: not followed.")


def _reason(message: str) -> str:
    """Return the code and position in a query's error; the rest may repeat values of the query."""
    code = shown(message.partition(":")[0].strip())
    position = _POSITION.search(message)
    where = f" at row {position[1]}, column {position[2]} of the query" if position else ""
    return (f": {code}" if code else "") + where


def _limit(response: httpx.Response) -> SourceError | None:
    if code_of(response) == "REQUEST_LIMIT_EXCEEDED":
        return SourceError("The Salesforce account's API requests of these 24 hours are used up.")
    return None
