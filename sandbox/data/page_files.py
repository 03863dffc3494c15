"""Exported pages on any fsspec file system: one folder per run, one file per page."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem


class RunFolder(NamedTuple):
    """The folder of a run's pages, which is in its campaign's, and that in its account's."""

    account_id: str
    campaign_id: str
    run_number: int

    @property
    def path(self) -> str:
        """Return the path below the root of all pages."""
        return f"{self.account_id}/{self.campaign_id}/run-{self.run_number}"


class PageFiles:
    """The pages of all runs under one fsspec URL."""

    def __init__(self, url: str) -> None:
        # A cached listing would hide what another process has written.
        self._fs, root = url_to_fs(url, use_listings_cache=False)
        self._root = root.rstrip("/")

    def move_below_accounts(self, accounts: Mapping[str, str]) -> None:
        """Move folders of campaigns that are directly at the root, as earlier versions had them.

        `accounts` has the account of each campaign. Files are moved one by one, so that a move that
        was interrupted goes on where it was.
        """
        for path in self._list(self._root):
            folder = path.rstrip("/")
            name = folder.rpartition("/")[2]
            if name not in accounts:
                continue
            for file in self._fs.find(folder, detail=True):
                target = f"{self._root}/{accounts[name]}/{name}{file.removeprefix(folder)}"
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._fs.cp_file(file, target)
                self._fs.rm_file(file)
            if self._fs.exists(folder):  # object stores have no empty folders
                self._fs.rm(folder, recursive=True)

    def names(self, folder: RunFolder) -> list[str]:
        """Return the names of a run's pages, in order; empty if it has none."""
        paths = self._list(f"{self._root}/{folder.path}")
        return sorted(path.rpartition("/")[2] for path in paths if path.endswith(".csv"))

    def read(self, folder: RunFolder, name: str) -> bytes:
        """Return a page's bytes. Raises FileNotFoundError."""
        return self._fs.cat_file(self._path(folder, name))

    def write(self, folder: RunFolder, name: str, content: bytes) -> None:
        """Write a page; readers see all of it or nothing."""
        target = self._path(folder, name)
        if not isinstance(self._fs, LocalFileSystem):
            self._fs.pipe_file(target, content)  # an object appears when its upload is complete
            return
        draft = Path(target).with_suffix(".part")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.replace(draft, target)

    def remove(self, folder: RunFolder, name: str) -> None:
        """Delete a page."""
        self._fs.rm_file(self._path(folder, name))

    def local_file(self, folder: RunFolder, name: str) -> Path | None:
        """Return a page's path if the pages are on this machine, else None."""
        path = Path(self._path(folder, name))
        return path if isinstance(self._fs, LocalFileSystem) else None

    def signed_url(self, folder: RunFolder, name: str, seconds: int) -> str | None:
        """Return a link signed by the file system, valid for `seconds`; None if it signs none."""
        try:
            return self._fs.sign(self._path(folder, name), seconds)
        except NotImplementedError:
            return None

    def exists(self, folder: RunFolder, name: str) -> bool:
        """Return whether a run has a page of this name."""
        return self._fs.exists(self._path(folder, name))

    def _list(self, path: str) -> list[str]:
        try:
            return self._fs.ls(path, detail=False)
        except FileNotFoundError:
            return []

    def _path(self, folder: RunFolder, name: str) -> str:
        return f"{self._root}/{folder.path}/{name}"


def page_name(file_num: int) -> str:
    """Return the file name of a page; `file_num` counts from 0."""
    return f"{file_num:05d}.csv"
