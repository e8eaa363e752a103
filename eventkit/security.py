"""How a broker is reached safely: TLS and credentials, from the environment or from files."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from eventkit.errors import SettingsError


class Tls(BaseModel):
    """TLS to the broker. Switched on by the URL's scheme (`rediss`, `amqps`, `tls`, ...) or by `enabled`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool | None = None
    """None: as the URL's scheme says."""
    ca_file: Path | None = None
    """Certificates to trust, PEM. None: the system's."""
    cert_file: Path | None = None
    """This client's own certificate, PEM, where the broker asks for one."""
    key_file: Path | None = None
    key_password: SecretStr | None = None
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """A context that verifies the broker. SettingsError names the file that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.check_hostname = self.check_hostname
            if self.cert_file is not None:
                password = self.key_password.get_secret_value() if self.key_password else None
                context.load_cert_chain(self.cert_file, self.key_file, password)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(file) for file in (self.ca_file, self.cert_file, self.key_file) if file is not None)
            raise SettingsError(f"TLS: cannot use {files}: {error}") from error
        return context


class Credentials(BaseModel):
    """A user and a password. Either may stand in the URL instead; these win."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    """Holds the password alone; a line break at its end is ignored."""

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        return self

    def secret(self) -> str | None:
        """The password. SettingsError names a file that cannot be read."""
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is None:
            return None
        try:
            return self.password_file.read_text().rstrip("\r\n")
        except OSError as error:
            raise SettingsError(f"password_file: cannot read {self.password_file}: {error}") from error
