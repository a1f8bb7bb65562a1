//! Network namespaces for a test, and the programs in them.
//!
//! ```text
//! gen (veth0 10.0.0.1) -- (veth1 10.0.0.2) relay (veth2 10.0.1.1) -- (veth3 10.0.1.2) sink
//!           fd00::1         fd00::2               fd00:0:0:1::1       fd00:0:0:1::2
//! ```
//!
//! Everything has a name of its own, so tests run side by side; everything is ended by its process
//! id and removed when the lab is dropped, also by a panic.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::traffic::{Background, Capture, Receiver};

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What moves packets in a test: one column of the table of behaviours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plane {
    /// eBPF at the TCX hook.
    Tcx,
    /// eBPF at a clsact qdisc.
    Clsact,
    /// `AF_PACKET` rings, by two workers.
    Packet,
}

impl Plane {
    /// What tells `mcrd` to take it.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Tcx => &["--dataplane", "ebpf", "--attach", "tcx"],
            Self::Clsact => &["--dataplane", "ebpf", "--attach", "clsact"],
            Self::Packet => &["--dataplane", "packet", "--workers", "2"],
        }
    }

    /// What `mcrctl status` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcx | Self::Clsact => "ebpf",
            Self::Packet => "packet",
        }
    }
}

/// Whether namespace tests can run; says so when not, and fails instead in CI.
pub(crate) fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "in CI this test must run as root");
    if !root {
        // Not by a macro, whose text the test runner keeps to itself.
        let _ = writeln!(io::stderr(), "SKIPPED: needs root for network namespaces and eBPF");
    }
    root
}

/// Waits for a condition.
#[expect(clippy::disallowed_methods, reason = "polls a condition, with a deadline")]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Three namespaces or more, and a folder.
pub(crate) struct Lab {
    pub(crate) plane: Plane,
    pub(crate) name: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Lab {
    /// Makes the chain.
    pub(crate) fn chain(plane: Plane) -> Self {
        let lab = Self::chain_ipv4(plane);
        for (role, interface, address) in [
            ("gen", "veth0", "fd00::1/64"),
            ("relay", "veth1", "fd00::2/64"),
            ("relay", "veth2", "fd00:0:0:1::1/64"),
            ("sink", "veth3", "fd00:0:0:1::2/64"),
        ] {
            lab.ip(role, &format!("address add {address} dev {interface} nodad"));
        }
        lab
    }

    /// The chain without addresses of IPv6.
    pub(crate) fn chain_ipv4(plane: Plane) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcrt-{}-{number}", std::process::id());
        let lab = Self { plane, name, folder: tempfile::tempdir().unwrap() };
        for role in ["gen", "relay", "sink"] {
            lab.add(role);
        }
        lab.veth(("gen", "veth0", "10.0.0.1/24"), ("relay", "veth1", "10.0.0.2/24"));
        lab.veth(("relay", "veth2", "10.0.1.1/24"), ("sink", "veth3", "10.0.1.2/24"));
        lab.ip("gen", "route add 224.0.0.0/4 dev veth0");
        lab
    }

    /// One more namespace.
    pub(crate) fn add(&self, role: &str) {
        run(Command::new("ip").args(["netns", "add", &self.namespace(role)]));
        self.ip(role, "link set lo up");
    }

    /// Joins two namespaces by a veth pair: role, interface, address of each end.
    pub(crate) fn veth(&self, a: (&str, &str, &str), b: (&str, &str, &str)) {
        let peer = self.namespace(b.0);
        self.ip(a.0, &format!("link add {} type veth peer name {} netns {peer}", a.1, b.1));
        for (role, interface, address) in [a, b] {
            self.ip(role, &format!("address add {address} dev {interface}"));
            self.ip(role, &format!("link set {interface} up"));
        }
        // The kernel starts an interface's queue some time after it is set up, when it gets to its
        // link events; until then it drops what is sent.
        for (role, interface, _) in [a, b] {
            wait_for(interface, || self.is_running(role, interface));
        }
    }

