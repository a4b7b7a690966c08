# Reeve. `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := $(CURDIR)/.bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFLAGS_BUILD := -trimpath -tags nomsgpack -ldflags "-s -w -X github.com/reeve-pam/reeve/internal/reeve.Version=$(VERSION)"
export CGO_ENABLED ?= 1
ARGS ?=

# Tests, in check. What fails is run once more, the whole test by itself, and passes if it then does: clusters with deadlines share two
# processors here. It is printed all the same, and listed at the end. More than six failures, or a data race, are not tried again.
GOTESTSUM := $(BIN)/gotestsum --format pkgname --format-icons text --rerun-fails=1 --rerun-fails-max-failures 6 --rerun-fails-run-root-test --rerun-fails-abort-on-data-race

# What tests and the demo need from Debian; see docs/development.md.
PACKAGES := openssh-server openssh-client sudo mariadb-server postgresql-15 inetutils-telnetd systemd nftables iproute2 iputils-ping openssl tcpdump fuse3 \
  protobuf-compiler libprotobuf-dev util-linux gcc libc6-dev python3-winrm python3-oracledb freetds-bin \
  samba samba-ad-provision samba-dsdb-modules samba-vfs-modules slapd rsyslog rsyslog-openssl chromium chromium-driver

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## install what is missing (Debian packages; root), build the pinned tools
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "installing:" $$missing; \
	  if [ ! -e /usr/sbin/policy-rc.d ]; then printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; trap 'rm -f /usr/sbin/policy-rc.d' EXIT; fi; \
	  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then mkdir -p /etc/postgresql-common; echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf; fi; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
	@command -v npm >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null; }
	@$(MAKE) --no-print-directory $(BIN)/.tools $(CROSSCHECKS:%=%/node_modules/.package-lock.json)

# Clients, grammars and a provider from npm that prove emulators, scripts and sign-in, as their lock files pin them.
CROSSCHECKS := internal/emu/tds/testdata/crosscheck internal/emu/oracle/testdata/crosscheck plugins/winrm/testdata/grammar controller/identity/oidc/oidctest/testdata/provider
%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && npm ci --ignore-scripts --no-audit --no-fund --silent
	touch $@

# The programs pinned in .tools/go.mod, built once per change of that file.
$(BIN)/.tools: .tools/go.mod .tools/go.sum
	cd .tools && GOBIN=$(BIN) go install tool
	touch $@

