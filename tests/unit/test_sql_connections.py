"""How many connections a process keeps to the servers of a city."""

from __future__ import annotations

import uuid

import psycopg

from connectors.sql_database import MOST_IDLE, open_database
from tests.servers import postgres_url


def test_a_process_that_has_visited_a_citys_databases_keeps_few_idle_connections() -> None:
    mark = uuid.uuid4().hex[:8]
    urls = [f"{postgres_url()}?application_name={mark}_{number}" for number in range(MOST_IDLE + 20)]
    for url in urls:
        with open_database(url).reading() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    with psycopg.connect(postgres_url()) as people:
        asked = people.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s", [f"{mark}%"])
        (kept,) = asked.fetchone() or (None,)
    assert kept == MOST_IDLE


def test_a_database_whose_idle_connection_was_given_back_connects_again_and_what_is_in_use_is_never_cut() -> None:
    mark = uuid.uuid4().hex[:8]
    first = open_database(f"{postgres_url()}?application_name={mark}_first")
    with first.reading() as connection:
        for number in range(MOST_IDLE + 4):
            with open_database(f"{postgres_url()}?application_name={mark}_{number}").reading():
                pass
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    assert open_database(f"{postgres_url()}?application_name={mark}_first") is first
    with first.reading() as connection:
        assert connection.exec_driver_sql("SELECT 2").scalar() == 2
