//! What the screen shows: all rules with their paces, in an order, through a filter, one of them
//! selected. Pure: it is fed with replies, keys and the time.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use mcr_core::api::{RuleStats, RuleView, Status};

use super::keys::Key;
use super::reply::{Found, Look, lost_before};
use super::row::Row;
use super::sort::Sort;

/// All that is shown.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) status: Status,
    /// The time of the last look, on the clock of `mcrd`.
    pub(crate) time: String,
    /// Packets a second that are lost before MCR could see them.
    pub(crate) lost_pace: f64,
    rows: Vec<Row>,
    views: HashMap<String, RuleView>,
    generation: Option<u64>,
    /// Characters of the longest name, input and first output.
    longest: [usize; 3],
    /// Places in `rows`: what the filter lets through, sorted.
    order: Vec<usize>,
    /// The name of the selected rule, and its place in the order.
    selected: (String, usize),
    /// The place of the first rule on the screen, and the number that fit.
    window: (usize, usize),
    pub(crate) screen: Screen,
    pub(crate) sort: Sort,
    pub(crate) reversed: bool,
    pub(crate) filter: String,
    pub(crate) paused: bool,
    /// The line of a page that is the first on the screen, and the number of all; drawing the page
    /// holds the one below the other.
    page: (usize, usize),
    looked: Instant,
    now: Instant,
    /// When `mcrd` was asked what it has not answered yet.
    asked: Option<Instant>,
    /// What has gone wrong since the last look.
    trouble: Option<String>,
}

/// What is on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    Rules,
    /// The rules, while a filter is typed.
    Filter,
    /// The selected rule.
    Rule,
    Help,
}

/// What a key asks of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Go,
    Quit,
    Suspend,
    Redraw,
}

impl Model {
    pub(crate) fn new(look: Look, now: Instant) -> Self {
        let mut model = Self {
            status: look.status.clone(),
            time: String::new(),
            lost_pace: 0.0,
            rows: Vec::new(),
            views: HashMap::new(),
            generation: None,
            longest: [0; 3],
            order: Vec::new(),
            selected: (String::new(), 0),
            window: (0, 1),
            screen: Screen::Rules,
            sort: Sort::Name,
            reversed: false,
            filter: String::new(),
            paused: false,
            page: (0, 0),
            looked: now,
            now,
            asked: None,
            trouble: None,
        };
        model.handle_look(look, now);
        model
    }

    pub(crate) fn handle_look(&mut self, look: Look, now: Instant) {
        let Look { stats, status, found, rules } = look;
        let seconds = now.saturating_duration_since(self.looked).as_secs_f64();
        let goes_on = stats.boot_id == self.status.boot_id;
        let grown = lost_before(&status).checked_sub(lost_before(&self.status));
        let grown = grown.filter(|_| goes_on && seconds > 0.0);
        self.lost_pace = grown.map(|grown| grown as f64 / seconds).unwrap_or_default();

        let before = std::mem::take(&mut self.rows).into_iter();
        let mut before: HashMap<String, Row> =
            before.map(|row| (row.stats.name.clone(), row)).collect();
        // Seconds that are 0 say that the counters do not go on.
        let seconds = if goes_on { seconds } else { 0.0 };
        let found = found.into_iter().chain(std::iter::repeat_with(Found::default));
        let row = |(stats, found): (RuleStats, Found)| {
            let before = before.remove(&stats.name).map(|row| (row, seconds));
            Row::new(stats, found, before)
        };
        self.rows = stats.rules.into_iter().zip(found).map(row).collect();
        if let Some(rules) = rules {
            self.generation = Some(rules.generation);
            let views = rules.rules.into_iter().map(|view| (view.name.clone(), view));
            self.views = views.collect();
        }
        let lengths = self.rows.iter().map(|row| {
            let input = self.view(row).map_or(0, |view| view.rule.input.len());
            [row.stats.name.len(), input, row.first_output().len()]
        });
        self.longest = lengths.fold([0; 3], |[a, b, c], [d, e, f]| [a.max(d), b.max(e), c.max(f)]);
        (self.status, self.time) = (status, stats.time);
        (self.looked, self.now, self.asked, self.trouble) = (now, now, None, None);
        self.arrange();
    }

