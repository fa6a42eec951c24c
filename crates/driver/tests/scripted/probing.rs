//! A whole probe: what is asked in which order, and devices that are refused.

use driver::interrupt_policy::ArmError;
use driver::media::MediaError;
use driver::memdev::MemdevError;
use driver::regions::ConfigurationError;
use driver::{Host, MailboxError, Policy, ProbeError};
use wire::{CEL_UUID, DcRegion, Dpa, Hpa, Opcode, ReturnCode};
use zerocopy::little_endian::{U32, U64};

use crate::device::MEMORY_DEVICE_STATUS;
use crate::exchange::{
    Exchange, MIB, bytes, cel, configuration, extent, extent_list, identity, ok, refused, region, supported_logs,
};
use crate::machine::{DVSEC_0, MSIX, Machine, SERIAL, WINDOW, map};

/// Commands that a DCD has, with so many others that its log is longer than a payload of 256 bytes.
fn commands() -> Vec<Opcode> {
    let others = (0..66).map(|n| Opcode(0xc000 + n));
    others.chain((0x4800..0x4804).map(Opcode)).collect()
}

fn probe_script(regions: &[DcRegion]) -> Vec<Exchange> {
    let log = cel(&commands());
    vec![
        supported_logs(log.len() as u32),
        ok(Opcode::GET_LOG, &log[..256]),
        ok(Opcode::GET_LOG, &log[256..]),
        refused(Opcode::SET_TIMESTAMP, ReturnCode::Unsupported),
        identity(),
        configuration(regions.len() as u8, regions),
        ok(Opcode::GET_EVENT_INTERRUPT_POLICY, &[0x31, 0x30, 0x30, 0x30, 0x20]),
        ok(Opcode::SET_EVENT_INTERRUPT_POLICY, &[]),
        ok(Opcode::GET_EVENT_INTERRUPT_POLICY, &[0x31, 0x30, 0x30, 0x30, 0x21]),
    ]
}

/// A machine with a probed device: one region of 1 GiB at DPA 0, 2 MiB blocks, a payload of 256 bytes, no extents.
pub(crate) fn probed(policy: Policy) -> (Machine, Host) {
    probed_with(policy, &[region(0, 1024 * MIB)])
}

/// The same with these regions.
pub(crate) fn probed_with(policy: Policy, regions: &[DcRegion]) -> (Machine, Host) {
    let mut script = probe_script(regions);
    script.push(extent_list(0, 0, &[]));
    let mut machine = Machine::new(8, script);
    let host = Host::probe(&mut machine, &map(), policy).expect("a device");
    machine.sent();
    machine.accesses.clear();
    machine.device.set_event_status(1 << 4);
    (machine, host)
}

fn refusal(machine: &mut Machine) -> ProbeError {
    Host::probe(machine, &map(), Policy::Accept).expect_err("a device that cannot be used")
}

/// The error of a probe whose script has `exchange` in the place of `index`.
fn refusal_with(index: usize, exchange: Exchange) -> ProbeError {
    let mut script = probe_script(&[region(0, 1024 * MIB)]);
    script[index] = exchange;
    refusal(&mut Machine::new(8, script))
}

