//! What only a program in the kernel's path of a packet can promise: the eBPF plane, on each hook.

use crate::lab::{Daemon, Lab, Plane, wait_for};
use crate::promises::one_rule;

const GEN: &str = "--group 239.1.1.1 --port 5001";
const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";

pub(crate) fn local_no_keeps_the_input_from_the_host(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon, "no");
    let sink = lab.receiver("sink", &format!("{SINK} --expect 300"));
    let here = lab.receiver("relay", &format!("--interface veth1 {GEN} --expect 300"));
    lab.send(&format!("{GEN} --rate 1000 --count 300 --size 100"));
    sink.lossless(300);
    assert_eq!(here.stop()["received"], 0);
}

/// Two instances on one interface: each is the other's "another TC program".
pub(crate) fn another_tc_program_on_the_hook_still_runs(plane: Plane) {
    for beside in [Plane::Tcx, Plane::Clsact] {
        another_beside(plane, beside);
    }
}

fn another_beside(plane: Plane, beside: Plane) {
    let lab = Lab::chain(plane);
    let first = lab.daemon(&[]);
    one_rule(&first, "yes");
    let instance = format!("{}-b", lab.name);
    let mut command = lab.command("relay", env!("CARGO_BIN_EXE_mcrd"));
    command.args(["--instance", &instance]).args(beside.arguments());
    let mut second = Daemon::start(command, &instance, lab.folder.path().join("second.log"));
    wait_for("the second daemon", || second.ctl(&["status"]).is_ok());
    second.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.2:6002@veth2", "--local", "yes"]);
    let receivers = [
        lab.receiver("sink", &format!("{SINK} --expect 300")),
        lab.receiver("sink", "--interface veth3 --group 239.10.1.2 --port 6002 --expect 300"),
    ];
    lab.send(&format!("{GEN} --rate 1000 --count 300 --size 100"));
    for receiver in receivers {
        receiver.lossless(300);
    }
    second.stop();
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 300"));
    lab.send(&format!("{GEN} --rate 1000 --count 300 --size 100"));
    receiver.lossless(300);
}
