//! Names inside a network: a server at the gateway's address that answers for services and replicas and hands every
//! other question to the host's own resolvers.

use crate::engine::{Engine, blocking};
use crate::errors::host;
use hickory_proto::op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use throng_model::replica::{Attachment, NetworkSpec};
use throng_runtime::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PORT: u16 = 53;
/// Seconds that an answer may be kept: replicas come and go.
const TTL: u32 = 1;
/// Questions that wait for the host's resolvers at the same time; more are answered with "server failure".
pub const MAX_FORWARDED: usize = 256;
/// Connections over TCP at the same time; more wait for one to end.
pub const MAX_CONNECTIONS: usize = 64;
/// How long one of the host's resolvers may take, and a client over TCP between two questions.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(2);
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer over UDP, whatever the client offers: beyond it packets are fragmented (DNS flag day 2020).
const MAX_DATAGRAM: u16 = 1232;
/// Largest message over TCP.
const MAX_MESSAGE: u16 = u16::MAX;

/// What a name means in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The replicas behind the name, in the order in which they are to be answered.
    Addresses(Vec<Ipv4Addr>),
    /// Not a name of this network: the host's resolvers are asked.
    NoSuchName,
    /// A name of this network behind which nobody is ready: an empty answer.
    NoReplicas,
}

/// Knows the names of a network. Called for each question, so it must be quick and must not block.
pub trait Resolve: Send + Sync {
    /// `name` is in lower case and has no dot at its end. `client`: who asks.
    fn lookup(&self, network: &str, name: &str, client: IpAddr) -> Lookup;
}

/// A running name server; it stops when this is dropped.
#[derive(Debug)]
pub struct DnsServer {
    /// Ends its tasks when dropped.
    _tasks: JoinSet<()>,
}

/// The name servers that replicas asked for, by the replicas' addresses.
#[derive(Debug, Default)]
pub(crate) struct Resolvers(Mutex<HashMap<Ipv4Addr, Vec<SocketAddr>>>);

impl Resolvers {
    /// Of a replica with these legs; none means the host's.
    pub fn set(&self, legs: &[Attachment], servers: &[IpAddr]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for leg in legs {
            if servers.is_empty() {
                known.remove(&leg.address);
            } else {
                let at_port = servers.iter().map(|server| SocketAddr::new(*server, PORT)).collect();
                known.insert(leg.address, at_port);
            }
        }
    }

    fn of(&self, client: IpAddr) -> Option<Vec<SocketAddr>> {
        let IpAddr::V4(client) = client else { return None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&client).cloned()
    }
}

struct Server {
    network: NetworkSpec,
    resolve: Arc<dyn Resolve>,
    upstream: Vec<SocketAddr>,
    resolvers: Arc<Resolvers>,
    forwarded: Semaphore,
}

/// Serves the network's names on port 53 of its gateway address, over UDP and TCP. The network must exist. Plain
/// processes ask the host's resolvers, whatever is served here: for them nothing is, and [`Engine::lost`] says so.
pub async fn serve(engine: &Engine, network: &NetworkSpec, resolve: Arc<dyn Resolve>) -> Result<DnsServer> {
    if *engine.isolation() == crate::Isolation::Process {
        return Ok(DnsServer { _tasks: JoinSet::new() });
    }
    let failed = |e: io::Error| {
        host(format_args!("cannot serve names of {} at {}:{PORT}", network.name, network.gateway), e)
    };
    let (core, gateway) = (engine.core.clone(), network.gateway);
    let sockets = blocking(move || core.fabric.name_server_sockets(gateway, PORT)).await?;
    let (udp, tcp) = sockets.map_err(failed)?;
    let udp = Arc::new(UdpSocket::from_std(udp).map_err(failed)?);
    let tcp = TcpListener::from_std(tcp).map_err(failed)?;
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let upstream = resolvers(&text).into_iter().filter(|a| a.ip() != IpAddr::V4(network.gateway)).collect();
    let server = Arc::new(Server {
        network: network.clone(),
        resolve,
        upstream,
        resolvers: engine.core.resolvers.clone(),
        forwarded: Semaphore::new(MAX_FORWARDED),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_datagrams(server.clone(), udp));
    tasks.spawn(serve_connections(server, tcp));
    Ok(DnsServer { _tasks: tasks })
}

/// The `nameserver` lines of resolv.conf(5).
fn resolvers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
        .map(|address: IpAddr| SocketAddr::new(address, PORT))
        .collect()
}

