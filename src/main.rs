//! nines.
fn main() {}
