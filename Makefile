# Fleetscore. All targets need only Go, except where the help says otherwise. With
# FLEETSCORE_TEST_ALL=1 the tests of engines install the engines that they need.

GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
LDFLAGS     := -s -w -X github.com/fleetscore/fleetscore/internal/cli.Version=$(VERSION)
export CGO_ENABLED ?= 0

.DEFAULT_GOAL := build

.PHONY: help build wheel demo test race crash kill ways year nfs scale simulate parity spark check fmt bench microbench cross fuzz clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the binary in bin/
	@GO='$(GO)' ./scripts/build bin/fleetscore -trimpath -ldflags '$(LDFLAGS)'

wheel: ## build the Python package in dist/ (needs Python and a package index); WHEELS='linux/amd64 linux/arm64' for others
	@GO='$(GO)' VERSION='$(VERSION)' ./scripts/wheel dist $(WHEELS)

demo: ## run the whole system with simulated devices; data stays in .demo
	@GO='$(GO)' ./scripts/build bin/fleetscore-demo -tags noclouds -trimpath -ldflags '$(LDFLAGS)'
	./bin/fleetscore-demo demo --dir .demo

test: ## run all tests; with FLEETSCORE_TEST_ALL=1 every engine must be present
	$(GO) test -timeout 30m ./...
	@if [ "$$FLEETSCORE_TEST_ALL" = 1 ]; then ./scripts/fuzz --all 190; fi

parity: ## compare models of many scikit-learn releases, with random parameters, with scikit-learn itself
	@mkdir -p bin; export FLEETSCORE_PARITY_RELEASES=$${FLEETSCORE_PARITY_RELEASES:-all} FLEETSCORE_PARITY_ROUNDS=$${FLEETSCORE_PARITY_ROUNDS:-6} FLEETSCORE_PARITY_SEED=$${FLEETSCORE_PARITY_SEED:-$$(date +%s | cut -c5-)}; \
	echo "the first seed is $$FLEETSCORE_PARITY_SEED, the log bin/parity.log"; \
	$(GO) test -run 'TestLiveParity$$' -count 1 -timeout 120m -v ./sklearn > bin/parity.log 2>&1; status=$$?; \
	grep -E 'SKIPPED|models,|_test.go|--- FAIL|^ok|^FAIL' bin/parity.log; exit $$status

race: ## run the tests of packages with goroutines under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 30m ./internal/...

crash: ## test kills, frozen processes, power cuts, full disks, wrong clocks and hostile bodies, for longer than make test
	FLEETSCORE_TEST_ALL=1 FLEETSCORE_CRASH_ROUNDS=$${FLEETSCORE_CRASH_ROUNDS:-40} $(GO) test -run 'TestCrash|TestPowerCut|TestFullDisk|TestServerWithAWrongClock|TestHostile|TestKill$$' -count 1 -timeout 60m -v ./internal/cli ./internal/server ./internal/hub

kill: ## kill and freeze two servers on PostgreSQL and their nodes at random for minutes, under load; ROUNDS=200 for longer
	FLEETSCORE_TEST_ALL=1 FLEETSCORE_CRASH_ROUNDS=$${ROUNDS:-60} $(GO) test -run 'TestKillServers$$' -count 1 -timeout 60m -v ./internal/cli

ways: ## kill the server 100 times at random while readings come in by every way; ROUNDS=10 for less
	FLEETSCORE_TEST_ALL=1 FLEETSCORE_CRASH_ROUNDS=$${ROUNDS:-100} $(GO) test -run 'TestCrashWays$$' -count 1 -timeout 60m -v ./internal/cli

spark: ## read Delta tables that Spark wrote (needs Python and Java; some minutes)
	FLEETSCORE_SPARK=1 $(GO) test -tags spark -p 1 -run 'TestSpark$$|TestGuides$$' -count 1 -timeout 40m -v ./internal/files ./internal/cli

year: ## simulate a year of jobs; measure the files that it leaves, commits and pages (15 minutes)
	FLEETSCORE_YEAR=full $(GO) test -run 'TestYear$$' -count 1 -timeout 60m -v ./bench/year

nfs: ## list and read 100,000 files of the file server with libnfs (2 minutes)
	FLEETSCORE_TEST_ALL=1 FLEETSCORE_NFS=full $(GO) test -run 'TestLibnfs$$' -count 1 -timeout 20m -v ./internal/fileserver

scale: ## measure a server with 10,000 nodes and a job of 1,000,000 sensors (5 minutes); SCALE=1000,100000 for fewer
	FLEETSCORE_SCALE=$${SCALE:-10000,1000000} $(GO) test -run 'TestScale$$' -count 1 -timeout 30m -v ./bench/scale

simulate: ## run a whole server thousands of times with random faults on a fake clock; SEEDS=20000 for more
	$(GO) test ./internal/simtest -run TestSimulation -count 1 -timeout 600m -seeds $${SEEDS:-5000}

check: ## check format, vet, linters, architecture and the builds for all platforms
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not formatted (make fmt):"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags spark ./internal/files
	$(GO) run $(STATICCHECK) ./...
	$(GO) test ./internal/archtest
	$(MAKE) --no-print-directory cross

cross: ## build for every supported platform
	GOOS=linux GOARCH=amd64 $(GO) build ./...
	GOOS=linux GOARCH=arm64 $(GO) build ./...
	GOOS=darwin GOARCH=arm64 $(GO) build ./...
	$(GO) build -tags noclouds -o /dev/null ./cmd/fleetscore

fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

bench: ## compare the speed with other tools in one run; BENCH='-quick', '-only fleet' or '-write docs/benchmarks.md' (needs Python)
	$(GO) run ./bench $(BENCH)

microbench: ## run the Go benchmarks of single packages
	$(GO) test -run '^$$' -bench . -benchmem ./...

fuzz: ## run every fuzz target for a minute
	./scripts/fuzz 60s

clean: ## remove the binary and the demo's data
	rm -rf bin .demo
