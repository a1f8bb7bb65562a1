//! `mcrctl capture`, with tcpdump as the judge of what it writes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use rustix::process::Signal;

use crate::forwarding::sums;
use crate::lab::{Daemon, Lab, Plane, can_run, end, run, sibling, wait_for};
use crate::traffic::Background;

const GEN: &str = "--group 239.1.1.1 --port 5001";
const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";

/// A running `mcrctl capture`.
struct Capturing {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
}

/// How it has ended.
struct Ended {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Capturing {
    /// Starts it, and waits until nothing can be missed any more.
    fn start(daemon: &Daemon, arguments: &str) -> Self {
        let mut command = Command::new(sibling("mcrctl"));
        command.args(["--instance", &daemon.instance, "capture"]).args(arguments.split(' '));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        assert!(line.contains("capturing"), "{arguments}: {line}\n{}", daemon.log());
        Self { child, errors }
    }

    /// Waits until it has ended by itself.
    fn finish(mut self) -> Ended {
        wait_for("end of the capture", || self.child.try_wait().unwrap().is_some());
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap_or_default();
        Ended { code: output.status.code(), output: text, errors }
    }

    fn stop(self, signal: Signal) -> Ended {
        end(Some(self.child.id()), signal);
        self.finish()
    }
}

fn path(lab: &Lab, name: &str) -> PathBuf {
    lab.folder.path().join(name)
}

/// What tcpdump makes of a file: a line a packet, or two with the headers.
fn tcpdump(file: &Path) -> String {
    let output = run(Command::new("tcpdump").args(["-nn", "-v", "-r"]).arg(file));
    String::from_utf8(output.stdout).unwrap()
}

/// TTL and UDP payload of each packet of a file.
fn payloads(file: &Path) -> Vec<(u8, Vec<u8>)> {
    let bytes = fs::read(file).unwrap();
    let (mut rest, mut all) = (&bytes[24..], Vec::new());
    while let Some((head, more)) = rest.split_at_checked(16) {
        let kept = u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize;
        let (frame, more) = more.split_at(kept);
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("{frame:02x?}") };
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("{frame:02x?}") };
        all.push((ip.header().ttl(), udp.payload().to_vec()));
        rest = more;
    }
    assert!(rest.is_empty(), "half a packet");
    all
}