    /// Whether an interface takes packets to send.
    pub(crate) fn is_running(&self, role: &str, interface: &str) -> bool {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.namespace(role), "-o", "link", "show", "dev", interface]);
        String::from_utf8_lossy(&run(&mut ip).stdout).contains("state UP")
    }

    /// Whether a bridge port has got as far as to forward.
    pub(crate) fn bridge_port_forwards(&self, role: &str, port: &str) -> bool {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.namespace(role), "-d", "-o", "link", "show", "dev", port]);
        String::from_utf8_lossy(&run(&mut ip).stdout).contains("state forwarding")
    }

    /// What `ip` shows of an interface, with its counters.
    pub(crate) fn link(&self, role: &str, interface: &str) -> Value {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.namespace(role), "-s", "-j", "link", "show", "dev", interface]);
        serde_json::from_slice::<Value>(&run(&mut ip).stdout).unwrap()[0].clone()
    }

    pub(crate) fn namespace(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    /// `ip` in a namespace.
    pub(crate) fn ip(&self, role: &str, arguments: &str) {
        let arguments = arguments.split_whitespace();
        run(Command::new("ip").args(["-n", &self.namespace(role)]).args(arguments));
    }

    /// A setting of the kernel for a namespace: its path below /proc/sys, and the value.
    pub(crate) fn sysctl(&self, role: &str, path: &str, value: &str) {
        let write = format!("echo {value} > /proc/sys/{path}");
        run(self.command(role, "sh").args(["-c", &write]));
    }

    /// A file of /proc as a namespace has it.
    pub(crate) fn read(&self, role: &str, path: &str) -> String {
        String::from_utf8(run(self.command(role, "cat").arg(path)).stdout).unwrap()
    }

    /// Runs something in a namespace, on a thread of its own.
    pub(crate) fn inside<T: Send>(&self, role: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.namespace(role));
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                let namespace = File::open(path).unwrap();
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), network).unwrap();
                work()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command in a namespace. Not by `ip netns exec`, which hides the host's /sys/fs/bpf.
    pub(crate) fn command(&self, role: &str, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(role))).arg(program.as_ref());
        command
    }

    /// `AF_PACKET` sockets in a namespace.
    pub(crate) fn packet_sockets(&self, role: &str) -> usize {
        let output = run(self.command(role, "cat").arg("/proc/net/packet"));
        // The first line is the head of the table.
        String::from_utf8_lossy(&output.stdout).lines().skip(1).count()
    }

    /// What the kernel of a namespace has counted, by the name that `nstat` gives it.
    pub(crate) fn counter(&self, role: &str, name: &str) -> u64 {
        let output = run(self.command(role, "nstat").args(["-a", "-s", "-z", "-j", name]));
        let counters: Value = serde_json::from_slice(&output.stdout).unwrap();
        counters["kernel"][name].as_u64().unwrap_or_else(|| panic!("{name}: {counters}"))
    }

    /// A file with this text.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// `mcrd` for the relay's namespace, with the instance and these arguments alone.
    pub(crate) fn mcrd(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("relay", env!("CARGO_BIN_EXE_mcrd"));
        command.args(["--instance", &self.name]).args(arguments);
        command
    }

    /// A daemon with the plane of the lab that answers.
    pub(crate) fn daemon(&self, arguments: &[&str]) -> Daemon {
        self.daemon_as(&[self.plane.arguments(), arguments].concat())
    }

    /// A daemon with these arguments alone that answers.
    pub(crate) fn daemon_as(&self, arguments: &[&str]) -> Daemon {
        let log = self.folder.path().join("mcrd.log");
        let daemon = Daemon::start(self.mcrd(arguments), &self.name, log);
        wait_for(&format!("the daemon\n{}", daemon.log()), || daemon.ctl(&["status"]).is_ok());
        daemon
    }

    /// A daemon with the plane of the lab that may not come up.
    pub(crate) fn start_daemon(&self, arguments: &[&str]) -> Daemon {
        let command = self.mcrd(&[self.plane.arguments(), arguments].concat());
        Daemon::start(command, &self.name, self.folder.path().join("mcrd.log"))
    }

    /// A receiver in a namespace, ready to receive.
    pub(crate) fn receiver(&self, role: &str, arguments: &str) -> Receiver {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("receiver-{number}.json"));
        let mut command = self.command(role, sibling("mcrgen"));
        command.args(["recv", "--json"]).args(arguments.split_whitespace());
        Receiver::start(command, path)
    }

    /// What `tcpdump` says of the first packets on an interface that a filter takes.
    pub(crate) fn capture(&self, role: &str, interface: &str, count: u32, filter: &str) -> Capture {
        let mut command = self.command(role, "timeout");
        let seconds = DEADLINE.as_secs().to_string();
        // Short, so that many wait for room in its buffer; to a file, since nobody reads a pipe.
        command.args([&seconds, "tcpdump", "-i", interface, "-nn", "-vv", "--immediate-mode"]);
        command.args(["-s", "256", "-c", &count.to_string()]).args(filter.split(' '));
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("capture-{number}"));
        let capture = Background::capture(command.stdout(File::create(&path).unwrap()));
        Capture(capture, path)
    }

    /// Sends from a namespace; returns the sender's report.
    pub(crate) fn send_from(&self, role: &str, arguments: &str) -> Value {
        let mut command = self.command(role, sibling("mcrgen"));
        let output = run(command.args(["send", "--json"]).args(arguments.split_whitespace()));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Sends from the generator's namespace by `veth0`.
    pub(crate) fn send(&self, arguments: &str) -> Value {
        self.send_from("gen", &format!("--interface veth0 {arguments}"))
    }

    /// A sender that goes on until it is ended.
    pub(crate) fn sender(&self, arguments: &str) -> Background {
        let mut command = self.command("gen", sibling("mcrgen"));
        command.args(["send", "--json", "--interface", "veth0"]).args(arguments.split_whitespace());
        Background(Some(command.stdout(Stdio::piped()).spawn().unwrap()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        for name in names.filter(|name| name.starts_with(&self.namespace(""))) {
            // A process that is still in it would keep it alive unseen.
            let pids = Command::new("ip").args(["netns", "pids", &name]).output();
            let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            for pid in pids.unwrap_or_default().lines() {
                end(pid.trim().parse().ok(), Signal::KILL);
            }
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}

/// A running `mcrd`.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) instance: String,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn start(mut command: Command, instance: &str, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stderr(file).stdin(Stdio::null()).spawn().unwrap();
        Self { child, instance: instance.into(), log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        format!("/run/mcr/{}.sock", self.instance).into()
    }

    /// `mcrctl`: what it prints, or what it complains of.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(sibling("mcrctl"))
            .args(["--instance", &self.instance])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// `mcrctl` that must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.ctl(arguments).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{}", self.log()))
    }

    /// `mcrctl` that must be refused: what it says.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        match self.ctl(arguments) {
            Ok(said) => panic!("{arguments:?} was not refused: {said}"),
            Err(said) => said,
        }
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    /// The counters of a rule.
    pub(crate) fn stats(&self, name: &str) -> Value {
        self.json(&["stats", name, "--json"])["rules"][0].clone()
    }

    /// What an interface has passed on for a reason, once it is this much.
    pub(crate) fn passed(&self, interface: &str, reason: &str, packets: u64) -> u64 {
        let mut passed = 0;
        wait_for(&format!("{packets} packets passed on, {reason}"), || {
            let status = self.json(&["status", "--json"]);
            let mut interfaces = status["interfaces"].as_array().unwrap().iter();
            let here = interfaces.find(|found| found["name"] == interface).unwrap();
            passed = here["passed"][reason].as_u64().unwrap_or_default();
            passed >= packets
        });
        passed
    }

    /// Waits until a rule is in a state.
    pub(crate) fn wait_state(&self, name: &str, state: &str) {
        wait_for(&format!("{name} {state}\n{}", self.log()), || self.state(name).0 == state);
    }

    /// The counters of a rule that has received this many packets: a worker may count a moment
    /// after its packets are seen elsewhere.
    pub(crate) fn settled(&self, name: &str, packets: u64) -> Value {
        let mut stats = Value::Null;
        wait_for(&format!("{packets} packets of {name}"), || {
            stats = self.stats(name);
            stats["received"]["packets"].as_u64().unwrap() >= packets
        });
        stats
    }

    pub(crate) fn list(&self) -> Value {
        self.json(&["list", "--json"])["rules"].clone()
    }

    /// State of a rule, and why.
    pub(crate) fn state(&self, name: &str) -> (String, String) {
        let view = self.json(&["list", name, "--json"])["rules"][0].clone();
        let text = |field: &str| view[field].as_str().unwrap_or_default().to_owned();
        (text("state"), text("reason"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        end(Some(self.pid()), signal);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("end of mcrd", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// A clean stop.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert!(self.wait().success(), "{}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        self.signal(Signal::TERM);
        let _ = self.child.wait();
    }
}

pub(crate) fn end(pid: Option<u32>, signal: Signal) {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    // It may have ended by itself.
    let _ = pid.map(|pid| kill_process(pid, signal));
}

/// Another program of the workspace, built into the same folder.
pub(crate) fn sibling(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_mcrd")).with_file_name(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --bins --examples` first",
        path.display()
    );
    path
}

/// A command that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    output
}
