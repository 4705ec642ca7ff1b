# Everything that is made stays inside the checkout; `make clean` removes it.

MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

# The first Python that is new enough, by the path that uv knows it by: neither a virtual
# environment nor a version manager's shim. Another one: make PYTHON=/path/to/python3 ...
PYTHON := $(or $(PYTHON),$(shell for python in python3.11 python3 python3.12 python3.13; do \
	"$$python" -c 'import sys; v = sys.version_info; v < (3, 11) and sys.exit(1); \
	print(f"{sys.base_prefix}/bin/python{v[0]}.{v[1]}")' 2>/dev/null && break; done))
# The uv of the machine, else the one that the lock file pins.
UV := $(or $(UV),$(shell command -v uv),.uv/bin/uv)
BIN := .venv/bin
COMPOSE := docker compose --file deploy/compose.yaml
# Tests wait for servers half of their time: two at a time keep a core busy.
WORKERS = $(shell $(BIN)/python -c 'import os; print(min(6, 2 * os.cpu_count()))')
# Unpacked before the tests begin, whose time is limited; they unpack it themselves otherwise.
RABBITMQ_ROOT = $(if $(filter off,$(RABBITMQ)),,RABBITMQ_ROOT="$$(PYTHONPATH=tools \
	$(BIN)/python -m servers)")
TYPED := producer relay worker migrations console tools examples/shop tests

# What an environment is made from, and made anew when it has changed.
LOCKED := uv.lock pyproject.toml $(wildcard */pyproject.toml)

export UV_CACHE_DIR := $(CURDIR)/.uv/cache
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
export UV_PYTHON := $(PYTHON)
export UV_PYTHON_DOWNLOADS := never
# The authorities that the machine trusts, where it has any: behind a proxy there may be one more.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS := true
endif
# Tests start hundreds of Pythons, and compiling is most of a start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-faults test-losses faults-page soak soak-producer test-deploy check lint types contracts lock hooks findings release-check audit \
	licences settings-page scaling bench dashboard image up down clean

##@ To begin with
help: ## Show this list
	@awk -F ':.*## ' -v width="$${COLUMNS:-$$(tput cols 2>/dev/null || echo 80)}" ' \
		/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {line = sprintf("  make %-18s", $$1); words = split($$2, word, " "); \
			for (n = 1; n <= words; n++) { \
				if (n > 1 && length(line) + length(word[n]) >= width) {print line; line = sprintf("%25s", "")} \
				line = line " " word[n]} \
			print line}' Makefile

setup: .venv/.synced ## Make .venv with the five packages, their commands and the tools

demo: .venv/.synced ## Run a small shop on the outbox, servers and console included (BROKER=rabbitmq or redis; KEEP=1 goes on)
	@PYTHONPATH=$(CURDIR)/tools:$(CURDIR)/examples/shop $(BIN)/python -m demo

