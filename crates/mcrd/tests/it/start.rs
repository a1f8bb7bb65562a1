//! How a daemon comes up, what keeps it from coming up, and what it leaves behind.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::lab::{Daemon, Lab, Plane, can_run, run, wait_for};

pub(crate) const RULE: &str = "[[rule]]\nname = \"a\"\ninput = \"239.1.1.1:5001@veth1\"\noutputs = \
                    [\"239.10.1.1:6001@veth2\"]\n";
pub(crate) const RECEIVED: &str = "--interface veth3 --group 239.10.1.1 --port 6001";
pub(crate) const SENT: &str = "--group 239.1.1.1 --port 5001 --size 100";

/// A daemon that must not come up: what it says. It leaves nothing behind.
pub(crate) fn refused(lab: &Lab, command: &mut Command, fragments: &[&str]) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{command:?}: {said}");
    for fragment in fragments {
        assert!(said.contains(fragment), "{command:?}\nlacks {fragment:?}: {said}");
    }
    nothing_is_left(&lab.name);
    said
}

/// A daemon attached in that way, of the plane that it takes by itself.
pub(crate) fn attached(lab: &Lab, attach: &str, arguments: &[&str]) -> Daemon {
    lab.daemon_as(&[&["--attach", attach], arguments].concat())
}

pub(crate) fn pins(instance: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/mcr").join(instance)
}

/// The files of an instance in /run/mcr.
fn files(instance: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/run/mcr").into_iter().flatten().flatten();
    let start = format!("{instance}.");
    let ours = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&start);
    entries.map(|entry| entry.path()).filter(ours).collect()
}

/// Removes what a test leaves when it fails.
pub(crate) struct Traces(String);

impl Drop for Traces {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(pins(&self.0));
        for file in files(&self.0) {
            let _ = fs::remove_file(file);
        }
    }
}

pub(crate) fn lab() -> Option<(Lab, Traces)> {
    can_run().then(|| traced(Plane::Tcx))
}

pub(crate) fn traced(plane: Plane) -> (Lab, Traces) {
    let lab = Lab::chain(plane);
    let traces = Traces(lab.name.clone());
    (lab, traces)
}

pub(crate) fn nothing_is_left(instance: &str) {
    assert!(!pins(instance).exists(), "{} is left", pins(instance).display());
    assert_eq!(files(instance), Vec::<PathBuf>::new(), "left");
}

/// Nothing that is sent comes out any more.
pub(crate) fn nothing_is_relayed(lab: &Lab) {
    let receiver = lab.receiver("sink", &format!("{RECEIVED} --expect 1 --wait-first 500ms"));
    lab.send(&format!("{SENT} --rate 1000 --count 100"));
    assert_eq!(receiver.report()["received"], 0);
}

/// Whether an interface of the relay has a clsact qdisc.
pub(crate) fn has_clsact(lab: &Lab, interface: &str) -> bool {
    let mut tc = lab.command("relay", "tc");
    let output = run(tc.args(["qdisc", "show", "dev", interface]));
    String::from_utf8_lossy(&output.stdout).contains("clsact")
}

/// Where those without privileges can read and execute.
fn public(lab: &Lab) -> PathBuf {
    let program = lab.folder.path().join("mcrd-copy");
    fs::copy(env!("CARGO_BIN_EXE_mcrd"), &program).unwrap();
    for path in [lab.folder.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    program
}

fn nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
}

/// `mcrd` without CAP_NET_RAW; arguments may follow.
pub(crate) fn without_raw_sockets(lab: &Lab) -> Command {
    let mut command = lab.command("relay", "setpriv");
    command.args(["--bounding-set=-net_raw", "--inh-caps=-all", env!("CARGO_BIN_EXE_mcrd")]);
    command.args(["--instance", &lab.name]);
    command
}

/// Runs it where bpf(2) is not there, as in a kernel without eBPF.
pub(crate) fn without_bpf<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    filtered(libc::SYS_bpf, Vec::new(), libc::ENOSYS, run)
}

/// Runs it where no process can renounce privileges, so that no worker gets ready.
pub(crate) fn without_workers<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let option = u64::from(libc::PR_SET_NO_NEW_PRIVS.cast_unsigned());
    let (length, operator) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
    let condition = SeccompCondition::new(0, length, operator, option).unwrap();
    let rule = SeccompRule::new(vec![condition]).unwrap();
    filtered(libc::SYS_prctl, vec![rule], libc::EPERM, run)
}