async fn serve_datagrams(server: Arc<Server>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0u8; usize::from(u16::MAX)];
    let mut forwarded = JoinSet::new();
    loop {
        while forwarded.try_join_next().is_some() {}
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            // An earlier answer could not be delivered; the socket itself is fine.
            continue;
        };
        let question = buffer[..length].to_vec();
        match server.answer(&question, client.ip(), true) {
            Answer::Now(answer) => {
                // A client that has gone needs no answer.
                let _ = socket.send_to(&answer, client).await;
            }
            Answer::Ask => {
                let (server, socket) = (server.clone(), socket.clone());
                forwarded.spawn(async move {
                    if let Some(answer) = server.forward(&question, client, true).await {
                        // As above.
                        let _ = socket.send_to(&answer, client).await;
                    }
                });
            }
            Answer::Drop => {}
        }
    }
}

async fn serve_connections(server: Arc<Server>, listener: TcpListener) {
    let gate = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = gate.clone().acquire_owned().await else { return };
        let Ok((stream, client)) = listener.accept().await else {
            // Too many open files, say: others may be closed meanwhile.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let server = server.clone();
        connections.spawn(async move {
            // A broken connection concerns its client only.
            let _ = serve_connection(&server, stream, client).await;
            drop(permit);
        });
    }
}

