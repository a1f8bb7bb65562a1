use super::super::keys::Key;
use super::super::model::{Model, Screen, Then};
use super::super::sort::Sort;
use super::world::{Fed, World};

fn names(model: &Model) -> Vec<&str> {
    (0..model.counts().0).filter_map(|place| model.at(place)).map(|row| &*row.stats.name).collect()
}

fn typed(model: &mut Model, text: &str) {
    text.chars().for_each(|c| assert_eq!(model.handle_key(Key::Char(c)), Then::Go));
}

#[test]
fn paces_are_what_came_between_two_looks() {
    let mut fed = Fed::new(World::of_many(3));
    let pace = |fed: &Fed, place: usize| fed.model.at(place).unwrap().pace;
    // At first those of mcrd.
    assert_eq!((pace(&fed, 2).packets, pace(&fed, 2).bits), (3.0, 24_000.0));
    fed.world.more(0, 500);
    fed.wait(1);
    fed.look();
    assert_eq!((pace(&fed, 0).packets, pace(&fed, 0).bits), (250.0, 2_000_000.0));
    assert_eq!(pace(&fed, 2).packets, 0.0);
    assert_eq!(fed.model.total(), (250.0, 2_000_000.0));
    let row = fed.model.at(0).unwrap();
    let output = row.output_pace(&row.stats.outputs[0]).unwrap();
    assert_eq!((output.packets, output.bits, output.missing), (250.0, 2_000_000.0, 0.0));

    fed.world.rule(0)["outputs"][0]["dropped"] = serde_json::json!({"mtu": 10, "no-route": 3});
    fed.look();
    assert_eq!(pace(&fed, 0).missing, 13.0);
    assert_eq!(fed.model.at(0).unwrap().main_reason(), Some(("mtu", 10, 10.0, 1)));
    // Later it is another reason, though it has less in all.
    fed.world.rule(0)["outputs"][0]["dropped"] = serde_json::json!({"mtu": 10, "no-route": 5});
    fed.look();
    assert_eq!(fed.model.at(0).unwrap().main_reason(), Some(("no-route", 5, 2.0, 1)));
}

#[test]
fn counters_that_start_anew_are_no_pace() {
    let mut fed = Fed::new(World::of_many(2));
    fed.look();
    assert_eq!(fed.model.total().0, 0.0);
    // A rule in the place of another of the name.
    fed.world.rule(0)["received"]["packets"] = serde_json::json!(5);
    fed.look();
    assert_eq!(fed.model.at(0).unwrap().pace.packets, 1.0);
    // Another process: all is as if it were the first look.
    fed.world.more(1, 1_000_000);
    for page in [&mut fed.world.stats, &mut fed.world.status] {
        page["boot_id"] = serde_json::json!("2-3");
    }
    fed.look();
    assert_eq!(fed.model.at(1).unwrap().pace.packets, 2.0);
    fed.world.more(1, 7);
    fed.look();
    assert_eq!(fed.model.at(1).unwrap().pace.packets, 7.0);
    let history: Vec<_> = fed.model.at(1).unwrap().history.last(3).collect();
    assert_eq!(history, [Some(0.0), Some(2.0), Some(7.0)]);
}

#[test]
fn what_is_lost_before_is_no_drop_but_is_missing() {
    let mut world = World::of_many(1);
    world.status["softnet_dropped"] = serde_json::json!(5);
    world.status["interfaces"][0]["lost_before"] = serde_json::json!({"nic-missed": 7});
    world.rule(0)["inspect"] = serde_json::json!({"as": "rtp+ts", "rtp": {"lost": 2},
        "ts": {"continuity_errors": 0}});
    let mut fed = Fed::new(world);
    assert_eq!(fed.model.lost_pace, 0.0);
    assert_eq!(fed.model.at(0).unwrap().main_reason(), Some(("rtp-lost", 2, 0.0, 0)));
    fed.world.status["softnet_dropped"] = serde_json::json!(8);
    fed.world.rule(0)["inspect"]["ts"]["continuity_errors"] = serde_json::json!(4);
    fed.look();
    assert_eq!(fed.model.lost_pace, 3.0);
    let row = fed.model.at(0).unwrap();
    assert_eq!((row.main_reason(), row.missing), (Some(("ts-errors", 4, 4.0, 1)), 6));
    // What comes late is not lost any more.
    fed.world.rule(0)["inspect"]["rtp"]["lost"] = serde_json::json!(1);
    fed.look();
    assert_eq!(fed.model.at(0).unwrap().main_reason(), Some(("ts-errors", 4, 0.0, 1)));
}

