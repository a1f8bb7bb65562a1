//! What a client may ask, as edits of the rule table.

use std::collections::{BTreeMap, BTreeSet};

use crate::refusal::{Code, Refusal};
use crate::rule::{Origin, Rule, RuleKey};
use crate::table::{Edit, Entry, RuleTable};

/// A change that a client, or the daemon itself, asks for.
#[derive(Debug, Clone)]
pub enum Request {
    /// These steps together.
    Steps(Vec<RuleStep>),
    /// This rule under that key, whether there is one or not.
    Put(RuleKey, Rule),
    /// These rules and no others.
    Apply {
        /// The rules.
        rules: Vec<Rule>,
        /// Whether no rules at all may be meant.
        allow_empty: bool,
    },
    /// The configuration files say these rules.
    Reload(Vec<Rule>),
    /// The start: what the files say, and the rules in no file that an earlier process has kept.
    Start {
        /// From the files.
        file: Vec<Rule>,
        /// From a client, before.
        runtime: Vec<Rule>,
    },
}

/// One step of [`Request::Steps`].
#[derive(Debug, Clone)]
pub enum RuleStep {
    /// A new rule.
    Add(Rule),
    /// A rule in the place of another.
    Replace(RuleKey, Rule),
    /// No such rule any more.
    Remove(RuleKey),
}

/// Conditions of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard {
    /// Refuse when the rules are of another generation.
    pub generation: Option<u64>,
    /// Only say what would change.
    pub dry_run: bool,
    /// Take what the machine does not have yet: it waits.
    pub wait: bool,
}

impl Request {
    /// Whether one part that the machine refuses makes the whole refused.
    pub(super) fn is_strict(&self) -> bool {
        match self {
            Self::Steps(_) | Self::Put(..) | Self::Apply { .. } => true,
            Self::Reload(_) | Self::Start { .. } => false,
        }
    }

    /// The rules that it brings in.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        let (some, one): (Vec<&[Rule]>, Option<&Rule>) = match self {
            Self::Steps(steps) => {
                let steps = steps.iter().filter_map(|step| match step {
                    RuleStep::Add(rule) | RuleStep::Replace(_, rule) => {
                        Some(std::slice::from_ref(rule))
                    }
                    RuleStep::Remove(_) => None,
                });
                (steps.collect(), None)
            }
            Self::Put(_, rule) => (Vec::new(), Some(rule)),
            Self::Apply { rules, .. } | Self::Reload(rules) => (vec![rules], None),
            Self::Start { file, runtime } => (vec![file, runtime], None),
        };
        some.into_iter().flatten().chain(one)
    }

    pub(super) fn edits(self, table: &RuleTable) -> Result<Vec<Edit>, Refusal> {
        let edits = match self {
            Self::Steps(steps) => {
                let mut origins = BTreeMap::new();
                steps.into_iter().map(|step| step.edit(table, &mut origins)).collect()
            }
            Self::Put(key, rule) => match table.entry(&key) {
                Some(entry) => vec![Edit::Replace(key, Entry { rule, origin: entry.origin })],
                None => vec![Edit::Add(Entry { rule, origin: Origin::Runtime })],
            },
            Self::Apply { rules, allow_empty } => {
                if rules.is_empty() && !allow_empty {
                    return Err(Refusal::new(
                        Code::Invalid,
                        "the apply has no rules and would remove all",
                        "if that is meant, say --allow-empty (in the API: ?allow_empty=true)",
                    ));
                }
                reconcile(table, rules, Origin::Runtime, |_| true)
            }
            Self::Reload(rules) => {
                reconcile(table, rules, Origin::File, |origin| origin == Origin::File)
            }
            Self::Start { file, runtime } => {
                let add = |origin| move |rule| Edit::Add(Entry { rule, origin });
                let file = file.into_iter().map(add(Origin::File));
                file.chain(runtime.into_iter().map(add(Origin::Runtime))).collect()
            }
        };
        Ok(edits)
    }
}

impl RuleStep {
    /// A rule keeps its origin while steps of one request replace and rename it.
    fn edit(self, table: &RuleTable, origins: &mut BTreeMap<RuleKey, Origin>) -> Edit {
        match self {
            Self::Add(rule) => Edit::Add(Entry { rule, origin: Origin::Runtime }),
            Self::Replace(key, rule) => {
                let known = origins.get(&key).copied();
                let origin = known.or_else(|| table.entry(&key).map(|entry| entry.origin));
                let origin = origin.unwrap_or(Origin::Runtime);
                origins.insert(rule.key(), origin);
                Edit::Replace(key, Entry { rule, origin })
            }
            Self::Remove(key) => Edit::Remove(key),
        }
    }
}

/// Edits that make the rules for which `ours` holds equal to `rules`: removals first, so that names
/// and inputs can move from one rule to another.
fn reconcile(
    table: &RuleTable,
    rules: Vec<Rule>,
    origin: Origin,
    ours: impl Fn(Origin) -> bool,
) -> Vec<Edit> {
    let wanted: BTreeSet<RuleKey> = rules.iter().map(Rule::key).collect();
    let gone = |(key, entry): &(&RuleKey, &std::sync::Arc<Entry>)| {
        ours(entry.origin) && !wanted.contains(*key)
    };
    let mut edits: Vec<Edit> =
        table.iter().filter(gone).map(|(key, _)| Edit::Remove(key.clone())).collect();
    let mut met = BTreeSet::new();
    for rule in rules {
        let key = rule.key();
        // A key that comes twice is added twice, and the table refuses it by name.
        // A rule that somebody else made just so is taken over.
        let there = table
            .entry(&key)
            .filter(|entry| (ours(entry.origin) || entry.rule == rule) && met.insert(key.clone()));
        edits.push(match there {
            Some(entry) if ours(entry.origin) => {
                Edit::Replace(key, Entry { rule, origin: entry.origin })
            }
            Some(_) => Edit::Replace(key, Entry { rule, origin }),
            None => Edit::Add(Entry { rule, origin }),
        });
    }
    edits
}
