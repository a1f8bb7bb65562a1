use super::*;

fn args(group: &str, port: u16, streams: u32) -> StreamArgs {
    StreamArgs {
        interface: "lo".to_owned(),
        group: group.parse().expect("an address"),
        port,
        streams,
        same_group: false,
        same_port: false,
        first_stream: 1,
    }
}

fn stream(group: &str, number: usize) -> String {
    addresses(&args(group, 5001, 600)).expect("in range")[number - 1].to_string()
}

#[test]
fn groups_skip_host_parts_0_and_255() {
    let table = [
        ("239.1.1.1", 1, "239.1.1.1:5001"),
        ("239.1.1.1", 2, "239.1.1.2:5002"),
        ("239.1.1.1", 254, "239.1.1.254:5254"),
        ("239.1.1.1", 255, "239.1.2.1:5255"),
        ("239.1.1.1", 508, "239.1.2.254:5508"),
        ("239.1.1.1", 509, "239.1.3.1:5509"),
        ("239.1.255.254", 2, "239.2.0.1:5002"),
        ("239.1.1.0", 1, "239.1.1.0:5001"),
        ("239.1.1.0", 2, "239.1.1.1:5002"),
        ("239.1.1.255", 2, "239.1.2.1:5002"),
        ("10.0.0.254", 2, "10.0.1.1:5002"),
        ("ff3e::8000:ff", 2, "[ff3e::8000:100]:5002"),
    ];
    for (group, number, expected) in table {
        assert_eq!(stream(group, number), expected, "stream {number} from {group}");
    }
}

#[test]
fn the_ends_are_refused_by_stream() {
    let message = |args: &StreamArgs| addresses(args).expect_err("refused").to_string();
    let last = args("239.255.255.254", 5001, 1);
    assert_eq!(addresses(&last).expect("in range").len(), 1);
    assert_eq!(
        message(&args("239.255.255.250", 5001, 6)),
        "stream 6 would need an address past 239.255.255.254: start lower or take fewer"
    );
    assert_eq!(
        message(&args("239.1.1.1", 65_534, 3)),
        "stream 3 would need a port past 65535: start lower or take fewer"
    );
    assert!(message(&args("223.255.255.254", 5001, 2)).contains("223.255.255.254"));
    assert!(message(&args("ff3e::ffff:ffff", 5001, 2)).starts_with("stream 2"));
}

#[test]
fn a_port_or_a_group_can_stay() {
    let same_port = StreamArgs { same_port: true, ..args("239.1.1.1", 65_535, 2) };
    assert_eq!(addresses(&same_port).expect("in range")[1].to_string(), "239.1.1.2:65535");
    let same_group = StreamArgs { same_group: true, ..args("239.255.255.254", 7, 2) };
    assert_eq!(addresses(&same_group).expect("in range")[1].to_string(), "239.255.255.254:8");
}
