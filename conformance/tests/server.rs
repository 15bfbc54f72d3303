//! One server whose host is not controlled: the embedded one, and Xspice, which cannot migrate.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use assert_cmd::cargo::cargo_bin_cmd;
use serde_json::Value;
use spice_conformance::{
    peer::host::{EmbeddedHost, HostSettings},
    subject::HostOptions,
    trace::Trace,
};

/// Runs these cases against the server at this port and returns exit code, report, and what was printed.
fn run(port: u16, arguments: &[&str]) -> (i32, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let (server, report) = (format!("127.0.0.1:{port}"), format!("json={}", path.display()));
    let mut command = cargo_bin_cmd!("spice-conformance");
    let output = command.args(["run", "--server", &server, "--report", &report]).args(arguments).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let document = serde_json::from_slice(&fs::read(&path).unwrap_or_default()).unwrap_or_default();
    (output.status.code().unwrap(), document, printed)
}

/// How many cases a report has with an outcome, of those with ids that begin so.
fn count(report: &Value, group: &str, outcome: &str) -> usize {
    let cases = report["cases"].as_array().unwrap().iter();
    cases.filter(|case| case["id"].as_str().unwrap().starts_with(group) && case["outcome"] == outcome).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_control_is_not_applicable_to_a_server_alone() {
    let options = HostOptions {
        name: "alone".to_owned(),
        seamless: true,
        password: Some("other".to_owned()),
        incoming: false,
        ..HostOptions::default()
    };
    let host = EmbeddedHost::start(&options, HostSettings::default(), &Trace::new()).await.unwrap();
    let port = host.spice().port();
    // Each main link is the end of the one before, so cases that only wait must not be run beside others, either.
    let waiting = ["channel/session/display-silent", "malformed/oversized/*"];
    let groups =
        ["--filter", "link/*", "main/*", "seamless/*", "message/session/*", "agent/*", "tls/*", waiting[0], waiting[1]];
    let judged = tokio::task::spawn_blocking(move || run(port, &[&groups[..], &["--password", "other"]].concat()));
    let (code, report, printed) = judged.await.unwrap();
    assert_eq!(code, 0, "{printed}");
    assert_eq!(report["peer"]["kind"], "server");
    let command = report["tool"]["command"].as_str().unwrap();
    assert!(command.ends_with("--password '***'") || command.ends_with("--password ***"), "{command}");
    assert!(count(&report, "link/", "pass") > 10 && count(&report, "message/", "pass") > 40, "{printed}");
    for group in ["seamless/", "agent/", "tls/"] {
        let (missing, passed) = (count(&report, group, "not-applicable"), count(&report, group, "pass"));
        assert!(missing >= 10 && passed == 0, "{group}: {missing}, {passed}; {printed}");
    }

    // Without the password there is nothing that could be judged.
    let (code, _, printed) = tokio::task::spawn_blocking(move || run(port, &["--filter", "link/*"])).await.unwrap();
    assert_eq!(code, 3, "{printed}");
    assert!(printed.contains("it demands a password: --password"), "{printed}");
    host.stop().await;
    let (code, _, printed) = tokio::task::spawn_blocking(move || run(port, &[])).await.unwrap();
    assert_eq!(code, 3, "{printed}");
    assert!(printed.contains("nobody listens"), "{printed}");
}

struct Xspice(Child);

impl Drop for Xspice {
    fn drop(&mut self) {
        // Xspice is a script that waits for its child, Xorg, and may not notice its end.
        let _ = Command::new("pkill").args(["-P", &self.0.id().to_string()]).status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Without the sizes, Debian's driver takes them for 0 and dies.
const XSPICE_CONFIGURATION: &str = r#"
Section "Device"
    Identifier "device"
    Driver "spiceqxl"
    Option "FrameBufferSize" "16"
    Option "SurfaceBufferSize" "128"
    Option "CommandBufferSize" "128"
    Option "NumHeads" "1"
EndSection
Section "InputDevice"
    Identifier "pointer"
    Driver "xspice pointer"
EndSection
Section "InputDevice"
    Identifier "keyboard"
    Driver "xspice keyboard"
EndSection
Section "Screen"
    Identifier "screen"
    Device "device"
    DefaultDepth 24
EndSection
Section "ServerLayout"
    Identifier "layout"
    Screen "screen"
    InputDevice "keyboard"
    InputDevice "pointer"
EndSection
Section "ServerFlags"
    Option "AutoAddDevices" "False"
EndSection
"#;

#[test]
fn xspice_links_clients_as_required() {
    const START: Duration = Duration::from_secs(30);

    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("xorg.conf");
    fs::write(&configuration, XSPICE_CONFIGURATION).unwrap();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut command = Command::new("Xspice");
    command.arg("--config").arg(&configuration).args(["--port", &port.to_string(), "--disable-ticketing"]);
    command.arg("-logfile").arg(folder.path().join("xorg.log")).args(["-noreset", ":77"]);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut xspice = match spawned {
        Ok(child) => Xspice(child),
        Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            eprintln!("not tested: no Xspice here (Debian's package xserver-xspice), so no server that cannot migrate");
            return;
        }
        Err(error) => panic!("Xspice: {error}"),
    };
    let began = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(began.elapsed() < START && xspice.0.try_wait().unwrap().is_none(), "Xspice does not listen");
        thread::sleep(Duration::from_millis(50));
    }
    let known = concat!(env!("CARGO_MANIFEST_DIR"), "/expectations/spice-server-0.15.1.toml");
    let (code, report, printed) = run(port, &["--filter", "link/*", "main/*", "cancel/*", "--expect", known]);
    assert_eq!(code, 0, "{printed}");
    assert!(count(&report, "link/", "pass") > 10 && count(&report, "main/", "pass") > 5, "{printed}");
    assert!(count(&report, "cancel/", "pass") == 3 && count(&report, "cancel/", "not-applicable") > 5, "{printed}");
}
