# One image for every service of docker-compose.yml: Airflow, the engine and the sample systems.
FROM python:3.11-slim
RUN useradd --create-home --uid 50000 fedsync && mkdir /data /logs && chown fedsync /data /logs
WORKDIR /opt/fedsync
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY pyproject.toml requirements.in README.md ./
COPY federation federation
COPY connectors connectors
COPY expectations expectations
COPY examples examples
COPY dags dags
COPY plugins plugins
# The files that the tests run with pin what the extras bring along.
COPY requirements-dev.txt .
RUN pip install --no-cache-dir --constraint requirements-dev.txt --editable '.[sftp,s3]'
USER fedsync
ENV AIRFLOW_HOME=/data/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/fedsync/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/fedsync/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    PYTHONPATH=/opt/fedsync
