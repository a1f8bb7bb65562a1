//! Changes of rules in memory: [`Draft`] holds the rules as they would be, and the steps that make
//! them so. Pure; whether the steps are taken is for `mcrd` to say.
//!
//! Every line leaves each rule right by itself ([`RuleSpec::check`]). What rules show wrong
//! together is judged by `mcrd`, at the end of all steps.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use mcr_core::api::{OutputSpec, RuleList, RuleSpec, Setting, Step};
use mcr_core::flow::Destination;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::rule::RuleKey;
use mcr_core::table::unknown_rule;

use crate::args::{AddArgs, Change, OutputChange, SetArgs, Settings};

/// The rules as they would be.
#[derive(Debug)]
pub(crate) struct Draft {
    rules: BTreeMap<RuleKey, RuleSpec>,
    steps: Vec<Step>,
}

impl Draft {
    pub(crate) fn new(list: RuleList) -> Self {
        let keyed = |view: mcr_core::api::RuleView| (RuleKey::from_user(&view.name), view.rule);
        Self { rules: list.rules.into_iter().map(keyed).collect(), steps: Vec::new() }
    }

    /// Makes a change. After a refusal the draft is of no use.
    pub(crate) fn make(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Add(args) => self.add(new_rule(args)?),
            Change::Set(SetArgs { rule, settings, wait: _ }) => {
                self.change(rule, |rule| settings.apply(rule))
            }
            Change::Remove { names } => names.iter().try_for_each(|name| self.remove(name)),
            Change::Output(OutputChange::Add { name, outputs, wait: _ }) => {
                self.change(name, |rule| {
                    rule.outputs.extend(parsed(outputs)?);
                    Ok(())
                })
            }
            Change::Output(OutputChange::Remove { name, outputs }) => {
                self.change(name, |rule| remove_outputs(name, rule, outputs))
            }
            Change::Enable { names } => self.switch(names, true),
            Change::Disable { names } => self.switch(names, false),
        }
    }

    /// The steps so far; none when nothing changes.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    fn add(&mut self, spec: RuleSpec) -> Result<(), Refusal> {
        let (key, spec) = canonical(&spec)?;
        self.insert(key, spec.clone())?;
        self.steps.push(Step::Add(spec));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), Refusal> {
        let key = RuleKey::from_user(name);
        self.rules.remove(&key).ok_or_else(|| unknown_rule(&key))?;
        self.steps.push(Step::Remove(key.to_string()));
        Ok(())
    }

    fn switch(&mut self, names: &[String], enabled: bool) -> Result<(), Refusal> {
        names.iter().try_for_each(|name| {
            self.change(name, |rule| {
                rule.enabled = enabled;
                Ok(())
            })
        })
    }

    fn change(
        &mut self,
        name: &str,
        edit: impl FnOnce(&mut RuleSpec) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let old_key = RuleKey::from_user(name);
        let old = self.rules.get(&old_key).ok_or_else(|| unknown_rule(&old_key))?;
        let mut spec = old.clone();
        edit(&mut spec)?;
        let (key, spec) = canonical(&spec)?;
        if spec == *old {
            return Ok(());
        }
        self.rules.remove(&old_key);
        self.insert(key, spec.clone())?;
        self.steps.push(Step::Replace { name: old_key.to_string(), rule: spec });
        Ok(())
    }

    fn insert(&mut self, key: RuleKey, spec: RuleSpec) -> Result<(), Refusal> {
        if self.rules.contains_key(&key) {
            return Err(Refusal::new(
                Code::Conflict,
                format!("there is a rule {key} already"),
                format!("choose another name or input, or change that rule with `set {key}`"),
            ));
        }
        self.rules.insert(key, spec);
        Ok(())
    }
}

/// The rule that `add` describes.
pub(crate) fn new_rule(args: &AddArgs) -> Result<RuleSpec, Refusal> {
    let mut outputs = parsed(&args.outputs)?;
    for output in &mut outputs {
        fill(&mut output.ttl, args.ttl.as_ref());
        fill(&mut output.dscp, args.dscp.as_ref());
    }
    Ok(RuleSpec {
        name: args.name.clone(),
        comment: args.comment.clone().filter(|comment| !comment.is_empty()),
        input: args.input.clone(),
        sources: Vec::new(),
        outputs,
        enabled: !args.disabled,
        local: args.local.clone(),
        join: args.join.clone(),
        max_rate: args.max_rate.clone(),
        silence: args.silence.clone(),
        inspect: args.inspect.clone(),
    })
}

impl Settings {
    fn apply(&self, rule: &mut RuleSpec) -> Result<(), Refusal> {
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        if let Some(name) = &self.name {
            rule.name = text(name);
        }
        if let Some(comment) = &self.comment {
            rule.comment = text(comment);
        }
        if let Some(input) = &self.input {
            rule.input.clone_from(input);
            rule.sources.clear();
        }
        if self.outputs.is_empty() {
            for output in &mut rule.outputs {
                output.ttl = self.ttl.clone().or(output.ttl.take());
                output.dscp = self.dscp.clone().or(output.dscp.take());
            }
        } else {
            rule.outputs = parsed(&self.outputs)?;
            for output in &mut rule.outputs {
                fill(&mut output.ttl, self.ttl.as_ref());
                fill(&mut output.dscp, self.dscp.as_ref());
            }
        }
        rule.local = self.local.clone().or(rule.local.take());
        rule.join = self.join.clone().or(rule.join.take());
        if let Some(rate) = &self.max_rate {
            rule.max_rate = Some(rate.clone()).filter(|rate| rate != "none");
        }
        rule.silence = self.silence.clone().or(rule.silence.take());
        if let Some(inspect) = &self.inspect {
            rule.inspect = Some(inspect.clone()).filter(|inspect| inspect != "none");
        }
        Ok(())
    }
}

fn remove_outputs(name: &str, rule: &mut RuleSpec, outputs: &[String]) -> Result<(), Refusal> {
    for text in outputs {
        let gone = destination(&text.parse::<OutputSpec>()?.to)?;
        let is_gone = |output: &OutputSpec| destination(&output.to).is_ok_and(|to| to == gone);
        let position = rule.outputs.iter().position(is_gone).ok_or_else(|| {
            Refusal::new(
                Code::NotFound,
                format!("rule {name} has no output {gone}"),
                format!("`mcrctl show {name}` shows its outputs"),
            )
        })?;
        rule.outputs.remove(position);
    }
    if rule.outputs.is_empty() {
        return Err(Refusal::new(
            Code::Invalid,
            format!("rule {name} would have no outputs"),
            "add another output first, or remove the rule, or disable it",
        ));
    }
    Ok(())
}

/// The canonical text of a destination, by which outputs of a rule are told apart.
fn destination(text: &str) -> Result<String, Refusal> {
    let parsed = text.parse::<Destination>();
    parsed.map(|to| to.to_string()).map_err(|r| r.about(format_args!("output {text}")))
}

fn parsed(outputs: &[String]) -> Result<Vec<OutputSpec>, Refusal> {
    outputs.iter().map(|text| text.parse()).collect()
}

fn fill(setting: &mut Option<Setting>, default: Option<&Setting>) {
    if setting.is_none() {
        *setting = default.cloned();
    }
}

/// The rule as `mcrd` lists it, and what it is addressed by.
fn canonical(spec: &RuleSpec) -> Result<(RuleKey, RuleSpec), Refusal> {
    let rule = spec.check()?;
    Ok((rule.key(), RuleSpec::from(&rule)))
}
