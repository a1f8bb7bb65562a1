//! What the kernel knows of joined sources: `/proc/net/mcfilter` and `mcfilter6`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{fs, io};

use mcr_core::action::Membership;
use mcr_core::link::IfIndex;

/// The memberships from named sources, of all sockets of this network namespace.
pub(super) fn read() -> io::Result<BTreeSet<Membership>> {
    let four = fs::read_to_string("/proc/thread-self/net/mcfilter")?;
    let six = fs::read_to_string("/proc/thread-self/net/mcfilter6");
    let six = match six {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        six => six?,
    };
    Ok(four.lines().chain(six.lines()).filter_map(joined).collect())
}

/// Index, device, group, source, and how many sockets include and exclude it. The first line is the
/// head of the table.
fn joined(line: &str) -> Option<Membership> {
    let mut columns = line.split_whitespace();
    let interface = IfIndex(columns.next()?.parse().ok()?);
    let group = address(columns.nth(1)?)?;
    let source = address(columns.next()?)?;
    let included: u64 = columns.next()?.parse().ok()?;
    (included > 0).then_some(Membership { interface, group, source: Some(source) })
}

/// `0xe8010103`, or 32 digits.
fn address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix("0x") {
        Some(four) => u32::from_str_radix(four, 16).ok().map(|a| Ipv4Addr::from_bits(a).into()),
        None => u128::from_str_radix(text, 16).ok().map(|a| Ipv6Addr::from_bits(a).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let membership = |group: &str, source: &str| Membership {
            interface: IfIndex(3),
            group: group.parse().unwrap(),
            source: Some(source.parse().unwrap()),
        };
        assert_eq!(joined("Idx Device        MCA        SRC    INC    EXC"), None);
        assert_eq!(
            joined("  3  veth7 0xe8010103 0x0a000301      1      0"),
            Some(membership("232.1.1.3", "10.0.3.1"))
        );
        assert_eq!(joined("  3  veth7 0xe8010103 0x0a000301      0      1"), None);
        assert_eq!(
            joined(
                "  3  veth7 ff350000000000000000000000000001 fd000000000000000000000000000001      \
                 1      0"
            ),
            Some(membership("ff35::1", "fd00::1"))
        );
    }
}
