"""Exported pages on any fsspec file system: one folder per run, one file per page."""

import os
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem


class PageFiles:
    """The pages of all runs under one fsspec URL."""

    def __init__(self, url: str) -> None:
        # A cached listing would hide what another process has written.
        self._fs, root = url_to_fs(url, use_listings_cache=False)
        self._root = root.rstrip("/")

    def names(self, campaign_id: str, run_number: int) -> list[str]:
        """Return the names of a run's pages, in order; empty if it has none."""
        try:
            paths = self._fs.ls(f"{self._root}/{_folder(campaign_id, run_number)}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rpartition("/")[2] for path in paths if path.endswith(".csv"))

    def read(self, campaign_id: str, run_number: int, name: str) -> bytes:
        """Return a page's bytes. Raises FileNotFoundError."""
        return self._fs.cat_file(self._path(campaign_id, run_number, name))

    def write(self, campaign_id: str, run_number: int, name: str, content: bytes) -> None:
        """Write a page; readers see all of it or nothing."""
        target = self._path(campaign_id, run_number, name)
        if not isinstance(self._fs, LocalFileSystem):
            self._fs.pipe_file(target, content)  # an object appears when its upload is complete
            return
        draft = Path(target).with_suffix(".part")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.replace(draft, target)

    def remove(self, campaign_id: str, run_number: int, name: str) -> None:
        """Delete a page."""
        self._fs.rm_file(self._path(campaign_id, run_number, name))

    def local_file(self, campaign_id: str, run_number: int, name: str) -> Path | None:
        """Return a page's path if the pages are on this machine, else None."""
        path = Path(self._path(campaign_id, run_number, name))
        return path if isinstance(self._fs, LocalFileSystem) else None

    def signed_url(self, campaign_id: str, run_number: int, name: str, seconds: int) -> str | None:
        """Return a link signed by the file system, valid for `seconds`; None if it signs none."""
        try:
            return self._fs.sign(self._path(campaign_id, run_number, name), seconds)
        except NotImplementedError:
            return None

    def exists(self, campaign_id: str, run_number: int, name: str) -> bool:
        """Return whether a run has a page of this name."""
        return self._fs.exists(self._path(campaign_id, run_number, name))

    def _path(self, campaign_id: str, run_number: int, name: str) -> str:
        return f"{self._root}/{_folder(campaign_id, run_number)}/{name}"


def page_name(file_num: int) -> str:
    """Return the file name of a page; `file_num` counts from 0."""
    return f"{file_num:05d}.csv"


def _folder(campaign_id: str, run_number: int) -> str:
    return f"{campaign_id}/run-{run_number}"
