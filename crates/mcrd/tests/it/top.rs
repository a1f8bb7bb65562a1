//! `mcrctl top` on a real terminal, that of tmux, with real traffic. It shows what `mcrd` replies
//! whatever moves the packets, so one plane is enough.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{Lab, Plane, can_run, end, sibling, wait_for};

/// A shell on a terminal of 80 by 24, with a tmux of its own.
struct Terminal(String);

impl Terminal {
    fn new(lab: &Lab) -> Self {
        let terminal = Self(format!("{}-top", lab.name));
        let folder = lab.folder.path().to_str().unwrap();
        let shell = "env -u ENV LC_ALL=C.UTF-8 PS1='ready> ' sh";
        let size = ["new-session", "-d", "-x", "80", "-y", "24", "-c", folder, shell];
        let started = terminal.tmux(&size);
        assert!(started.status.success(), "{started:?}");
        terminal.wait("the shell", |screen| screen.contains("ready>"));
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.args(["-u", "-L", &self.0, "-f", "/dev/null"]).args(arguments);
        command.env("LC_ALL", "C.UTF-8");
        command.output().expect("tmux is needed: scripts/setup.sh test installs it")
    }

    fn says(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&self.tmux(arguments).stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.says(&["capture-pane", "-p"])
    }

    /// Presses keys, by the names that tmux has for them.
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn command(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.press(&["Enter"]);
    }

