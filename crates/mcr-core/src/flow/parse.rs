//! The parser of flows: text to [`Input`] and [`Destination`], with a hint for every mistake that
//! is commonly pasted in.

use std::net::IpAddr;
use std::str::FromStr;

use super::{AddressBlock, Destination, Input, InterfaceName, OutputSource, PortRange};
use crate::refusal::{Code, Refusal};

/// IFNAMSIZ of the kernel, less the closing NUL.
const INTERFACE_NAME_MAX: usize = 15;

impl FromStr for InterfaceName {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let refuse = |why: &str, hint: &str| {
            Err(invalid(format!("{text:?} is not an interface name: {why}"), hint))
        };
        if let Some((name, _)) = text.split_once('@') {
            return refuse(
                "it has an '@'",
                &format!("`ip link` prints the parent behind the name: write {name} alone"),
            );
        }
        match text {
            "" => return refuse("it is empty", "write the interface behind the '@', as in @eth0"),
            "*" | "any" => {
                return refuse("a wildcard takes no part in a flow", "write one rule an interface");
            }
            "." | ".." => return refuse("the kernel does not allow it", "see `ip link`"),
            _ => {}
        }
        if text.len() > INTERFACE_NAME_MAX {
            return refuse("it is longer than 15 bytes", "see `ip link` for the name");
        }
        let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if text.contains(forbidden) {
            return refuse("it has a '/', ':' or white space", "see `ip link` for the name");
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for Input {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let parts = split(text)?;
        let mut sources = match parts.source {
            None => Vec::new(),
            Some(list) => list.split(',').map(source_address).collect::<Result<_, _>>()?,
        };
        sources.sort_unstable();
        sources.dedup();
        let (addresses, ports) = endpoint(parts.address)?;
        let ports = ports.ok_or_else(|| {
            invalid(format!("{text:?} has no port"), "write ADDRESS:PORT@INTERFACE")
        })?;
        let interface = parts.interface.ok_or_else(|| {
            invalid(
                format!("{text:?} names no interface"),
                "add the interface that the packets arrive on, as in 239.1.1.1:5000@eth0",
            )
        })?;
        Ok(Self { sources, addresses, ports, interface: interface.parse()? })
    }
}

impl FromStr for Destination {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let parts = split(text)?;
        let source = parts.source.map_or(Ok(OutputSource::Primary), output_source)?;
        let (addresses, ports) = endpoint(parts.address)?;
        let interface = parts.interface.map(str::parse).transpose()?;
        Ok(Self { source, addresses, ports, interface })
    }
}

/// A flow cut at its '@'s; nothing is checked but which part is which.
struct Parts<'a> {
    source: Option<&'a str>,
    address: &'a str,
    interface: Option<&'a str>,
}

fn split(text: &str) -> Result<Parts<'_>, Refusal> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(invalid(
            format!("{text:?} is a URL, not a flow"),
            format!("leave out {scheme}:// and write {}", rest.trim_start_matches('@')),
        ));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(invalid(format!("{text:?} has white space in it"), "write it without"));
    }
    let (first, rest) = match text.split_once('@') {
        None => return Ok(Parts { source: None, address: text, interface: None }),
        Some(cut) => cut,
    };
    let second = rest.split('@').next().unwrap_or(rest);
    if !looks_like_address(second) {
        return Ok(Parts { source: None, address: first, interface: Some(rest) });
    }
    let interface = rest.split_once('@').map(|(_, interface)| interface);
    Ok(Parts { source: Some(first), address: second, interface })
}

/// Interface names have no ':', and one that is an IPv4 address is not worth serving.
fn looks_like_address(text: &str) -> bool {
    let head = text.split([':', '/']).next().unwrap_or(text);
    text.starts_with('[') || text.contains(':') || head.parse::<IpAddr>().is_ok()
}

