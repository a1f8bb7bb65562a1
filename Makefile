# MCR: the verbs of the project. Each is one command on a fresh Debian or Ubuntu with Rust.
PREFIX ?= /usr/local

.PHONY: build demo test lint bench audit install

build:
	scripts/setup.sh build
	cargo build --release --locked

# 150 streams through three network namespaces; needs root.
demo: build
	scripts/setup.sh demo
	scripts/demo.sh

# All tests; those of the data plane need root.
test:
	scripts/setup.sh test
	cargo test --workspace --locked

lint:
	scripts/setup.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
	shellcheck --external-sources scripts/*.sh tests/performance/*.sh bench/*.sh .ci/run

# Measures, and asserts nothing; needs root and a quiet machine. First the scaling test against socat
# in short, then what the planes cost.
bench: build
	scripts/setup.sh demo
	STREAM_COUNTS="1 20 150" PER_STREAM_PACKETS=2000 tests/performance/multi_stream_scaling.sh
	bench/run.sh

# Licences, advisories and duplicates of all dependencies.
audit:
	scripts/setup.sh audit
	cargo deny check

install: build
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/sbin target/release/mcrd
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin target/release/mcrctl target/release/mcrgen
