# What there is to do here. `make` lists it.
# Not bash itself: what was exported by whoever calls this means nothing to what is run here.
SHELL := ansible/environment.sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TARGET := x86_64-unknown-linux-musl
BINARY := $(CURDIR)/target/$(TARGET)/release/pgpair
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SBOM := target/$(TARGET)/pgpair.cdx.json
TOOLS := PATH="$(CURDIR)/target/tools/bin:$$PATH"
VENV := $(CURDIR)/.venv
SETUP = MAKE_GOAL=$(MAKECMDGOALS) PGPAIR_ARCH=$(ARCH) ansible/setup.sh
PLAYBOOK := ANSIBLE_CONFIG=$(CURDIR)/ansible/ansible.cfg $(VENV)/bin/ansible-playbook

# What may be said on the command line: make up PREFIX=other PORT=5001 ARGS='-e postgres_pair_memory=1G'
# make up HOST=admin@203.0.113.10 brings it up there; without a HOST it is this machine.
ifeq ($(origin HOST),command line)
INVENTORY ?= ansible/inventories/ssh
export PGPAIR_HOST := $(HOST)
else
INVENTORY ?= ansible/inventories/local
endif
HERE = $(findstring inventories/local,$(INVENTORY))
# The Docker host's: x86_64 or aarch64.
ARCH ?= x86_64
PREFIX ?= pgpair
PORT ?= 5000
ARGS ?=
VARIABLES = -e postgres_pair_prefix=$(PREFIX) -e pgpair_probe_port=$(PORT) $(ARGS)

.PHONY: help provision up down status test soak alarms generate check sbom image bench fuzz drill vagrant test-vagrant

help: ## List what there is to do
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

provision: ## Make an EC2 instance (ARGS='-e ec2_instance_admin_cidr=…'); then: make up INVENTORY=ansible/inventories/aws
	@$(SETUP) ansible
	@$(PLAYBOOK) -i ansible/inventories/aws/localhost.yml ansible/playbooks/provision.yml -e pgpair_probe_port=$(PORT) $(ARGS)

up: ## Bring up the primary, its standby and the probe, and say how they are
	@$(SETUP) $(if $(HERE),root own) build ansible
	@$(PLAYBOOK) -i $(INVENTORY) ansible/playbooks/site.yml $(VARIABLES)

down: ## Take all of it away, data included; asks first (CONFIRM=yes answers)
	@$(SETUP) $(if $(HERE),root own) ansible
	@$(PLAYBOOK) -i $(INVENTORY) ansible/playbooks/teardown.yml $(if $(CONFIRM),-e confirm=$(CONFIRM)) $(VARIABLES)

status: ## Show the containers and what /ready answers
ifeq ($(HERE),)
	@ANSIBLE_CONFIG=$(CURDIR)/ansible/ansible.cfg $(VENV)/bin/ansible -i $(INVENTORY) docker_hosts --become -m ansible.builtin.command -a 'docker exec $(PREFIX)-probe /pgpair status'
else
	@$(SETUP) own
	@docker ps --all --filter label=org.pgpair.project=$(PREFIX) --format 'table {{.Names}}\t{{.Status}}\t{{.Ports}}'
	@[ ! -x /srv/$(PREFIX)/certificates ] || /srv/$(PREFIX)/certificates ends /srv/$(PREFIX) $(PREFIX) 0 0 365 30 || true
	@curl --noproxy '*' --silent --show-error --max-time 5 --write-out '%{http_code}\n' http://localhost:$(PORT)/ready
endif

vagrant: export PGPAIR_VAGRANT_PORT = $(PORT)
vagrant: export PGPAIR_VAGRANT_ARGS = $(ARGS)
vagrant: ## Bring all of it up in a VM, with Vagrant and VirtualBox or libvirt (vagrant/Vagrantfile); needs no root
	@$(SETUP) build ansible
	@if ! command -v vagrant >/dev/null; then echo "vagrant is missing: install it with VirtualBox or vagrant-libvirt (https://developer.hashicorp.com/vagrant/install)." >&2; exit 1; fi
	@cd vagrant && vagrant up --provision

test: ## Set up all that the tests need, and run them
	@$(SETUP) root own build ansible tests engine
	@PGPAIR_TEST_POSTGRES_IMAGE="$$(cat .cache/postgres-image)" \
	PGPAIR_TEST_BINARY=$(BINARY) \
	PGPAIR_TEST_ANSIBLE_PLAYBOOK=$(VENV)/bin/ansible-playbook \
	cargo test --locked $(ARGS)

soak: ## Have faults come and go, SECONDS=600 long (SEED=… for the same again), and hold every answer against an observer's
	@$(SETUP) root own build ansible tests engine
	@PGPAIR_TEST_POSTGRES_IMAGE="$$(cat .cache/postgres-image)" PGPAIR_TEST_BINARY=$(BINARY) \
	PGPAIR_TEST_SOAK_SECONDS=$(or $(SECONDS),600) $(if $(SEED),PGPAIR_TEST_SOAK_SEED=$(SEED)) \
	cargo test --locked --test it soak::every -- --nocapture

