//! Version 1 of the saved form. Frozen: not a field of it changes any more (the test below holds its bytes).
//!
//! ```text
//!  guest ABI │ kind of KVM │ TSC kHz │ clock │ free RAM │ vCPUs: CPUID, registers as in <asm/kvm.h>, XSAVE, XCRs, debug,
//!                                                                MSRs, local APIC, events, run state
//! ```

use driver::HpaRange;
use guest::place::VCPUS_MAX;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_mp_state, kvm_msr_entry};
use wire::Hpa;
use zerocopy::transmute;

use super::{MachineState, SavedError};
use crate::vcpu::VcpuState;
use crate::vm;

/// Model specific registers of a vCPU at most: KVM lists some hundreds.
const MSRS_MAX: usize = 1024;

#[derive(bincode::Encode, bincode::Decode)]
pub(super) struct Machine {
    guest_abi: u32,
    virtualization: Virtualization,
    tsc_khz: u64,
    clock_ns: u64,
    free_ram_base: u64,
    free_ram_len_bytes: u64,
    vcpus: Vec<Vcpu>,
}

#[derive(bincode::Encode, bincode::Decode)]
enum Virtualization {
    Vmx,
    Svm,
    Software,
    Unknown,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Vcpu {
    cpuid: Vec<CpuidEntry>,
    regs: [u8; 144],
    sregs: [u8; 312],
    xsave: [u32; 1024],
    xcrs: Option<[u8; 392]>,
    debug_regs: [u8; 128],
    msrs: Vec<Msr>,
    lapic: [u8; 1024],
    events: [u8; 64],
    mp_state: u32,
}

#[derive(bincode::Encode, bincode::Decode)]
struct CpuidEntry {
    function: u32,
    index: u32,
    flags: u32,
    eax: u32,
    ebx: u32,
    ecx: u32,
    edx: u32,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Msr {
    index: u32,
    value: u64,
}

impl Machine {
    pub(super) fn of(state: &MachineState) -> Self {
        let MachineState { guest_abi, virtualization, tsc_khz, clock_ns, free_ram, vcpus } = state;
        let HpaRange { base, size_bytes } = *free_ram;
        Self {
            guest_abi: *guest_abi,
            virtualization: Virtualization::of(*virtualization),
            tsc_khz: *tsc_khz,
            clock_ns: *clock_ns,
            free_ram_base: base.0,
            free_ram_len_bytes: size_bytes,
            vcpus: vcpus.iter().map(Vcpu::of).collect(),
        }
    }

    pub(super) fn thawed(self) -> Result<MachineState, SavedError> {
        let Self { guest_abi, virtualization, tsc_khz, clock_ns, free_ram_base, free_ram_len_bytes, vcpus } = self;
        at_most("vCPUs", VCPUS_MAX as usize, &vcpus)?;
        Ok(MachineState {
            guest_abi,
            virtualization: virtualization.thawed(),
            tsc_khz,
            clock_ns,
            free_ram: HpaRange { base: Hpa(free_ram_base), size_bytes: free_ram_len_bytes },
            vcpus: vcpus.into_iter().map(Vcpu::thawed).collect::<Result<_, _>>()?,
        })
    }
}

impl Virtualization {
    fn of(kind: vm::Virtualization) -> Self {
        match kind {
            vm::Virtualization::Vmx => Self::Vmx,
            vm::Virtualization::Svm => Self::Svm,
            vm::Virtualization::Software => Self::Software,
            vm::Virtualization::Unknown => Self::Unknown,
        }
    }

    fn thawed(self) -> vm::Virtualization {
        match self {
            Self::Vmx => vm::Virtualization::Vmx,
            Self::Svm => vm::Virtualization::Svm,
            Self::Software => vm::Virtualization::Software,
            Self::Unknown => vm::Virtualization::Unknown,
        }
    }
}

impl Vcpu {
    fn of(state: &VcpuState) -> Self {
        let VcpuState { cpuid, regs, sregs, xsave, xcrs, debug_regs, msrs, lapic, events, mp_state } = state;
        let kvm_mp_state { mp_state } = *mp_state;
        Self {
            cpuid: cpuid.iter().map(CpuidEntry::of).collect(),
            regs: transmute!(*regs),
            sregs: transmute!(*sregs),
            xsave: *xsave,
            xcrs: xcrs.map(|xcrs| transmute!(xcrs)),
            debug_regs: transmute!(*debug_regs),
            msrs: msrs.iter().map(Msr::of).collect(),
            lapic: transmute!(*lapic),
            events: transmute!(*events),
            mp_state,
        }
    }