#[test]
fn each_column_sorts_and_equals_stay_in_their_order() {
    let mut fed = Fed::new(World::of_all_kinds());
    let long = "market-data-of-the-exchange-in-frankfurt-feed-a-line-one-primary";
    let model = &mut fed.model;
    let by_name = ["239.1.1.4:5000@eth0", "camera-1", "later", long, "off", "refused", "six"];
    assert_eq!(names(model), by_name);
    let orders = [
        (Sort::State, ["refused", "later", "239.1.1.4:5000@eth0", "camera-1", long, "six", "off"]),
        (
            Sort::Packets,
            [long, "camera-1", "six", "239.1.1.4:5000@eth0", "later", "off", "refused"],
        ),
        (Sort::Bits, [long, "camera-1", "six", "239.1.1.4:5000@eth0", "later", "off", "refused"]),
        (
            Sort::Missing,
            [long, "camera-1", "six", "239.1.1.4:5000@eth0", "later", "off", "refused"],
        ),
        (Sort::Last, ["239.1.1.4:5000@eth0", "later", "off", "refused", "camera-1", long, "six"]),
    ];
    for (column, order) in orders {
        typed(model, "s");
        assert_eq!((model.sort, names(model)), (column, order.to_vec()));
    }
    typed(model, "r");
    let reversed = ["camera-1", long, "six", "239.1.1.4:5000@eth0", "later", "off", "refused"];
    assert_eq!(names(model), reversed);
    // Another column starts the right way round.
    typed(model, ">");
    assert_eq!((model.sort, names(model)), (Sort::Name, by_name.to_vec()));
    model.handle_key(Key::Left);
    assert_eq!(model.sort, Sort::Last);
}

#[test]
fn the_selection_stays_on_its_rule() {
    let mut fed = Fed::new(World::of_many(10));
    typed(&mut fed.model, "jj");
    assert_eq!((fed.model.selected_name(), fed.model.place()), ("r00003", 2));
    typed(&mut fed.model, "r");
    assert_eq!((fed.model.selected_name(), fed.model.place()), ("r00003", 7));
    // A rule before it comes, then it goes: the one at its place is next.
    fed.world.stats["rules"].as_array_mut().unwrap().remove(9);
    fed.look();
    assert_eq!((fed.model.selected_name(), fed.model.place()), ("r00003", 6));
    fed.world.stats["rules"].as_array_mut().unwrap().remove(2);
    fed.look();
    assert_eq!((fed.model.selected_name(), fed.model.place()), ("r00002", 6));
    fed.world.stats["rules"] = serde_json::json!([]);
    fed.look();
    assert_eq!((fed.model.selected_name(), fed.model.place()), ("", 0));
    for key in [Key::Up, Key::Down, Key::PageUp, Key::PageDown, Key::Home, Key::End, Key::Enter] {
        fed.model.handle_key(key);
        assert_eq!((fed.model.place(), fed.model.screen), (0, Screen::Rules));
    }
}

#[test]
fn the_list_scrolls_with_the_selection() {
    let model = &mut Fed::new(World::of_many(100)).model;
    for (key, place, window) in [
        (Key::Up, 0, 0..10),
        (Key::PageDown, 10, 1..11),
        (Key::Down, 11, 2..12),
        (Key::Up, 10, 2..12),
        (Key::End, 99, 90..100),
        (Key::PageUp, 89, 89..99),
        (Key::Home, 0, 0..10),
    ] {
        model.handle_key(key);
        assert_eq!((model.place(), model.window(10)), (place, window), "{key:?}");
    }
    model.handle_key(Key::End);
    for lines in [0, 1, 7, 99, 100, 1000] {
        let window = model.window(lines);
        assert!(window.contains(&99), "{lines}: {window:?}");
    }
}

