//! The rule table: the only owner of rules, and what rules may not do to each other.
//!
//! A change is made in place and can be taken back whole ([`RuleTable::revert`]), because the
//! kernel may still refuse it after the table has accepted it.

mod circle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::flow::{AddressBlock, Input, InterfaceName, OutputSource, PortRange};
use crate::link::{Links, Mac};
use crate::refusal::{Code, Refusal};
use crate::rule::{Origin, Rule, RuleKey};
use crate::wire::ethernet::group_mac;

/// A rule and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The rule.
    pub rule: Rule,
    /// Who reconciles it.
    pub origin: Origin,
}

/// One step of a change.
#[derive(Debug, Clone)]
pub enum Edit {
    /// A new rule.
    Add(Entry),
    /// A rule in the place of another, whose key it may change.
    Replace(RuleKey, Entry),
    /// No rule of this key any more.
    Remove(RuleKey),
}

/// One rule before and after a change.
#[derive(Debug, Clone)]
pub struct Difference {
    /// What it was addressed by before; absent for a new rule.
    pub before: Option<(RuleKey, Arc<Entry>)>,
    /// What it is addressed by after; absent for a rule that is gone.
    pub after: Option<(RuleKey, Arc<Entry>)>,
}

/// An exact flow on an interface.
type Place = (InterfaceName, IpAddr, u16);

/// Where an output sends to; without an interface the route decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    interface: Option<InterfaceName>,
    addresses: AddressBlock,
    ports: PortRange,
}

/// All rules, by key.
#[derive(Debug, Default)]
pub struct RuleTable {
    rules: BTreeMap<RuleKey, Arc<Entry>>,
    /// Rules by the exact input they take; several when their sources differ.
    takers: BTreeMap<Place, BTreeSet<RuleKey>>,
    /// Rules whose input is a range.
    ranges: BTreeSet<RuleKey>,
    /// How many outputs go to each target.
    targets: BTreeMap<Target, usize>,
    /// How many inputs and outputs use a group, by interface and MAC address.
    groups: BTreeMap<(InterfaceName, Mac), BTreeMap<IpAddr, usize>>,
}

impl RuleTable {
    /// The rule of that key.
    pub fn entry(&self, key: &RuleKey) -> Option<&Arc<Entry>> {
        self.rules.get(key)
    }

    /// All rules in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&RuleKey, &Arc<Entry>)> {
        self.rules.iter()
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Makes all edits, or refuses and changes nothing. Two rules may swap what they take within
    /// one change: only its end is judged. Rules left as they are do not appear in the result.
    pub fn change(&mut self, edits: Vec<Edit>) -> Result<Vec<Difference>, Refusal> {
        let mut differences = Vec::new();
        let judged = self.make(edits, &mut differences).and_then(|()| {
            differences.retain(|d| match (&d.before, &d.after) {
                (Some((a, before)), Some((b, after))) => a != b || before != after,
                _ => true,
            });
            // The later of two rules that contradict each other is to blame.
            differences
                .iter()
                .rev()
                .filter_map(|difference| difference.after.as_ref())
                .try_for_each(|(key, entry)| self.judge(key, &entry.rule))
        });
        match judged {
            Ok(()) => Ok(differences),
            Err(refusal) => {
                self.revert(differences);
                Err(refusal)
            }
        }
    }

    /// Takes a change back.
    pub fn revert(&mut self, differences: Vec<Difference>) {
        for difference in differences.iter().rev() {
            if let Some((key, _)) = &difference.after {
                self.take(key);
            }
        }
        for difference in differences {
            if let Some((key, entry)) = difference.before {
                self.put(key, entry);
            }
        }
    }

    fn make(&mut self, edits: Vec<Edit>, made: &mut Vec<Difference>) -> Result<(), Refusal> {
        for edit in edits {
            let (old, new) = match edit {
                Edit::Add(entry) => (None, Some(entry)),
                Edit::Replace(key, entry) => (Some(key), Some(entry)),
                Edit::Remove(key) => (Some(key), None),
            };
            let mut difference = Difference { before: None, after: None };
            if let Some(key) = old {
                let entry = self.take(&key).ok_or_else(|| unknown_rule(&key))?;
                difference.before =
                    Self::earlier(made, &key).or(Some(Some((key, entry)))).flatten();
            }
            made.push(difference);
            let Some(entry) = new else { continue };
            let key = entry.rule.key();
            if self.rules.contains_key(&key) {
                return Err(match &entry.rule.name {
                    Some(name) => Refusal::new(
                        Code::Conflict,
                        format!("rule {name}: the name is taken"),
                        format!(
                            "choose another name, change that rule with `mcrctl set {name}`, or remove it first"
                        ),
                    ),
                    None => taken(&key, &entry.rule.input, &key),
                });
            }
            let entry = Arc::new(entry);
            self.put(key.clone(), Arc::clone(&entry));
            let again = Self::removed_before(made, &key);
            if let Some(last) = made.last_mut() {
                last.before = last.before.take().or(again);
                last.after = Some((key, entry));
            }
        }
        made.retain(|difference| difference.before.is_some() || difference.after.is_some());
        Ok(())
    }

