//! moto's server: S3 and KMS on loopback.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

/// A server, which ends with the value.
pub(crate) struct Moto {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    /// Starts a server; `None`, and a notice, where there is no Python for it, which must not be in CI.
    pub(crate) async fn serve() -> Option<Self> {
        let Some(python) = std::env::var_os("COUNTERFOIL_INTEROP_PYTHON") else {
            assert!(std::env::var_os("CI").is_none(), "CI has moto");
            // Written past the harness, which keeps to itself what a passing test prints.
            let line = b"skipped: COUNTERFOIL_INTEROP_PYTHON names no Python with moto\n";
            std::io::stderr().write_all(line).unwrap();
            return None;
        };
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut moto = Self { child, address };
        let mut looks = 0;
        while TcpStream::connect(address).await.is_err() {
            assert_eq!(moto.child.try_wait().unwrap(), None, "the server ended");
            assert!(looks < 1_200, "the server does not listen");
            looks += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(moto)
    }

    /// Returns the server's address as a setting has it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}
