"""Where files lie: the same promises for a local folder, an SFTP server and an S3-compatible store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from connectors import files
from connectors.locations import Copy, File, Folder, LocalFolder, S3Access, SftpAccess, file_at, folder_at
from federation.errors import AccessDenied, Conflict, DeclarationError, Permanent, SchemaMismatch, Transient
from tests.stores import PASSWORD, PLACES, USER, Place, S3Place, SftpPlace, SftpServer, sftp_server

NAME = "台账 #1 100%.xlsx"


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return PLACES[request.param](tmp_path)


@pytest.fixture
def folder(place: Place) -> Iterator[Folder]:
    made = folder_at(place.url, access(place))
    yield made
    made.close()


def access(place: Place) -> SftpAccess | S3Access | None:
    kinds = {SftpPlace: SftpAccess, S3Place: S3Access}
    return kinds[type(place)].model_validate(place.access) if type(place) in kinds else None


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 4096])
def test_a_file_is_read_whole_and_its_version_follows_its_bytes(place: Place, folder: Folder, content: bytes) -> None:
    place.write(NAME, content)
    first = folder.read(NAME)
    assert first.content == content and folder.read(NAME) == first
    place.write(NAME, content + b"!")
    assert folder.read(NAME).version != first.version


def test_a_missing_file_is_an_error_that_names_it(folder: Folder) -> None:
    with pytest.raises(SchemaMismatch, match="文件不存在") as caught:
        folder.read("没有.csv")
    assert str(caught.value.where["file"]).endswith("没有.csv")
    assert not folder.exists("没有.csv")


def test_a_listing_names_files_with_a_mark_that_changes_with_them(place: Place, folder: Folder) -> None:
    place.write("b.csv", b"1")
    place.write("a.csv", b"22")
    first = folder.entries()
    assert [(entry.name, entry.size) for entry in first] == [("a.csv", 2), ("b.csv", 1)]
    assert folder.entries() == first
    place.write("a.csv", b"333")
    assert [entry.mark == before.mark for entry, before in zip(folder.entries(), first)] == [False, True]


def test_a_folder_that_is_not_there_yet_lists_nothing_and_comes_with_its_first_file(place: Place) -> None:
    deeper = folder_at(f"{place.url}/新/更新", access(place))
    try:
        assert deeper.entries() == []
        assert deeper.create(NAME, b"x")
        assert [entry.name for entry in deeper.entries()] == [NAME]
    finally:
        deeper.close()


# --- writing on a condition ----------------------------------------------------------------------------------------


def test_a_file_is_replaced_if_it_still_is_what_was_read(place: Place, folder: Folder) -> None:
    place.write(NAME, b"one")
    folder.replace(NAME, b"two", folder.read(NAME))
    assert place.read(NAME) == b"two"
    assert place.names() == [NAME], "nothing else is left behind"


def test_a_file_that_somebody_saved_since_is_not_replaced(place: Place, folder: Folder) -> None:
    place.write(NAME, b"one")
    read = folder.read(NAME)
    place.write(NAME, b"theirs")
    with pytest.raises(Conflict, match="他人保存"):
        folder.replace(NAME, b"two", read)
    assert place.read(NAME) == b"theirs" and place.names() == [NAME]


def test_a_file_that_is_gone_or_has_appeared_since_is_a_conflict(place: Place, folder: Folder) -> None:
    place.write(NAME, b"one")
    read = folder.read(NAME)
    with pytest.raises(Conflict):
        folder.replace(NAME, b"two", None)
    place.remove(NAME)
    with pytest.raises(Conflict):
        folder.replace(NAME, b"two", read)
    assert place.names() == []
    folder.replace(NAME, b"two", None)
    assert place.read(NAME) == b"two"


def test_a_file_is_created_only_where_there_is_none(place: Place, folder: Folder) -> None:
    assert folder.create(NAME, b"one")
    assert not folder.create(NAME, b"two")
    assert place.read(NAME) == b"one" and place.names() == [NAME]


def test_a_save_between_the_last_look_and_the_write_is_refused_by_the_store() -> None:
    """What a local disk and SFTP cannot promise."""
    place = S3Place()
    place.write(NAME, b"one")
    folder = folder_at(place.url, access(place))
    read = folder.read(NAME)
    look = folder._version  # type: ignore[attr-defined]

    def looked(*given: object) -> str | None:
        found: str | None = look(*given)
        if given[1] == NAME:
            place.write(NAME, b"theirs")
        return found

    folder._version = looked  # type: ignore[attr-defined]
    try:
        with pytest.raises(Conflict):
            folder.replace(NAME, b"two", read)
        assert place.read(NAME) == b"theirs"
        assert not folder.create(NAME, b"three")
    finally:
        folder.close()


def test_removing_twice_is_harmless(place: Place, folder: Folder) -> None:
    place.write(NAME, b"one")
    folder.remove(NAME)
    folder.remove(NAME)
    assert place.names() == []


@pytest.mark.parametrize("lock", ["~$a.xlsx", ".~lock.a.xlsx#", ".~a.xlsx"])
def test_a_document_that_somebody_has_open_is_told_by_its_lock_and_never_replaced(
    place: Place, folder: Folder, lock: str
) -> None:
    place.write("a.xlsx", b"one")
    assert folder.lock_of("a.xlsx") is None
    read = folder.read("a.xlsx")
    place.write(lock, b"")
    assert folder.lock_of("a.xlsx") == lock
    with pytest.raises(Transient, match="关闭"):
        folder.replace("a.xlsx", b"two", read)
    assert place.read("a.xlsx") == b"one"


# --- paths and who we are ------------------------------------------------------------------------------------------


def test_a_file_knows_its_names() -> None:
    file = file_at("s3://bucket/甲/台账.XLSX", S3Access())
    assert (file.name, file.suffix, file.stem, str(file.where)) == (
        "台账.XLSX",
        ".xlsx",
        "台账",
        "s3://bucket/甲/台账.XLSX",
    )
    assert file.beside("b.csv").where == "s3://bucket/甲/b.csv"
    assert file_at("/a.csv").where == Path("/a.csv") and file_at("a.csv").where == Path("a.csv")


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("sftp://host/a.csv", None),
        ("sftp://host/a.csv", S3Access()),
        ("sftp://me:secret@host/a.csv", SftpAccess(user="me")),
        ("s3://bucket/a.csv", SftpAccess(user="me")),
        ("/data/a.csv", SftpAccess(user="me")),
        ("ftp://host/a.csv", None),
    ],
)
def test_a_path_that_does_not_go_with_its_access_is_refused_at_once(
    path: str, given: SftpAccess | S3Access | None
) -> None:
    with pytest.raises(DeclarationError):
        file_at(path, given)


def test_a_broken_file_counts_as_being_written_only_while_it_is_fresh(tmp_path: Path) -> None:
    file = File(LocalFolder(tmp_path), "a.csv")
    file.create(b"x")
    assert isinstance(file.broken("cut", "断", ""), Transient)


def test_a_file_that_grows_on_the_server_is_being_written_whatever_the_clocks_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = SftpPlace()
    place.write(NAME, b"half")
    folder = folder_at(place.url, access(place))
    monkeypatch.setattr(files, "FRESH_SECONDS", 0.01)
    assert not folder.fresh(NAME)
    monkeypatch.setattr("connectors.location_sftp.time.sleep", lambda _: place.write(NAME, b"whole"))
    assert folder.fresh(NAME)
    folder.close()


# --- SFTP ----------------------------------------------------------------------------------------------------------


def on(server: SftpServer, **words: object) -> Folder:
    given = {"user": USER, "password": PASSWORD, "known_hosts": server.known_hosts, **words}
    return folder_at(f"sftp://127.0.0.1:{server.port}/", SftpAccess.model_validate(given))


def test_a_server_whose_key_is_not_known_is_never_talked_to(tmp_path: Path) -> None:
    nobody = tmp_path / "known_hosts"
    for lines in (None, "", sftp_server().line(paramiko.ECDSAKey.generate())):
        if lines is not None:
            nobody.write_text(lines, encoding="ascii")
        with pytest.raises(AccessDenied, match="ssh-keyscan"):
            on(sftp_server(), known_hosts=nobody).entries()


def test_a_wrong_password_is_denied_and_not_told() -> None:
    with pytest.raises(AccessDenied) as caught:
        on(sftp_server(), password="falsch").entries()
    assert "falsch" not in str(caught.value) and USER in str(caught.value)


def test_a_private_key_opens_the_door_as_well(tmp_path: Path) -> None:
    path = tmp_path / "key"
    sftp_server().user_key.write_private_key_file(str(path), "pass")
    for words in ({"key_file": path}, {"private_key": path.read_text(encoding="ascii")}):
        folder = on(sftp_server(), password=None, passphrase="pass", **words)
        folder.entries()
        folder.close()
    with pytest.raises(AccessDenied, match="私钥"):
        on(sftp_server(), password=None, private_key="no key").entries()


def test_a_connection_that_broke_is_made_anew() -> None:
    server = SftpServer()
    folder = on(server)
    assert folder.create("a.csv", b"x")
    server.hang_up()
    with pytest.raises(Transient):
        folder.read("a.csv")
    assert folder.read("a.csv").content == b"x"
    folder.close()


def test_a_server_that_cannot_swap_a_file_in_one_step_is_refused_and_keeps_its_file() -> None:
    server = SftpServer(posix_rename=False)
    folder = on(server)
    folder.create("a.csv", b"one")
    with pytest.raises(Permanent, match="posix-rename"):
        folder.replace("a.csv", b"two", folder.read("a.csv"))
    assert [path.name for path in server.root.iterdir()] == ["a.csv"] and folder.read("a.csv").content == b"one"
    folder.close()


def test_a_server_that_does_not_answer_is_transient() -> None:
    nobody = folder_at("sftp://127.0.0.1:1/", SftpAccess(user=USER))
    with pytest.raises(Transient):
        nobody.entries()


def test_a_file_keeps_its_mode_on_the_server() -> None:
    place = SftpPlace()
    place.write(NAME, b"one")
    (place.folder / NAME).chmod(0o640)
    folder = folder_at(place.url, access(place))
    folder.replace(NAME, b"two", folder.read(NAME))
    folder.close()
    assert (place.folder / NAME).stat().st_mode & 0o777 == 0o640


# --- S3 ------------------------------------------------------------------------------------------------------------


def test_a_bucket_that_is_not_there_is_no_missing_file_when_written_to() -> None:
    place = S3Place()
    folder = folder_at(f"s3://{place.bucket}x/a", access(place))
    with pytest.raises(Permanent, match="存储桶"):
        folder.create("a.csv", b"x")
    folder.close()


def test_a_store_that_does_not_answer_is_transient() -> None:
    folder = folder_at("s3://bucket/a", S3Access(key="k", secret="s", endpoint="http://127.0.0.1:1"))
    with pytest.raises(Transient):
        folder.read("a.csv")
    folder.close()


def test_a_copy_of_another_time_is_not_the_file(place: Place, folder: Folder) -> None:
    place.write(NAME, b"one")
    with pytest.raises(Conflict):
        folder.replace(NAME, b"two", Copy(b"one?", "another"))
