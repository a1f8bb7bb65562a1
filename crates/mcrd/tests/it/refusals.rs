//! Bad input gets a clear error and changes nothing: every test has a stream that runs meanwhile,
//! and compares rules, generation and counters.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Daemon, Lab, Plane, run};
use crate::traffic::{Background, Receiver};

/// Method, page and body; status, code and fragments of the reply.
type Asked<'a> = (&'a str, &'a str, &'a str, u16, &'a str, &'a [&'a str]);

/// A relay with a stream through it, and what its rules were like.
struct Relay {
    stream: Option<(Background, Receiver)>,
    before: (Value, Vec<Value>),
    daemon: Daemon,
    lab: Lab,
}

impl Relay {
    fn start(plane: Plane, rules: &[&str]) -> Self {
        let lab = Lab::chain(plane);
        let daemon = lab.daemon(&[]);
        daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
        for rule in rules {
            daemon.ok(&rule.split(' ').collect::<Vec<_>>());
        }
        let sink = "--interface veth3 --group 239.10.1.1 --port 6001 --idle 1s";
        let receiver = lab.receiver("sink", sink);
        let sender = lab.sender("--group 239.1.1.1 --port 5001 --rate 500 --size 100");
        daemon.ok(&["wait", "a", "--for", "forwarding"]);
        let before = picture(&daemon);
        Self { stream: Some((sender, receiver)), before, daemon, lab }
    }

    /// Nothing is another than it was.
    fn unchanged(&self, after: &str) {
        assert_eq!(picture(&self.daemon), self.before, "after {after}");
    }

    /// Nor has the stream lost a packet.
    fn end(mut self) {
        self.unchanged("all");
        let (sender, receiver) = self.stream.take().unwrap();
        let sent: Value = serde_json::from_slice(&sender.stop().stdout).unwrap();
        let report = receiver.report();
        assert_eq!(report["received"], sent["sent"], "{report}");
        assert_eq!(report["duplicated"], 0, "{report}");
        let stats = self.daemon.settled("a", sent["sent"].as_u64().unwrap());
        assert_eq!(stats["matched"]["packets"], sent["sent"], "{stats}");
        assert_eq!(stats["outputs"][0]["forwarded"]["packets"], sent["sent"], "{stats}");
        self.daemon.stop();
    }

    fn ask(&self, method: &str, page: &str, body: &str) -> (u16, Value) {
        self.ask_with(method, page, "", body)
    }

    /// Each header ends with a line end.
    fn ask_with(&self, method: &str, page: &str, headers: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let head = format!("{method} {page} HTTP/1.1\r\nhost: mcrd\r\n{headers}");
        self.exchange(&format!("{head}content-length: {length}\r\n\r\n"), &[body.as_bytes()])
    }

    /// Sends it piece by piece for as long as the daemon takes it; status and body of the reply.
    fn exchange(&self, head: &str, pieces: &[&[u8]]) -> (u16, Value) {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let _ = pieces.iter().try_for_each(|piece| stream.write_all(piece));
        let mut reader = std::io::BufReader::new(stream);
        let (mut reply, mut part) = (Vec::new(), [0; 4096]);
        loop {
            // The connection may stay open behind the reply.
            if let Some(answer) = whole(&String::from_utf8_lossy(&reply)) {
                return answer;
            }
            let count = reader.read(&mut part).unwrap();
            assert!(count > 0, "{head}: broke off: {}", String::from_utf8_lossy(&reply));
            reply.extend_from_slice(&part[..count]);
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

/// The rules with their states, the generation, and of the counters what must stay.
fn picture(daemon: &Daemon) -> (Value, Vec<Value>) {
    let stats = daemon.json(&["stats", "--json"])["rules"].as_array().unwrap().clone();
    let stay = |rule: &Value| {
        let outputs = rule["outputs"].as_array().unwrap().iter();
        let outputs: Vec<Value> =
            outputs.map(|o| json!([o["to"], o["since"], o["dropped"]])).collect();
        json!([rule["name"], rule["since"], rule["dropped"], outputs])
    };
    (daemon.json(&["list", "--json"]), stats.iter().map(stay).collect())
}

/// Status and body, once all of it is there.
fn whole(reply: &str) -> Option<(u16, Value)> {
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let body = serde_json::from_str(body).ok()?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body))
}

fn contains(said: &str, fragments: &[&str], of: &str) {
    for fragment in fragments {
        assert!(said.contains(fragment), "{of}\nlacks {fragment:?}: {said}");
    }
}

pub(crate) fn add_refuses_with_a_message_and_a_hint(plane: Plane) {
    let relay = Relay::start(
        plane,
        &[
            "add 239.2.2.2:5002@veth2 keep@239.1.1.9:5009@veth1 --name ring",
            "add 239.3.3.3:5003@lo 10.99.0.1@239.3.3.4:5004@lo --name loop",
        ],
    );
    relay.lab.ip("relay", "link add down0 type veth peer name down1");
    relay.lab.ip("relay", "address add 10.9.0.1/24 dev down0");
    relay.lab.ip("relay", "link add bare0 type veth peer name bare1");
    relay.lab.ip("relay", "link set bare0 up");
    relay.lab.ip("relay", "link set bare1 up");
    let many: Vec<String> = (1..=65).map(|k| format!("239.11.1.{k}:{}@veth2", 7000 + k)).collect();
    let many = format!("239.5.5.5:5000@veth1 {}", many.join(" "));
    let cases: &[(&str, &[&str])] = &[
        ("239.5.5.5:5000@eth9 239.6.6.6:6000@veth2", &["no interface eth9", "ip link"]),
        ("239.5.5.5:5000@veth1 239.6.6.6:6000@eth9", &["no interface eth9", "239.6.6.6:6000"]),
        ("239.5.5.5:5000@eth0.10@eth0 239.6.6.6:6000@veth2", &["'@'", "write eth0.10 alone"]),
        ("239.5.5.5:5000@veth1 239.6.6.6:6000@eth0.10@eth0", &["'@'", "write eth0.10 alone"]),
        ("udp://@239.5.5.5:5000 239.6.6.6:6000@veth2", &["URL", "write 239.5.5.5:5000"]),
        ("239.5.5.5%veth1:5000 239.6.6.6:6000@veth2", &["zone", "leave out %veth1", "@veth1"]),
        ("239.5.5.5:5000@* 239.6.6.6:6000@veth2", &["wildcard"]),
        ("239.5.5.5:5000@veth1 239.6.6.6:6000@down0", &["down0 is down", "ip link set down0 up"]),
        ("239.5.5.5:5000@down0 239.6.6.6:6000@veth2", &["down0 is down", "ip link set down0 up"]),
        ("239.5.5.5:5000@veth1 239.6.6.6:6000@bare0", &["bare0 has no IPv4 address", "add one"]),
        ("10.0.0.9:5000@veth1 239.6.6.6:6000@veth2", &["10.0.0.9 is no address of this host"]),
        ("239.5.5.5:5000@veth1 10.99.0.1:6000", &["no route to 10.99.0.1", "ip route get"]),
        ("239.5.5.5:5000@veth1 10.99.0.1:6000@veth2", &["no route to 10.99.0.1"]),
        ("239.5.5.5:5000@veth1 127.0.0.1:6000", &["martian"]),
        ("239.5.5.5:5000@veth1 [ff3e::2]:6000@veth2", &["different families", "one family"]),
        ("[ff15::1]:5000@veth1 10.0.1.2:6000", &["different families", "not translate"]),
        ("fd00::9@239.5.5.5:5000@veth1 239.6.6.6:6000@veth2", &["different families"]),
        ("239.5.5.5:5000@veth1 fd00::9@239.6.6.6:6000@veth2", &["different families"]),
        ("10.0.0.1@10.0.0.2:5000@veth1 239.6.6.6:6000@veth2", &["source list on a unicast input"]),
        ("239.9.9.9@239.5.5.5:5000@veth1 239.6.6.6:6@veth2", &["not the address of a sender"]),
        ("239.5.5.0/24:5000@veth1 239.6.0.0/23:6000@veth2", &["different sizes", "prefix length"]),
        ("239.5.5.0/24:5000@veth1 239.6.6.6:6000@veth2", &["different sizes", "one to one"]),
        ("239.5.5.5:5000-5009@veth1 239.6.6.6:6000-6010@veth2", &["different sizes", "port range"]),
        ("239.5.5.5:5000-5009@veth1 239.6.6.6:6000@veth2", &["different sizes"]),
        ("239.5.5.1/24:5000@veth1 239.6.6.0/24:6000@veth2", &["host bits", "239.5.5.0/24"]),
        ("224.0.0.0/3:5000@veth1 224.0.0.0/3:6000@veth2 --join no", &["groups are 224.0.0.0"]),
        ("10.0.0.0/24:5000@veth1 239.6.6.0/24:6000@veth2", &["range of unicast addresses"]),
        ("224.0.0.0/16:5000@veth1 239.6.0.0/16:6000@veth2 --join no", &["link-local", "never"]),
        ("239.5.5.5:65530-65536@veth1 239.6.6.6@veth2", &["65536", "1 to 65535"]),
        ("239.5.5.5:5009-5000@veth1 239.6.6.6@veth2", &["5009"]),
        ("239.0.0.0/8:5000@veth1 225.0.0.0/8:5000@veth2", &["16777216 joins", "join = \"no\""]),
        ("10.0.0.2:1000-1999@veth1 10.0.1.2", &["1000 ports", "256 are the most"]),
        ("[ff02::fb]:5353@veth1 [ff15::1]:5353@veth2", &["ff02::fb", "link-local", "never"]),
        ("[ff02::/16]:5353@veth1 [ff15::/16]:5353@veth2", &["ff02::/16"]),
        ("[ff02::]/16:5353@veth1 [ff15::]/16:5353@veth2 --join no", &["link-local", "never"]),
        ("[ff00::]/8:5353@veth1 [ff00::]/8:5353@veth2 --join no", &["link-local"]),
        ("ff15::1:5000@veth1 [ff15::2]:5000@veth2", &["IPv6 without brackets", "brackets"]),
        ("[ff15::1%veth2]:5000@veth1 [ff15::2]:5000@veth2", &["zone", "leave out %veth2"]),
        ("239.5.5.5:5000@veth1 239.6.6.6:6000@veth2 --max-rate 5000", &["not a rate", "5000pps"]),
        ("239.5.5.5:5000@veth1 [::]:6000", &["wildcard"]),
        ("224.0.0.5:5000@veth1 239.6.6.6:6000@veth2", &["224.0.0.5", "link-local", "never"]),
        ("239.5.5.5:5000@veth1 224.0.0.251:5353@veth2", &["224.0.0.251", "link-local", "never"]),
        ("239.5.5.5:0@veth1 239.6.6.6:6000@veth2", &["port"]),
        ("239.5.5.5:5000@veth1 239.6.6.6:0@veth2", &["port"]),
        ("239.5.5.5@veth1 239.6.6.6:6000@veth2", &["has no port"]),
        ("239.5.5.5:5000@veth1 239.6.6.6:6000", &["names no interface", "@eth1"]),
        (&many, &["65 outputs", "64 is the most"]),
        ("239.5.5.5:5000@veth1 239.6.6.6:6@veth2 239.6.6.6:6@veth2,ttl=3", &["is there twice"]),
        ("239.5.5.5:5000@veth1 239.6.6.6:6000@veth2 --name a", &["rule a", "name is taken"]),
        ("239.1.1.1:5001@veth1 239.6.6.6:6@veth2 --name b", &["taken by rule a", "output add a"]),
        ("239.1.1.1:5001@veth1 239.6.6.6:6@veth2", &["taken by rule a"]),
        ("239.5.5.5:5000@veth1 239.5.5.5:5000@veth1", &["is the input of the same rule"]),
        ("239.5.5.5:5000@veth1 239.6.6.6:6@veth2 --name .x", &["not a rule name"]),
        (
            "239.1.1.9:5009@veth1 keep@239.2.2.2:5002@veth2 --name back",
            &["back -> 239.2.2.2:5002@veth2 -> ring -> 239.1.1.9:5009@veth1 -> back", "keep"],
        ),
        (
            "239.3.3.4:5004@lo 10.99.0.1@239.3.3.3:5003@lo --name back",
            &["back -> 239.3.3.3:5003@lo -> loop -> 239.3.3.4:5004@lo -> back", "lo"],
        ),
        ("239.5.5.5:5000@veth1 239.6.6.6:6000@lo", &["martian", "keep@"]),
    ];
    for (arguments, fragments) in cases {
        let all: Vec<&str> = std::iter::once("add").chain(arguments.split(' ')).collect();
        contains(&relay.daemon.refused(&all), fragments, arguments);
        relay.unchanged(arguments);
    }
    relay.end();
}

pub(crate) fn files_are_refused_with_their_place(plane: Plane) {
    let relay = Relay::start(plane, &[]);
    let good = "[[rule]]\nname = \"x\"\ninput = \"239.5.5.5:5000@veth1\"\noutputs = \
                [\"239.6.6.6:6000@veth2\"]\n";
    let cases = [
        ("[[rule]]\nname = \"x\n".to_owned(), ":2:", "basic string"),
        (format!("{good}colour = 3\n"), ":5:1: ", "colour"),
        (format!("{good}\n  [[rule]]\n  input = 5\n"), ":7:11: ", "string"),
        (format!("{good}{}", good.replace("239.5.5.5", "224.0.0.9")), ":5:1: ", "link-local"),
        (format!("{good}[defaults]\nttl = 300\n"), ":5:1: ", "ttl"),
    ];
    for (text, place, fragment) in cases {
        let file = relay.lab.file("bad.toml", &text).to_str().unwrap().to_owned();
        for command in ["check", "apply"] {
            let said = relay.daemon.refused(&[command, &file]);
            contains(&said, &[&format!("{file}{place}"), fragment], &text);
        }
        relay.unchanged(&text);
    }
    let twice = relay.lab.file("twice.toml", &format!("{good}{good}"));
    let said = relay.daemon.refused(&["check", twice.to_str().unwrap()]);
    contains(&said, &[&format!("{}:5:1: ", twice.display()), "name is taken"], "twice");
    let said = relay.daemon.refused(&["apply", "/nonexistent/x.toml"]);
    contains(&said, &["/nonexistent/x.toml", "No such file"], "no file");
    let empty = relay.lab.file("empty.toml", "# nothing\n");
    let said = relay.daemon.refused(&["apply", empty.to_str().unwrap()]);
    contains(&said, &["would remove all", "--allow-empty"], "empty");
    let half = relay.lab.file("half.toml", &format!("{good}{}", good.replace("veth1", "eth9")));
    relay.daemon.refused(&["apply", half.to_str().unwrap()]);
    relay.end();
}

pub(crate) fn requests_are_refused_by_the_page(plane: Plane) {
    let relay = Relay::start(plane, &[]);
    let rule = r#"{"input": "239.5.5.5:5000@veth1", "outputs": ["239.6.6.6:6000@veth2"]"#;
    let good = &format!("{rule}}}");
    let none = r#"{"input": "239.5.5.5:5000@veth1", "outputs": []}"#;
    let cases: &[Asked] = &[
        ("POST", "/v1/rules", "", 400, "malformed", &["EOF"]),
        ("POST", "/v1/rules", "{", 400, "malformed", &["line 1 column"]),
        ("POST", "/v1/rules", "[]", 400, "malformed", &["no object"]),
        ("PATCH", "/v1/rules", "[{\"add\": [\"x\"]}]", 400, "malformed", &["expected a rule"]),
        ("POST", "/v1/rules", "{\"input\": 3}", 400, "malformed", &["string"]),
        ("POST", "/v1/rules", &format!("{rule}, \"x\": 1}}"), 400, "malformed", &["`x`"]),
        ("POST", "/v1/rules", &format!("{good}{good}"), 400, "malformed", &["trailing"]),
        ("POST", "/v1/rules?colour=red", good, 400, "malformed", &["colour"]),
        ("POST", "/v1/rules?dry_run=perhaps", good, 400, "malformed", &["perhaps"]),
        ("POST", "/v1/rules?wait=maybe", good, 400, "malformed", &["maybe"]),
        ("POST", "/v1/rules", none, 422, "invalid", &["has no outputs", "at least one"]),
        (
            "POST",
            "/v1/rules",
            "{\"input\": \"239.5.5.5:5@veth1\", \"outputs\": [{\"to\": \"239.6.6.6:6@veth2\", \"mtu\": 9}]}",
            400,
            "malformed",
            &["mtu"],
        ),
        ("PUT", "/v1/rules", good, 400, "malformed", &["input"]),
        ("PUT", "/v1/rules", "{\"rules\": []}", 422, "invalid", &["would remove all"]),
        ("PATCH", "/v1/rules", "[{\"rename\": \"a\"}]", 400, "malformed", &["rename"]),
        ("PATCH", "/v1/rules", "[{\"remove\": \"b\"}]", 404, "not-found", &["no rule b"]),
        (
            "PATCH",
            "/v1/rules",
            &format!("[{{\"remove\": \"a\"}}, {{\"add\": {}}}]", good.replace("veth2", "eth9")),
            422,
            "machine",
            &["no interface eth9"],
        ),
        ("PUT", "/v1/rules/b", &format!("{rule}, \"name\": \"c\"}}"), 422, "invalid", &["PATCH"]),
        ("DELETE", "/v1/rules/b", "", 404, "not-found", &["no rule b"]),
        ("GET", "/v1/rules/b", "", 404, "not-found", &["no rule b", "mcrctl list"]),
        ("GET", "/v1/stats?name=b", "", 404, "not-found", &["no rule b"]),
        ("GET", "/v1/stats?colour=red", "", 400, "malformed", &["colour"]),
        ("DELETE", "/v1/rules", "", 405, "method", &["DELETE", "/v1/rules"]),
        ("GET", "/v2/rules", "", 404, "not-found", &["no page /v2/rules", "/v1/rules"]),
    ];
    for (method, page, body, status, code, fragments) in cases {
        let of = format!("{method} {page} {body}");
        let (got, reply) = relay.ask(method, page, body);
        assert_eq!((got, reply["error"]["code"].as_str()), (*status, Some(*code)), "{of}: {reply}");
        contains(&reply.to_string(), fragments, &of);
        assert_ne!(reply["error"]["hint"], "", "{of}: {reply}");
        relay.unchanged(&of);
    }
    for (tag, status) in [("0", 412), ("\"1000000\"", 412), ("x", 400)] {
        let header = format!("if-match: {tag}\r\n");
        let (got, reply) = relay.ask_with("POST", "/v1/rules", &header, good);
        assert_eq!(got, status, "{tag}: {reply}");
    }
    relay.end();
}

pub(crate) fn clients_that_send_too_much_or_too_little_harm_nobody(plane: Plane) {
    let relay = Relay::start(plane, &[]);
    let mut silent = relay.connect();
    let mebibyte = vec![b' '; 1 << 20];
    let head = "POST /v1/rules HTTP/1.1\r\nhost: mcrd\r\n";
    let length = format!("{head}content-length: {}\r\n\r\n", 33 << 20);
    let (status, reply) = relay.exchange(&length, &[&mebibyte[..]; 33]);
    assert_eq!(status, 413, "{reply}");
    contains(&reply.to_string(), &["too-large", "32 MiB", "several requests"], "length");
    let chunk: Vec<&[u8]> = [&b"100000\r\n"[..], &mebibyte, b"\r\n"].repeat(33);
    let (status, reply) =
        relay.exchange(&format!("{head}transfer-encoding: chunked\r\n\r\n"), &chunk);
    assert_eq!((status, reply["error"]["code"].as_str()), (413, Some("too-large")), "{reply}");

    let rule = r#"{"input": "239.5.5.5:5000@veth1", "outputs": ["239.6.6.6:6000@veth2"]}"#;
    for part in [10, rule.len() - 1] {
        let mut half = relay.connect();
        let length = format!("{head}content-length: {}\r\n\r\n", rule.len());
        half.write_all(length.as_bytes()).unwrap();
        half.write_all(&rule.as_bytes()[..part]).unwrap();
        drop(half);
        relay.unchanged("half a request");
    }
    let mut ends = Vec::new();
    silent.read_to_end(&mut ends).expect("a silent client is shown the door");
    relay.end();
}

pub(crate) fn a_join_that_the_kernel_refuses_names_the_sysctl(plane: Plane) {
    let mut relay = Relay::start(plane, &[]);
    let limit = |value: &str| {
        let write = format!("echo {value} > /proc/sys/net/ipv4/igmp_max_memberships");
        run(relay.lab.command("relay", "sh").args(["-c", &write]));
    };
    limit("0");
    let add = ["add", "239.5.5.5:5000@veth1", "239.6.6.6:6000@veth2", "--name", "b"];
    let said = relay.daemon.refused(&add);
    contains(&said, &["239.5.5.5", "veth1", "igmp_max_memberships = 0", "raise"], "a join");
    relay.unchanged("a join");
    limit("20");
    relay.daemon.ok(&add);
    relay.before = picture(&relay.daemon);
    relay.end();
}

pub(crate) fn a_second_daemon_of_the_instance_is_refused(plane: Plane) {
    let relay = Relay::start(plane, &[]);
    let output = relay.lab.mcrd(plane.arguments()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    let holder = format!("(process {})", relay.daemon.pid());
    contains(&said, &[&relay.lab.name, "running already", &holder, "--instance"], "a second");
    relay.end();
}
