"""The password of Valkey that is in a file."""

from __future__ import annotations

from pathlib import Path

from redis.credentials import CredentialProvider

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.secret_files import read_secret
from socketcluster_store.errors import EngineError

log = get_logger(__name__)

OPTION = "the password_file of valkey_url"


class PasswordFile(CredentialProvider):
    """Reads the file for each connection, so that another password counts from when it is there.

    Args:
        path: the file.
        user: whose password it is; empty for Valkey's default user.

    Raises:
        EngineError: it cannot be used now. Later, that is logged, and the password before is tried.
    """

    def __init__(self, path: Path, user: str) -> None:
        self._path = path
        self._user = user
        try:
            self._password = read_secret(OPTION, path).strip()
        except SettingsError as error:
            raise EngineError(str(error)) from None

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the password, behind the user's name if there is one."""
        try:
            self._password = read_secret(OPTION, self._path).strip()
        except SettingsError as error:
            log.error("the password before is tried", error=str(error))
        return (self._user, self._password) if self._user else (self._password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Do the same: the file is small."""
        return self.get_credentials()
