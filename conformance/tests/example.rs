//! The protocol crate's example against real QEMU.

use std::{
    io::{self, Write},
    path::Path,
    process::Command,
};

use spice_conformance::{
    subject::{HostOptions, StartError, qemu::Qemu},
    trace::Trace,
};
use tempfile::TempDir;

#[tokio::test]
async fn the_capabilities_example_says_what_qemu_can_do_and_not_what_it_allows() {
    let qemu = match Qemu::probe(Path::new("qemu-system-x86_64")).await {
        Ok(qemu) => qemu,
        Err(StartError::MissingProgram { .. }) if std::env::var_os("CI").is_none() => {
            // Straight to stderr: the test harness would swallow what `println!` says in a test that passes.
            let _ = writeln!(io::stderr(), "not tested: the capabilities example (qemu-system-x86_64 is missing)");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let directory = TempDir::new().unwrap();
    for (name, seamless) in [("allows", true), ("forbids", false)] {
        let password = Some("the example does not know it".to_owned());
        let options =
            HostOptions { name: name.to_owned(), seamless, password, incoming: false, ..HostOptions::default() };
        let host = qemu.start(directory.path(), &options, &Trace::new()).await.unwrap();
        let mut example = Command::new(env!("CARGO"));
        example.args(["run", "--quiet", "--package", "spice-migration", "--example", "capabilities", "--"]);
        let output = example.arg(host.spice().to_string()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            printed,
            "\
protocol version:    2.2
common capabilities: auth-selection,auth-spice,mini-header
main capabilities:   semi-seamless-migrate,name-and-uuid,agent-connected-tokens,seamless-migrate

When its guest moves away, a client goes along
  with all capabilities:   seamless if both hosts can and the source allows it, else semi-seamless
  with semi-seamless only: semi-seamless
  with none:               switch-host
What a host allows is not on the wire (for QEMU it is -spice seamless-migration=on).
"
        );
        host.stop().await;
    }
}
