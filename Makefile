# sharevol. "make help" lists the targets. Each does all its set-up: what is missing
# of Debian's packages is installed (as root or with sudo), all else is built from Go
# modules into the git-ignored folder .testbed.

SHELL       := /bin/bash
# A user's own settings must not decide what is built.
export GOWORK := off
export GOFLAGS := -buildvcs=false
GO          ?= go
# The flags of e2e, so that both compile the dependencies once.
GOLANGCI    := CGO_ENABLED=0 GOFLAGS='$(GOFLAGS) -trimpath' $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
VERSION     ?= $(shell sed -n 's/^    newTag: \(v[0-9.]*\)$$/\1/p' manifests/base/kustomization.yaml | head -n 1)
TESTBED     := internal/testbed
# How many machines make test boots at a time: two where there are two processors and 10 GB free.
MACHINES    ?= $(shell awk -v processors=$$(nproc) '/MemAvailable/ { print (processors > 1 && $$2 > 10000000) ? 2 : 1 }' /proc/meminfo)
# On which releases of Kubernetes make test tests the provisioner: RELEASES=all has the whole of README's table.
RELEASES    ?= v1.15.12,newest
PREPARE     := CGO_ENABLED=0 $(GO) run -C $(TESTBED) -trimpath ./prepare

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: ## the main job on a real cluster, booted here: the first time some 10 minutes, then 2
	@echo "building the demo itself (the first time a minute or two)"
	@mkdir -p .testbed && CGO_ENABLED=0 $(GO) build -C $(TESTBED) -trimpath -o ../../.testbed/demo ./demo
	@.testbed/demo

.PHONY: test
test: lint unit e2e ## lint, unit and e2e

.PHONY: check
check: lint unit ## lint and unit: what to run before each commit, in a few minutes

.PHONY: unit
unit: ## unit tests, with the race detector
	$(PREPARE) packages gcc libc6-dev
	CGO_ENABLED=1 $(GO) test -race ./...

.PHONY: e2e
e2e: ## images, manifests, old and new API servers, a whole cluster, NFS servers that die, the bench once
	CGO_ENABLED=0 $(GO) test -C $(TESTBED) -trimpath -count=1 -v -timeout 60m .
	CGO_ENABLED=0 $(GO) test -C $(TESTBED) -trimpath -count=1 ./manifests ./registrar
	CGO_ENABLED=0 $(GO) test -C $(TESTBED) -trimpath -count=1 -timeout 60m ./controlplane
	RELEASES=$(RELEASES) CGO_ENABLED=0 $(GO) test -C $(TESTBED) -trimpath -count=1 -v -timeout 60m ./versions
	CGO_ENABLED=0 $(GO) test -C $(TESTBED) -trimpath -count=1 -v -timeout 60m -p $(MACHINES) ./e2e ./servers ./publish
	CGO_ENABLED=0 $(GO) test -C $(TESTBED) -trimpath -count=1 -v -timeout 60m ./replicas
	CGO_ENABLED=0 $(GO) test -C $(TESTBED) -trimpath -count=1 -v -timeout 60m ./bench/...

# ONLY=burst,idle measures these areas only; PROFILE=1 adds processor profiles.
.PHONY: bench
bench: ## speed and footprint, beside baselines, in an hour or two; with SHORT=1 only to see that it works, in 5 minutes
	CGO_ENABLED=0 $(GO) run -C $(TESTBED) -trimpath ./bench $(if $(SHORT),-short) $(if $(PROFILE),-profile) $(if $(ONLY),-only=$(ONLY))

.PHONY: lint
lint: ## golangci-lint on all Go code: .golangci.yml says what and why
	@$(GOLANGCI) fmt --diff || { echo "make fmt formats these"; exit 1; }
	$(GOLANGCI) run --allow-parallel-runners ./...
	cd $(TESTBED) && $(GOLANGCI) run --allow-parallel-runners ./...

.PHONY: fmt
fmt: ## gofmt
	$(GOLANGCI) fmt

# Nothing is minimized in the node's: Go takes a minimizing that meets the end of the time for a fault.
.PHONY: fuzz
fuzz: ## fuzz what parses, 30 s each, and the node's requests, 60 s
	$(GO) test ./internal/node -run '^$$' -fuzz FuzzRequests -fuzztime 60s -fuzzminimizetime 0x
	$(GO) test ./internal/volume -run '^$$' -fuzz FuzzParseSubDir -fuzztime 30s -fuzzminimizetime 100x
	$(GO) test ./internal/volume -run '^$$' -fuzz FuzzParseHandle -fuzztime 30s -fuzzminimizetime 100x
	$(GO) test ./internal/volume -run '^$$' -fuzz FuzzRender -fuzztime 30s -fuzzminimizetime 100x

.PHONY: build
build: ## both programs, into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/sharevol-provisioner ./provisioner
	CGO_ENABLED=0 $(GO) build -trimpath -tags grpcnotrace -gcflags=all=-l -ldflags '-s -w -X main.version=$(VERSION)' -o bin/sharevol-node ./nodeplugin

.PHONY: images
images: ## both images, as docker-archive tars, whose paths are printed
	@$(PREPARE) images

.PHONY: clean
clean: ## remove all that was built
	rm -rf bin .testbed 2>/dev/null || unshare --map-root-user --map-auto rm -rf bin .testbed
