"""Staging and baselines on a local folder and in a real S3-compatible store: the same promises; and what else needs no shared disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import create_engine, inspect
from typer.testing import CliRunner

from federation import staging as staging_module
from federation.cli import app
from federation.config import load
from federation.errors import AccessDenied, DeclarationError, Permanent, Transient
from federation.ledger.baselines import Baselines, Manifest
from federation.ledger.store import HEAD, open_engine
from federation.merge import Advance
from federation.runtime import open_federation, open_staging
from federation.staging import Staging
from federation.storage import Storage
from tests.airflow.declared import Hands, declare
from tests.federations import CITY, E11, EAST, Small
from tests.servers import postgres_schema, postgres_url
from tests.stores import S3Place

DECLARED = """name: small
ledger: {env: TEST_LEDGER}
secret: {env: TEST_SECRET}
storage: {url: "s3://BUCKET/fedsync", options: {key: {env: TEST_KEY}, secret: {env: TEST_S3_SECRET}, endpoint_url: "ENDPOINT"}}
"""


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "storage"))
    place = S3Place()
    return Storage(f"s3://{place.bucket}/甲", {"key": "k", "secret": "s", "endpoint_url": place.endpoint})


def test_a_file_is_written_read_listed_and_removed(storage: Storage) -> None:
    assert storage.entries() == []
    storage.write("a/b.json", b"1")
    storage.write("a/b.json", b"22")
    inside = storage.inside("a")
    assert (inside.read("b.json"), inside.exists("b.json"), inside.exists("c")) == (b"22", True, False)
    (entry,) = storage.entries()
    assert entry.path == "a/b.json"
    assert abs(entry.made - time.time()) < 60
    storage.remove("a/b.json")
    storage.remove("a/b.json")
    storage.remove_folder("a")
    assert storage.entries("a") == []
    with pytest.raises(Permanent, match="not there"):
        storage.read("a/b.json")


def test_a_reading_is_the_same_after_it_was_staged(storage: Storage, tmp_path: Path) -> None:
    small = Small(tmp_path / "federation")
    small.resident("R1")
    small.cascade()
    small.put(CITY, "R1", name="王芳")
    reading = small.federation.collect("resident", CITY)
    staging = Staging(storage)
    name = staging.keep(reading)
    again = staging.load(name)
    assert again is not None
    for column in ("rows", "outside", "rejects", "etags", "deleted", "present", "fences", "cursor", "token", "missing"):
        assert getattr(again, column) == getattr(reading, column), column
    staging.remember(name, 0, {"below": [EAST], "above": False})
    staging.remember(name, 0, {"below": [], "above": True})
    staging.remember(name, 1, {"below": ["110102000000"], "above": False})
    staging.tidy(name)
    assert staging.load(name) is None
    assert not [entry for entry in storage.entries() if entry.path.endswith(".parquet")], "records are gone"
    assert staging.news(name) == {"below": [EAST, "110102000000"], "above": True}
    staging.purge()
    assert staging.news(name)["above"]


def test_what_a_dead_run_left_is_purged_after_a_day(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = Staging(storage)
    staging.remember("old", 0, {"below": [EAST], "above": False})
    real = time.time
    monkeypatch.setattr(staging_module.time, "time", lambda: real() + staging_module.KEPT + 60)
    staging.purge()
    assert storage.entries() == []


def change(value: str) -> Advance:
    fps = pa.array([value.encode()], pa.binary())
    return Advance(pa.table({"key": ["k"], "fp_g": fps}), pa.array([], pa.string()))


def test_a_replaced_baseline_file_stays_for_a_day_however_old_it_is(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    baselines, groups = Baselines(storage), {"g": "m"}
    first = baselines.write("d/1", Manifest.parse(None), groups, change("1"), 0)
    now = time.time()
    monkeypatch.setattr("federation.ledger.baselines.time.time", lambda: now + 10 * 86_400)
    second = baselines.write("d/1", first, groups, change("2"), 1)
    assert baselines.collect("d/1", second) == 0
    assert baselines.read(first, groups).column("fp_g").to_pylist() == [b"1"], "a neighbour may be about to read it"
    monkeypatch.setattr("federation.ledger.baselines.time.time", lambda: now + 11 * 86_400 + 1)
    assert baselines.collect("d/1", second) == 1
    assert baselines.read(second, groups).column("fp_g").to_pylist() == [b"2"]
    with pytest.raises(Permanent, match="not there"):
        baselines.read(first, groups)


def test_a_store_that_refuses_or_is_not_there_is_told_apart(tmp_path: Path) -> None:
    place = S3Place()
    here = {"key": "k", "secret": "s", "endpoint_url": place.endpoint}
    with pytest.raises(Permanent):
        Storage("s3://no-such-bucket-here", here).write("a", b"1")
    gone = {**here, "endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"total_max_attempts": 1}}}
    with pytest.raises(Transient):
        Storage(f"s3://{place.bucket}", gone).write("a", b"1")
    with pytest.raises(Permanent, match="cannot be opened"):
        Storage("gopher://x").write("a", b"1")
    (tmp_path / "file").write_text("")
    with pytest.raises((Permanent, Transient, AccessDenied)):
        Storage(str(tmp_path / "file" / "below")).write("a", b"1")


@pytest.fixture
def diskless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A declaration with all that is the engine's own elsewhere; every node is hosted."""
    place = S3Place()
    with postgres_schema() as schema:
        separator = "&" if "?" in postgres_url() else "?"
        monkeypatch.setenv("TEST_LEDGER", f"{postgres_url()}{separator}options=-csearch_path%3D{schema}")
        for name, value in (("TEST_SECRET", "geheim" * 6), ("TEST_KEY", "k"), ("TEST_S3_SECRET", "s")):
            monkeypatch.setenv(name, value)
        top = DECLARED.replace("BUCKET", place.bucket).replace("ENDPOINT", place.endpoint)
        yield declare(tmp_path / "federation", **{"federation.yaml": top})