    fn thawed(self) -> Result<VcpuState, SavedError> {
        let Self { cpuid, regs, sregs, xsave, xcrs, debug_regs, msrs, lapic, events, mp_state } = self;
        at_most("CPUID entries", KVM_MAX_CPUID_ENTRIES, &cpuid)?;
        at_most("model specific registers", MSRS_MAX, &msrs)?;
        Ok(VcpuState {
            cpuid: cpuid.into_iter().map(CpuidEntry::thawed).collect(),
            regs: transmute!(regs),
            sregs: transmute!(sregs),
            xsave,
            xcrs: xcrs.map(|xcrs| transmute!(xcrs)),
            debug_regs: transmute!(debug_regs),
            msrs: msrs.into_iter().map(Msr::thawed).collect(),
            lapic: transmute!(lapic),
            events: transmute!(events),
            mp_state: kvm_mp_state { mp_state },
        })
    }
}

impl CpuidEntry {
    fn of(entry: &kvm_cpuid_entry2) -> Self {
        let kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, padding: _ } = *entry;
        Self { function, index, flags, eax, ebx, ecx, edx }
    }

    fn thawed(self) -> kvm_cpuid_entry2 {
        let Self { function, index, flags, eax, ebx, ecx, edx } = self;
        kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, padding: [0; 3] }
    }
}

impl Msr {
    fn of(entry: &kvm_msr_entry) -> Self {
        let kvm_msr_entry { index, reserved: _, data } = *entry;
        Self { index, value: data }
    }

    fn thawed(self) -> kvm_msr_entry {
        let Self { index, value } = self;
        kvm_msr_entry { index, reserved: 0, data: value }
    }
}

