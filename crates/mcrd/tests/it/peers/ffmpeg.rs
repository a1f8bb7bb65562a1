//! ffmpeg: a picture and a sound are sent, and what comes out of the relay is decoded to the same
//! frames, by their hashes.

use std::fs;

use serde_json::Value;

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, run, wait_for};
use crate::peers::{foreign, listens, rule, start};

pub(crate) fn ffmpeg_decodes_the_frames_of_a_transport_stream(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    ffmpeg(
        &lab,
        "-f lavfi -i testsrc2=size=160x120:rate=25 -f lavfi -i sine=sample_rate=48000 -t 2 -c:v \
         mpeg2video -b:v 500k -g 12 -bf 0 -pix_fmt yuv420p -c:a mp2 -b:a 128k -f mpegts sent.ts",
    );
    // The receiver takes the first second: a stream of this kind has no end of its own. Without
    // `-analyzeduration`, in microseconds, it would look at 5 seconds before it begins.
    ffmpeg(&lab, "-i sent.ts -map 0 -t 1 -f framemd5 sent.md5");
    let daemon = lab.daemon(&[]);
    rule(&daemon, "239.1.1.1:5000@veth1", "239.10.1.1:6000@veth2");
    let receiver = start(foreign(
        &lab,
        "sink",
        &format!(
            "{FFMPEG} -analyzeduration 500000 -i udp://239.10.1.1:6000?localaddr=10.0.1.2&\
             fifo_size=1000000&buffer_size=4194304 -map 0 -t 1 -f framemd5 received.md5"
        ),
    ));
    listens(&lab, "sink", 6000, Some(("veth3", "239.10.1.1")));
    ffmpeg(
        &lab,
        "-re -i sent.ts -map 0 -c copy -f mpegts \
         udp://239.1.1.1:5000?localaddr=10.0.0.1&pkt_size=1316&ttl=8",
    );
    receiver.finish();
    same_frames(&lab, 25);
    let received = daemon.stats("a")["received"]["packets"].as_u64().unwrap();
    assert!(received > 50, "{received} datagrams");
    sums(&daemon.stats("a"), 0, received);
}

/// The second port of the rule is that of RTCP, whose goodbye ends the receiver.
pub(crate) fn ffmpeg_decodes_the_frames_of_rtp_and_ends_by_rtcp(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    ffmpeg(
        &lab,
        "-f lavfi -i testsrc2=size=160x120:rate=25 -t 1 -c:v libx264 -preset veryfast -g 25 -bf 0 \
         -pix_fmt yuv420p -bsf:v dump_extra -f mpegts sent.ts",
    );
    ffmpeg(&lab, "-i sent.ts -map 0 -f framemd5 sent.md5");
    let daemon = lab.daemon(&[]);
    rule(&daemon, "239.1.1.1:5000-5001@veth1", "239.10.1.1:6000-6001@veth2");
    lab.file("received.sdp", SDP);
    let receiver = start(foreign(
        &lab,
        "sink",
        &format!(
            "{FFMPEG} -protocol_whitelist file,rtp,udp -localaddr 10.0.1.2 -buffer_size 4194304 -i \
             received.sdp -map 0 -f framemd5 received.md5"
        ),
    ));
    listens(&lab, "sink", 6000, None);
    listens(&lab, "sink", 6001, Some(("veth3", "239.10.1.1")));
    ffmpeg(
        &lab,
        "-re -i sent.ts -map 0 -c copy -f rtp -rtpflags send_bye \
         rtp://239.1.1.1:5000?localaddr=10.0.0.1&pkt_size=1316&ttl=8",
    );
    receiver.finish();
    same_frames(&lab, 25);
    let received = daemon.stats("a")["received"]["packets"].as_u64().unwrap();
    assert!(received > 25, "{received} datagrams");
    sums(&daemon.stats("a"), 0, received);
}

/// Nothing is wrong with what ffmpeg sends, in UDP and in RTP.
pub(crate) fn ffmpeg_sends_transport_streams_that_are_found_whole(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    let daemon = lab.daemon(&[]);
    for (name, group, format, kind) in [
        ("plain", "239.1.1.1", "mpegts udp", "ts"),
        ("inside", "239.1.1.2", "rtp_mpegts rtp", "rtp+ts"),
    ] {
        let (input, output) = (format!("{group}:5000@veth1"), format!("{group}:6000@veth2"));
        daemon.ok(&["add", &input, &output, "--name", name, "--inspect", "auto"]);
        let (format, scheme) = format.split_once(' ').unwrap();
        ffmpeg(
            &lab,
            &format!(
                "-f lavfi -i testsrc2=size=160x120:rate=25 -f lavfi -i sine=sample_rate=48000 -t 2 \
                 -c:v mpeg2video -b:v 500k -g 12 -pix_fmt yuv420p -c:a mp2 -b:a 128k -f {format} \
                 {scheme}://{group}:5000?localaddr=10.0.0.1&pkt_size=1316&ttl=8"
            ),
        );
        let mut stats = Value::Null;
        wait_for("all looked into", || {
            stats = daemon.stats(name);
            let (received, seen) = (&stats["received"]["bytes"], &stats["inspect"]);
            let header = seen["rtp"]["packets"].as_u64().unwrap_or_default() * 12;
            let packets = seen["ts"]["packets"].as_u64().unwrap_or_default();
            packets > 100 && *received == packets * 188 + header
        });
        let seen = &stats["inspect"];
        assert_eq!(
            (&seen["as"], &seen["other"], &seen["unseen"]),
            (&kind.into(), &0.into(), &0.into())
        );
        for fault in ["continuity_errors", "sync_errors", "transport_errors", "scrambled"] {
            assert_eq!(seen["ts"][fault], 0, "{seen}");
        }
        assert_eq!(seen["ts"]["pat"], true);
        assert!(seen["ts"]["pids"].as_u64().unwrap() >= 4, "{seen}");
        if kind == "rtp+ts" {
            assert_eq!(seen["rtp"]["packets"], stats["received"]["packets"], "{seen}");
            assert_eq!(seen["rtp"]["ssrcs"][0]["payload_type"], 33, "{seen}");
            for fault in ["lost", "reordered", "duplicated", "restarts", "longest_gap"] {
                assert_eq!(seen["rtp"][fault], 0, "{seen}");
            }
        }
    }
}

/// What was sent and what was received have the same frames, so many of them pictures.
fn same_frames(lab: &Lab, pictures: usize) {
    let read = |name: &str| fs::read_to_string(lab.folder.path().join(name)).unwrap();
    let (sent, received) = (read("sent.md5"), read("received.md5"));
    let found = sent.lines().filter(|line| line.starts_with("0,")).count();
    assert_eq!(found, pictures, "{sent}");
    assert_eq!(sent, received);
}

/// Runs it to its end in the sender's namespace.
fn ffmpeg(lab: &Lab, arguments: &str) {
    run(foreign(lab, "gen", FFMPEG).args(arguments.split_whitespace()));
}

const FFMPEG: &str = "ffmpeg -hide_banner -nostdin -loglevel error -y";

/// What the receiver is told of the stream: nothing that is not in the stream itself.
const SDP: &str = "\
v=0
o=- 0 0 IN IP4 127.0.0.1
s=relayed
c=IN IP4 239.10.1.1/8
t=0 0
m=video 6000 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
";