.PHONY: build
build: ## build controller, agent, command line and connectors into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o bin/ ./controller/cmd/reeved ./agent/cmd/reeve-agent ./api/cmd/reeve
	for main in plugins/*/main.go; do d=$$(dirname $$main); CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o bin/connectors/connector-$$(basename $$d) ./$$d; done

.PHONY: demo
demo: setup build ## a whole cluster with real targets at work; ARGS=--once ends by itself
	go run ./internal/demo $(ARGS)

.PHONY: mutants
mutants: ## builds broken on purpose, which the linearizability checker must catch; see docs/linearizability.md
	go test -tags "nomsgpack mutants" -timeout 10m -parallel 4 -run 'TestBrokenBuildsAreCaught' ./internal/linearize $(ARGS)

.PHONY: chaos
chaos: setup build ## faults at seeded moments, nothing lost; ARGS="--seed 1 --rounds 10", see docs/chaos.md
	go run -tags nomsgpack ./internal/chaos $(ARGS)

.PHONY: test
test: setup ## all tests, on real targets
	REEVE_LAB=require go test -tags nomsgpack -timeout 10m ./...

.PHONY: generate
generate: $(BIN)/.tools ## write generated code again
	PATH=$(BIN):$$PATH protoc -I proto --go_out=. --go_opt=module=github.com/reeve-pam/reeve \
	  --go-grpc_out=. --go-grpc_opt=module=github.com/reeve-pam/reeve \
	  proto/reeve/connector/v1/connector.proto proto/reeve/agent/v1/agent.proto
	cd api && $(BIN)/oapi-codegen -config oapi-client.yaml openapi.yaml && $(BIN)/oapi-codegen -config oapi-server.yaml openapi.yaml

.PHONY: lint
lint: $(BIN)/.tools ## golangci-lint, gosec among it
	$(BIN)/golangci-lint run ./...

.PHONY: check
check: setup ## everything CI asks for: format, lint, generated code, go.mod, import rules, tests with -race
	@echo "== format"; out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not gofmt'ed:"; echo "$$out"; exit 1; }
	@echo "== generated code"; $(MAKE) --no-print-directory generate >/dev/null; git diff --exit-code -- proto api controller/rest || { echo "run 'make generate'"; exit 1; }
	@echo "== go.mod"; go mod tidy -diff
	@echo "== vet"; go vet -tags nomsgpack ./...; go vet -tags "nomsgpack mutants" ./internal/linearize
	@echo "== lint"; $(MAKE) --no-print-directory lint
	@echo "== tests"; REEVE_LAB=require $(GOTESTSUM) --packages="$$(go list ./... | grep -v -e /internal/systemtest -e /internal/simulation | tr '\n' ' ')" -- -tags nomsgpack -race -p 3 -timeout 15m
	@echo "== broken builds"; $(MAKE) --no-print-directory mutants
	@echo "== simulation"; go test -tags nomsgpack -timeout 10m ./internal/simulation
	@go test -tags nomsgpack,mutants -run TestBrokenBuilds -timeout 10m ./internal/simulation
	@echo "== fuzz"; go run ./internal/fuzzall -time 12s -width 12
	@echo "== whole clusters on real targets"; REEVE_LAB=require $(GOTESTSUM) --packages ./internal/systemtest/... -- -tags nomsgpack -race -p 1 -timeout 15m
	@echo "== chaos"; $(MAKE) --no-print-directory chaos ARGS="--seed 1 --rounds 10"

.PHONY: authz
authz: setup ## every operation by every kind of principal, against the table in controller/rest/testdata/authz.txt
	REEVE_LAB=require go test -tags nomsgpack -count 1 -run TestTheMatrixOfOperationsAndPrincipals -v ./controller/rest $(ARGS) | grep -E '^(authz:|---|FAIL|ok| )'

.PHONY: timing
timing: ## whether the time of a failed sign-in tells who exists: 10,000 of each kind; ARGS="-sign-ins N"
	go test -tags nomsgpack -count 1 -timeout 30m -run TestHowLongAFailureTakes -v ./controller/identity -args -sign-ins 10000 $(ARGS) | grep -E '^(timing:|---|FAIL|ok| )'

.PHONY: conformance
conformance: setup ## the conformance kit on every connector, on real targets; ARGS="-v ssh"
	go run -tags nomsgpack ./internal/conformance $(ARGS)

.PHONY: fuzz
fuzz: ## every fuzz target for 30 s; ARGS='-time 5m -keep' keeps what it finds
	go run ./internal/fuzzall $(ARGS)

.PHONY: bench
bench: setup build ## benchmarks: ratios against the bare driver, bare SSH, bare Raft; ARGS=--help
	@go build -tags nomsgpack -o bin/internal/bench ./internal/bench
	@bin/internal/bench $(ARGS)

.PHONY: crowd
crowd: ## 2,000 agents come back after kill -9 of the leader; ARGS="-agents N -timing lan"
	REEVE_LAB=require go test -tags nomsgpack -count 1 -run Crowd -v -timeout 10m ./internal/swarm -args -agents 2000 $(ARGS)

.PHONY: profile
profile: setup build ## where the time goes: CPU, allocations, waiting; profiles in .bench/profile
	@go build -tags nomsgpack -o bin/internal/bench ./internal/bench
	@bin/internal/bench --profile .bench/profile $(ARGS)

.PHONY: simulate
simulate: ## password rotations under faults, in one seeded event loop; ARGS="--seed S --rotations N"
	@mkdir -p bin
	@go test -tags nomsgpack -c -o bin/simulation ./internal/simulation
	@bin/simulation $(if $(ARGS),$(ARGS),--rotations 10000)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .bin .demo .bench
