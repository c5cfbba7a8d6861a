"""A reference to a secret: what stands in a declaration in its place."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from federation.contract import Declared


class Reference(Declared):
    """Where a secret is kept: an environment variable, or an Airflow connection (`part`: uri, login, password, host)."""

    env: str | None = None
    connection: str | None = None
    part: Literal["uri", "login", "password", "host"] = "uri"

    @model_validator(mode="after")
    def _one(self) -> Reference:
        if (self.env is None) == (self.connection is None):
            raise ValueError("name either `env` or `connection`")
        return self

    def declared(self) -> dict[str, Any]:
        """As it was written: what `federation.secrets.resolve` takes."""
        return self.model_dump(exclude_none=True, exclude_defaults=True)
