#!/usr/bin/env bash
# First start of docker-compose.yml: migrate Airflow, create the ledger's database, the bucket, the sample federation and its pools, once.
set -euo pipefail
airflow db migrate
python - <<'PY'
import os

import psycopg
from s3fs import S3FileSystem

server = os.environ["FEDSYNC_LEDGER"].rsplit("/", 1)[0] + "/airflow"
with psycopg.connect(server, autocommit=True) as connection:
    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'ledger'").fetchone():
        connection.execute("CREATE DATABASE ledger")
store = S3FileSystem(
    key=os.environ["STORAGE_KEY"], secret=os.environ["STORAGE_SECRET"], endpoint_url=os.environ["STORAGE_URL"]
)
if not store.exists("fedsync"):
    store.mkdir("fedsync")
PY
if [ ! -f "$FEDSYNC_FEDERATION" ]; then
  fedsync example create "$(dirname "$FEDSYNC_FEDERATION")"
  cat >> "$FEDSYNC_FEDERATION" <<YAML
storage:
  url: s3://fedsync/state
  options: {key: {env: STORAGE_KEY}, secret: {env: STORAGE_SECRET}, endpoint_url: "$STORAGE_URL"}
YAML
fi
fedsync check
fedsync health
fedsync system pools > /tmp/pools.json
airflow pools import /tmp/pools.json