#[test]
fn a_filter_takes_words_of_name_state_input_and_outputs() {
    let mut fed = Fed::new(World::of_all_kinds());
    let model = &mut fed.model;
    for (filter, expected) in [
        ("", 7),
        ("CAM", 1),
        ("waiting", 1),
        ("eth9", 1),
        ("eth0.10", 1),
        ("10.9.0.7", 1),
        ("ff3e", 1),
        ("239. eth1", 6),
        ("idle eth9", 0),
    ] {
        typed(model, "/");
        typed(model, filter);
        assert_eq!(model.counts(), (expected, 7), "{filter}");
        model.handle_key(Key::Enter);
        assert_eq!((model.screen, model.filter.as_str()), (Screen::Rules, filter));
        model.handle_key(Key::Escape);
        assert_eq!((model.filter.as_str(), model.counts().0), ("", 7));
    }
    // Commands are letters there, and the list can still be walked.
    typed(model, "/qs");
    assert_eq!((model.filter.as_str(), model.counts().0), ("qs", 0));
    model.handle_key(Key::Backspace);
    model.handle_key(Key::Backspace);
    model.handle_key(Key::Down);
    assert_eq!((model.counts().0, model.place()), (7, 1));
    model.handle_key(Key::Escape);
    assert_eq!(model.screen, Screen::Rules);
    // A rule that comes to match is shown.
    typed(model, "/failed");
    fed.world.rule(0)["state"] = serde_json::json!("failed");
    fed.look();
    assert_eq!(names(&fed.model), ["camera-1", "refused"]);
}

#[test]
fn the_page_of_a_rule_stays_though_the_rule_goes() {
    let mut fed = Fed::new(World::of_many(3));
    fed.model.handle_key(Key::Enter);
    assert_eq!(fed.model.screen, Screen::Rule);
    let first = fed.world.stats["rules"].as_array_mut().unwrap().remove(0);
    fed.look();
    assert!(fed.model.selected().is_none());
    assert_eq!(fed.model.selected_name(), "r00001");
    fed.world.stats["rules"].as_array_mut().unwrap().push(first);
    fed.look();
    assert_eq!(fed.model.selected().unwrap().stats.name, "r00001");
    fed.world.stats["rules"].as_array_mut().unwrap().pop();
    fed.look();
    fed.model.handle_key(Key::Escape);
    assert_eq!((fed.model.screen, fed.model.selected_name()), (Screen::Rules, "r00002"));
}

#[test]
fn a_page_scrolls_no_further_than_its_end() {
    let model = &mut Fed::new(World::of_many(1)).model;
    model.handle_key(Key::Enter);
    for (key, first) in
        [(Key::Down, 1), (Key::PageDown, 11), (Key::End, 20), (Key::Up, 19), (Key::Home, 0)]
    {
        model.handle_key(key);
        assert_eq!(model.scroll_within(30, 10), first, "{key:?}");
    }
    model.handle_key(Key::End);
    assert_eq!(model.scroll_within(5, 10), 0);
}

#[test]
fn silence_is_told_and_ends_with_the_next_look() {
    let mut fed = Fed::new(World::of_many(1));
    fed.model.handle_asked(fed.now);
    fed.wait(3);
    assert_eq!(fed.model.silence(), None);
    fed.wait(1);
    assert_eq!(fed.model.silence().unwrap().0.as_secs(), 4);
    fed.model.handle_failure("no daemon", fed.now);
    fed.wait(2);
    let (silent, why) = fed.model.silence().unwrap();
    assert_eq!((silent.as_secs(), why), (6, "no daemon"));
    fed.look();
    assert_eq!(fed.model.silence(), None);
    assert!(fed.model.at(0).unwrap().history.last(3).any(|value| value.is_none()));
    // Whoever asks seldom does not mind how long ago the last answer is.
    fed.wait(60);
    assert_eq!(fed.model.silence(), None);
}

#[test]
fn keys_that_end_it_end_it_anywhere() {
    for before in ["", "h", "/x"] {
        let model = &mut Fed::new(World::of_many(1)).model;
        typed(model, before);
        assert_eq!(model.handle_key(Key::Interrupt), Then::Quit);
        assert_eq!(model.handle_key(Key::Suspend), Then::Suspend);
        assert_eq!(model.handle_key(Key::Redraw), Then::Redraw);
    }
    let model = &mut Fed::new(World::of_many(1)).model;
    typed(model, "?");
    assert_eq!(model.screen, Screen::Help);
    typed(model, "x");
    assert_eq!(model.screen, Screen::Rules);
    assert_eq!(model.handle_key(Key::Char('q')), Then::Quit);
    typed(model, "p");
    assert!(model.paused);
}
