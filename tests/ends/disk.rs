//! A disk that is a file: an ext4 on a loop device, of which a copy is what a power cut leaves.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const IMAGE_LEN_BYTES: u64 = 2 << 30;

/// An ext4 in a file, mounted through a loop device. Dropping it unmounts it, which frees the device too.
pub(crate) struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    pub(crate) fn format() -> Result<Disk, String> {
        Disk::format_sized(IMAGE_LEN_BYTES)
    }

    pub(crate) fn format_sized(len_bytes: u64) -> Result<Disk, String> {
        let disk = Disk { folder: tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))? };
        let image = File::create(disk.image()).and_then(|file| file.set_len(len_bytes));
        image.map_err(|error| format!("no image: {error}"))?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), disk.image().as_path()])?;
        disk.mount()
    }

    pub(crate) fn mount(self) -> Result<Disk, String> {
        fs::create_dir_all(self.mount_point()).map_err(|error| format!("no mount point: {error}"))?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), &self.image(), &self.mount_point()])?;
        Ok(self)
    }

    /// What the disk has at this moment, which is one at which nothing is being written to it; not mounted yet.
    pub(crate) fn copy(&self) -> Disk {
        let copy = Disk { folder: tempfile::tempdir().expect("a directory") };
        loop {
            let before = self.written_so_far();
            run("cp", &["--sparse=always".as_ref(), &self.image(), &copy.image()]).expect("a copy");
            if self.written_so_far() == before {
                return copy;
            }
        }
    }

    /// Sectors written to the loop device and requests in flight, as the kernel counts them.
    fn written_so_far(&self) -> (String, String) {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
        let point = self.mount_point();
        let device = mounts.lines().find_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            (rest.split(' ').next() == point.to_str()).then(|| device.trim_start_matches("/dev/").to_owned())
        });
        let device = device.expect("a mounted disk");
        let statistics = fs::read_to_string(format!("/sys/block/{device}/stat")).expect("the device's statistics");
        let mut fields = statistics.split_whitespace().map(str::to_owned);
        let written = fields.nth(6).expect("sectors written");
        (written, fields.nth(1).expect("requests in flight"))
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub(crate) fn mount_point(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.mount_point().join("journal")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let point = self.mount_point();
        if !point.exists() {
            return;
        }
        // Busy at once after a kill, at worst: a lazy one then goes when the last file is closed.
        if run("umount", &[&point]).is_err() {
            run("umount", &["--lazy".as_ref(), &point]).ok();
        }
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("no {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