    /// When an earlier step of the same change removed the rule `key`, and the last one makes a new
    /// rule by that name, the two are one replacement.
    fn removed_before(made: &mut Vec<Difference>, key: &RuleKey) -> Option<(RuleKey, Arc<Entry>)> {
        if made.last().is_some_and(|last| last.before.is_some()) {
            return None;
        }
        let removed = |difference: &Difference| {
            let before = difference.before.as_ref();
            difference.after.is_none() && before.is_some_and(|(before, _)| before == key)
        };
        let position = made.iter().position(removed)?;
        made.remove(position).before
    }

    /// When an earlier step of the same change made the rule `key`, that step's difference is
    /// taken over, so that a change holds each rule once: what it was before the change.
    fn earlier(made: &mut Vec<Difference>, key: &RuleKey) -> Option<Option<(RuleKey, Arc<Entry>)>> {
        let position =
            made.iter().rposition(|d| d.after.as_ref().is_some_and(|(after, _)| after == key))?;
        Some(made.remove(position).before)
    }

    fn put(&mut self, key: RuleKey, entry: Arc<Entry>) {
        let input = &entry.rule.input;
        if input.is_range() {
            self.ranges.insert(key.clone());
        } else {
            self.takers.entry(place(input)).or_default().insert(key.clone());
        }
        for target in targets(&entry.rule) {
            *self.targets.entry(target).or_default() += 1;
        }
        for (interface, group) in groups(&entry.rule) {
            let sharing = self.groups.entry((interface, group_mac(group))).or_default();
            *sharing.entry(group).or_default() += 1;
        }
        self.rules.insert(key, entry);
    }

    fn take(&mut self, key: &RuleKey) -> Option<Arc<Entry>> {
        let entry = self.rules.remove(key)?;
        self.ranges.remove(key);
        let place = place(&entry.rule.input);
        if let Some(keys) = self.takers.get_mut(&place) {
            keys.remove(key);
            if keys.is_empty() {
                self.takers.remove(&place);
            }
        }
        for target in targets(&entry.rule) {
            release(&mut self.targets, &target);
        }
        for (interface, group) in groups(&entry.rule) {
            let key = (interface, group_mac(group));
            let Some(sharing) = self.groups.get_mut(&key) else { continue };
            release(sharing, &group);
            if sharing.is_empty() {
                self.groups.remove(&key);
            }
        }
        Some(entry)
    }

    /// What the text alone shows wrong. Circles that depend on the host's addresses are judged
    /// again when rules are resolved.
    fn judge(&self, key: &RuleKey, rule: &Rule) -> Result<(), Refusal> {
        match self.overlapping(key, &rule.input) {
            Some(other) => Err(taken(key, &rule.input, other)),
            None => self.refuse_circle(key, rule, &Links::default()),
        }
    }

    /// Another rule that takes packets of this input. An exact rule wins over a range, so the two
    /// do not overlap.
    fn overlapping(&self, key: &RuleKey, input: &Input) -> Option<&RuleKey> {
        let same_kind =
            if input.is_range() { Some(&self.ranges) } else { self.takers.get(&place(input)) };
        same_kind?.iter().find(|other| {
            let meets = |entry: &Arc<Entry>| overlaps(&entry.rule.input, input);
            *other != key && self.rules.get(*other).is_some_and(meets)
        })
    }

    /// Rules that may take a packet of this output when it comes in again on `interface`.
    fn takers_of(&self, target: &Target, interface: &InterfaceName) -> Vec<(&RuleKey, &Rule)> {
        let Target { addresses, ports, .. } = target;
        let from = (interface.clone(), addresses.first(), 0);
        let to = (interface.clone(), addresses.last(), u16::MAX);
        let exact = self.takers.range(from..=to).filter(|((_, _, port), _)| ports.contains(*port));
        let exact: Vec<&RuleKey> = exact.flat_map(|(_, keys)| keys).collect();
        // An exact rule wins over a range, unless it takes some sources only.
        let any = |key: &&RuleKey| self.rules[*key].rule.input.sources.is_empty();
        let single = addresses.is_single() && ports.is_single();
        let taken = single && exact.iter().any(any);
        let ranges = self.ranges.iter().filter(|key| {
            let input = &self.rules[*key].rule.input;
            !taken
                && input.interface == *interface
                && input.addresses.overlaps(*addresses)
                && input.ports.overlaps(*ports)
        });
        exact.into_iter().chain(ranges).map(|key| (key, &self.rules[key].rule)).collect()
    }

