//! Who a replica's process is: `user[:group]` of the image or the Compose file, looked up in the replica's own files.

use crate::layers::Layers;
use throng_runtime::{ErrorKind, RuntimeError};

/// Bytes read of the user and group files; more than that is no user database.
const MAX_DATABASE: u64 = 1 << 20;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// From the user database; `/` where it says nothing.
    pub home: String,
    /// The process gets a user namespace of its own, in which the engine's user appears under this id and no other
    /// exists.
    pub apart: bool,
}

/// Ids that exist in a user namespace: first ones and counts, as in `/proc/<pid>/uid_map` (user_namespaces(7)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
}

impl IdMaps {
    /// Those of this process.
    pub fn own() -> Self {
        let read = |file: &str| parse_map(&std::fs::read_to_string(file).unwrap_or_default());
        IdMaps { uids: read("/proc/self/uid_map"), gids: read("/proc/self/gid_map") }
    }

    pub fn hold(&self, identity: &Identity) -> bool {
        let holds =
            |map: &[(u32, u32)], id: u32| map.iter().any(|(first, count)| id.wrapping_sub(*first) < *count);
        holds(&self.uids, identity.uid) && holds(&self.gids, identity.gid)
    }

    /// Whether there is but one user.
    pub fn single(&self) -> bool {
        matches!(self.uids.as_slice(), [(_, 1)])
    }
}

fn parse_map(text: &str) -> Vec<(u32, u32)> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Looks `user` up as Docker does: a number needs no entry; a name does; without a group, the user's own groups.
/// `groups` are further ones, by name or number.
pub fn resolve(user: &str, groups: &[String], layers: &Layers) -> Result<Identity, RuntimeError> {
    let read = |path: &str| {
        layers.read(path, MAX_DATABASE).map(Option::unwrap_or_default).map_err(|e| {
            RuntimeError::new(ErrorKind::Invalid, format!("cannot read {path} of the image: {e}"))
        })
    };
    let database = read("/etc/group")?;
    let mut identity = resolve_in(user, &read("/etc/passwd")?, &database)?;
    for name in groups {
        let group = group_number(name, &database)?;
        if !identity.groups.contains(&group) {
            identity.groups.push(group);
        }
    }
    Ok(identity)
}

fn resolve_in(user: &str, passwd: &str, group: &str) -> Result<Identity, RuntimeError> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    // name:password:uid:gid:comment:home:shell
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.first() == Some(&user) || (fields.get(2) == Some(&user) && user.parse::<u32>().is_ok())
    });
    let number = |index: usize| entry.as_ref().and_then(|e| e.get(index)).and_then(|f| f.parse().ok());
    let Some(uid) = number(2).or_else(|| user.parse().ok()) else {
        return Err(missing("user", user, "/etc/passwd"));
    };
    let home = entry.as_ref().and_then(|e| e.get(5)).filter(|h| !h.is_empty()).map_or("/", |h| h);
    let (gid, groups) = match wanted_group {
        Some(name) => (group_number(name, group)?, vec![]),
        None => {
            let name = entry.as_ref().and_then(|e| e.first()).copied();
            (number(3).unwrap_or(0), name.map(|n| member_of(n, group)).unwrap_or_default())
        }
    };
    Ok(Identity { uid, gid, groups, home: home.to_owned(), apart: false })
}

/// name:password:gid:member,member
fn group_number(name: &str, group: &str) -> Result<u32, RuntimeError> {
    group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .and_then(|fields| fields.get(2)?.parse().ok())
        .or_else(|| name.parse().ok())
        .ok_or_else(|| missing("group", name, "/etc/group"))
}

fn member_of(name: &str, group: &str) -> Vec<u32> {
    group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.get(3).is_some_and(|members| members.split(',').any(|m| m == name)))
        .filter_map(|fields| fields.get(2)?.parse().ok())
        .collect()
}

fn missing(what: &str, name: &str, file: &str) -> RuntimeError {
    RuntimeError::new(ErrorKind::Invalid, format!("no {what} {name:?} in {file} of the image"))
        .hint(format!("add it in the Dockerfile, or write the {what} as a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:40:web,root\n";

    #[test]
    fn mapped_ids_are_known() {
        let one =
            IdMaps { uids: parse_map("         0       1001          1\n"), gids: parse_map("0 1001 1\n") };
        let many = "0 1001 1\n1 100000 65536\n";
        let many = IdMaps { uids: parse_map(many), gids: parse_map(many) };
        let all = IdMaps { uids: parse_map("0 0 4294967295\n"), gids: parse_map("0 0 4294967295\n") };
        assert!(one.single() && !many.single() && !all.single());
        for (uid, gid, in_one, in_many) in [
            (0, 0, true, true),
            (0, 1, false, true),
            (65_534, 65_534, false, true),
            (65_536, 65_536, false, true),
            (65_537, 0, false, false),
        ] {
            let identity = Identity { uid, gid, ..Identity::default() };
            assert_eq!((one.hold(&identity), many.hold(&identity)), (in_one, in_many), "{uid}:{gid}");
            assert!(all.hold(&identity));
        }
    }

    #[test]
    fn users_are_looked_up_as_docker_does() {
        for (user, uid, gid, groups, home) in [
            ("", 0, 0, vec![40], "/root"),
            ("root", 0, 0, vec![40], "/root"),
            ("web", 33, 34, vec![40], "/srv"),
            ("33", 33, 34, vec![40], "/srv"),
            ("web:logs", 33, 40, vec![], "/srv"),
            ("1000", 1000, 0, vec![], "/"),
            ("1000:1001", 1000, 1001, vec![], "/"),
            ("web:", 33, 34, vec![40], "/srv"),
        ] {
            let expected = Identity { uid, gid, groups, home: home.into(), apart: false };
            assert_eq!(resolve_in(user, PASSWD, GROUP).unwrap(), expected, "{user}");
        }
        for user in ["nobody", "web:nogroup", "-1", "4294967296"] {
            assert!(resolve_in(user, PASSWD, GROUP).is_err(), "{user}");
        }
    }
}
