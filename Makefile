# `make` lists the targets.

BINARIES := vault-plugin-mcp-oauth mcp-token-proxy
TOOLS    := image lint vulncheck
FUZZTIME ?= 10s
DURATION ?= 2m
OUT      ?= bench/results

# The servers of the acceptance tests, one after the other: values of VAULT_BIN, see acceptance/README.md. The
# longest tests run only on the first.
SERVERS  ?= $(or $(VAULT_BIN),vault openbao)

COMMIT   := $(shell git rev-parse HEAD 2>/dev/null)

# The flags of the plugin's build, so that both share compiled packages.
GO_RUN   := CGO_ENABLED=0 go run -trimpath

.DEFAULT_GOAL := help
.PHONY: help build test test-unit test-acceptance test-servers test-brokers test-bench soak bench prepare fuzz lint graph fmt demo dev vulncheck release-check clean

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the plugin and mcp-token-proxy, into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags='-X github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/version.commit=$(COMMIT)' -o bin/ $(addprefix ./cmd/,$(BINARIES))

test: test-unit test-acceptance test-bench soak ## Run test-unit, test-acceptance, test-bench and soak

test-unit: ## Run the unit tests, with the race detector
	go test -race -timeout 20m ./...
	@set -e; for tool in $(TOOLS); do (set -x; cd tools/$$tool && go test -race ./...); done

test-acceptance: prepare ## Run the acceptance tests with each of SERVERS (vault openbao)
	@cd acceptance && long= && for server in $(SERVERS); do \
		echo "VAULT_BIN=$$server go test -race -count=1 -timeout 20m $$long ./..."; \
		VAULT_BIN=$$server go test -race -count=1 -timeout 20m $$long ./... || exit 1; \
		long=-short; done

# All tests run at once, as they wait more than they compute. The first run also fetches and builds the servers.
test-servers: export VAULT_BIN := $(firstword $(SERVERS))
test-servers: prepare ## Test with authorization servers of other makers, which it fetches; needs Java 17 and Maven too
	cd acceptance && go test -tags servers -count=1 -timeout 60m -parallel 50 -v -run TestAuthorizationServers .

test-brokers: prepare ## Test with brokers of other makers, which it fetches, for ten token lifetimes each
	cd acceptance && go test -tags brokers -count=1 -timeout 60m -v -run TestBrokers .

test-bench: export VAULT_BIN := $(firstword $(SERVERS))
test-bench: prepare ## Run the tests of the benchmarks
	cd bench && go test -race -timeout 20m ./...

bench: export VAULT_BIN := $(firstword $(SERVERS))
bench: prepare ## Measure, on an otherwise idle machine; tables, JSON and plots go to OUT (bench/results)
	mkdir -p $(OUT)
	cd bench && out=$(abspath $(OUT)) && for command in reads profile stall scale fleet proxy; do \
		go run ./cmd/$$command -out $$out -plots $$out || exit 1; done

soak: export VAULT_BIN := $(firstword $(SERVERS))
soak: prepare ## Make random trouble from SEED for DURATION (2m), and check every token that brokers get
	cd acceptance && go run -race ./cmd/soak -duration $(DURATION) $(if $(SEED),-seed $(SEED))

prepare: ## Fetch or build SERVERS and npm packages for the acceptance tests; building Vault takes minutes, once
	cd acceptance && $(GO_RUN) ./cmd/prepare $(SERVERS)

# By default Go spends up to a minute on making one input shorter, and tries few other inputs.
fuzz: ## Run each fuzz target for FUZZTIME (10s)
	@set -e; for package in $$(go list ./...); do \
		targets=$$(go test -list '^Fuzz' $$package); \
		for target in $$(echo "$$targets" | sed -n '/^Fuzz/p'); do \
			echo "fuzz $$package $$target for $(FUZZTIME)"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x $$package; \
		done; \
	done

# tools/vault, tools/hydra and tools/kuadrant are left out: they hold little code of this project, and a check would
# download the whole module graphs of those products.
lint: ## Check formatting, modules, scripts, cycles of files and code
	@files=$$(gofmt -l .) && \
		{ test -z "$$files" || { echo "not formatted, run make fmt:"; echo "$$files"; exit 1; }; }
	@# A test may sleep only in a testing/synctest bubble, which story makes too. Elsewhere it waits for the event.
	@for file in $$(grep -rl --include='*_test.go' 'time\.Sleep(' . | grep -v /node_modules/); do \
		grep -qE '"testing/synctest"|\<story\(t, func' $$file || { echo "$$file sleeps outside a synctest bubble"; exit 1; }; \
	done
	for script in .ci/run scripts/*; do bash -n $$script || exit 1; done
	go mod tidy -diff
	cd acceptance && go mod tidy -diff
	cd bench && go mod tidy -diff
	go vet ./...
	cd acceptance && go vet -tags servers,brokers ./...
	cd bench && go vet ./...
	cd tools/image && go mod tidy -diff
	cd tools/vulncheck && go mod tidy -diff
	@set -e; for tool in $(TOOLS); do (set -x; cd tools/$$tool && go vet ./...); done
	cd tools/lint && go run ./filecycles ../..
	page=$$(mktemp) && trap 'rm -f $$page' EXIT && cp docs/architecture.md $$page && cd tools/lint && \
		go run ./filecycles -picture $$page ../.. && \
		{ diff ../../docs/architecture.md $$page || { echo "docs/architecture.md: the picture is out of date, run make graph"; exit 1; }; }
	scripts/golangci-lint run ./...
	cd acceptance && ../scripts/golangci-lint run --config ../.golangci.yml ./...
	cd bench && ../scripts/golangci-lint run --config ../.golangci.yml ./...
	@set -e; for tool in $(TOOLS); do \
		(set -x; cd tools/$$tool && ../../scripts/golangci-lint run --config ../../.golangci.yml ./...); done

graph: ## Draw the graph of packages and files in docs/architecture.md
	cd tools/lint && go run ./filecycles -picture ../../docs/architecture.md ../..

fmt: ## Format the code
	scripts/golangci-lint fmt ./...
	cd acceptance && ../scripts/golangci-lint fmt --config ../.golangci.yml ./...
	cd bench && ../scripts/golangci-lint fmt --config ../.golangci.yml ./...

demo: ## Show the whole flow on real parts, and check it
	cd acceptance && $(GO_RUN) ./cmd/demo

# Job control gives the demo the terminal, so that Ctrl-C interrupts only the demo, and make dev ends with status 0.
dev: ## Start the demo's parts and keep them running until interrupted
	cd acceptance && CGO_ENABLED=0 go build -trimpath -o ../bin/demo ./cmd/demo
	if [ -t 0 ]; then set -m; fi; bin/demo -keep

vulncheck: ## Look for known vulnerabilities in the code linked into the binaries
	scripts/vulncheck

release-check: ## Build the release of the last commit twice and compare; publishes nothing
	scripts/release-check

clean: ## Remove bin/, but not the caches outside the checkout
	rm -rf bin