    /// What may not be meant, of the rules that a change has made.
    pub fn warnings(&self, differences: &[Difference], links: &Links) -> Vec<String> {
        let mut warnings = Vec::new();
        let after = differences.iter().filter_map(|difference| difference.after.as_ref());
        for (key, entry) in after.filter(|(_, entry)| entry.rule.enabled) {
            let rule = &entry.rule;
            if rule.input.sources.is_empty() && is_ssm(rule.input.addresses.first()) {
                warnings.push(format!(
                    "{key}: {} is source-specific (RFC 4607), and the input takes any source",
                    rule.input.addresses
                ));
            }
            for target in targets(rule) {
                if self.targets.get(&target).is_some_and(|count| *count > 1) {
                    warnings.push(format!(
                        "{key}: another rule sends to {target} too; receivers get both streams mixed"
                    ));
                }
            }
            for output in &rule.outputs {
                let to = output.to.addresses.first();
                if is_ssm(to) && output.to.source == OutputSource::Primary {
                    warnings.push(format!(
                        "{key}: {} is source-specific (RFC 4607), and its receivers have joined one \
                         source: give the output a fixed one (SOURCE@), since the interface's primary \
                         address may change",
                        output.to
                    ));
                }
            }
            for (interface, group) in groups(rule) {
                let mac = group_mac(group);
                let sharing = self.groups.get(&(interface.clone(), mac));
                if let Some(other) = sharing.and_then(|s| s.keys().find(|other| **other != group)) {
                    warnings.push(format!(
                        "{key}: {group} and {other} share the MAC address {} on {interface}; \
                         switches and NICs cannot tell them apart (RFC 1112 §6.4, RFC 2464 §7)",
                        MacText(mac)
                    ));
                }
            }
            warnings.extend(mtu_warnings(key, rule, links));
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }
}

struct MacText(Mac);

impl std::fmt::Display for MacText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

fn mtu_warnings(key: &RuleKey, rule: &Rule, links: &Links) -> Vec<String> {
    let Some(input) = links.by_name(&rule.input.interface) else { return Vec::new() };
    let smaller = |name: &InterfaceName| {
        let output = links.by_name(name)?;
        (output.mtu < input.mtu).then(|| {
            format!(
                "{key}: the MTU of {name} is {}, that of {} is {}; larger packets are dropped \
                 there as `mtu`",
                output.mtu, rule.input.interface, input.mtu
            )
        })
    };
    rule.outputs
        .iter()
        .filter_map(|output| output.to.interface.as_ref())
        .filter_map(smaller)
        .collect()
}

/// Source-specific groups (RFC 4607 §1): 232/8 and ff3x::/32.
pub(crate) fn is_ssm(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.octets()[0] == 232,
        IpAddr::V6(a) => a.segments()[0] & 0xfff0 == 0xff30 && a.segments()[1] == 0,
    }
}

fn place(input: &Input) -> Place {
    (input.interface.clone(), input.addresses.first(), input.ports.first())
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.addresses, self.ports)?;
        self.interface.as_ref().map_or(Ok(()), |interface| write!(f, "@{interface}"))
    }
}

/// Where a rule sends to, in the order of its outputs.
fn targets(rule: &Rule) -> impl Iterator<Item = Target> {
    rule.outputs.iter().map(|output| Target {
        interface: output.to.interface.clone(),
        addresses: output.to.addresses,
        ports: output.to.ports.unwrap_or(rule.input.ports),
    })
}

/// The groups that a rule names one by one, with their interfaces.
fn groups(rule: &Rule) -> impl Iterator<Item = (InterfaceName, IpAddr)> {
    let input = (Some(&rule.input.interface), rule.input.addresses);
    let outputs = rule.outputs.iter().map(|o| (o.to.interface.as_ref(), o.to.addresses));
    std::iter::once(input).chain(outputs).filter_map(|(interface, addresses)| {
        let group = Some(addresses.first()).filter(|a| a.is_multicast() && addresses.is_single());
        Some((interface?.clone(), group?))
    })
}

fn release<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn overlaps(a: &Input, b: &Input) -> bool {
    let sources = a.sources.is_empty()
        || b.sources.is_empty()
        || a.sources.iter().any(|source| b.sources.contains(source));
    a.interface == b.interface
        && a.addresses.overlaps(b.addresses)
        && a.ports.overlaps(b.ports)
        && sources
}

fn taken(key: &RuleKey, input: &Input, other: &RuleKey) -> Refusal {
    Refusal::new(
        Code::Conflict,
        if key.as_str() == input.to_string() {
            format!("the input {input} is taken by rule {other}")
        } else {
            format!("rule {key}: the input {input} is taken by rule {other}")
        },
        format!(
            "add outputs to that rule with `mcrctl output add {other} ...`, or remove it first"
        ),
    )
}

/// The refusal for a key that is in no table.
pub fn unknown_rule(key: &RuleKey) -> Refusal {
    Refusal::new(
        Code::NotFound,
        format!("there is no rule {key}"),
        "`mcrctl list` shows the names of all rules",
    )
}