async fn serve_connection(server: &Server, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(CLIENT_PATIENCE, stream.read_u16()).await??;
        let mut question = vec![0; usize::from(length)];
        tokio::time::timeout(CLIENT_PATIENCE, stream.read_exact(&mut question)).await??;
        let answer = match server.answer(&question, client.ip(), false) {
            Answer::Now(answer) => Some(answer),
            Answer::Ask => server.forward(&question, client, false).await,
            Answer::Drop => None,
        };
        let Some(answer) = answer else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

enum Answer {
    Now(Vec<u8>),
    /// The host's resolvers know.
    Ask,
    /// Not a question.
    Drop,
}

impl Server {
    fn answer(&self, question: &[u8], client: IpAddr, datagram: bool) -> Answer {
        let Ok(request) = Message::from_vec(question) else { return Answer::Drop };
        if request.metadata.message_type != MessageType::Query {
            return Answer::Drop;
        }
        let [query] = request.queries.as_slice() else { return reply(&request, ResponseCode::FormErr) };
        if request.metadata.op_code != OpCode::Query {
            return reply(&request, ResponseCode::NotImp);
        }
        if query.query_class() != DNSClass::IN {
            return Answer::Ask;
        }
        let name = query.name().to_lowercase().to_ascii();
        let name = name.trim_end_matches('.');
        if is_reverse_of(name, &self.network) {
            return reply(&request, ResponseCode::NXDomain);
        }
        match self.resolve.lookup(&self.network.name, name, client) {
            Lookup::NoSuchName => Answer::Ask,
            Lookup::NoReplicas => reply(&request, ResponseCode::NoError),
            Lookup::Addresses(addresses) => found(&request, query, &addresses, datagram),
        }
    }

    /// Asks the client's resolvers, or the host's, one after another. `None` only if not even a failure can be written.
    async fn forward(&self, question: &[u8], client: SocketAddr, datagram: bool) -> Option<Vec<u8>> {
        if let Ok(_permit) = self.forwarded.try_acquire() {
            let own = self.resolvers.of(client.ip());
            for resolver in own.as_ref().unwrap_or(&self.upstream) {
                let asked = async {
                    if datagram {
                        ask_udp(*resolver, question).await
                    } else {
                        ask_tcp(*resolver, question).await
                    }
                };
                if let Ok(Ok(answer)) = tokio::time::timeout(UPSTREAM_PATIENCE, asked).await {
                    return Some(answer);
                }
            }
        }
        let request = Message::from_vec(question).ok()?;
        response(&request, ResponseCode::ServFail).to_vec().ok()
    }
}

fn response(request: &Message, code: ResponseCode) -> Message {
    let mut response = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.queries.clone_from(&request.queries);
    response
}

fn reply(request: &Message, code: ResponseCode) -> Answer {
    response(request, code).to_vec().map_or(Answer::Drop, Answer::Now)
}

/// The addresses; other types of records about the same name are an empty answer, which is what tells a client that
/// asks for IPv6 first that the name exists.
fn found(request: &Message, query: &Query, addresses: &[Ipv4Addr], datagram: bool) -> Answer {
    let mut answer = response(request, ResponseCode::NoError);
    answer.metadata.authoritative = true;
    if matches!(query.query_type(), RecordType::A | RecordType::ANY) {
        let limit = fitting(request, query, datagram);
        // A client that wants all of them asks again over TCP.
        answer.metadata.truncation = datagram && addresses.len() > limit;
        for address in addresses.iter().take(limit) {
            answer.add_answer(Record::from_rdata(query.name().clone(), TTL, RData::A(A(*address))));
        }
    }
    answer.to_vec().map_or(Answer::Drop, Answer::Now)
}

/// Addresses for which a message to this client has room: beside 12 bytes of header and the question, each answer
/// takes the name and 14 bytes.
fn fitting(request: &Message, query: &Query, datagram: bool) -> usize {
    let room = if datagram { request.max_payload().clamp(512, MAX_DATAGRAM) } else { MAX_MESSAGE };
    let name = query.name().len() + 1;
    usize::from(room).saturating_sub(12 + name + 4) / (name + 14)
}

/// Whether this is the reverse name (`4.3.2.1.in-addr.arpa`) of an address of the network, which only we could know.
fn is_reverse_of(name: &str, network: &NetworkSpec) -> bool {
    let address = name
        .strip_suffix(".in-addr.arpa")
        .and_then(|digits| digits.split('.').rev().collect::<Vec<_>>().join(".").parse::<Ipv4Addr>().ok());
    address.is_some_and(|a| network.subnet.contains(&a))
}

async fn ask_udp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut answer).await?;
        // An answer to another question is a late or a forged one.
        if answer.get(..2) == question.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::Name;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 9));

    struct Many(usize);

    impl Resolve for Many {
        fn lookup(&self, _: &str, name: &str, _: IpAddr) -> Lookup {
            match name {
                "web" => Lookup::Addresses((0..self.0 as u32).map(Ipv4Addr::from).collect()),
                "idle" => Lookup::NoReplicas,
                _ => Lookup::NoSuchName,
            }
        }
    }

    fn server(count: usize) -> Server {
        let network = NetworkSpec {
            name: "p_default".into(),
            subnet: "10.1.0.0/16".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 1, 0, 1),
            internal: false,
        };
        let forwarded = Semaphore::new(0);
        Server {
            network,
            resolve: Arc::new(Many(count)),
            upstream: vec![],
            resolvers: Arc::default(),
            forwarded,
        }
    }

    fn ask(server: &Server, name: &str, kind: RecordType, datagram: bool) -> Option<Message> {
        let mut request = Message::query();
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        match server.answer(&request.to_vec().unwrap(), CLIENT, datagram) {
            Answer::Now(bytes) => {
                assert!(!datagram || bytes.len() <= 512, "{} bytes in a datagram", bytes.len());
                Some(Message::from_vec(&bytes).unwrap())
            }
            _ => None,
        }
    }

    #[test]
    fn names_of_the_network_are_answered_and_others_handed_on() {
        let server = server(3);
        let answer = ask(&server, "WEB.", RecordType::A, true).unwrap();
        assert_eq!((answer.answers.len(), answer.metadata.truncation), (3, false));
        let answer = ask(&server, "web", RecordType::AAAA, true).unwrap();
        assert_eq!((answer.answers.len(), answer.metadata.response_code), (0, ResponseCode::NoError));
        let answer = ask(&server, "idle", RecordType::A, true).unwrap();
        assert_eq!((answer.answers.len(), answer.metadata.response_code), (0, ResponseCode::NoError));
        assert!(ask(&server, "example.org", RecordType::A, true).is_none());
        let answer = ask(&server, "9.0.1.10.in-addr.arpa", RecordType::PTR, true).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn a_crowd_is_cut_in_a_datagram_and_whole_over_tcp() {
        let server = server(10_000);
        let answer = ask(&server, "web", RecordType::A, true).unwrap();
        assert!(answer.metadata.truncation && answer.answers.len() > 20);
        let answer = ask(&server, "web", RecordType::A, false).unwrap();
        assert!(!answer.metadata.truncation && answer.answers.len() > 3000, "{}", answer.answers.len());
    }

    #[tokio::test]
    async fn too_many_questions_fail_at_once() {
        let mut request = Message::query();
        request.add_query(Query::query(Name::from_ascii("example.org").unwrap(), RecordType::A));
        let answer =
            server(0).forward(&request.to_vec().unwrap(), ([127, 0, 0, 1], 9).into(), true).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn resolvers_are_read_from_their_file() {
        let text = "# comment\nnameserver 1.1.1.1\nsearch x\nnameserver ::1\nnameserver nonsense\n";
        assert_eq!(resolvers(text).len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            server(1).answer(&bytes, CLIENT, true);
        }
    }
}
