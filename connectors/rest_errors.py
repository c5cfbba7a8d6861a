"""Every failure of an HTTP request turned into an error of ours.

What an API says in the body of a refusal is not repeated in our errors, since it tends to quote the record, and errors are
kept where no attribute value may be. It stays within reach in the `__cause__` (`requests.HTTPError.response`).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from federation.errors import AccessDenied, Conflict, ConnectorError, Permanent, SchemaMismatch, Transient

Place = dict[str, Any]
GONE = frozenset((404, 410))
_LASTS = "将自动重试；若持续，检查网络与对方系统 / it is tried again; if it lasts, check the network and that system"


class Refused(Permanent):
    """The API refuses this one record or request; others may pass."""


class Unproven(AccessDenied):
    """The API does not accept who we say we are (401)."""


def broken(cause: Exception, place: Place) -> ConnectorError:
    """The error for a request that got no whole answer."""
    untrusted = _untrusted(cause)
    if untrusted is not None:
        return AccessDenied(
            f"the server's certificate is not trusted ({untrusted})",
            f"服务器证书不受信任（{untrusted}）",
            todo="用 ca 指定签发该证书的私有根证书，并按证书上的名称填写 base_url / name the private authority that signed it in `ca`, "
            "and the server in `base_url` as its certificate does",
            **place,
        )
    if isinstance(cause, requests.Timeout):
        return Transient("the system did not answer in time", "系统未在时限内应答", todo=_LASTS, **place)
    if isinstance(
        cause,
        (
            requests.ConnectionError,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
            ConnectionError,
            TimeoutError,
        ),
    ):
        return Transient("the connection failed or broke off", "连接失败或中断", todo=_LASTS, **place)
    return Permanent(
        "the request cannot be sent as declared",
        "请求无法按声明发出",
        todo="核对 base_url、ca、headers 与代理设置 / check `base_url`, `ca`, `headers` and the proxy settings",
        **place,
    )


def _untrusted(cause: BaseException | None) -> str | None:
    """Why a certificate was turned down, in OpenSSL's words; None if that was not what failed."""
    seen: set[int] = set()
    todo = [cause]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, ssl.SSLCertVerificationError):
            return one.verify_message or "certificate verify failed"
        reason = getattr(one, "reason", None)
        nested = [arg for arg in (*one.args, reason) if isinstance(arg, BaseException)]
        todo += [one.__cause__, one.__context__, *nested]
    return None


def refused(status: int, code: Any, headers: Mapping[str, str], place: Place, advice: str) -> ConnectorError:
    """The error for an answer that says no. `code`: the API's own. `advice`: what to do if it does not let us in."""
    said = f"{status}" if code is None or status == code else f"code {str(code)[:40]}"
    if status in (401, 403):
        kind = Unproven if status == 401 else AccessDenied
        return kind(
            f"the system refused the credentials ({said})",
            f"系统拒绝了访问凭据（{said}）",
            todo=advice,
            **place,
        )
    if status in (405, 501):
        return SchemaMismatch(
            f"the endpoint does not take this method ({said})",
            f"接口不支持该方法（{said}）",
            todo="核对 upsert、create、delete、bulk 的 method / check the `method` of `upsert`, `create`, `delete` and `bulk`",
            **place,
        )
    if status == 428:
        return SchemaMismatch(
            f"the API takes only conditional writes ({said})",
            f"接口只接受带条件的写入（{said}）",
            todo="声明 etag / declare `etag`",
            **place,
        )
    if status in (408, 425, 429) or status >= 500:
        return Transient(
            f"the system is busy or failing ({said})",
            f"系统繁忙或故障（{said}）",
            todo=_LASTS,
            retry_after=retry_after(headers),
            **place,
        )
    if status in (409, 412):
        return Conflict(f"the record changed meanwhile ({said})", f"记录已被他人修改（{said}）", **place)
    if status in GONE:
        return SchemaMismatch(
            f"there is no such endpoint ({said})",
            f"接口不存在（{said}）",
            todo="核对 path 与 item_path / check `path` and `item_path`",
            **place,
        )
    if 300 <= status < 400:
        return Permanent(
            f"the API has moved to {headers.get('Location', '?').split('?')[0]} ({said})",
            f"接口已迁移（{said}）",
            todo="更新 base_url 或 path / mend `base_url` or `path`",
            **place,
        )
    return Refused(
        f"the system refused the request ({said})",
        f"系统拒绝了请求（{said}）",
        todo="查看对方系统日志，核对字段 / look at that system's log, check the columns",
        **place,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asked to wait; a date is counted from the server's own clock where it shows one."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        until = http_date(value)
        now = http_date(headers.get("Date")) or datetime.now(UTC)
        return None if until is None else max(0.0, (until - now).total_seconds())


def http_date(value: str | None) -> datetime | None:
    """A date as HTTP headers write it; None if it is none."""
    try:
        found = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