    /// `mcrd` is asked.
    pub(crate) fn handle_asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// `mcrd` did not answer, or not well.
    pub(crate) fn handle_failure(&mut self, message: &str, now: Instant) {
        (self.now, self.asked, self.trouble) = (now, None, Some(message.to_owned()));
        self.rows.iter_mut().for_each(|row| row.history.push(None));
    }

    /// Time goes by.
    pub(crate) fn handle_time(&mut self, now: Instant) {
        if !self.paused {
            self.now = now;
        }
    }

    /// Of the rules that are known; others have to be asked for.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// How long there has been no answer, and why, once that is worth telling.
    pub(crate) fn silence(&self) -> Option<(Duration, &str)> {
        let since = |moment: Instant| self.now.saturating_duration_since(moment);
        let waits = self.asked.is_some_and(|asked| since(asked) > PATIENCE);
        let why = self.trouble.as_deref().or(waits.then_some("mcrd takes its time"))?;
        Some((since(self.looked), why))
    }

    /// Packets and bits a second that come in, over all rules.
    pub(crate) fn total(&self) -> (f64, f64) {
        let paces = self.rows.iter().map(|row| row.pace);
        paces.fold((0.0, 0.0), |(packets, bits), pace| (packets + pace.packets, bits + pace.bits))
    }