/// `ADDRESS[/PREFIX][:PORT[-PORT]]`, IPv6 in brackets with the prefix behind them.
fn endpoint(text: &str) -> Result<(AddressBlock, Option<PortRange>), Refusal> {
    if let Some((_, zone)) = text.split_once('%') {
        let zone = zone.split([']', ':', '/']).next().unwrap_or(zone);
        return Err(invalid(
            format!("{text:?} has a zone"),
            format!("leave out %{zone}: the interface stands behind the port, as in @{zone}"),
        ));
    }
    let (host, tail) = if let Some(rest) = text.strip_prefix('[') {
        rest.split_once(']').ok_or_else(|| {
            invalid(format!("{text:?} has no closing ']'"), "write IPv6 as [ff3e::1]:5000")
        })?
    } else if text.matches(':').count() > 1 {
        return Err(invalid(
            format!("{text:?} is IPv6 without brackets"),
            "write the address in brackets, as in [ff3e::8000:1]:5000@eth0",
        ));
    } else {
        text.split_at(text.find(['/', ':']).unwrap_or(text.len()))
    };
    let first = address(host, text.starts_with('['))?;
    let (prefix, ports) = match tail.split_once(':') {
        None => (tail, None),
        Some((prefix, ports)) => (prefix, Some(port_range(ports)?)),
    };
    let block = match prefix.strip_prefix('/') {
        Some(length) => AddressBlock::new(first, prefix_length(length)?)?,
        None if prefix.is_empty() => AddressBlock::single(first),
        None => return Err(invalid(format!("{text:?} is no address and port"), FORM)),
    };
    Ok((block, ports))
}

const FORM: &str = "write ADDRESS:PORT@INTERFACE, as in 239.1.1.1:5000@eth0";

fn address(host: &str, bracketed: bool) -> Result<IpAddr, Refusal> {
    if let Some((_, zone)) = host.split_once('%') {
        return Err(invalid(
            format!("{host:?} has a zone"),
            format!("leave out %{zone}: the interface stands behind the port, as in @{zone}"),
        ));
    }
    if matches!(host, "*" | "0.0.0.0" | "::" | "") {
        return Err(invalid(
            format!("{host:?} is a wildcard, and a flow has one address"),
            "name the group, or a range such as 239.1.1.0/24",
        ));
    }
    let address: IpAddr =
        host.parse().map_err(|_| invalid(format!("{host:?} is not an IP address"), FORM))?;
    if bracketed != address.is_ipv6() {
        return Err(invalid(
            format!("{host} is not written as its family asks"),
            "brackets are for IPv6: 239.1.1.1:5000@eth0, [ff3e::8000:1]:5000@eth0",
        ));
    }
    Ok(address)
}

/// The brackets around an IPv6 source may be left out: no port follows it.
fn source_address(text: &str) -> Result<IpAddr, Refusal> {
    let host = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if host.parse::<std::net::SocketAddr>().is_ok() || text.contains("]:") {
        return Err(invalid(
            format!("source {text:?} has a port"),
            "an input takes any source port: write the address alone",
        ));
    }
    address(host, host.contains(':'))
}

fn output_source(text: &str) -> Result<OutputSource, Refusal> {
    if text == "keep" {
        return Ok(OutputSource::Keep);
    }
    let has_port =
        if text.starts_with('[') { text.contains("]:") } else { text.matches(':').count() == 1 };
    if let Some((host, number)) = text.rsplit_once(':').filter(|_| has_port) {
        let number = port(number)?;
        PortRange::new(number, number)?;
        return Ok(OutputSource::AddressAndPort(source_address(host)?, number));
    }
    source_address(text).map(OutputSource::Address).map_err(|refusal| Refusal {
        hint: "a source is an address, ADDRESS:PORT or keep".into(),
        ..refusal
    })
}

fn port_range(text: &str) -> Result<PortRange, Refusal> {
    match text.split_once('-') {
        None => port(text).and_then(|port| PortRange::new(port, port)),
        Some((first, last)) => PortRange::new(port(first)?, port(last)?),
    }
}

fn port(text: &str) -> Result<u16, Refusal> {
    number(text)
        .ok_or_else(|| invalid(format!("{text:?} is not a UDP port"), "use a number, 1 to 65535"))
}

fn prefix_length(text: &str) -> Result<u8, Refusal> {
    number(text).ok_or_else(|| {
        invalid(format!("{text:?} is not a prefix length"), "use a number, as in 239.1.1.0/24")
    })
}

/// Digits only: `+5` and `05` are no numbers here, so that every flow has one spelling.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::new(Code::Invalid, message, hint)
}