#[test]
fn a_probe_asks_in_linux_order() {
    let mut script = probe_script(&[region(0, 256 * MIB), region(512 * MIB, 500 * MIB)]);
    script.push(extent_list(1, 9, &[extent(514 * MIB, 4 * MIB, 7)]));
    let mut machine = Machine::new(8, script);
    machine.now_ms = 1_000;
    let host = Host::probe(&mut machine, &map(), Policy::Hold).expect("a device");
    let log = |offset: u32, len: u32| bytes(&[&CEL_UUID, &offset.to_le_bytes(), &len.to_le_bytes()]);
    let expected = [
        (0x0400, vec![]),
        (0x0401, log(0, 256)),
        (0x0401, log(256, 24)),
        (0x0301, 1_000_000_000_u64.to_le_bytes().to_vec()),
        (0x4000, vec![]),
        // (256 - 24) / 40 regions fit.
        (0x4800, vec![5, 0]),
        (0x0102, vec![]),
        (0x0103, vec![0x31, 0x30, 0x30, 0x30, 0x01]),
        (0x0102, vec![]),
        (0x4801, vec![6, 0, 0, 0, 0, 0, 0, 0]),
    ];
    assert_eq!(machine.sent(), expected);
    assert_eq!((host.serial(), host.interrupt_entry(), host.policy()), (Some(SERIAL), 2, Policy::Hold));
    assert_eq!(host.extents().len(), 1);
    assert_eq!(host.configuration().decode_len_bytes(), 1024 * MIB);
    assert_eq!(host.hpa_of(Dpa(512 * MIB)), Some(Hpa(WINDOW + 512 * MIB)));
    assert_eq!(host.hpa_of(Dpa(1024 * MIB)), None);
    assert!(host.device().effects(Opcode::ADD_DC_RESPONSE).is_some_and(|e| e.immediate_configuration_change()));
}

#[test]
fn a_probe_turns_interrupts_and_memory_on() {
    let (mut machine, host) = probed(Policy::Accept);
    let endpoint = machine.endpoint();
    assert_eq!(endpoint.get(MSIX + 2, 2), 0x800f);
    assert_eq!(endpoint.get(DVSEC_0 + 0xc, 2) & 4, 4);
    assert_eq!([0, 4, 8, 12].map(|at| machine.device.dword(2, at)), [0xfee0_0000, 0, 0x30, 0]);
    assert_eq!(machine.device.dword(2, 15 * 16 + 8), 0x3f);
    let region = host.region().expect("a region");
    assert_eq!((region.hpa.base, region.hpa.size_bytes, region.dpa_base), (Hpa(WINDOW), 1024 * MIB, Dpa(0)));
}

#[test]
fn regions_are_read_in_pages() {
    let regions: Vec<_> = (0..7).map(|n| region(n * 256 * MIB, 256 * MIB)).collect();
    let mut script = probe_script(&regions[..5]);
    script[5] = configuration(7, &regions[..5]);
    script.insert(6, configuration(7, &regions[5..]));
    script.push(extent_list(0, 0, &[]));
    let mut machine = Machine::new(8, script);
    let host = Host::probe(&mut machine, &map(), Policy::Accept).expect("a device");
    assert_eq!(host.configuration().regions.len(), 7);
    let asked: Vec<_> = machine.sent().into_iter().filter(|(opcode, _)| *opcode == 0x4800).collect();
    assert_eq!(asked, [(0x4800, vec![5, 0]), (0x4800, vec![3, 5])]);
}

#[test]
fn a_device_without_dynamic_capacity_is_refused() {
    let log = cel(&[Opcode(0x4800), Opcode(0x4801), Opcode(0x4803)]);
    let script = [supported_logs(log.len() as u32), ok(Opcode::GET_LOG, &log)];
    let error = refusal(&mut Machine::new(8, script));
    assert_eq!(error, ProbeError::Memdev(MemdevError::NoDynamicCapacity { missing: Opcode::ADD_DC_RESPONSE }));
    for size_bytes in [0, 3, 1 << 30] {
        let error = refusal(&mut Machine::new(8, [supported_logs(size_bytes)]));
        assert_eq!(error, ProbeError::Memdev(MemdevError::CommandEffectsLog { size_bytes }));
    }
}

#[test]
fn answers_shorter_than_their_counts_are_refused() {
    for (index, opcode, answer) in [
        (0, Opcode::GET_SUPPORTED_LOGS, vec![0xff; 8]),
        (1, Opcode::GET_LOG, vec![0; 255]),
        (4, Opcode::IDENTIFY_MEMORY_DEVICE, vec![0; 0x42]),
        (5, Opcode::GET_DC_CONFIGURATION, vec![2, 2, 0, 0, 0, 0, 0, 0]),
        (5, Opcode::GET_DC_CONFIGURATION, vec![1]),
        (6, Opcode::GET_EVENT_INTERRUPT_POLICY, vec![0; 4]),
    ] {
        let error = refusal_with(index, ok(opcode, &answer));
        let cause = match error {
            ProbeError::Memdev(MemdevError::Mailbox(error)) => error,
            ProbeError::Memdev(MemdevError::Configuration(ConfigurationError::Mailbox(error))) => error,
            ProbeError::Arm(ArmError::Mailbox(error)) => error,
            error => panic!("{error}"),
        };
        assert!(matches!(cause, MailboxError::AnswerTooShort { .. }), "{cause}");
    }
}

