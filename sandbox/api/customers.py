"""Content endpoints: the customers of a group, checked, upserted, read and deleted."""

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

import polars as pl
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from nudgescribe import contract
from nudgescribe.contract import Text
from sandbox.api.security import BearerRoute, account_of
from sandbox.context import context_of
from sandbox.data.lookup import find_group, find_workspace
from sandbox.data.models import new_id
from sandbox.data.profiles import Profiles, count_customers
from sandbox.engine import uploads
from sandbox.errors import Refusal
from sandbox.middleware.body_limit import FORM, JSON, media_type

router = APIRouter(route_class=BearerRoute)

PAGE_SIZE = 1000

M = TypeVar("M", bound=contract.Request)


@router.post(contract.CUSTOMERS_CHECK)
async def check_customers(request: Request) -> contract.UploadResult:
    """Either a data file as a form, or one customer as JSON."""
    kind = media_type(request.headers)
    if kind == FORM:
        try:
            form = await request.form()
        except UnicodeError:  # its charset can be any that Python knows
            raise Refusal(400, "The form is not valid UTF-8.") from None
        try:
            target, file = _read_form(form)
            return await run_in_threadpool(_check_file, request, target, file)
        finally:
            await form.close()
    if kind != JSON:
        raise Refusal(400, "The body is neither a form nor JSON.")
    content = await request.body()
    one = _validated(lambda: contract.UploadCustomer.model_validate_json(content))
    return await run_in_threadpool(_check_one, request, one)


@router.post(contract.CUSTOMERS_PAGES)
def count_pages(body: contract.GroupRequest, request: Request) -> contract.CustomerPageCount:
    with context_of(request).store.read() as session:
        _find(session, request, body)
        total = count_customers(session, body.customer_group_id)
    return contract.CustomerPageCount(num_pages=_pages(total), page_size=PAGE_SIZE, total=total)


@router.post(contract.CUSTOMERS)
def read_customers(body: contract.CustomerPageRequest, request: Request) -> contract.CustomerPage:
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
    return contract.CustomerPage(customers=customers, page=body.page, num_pages=_pages(total))


@router.delete(contract.CUSTOMERS)
def delete_customers(body: contract.DeleteCustomers, request: Request) -> contract.Deleted:
    with context_of(request).store.write() as session:
        deleted = _profiles(session, request, body).remove(body.customer_ids)
    return contract.Deleted(deleted=deleted)


def _validated(validate: Callable[[], M]) -> M:
    """What FastAPI does for the bodies it reads itself."""
    try:
        return validate()
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from None


def _read_form(form: FormData) -> tuple[contract.UploadForm, BinaryIO]:
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    target = _validated(lambda: contract.UploadForm.model_validate(texts))
    file = form.get(contract.UPLOAD_FILE)
    if not isinstance(file, UploadFile):
        raise Refusal(401, Text.MISSING)
    return target, file.file


def _check_file(
    request: Request, target: contract.UploadForm, file: BinaryIO
) -> contract.UploadResult:
    size = file.seek(0, os.SEEK_END)

    def frames() -> Iterator[pl.DataFrame]:
        file.seek(0)
        return uploads.rows(file)

    with context_of(request).store.read() as session:
        rules = _profiles(session, request, target).rules
    repeated = uploads.repeated_ids(frames, rules)
    if target.validate_only or size <= context_of(request).settings.upload_at_once:
        return _upsert(request, target, frames, repeated)
    with context_of(request).store.write() as session:
        profiles = _profiles(session, request, target)
        file.seek(0)
        job_uid = uploads.queue(session, profiles, target.customer_group_id, file)
    return contract.UploadResult(
        job_uid=job_uid,
        status=contract.UPLOAD_QUEUED,
        total=0,
        accepted=0,
        rejected=0,
        errors=[],
    )


def _check_one(request: Request, one: contract.UploadCustomer) -> contract.UploadResult:
    values = {name: [None if value is None else str(value)] for name, value in one.customer.items()}
    frame = pl.DataFrame(values, schema=dict.fromkeys(values, pl.String()))

    def frames() -> Iterator[pl.DataFrame]:
        return iter([frame])

    with context_of(request).store.read() as session:
        repeated = uploads.repeated_ids(frames, _profiles(session, request, one).rules)
    return _upsert(request, one, frames, repeated)


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
        for accepted in uploads.judged(frames(), profiles.rules, repeated, tally):
            if not target.validate_only:
                profiles.put(accepted)
    return contract.UploadResult(
        job_uid=new_id(),
        status=contract.UPLOAD_COMPLETED,
        total=tally.total,
        accepted=tally.accepted,
        rejected=tally.rejected,
        errors=tally.errors,
    )


def _profiles(session: Session, request: Request, body: contract.GroupRequest) -> Profiles:
    _find(session, request, body)
    return Profiles(session, context_of(request).keys, body.customer_group_id)


def _find(session: Session, request: Request, body: contract.GroupRequest) -> None:
    find_workspace(session, account_of(request), body.workspace_id)
    find_group(session, account_of(request), body.customer_group_id, within=body.workspace_id)


def _pages(total: int) -> int:
    return -(-total // PAGE_SIZE)
