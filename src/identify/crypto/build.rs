//! Compiles the digests that libyara is linked with (`src/identify/crypto`).
//!
//! `yara-sys` asks the linker for a library `System`; it finds this one through the search path that `cc` prints.

fn main() {
    let folder = "src/identify/crypto";
    println!("cargo::rerun-if-changed={folder}");
    cc::Build::new().file(format!("{folder}/digest.c")).include(folder).std("c11").warnings(true).compile("System");
}
