"""HTTPS with a private authority, and proxies."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.errors import AccessDenied, Permanent
from tests.certificates import Authority
from tests.scripted_http import Say, scripted
from tests.unit.rest_sample import ids, person, rest


def test_a_server_that_a_private_authority_vouches_for_is_trusted_once_the_authority_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with scripted(lambda _: Say(body=[person("R1")]), authority.server()) as server:
        assert ids(rest(server.url, ca=str(authority.certificate)).changes(None).rows) == ["R1"]


def test_a_server_of_an_authority_that_is_not_named_is_refused_and_sees_no_credentials(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "别的根证书")
    with scripted(lambda _: Say(body=[]), authority.server()) as server:
        for options in ({}, {"ca": str(other.certificate)}):
            with pytest.raises(AccessDenied, match="not trusted") as caught:
                rest(server.url, **options).changes(None)
            assert "ca" in caught.value.todo and caught.value.__cause__ is not None
        assert server.asked == []


@pytest.mark.parametrize(("address", "days", "said"), [("127.0.0.2", 1, "not valid for"), ("127.0.0.1", -1, "expired")])
def test_a_certificate_of_another_server_or_another_time_is_refused_with_the_reason(
    tmp_path: Path, address: str, days: int, said: str
) -> None:
    authority = Authority(tmp_path)
    with (
        scripted(lambda _: Say(body=[]), authority.server(address, days)) as server,
        pytest.raises(AccessDenied, match=said),
    ):
        rest(server.url, ca=str(authority.certificate)).changes(None)


def test_a_named_authority_counts_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.certificate))
    with scripted(lambda _: Say(body=[]), authority.server()) as server:
        assert rest(server.url, ca=str(authority.certificate)).changes(None).rows.num_rows == 0


def test_a_file_that_holds_no_certificate_is_a_wrong_declaration(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with (
        scripted(lambda _: Say(body=[]), Authority(tmp_path).server()) as server,
        pytest.raises(Permanent, match="cannot be read"),
    ):
        rest(server.url, ca=str(tmp_path / "ca.pem")).probe()


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_of_the_environment_is_not_asked_for_this_very_machine(
    name: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with scripted(lambda _: Say(body=[person("R1")])) as server:
        address = server.url.replace("127.0.0.1", host)
        assert ids(rest(address).changes(None).rows) == ["R1"]


def test_a_proxy_of_the_environment_is_asked_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(lambda _: Say(body=[person("R1")])) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert ids(rest("http://platform.invalid").changes(None).rows) == ["R1"]
