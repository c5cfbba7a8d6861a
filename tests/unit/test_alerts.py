"""Alerts: what is told, to whom, how often, and that it is told when it is over; over real HTTP and SMTP servers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from aiosmtpd.controller import Controller
from typer.testing import CliRunner

from connectors.memory import MemoryConnector
from federation import alerting
from federation.alarms import Alarm
from federation.alert_text import alarm_message
from federation.alerting import Told, check, tell_directly
from federation.channels import WECOM_LIMIT, signed, wecom_body
from federation.cli import app
from federation.config import load
from federation.config_alerts import KIND_WORDS
from federation.errors import DeclarationError, FedsyncError, Permanent, SchemaMismatch, Transient
from federation.ledger.alerts import AlertLog
from federation.ledger.store import Ledger
from tests.federations import CITY, E11, MIXED, TOP, Small
from tests.scripted_http import Request, Say, Scripted, scripted
from tests.servers import postgres_schema, postgres_url

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def declared(folder: Path, channels: str, *, every: int = 60) -> Small:
    top = TOP.format(prefix=str(folder), **MIXED)
    for level in MIXED:
        top += f"  - {{system: {level}, level: {level}, datasets: {{resident: {{}}, visit: {{}}}}}}\n"
    return Small(folder, changes={"federation.yaml": f"{top}alerts:\n  every: {every}\n  channels:\n{channels}"})


def fine(request: Request) -> Say:
    return Say(body={"errcode": 0, "errmsg": "ok"})


@contextmanager
def robot(answer: Any = fine) -> Iterator[Scripted]:
    with scripted(answer) as server:
        yield server


WEBHOOK = '    duty: {{kind: webhook, url: "{url}/hook"}}\n'


def hold(small: Small, people: int = 30) -> None:
    for number in range(people):
        small.resident(f"R{number}")
    small.cascade()
    for number in range(people):
        small.drop(E11, f"R{number}")
    result = small.federation.cascade("resident")
    assert list(result.errors) == [f"resident/{E11}"]


def told(server: Scripted) -> list[dict[str, Any]]:
    return [request.body for request in server.asked]


def test_a_held_link_is_told_once_within_the_interval_and_what_was_swallowed_is_counted(tmp_path: Path) -> None:
    with robot() as server:
        small = declared(tmp_path, WEBHOOK.format(url=server.url))
        hold(small)
        subject = f"held:resident/{E11}"
        first = check(small.federation, "resident")
        assert first.sent == {"duty": [subject]}
        for _ in range(3):
            small.clock.now += timedelta(minutes=10)
            again = check(small.federation, "resident")
            assert (again.sent, again.swallowed) == ({}, 1)
        small.clock.now += timedelta(minutes=31)
        assert check(small.federation, "resident").sent == {"duty": [subject]}
    (alert, reminder) = told(server)
    assert [entry["alerts"][0]["swallowed"] for entry in (alert, reminder)] == [0, 3]
    (said,) = alert["alerts"]
    assert (said["kind"], said["subject"]) == ("held", subject)
    assert said["title_zh"] == "居民 东华门街道 → 多福巷社区"
    assert said["zh"] == f"多福巷社区({E11}) 一次少了 30 条中的 30 条"
    assert said["en"] == f"多福巷社区({E11}) lost 30 of 30 records at once"
    assert said["todo"] == f"fedsync link release resident/{E11}"


def test_when_it_is_over_who_was_told_hears_it_once(tmp_path: Path) -> None:
    with robot() as server:
        small = declared(tmp_path, WEBHOOK.format(url=server.url))
        hold(small)
        check(small.federation, "resident")
        small.clock.now += timedelta(minutes=7)
        small.federation.services.links.release(f"resident/{E11}", "tester")
        small.cascade()
        over = check(small.federation, "resident")
        assert over.cleared == {"duty": [f"held:resident/{E11}"]}
        assert check(small.federation, "resident") == Told()
    event = told(server)[-1]
    assert (event["event"], event["number"]) == ("clear", 1)
    assert event["alerts"][0]["title_zh"] == "居民 东华门街道 → 多福巷社区"


def test_what_comes_back_within_the_interval_is_not_told_again_and_its_end_neither(tmp_path: Path) -> None:
    with robot() as server:
        small = declared(tmp_path, WEBHOOK.format(url=server.url))
        hold(small)
        links = small.federation.services.links
        check(small.federation, "resident")
        links.release(f"resident/{E11}", "tester")
        check(small.federation, "resident")
        with small.federation.services.ledger.transaction() as connection:
            connection.exec_driver_sql("UPDATE link SET released = 0")
        assert check(small.federation, "resident").sent == {}
        links.release(f"resident/{E11}", "tester")
        assert check(small.federation, "resident").cleared == {}
    assert [event["event"] for event in told(server)] == ["alarm", "clear"]


def test_a_link_that_fails_is_told_after_its_freshness_and_not_before_and_no_word_of_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with robot() as server:
        small = declared(tmp_path, WEBHOOK.format(url=server.url))
        small.resident("R1")
        small.cascade()

        def broken(self: MemoryConnector, *given: Any, **named: Any) -> Any:
            if self.node.region.code == E11:
                raise SchemaMismatch("no code for 欧阳震华", "“姓名”的值“欧阳震华”在该系统中没有代码")
            return original(self, *given, **named)

        original = MemoryConnector.changes
        monkeypatch.setattr(MemoryConnector, "changes", broken)
        small.resident("R1", phone="13911111111")
        small.federation.cascade("resident")
        assert check(small.federation, "resident").standing == 0
        small.clock.now += timedelta(minutes=24 * 60 + 1)
        small.federation.cascade("resident")
        assert check(small.federation, "resident").sent == {"duty": [f"failed:resident/{E11}"]}
        monkeypatch.setattr(MemoryConnector, "changes", original)
        small.cascade()
        assert check(small.federation, "resident").cleared == {"duty": [f"failed:resident/{E11}"]}
    text = json.dumps(told(server), ensure_ascii=False)
    assert "多福巷社区" in text
    assert "1440 min" in text
    assert "欧阳震华" not in text


def test_corrections_that_nobody_ruled_on_in_time_are_told_by_the_region_that_is_to_rule(tmp_path: Path) -> None:
    with robot() as server:
        small = declared(tmp_path, WEBHOOK.format(url=server.url))
        small.resident("R1")
        small.cascade()
        small.put(E11, "R1", name="欧阳震华")
        small.cascade()
        assert check(small.federation, "resident").standing == 0
        small.clock.now += timedelta(days=60)
        assert check(small.federation, "resident").sent == {"duty": [f"overdue:resident/{CITY}"]}
    text = json.dumps(told(server), ensure_ascii=False)
    assert "北京市" in text
    assert "1 条校核超期未裁定" in text
    assert "欧阳震华" not in text
    assert "R1" not in text


def test_a_channel_that_does_not_answer_is_told_by_the_next_check_and_keeps_no_other_from_hearing(
    tmp_path: Path,
) -> None:
    answers = {"/bad": [Say(status=503), Say()], "/good": [Say(), Say()]}
    with robot(lambda request: answers[request.path].pop(0)) as server:
        channels = "".join(f'    {name}: {{kind: webhook, url: "{server.url}/{name}"}}\n' for name in ("bad", "good"))
        small = declared(tmp_path, channels)
        hold(small)
        first = check(small.federation, "resident")
        assert set(first.sent) == {"good"}
        with pytest.raises(Transient) as raised:
            first.check()
        assert raised.value.where["channel"] == "bad"
        second = check(small.federation, "resident")
        assert set(second.sent) == {"bad"}


def test_a_channel_hears_only_of_its_datasets_and_kinds(tmp_path: Path) -> None:
    with robot() as server:
        one, other = (
            f'    {name}: {{kind: webhook, url: "{server.url}/{name}", {limit}}}\n'
            for name, limit in (("visits", "datasets: [visit]"), ("late", "kinds: [overdue]"))
        )
        small = declared(tmp_path, one + other)
        hold(small)
        assert check(small.federation, "resident").sent == {}
    assert server.asked == []


def test_wecom_gets_markdown_within_its_limit_and_says_how_many_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarms = [
        Alarm(f"held:{n}", "held", "resident", f"链路 {n}", f"link {n}", "少了很多" * 20, "lost much")
        for n in range(90)
    ]
    body = wecom_body(alarm_message("小城", alarms, {}, NOW, {}), ("@all",))
    content = body["markdown"]["content"]
    assert body["msgtype"] == "markdown"
    assert len(content.encode()) <= WECOM_LIMIT
    shown = content.count("链路被拦截")
    assert f"另有 {90 - shown} 项 / and {90 - shown} more" in content
    assert content.endswith("<@all>")
    with robot() as server:
        monkeypatch.setenv("WECOM", f"{server.url}/cgi-bin/webhook/send?key=k-1")
        small = declared(tmp_path, "    duty: {kind: wecom, url: {env: WECOM}, mention: [zhang]}\n")
        hold(small)
        check(small.federation, "resident").check()
    (request,) = server.asked
    assert request.query == {"key": "k-1"}
    assert "<@zhang>" in request.body["markdown"]["content"]


def test_dingtalk_gets_a_signature_that_it_can_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with robot() as server:
        monkeypatch.setenv("DING", f"{server.url}/robot/send?access_token=t")
        monkeypatch.setenv("DING_SECRET", "SEC0123")
        small = declared(tmp_path, "    desk: {kind: dingtalk, url: {env: DING}, secret: {env: DING_SECRET}}\n")
        hold(small)
        check(small.federation, "resident").check()
    (request,) = server.asked
    stamp = request.query["timestamp"]
    expected = hmac.new(b"SEC0123", f"{stamp}\nSEC0123".encode(), hashlib.sha256).digest()
    assert base64.b64decode(request.query["sign"]) == expected
    assert request.query["access_token"] == "t"
    assert request.body["msgtype"] == "markdown"
    assert request.body["at"] == {"isAtAll": False}
    assert "链路被拦截" in request.body["markdown"]["text"]


def test_the_signature_is_the_one_that_dingtalk_documents() -> None:
    moment = datetime.fromtimestamp(1577262236.757, UTC)
    digest = hmac.new(b"this is secret", b"1577262236757\nthis is secret", hashlib.sha256).digest()
    wanted = f"https://ding/x?access_token=1&timestamp=1577262236757&sign={quote_plus(base64.b64encode(digest))}"
    assert signed("https://ding/x?access_token=1", "this is secret", moment) == wanted


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Say(body={"errcode": 310000, "errmsg": "sign not match"}), Permanent),
        (Say(body={"errcode": 93000, "errmsg": "invalid webhook url"}), Permanent),
        (Say(body={"errcode": 45009, "errmsg": "api freq out of limit"}), Transient),
        (Say(body=b"<html>"), Transient),
        (Say(status=404), Permanent),
        (Say(status=403), Permanent),
        (Say(status=302, headers={"Location": "http://elsewhere"}), Permanent),
    ],
)
def test_a_robot_that_refuses_in_its_answer_is_an_error_that_names_the_channel_and_never_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Say, kind: type[FedsyncError]
) -> None:
    with robot(lambda request: said) as server:
        monkeypatch.setenv("WECOM", f"{server.url}/send?key=s3cret")
        small = declared(tmp_path, "    duty: {kind: wecom, url: {env: WECOM}}\n")
        with pytest.raises(kind) as raised:
            alerting.try_channel(small.federation.config, "duty")
    assert raised.value.where["channel"] == "duty"
    assert "s3cret" not in str(raised.value)


def test_an_address_that_does_not_answer_or_is_none_is_not_quoted_even_in_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = declared(tmp_path, "    duty: {kind: wecom, url: {env: WECOM}}\n")
    for url, kind in (("http://127.0.0.1:9/send?key=s3cret", Transient), ("no address s3cret", Permanent)):
        monkeypatch.setenv("WECOM", url)
        with pytest.raises(kind) as raised:
            alerting.try_channel(small.federation.config, "duty")
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None
        assert "s3cret" not in str(raised.value)


class Mailbox:
    """What arrived."""

    def __init__(self, code: str = "250 OK") -> None:
        self.code = code
        self.mails: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, message_from_bytes(envelope.content, policy=default)))
        return self.code


@contextmanager
def smtp(box: Mailbox) -> Iterator[int]:
    controller = Controller(box, hostname="127.0.0.1", port=0)
    controller.port = _free_port()
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mail(port: int) -> str:
    return f"    mail: {{kind: email, host: 127.0.0.1, port: {port}, sender: fedsync@city.gov.cn, to: [a@city.gov.cn, b@city.gov.cn]}}\n"


def test_a_mail_reaches_every_recipient_with_a_subject_in_both_languages(tmp_path: Path) -> None:
    box = Mailbox()
    with smtp(box) as port:
        small = declared(tmp_path, mail(port))
        hold(small)
        check(small.federation, "resident").check()
    ((sender, to, message),) = box.mails
    assert (sender, to) == ("fedsync@city.gov.cn", ["a@city.gov.cn", "b@city.gov.cn"])
    assert message["Subject"] == "【告警】small：1 项待处理 / 1 alert(s)"
    assert "东华门街道 → 多福巷社区" in message.get_content()


def test_a_mail_server_that_refuses_or_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with smtp(Mailbox("550 no")) as port:
        small = declared(tmp_path, mail(port))
        with pytest.raises(Permanent):
            alerting.try_channel(small.federation.config, "mail")
    with smtp(Mailbox("451 later")) as port:
        small = declared(tmp_path, mail(port))
        with pytest.raises(Transient):
            alerting.try_channel(small.federation.config, "mail")
    with pytest.raises(Transient):
        alerting.try_channel(small.federation.config, "mail")


def test_alert_test_sends_a_test_message_and_an_unknown_channel_names_the_known_ones(tmp_path: Path) -> None:
    run = CliRunner()
    with robot() as server:
        small = declared(tmp_path, WEBHOOK.format(url=server.url))
        result = run.invoke(app, ["alert", "test", "duty", "--file", str(small.folder), "--json"])
        assert (result.exit_code, json.loads(result.output)) == (0, {"ok": True, "channel": "duty"})
        result = run.invoke(app, ["alert", "test", "nobody", "--file", str(small.folder), "--json"])
        assert result.exit_code == 1
        assert "duty" in json.loads(result.output)["errors"][0]["todo"]
    assert [event["event"] for event in told(server)] == ["test"]


def test_alert_check_and_list_work_without_airflow(tmp_path: Path) -> None:
    run = CliRunner()
    with robot() as server:
        small = declared(tmp_path, WEBHOOK.format(url=server.url))
        hold(small)
        result = run.invoke(app, ["alert", "check", "--file", str(small.folder), "--json"])
        said = json.loads(result.output)
        assert (result.exit_code, said["datasets"]["resident"]["sent"]) == (0, 1)
        result = run.invoke(app, ["alert", "list", "--file", str(small.folder), "--json"])
        (standing,) = json.loads(result.output)
        assert (standing["subject"], standing["channel"], standing["told"]) == (f"held:resident/{E11}", "duty", True)


@pytest.mark.parametrize(
    ("channel", "key"),
    [
        ("{kind: wecom, url: 'https://qyapi.weixin.qq.com/x?key=abc'}", "alerts.channels.duty.url"),
        ("{kind: dingtalk, url: {env: D}, secret: SECabc}", "alerts.channels.duty.secret"),
        ("{kind: email, host: h, sender: a@b, to: []}", "alerts.channels.duty.to"),
        ("{kind: pager}", "alerts.channels.duty"),
        ("{kind: webhook, url: 'https://h', datasets: [nothing]}", "alerts.channels.duty.datasets"),
    ],
)
def test_a_channel_that_is_declared_wrongly_is_an_error_with_file_and_line(
    tmp_path: Path, channel: str, key: str
) -> None:
    small = declared(tmp_path, WEBHOOK.format(url="http://127.0.0.1"))
    path = small.folder / "federation.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("    duty:")] + f"    duty: {channel}\n")
    with pytest.raises(DeclarationError) as raised:
        load(small.folder)
    (problem, *_) = raised.value.problems
    assert (problem.where["line"], problem.where["key"]) == (text[: text.index("    duty:")].count("\n") + 1, key)
    assert "abc" not in str(raised.value)


def test_without_a_ledger_everybody_is_told_directly(tmp_path: Path) -> None:
    with robot() as server:
        small = declared(tmp_path, WEBHOOK.format(url=server.url))
        alarm = Alarm("run:x", "run", None, "运行", "run", "台账无应答", "the ledger does not answer")
        assert tell_directly(small.federation.config, [alarm]).sent == {"duty": ["run:x"]}


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    with postgres_schema() as schema:
        yield f"{postgres_url()}?options=-csearch_path%3D{schema}"


def test_the_life_of_an_alert_is_the_same_in_either_ledger(ledger_url: str) -> None:
    log = AlertLog(Ledger(ledger_url))
    alarm = Alarm("held:1", "held", "resident", "a", "a", "b", "b")
    hour = timedelta(minutes=60)
    assert set(log.claim("duty", [alarm], hour)) == {"held:1"}
    log.give_back("duty", ["held:1"])  # it could not be sent
    assert set(log.claim("duty", [alarm, alarm], hour)) == {"held:1"}
    log.confirm("duty", ["held:1"])
    assert log.claim("duty", [alarm], hour) == {}
    (standing,) = log.standing("resident")
    assert (standing.told, standing.swallowed) == (True, 1)
    assert [stood.subject for stood in log.end("duty", ["held:1", "held:2"])] == ["held:1"]
    assert log.end("duty", ["held:1"]) == log.standing() == []
    log.reopen("duty", ["held:1"])  # its end could not be sent
    assert [stood.subject for stood in log.end("duty", ["held:1"])] == ["held:1"]
    log.ledger.close()


def test_the_documented_channels_are_valid_and_show_every_kind(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/observability.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n# federation.yaml\n(alerts:.*?)```", page, re.DOTALL)
    small = declared(tmp_path, WEBHOOK.format(url="http://127.0.0.1"))
    path = small.folder / "federation.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("alerts:")] + block)
    channels = load(small.folder).spec.alerts.channels
    assert {channel.kind for channel in channels.values()} == {"wecom", "dingtalk", "email", "webhook"}
    assert set(re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE)) >= set(KIND_WORDS)


def test_of_many_workers_that_see_the_same_only_one_tells(ledger_url: str) -> None:
    Ledger(ledger_url).close()
    alarms = [Alarm(f"held:{n}", "held", "resident", "a", "a", "b", "b") for n in range(700)]
    won: list[set[str]] = []
    gate = threading.Barrier(4)

    def work() -> None:
        log = AlertLog(Ledger(ledger_url))
        gate.wait()
        won.append(set(log.claim("duty", alarms, timedelta(minutes=60))))
        log.ledger.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 4
    assert sum(map(len, won)) == len(set().union(*won)) == 700
    ledger = Ledger(ledger_url)
    assert {stood.swallowed for stood in AlertLog(ledger).standing()} == {3}
    ledger.close()
