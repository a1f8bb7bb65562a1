use std::time::Duration;

use super::super::ink::Ink;
use super::super::text::*;

const ASCII: Ink = Ink { unicode: false, colours: false };
const UNICODE: Ink = Ink { unicode: true, colours: true };

#[test]
fn numbers_have_three_digits_and_a_prefix() {
    for (value, text) in [
        (0.0, "0"),
        (-1.0, "0"),
        (0.04, "0"),
        (0.5, "0.5"),
        (9.94, "9.9"),
        (9.96, "10"),
        (999.4, "999"),
        (999.6, "1.00 k"),
        (1234.0, "1.23 k"),
        (9996.0, "10.0 k"),
        (99_960.0, "100 k"),
        (1e6, "1.00 M"),
        (16_384_000.0, "16.4 M"),
        (2.5e9, "2.50 G"),
        (1e20, "100000 P"),
    ] {
        assert_eq!(si(value), text, "{value}");
    }
    assert_eq!([short(0), short(999), short(1234)], ["0", "999", "1.23k"]);
    assert_eq!(grouped(0), "0");
    assert_eq!(grouped(123), "123");
    assert_eq!(grouped(1_234_567), "1 234 567");
}

#[test]
fn times_are_short() {
    for (seconds, text) in
        [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86_400 * 400, "400d")]
    {
        assert_eq!(age(Duration::from_secs(seconds)), text);
    }
    let (early, late) = ("2026-01-01T23:59:59Z", "2026-01-02T00:00:01Z");
    assert_eq!(between(early, late), Some(Duration::from_secs(2)));
    assert_eq!(between(late, early), Some(Duration::ZERO));
    assert_eq!(between("yesterday", late), None);
    assert_eq!((clock(early), clock("noon")), ("23:59:59", "noon"));
}

#[test]
fn long_text_is_cut_or_wrapped() {
    assert_eq!(cut("camera", 6, ASCII), "camera");
    assert_eq!(cut("camera", 5, ASCII), "came~");
    assert_eq!(cut("camera", 5, UNICODE), "came…");
    assert_eq!(cut("camera", 0, UNICODE), "");
    assert_eq!(wrapped("a bc  def", 4), ["a bc", "def"]);
    assert_eq!(wrapped("abcdefgh i", 3), ["abc", "def", "gh", "i"]);
    assert_eq!(wrapped("ab cdefg", 3), ["ab", "cde", "fg"]);
    assert_eq!(wrapped("", 3), [""]);
    assert_eq!(wrapped("ab", 0), ["a", "b"]);
}

#[test]
fn graphs_fill_their_room_from_the_right() {
    let values = [Some(0.0), None, Some(1.0), Some(4.0), Some(8.0)];
    let drawn = |size, ink| graph(values.into_iter(), size, ink);
    assert_eq!(drawn((7, 1), UNICODE), ["  ▁ ▁▄█"]);
    assert_eq!(drawn((7, 1), ASCII), ["  _ _-#"]);
    assert_eq!(drawn((5, 2), UNICODE), ["    █", "▁ ▂██"]);
    assert_eq!(graph([Some(0.0); 3].into_iter(), (3, 1), UNICODE), ["▁▁▁"]);
    assert_eq!(graph(std::iter::empty(), (3, 1), UNICODE), ["   "]);
}

#[test]
fn the_environment_says_what_may_be_drawn() {
    let ink = |environment: &[(&str, &str)]| {
        Ink::of(|name| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(ink(&[]), Ink { unicode: false, colours: true });
    assert_eq!(ink(&[("LANG", "de_DE.UTF-8")]), UNICODE);
    assert_eq!(ink(&[("LANG", "C.utf8"), ("NO_COLOR", "")]), UNICODE);
    assert_eq!(ink(&[("LANG", "C.UTF-8"), ("LC_ALL", "C"), ("NO_COLOR", "1")]), ASCII);
    assert_eq!(ink(&[("LANG", "C"), ("LC_CTYPE", "C.UTF-8"), ("LC_ALL", "")]), UNICODE);
    assert_eq!(ASCII.plain("a\u{1b}[mü€"), "a?[m??");
    assert_eq!(UNICODE.plain("a\u{1b}\u{9b}ü"), "a??ü");
}
