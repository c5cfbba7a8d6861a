"""The DAGs of the federation that FEDSYNC_FEDERATION names: a thin loader, everything else is in `fedsync_airflow`.

A declaration that is wrong is an import error that names file, line and key: no DAG vanishes silently. Airflow looks for the
words `airflow` and `dag` in a file before it parses it.
"""

from __future__ import annotations

from fedsync_airflow.factory import build_dags
from fedsync_airflow.names import declaration

from federation.config import load

for dag in build_dags(load(declaration())):
    globals()[dag.dag_id] = dag
