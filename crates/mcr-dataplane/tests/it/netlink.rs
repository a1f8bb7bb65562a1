//! What netlink says of interfaces, routes and neighbours.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use mcr_core::link::{LinkKind, Links, Mac, NextHop, Route, RouteQuery, Standing};
use mcr_core::loss::Loss;
use mcr_dataplane::netlink::{Netlink, receive_losses};
use tokio::time::timeout;

use crate::hosts::{Host, connect, run, said};
use crate::namespace::{self, DEADLINE, await_running, index_of, ip, wait_for};

/// The MAC of `far`.
const FAR: Mac = [2, 0, 0, 0, 0, 0x99];

/// The relay's host with two links, `near` to a host that has `far`, and `other`.
fn hosts<F: Future<Output = ()>>(test: impl FnOnce(Netlink, Rc<Host>) -> F + Send + 'static) {
    run(|| {
        let there = Rc::new(Host::enter_new());
        let here = Host::enter_new();
        let near = ["near", "10.0.0.1/24", "fd00::1/64"];
        connect(&here, &there, near, ["far", "10.0.0.2/24", "fd00::2/64"]);
        ip("link add other type veth peer name otherp");
        ip("address add 10.0.1.1/24 dev other");
        ip("link set other up");
        ip("link set otherp up");
        await_running("other");
        await_running("otherp");
        in_namespace(&there, || ip("link set far address 02:00:00:00:00:99"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Netlink::open().unwrap(), Rc::clone(&there)).await });
    });
}

/// Runs something in another namespace, by another thread.
fn in_namespace(host: &Host, run: impl FnOnce() + Send) {
    let entered = || {
        host.enter();
        run();
    };
    std::thread::scope(|scope| scope.spawn(entered).join()).unwrap();
}

/// Queries without and with an interface: `ADDRESS` or `ADDRESS@INTERFACE`.
fn queries(texts: &[&str]) -> BTreeSet<RouteQuery> {
    let query = |text: &&str| {
        let (destination, interface) = match text.split_once('@') {
            Some((destination, interface)) => (destination, Some(interface.parse().unwrap())),
            None => (*text, None),
        };
        RouteQuery { destination: destination.parse().unwrap(), interface }
    };
    texts.iter().map(query).collect()
}

async fn route(netlink: &mut Netlink, text: &str) -> String {
    let queries = queries(&[text]);
    let routes = netlink.routes(&queries).await;
    assert_eq!(routes.len(), 1);
    match routes.into_values().next().unwrap() {
        Route::Via { interface, next_hop, source } => {
            let source = source.map_or("-".to_owned(), |source| source.to_string());
            format!("{interface} {next_hop} {source}")
        }
        Route::Local => "local".into(),
        Route::None(why) => format!("none: {why}"),
    }
}

