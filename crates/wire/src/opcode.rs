//! The operation codes of mailbox commands: command set in the high byte, command in the low one (CXL r4.0 8.2.10).
//!
//! Only commands that a Dynamic Capacity Device or its host's driver speaks have a name here; every other code stays
//! representable, because a host may send any.

use core::fmt;

/// What a mailbox command asks for (CXL r4.0 8.2.10, table of command opcodes).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "codec", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "codec", serde(transparent))]
pub struct Opcode(pub u16);

impl Opcode {
    /// Reads the oldest records of one event log (CXL r4.0 8.2.10.2.2).
    pub const GET_EVENT_RECORDS: Self = Self(0x0100);
    /// Clears the oldest records of one event log (CXL r4.0 8.2.10.2.3).
    pub const CLEAR_EVENT_RECORDS: Self = Self(0x0101);
    /// Reads how each event log raises interrupts (CXL r4.0 8.2.10.2.4).
    pub const GET_EVENT_INTERRUPT_POLICY: Self = Self(0x0102);
    /// Sets how each event log raises interrupts (CXL r4.0 8.2.10.2.5).
    pub const SET_EVENT_INTERRUPT_POLICY: Self = Self(0x0103);
    /// Reads the device's time (CXL r4.0 8.2.10.4.1).
    pub const GET_TIMESTAMP: Self = Self(0x0300);
    /// Sets the device's time (CXL r4.0 8.2.10.4.2).
    pub const SET_TIMESTAMP: Self = Self(0x0301);
    /// Names the logs that can be read with Get Log (CXL r4.0 8.2.10.5.1).
    pub const GET_SUPPORTED_LOGS: Self = Self(0x0400);
    /// Reads a part of a log, such as the Command Effects Log (CXL r4.0 8.2.10.5.2).
    pub const GET_LOG: Self = Self(0x0401);
    /// Tells static capacities and the sizes of the event logs (CXL r4.0 8.2.10.9.1.1).
    pub const IDENTIFY_MEMORY_DEVICE: Self = Self(0x4000);
    /// Tells the dynamic capacity regions (CXL r4.0 8.2.10.9.9.1).
    pub const GET_DC_CONFIGURATION: Self = Self(0x4800);
    /// Reads a part of the list of accepted extents (CXL r4.0 8.2.10.9.9.2).
    pub const GET_DC_EXTENT_LIST: Self = Self(0x4801);
    /// The host's answer to an offer of extents (CXL r4.0 8.2.10.9.9.3).
    pub const ADD_DC_RESPONSE: Self = Self(0x4802);
    /// The host gives capacity back (CXL r4.0 8.2.10.9.9.4).
    pub const RELEASE_DC: Self = Self(0x4803);

    /// The standard's name of the command, where this crate knows it.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::GET_EVENT_RECORDS => "Get Event Records",
            Self::CLEAR_EVENT_RECORDS => "Clear Event Records",
            Self::GET_EVENT_INTERRUPT_POLICY => "Get Event Interrupt Policy",
            Self::SET_EVENT_INTERRUPT_POLICY => "Set Event Interrupt Policy",
            Self::GET_TIMESTAMP => "Get Timestamp",
            Self::SET_TIMESTAMP => "Set Timestamp",
            Self::GET_SUPPORTED_LOGS => "Get Supported Logs",
            Self::GET_LOG => "Get Log",
            Self::IDENTIFY_MEMORY_DEVICE => "Identify Memory Device",
            Self::GET_DC_CONFIGURATION => "Get Dynamic Capacity Configuration",
            Self::GET_DC_EXTENT_LIST => "Get Dynamic Capacity Extent List",
            Self::ADD_DC_RESPONSE => "Add Dynamic Capacity Response",
            Self::RELEASE_DC => "Release Dynamic Capacity",
            _ => return None,
        })
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{:04X}h ({name})", self.0),
            None => write!(f, "{:04X}h", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn known_codes_print_their_name_and_unknown_ones_their_number() {
        assert_eq!(Opcode::ADD_DC_RESPONSE.to_string(), "4802h (Add Dynamic Capacity Response)");
        assert_eq!(Opcode(0x1234).to_string(), "1234h");
        assert_eq!(Opcode(0xab).to_string(), "00ABh");
    }
}
