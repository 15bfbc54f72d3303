//! Compiles spice-common's generated code and the shim, if the feature `c` asks for it.

fn main() {
    #[cfg(feature = "c")]
    c::build();
}

#[cfg(feature = "c")]
mod c {
    use std::path::{Path, PathBuf};

    /// What of spice-common is compiled: the generated code and what it calls.
    const SOURCES: [&str; 6] = [
        "generated_client_demarshallers.c",
        "generated_server_demarshallers.c",
        "generated_client_marshallers.c",
        "generated_server_marshallers.c",
        "marshaller.c",
        "mem.c",
    ];

    pub(crate) fn build() {
        println!("cargo:rerun-if-env-changed=SPICE_COMMON_SOURCE");
        println!("cargo:rerun-if-changed=shim.c");
        println!("cargo:rerun-if-changed=shim.h");
        println!("cargo:rerun-if-changed=stub/config.h");

        let package = std::env::var_os("SPICE_COMMON_SOURCE")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/spice-0.15.1"), PathBuf::from);
        let spice_common = package.join("subprojects/spice-common");
        let sources = SOURCES.map(|name| spice_common.join("common").join(name));
        for source in &sources {
            assert!(
                source.exists(),
                "{} is missing. Get spice-common's sources with fuzz/spice-common/fetch, or set SPICE_COMMON_SOURCE to an \
                 unpacked source package of spice 0.15.1 (apt-get source spice).",
                source.display()
            );
            println!("cargo:rerun-if-changed={}", source.display());
        }
        let changelog = std::fs::read_to_string(package.join("debian/changelog")).unwrap_or_default();
        let (name_and_version, _) = changelog.split_once(") ").unwrap_or(("unknown (none", ""));
        println!("cargo:rustc-env=SPICE_COMMON_SOURCE_PACKAGE={name_and_version})");

        let mut compiler = cc::Build::new();
        compiler.opt_level(3).force_frame_pointer(false).include("stub").include(&spice_common);
        for library in ["glib-2.0", "spice-protocol"] {
            // Only headers: the shim supplies the one function of spice-common that would call glib.
            let found = pkg_config::Config::new().cargo_metadata(false).probe(library).unwrap_or_else(|error| {
                panic!("the headers of {library} are missing: fuzz/spice-common/fetch installs them.\n{error}")
            });
            compiler.includes(found.include_paths);
        }
        // The caller before the called: linkers that read each library once need that order.
        compiler.clone().file("shim.c").extra_warnings(true).compile("spice-common-shim");
        compiler.files(&sources).warnings(false).compile("spice-common");
    }
}