    /// The screen, once it is as expected.
    fn wait(&self, what: &str, expected: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let mut look = || {
            screen = self.screen();
            expected(&screen)
        };
        let waited =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait_for(what, &mut look)));
        if waited.is_err() {
            panic!("{what}: not on the screen\n{screen}");
        }
        screen
    }

    fn has(&self, what: &str) -> String {
        self.wait(what, |screen| screen.contains(what))
    }

    fn is_alternate(&self) -> bool {
        self.says(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    /// The process id of what the shell has started.
    fn child(&self) -> u32 {
        let shell = self.says(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let path = format!("/proc/{shell}/task/{shell}/children");
        let mut child = None;
        wait_for("a program on the terminal", || {
            child = fs::read_to_string(&path).ok().and_then(|pids| pids.trim().parse().ok());
            child.is_some()
        });
        child.unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// The line of a rule in the list.
fn line<'s>(screen: &'s str, rule: &str) -> Option<&'s str> {
    screen.lines().find(|line| line.starts_with(&format!("{rule} ")))
}

/// As the page of a rule shows it, for less than a million.
fn grouped(number: u64) -> String {
    if number < 1000 {
        number.to_string()
    } else {
        format!("{} {:03}", number / 1000, number % 1000)
    }
}

#[test]
fn the_screen_shows_what_receivers_get_and_outlives_the_daemon() {
    if !can_run() {
        return;
    }
    let lab = Lab::chain_ipv4(Plane::Tcx);
    let mut daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5000@veth1", "239.10.1.1:6000@veth2", "--name", "camera"]);
    daemon.ok(&["add", "239.1.1.2:5000@veth1", "239.10.1.2:6000@veth2", "--name", "other"]);
    daemon.ok(&["add", "239.1.1.3:5000@eth9", "239.10.1.3:6000@veth2", "--name", "x", "--wait"]);
    let terminal = Terminal::new(&lab);
    let mcrctl = format!("{} --instance {}", sibling("mcrctl").display(), lab.name);
    terminal.command(&format!("{mcrctl} top --interval 50ms"));
    let screen = terminal.has("input 239.1.1.3:5000@eth9: no int");
    assert!(screen.starts_with(&format!("{} ebpf/tcx  0 pps 0 bit/s in  3 rules: 1 ", lab.name)));
    assert!(line(&screen, "camera").unwrap().contains("idle"), "{screen}");

    let receiver =
        lab.receiver("sink", "--interface veth3 --group 239.10.1.1 --port 6000 --idle 30s");
    let sender = lab.sender("--group 239.1.1.1 --port 5000 --rate 500 --size 100");
    terminal.wait("a stream", |screen| {
        let words =
            |line: &str| line.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>();
        let words = line(screen, "camera").map(words).unwrap_or_default();
        words.len() == 3 && words[1] == "forwarding" && words[2] != "0"
    });
    let sent: Value = serde_json::from_slice(&sender.stop().stdout).unwrap();
    let sent = sent["sent"].as_u64().unwrap();
    daemon.settled("camera", sent);

    // Its page has what the receiver has counted.
    terminal.press(&["Enter"]);
    let report = receiver.stop();
    assert_eq!(report["received"], sent, "{report}");
    let (packets, bytes) = (grouped(sent), grouped(sent * 100));
    terminal.wait(&format!("{packets} packets, {bytes} B"), |screen| {
        let is = |label| {
            let line = screen.lines().find(|line| line.starts_with(label)).unwrap_or_default();
            line.contains(&format!(" {packets} packets")) && line.contains(&format!(" {bytes} B"))
        };
        ["received", "matched", "offered", "forwarded"].into_iter().all(is)
    });
    terminal.has("sender      10.0.0.1");
    terminal.press(&["Escape"]);

    // A filter, another order, other sizes.
    terminal.press(&["/", "e", "t", "h", "9"]);
    terminal.wait("the filter", |screen| {
        line(screen, "x").is_some() && line(screen, "camera").is_none()
    });
    terminal.press(&["Enter"]);
    terminal.has("filter: eth9");
    terminal.press(&["Escape"]);
    terminal.wait("all rules", |screen| line(screen, "camera").is_some());
    terminal.press(&["s"]);
    terminal.wait("the waiting rule first", |screen| {
        screen.contains("STATE▾")
            && screen.lines().nth(3).is_some_and(|line| line.starts_with("x "))
    });
    for (width, height) in [("60", "15"), ("20", "4"), ("200", "50")] {
        terminal.tmux(&["resize-window", "-x", width, "-y", height]);
        terminal.wait("the last line", |screen| {
            let last = screen.lines().nth(height.parse::<usize>().unwrap() - 1);
            last.is_some_and(|line| line.starts_with("q quit"))
        });
    }
    let screen = terminal.has("OUTPUT");
    let shown = line(&screen, "camera").unwrap();
    for flow in ["239.1.1.1:5000@veth1", "239.10.1.1:6000@veth2"] {
        assert!(shown.contains(flow), "{shown}");
    }

    // The daemon goes and comes back.
    daemon.signal(Signal::KILL);
    daemon.wait();
    terminal.has("no answer for ");
    let _daemon = lab.daemon(&[]);
    terminal.wait("the next daemon", |screen| {
        !screen.contains("no answer for ") && line(screen, "camera").is_some()
    });
    terminal.press(&["q"]);
    terminal.wait("the shell", |screen| screen.contains("ready>"));
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    if !can_run() {
        return;
    }
    let lab = Lab::chain_ipv4(Plane::Tcx);
    let _daemon = lab.daemon(&[]);
    let terminal = Terminal::new(&lab);
    let mcrctl = format!("{} --instance {}", sibling("mcrctl").display(), lab.name);
    let is_back = |how: &str| {
        terminal.wait(how, |_| !terminal.is_alternate());
        terminal.command(&format!("stty -g > after; cmp before after && echo unchanged by {how}"));
        let screen = terminal.has(&format!("\nunchanged by {how}"));
        assert!(!screen.contains("no rules;"), "{screen}");
    };
    terminal.command("stty -g > before");
    wait_for("the settings", || written(&lab.folder.path().join("before")));

    terminal.command(&format!("{mcrctl}-nosuch top; echo code=$?"));
    assert!(terminal.has("\ncode=3").contains("mcrctl: no daemon: there is no socket"));
    for (key, how) in [("q", "quit"), ("C-c", "interrupt")] {
        terminal.command(&format!("clear; {mcrctl} top; echo {how}=$?"));
        terminal.has("no rules; `mcrctl add` makes one");
        assert!(terminal.is_alternate());
        terminal.press(&[key]);
        let code = format!("{how}=0");
        terminal.wait(&code, |screen| screen.lines().any(|line| line == code));
        is_back(how);
    }

    terminal.command(&format!("clear; {mcrctl} top"));
    terminal.has("no rules;");
    for (signal, how) in [(None, "suspension"), (Some(Signal::TSTP), "TSTP")] {
        match signal {
            None => terminal.press(&["C-z"]),
            Some(signal) => end(Some(terminal.child()), signal),
        }
        terminal.wait("the shell", |screen| screen.contains("Stopped"));
        is_back(how);
        terminal.command("clear; fg");
        terminal.has("no rules;");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        end(Some(terminal.child()), signal);
        is_back(&format!("signal-{}", signal.as_raw()));
        terminal.command(&format!("clear; {mcrctl} top"));
        terminal.has("no rules;");
    }

    // A terminal that goes away leaves no process that looks for it.
    let top = format!("/proc/{}", terminal.child());
    drop(terminal);
    wait_for("the end of mcrctl", || !Path::new(&top).exists());
}

fn written(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))
}
