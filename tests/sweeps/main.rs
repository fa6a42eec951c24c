//! Every opcode over every payload length, every register over every width and alignment, against tables of what the
//! standards want (`opcodes.txt`, `cases.txt`, `registers.txt`), which were not made from the code.

mod model;
mod opcodes;
mod registers;
mod table;
mod vm;
