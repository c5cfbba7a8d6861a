# 两条命令 / two commands: `make demo` runs the sample federation through Airflow, `make test` runs the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than there are cores: many tests wait for a server, a scheduler or a time-out. In the order of the folders, since the few tests that
# start a whole Airflow come first then, and none of them is left over at the end.
WORKERS := $(shell $(PYTHON) -c "import os; print(len(os.sched_getaffinity(0)) + 1)")
SOURCES := federation connectors dags plugins examples benchmarks tests

.PHONY: help demo up test check fmt bench fuzz writers mutants install install-dev requirements clean

help:  ## 列出命令 / list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: $(VENV)/.installed  ## 建立虚拟环境 / create the virtual environment
install-dev: $(VENV)/.installed-dev

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements-dev.txt
	@touch $@

demo: install  ## 演示：真实 Airflow 上的四级级联 / the story, through a real Airflow
	$(BIN)/python -m examples.beijing.demo

up: install  ## 启动 Airflow 供查看，Ctrl-C 结束 / leave Airflow running for a look around
	$(BIN)/python -m examples.beijing.demo --stay

test: install-dev  ## 全部测试 / all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: install-dev  ## 格式、规范、类型、测试 / format, lint, types, tests
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

fmt: install-dev  ## 排版 / format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: install-dev  ## 基准 / benchmarks
	$(BIN)/python -m benchmarks.gate
	$(BIN)/python -m benchmarks.merge
	$(BIN)/python -m benchmarks.workbook
	$(BIN)/python -m benchmarks.link --peers

fuzz: install-dev  ## 更久的随机测试，EXAMPLES=n / the property tests with n new examples each
	FEDSYNC_FUZZ_EXAMPLES=$(or $(EXAMPLES),100) $(BIN)/python -m pytest tests/property --timeout 0

writers: install-dev  ## 同步期间的并发写入，TRANSACTIONS=n / people write n transactions per database and capture while a link syncs
	FEDSYNC_TRANSACTIONS=$(or $(TRANSACTIONS),20000) $(BIN)/python -m pytest tests/faults/test_concurrent_writers.py -s --timeout 0

mutants: install-dev  ## 变异检查：故意破坏承诺，看测试能否发现 / break each promise on purpose, see the tests notice
	$(BIN)/python -m tests.mutation

requirements:  ## 重新锁定依赖 / pin the dependencies anew
	$(BIN)/uv pip compile --quiet --no-emit-index-url --no-header --no-annotate requirements.in -o requirements.txt
	$(BIN)/uv pip compile --quiet --no-emit-index-url --no-header --no-annotate --no-strip-markers requirements-dev.in -o requirements-dev.txt

clean:  ## 删除演示与缓存 / remove the demo and caches
	rm -rf .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
