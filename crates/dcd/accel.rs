//! What runs the guest, as people ask for it: `--accel` and `--vcpus`.

use actors::Accel;
use anyhow::{Context, bail};
use clap::ValueEnum;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccelArgument {
    /// KVM where it works, else soft.
    Auto,
    /// Processors of /dev/kvm.
    Kvm,
    /// A guest inside this process.
    Soft,
}

/// What was taken, and one line that says so.
#[derive(Debug)]
pub(crate) struct AccelChoice {
    pub(crate) accel: Accel,
    pub(crate) line: String,
}

/// Who is the guest beside the one that `--accel` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherGuest {
    /// Nobody.
    None,
    /// A driver on qtest.
    Qtest,
}

impl AccelArgument {
    /// Takes what is asked for, or for [`AccelArgument::Auto`] the best that works.
    pub(crate) fn choose(self, vcpus: Option<u32>, other: OtherGuest) -> anyhow::Result<AccelChoice> {
        let soft = |why: &str| soft(vcpus, why);
        match (self, other) {
            (Self::Soft, _) => soft("a guest inside this process, as asked"),
            (Self::Auto, OtherGuest::Qtest) => soft("the driver on qtest is the guest"),
            (Self::Kvm, OtherGuest::Qtest) => {
                bail!("--accel kvm and --qtest: the driver on qtest is the guest; leave one of them out")
            }
            (Self::Kvm, OtherGuest::None) => {
                let facts = vm::probe().context("--accel kvm; --accel soft needs nothing of the host")?;
                Ok(kvm(vcpus, &facts))
            }
            (Self::Auto, OtherGuest::None) => match vm::probe() {
                Ok(facts) => Ok(kvm(vcpus, &facts)),
                Err(error) => soft(&format!("a guest inside this process: {error}")),
            },
        }
    }
}

fn soft(vcpus: Option<u32>, why: &str) -> anyhow::Result<AccelChoice> {
    if let Some(vcpus) = vcpus.filter(|vcpus| *vcpus != 1) {
        bail!("--vcpus {vcpus}: without KVM the guest has one processor ({why})");
    }
    Ok(AccelChoice { accel: Accel::Soft, line: format!("accel: soft ({why})") })
}

fn kvm(vcpus: Option<u32>, facts: &vm::Facts) -> AccelChoice {
    let vcpus = vcpus.unwrap_or(1);
    AccelChoice { accel: Accel::Kvm { vcpus }, line: format!("accel: kvm, {vcpus} vCPU ({facts})") }
}
