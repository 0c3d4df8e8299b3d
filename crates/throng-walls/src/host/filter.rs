//! What the host's packet filter does with frames between replicas. Its rules are no file, so commands are asked: `nft`,
//! and `iptables-legacy` where its tables are loaded already. Neither loads or changes anything.

use super::Source;
use serde::Serialize;
use std::process::{Command, Stdio};

/// Interfaces of this program's networks begin like this.
pub(super) const OURS: &str = "thr";

/// What happens to a forwarded packet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// Whether bridged frames are shown to it at all is `net.bridge.bridge-nf-call-iptables`. `None`: not visible.
    pub drops_forwarded: Option<bool>,
    /// A rule accepts what passes between this program's interfaces.
    pub accepts_ours: bool,
    /// An interface `docker0` is there.
    pub docker: Option<bool>,
}

impl Filter {
    pub(super) fn read(source: &Source, user: Option<u32>) -> Filter {
        let interfaces = source.root.join("sys/class/net");
        let docker = interfaces.is_dir().then(|| interfaces.join("docker0").exists());
        let mut filter = Filter { docker, ..Filter::default() };
        if !source.is_live() || user != Some(0) {
            return filter;
        }
        if let Some(chain) = run("nft", &["list", "chain", "ip", "filter", "FORWARD"]) {
            filter.add(&chain);
        } else if run("nft", &["list", "tables"]).is_some() {
            filter.drops_forwarded = Some(false);
        }
        let legacy = source.read("proc/net/ip_tables_names").unwrap_or_default();
        if legacy.lines().any(|table| table == "filter") {
            match run("iptables-legacy", &["-S", "FORWARD"]) {
                Some(chain) => filter.add(&chain),
                None if filter.drops_forwarded == Some(false) => filter.drops_forwarded = None,
                None => {}
            }
        }
        filter
    }

    /// Adds a chain as `nft` or as `iptables -S` prints it. One chain that drops is enough.
    fn add(&mut self, chain: &str) {
        let drops = chain.contains("policy drop") || chain.lines().any(|line| line == "-P FORWARD DROP");
        self.drops_forwarded = Some(drops || self.drops_forwarded == Some(true));
        self.accepts_ours |= chain.lines().any(|line| {
            let accepts = line.contains("-j ACCEPT") || line.trim_end().ends_with("accept");
            let words = || line.split_whitespace().map(|word| word.trim_matches('"'));
            let ours = |keys: [&str; 2]| {
                let mut pairs = words().zip(words().skip(1));
                pairs.any(|(key, name)| keys.contains(&key) && name.starts_with(OURS))
            };
            accepts && ours(["-i", "iifname"]) && ours(["-o", "oifname"])
        });
    }
}

/// Standard output of a command that succeeds.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(chains: &[&str]) -> (Option<bool>, bool) {
        let mut filter = Filter::default();
        chains.iter().for_each(|chain| filter.add(chain));
        (filter.drops_forwarded, filter.accepts_ours)
    }

    #[test]
    fn chains_are_read_from_either_command() {
        let ours = "-P FORWARD DROP\n-A FORWARD -i thr+ -o thr+ -j ACCEPT\n-A FORWARD -j DOCKER-USER\n";
        assert_eq!(filter(&[ours]), (Some(true), true));
        assert_eq!(filter(&["-P FORWARD ACCEPT\n"]), (Some(false), false));
        let docker = "-P FORWARD DROP\n-A FORWARD -i docker0 -o docker0 -j ACCEPT\n";
        assert_eq!(filter(&[docker, "-P FORWARD ACCEPT\n"]), (Some(true), false));
        let nft = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\
                   \t\tiifname \"thr*\" oifname \"thr*\" counter packets 0 bytes 0 accept\n\t}\n}\n";
        assert_eq!(filter(&[nft]), (Some(true), true));
        assert_eq!(filter(&[&nft.replace("oifname \"thr*\"", "oifname \"eth0\"")]), (Some(true), false));
        assert_eq!(filter(&[&nft.replace("policy drop", "policy accept")]), (Some(false), true));
    }
}
