//! Compose files that several tests use, below the project's name.

/// Replicas that are asked whether they live: over the network, inside, and by nothing but a connection.
pub const PAUSED: &str = "
services:
  asked:
    image: probe
    command: [serve, '80']
    restart: always
    stop_grace_period: 1s
    x-throng:
      readiness: {tcp: {port: 80}, interval: 300ms, timeout: 5s}
      liveness: {http: {port: 80, path: /livez}, interval: 300ms, timeout: 2s, retries: 2}
  inside:
    image: probe
    command: [serve, '81']
    restart: always
    stop_grace_period: 1s
    x-throng:
      readiness: {tcp: {port: 81}, interval: 300ms, timeout: 5s}
      liveness: {exec: [/probe, get, '127.0.0.1:81', /], interval: 300ms, timeout: 5s, retries: 2}
  held:
    image: probe
    command: [serve, '82']
    restart: always
    x-throng:
      liveness: {tcp: {port: 82}, interval: 300ms, timeout: 5s, retries: 2}
";
