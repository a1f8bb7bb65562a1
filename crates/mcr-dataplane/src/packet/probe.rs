//! Whether the packet plane can run here, and if not why and what to do.

use mcr_core::refusal::{Code, Refusal};
use rustix::thread::{CapabilitySet, CpuSet, sched_getaffinity};

/// Workers for each CPU, at most.
const WORKERS_PER_CPU: usize = 4;
/// Members of a fanout group, at most (`PACKET_FANOUT_MAX` of af_packet.c, as it was until 2020).
const WORKERS_MAX: usize = 256;
/// Workers when nobody says how many: each sets memory aside for each input interface.
const WORKERS_DEFAULT: usize = 4;
/// The first kernel whose rings take super-packets of UDP (`VIRTIO_NET_HDR_GSO_UDP_L4`): in earlier
/// ones the first such frame blocks a ring for good.
const KERNEL: (u32, u32) = (6, 2);

/// Whether so many workers can be had.
pub fn check_workers(workers: u32) -> Result<(), Refusal> {
    let most = (cpus()?.len() * WORKERS_PER_CPU).min(WORKERS_MAX);
    if (1..=most).contains(&(workers as usize)) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::Invalid,
        format!("--workers {workers}: the packet plane runs 1 to {most} workers here"),
        format!(
            "{WORKERS_PER_CPU} for each CPU are the most; without --workers each has one, up to 4 in all"
        ),
    ))
}

/// Whether the packet plane can run here, and if not why and what to do.
pub fn probe() -> Result<(), Refusal> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&release).is_some_and(|version| version < KERNEL) {
        let (major, minor) = KERNEL;
        return Err(Refusal::new(
            Code::Plane,
            format!("Linux {release} is too old for the packet plane"),
            format!(
                "it needs Linux {major}.{minor}: in earlier kernels one super-packet (UDP GSO) \
                 blocks a receive ring for good; use --dataplane ebpf"
            ),
        ));
    }
    let capabilities = rustix::thread::capabilities(None)
        .map_err(|error| Refusal::new(Code::Internal, format!("capabilities: {error}"), ""))?;
    if !capabilities.effective.contains(CapabilitySet::NET_RAW) {
        return Err(Refusal::new(
            Code::Plane,
            "no privileges for AF_PACKET sockets: CAP_NET_RAW is needed",
            "run mcrd as root, or give it CAP_NET_RAW, and CAP_NET_ADMIN for large buffers",
        ));
    }
    socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None).map(drop).map_err(
        |error| {
            Refusal::new(
                Code::Plane,
                format!("the kernel opens no AF_PACKET socket: {error}"),
                "a kernel with CONFIG_PACKET is needed, and AF_PACKET allowed by the container",
            )
        },
    )
}

/// Major and minor number of a kernel's release, as in `6.1.0-13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// How many workers there are when nobody says.
pub(super) fn default_workers(cpus: usize) -> u32 {
    cpus.min(WORKERS_DEFAULT) as u32
}

/// The CPUs that this process may use.
pub(super) fn cpus() -> Result<Vec<usize>, Refusal> {
    let set = sched_getaffinity(None)
        .map_err(|error| Refusal::new(Code::Internal, format!("CPUs: {error}"), ""))?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        for (release, expected) in [
            ("6.18.44-fc-v657", Some((6, 18))),
            ("6.1.0-13-amd64", Some((6, 1))),
            ("5.14.0-427.el9.x86_64", Some((5, 14))),
            ("7.0-rc1", Some((7, 0))),
            ("unknown", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(version("6.1.0-13-amd64").is_some_and(|version| version < KERNEL));
    }
}
