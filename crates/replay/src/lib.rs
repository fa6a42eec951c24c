//! Purpose to be written by its first code.
