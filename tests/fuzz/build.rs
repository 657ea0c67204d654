//! libyara and libFuzzer both define `memmem`; either will do.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,muldefs");
}
