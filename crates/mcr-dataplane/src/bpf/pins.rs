//! What is pinned in `/sys/fs/bpf/mcr/<instance>/<layout>`, so that forwarding outlives the
//! daemon: the maps, and a link (or, with clsact, a mark) for every input interface.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::Map;
use aya::programs::ProgramInfo;
use aya::programs::links::{FdLink, PinnedLink};
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};

use super::abi::LAYOUT;
use super::map_data;
use crate::sys;

const BPFFS: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// How the names of links and marks begin; see [`link_name`] and [`Pins::mark`].
const HOOKS: [&str; 3] = ["link-", "filter-", "qdisc-"];

/// The folder of an instance's pins.
#[derive(Debug)]
pub(super) struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Opens the folder, and mounts bpffs where it is missing.
    pub(super) fn open(instance: &str) -> Result<Self, Refusal> {
        mount_bpffs()?;
        let folder = Path::new(BPFFS).join("mcr").join(instance).join(LAYOUT);
        fs::create_dir_all(&folder).map_err(|e| unusable(&folder, &e))?;
        let pins = Self { folder };
        pins.adopt();
        Ok(pins)
    }

    /// What another version has left in its layout: links and marks are alike in all, and are taken
    /// over as those of this one. Its maps go; its program keeps them until it is swapped.
    fn adopt(&self) {
        let Some(instance) = self.folder.parent() else { return };
        for layout in fs::read_dir(instance).into_iter().flatten().flatten() {
            if layout.path() == self.folder {
                continue;
            }
            for pin in fs::read_dir(layout.path()).into_iter().flatten().flatten() {
                let name = pin.file_name();
                let text = name.to_string_lossy();
                let is_hook = HOOKS.iter().any(|kind| text.starts_with(kind));
                if !is_hook || fs::rename(pin.path(), self.folder.join(&name)).is_err() {
                    remove(&pin.path());
                }
            }
            let _ = fs::remove_dir(layout.path());
        }
    }

    /// The folder that an earlier process of the instance has left.
    pub(super) fn left_by(instance: &str) -> Option<Self> {
        let instance = Path::new(BPFFS).join("mcr").join(instance);
        instance.exists().then(|| Self { folder: instance.join(LAYOUT) })
    }

    /// Pins a map in the place of the one that an earlier process has pinned.
    pub(super) fn pin_map(&self, name: &str, map: &Map) -> Result<(), Refusal> {
        let path = self.folder.join(name);
        let Some(data) = map_data(map) else { return Ok(()) };
        self.unpin(name);
        data.pin(&path).map_err(|e| unusable(&path, &io::Error::other(super::chain(&e))))
    }

    /// Pins a link for an interface.
    pub(super) fn pin_link(&self, index: IfIndex, link: FdLink) -> Result<PinnedLink, Refusal> {
        let name = link_name(index);
        let path = self.folder.join(&name);
        self.unpin(&name);
        link.pin(&path).map_err(|e| unusable(&path, &io::Error::other(super::chain(&e))))
    }

    /// The links and marks that an earlier process has left, by interface.
    pub(super) fn left(&self, kind: &str) -> Vec<IfIndex> {
        let names = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let index = |name: String| name.strip_prefix(kind)?.strip_prefix('-')?.parse().ok();
        names.filter_map(|e| index(e.file_name().into_string().ok()?)).map(IfIndex).collect()
    }

    /// The link that an earlier process has left for an interface.
    pub(super) fn link(&self, index: IfIndex) -> Option<FdLink> {
        PinnedLink::from_pin(self.folder.join(link_name(index))).ok().map(FdLink::from)
    }

    /// Where a mark is pinned.
    pub(super) fn mark(&self, kind: &str, index: IfIndex) -> PathBuf {
        self.folder.join(format!("{kind}-{index}"))
    }

    /// Removes a pin; a link ends with it, at once.
    pub(super) fn unpin(&self, name: &str) {
        remove(&self.folder.join(name));
    }

    /// Removes everything, of other layouts too.
    pub(super) fn remove_all(&self) {
        let Some(instance) = self.folder.parent() else { return };
        for layout in fs::read_dir(instance).into_iter().flatten().flatten() {
            for pin in fs::read_dir(layout.path()).into_iter().flatten().flatten() {
                remove(&pin.path());
            }
            let _ = fs::remove_dir(layout.path());
        }
        let _ = fs::remove_dir(instance);
    }

    /// The programs of all links and filters that any instance has pinned.
    pub(super) fn programs_of_all_instances() -> Vec<u32> {
        let folders = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
        let instances = folders(Path::new(BPFFS).join("mcr"));
        let pins = instances.flat_map(|i| folders(i.path())).flat_map(|l| folders(l.path()));
        let program = |pin: fs::DirEntry| {
            let (name, path) = (pin.file_name(), pin.path());
            if name.to_string_lossy().starts_with("link-") {
                let link = PinnedLink::from_pin(path).ok()?;
                return Some(FdLink::from(link).info().ok()?.program_id());
            }
            let mark = name.to_string_lossy().starts_with("filter-");
            mark.then(|| ProgramInfo::from_pin(path).ok().map(|info| info.id())).flatten()
        };
        pins.filter_map(program).collect()
    }
}

/// Not there is as good as removed; anything else shows when the name is pinned again.
fn remove(pin: &Path) {
    let name = pin.file_name().unwrap_or_default();
    if name.to_string_lossy().starts_with("link-") {
        // Its interface may be gone, and with it what there was to end.
        let _ = sys::detach_link(pin);
    }
    let _ = fs::remove_file(pin);
}

pub(super) fn link_name(index: IfIndex) -> String {
    format!("link-{index}")
}

fn mount_bpffs() -> Result<(), Refusal> {
    let unmounted = |error: &dyn std::fmt::Display| {
        Refusal::new(
            Code::Plane,
            format!("{BPFFS} is no BPF file system: {error}"),
            format!("mount it: mount -t bpf bpf {BPFFS}"),
        )
    };
    let is_bpffs =
        rustix::fs::statfs(BPFFS).map_err(|e| unmounted(&e))?.f_type as u64 == BPF_FS_MAGIC;
    if is_bpffs {
        return Ok(());
    }
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("bpf", BPFFS, "bpf", flags, None).map_err(|e| unmounted(&e))?;
    tracing::info!(path = BPFFS, "mounted the BPF file system");
    Ok(())
}

fn unusable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::new(
        Code::Plane,
        format!("cannot pin {}: {error}", path.display()),
        format!("is {BPFFS} a writable BPF file system?"),
    )
}
