//! What the counts depend on beside the code.

use std::collections::BTreeMap;
use std::process::Command;

/// The compilers, the C library, whose `memcpy` is in every count, and what the processor can do.
pub(crate) fn here() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, command) in [
        ("rustc", &["rustc", "--version"][..]),
        // It compiles the allocator.
        ("cc", &["cc", "-dumpfullversion", "-dumpversion"]),
        ("libc", &["getconf", "GNU_LIBC_VERSION"]),
        ("valgrind", &["valgrind", "--version"]),
    ] {
        found.insert(name.to_owned(), said(command));
    }
    found.insert("cpu".to_owned(), cpu());
    found
}

fn said(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// valgrind shows a program no more than AVX2, and searches and copies are chosen by that.
fn cpu() -> String {
    #[cfg(target_arch = "x86_64")]
    let simd = if std::arch::is_x86_feature_detected!("avx2") {
        " with avx2"
    } else {
        ""
    };
    #[cfg(not(target_arch = "x86_64"))]
    let simd = "";
    format!("{}{simd}", std::env::consts::ARCH)
}
