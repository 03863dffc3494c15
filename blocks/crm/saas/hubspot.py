"""Customer lists from HubSpot."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, SecretStr, field_validator

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.saas.http import Api, bearer, code_of, shown
from blocks.crm.source import CrmSource
from blocks.crm.text import text_type
from blocks.documentation import documentation_url
from blocks.iterators import batched
from blocks.secrets import HINT, read_secret
from blocks.urls import SecureUrl
from nudgescribe.errors import first_ten
from nudgescribe.lazy import np, pa
from nudgescribe.retry import RetryPolicy

M = TypeVar("M", bound=BaseModel)
Values = dict[str, str | None]

MEMBERS_AT_ONCE = 250
CONTACTS_AT_ONCE = 100
"""HubSpot's limits for one answer."""
READERS = 4
"""Threads. At a third of a second a call they stay near HubSpot's 100 calls in ten seconds."""
BATCHES_AT_ONCE = 50
CONTACTS = "0-1"
READ = "/crm/v3/objects/contacts/batch/read"


class _List(BaseModel):
    object_type: str = Field(alias="objectTypeId")
    status: str = Field(alias="processingStatus")


class _ListAnswer(BaseModel):
    list: _List


class _Property(BaseModel):
    name: str


class _Properties(BaseModel):
    results: list[_Property]


class _ListMember(BaseModel):
    id: Annotated[str, Field(alias="recordId", pattern=r"^[1-9][0-9]{0,17}$")]


class _Next(BaseModel):
    after: str


class _Paging(BaseModel):
    next: _Next | None = None


class _Members(BaseModel):
    total: int = 0
    results: list[_ListMember]
    paging: _Paging | None = None


class _Contact(BaseModel):
    id: str
    properties: Values


class _Failure(BaseModel):
    category: str
    context: dict[str, list[str]] = {}


class _ContactsAnswer(BaseModel):
    status: str
    results: list[_Contact]
    errors: list[_Failure] = []


