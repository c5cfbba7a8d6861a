"""Whom the federation tells when something needs a person: the section `alerts` of a declaration.

Addresses of robots hold a key, so they are secrets, given by reference like passwords.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic import Field as Option
from pydantic_core import PydanticCustomError

from federation.config_reference import Reference
from federation.contract import Dataset, Declared, Name
from federation.errors import FedsyncError
from federation.yamlfile import YamlFile

AlertKind = Literal["held", "failed", "overdue", "run", "deadline"]
KIND_WORDS: dict[str, tuple[str, str]] = {
    "held": ("链路被拦截", "link held"),
    "failed": ("链路持续失败", "link keeps failing"),
    "overdue": ("校核超期", "corrections overdue"),
    "run": ("运行失败", "run failed"),
    "deadline": ("超过时限", "deadline missed"),
}
"""What each kind of alert is called, in Chinese and in English."""


def _reference(value: Any) -> Any:
    if isinstance(value, str):
        # Of this type, so that the error does not show what was typed.
        raise PydanticCustomError(
            "model_type", "含密钥，须引用 / holds a key: write {{env: NAME}} or {{connection: ID}}"
        )
    return value


Secret = Annotated[Reference, BeforeValidator(_reference)]


class ChannelSpec(Declared):
    """Base of all channels. `datasets`, `kinds`: tell only of these; default: of all. `timeout`: seconds to wait for an answer."""

    datasets: tuple[str, ...] = ()
    kinds: tuple[AlertKind, ...] = ()
    timeout: float = Option(default=10.0, gt=0, le=120)


class EmailChannel(ChannelSpec):
    """A message by SMTP. `security`: `tls` from the first byte, `starttls`, or `none` inside a closed network."""

    kind: Literal["email"]
    host: str
    port: int = Option(default=25, gt=0, lt=65536)
    security: Literal["none", "starttls", "tls"] = "none"
    user: Secret | None = None
    password: Secret | None = None
    sender: str
    to: tuple[str, ...] = Option(min_length=1)


class WebhookChannel(ChannelSpec):
    """A POST of JSON. `url`: the address, or a reference to it. `token`: sent as a bearer token."""

    kind: Literal["webhook"]
    url: str | Reference
    token: Secret | None = None


class WecomChannel(ChannelSpec):
    """企业微信 group robot. `url`: its webhook address with the key. `mention`: user ids to call, `@all` for everybody."""

    kind: Literal["wecom"]
    url: Secret
    mention: tuple[str, ...] = ()


class DingtalkChannel(ChannelSpec):
    """钉钉 group robot. `url`: its webhook address with the access token. `secret`: of its signature (加签, begins with SEC). `at_all`: call everybody."""

    kind: Literal["dingtalk"]
    url: Secret
    secret: Secret | None = None
    at_all: bool = False


Channel = Annotated[EmailChannel | WebhookChannel | WecomChannel | DingtalkChannel, Option(discriminator="kind")]


class AlertsSpec(Declared):
    """The section. `every`: minutes that pass before a channel hears again of the same subject; what comes between is counted."""

    every: int = Option(default=240, ge=1, description="minutes between two messages about the same subject")
    channels: dict[Name, Channel] = Option(default_factory=dict)


def alert_problems(file: YamlFile, spec: AlertsSpec, datasets: Mapping[str, Dataset]) -> list[FedsyncError]:
    """Channels that name a dataset which is not declared."""
    return [
        file.error(
            ("alerts", "channels", name, "datasets"),
            f"there is no dataset {dataset}",
            f"没有数据集 {dataset}",
            f"取值 / one of: {', '.join(datasets)}",
        )
        for name, channel in spec.channels.items()
        for dataset in channel.datasets
        if dataset not in datasets
    ]
