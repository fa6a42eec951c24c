//! How a mailbox command ended (CXL r4.0 8.2.9.4.5.1, table 8-208).
//!
//! Deliberately absent: vendor codes; they travel in a field of their own in the mailbox status register.

use core::fmt;

macro_rules! return_codes {
    ($($(#[$doc:meta])* $name:ident = $code:tt, $text:literal;)*) => {
        /// The return code of a mailbox command (CXL r4.0 table 8-208).
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[cfg_attr(feature = "codec", derive(serde::Serialize))]
        #[repr(u16)]
        pub enum ReturnCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl ReturnCode {
            /// Every code that the standard defines, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code with this number, or `None` where the standard defines none.
            pub const fn from_u16(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The code's name in words.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

return_codes! {
    /// The command did what it was asked.
    Success = 0x00, "success";
    /// The command goes on in the background.
    BackgroundStarted = 0x01, "background operation started";
    /// An input was not valid.
    InvalidInput = 0x02, "invalid input";
    /// The command is not known or not possible on this device.
    Unsupported = 0x03, "unsupported";
    /// The device failed inside.
    InternalError = 0x04, "internal error";
    /// The same command may succeed later.
    RetryRequired = 0x05, "retry required";
    /// The device is busy with a background operation.
    Busy = 0x06, "busy";
    /// The media are disabled.
    MediaDisabled = 0x07, "media disabled";
    /// A firmware transfer is in progress.
    FirmwareTransferInProgress = 0x08, "firmware transfer in progress";
    /// A part of a firmware image came out of order.
    FirmwareTransferOutOfOrder = 0x09, "firmware transfer out of order";
    /// The firmware image is not genuine.
    FirmwareVerificationFailed = 0x0A, "firmware verification failed";
    /// The firmware slot does not exist or cannot be used.
    InvalidSlot = 0x0B, "invalid slot";
    /// New firmware did not start; the old one runs.
    ActivationFailedRolledBack = 0x0C, "activation failed, firmware rolled back";
    /// New firmware needs a cold reset.
    ColdResetRequired = 0x0D, "cold reset required";
    /// An event record handle does not exist, or is not the oldest.
    InvalidHandle = 0x0E, "invalid handle";
    /// A device-physical address or range is not valid here.
    InvalidPhysicalAddress = 0x0F, "invalid physical address";
    /// No more poison can be injected.
    InjectPoisonLimitReached = 0x10, "inject poison limit reached";
    /// The media failed for good.
    PermanentMediaFailure = 0x11, "permanent media failure";
    /// The background operation was aborted.
    Aborted = 0x12, "aborted";
    /// The security state forbids the command.
    InvalidSecurityState = 0x13, "invalid security state";
    /// The passphrase is wrong.
    IncorrectPassphrase = 0x14, "incorrect passphrase";
    /// The command is not served on this mailbox or interface.
    UnsupportedMailbox = 0x15, "unsupported mailbox or CCI";
    /// The payload is too short or too long for the command.
    InvalidPayloadLength = 0x16, "invalid payload length";
    /// The log or a page of it does not exist.
    InvalidLog = 0x17, "invalid log";
    /// The command was interrupted by an event that is to be handled first.
    Interrupted = 0x18, "interrupted";
    /// The feature has no such version.
    UnsupportedFeatureVersion = 0x19, "unsupported feature version";
    /// The feature has no such selection.
    UnsupportedFeatureSelection = 0x1A, "unsupported feature selection value";
    /// A feature transfer is in progress.
    FeatureTransferInProgress = 0x1B, "feature transfer in progress";
    /// A part of a feature came out of order.
    FeatureTransferOutOfOrder = 0x1C, "feature transfer out of order";
    /// The device has no room to track what was asked.
    ResourcesExhausted = 0x1D, "resources exhausted";
    /// The list of extents contradicts itself or the regions.
    InvalidExtentList = 0x1E, "invalid extent list";
    /// A part of a transfer came out of order. Linux 7.3 has no name for this code and reads past its table: never
    /// an answer to a kernel's command.
    TransferOutOfOrder = 0x1F, "transfer out of order";
    /// A background operation cannot be aborted on request. As with 1Fh, never an answer to a kernel's command.
    RequestAbortNotSupported = 0x20, "request abort background operation not supported";
}

impl fmt::Display for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}h ({})", *self as u16, self.text())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn codes_are_dense_and_come_back() {
        for (number, code) in ReturnCode::ALL.iter().enumerate() {
            assert_eq!(*code as usize, number);
            assert_eq!(ReturnCode::from_u16(number as u16), Some(*code));
        }
        assert_eq!(ReturnCode::ALL.len(), 0x21);
        assert_eq!(ReturnCode::from_u16(0x21), None);
        assert_eq!(ReturnCode::InvalidExtentList.to_string(), "1Eh (invalid extent list)");
    }
}
