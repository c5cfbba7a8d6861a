"""Sending a message: e-mail, a generic webhook, the group robots of 企业微信 and 钉钉.

The robots answer 200 whatever happens and say in the body whether it worked. Their addresses hold a key, so no error carries
an address, nor the driver's error as its cause, which would quote it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import smtplib
import ssl
from collections.abc import Callable
from datetime import datetime
from email.message import EmailMessage
from typing import Any
from urllib.parse import quote_plus

from federation.alert_text import Message
from federation.config_alerts import Channel, EmailChannel, WebhookChannel, WecomChannel
from federation.config_reference import Reference
from federation.errors import AccessDenied, FedsyncError, Permanent, Transient
from federation.secrets import ConnectionUri, resolve

WECOM_LIMIT, DINGTALK_LIMIT = 4096, 18_000
"""Bytes of Markdown that the robots take (企业微信: 4 096; 钉钉: 20 000 with the envelope)."""
_REFUSED = (93000, 40058, 310000, 300001, 400013)
"""Codes of the robots for a wrong key, signature or keyword: trying again does not help."""


def send(name: str, channel: Channel, message: Message, now: datetime, connection_uri: ConnectionUri) -> None:
    """Send a message through a channel. Raises Transient or Permanent, which name the channel."""

    def secret(given: Reference | str | None) -> str | None:
        return str(resolve(given.declared(), connection_uri)) if isinstance(given, Reference) else given

    try:
        if isinstance(channel, EmailChannel):
            _email(channel, message, secret(channel.user), secret(channel.password))
        elif isinstance(channel, WebhookChannel):
            token = secret(channel.token)
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            _post(channel, secret(channel.url) or "", message.body, headers)
        elif isinstance(channel, WecomChannel):
            _robot(_post(channel, secret(channel.url) or "", wecom_body(message, channel.mention), {}))
        else:
            url = signed(secret(channel.url) or "", secret(channel.secret), now)
            _robot(_post(channel, url, dingtalk_body(message, at_all=channel.at_all), {}))
    except FedsyncError as error:
        error.at(channel=name)
        raise


def wecom_body(message: Message, mention: tuple[str, ...]) -> dict[str, Any]:
    """A message of the type markdown (https://developer.work.weixin.qq.com/document/path/91770)."""
    called = "".join(f"<@{user.removeprefix('@')}>" for user in mention)
    content = message.markdown(WECOM_LIMIT - len(called.encode()) - 1)
    return {"msgtype": "markdown", "markdown": {"content": f"{content}\n{called}" if called else content}}


def dingtalk_body(message: Message, *, at_all: bool) -> dict[str, Any]:
    """A message of the type markdown (https://open.dingtalk.com/document/orgapp/custom-bot-to-send-group-chat-messages)."""
    shown = {"title": message.title, "text": message.markdown(DINGTALK_LIMIT)}
    return {"msgtype": "markdown", "markdown": shown, "at": {"isAtAll": at_all}}


def signed(url: str, secret: str | None, now: datetime) -> str:
    """The address with 钉钉's signature: HMAC-SHA256 over `<milliseconds>\\n<secret>`, keyed with the secret, Base64, quoted."""
    if secret is None:
        return url
    stamp = str(round(now.timestamp() * 1000))
    digest = hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256).digest()
    return f"{url}{'&' if '?' in url else '?'}timestamp={stamp}&sign={quote_plus(base64.b64encode(digest))}"


def _post(channel: Channel, url: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
    import requests

    try:
        answer = requests.post(url, json=body, headers=headers, timeout=channel.timeout, allow_redirects=False)
    except (requests.ConnectionError, requests.Timeout) as cause:
        failure: FedsyncError = Transient(
            f"the channel does not answer ({type(cause).__name__})",
            "通道无应答",
            todo="检查网络与出口代理 / check the network and the proxy",
        )
    except (requests.RequestException, ValueError) as cause:
        failure = Permanent(
            f"the channel's address is wrong ({type(cause).__name__})", "通道地址有误", todo="改正 url / mend `url`"
        )
    else:
        return _accepted(answer)
    raise failure


def _accepted(answer: Any) -> Any:
    status = answer.status_code
    if status in (401, 403):
        raise AccessDenied(f"the channel refused: HTTP {status}", "通道拒绝访问", todo="检查密钥 / check the secret")
    if status == 429 or status >= 500:
        raise Transient(
            f"the channel is busy: HTTP {status}", "通道繁忙", todo="下次巡查再发 / sent again by the next sweep"
        )
    if not 200 <= status < 300:
        raise Permanent(f"the channel refused: HTTP {status}", "通道拒绝了消息", todo="检查 url / check `url`")
    try:
        return answer.json()
    except ValueError:
        return None


def _robot(answer: Any) -> None:
    code = answer.get("errcode") if isinstance(answer, dict) else None
    if code == 0:
        return
    said = str(answer.get("errmsg", ""))[:120] if isinstance(answer, dict) else "no JSON"
    kind = Permanent if code in _REFUSED else Transient
    raise kind(
        f"the robot did not take the message: {code} {said}",
        "群机器人未接收消息",
        todo="检查密钥、加签与关键词；发送过频则稍后再发 / check key, signature and keyword; if too frequent, it is sent later",
    )


def _email(channel: EmailChannel, message: Message, user: str | None, password: str | None) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = message.title, channel.sender, ", ".join(channel.to)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.plain())
    start: Callable[..., smtplib.SMTP] = smtplib.SMTP
    extra: dict[str, Any] = {}
    if channel.security == "tls":
        start, extra = smtplib.SMTP_SSL, {"context": ssl.create_default_context()}
    try:
        with start(channel.host, channel.port, timeout=channel.timeout, **extra) as server:
            if channel.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if user is not None and password is not None:
                server.login(user, password)
            refused = server.send_message(mail)
    except smtplib.SMTPAuthenticationError as cause:
        raise AccessDenied(
            f"the mail server refused the account: {cause.smtp_code}",
            "邮件服务器拒绝登录",
            todo="检查账号 / check the account",
        ) from cause
    except smtplib.SMTPResponseException as cause:
        kind = Permanent if cause.smtp_code >= 500 else Transient
        raise kind(
            f"the mail server refused: {cause.smtp_code}", "邮件服务器拒绝", todo="检查发件人 / check `sender`"
        ) from cause
    except smtplib.SMTPRecipientsRefused as cause:
        raise Permanent(
            "the mail server refused every recipient", "邮件服务器拒绝全部收件人", todo="检查收件人 / check `to`"
        ) from cause
    except (smtplib.SMTPException, OSError) as cause:
        raise Transient(
            f"the mail server does not answer ({type(cause).__name__})",
            "邮件服务器无应答",
            todo="检查主机与端口 / check host and port",
        ) from cause
    if refused:
        raise Permanent(
            f"the mail server refused {len(refused)} of {len(channel.to)} recipients",
            "邮件服务器拒绝了部分收件人",
            todo="检查收件人 / check `to`",
        )
