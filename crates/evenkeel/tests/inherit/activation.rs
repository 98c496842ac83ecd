//! A service manager's sockets, and what it is told.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::roles::{LONG, Said, in_role};

/// Runs a role with two descriptors at 3 and 4, as a service manager does: a shell puts them there, and knows the number of
/// the process that it becomes.
fn activated(passed: [OwnedFd; 2], names: &str) -> std::process::Child {
    let role = in_role("activated");
    let mut shell = Command::new("sh");
    let script = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$@\"";
    shell.args(["-c", script, "sh"]).arg(role.get_program()).args(role.get_args());
    shell.envs(role.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
    let [first, second] = passed;
    shell.stdin(first).stdout(second).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn sockets_of_a_service_manager_are_taken_with_their_names() {
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let at = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    let mut process = activated(sockets.map(OwnedFd::from), "web:");
    let mut said = Said::new(process.stderr.take().unwrap());
    assert_eq!(said.next().unwrap(), format!("web at {}", at[0]));
    assert_eq!(said.next().unwrap(), format!(" at {}", at[1]), "an empty name is a name");
    for at in at {
        let mut peer = TcpStream::connect(at).unwrap();
        peer.set_read_timeout(Some(LONG)).unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "served");
    }
    assert!(process.wait().unwrap().success());
}

#[test]
fn a_descriptor_that_does_not_listen_is_named_and_refused() {
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    let mut process = activated([listening.into(), connected.into()], "web:admin");
    let mut said = Said::new(process.stderr.take().unwrap());
    let refused = said.next().unwrap();
    assert!(refused.starts_with("descriptor 4 (admin) of LISTEN_FDS"), "{refused}");
    assert!(process.wait().unwrap().success());
}

#[test]
fn a_service_manager_is_told() {
    let path = std::env::temp_dir().join(format!("evenkeel-notify-{}.sock", std::process::id()));
    let name = format!("evenkeel-notify-{}", std::process::id());
    let addresses = [
        (SocketAddr::from_pathname(&path).unwrap(), path.display().to_string()),
        (SocketAddr::from_abstract_name(&name).unwrap(), format!("@{name}")),
    ];
    for (address, named) in addresses {
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_read_timeout(Some(LONG)).unwrap();
        let mut process = in_role("notifies")
            .env("NOTIFY_SOCKET", named)
            .env("WATCHDOG_USEC", "2000000")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let next = || {
            let mut message = [0; 256];
            let len = manager.recv(&mut message).unwrap();
            String::from_utf8(message[..len].to_vec()).unwrap()
        };
        let reloading = next();
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = Duration::new(up.tv_sec as u64, up.tv_nsec as u32).as_micros();
        let since: u128 = since.parse().unwrap();
        assert!(since <= now && now - since < LONG.as_micros(), "{since} is the kernel's clock, {now}");
        assert_eq!(next(), "READY=1\nSTATUS=up\nMAINPID=7");
        assert_eq!(next(), "WATCHDOG=1");
        assert_eq!(next(), "STOPPING=1");
        let mut said = Said::new(process.stderr.take().unwrap());
        assert_eq!(said.next().unwrap(), format!("{:?}", Some(Duration::from_secs(2))));
        assert!(process.wait().unwrap().success());
    }
    std::fs::remove_file(path).unwrap();
}
