"""How a broker is reached safely: TLS and credentials, from the environment or from files."""

from __future__ import annotations

import os
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

    def context(self, named: str = "TLS") -> ssl.SSLContext:
        """A context that verifies the broker. `named`: how the variables of these settings begin, such as
        `EVENTKIT_KAFKA__TLS`. SettingsError names the variable, and the file that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"{named}__CA_FILE: cannot use {self.ca_file}: {_why(error)}") from error
        context.check_hostname = self.check_hostname
        if self.cert_file is not None:
            self._load_own(context, self.cert_file, named)
        elif self.key_file is not None:
            raise SettingsError(f"{named}__KEY_FILE: there is a key and no certificate: set {named}__CERT_FILE too")
        return context

    def _load_own(self, context: ssl.SSLContext, cert_file: Path, named: str) -> None:
        password = self.key_password.get_secret_value() if self.key_password else ""  # None asks at the terminal
        try:
            context.load_cert_chain(cert_file, self.key_file, password)
        except (OSError, ssl.SSLError) as error:
            files = {"CERT_FILE": cert_file, "KEY_FILE": self.key_file}
            given = {f"{named}__{name}": file for name, file in files.items() if file is not None}
            wrong = {name: file for name, file in given.items() if not os.access(file, os.R_OK)} or given
            raise SettingsError(
                f"{' and '.join(wrong)}: cannot use {', '.join(map(str, wrong.values()))}: {_why(error)}"
            ) from error


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

    def secret(self, named: str = "CREDENTIALS") -> str | None:
        """The password. `named`: how the variables of these settings begin, such as `EVENTKIT_KAFKA__CREDENTIALS`.
        SettingsError names the variable of a file that cannot be read."""
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is None:
            return None
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{named}__PASSWORD_FILE: cannot read {self.password_file}: {_why(error)}") from (
                error if isinstance(error, OSError) else None
            )  # the other would show what it read


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8"
    return (isinstance(error, OSError) and error.strerror) or str(error)