fn at_most<T>(what: &'static str, most: usize, of: &[T]) -> Result<(), SavedError> {
    let count = of.len();
    if count <= most { Ok(()) } else { Err(SavedError::TooMany { what, count, most }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved::MACHINE_STATE_VERSION;
    use crate::vcpu::XSAVE_WORDS;

    /// How many bytes [`known`] has, and its rows of 16 of them that are not all zero, by their offsets. Frozen: what is
    /// written or read differently breaks snapshots that are out in the world.
    const LEN: usize = 12_098;
    const FROZEN: &[(usize, &str)] = &[
        (0, "0b0a000002000000200b200000000000"),
        (16, "04030201000000000000600100000000"),
        (32, "0000a002000000000200000000000000"),
        (48, "01000000000000000100000000000000"),
        (64, "01000000000000000000000000000080"),
        (80, "00000000a10000000000000000000000"),
        (208, "00000000000000000000000002020000"),
        (224, "00000000c50000000000000000000000"),
        (480, "000000000000000000000000010d0000"),
        (528, "00000000ff000000000000007f030000"),
        (4624, "0000000000000000ee0000ee01010000"),
        (4640, "00000000000000000000000000070000"),
        (5024, "0000000000db00000000000000000000"),
        (5072, "0000000000df00000000000000000000"),
        (5152, "00000000000100000000000000100000"),
        (5168, "00887766554433221100000000000000"),
        (6192, "0000000000000000ff01000000000000"),
        (6256, "00e00000000000000003000000010000"),
        (6272, "00000000000100000000000000010000"),
        (6288, "00000000000000000001000080000000"),
        (6304, "00a10000000000000000000000000000"),
        (6432, "00000000000000000003020000000000"),
        (6448, "00c50000000000000000000000000000"),
        (6704, "000000000000000000010d0000000000"),
        (6752, "00ff000000000000007f030000000000"),
        (10848, "0000000000ee0000ee00db0000000000"),
        (10896, "00000000000000000000df0000000000"),
        (10976, "00000000000000000000010000000000"),
        (10992, "00001000000088776655443322110000"),
        (11024, "00000000000000000000000000000100"),
        (12016, "00000000000000000000000000ff0100"),
        (12080, "000000000000e0000000000000000300"),
    ];

    fn vcpu(number: u64) -> VcpuState {
        let mut state = VcpuState {
            cpuid: vec![kvm_cpuid_entry2 {
                function: 1,
                flags: 1,
                ecx: 0x8000_0000 + number as u32,
                ..Default::default()
            }],
            regs: Default::default(),
            sregs: Default::default(),
            xsave: [0; XSAVE_WORDS],
            xcrs: None,
            debug_regs: Default::default(),
            msrs: vec![kvm_msr_entry { index: 0x10, data: 0x1122_3344_5566_7788, ..Default::default() }],
            lapic: Default::default(),
            events: Default::default(),
            mp_state: kvm_mp_state { mp_state: 3 },
        };
        (state.regs.rax, state.regs.rflags) = (0xa1, 0x202 + number);
        (state.sregs.cs.base, state.sregs.efer, state.sregs.interrupt_bitmap[3]) = (0xc5, 0xd01, 0xff);
        (state.xsave[0], state.xsave[XSAVE_WORDS - 1]) = (0x37f, 0xee00_00ee);
        (state.debug_regs.db[0], state.debug_regs.flags) = (0xdb, 0xdf);
        (state.lapic.regs[0x20], state.lapic.regs[1023]) = (number as _, -1);
        (state.events.exception.injected, state.events.exception_payload) = (1, 0xe0);
        state
    }

    /// A machine of two vCPUs with something at both ends of each part.
    fn known() -> MachineState {
        let mut first = vcpu(0);
        let mut xcrs = kvm_bindings::kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        xcrs.xcrs[0].value = 7;
        first.xcrs = Some(xcrs);
        MachineState {
            guest_abi: 0x0a0b,
            virtualization: vm::Virtualization::Software,
            tsc_khz: 2_100_000,
            clock_ns: 0x0102_0304,
            free_ram: HpaRange { base: Hpa(0x160_0000), size_bytes: 0x2a0_0000 },
            vcpus: vec![first, vcpu(1)],
        }
    }

    fn sparse(bytes: &[u8]) -> Vec<(usize, String)> {
        let parts = bytes.chunks(16).enumerate().filter(|(_, part)| part.iter().any(|byte| *byte != 0));
        parts.map(|(index, part)| (16 * index, part.iter().map(|byte| format!("{byte:02x}")).collect())).collect()
    }

    fn frozen() -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        for (at, part) in FROZEN {
            for (index, byte) in bytes[*at..].iter_mut().take(part.len() / 2).enumerate() {
                *byte = u8::from_str_radix(&part[2 * index..2 * index + 2], 16).expect("two digits");
            }
        }
        bytes
    }

    #[test]
    fn a_machine_is_written_and_read_as_it_always_was() {
        let bytes = known().to_bytes();
        let frozen_parts: Vec<_> = FROZEN.iter().map(|(at, part)| (*at, (*part).to_owned())).collect();
        assert_eq!((bytes.len(), sparse(&bytes)), (LEN, frozen_parts), "it is written differently");
        assert_eq!(MachineState::from_bytes(1, &frozen()), Ok(known()), "it is read differently");
    }

    #[test]
    fn bytes_that_are_no_machine_are_refused() {
        let bytes = frozen();
        let refused = MachineState::from_bytes(2, &bytes).unwrap_err().to_string();
        let expected = "the saved machine is of version 2 and this build reads version 1: use the build that wrote it";
        assert_eq!(refused, expected);
        for len in 0..bytes.len() {
            let refused = MachineState::from_bytes(MACHINE_STATE_VERSION, &bytes[..len]);
            assert!(matches!(refused, Err(SavedError::Undecodable { .. })), "{len}");
        }
        let trailing = [&bytes[..], &[0]].concat();
        let expected = SavedError::Trailing { len_bytes: bytes.len() + 1, used_bytes: bytes.len() };
        assert_eq!(MachineState::from_bytes(1, &trailing), Err(expected));
        // As many vCPUs as a length can say.
        let mut lying = bytes.clone();
        lying[47] = 0x80;
        assert!(matches!(MachineState::from_bytes(1, &lying), Err(SavedError::Undecodable { .. })));
        let many = |change: &dyn Fn(&mut MachineState)| {
            let mut state = known();
            change(&mut state);
            MachineState::from_bytes(1, &state.to_bytes()).unwrap_err()
        };
        let expected = SavedError::TooMany { what: "vCPUs", count: 65, most: 64 };
        assert_eq!(many(&|state| state.vcpus = vec![vcpu(0); 65]), expected);
        let expected = SavedError::TooMany { what: "CPUID entries", count: 257, most: 256 };
        assert_eq!(many(&|state| state.vcpus[1].cpuid = vec![Default::default(); 257]), expected);
        let expected = SavedError::TooMany { what: "model specific registers", count: 1025, most: 1024 };
        assert_eq!(many(&|state| state.vcpus[0].msrs = vec![Default::default(); 1025]), expected);
    }

    #[test]
    fn the_largest_machine_is_below_the_limit() {
        let mut largest = known();
        largest.vcpus = vec![vcpu(0); 64];
        for vcpu in &mut largest.vcpus {
            vcpu.cpuid = vec![Default::default(); 256];
            vcpu.msrs = vec![Default::default(); 1024];
            vcpu.xcrs = Some(Default::default());
        }
        assert_eq!(MachineState::from_bytes(1, &largest.to_bytes()), Ok(largest));
    }
}
