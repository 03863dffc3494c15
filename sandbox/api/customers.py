"""Content endpoints: a group's customers, checked and upserted, read, deleted."""

import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

import polars as pl
from fastapi import APIRouter, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from nudgescribe import contract
from nudgescribe.contract import Text
from sandbox.api.security import CONTENT_HEADERS, BearerRoute
from sandbox.context import account_of, caller_of, context_of
from sandbox.data.lookup import find_group, find_workspace
from sandbox.data.models import new_id
from sandbox.data.profiles import Profiles, count_customers
from sandbox.engine import uploads
from sandbox.errors import NOT_FOUND
from sandbox.middleware.body_limit import FORM, JSON, media_type

router = APIRouter(
    route_class=BearerRoute,
    dependencies=CONTENT_HEADERS,
    responses=NOT_FOUND,
    tags=["Customers"],
)

PAGE_SIZE = 1000

M = TypeVar("M", bound=contract.Request)


def _describe_upload() -> dict[str, Any]:
    """Return the OpenAPI request body: a form with a file, or JSON with one customer."""
    form = contract.UploadForm.model_json_schema()
    form["properties"][contract.UPLOAD_FILE] = {
        "type": "string",
        "format": "binary",
        "description": "A CSV in UTF-8 whose header names the workspace's fields.",
    }
    form["required"].append(contract.UPLOAD_FILE)
    customer = contract.UploadCustomer.model_json_schema()
    return {"required": True, "content": {FORM: {"schema": form}, JSON: {"schema": customer}}}


@router.post(contract.CUSTOMERS_CHECK, openapi_extra={"requestBody": _describe_upload()})
async def check_customers(request: Request) -> contract.UploadResult:
    """Check a file of customers, or one customer as JSON, and upsert the accepted rows.

    A rejected row stops no other one. A large file is `queued` and worked off in the background.
    """
    kind = media_type(request.headers)
    if kind == FORM:
        try:
            form = await request.form()
        except UnicodeError:  # its charset can be any that Python knows
            raise HTTPException(400, "The form is not valid UTF-8.") from None
        try:
            target, file = _read_form(form)
            return await run_in_threadpool(_check_file, request, target, file)
        finally:
            await form.close()
    if kind != JSON:
        raise HTTPException(400, "The body is neither a form nor JSON.")
    content = await request.body()
    upload = _validated(lambda: contract.UploadCustomer.model_validate_json(content))
    return await run_in_threadpool(_check_customer, request, upload)


@router.post(contract.CUSTOMERS_PAGES)
def count_customer_pages(
    body: contract.GroupRequest, request: Request
) -> contract.CustomerPageCount:
    """Count the pages of a group."""
    with context_of(request).store.read() as session:
        _find(session, request, body)
        total = count_customers(session, body.customer_group_id)
    return contract.CustomerPageCount(num_pages=_num_pages(total), page_size=PAGE_SIZE, total=total)


@router.post(contract.CUSTOMERS)
def fetch_customers(body: contract.CustomerPageRequest, request: Request) -> contract.CustomerPage:
    """Return one page of a group, each profile encrypted with the account's key."""
    with context_of(request).store.read() as session:
        profiles = _profiles(session, request, body)
        page = profiles.page(body.page * PAGE_SIZE, PAGE_SIZE)
        total = profiles.size
    objects = page.select(pl.struct(pl.all()).struct.json_encode()).to_series()
    customers = [
        contract.EncryptedCustomer(
            customer_id=customer_id, profile=profiles.cipher.encrypt(profile.encode()).decode()
        )
        for customer_id, profile in zip(page[profiles.key], objects, strict=True)
    ]
    return contract.CustomerPage(customers=customers, page=body.page, num_pages=_num_pages(total))


@router.delete(contract.CUSTOMERS)
def delete_customers(body: contract.DeleteCustomers, request: Request) -> contract.Deleted:
    """Delete customers of a group by their identifiers."""
    with context_of(request).store.write() as session:
        deleted = _profiles(session, request, body).remove(body.customer_ids)
    return contract.Deleted(deleted=deleted)


def _validated(validate: Callable[[], M]) -> M:
    """Return what `validate` returns. Raises RequestValidationError, as FastAPI does itself."""
    try:
        return validate()
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from None


def _read_form(form: FormData) -> tuple[contract.UploadForm, BinaryIO]:
    """Return the fields and the file of a form.

    Raises RequestValidationError, or HTTPException, 401, if the file is missing.
    """
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    target = _validated(lambda: contract.UploadForm.model_validate(texts))
    file = form.get(contract.UPLOAD_FILE)
    if not isinstance(file, UploadFile):
        raise HTTPException(401, Text.MISSING)
    return target, file.file


def _check_file(
    request: Request, target: contract.UploadForm, file: BinaryIO
) -> contract.UploadResult:
    """Upsert a file at once, or queue it if it is large."""
    size = file.seek(0, os.SEEK_END)

    def frames() -> Iterator[pl.DataFrame]:
        file.seek(0)
        return uploads.read_frames(file)

    with context_of(request).store.read() as session:
        rules = _profiles(session, request, target).rules
    repeated = uploads.check_list(frames, rules)
    if target.validate_only or size <= context_of(request).settings.upload_at_once:
        return _upsert(request, target, frames, repeated)
    with context_of(request).store.write() as session:
        profiles = _profiles(session, request, target)
        file.seek(0)
        user_id = caller_of(request).user_id
        job_uid = uploads.queue(session, profiles, target.customer_group_id, file, user_id)
        request.state.job_uid = job_uid
    return contract.UploadResult(
        job_uid=job_uid,
        status=contract.UPLOAD_QUEUED,
        total=0,
        accepted=0,
        rejected=0,
        errors=[],
    )


def _check_customer(request: Request, upload: contract.UploadCustomer) -> contract.UploadResult:
    customer = upload.customer
    values = {name: [None if value is None else str(value)] for name, value in customer.items()}
    frame = pl.DataFrame(values, schema=dict.fromkeys(values, pl.String()))

    def frames() -> Iterator[pl.DataFrame]:
        return iter([frame])

    with context_of(request).store.read() as session:
        repeated = uploads.check_list(frames, _profiles(session, request, upload).rules)
    return _upsert(request, upload, frames, repeated)


def _upsert(
    request: Request,
    target: contract.UploadForm | contract.UploadCustomer,
    frames: uploads.Frames,
    repeated: pl.Series,
) -> contract.UploadResult:
    tally = uploads.Tally()
    store = context_of(request).store
    with store.read() if target.validate_only else store.write() as session:
        profiles = _profiles(session, request, target)
        for accepted in uploads.accepted_rows(frames(), profiles.rules, repeated, tally):
            if not target.validate_only:
                profiles.upsert(accepted)
    return contract.UploadResult(
        job_uid=new_id(),
        status=contract.UPLOAD_COMPLETED,
        total=tally.total,
        accepted=tally.accepted,
        rejected=tally.rejected,
        errors=tally.errors,
    )


def _profiles(session: Session, request: Request, body: contract.GroupRequest) -> Profiles:
    """Return the customers of a group. Raises HTTPException, 401 or 404."""
    _find(session, request, body)
    return Profiles(session, context_of(request).keys, body.customer_group_id)


def _find(session: Session, request: Request, body: contract.GroupRequest) -> None:
    """Check that workspace and group are the account's. Raises HTTPException, 401 or 404."""
    find_workspace(session, account_of(request), body.workspace_id)
    find_group(session, account_of(request), body.customer_group_id, body.workspace_id)


def _num_pages(total: int) -> int:
    return -(-total // PAGE_SIZE)
