#!/usr/bin/env bash
# First start of docker-compose.yml: migrate Airflow, create the ledger's database and the sample federation, once.
set -euo pipefail
airflow db migrate
python - <<'PY'
import os

import psycopg

server = os.environ["FEDSYNC_LEDGER"].rsplit("/", 1)[0] + "/airflow"
with psycopg.connect(server, autocommit=True) as connection:
    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'ledger'").fetchone():
        connection.execute("CREATE DATABASE ledger")
PY
if [ ! -f "$FEDSYNC_FEDERATION" ]; then
  fedsync example create "$(dirname "$FEDSYNC_FEDERATION")"
fi
