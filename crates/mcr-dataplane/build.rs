//! Compiles the eBPF program with clang into `OUT_DIR/relay.bpf.o`.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

const SOURCES: &str = "src/bpf";

fn main() {
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("relay.bpf.o");
    let mut command = Command::new(&clang);
    // -mcpu=v2: the instructions of every kernel from 4.14 on.
    command.args(["-O2", "-g", "-target", "bpf", "-mcpu=v2", "-Wall", "-Wextra", "-Werror"]);
    for directory in multiarch_includes() {
        command.arg("-isystem").arg(directory);
    }
    command.arg("-c").arg(format!("{SOURCES}/relay.bpf.c")).arg("-o").arg(out);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!(
            "{clang} could not compile {SOURCES}/relay.bpf.c ({status}); it needs clang 14 or \
             newer and the headers of libbpf-dev and linux-libc-dev"
        )),
        Err(error) => fail(&format!(
            "{clang} cannot be run ({error}); install it with: apt-get install clang libbpf-dev \
             linux-libc-dev"
        )),
    }
}

/// Debian keeps `asm/types.h` in `/usr/include/<triplet>`, which clang does not search for the BPF
/// target.
fn multiarch_includes() -> Vec<PathBuf> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let entries = fs::read_dir("/usr/include").into_iter().flatten().flatten();
    let of_target = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with(&format!("{arch}-linux-")))
    };
    entries.map(|entry| entry.path()).filter(of_target).collect()
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1);
}
