//! What the payload of a stream is.

pub mod looks;
