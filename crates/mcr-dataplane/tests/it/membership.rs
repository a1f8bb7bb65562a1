//! Joins and held ports, as the kernel shows them.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use mcr_core::action::{Claim, Membership};
use mcr_core::link::IfIndex;
use mcr_dataplane::membership::{HELD_MARK, JoinSockets};
use mcr_dataplane::netlink::transmit_drops;
use mcr_dataplane::raise_open_files;
use socket2::{Domain, Socket, Type};

use crate::hosts::{Host, connect, run, said};
use crate::namespace::{await_running, index_of, ip, wait_for};

fn group(interface: IfIndex, group: impl Into<IpAddr>, source: Option<IpAddr>) -> Claim {
    Claim::Group(Membership { interface, group: group.into(), source })
}

/// One interface, `near`, in a namespace of its own.
fn alone(test: impl FnOnce(IfIndex) + Send + 'static) {
    run(|| {
        let _host = Host::enter_new();
        ip("link add near type veth peer name far");
        ip("address add 10.0.0.1/24 dev near");
        ip("address add fd00::1/64 dev near nodad");
        ip("link set near addrgenmode none");
        ip("link set near up");
        ip("link set far up");
        // The interface joins its own group before the test joins any: see `filtered`.
        wait_for("the group of its address", || {
            said("ip maddress show dev near").contains("ff02::1:ff00:1")
        });
        test(index_of("near"));
    });
}

/// The nth group of each family.
fn groups(n: u16) -> [IpAddr; 2] {
    let [high, low] = n.to_be_bytes();
    [Ipv4Addr::new(239, 1, high, low).into(), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, n).into()]
}

fn sources(n: u16) -> [IpAddr; 2] {
    [
        Ipv4Addr::from(0x0a00_0100 + u32::from(n)).into(),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, n).into(),
    ]
}

/// Groups of the test that the kernel has joined, of both families.
fn joined() -> [usize; 2] {
    let shown = said("ip maddress show dev near");
    [" 239.1.", " ff05::1:"]
        .map(|prefix| shown.lines().filter(|line| line.contains(prefix)).count())
}

/// Sources that the kernel lets through to a group: lines of /proc/thread-self/net/mcfilter and
/// mcfilter6, which have them only while the youngest group of the interface has any
/// (`igmp_mcf_get_first`).
fn filtered() -> [usize; 2] {
    ["mcfilter", "mcfilter6"].map(|file| {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        text.lines().filter(|line| line.contains(" near ")).count()
    })
}

#[test]
fn thousands_of_groups_need_no_sysctl() {
    alone(|near| {
        raise_open_files();
        let mut sockets = JoinSockets::default();
        let claims: Vec<Claim> =
            (1..=1000).flat_map(groups).map(|g| group(near, g, None)).collect();
        claims.iter().for_each(|claim| sockets.join(*claim).unwrap());
        claims.iter().for_each(|claim| sockets.join(*claim).unwrap());
        assert_eq!(joined(), [1000, 1000]);
        assert_eq!(sockets.sockets(), 50 + 2, "20 a socket of IPv4");
        claims[..1000].iter().for_each(|claim| sockets.leave(*claim));
        assert_eq!(joined(), [500, 500]);
        claims[..1000].iter().for_each(|claim| sockets.join(*claim).unwrap());
        assert_eq!(joined(), [1000, 1000]);
        assert_eq!(sockets.sockets(), 50 + 2, "the places are used again");
        claims.iter().for_each(|claim| sockets.leave(*claim));
        assert_eq!((joined(), sockets.sockets()), ([0, 0], 0));
    });
}

#[test]
fn a_group_takes_more_sources_than_a_socket() {
    alone(|near| {
        let mut sockets = JoinSockets::default();
        let mut claims = Vec::new();
        for n in 1..=25 {
            for number in [1, 2] {
                for (g, s) in groups(number).into_iter().zip(sources(n)) {
                    claims.push(group(near, g, Some(s)));
                }
            }
        }
        claims.iter().for_each(|claim| sockets.join(*claim).unwrap());
        assert_eq!((joined(), filtered()), ([2, 2], [50, 50]));
        assert_eq!(sockets.sockets(), 3 + 1, "10 of IPv4 a socket, 64 of IPv6");
        claims[..60].iter().for_each(|claim| sockets.leave(*claim));
        assert_eq!((joined(), filtered()), ([2, 2], [20, 20]));
        claims[..60].iter().for_each(|claim| sockets.join(*claim).unwrap());
        assert_eq!((joined(), filtered()), ([2, 2], [50, 50]));
        claims.iter().for_each(|claim| sockets.leave(*claim));
        assert_eq!((joined(), filtered(), sockets.sockets()), ([0, 0], [0, 0], 0));
    });
}

