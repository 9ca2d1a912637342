# What a person types. `make` alone lists it.

SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PATH := $(HOME)/.cargo/bin:$(PATH)

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
LAB := cargo run --quiet --release --package lab --

# To build: a C compiler and OpenSSL for ssh2, protoc for the etcd client.
# To test: Docker and mmdebstrap for the lab, etcd, busybox and openssl for what runs in it,
# Chromium to look at the charts of reports.
PACKAGES := git make gcc libc6-dev pkg-config libssl-dev zlib1g-dev protobuf-compiler \
	libprotobuf-dev ca-certificates curl docker.io mmdebstrap etcd-server busybox-static \
	iproute2 iptables nftables chromium openssh-client openssh-server openssl systemd util-linux

.PHONY: help setup build profile-tool ksim test test-long lab-up lab-down demo demo-down bench bench-e2e \
	bench-provision bench-sched bench-sim

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing (Debian packages, Rust, nextest)
	@missing=""
	for package in $(PACKAGES); do
	    dpkg-query --show --showformat='$${Status}' "$$package" 2>/dev/null |
	        grep --quiet 'install ok installed' || missing="$$missing $$package"
	done
	command -v kubectl >/dev/null || missing="$$missing kubernetes-client"
	if [ -n "$$missing" ]; then
	    echo "installing:$$missing"
	    $(SUDO) apt-get update --quiet
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	        apt-get install --quiet --yes --no-install-recommends $$missing
	    # Only the programs are wanted; the services that come with them are not ours to run.
	    case "$$missing" in *etcd-server*)
	        $(SUDO) systemctl disable --now etcd.service 2>/dev/null || true ;;
	    esac
	    case "$$missing" in *openssh-server*)
	        $(SUDO) systemctl disable --now ssh.service 2>/dev/null || true ;;
	    esac
	fi
	if ! command -v cargo >/dev/null; then
	    curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs |
	        sh -s -- -y --profile minimal --component clippy,rustfmt --no-modify-path
	fi
	cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest

# Only the last step of hyperkube is told to link statically: all crates before it are shared. That
# needs hyperkube to be named with the others: else they ask for fewer features of their libraries,
# and all is built once more for them.
build: ## Build kprov and the static hyperkube into target/release
	cargo build --release --package provisioner --package hyperkube --bin kprov
	cargo rustc --release --package hyperkube --bin hyperkube -- \
	    -C target-feature=+crt-static
	# The pause image belongs beside kprov; the others are for the lab.
	$(LAB) images --output target/release/images

# What reads the profile of a run must be of the LLVM that rustc has. Without it ksim is slower.
profile-tool:
	@major=$$(rustc -vV | sed --quiet 's/^LLVM version: \([0-9]*\).*/\1/p')
	own="$$(rustc --print sysroot)/lib/rustlib/$$(rustc -vV | sed --quiet 's/^host: //p')/bin"
	if ! command -v "llvm-profdata-$$major" "$$own/llvm-profdata" >/dev/null; then
	    echo "installing: llvm-$$major"
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	        apt-get install --quiet --yes --no-install-recommends "llvm-$$major" || true
	fi

ksim: profile-tool ## Build the simulator for speed, into target/sim
	cargo xtask ksim

test: ## Run every check and test, the end-to-end tests in the lab included
	cargo xtask ci

test-long: build ## Run the end-to-end tests that take several minutes each, which `test` leaves out
	$(LAB) images
	cargo nextest run --workspace --profile e2e-long

lab-up: ## Boot three bare lab hosts
	$(LAB) up

lab-down: ## Remove the lab hosts
	$(LAB) down

demo: setup build ## Boot hosts, make a cluster, deploy to it, show it; leaves it running
	$(LAB) demo

demo-down: lab-down ## Remove what demo made
	rm -f .lab/kubeconfig

bench: build ## Measure the goals' figures; writes target/bench/*.json
	cargo xtask bench

bench-e2e: ## Measure a control plane with hollow nodes; writes target/bench/e2e.json
	cargo xtask bench-e2e

bench-sim: profile-tool ## Measure the simulator; writes target/bench/sim.json
	cargo xtask bench-sim

bench-provision: ## Measure kprov with hosts in memory; writes target/bench/provision.json
	cargo xtask bench-provision

bench-sched: ## Measure the scheduler; writes target/bench/sched.json
	cargo xtask bench-sched
