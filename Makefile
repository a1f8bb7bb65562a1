# MCR: the verbs of the project. Each is one command on a fresh Debian or Ubuntu with Rust.
PREFIX ?= /usr/local

.PHONY: build demo test lint bench audit install

build:
	scripts/setup.sh build
	cargo build --release --locked

# 150 streams through three network namespaces; needs root.
demo: build
	scripts/setup.sh test
	scripts/demo.sh

# All tests; those of the data plane need root.
test:
	scripts/setup.sh test
	cargo test --workspace --locked

lint:
	scripts/setup.sh build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

# Measures, and asserts nothing; needs root and a quiet machine.
bench: build
	scripts/setup.sh test
	bench/run.sh

# Licences, advisories and duplicates of all dependencies.
audit:
	scripts/setup.sh audit
	cargo deny check

install: build
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/sbin target/release/mcrd
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin target/release/mcrctl target/release/mcrgen