#[test]
fn a_group_is_joined_from_anyone_and_from_a_source_at_once() {
    alone(|near| {
        let mut sockets = JoinSockets::default();
        for (g, s) in groups(1).into_iter().zip(sources(1)) {
            sockets.join(group(near, g, Some(s))).unwrap();
            sockets.join(group(near, g, None)).unwrap();
        }
        assert_eq!(joined(), [1, 1]);
        for g in groups(1) {
            sockets.leave(group(near, g, None));
        }
        assert_eq!((joined(), filtered()), ([1, 1], [1, 1]), "the source is still wanted");
    });
}

#[test]
fn places_of_a_deleted_interface_are_given_back() {
    alone(|near| {
        let mut sockets = JoinSockets::default();
        let mut claims: Vec<Claim> = groups(1).map(|g| group(near, g, None)).into();
        for n in [1, 2] {
            let both = groups(2).into_iter().zip(sources(n));
            claims.extend(both.map(|(g, s)| group(near, g, Some(s))));
        }
        let lo = index_of("lo");
        claims.iter().for_each(|claim| sockets.join(*claim).unwrap());
        for n in 3..22 {
            for (g, s) in groups(n).into_iter().zip(sources(n)) {
                sockets.join(group(lo, g, Some(s))).unwrap();
            }
        }
        ip("link delete near");
        claims.iter().for_each(|claim| sockets.leave(*claim));
        let before = sockets.sockets();
        sockets.join(group(lo, groups(22)[0], Some(sources(1)[0]))).unwrap();
        assert_eq!(sockets.sockets(), before, "the 20th group of the socket");
    });
}

#[test]
fn a_refused_join_names_its_limits() {
    alone(|near| {
        let mut sockets = JoinSockets::default();
        let [v4, v6] = groups(1);
        let [from4, from6] = sources(1);
        let refused = |sockets: &mut JoinSockets, g, s| {
            let refusal = sockets.join(group(near, g, s)).unwrap_err();
            format!("{} ({})", refusal.message, refusal.hint)
        };
        std::fs::write("/proc/sys/net/ipv4/igmp_max_memberships", "0").unwrap();
        let text = refused(&mut sockets, v4, None);
        assert!(text.contains("net.ipv4.igmp_max_memberships = 0"), "{text}");
        let text = refused(&mut sockets, v4, Some(from4));
        assert!(text.contains("net.ipv4.igmp_max_msf = 10"), "{text}");
        assert!(text.contains("from 10.0.1.1 on near"), "{text}");
        std::fs::write("/proc/sys/net/core/optmem_max", "0").unwrap();
        let text = refused(&mut sockets, v6, Some(from6));
        assert!(text.contains("net.core.optmem_max = 0"), "{text}");
        assert!(text.contains("net.ipv6.mld_max_msf"), "{text}");
        assert_eq!((joined(), sockets.sockets()), ([0, 0], 0));
        let claim = group(IfIndex(4711), v4, None);
        let refusal = sockets.join(claim).unwrap_err();
        assert!(refusal.message.contains("interface 4711"), "{refusal}");
    });
}

/// Two hosts; `test` runs here, with what a sender there is answered by each address.
fn two_hosts(test: impl FnOnce([SocketAddr; 2], [&dyn Fn() -> ErrorKind; 2]) + Send + 'static) {
    run(|| {
        let there = Host::enter_new();
        let here = Host::enter_new();
        let near = ["near", "10.0.0.1/24", "fd00::1/64"];
        connect(&here, &there, near, ["far", "10.0.0.2/24", "fd00::2/64"]);
        let to: [SocketAddr; 2] = ["10.0.0.1:5000", "[fd00::1]:5000"].map(|a| a.parse().unwrap());
        there.enter();
        // ICMP errors are limited to one a second or so for each sender.
        std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").unwrap();
        let senders = to.map(|to| {
            let from = if to.is_ipv4() { "10.0.0.2:0" } else { "[fd00::2]:0" };
            let sender = UdpSocket::bind(from).unwrap();
            sender.connect(to).unwrap();
            sender.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            sender
        });
        here.enter();
        std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0").unwrap();
        let answers = senders.map(|sender| {
            move || {
                // An answer that came late is told here.
                let sent = sender.send(b"anybody there?");
                sent.and_then(|_| sender.recv(&mut [0; 10])).unwrap_err().kind()
            }
        });
        test(to, [&answers[0], &answers[1]]);
    });
}