/// Runs it where a system call fails.
fn filtered<T: Send>(
    call: libc::c_long,
    rules: Vec<SeccompRule>,
    error: libc::c_int,
    run: impl FnOnce() -> T + Send,
) -> T {
    let filter = SeccompFilter::new(
        [(call, rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(error.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    // The filter is of this thread and of what it starts.
    let filtered = || {
        seccompiler::apply_filter(&program).unwrap();
        run()
    };
    std::thread::scope(|scope| scope.spawn(filtered).join().unwrap())
}

#[test]
fn check_needs_no_privileges() {
    let Some((lab, _traces)) = lab() else { return };
    let program = public(&lab);
    for (text, code, fragment) in [
        (RULE.to_owned(), 0, "no mistakes found"),
        (RULE.replace("239.1", "224.0.0"), 1, "mcr.toml:1:1: "),
        (format!("{RULE}colour = 1\n"), 1, "mcr.toml:5:1: "),
    ] {
        let file = lab.file("mcr.toml", &text);
        let mut command = nobody();
        command.arg(&program).args(["--instance", &lab.name, "--check", "--config"]).arg(file);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}: {said}");
        assert!(said.contains(fragment), "{text}\nlacks {fragment:?}: {said}");
        nothing_is_left(&lab.name);
    }
}

#[test]
fn without_privileges_it_names_the_capabilities() {
    let Some((lab, _traces)) = lab() else { return };
    let program = public(&lab);
    let mut root = Command::new("setpriv");
    root.args(["--bounding-set=-all", "--inh-caps=-all"]);
    for mut command in [root, nobody()] {
        command.arg(&program).args(["--instance", &lab.name]);
        refused(&lab, &mut command, &["CAP_BPF", "CAP_NET_ADMIN", "run mcrd as root"]);
    }
}

#[test]
fn without_bpf_it_says_so() {
    let Some((lab, _traces)) = lab() else { return };
    without_bpf(|| {
        let fragments = ["does not run eBPF", "CONFIG_BPF_SYSCALL"];
        refused(&lab, &mut lab.mcrd(&["--dataplane", "ebpf"]), &fragments);
        let mut command = without_raw_sockets(&lab);
        let both = ["no data plane can run here; ebpf: ", "; packet: ", "CAP_NET_RAW"];
        refused(&lab, &mut command, &[&both[..], &fragments].concat());
    });
}

#[test]
fn what_stands_in_the_way_is_refused_and_kept() {
    let Some((lab, _traces)) = lab() else { return };
    let missing = lab.folder.path().join("none.toml");
    let missing = missing.to_str().unwrap();
    refused(&lab, &mut lab.mcrd(&["--config", missing]), &["cannot read", missing]);

    let plain = lab.file("plain.sock", "kept");
    let text = plain.to_str().unwrap();
    refused(&lab, &mut lab.mcrd(&["--socket", text]), &[text, "is no socket"]);
    assert_eq!(fs::read_to_string(&plain).unwrap(), "kept");

    let live = lab.folder.path().join("live.sock");
    let _listener = UnixListener::bind(&live).unwrap();
    let text = live.to_str().unwrap();
    refused(&lab, &mut lab.mcrd(&["--socket", text]), &[text, "another daemon listens"]);
    assert!(UnixStream::connect(&live).is_ok());
}

pub(crate) fn the_socket_of_a_dead_daemon_is_replaced(plane: Plane) {
    let (lab, _traces) = traced(plane);
    fs::create_dir_all("/run/mcr").unwrap();
    let socket = PathBuf::from(format!("/run/mcr/{}.sock", lab.name));
    drop(UnixListener::bind(&socket).unwrap());
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let mut daemon = lab.daemon(&[]);
    let metadata = fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    daemon.stop();
    nothing_is_left(&lab.name);
}

pub(crate) fn the_status_names_the_plane(plane: Plane) {
    let (lab, _traces) = traced(plane);
    let config = lab.file("mcr.toml", RULE);
    let mut daemon = lab.daemon(&["--config", config.to_str().unwrap()]);
    let status = daemon.json(&["status", "--json"]);
    assert_eq!(status["plane"], plane.name(), "{status}");
    match plane {
        Plane::Tcx => assert_eq!(status["attach"], "tcx", "{status}"),
        Plane::Clsact => assert_eq!(status["attach"], "clsact", "{status}"),
        Plane::Packet => {}
    }
    assert_eq!(pins(&lab.name).exists(), plane != Plane::Packet);
    assert_eq!(has_clsact(&lab, "veth1"), plane == Plane::Clsact);
    daemon.stop();
    nothing_is_left(&lab.name);
}

#[test]
fn more_rules_than_the_limits_are_refused_before_anything_is_touched() {
    let Some((lab, _traces)) = lab() else { return };
    let config = lab.file("mcr.toml", RULE);
    let path = config.to_str().unwrap();
    let mut daemon = attached(&lab, "auto", &["--config", path]);
    daemon.ok(&["add", "239.1.2.1:5002@veth1", "239.10.2.1:6002@veth2", "--name", "r"]);
    daemon.signal(Signal::KILL);
    daemon.wait();
    let more = RULE.replace("\"a\"", "\"b\"").replace("239.1.1.1", "239.1.1.2");
    lab.file("mcr.toml", &format!("[limits]\nmax_rules = 1\n{RULE}{more}"));
    for arguments in [&["--config", path][..], &["--config", path, "--check"]] {
        let output = lab.mcrd(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("2 rules") && said.contains("max_rules"), "{said}");
    }
    let receiver = lab.receiver("sink", &format!("{RECEIVED} --expect 200 --wait-first 2s"));
    lab.send(&format!("{SENT} --rate 1000 --count 200"));
    receiver.lossless(200);
    lab.file("mcr.toml", RULE);
    let daemon = attached(&lab, "auto", &["--config", path]);
    assert_eq!(daemon.state("r").0, "idle");
}

#[test]
fn only_a_qdisc_of_its_own_is_removed() {
    for foreign in [false, true] {
        let Some((lab, _traces)) = lab() else { return };
        if foreign {
            let mut tc = lab.command("relay", "tc");
            run(tc.args(["qdisc", "add", "dev", "veth1", "clsact"]));
        }
        let config = lab.file("mcr.toml", RULE);
        let mut daemon = attached(&lab, "clsact", &["--config", config.to_str().unwrap()]);
        assert!(has_clsact(&lab, "veth1"));
        daemon.stop();
        assert_eq!(has_clsact(&lab, "veth1"), foreign);
        nothing_is_left(&lab.name);
        nothing_is_relayed(&lab);
    }
}

/// Started before, on the same interface, by somebody whose pins nobody sees.
fn refuse_hidden(attach: &str) {
    let Some((lab, _traces)) = lab() else { return };
    let hidden = format!("{}-hidden", lab.name);
    // This has a /sys of its own.
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace("relay"), env!("CARGO_BIN_EXE_mcrd")]);
    command.args(["--instance", &hidden, "--attach", attach]);
    let mut hidden = Daemon::start(command, &hidden, lab.folder.path().join("hidden.log"));
    wait_for("the hidden daemon", || hidden.ctl(&["status"]).is_ok());
    hidden.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2"]);
    let mut daemon = attached(&lab, attach, &[]);
    let add = ["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2"];
    let said = daemon.refused(&add);
    for fragment in ["veth1", "no instance on this host has pinned it", "twice"] {
        assert!(said.contains(fragment), "lacks {fragment:?}: {said}");
    }
    assert_eq!(daemon.list(), serde_json::json!([]));
    hidden.stop();
    daemon.ok(&add);
    daemon.stop();
}

#[test]
fn a_program_of_ours_that_nobody_accounts_for_is_refused() {
    refuse_hidden("tcx");
}

#[test]
fn with_clsact_too_a_program_that_nobody_accounts_for_is_refused() {
    refuse_hidden("clsact");
}

/// A signal that comes while the daemon starts is obeyed like any other.
pub(crate) fn a_signal_at_any_moment_of_the_start_leaves_nothing(plane: Plane) {
    let lab = Lab::chain(plane);
    let lock = format!("/run/mcr/{}.lock", lab.name);
    for turn in 0..20 {
        let mut daemon = lab.start_daemon(&[]);
        // From the first file that it makes on, at moments that differ by chance.
        wait_for("the lock", || Path::new(&lock).exists());
        daemon.signal(if turn % 2 == 0 { Signal::INT } else { Signal::TERM });
        assert!(daemon.wait().success(), "{}", daemon.log());
        assert!(!Path::new(&lock).exists() && !daemon.socket().exists(), "turn {turn}");
        assert!(!Path::new(&format!("/sys/fs/bpf/mcr/{}", lab.name)).exists(), "turn {turn}");
    }
}
