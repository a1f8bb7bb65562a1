//! Two namespaces with a veth pair between them, and `mcrgen` processes inside.
//!
//! Everything a test made is ended by process id or deleted by its own name when it is dropped.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Read as _, Write as _, stderr};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// No step of a test takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A sender's and a receiver's namespace.
pub(crate) struct Network {
    sender: String,
    receiver: String,
}

impl Network {
    /// None if not root, having said so; with CI=true in the environment that is a failure.
    pub(crate) fn new() -> Option<Self> {
        if !is_root() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must run this test as root");
            // Not eprintln!, which the test harness would keep to itself.
            let _ = writeln!(stderr(), "SKIPPED: network namespaces need root");
            return None;
        }
        let unique = RandomState::new().build_hasher().finish() as u32;
        let name = format!("mcrgen-{}-{unique:08x}", std::process::id());
        let network = Self { sender: format!("{name}-a"), receiver: format!("{name}-b") };
        let Self { sender, receiver } = &network;
        for namespace in [sender, receiver] {
            ip(&format!("netns add {namespace}"));
            // Duplicate address detection would hold IPv6 up for a second or two.
            let mut command = inside(namespace);
            command.args(["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]);
            assert!(command.status().expect("sysctl runs").success());
        }
        ip(&format!("-n {sender} link add v0 type veth peer name v1 netns {receiver}"));
        for (namespace, interface, host) in [(sender, "v0", 1), (receiver, "v1", 2)] {
            ip(&format!("-n {namespace} addr add 10.99.0.{host}/24 dev {interface}"));
            ip(&format!("-n {namespace} addr add fd99::{host}/64 dev {interface} nodad"));
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {namespace} link set {interface} up"));
        }
        ip(&format!("-n {sender} route add 224.0.0.0/4 dev v0"));
        for (namespace, interface) in [(sender, "v0"), (receiver, "v1")] {
            wait_for_ipv6(namespace, interface);
        }
        Some(network)
    }

    /// Runs `mcrgen send` with these options to the end.
    pub(crate) fn send(&self, options: &str) -> Finished {
        let command = format!("send --interface v0 --json {options}");
        Finished::of(self.mcrgen(&self.sender, &command).output().expect("mcrgen runs"))
    }

    /// Starts `mcrgen recv` with these options and waits until it is ready.
    pub(crate) fn recv(&self, options: &str) -> Receiver {
        let command = format!("recv --interface v1 --json {options}");
        Receiver::start(self.mcrgen(&self.receiver, &command))
    }

    /// Sends a datagram of this text that no `mcrgen` made.
    pub(crate) fn send_text(&self, text: &str, group: &str, port: u16) {
        let script = format!("echo {text} > /dev/udp/{group}/{port}");
        let mut command = inside(&self.sender);
        let status = command.args(["bash", "-c", &script]).status().expect("bash runs");
        assert!(status.success(), "{script}");
    }

    fn mcrgen(&self, namespace: &str, options: &str) -> Command {
        let mut command = inside(namespace);
        command.arg(env!("CARGO_BIN_EXE_mcrgen")).args(options.split_whitespace());
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.sender, &self.receiver] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

/// A receiver that has joined its groups. Killed if the test ends before it does.
pub(crate) struct Receiver {
    child: Child,
    errors: mpsc::Receiver<String>,
}

impl Receiver {
    fn start(mut command: Command) -> Self {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("mcrgen starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, errors) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let receiver = Self { child, errors };
        while receiver.errors.recv_timeout(DEADLINE).expect("ready in time") != "ready" {}
        receiver
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its report.
    pub(crate) fn finish(mut self) -> Finished {
        let mut stdout = self.child.stdout.take().expect("piped");
        let (sender, text) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            let read = stdout.read_to_string(&mut text);
            sender.send((read, text))
        });
        let (read, stdout) = text.recv_timeout(DEADLINE).expect("a report in time");
        read.expect("a report in UTF-8");
        let code = self.child.wait().expect("a child").code();
        Finished { code, stderr: self.errors.iter().collect(), stdout }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a process ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// The JSON object it printed.
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The whole numbers under these keys of its report.
    pub(crate) fn counts<const N: usize>(&self, keys: [&str; N]) -> [u64; N] {
        let report = self.report();
        keys.map(|key| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}")))
    }
}

/// A command inside a namespace that keeps this process's mounts.
fn inside(namespace: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}"));
    command
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {arguments}");
}

/// Waits for the link-local address, which the kernel makes once the link is up.
fn wait_for_ipv6(namespace: &str, interface: &str) {
    let show = format!("-n {namespace} -6 addr show dev {interface} scope link -tentative");
    let end = Instant::now() + DEADLINE;
    loop {
        let output = Command::new("ip").args(show.split(' ')).output().expect("ip runs");
        if !output.stdout.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "no IPv6 on {interface} in {namespace}");
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