    /// Number of rules that are shown, and of all.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.order.len(), self.rows.len())
    }

    /// Characters of the longest name, input and first output.
    pub(crate) fn longest(&self) -> [usize; 3] {
        self.longest
    }

    /// What the rule is, beside its counters.
    pub(crate) fn view(&self, row: &Row) -> Option<&RuleView> {
        self.views.get(&row.stats.name)
    }

    /// The rule at a place of the list.
    pub(crate) fn at(&self, place: usize) -> Option<&Row> {
        self.rows.get(*self.order.get(place)?)
    }

    /// The place of the selected rule in the list.
    pub(crate) fn place(&self) -> usize {
        self.selected.1
    }

    /// The selected rule, if it is there.
    pub(crate) fn selected(&self) -> Option<&Row> {
        self.at(self.selected.1).filter(|row| row.stats.name == self.selected.0)
    }

    /// The name of the selected rule, even if it has gone.
    pub(crate) fn selected_name(&self) -> &str {
        &self.selected.0
    }

    /// The places that are on the screen when so many lines fit, the selected one among them.
    pub(crate) fn window(&mut self, lines: usize) -> Range<usize> {
        let (first, selected) = (self.window.0, self.selected.1);
        let lines = lines.max(1);
        let last_first = self.order.len().saturating_sub(lines);
        let first = first.clamp((selected + 1).saturating_sub(lines), selected).min(last_first);
        self.window = (first, lines);
        first..self.order.len().min(first + lines)
    }

    /// The first line of a page to show, of so many lines, of which so many fit.
    pub(crate) fn scroll_within(&mut self, lines: usize, fit: usize) -> usize {
        self.page = (self.page.0.min(lines.saturating_sub(fit)), lines);
        self.window.1 = fit.max(1);
        self.page.0
    }

    /// The last line on the screen, and the number of all, of a page that does not fit.
    pub(crate) fn read_so_far(&self) -> Option<(usize, usize)> {
        let ((first, lines), fit) = (self.page, self.window.1);
        (lines > fit).then(|| (lines.min(first + fit), lines))
    }

    /// Filters and sorts anew. The selection stays on its rule; where that has gone, at its place,
    /// unless its page is open.
    fn arrange(&mut self) {
        let words: Vec<String> =
            self.filter.split_whitespace().map(str::to_ascii_lowercase).collect();
        let shown = |place: &usize| self.matches(&self.rows[*place], &words);
        let mut order: Vec<usize> = (0..self.rows.len()).filter(shown).collect();
        order.sort_by(|a, b| {
            let order = self.sort.compare(&self.rows[*a], &self.rows[*b]);
            if self.reversed { order.reverse() } else { order }
        });
        self.order = order;
        let is_selected = |place: &usize| self.rows[*place].stats.name == self.selected.0;
        match self.order.iter().position(is_selected) {
            Some(place) => self.selected.1 = place,
            None if self.screen == Screen::Rule => {}
            None => self.select(self.selected.1),
        }
    }

    /// Whether each word is in its name, state, input or an output.
    fn matches(&self, row: &Row, words: &[String]) -> bool {
        if words.is_empty() {
            return true;
        }
        let view = self.views.get(&row.stats.name);
        let input = view.map(|view| view.rule.input.as_str());
        let outputs = row.stats.outputs.iter().map(|output| output.to.as_str());
        let texts = [row.stats.name.as_str(), &row.stats.state].into_iter();
        let texts: Vec<String> =
            texts.chain(input).chain(outputs).map(str::to_ascii_lowercase).collect();
        words.iter().all(|word| texts.iter().any(|text| text.contains(word)))
    }

    fn select(&mut self, place: usize) {
        let place = place.min(self.order.len().saturating_sub(1));
        let name = self.at(place).map(|row| row.stats.name.clone());
        self.selected = (name.unwrap_or_default(), place);
    }

    pub(crate) fn handle_key(&mut self, key: Key) -> Then {
        match key {
            Key::Interrupt => return Then::Quit,
            Key::Suspend => return Then::Suspend,
            Key::Redraw => return Then::Redraw,
            Key::Char(_)
            | Key::Enter
            | Key::Escape
            | Key::Backspace
            | Key::Up
            | Key::Down
            | Key::Left
            | Key::Right
            | Key::PageUp
            | Key::PageDown
            | Key::Home
            | Key::End => {}
        }
        match self.screen {
            Screen::Filter => self.type_filter(key),
            Screen::Help => self.show(Screen::Rules),
            Screen::Rules | Screen::Rule => return self.command(key),
        }
        Then::Go
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Char(c) => self.filter.push(c),
            Key::Backspace => drop(self.filter.pop()),
            Key::Escape => {
                self.filter.clear();
                self.screen = Screen::Rules;
            }
            Key::Enter => self.screen = Screen::Rules,
            Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home | Key::End => {
                self.walk(key);
            }
            Key::Left | Key::Right | Key::Interrupt | Key::Suspend | Key::Redraw => {}
        }
        self.arrange();
    }

    fn command(&mut self, key: Key) -> Then {
        match key {
            Key::Char('q') => return Then::Quit,
            Key::Char('h' | '?') => self.show(Screen::Help),
            Key::Char('p') => self.paused = !self.paused,
            Key::Char('/') => self.show(Screen::Filter),
            Key::Char('s' | '>') | Key::Right => self.sort_by(self.sort.next()),
            Key::Char('<') | Key::Left => self.sort_by(self.sort.previous()),
            Key::Char('r') => {
                self.reversed = !self.reversed;
                self.arrange();
            }
            Key::Escape | Key::Backspace if self.screen == Screen::Rule => {
                self.show(Screen::Rules);
            }
            Key::Escape => {
                self.filter.clear();
                self.arrange();
            }
            Key::Enter if self.selected().is_some() => self.show(Screen::Rule),
            Key::Char('k') => self.walk(Key::Up),
            Key::Char('j') => self.walk(Key::Down),
            Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home | Key::End => {
                self.walk(key);
            }
            Key::Char(_)
            | Key::Enter
            | Key::Backspace
            | Key::Interrupt
            | Key::Suspend
            | Key::Redraw => {}
        }
        Then::Go
    }

    fn show(&mut self, screen: Screen) {
        self.screen = screen;
        self.page.0 = 0;
        self.arrange();
    }

    fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.reversed = false;
        self.arrange();
    }

    /// Along the list, or the page of one rule.
    fn walk(&mut self, key: Key) {
        let at = if self.screen == Screen::Rule { self.page.0 } else { self.selected.1 };
        let page = self.window.1;
        let to = match key {
            Key::Up => at.saturating_sub(1),
            Key::Down => at + 1,
            Key::PageUp => at.saturating_sub(page),
            Key::PageDown => at + page,
            Key::Home => 0,
            Key::End => usize::MAX,
            Key::Char(_)
            | Key::Enter
            | Key::Escape
            | Key::Backspace
            | Key::Left
            | Key::Right
            | Key::Interrupt
            | Key::Suspend
            | Key::Redraw => at,
        };
        if self.screen == Screen::Rule {
            self.page.0 = to;
        } else {
            self.select(to);
        }
    }
}

/// How long an answer may take before the screen says so.
const PATIENCE: Duration = Duration::from_secs(3);
