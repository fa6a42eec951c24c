//! Where things are in guest memory, and the vectors and ports that the image and its host keep for themselves.

/// The host tells the guest: [`BootPage`](crate::BootPage).
pub const BOOT_PAGE: u64 = 0x0010_0000;
/// The guest tells the host how it fares: [`StatusPage`](crate::StatusPage).
pub const STATUS_PAGE: u64 = 0x0010_1000;
/// Segment descriptors.
pub const GDT: u64 = 0x0010_2000;
/// Interrupt descriptors, 256 of 16 bytes.
pub const IDT: u64 = 0x0010_3000;
/// First byte of the image, which is its [`ImageHeader`].
pub const IMAGE: u64 = 0x0020_0000;
/// End of what the image may use.
pub const IMAGE_END: u64 = 0x0040_0000;

/// The block of the first vCPU.
pub const VCPU_BLOCKS: u64 = 0x0040_0000;
/// Bytes of a vCPU's block.
pub const VCPU_BLOCK_LEN_BYTES: u64 = 0x8_0000;
/// vCPUs at most.
pub const VCPUS_MAX: u32 = 64;

/// In a vCPU's block: its [`VcpuPage`](crate::VcpuPage). The ring 0 stubs find it by the stack pointer, whose upper bits
/// are those of the block's first 64 KiB.
pub const VCPU_PAGE: u64 = 0;
/// In a vCPU's block: its [`JobPage`](crate::JobPage).
pub const JOB_PAGE: u64 = 0x1000;
/// In a vCPU's block: the bytes of a job that copies.
pub const JOB_DATA: u64 = 0x2000;
/// Length of these bytes.
pub const JOB_DATA_LEN_BYTES: u64 = 0x4000;
/// In a vCPU's block: its task state segment, with its map of ports.
pub const TASK_STATE: u64 = 0x8000;
/// In a vCPU's block: the end of its ring 0 stack, and of the bytes that its stubs may find by the stack pointer.
pub const RING0_STACK_END: u64 = 0x1_0000;
/// In a vCPU's block: the begin of its ring 3 stack, which goes on to the block's end.
pub const RING3_STACK: u64 = RING0_STACK_END;
/// Bytes of a ring 3 stack.
pub const RING3_STACK_LEN_BYTES: u64 = VCPU_BLOCK_LEN_BYTES - RING3_STACK;
/// Where the guest sees its ring 3 stacks: nothing is mapped below any of them, so an overflow is a fault.
pub const RING3_STACKS_SEEN_AT: u64 = 0x7f80_0000_0000;
/// Distance of one of these to the next.
pub const RING3_STACK_STRIDE_BYTES: u64 = 0x20_0000;

/// The first byte of a vCPU's block.
pub const fn vcpu_block(vcpu: u32) -> u64 {
    VCPU_BLOCKS + vcpu as u64 * VCPU_BLOCK_LEN_BYTES
}

/// The end of a vCPU's ring 3 stack, as the guest sees it.
pub const fn ring3_stack_end(vcpu: u32) -> u64 {
    RING3_STACKS_SEEN_AT + (vcpu as u64 + 1) * RING3_STACK_STRIDE_BYTES
}

/// What stands at the begin of the image.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
#[repr(C)]
pub struct ImageHeader {
    /// [`IMAGE_MAGIC`].
    pub magic: u64,
    /// The stub of vector 0; those of the others follow.
    pub stubs: u64,
    /// Distance of one stub to the next.
    pub stub_stride_bytes: u64,
}

/// Says that an image is one of ours, and of this ABI.
pub const IMAGE_MAGIC: u64 = crate::abi::magic(*b"dcdimg");

/// Vector of the local APIC's timer, which ends a park.
pub const VECTOR_TIMER: u32 = 0x20;
/// Vector by which the host says that there is a job, or attention is asked for.
pub const VECTOR_KICK: u32 = 0x21;
/// Vectors from here on are the devices'.
pub const VECTOR_DEVICES: u32 = 0x30;
/// Vector of spurious interrupts, which are not acknowledged.
pub const VECTOR_SPURIOUS: u32 = 0xff;

/// Port that says that a job is done.
pub const PORT_DONE: u16 = 0xe0;
/// Port that says that the status page is new.
pub const PORT_STATUS: u16 = 0xe1;
/// Port that says that a fault cannot be handled: the stack has its frame.
pub const PORT_FAULT: u16 = 0xe2;
/// Port that says that the guest panicked: its vCPU page has the text.
pub const PORT_PANIC: u16 = 0xe3;
