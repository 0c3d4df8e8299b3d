//! Names resolve inside a network by the server at its gateway.

mod common;

use common::{Bench, is_root, skip};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use throng_engine::dns::{Lookup, Resolve, serve};

struct Names;

impl Resolve for Names {
    fn lookup(&self, network: &str, name: &str, _: std::net::IpAddr) -> Lookup {
        match (network, name) {
            ("engine-names_default", "web") => Lookup::Addresses(vec![Ipv4Addr::new(10, 199, 30, 7)]),
            (_, "idle") => Lookup::NoReplicas,
            _ => Lookup::NoSuchName,
        }
    }
}

/// A question for the A records of `name`, by hand (RFC 1035): the test must not share the server's encoder.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.push(name.len() as u8);
    bytes.extend(name.as_bytes());
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn names_resolve_over_udp_and_tcp_until_the_server_is_dropped() {
    if !is_root() {
        return skip("names_resolve_over_udp_and_tcp_until_the_server_is_dropped", "needs root");
    }
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let bench = Bench::new("engine-names", 30).await;
    let server = serve(&bench.engine, &bench.network, Arc::new(Names)).await.expect("serves");
    let address = SocketAddr::from((bench.network.gateway, 53));
    let client = tokio::net::UdpSocket::bind("0.0.0.0:0").await.expect("a socket");
    for (name, answers, end) in [("web", 1, &[10, 199, 30, 7][..]), ("idle", 0, &[0, 1, 0, 1])] {
        client.send_to(&question(name), address).await.expect("asked");
        let mut answer = [0; 512];
        let length = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut answer)).await;
        let answer = &answer[..length.expect("in time").expect("an answer")];
        assert_eq!((&answer[..2], answer[3] & 0xf, answer[7]), (&[0x12, 0x34][..], 0, answers), "{name}");
        assert!(answer.ends_with(end), "{answer:?}");
    }
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let asked = question("web");
    stream.write_all(&[&[0, asked.len() as u8], asked.as_slice()].concat()).await.expect("asked");
    let mut answer = vec![0; stream.read_u16().await.expect("a length").into()];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert!(answer.ends_with(&[10, 199, 30, 7]));
    drop(server);
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    bench.end().await;
}