alarms: ## Have primaries look dead that are not, and die in between, SECONDS=3600 long: the guard must tell them apart
	@$(SETUP) root build ansible engine
	@PGPAIR_TEST_POSTGRES_IMAGE="$$(cat .cache/postgres-image)" \
	PGPAIR_TEST_BINARY=$(BINARY) \
	PGPAIR_TEST_ANSIBLE_PLAYBOOK=$(VENV)/bin/ansible-playbook \
	PGPAIR_TEST_ALARM_SECONDS=$(or $(SECONDS),3600) \
	cargo test --locked --test it -- --nocapture days::alarms

drill: ## Move, kill and replace the primary under a writer, twenty times each (MOVES), and print the times
	@$(SETUP) root own build ansible engine
	@PGPAIR_TEST_POSTGRES_IMAGE="$$(cat .cache/postgres-image)" \
	PGPAIR_TEST_BINARY=$(BINARY) \
	PGPAIR_TEST_ANSIBLE_PLAYBOOK=$(VENV)/bin/ansible-playbook \
	PGPAIR_TEST_MOVES=$(or $(MOVES),20) \
	cargo test --locked --test it -- --nocapture --test-threads 1 pair:: guard::

test-vagrant: ## Run vagrant up in an emulated VM and look at what came of it: up to an hour, so that CI does not
	@$(SETUP) root own build ansible engine
	@tests/vagrant.sh

generate: ## Write what is made from tables: README's tables, man page, completions, the roles' READMEs, the dashboard
	@$(SETUP) ansible
	PGPAIR_GENERATE=yes cargo test --quiet --locked --test generated
	$(VENV)/bin/python ansible/role_readme.py
	$(VENV)/bin/python ansible/dashboard.py

check: ## Look over the code without running it: format, lints, the other architecture, documentation, playbooks, scripts, crates
	@$(SETUP) root lint
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo fmt --check --manifest-path tests/bench/rival/Cargo.toml
	CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc cargo check --locked --target aarch64-unknown-linux-musl
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
	$(VENV)/bin/yamllint --strict .
	PATH="$(VENV)/bin:$$PATH" ANSIBLE_CONFIG=$(CURDIR)/ansible/ansible.cfg ansible-lint --offline
	$(VENV)/bin/python ansible/role_readme.py --check
	$(VENV)/bin/python ansible/dashboard.py --check
	git ls-files -z --cached --others --exclude-standard '*.sh' .ci share/bash-completion | xargs -0 -r shellcheck
	mandoc -T lint share/man/man1/pgpair.1
	$(TOOLS) cargo deny --locked check licenses bans sources
	@if $(TOOLS) cargo deny fetch db; then $(TOOLS) cargo deny --locked check advisories; \
	else echo "All else is fine, but advisories about the crates were NOT checked: their database (github.com/rustsec/advisory-db) cannot be fetched." >&2; \
	[ "$(ADVISORIES)" != required ]; fi

sbom: ## Write what the binary is made of, as CycloneDX, to target/
	@$(SETUP) root sbom
	@$(TOOLS) SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 0) $(VENV)/bin/python ansible/sbom.py $(TARGET) $(SBOM)

image: sbom ## Build the probe's scratch image from the binary; its label names the SBOM's digest
	@$(SETUP) root own build ansible engine
	@PATH="/usr/bin:$$PATH" DOCKER_BUILDKIT=1 docker build --file Dockerfile.musl --build-arg BINARY=prebuilt \
		--build-arg VERSION=$(VERSION) --label org.pgpair.built=make \
		--label org.pgpair.sbom=sha256:$$(sha256sum <$(SBOM) | cut -d' ' -f1) --tag pgpair:$(VERSION) .
	@docker image ls pgpair:$(VERSION)

bench: ## Measure the probe beside a plain axum server; RECORD=yes keeps the report in tests/bench
	@$(SETUP) root own build ansible engine bench
	@PGPAIR_TEST_POSTGRES_IMAGE="$$(cat .cache/postgres-image)" \
	PGPAIR_TEST_BINARY=$(BINARY) \
	PGPAIR_BENCH_RIVAL=$(CURDIR)/target/rival/$(TARGET)/release/rival \
	PGPAIR_BENCH_RIVAL_GLIBC=$(CURDIR)/target/rival/release/rival \
	PGPAIR_BENCH_REPORT=$(CURDIR)/$(if $(RECORD),tests/bench,target/bench) \
	cargo bench --quiet --locked --profile dev --bench bench

fuzz: ## Look for inputs that break a parser, by coverage, SECONDS=60 each (PROPERTIES='conninfo url' for some)
	@$(SETUP) root fuzz tests
	@$(TOOLS) SECONDS_EACH=$(or $(SECONDS),60) tests/fuzz/run.sh $(PROPERTIES)
