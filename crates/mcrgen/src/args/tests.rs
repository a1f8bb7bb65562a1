use super::*;

#[test]
fn durations_have_units() {
    let parsed = [
        ("2s", 2_000),
        ("500ms", 500),
        ("1m", 60_000),
        ("1.5s", 1_500),
        ("2000us", 2),
        ("0s", 0),
        ("1h", 3_600_000),
    ];
    for (text, milliseconds) in parsed {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
    }
    for text in ["", "2", "s", "-1s", "2 s", "2x", "1.2.3s"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    assert_eq!(parse_duration("2"), Err("a unit is missing; write 2s for seconds".to_owned()));
}

#[test]
fn sources_may_have_a_port() {
    assert_eq!(parse_source("10.0.0.1"), Ok(SocketAddr::from(([10, 0, 0, 1], 0))));
    assert_eq!(parse_source("10.0.0.1:7"), Ok(SocketAddr::from(([10, 0, 0, 1], 7))));
    assert!(parse_source("fd00::1").is_ok_and(|source| source.is_ipv6()));
    assert!(parse_source("[fd00::1]:7").is_ok_and(|source| source.port() == 7));
    assert!(parse_source("eth0").is_err());
}

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn sizes_have_a_range() {
    assert_eq!(parse_size("40"), Ok(40));
    assert_eq!(parse_size("65507"), Ok(65_507));
    assert!(parse_size("39").is_err());
    assert!(parse_size("65508").is_err());
}

#[test]
fn options_that_do_not_fit_each_other_are_refused() {
    let table = [
        ("239.1.1.1", "--source fd00::1", "families"),
        ("ff3e::1", "--checksum none", "IPv4 group"),
        ("239.1.1.1", "--checksum none --gso 2", "exclude"),
        ("239.1.1.1", "--size 1100 --gso 60", "exceed 65507"),
        ("239.1.1.1", "--streams 65000", "stream 60536"),
    ];
    for (group, options, expected) in table {
        let line = format!("mcrgen send --interface lo --group {group} --port 5001 {options}");
        let parsed = Args::try_parse_from(line.split(' ')).expect("clap takes it");
        let Command::Send(send) = parsed.command else { panic!("a send command") };
        let message = send.check().expect_err(&line);
        assert!(message.contains(expected), "{line}: {message}");
    }
}
