//! Tests of the whole explanation on made-up runs: each fault leaves the marks that it leaves on a real system.