class HubSpotCrm(CrmSource):
    """
    The customer list is a list of contacts in HubSpot.

    Example:
        ```python
        from blocks import HubSpotCrm

        crm = HubSpotCrm.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "HubSpot CRM"
    _documentation_url = documentation_url("customer-lists")

    token: SecretStr = Field(
        description="The private app's token; scopes crm.lists.read and crm.objects.contacts.read. "
        f"{HINT}"
    )
    list_id: str = Field(description="The list's ILS id, shown in its details.")
    properties: list[str] = Field(
        min_length=1,
        description="Internal names of the contact properties, which become the columns. "
        "hs_object_id is the contact's record id.",
    )
    base_url: SecureUrl = Field(
        default="https://api.hubapi.com", description="URL of HubSpot's API."
    )
    retry: ClassVar[RetryPolicy] = RetryPolicy()

    @field_validator("properties")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        if not all(names) or len(set(names)) < len(names):
            raise ValueError("names a property more than once, or an empty one")
        return names

    def batches(self, needed: frozenset[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield the list's contacts that still exist, as `CrmSource.batches` does.

        The columns are the needed `properties`; a property that a contact lacks is null.
        """
        names = [each for each in self.properties if needed is None or each in needed]
        never_given = set(names)
        rows = gone = 0
        headers = bearer(read_secret(self.token, f"{self.block_slug}, token"))
        with Api("HubSpot", self.base_url, headers=headers, explain=_limit) as api:
            self._check_list(api)
            self._check_properties(api, names)
            yield _batch([], names)
            read = partial(self._read, api, names)
            batches = batched(self._members(api), CONTACTS_AT_ONCE)
            with ThreadPoolExecutor(READERS) as pool:
                for some in batched(batches, BATCHES_AT_ONCE):
                    contacts = [values for batch in pool.map(read, some) for values in batch]
                    yield _batch(contacts, names)
                    rows += len(contacts)
                    never_given.difference_update(*contacts)
                    gone += sum(map(len, some)) - len(contacts)
        if gone:
            self.logger.info("%s members of list %s no longer exist", gone, self.list_id)
        if rows and never_given:
            raise SourceError(
                f"HubSpot gives no contact a value for {first_ten(sorted(never_given))}: "
                "the token may lack a scope for sensitive properties."
            )

    def _check_list(self, api: Api) -> None:
        details = self._get(api, _ListAnswer, self._list_path, f"list {self.list_id}").list
        if details.object_type != CONTACTS:
            raise SourceError(
                f"List {self.list_id} holds records of type {details.object_type}, "
                f"not contacts ({CONTACTS})."
            )
        if details.status == "PROCESSING":
            raise SourceUnavailable(f"HubSpot is still working out who is in list {self.list_id}.")

    def _check_properties(self, api: Api, names: list[str]) -> None:
        # HubSpot ignores a property that it does not know.
        answer = self._get(api, _Properties, "/crm/v3/properties/contacts", "contact properties")
        known = {each.name for each in answer.results}
        if unknown := [name for name in names if name not in known]:
            raise SourceError(
                f"HubSpot has no contact properties of these names: {first_ten(unknown)}. "
                "Use the internal names."
            )

    def _members(self, api: Api) -> Iterator[str]:
        """Yield the members' record ids, each once, also if the list changes meanwhile."""
        about = f"the members of list {self.list_id}"
        params: dict[str, Any] = {"limit": MEMBERS_AT_ONCE}
        seen = np.empty(0, np.int64)
        while True:
            page = self._get(api, _Members, f"{self._list_path}/memberships", about, params=params)
            ids = np.unique(np.array([member.id for member in page.results], np.int64))
            positions = np.searchsorted(seen, ids)
            fresh = np.searchsorted(seen, ids, "right") == positions
            seen = np.insert(seen, positions[fresh], ids[fresh])
            yield from map(str, ids[fresh])
            following = page.paging and page.paging.next
            if not following:
                break
            if following.after == params.get("after"):
                raise SourceError(f"HubSpot's pages of {about} lead in a circle.")
            params = {**params, "after": following.after}
        if len(seen) < page.total:
            raise SourceUnavailable(
                f"HubSpot gives {len(seen):,} of {about}, where it announces {page.total:,}."
            )

    def _read(self, api: Api, names: list[str], ids: list[str]) -> list[Values]:
        """Return the contacts that still exist, in the order of `ids`."""
        return self.retry.run(lambda: self._read_once(api, names, ids))

    def _read_once(self, api: Api, names: list[str], ids: list[str]) -> list[Values]:
        about = f"{len(ids)} contacts of list {self.list_id}"
        body = {
            "inputs": [{"id": each} for each in ids],
            "properties": names,
            "propertiesWithHistory": [],
        }
        answer = api.fetch(_ContactsAnswer, "POST", READ, about, json=body)
        gone: set[str] = set()
        for failure in answer.errors:
            if failure.category != "OBJECT_NOT_FOUND":
                raise SourceError(f"HubSpot cannot read {about}: {shown(failure.category)}.")
            gone.update(failure.context.get("ids", []))
        contacts = {contact.id: contact.properties for contact in answer.results}
        # A contact that was merged into another is answered with that one.
        merged = contacts.keys() - set(ids)
        lacking = max(0, len(set(ids) - contacts.keys() - gone) - len(merged))
        if lacking or answer.status != "COMPLETE":
            raise SourceUnavailable(f"HubSpot's answer lacks {lacking} of {about}.")
        return [contacts[each] for each in ids if each in contacts]

    @property
    def _list_path(self) -> str:
        return f"/crm/v3/lists/{quote(self.list_id, safe='')}"

    def _get(self, api: Api, model: type[M], path: str, about: str, **options: Any) -> M:
        return self.retry.run(lambda: api.fetch(model, "GET", path, about, **options))


def _batch(contacts: list[Values], names: list[str]) -> pa.RecordBatch:
    return pa.record_batch(
        [pa.array([one.get(each) for one in contacts], text_type()) for each in names], names
    )


def _limit(response: httpx.Response) -> SourceError | None:
    if response.status_code != 429:
        return None
    headers = response.headers
    if code_of(response) == "DAILY" or headers.get("x-hubspot-ratelimit-daily-remaining") == "0":
        return SourceError(
            "The HubSpot account's calls for today are used up; "
            "there are new ones after midnight in the account's time zone."
        )
    window = headers.get("x-hubspot-ratelimit-interval-milliseconds", "")
    if "retry-after" in headers or not window.isdecimal():
        return None
    return SourceUnavailable("HubSpot's calls for this moment are used up.", int(window) / 1000)