/// Snapshots, one whenever something has changed, until one is as wished.
async fn until(
    netlink: &mut Netlink,
    texts: &[&str],
    what: &str,
    wished: impl Fn(&Links) -> bool,
) -> Links {
    let queries = queries(texts);
    let wait = async {
        loop {
            let links = netlink.links(&queries).await.unwrap();
            if wished(&links) {
                return links;
            }
            netlink.changed().await.unwrap();
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Whether nothing wakes for a while, once what has happened before was taken.
async fn is_quiet(netlink: &mut Netlink) -> bool {
    while timeout(Duration::from_millis(100), netlink.changed()).await.is_ok() {}
    timeout(Duration::from_millis(300), netlink.changed()).await.is_err()
}

fn hop(address: &str) -> NextHop {
    NextHop { interface: index_of("near"), address: address.parse().unwrap() }
}

/// What `ip neigh` shows of an address.
fn neighbour(address: &str) -> String {
    let shown = said("ip -d neigh show dev near");
    let line = shown.lines().find(|line| line.split(' ').next() == Some(address));
    line.unwrap_or_default().to_owned()
}

#[test]
fn addresses_have_a_standing() {
    hosts(|mut netlink, _there| async move {
        ip("address add 10.0.0.5/24 dev near");
        ip("address add fd00::5/64 dev near nodad preferred_lft 0");
        ip("address add fd00::6/64 dev near nodad");
        std::fs::write("/proc/sys/net/ipv6/conf/other/accept_dad", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/other/dad_transmits", "30").unwrap();
        ip("address add fd00:1::1/64 dev other");
        let links = netlink.links(&BTreeSet::new()).await.unwrap();
        let near = &links.interfaces[&"near".parse().unwrap()];
        let standing = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            let mut all = links.interfaces.values().flat_map(|link| &link.addresses);
            all.find(|other| other.address == address).unwrap().standing
        };
        assert_eq!(standing("10.0.0.1"), Standing::Stable);
        assert_eq!(standing("10.0.0.5"), Standing::Lesser);
        assert_eq!(standing("fd00::1"), Standing::Stable);
        assert_eq!(standing("fd00::5"), Standing::Lesser);
        assert_eq!(standing("fd00:1::1"), Standing::Unusable);
        // The youngest is the kernel's first.
        assert_eq!(near.primary("ff05::1".parse().unwrap()), "fd00::1".parse().ok());
        assert_eq!(near.kind, LinkKind::Ethernet);
        assert!(!near.no_arp);
        assert_eq!(links.interfaces[&"lo".parse().unwrap()].kind, LinkKind::Loopback);
    });
}

#[test]
fn a_temporary_address_is_lesser() {
    hosts(|mut netlink, _there| async move {
        std::fs::write("/proc/sys/net/ipv6/conf/near/use_tempaddr", "2").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/near/addr_gen_mode", "0").unwrap();
        ip("address add fd00:7::1234/64 dev near mngtmpaddr nodad");
        let temporary = |links: &Links| {
            let near = &links.interfaces[&"near".parse().unwrap()];
            let of_prefix = |address: &IpAddr| address.to_string().starts_with("fd00:7:");
            let mut found = near.addresses.iter().filter(|a| of_prefix(&a.address));
            found.any(|address| address.standing == Standing::Lesser)
        };
        let links = until(&mut netlink, &[], "a temporary address", temporary).await;
        let near = &links.interfaces[&"near".parse().unwrap()];
        assert_eq!(near.primary("ff05::1".parse().unwrap()), "fd00::1".parse().ok());
        // The kernel would send from the temporary one.
        assert_eq!(route(&mut netlink, "fd00:7::9").await, "near fd00:7::9 -");
    });
}

#[test]
fn routes_are_the_kernel_s() {
    hosts(|mut netlink, _there| async move {
        ip("route add default via 10.0.0.2");
        ip("route add 192.0.2.0/24 via 10.0.1.2 src 10.0.1.1");
        ip("route add 203.0.113.0/24 via inet6 fd00::2 dev near");
        ip("route add blackhole 198.51.100.1");
        ip("route add unreachable 198.51.100.2");
        ip("route add prohibit 198.51.100.3");
        ip("-6 route add 2001:db8::/32 via fd00::2");
        for (query, expected) in [
            ("10.0.0.9", "near 10.0.0.9 10.0.0.1"),
            ("10.0.0.9@near", "near 10.0.0.9 10.0.0.1"),
            ("8.8.8.8", "near 10.0.0.2 10.0.0.1"),
            ("8.8.8.8@near", "near 10.0.0.2 10.0.0.1"),
            ("8.8.8.8@other", "none: No route to host"),
            ("192.0.2.7", "other 10.0.1.2 10.0.1.1"),
            ("192.0.2.7@other", "other 10.0.1.2 10.0.1.1"),
            ("203.0.113.1", "near fd00::2 10.0.0.1"),
            ("10.0.0.1", "local"),
            ("10.0.0.1@near", "local"),
            ("10.0.0.1@lo", "local"),
            ("127.0.0.1", "local"),
            ("127.0.0.1@lo", "local"),
            ("10.0.0.255", "none: it is a broadcast address"),
            ("198.51.100.1", "none: Invalid argument (a blackhole route says so)"),
            ("198.51.100.2", "none: No route to host"),
            ("198.51.100.3", "none: Permission denied (a prohibit route says so)"),
            ("10.0.0.9@eth7", "none: no interface eth7"),
            ("10.0.0.9@lo", "none: No route to host"),
            ("2001:db8::1", "near fd00::2 fd00::1"),
            ("2001:db8::1@near", "near fd00::2 fd00::1"),
            ("2001:db8::1@other", "none: Network is unreachable"),
            ("2001:db9::1", "none: Network is unreachable"),
            ("fd00::9", "near fd00::9 fd00::1"),
            ("fd00::1", "local"),
            ("fd00::1@near", "local"),
            ("fd00::1@lo", "local"),
            ("::1@lo", "local"),
        ] {
            assert_eq!(route(&mut netlink, query).await, expected, "{query}");
        }
    });
}

#[test]
fn a_change_of_a_route_wakes_who_has_asked() {
    hosts(|mut netlink, _there| async move {
        netlink.links(&BTreeSet::new()).await.unwrap();
        assert!(is_quiet(&mut netlink).await);
        ip("route add 192.0.2.0/24 via 10.0.0.2");
        assert!(is_quiet(&mut netlink).await, "nobody has asked");
        let asked = ["192.0.2.7", "2001:db8::1"];
        let via = |text: &'static str, hop: &'static str| {
            move |links: &Links| {
                let route = &links.routes[queries(&[text]).first().unwrap()];
                let hop: IpAddr = hop.parse().unwrap();
                matches!(route, Route::Via { next_hop, .. } if *next_hop == hop)
            }
        };
        until(&mut netlink, &asked, "a route", via("192.0.2.7", "10.0.0.2")).await;
        for (change, text, hop) in [
            ("route replace 192.0.2.0/24 via 10.0.1.2", "192.0.2.7", "10.0.1.2"),
            ("route add 10.9.0.0/24 via 10.0.0.9 table 7", "192.0.2.7", "10.0.1.2"),
            ("route add 192.0.2.0/24 via 10.0.0.9 table 7", "192.0.2.7", "10.0.1.2"),
            ("rule add to 192.0.2.0/24 table 7", "192.0.2.7", "10.0.0.9"),
            ("-6 route add 2001:db8::/32 via fd00::2", "2001:db8::1", "fd00::2"),
        ] {
            assert!(is_quiet(&mut netlink).await, "before {change}");
            ip(change);
            timeout(DEADLINE, netlink.changed()).await.expect(change).unwrap();
            until(&mut netlink, &asked, change, via(text, hop)).await;
        }
    });
}

#[test]
fn a_wanted_neighbour_is_resolved_and_given_up() {
    hosts(|mut netlink, _there| async move {
        for address in ["10.0.0.2", "fd00::2"] {
            let wanted = BTreeSet::from([hop(address)]);
            let resolved = |links: &Links| links.neighbours.get(&hop(address)) == Some(&FAR);
            assert!(netlink.links(&BTreeSet::new()).await.unwrap().neighbours.is_empty());
            netlink.resolve(&wanted);
            until(&mut netlink, &[], "a neighbour", resolved).await;
            assert!(neighbour(address).contains("managed"), "{}", neighbour(address));
            // Somebody flushes.
            ip(&format!("neigh delete {address} dev near"));
            until(&mut netlink, &[], "its loss", |links| links.neighbours.is_empty()).await;
            until(&mut netlink, &[], "its return", resolved).await;
            assert!(neighbour(address).contains("managed"), "{}", neighbour(address));
            netlink.resolve(&BTreeSet::new());
            let left = neighbour(address);
            assert!(!left.contains("managed") && left.contains("lladdr"), "{left}");
            assert!(netlink.links(&BTreeSet::new()).await.unwrap().neighbours.is_empty());
        }
    });
}

#[test]
fn a_neighbour_that_comes_late_wakes() {
    hosts(|mut netlink, there| async move {
        let wanted = BTreeSet::from([hop("10.0.0.77")]);
        netlink.resolve(&wanted);
        netlink.links(&BTreeSet::new()).await.unwrap();
        assert!(neighbour("10.0.0.77").contains("managed"));
        in_namespace(&there, || ip("address add 10.0.0.77/24 dev far"));
        let resolved = |links: &Links| links.neighbours.get(&hop("10.0.0.77")) == Some(&FAR);
        until(&mut netlink, &[], "a neighbour", resolved).await;
        netlink.resolve(&BTreeSet::new());
    });
}

#[test]
fn neighbours_of_others_neither_wake_nor_change() {
    hosts(|mut netlink, _there| async move {
        ip("neigh add 10.0.0.50 dev near lladdr 02:00:00:00:00:50");
        ip("neigh add 10.0.0.51 dev near managed");
        ip("neigh add 10.0.0.52 dev near lladdr 02:00:00:00:00:52 nud reachable extern_learn");
        let theirs = ["10.0.0.50", "10.0.0.51", "10.0.0.52"];
        let before = theirs.map(neighbour);
        let wanted: BTreeSet<NextHop> = theirs.into_iter().map(hop).collect();
        netlink.resolve(&wanted);
        let links = netlink.links(&BTreeSet::new()).await.unwrap();
        let mac = |last| Some([2, 0, 0, 0, 0, last]);
        let neighbours = theirs.map(|address| links.neighbours.get(&hop(address)).copied());
        assert_eq!(neighbours, [mac(0x50), None, mac(0x52)]);
        assert!(is_quiet(&mut netlink).await);
        for n in 0..100 {
            ip(&format!("neigh replace 10.0.0.100 dev near lladdr 02:00:00:00:01:{n:02}"));
        }
        assert!(is_quiet(&mut netlink).await, "of another neighbour");
        ip("neigh replace 10.0.0.50 dev near lladdr 02:00:00:00:00:77");
        let moved = |links: &Links| links.neighbours.get(&hop("10.0.0.50")) == mac(0x77).as_ref();
        until(&mut netlink, &[], "another MAC", moved).await;
        ip("neigh replace 10.0.0.50 dev near lladdr 02:00:00:00:00:50");
        netlink.resolve(&BTreeSet::new());
        netlink.settle();
        let kind = |shown: String| {
            ["PERMANENT", "managed", "extern_learn"].map(|word| shown.contains(word))
        };
        assert_eq!(theirs.map(neighbour).map(kind), before.map(kind));
    });
}

#[test]
fn what_an_earlier_process_left_is_given_up() {
    hosts(|mut netlink, _there| async move {
        let wanted = ["10.0.0.2", "fd00::2", "10.0.0.60"].map(hop);
        netlink.resolve(&wanted.into());
        let known = |links: &Links| links.neighbours.len() == 2;
        until(&mut netlink, &[], "neighbours", known).await;
        drop(netlink);
        assert!(neighbour("10.0.0.2").contains("managed"));
        let mut next = Netlink::open().unwrap();
        next.resolve(&BTreeSet::from([hop("10.0.0.2")]));
        next.settle();
        let links = next.links(&BTreeSet::new()).await.unwrap();
        assert_eq!(links.neighbours.get(&hop("10.0.0.2")), Some(&FAR));
        assert!(neighbour("10.0.0.2").contains("managed"));
        assert!(!neighbour("fd00::2").contains("managed"));
        assert_eq!(neighbour("10.0.0.60"), "", "nothing was known of it");
    });
}

#[test]
fn what_an_interface_drops_on_receiving_is_read() {
    namespace::run(|namespace| {
        let lost = || receive_losses()[&namespace.indexes[0]];
        let before = lost();
        let far = namespace.far_end("in0");
        // A protocol that nobody takes (IEEE Std 802 local experimental).
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 0x0a], &[0x88, 0xb5], &[0; 46]].concat();
        (0..7).for_each(|_| assert_eq!(far.send(&frame).unwrap(), frame.len()));
        let mut expected = before;
        expected[Loss::Dropped as usize] += 7;
        wait_for("the count", || lost() == expected);
    });
}