##@ Tests
test: .venv/.synced ## Run the tests on private servers (ARGS="-k name"; RABBITMQ=auto, require or off; RABBITMQ_VERSION=3.10)
	@$(RABBITMQ_ROOT) $(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal -m "not long" \
		--ignore=tests/containers --ignore=tests/apm --ignore=tests/ecosystem --cov --cov-report= --cov-report=json:.coverage.json $(ARGS)

test-faults: .venv/.synced ## Run the long tests that kill everything (FAULTS_SEED=n repeats a run)
	@$(BIN)/pytest --capture=no tests/faults -m "not soak" $(ARGS)

test-losses: .venv/.synced ## Lose 500 of 10,000 confirmed tasks in each of twelve ways, and deploy 1,000 of each task
	@$(BIN)/pytest --numprocesses=2 --durations=0 tests/end_to_end/test_losses.py \
		tests/end_to_end/test_rolling_deploy.py -m long $(ARGS)

.PHONY: test-million
test-million: .venv/.synced ## Send a million tasks with no worker, then have Celery run them, on RabbitMQ and a Valkey of 64 MB (MILLION=100000; ARGS)
	@$(RABBITMQ_ROOT) MILLION=$(or $(MILLION),1000000) $(BIN)/pytest --capture=no tests/end_to_end/test_million.py -k many $(ARGS)

.PHONY: test-canvas
test-canvas: .venv/.synced ## Play shapes of Celery's canvas, plain and through the outbox (BROKER=redis; CANVAS_SEED=n; ARGS)
	@$(RABBITMQ_ROOT) CANVAS_SEED=$(or $(CANVAS_SEED),1) $(BIN)/pytest tests/end_to_end/canvas \
		-k $(or $(BROKER),rabbitmq) $(ARGS)

.PHONY: test-cluster
test-cluster: .venv/.synced .patroni/.made ## Fail over Postgres and Patroni, strike a RabbitMQ cluster (FAIL_OVERS=20; ARGS)
	@$(RABBITMQ_ROOT) FAIL_OVERS=$(or $(FAIL_OVERS),20) $(BIN)/pytest --numprocesses=7 --dist=loadgroup --timeout=1800 \
		tests/faults/test_cluster.py tests/faults/test_fence.py tests/faults/test_patroni.py $(ARGS)

soak: .venv/.synced ## Strike at random for SOAK_MINUTES (60); SOAK_MINUTES=0 SOAK_SEED=n repeats one
	@$(BIN)/pytest --capture=no tests/faults/test_soak.py -m soak $(ARGS)

soak-producer: .venv/.synced ## Send a million tasks at random on every driver; 10,000 requests of each example (SOAK_SENDS, SOAK_SEED)
	@$(BIN)/pytest --capture=no tests/producer/test_soak.py tests/examples/test_memory.py -m soak $(ARGS)

faults-page: .venv/.synced ## Write docs/faults.md from what make test-faults measured last
	@PYTHONPATH=tools:. $(BIN)/python -m tests.faults.table

test-deploy: .venv/.synced .helm/.made ## Run the tests of images, chart and containers (DOCKER=auto, require or off)
	@$(BIN)/pytest --timeout=600 tests/containers $(ARGS)

##@ Checks
check: lint types contracts lock ## Lint, formatting, types, import contracts and the lock file

lint: .venv/.synced
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/.synced
	$(BIN)/mypy $(TYPED)

contracts: .venv/.synced
	PYTHONPATH=tools $(BIN)/lint-imports

lock: | $(UV)
	$(UV) lock --check

hooks: .venv/.synced ## Have git run make check before each commit, where the commit touches it
	@$(BIN)/pre-commit install

findings: .venv/.synced ## Try again what surprised us in libraries and servers (ARGS="name ..." for some)
	@$(RABBITMQ_ROOT) UV=$(abspath $(UV)) PYTHON=$(PYTHON) findings/lib/all.sh $(ARGS)

release-check: .venv/.synced ## Build all wheels and sdists, and prove that each installs alone
	@UV=$(abspath $(UV)) PYTHONPATH=tools $(BIN)/python -m release

audit: | $(UV) ## Ask for known vulnerabilities of what is locked; fails where nobody answers
	@$(UV) audit --frozen --preview-features audit-command $(ARGS) || { status=$$?; \
		[ $$status = 1 ] || echo "Not audited: nobody could be asked, so nothing is known." >&2; \
		exit $$status; }

##@ What is generated
.PHONY: baseline
baseline: .venv/.synced ## Write the first migrations from migrations/outbox_migrations/schema
	@PYTHONPATH=tools $(BIN)/python -m baseline

licences: .venv/.synced ## Generate docs/licences.md again
	@PYTHONPATH=tools $(BIN)/python -m licences

settings-page: .venv/.synced ## Write the table of settings in docs/operations.md again
	@PYTHONPATH=tools $(BIN)/python -m settings_page

.PHONY: command-samples
command-samples: .venv/.synced ## Run the samples of docs/commands.md again, and write them into the page
	@$(RABBITMQ_ROOT) PYTHONPATH=tools $(BIN)/python -m command_samples

scaling: .venv/.synced ## Compute the table of docs/scaling.md again
	@PYTHONPATH=tools $(BIN)/python -m scaling

##@ Measurements
bench: .venv/.synced ## Measure against limits and peers (FULL=1 for everything; PEERS=1 for released ones; ARGS="--only quorum")
	@PYTHONPATH=tools $(BIN)/python -m bench $(if $(FULL),--full) $(ARGS)

.PHONY: bench-servers
bench-servers: .venv/.synced ## Measure on the oldest and the newest RabbitMQ, in turns (ARGS="--rounds 3")
	@PYTHONPATH=tools $(BIN)/python -m bench.compare.versions $(ARGS)

.PHONY: bench-beside
bench-beside: .venv/.synced ## Measure an earlier commit and this checkout, in turns (COMMIT=0780f61; ARGS="--rounds 5 --only quorum")
	@PYTHONPATH=tools $(BIN)/python -m bench.compare.beside $(or $(COMMIT),HEAD~) $(ARGS)

##@ Containers
# Says what is missing, where Docker's own words would be its list of options.
.PHONY: docker
docker:
	@docker compose version >/dev/null 2>&1 || { echo "Docker and its plugin compose are needed here," \
		"and are not installed. Without them: make demo"; exit 1; }
	@docker info >/dev/null 2>&1 || { echo "No Docker engine answers: start one, or name it" \
		"(DOCKER_HOST). Without one: make demo"; exit 1; }

image: docker ## Build the images of relay, migrations, console and shop (PYTHON_IMAGE=another base)
	@$(COMPOSE) build
	@docker image ls --filter reference='celery-outbox/*'

up: docker ## Run the whole path in containers (BROKER=redis; COMPOSE_PROFILES=monitoring)
	@$(COMPOSE) up --build --wait --detach $(WITHOUT)
	@echo "Order something:"
	@echo "  curl --json '{\"customer\": \"Ada\", \"items\": [\"teapot\", \"lamp\"]}'" \
		"localhost:$(or $(SHOP_PORT),8000)/orders"
	@echo "Look at it: http://localhost:$(or $(CONSOLE_PORT),9465) (outbox, outbox-outbox)"

soak: export SOAK_MINUTES := $(SOAK_MINUTES)
soak: export SOAK_SEED := $(SOAK_SEED)
soak-producer: export SOAK_SEED := $(or $(SOAK_SEED),1)
soak-producer: export SOAK_SENDS := $(or $(SOAK_SENDS),1000000)
image up: export REVISION = $(shell git rev-parse HEAD)
image up: export VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' relay/pyproject.toml)
ifeq ($(BROKER),redis)
up: export COMPOSE_PROFILES := redis,$(COMPOSE_PROFILES)
up: export BROKER_URL = redis://redis:6379/0
up: WITHOUT = --scale rabbitmq=0
endif

down: docker ## Stop the containers (ARGS=--volumes forgets their data)
	@COMPOSE_PROFILES=redis,monitoring $(COMPOSE) down $(ARGS)

##@ Tests beside other packages and other versions
.PHONY: test-tutorials
test-tutorials: .venv/.synced ## Make projects as frameworks' tutorials say, then safe as our pages say
	@$(BIN)/pytest tests/tutorials $(ARGS)

# $(call environment,FOLDER,PACKAGES): these in an environment of their own, with all else as locked.
define environment
@UV_PROJECT_ENVIRONMENT=$(CURDIR)/$(1) $(UV) sync --frozen --quiet
@$(UV) pip install --quiet --python $(1)/bin/python $(2)
endef

# The versions of docs/compatibility.md, each in an environment of its own with the redis-py that it
# asks for and all else as locked.
COMPAT := 5.4 5.5 5.6 5.7
.PHONY: test-compat
test-compat: $(COMPAT:%=.compat/%) ## Test with every Celery there is (COMPAT="5.4 5.5" for some; ARGS)
	@for version in $(COMPAT); do echo "Celery $$version"; \
		.compat/$$version/bin/pytest --numprocesses=$(WORKERS) --dist=worksteal \
		tests/producer tests/worker tests/end_to_end $(ARGS) || exit 1; done

# What producers and workers may have; the relay and its tests need a newer one.
PSYCOPG := 3.2.1
PSYCOPG_TESTS := $(patsubst %,tests/producer/test_%.py,async cancellations concurrent flush_failures interrupts \
	send_many sqlalchemy sqlalchemy_async standalone target transaction using) \
	$(patsubst %,tests/worker/test_%.py,races targets task)
.PHONY: test-psycopg
test-psycopg: .venv/.synced | $(UV) ## Test producers and the inbox with the oldest psycopg (PSYCOPG=3.2.13; ARGS)
	@$(UV) pip install --quiet --python $(BIN)/python --target .compat/psycopg-$(PSYCOPG) "psycopg[binary]==$(PSYCOPG)"
	@PYTHONPATH=.compat/psycopg-$(PSYCOPG) $(BIN)/pytest --numprocesses=$(WORKERS) $(PSYCOPG_TESTS) $(ARGS)

.PHONY: test-servers
test-servers: .venv/.synced | $(UV) ## Test on every version of every server (ONLY="rabbitmq-4.3 postgres-14"; ARGS)
	@PYTHONPATH=tools $(BIN)/python -m matrix --uv "$(UV)" --pytest="--numprocesses=$(WORKERS) $(ARGS)" $(ONLY)

.compat/%: $(LOCKED) | python $(UV)
	$(call environment,$@,"celery[redis]==$*.*" "kombu[redis]")
	@touch $@

# Released agents, each in an environment of its own with all else as locked; sitecustomize starts them.
APM := ddtrace newrelic elastic-apm sentry-sdk opentelemetry-instrumentation-celery
APM_ddtrace := ddtrace==4.16.0
APM_newrelic := newrelic==14.1.0
APM_elastic-apm := elastic-apm==6.26.2
APM_sentry-sdk := sentry-sdk==2.75.0
APM_opentelemetry-instrumentation-celery := opentelemetry-sdk==1.45.1 $(patsubst %,opentelemetry-instrumentation-%==0.66b1,\
	celery psycopg psycopg2 asyncpg sqlalchemy)
APM_TESTS := $(patsubst %,tests/producer/test_%.py,capture using transaction proxies psycopg2 sqlalchemy \
	sqlalchemy_async async django continuations canvas idempotent) \
	$(patsubst %,tests/worker/test_%.py,task targets proxies)
pytest_beside = APM_AGENT=$(1) PYTHONPATH=$(CURDIR)/tools/apm:$(CURDIR)/tools:$(CURDIR) .apm/$(1)/bin/pytest
.PHONY: test-apm
test-apm: $(APM:%=.apm/%/.made) ## Test beside agents that watch databases (APM="ddtrace newrelic" for some; ARGS)
	@for agent in $(APM); do echo "$$agent"; \
		$(call pytest_beside,$$agent) --numprocesses=$(WORKERS) tests/apm $(APM_TESTS) $(ARGS) || exit 1; done

.apm/%/.made: $(LOCKED) | python $(UV)
	$(call environment,.apm/$*,$(APM_$*))
	@touch $@

# What people run with Celery, as released: each row of docs/ecosystem.md has an environment of its own,
# with all else as locked, and its file in tests/ecosystem. Agents have theirs above.
ECOSYSTEM_beat := django-celery-beat==2.9.0
ECOSYSTEM_results := django-celery-results==2.6.0
ECOSYSTEM_redbeat := celery-redbeat==2.4.2
ECOSYSTEM_flower := flower==2.2.0
ECOSYSTEM_singleton := celery-singleton==0.3.1
ECOSYSTEM_once := celery-once==3.0.1
ECOSYSTEM_batches := celery-batches==0.11
ECOSYSTEM_structlog := django-structlog[celery]==11.0.0
ECOSYSTEM_types := celery-types==0.26.0 mypy==2.4.1
ECOSYSTEM_pytest-celery := pytest-celery==1.3.0
ECOSYSTEM_flask-sqlalchemy := flask-sqlalchemy==3.1.1
ECOSYSTEM_sqlmodel := sqlmodel==0.0.50
ECOSYSTEM_fastapi := fastapi==0.165.0
ECOSYSTEM_gevent := gevent==26.9.0
ECOSYSTEM_eventlet := eventlet==0.41.3
ECOSYSTEM_psycopg-pool := psycopg-pool==3.3.3
ECOSYSTEM_django-pool := django==5.2.19 psycopg-pool==3.3.3
ECOSYSTEM := $(patsubst ECOSYSTEM_%,%,$(filter ECOSYSTEM_%,$(.VARIABLES)))
ROWS = $(sort $(or $(ONLY),$(ECOSYSTEM) $(APM)))
.PHONY: test-ecosystem
test-ecosystem: .venv/.synced ## Test beside what people run with Celery, each as released (ONLY="redbeat flower" for some; ARGS)
	@$(foreach row,$(filter-out $(ECOSYSTEM) $(APM),$(ROWS)),echo "ONLY: $(row) is none of $(sort $(ECOSYSTEM) $(APM))"; exit 1;) true
	@$(if $(filter off,$(RABBITMQ)),,PYTHONPATH=tools $(BIN)/python -m servers >/dev/null || true)
	@$(MAKE) --jobs=2 --keep-going --output-sync=target $(ROWS:%=ecosystem-%)

.PHONY: $(ECOSYSTEM:%=ecosystem-%) $(APM:%=ecosystem-%)
$(ECOSYSTEM:%=ecosystem-%): ecosystem-%: .ecosystem/%/.made
	@echo "$*: $(ECOSYSTEM_$*) with $$($(UV) pip freeze --quiet --python .ecosystem/$*/bin/python | grep ^celery==)"
	@.ecosystem/$*/bin/pytest --quiet tests/ecosystem/test_$(subst -,_,$*).py $(ARGS)

$(APM:%=ecosystem-%): ecosystem-%: .apm/%/.made
	@echo "$*: $(APM_$*) with $$($(UV) pip freeze --quiet --python .apm/$*/bin/python | grep ^celery==)"
	@$(call pytest_beside,$*) --quiet tests/apm $(ARGS)

.ecosystem/%/.made: $(LOCKED) | python $(UV)
	$(call environment,.ecosystem/$*,$(ECOSYSTEM_$*))
	@touch $@

# The Djangos that have tasks, each in an environment of its own with a Python that it runs on, and
# their source distributions, with the tests in them.
DJANGO_TASKS := 6.0.10 6.1.3
DJANGO_PYTHON := 3.13
.PHONY: test-django-tasks
test-django-tasks: $(DJANGO_TASKS:%=.django/%/.made) ## Test celery_outbox.django.tasks, by Django's own tests as well (DJANGO_TASKS=6.1.3 for one; ARGS)
	@for version in $(DJANGO_TASKS); do echo "Django $$version"; \
		.django/$$version/env/bin/pytest tests/django_tasks $(ARGS) && PYTHONPATH=tools \
		.django/$$version/env/bin/python -m django_suite .django/$$version/django-$$version || exit 1; done

.django/%/.made: $(LOCKED) | .venv/.synced $(UV)
	@UV_PROJECT_ENVIRONMENT=$(CURDIR)/.django/$*/env UV_PYTHON= $(UV) sync --frozen --quiet --python "$$(PYTHONPATH=tools \
		$(BIN)/python -c 'from matrix.places import interpreter; print(interpreter("$(DJANGO_PYTHON)"))')"
	@$(UV) pip install --quiet --python .django/$*/env/bin/python pip "django==$*"
	@cd .django/$* && env/bin/python -m pip download --quiet --no-deps --no-binary django django==$* \
		&& tar -xzf django-$*.tar.gz
	@touch $@

# Celery's source distribution, with the tests in it, and an environment with what these ask for.
SUITE := 5.7.0
.PHONY: test-celery
test-celery: .celery-suite/$(SUITE) ## Run Celery's own integration tests, plain and through the outbox (BROKER=redis; PLAIN=kept; ARGS)
	@PYTHONPATH=tools $</env/bin/python -m celery_suite $</celery-$(SUITE) $(or $(BROKER),rabbitmq) $(ARGS)

.celery-suite/%: $(LOCKED) | python $(UV)
	@UV_PROJECT_ENVIRONMENT=$(CURDIR)/$@/env $(UV) sync --frozen --quiet
	@$(UV) pip install --quiet --python $@/env/bin/python pip "celery[redis,auth,pydantic]==$*" \
		pytest-rerunfailures pytest-order pytest-subtests pymemcache
	@cd $@ && env/bin/python -m pip download --quiet --no-deps --no-binary celery celery==$* \
		&& tar -xzf celery-$*.tar.gz
	@touch $@

# Patroni, which no package of ours needs.
.patroni/.made: | .venv/.synced $(UV)
	@UV_PROJECT_ENVIRONMENT= $(UV) venv --quiet --allow-existing .patroni
	@$(UV) pip install --quiet --python .patroni/bin/python "patroni[etcd3]==4.1.5" "psycopg[binary]"
	@touch $@

# Helm 4 as a library, for the tests of the chart.
.helm/.made: | $(UV)
	@UV_PROJECT_ENVIRONMENT= $(UV) venv --quiet --allow-existing .helm
	@$(UV) pip install --quiet --python .helm/bin/python helm-python-sdk==0.2.2
	@touch $@

# Pages are put together with what is in .venv, whose settings and errors they are about, and built
# by Zensical in an environment of its own; neither asks anybody outside.
##@ Documentation, dashboard, console
.PHONY: docs
docs: .venv/.synced .docs/.made ## Build the documentation site in site/ (SERVE=1 serves it; SITE_URL, SITE_REPOSITORY)
	@PYTHONPATH=tools $(BIN)/python -m docs_site
	@NO_COLOR=1 .docs/bin/zensical build --clean --strict --config-file .site/mkdocs.yml
	@rm -rf site && mv .site/site site && echo "Built: site/index.html"
ifdef SERVE
	@$(PYTHON) -m http.server --bind 127.0.0.1 --directory site $(or $(SITE_PORT),8001)
endif

.PHONY: docs-versions
docs-versions: .venv/.synced ## Build the site of each release in site/X.Y, with a menu of them (SITE_URL, SITE_REPOSITORY)
	@PYTHONPATH=tools $(BIN)/python -m docs_site.versions

.docs/.made: uv.lock pyproject.toml | python $(UV)
	@UV_PROJECT_ENVIRONMENT=$(CURDIR)/.docs $(UV) sync --frozen --quiet --only-group site
	@touch $@

dashboard: .venv/.synced ## Generate deploy/grafana/outbox.json again
	@PYTHONPATH=tools $(BIN)/python -m grafana

.PHONY: dashboard-picture
dashboard-picture: .venv/.synced ## Make docs/dashboard.png again: nine minutes (needs Node and a Chromium; ARGS=--again draws the last play)
	@PYTHONPATH=$(CURDIR)/tools:$(CURDIR)/examples/shop $(BIN)/python -m dashboard_picture $(ARGS)

console: .venv/.synced ## Serve the console of OUTBOX_DATABASE_URL (ARGS="--role operator")
	@$(BIN)/outbox-console $(ARGS)

.PHONY: console console-pictures console-bench test-console
test-console: .venv/.synced ## Test the console, in a Chromium as well where there is one
	@$(BIN)/pytest tests/console $(ARGS)

console-pictures: .venv/.synced ## Make the pictures of docs/pictures/ again (needs a Chromium)
	@PYTHONPATH=tools $(BIN)/python -m console_pictures $(ARGS)

console-bench: .venv/.synced ## Measure the console's pages over twelve million messages (ARGS="--millions 1")
	@PYTHONPATH=tools $(BIN)/python -m console_bench $(ARGS)

##@ To end with
clean: ## Remove everything that make made
	rm -rf .venv .apm .ecosystem .compat .docs .site site .dashboard .helm .matrix .patroni .celery-suite .django .uv .servers .demo .bench .*_cache .hypothesis .coverage* dist

# Only a changed lock file or project file makes it again.
.venv/.synced: $(LOCKED) | python $(UV)
	@echo "Making .venv from the lock file: about a minute the first time"
	@$(UV) sync --frozen --quiet
	@touch $@
	@echo "Ready: make demo, make test, or .venv/bin/outbox-relay --help"

.PHONY: python
python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none is on PATH:" \
		"install it (apt-get install python3.11), or name it: make PYTHON=/path/to/python3"; exit 1; }

.uv/bin/uv: | python
	@$(PYTHON) tools/bootstrap_uv.py
