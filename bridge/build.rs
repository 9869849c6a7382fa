//! Generates and compiles the C++ half of the bridge into this crate's archive.

fn main() {
    cxx_build::CFG.include_prefix = "flagcx_p2p";
    cxx_build::bridges(["src/lib.rs", "src/net/mod.rs"])
        .include("../cpp/include")
        .std("c++17")
        .flag_if_supported("-Wall")
        .flag_if_supported("-Wextra")
        .compile("flagcx_p2p_bridge_cxx");
    println!("cargo:rerun-if-changed=src/lib.rs");
    println!("cargo:rerun-if-changed=src/net/mod.rs");
    println!("cargo:rerun-if-changed=../cpp/include/flagcx_p2p.h");
}