#[test]
fn a_held_port_answers_nobody() {
    two_hosts(|to, answers| {
        let mut sockets = JoinSockets::default();
        for (to, answer) in to.into_iter().zip(answers) {
            wait_for("port unreachable", || answer() == ErrorKind::ConnectionRefused);
            sockets.join(Claim::Port(to)).unwrap();
            assert_eq!(answer(), ErrorKind::WouldBlock, "{to}");
            sockets.leave(Claim::Port(to));
            wait_for("port unreachable again", || answer() == ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn a_port_that_somebody_listens_on_is_left_to_them() {
    two_hosts(|to, _| {
        for to in to {
            let mut sockets = JoinSockets::default();
            // Also one that shares: it was there first.
            let listener = Socket::new(Domain::for_address(to), Type::DGRAM, None).unwrap();
            listener.set_reuse_address(true).unwrap();
            listener.bind(&SocketAddr::new(to.ip(), to.port()).into()).unwrap();
            sockets.join(Claim::Port(to)).unwrap();
            let sender = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
            // More than once: a CPU that is busy with another test drops.
            let arrives = |listener: &UdpSocket| {
                sender.send_to(b"yes", to).unwrap();
                listener.recv(&mut [0; 10]).is_ok()
            };
            let listener = UdpSocket::from(listener);
            listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            wait_for("a packet", || arrives(&listener));
            sockets.bind_again();
            wait_for("another packet", || arrives(&listener));
            drop(listener);
            sockets.bind_again();
            // Who does not share cannot come any more; who does, can, and has the packets.
            assert_eq!(UdpSocket::bind(to).unwrap_err().kind(), ErrorKind::AddrInUse);
            let listener = Socket::new(Domain::for_address(to), Type::DGRAM, None).unwrap();
            listener.set_reuse_address(true).unwrap();
            listener.bind(&to.into()).unwrap();
            let listener = UdpSocket::from(listener);
            listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            wait_for("a packet for who came later", || arrives(&listener));
            sockets.leave(Claim::Port(to));
        }
    });
}

#[test]
fn a_held_port_is_marked() {
    two_hosts(|to, _| {
        let mut sockets = JoinSockets::default();
        to.iter().for_each(|to| sockets.join(Claim::Port(*to)).unwrap());
        let shown = said("ss --udp --listening --all --numeric --extended");
        let mark = format!("fwmark:{HELD_MARK:#x}");
        assert_eq!(shown.lines().filter(|line| line.contains(&mark)).count(), 2, "{shown}");
    });
}

#[test]
fn a_port_that_cannot_be_bound_is_refused_with_a_remedy() {
    alone(|_| {
        let mut sockets = JoinSockets::default();
        let refusal =
            sockets.join(Claim::Port("[fe80::1%4711]:5000".parse().unwrap())).unwrap_err();
        assert!(refusal.message.contains("[fe80::1%4711]:5000"), "{refusal}");
        assert!(refusal.hint.contains("interface"), "{refusal}");
        // An address that comes, or is tentative, is no reason.
        sockets.join(Claim::Port("192.0.2.1:5000".parse().unwrap())).unwrap();
    });
}

/// A bridge with snooping, the port of which is the far end of `near`.
fn snooped(test: impl FnOnce(&Host, IfIndex) + Send + 'static) {
    run(|| {
        let there = Host::enter_new();
        let here = Host::enter_new();
        let near = ["near", "10.0.0.1/24", "fd00::1/64"];
        connect(&here, &there, near, ["far", "10.0.0.2/24", "fd00::2/64"]);
        there.enter();
        ip("link add br0 type bridge mcast_snooping 1");
        ip("link set br0 up");
        ip("link set far master br0");
        await_running("br0");
        here.enter();
        test(&there, index_of("near"));
    });
}

#[test]
fn a_thousand_joins_reach_a_bridge_whole() {
    for version in ["2", "3"] {
        snooped(move |bridge, near| {
            let force = "/proc/sys/net/ipv4/conf/all/force_igmp_version";
            std::fs::write(force, version).unwrap();
            raise_open_files();
            let before = transmit_drops().get("near").copied();
            let mut sockets = JoinSockets::default();
            let claims = (1..=1000).map(|n| group(near, groups(n)[0], None)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let results = runtime.unwrap().block_on(sockets.join_all(claims));
            assert!(results.iter().all(|(_, result)| result.is_ok()));
            let here = Host::current();
            bridge.enter();
            wait_for("all in the bridge's table", || {
                let known = said("bridge mdb show dev br0");
                known.lines().filter(|line| line.contains("grp 239.1.")).count() == 1000
            });
            here.enter();
            assert_eq!(transmit_drops().get("near"), before.as_ref(), "under IGMPv{version}");
        });
    }
}
