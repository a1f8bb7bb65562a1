//! `mcrctl capture`: the packets of a rule, as lines or as a file.

mod output;

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use mcr_core::capture::Packet;
use mcr_core::capture::pcap::{LinkType, Reader, Record};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::Session;
use crate::args::CaptureArgs;
use crate::client::{Flow, Trailers, encoded, rule_page};
use crate::failure::Failure;
use output::Output;

/// Trailers of the reply: how many packets the daemon has missed, and why it has ended it.
const MISSED: &str = "mcr-missed";
const ENDED: &str = "mcr-ended";

pub(crate) fn run(session: &Session, args: &CaptureArgs) -> Result<(), Failure> {
    let mut capture = Capture {
        session,
        args,
        output: Output::check(args.write.as_deref())?,
        reader: Reader::default(),
        link: LinkType::Ethernet,
        captured: 0,
    };
    let result =
        session.client.stream(&page(args), ended(args.duration), |piece| capture.take(piece));
    // Also of a capture that could not be written to its end.
    let closed = capture.output.close();
    let (captured, trailers) = (capture.captured, result?);
    closed?;
    tell(session, captured, trailers)
}

fn page(args: &CaptureArgs) -> String {
    let side = if args.incoming { "in" } else { "out" };
    let mut page = format!("{}/capture?side={side}", rule_page(&args.name));
    if let Some(output) = &args.output {
        page += &format!("&output={}", encoded(output));
    }
    if let Some(snap) = args.snap {
        page += &format!("&snap={snap}");
    }
    page
}

/// Waits for a signal, or for the time to be over.
async fn ended(duration: Option<Duration>) {
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let signalled = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => signal.recv().await.unwrap_or(()),
            // Then it ends the process at once.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        () = signalled(SignalKind::interrupt()) => {}
        () = signalled(SignalKind::terminate()) => {}
    }
}

struct Capture<'s> {
    session: &'s Session,
    args: &'s CaptureArgs,
    output: Output,
    reader: Reader,
    link: LinkType,
    captured: u64,
}

impl Capture<'_> {
    fn take(&mut self, piece: &[u8]) -> Result<Flow, Failure> {
        self.reader.push(piece);
        if let Some((link, header)) = self.reader.begin()? {
            self.link = link;
            self.output.begin(header)?;
            say(self.session, &json!({"capturing": self.args.name}), || {
                let Self { args, .. } = self;
                let side = if args.incoming { "comes in" } else { "leaves" };
                format!("capturing {} as it {side}; Ctrl-C ends", args.name)
            });
        }
        while self.args.count.is_none_or(|count| self.captured < count) {
            let Some(record) = self.reader.record()? else {
                self.output.flush()?;
                return Ok(Flow::More);
            };
            match &mut self.output {
                Output::Lines => {
                    let line = line(&record, self.link == LinkType::Raw, self.session.json);
                    self.output.write(line.as_bytes())?;
                }
                Output::Waiting(_) | Output::Stdout | Output::File { .. } => {
                    self.output.write(record.raw)?;
                }
            }
            self.captured += 1;
        }
        self.output.flush()?;
        Ok(Flow::Enough)
    }
}

/// A packet as a line.
fn line(record: &Record<'_>, bare: bool, json: bool) -> String {
    let time = humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(record.time));
    let Some(packet) = Packet::of(record.kept, record.length, bare) else {
        let length = record.length;
        return match json {
            true => format!("{}\n", json!({"time": time.to_string(), "frame": length})),
            false => format!("{time} a frame of {length} bytes\n"),
        };
    };
    let host = |address: std::net::IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    let source = host(packet.source, packet.ports.map(|(source, _)| source));
    let destination = host(packet.destination, packet.ports.map(|(_, port)| port));
    let Packet { fragment, length, ttl, .. } = packet;
    if json {
        let packet = json!({"time": time.to_string(), "source": source, "destination": destination,
                            "length": length, "ttl": ttl, "fragment": fragment});
        return format!("{packet}\n");
    }
    let kind = if fragment { "fragment, " } else { "" };
    format!("{time} {source} > {destination} {kind}length {length}, ttl {ttl}\n")
}

/// How it has ended.
fn tell(session: &Session, captured: u64, trailers: Trailers) -> Result<(), Failure> {
    let of = |name: &str| {
        let value = trailers.as_ref()?.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let missed: Option<u64> = of(MISSED).and_then(|text| text.parse().ok());
    say(session, &json!({"captured": captured, "missed": missed}), || match missed {
        Some(missed) => format!("{captured} captured, {missed} missed"),
        None => format!("{captured} captured"),
    });
    match (of(ENDED), trailers.is_some()) {
        (None, true) => Ok(()),
        (Some(why), _) => Err(Failure::refused(
            "ended",
            format!("mcrd has ended the capture: {why}"),
            "`mcrctl list` shows the rules as they are; start it again",
        )),
        (None, false) => Err(Failure::refused(
            "broken-off",
            "mcrd has broken the capture off; what came before is whole",
            "is mcrd still running? See its log",
        )),
    }
}

/// On standard error, since standard output may be the capture.
fn say(session: &Session, json: &serde_json::Value, plain: impl FnOnce() -> String) {
    let text = if session.json { json.to_string() } else { plain() };
    // What was captured is there, whether somebody reads this or not.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
