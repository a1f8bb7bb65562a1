use super::super::keys::{Key, Keys};

fn keys(bytes: &[u8]) -> Vec<Key> {
    Keys::default().feed(bytes)
}

#[test]
fn each_key_in_the_forms_that_terminals_send() {
    for (bytes, key) in [
        (&b"q"[..], Key::Char('q')),
        ("ü".as_bytes(), Key::Char('ü')),
        ("€".as_bytes(), Key::Char('€')),
        ("😀".as_bytes(), Key::Char('😀')),
        (b"\r", Key::Enter),
        (b"\n", Key::Enter),
        (b"\x1bOM", Key::Enter),
        (b"\x7f", Key::Backspace),
        (b"\x08", Key::Backspace),
        (b"\x1b[A", Key::Up),
        (b"\x1bOA", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1b[C", Key::Right),
        (b"\x1b[D", Key::Left),
        (b"\x1b[1;5A", Key::Up),
        (b"\x1b[H", Key::Home),
        (b"\x1b[1~", Key::Home),
        (b"\x1b[7~", Key::Home),
        (b"\x1b[F", Key::End),
        (b"\x1b[4~", Key::End),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
        (b"\x1b[6;2~", Key::PageDown),
        (b"\x03", Key::Interrupt),
        (b"\x1a", Key::Suspend),
        (b"\x0c", Key::Redraw),
    ] {
        assert_eq!(keys(bytes), [key], "{bytes:?}");
    }
}

#[test]
fn keys_in_one_piece_and_in_many() {
    let bytes = "a\x1b[A\x1b[5~ü\x1bOBz".as_bytes();
    let expected =
        [Key::Char('a'), Key::Up, Key::PageUp, Key::Char('ü'), Key::Down, Key::Char('z')];
    assert_eq!(keys(bytes), expected);
    let mut one_by_one = Keys::default();
    let fed: Vec<Key> = bytes.iter().flat_map(|byte| one_by_one.feed(&[*byte])).collect();
    assert_eq!(fed, expected);
    assert!(!one_by_one.has_begun());
}

#[test]
fn an_escape_that_nothing_follows_is_the_key() {
    let mut keys = Keys::default();
    assert_eq!(keys.feed(b"\x1b"), []);
    assert!(keys.has_begun());
    assert_eq!(keys.handle_quiet(), Some(Key::Escape));
    assert!(!keys.has_begun());
    assert_eq!(keys.handle_quiet(), None);
    assert_eq!(keys.feed(b"\x1bx"), [Key::Escape, Key::Char('x')]);
    assert_eq!(keys.feed(b"\x1b\x1b[A"), [Key::Escape, Key::Up]);
}

#[test]
fn what_is_no_key_is_skipped() {
    for bytes in [
        &b"\x1b[Z"[..],
        b"\x1b[200~",
        b"\x1b[?1;2c",
        b"\x1b[M",
        b"\x00\x01\x1f",
        b"\x80\xff\xc0",
        b"\xc3",
        b"\xe2\x82",
    ] {
        let [mut fed, mut last] = [keys(bytes), keys(&[bytes, b"q"].concat())];
        fed.retain(|key| *key != Key::Enter);
        last.retain(|key| *key != Key::Enter);
        assert_eq!((fed, last), (vec![], vec![Key::Char('q')]), "{bytes:?}");
    }
    let mut begun = Keys::default();
    begun.feed(b"\xe2\x82");
    assert_eq!(begun.handle_quiet(), None);
}

/// Whatever comes, all but the beginning of one key is used up.
#[test]
fn any_bytes_do_no_harm() {
    let mut seed = 1_u32;
    let mut keys = Keys::default();
    for _ in 0..100_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        keys.feed(&seed.to_be_bytes()[..2]);
    }
    keys.handle_quiet();
    assert_eq!(keys.feed(b"q"), [Key::Char('q')]);
}
