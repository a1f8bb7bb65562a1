use insta::assert_snapshot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};
use serde_json::json;

use super::super::ink::Ink;
use super::super::keys::Key;
use super::super::view;
use super::world::{Fed, World};

const PLAIN: Ink = Ink { unicode: false, colours: false };
const FULL: Ink = Ink { unicode: true, colours: true };

fn drawn(fed: &mut Fed, (width, height): (u16, u16), ink: Ink) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, &mut fed.model, ink)).unwrap();
    terminal
}

fn screen(fed: &mut Fed, size: (u16, u16), ink: Ink) -> String {
    drawn(fed, size, ink).backend().to_string()
}

/// A daemon with rules of all kinds, some seconds in.
fn busy() -> Fed {
    let mut world = World::of_all_kinds();
    world.status["softnet_dropped"] = json!(5);
    world.status["interfaces"][0]["lost_before"] = json!({"nic-missed": 12_345, "ring": 1});
    world.rule(0)["senders"] = json!([
        {"address": "10.0.0.1", "packets": 119_990, "last_seen": "2026-01-01T12:00:09Z"},
        {"address": "10.0.0.66", "packets": 10, "bytes": 99, "last_seen": "2026-01-01T11:58:09Z"}]);
    world.rule(0)["inspect"] = json!({"as": "rtp", "other": 0, "unseen": 0, "rtp": {"lost": 3,
        "expected": 253_003, "jitter_ms": 0.25, "ssrcs": [{"ssrc": "0x0000cafe", "lost": 3}]}});
    let mut fed = Fed::new(world);
    for seconds in 0..70 {
        fed.world.more(0, 2000 - 1000 * u64::from(seconds % 8 == 0));
        fed.world.more(1, 2000 * seconds);
        fed.world.more(2, u64::from(seconds % 4 == 0));
        fed.look();
    }
    fed.world.more(0, 2000);
    fed.world.more(1, 148_000);
    fed.world.rule(1)["outputs"][0]["dropped"]["mtu"] = json!(1_234_600);
    fed.world.status["interfaces"][0]["lost_before"]["nic-missed"] = json!(12_350);
    fed.look();
    fed
}

#[test]
fn all_kinds_of_rules_at_80_by_24() {
    let fed = &mut busy();
    assert_snapshot!(screen(fed, (80, 24), FULL));
    assert_snapshot!("all_kinds_of_rules_in_ascii", screen(fed, (80, 24), PLAIN));
}

#[test]
fn all_kinds_of_rules_at_132_by_43() {
    assert_snapshot!(screen(&mut busy(), (132, 43), FULL));
}

#[test]
fn one_rule() {
    let fed = &mut busy();
    fed.model.handle_key(Key::Down);
    fed.model.handle_key(Key::Enter);
    assert_snapshot!("one_rule_at_80_by_24", screen(fed, (80, 24), PLAIN));
    fed.model.handle_key(Key::Escape);
    for key in [Key::Down, Key::Down, Key::Enter] {
        fed.model.handle_key(key);
    }
    assert_snapshot!("one_rule_at_132_by_43", screen(fed, (132, 43), FULL));
}

#[test]
fn the_keys() {
    let fed = &mut busy();
    fed.model.handle_key(Key::Char('h'));
    assert_snapshot!(screen(fed, (80, 24), FULL));
}

#[test]
fn no_rules() {
    let fed = &mut Fed::new(World::of(Vec::new()));
    fed.world.status["interfaces"] = json!([]);
    fed.look();
    assert_snapshot!(screen(fed, (80, 8), FULL));
}

#[test]
fn five_thousand_rules() {
    let fed = &mut Fed::new(World::of_many(5000));
    fed.model.handle_key(Key::End);
    assert_snapshot!(screen(fed, (80, 10), FULL));
    for c in "/0499".chars() {
        fed.model.handle_key(Key::Char(c));
    }
    assert_snapshot!("five_thousand_rules_filtered", screen(fed, (80, 10), FULL));
}

#[test]
fn a_daemon_that_is_away() {
    let fed = &mut busy();
    fed.model.handle_failure("no daemon: nobody listens on /run/mcr/mcr.sock", fed.now);
    fed.wait(5);
    assert_snapshot!(screen(fed, (80, 8), FULL));
}

#[test]
fn any_size_does_no_harm() {
    let fed = &mut busy();
    for keys in [&[][..], &[Key::Enter], &[Key::Escape, Key::Char('h')], &[Key::Char('/')]] {
        for key in keys {
            fed.model.handle_key(*key);
        }
        for width in (1..40).chain([59, 60, 79, 119, 120, 121, 199, 200, 500]) {
            for height in [1, 2, 3, 4, 5, 15] {
                screen(fed, (width, height), FULL);
            }
        }
    }
}

#[test]
fn colours_are_left_out_when_asked_to() {
    let fed = &mut busy();
    let colour = |ink| {
        let terminal = drawn(fed, (80, 24), ink);
        let cells = terminal.backend().buffer().content().to_vec();
        let coloured = cells.iter().filter(|cell| cell.fg != Color::Reset).count();
        let reversed = cells.iter().filter(|cell| cell.modifier.contains(Modifier::REVERSED));
        (coloured > 0, reversed.count())
    };
    let mut colour = colour;
    assert_eq!(colour(FULL), (true, 80));
    assert_eq!(colour(Ink { unicode: true, colours: false }), (false, 80));
}
