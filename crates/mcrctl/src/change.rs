//! Commands that change rules. What depends on the rules there are is read, edited in memory and
//! sent back on the condition that nobody has changed them meanwhile; else it is done again.

use mcr_core::api::{Change as Changed, RuleList, Step};

use crate::Session;
use crate::args::Change;
use crate::client::{Question, Reply};
use crate::edit::{Draft, new_rule};
use crate::failure::Failure;
use crate::{show, terminal};

pub(crate) fn run(session: &Session, change: &Change) -> Result<(), Failure> {
    let reply = match change {
        Change::Add(args) => {
            let rule = new_rule(args)?;
            session.client.ask(&Question::post(rules_page(args.wait)).with(&rule))?
        }
        Change::Remove { names } => {
            let steps: Vec<Step> = names.iter().cloned().map(Step::Remove).collect();
            session.client.ask(&Question::patch("/v1/rules").with(&steps))?
        }
        Change::Set(_) | Change::Output(_) | Change::Enable { .. } | Change::Disable { .. } => {
            edit(session, change.wait(), |list| {
                let mut draft = Draft::new(list);
                draft.make(change)?;
                Ok(draft.steps().to_vec())
            })?
        }
    };
    report(session, &reply, show::done)
}

pub(crate) fn reload(session: &Session) -> Result<(), Failure> {
    let reply = session.client.ask(&Question::post("/v1/reload"))?;
    report(session, &reply, |change| show::difference(change, false))
}

/// Sends the steps that `plan` makes of the rules there are; with `wait`, what they need of the
/// machine may come later.
pub(crate) fn edit(
    session: &Session,
    wait: bool,
    mut plan: impl FnMut(RuleList) -> Result<Vec<Step>, Failure>,
) -> Result<Reply, Failure> {
    let mut tries = TRIES;
    loop {
        let list: RuleList = session.client.ask(&Question::get("/v1/rules"))?.read()?;
        let generation = list.generation;
        let steps = plan(list)?;
        if steps.is_empty() {
            return Ok(unchanged(generation));
        }
        let question = Question::patch(rules_page(wait)).with(&steps).if_generation(generation);
        match session.client.ask(&question) {
            Err(failure) if failure.is_stale() && tries > 1 => tries -= 1,
            result => return result,
        }
    }
}

/// Says what has changed, and what may not be meant.
pub(crate) fn report(
    session: &Session,
    reply: &Reply,
    plain: impl FnOnce(&Changed) -> String,
) -> Result<(), Failure> {
    if session.json {
        return terminal::print(&format!("{}\n", reply.text));
    }
    let change: Changed = reply.read()?;
    terminal::warn(&change.warnings);
    terminal::print(&plain(&change))
}

fn rules_page(wait: bool) -> &'static str {
    if wait { "/v1/rules?wait=true" } else { "/v1/rules" }
}

/// As `mcrd` replies to a change that changes nothing.
fn unchanged(generation: u64) -> Reply {
    let change = Changed { generation, ..Changed::default() };
    let text = serde_json::to_string(&change);
    Reply { text: text.expect("numbers and empty lists, which JSON can write") }
}

/// How often a change is tried while others change the rules too.
const TRIES: u32 = 5;
