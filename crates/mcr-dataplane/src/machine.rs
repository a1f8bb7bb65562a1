//! What else the machine tells of its interfaces, for who looks for a fault: sysfs of this network
//! namespace, offloads, and the groups that bridges know.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

pub use crate::netlink::bridge_members;
pub use crate::sys::ethtool::lro;
pub use crate::sys::groups::only_mld_queries;

/// sysfs as it is for the network namespace of the calling thread.
///
/// `/sys` shows the interfaces of the namespace in which it was mounted, which may be another one. So
/// a sysfs of its own is made that nobody else sees; without CAP_SYS_ADMIN it is `/sys` after all, and
/// whoever reads compares the index of an interface.
#[derive(Debug)]
pub struct Sysfs(OwnedFd);

impl Sysfs {
    /// Ends when it is dropped.
    pub fn open() -> io::Result<Self> {
        let own = || {
            let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let only_read = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, only_read)
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(own().or_else(|_| openat(CWD, "/sys", flags, Mode::empty()))?))
    }

    /// A file of an interface, without the line break at its end.
    pub fn read(&self, interface: &str, file: &str) -> io::Result<String> {
        let path = format!("class/net/{interface}/{file}");
        let file = openat(&self.0, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text)?;
        text.truncate(text.trim_end().len());
        Ok(text)
    }
}