/// A rule among others that are much like it; its neighbours run at the same time.
pub(crate) fn both_sides_have_what_was_sent_and_received(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    let daemon = lab.daemon(&[]);
    for (input, output, name) in [
        ("239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "a"),
        ("239.1.1.1:5002@veth1", "239.10.1.1:6002@veth2", "port"),
        ("239.1.1.0/24:5001@veth1", "239.10.2.0/24:6001@veth2", "range"),
    ] {
        daemon.ok(&["add", input, output, "--name", name]);
    }
    let files = ["in", "out", "range"].map(|name| path(&lab, name));
    let [at_in, at_out, of_range] = ["a --in", "a --out", "range --in"]
        .into_iter()
        .zip(&files)
        .map(|(what, file)| Capturing::start(&daemon, &format!("{what} -w {}", file.display())))
        .collect::<Vec<_>>()
        .try_into()
        .unwrap_or_else(|_| panic!("three"));
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 500"));
    let others = [
        lab.sender("--group 239.1.1.1 --port 5002 --rate 200 --count 100"),
        lab.sender("--group 239.1.1.2 --port 5001 --rate 200 --count 100"),
        // To the same group, by somebody else.
        lab.sender("--group 239.10.1.1 --port 6001 --rate 200 --count 100"),
    ];
    lab.send(&format!("{GEN} --rate 1000 --count 500 --size 300"));
    receiver.lossless(500);
    others.into_iter().for_each(Background::finish);
    sums(&daemon.settled("a", 500), 0, 500);
    daemon.settled("range", 100);
    for (capturing, count) in [(at_in, 500), (at_out, 500), (of_range, 100)] {
        let ended = capturing.stop(Signal::INT);
        assert_eq!((ended.code, ended.output.as_str()), (Some(0), ""), "{}", ended.errors);
        assert_eq!(ended.errors, format!("{count} captured, 0 missed\n"));
    }
    for (file, flow, count) in
        [(&files[0], "10.0.0.1", 500), (&files[1], "10.0.1.1", 500), (&files[2], "10.0.0.1", 100)]
    {
        let text = tcpdump(file);
        assert_eq!(text.matches(&format!(" {flow}.")).count(), count, "{text}");
        assert_eq!(text.matches("proto UDP").count(), count);
    }
    let text = tcpdump(&files[1]);
    assert_eq!(text.matches("> 239.10.1.1.6001").count(), 500);
    // The payloads have sequence numbers.
    let (came, left) = (payloads(&files[0]), payloads(&files[1]));
    assert!(came.iter().all(|(ttl, payload)| (*ttl, payload.len()) == (8, 300)));
    assert!(left.iter().all(|(ttl, _)| *ttl == 32));
    assert!(came.iter().map(|(_, payload)| payload).eq(left.iter().map(|(_, payload)| payload)));
}

pub(crate) fn fragments_are_captured_and_an_output_alone(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    let daemon = lab.daemon(&[]);
    let outputs = ["239.10.1.1:6001@veth2", "239.10.1.2:6002@veth2", "10.0.1.2:6003@veth2"];
    daemon.ok(&[&["add", "239.1.1.1:5001@veth1"], &outputs[..], &["--name", "a"]].concat());
    daemon.wait_state("a", "idle");
    let files = ["in", "host"].map(|name| path(&lab, name));
    // 40 datagrams of 3 parts; the last of what is counted is no whole datagram.
    let at_in = Capturing::start(&daemon, &format!("a --in --count 100 -w {}", files[0].display()));
    let to_host =
        format!("a --out --output 10.0.1.2:6003@veth2 --snap 64 -w {}", files[1].display());
    let to_host = Capturing::start(&daemon, &to_host);
    let all = Capturing::start(&daemon, "a --out");
    lab.send(&format!("{GEN} --rate 200 --count 40 --size 4000"));
    daemon.settled("a", 120);
    let at_in = at_in.finish();
    assert_eq!((at_in.code, at_in.errors.as_str()), (Some(0), "100 captured, 0 missed\n"));
    let text = tcpdump(&files[0]);
    assert_eq!(text.matches("> 239.1.1.1").count(), 100, "{text}");
    let to_host = to_host.stop(Signal::TERM);
    assert_eq!((to_host.code, to_host.errors.as_str()), (Some(0), "120 captured, 0 missed\n"));
    assert_eq!(fs::metadata(&files[1]).unwrap().len(), 24 + 120 * (16 + 64));
    assert_eq!(tcpdump(&files[1]).matches("> 10.0.1.2").count(), 120);
    let all = all.stop(Signal::INT);
    assert_eq!(all.errors, "360 captured, 0 missed\n", "{}", all.output);
    let lines: Vec<&str> = all.output.lines().collect();
    assert_eq!(lines.len(), 360);
    let of = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(of("> 239.10.1.2:6002 fragment, length 1472, ttl 32"), 40, "{}", lines[0]);
    assert_eq!(of("10.0.1.1 > 239.10.1.2 fragment, length "), 80, "{}", lines[1]);
}

/// What ends it, beside its user; on one plane.
#[test]
fn a_capture_ends_with_a_reason() {
    if !can_run() {
        return;
    }
    let lab = Lab::chain_ipv4(Plane::Tcx);
    let daemon = lab.daemon(&[]);
    for name in ["gone", "changed", "a"] {
        let port = 5001 + name.len();
        let (input, output) = (format!("239.1.1.1:{port}@veth1"), "239.10.1.1:6001@veth2");
        daemon.ok(&["add", &input, output, "--name", name]);
    }
    let [gone, changed] =
        ["gone --in", "changed --out"].map(|what| Capturing::start(&daemon, what));
    daemon.ok(&["remove", "gone"]);
    daemon.ok(&["set", "changed", "--output", "239.10.1.9:6001@veth2"]);
    let (gone, changed) = (gone.finish(), changed.finish());
    assert_eq!((gone.code, changed.code), (Some(1), Some(1)));
    assert!(gone.errors.starts_with("0 captured, 0 missed\nmcrctl: mcrd has ended the capture: "));
    assert!(gone.errors.contains("there is no rule gone\n  hint: "), "{}", gone.errors);
    assert!(changed.errors.contains("capture: rule changed was changed\n"), "{}", changed.errors);
    // By time; a reader that has seen enough; a disk that is full.
    let timed = Capturing::start(&daemon, "a --in --duration 50ms").finish();
    assert_eq!((timed.code, timed.errors.as_str()), (Some(0), "0 captured, 0 missed\n"));
    let mut closed = Capturing::start(&daemon, "a --in -w -");
    drop(closed.child.stdout.take());
    let counted = Capturing::start(&daemon, "a --in --json --count 2");
    let sender = lab.sender("--group 239.1.1.1 --port 5002 --rate 100");
    assert_eq!(closed.finish().code, Some(0));
    let counted = counted.finish();
    assert_eq!(
        (counted.code, counted.errors.as_str()),
        (Some(0), "{\"captured\":2,\"missed\":0}\n")
    );
    let packets: Vec<serde_json::Value> =
        counted.output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(packets.len(), 2);
    assert_eq!(
        (&packets[1]["destination"], &packets[1]["ttl"]),
        (&"239.1.1.1:5002".into(), &8.into())
    );
    let refused = daemon.refused(&["capture", "a", "--in", "-w", "/dev/full"]);
    assert!(refused.contains("cannot write /dev/full: No space left on device"), "{refused}");
    // Without mcrctl, and without its manners.
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    write!(stream, "GET /v1/rules/a/capture?side=in HTTP/1.1\r\nhost: mcrd\r\n\r\n").unwrap();
    let mut reply = Vec::new();
    wait_for("the beginning of a file", || {
        let mut piece = [0; 1000];
        let length = stream.read(&mut piece).unwrap();
        reply.extend_from_slice(&piece[..length]);
        reply.windows(4).any(|word| word == [0x4d, 0x3c, 0xb2, 0xa1])
    });
    drop((stream, sender));
    // The daemon has one of its own, which listens for queries.
    wait_for("no tap of a capture", || lab.packet_sockets("relay") == 1);
    let last = Capturing::start(&daemon, "a --in");
    drop(daemon);
    let last = last.finish();
    assert_eq!(last.code, Some(1));
    assert!(last.errors.contains("0 captured\nmcrctl: mcrd has broken"), "{}", last.errors);
}

/// What is refused, before anything is written; on one plane.
#[test]
fn a_capture_that_cannot_be_is_refused_with_what_to_do() {
    if !can_run() {
        return;
    }
    let lab = Lab::chain_ipv4(Plane::Tcx);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    daemon.ok(&["add", "239.1.1.1:5002@eth9", "239.10.1.1:6002@veth2", "--name", "b", "--wait"]);
    daemon.ok(&["add", "239.1.1.1:5003@veth1", "239.10.1.1:6003@veth2", "--name", "c"]);
    daemon.ok(&["disable", "c"]);
    let file = lab.file("kept", "as it was");
    let file = file.to_str().unwrap();
    for (arguments, said) in [
        (&["nosuch", "--in"][..], "there is no rule nosuch\n  hint: `mcrctl list`"),
        (&["b", "--in"], "rule b is waiting, so it has no packets: input 239.1.1.1:5002@eth9"),
        (&["c", "--out"], "rule c is disabled: it has no packets\n  hint: enable it first"),
        (
            &["a", "--out", "--output", "239.10.1.2:6001@veth2"],
            "rule a has no output 239.10.1.2:6001@veth2\n  hint: it has 239.10.1.1:6001@veth2",
        ),
        (&["a", "--out", "--output", "nonsense"], "nonsense"),
        (&["a"], "<--in|--out>"),
        (&["a", "--in", "--out"], "cannot be used with"),
        (&["a", "--in", "--output", "239.10.1.1:6001@veth2"], "cannot be used with"),
        (&["a", "--in", "--count", "0"], "0 is not in 1.."),
        (&["a", "--in", "--snap", "10"], "10 is not in 64..=262144"),
    ] {
        let refused = daemon.refused(&[&["capture"], arguments, &["-w", file]].concat());
        assert!(refused.contains(said), "{arguments:?}: {refused}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "as it was");
    let missing = daemon.refused(&["capture", "a", "--in", "-w", "/no/such/folder/file"]);
    assert!(missing.contains("cannot write /no/such/folder/file: No such file"), "{missing}");
    for (query, said) in [
        ("", "a capture needs a side"),
        ("?side=up", "a capture has no side"),
        ("?side=in&output=239.10.1.1:6001@veth2", "has no output"),
        ("?side=in&snap=10", "snap 10 is out of range"),
        ("?side=in&count=10", "unknown field `count`"),
    ] {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        let page = format!("/v1/rules/a/capture{query}");
        write!(stream, "GET {page} HTTP/1.1\r\nhost: mcrd\r\nconnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.contains(said) && reply.contains("HTTP/1.1 4"), "{query}: {reply}");
    }
    let running: Vec<_> = (0..16).map(|_| Capturing::start(&daemon, "a --in")).collect();
    let refused = daemon.refused(&["capture", "a", "--in"]);
    assert!(refused.contains("16 captures run already"), "{refused}");
    for capturing in running {
        assert_eq!(capturing.stop(Signal::INT).errors, "0 captured, 0 missed\n");
    }
    Capturing::start(&daemon, "a --in").stop(Signal::INT);
    assert_eq!(daemon.ok(&["capture", "a", "--out", "--duration", "1ms"]), "");
}
