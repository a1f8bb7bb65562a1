//! Commands that add a rule for each stream that no rule takes. Pure.
//!
//! What has to be said stands on lines of its own that begin with a `#`, for not every shell takes
//! one behind a command.

use mcr_core::api::{Discovery, RuleSpec, StreamSeen};
use mcr_core::flow::{AddressBlock, Destination, Input, InterfaceName, OutputSource, PortRange};
use mcr_core::refusal::Refusal;
use mcr_core::table::is_ssm;
use mcr_core::verdict::{Pass, RuleDrop};

/// The rules send to the group and port of their stream on `to`.
pub(super) fn rules(found: &Discovery, to: &InterfaceName) -> String {
    let same = |a: &StreamSeen, b: &StreamSeen| {
        (&a.interface, a.vlan, a.group, a.port) == (&b.interface, b.vlan, b.group, b.port)
    };
    let lines: String =
        found.streams.chunk_by(same).filter_map(|senders| one_input(senders, to)).collect();
    if lines.is_empty() { "# no stream without a rule\n".into() } else { lines }
}

/// The lines for one group and port; nothing where rules take all its senders.
fn one_input(senders: &[StreamSeen], to: &InterfaceName) -> Option<String> {
    let untaken: Vec<&StreamSeen> = senders.iter().filter(|seen| seen.rule.is_none()).collect();
    let (own, open): (Vec<&StreamSeen>, Vec<&StreamSeen>) =
        untaken.into_iter().partition(|seen| passed(seen, RuleDrop::Own.name()));
    let mut remarks = Vec::new();
    if !own.is_empty() {
        remarks.push("sent by this relay, left out: a rule would not relay it again".to_owned());
    }
    let mut added = String::new();
    match open.first() {
        None => {}
        Some(StreamSeen { vlan: Some(vlan), interface, .. }) => remarks.push(format!(
            "of VLAN {vlan}, left out: it needs a rule on the interface of that VLAN (ip link add link \
             {interface} name {interface}.{vlan} type vlan id {vlan})"
        )),
        Some(StreamSeen { interface, .. }) if interface == to.as_str() => {
            remarks.push("arrives by the interface it would be sent to, left out".to_owned());
        }
        Some(_) => {
            remarks.extend(merged(&open));
            match command(&open, to) {
                Ok(command) => added = command + "\n",
                Err(refusal) => remarks.push(format!("left out: {refusal}")),
            }
        }
    }
    let StreamSeen { group, port, interface, .. } = senders.first()?;
    let flow = format!("{}:{port}@{interface}", AddressBlock::single(*group));
    let remarks: String = remarks.iter().map(|remark| format!("# {flow}: {remark}\n")).collect();
    let text = remarks + &added;
    (!text.is_empty()).then_some(text)
}

/// Said of a rule with several senders.
fn merged(senders: &[&StreamSeen]) -> Option<String> {
    let from: Vec<String> = senders.iter().map(|seen| seen.source.to_string()).collect();
    (from.len() > 1).then(|| {
        format!(
            "{} senders ({}), of whose packets the rule makes one stream; to take one alone, name \
             it: SOURCE@",
            from.len(),
            from.join(", ")
        )
    })
}

fn passed(seen: &StreamSeen, reason: &str) -> bool {
    seen.pass.as_deref() == Some(reason)
}

/// Of senders that there are. The rule names them where others must not come in too; it is checked as far
/// as its text shows what is wrong.
fn command(senders: &[&StreamSeen], to: &InterfaceName) -> Result<String, Refusal> {
    let seen = senders[0];
    let others = senders.iter().any(|seen| passed(seen, Pass::OtherSource.name()));
    let named = others || is_ssm(seen.group);
    let addresses = AddressBlock::single(seen.group);
    let ports = PortRange::new(seen.port, seen.port)?;
    let sources = senders.iter().filter(|_| named).map(|seen| seen.source).collect();
    let input = Input { sources, addresses, ports, interface: seen.interface.parse()? };
    let output = Destination {
        source: OutputSource::Primary,
        addresses,
        ports: Some(ports),
        interface: Some(to.clone()),
    };
    let (input, output) = (input.to_string(), output.to_string());
    let spec = RuleSpec {
        name: None,
        comment: None,
        input: input.clone(),
        sources: Vec::new(),
        outputs: vec![output.parse()?],
        enabled: true,
        local: None,
        join: None,
        max_rate: None,
        silence: None,
        inspect: None,
    };
    spec.check()?;
    Ok(format!("mcrctl add {} {}", shell_words::quote(&input), shell_words::quote(&output)))
}