def test_a_federation_with_ledger_secret_and_storage_elsewhere_leaves_nothing_on_the_disk(diskless: Path) -> None:
    hands = Hands(diskless)
    hands.resident("R1")
    hands.federation.cascade("resident")
    hands.put(E11, "R1", phone="13911111111")
    assert not hands.federation.cascade("resident").errors
    assert hands.get(CITY, "R1")["phone"] == "13911111111"
    name = hands.federation.stage(hands.federation.collect("resident", CITY))
    assert open_staging(diskless).load(name) is not None, "another process finds it"
    hands.federation.close()
    assert not (diskless.parent / "state").exists()
    engine = create_engine(os.environ["TEST_LEDGER"].replace("postgresql://", "postgresql+psycopg://"))
    assert "hosted_record" in inspect(engine).get_table_names(), "hosted records live beside the ledger"
    engine.dispose()


def test_hosted_records_go_on_in_the_file_where_they_are(diskless: Path) -> None:
    (diskless.parent / "state").mkdir()
    (diskless.parent / "state/hosted.db").touch()
    hands = Hands(diskless)
    hands.resident("R1")
    hands.federation.close()
    assert (diskless.parent / "state/hosted.db").stat().st_size > 0


def test_a_secret_of_the_storage_in_plain_text_is_refused(tmp_path: Path) -> None:
    top = 'name: small\nstorage: {url: "s3://b/p", options: {secret: geheim}}\n'
    path = declare(tmp_path, **{"federation.yaml": top})
    with pytest.raises(DeclarationError, match="plain text"):
        load(path)


def test_health_tells_part_by_part_and_by_its_exit_code(diskless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner()
    well = run.invoke(app, ["health", "-f", str(diskless), "--json"])
    assert well.exit_code == 0, well.output
    assert [(part["part"], part["ok"]) for part in json.loads(well.stdout)["parts"]] == [
        ("declaration", True),
        ("ledger", True),
        ("storage", True),
    ]
    monkeypatch.setenv("TEST_LEDGER", "postgresql://postgres@127.0.0.1:9/x")
    ill = run.invoke(app, ["health", "-f", str(diskless), "--json"])
    assert ill.exit_code == 1
    assert [part["ok"] for part in json.loads(ill.stdout)["parts"]] == [True, False, True]
    diskless.write_text("nonsense: 1\n")
    wrong = run.invoke(app, ["health", "-f", str(diskless), "--json"])
    assert [part["part"] for part in json.loads(wrong.stdout)["parts"]] == ["declaration"]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_an_old_ledger_that_two_processes_open_at_once_is_migrated_once(kind: str, tmp_path: Path) -> None:
    with postgres_schema() as schema:
        separator = "&" if "?" in postgres_url() else "?"
        url = (
            f"sqlite:///{tmp_path / 'ledger.db'}"
            if kind == "sqlite"
            else f"{postgres_url()}{separator}options=-csearch_path%3D{schema}"
        )
        upgrade = (
            "import sys; from alembic import command; from alembic.config import Config; from pathlib import Path\n"
            "from federation.ledger import store\n"
            "config = Config(); config.set_main_option('script_location', str(Path(store.__file__).parent / 'migrations'))\n"
            "engine = store.open_engine(sys.argv[1])\n"
            "with engine.begin() as connection:\n"
            "    config.attributes['connection'] = connection; command.upgrade(config, '0001')\n"
        )
        subprocess.run([sys.executable, "-c", upgrade, url], check=True)
        opening = "import sys; from federation.ledger.store import Ledger; Ledger(sys.argv[1]).close()"
        both = [
            subprocess.Popen([sys.executable, "-c", opening, url], stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        errors = [process.communicate()[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], errors
        engine = open_engine(url)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
        engine.dispose()


def test_a_federation_opened_twice_from_one_storage_sees_the_same_baselines(diskless: Path) -> None:
    hands = Hands(diskless)
    hands.resident("R1")
    hands.federation.cascade("resident")
    other = open_federation(diskless)
    assert other.cascade("resident", force_full=True).moved == 0
    other.close()
    hands.federation.close()
