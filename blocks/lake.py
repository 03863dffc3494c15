"""The data lake: where messages end up, and where lists are staged and quarantined on the way."""

import os
from pathlib import Path
from uuid import uuid4

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import Field, PrivateAttr, ValidationError

from blocks.about import LOGO_URL, documentation
from blocks.manifest import MANIFEST, Manifest
from nudgescribe.errors import NudgeflowError

OWNER_ONLY = 0o600


class LakeError(NudgeflowError):
    advice = "Check the lake block's root and its storage options."


class DataLake(Block):
    """
    A folder on any fsspec file system. Paths in its methods are relative to the root.

    Example:
        ```python
        from blocks import DataLake

        lake = DataLake.load("BLOCK_NAME")
        manifest = lake.manifest("CAMPAIGN_ID", 2)
        ```
    """

    _block_type_name = "Data lake"
    _logo_url = LOGO_URL
    _documentation_url = documentation("the-lake")

    root: str = Field(description="Path or fsspec URL of the lake's folder, such as s3://lake/crm.")
    storage_options: SecretDict | None = Field(
        default=None, description="Options of the file system, such as its keys."
    )
    _opened: tuple[AbstractFileSystem, str] | None = PrivateAttr(default=None)

    @staticmethod
    def run_folder(campaign_id: str, run_number: int) -> str:
        """Where a run's parts and its manifest lie."""
        return f"messages/campaign_id={campaign_id}/run_number={run_number}"

    def url(self, path: str) -> str:
        """The whole path, for people."""
        return f"{self.root.rstrip('/')}/{path}"

    def put(self, local: Path, path: str, *, private: bool = False) -> None:
        """Makes a local file appear under `path`, whole or not at all."""
        fs, target = self._locate(path)
        if not isinstance(fs, LocalFileSystem):
            fs.put_file(str(local), target)  # an object appears when its upload is complete
            return
        folder, _, name = target.rpartition("/")
        fs.makedirs(folder, exist_ok=True)
        draft = f"{folder}/.{uuid4()}-{name}"
        try:
            fs.put_file(str(local), draft)
            if private:
                os.chmod(draft, OWNER_ONLY)
            os.replace(draft, target)
        finally:
            Path(draft).unlink(missing_ok=True)

    def get(self, path: str, local: Path) -> None:
        """Copies a file of the lake to a local one. Raises LakeError if it is not there."""
        fs, target = self._locate(path)
        try:
            fs.get_file(target, str(local))
        except FileNotFoundError:
            raise LakeError(f"{path} is not in the lake.") from None

    def exists(self, path: str) -> bool:
        fs, target = self._locate(path)
        return fs.exists(target)

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder; none if there is no such folder."""
        fs, target = self._locate(folder)
        try:
            return sorted(each.rpartition("/")[2] for each in fs.ls(target, detail=False))
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        """Removes a file or a folder with all it holds, if it is there."""
        fs, target = self._locate(path)
        if fs.exists(target):
            fs.rm(target, recursive=True)

    def manifest(self, campaign_id: str, run_number: int) -> Manifest | None:
        """What a run in the lake is made of; None while it is not there as a whole."""
        path = f"{self.run_folder(campaign_id, run_number)}/{MANIFEST}"
        fs, target = self._locate(path)
        try:
            return Manifest.model_validate_json(fs.cat_file(target))
        except FileNotFoundError:
            return None
        except ValidationError:
            raise LakeError(f"{path} is not a manifest of this version.") from None

    def _locate(self, path: str) -> tuple[AbstractFileSystem, str]:
        if self._opened is None:
            options = self.storage_options.get_secret_value() if self.storage_options else {}
            # A cached listing would hide what another process has written.
            self._opened = url_to_fs(self.root, **{"use_listings_cache": False, **options})
        fs, root = self._opened
        return fs, f"{root.rstrip('/')}/{path}"