#[test]
fn regions_that_break_a_rule_are_refused() {
    let good = region(0, 1024 * MIB);
    let bad = [
        vec![DcRegion { base_dpa: U64::new(128 * MIB), ..good }],
        vec![DcRegion { len_bytes: U64::new(0), ..good }],
        vec![DcRegion { len_bytes: U64::new(2048 * MIB), ..good }],
        vec![DcRegion { len_bytes: U64::new(MIB), ..good }],
        vec![DcRegion { block_size_bytes: U64::new(0x20), ..good }],
        vec![DcRegion { block_size_bytes: U64::new(3 * MIB), ..good }],
        vec![DcRegion { dsmad_handle: U32::new(0x100), ..good }],
        vec![DcRegion { decode_len_multiples: U64::new(u64::MAX), ..good }],
        vec![good, good],
        vec![good, DcRegion { base_dpa: U64::new(u64::MAX << 28), decode_len_multiples: U64::new(2), ..good }],
    ];
    for regions in bad {
        let error = refusal_with(5, configuration(regions.len() as u8, &regions));
        let is_region =
            matches!(error, ProbeError::Memdev(MemdevError::Configuration(ConfigurationError::Region { .. })));
        assert!(is_region, "{error}");
    }
    for (available, regions) in [(0, vec![]), (9, vec![good]), (1, vec![]), (1, vec![good, good])] {
        let error = refusal_with(5, configuration(available, &regions));
        let is_count =
            matches!(error, ProbeError::Memdev(MemdevError::Configuration(ConfigurationError::Count { .. })));
        assert!(is_count, "{error}");
    }
    let error = refusal_with(5, configuration(1, &[region(256 * MIB, 256 * MIB)]));
    assert_eq!(error.to_string(), "dynamic capacity begins at 0x10000000, but static capacity ends at 0x0");
}

#[test]
fn a_device_that_does_not_take_the_policy_is_refused() {
    let error = refusal_with(8, ok(Opcode::GET_EVENT_INTERRUPT_POLICY, &[0, 0, 0, 0, 0x20]));
    assert_eq!(error, ProbeError::Arm(ArmError::NotTaken { setting: 0x20 }));
}

#[test]
fn a_device_is_waited_for_and_then_refused() {
    let mut machine = Machine::new(8, []);
    machine.endpoint().put(DVSEC_0 + 0x1c, &[1]);
    assert!(matches!(refusal(&mut machine), ProbeError::Media(MediaError::RangeTimeout { range: 1, .. })));
    assert_eq!(machine.now_ms, 60_000);
    let mut machine = Machine::new(8, []);
    machine.device.bars[1][MEMORY_DEVICE_STATUS] = 0x04;
    let error = refusal(&mut machine);
    assert!(matches!(error, ProbeError::Media(MediaError::ReadyTimeout { status: 4, .. })), "{error}");
    let mut machine = Machine::new(8, []);
    machine.device.bars[1][MEMORY_DEVICE_STATUS] = 0x18;
    let error = refusal(&mut machine);
    assert!(matches!(error, ProbeError::Media(MediaError::Failed { status: 0x18, .. })), "{error}");
}

#[test]
fn a_window_that_is_too_small_is_named() {
    let script = probe_script(&[region(0, 1024 * MIB)]);
    let mut machine = Machine::new(8, script);
    let mut map = map();
    map.window_len_bytes = 512 * MIB;
    let error = Host::probe(&mut machine, &map, Policy::Accept).expect_err("half of what is needed");
    assert_eq!(
        error.to_string(),
        "dynamic capacity spans 0x40000000 bytes, but of the window at 0x110000000 0x20000000 are left for it"
    );
}
