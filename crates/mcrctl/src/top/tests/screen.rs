//! The screen on a real terminal: that of tmux.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::super::ink::Ink;
use super::super::screen::Screen;
use super::world::{Fed, World};

/// Asks the test to take the terminal and panic: it starts itself so.
const PANIC: &str = "MCRCTL_TEST_PANICS";

fn take_the_terminal_and_panic() {
    let mut screen = Screen::enter(Ink { unicode: true, colours: true }).unwrap();
    screen.draw(&mut Fed::new(World::of_many(3)).model).unwrap();
    panic!("the crash of a test");
}

struct Tmux(String);

impl Tmux {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.0, "-f", "/dev/null"]).args(arguments);
        command.output().expect("tmux is needed: scripts/setup.sh test installs it")
    }

    fn says(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&self.run(arguments).stdout).into_owned()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "polls a condition, with a deadline")]
fn a_panic_gives_the_terminal_back_before_it_is_reported() {
    if std::env::var_os(PANIC).is_some() {
        take_the_terminal_and_panic();
    }
    let tmux = Tmux(format!("mcrctl-test-{}", std::process::id()));
    let test = std::env::current_exe().unwrap();
    let name = "top::tests::screen::a_panic_gives_the_terminal_back_before_it_is_reported";
    let run = format!(
        "stty -a > before; {PANIC}=1 RUST_BACKTRACE=0 {} --exact {name} --nocapture; \
         stty -a > after; cmp before after && echo unchanged; exec sleep 60",
        test.display()
    );
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let started = tmux.run(&["new-session", "-d", "-x", "80", "-y", "24", "-c", folder, &run]);
    assert!(started.status.success(), "{started:?}");
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let screen = tmux.says(&["capture-pane", "-p", "-S", "-"]);
        if screen.contains("unchanged") {
            assert!(screen.contains("the crash of a test"), "{screen}");
            assert!(!screen.contains("r00001"), "{screen}");
            let state = tmux.says(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
            assert_eq!(state.trim(), "0 1", "{screen}");
            return;
        }
        assert!(Instant::now() < end, "{screen}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
