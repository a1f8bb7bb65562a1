//! What the command line and the machine refuse.

use std::process::Command;

use crate::network::{Finished, Network};

fn mcrgen(options: &str) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcrgen"));
    Finished::of(command.args(options.split_whitespace()).output().expect("mcrgen runs"))
}

#[test]
fn wrong_command_lines_exit_2() {
    let table = [
        ("", "Usage"),
        ("send", "--interface"),
        ("send --interface lo --group 239.1.1.1 --port 0", "--port"),
        ("send --interface lo --group cat --port 1", "--group"),
        ("send --interface lo --group 239.1.1.1 --port 1 --size 39", "40 to 65507"),
        ("send --interface lo --group 239.1.1.1 --port 1 --duration 3", "write 3s"),
        ("send --interface lo --group 239.1.1.1 --port 1 --start-at now", "--start-at"),
        ("send --interface lo --group 239.1.1.1 --port 1 --gso 60 --size 1400", "65507"),
        ("send --interface lo --group 239.255.255.254 --port 1 --streams 2", "stream 2"),
        ("recv --interface lo --group 239.1.1.1 --port 65535 --streams 2", "stream 2"),
        ("recv --interface lo --group 239.1.1.1 --port 1 --expect 0", "--expect"),
        ("recv --interface lo --group 10.1.1.1 --port 1 --source 10.1.1.2", "is none"),
        ("recv --interface lo --group 232.1.1.1 --port 1 --source fd00::1", "families"),
    ];
    for (options, expected) in table {
        let finished = mcrgen(options);
        assert_eq!(finished.code, Some(2), "{options}: {finished:?}");
        assert!(finished.stderr.contains(expected), "{options}: {finished:?}");
        assert_eq!(finished.stdout, "");
    }
}

#[test]
fn help_says_what_scripts_rely_on() {
    let finished = mcrgen("recv --help");
    assert_eq!(finished.code, Some(0));
    for expected in ["\"ready\" on stderr", "100 µs", "Exits 1 on any lost"] {
        assert!(finished.stdout.contains(expected), "{expected}: {}", finished.stdout);
    }
}

#[test]
fn an_unknown_interface_is_named() {
    for mode in ["send --count 1", "recv"] {
        let finished = mcrgen(&format!("{mode} --interface nope0 --group 239.1.1.1 --port 5001"));
        assert_eq!(finished.code, Some(1));
        assert_eq!(
            finished.stderr,
            "mcrgen: no interface 'nope0' in this network namespace; 'ip link' lists what is there\n"
        );
    }
}

#[test]
fn a_foreign_source_is_refused() {
    let Some(network) = Network::new() else { return };
    let finished = network.send("--group 239.1.1.1 --port 5001 --count 1 --source 10.1.2.3");
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("cannot send from --source 10.1.2.3:0"), "{finished:?}");
}

#[test]
fn a_super_packet_beyond_the_mtu_is_refused() {
    let Some(network) = Network::new() else { return };
    let finished = network.send("--group 239.1.1.1 --port 5001 --count 4 --gso 2 --size 2000");
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("must fit the MTU of v0"), "{finished:?}");
}
